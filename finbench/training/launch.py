"""One training in several processes: torchrun's agent starts them, one a GPU, or so many of a machine without one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from finbench.core import environment
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.files import write_atomic
from finbench.core.records import Loop, Recipe
from finbench.core.strict import Record

JOB = "job.json"
_GO_ON = "Go on with the same command and --resume."
_CRASHES = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


class Crashed(FinbenchError):
    """A process of a training ended otherwise than by a fault of the user's; what it left behind tells why."""


class Job(Record):
    """What every process of a training gets: ``parent`` is the process id of the one that started it."""

    recipe: Recipe
    out: Path
    data_dir: Path | None
    resume: bool
    loop: Loop
    checkpointed: bool
    parent: int
    report: list[str]


class ProcessEnd(Record):
    """How a process ended that did not finish: a fault of the user's, Ctrl-C, or anything else."""

    kind: Literal["fault", "stopped", "bug"]
    message: str
    hint: str = ""
    time: float


def check(processes: int) -> None:
    """Refuse more processes than there are GPUs, where there are any, and a number of them within torchrun's."""
    import torch

    if processes < 1:
        raise FinbenchError(f"{processes} processes cannot train.", "--processes 2")
    gpus = torch.cuda.device_count()
    if processes > 1 and gpus and processes > gpus:
        raise FinbenchError(f"{processes} processes need a GPU each, and {_here(gpus)}.", f"--gpus {gpus}")
    if environment.processes() == 1:
        return
    if missing := [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise FinbenchError(
            f"WORLD_SIZE is {environment.processes()}, but {missing[0]} is not set: torchrun would set all of them.",
            "Start it by torchrun, or: unset WORLD_SIZE",
        )
    if processes > 1:
        raise FinbenchError(
            f"torchrun has started {environment.processes()} processes, and each is asked to start {processes} more.",
            "Leave --gpus and --processes out: torchrun's --nnodes and --nproc-per-node say how many there are.",
        )
    own = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if gpus and own > gpus:
        raise FinbenchError(
            f"torchrun has started {own} processes here, and {_here(gpus)}.", f"--nproc-per-node {gpus}"
        )


def process_count(gpus: int | None, processes: int | None) -> int:
    """The number of processes that either of two options asks for; FinbenchError where there are fewer GPUs."""
    if gpus is not None and processes is not None:
        raise FinbenchError("--gpus and --processes name the same thing.", "Use --gpus where there are GPUs.")
    if gpus is None:
        return 1 if processes is None else processes
    import torch

    here = torch.cuda.device_count()
    if not here:
        environment.check_gpu()
    if not 1 <= gpus <= here:
        raise FinbenchError(
            f"--gpus {gpus}: {_here(here)}.", f"--gpus {here}" if here else "On the processor: --processes 2"
        )
    return gpus


def _here(gpus: int) -> str:
    return f"{gpus or 'no'} GPU{' is' if gpus == 1 else 's are' if gpus else ' is'} here"


def together(job: Job, folder: Path, processes: int) -> None:
    """Do ``job`` in ``processes`` processes, whose notes and logs lie in ``folder``, and wait for all.

    Raises the fault of the process that failed first, Interrupted after Ctrl-C. Where one dies, the others are ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the one line is ours to say
    shutil.rmtree(folder, ignore_errors=True)
    write_atomic(folder / JOB, job.to_json())
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGHUP",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        """The processes are sessions of their own, so that they get each Ctrl-C once: from here."""
        begun = [int(path.suffix[1:]) for path in folder.glob("pid.*")]
        if not begun:
            signal.default_int_handler(number, frame)
        for process in begun:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)

    failures: Mapping[int, Any] = {}
    try:
        with on_ctrl_c(pass_on):
            elastic_launch(config, sys.executable)("-P", "-m", "finbench.training.process", str(folder))
    except ChildFailedError as fault:
        failures = fault.failures
    except SignalException as fault:
        raise Interrupted(f"Stopped by {fault.sigval.name}; every process is ended.", _GO_ON) from fault
    _judge(folder, failures, processes)


@contextlib.contextmanager
def on_ctrl_c(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, Ctrl-C calls ``handler``."""
    before = None
    with contextlib.suppress(ValueError):  # not in the main thread: whoever started it handles Ctrl-C
        before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if before is not None:  # else none of Python's
            signal.signal(signal.SIGINT, before)


def note(folder: Path, rank: int, kind: Literal["fault", "stopped", "bug"], message: str, hint: str = "") -> None:
    """A process says what ended it."""
    said = ProcessEnd(kind=kind, message=message, hint=hint, time=time.time())
    write_atomic(folder / f"fault-{rank}.json", said.to_json())


def _judge(folder: Path, failures: Mapping[int, Any], processes: int) -> None:
    """Raise what the run ended of, if it did not finish: a death of one process makes others fail after it."""
    said: dict[int, ProcessEnd] = {}
    for path in folder.glob("fault-*.json"):
        said[int(path.stem.removeprefix("fault-"))] = ProcessEnd.parse(json.loads(path.read_text()), str(path))
    order = sorted(said.items(), key=lambda pair: pair[1].time)
    for _, fault in order:
        if fault.kind == "fault":
            raise FinbenchError(fault.message, fault.hint)
    crashed = {rank: -end.exitcode for rank, end in failures.items() if -end.exitcode in _CRASHES and rank not in said}
    for rank, number in crashed.items():
        name = signal.Signals(number).name
        memory = " The system may have had no memory left." if number == signal.SIGKILL else ""
        raise Crashed(f"Process {rank} of {processes} was ended by {name}, and the others with it.{memory}", _GO_ON)
    for rank, fault in order:
        if fault.kind == "stopped":
            raise Interrupted(fault.message, fault.hint)
        raise Crashed(
            f"Process {rank} of {processes} failed: {fault.message}", f"Its log: {folder / f'rank-{rank}.log'}"
        )
    for rank, end in failures.items():
        raise Crashed(
            f"Process {rank} of {processes} ended with code {end.exitcode}.", f"Its log: {folder / f'rank-{rank}.log'}"
        )
