"""The planned tests of docs/study-plan.md, and what stands beside them, from the scorecards of its grid.

    finbench sweep examples/sweep-six-tasks.yaml --out OUT --data-dir DATA     hours; the same command goes on
    python benchmarks/six_tasks.py OUT                                         tables, on the terminal
    python benchmarks/six_tasks.py OUT --ask-base DATA                         first the base at its best, an hour
    python benchmarks/six_tasks.py OUT --keep                                  what is finished, to benchmarks/six_tasks

Reads OUT/scorecards, OUT/searches and OUT/base. Says which trainings are missing; the planned tests are made of all of
them or not at all. What the base was asked already is not asked again. A grid that was kept goes on anywhere, with the
version that began it: cp -r benchmarks/six_tasks OUT, then the first command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from finbench.cards import cardfiles, contextual
from finbench.cards.comparison import aggregation_of
from finbench.core.catalog import PREFIX
from finbench.core.records import Scorecard
from finbench.core.seal import edited
from finbench.scoring import clusters_of, holm, metrics, values_of
from finbench.scoring.stats import by_cluster

TASKS = ("fpb", "tfns", "fiqa_sa", "fin_ner_typing", "headlines", "xbrl_values")
SEEDS = (0, 1, 2, 3, 4)
WAYS = {
    ("lora", 16): "LoRA",
    ("lora+", 16): "LoRA+",
    ("dora", 16): "DoRA",
    ("pissa", 16): "PiSSA",
    ("lora", 4): "QLoRA",
    ("irqlora", 4): "IR-QLoRA",
}
PLANNED = (("LoRA+", "LoRA"), ("DoRA", "LoRA"), ("PiSSA", "LoRA"), ("QLoRA", "LoRA"), ("IR-QLoRA", "QLoRA"))
BASE, LIMIT = "smollm2-135m", 600
SHOTS = ((0, 0), (5, 0), (5, 1), (5, 2))  # worked examples, and the seed that draws them
LABELS = tuple(f"{task}_mc" for task in TASKS[:-1])
KEPT = Path(__file__).with_suffix("")
_CARDS = ("*.json", "*.samples.jsonl.zst")
_FINISHED = ("steps/*.json", "searches/*/search.json", "searches/*/*-tuned.yaml")
_FINISHED += tuple(f"{folder}/{name}" for folder in ("scorecards", "base/*") for name in _CARDS)
_RESAMPLES = 2_000
Points = Mapping[tuple[str, str, int], float]  # way, task, seed -> main metric in points


@dataclass(frozen=True)
class Planned:
    """A planned difference: its interval, p before and after Holm, and the mean without each task."""

    pair: tuple[str, str]
    value: float
    low: float
    high: float
    p: float
    corrected: float
    without: dict[str, float]

    @property
    def found(self) -> bool:
        """By the rule of the plan: significant, and of one sign whichever task is left out."""
        return self.corrected < 0.05 and all(one * self.value > 0 for one in self.without.values())


def difference(points: Points, pair: tuple[str, str], tasks: Sequence[str]) -> tuple[float, float, float]:
    """(mean over tasks of the paired differences, its standard error, Welch-Satterthwaite's degrees of freedom)."""
    found, shares = [], []
    for task in tasks:
        gaps = [points[pair[0], task, seed] - points[pair[1], task, seed] for seed in SEEDS]
        found.append(statistics.mean(gaps))
        shares.append(statistics.variance(gaps) / len(gaps))
    total = sum(shares)
    free = total**2 / sum(share**2 / (len(SEEDS) - 1) for share in shares) if total else float(len(SEEDS) - 1)
    return statistics.mean(found), total**0.5 / len(tasks), free


def planned(points: Points) -> list[Planned]:
    """The five planned tests."""
    told = []
    for pair in PLANNED:
        value, error, free = difference(points, pair, TASKS)
        half = float(student.ppf(0.975, free)) * error
        p = float(2 * student.sf(abs(value) / error, free)) if error else float(value == 0)
        left = {task: difference(points, pair, [one for one in TASKS if one != task])[0] for task in TASKS}
        told.append((pair, value, value - half, value + half, p, left))
    corrected = holm([one[4] for one in told])
    return [
        Planned(pair, value, low, high, p, float(own), left)
        for (pair, value, low, high, p, left), own in zip(told, corrected, strict=True)
    ]


def single(points: Points) -> dict[tuple[str, str], list[tuple[str, float, float, float, float]]]:
    """Not planned: each pair on each task (value, low, high, p after Holm over all thirty)."""
    cells = []
    for pair, task in itertools.product(PLANNED, TASKS):
        value, error, free = difference(points, pair, [task])
        half = float(student.ppf(0.975, free)) * error
        p = float(2 * student.sf(abs(value) / error, free)) if error else float(value == 0)
        cells.append((pair, task, value, value - half, value + half, p))
    corrected = holm([one[-1] for one in cells])
    found: dict[tuple[str, str], list[tuple[str, float, float, float, float]]] = {}
    for (pair, task, value, low, high, _), own in zip(cells, corrected, strict=True):
        found.setdefault(pair, []).append((task, value, low, high, float(own)))
    return found


@dataclass(frozen=True)
class Cell:
    """An adapter that was trained on a task, and its card."""

    way: str
    task: str
    seed: int
    card: Scorecard
    path: Path

    @property
    def points(self) -> float:
        """Its main metric on that task."""
        return 100 * self._score.main.value

    @property
    def _score(self) -> Any:
        return next(score for score in self.card.scores if score.task == PREFIX + self.task)

    def sums(self) -> tuple[Any, Any]:
        """(sums of each source, shape (sources, k); the statistic of their total) of the main metric."""
        rows = cardfiles.rows_by_task(self.path, self.card)[PREFIX + self.task]
        name = self._score.main_metric
        how = metrics.known_as(aggregation_of(PREFIX + self.task, name))
        made = metrics.summed(how, values_of(rows)[name])
        if made is None:
            sys.exit(f"{self.path}: {name} is no function of sums.")
        sources = np.unique(clusters_of(rows), return_inverse=True)[1]
        return by_cluster(made.parts[None], sources.tolist())[0][0], made.statistic


def by_documents(cells: Mapping[tuple[str, str, int], Cell], pair: tuple[str, str]) -> tuple[float, float]:
    """Not planned: the interval of a planned difference over documents of these adapters, resampled by source."""
    draws = np.zeros((len(TASKS), _RESAMPLES))
    for number, task in enumerate(TASKS):
        rng = np.random.default_rng([number, 1])
        weights: Any = None
        for side, sign in zip(pair, (1, -1), strict=True):
            for seed in SEEDS:
                parts, statistic = cells[side, task, seed].sums()
                if weights is None:  # the same documents for all
                    weights = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), _RESAMPLES)
                draws[number] += sign * 100 * statistic(weights @ parts) / len(SEEDS)
    low, high = np.quantile(draws.mean(axis=0), [0.025, 0.975])
    return float(low), float(high)


def read(out: Path) -> dict[tuple[str, str, int], Cell]:
    """The adapters of the grid by way, task and seed; a card that was edited, or is of another grid, ends it."""
    found: dict[tuple[str, str, int], Cell] = {}
    for path in sorted((out / "scorecards").glob("*.json")):
        card = cardfiles.read(path)
        subject = card.subject
        if subject.adapter is None:
            continue
        if wrong := edited(cardfiles.raw(path)):
            sys.exit(f"{path} was edited: {', '.join(wrong[:3])}.")
        tasks = [task for task in TASKS if any(score.task == PREFIX + task for score in card.scores)]
        way = WAYS.get((str(subject.method), subject.bits))
        if way is None or len(tasks) != 1 or subject.seed not in SEEDS:
            sys.exit(f"{path} is no training of the plan.")
        cell = Cell(way, tasks[0], int(subject.seed), card, path)
        if found.setdefault((cell.way, cell.task, cell.seed), cell) is not cell:
            sys.exit(f"{path}: another card is of the same training.")
    return found


def rates(out: Path) -> dict[tuple[str, str], tuple[float, bool]]:
    """By way and task the rate that was found, and whether it is an end of what was tried."""
    found = {}
    for path in sorted((out / "searches").glob("*/*-tuned.yaml")):
        import yaml

        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        tried = [trial["lr"] for trial in recipe["search"]["trials"]]
        [task] = recipe["tasks"]
        way = WAYS[recipe["method"], recipe["bits"]]
        found[way, task.removeprefix(PREFIX)] = recipe["lr"], recipe["lr"] in (min(tried), max(tried))
    return found


def ask_base(out: Path, data_dir: Path) -> None:
    """The base by each of its templates: worked examples or none, labels with and without a text to read."""
    wanted: list[tuple[str, tuple[str, ...], list[str]]] = []
    wanted += [(f"shots-{shots}-{seed}", TASKS, ["--shots", str(shots), "--seed", str(seed)]) for shots, seed in SHOTS]
    wanted += [("labels", LABELS, []), ("content-free", LABELS, ["--metadata", "noise=content-free"])]
    for how in ("chat", "raw"):
        for name, tasks, more in wanted:
            folder = out / "base" / f"{how}-{name}"
            if any(folder.glob("*.json")):
                continue
            command = ["eval", "--model", BASE, "--tasks", ",".join(tasks), "--limit", str(LIMIT), *more]
            command += ["--chat" if how == "chat" else "--no-chat", "--data-dir", str(data_dir), "--out", str(folder)]
            subprocess.run([sys.executable, "-m", "finbench", *command], check=True)


def keep(out: Path) -> None:
    """Copy what is finished, but no adapters: of one that is not scored yet only its training is lost."""
    for path in sorted(path for pattern in _FINISHED for path in out.glob(pattern)):
        target = KEPT / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def of_base(out: Path) -> dict[str, dict[str, list[float]]]:
    """By how it was asked and task the main metric of the base in points, a list over draws of worked examples."""
    found: dict[str, dict[str, list[float]]] = {}
    for how in ("raw", "chat"):
        for shots, seed in SHOTS:
            for path in (out / "base" / f"{how}-shots-{shots}-{seed}").glob("*.json"):
                for score in cardfiles.read(path).scores:
                    own = found.setdefault(f"{how}, {shots} examples", {})
                    own.setdefault(score.task.removeprefix(PREFIX), []).append(100 * score.main.value)
        plain = sorted((out / "base" / f"{how}-labels").glob("*.json"))
        free = sorted((out / "base" / f"{how}-content-free").glob("*.json"))
        for one in contextual(plain[0], free[0]) if plain and free else ():
            task = one.task.removeprefix(PREFIX).removesuffix("_mc")
            found.setdefault(f"{how}, labels", {})[task] = [100 * one.plain.value]
            found.setdefault(f"{how}, labels calibrated", {})[task] = [100 * one.calibrated.value]
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|--" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def spread(values: Sequence[float], whole: int) -> str:
    """Their mean and standard deviation, and how many there are where fewer than the ``whole``."""
    if not values:
        return "–"
    around = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{around}" + f" ({len(values)})" * (len(values) < whole)


def gap(value: float, low: float, high: float) -> str:
    """A difference in points with its interval."""
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def shown(
    cells: Mapping[tuple[str, str, int], Cell],
    found: Mapping[tuple[str, str], tuple[float, bool]],
    base: Mapping[str, Mapping[str, Sequence[float]]],
) -> str:
    """All tables."""
    parts, rows = [], [[f"base: {how}", *(spread(own.get(task, ()), 0) for task in TASKS)] for how, own in base.items()]
    for way in WAYS.values():
        row = [way]
        for task in TASKS:
            own = [cells[way, task, seed].points for seed in SEEDS if (way, task, seed) in cells]
            row.append(spread(own, len(SEEDS)))
        rows.append(row)
    parts.append(table(["", *TASKS], rows))
    tried = [
        [
            way,
            *(f"{found[way, task][0]:g}{'*' * found[way, task][1]}" if (way, task) in found else "–" for task in TASKS),
        ]
        for way in WAYS.values()
    ]
    parts.append(table(["rate (* an end of what was tried)", *TASKS], tried))
    missing = len(WAYS) * len(TASKS) * len(SEEDS) - len(cells)
    if missing:
        return "\n\n".join([*parts, f"{missing} trainings are missing: no planned test is made.", ""])
    points = {key: cell.points for key, cell in cells.items()}
    lines = []
    for one in planned(points):
        left = min(one.without.items(), key=lambda item: item[1] * (1 if one.value > 0 else -1))
        lines.append([
            " against ".join(one.pair), gap(one.value, one.low, one.high), f"{one.p:.3f}", f"{one.corrected:.3f}",
            f"{left[1]:+.1f} without {left[0]}".replace("-", "−"), "yes" if one.found else "no",
            gap(one.value, *by_documents(cells, one.pair)),
        ])  # fmt: skip
    head = ["planned", "mean of six", "p", "Holm", "least without a task", "found", "over documents, not planned"]
    parts.append(table(head, lines))
    every = [
        [" against ".join(pair), *(gap(*one[1:4]) + f", p {one[4]:.2f}" for one in own)]
        for pair, own in single(points).items()
    ]
    return "\n\n".join([*parts, table(["not planned; p corrected for thirty", *TASKS], every), ""])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ask-base", type=Path, metavar="DATA", help="score the base first, with data from there")
    parser.add_argument("--keep", action="store_true", help="copy what is finished to benchmarks/six_tasks")
    parser.add_argument("--json", action="store_true", help="the points alone")
    given = parser.parse_args()
    if given.ask_base:
        ask_base(given.out, given.ask_base)
    if given.keep:
        keep(given.out)
    cells = read(given.out)
    if given.json:
        print(json.dumps([[*key, cell.points] for key, cell in cells.items()]))
        return
    print(shown(cells, rates(given.out), of_base(given.out)))


if __name__ == "__main__":
    main()
