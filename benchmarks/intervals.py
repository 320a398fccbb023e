"""Coverage of the 95 % intervals, level of the paired tests, and time of a bootstrap, by simulation.

    python benchmarks/intervals.py run [--seed N]    writes benchmarks/intervals.json (five minutes on one core)
    python benchmarks/intervals.py page              the tables of docs/statistics.md, from what was written

Every number is of 2,000 simulated evaluations, whose truth is known, through the functions that make a card's
intervals. Sources are questions about one filing or headline: what they share is how able the model is on them, drawn
from a beta distribution whose correlation between two questions of a source is stated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finbench import earlier, environment, metrics, paired, stats
from finbench.records import Measure
from finbench.stats import Counts

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "statistics.md"
MARKS = ("<!-- intervals: written by `python benchmarks/intervals.py page` -->\n", "<!-- /intervals -->\n")
EVALUATIONS, RESAMPLES = 2000, 1000
SIZES = (50, 100, 300, 1000)
SOURCES = (2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 51, 100)
ASKED = 15  # questions a source
GOLD = np.array([0.14, 0.60, 0.26])  # three labels, and how one that is missed is read; the last column is unparsed
MISSED = np.array([[0, 0.5, 0.25, 0.25], [0.4, 0, 0.5, 0.1], [0.15, 0.75, 0, 0.1]])
LABELS = ("negative", "neutral", "positive")
ENTITIES, FALSE = 1.6, 0.4  # in a document, and false alarms
CELLS = metrics.summed("macro_f1", [(g, p, LABELS) for g in LABELS for p in (*LABELS, None)])
SPAN = metrics.summed("span_f1", [(0, 0, 0)])
assert CELLS is not None
assert SPAN is not None
Drawn = tuple[Counts, Sequence[int]]  # parts of the documents, and the source of each


def mean(sums: Counts) -> Counts:
    """Of (value, 1) columns."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def shares(values: Counts) -> Counts:
    """(value, 1) columns."""
    return np.stack([values.astype(float), np.ones(len(values))], axis=1)


class World:
    """Simulated evaluations; ``unlike``: standard deviation of the logarithm of a source's number of questions."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def ability(self, able: float, alike: float, sources: int) -> Counts:
        """How able the model is on each source."""
        if alike == 0:
            return np.full(sources, able)
        spread = 1 / alike - 1
        return self.rng.beta(able * spread, (1 - able) * spread, size=sources)

    def sources(self, sources: int, unlike: float) -> Counts:
        """The source of each question."""
        sizes = ASKED * np.exp(self.rng.normal(0, unlike, size=sources) - unlike**2 / 2)
        return np.repeat(np.arange(sources), np.maximum(1, np.round(sizes)).astype(int))

    def accuracy(self, sources: int, able: float, alike: float, unlike: float = 0) -> Drawn:
        """Questions that are answered rightly or wrongly."""
        of = self.sources(sources, unlike)
        return shares(self.rng.random(len(of)) < self.ability(able, alike, sources)[of]), of.tolist()

    def labels(self, sources: int, able: float, alike: float, unlike: float = 0) -> Drawn:
        """Texts with one of three labels, which differ from source to source in how common they are too."""
        of = self.sources(sources, unlike)
        common = self.rng.dirichlet(GOLD * 8, size=sources) if alike else np.tile(GOLD, (sources, 1))
        able_on = self.ability(able, alike, sources)[:, None, None]
        cells = common[:, :, None] * (able_on * np.eye(3, 4) + (1 - able_on) * MISSED)
        cumulated = np.cumsum(cells.reshape(sources, 12), axis=1)
        cumulated /= cumulated[:, -1:]
        return CELLS.parts[(self.rng.random(len(of))[:, None] > cumulated[of]).sum(axis=1)], of.tolist()

    def entities(self, sources: int, able: float, alike: float, unlike: float = 0) -> Drawn:
        """Hits, false alarms and misses of documents with 0 to about 5 entities."""
        of = self.sources(sources, unlike)
        there = self.rng.poisson(ENTITIES, size=len(of))
        hits = self.rng.binomial(there, self.ability(able, alike, sources)[of])
        return np.stack([hits, self.rng.poisson(FALSE, size=len(of)), there - hits], axis=1).astype(float), of.tolist()

    def pair(self, sources: int, able: float, alike: float, unlike: float = 0) -> tuple[Counts, Counts, Sequence[int]]:
        """Two subjects who are equally able, and more alike than chance, on the same questions."""
        of = self.sources(sources, unlike)
        one = self.ability(able, alike, sources)
        other = np.where(self.rng.random(sources) < 0.5, one, self.ability(able, alike, sources))
        luck = self.rng.random(len(of))
        again = np.where(self.rng.random(len(of)) < 0.6, luck, self.rng.random(len(of)))
        return shares(luck < one[of]), shares(again < other[of]), of.tolist()


def macro_truth(able: float) -> float:
    """Macro-F1 of infinitely many texts."""
    cells = GOLD[:, None] * (able * np.eye(3, 4) + (1 - able) * MISSED)
    return float(CELLS.statistic(cells.ravel() @ CELLS.parts))


def span_truth(able: float) -> float:
    """Entity F1 of infinitely many documents."""
    hits = ENTITIES * able
    return 2 * hits / (2 * hits + FALSE + ENTITIES - hits)


KINDS: dict[str, tuple[str, Any, Callable[[float], float]]] = {  # name -> draw, statistic, truth
    "accuracy": ("accuracy", mean, float),
    "macro-F1": ("labels", CELLS.statistic, macro_truth),
    "entity F1": ("entities", SPAN.statistic, span_truth),
}
CASES: list[tuple[str, float, float, float]] = [  # kind, ability, correlation within a source, unlike sizes
    ("accuracy", 0.8, 0.0, 0.0),
    ("accuracy", 0.8, 0.1, 0.0),
    ("accuracy", 0.8, 0.3, 0.0),
    ("accuracy", 0.8, 0.3, 0.8),
    ("accuracy", 0.95, 0.1, 0.0),
    ("macro-F1", 0.8, 0.1, 0.0),
    ("macro-F1", 0.8, 0.3, 0.8),
    ("entity F1", 0.7, 0.1, 0.0),
    ("entity F1", 0.7, 0.3, 0.8),
]


def coverage(draw: Callable[[], Measure], truth: float) -> list[float]:
    """Percent of simulated evaluations whose interval holds the truth, and the mean width in points."""
    found = [draw() for _ in range(EVALUATIONS)]
    ends = np.array([measure.interval or (np.nan, np.nan) for measure in found])
    held = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    return [round(100 * float(held.mean()), 2), round(100 * float(np.nanmean(ends[:, 1] - ends[:, 0])), 2)]


def many(world: World) -> dict[str, list[list[float]]]:
    """Independent documents, as many as ``SIZES``."""
    rng = world.rng

    def alone(kind: str, n: int) -> Measure:
        parts = getattr(world, KINDS[kind][0])(-(-n // ASKED), 0.8 if kind == "macro-F1" else 0.7, 0.0)[0][:n]
        return stats.bootstrap(parts, KINDS[kind][1], resamples=RESAMPLES)

    found = {
        "accuracy": [coverage(lambda: stats.wilson(int(rng.binomial(n, 0.8)), n), 0.8) for n in SIZES]  # noqa: B023
    }
    for kind, able in (("macro-F1", 0.8), ("entity F1", 0.7)):
        found[kind] = [coverage(lambda: alone(kind, n), KINDS[kind][2](able)) for n in SIZES]  # noqa: B023
    return found


def few(world: World) -> dict[str, list[list[float]]]:
    """Each case at each number of ``SOURCES``; the third one by the rules of older cards too; a paired difference."""
    found: dict[str, list[list[float]]] = {}
    for number, (kind, able, alike, unlike) in enumerate(CASES):
        draw, statistic, truth = KINDS[kind]
        rules = {"": None, ", Student's t to 5": earlier.student, ", percentiles": earlier.percentiles}
        for name, rule in rules.items() if number == 2 else [("", None)]:

            def once(sources: int, rule: Any = rule) -> Measure:
                parts, of = getattr(world, draw)(sources, able, alike, unlike)  # noqa: B023
                return stats.bootstrap(parts, statistic, of, resamples=RESAMPLES, rule=rule)  # noqa: B023

            title = f"{kind} {100 * truth(able):.0f} %, correlation {alike:g}{', unlike sizes' if unlike else ''}{name}"
            found[title] = [coverage(lambda: once(n), truth(able)) for n in SOURCES]  # noqa: B023
    for alike in (0.0, 0.3):

        def gap(sources: int) -> Measure:
            a, b, of = world.pair(sources, 0.8, alike, 0.5)  # noqa: B023
            return paired.difference(a, b, mean, of, resamples=RESAMPLES).measure

        title = f"difference of two accuracies, correlation {alike:g}, unlike sizes"
        found[title] = [coverage(lambda: gap(n), 0.0) for n in SOURCES]  # noqa: B023
    return found


def levels(world: World) -> dict[str, dict[str, float]]:
    """Percent of pairs of equally good subjects that each test calls different."""
    found: dict[str, dict[str, float]] = {}
    for n in (100, 300):
        seen = np.zeros(3)
        for _ in range(EVALUATIONS):
            difficulty = world.rng.beta(4, 2, size=n)
            a, b = (world.rng.random(n) < difficulty for _ in range(2))
            spans = [world.entities(n // ASKED + 1, 0.7, 0.0)[0][:n] for _ in range(2)]
            seen[0] += paired.permutation(shares(a), shares(b), mean, resamples=500) < 0.05
            seen[1] += paired.permutation(*spans, SPAN.statistic, resamples=500) < 0.05
            seen[2] += paired.mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.05
        names = ("paired permutation, accuracy", "paired permutation, entity F1", "McNemar, exact")
        found[f"n = {n}"] = {name: round(100 * float(k) / EVALUATIONS, 2) for name, k in zip(names, seen, strict=True)}
    for sources in (6, 10, 30):
        seen_few = 0
        for _ in range(EVALUATIONS):
            a, b, of = world.pair(sources, 0.8, 0.3, 0.5)
            one, other = (stats.by_cluster(side, of)[0] for side in (a, b))
            seen_few += paired.permutation(one, other, mean, resamples=500) < 0.05
        rate = round(100 * seen_few / EVALUATIONS, 2)
        found[f"{sources} sources"] = {"paired permutation, accuracy": rate}
    return found


def seconds() -> dict[str, float]:
    """Of 10,000 resamples of 5,000 documents, the fastest of three."""
    rng = np.random.default_rng(0)
    works = {
        "every value another (mean of a continuous metric)": (shares(rng.random(5000)), mean),
        "entity F1": (World(0).entities(5000 // ASKED + 1, 0.7, 0.0)[0][:5000], SPAN.statistic),
    }
    found = {}
    for name, (parts, statistic) in works.items():
        spent = []
        for _ in range(3):
            start = time.process_time()
            stats.bootstrap(parts, statistic)
            spent.append(time.process_time() - start)
        found[name] = round(min(spent), 2)
    return found


def run(seed: int) -> dict[str, Any]:
    """Everything that is measured."""
    world = World(seed)
    about = {"seed": seed, "packages": {"numpy": np.__version__}, "hardware": environment.hardware()}
    return about | {"many": many(world), "few": few(world), "levels": levels(world), "seconds": seconds()}


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    return [_line(head), "|--|" + "--:|" * (len(head) - 1), *map(_line, rows), ""]


def tables(found: dict[str, Any]) -> str:
    """The tables of docs/statistics.md."""
    lines = [f"Seed {found['seed']}. Coverage of the 95 % intervals, in %, of independent documents:", ""]
    rows = [[name, *(f"{held:.1f}" for held, _ in cells)] for name, cells in found["many"].items()]
    lines += _table(["", *(f"n = {n:,}" for n in SIZES)], rows)
    lines += [f"Of documents from few sources, about {ASKED} a source:", ""]
    rows = [[name, *(f"{held:.1f}" for held, _ in cells)] for name, cells in found["few"].items()]
    lines += _table(["sources", *SOURCES], rows)
    lines += ["How wide the intervals are, in points:", ""]
    rows = [[name, *(f"{wide:.0f}" for _, wide in cells)] for name, cells in found["few"].items() if "0.3" in name]
    lines += _table(["sources", *SOURCES], rows)
    lines += ["False alarms of the tests at 5 %, in %:", ""]
    names = list(dict.fromkeys(name for column in found["levels"].values() for name in column))
    columns = found["levels"]
    rows = [[name, *(f"{c[name]:.1f}" if name in c else "" for c in columns.values())] for name in names]
    lines += _table(["", *columns], rows)
    lines += ["Seconds of one core for 10,000 resamples of 5,000 documents:", ""]
    lines += _table(["", "s"], [[name, f"{spent:.2f}"] for name, spent in found["seconds"].items()])
    return "\n".join(lines)


def page(found: dict[str, Any], text: str) -> str:
    """The page with its tables."""
    before, rest = text.split(MARKS[0])
    return before + MARKS[0] + "\n" + tables(found) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "page"])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.what == "run":
        RESULTS.write_text(json.dumps(run(given.seed), indent=1) + "\n", encoding="utf-8")
    else:
        PAGE.write_text(page(json.loads(RESULTS.read_text("utf-8")), PAGE.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
