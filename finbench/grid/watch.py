"""How a sweep stands: written by its driver to progress.json, shown live and by ``finbench sweep status``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from pydantic import Field
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finbench.core.console import duration, err, say
from finbench.core.errors import FinbenchError, counted
from finbench.core.files import strict_json
from finbench.core.strict import Record
from finbench.grid.places import Place
from finbench.grid.steps import Schedule

EVERY = 1.0  # seconds between two looks
SAID, AS_BEFORE = 30.0, 600.0  # seconds between two lines where there is no terminal; of the same words
GONE = 60.0  # seconds after which a driver that says nothing is taken for dead
_AT_URL = 15.0  # seconds between two writes to a store that charges for each


class Watch:
    """What the driver tells and shows."""

    def __init__(self, board: Schedule, place: Place, alive: Callable[[], None] = lambda: None) -> None:
        self.board, self.place, self.alive = board, place, alive  # ``alive``: called whenever something is written
        self.every = EVERY if place.folder is not None else _AT_URL
        self.written = self.said = 0.0
        self.line = ""  # that was said last
        self.unplaced: list[str] = []  # steps that no node can take, in words
        self.live = Live(console=err, transient=True, auto_refresh=False) if err.is_terminal else None

    def tell(self, running: set[str], last: bool = False) -> None:
        """Write how it stands, now and then; ``running``: keys of the steps that Ray was given."""
        now = time.time()
        if not last and now - self.written < self.every:
            return
        self.written = now
        found = self._progress(running, last)
        self.place.write("progress.json", json.dumps(found, indent=1) + "\n")
        self.alive()
        if self.live:
            self.live.update(picture(found), refresh=True)
        elif now - self.said > (SAID if line(found) != self.line else AS_BEFORE) and not last:
            self.said, self.line = now, line(found)
            say(self.line)

    def _progress(self, running: set[str], last: bool) -> dict[str, Any]:
        # a worker that was killed leaves its mark: what counts is what Ray has in hand now
        marks = [mark for mark in self.place.running() if running.intersection(mark.get("keys", ()))] if running else []
        # what Ray was given and no worker has begun is waiting: for a processor, or for memory
        begun = {key for mark in marks for key in mark["keys"]}
        doing = [{name: value for name, value in mark.items() if name != "keys"} for mark in marks]
        states = [self.board.state(cell, begun) for cell in self.board.cells]
        left = self.board.seconds_left()
        return {
            "sweep": self.board.sweep.name,
            "cells": len(states),
            **{state: states.count(state) for state in ("done", "failed", "running", "searching", "waiting")},
            "scorings": sum(1 for key in self.board.ways if not self.board.steps[key].outcome),
            "doing": doing,
            "seconds_left": None if left is None else round(left / max(1, len(doing))),
            "best": self.board.best(),
            "failures": self.board.failures(),
            "unplaced": self.unplaced,
            "renewed": time.time(),
            "over": last,
            "pid": os.getpid(),
        }


class _Mark(Record):
    name: str
    since: str
    pid: int


class _Failure(Record):
    cell: str
    message: str
    hint: str


class _Progress(Record):
    """``progress.json``, as ``Watch`` writes it."""

    sweep: str
    cells: int = Field(ge=0)
    done: int
    failed: int
    running: int
    searching: int = 0  # cells whose rate is searched for; several may share a search
    waiting: int
    scorings: int = 0  # of bases in other ways, which no cell waits for
    doing: list[_Mark]
    seconds_left: int | None
    best: dict[str, tuple[float, str]]
    failures: list[_Failure]
    unplaced: list[str]
    renewed: float
    over: bool
    pid: int


def sweep_status(url: str) -> dict[str, Any]:
    """How the sweep whose results lie at ``url`` stands; ``alive`` says whether its driver still speaks."""
    place = Place(url)
    text = place.read("progress.json")
    if text is None:
        raise FinbenchError(f"No sweep has run in {url}.", "finbench sweep FILE --out DIR begins one.")
    try:
        found = _Progress.parse(strict_json(text), "progress.json").model_dump()
    except (ValueError, RecursionError, FinbenchError) as fault:
        raise FinbenchError(f"{url}/progress.json is torn.", "The next command of the sweep writes it anew.") from fault
    found["alive"] = not found["over"] and time.time() - found["renewed"] < GONE
    if not found["alive"]:
        left = sum(found[state] for state in ("running", "searching", "waiting"))
        found |= {"doing": [], "running": 0, "searching": 0, "waiting": left}
    return found


def line(found: dict[str, Any]) -> str:
    """One line of it."""
    text = f"{found['sweep']}: {found['done']} of {found['cells']} cells done"
    busy = ("running", "searching")
    shown = (*busy, "waiting", "failed") if any(map(found.get, busy)) else ("failed",)
    text += "".join(f", {found[state]} {state}" for state in shown if found.get(state))
    if found.get("scorings"):
        text += f", {counted(found['scorings'], 'scoring')} of bases to come"
    if found.get("unplaced"):
        text += f"; {len(found['unplaced'])} steps wait for a larger node: {found['unplaced'][0]}"
    return text + (
        f", about {duration(found['seconds_left'])} left" if found["seconds_left"] and found["doing"] else ""
    )


def picture(found: dict[str, Any]) -> Any:
    """A bar, what is being done, the best so far, and what failed."""
    parts: list[Any] = [Text(line(found), style="bold")]
    parts.append(ProgressBar(total=found["cells"], completed=found["done"] + found["failed"], width=60))
    if found["doing"]:
        table = Table("running", "since", box=None, pad_edge=False)
        for mark in found["doing"][:12]:
            table.add_row(Text(str(mark["name"])), Text(str(mark["since"])[11:19] + " UTC"))
        parts.append(table)
        if len(found["doing"]) > 12:
            parts.append(Text(f"and {len(found['doing']) - 12} more", style="dim"))
    if found["best"]:
        table = Table("task", "best", "of", box=None, pad_edge=False)
        for task, (value, name) in sorted(found["best"].items()):
            table.add_row(Text(task.removeprefix("finbench_")), f"{100 * value:.1f}", Text(name))
        parts.append(table)
    for failure in found["failures"][:8]:
        parts.append(Text(f"failed: {failure['cell']}: {failure['message']}", style="red"))
        if failure["hint"]:
            parts.append(Text(f"        {failure['hint']}", style="dim"))
    if len(found["failures"]) > 8:
        parts.append(Text(f"and {len(found['failures']) - 8} more failed", style="red"))
    return Group(*parts)
