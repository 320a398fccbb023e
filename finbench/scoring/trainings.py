"""Scores of several trainings: the mean over seeds with its interval, and the test of two means.

A training is a draw of the seed, as the test is a draw of documents. The variance of a mean is the sum of both: over
documents that of the mean of these very trainings (jackknife), over seeds the variance between trainings divided by
their number. Degrees of freedom are Satterthwaite's (1946). Where a subject has one training, the variance between
seeds comes from elsewhere (``SeedVariance``).
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
    error, df = _together(error, units, [(count, seed_variance(values))])
    if error == 0:  # documents are alike too, all right, say
        return measuring.measure(runs[0], aggregation, clusters, within=within, samples=samples)
    low, high = stats.from_error(mean, error, df, within)
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
    error, df = _together(error, units, [(len(runs), seeds) for runs, seeds in (a, b)])
    if error == 0:
        return 1.0 if gap == 0 else 0.0
    from scipy.special import stdtr

    return 2 * float(stdtr(df, -abs(gap) / error))


def _together(documents: float, units: int, seeds: Sequence[tuple[int, SeedVariance]]) -> tuple[float, float]:
    """Standard error over documents and seeds, and its degrees of freedom; ``seeds``: trainings and their variance."""
    parts = [(documents**2, units - 1.0), *((one.value / count, one.df) for count, one in seeds)]
    total = sum(part for part, _ in parts)
    below = sum(part**2 / df for part, df in parts)
    return math.sqrt(total), total**2 / below if below else math.inf
