"""The cost table of docs/sweep.md: what the grids of examples/ take by plan, base by base. Trains nothing.

    python benchmarks/sweep_costs.py --data-dir DATA --gpu h100 --price 2.50     a few minutes; prints the table

DATA holds the sets of the tasks; what is not there is not planned, and counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from finbench.grid import forecast, sweepfile
from finbench.grid.forecast import Forecast
from finbench.grid.steps import Schedule
from finbench.grid.sweepfile import Cell

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def lines(name: str, gpu: str, price: float, data_dir: Path | None) -> list[str]:
    """A line a base of the grid."""
    stated = sweepfile.read(EXAMPLES / f"sweep-{name}.yaml")
    board = Schedule(stated, sweepfile.cells(stated, data_dir), {})
    found = forecast.forecasts(board, gpu, price, data_dir)
    by_base: dict[str, list[Cell]] = {}
    for cell in board.cells:
        by_base.setdefault(cell.recipe.base, []).append(cell)
    return [_line(name, base, cells, found) for base, cells in by_base.items()]


def _line(name: str, base: str, cells: list[Cell], found: Mapping[str, Forecast]) -> str:
    planned = [found[cell.key] for cell in cells if found[cell.key].seconds is not None]
    hours = sum(one.seconds or 0.0 for one in planned) / 3600
    cost = sum(one.cost or 0.0 for one in planned)
    most = max((one.memory or 0.0 for one in planned), default=0.0)
    left = f"{len(planned):,} of {len(cells):,}" if len(planned) < len(cells) else f"{len(cells):,}"
    if not planned:
        return f"| {name} | {base} | {left} | | | |"
    return f"| {name} | {base} | {left} | {most:.0f} | {hours:,.1f} | {cost:,.0f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--price", type=float, default=2.50)
    given = parser.parse_args()
    print("| grid | base | cells | GiB, the largest | GPU hours | cost |\n|--|--|--:|--:|--:|--:|")
    for grid in ("finlora", "mission"):
        print("\n".join(lines(grid, given.gpu, given.price, given.data_dir)), flush=True)
