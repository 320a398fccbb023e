"""Cells -> steps, and which of them may be done now. No Ray in here: what is decided can be tested without it.

A cell is a search (shared), a training, and a scoring beside its base (shared too). A step is known by the digest of
all that decides its result, so that a finished one is never done again, and a new axis adds only its own.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from finbench.core import formats
from finbench.core.catalog import PREFIX
from finbench.core.files import digest
from finbench.core.records import Recipe
from finbench.core.settings import Settings
from finbench.grid.sweepfile import APART, Cell, Needs, Sweep, how
from finbench.grid.work import SCORE, SEARCH, TRAIN


@dataclass
class Step:
    """Something a worker does."""

    key: str
    kind: str
    name: str
    needs: Needs
    payload: dict[str, Any]  # what the worker gets
    after: list[str] = field(default_factory=list)  # keys of the steps it waits for
    cell: Cell | None = None
    group: str = ""  # scorings of one group may share an engine
    gpu_memory: float | None = None  # share of a GPU that the file states for a scoring; it decides no result
    outcome: dict[str, Any] | None = None  # what the worker answered, or an earlier one

    @property
    def done(self) -> bool:
        """Finished well; one with another outcome has failed."""
        return bool(self.outcome and self.outcome["state"] == "done")


def _shown(wanted: Settings, usual: Settings) -> str:
    """What a way of asking states that is not as usual, for people: ``shots 5, metadata noise=typos``."""
    told = []
    for one in fields(Settings):
        value = getattr(wanted, one.name)
        if one.name not in APART and value != getattr(usual, one.name):
            parts = [f"{key}={part}" for key, part in value.items()] if isinstance(value, Mapping) else [str(value)]
            told.append(f"{one.name} {','.join(parts)}")
    return ", ".join(told)


class Schedule:
    """Every step of a sweep, and what is known of it.

    ``there`` says whether an adapter's folder is still there; ``folders``: see ``Place.folders``.
    """

    def __init__(
        self,
        sweep: Sweep,
        cells: Iterable[Cell],
        known: Mapping[str, dict[str, Any]],
        there: Callable[[str], bool] = lambda folder: True,
        folders: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.sweep, self.folders = sweep, folders
        self.cells = [replace(cell, folder=self._named(cell.folder)) for cell in cells]
        self.steps: dict[str, Step] = {}
        self.score_of: dict[str, Step] = {}  # key of a cell -> its last step
        self.beside: dict[str, list[str]] = {}  # key of a cell -> keys of other scorings of its base
        for cell in self.cells:
            self._add(cell)
        for key, step in self.steps.items():
            if key in known and known[key].get("state") == "done":
                step.outcome = known[key]
        for cell in self.cells:  # scores outlive adapters, which are large; one that is yet to be scored is made again
            last = self.score_of[cell.key]
            train = self.steps[last.after[0]]
            if train.done and not last.done and not there(cell.folder):
                train.outcome = None
        groups = {step.group for step in self.steps.values()}
        self.ways = {key for keys in self.beside.values() for key in keys} - groups
        self.followers: dict[str, list[Step]] = {}
        for step in self.steps.values():
            for key in step.after:
                self.followers.setdefault(key, []).append(step)
        self.open = sum(1 for step in self.steps.values() if not step.outcome)
        # first what was begun, in the order of the file, then what begins a cell (its search, its base), and other ways
        # to ask: a stopped grid has whole cells
        self.ready: list[tuple[bool, int, Step]] = []
        self.number = {key: number for number, key in enumerate(self.steps)}
        self.grouped: dict[str, deque[Step]] = {}
        # group -> scorings that may still come
        self.left = Counter(step.group for step in self.steps.values() if step.group and not step.outcome)
        for step in self.steps.values():
            self._release(step)

    def _named(self, folder: str) -> str:
        """As it is called in the results: a cell's name says what tells it apart, which changes as a grid grows."""
        return self.folders.get(f"{folder.partition('/')[0]}/{folder[-8:]}", folder)

    def _add(self, cell: Cell) -> None:
        wanted, recipe = self.sweep.eval, cell.recipe
        after = []
        if self.sweep.tune and cell.searched:
            key = digest({"search": cell.search})
            if key not in self.steps:
                payload = {"recipe": cell.searched.model_dump(), "budget": self.sweep.tune.budget}
                payload["folder"] = self._named(f"searches/{cell.name}-{key[:8]}")
                self.steps[key] = Step(key, SEARCH, f"search {cell.name}", cell.needs, payload)
            after.append(key)
        train = digest({"train": cell.key})
        payload = {"recipe": recipe.model_dump(), "folder": cell.folder, "processes": cell.needs.processes}
        self.steps[train] = Step(train, TRAIN, f"train {cell.name}", cell.needs, payload, after, cell)
        scored = self._base(cell, wanted, cell.scored)
        group = digest(scored)
        key, payload = digest({**scored, "adapter": cell.key}), {**scored["score"], "folders": [cell.folder]}
        base = self.steps[group]
        step = Step(key, SCORE, f"score {cell.name}", base.needs, payload, gpu_memory=base.gpu_memory)
        step.after, step.cell, step.group = [train, group], cell, group
        self.steps[key] = self.score_of[cell.key] = step
        ways = [digest(self._base(cell, *one)) for one in zip(self.sweep.beside, cell.beside, strict=True)]
        self.beside[cell.key] = [key for key in ways if key != group]

    def _base(self, cell: Cell, wanted: Settings, scored: dict[str, Any]) -> dict[str, Any]:
        """Add the scoring of a cell's base, which others may share, and return all that decides it."""
        recipe = cell.recipe
        told = how(wanted, recipe)
        payload = {"base": recipe.base, "folders": [], "tasks": list(scored["tasks"]), "how": told}
        decisive = {"score": payload, "is": scored}
        key = digest(decisive)
        name = f"score {recipe.base}" + ("" if told["bits"] == 16 else f" in {formats.asked(told['bits'])}")
        name += f" on {','.join(task.removeprefix(PREFIX) for task in scored['tasks'])}"
        if shown := _shown(wanted, self.sweep.eval):
            name += f", {shown}"
        if key not in self.steps:
            needs, share = self.sweep.eval.needs or cell.needs, wanted.arguments.get("gpu_memory")
            self.steps[key] = Step(key, SCORE, name, needs, payload, gpu_memory=None if share is None else float(share))
        return decisive

    def settle(self, there: int) -> None:
        """Decide the GPUs of cells that state none; ``there``: those of the node that has most."""
        self.cells = [replace(cell, needs=cell.needs.settled(there)) for cell in self.cells]
        by_key = {cell.key: cell for cell in self.cells}
        for step in self.steps.values():
            step.needs = step.needs.settled(there)
            step.cell = by_key[step.cell.key] if step.cell else None

    def steps_of(self, cell: Cell) -> list[Step]:
        """Its scoring, its training, the scorings of its base, its search."""
        last = self.score_of[cell.key]
        before = [self.steps[key] for key in (*last.after, *self.beside.get(cell.key, ()))]
        return [last, *before, *(self.steps[key] for step in before for key in step.after)]

    def _release(self, step: Step) -> None:
        """Queue a step whose time has come; fail one that waits for a failed one."""
        if step.outcome:
            return
        before = [self.steps[key] for key in step.after]
        for one in before:
            if one.outcome and not one.done:
                message = one.outcome["message"] if one.cell else f"{one.name}: {one.outcome['message']}"
                self.finish(step, {"state": "failed", "message": message, "hint": one.outcome.get("hint", "")})
                return
        if not all(one.done for one in before):
            return
        if step.kind == TRAIN and step.after:
            found = self.steps[step.after[0]].outcome
            assert found is not None
            recipe = {**step.payload["recipe"], "lr": found["lr"], "search": found["search"]}
            step.payload["recipe"] = Recipe.parse(recipe, step.name).model_dump()
        if step.group:
            self.grouped.setdefault(step.group, deque()).append(step)
        else:
            later = step.key in self.ways or (self.sweep.tune is not None and step.kind != TRAIN)
            heapq.heappush(self.ready, (later, self.number[step.key], step))

    def finish(self, step: Step, outcome: dict[str, Any]) -> None:
        """Note how a step ended, and release those that waited for it."""
        step.outcome = outcome
        self.open -= 1
        if step.group:
            self.left[step.group] -= 1
        for follower in self.followers.get(step.key, []):
            self._release(follower)

    def take(self, room: int, idle: bool) -> list[list[Step]]:
        """Up to ``room`` pieces of work, each of one step or of a group of scorings that share an engine.

        A group that is not full waits for more adapters, unless none can come or workers are ``idle``.
        """
        size = self.sweep.eval.group
        taken: list[list[Step]] = []
        for group, waiting in self.grouped.items():
            while waiting and len(taken) < room:
                whole = len(waiting) >= size or len(waiting) >= self.left[group]
                if not whole and not (idle and not self.ready):
                    break
                taken.append([waiting.popleft() for _ in range(min(size, len(waiting)))])
        while self.ready and len(taken) < room:
            taken.append([heapq.heappop(self.ready)[-1]])
        return taken

    def payload(self, steps: Sequence[Step]) -> dict[str, Any]:
        """What a worker is told of a step, or of several scorings of a group."""
        first = steps[0]
        payload = {**first.payload, "kind": first.kind, "keys": [step.key for step in steps], "beside": []}
        payload |= {"report": self.sweep.report, "gpu_memory": first.gpu_memory}
        payload["name"] = first.name if len(steps) == 1 else f"{first.name} and {len(steps) - 1} more"
        if first.group:
            payload["folders"] = [folder for step in steps for folder in step.payload["folders"]]
            payload["beside"] = (self.steps[first.group].outcome or {}).get("files", [])
        return payload

    def state(self, cell: Cell, running: set[str]) -> str:
        """done, failed, running, searching (for the rate of its training) or waiting."""
        last = self.score_of[cell.key]
        if last.outcome:
            return "done" if last.done else "failed"
        begun = [step for step in self.steps_of(cell) if step.key in running]
        if any(step.cell for step in begun):
            return "running"
        return "searching" if any(step.kind == SEARCH for step in begun) else "waiting"

    @property
    def over(self) -> bool:
        """Every step has ended."""
        return self.open == 0

    def failures(self) -> list[dict[str, str]]:
        """The cells that failed, then other scorings of bases, with message and hint."""
        found = [(cell.name, self.score_of[cell.key]) for cell in self.cells]
        found += [(self.steps[key].name, self.steps[key]) for key in sorted(self.ways, key=self.number.__getitem__)]
        failed = [(name, step.outcome) for name, step in found if step.outcome and not step.done]
        return [
            {"cell": name, "message": said.get("message", ""), "hint": said.get("hint", "")} for name, said in failed
        ]

    def best(self) -> dict[str, tuple[float, str]]:
        """task -> (best main metric so far, of which adapter)."""
        best: dict[str, tuple[float, str]] = {}
        for cell in self.cells:
            step = self.score_of[cell.key]
            for task, (_, value) in (step.outcome or {}).get("scores", {}).items() if step.done else ():
                if task not in best or value > best[task][0]:
                    best[task] = value, cell.name
        return best

    def seconds_left(self) -> float | None:
        """Work left, in seconds of one worker, by the mean of the finished steps of each kind; None before any."""
        total = 0.0
        for kind in (SEARCH, TRAIN, SCORE):
            own = [step.outcome for step in self.steps.values() if step.kind == kind]
            left = sum(1 for outcome in own if not outcome)
            times = [one["seconds"] for one in own if one and one["state"] == "done" and "seconds" in one]
            if left and not times:
                return None
            total += left * sum(times) / len(times) if left else 0.0
        return total
