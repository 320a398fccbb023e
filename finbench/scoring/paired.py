"""Is A better than B on the same documents: paired tests, numpy only, no input or output.

As in ``finbench.scoring.stats`` a metric is a ``statistic`` of sums over documents; here both subjects have
``parts`` of one shape, row by row for the same documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finbench.core.records import Measure
from finbench.scoring.stats import RESAMPLES, Z95, Bounds, Counts, Statistic, by_cluster, estimate

# The least true difference, in standard errors, found with a power of 80 % at the 5 % level, two-sided: the quantiles
# of 97.5 % and of 80 % of the normal distribution (Card et al. 2020, section 3)
DETECTABLE = Z95 + 0.8416212335729143
UNBOUNDED = (-math.inf, math.inf)
OF_SHARES = (-1.0, 1.0)  # bounds of a difference between two shares
_ROUNDING = 1e-12  # an effect that sums in another order give
UNTESTABLE = 5  # units: 2^5 arrangements, of which the observed one and its mirror are 6 %


@dataclass(frozen=True)
class Difference:
    """A's value minus B's, with interval, p-value, and the standard error from which sample sizes follow."""

    measure: Measure
    p: float
    error: float
    units: int  # independent ones: documents, or sources that documents share

    @property
    def testable(self) -> bool:
        """There are enough units for p to fall below 5 %."""
        return self.units > UNTESTABLE

    def detectable(self) -> float | None:
        """The least true difference that shows on these documents; None where none can, or the two do not differ."""
        return DETECTABLE * self.error if self.testable and self.error else None


def difference(
    a: Counts,
    b: Counts,
    statistic: Statistic,
    clusters: Sequence[Any] | None = None,
    *,
    bounds: Bounds = OF_SHARES,
    resamples: int = RESAMPLES,
) -> Difference:
    """Paired bootstrap interval and paired permutation p-value of ``statistic(a) - statistic(b)``.

    Rows of ``a`` and ``b`` are the same documents; ``clusters`` names the source of each, and whole clusters are
    resampled and swapped. ``bounds``: the least and greatest difference that there can be.
    """
    width = a.shape[1]

    def gap(sums: Counts) -> Counts:
        return np.asarray(statistic(sums[..., :width]) - statistic(sums[..., width:]))

    both = np.concatenate([a, b], axis=1)
    measure, error = estimate(both, gap, clusters, bounds=bounds, resamples=resamples, kind="paired bootstrap")
    one, other = by_cluster(a, clusters)[0], by_cluster(b, clusters)[0]
    return Difference(measure, permutation(one, other, statistic, resamples), error, len(one))


def permutation(a: Counts, b: Counts, statistic: Statistic, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of the paired permutation test (Fisher 1935): A's and B's answers are swapped at random.

    The observed arrangement counts as one of the resamples, so that p is never 0 and the test keeps its level
    (Phipson and Smyth 2010). Rows that are equal are not drawn: swapping them changes nothing.
    """
    apart = (a != b).any(axis=1)
    if not apart.any():
        return 1.0
    total_a, total_b, delta = a.sum(axis=0), b.sum(axis=0), (a - b)[apart]
    observed = abs(float(statistic(total_a) - statistic(total_b)))
    rng = np.random.default_rng(0)
    rows = max(1, 4_000_000 // max(delta.shape))
    extreme = 0
    for start in range(0, resamples, rows):
        swapped = rng.integers(2, size=(min(rows, resamples - start), len(delta)), dtype=np.int8)
        moved = swapped.astype(np.float64) @ delta
        found = np.abs(statistic(total_a - moved) - statistic(total_b + moved))
        extreme += int((found >= observed - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): documents that only A, and only B, has right."""
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: below 0.05 with all errors together at most 5 %."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, floor = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def documents_needed(n: int, error: float, effect: float) -> int | None:
    """Documents with which a true difference ``effect`` is found with a power of 80 %; None for no effect or no error.

    ``error`` is the standard error of the difference on ``n`` documents; it falls with the root of their number.
    """
    if abs(effect) <= _ROUNDING or error == 0:
        return None
    return math.ceil(n * (DETECTABLE * error / effect) ** 2)
