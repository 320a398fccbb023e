"""Who can be told from whom in a test: tied groups by documents, and by seeds where subjects were trained.

A leader is tested against everybody below it. What decides most of these tests is known from swapping the answers to
one source at a time; the permutation test is done for the others only (``_decided``).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

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
T = TypeVar("T")
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
    left = test.enter(alike)
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
    total: Numbers  # of the first training, shape (k,)
    kinds: NDArray[np.intp] | None  # of the first training's answers; None where sources are not single answers
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
        self.rows: list[Numbers] = []  # parts of every kind of value that was met, shapes (kinds, k)
        self.row: dict[str, int] = {}  # of a kind the number among all of these
        self.places: dict[tuple[str, ...], NDArray[np.intp] | None] = {}  # of kinds; None: they are not of this metric
        self.entered: dict[int, _Entered] = {}
        self.width = 0  # k of one answer; 0: the values of ``first`` are not those of the metric
        if (own := self._summed(())) is not None:
            self.width = own.parts.shape[1]
            whole = metrics.averaged(replace(own, parts=np.zeros((first.samples, self.width))), first.samples) or own
            self.statistic = whole.statistic

    def enter(self, alike: Sequence[tuple[int, Rival]]) -> list[int]:
        """Those subjects of the same documents that can be tested: their values are those of this metric."""
        those = [(number, one) for number, one in alike if all(map(self._fits, one.runs))]
        found = self._runs([run for _, one in those for run in one.runs])
        for number, one in those:
            parts, totals, kinds, values, without = zip(*(next(found) for _ in one.runs), strict=True)
            mean = without[0] if len(without) == 1 else np.mean(without, axis=0)
            self.entered[number] = _Entered(one, list(parts), totals[0], kinds[0], float(np.mean(values)), mean)
        return [number for number, _ in those]

    def _fits(self, run: Proof) -> bool:
        """Whether a training's values are of this test; those of a forger may not be."""
        if run.kinds not in self.places:
            new = [kind for kind in run.kinds if kind not in self.row]  # subjects have the same few
            found = self._summed(new)
            fits = found is not None and found.parts.shape[1] == self.width
            if found is not None and fits:
                self.row |= {kind: len(self.row) + number for number, kind in enumerate(new)}
                self.rows.append(found.parts[len(self.base) :])
            self.places[run.kinds] = np.array([self.row[kind] for kind in run.kinds], dtype=np.intp) if fits else None
        return self.places[run.kinds] is not None and run.codes is not None and len(run.codes) == self.count

    def _runs(self, runs: Sequence[Proof]) -> Iterator[tuple[Any, ...]]:
        """(parts, total, kinds, value, value without each source) of each training, of many computed at once."""
        every = np.concatenate([np.zeros((0, self.width)), *self.rows])
        self.kinds, same = np.unique(every, axis=0, return_inverse=True)
        for block in _blocks(runs, self.count * self.width):
            codes = np.stack([self.places[run.kinds][run.codes] for run in block])  # type: ignore[index]  # they fit
            rows = every[codes].reshape(len(block), self.count // self.first.samples, -1)
            parts, _ = by_cluster(rows, self.sources)
            single = parts.shape == (*codes.shape, self.width)
            totals = parts.sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):  # without the only source nothing is left
                without = np.nan_to_num(self.statistic(totals[:, None] - parts))
            kinds = same[codes] if single else [None] * len(block)
            yield from zip(parts, totals, kinds, self.statistic(totals).tolist(), without, strict=True)

    def _summed(self, kinds: Sequence[str]) -> metrics.Summed | None:
        """The metric of the first subject's kinds of values, which say what its labels are, and of these."""
        try:
            return metrics.summed(self.name, [*self.base, *map(json.loads, kinds)])
        except (KeyError, TypeError, ValueError, IndexError):
            return None

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
        deviations, differing = [np.zeros(0)], [np.zeros(0, int)]
        for block in _blocks(others, one.parts[0].size):
            totals = np.stack([other.total for other in block])
            delta, many = self._swaps(one, block)
            gap = self.statistic(one.total) - self.statistic(totals)
            by = (gap[:, None] - self.statistic(one.total - delta) + self.statistic(totals[:, None] + delta)) / 2
            deviation = np.sqrt((many * by**2).sum(axis=1))
            count = (many * (delta != 0).any(axis=-1)).sum(axis=1)
            # of equal sources it is their number
            few = (count <= _FEW) | (deviation**4 <= _FEW * (many * by**4).sum(axis=1))
            bent = np.abs((many * by).sum(axis=1) - gap) > _BENT * np.maximum(np.abs(gap), deviation)
            deviations.append(np.where(few | bent, 0.0, deviation))
            differing.append(count)
        return np.concatenate(deviations), _least(np.concatenate(differing))

    def _swaps(self, one: _Entered, others: Sequence[_Entered]) -> tuple[Numbers, NDArray[np.int_]]:
        """What each swap of a source's answers moves, shape (..., swaps, k), and how often, shape (others, swaps).

        Where a source is one answer, few kinds of answers make few swaps, each of which is looked at once.
        """
        kinds = len(self.kinds)
        if one.kinds is not None and kinds**2 <= one.parts[0].size:
            pairs = one.kinds * kinds + np.stack([other.kinds for other in others if other.kinds is not None])
            pairs += np.arange(len(others))[:, None] * kinds**2
            many = np.bincount(pairs.ravel(), minlength=len(others) * kinds**2).reshape(len(others), -1)
            met = np.flatnonzero(many.any(axis=0))
            if len(met) < len(one.kinds):
                return self.kinds[met // kinds] - self.kinds[met % kinds], many[:, met]
        delta = one.parts[0] - np.stack([other.parts[0] for other in others])
        return delta, np.ones(delta.shape[:2], int)

    def _errors(self, one: _Entered, others: Sequence[_Entered]) -> Numbers:
        """The jackknife's standard error of each difference (``scoring.error_over_documents``)."""
        units, found = len(one.without), [np.zeros(0)]
        for block in _blocks(others, units):
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


def _blocks(found: Sequence[T], numbers: int) -> Iterator[Sequence[T]]:
    """Parts of ``found``, each of so many that what is held of them at once fits; one has so many ``numbers``."""
    most = max(1, _BLOCK // max(1, numbers))
    yield from (found[start : start + most] for start in range(0, len(found), most))


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
