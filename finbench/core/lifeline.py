"""Standard input as a line to the process that started this one: where it ends, that one has ended.

It is read by its descriptor and never through ``sys.stdin``. A thread that blocks in ``sys.stdin`` holds its lock, and
a child that multiprocessing forks meanwhile waits for that lock for ever, because it closes its ``sys.stdin`` first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

_PART = 2**16  # bytes a read; as many as a pipe holds


def lines() -> Iterator[bytes]:
    """Whole lines of standard input, as they come, until it ends."""
    rest = b""
    while part := os.read(0, _PART):
        *whole, last = part.split(b"\n")
        if whole:
            whole[0], rest = rest + whole[0], b""
        rest += last
        yield from whole


def end_group() -> None:
    """End this process and all that it has started: nobody listens any more. Only for the first of its group."""
    os.killpg(0, signal.SIGKILL)


def end_with_parent() -> None:
    """Wait until standard input ends, then end the group; for a thread."""
    while os.read(0, _PART):
        pass
    end_group()
