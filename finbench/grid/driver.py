"""``finbench sweep``: hand the steps of a grid to Ray's workers, and lose nothing when one of them, or this, dies."""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finbench.core import catalog, environment, threads
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.installing import install
from finbench.core.version import __version__
from finbench.grid import forecast, sweepfile
from finbench.grid.nodes import check_gpus, check_nodes, most_gpus, nodes_of, this_machine, unplaced
from finbench.grid.places import Lease, Place
from finbench.grid.steps import Schedule, Step
from finbench.grid.sweepfile import Cell, Needs, Sweep
from finbench.grid.watch import Watch
from finbench.models import bases, ggufs
from finbench.scoring import prompts

WINDOW = 1000  # pieces of work that Ray is given ahead: what it waits with is what makes a cluster grow
AHEAD = 2  # and the same for each that a machine alone, which does not grow, can do at once: the rest waits in order
PATIENCE = 120  # seconds that workers get for a checkpoint after Ctrl-C
STOP = "stop.json"  # while it is there, workers stop, and begin nothing


@dataclass(frozen=True)
class Summary:
    """How a sweep stands."""

    cells: int
    done: int
    failed: list[dict[str, str]]  # cell, message, hint
    steps_run: int  # by this command; all others were there
    best: dict[str, tuple[float, str]]  # task -> (main metric, adapter)
    place: str


def sweep(
    source: Path | str,
    out: str | None = None,
    *,
    ray_address: str | None = None,
    data_dir: Path | None = None,
    dry_run: bool = False,
) -> Summary | Schedule:
    """Run every cell of the sweep file ``source`` that is not done yet; results lie in ``out``, a folder or URL.

    ``ray_address``: a running cluster (``auto``, ``ray://host:port``, ``host:port``); else Ray is started here, on
    this machine alone. With ``dry_run`` nothing is started: the board of steps is returned.

    A failed cell never ends the others. The same command goes on after a stop, a kill or a failure; a longer axis
    runs the new cells only. Raises FinbenchError before anything starts for a fault of the file or a cell that
    could not be trained, and for a folder in which another sweep runs; Interrupted after Ctrl-C.
    """
    quiet()
    stated = sweepfile.read(source)
    cells = sweepfile.cells(stated, data_dir) if dry_run else prepared(stated, data_dir)
    place = Place(out or f"runs/sweep-{stated.name}")

    def board() -> Schedule:
        there = place.folders()
        return Schedule(stated, cells, place.steps(), lambda folder: place.has(f"{folder}/finbench.json"), there)

    if dry_run:
        import torch

        outlined = board()
        outlined.settle(torch.cuda.device_count())  # of this machine, for it is not asked what a cluster has
        if ray_address is None:
            check_nodes(outlined, [this_machine()], growing=False, planned=True)
        return outlined
    ray = _ray()
    if ray_address is None:
        environment.check_gpu()
    with _owned(place) as alive:
        steps = board()
        place.write("sweep.yaml", Path(source).read_text(encoding="utf-8"))
        if steps.over:
            return _summary(steps, place, 0)
        if ray_address is None:
            _check_terms(cells)
        with _cluster(ray, ray_address):
            gpus = most_gpus(ray)
            steps.settle(gpus)
            check_gpus(steps, gpus, growing=ray_address is not None)
            check_nodes(steps, nodes_of(ray), growing=ray_address is not None)
            memory = forecast.planned_memory(steps, place, data_dir, alive=alive)
            driver = Driver(ray, steps, place, data_dir, memory, alive, gpus, growing=ray_address is not None)
            driver.run()
    return _summary(steps, place, driver.count)


def prepared(stated: Sweep, data_dir: Path | None) -> list[Cell]:
    """Every cell, with the sets of the Hub fetched: steps are known by their rows, and would be others afterwards."""
    cells = sweepfile.cells(stated, data_dir)
    asked = ((cell.recipe.tasks, *(one["tasks"] for one in (cell.scored, *cell.beside))) for cell in cells)
    names = dict.fromkeys(name for parts in asked for part in parts for name in part)
    absent = prompts.missing([catalog.tasks()[name] for name in names], data_dir)
    with contextlib.suppress(FinbenchError):  # nodes may have what is not here
        prompts.fetch(absent, data_dir)
    return sweepfile.cells(stated, data_dir) if absent else cells


def _check_terms(cells: Sequence[Cell]) -> None:
    """Refuse once, and not in every cell, a base whose terms nobody has accepted on this machine."""
    known = catalog.bases()
    for name in dict.fromkeys(cell.recipe.base for cell in cells):
        if name in known and not ggufs.terms_accepted(known[name]):
            bases.resolve(name)  # as a training does: the Hub, which asks for consent itself, may have it


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as fault:
        raise FinbenchError("A sweep runs on Ray, which is not installed.", install("ray")) from fault
    return ray


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine; refuse nodes with another finbench."""
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "ignore_reinit_error": True}
    if address is None:
        cpus = max(1, int(threads.cores()))
        options |= {"include_dashboard": False, "num_cpus": cpus}  # the dashboard listens, and asks no one
    else:
        options["address"] = address
    started = not ray.is_initialized()
    try:
        ray.init(**options)
    except Exception as fault:  # Ray raises this very class when its processes are slow to start
        where = address or "this machine"
        hint = f"Is it running there? ray status --address {address}" if address else "The same command tries again."
        if address and os.environ.get("RAY_AUTH_MODE") != "token":  # it does not say that this is missing
            settings = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=..."
            hint = f"If that cluster has a token (ray get-auth-token there): export {settings}"
        message = f"Ray could not be reached at {where} ({' '.join(str(fault).split())[:150]})."
        raise FinbenchError(message, hint) from fault
    try:
        yield
    finally:
        if started:
            ray.shutdown()


@contextlib.contextmanager
def _owned(place: Place) -> Iterator[Callable[[], None]]:
    """Own the results: a folder by a lock; a URL by a lease, which what is given must renew now and then."""
    if place.folder is not None:
        with environment.owner(place.folder):
            yield lambda: None
        return
    lease = Lease(place)
    lease.take()
    try:
        yield lease.renew
    finally:
        lease.release()


class Largest:
    """Keeps a request within the largest node: for one that no node can meet, Ray waits for ever, in silence."""

    def __init__(self, ray: Any) -> None:
        self.ray, self.bytes, self.said = ray, 0, False

    def look(self) -> None:
        """Nodes come and go."""
        self.bytes = int(max((node.get("memory", 0) for node in nodes_of(self.ray)), default=0))

    def of(self, name: str, wanted: int) -> int:
        """What may be asked for."""
        if wanted <= self.bytes or not self.bytes:
            return wanted
        if not self.said:
            self.said = True
            say(
                f"{name} needs {wanted / 1e9:.1f} GB by its plan; the largest node has {self.bytes / 1e9:.1f} GB. Such "
                "steps get a whole node and may run out of memory. To set the memory yourself: needs: {memory: GB}"
            )
        return self.bytes


class Driver:
    """One process that decides; Ray's workers do."""

    def __init__(
        self,
        ray: Any,
        board: Schedule,
        place: Place,
        data_dir: Path | None,
        memory: Mapping[str, int] | None = None,
        alive: Callable[[], None] = lambda: None,
        gpus: int = 0,
        growing: bool = True,
    ) -> None:
        self.ray, self.board, self.place, self.alive, self.gpus = ray, board, place, alive, gpus
        self.growing = growing
        self.memory = memory or {}  # bytes that a step asks for where the file states none
        self.largest = Largest(ray)
        self.common = {
            "place": place.url if place.folder is None else str(place.folder.resolve()),
            "data_dir": str(data_dir.resolve()) if data_dir else "",
            "version": __version__,
            "own_tasks": catalog.included(),
        }
        self.running: dict[Any, list[Step]] = {}
        self.deaths: dict[str, int] = {}
        self.count = 0
        self.capacity = 1
        self.unplaced: list[str] = []
        # a worker that had a GPU gives its memory back by ending
        self.remote = {False: ray.remote(_task), True: ray.remote(max_calls=1)(_task)}

    def run(self) -> None:
        """Until every step has ended."""
        watch = Watch(self.board, self.place, self.alive)
        self.place.remove(STOP)
        self.place.clear()
        main = threading.current_thread() is threading.main_thread()
        # batch systems and containers end a job so: as Ctrl-C
        before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
        try:
            with watch.live or contextlib.nullcontext():
                while not self.board.over:
                    self._hand_out()
                    watch.unplaced = self.unplaced
                    done, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
                    more, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
                    for reference in dict.fromkeys([*done, *more]):
                        self._take_in(reference, self.running.pop(reference))
                    watch.tell({step.key for steps in self.running.values() for step in steps})
        except KeyboardInterrupt:
            self._stop()
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)
            watch.tell(set(), last=True)

    def _hand_out(self) -> None:
        if self.count % 50 == 0 or not self.running:  # nodes come and go; to ask takes a millisecond
            self.capacity = max(1, int(self.ray.cluster_resources().get("CPU", 1)))
            self.largest.look()
            self.unplaced = unplaced(self.board, nodes_of(self.ray))
        idle = len(self.running) < self.capacity
        least = min([1.0, *(step.needs.cpus for step in self.board.steps.values())])
        most = WINDOW if self.growing else min(WINDOW, int(AHEAD * self.capacity / least))
        for steps in self.board.take(most - len(self.running), idle):
            self._submit(steps)

    def options(self, needs: Needs) -> dict[str, Any]:
        """What Ray is to know of a step with these needs."""
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus or 0}
        if self.gpus and not needs.gpus:  # else it sees them all, and works on the first
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        if needs.memory:
            options["memory"] = int(needs.memory * 1e9)
        return options

    def _submit(self, steps: Sequence[Step]) -> None:
        needs, payload = steps[0].needs, {**self.board.payload(steps), **self.common}
        payload["gpus"] = needs.gpus or 0
        options = {**self.options(needs), "max_retries": 0, "name": payload["name"]}
        planned = max(self.memory.get(step.key, 0) for step in steps)
        if planned and not needs.memory:
            options["memory"] = self.largest.of(steps[0].name, planned)
        self.running[self.remote[bool(needs.gpus)].options(**options).remote(payload)] = list(steps)

    def _take_in(self, reference: Any, steps: list[Step]) -> None:
        errors = self.ray.exceptions
        try:
            answer = self.ray.get(reference)
        except errors.RayTaskError as fault:  # the worker could not even begin: finbench or a library is not there
            message = f"The worker could not run it: {str(fault.cause)[:300]}"
            answer = {"state": "failed", "message": message, "hint": ""}
        except (errors.TaskCancelledError, errors.RayError) as fault:
            self._died(steps, fault)
            return
        self.count += 1
        if answer["state"] == "stopped":
            return
        if answer["state"] == "failed" and len(steps) > 1:
            for step in steps:  # one of them is at fault: each alone
                self._submit([step])
            return
        parts = answer.pop("parts", None) or [{}] * len(steps)
        trace = answer.pop("trace", None)
        for step, part in zip(steps, parts, strict=True):
            attempts = self.deaths.get(step.key, 0) + 1
            outcome = {"key": step.key, "name": step.name, "kind": step.kind, **answer, **part, "attempts": attempts}
            outcome["seconds"] = round(answer.get("seconds", 0.0) / len(steps), 3)
            if trace:
                self.place.write(f"logs/{step.key}.txt", trace)
            self._finish(step, outcome)

    def _finish(self, step: Step, outcome: dict[str, Any]) -> None:
        self.place.write(f"steps/{step.key}.json", json.dumps(outcome, indent=1) + "\n")
        self.board.finish(step, outcome)

    def _died(self, steps: list[Step], fault: Exception) -> None:
        """A worker or its node is gone: again, each alone, up to ``retries`` times."""
        for step in steps:
            self.place.remove(f"running/{step.key}.json")  # nothing of it runs until a worker takes it again
            self.deaths[step.key] = times = self.deaths.get(step.key, 0) + 1
            if times <= self.board.sweep.retries:
                left = f"begun again, {times} of {self.board.sweep.retries}"
                say(f"{step.name}: its worker died ({type(fault).__name__}); {left}")
                self._submit([step])
                continue
            memory = isinstance(fault, self.ray.exceptions.OutOfMemoryError)
            why = "the node has too little memory" if memory else type(fault).__name__
            hint = "Give it more: needs: {memory: GB}" if memory else "ray logs; then the same command goes on."
            outcome = {"key": step.key, "name": step.name, "kind": step.kind, "state": "failed", "seconds": 0.0}
            outcome |= {"message": f"Its worker died {times} times: {why}.", "hint": hint, "attempts": times}
            self._finish(step, outcome)

    def _stop(self) -> None:
        """After Ctrl-C: workers write a checkpoint, what is finished is noted."""
        say("Stopping: workers write their checkpoints. Ctrl-C once more leaves them.")
        with contextlib.suppress(KeyboardInterrupt):
            self.place.write(STOP, "{}\n")  # ray.cancel would do, but Ray 2.60 may die of a step that ends meanwhile
            end, left = time.monotonic() + PATIENCE, list(self.running)
            while left and time.monotonic() < end:
                _, left = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=1)
                if not self.place.running():
                    break
            done, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=1)
            for reference in done:
                with contextlib.suppress(self.ray.exceptions.RayError):
                    answer = self.ray.get(reference)
                    if answer["state"] == "done":
                        self._take_in(reference, self.running[reference])
        summary = _summary(self.board, self.place, self.count)
        raise Interrupted(
            f"Stopped; {summary.done} of {summary.cells} cells are done, everything so far is in {self.place.url}.",
            "Go on with the same command.",
        )


def _task(payload: dict[str, Any]) -> dict[str, Any]:
    """In a worker of Ray: leave a mark while it runs, do it."""
    from finbench.core.version import __version__ as here
    from finbench.grid.places import Place
    from finbench.grid.work import run

    if here != payload["version"]:
        message = f"A node has finbench {here}, the driver {payload['version']}."
        hint = "Install the same version on every node."
        return {"state": "failed", "message": message, "hint": hint, "seconds": 0.0}
    place, file = Place(payload["place"]), f"running/{payload['keys'][0]}.json"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    mark = {"name": payload["name"], "since": started, "pid": os.getpid(), "keys": payload["keys"]}
    place.write(file, json.dumps(mark) + "\n")
    over = threading.Event()
    try:
        if place.read(STOP):
            return {"state": "stopped"}
        threading.Thread(target=_heed, args=(place, over), daemon=True).start()
        return run(payload)
    finally:
        over.set()
        place.remove(file)


def _heed(place: Place, over: threading.Event) -> None:
    """Interrupt the main thread, as Ctrl-C does, when the driver asks to stop before the step is ``over``."""
    while not over.wait(1):
        with contextlib.suppress(FinbenchError):  # results out of reach for a moment: the step's own affair
            if place.read(STOP) and not over.is_set():
                _thread.interrupt_main()
                return


def _summary(board: Schedule, place: Place, count: int) -> Summary:
    done = sum(1 for cell in board.cells if board.score_of[cell.key].done)
    return Summary(len(board.cells), done, board.failures(), count, board.best(), place.url)
