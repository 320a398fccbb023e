"""Work by a copy of this process beside it: Python's threads would take turns at what objects in memory give."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from finbench.core import threads

T = TypeVar("T")


@contextlib.contextmanager
def meanwhile(work: Callable[[], T], *, worth: bool = True) -> Iterator[Callable[[], T]]:
    """``work`` by a copy of this process while the body runs, which calls for the result; it must be one to pickle.

    The call does the work itself where it is not ``worth`` a copy, where there cannot be one (only Linux makes it
    soundly, and other threads would not be in it), and where the copy fails, so that a fault is raised here. Memory
    that neither changes is shared. A copy whose result nobody has called for ends with the body.
    """
    alone = sys.platform == "linux" and threading.active_count() == 1
    if not (worth and alone and threads.cores() > 1):
        yield work
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _inside(work, writing)
    os.close(writing)
    running = True

    def result() -> T:
        nonlocal running
        with open(reading, "rb", closefd=False) as pipe:
            content = pipe.read()
        running = False
        return work() if os.waitpid(child, 0)[1] else pickle.loads(content)

    try:
        yield result
    finally:
        os.close(reading)
        if running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _inside(work: Callable[[], T], pipe: int) -> NoReturn:
    """The copy, to its end; it says nothing, for what fails here is done again."""
    code = 1
    try:
        with open(pipe, "wb") as stream:
            pickle.dump(work(), stream)
        code = 0
    finally:
        os._exit(code)
