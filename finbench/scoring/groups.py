"""The difference of a metric between two groups of documents that are not the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from finbench.core.records import Measure
from finbench.scoring import metrics, stats
from finbench.scoring.measuring import value_of
from finbench.scoring.metrics import Aggregation, known_as, summed

Group = tuple[Sequence[Any], Sequence[Any]]  # values and sources, one a document and sample


def group_difference(a: Group, b: Group, aggregation: Aggregation, samples: int = 1) -> Measure:
    """The metric of group A minus that of group B, with its 95 % interval: sources of each are resampled apart.

    Up to ``stats.FEW`` sources of one of them the standard errors are jackknives, with Student's t of the smaller.
    """
    value = value_of(a[0], aggregation, samples) - value_of(b[0], aggregation, samples)
    metric = metrics.averaged(summed(known_as(aggregation), [*a[0], *b[0]]), samples)
    if metric is None:
        return Measure(value=value, low=None, high=None, method="none, the metric is no function of sums")
    first = len(a[0]) // samples
    parts = (metric.parts[:first], metric.parts[first:])
    grouped = [stats.by_cluster(own, side[1][::samples])[0] for own, side in zip(parts, (a, b), strict=True)]
    fewest = min(map(len, grouped))
    if fewest < 2:
        return Measure(value=value, low=None, high=None, method="none, one source")
    if fewest <= stats.FEW:
        error = math.hypot(*(stats.jackknife(own, metric.statistic) for own in grouped))
        if error < 1e-12:
            return Measure(value=value, low=None, high=None, method="none, documents are all alike")
        half = stats.t_quantile(fewest - 1) * error
        return Measure(value=value, low=value - half, high=value + half, method="jackknife of each group, Student's t")
    drawn = [stats.resample(own, metric.statistic) for own in grouped]
    gaps = drawn[0] - np.random.default_rng(0).permutation(drawn[1])  # both are of one seed
    low, high = (float(end) for end in np.quantile(gaps, [0.025, 0.975]))
    made = f"bootstrap of each group, {stats.RESAMPLES} resamples"
    return Measure(value=value, low=min(low, value), high=max(high, value), method=made)
