"""One of the processes of a training: ``python -m finbench.training.process FOLDER``, started by ``launch``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

_CHECK = 0.2  # seconds between looks at the process that started this one


def main() -> None:
    """Take part; leave a note of what ended it otherwise."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _redirect(folder / f"rank-{rank}.log", keep_errors=rank == 0)
    (folder / f"pid.{os.getpid()}").touch()
    from finbench.core.errors import FinbenchError, Interrupted, reason
    from finbench.training import launch

    try:
        _take_part(folder, rank)
        _leave(0)
    except Interrupted as fault:
        launch.note(folder, rank, "stopped", fault.message, fault.hint)
        _leave(0)
    except KeyboardInterrupt:
        launch.note(folder, rank, "stopped", "Stopped at once.", "Go on with the same command and --resume.")
        _leave(130)
    except FinbenchError as fault:
        launch.note(folder, rank, "fault", fault.message, fault.hint)
        _leave(1)
    except BaseException as fault:  # noqa: BLE001  the process that started this one says it in a line
        with (folder / f"rank-{rank}.log").open("a") as log:
            traceback.print_exc(file=log)
        launch.note(folder, rank, "bug", f"{type(fault).__name__}: {reason(fault)}")
        _leave(1)


def _take_part(folder: Path, rank: int) -> None:
    from finbench.core import console, environment

    console.quiet()  # before the next line: libraries complain at their import
    from finbench.training import launch, runner  # takes seconds, in which Ctrl-C may come

    job = launch.Job.parse(json.loads((folder / launch.JOB).read_text()), str(folder / launch.JOB))
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    console.err.quiet = True  # what there is to say before the first step, the parent has said
    environment.take_place()
    run = runner.prepare(job.recipe, job.data_dir).begun(job.loop, job.checkpointed)
    console.err.quiet = rank > 0
    runner.work(run, job.out, job.resume, job.report)


def _redirect(log: Path, keep_errors: bool) -> None:
    """Standard output is the parent's to write to; what is not rank 0 writes nothing to the terminal at all."""
    with log.open("ab") as handle:
        os.dup2(2 if keep_errors else handle.fileno(), 1)
        if not keep_errors:
            os.dup2(handle.fileno(), 2)


def _end_with(parent: int) -> None:
    """End at once when the parent is gone, by kill -9 too: it holds the lock of the run folder."""
    while os.getppid() == parent:
        time.sleep(_CHECK)
    os._exit(1)


def _leave(code: int) -> None:
    """At once: a farewell to the other processes could wait for one that waits for this one."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
