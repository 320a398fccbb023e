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
    return SeedVariance(stats.seed_deviation(values) ** 2, len(values) - 1)


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
    told = [(np.array([part]), np.array([df])) for part, df in parts]
    low, high = stats.from_error(mean, error, float(_quantile(told, np.array([LEVEL]))[0]), within)
    said = f"Student's t, jackknife over {units} units and the spread of {count} trainings"
    return Measure(value=mean, low=min(mean, low), high=max(mean, high), method=said)


def p_values(gaps: stats.Counts, parts: Sequence[tuple[stats.Counts, stats.Counts]]) -> stats.Counts:
    """Two-sided p-values that recipes have one mean over documents and seeds: Welch's t with both in its error.

    ``parts`` of the square of each difference's error, over documents and over seeds of both sides, with the degrees of
    freedom of each; shape (differences,) all.
    """
    error = np.sqrt(sum(part for part, _ in parts))
    certain = error == 0
    distance = np.abs(gaps) / np.where(certain, 1.0, error)
    low, high = np.full(len(gaps), -float(_DIGITS)), np.zeros(len(gaps))  # log10 of p, halved again and again
    for _ in range(30):
        middle = (low + high) / 2
        beyond = _quantile(parts, np.power(10, middle)) > distance
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return np.where(certain, (gaps == 0).astype(float), np.power(10, high))


def _quantile(parts: Sequence[tuple[stats.Counts, stats.Counts]], p: stats.Counts) -> stats.Counts:
    """How many standard errors are exceeded with probability ``p``; ``parts`` of its square, each with its freedom."""
    from scipy.special import ndtri, stdtrit  # here: its import takes 0.3 s

    weighted, whole = np.zeros(len(p)), np.zeros(len(p))
    for part, df in parts:
        here = part > 0
        if not here.any():  # its quantiles would be a third of the time
            continue
        finite = np.isfinite(df)
        t = np.where(finite, stdtrit(np.where(finite, df, 1.0), 1 - p / 2), -ndtri(p / 2))
        weighted += np.where(here, part * t, 0.0)
        whole += part
    return np.asarray(weighted / np.where(whole > 0, whole, 1.0))
