"""The commands about scorecards (compare, verify, report, card import, card export), and lm-eval's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench import evaluation
from finbench.cli import show
from finbench.cli.command import DataDir, Found
from finbench.cli.evaluation import scored

Cards = Annotated[list[Path], "Scorecards (.json), or folders of them."]
Tasks = Annotated[str | None, "Only these tasks, by comma."]


def _named(tasks: str | None) -> list[str]:
    return [name.strip() for name in (tasks or "").split(",") if name.strip()]


def compare(
    cards: Cards,
    tasks: Tasks = None,
    show: Annotated[int, "Differing documents to list for each task."] = 5,
    data_dir: DataDir = None,
) -> Found:
    """Is the first card's subject better than the others: by how much, how sure, and what would settle it."""

    from finbench.cli.show import scorecards

    found = finbench.compare(cards, tasks=_named(tasks), data_dir=data_dir)
    return Found([pair.as_dict() for pair in found], lambda: scorecards.compared(found, show))


def verify(
    card: Annotated[Path, "Scorecard (.json), its samples beside it."],
    rerun: Annotated[int, "Documents of each task to ask the model again."] = 0,
    adapter: Annotated[str | None, "The card's adapter, for --rerun."] = None,
    base: Annotated[str | None, "The card's base, where bases.yaml does not know it."] = None,
    seed: Annotated[int, "Seed of the documents to ask again."] = 0,
    data_dir: DataDir = None,
) -> Found:
    """Recompute everything in a scorecard that can be recomputed; exit 1 and name the field if anything is wrong."""

    found = finbench.verify(card, rerun=rerun, adapter=adapter, base=base, seed=seed, data_dir=data_dir)
    fault = typer.Exit(1) if found.faults else None
    return Found(found.as_dict(), lambda: show.scorecards.verified(found), fault)


def report(
    cards: Cards,
    format_: Annotated[str, "--format", "md, latex or html."] = "md",
    spread: Annotated[str, "interval: 95 % over documents; seeds: mean and deviation."] = "interval",
    tasks: Tasks = None,
    out: Annotated[Path | None, "File to write, with its plots beside it."] = None,
) -> Found:
    """A table as in a paper: best in bold only where the difference is significant; with plots."""
    text = finbench.report(cards, format=format_, spread=spread, tasks=_named(tasks), out=out)
    value = {"format": format_, "text": text, "out": str(out) if out else None}
    return Found(value, lambda: typer.echo(f"Report: {out}" if out else text.rstrip()))


def lm_eval(
    arguments: Annotated[list[str] | None, typer.Argument(help="As for lm_eval: run --model finbench ...")] = None,
) -> None:
    """lm-eval's own command line; `--model finbench` is its `hf` with shared prefixes run once."""
    evaluation.run_lm_eval(arguments or ["--help"])


def card_import(
    folder: Annotated[Path, "Output folder of lm_eval (results_*.json and samples_*.jsonl)."],
    out: Annotated[Path, "Folder for the scorecards."] = Path("scorecards"),
    name: Annotated[str | None, "Name of the subject; default: that of the model."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Scorecards from what stock lm_eval wrote with --log_samples: every answer is scored again by us."""
    return scored(finbench.import_card(folder, out=out, name=name, data_dir=data_dir), out)


def card_export(
    card: Annotated[Path, "Scorecard (.json)."],
    format_: Annotated[str, typer.Option("--format", help="eval-results, model-index, every-eval-ever or lm-eval.")],
    model: Annotated[str | None, "Hub id of the subject, org/name."] = None,
    out: Annotated[Path, "Folder to write into."] = Path("export"),
) -> Found:
    """A scorecard in another format: for the Hub, for Every Eval Ever, or as lm-eval's own results."""
    written = [str(path) for path in finbench.export_card(card, format=format_, out=out, model=model)]
    return Found(written, lambda: typer.echo("\n".join(written)))
