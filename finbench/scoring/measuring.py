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
from finbench.core.records import Answers, Contamination, Measure, Overlap
from finbench.core.seal import leaves, salted
from finbench.scoring import metrics, noise, paired, prompts, sampling, stats, years
from finbench.scoring.metrics import Aggregation, bounds, known_as, summed

LENIENT = "_lenient"
RIGHT = ("acc", "exact_match")  # metrics that say whether an answer is right, the first that a task has counts
SLOW_RESAMPLES = 500  # where every resample calls Python: 5,000 documents take seconds, not minutes


def value_of(
    values: Sequence[Any], aggregation: Aggregation, samples: int = 1, rows: Sequence[int] | None = None
) -> float:
    """The aggregated value of a metric over the documents ``rows`` (None: all); of several samples their mean."""
    chosen = range(len(values) // samples) if rows is None else rows
    runs = [[values[samples * row + run] for row in chosen] for run in range(samples)]
    return sum(float(aggregation(run)) for run in runs) / samples


def measure(
    values: Sequence[Any],
    aggregation: Aggregation,
    clusters: Sequence[Any] | None = None,
    *,
    within: stats.Bounds = paired.UNBOUNDED,
    samples: int = 1,
) -> Measure:
    """The aggregated value of a metric with its 95 % interval; of several ``samples`` the mean of their values.

    ``values`` holds one value a document: a number for ``mean``, else what the named aggregation of ``tasks/lib``
    takes; the samples of a document follow each other. ``clusters`` names the source of each. Shares of independent
    documents get the Wilson interval, everything else a bootstrap over clusters, with all samples of a document
    together; none goes beyond ``within``, the values that the metric can have.
    """
    n = len(values) // samples
    metric = metrics.averaged(summed(known_as(aggregation), values), samples)
    clusters = None if clusters is None else clusters[::samples]
    independent = clusters is None or len(set(clusters)) == n
    if metric is None:
        method = "bootstrap" if independent else "cluster bootstrap"
        units, rng = _groups(clusters, n), np.random.default_rng(0)
        return _called(lambda rows: value_of(values, aggregation, samples, rows), units, rng, method, within)[0]
    stated = value_of(values, aggregation, samples)
    if known_as(aggregation) == "mean" and samples == 1 and independent and np.isin(values, (0.0, 1.0)).all():
        found = stats.wilson(int(sum(values)), len(values))
    else:
        within = stats.SHARE if metric.share else within
        found, _ = stats.estimate(metric.parts, metric.statistic, clusters, bounds=within)
    if abs(found.value - stated) > 1e-9:
        raise AssertionError(f"{aggregation.__name__}: lm-eval gives {stated}, the interval's statistic {found.value}")
    if found.low is None or found.high is None:
        return found.model_copy(update={"value": stated})
    return found.model_copy(update={"value": stated, "low": min(found.low, stated), "high": max(found.high, stated)})


def _groups(clusters: Sequence[Any] | None, n: int) -> list[list[int]]:
    """Row numbers of each cluster, in order of first occurrence; each of ``n`` rows its own without clusters."""
    found: dict[Any, list[int]] = {}
    for row, cluster in enumerate(range(n) if clusters is None else clusters):
        found.setdefault(cluster, []).append(row)
    return list(found.values())


def _called(
    statistic: Callable[[Sequence[int]], float], units: list[list[int]], rng: Any, method: str, within: stats.Bounds
) -> tuple[Measure, float]:
    """As ``stats.estimate``, for any statistic of row numbers: it is called on each resample, or without each unit."""
    count, rows = len(units), sum(map(len, units))

    def of(picked: Sequence[int]) -> float:
        return statistic([row for unit in picked for row in units[unit]])

    def error() -> float:
        without = [of([unit for unit in range(count) if unit != out]) for out in range(count)]
        return stats.spread(np.array(without, float), np.ones(count))

    return stats.interval(
        float(statistic(range(rows))),
        np.array([len(unit) for unit in units], float),
        within,
        f"{method}, {SLOW_RESAMPLES} resamples",
        error,
        lambda: np.array([of(picked) for picked in rng.integers(count, size=(SLOW_RESAMPLES, count))], float),
    )


def paired_difference(
    a: Sequence[Any],
    b: Sequence[Any],
    aggregation: Aggregation,
    clusters: Sequence[Any] | None = None,
    samples: int = 1,
) -> paired.Difference:
    """A's metric minus B's on the same documents: paired bootstrap interval and permutation p-value.

    As for ``measure``, the ``samples`` of a document follow each other, and stay together.
    """
    both, n = metrics.averaged(summed(known_as(aggregation), [*a, *b]), samples), len(a) // samples
    clusters = None if clusters is None else clusters[::samples]
    if both is not None:
        within = paired.OF_SHARES if both.share else paired.UNBOUNDED
        return paired.difference(both.parts[:n], both.parts[n:], both.statistic, clusters, bounds=within)
    units, rng = _groups(clusters, n), np.random.default_rng(0)

    def gap(rows: Sequence[int]) -> float:
        return value_of(a, aggregation, samples, rows) - value_of(b, aggregation, samples, rows)

    found, error = _called(gap, units, rng, "paired bootstrap", paired.UNBOUNDED)
    extreme = 0
    for swapped in rng.integers(2, size=(SLOW_RESAMPLES, len(units))):
        one, other = list(a), list(b)
        for unit in np.flatnonzero(swapped):
            for row in units[unit]:
                part = slice(samples * row, samples * (row + 1))
                one[part], other[part] = other[part], one[part]
        moved = value_of(one, aggregation, samples) - value_of(other, aggregation, samples)
        extreme += abs(moved) >= abs(found.value) - 1e-12
    return paired.Difference(found, (extreme + 1) / (SLOW_RESAMPLES + 1), error, len(units))


def error_over_documents(
    weighted: Sequence[tuple[float, Sequence[Any]]],
    aggregation: Aggregation,
    clusters: Sequence[Any] | None = None,
    samples: int = 1,
) -> tuple[float, int]:
    """Standard error over documents of a weighted sum of metrics, (weight, values) each, and the number of sources.

    All values are of the same documents, whose jackknife takes what the metrics share out of their differences.
    """
    weights, runs = np.array([weight for weight, _ in weighted]), [values for _, values in weighted]
    n = len(runs[0]) // samples
    clusters = None if clusters is None else clusters[::samples]
    metric = metrics.averaged(summed(known_as(aggregation), [value for run in runs for value in run]), samples)
    if metric is None:

        def whole(rows: Sequence[int]) -> float:
            return float(weights @ [value_of(run, aggregation, samples, rows) for run in runs])

        units = _groups(clusters, n)
        return _called(whole, units, np.random.default_rng(0), "", paired.UNBOUNDED)[1], len(units)
    own, statistic = metric.parts.shape[1], metric.statistic

    def together(sums: stats.Counts) -> stats.Counts:
        return np.asarray(statistic(sums.reshape(*sums.shape[:-1], len(runs), own)) @ weights)

    parts = np.concatenate([metric.parts[run * n : (run + 1) * n] for run in range(len(runs))], axis=1)
    grouped, _ = stats.by_cluster(parts, clusters)
    return (stats.jackknife(grouped, together) if len(grouped) > 1 else 0.0), len(grouped)


def split_metrics(
    values: Mapping[str, Sequence[Any]],
    aggregation: Mapping[str, Aggregation],
    clusters: Sequence[Any] | None = None,
    samples: int = 1,
) -> tuple[dict[str, Measure], dict[str, Measure], Measure]:
    """(strict metrics, lenient metrics, parse rate) of per-document values by metric name."""
    measures: dict[str, Measure] = {}
    for name, items in values.items():
        strict = name.removesuffix(LENIENT)
        twin = strict if strict != name else name + LENIENT
        if twin in measures and aggregation[twin] is aggregation[name] and values[twin] == items:
            measures[name] = measures[twin]  # as where lenient parsing reads what strict parsing does
        else:
            measures[name] = measure(items, aggregation[name], clusters, within=bounds(strict), samples=samples)
    always = Measure(value=1.0, low=1.0, high=1.0, method="choices always parse")
    parse_rate = measures.pop("parse_rate", None) or always
    plain = {name: found for name, found in measures.items() if not name.endswith(LENIENT)}
    lenient = {name.removesuffix(LENIENT): found for name, found in measures.items() if name.endswith(LENIENT)}
    return plain, lenient, parse_rate


def sample_rows(
    lm_task: Any, instances: Sequence[Any], *, choice: bool, restricted: bool
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Sample rows, one a document and sample, from answered lm-eval Instances; and the scorer's values by metric.

    ``lm_task`` is lm-eval's task object; its filters are applied here. A row's ``doc`` is the salted hash of the
    zero-shot prompt, ``cluster`` that of the row's ``group``, else of its text: documents that share it are not
    independent. Of a ``restricted`` set neither answers are in the rows nor values that quote them, only their
    salted hashes.
    """
    lm_task._instances = list(instances)  # where lm-eval's filters look for them
    lm_task.apply_filters()
    by_answer: dict[tuple[int, int], list[Any]] = {}
    for instance in instances:
        sample = instance.sample if isinstance(instance, prompts.Asked) else 0
        by_answer.setdefault((instance.doc_id, sample), []).append(instance)
    several = any(sample for _, sample in by_answer)
    rows: list[dict[str, Any]] = []
    values: dict[str, list[Any]] = {}
    for (index, sample), group in sorted(by_answer.items()):
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
            **noise.row_of(doc),
            **years.row_of(doc),
        }
        if choice or not restricted:
            row["answer"] = answer
        else:  # a model may repeat its prompt, whose text may not be published
            row["answer_sha256"] = salted(answer)
        if isinstance(group[0], prompts.Asked):
            row |= sampling.row_of(group[0].generated, sample if several else None, str(answer), found)
            row |= {} if group[0].confidence is None else {"confidence": group[0].confidence}
        rows.append(row)
    return rows, values


def _shown(value: Any, words: set[str]) -> Any:
    """A value of a restricted document: its salted hash where it has text other than the document's ``words``."""
    if all(leaf in words for _, leaf in leaves(value) if isinstance(leaf, str)):
        return value
    return {"sha256": salted(stable_json(value))}


def hidden_metrics(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Metrics whose values quote restricted text, so that only the data's owner can recompute them."""
    quoting = [row["values"] for row in rows if dict in map(type, row["values"].values())]
    return {name for values in quoting for name, value in values.items() if isinstance(value, dict)}


def values_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Metric -> one value a row, for the metrics that are not hidden."""
    return {name: [row["values"][name] for row in rows] for name in rows[0]["values"].keys() - hidden_metrics(rows)}


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cluster of each row."""
    return [row["cluster"] for row in rows]


def sample_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What a Score says about its rows: documents, clusters, and documents whose prompt occurred before."""
    documents = [row for row in rows if not row.get("sample")]
    return {
        "n": len(documents),
        "clusters": len(set(clusters_of(documents))),
        "duplicates": len(documents) - len({row["doc"] for row in documents}),
    }


def samples_of(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many answers there are to every prompt."""
    return 1 + max((int(row.get("sample", 0)) for row in rows), default=0)


def answers(rows: Sequence[Mapping[str, Any]]) -> Answers | None:
    """The record of generated answers; None where they were generated directly."""
    if not rows or "truncated" not in rows[0]:
        return None
    samples, clusters = samples_of(rows), clusters_of(rows)
    cut = [float(row["truncated"]) for row in rows]
    made = Answers(
        thinking_tokens=sum(row["reasoning_tokens"] for row in rows),
        answer_tokens=sum(row["answer_tokens"] for row in rows),
        truncated=measure(cut, metrics.mean, clusters, within=stats.SHARE, samples=samples),
    )
    name = next((name for name in RIGHT if rows[0]["values"].get(name) in (0, 1)), None)
    if samples == 1 or name is None:
        return made
    own = [rows[at : at + samples] for at in range(0, len(rows), samples)]
    right = [sum(row["values"][name] == 1 for row in group) for group in own]
    votes = [sampling.vote([row["reading"] for row in group], [row["values"][name] for row in group]) for group in own]
    sizes = [size for power in range(samples.bit_length()) if (size := 2**power) < samples]

    def share(values: Sequence[float]) -> Measure:
        return measure(values, metrics.mean, clusters[::samples], within=stats.SHARE)

    passed = {str(k): share([sampling.pass_at(samples, hits, k) for hits in right]) for k in [*sizes, samples]}
    return made.model_copy(update={"majority": share(votes), "pass_at": passed})


def overlap_with_training(known: Contamination | None, name: str, edition: str | None) -> Overlap | None:
    """How many test texts of a set were in the training rows; None where nobody looked for this ``edition``.

    ``edition``: SHA-256 of the test rows; None where they are not here, so that the name of the set must do.
    """
    if known is None or not known.looked_for.get(name) or (edition and known.editions.get(name, edition) != edition):
        return None
    return Overlap(texts=known.found.get(name, 0), of=known.looked_for[name])
