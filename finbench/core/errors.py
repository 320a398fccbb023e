"""Faults a user can mend. Everything else is a bug of ours and shows its trace."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

# The hint of a fault after which there is nothing to type; the reason stands beside each use.
NOTHING_TO_TYPE = ""

# What a terminal obeys, or what turns a line around: it may come from a file of a stranger, whose text is only shown.
# The last range is of no text at all: bytes of a file's name.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 2_000  # characters of a line of a message
_FEW = 8  # names that a message can list


def harmless(text: str) -> str:
    """Text in which every character that a terminal would obey stands as its escape; newline and tab stay."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def harmless_json(text: str) -> str:
    """JSON of the same value in which such characters stand as JSON's own escapes."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _shown(text: str) -> str:
    lines = harmless(text).split("\n")
    return "\n".join(line if len(line) <= _LONGEST else line[:_LONGEST] + "..." for line in lines)


class FinbenchError(Exception):
    """A fault the user can mend; ``hint`` is a command to type or a file to open. Both are shown as text."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message = _shown(message)
        super().__init__(message)
        self.message = message
        self.hint = _shown(hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class Interrupted(FinbenchError):
    """Stopped by the user with everything so far kept; ``hint`` says how to go on."""

    exit_code = 130


def near_misses(name: str, known: Iterable[str]) -> list[str]:
    """At most three names in ``known`` that ``name`` was probably meant to be, best first."""
    names = sorted(set(known))
    by_case = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), list(by_case), n=3, cutoff=0.5)
    begun = [low for low in by_case if low.startswith(name.lower())]
    inside = [low for low in by_case if name.lower() in low]
    close.sort(key=lambda low: sorted(low) != sorted(name.lower()))  # letters that changed places come first
    return [by_case[low] for low in list(dict.fromkeys([*begun, *close, *inside]))[:3]]


def unknown(kind: str, name: str, known: Iterable[str], list_command: str) -> FinbenchError:
    """The error for a name that is not among ``known``: the value, the near misses, all of a few, the list."""
    every = list(dict.fromkeys(known))
    close = near_misses(name, every)
    did_you_mean = f" Did you mean {' or '.join(close)}?" if close else ""
    few = f" There {'is' if len(every) == 1 else 'are'} {listed(every)}." if 0 < len(every) <= _FEW else ""
    return FinbenchError(f"Unknown {kind} {name!r}.{did_you_mean}{few}", f"See them all: {list_command}")


def check_used(given: Mapping[str, object], needed: str) -> None:
    """FinbenchError for an option (name -> value, None: not stated) that does nothing without ``needed``."""
    if idle := [name for name, value in given.items() if value is not None]:
        raise FinbenchError(
            f"{idle[0]} does nothing without {needed.split()[0]}.", f"Add {needed}, or leave {' and '.join(idle)} out."
        )


def counted(number: int, what: str) -> str:
    """1 core, 2 cores."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return f" {last} ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def shortened(text: str) -> str:
    """Text of a stranger, for a message."""
    return text if len(text) <= 200 else text[:197] + "..."


def reason(fault: BaseException) -> str:
    """The first line of what a library raised, with the next where it only leads to that; else its class's name."""
    first, *rest = (str(fault).strip() or type(fault).__name__).splitlines()
    return f"{first} {rest[0].strip()}" if rest and first.endswith(":") else first
