"""From the answers to a task's requests to its score, whoever asked the model."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from finbench.cards import cardfiles
from finbench.core.console import say
from finbench.core.records import DataId, Provenance, Score, Scorecard, Task
from finbench.core.version import __version__
from finbench.scoring import (
    answers,
    baselines,
    clusters_of,
    inwords,
    metrics,
    prompts,
    sample_counts,
    sample_rows,
    samples_of,
    split_metrics,
)

UNCOUNTED: dict[str, Any] = {"overlap": None, "truncated": 0, "prompt_tokens": 0, "seconds": 0}  # where others asked


def blank(when: datetime, packages: Mapping[str, str], **stated: Any) -> Scorecard:
    """The card of answers that another program got ``when``, without scores; ``stated``: the fields that are known."""
    nothing: dict[str, Any] = dict.fromkeys(("limit", "computed", "chat_template", "samples"))
    nothing |= {"status": "partial", "scores": [], "dtype": "unknown", "form": "base", "shots": 0, "seed": 0}
    nothing |= {"run_key": "", "peak_memory_bytes": 0, "seconds": 0.0}
    provenance = Provenance(
        finbench=__version__,
        python=platform.python_version(),
        packages=dict(packages),
        hardware={},
        created=when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return Scorecard(**{**nothing, **stated}, provenance=provenance)


def stored(
    out: Path, source: Path, card: Scorecard, made: Sequence[tuple[Score, list[dict[str, Any]]]], **stated: Any
) -> Scorecard:
    """A ``blank`` card with its scores and their samples, written to ``out``; ``stated``: its limit and shots."""
    scores = [score for score, _ in made]
    card = card.model_copy(update={"scores": scores, "status": status(scores, not stated.get("limit")), **stated})
    card = card.model_copy(update={"run_key": cardfiles.run_key(card)})
    place, written = cardfiles.store(out, card, {score.task: rows for score, rows in made})
    say(f"{source.name} -> {place}")
    return written


def asked_rows(task: Task, lm_task: Any, limit: int | None) -> tuple[DataId, str | None]:
    """Which rows are asked, and the digest of those that worked examples are drawn from; None for zero-shot."""
    data = prompts.data_id(task, lm_task, "test", prompts.rows(lm_task, "test")[:limit])
    if not lm_task.config.num_fewshot:
        return data, None
    return data, prompts.examples_digest(lm_task)


def status(scores: Iterable[Score], done: bool) -> Literal["complete", "partial"]:
    """Of a card: partial where not everything is ``done``, or where a score is of a part of the authors' test."""
    return "complete" if done and all(score.data.share is None for score in scores) else "partial"


def hear(instance: Any, answer: Any) -> None:
    """Give a request its answer, as lm-eval's filters and our sample rows want it."""
    if isinstance(instance, prompts.Asked):
        if instance.sure:
            answer, instance.confidence = inwords.parted(answer, instance.sure)
        instance.generated, answer = answer, answer.text
    instance.resps = [answer]


def score_answers(
    task: Task, lm_task: Any, instances: Sequence[Any], asked: tuple[DataId, str | None], **measured: Any
) -> tuple[Score, list[dict[str, Any]]]:
    """The score and its sample rows, from answered requests to the rows ``asked``.

    ``measured``: what answers do not say, the fields ``overlap``, ``truncated``, ``prompt_tokens`` and ``seconds``.
    """
    rows, values = sample_rows(lm_task, instances, choice=task.form == "choice", restricted=task.restricted)
    strict, lenient, parse_rate = split_metrics(values, lm_task.aggregation(), clusters_of(rows), samples_of(rows))
    data, examples = asked
    counted: dict[str, Any] = {**sample_counts(rows), **measured}
    score = Score(
        task=task.name,
        version=task.version,
        task_digest=task.digest,
        family=task.family,
        form=task.form,
        main_metric=task.main_metric,
        data=data,
        licence=task.licence,
        metrics=strict,
        lenient=lenient,
        parse_rate=parse_rate,
        lower_is_better=metrics.lower_is_better(task.name),
        baselines=baselines(lm_task, prompts.rows(lm_task, "test")[: data.rows]),
        prompt_style=task.prompt_style,
        fewshot_split=prompts.shown_from(lm_task) if lm_task.config.num_fewshot else None,
        fewshot_digest=examples,
        answers=answers(rows),
        **counted,
    )
    return score, rows
