"""Which documents are asked again, and with what probability a forged card passes.

A forger replaces wrong answers by right ones, or makes a rival look bad by the reverse. So documents are drawn apart
from those that the card counts right, wrong and unparsed: in proportion, but at least half of them are claimed to be
right, where there are so many.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Score, Scorecard
from finbench.core.seal import salted
from finbench.scoring import metrics

STRATA = ("right", "wrong", "unparsed")
TOLERATED = 0.02  # share of readings that may differ in half precision or on other versions
FALSE, ESCAPE = 0.05, 0.05  # by default so many are asked that this share of false rows passes less often than that
AUTO = "auto"
_STEPS = 20  # of the share of the false rows that a forger puts into one stratum
_LEAST = 160  # documents where 2 % may differ: three of them
_SAME = 1e-9


def wanted(count: int | str) -> int | None:
    """Documents of each task to ask again; None: as many as it takes. FinbenchError for what is no count."""
    if count == AUTO:
        return None
    try:
        number = int(count)
    except ValueError:
        number = -1
    if number < 0 or isinstance(count, bool):
        raise FinbenchError(f"--rerun counts from 0, got {count}.", "--rerun auto asks as many as it takes.")
    return number


def new_seed() -> int:
    """A seed that nobody can know before."""
    return secrets.randbits(63)


def strata(score: Score, rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Indices of the documents that a card counts right, wrong and unparsed.

    Right is what earns something, or may: a document counts as wrong only where its own values say so. Of several
    samples the best one counts.
    """
    how = metrics.known_as(metrics.aggregations(score.task)[score.main_metric])
    lower = score.main_metric in metrics.lower_is_better(score.task)
    best: dict[int, int] = {}

    def of(row: Mapping[str, Any]) -> int:
        values = row["values"]
        return 2 if values.get("parse_rate", 1) == 0 else int(_wrong(how, lower, values[score.main_metric]))

    for row in rows:
        claim = cardfiles.of_row(row, ("claim", score.task, score.main_metric), of)
        best[row["index"]] = min(claim, best.get(row["index"], claim))
    return [sorted(index for index, claim in best.items() if claim == which) for which in range(len(STRATA))]


def _wrong(how: str, lower: bool, value: Any) -> bool:
    """A row's value of its main metric earns nothing."""
    match value:
        case bool() | int() | float():
            return how == "mean" and not lower and value == 0
        case [gold, said, [*_]] if how in metrics.BY_LABEL:
            return bool(gold != said)
        case [_, gold, said] if how.startswith("question_f1"):
            return bool(gold != said)
        case [[*_], *_] if how in ("span_f1", "span_macro_f1"):
            return _empty(np.asarray(value).sum(axis=0))
        case [_, _, _] if how in ("span_f1", "span_macro_f1"):
            return _empty(value)
        case [str() as gold, said]:  # a tag
            return bool(gold != said)
    return False


def _empty(counts: Any) -> bool:
    """Something was to be found or was said, and nothing of it is right."""
    hits, false, missed = counts
    return bool(hits == 0 and false + missed > 0)


def allocated(sizes: Sequence[int], count: int) -> list[int]:
    """How many of ``count`` documents are drawn from strata of these sizes: right, then the others."""
    count = min(count, sum(sizes))
    others = [size for size in sizes[1:] if size]
    right = max(-(-count * sizes[0] // max(1, sum(sizes))), -(-count // 2))
    right = min(right, sizes[0], max(count - len(others), 1))
    right = max(right, count - sum(others))
    left, (wrong, unparsed) = count - right, sizes[1:]
    own = max(round(left * wrong / max(1, wrong + unparsed)), left - unparsed, min(1, wrong, left))
    own = min(own, wrong, left - min(1, unparsed) if left > 1 else left)
    return [right, own, left - own]


def draw(card: Scorecard, score: Score, groups: Sequence[Sequence[int]], count: int, seed: int) -> list[list[int]]:
    """The documents of each stratum that are asked again.

    They follow from the seed and from the whole card, by its seal, so that no two cards are asked the same ones.
    """
    mixed = digest([seed, score.task, card.seal])
    numbers = allocated([len(group) for group in groups], count)
    drawn = [
        sorted(group, key=lambda row: salted(f"{mixed} {row}"))[:number]
        for group, number in zip(groups, numbers, strict=True)
    ]
    return [sorted(rows) for rows in drawn]


def estimated(sizes: Sequence[int], drawn: Sequence[int], moved: Sequence[int]) -> float:
    """Share of all documents that read differently, from those drawn of each stratum that did."""
    parts = [size * moves / asked for size, asked, moves in zip(sizes, drawn, moved, strict=True) if asked]
    return sum(parts) / sum(sizes)


def escape(sizes: Sequence[int], drawn: Sequence[int], false: float = FALSE, tolerated: float = 0.0) -> float:
    """Probability that a card passes of which the share ``false`` of all rows is false, wherever its forger put them.

    Exact: hypergeometric in each stratum; the greatest over how the false rows lie in the strata, all ways of up to
    twenty rows, beyond that in steps of a twentieth. A false row that is asked reads differently; the card passes
    where ``estimated`` is at most ``tolerated``.
    """
    from scipy.stats import hypergeom

    n = sum(sizes)
    places = np.array(_placements(sizes, math.ceil(false * n - _SAME)))
    tables, spent = [], []
    for number, (size, asked) in enumerate(zip(sizes, drawn, strict=True)):
        weight = size / asked if asked else 0.0
        moved = np.arange(1 + (min(asked, int(tolerated * n / weight + _SAME)) if weight else 0))
        exact = hypergeom.pmf(moved[None, :], size, places[:, number, None], asked) if asked else None
        tables.append(np.ones((len(places), 1)) if exact is None else exact)
        spent.append(weight * moved)
    passes = np.add.outer(np.add.outer(spent[0], spent[1]), spent[2]) <= tolerated * n + _SAME
    return float(np.einsum("ti,tj,tk,ijk->t", *tables, passes.astype(float), optimize=True).max())


def _placements(sizes: Sequence[int], count: int) -> list[tuple[int, int, int]]:
    """Ways to put ``count`` false rows into three strata, none into more than there are."""
    steps = {count * step // _STEPS for step in range(_STEPS + 1)}
    found = set()
    for right in {*steps, min(sizes[0], count)}:
        rest = count - right
        for wrong in {*steps, min(sizes[1], rest), max(0, rest - sizes[2])}:
            found.add((right, wrong, rest - wrong))
    return sorted(one for one in found if all(0 <= own <= size for own, size in zip(one, sizes, strict=True)))


def needed(sizes: Sequence[int], tolerated: float = 0.0) -> int:
    """So many documents that a card with the share ``FALSE`` of false rows passes less often than ``ESCAPE``.

    Where some may differ at least 160, so that an honest card passes of which one reading in a hundred moves.
    """
    low, high = 0, sum(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        if escape(sizes, allocated(sizes, middle), FALSE, tolerated) < ESCAPE:
            high = middle
        else:
            low = middle
    count = max(high, min(sum(sizes), _LEAST)) if tolerated else high
    while escape(sizes, allocated(sizes, count), FALSE, tolerated) >= ESCAPE and count < sum(sizes):
        count += 1  # one document more may be one more that may differ
    return count
