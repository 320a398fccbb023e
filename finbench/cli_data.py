"""The commands that look at data: data audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finbench.cli_cards import DataDir, Json


def register(app: typer.Typer) -> None:
    """Hang the commands into ``finbench data``."""
    app.command("audit")(data_audit)


def data_audit(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, zips, sets that are here, hub:org/name[@rev]; default: every set here."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Your training files, repeatable: which test texts of these sets are in them?"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there is an error or a warning.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What is wrong with data: leaks, swapped labels, duplicates, impossible answers, encoding faults, and more."""
    from finbench.console import out
    from finbench.data.audit import audit
    from finbench.data.audit.against import against as held_against
    from finbench.data.audit.show import terminal

    found = held_against(what or [], against, data_dir) if against else audit(what or [], data_dir)
    if as_json:
        typer.echo(found.to_json().rstrip())
    else:
        for piece in terminal(found):
            out.print(piece, highlight=False, soft_wrap=isinstance(piece, str))
    if strict and found.faults:
        raise typer.Exit(1)
