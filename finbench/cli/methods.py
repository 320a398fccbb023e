"""Commands about methods: what there is, an adapter into its base, a learning rate for a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench.cli.cards import DataDir, Json


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (merge, tune, methods):
        app.command()(command)


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, with every option it takes.")] = None,
    as_json: Json = False,
) -> None:
    """Low-rank methods: equation, paper, bits, and what a trained one becomes."""
    from finbench.cli.show import method_tables
    from finbench.methods import METHODS, TUNERS, method_named

    if name is not None:
        found = method_named(name)
        shown = {**found.described(), "option_names": sorted(found.offered())}
        typer.echo(json.dumps(shown, indent=1)) if as_json else method_tables.method(found)
    elif as_json:
        typer.echo(json.dumps([method.described() for method in [*METHODS.values(), *TUNERS.values()]], indent=1))
    else:
        method_tables.methods(METHODS.values(), TUNERS.values())


def merge(
    adapter: Annotated[str, typer.Argument(help="./folder, or hub:org/name[@rev]; of factors too.")],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    base: Annotated[str | None, typer.Option(help="The adapter's base, where bases.yaml does not know it.")] = None,
    onto: Annotated[
        str, typer.Option(help="auto; dequantised: what was trained; bf16: the weights as published.")
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    bits: Annotated[
        int | None, typer.Option(help="16, 8 or 4: of the base that an adapter without finbench.json was trained on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make one 16-bit model of an adapter and its base, or of low-rank factors, and say how close the two are."""
    from finbench.cli.show import runs

    made = finbench.merge(adapter, out, base=base, onto=onto, dtype=dtype, bits=runs.bits(bits))
    if as_json:
        typer.echo(made.to_json().rstrip())
        return
    runs.merged(made, out)


def tune(
    recipe: Annotated[str | None, typer.Argument(help="Recipe: a name of `finbench zoo list` or a YAML file.")] = None,
    budget: Annotated[int, typer.Option(help="Cost in whole trainings: 2^budget rates, halved after each.")] = 3,
    base: Annotated[str | None, typer.Option(help="Alias of `finbench bases`, hub:org/name[@rev] or ./folder.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task to learn, repeatable.")] = None,
    method: Annotated[str | None, typer.Option(help="See `finbench methods`.")] = None,
    bits: Annotated[int | None, typer.Option(help="16, 8 (int8) or 4 (NF4).")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Middle of the range of rates.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows a task, a seeded choice.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default runs/tune-<name>.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other recipe key or option, key=value, repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and how much of it.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Find the learning rate of a recipe on rows held out of train; the same command goes on after a stop."""
    from finbench.cli.cards import overrides
    from finbench.cli.show import runs
    from finbench.training import recipes, search_outline

    named = {"base": base, "tasks": task, "method": method, "bits": bits, "rank": rank, "lr": lr, "limit": limit}
    resolved = recipes.recipe(recipe, overrides(named, set_))
    folder = out or Path("runs") / f"tune-{resolved.name}"
    if dry_run:
        outline = search_outline(resolved, budget=budget, data_dir=data_dir)
        typer.echo(json.dumps(outline, indent=1)) if as_json else runs.outlined(outline, folder)
        return
    tuned, path = finbench.tune(resolved, folder, budget=budget, data_dir=data_dir)
    if as_json:
        typer.echo(tuned.model_dump_json(indent=1))
        return
    runs.tuned(tuned, path)
