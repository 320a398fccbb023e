"""What the subjects of a board are called, and its recipes with several trainings: no two alike to a reader's eye."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from finbench.leaderboard.precedence import spoken
from finbench.leaderboard.rows import BoardCard
from finbench.leaderboard.trainings import recipe_of


def named(found: Sequence[BoardCard]) -> list[BoardCard]:
    """The cards with the names of their subjects, and of recipes by the second of their seeds.

    Who came first keeps a name, also one with somebody's owner in it. Who comes later gets owner or part of a digest
    behind it; so do those of one name of which nobody knows when they came.
    """
    cards = list(zip(found, map(recipe_of, found), strict=True))
    claims: dict[Any, tuple[float, str, list[str]]] = {}  # when who wants what name, with what behind it if need be
    seeds: dict[str, set[int | None]] = {}
    for entry, recipe in sorted(cards, key=lambda one: (one[0].arrival, one[0].owner_spoken, one[0].identity)):
        behind = [*filter(None, [entry.owner]), entry.identity[:6]]
        claims.setdefault(_subject(entry), (entry.arrival, entry.card.subject.name, behind))
        if recipe is not None:
            seeds.setdefault(recipe[0], set()).add(entry.card.subject.seed)
            if len(seeds[recipe[0]]) > 1:
                claims.setdefault(recipe[0], (entry.arrival, recipe[1], [recipe[0][:6]]))
    wanted = Counter(spoken(name) for _, name, _ in claims.values())
    taken, given = {""}, {}
    for who, (arrival, name, behind) in claims.items():
        tries = [name, *(f"{name} ({', '.join(behind[:count])})" for count in range(1, len(behind) + 1))]
        first = len(tries) - 1 if arrival == math.inf and wanted[spoken(name)] > 1 else 0
        more = (f"{name} ({', '.join(behind)}, {number})" for number in itertools.count(2))
        given[who] = next(one for one in itertools.chain(tries[first:], more) if spoken(one) not in taken)
        taken.add(spoken(given[who]))
    return [
        replace(entry, shown=given[_subject(entry)])
        if recipe is None or recipe[0] not in given
        else replace(entry, shown=given[_subject(entry)], recipe=recipe[0], recipe_name=given[recipe[0]])
        for entry, recipe in cards
    ]


def _subject(entry: BoardCard) -> tuple[str, str, str]:
    return spoken(entry.card.subject.name), entry.owner_spoken, entry.identity
