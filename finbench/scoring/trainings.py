"""Scores of several trainings: the mean over seeds with its interval, and the test of two means.

A training is a draw of the seed, as the test is a draw of documents. The variance of a mean is the sum of both: over
documents that of the mean of these very trainings (jackknife), over seeds the variance between trainings divided by
their number. The quantile is that of Cochran and Cox (1950), the mean of Student's t of each part, weighted by its
variance: with Satterthwaite's degrees of freedom intervals of two or three seeds cover too little (docs/design-log.md).
Where a subject has one training, the variance between seeds comes from elsewhere (``SeedVariance``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finbench.core.records import Measure
from finbench.scoring import measuring, paired, stats
from finbench.scoring.metrics import Aggregation

LEVEL = 0.05  # of intervals: 95 %
_DIGITS = 12  # p is not told from 0 below 10 to the power of minus these
Runs = Sequence[Sequence[Any]]  # of each training one value a document


@dataclass(frozen=True)
class SeedVariance:
    """Variance of a metric between trainings that differ in their seed, with the degrees of freedom of its estimate."""

    value: float
    df: float

    @property
    def deviation(self) -> float:
        """In the metric's own unit."""
        return math.sqrt(self.value)


EXACT = SeedVariance(0.0, math.inf)  # of what was not trained here


def seed_variance(values: Sequence[float]) -> SeedVariance:
    """Of one recipe's trainings, two at least."""
    return SeedVariance(stats.seed_spread(values).deviation ** 2, len(values) - 1)


def pooled(found: Sequence[SeedVariance]) -> SeedVariance:
    """Of several recipes together: each weighs as much as it has degrees of freedom."""
    df = sum(one.df for one in found)
    return SeedVariance(sum(one.value * one.df for one in found) / df, df)


def mean_over_trainings(
    runs: Runs,
    aggregation: Aggregation,
    clusters: Sequence[Any] | None = None,
    *,
    within: stats.Bounds = paired.UNBOUNDED,
    samples: int = 1,
) -> Measure:
    """The mean of a metric over two trainings or more on the same documents; its 95 % interval is over both.

    One source says nothing of how sources differ: no interval.
    """
    values = [measuring.value_of(run, aggregation, samples) for run in runs]
    mean, count = float(np.mean(values)), len(runs)
    error, units = measuring.error_over_documents([(1 / count, run) for run in runs], aggregation, clusters, samples)
    if units < 2:
        return Measure(value=mean, low=None, high=None, method="none, one source")
    parts = [(error**2, units - 1.0), (seed_variance(values).value / count, count - 1.0)]
    error = math.sqrt(sum(part for part, _ in parts))
    if error == 0:  # documents are alike too, all right, say
        return measuring.measure(runs[0], aggregation, clusters, within=within, samples=samples)
    low, high = stats.from_error(mean, error, _quantile(parts, LEVEL), within)
    said = f"Student's t, jackknife over {units} units and the spread of {count} trainings"
    return Measure(value=mean, low=min(mean, low), high=max(mean, high), method=said)


def p_apart(
    a: tuple[Runs, SeedVariance],
    b: tuple[Runs, SeedVariance],
    aggregation: Aggregation,
    clusters: Sequence[Any] | None = None,
    samples: int = 1,
) -> float:
    """Two-sided p-value that two recipes have one mean over documents and seeds: Welch's t with both in its error.

    Each comes with its trainings and the variance between seeds of one training. 1 where so few sources tell nothing.
    """
    signed = [(sign / len(runs), run) for sign, (runs, _) in ((1, a), (-1, b)) for run in runs]
    gap = sum(weight * measuring.value_of(run, aggregation, samples) for weight, run in signed)
    error, units = measuring.error_over_documents(signed, aggregation, clusters, samples)
    if units <= paired.UNTESTABLE:
        return 1.0
    parts = [(error**2, units - 1.0), *((seeds.value / len(runs), seeds.df) for runs, seeds in (a, b))]
    error = math.sqrt(sum(part for part, _ in parts))
    if error == 0:
        return 1.0 if gap == 0 else 0.0
    low, high = -float(_DIGITS), 0.0  # log10 of p, halved until it has more digits than anybody shows
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _quantile(parts, 10**middle) > abs(gap) / error else (low, middle)
    return float(10**high)


def _quantile(parts: Sequence[tuple[float, float]], p: float) -> float:
    """How many standard errors are exceeded with probability ``p``; ``parts`` of its square, each with its freedom."""
    from scipy.special import ndtri, stdtrit  # here: its import takes 0.3 s

    told = [(part, df) for part, df in parts if part > 0]
    each = [float(stdtrit(df, 1 - p / 2) if math.isfinite(df) else -ndtri(p / 2)) for _, df in told]
    return sum(part * t for (part, _), t in zip(told, each, strict=True)) / sum(part for part, _ in told)
