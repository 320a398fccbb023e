"""What a grid would take, by ``finbench plan``: memory, time and cost of its trainings, and what steps ask Ray for."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finbench.core.console import progress, say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Recipe
from finbench.core.version import __version__
from finbench.grid.identity import Identities
from finbench.grid.places import Place
from finbench.grid.steps import Schedule
from finbench.grid.sweepfile import Cell
from finbench.grid.work import SCORE, SEARCH
from finbench.models import bases
from finbench.training import GIB, plan, planned_gib, prepare_for_plan, shape_of

_FREE = {"name", "seed", "lr", "search", "options", "alpha", "dropout"}  # what a plan does not depend on
_WEIGHTS = {"method", "bits", "rank", "target_modules"}  # nor the rows and their order
FILE = "memory.json"  # key of a plan -> GiB; by whom it is read, it may be lost at any time
_MARGIN = 1.2  # over the plan: the libraries differ, and a node that swaps or kills costs more than one that waits
STAND_IN = "smollm2-135m"  # counts the tokens where the base itself is not here


@dataclass(frozen=True)
class Forecast:
    """Of one training: GiB and seconds on each card, the money; or why nobody knows. ``shape``: see planning.

    ``held``: rows that a search holds out for one that the training learns.
    """

    gpu: str
    memory: float | None = None
    seconds: float | None = None
    cost: float | None = None
    shape: str = ""
    unknown: str = ""
    held: float = 0.0


def forecasts(
    board: Schedule, gpu: str | None = None, price: float | None = None, data_dir: Path | None = None
) -> dict[str, Forecast]:
    """Key of a cell -> its forecast, and key of a search -> that of its recipe, where it is of fewer rows.

    ``gpu``: a card of ``finbench plan``; default: this machine, for cells without.

    Cells that differ only in what a plan does not depend on are planned once. A cell that no card of this name holds,
    whose rows are not here, or whose base is neither here nor of a known shape, has a forecast that says so.
    """
    planner, known = Planner(price, data_dir), dict[str, Forecast]()
    found = {}
    with progress() as bar:
        task = bar.add_task("planning", total=len(board.cells), note="")
        for cell in board.cells:
            card = gpu or ("" if cell.needs.gpus else "cpu")
            wanted = {cell.key: cell.recipe}
            if cell.search and cell.searched and cell.searched.limit != cell.recipe.limit:
                wanted[cell.search] = cell.searched
            for name, recipe in wanted.items():
                key = digest({**decisive(recipe), "card": card, "processes": cell.needs.processes})
                if key not in known:
                    known[key] = planner.of(recipe, card, cell.needs.processes)
                found[name] = known[key]
            bar.advance(task, 1)
    return found


def decisive(recipe: Recipe) -> dict[str, Any]:
    """Low-rank methods are planned alike."""
    method = recipe.method if recipe.method == "full" else "lora"
    return {**recipe.model_dump(exclude=_FREE), "method": method}


class Planner:
    """Plans cells; the rows of a task are rendered and tokenised once for all methods and bits."""

    def __init__(self, price: float | None, data_dir: Path | None) -> None:
        self.price, self.data_dir = price, data_dir
        self.runs: dict[str, Any] = {}
        self.shapes: dict[str, str | None] = {}  # base -> the size it is planned by, if it is not here

    def of(self, recipe: Recipe, card: str, count: int) -> Forecast:
        """The forecast of one training in ``count`` processes."""
        from finbench.training import held_share  # imports torch

        if not card:
            return Forecast("", unknown="which GPU? --gpu h100")
        recipe, shape = self._shaped(recipe)
        try:
            run = self._run(recipe)
            planned = plan(recipe, card, price=self.price, shape=shape, processes=count, run=run)
        except FinbenchError as fault:
            said = f"{fault.message} {fault.hint}".strip()
            return Forecast(card, unknown=said, shape=shape or "")
        memory, held = planned["memory_gib"]["total"], held_share(run)
        return Forecast(card, memory, planned["seconds"], planned["cost"], shape or "", held=held)

    def memory(self, recipe: Recipe) -> float:
        """GiB of the training on a processor, whatever this machine has."""
        recipe, shape = self._shaped(recipe)
        return planned_gib(self._run(recipe), recipe, "cpu", shape)

    def _shaped(self, recipe: Recipe) -> tuple[Recipe, str | None]:
        if recipe.base not in self.shapes:  # to find a base takes its fingerprint
            try:
                bases.resolve(recipe.base)
                self.shapes[recipe.base] = None
            except FinbenchError:
                self.shapes[recipe.base] = shape_of(recipe.base)
        shape = self.shapes[recipe.base]
        return (recipe.model_copy(update={"base": STAND_IN}), shape) if shape else (recipe, None)

    def _run(self, recipe: Recipe) -> Any:
        key = digest({key: value for key, value in decisive(recipe).items() if key not in _WEIGHTS})
        if key not in self.runs:
            self.runs[key] = prepare_for_plan(recipe, self.data_dir)
        return self.runs[key]


def total(board: Schedule, found: Mapping[str, Forecast]) -> dict[str, Any]:
    """What is left to do: seconds of one worker and cost of searches and trainings, how many of them are unknown.

    Scorings of tasks come on top, for a plan does not foresee them.
    """
    from finbench.training import in_trainings  # imports torch

    seconds, unknown, scorings = 0.0, 0, 0
    cost: float | None = None
    # the first: what a search is of, where several cells share it
    owners = {step.key: cell for cell in reversed(board.cells) for step in board.steps_of(cell)}
    for key, step in board.steps.items():
        if step.outcome:
            continue
        if step.kind == SCORE:
            scorings += 1
            continue
        cell = owners[key]
        forecast = found.get(str(cell.search), found[cell.key]) if step.kind == SEARCH else found[cell.key]
        times = in_trainings(step.payload["budget"], forecast.held, 1) if step.kind == SEARCH else 1
        if forecast.seconds is None:
            unknown += 1
            continue
        seconds += times * forecast.seconds
        if forecast.cost is not None:
            cost = (cost or 0.0) + times * forecast.cost
    return {"seconds": seconds, "cost": cost, "unknown": unknown, "scorings": scorings}


def sweep_outline(
    board: Schedule, place: Place, gpu: str | None = None, price: float | None = None, data_dir: Path | None = None
) -> dict[str, Any]:
    """What would be run: cells, steps, what is there already, and what the rest takes by the plan of each training."""
    found = forecasts(board, gpu, price, data_dir)
    asked = planned_memory(board, place, data_dir, found)
    cells = [
        {
            "cell": cell.name,
            "state": board.state(cell, set()),
            "axes": cell.values,
            "needs": cell.needs.model_dump(),
            "memory_asked": _stated(board, cell, asked),
            "plan": asdict(found[cell.key]),
        }
        for cell in board.cells
    ]
    return {
        "cells": cells,
        "steps_left": Counter(step.kind for step in board.steps.values() if not step.outcome),
        "seconds_of_one_worker": board.seconds_left(),
        "plan": total(board, found),
    }


def _stated(board: Schedule, cell: Cell, asked: Mapping[str, int]) -> float | None:
    """GB that the training of a cell asks Ray for: as the file states, else as it is planned; None: nothing."""
    if cell.needs.memory is not None:
        return cell.needs.memory
    sizes = [asked[step.key] for step in board.steps_of(cell) if step.kind != SCORE and step.key in asked]
    return round(max(sizes) / 1e9, 2) if sizes else None


def planned_memory(
    board: Schedule,
    place: Place,
    data_dir: Path | None = None,
    found: Mapping[str, Forecast] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Key of a step that is left to do -> bytes. Steps whose needs state memory, or take GPUs, are not among them.

    Every distinct plan is made once, and remembered at ``place``; ``found``: forecasts that are made already. What
    nobody can foresee asks for nothing. A scoring asks for what the training before it does. ``alive`` is called before
    each plan, which takes seconds.
    """
    before, planner, there = _remembered(place), Planner(None, data_dir), Identities(data_dir)
    sizes: dict[str, float | None] = {**before}  # None: nobody can foresee it
    wanted: dict[str, int] = {}
    for cell in board.cells:
        steps = [step for step in board.steps_of(cell) if not (step.done or step.needs.gpus or step.needs.memory)]
        if not steps:
            continue
        key = digest({**decisive(cell.recipe), "data": there.learnt(cell.recipe), "finbench": __version__})
        if key not in sizes:
            alive()
            sizes[key] = _planned(planner, cell, (found or {}).get(cell.key))
        size = sizes[key]
        if size is not None:
            for step in steps:
                wanted[step.key] = max(wanted.get(step.key, 0), int(_MARGIN * size * GIB))
    known = {key: size for key, size in sizes.items() if size is not None}
    if known != before and (place.folder is None or place.folder.is_dir()):  # a dry run makes no folder
        with contextlib.suppress(FinbenchError, OSError):
            place.write(FILE, json.dumps(known, indent=1) + "\n")
    return wanted


def _planned(planner: Planner, cell: Cell, made: Forecast | None) -> float | None:
    if made and made.gpu == "cpu" and made.memory is not None:
        return made.memory
    try:
        return planner.memory(cell.recipe)
    except FinbenchError:  # its rows or its base are not here: nobody can foresee it
        return None
    except Exception as fault:  # noqa: BLE001  a bug of a plan must not keep the grid from running, but is told
        say(f"{cell.name} could not be planned ({type(fault).__name__}: {fault}); it asks Ray for no memory.")
        return None


def _remembered(place: Place) -> dict[str, float]:
    """The plans of an earlier run; none of them if one is no number that memory can be."""
    try:
        found = json.loads(place.read(FILE) or "{}")
        if all(type(size) in (int, float) and math.isfinite(size) and 0 < size < 2**20 for size in found.values()):
            return dict(found)
    except (FinbenchError, ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        pass
    return {}
