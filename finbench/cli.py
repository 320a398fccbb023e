"""The command line: parse, call one function, print. Everything heavy is imported inside a command."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from finbench import __version__, cli_data, cli_hub
from finbench.cli_cards import DataDir, Json, register
from finbench.errors import FinbenchError

app = typer.Typer(
    name="finbench",
    help="Train low-rank adapters for financial language models, score them honestly, publish them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: finbench demo",
)
tasks_app = typer.Typer(no_args_is_help=True, help="The exams: list, show, check; where they lie for lm-eval.")
data_app = typer.Typer(no_args_is_help=True, help="Data sets: import the authors' files, list what is here.")
zoo_app = typer.Typer(no_args_is_help=True, help="Published adapters and recipes: list, show, add.")
app.add_typer(tasks_app, name="tasks")
app.add_typer(data_app, name="data")
app.add_typer(zoo_app, name="zoo")

register(app)
cli_data.register(data_app)
cli_hub.register(app, zoo_app)


def main() -> None:
    """Entry point: a FinbenchError becomes one message on stderr and its exit code; a bug shows its trace."""
    try:
        app()
    except FinbenchError as fault:
        _fail(fault.message, fault.hint, fault.exit_code, fault)
    except OSError as fault:
        no_temporary = "No usable temporary directory" in str(fault)  # what a full disk does to Python's tempfile
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) and not no_temporary:
            raise
        place = f" ({fault.filename})" if fault.filename else ""
        _fail(f"Cannot write: {fault.strerror}{place}.", "Free some space, then repeat the command.", 1, fault)


def _fail(message: str, hint: str, code: int, fault: Exception) -> None:
    from rich.text import Text

    from finbench.console import err

    if os.environ.get("FINBENCH_DEBUG"):
        raise fault
    stopped = code == 130
    err.print(
        Text.assemble(("" if stopped else "error: ", "bold red"), (message, "yellow" if stopped else "")),
        soft_wrap=True,
    )
    if hint:
        err.print(Text(hint), soft_wrap=True)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _pairs(stated: Iterable[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise FinbenchError(f"{option} wants key=value, got {text!r}.")
        pairs[key] = value
    return pairs


# ---------------------------------------------------------------- train and eval


@app.command()
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
        list[str] | None, typer.Option("--set", help="Any other recipe key, key=value, repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train an adapter (Ctrl-C keeps everything so far; --resume goes on exactly)."""
    import yaml

    from finbench import catalog

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
    try:
        extra = {key: yaml.safe_load(value) for key, value in _pairs(set_ or [], "--set").items()}
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise FinbenchError(f"--set: not a YAML value ({str(fault).splitlines()[0]}).") from fault
    resolved = catalog.recipe(recipe, {**named, **extra})
    folder = out or Path("runs") / resolved.name

    from finbench import training

    result = training.train(resolved, folder, data_dir=data_dir, resume=resume, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(result, indent=1) if isinstance(result, dict) else result.to_json().rstrip())
        return
    from finbench import views

    if isinstance(result, dict):
        views.planned(result, folder)
    else:
        views.trained(result, folder)


@app.command("eval")
def eval_(
    adapter: Annotated[
        list[str] | None, typer.Option(help="./folder, hub:org/name[@rev] or zoo:name; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Examine this base alone.")] = None,
    base: Annotated[str | None, typer.Option(help="The adapters' base, where bases.yaml does not know it.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks or groups, by comma; default: the recipe's.")] = None,
    engine: Annotated[str, typer.Option(help="auto, hf or dummy.")] = "auto",
    bits: Annotated[int | None, typer.Option(help="16, 8 or 4; default: as trained.")] = None,
    chat: Annotated[bool | None, typer.Option("--chat/--no-chat", help="Chat template; default: as trained.")] = None,
    shots: Annotated[int, typer.Option(help="Worked examples a prompt, from the train split.")] = 0,
    limit: Annotated[int | None, typer.Option(help="First rows of each task only: a partial card.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the worked examples.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for scorecards and report.")] = Path("scorecards"),
    arg: Annotated[list[str] | None, typer.Option(help="dtype=, batch_size=, merge=no, truncate=left.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Of a data set: agreement=75 (fpb).")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Score adapters beside their base: scorecards, a table, report.md and report.html."""
    from finbench import evaluation, views

    cards = evaluation.evaluate(
        adapter or [],
        model=model,
        base=base,
        tasks=[name for name in (tasks or "").split(",") if name.strip()],
        engine=engine,
        bits=views.bits(bits),
        chat=chat,
        shots=shots,
        limit=limit,
        seed=seed,
        out=out,
        data_dir=data_dir,
        arguments=_pairs(arg or [], "--arg"),
        metadata=_pairs(metadata or [], "--metadata"),
    )
    _show_cards(cards, out, as_json)


def _show_cards(cards: Any, out: Path, as_json: bool) -> None:
    from finbench import views

    if as_json:
        typer.echo(json.dumps([json.loads(card.to_json()) for card in cards], indent=1))
    else:
        views.scored(cards, out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """The whole path in a few minutes: train a small adapter, score it beside its base, show the result."""
    from finbench import demo as demonstration

    _show_cards(demonstration.demo(out), out / "scorecards", as_json)
    if not as_json:
        typer.echo("Next: finbench train --task mini_ner, or a real set: finbench data list")


# ---------------------------------------------------------------- tasks, data, zoo


@tasks_app.command("list")
def tasks_list(as_json: Json = False) -> None:
    """Every task and group."""
    from finbench import catalog, views

    found = catalog.tasks()
    if as_json:
        typer.echo(json.dumps({name: task.model_dump() for name, task in found.items()}, indent=1))
    else:
        views.tasks(found.values(), catalog.groups())


@tasks_app.command("show")
def tasks_show(name: Annotated[str, typer.Argument(help="Task, such as fpb.")], as_json: Json = False) -> None:
    """One task: what it measures, its data, and its prompt as a model sees it, on an invented example."""
    from finbench import catalog, examcheck, views

    found = catalog.expand([name])
    shown = [{**task.model_dump(), "golden_prompt": examcheck.golden_prompt(task)} for task in found]
    if as_json:
        typer.echo(json.dumps(shown, indent=1))
    else:
        views.task_details(shown)


@tasks_app.command("path")
def tasks_path(as_json: Json = False) -> None:
    """The folder for lm-eval: lm_eval run --include_path "$(finbench tasks path)" --tasks finbench_fpb"""
    from finbench import paths

    folder = str(paths.shipped("tasks"))
    typer.echo(json.dumps(folder) if as_json else folder)


@tasks_app.command("check")
def tasks_check(
    write: Annotated[bool, typer.Option("--write", help="Refresh the golden prompts.")] = False, as_json: Json = False
) -> None:
    """Check every task and recipe: all findings at once, exit 1 if there is one."""
    from finbench import catalog, check

    findings = check.check(write)
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    elif findings:
        raise FinbenchError("\n".join(findings), f"{len(findings)} findings.")
    else:
        counts = (len(catalog.tasks()), len(catalog.groups()), len(catalog.recipe_files()))
        typer.echo("{} tasks, {} groups, {} recipes: all well.".format(*counts))
    if findings:
        raise typer.Exit(1)


@data_app.command("import")
def data_import(
    name: Annotated[str, typer.Argument(help="Set, such as fpb: finbench data list.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="The authors' files, folders or zip archives; default: from the Hub.")
    ] = None,
    data_dir: DataDir = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave rows out that cannot be read, and count them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn the authors' original files into canonical rows: deduplicated, split, with digests."""
    from finbench import views
    from finbench.data.sources import describe, import_data

    report = import_data(name, files or [], data_dir, skip_bad)
    if as_json:
        typer.echo(json.dumps(describe(report.set, data_dir), indent=1))
    else:
        views.imported(report)


@data_app.command("xbrl")
def data_xbrl(
    filings: Annotated[list[Path] | None, typer.Argument(help="XBRL filings: files, folders or zips.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--data-dir", help="Data directory; else $FINBENCH_DATA, else the cache.")
    ] = None,
    filed_after: Annotated[
        str | None, typer.Option(help="Only filings after this date (YYYY-MM-DD): newer than a model's training data.")
    ] = None,
    max_context: Annotated[
        int | None, typer.Option(help="Characters of facts a row may show (two to three a token); else all of them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of wordings and of the facts shown.")] = 0,
    test_company: Annotated[
        list[str] | None,
        typer.Option(help="Ticker, CIK or name held out as test, repeatable; else every filing is test."),
    ] = None,
    finlora: Annotated[
        list[Path] | None,
        typer.Option(help="FinLoRA's published CSV, repeatable: its questions about these filings too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn XBRL filings into questions on tags, values, formulas and their results, with checked answers."""
    from finbench.data.xbrl.build import as_json as report
    from finbench.data.xbrl.build import build

    built = build(
        filings or [],
        out,
        filed_after=filed_after,
        max_context=max_context,
        seed=seed,
        test_companies=test_company or [],
        finlora=finlora or [],
    )
    typer.echo(report(built) if as_json else "\n".join(built.lines()))


@data_app.command("lock")
def data_lock(as_json: Json = False) -> None:
    """Pin every data set that lies on the Hub to its present commit (tasks/datasets.lock)."""
    from finbench import views
    from finbench.data import sources

    found = sources.lock()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        views.locked(found, sources.lock_file())


@data_app.command("list")
def data_list(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Every data set: rows and licence, or the command that imports it."""
    from finbench import catalog, views
    from finbench.data.sources import describe

    tasks = {task.set: task for task in catalog.tasks().values() if not task.shipped}
    found = {name: describe(name, data_dir) for name in tasks}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        views.data_sets(tasks, found)


@app.command()
def bases(as_json: Json = False) -> None:
    """Base models by alias."""
    from finbench import catalog, views

    found = catalog.bases()
    if as_json:
        typer.echo(json.dumps({alias: base.model_dump() for alias, base in found.items()}, indent=1))
    else:
        views.bases(found.values())


@app.command()
def methods(as_json: Json = False) -> None:
    """Low-rank methods: equation, paper, bits, and what a trained one becomes."""
    from finbench import views
    from finbench.methods import METHODS

    if as_json:
        shown: list[dict[str, Any]] = [
            {
                "name": m.name,
                "summary": m.summary,
                "equation": m.equation,
                "paper": m.paper,
                "bits": m.bits,
                "becomes": m.becomes,
            }
            for m in METHODS.values()
        ]
        typer.echo(json.dumps(shown, indent=1))
    else:
        views.methods(METHODS.values())


@app.command()
def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """What of this machine finbench can use, what is missing, and what to type."""
    from finbench import doctor as examination
    from finbench import views

    findings = examination.examine(data_dir)
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        views.doctor(findings)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
