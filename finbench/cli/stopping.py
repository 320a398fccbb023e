"""Ctrl-C is noted where it arrives: of a library in C that it meets while that is imported, another fault comes."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["note", "was_asked"]

_asked: list[int] = []


def note() -> None:
    """From here on ``was_asked`` knows of Ctrl-C; where it is ignored, as in a background job, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _noting)


def was_asked() -> bool:
    """Whether somebody has pressed Ctrl-C."""
    return bool(_asked)


def _noting(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    signal.default_int_handler(number, frame)
