"""Faults a user can mend.

    FinbenchError            one sentence that names the value, and what to type or open next; exit 1
    +-- Interrupted          Ctrl-C: everything so far is on disk; exit 130

Everything else is a bug of ours and shows its trace.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FinbenchError(Exception):
    """A fault the user can mend; ``hint`` is a command to type or a file to open."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class Interrupted(FinbenchError):
    """Stopped by the user with everything so far kept; ``hint`` says how to go on."""

    exit_code = 130


def near_misses(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Names in ``known`` that ``name`` was probably meant to be, best first."""
    names = sorted(set(known))
    by_case = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), list(by_case), n=limit, cutoff=0.5)
    begun = [low for low in by_case if low.startswith(name.lower())]
    inside = [low for low in by_case if name.lower() in low]
    return [by_case[low] for low in list(dict.fromkeys([*begun, *close, *inside]))[:limit]]


def unknown(kind: str, name: str, known: Iterable[str], list_command: str) -> FinbenchError:
    """The error for a name that is not among ``known``: the value, the near misses, the list."""
    close = near_misses(name, known)
    did_you_mean = f" Did you mean {' or '.join(close)}?" if close else ""
    return FinbenchError(f"Unknown {kind} {name!r}.{did_you_mean}", f"See them all: {list_command}")


def reason(fault: BaseException) -> str:
    """The first line of what a library raised, else the name of its class."""
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]
