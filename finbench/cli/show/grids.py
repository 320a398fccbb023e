"""What ``finbench sweep`` prints."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from finbench.core.console import out
from finbench.grid import Cell, Schedule, Summary, duration, forecast, picture
from finbench.grid.forecast import Forecast

_SHOWN = 40  # cells
_PLURAL = {"search": "searches", "train": "trainings", "score": "scorings", "nothing": "steps"}


def planned(board: Schedule, found: Mapping[str, Forecast], asked: Mapping[str, int], as_json: bool) -> None:
    """What would be run: cells, steps, what is there already, and what the rest takes by the plan of each training."""
    cells: list[dict[str, Any]] = [
        {
            "cell": cell.name,
            "state": board.state(cell, set()),
            "axes": cell.values,
            "needs": cell.needs.model_dump(),
            "memory_asked": _asked(board, cell, asked),
            "plan": asdict(found[cell.key]),
        }
        for cell in board.cells
    ]
    steps = Counter(step.kind for step in board.steps.values() if not step.outcome)
    measured, planned = board.seconds_left(), forecast.total(board, found)
    if as_json:
        whole = {"steps_left": steps, "seconds_of_one_worker": measured, "plan": asdict(planned)}
        typer.echo(json.dumps({"cells": cells, **whole}, indent=1))
        return
    _table(cells)
    left = ", ".join(f"{count:,} {_PLURAL[kind]}" for kind, count in steps.items()) or "nothing"
    out.print(f"\n{len(cells):,} cells; to do: {left}", highlight=False)
    _foreseen(planned, found)
    if measured:
        out.print(f"By the mean of the steps that were run: about {duration(measured)} of one worker.", highlight=False)


def _asked(board: Schedule, cell: Cell, asked: Mapping[str, int]) -> float | None:
    """GB that the training of a cell asks Ray for: as the file states, else as it is planned; None: nothing."""
    if cell.needs.memory is not None:
        return cell.needs.memory
    sizes = [asked[step.key] for step in forecast.own(board, cell) if step.key in asked]
    return round(max(sizes) / 1e9, 2) if sizes else None


def _table(cells: list[dict[str, Any]]) -> None:
    """A line for the cells that differ in their seed only."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    priced = any(cell["plan"]["cost"] is not None for cell in cells)
    waiting = all(cell["state"] == "waiting" for cell in cells)  # nothing to tell apart
    table.add_column("cells", overflow="fold")
    for column in ("seeds", "CPUs", "GPUs", "memory", "asked", "time", *(["cost"] if priced else [])):
        table.add_column(column, justify="right", no_wrap=True)
    if not waiting:
        table.add_column("state")
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        same = {key: value for key, value in cell["axes"].items() if key != "seed"}
        groups.setdefault(
            json.dumps([same, cell["needs"], cell["memory_asked"], cell["plan"]], sort_keys=True), []
        ).append(cell)
    for group in list(groups.values())[:_SHOWN]:
        needs, plan = group[0]["needs"], group[0]["plan"]
        cost = [f"{plan['cost']:.2f}" if plan["cost"] is not None else ""] if priced else []
        memory = f"{plan['memory']:.1f} GiB" if plan["memory"] else ""
        asked = f"{group[0]['memory_asked']:.1f} GB" if group[0]["memory_asked"] else ""
        time = duration(plan["seconds"]) if plan["seconds"] else ""
        states = Counter(cell["state"] for cell in group)
        state = ", ".join(state if len(states) == 1 else f"{count} {state}" for state, count in states.items())
        name = re.sub(r"-s\d+$", "", group[0]["cell"])
        shown = [str(len(group)), f"{needs['cpus']:g}", f"{needs['gpus']:g}", memory, asked, time, *cost]
        table.add_row(Text(name), *shown, *([] if waiting else [state]))
    out.print(table)
    if len(groups) > _SHOWN:
        out.print(f"and {len(groups) - _SHOWN:,} lines more: --json names every cell", style="dim")


def _foreseen(planned: forecast.Total, found: Mapping[str, Forecast]) -> None:
    """Time and money of all trainings, where the plans are from, and what nobody knows."""
    if planned.seconds:
        cost = f" and costs {planned.cost:,.2f}" if planned.cost is not None else ""
        time = duration(planned.seconds)
        out.print(f"By plan, all training takes {time} of one worker{cost}; scoring comes on top.", highlight=False)
    if shapes := sorted({one.shape for one in found.values() if one.shape and not one.unknown}):
        out.print(
            f"Not here, so planned by size with tokens as {forecast.STAND_IN} counts them: {', '.join(shapes)}.",
            style="dim",
        )
    for reason, count in Counter(one.unknown for one in found.values() if one.unknown).items():
        out.print(Text(f"No plan for {count:,} cell{'s' if count > 1 else ''}: {reason}", style="yellow"))


def status(found: dict[str, Any]) -> None:
    """How a sweep stands."""
    out.print(picture(found))
    if not found["alive"] and found["done"] + found["failed"] < found["cells"]:
        out.print("No driver is at work: the sweep's own command goes on.", style="yellow", highlight=False)


def ended(summary: Summary, as_json: bool, place: str) -> None:
    """The end of a sweep."""
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=1))
        return
    out.print(
        f"[bold]{summary.done:,} of {summary.cells:,} cells are done[/]; {summary.steps_run:,} steps were run now.",
        highlight=False,
    )
    for failure in summary.failed[:_SHOWN]:
        out.print(Text(f"failed: {failure['cell']}: {failure['message']}", style="red"))
    if summary.done:
        after = f"sweep fetch {place}" if "://" in place else f"report {place}/scorecards --spread seeds"
        out.print(f"Next: finbench {after}", highlight=False, soft_wrap=True)
