"""What a grid would take, by ``finbench plan``: the outline of a dry run, and the memory that steps ask Ray for."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.version import __version__
from finbench.grid import forecast, sweepfile
from finbench.grid.forecast import Forecast
from finbench.grid.places import Place
from finbench.grid.steps import Schedule
from finbench.grid.sweepfile import Cell
from finbench.grid.work import SCORE
from finbench.training import GIB

FILE = "memory.json"  # key of a plan -> GiB; by whom it is read, it may be lost at any time
_MARGIN = 1.2  # over the plan: the libraries differ, and a node that swaps or kills costs more than one that waits


def sweep_outline(
    board: Schedule, place: Place, gpu: str | None = None, price: float | None = None, data_dir: Path | None = None
) -> dict[str, Any]:
    """What would be run: cells, steps, what is there already, and what the rest takes by the plan of each training."""
    found = forecast.forecasts(board, gpu, price, data_dir)
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
        "plan": forecast.total(board, found),
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
    before, planner, rows = _remembered(place), forecast.Planner(None, data_dir), dict[str, Any]()
    sizes: dict[str, float | None] = {**before}  # None: nobody can foresee it
    wanted: dict[str, int] = {}
    for cell in board.cells:
        steps = [step for step in board.steps_of(cell) if not (step.done or step.needs.gpus or step.needs.memory)]
        if not steps:
            continue
        data = sweepfile.rows_of(cell.recipe, data_dir, rows)
        key = digest({**forecast.decisive(cell.recipe), "data": data, "finbench": __version__})
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


def _planned(planner: forecast.Planner, cell: Cell, made: Forecast | None) -> float | None:
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


class Largest:
    """Keeps a request within the largest node: for one that no node can meet, Ray waits for ever, in silence."""

    def __init__(self, ray: Any) -> None:
        self.ray, self.bytes, self.said = ray, 0, False

    def look(self) -> None:
        """Nodes come and go."""
        nodes = [node["Resources"].get("memory", 0) for node in self.ray.nodes() if node["Alive"]]
        self.bytes = int(max(nodes, default=0))

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
