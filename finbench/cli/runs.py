"""Commands that do the work: train, eval, demo, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import finbench
from finbench.cli.options import DataDir, Json, RecipeOptions, taking
from finbench.core.settings import Evaluation


def register(app: typer.Typer) -> None:
    """Hang the commands into the command line."""
    app.command()(train)
    app.command()(plan)
    app.command("eval")(eval_)
    app.command()(serve)
    app.command()(demo)
    app.command()(doctor)


@taking(RecipeOptions, "Recipe")
def train(
    stated: RecipeOptions,
    out: Annotated[Path | None, typer.Option(help="Adapter folder; default runs/<name>.")] = None,
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
    from finbench.training import process_count

    resolved = stated.resolved()
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


@taking(RecipeOptions, "Recipe")
def plan(
    stated: RecipeOptions,
    gpu: Annotated[
        str, typer.Option(help="h100, h200, a100-80, a100-40, rtx4090, rtx3090, a6000, a5000, l4; cpu: this machine.")
    ] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="Cards that share the rows.")] = 1,
    shape: Annotated[
        str | None, typer.Option(help="Plan for a base of this size, unfetched: llama-3.1-8b, llama-3.1-70b ...")
    ] = None,
    price: Annotated[float | None, typer.Option(help="An hour of a card, in any currency.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Memory, time and cost of a training, before it is paid for; refuses what cannot fit."""
    from finbench.cli.show import runs

    found = finbench.plan(stated.resolved(), gpu, price=price, shape=shape, processes=gpus, data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        runs.costs(found)


@taking(Evaluation)
def eval_(stated: Evaluation, as_json: Json = False) -> None:
    """Score adapters beside their base: scorecards, a table, report.md and report.html."""
    from finbench.evaluation import evaluate

    _show_cards(evaluate(**vars(stated)), stated.out, as_json)


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
    from finbench.core.console import say
    from finbench.evaluation import evaluate
    from finbench.training import recipes

    say("1. Train a LoRA adapter of smollm2-135m on 600 invented news sentences.")
    adapter, scorecards = (out / "adapter").resolve(), out / "scorecards"
    recipe = recipes.recipe("mini-sentiment-smollm2-135m-lora")
    finbench.train(recipe, adapter, resume=(adapter / "checkpoints").is_dir())  # one that is finished is not done again
    say("2. Score the base and the adapter on 150 sentences about companies and with words they have not seen.")
    _show_cards(evaluate(str(adapter), out=scorecards), scorecards, as_json)
    if not as_json:
        typer.echo("Next: finbench train --task mini_ner, or a real set: finbench data list")


def serve(
    adapter: Annotated[list[str], typer.Option(help="./folder, hub:org/name\\[@rev] or zoo:name; repeatable.")],
    base: Annotated[str | None, typer.Option(help="The adapters' base, where bases.yaml does not know it.")] = None,
    host: Annotated[str, typer.Option(help="Elsewhere than on this machine only with a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that share the base.")] = 1,
) -> None:
    """Serve a base and its adapters by vLLM's OpenAI server, each under its own name (Ctrl-C ends it).

    A key in FINBENCH_SERVE_KEY is required on every route.
    """
    from finbench.cli import options
    from finbench.cli.show import runs

    with finbench.serve(
        adapter, base=base, host=host, port=port, dtype=options.dtype(dtype), tensor_parallel=tensor_parallel
    ) as server:
        runs.serving(server)
        server.wait()


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what keeps an installed vLLM from running.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What of this machine finbench can use, what is missing, and what to type."""
    from finbench.cli.show import runs
    from finbench.evaluation import examine_machine

    if fix:
        from finbench.engines.vllm import installation

        for line in installation.mend():
            typer.echo(line, err=True)
    findings = examine_machine(data_dir)
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        runs.doctor(findings)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
