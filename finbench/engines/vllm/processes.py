"""The other side of ``worker.py``: starts engine processes, hands requests out, notices one that died or froze."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.core import threads
from finbench.core.errors import FinbenchError
from finbench.engines.vllm import faults

FROZEN = 45.0  # seconds without a step of the engine, with requests waiting, after which it counts as frozen
_LOOK = 1.0  # seconds between two looks at who is silent
_SLOWEST = 900.0  # seconds that one step on a processor may take while it visibly computes
_COMPUTES = 0.1  # of a processor, from which on it does; threads that only wait for the network take 0.01
_SPAN = 5.0  # seconds over which that is looked at
_STARTING = 1200.0  # seconds for loading; a 70B model from a slow disk takes ten minutes
_AGAIN = "Repeat the command: what was answered is kept, and is not asked again."


class Worker:
    """One engine process. ``heard`` gets (worker, message); a message of None says that the process is gone."""

    def __init__(
        self, settings: Mapping[str, Any], environment: Mapping[str, str], heard: queue.SimpleQueue[Any]
    ) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "finbench.engines.vllm.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is for us to handle; and all that it starts is ended with it
        )
        self.outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.close = weakref.finalize(self, _end, self.process, self.outbox)
        self.waiting = 0  # requests that are not answered
        self.life = self.busy = time.monotonic()  # last message; when it last computed
        self.looked, self.used = self.life, 0.0  # when its processor time was last looked at, and what it was
        self.memory = self.max_length = 0
        self.tell(settings)
        # threads hold no reference to self, so that a forgotten worker is ended
        name = weakref.ref(self)
        threading.Thread(target=_write, args=(self.process, self.outbox), daemon=True).start()
        threading.Thread(target=_read, args=(self.process, name, heard), daemon=True).start()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a line; never waits for the other side."""
        self.outbox.put(json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n")

    def printed(self) -> str:
        """All that it has written beside its answers."""
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def reason(self) -> str:
        """What killed it, else the last thing it printed that says something."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=5)
            if code < 0:
                memory = ", as a machine does that has no memory left" if code == -signal.SIGKILL else ""
                return f"it was ended by {signal.Signals(-code).name}{memory}"
        lines = [line.strip() for line in self.printed().splitlines()]
        telling = [line for line in lines if line and not line.startswith(("File ", "^", "~"))]
        faults = [line for line in telling if re.match(r"(\w+\.)*\w+(Error|Exception)\b", line)]
        return [*telling, *faults][-1][:400] if telling else f"exit code {self.process.poll()}"

    def check(self, limit: float, on_cpu: bool) -> None:
        """Raise FinbenchError if it has been silent for ``limit`` seconds; on a CPU, if it does not compute either."""
        now = time.monotonic()
        if on_cpu and now - self.looked >= _SPAN:
            used = _processor_time(self.process.pid)
            if used - self.used >= _COMPUTES * (now - self.looked):
                self.busy = now
            self.looked, self.used = now, used
        silent = now - self.life
        if silent < limit or (on_cpu and now - self.busy < limit / 3 and silent < max(limit, _SLOWEST)):
            return
        self.close()
        if not self.max_length:
            raise FinbenchError(f"vLLM has not loaded the model in {silent:.0f} s.", "finbench doctor, or --engine hf")
        raise FinbenchError(f"The vLLM engine has not made a step for {silent:.0f} s: it is frozen.", _AGAIN)


def _write(process: subprocess.Popen[bytes], outbox: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):  # it is gone, which the reader says
        while (line := outbox.get()) is not None:
            process.stdin.write(line)
            if outbox.empty():
                process.stdin.flush()


def _read(process: subprocess.Popen[bytes], worker: Any, heard: queue.SimpleQueue[Any]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        for line in process.stdout:
            heard.put((worker, json.loads(line)))
    heard.put((worker, None))


def _end(process: subprocess.Popen[bytes], outbox: queue.SimpleQueue[bytes | None]) -> None:
    """End a process and all that it started, be it stopped or not."""
    outbox.put(None)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot even be killed
        process.wait(timeout=10)


def _processor_time(group: int) -> float:
    """Seconds of processor time so far of a process and those that it started; 0 where this cannot be told."""
    total = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = place.read_text().rpartition(")")[2].split()
            if int(after_name[2]) == group:
                total += int(after_name[11]) + int(after_name[12])
    return total / os.sysconf("SC_CLK_TCK")


class Pool:
    """Engine processes that share the requests of one base: one a GPU, or one on the processor."""

    def __init__(self, settings: Mapping[str, Any], count: int, on_cpu: bool) -> None:
        self.on_cpu = on_cpu
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        width = int(settings["engine"].get("tensor_parallel_size", 1))
        self.workers = [Worker(settings, _place(number, count, width, on_cpu), self.heard) for number in range(count)]
        self.next = 0
        self.looked = time.monotonic()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def await_ready(self) -> None:
        """Wait until every engine is loaded; FinbenchError with vLLM's own reason where one is not."""
        while not all(worker.max_length for worker in self.workers):
            for worker, message in self._hear(_STARTING):
                if fault := message.get("fault"):
                    self.close()
                    raise faults.cannot_start(fault, "finbench doctor, or --engine hf", worker.printed())
                worker.memory, worker.max_length = message["memory"], message["max_length"]

    def answers(self, requests: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        """Answers of (share, request) as they come; requests of one share go to one process, whose cache they share.

        Raises FinbenchError when a process dies or freezes; the others are ended too.
        """
        first = self.next  # what an earlier call was not there to hear has a lower number
        for share, request in requests:
            worker = self.workers[share % len(self.workers)]
            if not worker.waiting:
                worker.life = worker.busy = time.monotonic()
            worker.waiting += 1
            worker.tell({**request, "id": first + request["id"]})
            self.next = max(self.next, first + request["id"] + 1)
        while any(worker.waiting for worker in self.workers):
            for worker, message in self._hear(FROZEN):
                if fault := message.get("fault"):
                    self.close()
                    raise FinbenchError(f"The vLLM engine has failed: {fault}", _AGAIN)
                worker.waiting -= len(message["done"])
                worker.memory = max(worker.memory, message["memory"])
                own = [{**one, "id": one["id"] - first} for one in message["done"] if one["id"] >= first]
                if own:
                    yield own

    def _hear(self, limit: float) -> Iterable[tuple[Worker, dict[str, Any]]]:
        """The next message, or nothing after a second; FinbenchError for a process that died or froze."""
        heard: list[tuple[Worker, dict[str, Any]]] = []
        with contextlib.suppress(queue.Empty):
            name, message = self.heard.get(timeout=_LOOK)
            worker = name()
            if message is None:
                self.close()
                raise FinbenchError(f"The vLLM engine has died: {worker.reason()}", _AGAIN)
            worker.life = worker.busy = time.monotonic()
            heard = [(worker, message)]
        if time.monotonic() - self.looked >= _LOOK:  # also while others talk
            self.looked = time.monotonic()
            for worker in self.workers:
                if worker.waiting or not worker.max_length:
                    try:
                        worker.check(limit, self.on_cpu)
                    except FinbenchError:
                        self.close()
                        raise
        return heard


def _place(number: int, count: int, width: int, on_cpu: bool) -> dict[str, str]:
    """Which processors or GPUs are its own."""
    if on_cpu:
        cores = int(os.environ.get("OMP_NUM_THREADS") or threads.cores())
        # without dynamo a small function that vLLM compiles even when eager needs no C++ compiler, and no wait for it
        return {"OMP_NUM_THREADS": str(max(1, cores // count)), "TORCHDYNAMO_DISABLE": "1"}
    if count == 1:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(device) for device in range(count * width)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[number * width : (number + 1) * width])}
