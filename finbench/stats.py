"""Intervals for scores: numpy only, no input or output.

A metric is a function of sums over documents: ``parts`` of shape (documents, k) and a ``statistic`` that maps sums
of shape (..., k) to values of shape (...). Every function is vectorised over resamples. Paired tests between two
subjects are in ``finbench.paired``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finbench.records import Measure

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], Counts]
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
RESAMPLES = 10_000
SHARE = (0.0, 1.0)  # bounds of a share
FEW = 5  # independent units up to which percentiles of a bootstrap cannot cover 95 % (docs/design-log.md)
_FEW = 256  # kinds of documents up to which one multinomial draw a resample is the faster way
_BLOCK = 4_000_000  # numbers held at once while resampling: 32 MB


def wilson(successes: int, n: int) -> Measure:
    """Share ``successes / n`` with the Wilson score interval at 95 % (Wilson 1927). ``n`` must be positive."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n} is not a share")
    share = successes / n
    scale = 1 / (1 + Z95**2 / n)
    middle = scale * (share + Z95**2 / (2 * n))
    half = scale * Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    # at 0 and n the bound equals the share up to rounding: keep low <= value <= high
    low, high = min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
    return Measure(value=share, low=low, high=high, method="Wilson")


def ratio(part: Counts, whole: Counts) -> Counts:
    """``part / whole``, 0 where ``whole`` is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)


# ---------------------------------------------------------------- resampling


def by_cluster(parts: Counts, clusters: Sequence[Any] | None) -> Counts:
    """Sums over the documents of each cluster, shape (clusters, k), in order of first occurrence."""
    if clusters is None:
        return parts
    codes = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    if len(codes) == len(parts):
        return parts
    index = np.array([codes[cluster] for cluster in clusters])
    summed = np.zeros((len(codes), parts.shape[1]))
    np.add.at(summed, index, parts)
    return summed


def _weights(n: int, resamples: int, seed: int, width: int) -> Iterator[Counts]:
    """Blocks of (resamples, n) counts: how often each of ``n`` is drawn in ``n`` draws with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(n, width))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n), dtype=np.int64) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def resample(parts: Counts, statistic: Statistic, seed: int = 0, resamples: int = RESAMPLES) -> Counts:
    """Values of the statistic on bootstrap resamples of the rows of ``parts``, shape (resamples,) (Efron 1979).

    Rows that are equal are exchangeable, so where there are few kinds of rows a resample is one multinomial draw
    over the kinds: exact, and as fast for a million documents as for a hundred. The result depends on the rows,
    not on their order.
    """
    kinds, counts = np.unique(parts, axis=0, return_counts=True)
    n, width = len(parts), parts.shape[1]
    if len(kinds) > _FEW:
        rows = np.repeat(kinds, counts, axis=0)
        blocks = _weights(n, resamples, seed, width)
        return np.concatenate([statistic(weights @ rows) for weights in blocks])
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // max(len(kinds), width))
    sizes = [min(size, resamples - start) for start in range(0, resamples, size)]
    draws = (rng.multinomial(n, counts / n, size=block).astype(np.float64) for block in sizes)
    return np.concatenate([statistic(weights @ kinds) for weights in draws])


def bootstrap(
    parts: Counts,
    statistic: Statistic,
    clusters: Sequence[Any] | None = None,
    *,
    bounds: tuple[float, float] = SHARE,
    seed: int = 0,
    resamples: int = RESAMPLES,
    earlier: bool = False,
) -> Measure:
    """The statistic with its 95 % bootstrap interval; whole clusters are resampled (Field and Welsh 2007).

    ``bounds``: the least and greatest value that the statistic can have. ``earlier``: by the rule of cards that were
    made before few sources were treated apart (``percentile_interval`` alone).
    """
    return bootstrapped(parts, statistic, clusters, bounds=bounds, seed=seed, resamples=resamples, earlier=earlier)[0]


def bootstrapped(
    parts: Counts,
    statistic: Statistic,
    clusters: Sequence[Any] | None = None,
    *,
    bounds: tuple[float, float] = SHARE,
    seed: int = 0,
    resamples: int = RESAMPLES,
    earlier: bool = False,
    kind: str = "bootstrap",
) -> tuple[Measure, Counts]:
    """As ``bootstrap``, with the resampled values, shape (resamples,)."""
    grouped = by_cluster(parts, clusters)
    value = float(statistic(grouped.sum(axis=0)))
    values = resample(grouped, statistic, seed, resamples)
    alike = len(grouped) == len(parts)
    method = f"{kind if alike else 'cluster ' + kind}, {resamples} resamples"
    if earlier:
        return percentile_interval(value, values, len(grouped), method, bounds == SHARE), values

    def alone() -> Measure:
        return bootstrap(parts, statistic, bounds=bounds, seed=seed, resamples=resamples)

    return interval(value, values, len(grouped), method, bounds, None if alike else alone), values


def interval(
    value: float,
    values: Counts,
    n: int,
    method: str,
    bounds: tuple[float, float],
    alone: Callable[[], Measure] | None = None,
) -> Measure:
    """The 95 % interval that ``values``, resampled from ``n`` independent units, allow; none where they allow none.

    One unit says nothing of how units differ, and resamples that are all alike say nothing of what they were drawn
    from: no interval, with the reason in ``method``. Of two to five units the percentiles cannot cover (their ends
    are the least and greatest unit, between which the truth lies with 1 - 2^(1 - n) at most): there the bootstrap's
    standard error is taken with Student's t of n - 1 degrees of freedom, and an interval is never shorter than
    ``alone``, that of documents taken as independent, for units of few documents agree by chance.
    """
    unit = "source" if alone else "document"
    if n == 1:
        return Measure(value=value, low=None, high=None, method=f"none, one {unit}")
    if n > FEW or (bounds == SHARE and value in SHARE and values.min() == values.max()):
        found = percentile_interval(value, values, n, method, bounds == SHARE)
        ends = [found.low, found.high]
    else:
        half = t_quantile(n - 1) * math.sqrt(n / (n - 1)) * float(values.std())
        floor = alone() if alone else None
        ends = [value - half, value + half, *([floor.low, floor.high] if floor else [])]
        method = f"Student's t over {n} {unit}s, {method}"
        found = Measure(value=value, low=None, high=None, method=method)
    known = [end for end in ends if end is not None]
    low, high = max(bounds[0], min(known)), min(bounds[1], max(known))
    if low == high:
        return Measure(value=value, low=None, high=None, method="none, resamples are all alike")
    return found.model_copy(update={"low": min(value, low), "high": max(value, high)})


def percentile_interval(value: float, values: Counts, n: int, method: str, share: bool) -> Measure:
    """Expanded percentile interval of resampled ``values`` (Hesterberg 2015, section 5.3).

    The plain percentile interval is too short by sqrt((n - 1) / n) and by using normal for t quantiles; taking
    quantiles further out mends both. ``n`` is the number of independent units that were resampled. ``share``: a
    distribution without spread at 0 or 1 (all wrong, all right) gets the interval of Wilson for as many units.
    """
    low, high = float(values.min()), float(values.max())
    if low == high == value and share and value in SHARE:
        far = wilson(n, n).low or 0.0
        low, high = (far, 1.0) if value == 1.0 else (0.0, 1.0 - far)
        return Measure(value=value, low=low, high=high, method=f"Wilson, {n} of {n}")
    if n > 1:
        tail = 0.5 * math.erfc(math.sqrt(n / (n - 1)) * t_quantile(n - 1) / math.sqrt(2))
        low, high = (float(bound) for bound in np.quantile(values, [tail, 1 - tail]))
    return Measure(value=value, low=min(value, low), high=max(value, high), method=method)


# ---------------------------------------------------------------- Student's t, without scipy


def _t_inside(t: float, df: int) -> float:
    """P(|T| <= t) for Student's t with a whole number of degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    term = total = cosine if df % 2 else 1.0
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if df % 2:
        return 2 / math.pi * (theta + (sine * total if df > 1 else 0.0))
    return sine * total


def t_quantile(df: int, level: float = 0.95) -> float:
    """The t with P(|T| <= t) = ``level`` for Student's t; ``df`` at least 1."""
    if df > 200:  # Cornish-Fisher (Abramowitz and Stegun 26.7.5): right to seven digits from here on
        z = Z95 if level == 0.95 else normal_quantile(0.5 + level / 2)
        return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, df) < level else (low, middle)
    return (low + high) / 2


def normal_quantile(p: float) -> float:
    """Inverse of the standard normal distribution function, by bisection."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < p else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Spread:
    """Mean over training seeds, their standard deviation, and the 95 % t interval of the mean."""

    mean: float
    deviation: float
    n: int
    low: float
    high: float


def seed_spread(values: Sequence[float]) -> Spread:
    """Spread of one metric over runs that differ in their seed only; at least two values.

    The standard deviation has n - 1 in its denominator.
    """
    if len(values) < 2:
        raise ValueError(f"a spread needs two seeds, got {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Spread(mean, deviation, len(values), mean - half, mean + half)


def welch(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of Welch's t test (1947) that two sets of seeds have one mean.

    A side of one value is taken as exact (a base is not trained); at least one side needs two values. Degrees of
    freedom are rounded down, which makes p a little larger.
    """
    if max(len(a), len(b)) < 2:
        return 1.0
    parts = [float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else 0.0 for side in (a, b)]
    gap = abs(float(np.mean(a)) - float(np.mean(b)))
    if sum(parts) == 0:
        return 1.0 if gap == 0 else 0.0
    below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True) if len(side) > 1)
    return max(0.0, 1 - _t_inside(gap / math.sqrt(sum(parts)), max(1, math.floor(sum(parts) ** 2 / below))))
