"""Who can be told from whom in a test: tied groups by documents, and by seeds where subjects were trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finbench.cards import LEVEL, aggregation_of
from finbench.core.records import Score
from finbench.leaderboard import trainings
from finbench.leaderboard.rows import BoardRow, KnownSpread
from finbench.scoring import (
    EXACT,
    RESAMPLES,
    Difference,
    SeedVariance,
    clusters_of,
    hidden_metrics,
    holm,
    p_apart,
    paired_difference,
    samples_of,
    values_of,
)


@dataclass(frozen=True)
class Rival:
    """A subject of a test: samples of each training, and how far its seeds scatter (None: nobody knows)."""

    runs: Sequence[trainings.Samples]
    seeds: SeedVariance | None = EXACT


def rival(row: BoardRow, known: KnownSpread | None) -> Rival | None:
    """A row for ``tied``; None where not every training has samples."""
    runs = trainings.answered(row.runs or [row])
    return None if runs is None else Rival(runs, trainings.of_seeds(row, known))


def tied(score: Score, rivals: Sequence[Rival | None]) -> list[int | None]:
    """Group of each subject of a test, which are in the order of their scores, best first.

    Group 1 holds the best and all that cannot be told from it (5 %, Holm over the group's tests); of the rest the best
    leads the next group, and so on. A subject without samples of these documents cannot be tested and has none; nor
    has anybody where fewer than two can be.
    """
    places: list[int | None] = [None] * len(rivals)
    metric = score.main_metric
    docs: list[str] | None = None
    left: list[int] = []
    for number, one in enumerate(rivals):
        if one is None or not one.runs[0] or metric in hidden_metrics(one.runs[0]):
            continue
        docs = docs or [row["doc"] for row in one.runs[0]]
        if [row["doc"] for row in one.runs[0]] == docs:
            left.append(number)
    if len(left) < 2:
        return places
    found = {number: rivals[number] for number in left}
    test = _Apart(score, {number: one for number, one in found.items() if one is not None})
    group = 0
    while left:
        group += 1
        leader, rest = left[0], left[1:]
        places[leader] = group
        adjusted = holm([test.p(leader, other) for other in rest])
        for other, p in zip(rest, adjusted, strict=True):
            if p >= LEVEL:
                places[other] = group
        left = [other for other in rest if places[other] is None]
    return places


class _Apart:
    """The tests between subjects of one test."""

    def __init__(self, score: Score, rivals: dict[int, Rival]) -> None:
        metric, first = score.main_metric, next(iter(rivals.values())).runs[0]
        self.how = aggregation_of(score.task, metric)
        self.clusters, self.samples = clusters_of(first), samples_of(first)
        self.values = {number: [values_of(rows)[metric] for rows in one.runs] for number, one in rivals.items()}
        self.seeds = {number: one.seeds for number, one in rivals.items()}

    def p(self, one: int, other: int) -> float:
        """That two subjects are alike: the greater p of documents (where each was asked once) and of both with seeds.

        Two trainings of whose seeds nobody knows how far they scatter cannot be told apart. One can from what was not
        trained: then it is about this very adapter.
        """
        runs, seeds = (self.values[one], self.values[other]), (self.seeds[one], self.seeds[other])
        if None in seeds and EXACT not in seeds:
            return 1.0
        found = 0.0
        if len(runs[0]) == len(runs[1]) == 1:
            found = _p(paired_difference(runs[0][0], runs[1][0], self.how, self.clusters, self.samples))
            if found >= LEVEL or not any(spread and spread.value for spread in seeds):
                return found
        a, b = ((run, spread or EXACT) for run, spread in zip(runs, seeds, strict=True))
        return max(found, p_apart(a, b, self.how, self.clusters, self.samples))


def _p(found: Difference) -> float:
    """The permutation test's p; where no permutation was as extreme, that of the normal approximation if smaller.

    10,000 permutations end at p = 0.0001, which Holm over more than 500 subjects would never call significant.
    """
    if found.p > 1.5 / (RESAMPLES + 1) or found.error == 0:
        return found.p
    return min(found.p, math.erfc(abs(found.measure.value) / found.error / math.sqrt(2)))
