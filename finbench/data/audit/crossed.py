"""Labels of one part of a set against a linear model of the other: names that only that part has swapped."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from finbench.core.errors import counted
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_ROWS = 6000  # of a file, spread over it, that a model sees
_PARTS = 4  # of a file without a partner, in its order
_FEWEST = 15  # rows of a label, in both parts
_CLEAR = 4.0  # standard errors
_LABELS = 8
Rows = list[tuple[int, str, str]]  # number, words, label
Part = tuple[Sequence[int], Sequence[int]]  # rows that a model learns, rows that it is asked about


def swapped(context: AuditContext) -> Iterator[Finding]:
    """A test against its train; a file without one, part by part, against its other parts."""
    for source in context.sources:
        if not 2 <= len(context.labels.get(source.id, {})) <= _LABELS or source.id in context.by_question:
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


def _cut(rows: Rows) -> Sequence[Part]:
    """A file in quarters, in larger parts where these hold too few rows of two labels; in halves at least."""
    labels = [label for *_, label in rows]
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


def _rows(context: AuditContext, source: AuditedFile) -> Rows:
    query = (
        "SELECT min(n), words, gold FROM row JOIN body USING (body) WHERE src = ? AND gold IS NOT NULL AND words != ''"
        " GROUP BY body HAVING count(DISTINCT gold) = 1 ORDER BY 1"
    )
    found = context.query(query, source.id).fetchall()
    return found[:: max(1, math.ceil(len(found) / _ROWS))]


def _found(
    context: AuditContext,
    source: AuditedFile,
    trains: list[AuditedFile],
    rows: Rows,
    parts: Sequence[Part],
) -> Iterator[Finding]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    labels = [label for *_, label in rows]
    if not any(len(_both(labels, *part)) > 1 for part in parts):
        said = f"Too few rows to look for swapped labels: that takes {_FEWEST} of each of two labels in "
        said += f"{trains[0].stem} and here." if trains else "each half of the file."
        yield context.find("few-rows", "note", [*trains[:1], source], (source.rows, source.rows), said)
        return
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"[^\W\d_]+")
    try:
        texts = words.fit_transform([text[:2000] for _, text, _ in rows])
    except ValueError:  # no word occurs twice
        return
    wrong: dict[tuple[str, str], list[int]] = {}
    unsure: dict[tuple[str, str], list[float]] = {}  # how clearly each part's labels stand, where that is not clear
    for inside, outside in parts:
        clear = _clearness(texts, labels, list(inside), list(outside))
        worst = min(clear, key=clear.__getitem__, default=None)
        if worst and clear[worst] <= -_CLEAR:
            wrong.setdefault(worst, []).extend(rows[n][0] for n in outside if rows[n][2] in worst)
            continue
        for pair, value in clear.items():
            if value < _CLEAR:
                unsure.setdefault(pair, []).append(value)
    for (one, other), numbers in wrong.items():
        where = f"a model of {trains[0].stem}" if trains else "models of the rest of the file"
        where = "a model of the other half of the file" if len(parts) == 2 else where
        said = (
            f"{share(len(numbers), len(rows) if not trains else source.rows)} rows are labelled {one!r} or {other!r} "
        )
        said += f"the other way round than {where} has it: the two labels look swapped there."
        query = f"SELECT n FROM row WHERE n IN ({','.join(map(str, numbers[:50]))})"
        yield context.find("label-swap", "error", [*trains, source], (len(numbers), source.rows), said, (query,))
    dim = {pair: found for pair, found in unsure.items() if pair not in wrong and 2 * len(found) > len(parts)}
    if dim:
        pair, found = min(dim.items(), key=lambda item: max(item[1]))
        most = max(max(found), 0.0)
        more = f"; about {source.rows * (_CLEAR / most) ** 2:,.0f} rows like these would" if most > 1 else ""
        others = f", nor of {counted(len(dim) - 1, 'other pair')}" if len(dim) > 1 else ""
        said = f"Too few rows to tell whether {pair[0]!r} and {pair[1]!r} are swapped{others}: a linear model tells "
        said += f"them apart by {most:.1f} standard errors, and {_CLEAR:g} would show it{more}."
        yield context.find("few-rows", "note", [*trains, source], (source.rows, source.rows), said)


def _clearness(texts: Any, labels: list[str], inside: list[int], outside: list[int]) -> dict[tuple[str, str], float]:
    """By how many standard errors the rows outside fit two labels as they stand better than exchanged."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    told, both = np.array(labels), _both(labels, inside, outside)
    if len(both) < 2:
        return {}
    known, asked = (np.array(part)[np.isin(told[part], both)] for part in (inside, outside))
    model = LogisticRegression(C=4, class_weight="balanced", max_iter=50, tol=1e-3).fit(texts[known], told[known])
    logs = model.predict_log_proba(texts[asked])
    places = {label: n for n, label in enumerate(model.classes_)}
    clear = {}
    for one, other in itertools.combinations(both, 2):
        gains = []
        for label, against in ((one, other), (other, one)):
            at = logs[told[asked] == label]
            gains.append(at[:, places[label]] - at[:, places[against]])
        # each label with one weight: else one that is often guessed decides
        mean = sum(gain.mean() for gain in gains)
        error = math.sqrt(sum(gain.var() / len(gain) for gain in gains))
        clear[one, other] = float(mean / max(error, 1e-9))
    return clear
