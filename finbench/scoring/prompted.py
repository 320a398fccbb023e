"""What several prompts of a task gave, from the sample rows: a score each, their spread, what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finbench.core.records import Measure, Prompt, Prompts, Task
from finbench.scoring import metrics, stats, wordings
from finbench.scoring.crossed import crossed
from finbench.scoring.measuring import clusters_of, measure, sample_rows, samples_of, value_of, values_of
from finbench.scoring.metrics import Aggregation
from finbench.scoring.wordings import Wording

Row = dict[str, Any]
_OWN_KEYS = {"task", "index", "doc", "cluster", "of", "sample", "prompts"}  # of a row, the same for every prompt
PLACES = ("first", "last", "")  # of the answer among what the prompt lists; "": neither
LISTED = {"order": "label_order_bias", "options": "answer_position_bias"}


def joined(
    task: Task, own: Sequence[Row], wanted: Sequence[Wording], lm_tasks: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[Row]:
    """The rows of the task's own prompt, with what the others gave: ``asked`` holds their answered requests by name."""
    found = [dict(row) for row in own]
    by_index: dict[int, dict[str, Row]] = {number: {} for number in range(len(own))}
    docs = {one.doc_id: one.doc for one in asked[wordings.OWN]}
    twins = _twins(wanted)
    for wording in wanted:
        lm_task = lm_tasks[wording.name]
        rows, _ = sample_rows(lm_task, asked[wording.name], choice=task.form == "choice", restricted=task.restricted)
        for number, row in enumerate(rows):
            entry = {} if wording.name == wordings.OWN else {k: v for k, v in row.items() if k not in _OWN_KEYS}
            if wording.name in twins:
                entry["place"] = place(wording, docs[row["index"]], row)
            if entry:
                by_index[number][wording.name] = entry
    for number, row in enumerate(found):
        row["prompts"] = by_index[number]
    return found


def rows_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[Row]:
    """The rows as those of a card that was asked by this prompt alone. KeyError where one was not asked by it."""
    plain = [{key: value for key, value in row.items() if key != "prompts"} for row in rows]
    if name == wordings.OWN:
        return plain
    kept = _OWN_KEYS - {"prompts"}
    return [
        {**{key: value for key, value in own.items() if key in kept}, **_without_place(row["prompts"][name])}
        for own, row in zip(plain, rows, strict=True)
    ]


def _without_place(entry: Mapping[str, Any]) -> Row:
    return {key: value for key, value in entry.items() if key != "place"}


def _twins(wanted: Sequence[Wording]) -> set[str]:
    """Names of the prompts that have another one beside them which differs in the order of what is listed alone."""
    names = {one.name for one in wanted}
    return {name for one in wanted if one.twin in names for name in (one.name, str(one.twin))}


def place(wording: Wording, doc: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Whether the answer in ``row`` is what the prompt lists first, or last."""
    if isinstance(row.get("answer"), list):
        likely, count = int(np.argmax(row["answer"])), len(row["answer"])
        at = count - 1 - likely if wording.backward else likely
        return "first" if at == 0 else "last" if at == count - 1 else ""
    said, labels = _said(row), doc.get("choices") or []
    if said is None:
        return ""
    first, last = wordings.ends_of_list(wording, doc, labels)
    return "first" if said == first else "last" if said == last else ""


def _said(row: Mapping[str, Any]) -> str | None:
    """The label that the scorer read."""
    for value in row["values"].values():
        match value:
            case [_, (str() | None) as said, [*_]] | [str(), str(), (str() | None) as said] | [str(), str() as said]:
                return said
    return None


def summary(
    task: Task, wanted: Sequence[Wording], rows: Sequence[Row], how: Aggregation, truncated: Mapping[str, int]
) -> Prompts:
    """The record of rows as ``joined`` makes them. KeyError, TypeError or ValueError for rows that are none."""
    clusters, samples, main = clusters_of(rows), samples_of(rows), task.main_metric
    within, sign = metrics.bounds(main), -1 if main in metrics.lower_is_better(task.name) else 1
    each, table = [], []
    for wording in wanted:
        values = values_of(rows_of(rows, wording.name))
        parsed = [float(rate) for rate in values.get("parse_rate", [1.0])]
        each.append(
            Prompt(
                name=wording.name,
                version=wording.version,
                about=list(wording.about),
                digest=wording.digest,
                main=measure(values[main], how, clusters, within=within, samples=samples),
                parse_rate=sum(parsed) / len(parsed),
                truncated=truncated.get(wording.name, 0),
            )
        )
        table.append(pseudo_values(values[main], how, clusters, samples))
    scores = [sign * prompt.main.value for prompt in each]
    mean, share = _mean(np.array(table), [prompt.main for prompt in each], within)
    return Prompts(
        each=each,
        n=len(rows) // samples,
        spread=max(scores) - min(scores),
        worst=each[scores.index(min(scores))].name,
        best=each[scores.index(max(scores))].name,
        mean=mean,
        share=share,
        **{field: _bias(wanted, rows, about, clusters, samples) for about, field in LISTED.items()},
    )


def pseudo_values(values: Sequence[Any], how: Aggregation, clusters: Sequence[Any], samples: int) -> stats.Counts:
    """What each source adds to a metric: the jackknife's pseudo-values, whose mean is the metric (Tukey 1958)."""
    metric = metrics.averaged(metrics.summed(metrics.known_as(how), values), samples)
    own = clusters[::samples]
    whole = value_of(values, how, samples)
    if metric is not None:
        parts, _ = stats.by_cluster(metric.parts, own)
        without = (
            np.asarray(metric.statistic(parts.sum(axis=0) - parts), float) if len(parts) > 1 else np.array([whole])
        )
    else:
        every, sources = range(len(own)), list(dict.fromkeys(own))
        left = [[row for row in every if own[row] != source] for source in sources]
        without = np.array([value_of(values, how, samples, kept) if kept else whole for kept in left])
    found: stats.Counts = whole + (len(without) - 1) * (without.mean() - without)
    return found


def _mean(table: stats.Counts, of_each: Sequence[Measure], within: stats.Bounds) -> tuple[Measure, dict[str, float]]:
    """The mean over the prompts, with an interval over other sources and other prompts; shares of the variance."""
    mean = sum(one.value for one in of_each) / len(of_each)
    if table.shape[1] < 2:
        none = Measure(value=mean, low=None, high=None, method="none, one source")
        return none, dict.fromkeys(("document", "prompt", "rest"), 0.0)
    found = crossed(table)
    if not found.error:  # where nothing varies, what is known of the own prompt holds of all
        none = Measure(value=mean, low=None, high=None, method="none, nothing varies")
        return none if np.ptp(table) else of_each[0], found.share
    half = stats.t_quantile(found.df) * found.error
    low, high = max(within[0], mean - half), min(within[1], mean + half)
    method = f"crossed random effects of {table.shape[1]} sources and {len(table)} prompts, Student's t"
    return Measure(value=mean, low=min(mean, low), high=max(mean, high), method=method), found.share


def _bias(
    wanted: Sequence[Wording], rows: Sequence[Row], about: str, clusters: Sequence[Any], samples: int
) -> Measure | None:
    """By how much more often the answer is what is listed first than the same label, where it is listed last.

    Of pairs of prompts that differ in the order of what they list alone; 0 where order does not matter, whatever the
    frequencies of the labels.
    """
    names = {one.name for one in wanted}
    pairs = [(one.name, one.twin) for one in wanted if one.twin in names and about in one.about]
    if not pairs:
        return None
    counts = {"first": 1.0, "last": -1.0, "": 0.0}
    leaning = [
        sum(counts[row["prompts"][name]["place"]] for pair in pairs for name in pair) / (2 * len(pairs)) for row in rows
    ]
    return leaning_of(leaning, clusters, samples)


def leaning_of(leaning: Sequence[float], clusters: Sequence[Any], samples: int = 1) -> Measure:
    """The mean of numbers between -1 and 1 as a share of the way between them: turned round, its interval is too.

    Where all are 0, nothing was seen to lean to either side: as much may, to either, as of a share of which none was.
    """
    sources = len(set(clusters))
    if sources > 1 and not any(leaning):
        _, most = stats.score_interval(0.0, sources, stats.Z95)
        return Measure(value=0.0, low=-most, high=most, method=f"Wilson, {sources} of {sources}")
    found = measure([(1 + one) / 2 for one in leaning], metrics.mean, clusters, within=stats.SHARE, samples=samples)
    low, high = (None if end is None else 2 * end - 1 for end in (found.low, found.high))
    return found.model_copy(update={"value": 2 * found.value - 1, "low": low, "high": high})
