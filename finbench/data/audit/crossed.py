"""Labels of one part of a set against a linear model of the other: names that only that part has swapped."""

from __future__ import annotations

import itertools
import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from finbench.core.errors import counted
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_ROWS = 3500  # of a file, drawn by the hash of their texts, that a model sees
_PARTS = 4  # of a file without a partner, in its order
_CELLS = 16  # of a file: a part that has swapped labels may be any run of them, up to half of the file
_FEWEST = 15  # rows of a label, in both parts
_CLEAR = 4.0  # standard errors
_LABELS = 8
_QUESTIONS = 20  # that all rows share: of more, each has too few rows to be learnt for itself
_WORD = re.compile(r"[^\W\d_]+")
Part = tuple[Sequence[int], Sequence[int]]  # rows that a model learns, rows that it is asked about
Pair = tuple[str, str]
Span = tuple[int, int]
Gains = dict[Pair, tuple[Any, Any, Any]]  # arrays: row, has it the first label, by how much (log) its is likelier


class Row(NamedTuple):
    """A text with what is asked of it, and its one label."""

    n: int
    words: str
    label: str
    ask: str


def swapped(context: AuditContext) -> Iterator[Finding]:
    """A test against its train; a file without one, part by part, against its other parts."""
    for source in context.sources:
        if not 2 <= len(context.labels.get(source.id, {})) <= _LABELS or source.layout.offers:
            continue
        parts: Sequence[Part]
        trains = [other for other in context.sources if _trains(context, other, source)]
        if trains:
            train, test = _rows(context, trains[0]), _rows(context, source)
            parts = [(range(len(train)), range(len(train), len(train) + len(test)))]
            rows = train + test
        elif source.split in (None, "train"):
            rows = _rows(context, source)
            parts = _cut(rows)
        else:
            continue
        yield from _found(context, source, trains[:1], rows, parts)


def _cut(rows: Sequence[Row]) -> Sequence[Part]:
    """A file in quarters, in larger parts where these hold too few rows of two labels; in halves at least."""
    labels = [row.label for row in rows]
    for count in range(_PARTS, 1, -1):
        edges = [len(rows) * n // count for n in range(count + 1)]
        parts = [([*range(low), *range(high, len(rows))], range(low, high)) for low, high in itertools.pairwise(edges)]
        if all(len(_both(labels, *part)) > 1 for part in parts):
            break
    return parts


def _both(labels: Sequence[str], inside: Sequence[int], outside: Sequence[int]) -> list[str]:
    """The labels of which both parts have enough rows."""
    counts = [Counter(labels[n] for n in part) for part in (inside, outside)]
    return sorted(label for label, count in counts[0].items() if min(count, counts[1][label]) >= _FEWEST)


def _trains(context: AuditContext, train: AuditedFile, test: AuditedFile) -> bool:
    of_one = train.family == test.family and train.split == "train" and test.split in ("validation", "test")
    return of_one and context.labels.get(train.id, {}).keys() >= context.labels[test.id].keys()


def _rows(context: AuditContext, source: AuditedFile) -> list[Row]:
    query = (  # what is asked counts where one text is asked about in several ways, and not where wordings vary
        "SELECT min(n), words, gold, CASE WHEN unit IN (row.body, slotted) THEN '' ELSE coalesce(ask.shown, '') END"
        " FROM row JOIN body USING (body) LEFT JOIN ask USING (ask)"
        " WHERE src = ? AND gold IS NOT NULL AND words != '' GROUP BY unit HAVING count(DISTINCT gold) = 1"
        " ORDER BY unit LIMIT ?"
    )
    return sorted(Row(*found) for found in context.query(query, source.id, _ROWS))


def _documents(rows: Sequence[Row]) -> list[str]:
    """What a model sees of each row: where questions are few, each has words of its own; else the question's too."""
    asks = sorted({row.ask for row in rows})
    if len(asks) == 1:
        return [row.words[:2000] for row in rows]
    if len(asks) > _QUESTIONS:
        return [row.words[:2000] + " " + _WORD.sub(r"ask\g<0>", row.ask.casefold()) for row in rows]
    marks = dict(zip(asks, string.ascii_lowercase, strict=False))
    return [_WORD.sub(rf"{marks[row.ask]}\g<0>", row.words[:2000]) + " " + marks[row.ask] for row in rows]


def _found(
    context: AuditContext,
    source: AuditedFile,
    trains: list[AuditedFile],
    rows: Sequence[Row],
    parts: Sequence[Part],
) -> Iterator[Finding]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    labels = [row.label for row in rows]
    parts = [(_apart(rows, *part), part[1]) for part in parts]
    if not any(len(_both(labels, *part)) > 1 for part in parts):
        said = f"Too few rows to look for swapped labels: that takes {_FEWEST} texts with one label, of each of two "
        said += f"labels, in {trains[0].stem} and here." if trains else "labels, in each half of the file."
        yield context.find("few-rows", "note", [*trains[:1], source], (source.rows, source.rows), said)
        return
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=_WORD.pattern)
    try:
        texts = words.fit_transform(_documents(rows))
    except ValueError:  # no word occurs twice
        return
    gains = [_gains(texts, labels, list(inside), list(outside)) for inside, outside in parts]
    spans, compared = [(outside[0], outside[-1] + 1) for _, outside in parts], sum(len(outside) for _, outside in parts)
    wrong: dict[Pair, list[int]] = {}
    taken: list[Span] = []
    for _, span, pair in _contradicted(gains, spans):
        if all(span[1] <= low or high <= span[0] for low, high in taken):
            taken.append(span)
            wrong.setdefault(pair, []).extend(rows[n].n for n in range(*span) if labels[n] in pair)
    for (one, other), numbers in wrong.items():
        where = f"a model of {trains[0].stem} has" if trains else "models of the rest of the file have"
        where = "a model of the other half of the file has" if len(parts) == 2 else where
        said = f"{share(len(numbers), compared)} rows that were compared are labelled {one!r} or {other!r} "
        said += f"the other way round than {where} it: the two labels look swapped there."
        query = f"SELECT n FROM row WHERE n IN ({','.join(map(str, sorted(numbers)[:50]))})"
        yield context.find("label-swap", "error", [*trains, source], (len(numbers), compared), said, (query,))
    unsure: dict[Pair, list[float]] = {}  # how clearly each part's labels stand, where that is not clear
    for span, found in zip(spans, gains, strict=True):
        for pair, (_, first, values) in found.items() if span not in taken else ():
            if (value := _clear(first, values)) < _CLEAR:
                unsure.setdefault(pair, []).append(value)
    dim = {pair: found for pair, found in unsure.items() if pair not in wrong and 2 * len(found) > len(parts)}
    if dim:
        pair, values = min(dim.items(), key=lambda item: max(item[1]))
        most = max(max(values), 0.0)
        needed = compared * (_CLEAR / most) ** 2 if most > 1 else math.inf
        more = f"; about {needed:,.0f} rows like these would" if needed <= _ROWS else ""
        others = f", nor of {counted(len(dim) - 1, 'other pair')}" if len(dim) > 1 else ""
        said = f"Too few rows to tell whether {pair[0]!r} and {pair[1]!r} are swapped{others}: a linear model tells "
        said += f"them apart by {most:.1f} standard errors, and {_CLEAR:g} would show it{more}."
        yield context.find("few-rows", "note", [*trains, source], (source.rows, source.rows), said)


def _apart(rows: Sequence[Row], inside: Sequence[int], outside: Sequence[int]) -> Sequence[int]:
    """The rows inside without those of a text outside: where a text has one label for this question and another for
    that, a model of the one is wrong about the other, and nothing is exchanged."""
    asked = {rows[n].words for n in outside}
    return [n for n in inside if rows[n].words not in asked]


def _gains(texts: Any, labels: list[str], inside: list[int], outside: list[int]) -> Gains:
    """Of each two labels the rows outside that have one of them, by a model of the rows inside."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    told, both = np.array(labels), _both(labels, inside, outside)
    if len(both) < 2:
        return {}
    known, asked = (np.array(part)[np.isin(told[part], both)] for part in (inside, outside))
    model = LogisticRegression(C=4, class_weight="balanced", max_iter=50, tol=1e-3).fit(texts[known], told[known])
    logs = dict(zip(model.classes_, model.predict_log_proba(texts[asked]).T, strict=True))
    found = {}
    for one, other in itertools.combinations(both, 2):
        chosen = np.isin(told[asked], (one, other))
        first, more = (told[asked] == one)[chosen], (logs[one] - logs[other])[chosen]
        found[one, other] = asked[chosen], first, np.where(first, more, -more)
    return found


def _contradicted(gains: Sequence[Gains], parts: Sequence[Span]) -> Iterator[tuple[float, Span, Pair]]:
    """Where two labels fit better exchanged: first the parts themselves, then any other runs, the clearest first.

    Of many runs one is odd by chance: they must be as clear as the best of so many (the tail of a normal distribution
    is about exp(-z^2 / 2)).
    """
    import numpy as np

    low, high = parts[0][0], parts[-1][1]
    edges = [low + (high - low) * n // _CELLS for n in range(_CELLS + 1)]
    runs = [(a, b) for a, b in itertools.combinations(edges, 2) if b - a <= (high - low) / 2 + 1]
    pairs = {pair: [found[pair] for found in gains if pair in found] for pair in set().union(*gains)}
    for spans, least in ((parts, _CLEAR), (runs, math.sqrt(_CLEAR**2 + 2 * math.log(len(runs) * max(len(pairs), 1))))):
        tested = []
        for pair, found in pairs.items():
            numbers, first, values = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
            for span in spans:
                at = slice(*np.searchsorted(numbers, span))
                tested.append((_clear(first[at], values[at]), span, pair))
        yield from sorted(one for one in tested if one[0] <= -least)


def _clear(first: Any, gains: Any) -> float:
    """By how many standard errors rows fit two labels as they stand better than exchanged; 0 for too few rows."""
    sides = [gains[first], gains[~first]]  # each label with one weight: else one that is often guessed decides
    if min(map(len, sides)) < _FEWEST:
        return 0.0
    error = math.sqrt(sum(side.var() / len(side) for side in sides))
    return float(sum(side.mean() for side in sides) / max(error, 1e-9))
