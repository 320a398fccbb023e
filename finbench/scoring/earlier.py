"""The rules by which older cards got their intervals, so that those cards can still be verified.

Each takes what was resampled and gives the interval as that finbench gave it. The first knew percentiles alone;
the second gave Student's t to two to five units, never shorter than documents taken as independent.
"""

from __future__ import annotations

import math

from finbench.core.records import Measure
from finbench.scoring.stats import SHARE, Resampled, many_units, percentile_interval, t_quantile

_FEW = 5


def percentiles(made: Resampled) -> Measure:
    """However few the units; where an aggregation was called, ends without spread stayed as they were."""
    if made.called and made.values.min() == made.values.max():
        end = float(made.values.min())
        return Measure(value=made.value, low=min(end, made.value), high=max(end, made.value), method=made.method)
    return percentile_interval(made)


def student(made: Resampled) -> Measure:
    """Percentiles of more than five units, Student's t with the bootstrap's standard error of two to five."""
    unit = "source" if made.alone else "document"
    value, n = made.value, made.n
    if n == 1:
        return Measure(value=value, low=None, high=None, method=f"none, one {unit}")
    if n > _FEW or (made.bounds == SHARE and value in SHARE and made.values.min() == made.values.max()):
        return many_units(made)
    half = t_quantile(n - 1) * math.sqrt(n / (n - 1)) * float(made.values.std())
    floor = made.alone().interval if made.alone else None
    ends = [value - half, value + half, *(floor or ())]
    low, high = max(made.bounds[0], min(ends)), min(made.bounds[1], max(ends))
    if low == high:
        return Measure(value=value, low=None, high=None, method="none, resamples are all alike")
    method = f"Student's t over {n} {unit}s, {made.method}"
    return Measure(value=value, low=min(value, low), high=max(value, high), method=method)


RULES = (student, percentiles)  # the newest first
