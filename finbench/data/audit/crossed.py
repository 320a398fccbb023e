"""Labels of one part of a set against a linear model of the other: names that only that part has swapped."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_ROWS = 6000  # of a file, spread over it, that a model sees
_PARTS = 4  # of a file without a partner, in its order
_FEWEST = 30  # rows of a label, in both parts
_CLEAR = 4.0  # standard errors
_LABELS = 8
Rows = list[tuple[int, str, str]]  # number, words, label
Part = tuple[Sequence[int], Sequence[int]]  # rows that a model learns, rows that it is asked about


def swapped(context: AuditContext) -> Iterator[Finding]:
    """A test against its train; a file without one, part by part, against its other parts."""
    for source in context.sources:
        if not 2 <= len(context.labels.get(source.id, {})) <= _LABELS or source.id in context.by_question:
            continue
        parts: list[Part]
        trains = [other for other in context.sources if _trains(context, other, source)]
        if trains:
            train, test = _rows(context, trains[0]), _rows(context, source)
            parts = [(range(len(train)), range(len(train), len(train) + len(test)))]
            rows = train + test
        elif source.split in (None, "train"):
            rows = _rows(context, source)
            edges = [len(rows) * n // _PARTS for n in range(_PARTS + 1)]
            parts = [
                ([*range(low), *range(high, len(rows))], range(low, high)) for low, high in itertools.pairwise(edges)
            ]
        else:
            continue
        yield from _found(context, source, trains[:1], rows, parts)


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

    if min(len(parts[0][0]), len(parts[0][1])) < 2 * _FEWEST:
        return
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"[^\W\d_]+")
    try:
        texts = words.fit_transform([text[:2000] for _, text, _ in rows])
    except ValueError:  # no word occurs twice
        return
    wrong: dict[tuple[str, str], list[int]] = {}
    for inside, outside in parts:
        if pair := _pair(texts, [label for *_, label in rows], list(inside), list(outside)):
            wrong.setdefault(pair, []).extend(rows[n][0] for n in outside if rows[n][2] in pair)
    for (one, other), numbers in wrong.items():
        where = f"a model of {trains[0].stem}" if trains else "models of the rest of the file"
        said = (
            f"{share(len(numbers), len(rows) if not trains else source.rows)} rows are labelled {one!r} or {other!r} "
        )
        said += f"the other way round than {where} has it: the two labels look swapped there."
        query = f"SELECT n FROM row WHERE n IN ({','.join(map(str, numbers[:50]))})"
        yield context.find("label-swap", "error", [*trains, source], (len(numbers), source.rows), said, (query,))


def _pair(texts: Any, labels: list[str], inside: list[int], outside: list[int]) -> tuple[str, str] | None:
    """The two labels whose exchange fits the rows outside better, by _CLEAR standard errors; None if there are none."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    told = np.array(labels)
    both = [
        label
        for label in sorted(set(labels))
        if min((told[inside] == label).sum(), (told[outside] == label).sum()) >= _FEWEST
    ]
    if len(both) < 2:
        return None
    known, asked = (np.array(part)[np.isin(told[part], both)] for part in (inside, outside))
    model = LogisticRegression(C=4, class_weight="balanced", max_iter=50, tol=1e-3).fit(texts[known], told[known])
    logs = model.predict_log_proba(texts[asked])
    places = {label: n for n, label in enumerate(model.classes_)}
    worst: tuple[float, tuple[str, str] | None] = (-_CLEAR, None)
    for one, other in itertools.combinations(both, 2):
        gains = []
        for label, against in ((one, other), (other, one)):
            at = logs[told[asked] == label]
            gains.append(at[:, places[label]] - at[:, places[against]])
        # each label with one weight: else one that is often guessed decides
        mean = sum(gain.mean() for gain in gains)
        error = math.sqrt(sum(gain.var() / len(gain) for gain in gains))
        worst = min(worst, (mean / max(error, 1e-9), (one, other)), key=lambda found: found[0])
    return worst[1]
