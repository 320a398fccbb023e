"""Commands that do the work: train, eval, demo, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import finbench
from finbench.cli.cards import DataDir, Json, overrides, pairs


def register(app: typer.Typer) -> None:
    """Hang the commands into the command line."""
    app.command()(train)
    app.command()(plan)
    app.command("eval")(eval_)
    app.command()(serve)
    app.command()(demo)
    app.command()(doctor)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe: a name of `finbench zoo list` or a YAML file.")] = None,
    base: Annotated[str | None, typer.Option(help="Alias of `finbench bases`, hub:org/name[@rev] or ./folder.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task to learn, repeatable; fpb:0.5 takes half its rows.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="See `finbench methods`.")] = None,
    bits: Annotated[int | None, typer.Option(help="16, 8 (int8) or 4 (NF4).")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and order.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows a task, a seeded choice.")] = None,
    out: Annotated[Path | None, typer.Option(help="Adapter folder; default runs/<name>.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other recipe key or option, key=value, repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    gpus: Annotated[int | None, typer.Option(help="GPUs that share the rows of every step.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes that do, on the processor: --gpus without a GPU.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train an adapter (Ctrl-C keeps everything so far; --resume goes on exactly)."""
    from finbench.training import process_count, recipes

    named = {
        "base": base,
        "tasks": task,
        "method": method,
        "bits": bits,
        "rank": rank,
        "lr": lr,
        "epochs": epochs,
        "seed": seed,
        "limit": limit,
    }
    resolved = recipes.recipe(recipe, overrides(named, set_))
    folder = out or Path("runs") / resolved.name

    workers = process_count(gpus, processes)
    result = finbench.train(resolved, folder, data_dir=data_dir, resume=resume, dry_run=dry_run, processes=workers)
    if as_json:
        typer.echo(json.dumps(result, indent=1) if isinstance(result, dict) else result.to_json().rstrip())
        return
    from finbench.cli.show import runs

    if isinstance(result, dict):
        runs.planned(result, folder)
    else:
        runs.trained(result, folder, resolved.base)


def plan(
    recipe: Annotated[str | None, typer.Argument(help="Recipe: a name of `finbench zoo list` or a YAML file.")] = None,
    gpu: Annotated[
        str, typer.Option(help="h100, h200, a100-80, a100-40, rtx4090, rtx3090, a6000, a5000, l4; cpu: this machine.")
    ] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="Cards that share the rows.")] = 1,
    shape: Annotated[
        str | None, typer.Option(help="Plan for a base of this size, unfetched: llama-3.1-8b, llama-3.1-70b ...")
    ] = None,
    price: Annotated[float | None, typer.Option(help="An hour of a card, in any currency.")] = None,
    base: Annotated[str | None, typer.Option(help="Alias of `finbench bases`, hub:org/name[@rev] or ./folder.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task to learn, repeatable.")] = None,
    method: Annotated[str | None, typer.Option(help="See `finbench methods`.")] = None,
    bits: Annotated[int | None, typer.Option(help="16, 8 (int8) or 4 (NF4).")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the update.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows a task, a seeded choice.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any recipe key or option, key=value, repeatable.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Memory, time and cost of a training, before it is paid for; refuses what cannot fit."""
    from finbench.cli.show import plans
    from finbench.training import recipes

    named = {"base": base, "tasks": task, "method": method, "bits": bits, "rank": rank}
    resolved = recipes.recipe(recipe, overrides({**named, "epochs": epochs, "limit": limit}, set_))
    found = finbench.plan(resolved, gpu, price=price, shape=shape, processes=gpus, data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        plans.costs(found)


def eval_(
    adapter: Annotated[
        list[str] | None, typer.Option(help="./folder, hub:org/name[@rev] or zoo:name; repeatable.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Evaluate this base alone; of engine server: the model's name there.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The adapters' base, where bases.yaml does not know it.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks or groups, by comma; default: the recipe's.")] = None,
    engine: Annotated[str, typer.Option(help="auto, hf, vllm, server or dummy.")] = "auto",
    bits: Annotated[int | None, typer.Option(help="16, 8 or 4; default: as trained.")] = None,
    chat: Annotated[bool | None, typer.Option("--chat/--no-chat", help="Chat template; default: as trained.")] = None,
    shots: Annotated[int, typer.Option(help="Worked examples a prompt, from the train split.")] = 0,
    limit: Annotated[int | None, typer.Option(help="First rows of each task only: a partial card.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the worked examples.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for scorecards and report.")] = Path("scorecards"),
    arg: Annotated[
        list[str] | None,
        typer.Option(
            help="dtype=, batch_size=, truncate=left, labels=best; hf: merge=no; vllm: tensor_parallel=2; server: url=."
        ),
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Of a data set: agreement=75 (fpb).")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Score adapters beside their base: scorecards, a table, report.md and report.html."""
    from finbench.cli.show import runs
    from finbench.evaluation import evaluate

    cards = evaluate(
        adapter or [],
        model=model,
        base=base,
        tasks=[name for name in (tasks or "").split(",") if name.strip()],
        engine=engine,
        bits=runs.bits(bits),
        chat=chat,
        shots=shots,
        limit=limit,
        seed=seed,
        out=out,
        data_dir=data_dir,
        arguments=pairs(arg or [], "--arg"),
        metadata=pairs(metadata or [], "--metadata"),
    )
    _show_cards(cards, out, as_json)


def _show_cards(cards: Any, out: Path, as_json: bool) -> None:
    from finbench.cli.show import runs

    if as_json:
        typer.echo(json.dumps([json.loads(card.to_json()) for card in cards], indent=1))
    else:
        runs.scored(cards, out)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """The whole path in a few minutes: train a small adapter, score it beside its base, show the result."""
    from finbench.cli import demo as demonstration

    _show_cards(demonstration.demo(out), out / "scorecards", as_json)
    if not as_json:
        typer.echo("Next: finbench train --task mini_ner, or a real set: finbench data list")


def serve(
    adapter: Annotated[list[str], typer.Option(help="./folder, hub:org/name[@rev] or zoo:name; repeatable.")],
    base: Annotated[str | None, typer.Option(help="The adapters' base, where bases.yaml does not know it.")] = None,
    host: Annotated[str, typer.Option(help="Elsewhere than on this machine only with a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that share the base.")] = 1,
) -> None:
    """Serve a base and its adapters by vLLM's OpenAI server, each under its own name (Ctrl-C ends it).

    A key in FINBENCH_SERVE_KEY is required on every route.
    """
    from finbench.cli.show import runs

    with finbench.serve(
        adapter, base=base, host=host, port=port, dtype=runs.dtype(dtype), tensor_parallel=tensor_parallel
    ) as server:
        runs.serving(server)
        server.wait()


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what keeps an installed vLLM from running.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What of this machine finbench can use, what is missing, and what to type."""
    from finbench.cli import doctor as examination
    from finbench.cli.show import runs

    if fix:
        from finbench.engines.vllm import installation

        for line in installation.mend():
            typer.echo(line, err=True)
    findings = examination.examine(data_dir)
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        runs.doctor(findings)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
