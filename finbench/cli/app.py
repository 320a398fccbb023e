"""The command line, put together from the modules of this folder: parse, call one function, print.

Everything heavy is imported inside a command.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from finbench.cli import cards, data, evaluation, hub, stopping, tasks, training
from finbench.cli.command import declared, with_own_tasks
from finbench.cli.helping import Command, Group, RunGroup
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.version import __version__

_INTERRUPTED = 130  # the exit code of what Ctrl-C ended
_STOPPED = "Stopped.", "What was there before is as it was; repeat the command to go on.", _INTERRUPTED
_UNREAD = 141  # that of a program which SIGPIPE ended: whoever read its output, as `head` does, has seen enough

app = typer.Typer(
    name="finbench",
    help="Train low-rank adapters for financial language models, score them honestly, publish them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: finbench demo",
)
_COMMANDS: dict[str, Callable[..., Any]] = {  # as --help lists them
    "train": training.train,
    "plan": training.plan,
    "eval": evaluation.eval_,
    "ask": evaluation.ask,
    "try": evaluation.try_,
    "demo": evaluation.demo,
    "doctor": evaluation.doctor,
    "merge": training.merge,
    "export": training.export,
    "tune": training.tune,
    "methods": tasks.methods,
    "pretrain": training.pretrain,
    "compare": cards.compare,
    "verify": cards.verify,
    "report": cards.report,
    "risk": cards.risk,
    "runs": training.runs,
    "lm-eval": cards.lm_eval,
    "bases": tasks.bases,
    "push": hub.push,
    "pull": hub.pull,
    "adopt": hub.adopt,
}
_SETTINGS: dict[str, dict[str, Any]] = {"lm-eval": {"ignore_unknown_options": True, "help_option_names": []}}
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., Any]]]] = {
    "serve": (
        "Serve a base and its adapters (`finbench serve --adapter ...`); add and remove adapters while it runs.",
        {
            "run": evaluation.serve_run,
            "add": evaluation.serve_add,
            "remove": evaluation.serve_remove,
            "list": evaluation.serve_list,
        },
    ),
    "sweep": (
        "A grid of models, methods, tasks and seeds on Ray: `finbench sweep FILE`, and how it stands.",
        {"run": training.sweep_run, "status": training.sweep_status, "fetch": training.sweep_fetch},
    ),
    "card": (
        "Scorecards of others in, ours out in other formats, older ones by the tasks of today; how sure they are.",
        {
            "import": cards.card_import,
            "export": cards.card_export,
            "rescore": cards.card_rescore,
            "calibration": cards.card_calibration,
            "contextual": cards.card_contextual,
            "noise": cards.card_noise,
            "years": cards.card_years,
            "prompts": cards.card_prompts,
        },
    ),
    "tasks": (
        "The tasks: list, show, check; their folder for lm-eval; a benchmark of your own rows.",
        {
            "list": tasks.tasks_list,
            "show": tasks.tasks_show,
            "new": tasks.tasks_new,
            "path": tasks.tasks_path,
            "check": tasks.tasks_check,
        },
    ),
    "data": (
        "Data sets: import the authors' files, list what is here; check rows of your own.",
        {
            "check": data.data_check,
            "import": data.data_import,
            "xbrl": data.data_xbrl,
            "lock": data.data_lock,
            "list": data.data_list,
            "audit": data.data_audit,
        },
    ),
    "leaderboard": (
        "Scorecards in, tables and one static page out.",
        {
            "add": cards.board_add,
            "reproduce": cards.board_reproduce,
            "build": cards.board_build,
            "review": cards.board_review,
            "pack": cards.board_pack,
            "unpack": cards.board_unpack,
            "push": cards.board_push,
        },
    ),
    "zoo": (
        "Published adapters and recipes: list, show, add.",
        {"list": hub.zoo_list, "show": hub.zoo_show, "add": hub.zoo_add},
    ),
    "dev": ("For developers, and to rehearse: a Hub on this machine.", {"hub": hub.dev_hub}),
}
_TAKE_TASKS = {
    "train",
    "plan",
    "eval",
    "ask",
    "try",
    "tune",
    "sweep run",
    "compare",
    "verify",
    "report",
    "merge",
    "export",
}
_TAKE_TASKS |= {"push", "card import", "tasks list", "tasks show"}


def _registered(name: str, command: Callable[..., Any]) -> Callable[..., None]:
    return declared(with_own_tasks(command) if name in _TAKE_TASKS else command)


for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command, context_settings=_SETTINGS.get(_name))(_registered(_name, _command))
for _name, (_help, _members) in _GROUPS.items():
    _group = typer.Typer(no_args_is_help=True, help=_help, cls=RunGroup if "run" in _members else Group)
    for _member, _command in _members.items():
        _group.command(_member, cls=Command)(_registered(f"{_name} {_member}", _command))
    app.add_typer(_group, name=_name)


def main() -> None:
    """Entry point: a FinbenchError becomes one message on stderr and its exit code; a bug shows its trace."""
    try:
        app()
    except Exception as fault:
        if stopping.was_asked() and not isinstance(fault, Interrupted):  # "ImportError: KeyboardInterrupt", and such
            _fail(*_STOPPED, fault)
        if (place := _too_many_open(fault)) is not None:  # whatever was made of it: no file is torn, and no disk full
            _fail(f"Too many files are open{place}.", "Allow more, then repeat the command: ulimit -n 4096", 1, fault)
        if isinstance(fault, FinbenchError):
            _fail(fault.message, fault.hint, fault.exit_code, fault)
        if not isinstance(fault, OSError):
            raise
        no_temporary = "No usable temporary directory" in str(fault)  # what a full disk does to Python's tempfile
        place = f" ({fault.filename})" if fault.filename else ""
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) or no_temporary:
            _fail(f"Cannot write: {fault.strerror}{place}.", "Free some space, then repeat the command.", 1, fault)
        if fault.filename and fault.errno in (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG):
            message = f"Cannot use a file or folder: {fault.strerror}{place}."
            _fail(message, "Name another, or correct that one.", 1, fault)
        raise
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer says nothing of Ctrl-C; what has more to say raised Interrupted
            _fail(*_STOPPED, end)
        if isinstance(end.__context__, BrokenPipeError):  # rich and typer end with 1, as a fault does, and say nothing
            sys.exit(_UNREAD)
        raise


def _too_many_open(fault: BaseException | None) -> str | None:
    """The file that was one too many, in brackets, where that is what lies behind a fault; else None."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in (errno.EMFILE, errno.ENFILE):
            return f" ({fault.filename})" if fault.filename else ""
        if isinstance(fault, RuntimeError) and os.strerror(errno.EMFILE) in str(fault):  # of safetensors, or torch
            return ""
        fault = fault.__cause__
    return None


def _fail(message: str, hint: str, code: int, fault: BaseException) -> None:
    from rich.text import Text

    from finbench.core.console import err

    if os.environ.get("FINBENCH_DEBUG"):
        raise fault
    prefix, style = ("", "yellow") if code == _INTERRUPTED else ("error: ", "")
    err.print(Text.assemble((prefix, "bold red"), (message, style)), soft_wrap=True)
    if hint:
        err.print(Text(hint), soft_wrap=True)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    for name in ("bitsandbytes", "kernels"):  # when imported, the one asks the other for more, and both complain
        logging.getLogger(name).setLevel(logging.ERROR)
    if version:
        typer.echo(__version__)
        raise typer.Exit
