"""From per-document values of lm-eval metrics to a Score with intervals and baselines.

A task's metrics follow one rule: ``<metric>`` is strict, ``<metric>_lenient`` the same under lenient parsing,
``parse_rate`` the share of answers that parsed strictly. The point value is what lm-eval's own aggregation
gives; the interval comes from resampling documents, or whole clusters of documents that share a source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from finbench.core.files import stable_json
from finbench.core.records import Contamination, Measure, Overlap
from finbench.core.seal import leaves, salted
from finbench.scoring import paired, prompts, stats
from finbench.scoring.metrics import Aggregation, bounds, summed

LENIENT = "_lenient"
SLOW_RESAMPLES = 500  # where every resample calls Python: 5,000 documents take seconds, not minutes


def measure(
    values: Sequence[Any],
    aggregation: Aggregation,
    clusters: Sequence[Any] | None = None,
    *,
    within: stats.Bounds = paired.UNBOUNDED,
) -> Measure:
    """The aggregated value of a metric with its 95 % interval.

    ``values`` holds one value a document: a number for ``mean``, else what the named aggregation of ``tasks/lib``
    takes. ``clusters`` names the source of each document. Shares of independent documents get the Wilson interval,
    everything else a bootstrap over clusters; none goes beyond ``within``, the values that the metric can have.
    """
    stated = float(aggregation(list(values)))
    metric = summed(aggregation.__name__, values)
    if metric is None:
        return _called(values, aggregation, clusters, stated, within)
    if aggregation.__name__ == "mean" and _independent(clusters, len(values)) and np.isin(values, (0.0, 1.0)).all():
        found = stats.wilson(int(sum(values)), len(values))
    else:
        within = stats.SHARE if metric.share else within
        found = stats.bootstrap(metric.parts, metric.statistic, clusters, bounds=within)
    if abs(found.value - stated) > 1e-9:
        raise AssertionError(f"{aggregation.__name__}: lm-eval gives {stated}, the interval's statistic {found.value}")
    if found.low is None or found.high is None:
        return found.model_copy(update={"value": stated})
    return found.model_copy(update={"value": stated, "low": min(found.low, stated), "high": max(found.high, stated)})


def _independent(clusters: Sequence[Any] | None, n: int) -> bool:
    return clusters is None or len(set(clusters)) == n


def groups(clusters: Sequence[Any] | None, n: int) -> list[list[int]]:
    """Row numbers of each cluster, in order of first occurrence; each of ``n`` rows its own without clusters."""
    found: dict[Any, list[int]] = {}
    for row, cluster in enumerate(range(n) if clusters is None else clusters):
        found.setdefault(cluster, []).append(row)
    return list(found.values())


def _called(
    values: Sequence[Any],
    aggregation: Aggregation,
    clusters: Sequence[Any] | None,
    stated: float,
    within: stats.Bounds,
) -> Measure:
    """Interval of any aggregation, by calling it on the items of resampled clusters, or without each of few."""
    units = groups(clusters, len(values))
    alike = len(units) == len(values)

    def of(picked: Sequence[int]) -> float:
        return aggregation([values[row] for unit in picked for row in units[unit]])

    if len(units) <= stats.FEW:
        return stats.few_units(stated, _error_without(of, len(units)), sizes(units), not alike, within)
    drawn = np.random.default_rng(0).integers(len(units), size=(SLOW_RESAMPLES, len(units)))
    found = np.array([of(picked) for picked in drawn], float)
    method = f"{'bootstrap' if alike else 'cluster bootstrap'}, {SLOW_RESAMPLES} resamples"
    return stats.many_units(stated, found, len(units), method, within)


def sizes(units: Sequence[Sequence[int]]) -> stats.Counts:
    """Documents of each unit."""
    return np.array([len(unit) for unit in units], dtype=np.float64)


def _error_without(of: Callable[[Sequence[int]], float], units: int) -> float:
    """The jackknife's standard error of a statistic of unit numbers; 0 for one unit."""
    if units == 1:
        return 0.0
    return stats.jackknife_of([of([unit for unit in range(units) if unit != out]) for out in range(units)])


def paired_difference(
    a: Sequence[Any], b: Sequence[Any], aggregation: Aggregation, clusters: Sequence[Any] | None = None
) -> paired.Difference:
    """A's metric minus B's on the same documents: paired bootstrap interval and permutation p-value."""
    both = summed(aggregation.__name__, [*a, *b])
    if both is not None:
        within = paired.OF_SHARES if both.share else paired.UNBOUNDED
        return paired.difference(both.parts[: len(a)], both.parts[len(a) :], both.statistic, clusters, bounds=within)
    units, rng = groups(clusters, len(a)), np.random.default_rng(0)

    def value(side: Sequence[Any], picked: Any) -> float:
        return aggregation([side[row] for unit in picked for row in units[unit]])

    observed = aggregation(list(a)) - aggregation(list(b))
    if len(units) <= stats.FEW:
        error = _error_without(lambda picked: value(a, picked) - value(b, picked), len(units))
        found = stats.few_units(observed, error, sizes(units), len(units) < len(a), paired.UNBOUNDED)
    else:
        drawn = rng.integers(len(units), size=(SLOW_RESAMPLES, len(units)))
        gaps = np.array([value(a, picked) - value(b, picked) for picked in drawn])
        method = f"paired bootstrap, {SLOW_RESAMPLES} resamples"
        found = stats.many_units(observed, gaps, len(units), method, paired.UNBOUNDED)
        error = float(gaps.std())
    extreme = 0
    for swapped in rng.integers(2, size=(SLOW_RESAMPLES, len(units))):
        one, other = list(a), list(b)
        for unit in np.flatnonzero(swapped):
            for row in units[unit]:
                one[row], other[row] = other[row], one[row]
        extreme += abs(aggregation(one) - aggregation(other)) >= abs(observed) - 1e-12
    return paired.Difference(found, (extreme + 1) / (SLOW_RESAMPLES + 1), error, len(units))


def split_metrics(
    values: Mapping[str, Sequence[Any]],
    aggregation: Mapping[str, Aggregation],
    clusters: Sequence[Any] | None = None,
) -> tuple[dict[str, Measure], dict[str, Measure], Measure]:
    """(strict metrics, lenient metrics, parse rate) of per-document values by metric name."""
    measures = {
        name: measure(items, aggregation[name], clusters, within=bounds(name.removesuffix(LENIENT)))
        for name, items in values.items()
    }
    always = Measure(value=1.0, low=1.0, high=1.0, method="choices always parse")
    parse_rate = measures.pop("parse_rate", None) or always
    strict = {name: found for name, found in measures.items() if not name.endswith(LENIENT)}
    lenient = {name.removesuffix(LENIENT): found for name, found in measures.items() if name.endswith(LENIENT)}
    return strict, lenient, parse_rate


# ---------------------------------------------------------------- sample rows


def sample_rows(
    lm_task: Any, instances: Sequence[Any], *, choice: bool, restricted: bool
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Sample rows, one a document, from answered lm-eval Instances; and the scorer's values by metric.

    ``lm_task`` is lm-eval's task object; its filters are applied here. A row's ``doc`` is the salted hash of the
    zero-shot prompt, ``cluster`` that of the row's ``group``, else of its text: documents that share it are not
    independent. Of a ``restricted`` set neither answers are in the rows nor values that quote them, only their
    salted hashes.
    """
    lm_task._instances = list(instances)  # where lm-eval's filters look for them
    lm_task.apply_filters()
    by_document: dict[int, list[Any]] = {}
    for instance in instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    rows: list[dict[str, Any]] = []
    values: dict[str, list[Any]] = {}
    for index, group in sorted(by_document.items()):
        group.sort(key=lambda instance: instance.idx)
        doc, key = group[0].doc, next(iter(group[0].filtered_resps))
        found = lm_task.process_results(doc, [instance.filtered_resps[key] for instance in group])
        for name, value in found.items():
            values.setdefault(name, []).append(value)
        answer = [round(instance.resps[0][0], 6) for instance in group] if choice else group[0].resps[0]
        asked = prompts.shown(lm_task, doc)
        source = f"group:{doc['group']}" if doc.get("group") else f"text:{doc.get('text', asked)}"
        words = {*map(str, doc.get("choices") or ()), str(doc.get("label")), str(doc.get("attribute"))}
        row = {
            "task": lm_task.config.task,
            "index": index,
            "doc": salted(asked),
            "cluster": salted(source)[:16],
            "values": {name: _shown(value, words) if restricted else value for name, value in found.items()},
        }
        if choice or not restricted:
            row["answer"] = answer
        else:  # a model may repeat its prompt, whose text may not be published
            row["answer_sha256"] = salted(answer)
        rows.append(row)
    return rows, values


def _shown(value: Any, words: set[str]) -> Any:
    """A value of a restricted document: its salted hash where it has text other than the document's ``words``."""
    if all(leaf in words for _, leaf in leaves(value) if isinstance(leaf, str)):
        return value
    return {"sha256": salted(stable_json(value))}


def hidden_metrics(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Metrics whose values quote restricted text, so that only the data's owner can recompute them."""
    return {name for row in rows for name, value in row["values"].items() if isinstance(value, dict)}


def values_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Metric -> one value a row, for the metrics that are not hidden."""
    return {name: [row["values"][name] for row in rows] for name in rows[0]["values"].keys() - hidden_metrics(rows)}


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cluster of each row."""
    return [row["cluster"] for row in rows]


def sample_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What a Score says about its rows: documents, clusters, and documents whose prompt occurred before."""
    return {
        "n": len(rows),
        "clusters": len(set(clusters_of(rows))),
        "duplicates": len(rows) - len({row["doc"] for row in rows}),
    }


# ---------------------------------------------------------------- baselines


def baselines(lm_task: Any, docs: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, float]]:
    """What needs no model, on these very rows: ``random`` labels (mean of 100 seeded draws), ``majority`` label.

    Only for tasks with a label a row; others have none.
    """
    if not docs or "label" not in docs[0] or "choices" not in docs[0]:
        return {}
    options = [_options(doc) for doc in docs]
    golds = [doc["label"] for doc in docs]
    majority = max(dict.fromkeys(option for own in options for option in own), key=golds.count)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(100):
        places = rng.random(len(docs))
        draws.append(_guess(lm_task, docs, [own[int(at * len(own))] for own, at in zip(options, places, strict=True)]))
    return {
        "random": {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]},
        "majority": _guess(lm_task, docs, [majority] * len(docs)),
    }


def _options(doc: dict[str, Any]) -> list[Any]:
    """What a label may be: a text, or its number where every question has choices of its own."""
    choices = list(doc["choices"])
    return list(range(len(choices))) if isinstance(doc["label"], int) else choices


def _picked(doc: dict[str, Any], guess: Any) -> Any:
    """The guess, or where a row does not offer it an option that is wrong as well."""
    options = _options(doc)
    return guess if guess in options else next((option for option in options if option != doc["label"]), guess)


def _guess(lm_task: Any, docs: Sequence[dict[str, Any]], guesses: Sequence[Any]) -> dict[str, float]:
    """Strict metrics of the task for given labels, by its own scorer."""
    per_doc = []
    for doc, guess in zip(docs, guesses, strict=True):
        answers = (
            [guess]
            if lm_task.OUTPUT_TYPE == "generate_until"
            else [(float(option == _picked(doc, guess)), True) for option in _options(doc)]
        )
        per_doc.append(lm_task.process_results(doc, answers))
    aggregation = lm_task.aggregation()
    return {
        name: float(aggregation[name]([values[name] for values in per_doc]))
        for name in per_doc[0]
        if not name.endswith(LENIENT) and name != "parse_rate"
    }


def overlap_with_training(known: Contamination | None, name: str) -> Overlap | None:
    """How many test texts of a set were in the training rows; None where nobody looked."""
    if known is None or not known.looked_for.get(name):
        return None
    return Overlap(texts=known.found.get(name, 0), of=known.looked_for[name])
