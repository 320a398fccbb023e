"""Coverage of the 95 % intervals, level of the paired tests, and time of a bootstrap, by simulation.

python benchmarks/intervals.py [SEED]        prints the tables of docs/statistics.md (two minutes on one core)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from finbench import metrics, paired, stats
from finbench.records import Measure
from finbench.stats import Counts

EVALUATIONS = 2000
JOINT = np.array([[0.10, 0.02, 0.01, 0.01], [0.04, 0.50, 0.05, 0.01], [0.01, 0.05, 0.19, 0.01]])  # gold x predicted
LABELS = ("negative", "neutral", "positive")
CELLS = metrics.summed("macro_f1", [(g, p, LABELS) for g in LABELS for p in (*LABELS, None)])
SPAN = metrics.summed("span_f1", [(0, 0, 0)])
assert CELLS is not None
assert SPAN is not None
rng = np.random.default_rng(int(sys.argv[1]) if len(sys.argv) > 1 else 1)


def mean(sums: Counts) -> Counts:
    """Of (value, 1) columns."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def shares(values: Counts) -> Counts:
    """(value, 1) columns."""
    return np.stack([values.astype(float), np.ones(len(values))], axis=1)


def spans(n: int) -> Counts:
    """Hits, false alarms and misses of documents with 0 to about 5 entities, of which 70 % are found."""
    entities = rng.poisson(1.6, size=n)
    hits = rng.binomial(entities, 0.7)
    return np.stack([hits, rng.poisson(0.4, size=n), entities - hits], axis=1).astype(float)


def clustered(sources: int) -> Measure:
    """Five questions about each source, whose difficulty they share."""
    right = rng.random(5 * sources) < np.repeat(rng.beta(3, 1, size=sources), 5)
    return stats.bootstrap(shares(right), mean, list(np.repeat(np.arange(sources), 5)), resamples=1000)


def few(sources: int, earlier: bool) -> Measure:
    """Fifteen questions about each source, whose difficulty they share (correlation 0.1)."""
    right = rng.random(15 * sources) < np.repeat(rng.beta(0.7 * 9, 0.3 * 9, size=sources), 15)
    of = list(np.repeat(np.arange(sources), 15))
    return stats.bootstrap(shares(right), mean, of, resamples=1000, earlier=earlier)


def macro(n: int) -> Measure:
    """Three labels, confused as in ``JOINT``."""
    parts = np.repeat(CELLS.parts, rng.multinomial(n, JOINT.ravel()), axis=0)
    return stats.bootstrap(parts, CELLS.statistic, resamples=1000)


def coverage(draw: Callable[[int], Measure], truth: float, n: int) -> float:
    """Percent of simulated evaluations whose interval holds the truth."""
    found = [draw(n) for _ in range(EVALUATIONS)]
    ends = [measure.interval for measure in found]
    return 100 * float(np.mean([end is not None and end[0] <= truth <= end[1] for end in ends]))


def levels(n: int) -> list[float]:
    """Percent of pairs of equally good subjects that each test calls different."""
    seen = np.zeros(3)
    for _ in range(EVALUATIONS):
        difficulty = rng.beta(4, 2, size=n)
        a, b = (rng.random(n) < difficulty for _ in range(2))
        seen[0] += paired.permutation(shares(a), shares(b), mean, resamples=500) < 0.05
        seen[1] += paired.permutation(spans(n), spans(n), SPAN.statistic, resamples=500) < 0.05
        seen[2] += paired.mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.05
    return [100 * float(rate) for rate in seen / EVALUATIONS]


def main() -> None:
    """Print the tables."""
    truth = float(CELLS.statistic(JOINT.ravel() @ CELLS.parts))
    span_truth = 2 * 1.6 * 0.7 / (2 * 1.6 * 0.7 + 0.4 + 1.6 * 0.3)
    rows: list[tuple[str, Callable[[int], Measure], float]] = [
        ("accuracy (Wilson)", lambda n: stats.wilson(int(rng.binomial(n, 0.8)), n), 0.8),
        ("macro-F1, 3 labels", macro, truth),
        (
            "entity F1",
            lambda n: stats.bootstrap(spans(n), SPAN.statistic, resamples=1000),
            span_truth,
        ),
        ("accuracy, 5 questions a source (n sources)", clustered, 0.75),
    ]
    sizes = (50, 100, 300, 1000)
    print("| coverage of 95 % intervals, in % |" + "".join(f" n = {n} |" for n in sizes))
    print("|--|" + "--:|" * len(sizes))
    for name, draw, value in rows:
        print(f"| {name} |" + "".join(f" {coverage(draw, value, n):.1f} |" for n in sizes), flush=True)
    counts = (2, 3, 4, 5, 6, 10)
    print("\n| coverage, 15 questions a source, in % |" + "".join(f" {n} sources |" for n in counts))
    print("|--|" + "--:|" * len(counts))
    for name, earlier in (("as in cards", False), ("percentiles alone", True)):
        print(f"| {name} |" + "".join(f" {coverage(lambda n: few(n, earlier), 0.7, n):.1f} |" for n in counts))  # noqa: B023
    print("\n| false alarms at 5 %, in % | n = 100 | n = 300 |\n|--|--:|--:|")
    for name, *rates in zip(
        ("paired permutation, accuracy", "paired permutation, entity F1", "McNemar, exact"),
        levels(100),
        levels(300),
        strict=True,
    ):
        print(f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} |")
    print("\n| 10,000 resamples of 5,000 documents | seconds |\n|--|--:|")
    for name, parts, statistic in (
        ("every value another (mean of a continuous metric)", shares(rng.random(5000)), mean),
        ("entity F1", spans(5000), SPAN.statistic),
    ):
        start = time.perf_counter()
        stats.bootstrap(parts, statistic)
        print(f"| {name} | {time.perf_counter() - start:.2f} |")


if __name__ == "__main__":
    main()
