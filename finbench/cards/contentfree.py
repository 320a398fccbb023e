"""Contextual calibration: what a subject answers, less what it prefers where there is nothing to read.

A base may say "neutral" to anything. Zhao et al. (2021, arXiv:2102.09690) ask it for texts without content and divide
the probability of each label by what it has there. Nothing is fitted, and no gold label is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.cards import cardfiles
from finbench.cards.comparison import aggregation_of
from finbench.cards.undernoise import alike, noise_of
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure, Score
from finbench.scoring import calibration, clusters_of, measure, metrics, noise, paired_difference, values_of

_HOW = (
    "Score both: finbench eval ... --tasks fpb_mc, and the same with --metadata noise=content-free --out content-free"
)
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Contextual:
    """The score of one task as it is and calibrated, and what the subject prefers before it reads."""

    subject: str
    task: str
    metric: str
    n: int
    preferred: dict[str, float]  # label -> its probability where there is nothing to read; a mean over questions
    plain: Measure
    calibrated: Measure
    difference: Measure  # calibrated minus plain, paired
    p: float  # of the paired permutation test


def contextual(card: Path | str, empty: Path | str, *, tasks: Sequence[str] = ()) -> list[Contextual]:
    """Scores of ``card`` calibrated by ``empty``, a card of the same subject from ``--metadata noise=content-free``.

    The main metric of every task that both have, whose answer is the most probable of fixed labels. For questions that
    share texts (headlines) each question has its own preference.

    Raises FinbenchError for cards of another subject or setup, and where they have no such task in common.
    """
    names = {task.name for task in catalog.expand(tasks)}
    first, other = cardfiles.read(Path(card)), cardfiles.read(Path(empty))
    alike(first, other, Path(empty))
    free = {score.task: score for score in other.scores if noise_of(score) and _empty(score)}
    rows, texts = (cardfiles.rows_by_task(Path(path), one) for path, one in ((card, first), (empty, other)))
    found = []
    for score in first.scores:
        if score.task not in free or (names and score.task not in names) or noise_of(score):
            continue
        if (score.version, score.task_digest) != (free[score.task].version, free[score.task].task_digest):
            raise FinbenchError(f"{score.task}: the two cards are of different versions of it.", _HOW)
        if rows.get(score.task) and texts.get(score.task) and score.form == "choice":
            found.append(_one(first.subject.name, score, rows[score.task], texts[score.task]))
    if not found:
        raise FinbenchError(f"No task of {card} has its labels' log-likelihoods without content in {empty}.", _HOW)
    return found


def _empty(score: Score) -> bool:
    return noise.named(str(noise_of(score)))[0].rule == "none"


def _one(subject: str, score: Score, rows: Rows, texts: Rows) -> Contextual:
    catalog.recall(score.task, score.task_digest)
    name, how = score.main_metric, aggregation_of(score.task, score.main_metric)
    sides = [values_of(own)[name] for own in (rows, texts)]
    labels = _labels(score.task, sides[0])
    preferred = _preferred(texts, sides[1], labels)
    made = [_value(value, labels, row, preferred) for value, row in zip(sides[0], rows, strict=True)]
    sources, within = clusters_of(rows), metrics.bounds(name)
    found = paired_difference(made, sides[0], how, sources, 1)
    return Contextual(
        subject,
        score.task,
        name,
        len(rows),
        dict(zip(labels, np.mean(list(preferred.values()), axis=0).round(6).tolist(), strict=True)),
        measure(sides[0], how, sources, within=within),
        measure(made, how, sources, within=within),
        found.measure,
        found.p,
    )


def _labels(task: str, values: Sequence[Any]) -> list[str]:
    """The labels in the order of their log-likelihoods, which each value names, or the task where they are two."""
    known, first = catalog.tasks()[task].labels or [], values[0]
    stated = first[2] if isinstance(first, Sequence) and len(first) == 3 else None
    labels = list(stated) if isinstance(stated, Sequence) and not isinstance(stated, str) else list(known)
    if stated is None or not labels:
        raise FinbenchError(
            f"{task}: its labels are not the same for every document.", "It is for fpb_mc and its like."
        )
    return labels


def _question(value: Sequence[Any]) -> str:
    """What is asked about the text; the same for all where there is one question."""
    return str(value[0]) if isinstance(value[2], str) else ""


def _preferred(rows: Rows, values: Sequence[Any], labels: Sequence[str]) -> dict[str, Any]:
    """By question the mean probability of each label, shape (labels,), over texts without content."""
    logs = calibration.padded([row["answer"] for row in rows])
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    asked = np.array([_question(value) for value in values])
    return {str(one): shares[asked == one].mean(axis=0) for one in np.unique(asked)}


def _value(value: Sequence[Any], labels: Sequence[str], row: Mapping[str, Any], preferred: Mapping[str, Any]) -> Any:
    """The value of a document with the calibrated answer in the place of the given one."""
    share = preferred.get(_question(value))
    if share is None:
        raise FinbenchError(f"{_question(value)} is not asked without content.", "Score both with the same --limit.")
    with np.errstate(divide="ignore"):  # what has no probability without content is infinitely more probable with it
        said = labels[int(np.argmax(np.asarray(row["answer"]) - np.log(share)))]
    return [*value[:2], said] if isinstance(value[2], str) else [value[0], said, value[2]]
