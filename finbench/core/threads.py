"""The processor's cores: how many are ours, what others use of them, and how our threads wait for one another.

Threads of libgomp, which torch brings, spin for some milliseconds while they wait. Alone that is a quarter faster;
beside other programs a thread that spins keeps the core that the one it waits for would need, and two cores give less
than one. libgomp reads how to wait once, when it is loaded. But where more threads are alive than there are cores it
lets all of them sleep, as its manual says: so here threads that do nothing come while cores are shared, and go again.
The number of threads stays, for the last bits of sums depend on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STATED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # who sets one of these has chosen the number of threads
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # and one of these, how they wait
_EVERY = 0.5  # seconds between two looks at what others use, of which the system counts hundredths
_TAKEN, _FREE = 0.4, 0.2  # cores that others must take of ours for it to be shared; and leave, to be ours again
_CALM = 4  # looks in a row at which they do
_GROUPS, _STAT = Path("/sys/fs/cgroup"), Path("/proc/stat")


def cores() -> float:
    """Cores that this process may use: of its cpuset, or fewer where a control group grants less time."""
    return min([float(len(_allowed())), *(granted for granted, _ in _quotas())])


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quotas() -> Iterator[tuple[float, Path]]:
    """(cores, folder) of each control group above this process that has a quota of processor time."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "cpu" not in kinds.split(","):
                continue
            for root in [_GROUPS / kinds] if kinds else [_GROUPS, _GROUPS / "unified"]:
                own = root / path.lstrip("/")
                for folder in (own, *own.parents):
                    if folder.is_relative_to(root) and (granted := _granted(folder)):
                        yield granted, folder


def _granted(folder: Path) -> float:
    """Cores that a control group grants, by version 2 or 1; 0 where it sets no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        return max(0, int(quota)) / int(period)
    return 0.0


class Meter:
    """What others leave of the cores that this process may use, between two looks."""

    def __init__(self) -> None:
        self.allowed, self.cores = _allowed(), cores()
        self.group = min(_quotas(), default=(0.0, None))[1]
        self.before = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        """Seconds: of the clock, of these cores at work, of this process, of its control group with a quota."""
        return time.monotonic(), _busy(self.allowed), time.process_time(), _used(self.group)

    def free(self) -> float:
        """Cores that were free or ours since the last look; all of them where the system does not say."""
        now = self._now()
        seconds, busy, own, group = (new - old for new, old in zip(now, self.before, strict=True))
        self.before = now
        seconds = max(seconds, 1e-3)
        left = len(self.allowed) - max(0.0, busy - own) / seconds
        if self.group is not None:
            left = min(left, self.cores - max(0.0, group - own) / seconds)
        return max(0.0, min(left, self.cores))


def _busy(allowed: set[int]) -> float:
    """Seconds for which these cores have been at work, or were the host's own."""
    ticks = 0
    with contextlib.suppress(OSError):
        for name, counted in re.findall(r"^cpu(\d+) (.*)$", _STAT.read_text(), re.MULTILINE):
            if int(name) in allowed:
                user, nice, system, _idle, _iowait, *rest = map(int, counted.split())
                ticks += user + nice + system + sum(rest[:3])  # interrupts of two kinds, and time stolen
    return ticks / os.sysconf("SC_CLK_TCK")


def _used(group: Path | None) -> float:
    """Seconds of processor time that all of a control group has used."""
    if group is not None:
        with contextlib.suppress(OSError, IndexError):  # version 1 has a file of this name too
            return int(re.findall(r"usage_usec (\d+)", (group / "cpu.stat").read_text())[0]) / 1e6
        with contextlib.suppress(OSError, IndexError):
            return int((group / "cpuacct.usage").read_text()) / 1e9
    return 0.0


def shared(threads: int, free: float) -> bool:
    """Whether so many threads would have to share their cores with others."""
    return free < threads - _TAKEN


class Crowd:
    """Threads that do nothing, more of them than there are cores: while they are there, waiting threads sleep."""

    def __init__(self, library: Any) -> None:
        self.library, self.here = library, False
        self._leave = threading.Event()
        self._holder: threading.Thread | None = None

    def come(self) -> None:
        """Let the threads of this process sleep while they wait."""
        self.here, self._leave = True, threading.Event()
        self._holder = threading.Thread(target=self._hold, args=(self._leave,), daemon=True)
        self._holder.start()

    def go(self) -> None:
        """Let them spin."""
        self.here = False
        self._leave.set()
        if self._holder:
            self._holder.join()

    def _hold(self, leave: threading.Event) -> None:
        nothing = ctypes.cast(self.library.free, ctypes.c_void_p)  # free(NULL)
        self.library.GOMP_parallel(nothing, None, (os.cpu_count() or 1) + 1, 0)
        leave.wait()  # libgomp keeps them until the thread that called them ends


def _watch(crowd: Crowd, threads: int, meter: Meter) -> None:
    calm = 0
    while True:
        time.sleep(_EVERY)
        free = meter.free()
        calm = calm + 1 if free >= threads - _FREE else 0
        if shared(threads, free) and not crowd.here:
            crowd.come()
        elif crowd.here and calm >= _CALM:
            crowd.go()


def take_own() -> None:
    """Let torch use as many threads as this process has cores, unless their number is stated; torch knows no quota."""
    import torch

    if not any(name in os.environ for name in STATED):
        torch.set_num_threads(max(1, min(torch.get_num_threads(), math.ceil(cores()))))


@functools.cache
def settle() -> bool:
    """Before a model runs on the processor: take the cores that are ours, and from now on wait as suits the machine.

    True where somebody watches over that; not where there is nobody to wait for, or the user said how to wait.
    """
    import torch

    take_own()
    threads, library = torch.get_num_threads(), _libgomp()
    if threads < 2 or library is None or not _STAT.exists() or any(name in os.environ for name in _WAITING):
        return False
    watch = threading.Thread(target=_watch, args=(Crowd(library), threads, Meter()), daemon=True, name="finbench-cores")
    watch.start()
    return True


def _libgomp() -> Any:
    """The libgomp that torch has loaded; None where it uses another OpenMP."""
    with contextlib.suppress(OSError):
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
        if loaded:
            library = ctypes.CDLL(max(loaded, key=lambda path: ("/torch" in path, path)))
            library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            library.GOMP_parallel.restype = None
            return library
    return None
