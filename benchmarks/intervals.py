"""Coverage of the 95 % intervals, level of the paired tests, and time of a bootstrap, by simulation.

    python benchmarks/intervals.py run [--seed N]    writes benchmarks/intervals.json (five minutes on one idle core)
    python benchmarks/intervals.py page              the tables of docs/statistics.md, from what was written

A run that was stopped goes on when it is repeated. Every number is of 2,000 simulated evaluations, whose truth is
known, through the functions that make a card's intervals. Sources are questions about one filing or headline: what they
share is how able the model is on them, drawn from a beta distribution whose correlation between two questions of a
source is stated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from finbench.core import environment
from finbench.core.records import Measure
from finbench.scoring import mean_over_trainings, metrics, paired, seed_variance, stats
from finbench.scoring.measuring import error_over_documents
from finbench.scoring.stats import Counts

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "statistics.md"
MARKS = ("<!-- intervals: written by `python benchmarks/intervals.py page` -->\n", "<!-- /intervals -->\n")
EVALUATIONS, RESAMPLES = 2000, 1000
SIZES = (50, 100, 300, 1000)
SOURCES = (2, 3, 4, 6, 8, 15, 30, 50, 100)
ASKED = 15  # questions a source
GOLD = np.array([0.14, 0.60, 0.26])  # three labels, and how one that is missed is read; the last column is unparsed
MISSED = np.array([[0, 0.5, 0.25, 0.25], [0.4, 0, 0.5, 0.1], [0.15, 0.75, 0, 0.1]])
UNLIKE_PAIR = 0.5  # standard deviation of the logarithm of the questions a source, for pairs
TRAININGS = (2, 3, 5)  # of one recipe, which differ in their seed
BETWEEN = (0.1, 0.3, 0.6)  # probits by which seeds move the ability; documents and chance have 1 each
PERCENTILES = 1  # the case that plain percentiles of a bootstrap are shown on
MEANS = "Of the mean of a recipe's trainings, by how far seeds move the ability in probits (documents, and\nchance: 1):"
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

    def __init__(self, seed: int | Sequence[int]) -> None:
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
    ("accuracy", 0.8, 0.3, 0.0),
    ("accuracy", 0.8, 0.3, 0.8),
    ("accuracy", 0.95, 0.1, 0.0),
    ("macro-F1", 0.8, 0.3, 0.8),
    ("entity F1", 0.7, 0.3, 0.8),
]


def coverage(draw: Callable[[], Measure], truth: float) -> list[float]:
    """Percent of simulated evaluations whose interval holds the truth, and the mean width in points."""
    found = [draw() for _ in range(EVALUATIONS)]
    ends = np.array([measure.interval or (np.nan, np.nan) for measure in found])
    held = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    return [round(100 * float(held.mean()), 2), round(100 * float(np.nanmean(ends[:, 1] - ends[:, 0])), 2)]


def many(world: World, kind: str) -> list[list[float]]:
    """Independent documents, as many as ``SIZES``."""
    draw, statistic, truth = KINDS[kind]
    able = 0.7 if kind == "entity F1" else 0.8

    def alone(n: int) -> Measure:
        if kind == "accuracy":
            return stats.wilson(int(world.rng.binomial(n, able)), n)
        return stats.estimate(getattr(world, draw)(-(-n // ASKED), able, 0.0)[0][:n], statistic, resamples=RESAMPLES)[0]

    return [coverage(lambda: alone(n), truth(able)) for n in SIZES]  # noqa: B023


def percentiles(parts: Counts, statistic: Any, of: Sequence[int]) -> Measure:
    """What finbench does not use up to 50 sources."""
    sums = stats.by_cluster(parts, of)[0]
    low, high = np.quantile(stats.resample(sums, statistic, resamples=RESAMPLES), [0.025, 0.975])
    return Measure(value=float(statistic(sums.sum(axis=0))), low=float(low), high=float(high), method="percentiles")


def few(world: World, kind: str, able: float, alike: float, unlike: float, plain: bool = False) -> list[list[float]]:
    """A case at each number of ``SOURCES``."""
    draw, statistic, truth = KINDS[kind]

    def once(sources: int) -> Measure:
        parts, of = getattr(world, draw)(sources, able, alike, unlike)
        if plain:
            return percentiles(parts, statistic, of)
        return stats.estimate(parts, statistic, of, resamples=RESAMPLES)[0]

    return [coverage(lambda: once(n), truth(able)) for n in SOURCES]  # noqa: B023


def gaps(world: World, alike: float) -> list[list[float]]:
    """The difference of two subjects at each number of ``SOURCES``."""

    def gap(sources: int) -> Measure:
        a, b, of = world.pair(sources, 0.8, alike, UNLIKE_PAIR)
        return paired.difference(a, b, mean, of, resamples=1 if sources <= stats.FEW else RESAMPLES).measure

    return [coverage(lambda: gap(n), 0.0) for n in SOURCES]  # noqa: B023


def levels(world: World, n: int) -> dict[str, float]:
    """Percent of pairs of equally good subjects that each test calls different, on ``n`` documents."""
    seen = np.zeros(3)
    for _ in range(EVALUATIONS):
        difficulty = world.rng.beta(4, 2, size=n)
        a, b = (world.rng.random(n) < difficulty for _ in range(2))
        spans = [world.entities(n // ASKED + 1, 0.7, 0.0)[0][:n] for _ in range(2)]
        seen[0] += paired.permutation(shares(a), shares(b), mean, resamples=500) < 0.05
        seen[1] += paired.permutation(spans[0], spans[1], SPAN.statistic, resamples=500) < 0.05
        seen[2] += paired.mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.05
    names = ("paired permutation, accuracy", "paired permutation, entity F1", "McNemar, exact")
    return {name: round(100 * float(k) / EVALUATIONS, 2) for name, k in zip(names, seen, strict=True)}


def levels_few(world: World, sources: int) -> dict[str, float]:
    """The same on questions about a few sources, of the permutation test, which swaps whole sources."""
    seen = 0
    for _ in range(EVALUATIONS):
        a, b, of = world.pair(sources, 0.8, 0.3, UNLIKE_PAIR)
        one, other = (stats.by_cluster(side, of)[0] for side in (a, b))
        seen += paired.permutation(one, other, mean, resamples=500) < 0.05
    return {"paired permutation, accuracy": round(100 * seen / EVALUATIONS, 2)}


def of_trainings(world: World, n: int, between: float) -> dict[str, list[float]]:
    """Coverage of the mean of several trainings on ``n`` documents, by three intervals; columns: ``TRAININGS``.

    Satterthwaite's degrees of freedom, and documents alone, are what finbench does not use.
    """
    truth, found = float(norm.cdf(0.5 / math.sqrt(2 + between**2))), []
    for seeds in TRAININGS:
        held = np.zeros(3)
        for _ in range(EVALUATIONS):
            able = 0.5 + between * world.rng.normal(size=(seeds, 1)) + world.rng.normal(size=n)
            runs = list((able + world.rng.normal(size=(seeds, n)) > 0).astype(float))
            made = mean_over_trainings(runs, metrics.mean, within=(0.0, 1.0))
            low, high = made.interval or (math.nan, math.nan)
            documents = error_over_documents([(1 / seeds, run) for run in runs], metrics.mean)[0] ** 2
            spread = seed_variance([float(run.mean()) for run in runs]).value / seeds
            free = (documents + spread) ** 2 / (documents**2 / (n - 1) + spread**2 / (seeds - 1))
            off = abs(made.value - truth)
            held += low <= truth <= high, off <= student.ppf(0.975, free) * math.sqrt(documents + spread), False
            held[2] += off <= student.ppf(0.975, n - 1) * math.sqrt(documents)
        found.append(100 * held / EVALUATIONS)
    names = ("finbench", "Satterthwaite's degrees of freedom", "documents alone")
    return {name: [round(float(own[place]), 2) for own in found] for place, name in enumerate(names)}


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
            stats.estimate(parts, statistic)
            spent.append(time.process_time() - start)
        found[name] = round(min(spent), 2)
    return found


def works() -> Iterator[tuple[str, str, Callable[[World], Any]]]:
    """Everything that is measured: part of the results, name in it, and what measures it in a world of its own."""
    for kind in KINDS:
        yield "many", kind, lambda world, kind=kind: many(world, kind)  # type: ignore[misc]
    names = {"": False, ", percentiles of a bootstrap": True}
    for number, case in enumerate(CASES):
        kind, able, alike, unlike = case
        title = f"{kind} {100 * KINDS[kind][2](able):.0f} %, correlation {alike:g}{', unlike sizes' if unlike else ''}"
        for name, plain in names.items() if number == PERCENTILES else [("", False)]:
            yield "few", title + name, lambda world, case=case, plain=plain: few(world, *case, plain)  # type: ignore[misc]
    for alike in (0.3,):
        title = f"difference of two accuracies, correlation {alike:g}, unlike sizes"
        yield "few", title, lambda world, alike=alike: gaps(world, alike)  # type: ignore[misc]
    for n in (100, 300):
        yield "levels", f"n = {n}", lambda world, n=n: levels(world, n)  # type: ignore[misc]
    for n in (6, 30):
        yield "levels", f"{n} sources", lambda world, n=n: levels_few(world, n)  # type: ignore[misc]
    for n, between in itertools.product((200, 1000), BETWEEN):
        title = f"{n:,} documents, seeds {between:g}"
        yield "trainings", title, lambda world, n=n, between=between: of_trainings(world, n, between)  # type: ignore[misc]
    yield "seconds", "all", lambda world: seconds()


def run(seed: int) -> dict[str, Any]:
    """Measure what is not there yet of this seed; each result is written at once, and independent of the others."""
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    if found.get("seed") != seed:
        found = {"seed": seed, "many": {}, "few": {}, "levels": {}, "trainings": {}, "seconds": {}}
    found |= {"packages": {"numpy": np.__version__}}
    for number, (part, name, measured) in enumerate(works()):
        if name not in found[part]:
            found[part][name] = measured(World([seed, number]))
            if part == "seconds":  # all else is the same on any machine
                found["hardware"] = environment.hardware()
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


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
    lines += [MEANS, ""]
    names = list(next(iter(found["trainings"].values())))
    rows = [
        [f"{seeds} trainings, {name}", *(f"{cells[name][place]:.1f}" for cells in found["trainings"].values())]
        for place, seeds in enumerate(TRAININGS)
        for name in names
    ]
    lines += _table(["", *found["trainings"]], rows)
    lines += ["Seconds of one core for 10,000 resamples of 5,000 documents:", ""]
    lines += _table(["", "s"], [[name, f"{spent:.2f}"] for name, spent in found["seconds"]["all"].items()])
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
        run(given.seed)
    else:
        PAGE.write_text(page(json.loads(RESULTS.read_text("utf-8")), PAGE.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
