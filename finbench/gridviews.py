"""What ``finbench sweep`` prints."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from finbench.console import out
from finbench.grid.driver import Summary
from finbench.grid.steps import Board
from finbench.grid.watch import duration, picture

_SHOWN = 40  # cells


def planned(board: Board, as_json: bool) -> None:
    """What would be run: cells, steps, what is there already, and how long the rest takes by what was measured."""
    cells: list[dict[str, Any]] = [
        {"cell": cell.name, "state": board.state(cell, set()), "axes": cell.values, "needs": cell.needs.model_dump()}
        for cell in board.cells
    ]
    steps = Counter(step.kind for step in board.steps.values() if not step.outcome)
    seconds = board.seconds_left()
    if as_json:
        typer.echo(json.dumps({"cells": cells, "steps_left": steps, "seconds_of_one_worker": seconds}, indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cell", no_wrap=True)
    for column in ("CPUs", "GPUs", "memory", "state"):
        table.add_column(column, justify="left" if column == "state" else "right")
    for cell in cells[:_SHOWN]:
        needs = cell["needs"]
        memory = f"{needs['memory']:g} GB" if needs["memory"] else ""
        table.add_row(Text(cell["cell"]), f"{needs['cpus']:g}", f"{needs['gpus']:g}", memory, cell["state"])
    out.print(table)
    if len(cells) > _SHOWN:
        out.print(f"and {len(cells) - _SHOWN:,} more: --json names them all", style="dim")
    left = ", ".join(f"{count:,} {kind}" for kind, count in steps.items()) or "nothing"
    out.print(f"\n{len(cells):,} cells; to do: {left}", highlight=False)
    if seconds:
        out.print(f"About {duration(seconds)} of one worker, by the mean of the steps that were run.", highlight=False)


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
    out.print(f"Next: finbench report {place}/scorecards --spread seeds", highlight=False, soft_wrap=True)
