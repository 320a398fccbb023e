"""Who can be told from whom in a test: tied groups by documents, and by seeds where subjects were trained.

A leader is tested against everybody below it. What decides most of these tests is known from swapping the answers to
one source at a time; the permutation test is done for the others only (``deciding.decided``). What documents say of a
difference is kept, so that of a newcomer only its own differences are computed.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finbench.cards import aggregation_of
from finbench.core.files import digest
from finbench.core.records import Score
from finbench.leaderboard import precedence, trainings
from finbench.leaderboard.deciding import NONE, decided, least, limits, two_sided
from finbench.leaderboard.evidence import Proof
from finbench.leaderboard.known import Kept
from finbench.leaderboard.rows import BoardRow, KnownSpread
from finbench.scoring import (
    EXACT,
    UNTESTABLE,
    SeedVariance,
    by_cluster,
    metrics,
    p_values,
    permutation,
)

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]
_FEW = 12  # sources up to which nothing is taken from the normal distribution
_BENT = 0.2  # share by which single swaps may miss the difference together where it is taken for linear in them
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

    @functools.cached_property
    def digest(self) -> str:
        """Of the evidence of all its trainings."""
        return " ".join(run.digest[:32] for run in self.runs)


def rival(row: BoardRow, known: KnownSpread | None) -> Rival | None:
    """A row for ``tied``; None where not every training has samples."""
    runs = trainings.answered(row.runs or [row])
    if runs is None:
        return None
    entries = [run.entry for run in row.runs or [row]]
    strength = min(precedence.STRENGTH[entry.level] for entry in entries)
    return Rival(runs, trainings.of_seeds(row, known), strength, max(entry.arrival for entry in entries))


def tied(
    score: Score,
    rivals: Sequence[Rival | None],
    pairs: Kept | None = None,
    gaps: Kept | None = None,
    *,
    every: bool = False,
) -> list[int | None]:
    """Group of each subject of a test, which are in the order of their scores, best first.

    Group 1 holds the best and all that cannot be told from it (5 %, Holm over the group's tests); of the rest the best
    leads the next group, and so on. Documents and sources are those of the strongest evidence, of equals those that
    most have; labels those of the strongest, of equals of who came first. A subject without samples of these cannot be
    tested and has no group; nor has anybody where fewer than two can be. ``pairs``: what is known of tests;
    ``gaps``: of differences; ``every``: do each test, to compare.
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
    test = _Test(score, first.runs[0], pairs or Kept(), gaps or Kept(), every)
    entered = test.enter(alike)
    if len(entered) < 2:
        return places
    group, left = 0, np.arange(len(entered))
    while len(left):
        group += 1
        leader, rest = int(left[0]), left[1:]
        apart = test.apart(leader, rest) if len(rest) else np.zeros(0, bool)
        for place in (leader, *rest[~apart].tolist()):
            places[entered[place]] = group
        left = rest[apart]
    return places


def _asked(one: Rival | None) -> tuple[str, tuple[int, ...] | None, int] | None:
    """Documents, sources and samples, by which subjects are comparable; None where trainings differ or are hidden."""
    if one is None or any(run.codes is None for run in one.runs):
        return None
    found = {(run.docs, run.sources, run.samples) for run in one.runs}
    return found.pop() if len(found) == 1 else None


class _Test:
    """The tests between subjects that have the documents, sources and samples of ``first``.

    Subjects are known by their places among those that entered, and what is known of them lies in arrays: of
    thousands each would else be looked at by itself.
    """

    def __init__(self, score: Score, first: Proof, pairs: Kept, gaps: Kept, every: bool) -> None:
        self.name = metrics.known_as(aggregation_of(score.task, score.main_metric))
        self.first, self.pairs, self.gaps, self.every = first, pairs, gaps, every
        self.key = digest([self.name, first.docs, first.sources, first.samples, first.kinds])
        self.base = [json.loads(kind) for kind in first.kinds]
        self.count = 0 if first.codes is None else len(first.codes)
        self.sources = None if first.sources is None else first.sources[:: first.samples]
        self.single = first.samples == 1 and len(set(self.sources or ())) in (0, self.count)  # a source is one answer
        self.rows: list[Numbers] = []  # parts of every kind of value that was met, shapes (kinds, k)
        self.row: dict[str, int] = {}  # of a kind the number among all of these
        self.places: dict[tuple[str, ...], NDArray[np.intp] | None] = {}  # of kinds; None: they are not of this metric
        self.rivals: list[Rival] = []
        self.width = 0  # k of one answer; 0: the values of ``first`` are not those of the metric
        if (own := self._summed(())) is not None:
            self.width = own.parts.shape[1]
            whole = metrics.averaged(replace(own, parts=np.zeros((first.samples, self.width))), first.samples) or own
            self.statistic = whole.statistic

    def enter(self, alike: Sequence[tuple[int, Rival]]) -> list[int]:
        """Numbers of the subjects of the same documents that can be tested: their values are those of this metric."""
        those = [(number, one) for number, one in alike if all(map(self._fits, one.runs))]
        if not those:
            return []
        self.rivals = [one for _, one in those]
        self.kinds, same = np.unique(np.concatenate(self.rows), axis=0, return_inverse=True)
        self.places = {kinds: None if place is None else same[place] for kinds, place in self.places.items()}
        self.runs = np.array([len(one.runs) for one in self.rivals])
        many, self.units = len(those), len(set(self.sources)) if self.sources else self.count // self.first.samples
        self.there = np.zeros(many, bool)  # who is computed
        self.totals, self.said = np.zeros((many, self.width)), np.zeros((many, self.count), np.intp)
        self.value, self.without = np.zeros(many), np.zeros((many, self.units))
        self.found = _Found(self.gaps, self.key, [one.digest for one in self.rivals])
        told = [one.seeds or EXACT for one in self.rivals]
        self.scatter, self.df = np.array([[seeds.value, seeds.df] for seeds in told]).T
        self.unknown = np.array([one.seeds is None for one in self.rivals])
        self.exact = np.array([one.seeds == EXACT for one in self.rivals])
        return [number for number, _ in those]

    def compute(self, those: Places) -> None:
        """Totals, answers, values, and values without each source of some subjects, where they are not known yet."""
        new = np.unique(those[~self.there[those]])
        if not len(new):
            return
        runs = [run for place in new for run in self.rivals[place].runs]
        found = [self._computed(self._codes(block)) for block in _blocks(runs, self.size)]
        totals, said, values, without = (np.concatenate(parts) for parts in zip(*found, strict=True))
        many = self.runs[new]
        first = np.cumsum(many) - many
        self.totals[new], self.said[new] = totals[first], said[first]  # of the first training
        self.value[new] = np.add.reduceat(values, first) / many  # means over trainings; without each source
        self.without[new] = np.add.reduceat(without, first, axis=0) / many[:, None]
        self.there[new] = True

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

    def _codes(self, runs: Sequence[Proof]) -> Places:
        """Of each answer of some trainings the number among ``kinds``, shape (trainings, answers)."""
        return np.stack([self.places[run.kinds][run.codes] for run in runs])  # type: ignore[index]

    def _parts(self, codes: Places) -> Numbers:
        """Sums over the documents of each source, shape (trainings, sources, k)."""
        rows = self.kinds[codes].reshape(len(codes), self.count // self.first.samples, -1)
        return by_cluster(rows, self.sources)[0]

    def _computed(self, codes: Places) -> tuple[Numbers, Places, Numbers, Numbers]:
        """Totals, kinds of answers, values, and values without each source of some trainings."""
        kinds = len(self.kinds)
        if self.single and kinds < self.count:  # without sources of one kind the same is left
            counted = (codes + np.arange(len(codes))[:, None] * kinds).ravel()
            totals = np.bincount(counted, minlength=len(codes) * kinds).reshape(-1, kinds) @ self.kinds
            parts = np.broadcast_to(self.kinds, (len(codes), *self.kinds.shape))
        else:
            parts = self._parts(codes)
            totals = parts.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):  # without the only source nothing is left
            without = np.nan_to_num(self.statistic(totals[:, None] - parts))
        if self.single and kinds < self.count:
            without = np.take_along_axis(without, codes, axis=1)
        return totals, codes, self.statistic(totals), without

    @property
    def size(self) -> int:
        """Numbers that a training's parts are."""
        return self.count * self.width

    def _summed(self, kinds: Sequence[str]) -> metrics.Summed | None:
        """The metric of the first subject's kinds of values, which say what its labels are, and of these."""
        try:
            return metrics.summed(self.name, [*self.base, *map(json.loads, kinds)])
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    def apart(self, leader: int, rest: Places) -> NDArray[np.bool_]:
        """Which of ``rest`` can be told from ``leader``: 5 %, Holm over all of them."""
        gaps, error, deviation, few = self._documents(leader, rest).T
        seeds, alone = self._seeds(leader, rest, gaps, error)
        low, high = limits(gaps, error, deviation, few)
        low, high = np.where(alone, np.maximum(low, seeds), seeds), np.where(alone, np.maximum(high, seeds), seeds)

        def exact(place: int) -> float:
            permuted = self._permuted(leader, int(rest[place]), gaps[place], error[place])
            return float(max(seeds[place], few[place], permuted))

        if self.every:
            low = high = np.array([exact(n) if low[n] < high[n] or seeds[n] == 0 else low[n] for n in range(len(rest))])
        return decided(low, high, exact)

    def _documents(self, one: int, others: Places) -> Numbers:
        """What documents say of each difference, shape (others, 4).

        That is how large it is, its error by the jackknife, its deviation under swaps, and the least p of any swaps.
        """
        every = self.found.of(one)
        new = others[np.isnan(every[others, 0])]
        if len(new):
            self.compute(np.append(new, one))
            gaps, (deviation, few) = np.abs(self.value[new] - self.value[one]), self._swapped(one, new)
            every[new] = np.stack([gaps, self._errors(one, new), deviation, few], axis=1)
        self.found.keep(one, every)
        return every[others]

    def _swapped(self, one: int, others: Places) -> tuple[Numbers, Numbers]:
        """Standard deviation of each difference under random swaps, and the least p that these can give.

        The first is 0 where it says nothing of p: few sources make the difference, or what swapping each alone changes
        is not the difference together, as in a rare class's F1.
        """
        deviations, differing, total = [np.zeros(0)], [np.zeros(0, int)], self.totals[one]
        for block in _blocks(others, self.size):
            totals = self.totals[block]
            delta, many = self._swaps(one, block)
            gap = self.statistic(total) - self.statistic(totals)
            by = (gap[:, None] - self.statistic(total - delta) + self.statistic(totals[:, None] + delta)) / 2
            deviation = np.sqrt((many * by**2).sum(axis=1))
            count = (many * (delta != 0).any(axis=-1)).sum(axis=1)
            # of equal sources it is their number
            few = (count <= _FEW) | (deviation**4 <= _FEW * (many * by**4).sum(axis=1))
            bent = np.abs((many * by).sum(axis=1) - gap) > _BENT * np.maximum(np.abs(gap), deviation)
            deviations.append(np.where(few | bent, 0.0, deviation))
            differing.append(count)
        return np.concatenate(deviations), least(np.concatenate(differing))

    def _swaps(self, one: int, others: Places) -> tuple[Numbers, NDArray[np.int_]]:
        """What each swap of a source's answers moves, shape (..., swaps, k), and how often, shape (others, swaps).

        Where a source is one answer, few kinds of answers make few swaps, each of which is looked at once.
        """
        kinds = len(self.kinds)
        if self.single and kinds**2 <= self.size:
            pairs = self.said[one] * kinds + self.said[others] + np.arange(len(others))[:, None] * kinds**2
            many = np.bincount(pairs.ravel(), minlength=len(others) * kinds**2).reshape(len(others), -1)
            met = np.flatnonzero(many.any(axis=0))
            if len(met) < self.count:
                return self.kinds[met // kinds] - self.kinds[met % kinds], many[:, met]
        delta = self._parts(self.said[[one]]) - self._parts(self.said[others])
        return delta, np.ones(delta.shape[:2], int)

    def _errors(self, one: int, others: Places) -> Numbers:
        """The jackknife's standard error of each difference (``scoring.error_over_documents``)."""
        units, found = self.units, [np.zeros(0)]
        for block in _blocks(others, units):
            apart = self.without[block] - self.without[one]
            apart -= apart.mean(axis=1, keepdims=True)
            found.append(np.sqrt((units - 1) / units * (apart**2).sum(axis=1)))
        return np.concatenate(found)

    def _seeds(self, one: int, others: Places, gaps: Numbers, error: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
        """p of documents and seeds together, 0 where none has seeds; and where that of documents alone counts too.

        Two trainings of whose seeds nobody knows how far they scatter cannot be told apart. One can from what was not
        trained: then it is about this very adapter.
        """
        several = (self.runs[one] > 1) | (self.runs[others] > 1)
        nobody = (self.unknown[one] | self.unknown[others]) & ~(self.exact[one] | self.exact[others])
        asked = ~nobody & (several | (self.scatter[one] > 0) | (self.scatter[others] > 0))
        p = np.where(nobody, 1.0, 0.0)
        if self.units <= UNTESTABLE:
            p[asked] = 1.0
        elif asked.any():
            there = others[asked]
            sides = [
                (
                    np.broadcast_to(self.scatter[at] / self.runs[at], there.shape),
                    np.broadcast_to(self.df[at], there.shape),
                )
                for at in (one, there)
            ]
            p[asked] = p_values(gaps[asked], [(error[asked] ** 2, np.full(len(there), self.units - 1.0)), *sides])
        return p, ~nobody & ~(asked & several)

    def _permuted(self, one: int, other: int, gap: float, error: float) -> float:
        """p of the permutation test; where no permutation was as extreme, that of the normal approximation if smaller.

        10,000 permutations end at p = 0.0001, which Holm over more than 500 subjects would never call significant.
        """
        pair = " ".join(sorted(self.rivals[place].runs[0].digest[:32] for place in (one, other)))

        def permuted() -> float:
            self.compute(np.array([one, other]))
            a, b = self._parts(self.said[[one, other]])
            return permutation(a, b, self.statistic)

        p: float = self.pairs.get(f"{self.key[:16]} {pair}", permuted)
        if p <= NONE and error > 0:
            p = min(p, float(two_sided(np.array([gap]), np.array([error]))[0]))
        return p


class _Found:
    """What documents say of the differences of a test, by the digests of both subjects: what was kept, and is to be."""

    def __init__(self, gaps: Kept, key: str, who: list[str]) -> None:
        before = gaps.before if gaps.before.get("key") == key else {}
        place = {name: number for number, name in enumerate(before.get("who", ()))}
        self.who, self.place = who, np.array([place.get(name, -1) for name in who])
        self.before: dict[str, str] = before.get("found", {})
        self.used: dict[str, str] = {}
        gaps.used = {"key": key, "who": who, "found": self.used}

    def of(self, one: int) -> Numbers:
        """Of the differences of a subject from each, NaN where nothing is known; shape (subjects, 4)."""
        found, before = np.full((len(self.who), 4), np.nan), self.before.get(self.who[one])
        if before is not None:
            old, there = np.frombuffer(base64.b64decode(before)).reshape(-1, 4), self.place >= 0
            found[there] = old[self.place[there]]
        return found

    def keep(self, one: int, found: Numbers) -> None:
        """Remember them."""
        self.used[self.who[one]] = base64.b64encode(found.tobytes()).decode()


def _blocks(found: Any, numbers: int) -> Iterator[Any]:
    """Parts of a list or an array, so many that what is held of them at once fits; one has so many ``numbers``."""
    most = max(1, _BLOCK // max(1, numbers))
    yield from (found[start : start + most] for start in range(0, len(found), most))
