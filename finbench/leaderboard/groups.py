"""Who is level with whom: tied groups by paired tests, and Pareto fronts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from finbench.cards import LEVEL, aggregation_of
from finbench.core.records import Score
from finbench.scoring import RESAMPLES, Difference, clusters_of, hidden_metrics, holm, paired_difference, values_of

SampleRows = Sequence[dict[str, Any]]


def tied(score: Score, samples: Sequence[SampleRows]) -> list[int | None]:
    """Group of each subject of a test, whose ``samples`` are in the order of their scores, best first.

    Group 1 holds the best and all that a paired permutation test cannot tell from it (5 %, Holm over the group's
    tests); of the rest the best leads the next group, and so on. A subject without samples of these documents
    cannot be tested and has none; nor has anybody where fewer than two can be.
    """
    places: list[int | None] = [None] * len(samples)
    metric, how = score.main_metric, aggregation_of(score.task, score.main_metric)
    docs: list[str] | None = None
    left = []
    for number, rows in enumerate(samples):
        if not rows or metric in hidden_metrics(rows):
            continue
        docs = docs or [row["doc"] for row in rows]
        if [row["doc"] for row in rows] == docs:
            left.append(number)
    if len(left) < 2:
        return places
    clusters = clusters_of(samples[left[0]])
    values = {number: values_of(samples[number])[metric] for number in left}
    group = 0
    while left:
        group += 1
        leader, rest = left[0], left[1:]
        places[leader] = group
        tests = [_p(paired_difference(values[leader], values[other], how, clusters)) for other in rest]
        adjusted = holm(tests)
        for other, p in zip(rest, adjusted, strict=True):
            if p >= LEVEL:
                places[other] = group
        left = [other for other in rest if places[other] is None]
    return places


def _p(found: Difference) -> float:
    """The permutation test's p; where no permutation was as extreme, that of the normal approximation if smaller.

    10,000 permutations end at p = 0.0001, which Holm over more than 500 subjects would never call significant.
    """
    if found.p > 1.5 / (RESAMPLES + 1) or found.error == 0:
        return found.p
    return min(found.p, math.erfc(abs(found.measure.value) / found.error / math.sqrt(2)))


def front(good: Sequence[float], spent: Sequence[float | None], machines: Sequence[str]) -> list[bool]:
    """Whether each subject is on its machine's Pareto front: no other there is as good for less, or better for as much.

    ``good``: more is better; ``spent``: less is better, None where it was not measured.
    """
    on = []
    every = list(zip(good, spent, machines, strict=True))
    for mine, paid, machine in every:
        rivals = [(other, cost) for other, cost, where in every if where == machine and cost is not None]
        beaten = paid is None or any(
            other >= mine and cost <= paid and (other > mine or cost < paid) for other, cost in rivals
        )
        on.append(not beaten)
    return on
