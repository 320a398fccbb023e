"""The commands about scorecards (compare, verify, report, card import, card export), and lm-eval's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import finbench
from finbench.core.errors import FinbenchError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Data directory; else $FINBENCH_DATA, else the cache.")
]
Cards = Annotated[list[Path], typer.Argument(help="Scorecards (.json), or folders of them.")]

_EXAMPLES = {"--set": "rank=8", "--arg": "dtype=float32", "--metadata": "agreement=75"}

card_app = typer.Typer(no_args_is_help=True, help="Scorecards of others in, ours out in other formats.")


def register(app: typer.Typer) -> None:
    """Hang the commands into the command line."""
    app.command()(compare)
    app.command()(verify)
    app.command()(report)
    app.command("lm-eval", context_settings={"ignore_unknown_options": True, "help_option_names": []})(lm_eval)
    app.add_typer(card_app, name="card")


def pairs(stated: Iterable[str], option: str) -> dict[str, str]:
    """``key=value`` texts of an option, by key."""
    found = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise FinbenchError(
                f"{option} takes key=value, got {text!r}.", f"For example: {option} {_EXAMPLES[option]}"
            )
        found[key] = value
    return found


def overrides(named: Mapping[str, Any], stated: Iterable[str] | None) -> dict[str, Any]:
    """What a command line says of a recipe: the options of its own that were given, and ``--set``, which goes first."""
    return {**{key: value for key, value in named.items() if value is not None}, **settings(stated or [])}


def settings(stated: Iterable[str]) -> dict[str, Any]:
    """``--set``: recipe keys and their values, which are YAML."""
    import yaml

    try:
        return {key: yaml.safe_load(value) for key, value in pairs(stated, "--set").items()}
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"--set: not a YAML value ({str(fault).splitlines()[0]}).",
            "Quote the whole: --set 'target_modules=[q_proj,v_proj]'",
        ) from fault


def _named(tasks: str | None) -> list[str]:
    return [name.strip() for name in (tasks or "").split(",") if name.strip()]


def compare(
    cards: Cards,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, by comma.")] = None,
    show: Annotated[int, typer.Option(help="Differing documents to list for each task.")] = 5,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Is the first card's subject better than the others: by how much, how sure, and what would settle it."""
    found = finbench.compare(cards, tasks=_named(tasks), data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps([pair.as_dict() for pair in found], indent=1))
        return
    from finbench.cli.show import scorecards

    scorecards.compared(found, show)


def verify(
    card: Annotated[Path, typer.Argument(help="Scorecard (.json), its samples beside it.")],
    rerun: Annotated[int, typer.Option(help="Documents of each task to ask the model again.")] = 0,
    adapter: Annotated[str | None, typer.Option(help="The card's adapter, for --rerun.")] = None,
    base: Annotated[str | None, typer.Option(help="The card's base, where bases.yaml does not know it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the documents to ask again.")] = 0,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Recompute everything in a scorecard that can be recomputed; exit 1 and name the field if anything is wrong."""
    found = finbench.verify(card, rerun=rerun, adapter=adapter, base=base, seed=seed, data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
    else:
        from finbench.cli.show import scorecards

        scorecards.verified(found)
    if found.faults:
        raise typer.Exit(1)


def report(
    cards: Cards,
    format_: Annotated[str, typer.Option("--format", help="md, latex or html.")] = "md",
    spread: Annotated[str, typer.Option(help="interval: 95 % over documents; seeds: mean and deviation.")] = "interval",
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, by comma.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write, with its plots beside it.")] = None,
    as_json: Json = False,
) -> None:
    """A table as in a paper: best in bold only where the difference is significant; with plots."""
    text = finbench.report(cards, format=format_, spread=spread, tasks=_named(tasks), out=out)
    if as_json:
        typer.echo(json.dumps({"format": format_, "text": text, "out": str(out) if out else None}, indent=1))
    elif out is None:
        typer.echo(text.rstrip())
    else:
        typer.echo(f"Report: {out}")


def lm_eval(
    arguments: Annotated[list[str] | None, typer.Argument(help="As for lm_eval: run --model finbench ...")] = None,
) -> None:
    """lm-eval's own command line; `--model finbench` is its `hf` with shared prefixes run once."""
    from finbench.cli import harness

    harness.run(arguments or ["--help"])


@card_app.command("import")
def card_import(
    folder: Annotated[Path, typer.Argument(help="Output folder of lm_eval (results_*.json and samples_*.jsonl).")],
    out: Annotated[Path, typer.Option(help="Folder for the scorecards.")] = Path("scorecards"),
    name: Annotated[str | None, typer.Option(help="Name of the subject; default: that of the model.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Scorecards from what stock lm_eval wrote with --log_samples: every answer is scored again by us."""
    from finbench.evaluation import import_card

    _show(import_card(folder, out=out, name=name, data_dir=data_dir), out, as_json)


def _show(cards: Any, out: Path, as_json: bool) -> None:
    from finbench.cli.show import runs

    if as_json:
        typer.echo(json.dumps([json.loads(card.to_json()) for card in cards], indent=1))
    else:
        runs.scored(cards, out)


@card_app.command("export")
def card_export(
    card: Annotated[Path, typer.Argument(help="Scorecard (.json).")],
    format_: Annotated[str, typer.Option("--format", help="eval-results, model-index, every-eval-ever or lm-eval.")],
    model: Annotated[str | None, typer.Option(help="Hub id of the subject, org/name.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("export"),
    as_json: Json = False,
) -> None:
    """A scorecard in another format: for the Hub, for Every Eval Ever, or as lm-eval's own results."""
    from finbench.cards import export_card

    written = export_card(card, format=format_, out=out, model=model)
    typer.echo(json.dumps([str(path) for path in written], indent=1) if as_json else "\n".join(map(str, written)))
