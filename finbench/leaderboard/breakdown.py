"""One number taken apart: which labels are confused, which types, questions or tags are found, from the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finbench.core import catalog
from finbench.core.records import Score
from finbench.scoring import LENIENT, hidden_metrics, values_of
from finbench.scoring.metrics import BY_LABEL, aggregations

Values = Sequence[Any]
_LONGEST = 12  # lines of a list of tags, or labels of a confusion matrix


def of(score: Score, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The breakdown of a score from its sample rows; None where there is none to be made.

    ``kind`` says which: ``confusion`` (gold label by reading, the last column unparsed), ``types`` (entities),
    ``questions``, ``tags`` (the commonest), ``numbers`` (errors of a predicted number) or ``outcomes`` (right,
    wrong, unparsed).
    """
    if not rows or score.main_metric in hidden_metrics(rows):
        return None
    values = values_of(rows)
    how = {name: found.__name__ for name, found in aggregations(score.task).items() if name in values}
    by_label = next((name for name in how if how[name] in BY_LABEL and not name.endswith(LENIENT)), None)
    if by_label and len(values[by_label][0][2]) <= _LONGEST:
        return _confusion(values[by_label])
    if "span_macro_f1" in values:
        return _types(values["span_macro_f1"], catalog.tasks()[score.task].labels or [])
    if "question_f1" in values:
        return _questions(values["question_f1"])
    if how.get(score.main_metric) == "r2":
        return _numbers(values[score.main_metric])
    if any(isinstance(value, list | tuple) and len(value) == 2 for value in values.get("macro_f1", [])):
        return _tags(values["macro_f1"])
    return _outcomes(values)


def _confusion(items: Values) -> dict[str, Any]:
    labels = list(items[0][2])
    counts = np.zeros((len(labels), len(labels) + 1), dtype=int)
    for gold, read, _ in items:
        counts[labels.index(gold), len(labels) if read is None else labels.index(read)] += 1
    return {"kind": "confusion", "labels": [str(label) for label in labels], "counts": counts.tolist()}


def _f1(hits: float, false: float, missed: float) -> float | None:
    whole = 2 * hits + false + missed
    return round(2 * hits / whole, 4) if whole else None


def _types(items: Values, names: Sequence[str]) -> dict[str, Any]:
    sums = np.asarray(items, dtype=np.int64).sum(axis=0)
    rows = [[str(name), *map(int, own), _f1(*own)] for name, own in zip(names, sums, strict=True)]
    return {"kind": "types", "rows": rows}


def _questions(items: Values) -> dict[str, Any]:
    rows = []
    for question in dict.fromkeys(item[0] for item in items):
        own = [(gold, read) for asked, gold, read in items if asked == question]
        hits = sum(gold == read == "Yes" for gold, read in own)
        false = sum(read == "Yes" != gold for gold, read in own)
        missed = sum(gold == "Yes" != read for gold, read in own)
        rows.append([str(question), hits, false, missed, _f1(hits, false, missed)])
    return {"kind": "questions", "rows": rows}


def _tags(items: Values) -> dict[str, Any]:
    """The commonest gold tags: how many, how many found, and what was said most often instead."""
    golds = Counter(str(gold) for gold, _ in items)
    rows = []
    for tag, count in golds.most_common(_LONGEST):
        said = Counter("unparsed" if read is None else str(read) for gold, read in items if str(gold) == tag)
        wrong = next((other for other, _ in said.most_common() if other != tag), "")
        rows.append([tag, count, said[tag], wrong])
    return {"kind": "tags", "rows": rows, "of": len(golds)}


def _numbers(items: Values) -> dict[str, Any]:
    parsed = [abs(float(gold) - float(read)) for gold, read in items if read is not None]
    return {
        "kind": "numbers",
        "unparsed": len(items) - len(parsed),
        "quartiles": [round(float(part), 4) for part in np.quantile(parsed, [0.25, 0.5, 0.75])] if parsed else [],
    }


def _outcomes(values: dict[str, list[Any]]) -> dict[str, Any] | None:
    right = values.get("acc", values.get("acc_norm"))
    if right is None or any(value not in (0, 1) for value in right):
        return None
    parsed = values.get("parse_rate", [1.0] * len(right))
    hits, heard = int(sum(right)), int(sum(parsed))
    return {"kind": "outcomes", "right": hits, "wrong": max(0, heard - hits), "unparsed": len(right) - heard}
