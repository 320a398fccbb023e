"""Work by a copy of this process beside it: Python's threads would take turns at what objects in memory give."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Generic, NoReturn, TypeVar

from finbench.core import threads

T = TypeVar("T")
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@contextlib.contextmanager
def meanwhile(work: Callable[[], T], *, worth: bool = True) -> Iterator[Callable[[], T]]:
    """``work`` by a copy of this process while the body runs, which calls for the result; it must be one to pickle.

    The call does the work itself where it is not ``worth`` a copy, where there cannot be one (only Linux makes it
    soundly, and other threads would not be in it), and where the copy fails, so that a fault is raised here. Memory
    that neither changes is shared. A copy whose result nobody has called for ends with the body, and with this process.
    """
    alone = sys.platform == "linux" and threading.active_count() == 1
    if not (worth and alone and threads.cores() > 1):
        yield work
        return
    copy: _Copy[T] | None = None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C waits until ``copy`` is known
    try:
        with contextlib.suppress(OSError):  # no more processes, or files, or memory
            copy = _Copy(work)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield work if copy is None else copy.result
    finally:
        if copy is not None:
            copy.end()


class _Copy(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self.work, self.running, here = work, True, os.getpid()
        self.pipe, writing = os.pipe()
        try:
            self.process = os.fork()
            if self.process == 0:
                os.close(self.pipe)  # or a copy that has outlived its parent would wait for itself to read
                _inside(work, here, writing)
        except OSError:
            os.close(self.pipe)
            raise
        finally:
            os.close(writing)

    def result(self) -> T:
        with open(self.pipe, "rb", closefd=False) as pipe:
            content = pipe.read()
        self.running = False
        return pickle.loads(content) if self._went_well() else self.work()

    def end(self) -> None:
        os.close(self.pipe)
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            self._went_well()

    def _went_well(self) -> bool:
        with contextlib.suppress(ChildProcessError):  # whoever started this may have it ignore how children end
            return os.waitpid(self.process, 0)[1] == 0
        return False


def _inside(work: Callable[[], T], parent: int, pipe: int) -> NoReturn:
    """The copy, to its end; it says nothing, for what fails here is done again. Ctrl-C is its parent's to take."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)  # one that was killed holds its folder no more
        if os.getppid() == parent:
            with open(pipe, "wb") as stream:
                pickle.dump(work(), stream)
            code = 0
    finally:
        os._exit(code)
