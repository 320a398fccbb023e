"""Which of many tests Holm's procedure rejects, where most p are only known to lie between two bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finbench.cards import LEVEL
from finbench.scoring import RESAMPLES

Numbers = NDArray[np.float64]
_FACTOR = 8.0  # by which a permutation test's p is taken to differ from that of the normal distribution at most
_SURE = 1e-7  # p of which no permutation of 10,000 is as extreme
NONE = 1.5 / (RESAMPLES + 1)  # p below which none was
_NEAR = 8  # tests on either side of where Holm stops that must fall as expected


def limits(gaps: Numbers, error: Numbers, deviation: Numbers, few: Numbers) -> tuple[Numbers, Numbers]:
    """Least and greatest p that the permutation test of each difference may have.

    ``error``: by the jackknife, ``deviation``: under random swaps, 0 where it says nothing of p; ``few``: the least p
    of any swaps.
    """
    normal = two_sided(gaps, deviation)
    jack = np.maximum(few, np.minimum(two_sided(gaps, error), NONE))  # where none was as extreme
    low, high = normal / _FACTOR, np.minimum(1.0, normal * _FACTOR)
    low = np.where(low > NONE, low, np.minimum(low, jack))
    high = np.where(high < _SURE, jack, np.maximum(high, 2 * NONE))
    low = np.where(high == jack, jack, low)
    known = (deviation > 0) & (error > 0)
    return np.where(known, low, few), np.where(known, high, 1.0)


def least(differing: NDArray[np.int_]) -> Numbers:
    """The least p of tests that swap so many sources: the observed arrangement and its opposite, of all."""
    return np.asarray(np.minimum(1.0, 2.0 ** (1.0 - differing)))


def two_sided(distance: Numbers, error: Numbers) -> Numbers:
    """p of the normal distribution."""
    from scipy.special import ndtr  # here: its import takes 0.3 s

    return np.asarray(2 * ndtr(-distance / np.where(error > 0, error, 1.0)))


def decided(low: Numbers, high: Numbers, exact: Callable[[int], float]) -> NDArray[np.bool_]:
    """Which hypotheses Holm rejects, whose p lie between ``low`` and ``high``; ``exact`` is asked where that is open.

    What is rejected by the greatest p is rejected, what is not by the least is not: Holm's procedure is monotone. Of
    what is left every p is asked that has no estimate (``high`` 1); the others are taken to be in the middle of their
    bounds, and the ``_NEAR`` on either side of where Holm stops are asked, then twice as many as long as any of them
    turns out to be on the other side.
    """
    low, high, near = low.copy(), high.copy(), _NEAR

    def ask(places: NDArray[np.int_]) -> None:
        for place in places:
            low[place] = high[place] = exact(int(place))

    while True:
        surely, perhaps = rejected(high), rejected(low)
        left = perhaps & (low < high)
        left = left & ~surely if (left & ~surely).any() else left
        if (surely == perhaps).all():
            return surely
        if (blind := left & (high >= 1)).any():
            ask(np.flatnonzero(blind))
            continue
        middle = np.sqrt(low * high)
        told = rejected(middle)
        order = np.argsort(middle, kind="stable")
        order = order[left[order]]
        asked = np.concatenate([order[told[order]][-near:], order[~told[order]][:near]])
        ask(asked)
        now = rejected(np.sqrt(low * high))
        if (now[asked] == told[asked]).all():
            return now
        near *= 2


def rejected(p: Numbers) -> NDArray[np.bool_]:
    """Holm's procedure (1979) at 5 %, as ``scoring.holm`` has it."""
    order = np.argsort(p, kind="stable")
    passed = (len(p) - np.arange(len(p))) * p[order] < LEVEL
    found = np.zeros(len(p), bool)
    found[order[: len(p) if passed.all() else int(np.argmin(passed))]] = True
    return found
