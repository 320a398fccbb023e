"""From per-document values of lm-eval metrics to a Score with intervals and baselines.

A task's metrics follow one rule: ``<metric>`` is strict, ``<metric>_lenient`` the same under lenient parsing,
``parse_rate`` the share of answers that parsed strictly. The point value is what lm-eval's own aggregation
gives; the interval comes from resampling documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finbench import stats
from finbench.records import Measure

LENIENT = "_lenient"


def measure(values: Sequence[Any], aggregation: Callable[[Sequence[Any]], float]) -> Measure:
    """The aggregated value of a metric with its 95 % interval over documents.

    ``values`` holds one value a document: a number for ``mean``, else what the named aggregation of
    ``tasks/lib`` takes.
    """
    how = _INTERVALS.get(aggregation.__name__, _mean)
    found = how(values)
    stated = float(aggregation(list(values)))
    if abs(found.value - stated) > 1e-9:
        raise AssertionError(f"{aggregation.__name__}: lm-eval gives {stated}, the interval's statistic {found.value}")
    return found


def _mean(values: Sequence[float]) -> Measure:
    numbers = np.asarray(values, dtype=np.float64)
    if np.isin(numbers, (0.0, 1.0)).all():
        return stats.wilson(int(numbers.sum()), len(numbers))
    parts = np.stack([numbers, np.ones_like(numbers)], axis=1)
    return stats.bootstrap_sums(parts, lambda sums: sums[..., 0] / sums[..., 1])


def _table(values: Sequence[tuple[str, str | None, Sequence[str]]]) -> stats.Counts:
    """Confusion counts of (gold, predicted or None, labels) items."""
    labels = list(values[0][2])
    gold = np.array([labels.index(item[0]) for item in values])
    predicted = np.array([len(labels) if item[1] is None else labels.index(item[1]) for item in values])
    return stats.confusion(gold, predicted, len(labels))


def _macro_f1(values: Sequence[tuple[str, str | None, Sequence[str]]]) -> Measure:
    return stats.bootstrap_table(_table(values), stats.macro_f1)


def _span_f1(values: Sequence[tuple[int, int, int]]) -> Measure:
    def f1(sums: stats.Counts) -> stats.Counts:
        sizes = 2 * sums[..., 0] + sums[..., 1] + sums[..., 2]
        return stats.ratio(2 * sums[..., 0], sizes)

    return stats.bootstrap_sums(np.asarray(values, dtype=np.float64), f1)


def _question_parts(values: Sequence[tuple[str, str, str | None]]) -> NDArray[np.float64]:
    """Shape (documents, 3 x questions): hits, sizes and presence of each question."""
    questions = list(dict.fromkeys(item[0] for item in values))
    parts = np.zeros((len(values), 3 * len(questions)))
    for row, (question, gold, predicted) in enumerate(values):
        column = 3 * questions.index(question)
        sizes = (gold == "Yes") + (predicted == "Yes")
        parts[row, column : column + 3] = (gold == predicted == "Yes", sizes, 1)
    return parts


def _question_f1(values: Sequence[tuple[str, str, str | None]]) -> Measure:
    def mean_f1(sums: stats.Counts) -> stats.Counts:
        hits, sizes, present = (sums[..., start::3] for start in range(3))
        asked = present > 0  # a resample can miss a rare question; lm-eval's mean is over those that occur
        return stats.ratio(stats.ratio(2 * hits, sizes).sum(axis=-1), asked.sum(axis=-1))

    return stats.bootstrap_sums(_question_parts(values), mean_f1)


_INTERVALS: dict[str, Callable[[Any], Measure]] = {
    "mean": _mean,
    "macro_f1": _macro_f1,
    "span_f1": _span_f1,
    "question_f1": _question_f1,
}


def split_metrics(
    values: dict[str, list[Any]], aggregation: dict[str, Callable[[Sequence[Any]], float]]
) -> tuple[dict[str, Measure], dict[str, Measure], Measure]:
    """(strict metrics, lenient metrics, parse rate) of per-document values by metric name."""
    measures = {name: measure(items, aggregation[name]) for name, items in values.items()}
    parse_rate = measures.pop("parse_rate", None) or Measure(value=1.0, low=1.0, high=1.0)  # choices always parse
    strict = {name: found for name, found in measures.items() if not name.endswith(LENIENT)}
    lenient = {name.removesuffix(LENIENT): found for name, found in measures.items() if name.endswith(LENIENT)}
    return strict, lenient, parse_rate


def baselines(exam: Any, docs: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, float]]:
    """What needs no model, on these very rows: ``random`` labels (mean of 100 seeded draws), ``majority`` label.

    Only for tasks with a label a row; others have none.
    """
    if not docs or "label" not in docs[0] or "choices" not in docs[0]:
        return {}
    labels = docs[0]["choices"]
    golds = [doc["label"] for doc in docs]
    majority = max(labels, key=golds.count)
    rng = np.random.default_rng(seed)
    draws = [
        _guess(exam, docs, [labels[index] for index in rng.integers(len(labels), size=len(docs))]) for _ in range(100)
    ]
    return {
        "random": {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]},
        "majority": _guess(exam, docs, [majority] * len(docs)),
    }


def _guess(exam: Any, docs: Sequence[dict[str, Any]], guesses: Sequence[str]) -> dict[str, float]:
    """Strict metrics of the task for given labels, by its own scorer."""
    per_doc = []
    for doc, guess in zip(docs, guesses, strict=True):
        answers = (
            [guess] if exam.OUTPUT_TYPE == "generate_until" else [(float(c == guess), True) for c in doc["choices"]]
        )
        per_doc.append(exam.process_results(doc, answers))
    aggregation = exam.aggregation()
    return {
        name: float(aggregation[name]([values[name] for values in per_doc]))
        for name in per_doc[0]
        if not name.endswith(LENIENT) and name != "parse_rate"
    }
