"""Who can be told from whom in a test: tied groups by documents, and by seeds where subjects were trained.

A leader is tested against everybody below it. What decides most of these tests is known from swapping the answers to
one source at a time; the permutation test is done for the others only (``_decided``).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finbench.cards import LEVEL, aggregation_of
from finbench.core.records import Score
from finbench.leaderboard import precedence, trainings
from finbench.leaderboard.evidence import Proof
from finbench.leaderboard.known import Kept
from finbench.leaderboard.rows import BoardRow, KnownSpread
from finbench.scoring import (
    EXACT,
    RESAMPLES,
    UNTESTABLE,
    SeedVariance,
    by_cluster,
    metrics,
    p_values,
    permutation,
)

Numbers = NDArray[np.float64]
_FACTOR = 8.0  # by which a permutation test's p is taken to differ from that of the normal distribution at most
_SURE = 1e-7  # p of which no permutation of 10,000 is as extreme
_NONE = 1.5 / (RESAMPLES + 1)  # p below which none was
_FEW = 12  # sources up to which nothing is taken from the normal distribution
_BENT = 0.2  # share by which single swaps may miss the difference together where it is taken for linear in them
_NEAR = 8  # tests on either side of where Holm stops that must fall as expected
_BLOCK = 4_000_000  # numbers held at once: 32 MB


@dataclass(frozen=True)
class Rival:
    """A subject of a test: evidence of each training, and how far its seeds scatter (None: nobody knows).

    ``strength``: of its evidence (``precedence.STRENGTH``); ``arrival``: when it came, infinity where nobody knows.
    """

    runs: Sequence[Proof]
    seeds: SeedVariance | None = EXACT
    strength: int = 0
    arrival: float = math.inf


def rival(row: BoardRow, known: KnownSpread | None) -> Rival | None:
    """A row for ``tied``; None where not every training has samples."""
    runs = trainings.answered(row.runs or [row])
    if runs is None:
        return None
    entries = [run.entry for run in row.runs or [row]]
    strength = min(precedence.STRENGTH[entry.level] for entry in entries)
    arrival = max(math.inf if entry.arrival is None else entry.arrival for entry in entries)
    return Rival(runs, trainings.of_seeds(row, known), strength, arrival)


def tied(
    score: Score, rivals: Sequence[Rival | None], pairs: Kept | None = None, *, every: bool = False
) -> list[int | None]:
    """Group of each subject of a test, which are in the order of their scores, best first.

    Group 1 holds the best and all that cannot be told from it (5 %, Holm over the group's tests); of the rest the best
    leads the next group, and so on. Documents and sources are those of the strongest evidence, of equals those that
    most have; labels those of the strongest, of equals of who came first. A subject without samples of these cannot be
    tested and has no group; nor has anybody where fewer than two can be. ``pairs``: what is known of tests; ``every``:
    do each of them, to compare.
    """
    places: list[int | None] = [None] * len(rivals)
    kinds = [_asked(one) for one in rivals]
    counts = Counter(kind for kind in kinds if kind is not None)
    if not counts:
        return places
    texts = Counter(kind[:2] for kind in kinds if kind is not None)
    strength = {kind[:2]: 0 for kind in counts}
    for kind, one in zip(kinds, rivals, strict=True):
        if kind is not None and one is not None:
            strength[kind[:2]] = max(strength[kind[:2]], one.strength)
    usual = max(counts, key=lambda kind: (strength[kind[:2]], texts[kind[:2]], counts[kind]))
    alike = [(number, one) for number, one in enumerate(rivals) if one is not None and kinds[number] == usual]
    first = min((one for _, one in alike), key=lambda one: (-one.strength, one.arrival))
    test = _Test(score, first.runs[0], pairs or Kept(), every)
    left = [number for number, one in alike if test.enter(number, one)]
    if len(left) < 2:
        return places
    group = 0
    while left:
        group += 1
        leader, rest = left[0], left[1:]
        apart = test.apart(leader, rest) if rest else np.zeros(0, bool)
        for number in [leader, *(other for other, told in zip(rest, apart, strict=True) if not told)]:
            places[number] = group
        left = [other for other, told in zip(rest, apart, strict=True) if told]
    return places


def _asked(one: Rival | None) -> tuple[str, tuple[int, ...] | None, int] | None:
    """Documents, sources and samples, by which subjects are comparable; None where trainings differ or are hidden."""
    if one is None or any(run.codes is None for run in one.runs):
        return None
    found = {(run.docs, run.sources, run.samples) for run in one.runs}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class _Entered:
    """A subject as tests need it: its value, and its value without each source, means over its trainings."""

    rival: Rival
    parts: list[Numbers]  # of each training, sums over the documents of a source, shape (sources, k)
    value: float
    without: Numbers  # shape (sources,)


class _Test:
    """The tests between subjects that have the documents, sources and samples of ``first``."""

    def __init__(self, score: Score, first: Proof, pairs: Kept, every: bool) -> None:
        self.name = metrics.known_as(aggregation_of(score.task, score.main_metric))
        self.first, self.pairs, self.every = first, pairs, every
        self.base = [json.loads(kind) for kind in first.kinds]
        self.count = 0 if first.codes is None else len(first.codes)
        self.sources = None if first.sources is None else first.sources[:: first.samples]
        self.known: dict[tuple[str, ...], metrics.Summed | None] = {}
        self.statistic: Callable[[Numbers], Numbers]
        self.entered: dict[int, _Entered] = {}

    def enter(self, number: int, one: Rival) -> bool:
        """Whether a subject of the same documents can be tested: its values are those of this metric."""
        found = [self._run(run) for run in one.runs]
        if any(run is None for run in found):
            return False
        runs = [run for run in found if run is not None]
        value = float(np.mean([value for _, value, _ in runs]))
        without = np.mean([without for _, _, without in runs], axis=0)
        self.entered[number] = _Entered(one, [parts for parts, _, _ in runs], value, without)
        return True

    def _run(self, run: Proof) -> tuple[Numbers, float, Numbers] | None:
        """(parts, value, value without each source) of a training; None where they are not of this test."""
        kinds = tuple(sorted(run.kinds))  # subjects have the same few, each in an order of its own
        if kinds not in self.known:
            self.known[kinds] = self._table(kinds)
        table = self.known[kinds]
        if table is None or run.codes is None or len(run.codes) != self.count:
            return None
        place = np.array([kinds.index(kind) for kind in run.kinds], dtype=np.intp)
        summed = metrics.Summed(table.parts[place[run.codes]], table.statistic)
        own = metrics.averaged(summed, self.first.samples) or summed
        self.statistic = own.statistic
        parts, _ = by_cluster(own.parts, self.sources)
        total = parts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):  # without the only source nothing is left
            without = np.nan_to_num(own.statistic(total - parts))
        return parts, float(own.statistic(total)), without

    def _table(self, kinds: tuple[str, ...]) -> metrics.Summed | None:
        """Parts of each kind of value; None where they are not those of the test, as a forger may have them."""
        try:
            found = metrics.summed(self.name, [*self.base, *map(json.loads, kinds)])
        except (KeyError, TypeError, ValueError, IndexError):
            return None
        return found and metrics.Summed(found.parts[len(self.base) :], found.statistic)

    def apart(self, leader: int, rest: Sequence[int]) -> NDArray[np.bool_]:
        """Which of ``rest`` can be told from ``leader``: 5 %, Holm over all of them."""
        one, others = self.entered[leader], [self.entered[number] for number in rest]
        low, high, seeds, error = self._bounds(one, others)

        def exact(place: int) -> float:
            return float(max(seeds[place], self._documents(one, others[place], error[place])))

        if self.every:
            low = high = np.array([exact(n) if low[n] < high[n] or seeds[n] == 0 else low[n] for n in range(len(rest))])
        return _decided(low, high, exact)

    def _bounds(self, one: _Entered, others: Sequence[_Entered]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Least and greatest p that each test may have, the part of it that seeds give, and errors over documents.

        Of seeds it is that of both together; two trainings of whose seeds nobody knows how far they scatter cannot be
        told apart. One can from what was not trained: then it is about this very adapter.
        """
        gaps = np.array([other.value for other in others]) - one.value
        error = self._errors(one, others)
        seeds, alone = self._seeds(one, others, gaps, error, len(one.without))
        deviation, least = np.zeros(len(others)), np.zeros(len(others))
        deviation[alone], least[alone] = self._swapped(one, [others[place] for place in np.flatnonzero(alone).tolist()])
        normal = _two_sided(np.abs(gaps), deviation)
        jack = np.maximum(least, np.minimum(_two_sided(np.abs(gaps), error), _NONE))  # where none was as extreme
        low, high = normal / _FACTOR, np.minimum(1.0, normal * _FACTOR)
        low = np.where(low > _NONE, low, np.minimum(low, jack))
        high = np.where(high < _SURE, jack, np.maximum(high, 2 * _NONE))
        low = np.where(high == jack, jack, low)
        known = (deviation > 0) & (error > 0)
        low, high = np.where(known, low, least), np.where(known, high, 1.0)
        low, high = np.where(alone, np.maximum(low, seeds), seeds), np.where(alone, np.maximum(high, seeds), seeds)
        return low, high, seeds, error

    def _swapped(self, one: _Entered, others: Sequence[_Entered]) -> tuple[Numbers, Numbers]:
        """Standard deviation of each difference under random swaps, and the least p that these can give.

        The first is 0 where it says nothing of p: few sources make the difference, or what swapping each alone changes
        is not the difference together, as in a rare class's F1.
        """
        a = one.parts[0]
        total = a.sum(axis=0)
        deviations, differing = [np.zeros(0)], [np.zeros(0, int)]
        for block in self._blocks(others, a.size):
            b = np.stack([other.parts[0] for other in block])
            delta, totals = a - b, b.sum(axis=1)
            gap = self.statistic(total) - self.statistic(totals)
            by = (gap[:, None] - self.statistic(total - delta) + self.statistic(totals[:, None] + delta)) / 2
            deviation = np.sqrt((by**2).sum(axis=1))
            count = (delta != 0).any(axis=2).sum(axis=1)
            few = (count <= _FEW) | (deviation**4 <= _FEW * (by**4).sum(axis=1))  # of equal sources it is their number
            bent = np.abs(by.sum(axis=1) - gap) > _BENT * np.maximum(np.abs(gap), deviation)
            deviations.append(np.where(few | bent, 0.0, deviation))
            differing.append(count)
        return np.concatenate(deviations), _least(np.concatenate(differing))

    def _blocks(self, others: Sequence[_Entered], numbers: int) -> Iterator[Sequence[_Entered]]:
        """Parts of ``others``, each of so many that what is held of them at once fits; one has so many ``numbers``."""
        most = max(1, _BLOCK // numbers)
        yield from (others[start : start + most] for start in range(0, len(others), most))

    def _errors(self, one: _Entered, others: Sequence[_Entered]) -> Numbers:
        """The jackknife's standard error of each difference (``scoring.error_over_documents``)."""
        units, found = len(one.without), [np.zeros(0)]
        for block in self._blocks(others, units):
            apart = np.stack([other.without for other in block]) - one.without
            apart -= apart.mean(axis=1, keepdims=True)
            found.append(np.sqrt((units - 1) / units * (apart**2).sum(axis=1)))
        return np.concatenate(found)

    def _seeds(
        self, one: _Entered, others: Sequence[_Entered], gaps: Numbers, error: Numbers, units: int
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """p of documents and seeds together, 0 where none has seeds; and where that of documents alone counts too."""
        p, alone = np.zeros(len(others)), np.ones(len(others), bool)
        asked: list[int] = []
        for place, other in enumerate(others):
            sides = (one.rival.seeds, other.rival.seeds)
            several = len(one.rival.runs) > 1 or len(other.rival.runs) > 1
            if None in sides and EXACT not in sides:
                p[place], alone[place] = 1.0, False
            elif several or any(side and side.value for side in sides):
                asked.append(place)
                alone[place] = not several
        if not asked:
            return p, alone
        if units <= UNTESTABLE:
            p[asked] = 1.0
            return p, alone
        parts = [(error[asked] ** 2, np.full(len(asked), units - 1.0))]
        for rivals in ([one.rival] * len(asked), [others[place].rival for place in asked]):
            told = [rival.seeds or EXACT for rival in rivals]
            shares = np.array([seeds.value / len(rival.runs) for seeds, rival in zip(told, rivals, strict=True)])
            parts.append((shares, np.array([seeds.df for seeds in told])))
        p[asked] = p_values(gaps[asked], parts)
        return p, alone

    def _documents(self, one: _Entered, other: _Entered, error: float) -> float:
        """p of the permutation test; where no permutation was as extreme, that of the normal approximation if smaller.

        10,000 permutations end at p = 0.0001, which Holm over more than 500 subjects would never call significant.
        """
        pair = " ".join(sorted(side.rival.runs[0].digest[:32] for side in (one, other)))
        p: float = self.pairs.get(pair, lambda: permutation(one.parts[0], other.parts[0], self.statistic))
        if p <= _NONE and error > 0:
            p = min(p, float(_two_sided(np.array([abs(one.value - other.value)]), np.array([error]))[0]))
        return max(p, float(_least((one.parts[0] != other.parts[0]).any(axis=1).sum())))


def _least(differing: NDArray[np.int_]) -> Numbers:
    """The least p of tests that swap so many sources: the observed arrangement and its opposite, of all."""
    return np.asarray(np.minimum(1.0, 2.0 ** (1.0 - differing)))


def _two_sided(distance: Numbers, error: Numbers) -> Numbers:
    """p of the normal distribution."""
    from scipy.special import ndtr  # here: its import takes 0.3 s

    return np.asarray(2 * ndtr(-distance / np.where(error > 0, error, 1.0)))


def _decided(low: Numbers, high: Numbers, exact: Callable[[int], float]) -> NDArray[np.bool_]:
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
        surely, perhaps = _rejected(high), _rejected(low)
        left = perhaps & (low < high)
        left = left & ~surely if (left & ~surely).any() else left
        if (surely == perhaps).all():
            return surely
        if (blind := left & (high >= 1)).any():
            ask(np.flatnonzero(blind))
            continue
        middle = np.sqrt(low * high)
        told = _rejected(middle)
        order = np.argsort(middle, kind="stable")
        order = order[left[order]]
        asked = np.concatenate([order[told[order]][-near:], order[~told[order]][:near]])
        ask(asked)
        now = _rejected(np.sqrt(low * high))
        if (now[asked] == told[asked]).all():
            return now
        near *= 2


def _rejected(p: Numbers) -> NDArray[np.bool_]:
    """Holm's procedure (1979) at 5 %, as ``scoring.holm`` has it."""
    order = np.argsort(p, kind="stable")
    passed = (len(p) - np.arange(len(p))) * p[order] < LEVEL
    found = np.zeros(len(p), bool)
    found[order[: len(p) if passed.all() else int(np.argmin(passed))]] = True
    return found
