"""Commands about data sets: import, list, lock, xbrl, audit; and about rows of your own: check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finbench import data
from finbench.cli import command, show
from finbench.cli.command import DataDir, Found, echo
from finbench.core.errors import FinbenchError


def data_import(
    name: Annotated[str, "Set, such as fpb: finbench data list."],
    files: Annotated[
        list[Path] | None, typer.Argument(help="The authors' files, folders or zip archives; default: from the Hub.")
    ] = None,
    data_dir: DataDir = None,
    skip_bad: Annotated[bool, "--skip-bad", "Leave rows out that cannot be read, and count them."] = False,
) -> Found:
    """Turn the authors' original files into canonical rows: deduplicated, split, with digests."""
    report = data.import_data(name, files or [], data_dir, skip_bad)
    return Found(data.describe_set(report.set, data_dir), lambda: show.listings.imported(report))


def data_xbrl(
    filings: Annotated[list[Path] | None, typer.Argument(help="XBRL filings: files, folders or zips.")] = None,
    out: Annotated[Path | None, "--out", "--data-dir", "Data directory; else $FINBENCH_DATA, else the cache."] = None,
    filed_after: Annotated[
        str | None, "Only filings after this date (YYYY-MM-DD): newer than a model's training data."
    ] = None,
    max_context: Annotated[
        int | None, "Characters of facts a row may show (two to three a token); else all of them."
    ] = None,
    seed: Annotated[int, "Seed of wordings and of the facts shown."] = 0,
    test_company: Annotated[
        list[str] | None, "Ticker, CIK or name held out as test, repeatable; else every filing is test."
    ] = None,
    finlora: Annotated[
        list[Path] | None, "FinLoRA's published CSV, repeatable: its questions about these filings too."
    ] = None,
    taxonomy: Annotated[
        list[Path] | None, "A taxonomy package (zip), repeatable: Arelle, if installed, checks the numbers with it."
    ] = None,
) -> Found:
    """Turn XBRL filings into questions on tags, values, formulas and their results, with checked answers."""
    built = data.xbrl.build_questions(
        filings or [],
        out,
        filed_after=filed_after,
        max_context=max_context,
        seed=seed,
        test_companies=test_company or [],
        finlora=finlora or [],
        taxonomy=taxonomy or [],
    )
    return Found(built.as_dict(), lambda: echo("\n".join(built.lines())))


def data_lock() -> Found:
    """Pin every data set on the Hub to its present commit (tasks/datasets.lock)."""
    found = data.lock_sets()
    return Found(found, lambda: show.listings.locked(found, data.lock_file()))


def data_list(data_dir: DataDir = None) -> Found:
    """Every data set: rows and licence, or the command that imports it."""
    from finbench.core import catalog

    tasks = {task.set: task for task in catalog.tasks().values() if not task.shipped}
    found = {name: data.describe_set(name, data_dir) for name in tasks}
    return Found(found, lambda: show.listings.data_sets(tasks, found))


def data_audit(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, zips, sets that are here, hub:org/name\\[@rev]; default: every set here."),
    ] = None,
    against: Annotated[
        list[str] | None, "Training files, or sets that are here, repeatable: which test texts of WHAT are in them?"
    ] = None,
    map_: Annotated[
        str | None, "--map", "Which columns are what, where their names do not say it: text=body,answer=grade."
    ] = None,
    strict: Annotated[bool, "--strict", "Exit 1 on an error, a warning, or what could not be read."] = False,
    data_dir: DataDir = None,
) -> Found:
    """What is wrong with data: leaks, swapped labels, duplicates, impossible answers, encoding faults, and more."""
    from finbench.core.console import out

    audit = data.audit
    if against:
        if map_:
            raise FinbenchError("--against reads every column: it takes no --map.", "Leave it out.")
        found = audit.audit_against(what or [], against, data_dir)
    else:
        found = audit.audit(what or [], data_dir, command.columns([map_]) if map_ else None)

    def shown() -> None:
        for piece in audit.audit_tables(found):
            out.print(piece, highlight=False, soft_wrap=isinstance(piece, str))

    return Found(found, shown, typer.Exit(1) if strict and (found.faults or found.unread) else None)


def data_check(
    files: Annotated[
        list[str], typer.Argument(help="Rows of your own: files, folders, hub:org/name\\[@rev].", show_default=False)
    ],
    base: Annotated[str | None, "The base whose tokens are counted, and whose chat template is used."] = None,
    map_: Annotated[
        list[str] | None,
        "--map",
        "Which columns are what: prompt=question,completion=answer; of one file: FILE:prompt=q,...",
    ] = None,
    set_: Annotated[
        list[str] | None, "--set", "Any recipe key, key=value: max_length, long_rows, bad_rows, chat; repeatable."
    ] = None,
    data_dir: DataDir = None,
) -> Found:
    """What would be learnt of rows of your own: format, lengths, examples, what is left out and why.

    Exit 1 where finbench train would refuse them.
    """
    import finbench
    from finbench.training import recipes

    stated = {"data": files, "base": base, "map": command.columns(map_) if map_ else None}
    named = {key: value for key, value in stated.items() if value is not None}
    found = finbench.check_data(recipes.recipe(None, {**named, **command.settings(set_ or [])}), data_dir)
    fault = next((one.fault for one in found if one.fault), None)
    return Found([one.as_dict() for one in found], lambda: show.own_rows.checked(found), fault)
