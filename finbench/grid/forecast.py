"""What a grid would take before it is begun: memory, time and cost of each cell's training, by ``finbench plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.console import progress
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Recipe
from finbench.grid.steps import Schedule
from finbench.grid.sweepfile import Cell
from finbench.grid.work import SCORE, SEARCH
from finbench.models import bases
from finbench.training import plan, planned_gib, prepare_for_plan, shape_of

_FREE = {"name", "seed", "lr", "search", "options", "alpha", "dropout"}  # what a plan does not depend on
_WEIGHTS = {"method", "bits", "rank", "target_modules"}  # nor the rows and their order
STAND_IN = "smollm2-135m"  # counts the tokens where the base itself is not here


@dataclass(frozen=True)
class Forecast:
    """Of one training: GiB and seconds on each card, the money; or why nobody knows. ``shape``: see planning."""

    gpu: str
    memory: float | None = None
    seconds: float | None = None
    cost: float | None = None
    shape: str = ""
    unknown: str = ""


def forecasts(
    board: Schedule, gpu: str | None = None, price: float | None = None, data_dir: Path | None = None
) -> dict[str, Forecast]:
    """Key of a cell -> its forecast. ``gpu``: a card of ``finbench plan``; default: this machine, for cells without.

    Cells that differ only in what a plan does not depend on are planned once. A cell that no card of this name holds,
    whose rows are not here, or whose base is neither here nor of a known shape, has a forecast that says so.
    """
    planner, known = Planner(price, data_dir), dict[str, Forecast]()
    found = {}
    with progress() as bar:
        task = bar.add_task("planning", total=len(board.cells))
        for cell in board.cells:
            card = gpu or ("" if cell.needs.gpus else "cpu")
            key = digest({**decisive(cell.recipe), "card": card, "processes": cell.needs.processes})
            if key not in known:
                known[key] = planner.of(cell, card)
            found[cell.key] = known[key]
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

    def of(self, cell: Cell, card: str) -> Forecast:
        """The forecast of one cell."""
        if not card:
            return Forecast("", unknown="which GPU? --gpu h100")
        recipe, shape = self._shaped(cell.recipe)
        try:
            count, run = cell.needs.processes, self._run(recipe)
            planned = plan(recipe, card, price=self.price, shape=shape, processes=count, run=run)
        except FinbenchError as fault:
            said = f"{fault.message} {fault.hint}".strip()
            return Forecast(card, unknown=said, shape=shape or "")
        return Forecast(card, planned["memory_gib"]["total"], planned["seconds"], planned["cost"], shape or "")

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

    A search costs its budget in whole trainings; scorings come on top, for a plan does not foresee them.
    """
    seconds, unknown, scorings = 0.0, 0, 0
    cost: float | None = None
    owners = {step.key: cell for cell in board.cells for step in board.steps_of(cell)}
    for key, step in board.steps.items():
        if step.outcome:
            continue
        if step.kind == SCORE:
            scorings += 1
            continue
        forecast = found[owners[key].key]
        times = step.payload["budget"] if step.kind == SEARCH else 1
        if forecast.seconds is None:
            unknown += 1
            continue
        seconds += times * forecast.seconds
        if forecast.cost is not None:
            cost = (cost or 0.0) + times * forecast.cost
    return {"seconds": seconds, "cost": cost, "unknown": unknown, "scorings": scorings}
