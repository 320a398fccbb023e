"""What 4 bits cost on Gemma 3 270M: the last planned test of docs/study-plan.md, from the scorecards of its grid.

    finbench sweep examples/sweep-four-bits.yaml --out OUT --data-dir DATA    hours; the same command goes on
    python benchmarks/four_bits.py OUT                                        tables, on the terminal
    python benchmarks/four_bits.py OUT --keep                                 what is finished, to benchmarks/four_bits
    python benchmarks/four_bits.py OUT --page                                 its part of docs/study.md

The test is made of all twenty trainings or not at all. A grid that was kept goes on anywhere, with the version that
began it: cp -r benchmarks/four_bits OUT, then the first command.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student
from six_tasks import DOCS, SEEDS, Cells, Points, difference, gap, keep, points_of, rates, read, spread, table

from finbench.cards import cardfiles
from finbench.core.catalog import PREFIX
from finbench.core.files import write_atomic
from finbench.core.prose import wrapped

BASE, TASKS, PAIR = "gemma3-270m", ("fpb", "tfns"), ("QLoRA", "LoRA")
KEPT = Path(__file__).with_suffix("")
MARKS = "<!-- written by `python benchmarks/four_bits.py OUT --page` -->", "<!-- end of the second base -->"


@dataclass(frozen=True)
class Test:
    """The planned difference in points: its interval, p, and the difference on each task with its interval."""

    value: float
    low: float
    high: float
    p: float
    single: dict[str, tuple[float, float, float]]

    @property
    def found(self) -> bool:
        """By the rule of the plan: significant, and both tasks have its sign."""
        return self.p < 0.05 and all(value * self.value > 0 for value, _, _ in self.single.values())


def planned(points: Points) -> Test:
    """The mean over the tasks of QLoRA minus LoRA, two-sided at 95 %; single tasks are not planned."""
    single = {}
    for task in TASKS:
        value, error, free = difference(points, PAIR, [task])
        half = float(student.ppf(0.975, free)) * error
        single[task] = (value, value - half, value + half)
    value, error, free = difference(points, PAIR, TASKS)
    half = float(student.ppf(0.975, free)) * error
    p = float(2 * student.sf(abs(value) / error, free)) if error else float(value == 0)
    return Test(value, value - half, value + half, p, single)


def tables(out: Path, cells: Cells) -> list[str]:
    """The base, both ways and the rates they were given; and the test, once all trainings are there."""
    asked = [next((cell.score for cell in cells.values() if cell.task == task), None) for task in TASKS]
    head = [f"{task}, {one.main_metric}, n = {one.n}" if one else task for task, one in zip(TASKS, asked, strict=True)]
    alone = out / "scorecards" / f"{BASE}.json"
    own = cardfiles.read(alone).scores if alone.is_file() else ()
    base = {score.task.removeprefix(PREFIX): [100 * score.main.value] for score in own}
    rows = [["base", *(spread(base.get(task, ()), 0) for task in TASKS)]]
    told = rates(cells)
    for way in reversed(PAIR):
        rows.append([way, *(spread(points_of(cells, way, task), len(SEEDS)) for task in TASKS)])
        rows.append([f"rate of {way}", *(f"{told[way, task][0]:g}" if (way, task) in told else "–" for task in TASKS)])
    made = [table(["", *head], rows)]
    missing = len(PAIR) * len(TASKS) * len(SEEDS) - len(cells)
    if missing:
        return [*made, f"{missing} trainings are missing: the planned test is not made."]
    test = planned({key: cell.points for key, cell in cells.items()})
    line = ["QLoRA against LoRA", gap(test.value, test.low, test.high), f"{test.p:.3f}", "yes" if test.found else "no"]
    line += [gap(*test.single[task]) for task in TASKS]
    return [*made, table(["planned", "mean of two", "p", "found", *(f"{task}, not planned" for task in TASKS)], [line])]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", action="store_true", help="copy what is finished to benchmarks/four_bits")
    parser.add_argument("--page", action="store_true", help="write its part of docs/study.md")
    given = parser.parse_args()
    cells = read(given.out)
    if wrong := [cell.path for cell in cells.values() if cell.record.base.alias != BASE]:
        sys.exit(f"{wrong[0]} is not of {BASE}.")
    if given.keep:
        keep(given.out, [cell.card.subject for cell in cells.values()], KEPT)
    told = "\n\n".join(tables(given.out, cells))
    if not given.page:
        print(told)
        return
    path = DOCS / "study.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    if not rest:
        sys.exit(f"{path} has no place for it: {MARKS[0]}")
    write_atomic(path, "\n\n".join([before + MARKS[0], wrapped(told), MARKS[1] + rest.partition(MARKS[1])[2]]))


if __name__ == "__main__":
    main()
