"""What ``finbench sweep`` prints."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from finbench.cli.show.layout import put
from finbench.core.console import duration, out
from finbench.core.errors import counted
from finbench.grid import Summary, picture
from finbench.grid.forecast import STAND_IN

_SHOWN = 40  # cells
_STEPS = {"search": ("search", "searches"), "train": ("training", "trainings"), "score": ("scoring", "scorings")}


def planned(plan: Mapping[str, Any]) -> None:
    """What would be run: cells, steps, what is there already, and what the rest takes by the plan of each training."""
    _table(plan["cells"])
    left = ", ".join(f"{count:,} {_STEPS[kind][count != 1]}" for kind, count in plan["steps_left"].items()) or "nothing"
    put(f"\n{counted(len(plan['cells']), 'cell')}; to do: {left}", wrap=True)
    _foreseen(plan["plan"], [cell["plan"] for cell in plan["cells"]])
    if measured := plan["seconds_of_one_worker"]:
        put(f"By the mean of the steps that were run: about {duration(measured)} of one worker.", wrap=True)


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


def _foreseen(whole: Mapping[str, Any], plans: Sequence[Mapping[str, Any]]) -> None:
    """Time and money of all trainings, where the plans are from, and what nobody knows."""
    if whole["seconds"]:
        cost = f" and costs {whole['cost']:,.2f}" if whole["cost"] is not None else ""
        time = duration(whole["seconds"])
        put(
            f"By plan, all training takes {time} of one worker with its cores to itself{cost}; scoring comes on top.",
            wrap=True,
        )
    if shapes := sorted({one["shape"] for one in plans if one["shape"] and not one["unknown"]}):
        out.print(
            f"Not here, so planned by size with tokens as {STAND_IN} counts them: {', '.join(shapes)}.",
            style="dim",
        )
    for reason, count in Counter(one["unknown"] for one in plans if one["unknown"]).items():
        out.print(Text(f"No plan for {count:,} cell{'s' if count > 1 else ''}: {reason}", style="yellow"))


def status(found: dict[str, Any]) -> None:
    """How a sweep stands."""
    out.print(picture(found))
    if not found["alive"] and (found["done"] + found["failed"] < found["cells"] or found["scorings"]):
        put("No driver is at work: the sweep's own command goes on.", style="yellow", wrap=True)


def ended(summary: Summary) -> None:
    """The end of a sweep."""
    done = f"[bold]{summary.done:,} of {summary.cells:,} cells are done[/]"
    put(f"{done}; {summary.steps_run:,} steps were run now.", wrap=True)
    for failure in summary.failed[:_SHOWN]:
        out.print(Text(f"failed: {failure['cell']}: {failure['message']}", style="red"))
    if summary.done:
        place = summary.place
        after = f"sweep fetch {place}" if "://" in place else f"report {place}/scorecards --spread seeds"
        put(f"Next: finbench {after}")
