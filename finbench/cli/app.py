"""The command line, put together from the modules of this folder: parse, call one function, print.

Everything heavy is imported inside a command.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from finbench.cli import cards, data, hub, leaderboard, methods, pretrain, runs, sweep, tasks
from finbench.core.errors import FinbenchError
from finbench.core.version import __version__

app = typer.Typer(
    name="finbench",
    help="Train low-rank adapters for financial language models, score them honestly, publish them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: finbench demo",
)
for part in (runs, methods, pretrain, sweep, cards, tasks, data, leaderboard, hub):
    part.register(app)


def main() -> None:
    """Entry point: a FinbenchError becomes one message on stderr and its exit code; a bug shows its trace."""
    try:
        app()
    except FinbenchError as fault:
        _fail(fault.message, fault.hint, fault.exit_code, fault)
    except OSError as fault:
        no_temporary = "No usable temporary directory" in str(fault)  # what a full disk does to Python's tempfile
        place = f" ({fault.filename})" if fault.filename else ""
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) or no_temporary:
            _fail(f"Cannot write: {fault.strerror}{place}.", "Free some space, then repeat the command.", 1, fault)
        if fault.filename and fault.errno in (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG):
            _fail(
                f"Cannot use a file or folder: {fault.strerror}{place}.", "Name another, or correct that one.", 1, fault
            )
        raise


def _fail(message: str, hint: str, code: int, fault: Exception) -> None:
    from rich.text import Text

    from finbench.core.console import err

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
