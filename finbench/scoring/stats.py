"""Intervals for scores: numpy only, no input or output.

A metric is a function of sums over documents: ``parts`` of shape (documents, k) and a ``statistic`` that maps sums
of shape (..., k) to values of shape (...). Every function is vectorised over resamples. Independent units, of which
n are in a sample, are documents, or the sources that documents share. Paired tests between two subjects are in
``finbench.scoring.paired``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finbench.core.records import Measure

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], Counts]
Bounds = tuple[float, float]  # the least and the greatest value that a statistic can have
RESAMPLES = 10_000
SHARE: Bounds = (0.0, 1.0)
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
FEW = 50  # units up to which there are no percentiles of resamples but a jackknife (docs/statistics.md)
_FEW_KINDS = 256  # kinds of documents up to which one multinomial draw a resample is the faster way
_FEW_COLUMNS = 64  # of sums up to which they are kept for the next metric: 5 MB
_BLOCK = 4_000_000  # numbers held at once while resampling: 32 MB
_NOTHING = 1e-12  # standard error of a jackknife whose values are alike up to rounding


def t_quantile(df: float) -> float:
    """97.5 % quantile of Student's t; ``df`` need not be a whole number."""
    from scipy.special import stdtrit  # here: its import takes 0.3 s, which no command without intervals should pay

    return float(stdtrit(df, 0.975))


def wilson(successes: int, n: int) -> Measure:
    """Share ``successes / n`` with the Wilson score interval at 95 % (Wilson 1927). ``n`` must be positive."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n} is not a share")
    low, high = score_interval(successes / n, n, Z95)
    return Measure(value=successes / n, low=low, high=high, method="Wilson")


def score_interval(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share of ``n`` documents, which need not be a whole number."""
    scale = 1 / (1 + z**2 / n)
    middle = scale * (share + z**2 / (2 * n))
    half = scale * z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # at 0 and 1 the bound equals the share up to rounding: keep low <= share <= high
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def ratio(part: Counts, whole: Counts) -> Counts:
    """``part / whole``, 0 where ``whole`` is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)


def by_cluster(parts: Counts, clusters: Sequence[Any] | None) -> tuple[Counts, Counts]:
    """Sums over documents of each cluster, shape (..., clusters, k), and how many those are, in order of occurrence."""
    codes = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters or ()))}
    if clusters is None or len(codes) == parts.shape[-2]:
        return parts, np.ones(parts.shape[-2])
    index = np.array([codes[cluster] for cluster in clusters])
    summed = np.zeros((*parts.shape[:-2], len(codes), parts.shape[-1]))
    np.add.at(np.moveaxis(summed, -2, 0), index, np.moveaxis(parts, -2, 0))
    return summed, np.bincount(index).astype(np.float64)


def estimate(
    parts: Counts,
    statistic: Statistic,
    clusters: Sequence[Any] | None = None,
    *,
    bounds: Bounds = SHARE,
    resamples: int = RESAMPLES,
    kind: str = "bootstrap",
) -> tuple[Measure, float]:
    """The statistic with its 95 % interval, and its standard error; whole clusters are resampled (Field, Welsh 2007).

    ``bounds``: the least and greatest value that the statistic can have.
    """
    grouped, sizes = by_cluster(parts, clusters)
    return interval(
        float(statistic(grouped.sum(axis=0))),
        sizes,
        bounds,
        f"{'cluster ' if len(grouped) < len(parts) else ''}{kind}, {resamples} resamples",
        lambda: jackknife(grouped, statistic),
        lambda: resample(grouped, statistic, resamples),
    )


def interval(
    value: float,
    sizes: Counts,
    bounds: Bounds,
    method: str,
    error: Callable[[], float],
    resampled: Callable[[], Counts],
) -> tuple[Measure, float]:
    """The 95 % interval of a value over documents, or sources of ``sizes`` documents, and its standard error.

    Up to ``FEW`` units they come from the jackknife's ``error``, of more from values on resamples.
    """
    if len(sizes) <= FEW:
        found = error() if len(sizes) > 1 else 0.0
        return _few_units(value, found, sizes, bounds), found
    values = resampled()
    return _many_units(value, values, len(sizes), method, bounds), float(values.std())


def jackknife(parts: Counts, statistic: Statistic) -> float:
    """Standard error of the statistic from leaving out each row once; two rows at least (Efron and Stein 1981).

    Of clusters it is the estimator CV3, which does not err to the short side where they are few or of unlike size
    (MacKinnon, Nielsen and Webb 2023). Rows that are equal are left out once and counted.
    """
    kinds, counts = np.unique(parts, axis=0, return_counts=True)
    return spread(statistic(parts.sum(axis=0) - kinds), counts)


def spread(without: Counts, counts: Any) -> float:
    """The jackknife's standard error from the values without a unit of each kind, and how many units are of each."""
    n = counts.sum()
    middle = (counts * without).sum() / n
    return math.sqrt((n - 1) / n * float((counts * (without - middle) ** 2).sum()))


def _few_units(value: float, error: float, sizes: Counts, bounds: Bounds) -> Measure:
    """The 95 % interval from a jackknife's standard error over few documents, or sources of ``sizes`` documents.

    A number between two bounds is a share of the way from one to the other: Wilson's score interval for as many
    independent documents as have that error, with Student's t for z (Korn and Graubard 1998; Franco et al. 2019).
    Its degrees of freedom are those of sources of one size, (sum of sizes)^2 / (sum of their squares), less one. A
    number with one bound gets a t interval of the logarithm of its distance, one without any a plain one. One unit
    says nothing of how units differ, and documents that are all alike nothing of what they were drawn from: no
    interval, with the reason in ``method``.
    """
    n, clustered = len(sizes), sizes.sum() > len(sizes)
    unit = "source" if clustered else "document"
    low, high = bounds
    finite = math.isfinite(low) and math.isfinite(high)
    if n == 1:
        return Measure(value=value, low=None, high=None, method=f"none, one {unit}")
    if finite and min(abs(value - bound) for bound in bounds) <= _NOTHING:
        ends = score_interval(round((value - low) / (high - low)), n, Z95)
        ends = low + ends[0] * (high - low), low + ends[1] * (high - low)
        method = f"Wilson, {n} of {n}"
    elif error <= _NOTHING and not (finite and clustered):
        return Measure(value=value, low=None, high=None, method=f"none, {unit}s are all alike")
    elif finite:
        like = max(1.0, float(sizes.sum() ** 2 / (sizes**2).sum()) - 1)
        ends = from_error(value, error, t_quantile(like), bounds, None if error > _NOTHING else float(n))
        method = f"Wilson, effective size by jackknife over {n} {unit}s, Student's t"
    else:
        ends = from_error(value, error, t_quantile(n - 1), bounds)
        method = f"Student's t, jackknife over {n} {unit}s"
    return Measure(value=value, low=min(value, ends[0]), high=max(value, ends[1]), method=method)


def from_error(
    value: float, error: float, quantile: float, bounds: Bounds, documents: float | None = None
) -> tuple[float, float]:
    """Ends of the interval of a value, ``quantile`` standard errors away as far as the bounds let it.

    ``documents``: how many independent ones the value is taken to be a share of; None: those that have the error.
    """
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return _one_bound(value, quantile * error, bounds)
    share, scaled = (value - low) / (high - low), error / (high - low)
    ends = score_interval(share, documents or share * (1 - share) / scaled**2, quantile)
    return low + ends[0] * (high - low), low + ends[1] * (high - low)


def _one_bound(value: float, half: float, bounds: Bounds) -> tuple[float, float]:
    """Ends ``half`` away; towards an only bound by as many times as away from it, so that they never pass it."""
    bound = next((end for end in bounds if math.isfinite(end)), None)
    if bound is None or value == bound:
        return value - half, value + half
    times = math.exp(min(half / abs(value - bound), 500.0))
    near, far = bound + (value - bound) / times, bound + (value - bound) * times
    return min(near, far), max(near, far)


def resample(parts: Counts, statistic: Statistic, resamples: int = RESAMPLES) -> Counts:
    """Values of the statistic on bootstrap resamples of the rows of ``parts``, shape (resamples,) (Efron 1979).

    Rows that are equal are exchangeable, so where there are few kinds of rows a resample is one multinomial draw
    over the kinds: exact, and as fast for a million documents as for a hundred. The result depends on the rows,
    not on their order.
    """
    kinds, counts = np.unique(parts, axis=0, return_counts=True)
    if len(kinds) <= _FEW_KINDS and kinds.shape[1] <= _FEW_COLUMNS:
        return np.asarray(statistic(_sums(kinds.tobytes(), kinds.shape, counts.tobytes(), resamples)))
    return np.concatenate([statistic(sums) for sums in _drawn(kinds, counts, resamples)])


@functools.lru_cache(2)
def _sums(kinds: bytes, shape: tuple[int, int], counts: bytes, resamples: int) -> Counts:
    """All resampled sums: the metrics of a task, strict and lenient, are mostly of the same rows."""
    rows = np.frombuffer(kinds).reshape(shape)
    sums = np.concatenate(list(_drawn(rows, np.frombuffer(counts, dtype=np.int64), resamples)))
    sums.flags.writeable = False
    return sums


def _drawn(kinds: Counts, counts: NDArray[np.int64], resamples: int) -> Iterator[Counts]:
    """Sums of resampled rows, shape (some resamples, k), until all are there."""
    n, few = int(counts.sum()), len(kinds) <= _FEW_KINDS
    rows = kinds if few else np.repeat(kinds, counts, axis=0)
    rng = np.random.default_rng(0)
    most = max(1, _BLOCK // max(rows.shape))
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        if few:
            weights = rng.multinomial(n, counts / n, size=size)
        else:
            drawn = rng.integers(n, size=(size, n), dtype=np.int64) + n * np.arange(size)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        yield weights.astype(np.float64) @ rows


def _many_units(value: float, values: Counts, n: int, method: str, bounds: Bounds) -> Measure:
    """The interval of more than ``FEW`` units from ``values`` of resamples: expanded percentiles, within the bounds.

    The plain percentile interval is too short by sqrt((n - 1) / n) and by using normal for t quantiles; taking
    quantiles further out mends both (Hesterberg 2015, section 5.3). A share without spread at 0 or 1 (all wrong, all
    right) gets the interval of Wilson for as many units; other resamples that are all alike give none.
    """
    if values.min() == values.max() == value and bounds == SHARE and value in SHARE:
        low, high = score_interval(value, n, Z95)
        return Measure(value=value, low=low, high=high, method=f"Wilson, {n} of {n}")
    tail = 0.5 * math.erfc(math.sqrt(n / (n - 1)) * t_quantile(n - 1) / math.sqrt(2))
    low, high = (float(end) for end in np.quantile(values, [tail, 1 - tail]))
    low, high = max(bounds[0], min(value, low)), min(bounds[1], max(value, high))
    if low == high:
        return Measure(value=value, low=None, high=None, method="none, resamples are all alike")
    return Measure(value=value, low=min(value, low), high=max(value, high), method=method)


@dataclass(frozen=True)
class Spread:
    """Mean over training seeds, their standard deviation, and the 95 % t interval of the mean."""

    mean: float
    deviation: float
    low: float
    high: float


def seed_spread(values: Sequence[float]) -> Spread:
    """Spread (n - 1 in its denominator) of one metric over runs that differ in their seed only; at least two values."""
    mean, deviation = float(np.mean(values)), seed_deviation(values)
    half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Spread(mean, deviation, mean - half, mean + half)


def seed_deviation(values: Sequence[float]) -> float:
    """The standard deviation of ``seed_spread``."""
    if len(values) < 2:
        raise ValueError(f"a spread needs two seeds, got {len(values)}")
    return float(np.std(values, ddof=1))


def welch(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of Welch's t test (1947) that two sets of seeds have one mean.

    A side of one value is taken as exact (a base is not trained); at least one side needs two values.
    """
    if max(len(a), len(b)) < 2:
        return 1.0
    parts = [float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else 0.0 for side in (a, b)]
    gap = abs(float(np.mean(a)) - float(np.mean(b)))
    if sum(parts) == 0:
        return 1.0 if gap == 0 else 0.0
    from scipy.special import stdtr

    below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True) if len(side) > 1)
    return 2 * float(stdtr(sum(parts) ** 2 / below, -gap / math.sqrt(sum(parts))))
