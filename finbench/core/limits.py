"""Bounds on time and memory for what strangers wrote: regular expressions, chat templates."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from finbench.core.errors import FinbenchError

_TICK = 0.02  # seconds between two looks at the clock and at memory
_STALLED = 120.0  # seconds of the wall after which a process that takes no processor time is given up
_START = 3.0  # seconds that a process may need to begin


class Exceeded(FinbenchError):
    """Something of a stranger's took too long, or too much memory."""


def finishes(code: str, payload: Any, seconds: float, memory: int = 4 * 2**30, imports: str = "") -> bool:
    """Whether Python code that reads JSON from stdin ends well in a process of its own, within these bounds.

    ``seconds`` are of the processor, from after ``imports`` on, so that a busy machine refuses nothing that an idle one
    takes; where the system has no such clock they are of the wall. The process is isolated (no user site, no
    environment variables of Python) and has no more than ``memory`` bytes.
    """
    own_clock = hasattr(signal, "setitimer")
    bounded = (
        f"{imports}\ntry:\n import resource, signal\n"
        f" resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\n"
        # what SIGPROF does by itself: the process ends, also in the middle of C code
        f" signal.setitimer(signal.ITIMER_PROF, {seconds})\n"
        "except (ImportError, AttributeError, ValueError, OSError):\n pass\n" + code
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", bounded],
            input=json.dumps(payload),
            capture_output=True,
            text=True,
            timeout=_STALLED if own_clock else seconds + _START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@contextlib.contextmanager
def bounded(what: str, seconds: float, hint: str, memory: int = 2**30) -> Iterator[None]:
    """Stop the block, by Exceeded, after ``seconds`` of the processor or when it has taken ``memory`` bytes more.

    Works between two steps of Python, in the main thread, where the system has timers; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    start, before = time.thread_time(), _resident()  # a machine that is busy, or was asleep, stops nothing

    def look(*_: object) -> None:
        if time.thread_time() - start > seconds:
            raise Exceeded(f"{what} was stopped after {seconds:g} s.", hint)
        if _resident() - before > memory:
            raise Exceeded(f"{what} was stopped: it took more than {memory / 2**30:g} GB of memory.", hint)

    earlier = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def _resident() -> int:
    """Bytes this process holds now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0
