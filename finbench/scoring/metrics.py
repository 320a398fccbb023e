"""Metrics as sums over documents, so that resampling them is arithmetic; and the aggregations of the tasks.

``summed`` knows the aggregations of ``tasks/lib`` that are functions of such sums. Any other aggregation is
resampled by calling it on resampled items (``finbench.scoring``), which is slower and done with fewer resamples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.core import catalog, owntasks, paths, taskcode
from finbench.scoring import foreign, stats
from finbench.scoring.stats import Counts, Statistic

Aggregation = Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Summed:
    """``statistic`` of the sums of ``parts`` (documents, k); ``share``: its values lie between 0 and 1."""

    parts: Counts
    statistic: Statistic
    share: bool = True


def summed(aggregation: str, values: Sequence[Any]) -> Summed | None:
    """One value a document, as the named aggregation takes them, as sums; None for an aggregation not known here."""
    make = _SUMMED.get(aggregation)
    return make(values) if make else None


def averaged(metric: Summed | None, samples: int) -> Summed | None:
    """The mean over ``samples`` of a metric whose rows are documents, the samples of each one after another."""
    if metric is None or samples == 1:
        return metric
    count, statistic = metric.parts.shape[1], metric.statistic

    def mean(sums: Counts) -> Counts:
        by_sample = sums.reshape(*sums.shape[:-1], samples, count)
        return np.asarray(np.asarray(statistic(by_sample)).mean(axis=-1))

    return Summed(metric.parts.reshape(-1, samples * count), mean, metric.share)


def _mean(values: Sequence[float]) -> Summed:
    numbers = np.asarray(values, dtype=np.float64)
    share = bool(((numbers >= 0) & (numbers <= 1)).all())
    return Summed(np.stack([numbers, np.ones_like(numbers)], axis=1), lambda s: s[..., 0] / s[..., 1], share)


def _by_label(values: Sequence[Any], statistic: Callable[..., Counts], share: bool = True) -> Summed:
    """``statistic`` of counts by label, shape (..., L) each: hits, gold, and predicted, which has the unparsed last."""
    labels = list(values[0][2])
    place = {label: number for number, label in enumerate(labels)}
    count = len(labels)
    parts = np.zeros((len(values), 3 * count + 1))
    rows = np.arange(len(values))
    gold = np.array([place[item[0]] for item in values])
    predicted = np.array([count if item[1] is None else place[item[1]] for item in values])
    parts[rows, count + gold] = 1
    parts[rows, 2 * count + predicted] = 1
    hit = gold == predicted
    parts[rows[hit], gold[hit]] = 1
    return Summed(parts, lambda sums: statistic(*np.split(sums, [count, 2 * count], axis=-1)), share)


def _f1(hits: Counts, gold: Counts, predicted: Counts) -> Counts:
    """Of each label; 0 for one that is neither gold nor predicted."""
    return stats.ratio(2 * hits, gold + predicted[..., :-1])


def _weighted_f1(hits: Counts, gold: Counts, predicted: Counts) -> Counts:
    """F1 of the labels, weighted by how often each is gold."""
    return stats.ratio((_f1(hits, gold, predicted) * gold).sum(axis=-1), gold.sum(axis=-1))


def _mcc(hits: Counts, gold: Counts, predicted: Counts) -> Counts:
    """Multi-class Matthews correlation (Gorodkin 2004); unparsed answers are a predicted class of their own."""
    n = gold.sum(axis=-1)
    together = hits.sum(axis=-1) * n - (gold * predicted[..., :-1]).sum(axis=-1)
    spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (gold**2).sum(axis=-1))
    return stats.ratio(together, np.sqrt(np.maximum(spread, 0)))


def _by_question(values: Sequence[Any], columns: Callable[..., Sequence[float]]) -> Counts:
    """``columns`` of (gold, predicted) in those of the item's question, shape (items, k, questions) made flat."""
    place = {question: number for number, question in enumerate(dict.fromkeys(item[0] for item in values))}
    made = [columns(gold, predicted) for _, gold, predicted in values]
    parts = np.zeros((len(values), len(made[0]), len(place)))
    for row, (item, own) in enumerate(zip(values, made, strict=True)):
        parts[row, :, place[item[0]]] = own
    return parts.reshape(len(values), -1)


def _question_f1(values: Sequence[Any], least: int = 0) -> Summed:
    """Mean over questions of the F1 of "Yes", those with fewer than ``least`` positives as one of them.

    Items are (question, gold, predicted or None).
    """
    parts = _by_question(
        values,
        lambda gold, said: (gold == said == "Yes", (gold == "Yes") + (said == "Yes"), gold == "Yes", gold == said, 1),
    )

    def statistic(sums: Counts) -> Counts:
        hits, sizes, positives, right, n = np.split(sums, 5, axis=-1)
        frequent = (positives >= least) & (n > 0)  # in this resample, which can miss a rare question
        own = (stats.ratio(2 * hits, sizes) * frequent).sum(axis=-1)
        pooled = [np.where(frequent, 0, column).sum(axis=-1) for column in (hits, sizes, positives)]
        asked = frequent.sum(axis=-1) + (pooled[2] > 0)
        mean = stats.ratio(own + np.where(pooled[2] > 0, stats.ratio(2 * pooled[0], pooled[1]), 0), asked)
        return np.where(asked > 0, mean, right.sum(axis=-1) / n.sum(axis=-1))

    return Summed(parts, statistic)


def _question_mcc(values: Sequence[Any]) -> Summed:
    """Matthews correlation within questions; items as for ``_question_f1``."""
    parts = _by_question(
        values,
        lambda gold, said: (
            gold == said,
            *(gold == one for one in ("Yes", "No")),
            *(said == one for one in ("Yes", "No", None)),
        ),
    )

    def statistic(sums: Counts) -> Counts:
        right, *counts = np.split(sums, 6, axis=-1)
        gold, said = np.stack(counts[:2]), np.stack(counts[2:])
        n = gold.sum(axis=0)
        covariance = right - stats.ratio((gold * said[:2]).sum(axis=0), n)
        spreads = [(n - stats.ratio((side**2).sum(axis=0), n)).sum(axis=-1) for side in (gold, said)]
        return stats.ratio(covariance.sum(axis=-1), np.sqrt(np.maximum(spreads[0] * spreads[1], 0)))

    return Summed(parts, statistic, share=False)


def _chosen_mean(values: Sequence[tuple[float, float]]) -> Summed:
    """Mean of the values of the chosen documents; items are (1 or 0, value)."""
    found = np.asarray(values, dtype=np.float64)
    parts = np.stack([found[:, 0] * found[:, 1], found[:, 0]], axis=1)
    return Summed(parts, lambda sums: stats.ratio(sums[..., 0], sums[..., 1]))


def _span_f1(values: Sequence[Any]) -> Summed:
    """F1 of (true positives, false positives, false negatives); of one such triple a type, the mean over types."""
    parts = np.asarray(values, dtype=np.float64)
    return Summed(
        parts.reshape(len(parts), -1),
        lambda s: np.asarray(stats.ratio(2 * s[..., ::3], 2 * s[..., ::3] + s[..., 1::3] + s[..., 2::3]).mean(axis=-1)),
    )


def _errors(values: Sequence[Any]) -> Counts:
    """Columns: squared error, gold, squared gold, one. An unparsed answer errs by more than any (|gold| + 1)."""
    gold = np.array([item[0] for item in values], dtype=np.float64)
    error = np.array([abs(g) + 1 if p is None else g - p for g, p in values], dtype=np.float64)
    return np.stack([error**2, gold, gold**2, np.ones_like(gold)], axis=1)


def _r2(sums: Counts) -> Counts:
    """Coefficient of determination; golds that are all one number give 1 for no error, else 0."""
    error, gold, squared, n = (sums[..., column] for column in range(4))
    spread = squared - gold**2 / n
    flat = spread <= 1e-12 * squared
    explained = 1 - stats.ratio(error, np.where(flat, 0, spread))
    return np.where(flat, (error == 0).astype(np.float64), explained)


_SUMMED: dict[str, Callable[[Sequence[Any]], Summed]] = {
    "mean": _mean,
    "chosen_mean": _chosen_mean,
    "macro_f1": lambda values: _by_label(values, lambda *sums: np.asarray(_f1(*sums).mean(axis=-1))),
    "weighted_f1": lambda values: _by_label(values, _weighted_f1),
    "mcc": lambda values: _by_label(values, _mcc, share=False),
    "span_f1": _span_f1,
    "span_macro_f1": _span_f1,
    "question_f1": _question_f1,
    "question_f1_pooled": lambda values: _question_f1(values, paths.helper("questions").LEAST),
    "question_mcc": _question_mcc,
    "mse": lambda values: Summed(_errors(values), lambda sums: sums[..., 0] / sums[..., 3], share=False),
    "r2": lambda values: Summed(_errors(values), _r2, share=False),
}
BY_LABEL = ("macro_f1", "weighted_f1", "mcc")  # aggregations of (gold, predicted or None, labels)
BY_QUESTION = ("question_f1", "question_f1_pooled", "question_mcc")  # of (question, gold, predicted or None)
# aggregation -> at which place of its items the right answer stands
_GOLD = {
    **dict.fromkeys((*BY_LABEL, "gold_macro_f1", "mse", "r2"), 0),
    **dict.fromkeys((*BY_QUESTION, "finlora_acc", "finlora_f1"), 1),
}


def function(stated: catalog.Function) -> Any:
    """What a ``!function lib.<module>.<name>`` of a task YAML names; of a file of others what that file has."""
    if stated.home not in (None, paths.shipped("tasks")):
        return foreign.resolved(stated)
    _, module, name = stated.spec.split(".")
    return getattr(paths.helper(module), name)


@functools.lru_cache(10_000)
def known_as(aggregation: Aggregation) -> str:
    """The name of an aggregation of ``tasks/lib``, or of a mean; empty for one of others, whatever its name."""
    name = getattr(aggregation, "__name__", "")
    if name == "mean":
        return name if aggregation.__module__ in ("lm_eval.api.metrics", __name__) else ""
    code = getattr(aggregation, "__code__", None)
    return name if code is not None and taskcode.is_helper(Path(code.co_filename)) else ""


def mean(values: Sequence[float]) -> float:
    """lm-eval's ``mean``."""
    return sum(values) / len(values)


def config(task: str) -> dict[str, Any]:
    """The YAML of a task that is known here, with its includes."""
    own = catalog.own(task)
    return own.config if own else _shipped(catalog.file_of(task))


@functools.cache
def _shipped(path: Path) -> dict[str, Any]:
    return catalog.merged(path)


def aggregations(task: str) -> dict[str, Aggregation]:
    """Metric -> aggregation of a task that is known here."""
    if catalog.own(task):
        return foreign.aggregations(config(task))
    return dict(_shipped_aggregations(catalog.file_of(task)))


@functools.cache
def _shipped_aggregations(path: Path) -> dict[str, Aggregation]:
    found = {entry["metric"]: entry.get("aggregation", "mean") for entry in _shipped(path)["metric_list"]}
    return {name: function(how) if isinstance(how, catalog.Function) else mean for name, how in found.items()}


def may_quote(task: str, metric: str) -> bool:
    """The metric's values can hold text of the document or the answer, not only numbers and labels."""
    found = aggregations(task).get(metric)
    return found is not None and known_as(found) not in _SUMMED


def golds(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The right answer of a row of a known task by metric, of those metrics whose ``values`` state it."""
    found = {}
    for name, how in aggregations(task).items():
        place, value = _GOLD.get(known_as(how)), values.get(name)
        if place is not None and isinstance(value, list | tuple) and len(value) > place:
            found[name] = value[place]
    return found


def lower_is_better(task: str) -> list[str]:
    """Metrics of a task of which less is better."""
    if catalog.own(task):
        return foreign.lower_is_better(config(task))
    return [entry["metric"] for entry in config(task)["metric_list"] if not entry.get("higher_is_better", True)]


_SHARES = ("acc", "acc_norm", "acc_mutual_info", "acc_bytes", "exact_match", "em", "f1", "brier_score", "parse_rate")
_NOT_SHARES = ("r2", "mse", "rmse", "mae", "mcc", "question_mcc")
_SPOKEN = {
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro-F1",
    "acc": "accuracy",
    "span_f1": "entity F1",
    "question_f1": "mean F1 of questions",
    "question_mcc": "MCC within questions",
    "mcc": "MCC",
    "mse": "MSE",
    "r2": "R²",
}


def is_share(metric: str) -> bool:
    """Shown in percent, with bars from 0 to 100: everything but errors, R² and correlations.

    Of the metrics that only the tasks of others have, those that lm-eval knows as shares.
    """
    return metric not in _NOT_SHARES and (metric in _SHARES or metric in _shipped_metrics())


@functools.cache
def _shipped_metrics() -> set[str]:
    names = {name for path in catalog.task_files() for name in owntasks.metric_names(catalog.merged(path))}
    return names | {name.removesuffix("_lenient") for name in names}


def bounds(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    if is_share(metric):
        return 0.0, 1.0
    around = dict.fromkeys(("mcc", "question_mcc"), (-1.0, 1.0))
    return {"r2": (-math.inf, 1.0), **around}.get(metric, (0.0, math.inf))


def spoken(metric: str) -> str:
    """A metric as it is written in prose."""
    return _SPOKEN.get(metric, metric.replace("_", " "))
