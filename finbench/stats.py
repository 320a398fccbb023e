"""Intervals for scores: numpy only, no input or output.

Every function is vectorised over resamples. ``L`` is the number of labels; predictions are label indices in
``[0, L)``, or ``L`` for an answer that could not be parsed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finbench.records import Measure

Counts = NDArray[np.float64]
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
RESAMPLES = 2000


def wilson(successes: int, n: int) -> Measure:
    """Share ``successes / n`` with the Wilson score interval at 95 % (Wilson 1927). ``n`` must be positive."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n} is not a share")
    share = successes / n
    scale = 1 / (1 + Z95**2 / n)
    middle = scale * (share + Z95**2 / (2 * n))
    half = scale * Z95 * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    # at 0 and n the bound equals the share up to rounding: keep low <= value <= high
    return Measure(value=share, low=min(share, max(0.0, middle - half)), high=max(share, min(1.0, middle + half)))


def confusion(gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: int) -> Counts:
    """Confusion counts, shape (L, L + 1): rows gold, columns predicted, last column unparsed."""
    table = np.zeros((labels, labels + 1))
    np.add.at(table, (gold, predicted), 1)
    return table


def ratio(part: Counts, whole: Counts) -> Counts:
    """``part / whole``, 0 where ``whole`` is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)


def accuracy(table: Counts) -> Counts:
    """Accuracy of confusion counts of shape (..., L, L + 1)."""
    hits = np.trace(table[..., :-1], axis1=-2, axis2=-1)
    total = table.sum(axis=(-2, -1))
    return ratio(hits, total)


def f1_by_label(table: Counts) -> Counts:
    """F1 of each label, shape (..., L); 0 where a label is neither gold nor predicted."""
    square = table[..., :-1]
    hits = np.diagonal(square, axis1=-2, axis2=-1)
    sizes = table.sum(axis=-1) + square.sum(axis=-2)
    return ratio(2 * hits, sizes)


def macro_f1(table: Counts) -> Counts:
    """Mean F1 over the fixed label set. Unparsed answers are misses for their gold label."""
    return np.asarray(f1_by_label(table).mean(axis=-1))


def bootstrap_table(
    table: Counts, statistic: Callable[[Counts], Counts], seed: int = 0, resamples: int = RESAMPLES
) -> Measure:
    """Percentile bootstrap over documents of a statistic of confusion counts (Efron 1979).

    Documents with the same (gold, predicted) pair are exchangeable, so a resample of documents is one
    multinomial draw over the cells: exact, and as fast for a million documents as for a hundred.
    """
    n = int(table.sum())
    draws = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=resamples)
    values = statistic(draws.reshape(resamples, *table.shape).astype(np.float64))
    return _percentiles(float(statistic(table)), values)


def bootstrap_sums(
    parts: Counts, statistic: Callable[[Counts], Counts], seed: int = 0, resamples: int = RESAMPLES
) -> Measure:
    """Percentile bootstrap of a statistic of sums over documents.

    ``parts`` has shape (documents, k); ``statistic`` maps sums of shape (..., k) to values of shape (...).
    """
    n = len(parts)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return _percentiles(float(statistic(parts.sum(axis=0))), statistic(weights @ parts))


def _percentiles(value: float, values: Counts) -> Measure:
    low, high = np.quantile(values, [0.025, 0.975])
    return Measure(value=value, low=min(value, float(low)), high=max(value, float(high)))
