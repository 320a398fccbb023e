"""A function on the bytes of a stranger, in a process of its own with bounds on time and memory.

The process is a fork: it starts in a hundredth of a second, with every library that is loaded. Its result comes as JSON
by a pipe, so that nothing it holds is run or unpickled here.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from finbench.core.errors import FinbenchError
from finbench.core.safety import Exceeded

MEMORY = 2**30  # bytes that it may take beside what its parent has
SECONDS = 4.0  # of the processor: a busy machine refuses nothing that an idle one takes
_STALLED = 60.0  # seconds of the wall after which one that takes no processor time is given up
_LARGEST = 2**24  # bytes of a result
# System calls that a shut process keeps, by the machine: (its number in seccomp's audit, the calls' numbers). They read
# and write what is open, manage its own memory, and end it; nothing opens, connects, starts, renames or removes.
_KEPT = {
    "x86_64": (
        0xC000003E,
        "0 1 3 5 8 9 10 11 12 13 14 15 17 18 19 20 24 25 28 39 60 96 186 202 204 219 228 231 262 318",
    ),
    "aarch64": (
        0xC00000B7,
        "57 62 63 64 65 66 67 68 79 80 93 94 98 113 123 124 128 134 135 139 169 172 178 214 215 216 222 226 233 278",
    ),
}


def confined(
    work: Callable[..., Any], *arguments: Any, what: str, hint: str, seconds: float = SECONDS, memory: int = MEMORY
) -> Any:
    """``work(*arguments)``, made in a child that ends after ``seconds`` or at ``memory`` bytes more than here.

    The result is JSON. ``work`` may use what its modules have imported already; it must not use a GPU, nor write.
    Raises Exceeded, which names ``what``, at a bound or where the child died; the child's own FinbenchError; and
    FinbenchError for anything else that it raised. A ``hint`` says what to type next.
    """
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses none of them
        child = os.fork()
    if not child:
        os.close(receiving)
        _inside(sending, work, arguments, seconds, memory)
    os.close(sending)
    said = None
    try:
        said = _heard(receiving, time.monotonic() + _STALLED + seconds)
    finally:
        os.close(receiving)
        os.kill(child, signal.SIGKILL)  # what has ended already keeps how it ended
        ended = os.waitpid(child, 0)[1]
    late = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) in (signal.SIGPROF, signal.SIGXCPU)
    if said is None or late:
        raise Exceeded(f"{what} was stopped after {seconds:g} s of the processor.", hint)
    if not said or said[0] == "memory":
        raise Exceeded(f"{what} was stopped: it took more than {memory / 2**30:.2g} GB, or broke its reader.", hint)
    if said[0] == "made":
        return said[1]
    message, own = said[1:]
    raise FinbenchError(message if own else f"{what} cannot be read: {message}", own or hint)


def _heard(pipe: int, until: float) -> list[Any] | None:
    """What came by the pipe to its end, [] for what is no result; None where the time ran out."""
    data = b""
    while len(data) <= _LARGEST:
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None
        if not (piece := os.read(pipe, 2**16)):
            break
        data += piece
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _inside(pipe: int, work: Callable[..., Any], arguments: tuple[Any, ...], seconds: float, memory: int) -> NoReturn:
    """The child: everything that it does, to its end."""
    try:
        faulthandler.disable()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGPROF):
            signal.signal(name, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # what libraries say when they break
            os.dup2(nowhere, stream)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads of the parent are not here
        limit(seconds, mapped() + memory)
        answer = json.dumps(_answer(work, arguments)).encode()
        while answer:
            answer = answer[os.write(pipe, answer) :]
    finally:
        os._exit(0)


def _answer(work: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    try:
        return ["made", work(*arguments)]
    except FinbenchError as fault:
        return ["refused", fault.message, fault.hint]
    except MemoryError:
        return ["memory"]
    except BaseException as fault:  # noqa: BLE001 - a panic of Rust is no Exception
        return ["refused", f"{type(fault).__name__}: {str(fault)[:300]}", ""]


def limit(seconds: float, memory: int) -> None:
    """Bound this process: it is ended after ``seconds`` of the processor, and has no more than ``memory`` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such bound; time is bounded everywhere
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # which SIGPROF ends, also in the middle of C code


def mapped() -> int:
    """Bytes of address space that this process has; a lot where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 2**46


def shut(largest: int) -> None:
    """From here on this process opens no file and no socket, starts nothing, and writes files of ``largest`` bytes.

    What is open stays open, so that everything that it will need must have been imported. No descriptor more is had on
    any system. On Linux, on x86-64 and ARM, the kernel also refuses every system call but those of ``_KEPT`` (seccomp).
    OSError where it takes no such filter.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    audit, numbers = _KEPT.get(platform.machine(), (0, ""))
    if sys.platform != "linux" or not numbers:
        return
    load, equal, end, kill, allow, refuse = 0x20, 0x15, 0x06, 0x80000000, 0x7FFF0000, 0x00050001  # EPERM
    kept = numbers.split()
    steps = [(load, 0, 0, 4), (equal, 1, 0, audit), (end, 0, 0, kill), (load, 0, 0, 0)]
    steps += [(equal, len(kept) - place, 0, int(number)) for place, number in enumerate(kept)]
    steps += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None).prctl
    # PR_SET_NO_NEW_PRIVS, without which only root may filter, then PR_SET_SECCOMP
    if prctl(38, 1, 0, 0, 0) or prctl(22, 2, program, 0, 0):
        raise OSError("the kernel takes no filter of system calls (seccomp)")
