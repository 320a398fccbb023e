"""Folders of trainings that have not ended: what they were begun with, and the command that goes on."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError

MARK = Path("checkpoints") / "run.json"  # what the run was begun with; it goes when the run is done
_LARGEST = 2**24  # bytes of a mark; one has some thousands


def typed() -> str | None:
    """The command that is running, as it was typed; None where finbench is called from a program."""
    program = Path(sys.argv[0])
    if program.stem != "finbench" and program.parts[-2:] != ("finbench", "__main__.py"):
        return None
    return shlex.join(["finbench", *(word for word in sys.argv[1:] if word != "--resume")])


def stated(folder: Path) -> dict[str, Any] | None:
    """What an unfinished run says of itself; None where that cannot be read."""
    try:
        if (folder / MARK).stat().st_size > _LARGEST:
            return None
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def way_on(folder: Path) -> str:
    """The command that goes on with an unfinished run, or, where a program began it, what to do."""
    command = (stated(folder) or {}).get("command")
    if isinstance(command, str) and command.isprintable():
        return command if command.startswith("finbench demo") else f"{command} --resume"
    return "Repeat what began it, with --resume (finbench.train: resume=True)."


def refused(folder: Path) -> FinbenchError:
    """The fault of a folder that holds no adapter yet."""
    return FinbenchError(f"{folder} holds an unfinished training run.", f"Finish it: {way_on(folder)}")
