"""Calibration of scorecards: how sure a subject was, read from the samples that its card holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Score, Scorecard
from finbench.scoring import RIGHT, calibration, clusters_of, samples_of

_FEWEST = 20  # documents below which nothing is said
_FORMS = (
    "Score its log-likelihood form (--tasks fpb_mc), or several answers: --profile chat --samples 8 --temperature 0.7; "
    "or ask for it in words: --profile chat --confidence"
)


@dataclass(frozen=True)
class CardCalibration:
    """The calibration of one score, and where its confidence is from."""

    subject: str
    task: str
    signal: str  # for people
    found: calibration.Calibration


@dataclass(frozen=True)
class Sure:
    """What the rows of a score tell: confidence and rightness of each document; log-likelihoods where there are."""

    confidence: Any
    right: Any
    sources: list[str]
    logs: Any
    signal: str  # where it is from, for people


def calibrate(
    cards: Sequence[Path | str],
    *,
    tasks: Sequence[str] = (),
    validation: Path | str | None = None,
    wanted: Sequence[float] = (0.05, 0.1, 0.2),
) -> list[CardCalibration]:
    """Calibration of every score of these cards (files, or folders) whose samples tell how sure the subject was.

    That is so for log-likelihoods of labels, for several answers to each prompt, which agree or not, and for answers
    that were asked to state it (``--confidence``); a score of samples that state it too is there twice.
    ``validation``: a card of the same subject on validation rows, on which the temperature is fitted; without one it
    is cross-fitted on the test. ``wanted``: error rates for which a threshold is looked for.

    Raises FinbenchError where no score tells it, and for a validation card of other weights or of the same rows.
    """
    if not all(0 < rate < 1 for rate in wanted):
        raise FinbenchError("An error rate is above 0 and below 1.", "Say 0.05 for 5 %: --error 0.05,0.1")
    names, found, reasons = {task.name for task in catalog.expand(tasks)}, [], []
    for path in cardfiles.expand(cards):
        card = cardfiles.read(path)
        rows = cardfiles.rows_by_task(path, card)
        for score in card.scores:
            if names and score.task not in names:
                continue
            if lacks := untold(card, score, rows.get(score.task, [])):
                reasons.append(f"{card.subject.name} on {score.task.removeprefix(catalog.PREFIX)}: {lacks}")
                continue
            fit = _validated(Path(validation), card, score, rows[score.task]) if validation else None
            found += of_rows(card, score, rows[score.task], fit, wanted)
    if not found:
        said = "; ".join(reasons[:3]) or "none of the cards has a score of the tasks named"
        raise FinbenchError(f"No score here tells how sure the subject was ({said}).", _FORMS)
    return found


def untold(card: Scorecard, score: Score, rows: Sequence[dict[str, Any]]) -> str:
    """Why a score does not tell how sure the subject was; empty where it does."""
    if not rows:
        return "its samples are not there"
    if card.arguments.get("labels") == "best":
        return "--arg labels=best kept bounds of all labels but the best"
    if _right(rows) is None:
        return "its answers are not simply right or wrong"
    if score.form != "choice" and samples_of(rows) == 1 and not _asked(card):
        return "one generated answer a document"
    if score.form != "choice" and samples_of(rows) == 1 and not any("confidence" in row for row in rows):
        return "it was asked how sure it is, and none of its answers says so"
    return f"fewer than {_FEWEST} documents" if score.n < _FEWEST else ""


def of_rows(
    card: Scorecard,
    score: Score,
    rows: Sequence[dict[str, Any]],
    validation: Sure | None = None,
    wanted: Sequence[float] = (0.05, 0.1, 0.2),
) -> list[CardCalibration]:
    """The calibration of one score from its sample rows, by each signal; ``untold`` has nothing against it."""
    made = []
    for sure in _signals(card, score, rows):
        found = calibration.calibrated(sure.confidence, sure.right, sure.sources, wanted)
        if sure.logs is not None:
            fit = (validation.logs, validation.right) if validation else None
            gained = calibration.tempered(sure.logs, sure.right, sure.sources, fit)
            found = replace(found, tempered=gained, accuracy=score.metrics[str(_right(rows))])
        made.append(CardCalibration(card.subject.name, score.task, sure.signal, found))
    return made


def _asked(card: Scorecard) -> bool:
    """Whether answers were asked to state how sure they are."""
    return card.generation is not None and card.generation.confidence


def _signals(card: Scorecard, score: Score, rows: Sequence[dict[str, Any]]) -> list[Sure]:
    if score.form == "choice":
        return [of_labels(rows)]
    return [*([_of_samples(rows)] if samples_of(rows) > 1 else []), *([_of_words(rows)] if _asked(card) else [])]


def _right(rows: Sequence[dict[str, Any]]) -> str | None:
    return next((name for name in RIGHT if all(row["values"].get(name) in (0, 1) for row in rows)), None)


def of_labels(rows: Sequence[dict[str, Any]]) -> Sure:
    """What log-likelihoods of labels tell."""
    logs = calibration.padded([[float(value) for value in row["answer"]] for row in rows])
    said = "log-probabilities of the labels"
    return Sure(calibration.confidences(logs), _rightness(rows), clusters_of(rows), logs, said)


def _of_samples(rows: Sequence[dict[str, Any]]) -> Sure:
    samples, name = samples_of(rows), str(_right(rows))
    groups = [rows[at : at + samples] for at in range(0, len(rows), samples)]
    shares, right = (np.array(side, float) for side in zip(*(_vote(group, name) for group in groups), strict=True))
    return Sure(shares, right, clusters_of(rows)[::samples], None, f"agreement of {samples} samples")


def _of_words(rows: Sequence[dict[str, Any]]) -> Sure:
    """As the answers state it; one that states nothing counts as not sure at all: whoever abstains leaves it out."""
    told = np.array([row.get("confidence", 0) / 100 for row in rows])
    stated = sum("confidence" in row for row in rows) / len(rows)
    said = f"confidence in words, which {100 * stated:.1f} % of the answers state; of the others it counts as 0"
    return Sure(told, _rightness(rows), clusters_of(rows), None, said)


def _rightness(rows: Sequence[dict[str, Any]]) -> Any:
    name = str(_right(rows))
    return np.array([float(row["values"][name]) for row in rows])


def _vote(group: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """Share of the samples that give the commonest reading (of several, the first), and whether it is right."""
    counts = Counter(row["reading"] for row in group if row["reading"])
    if not counts:
        return 0.0, 0.0
    reading, most = counts.most_common(1)[0]
    return most / len(group), next(float(row["values"][name]) for row in group if row["reading"] == reading)


def _validated(path: Path, card: Scorecard, score: Score, tested: Sequence[dict[str, Any]]) -> Sure:
    """What the validation card tells of the same subject, on other rows of the same kind of task."""
    other = cardfiles.read(path)
    weights = [(one.subject.base.fingerprint, one.subject.adapter, one.subject.bits) for one in (card, other)]
    if weights[0] != weights[1]:
        raise FinbenchError(f"{path} is of other weights than {card.subject.name}.", "Score the same subject on both.")
    rows = cardfiles.rows_by_task(path, other)
    fits = [own for own in other.scores if own.form == "choice" and not untold(other, own, rows.get(own.task, []))]
    if not fits:
        raise FinbenchError(f"{path} has no score that tells how sure the subject was.", _FORMS)
    chosen = next((own for own in fits if own.task == score.task), fits[0])
    if {row["doc"] for row in rows[chosen.task]} & {row["doc"] for row in tested}:
        raise FinbenchError(
            f"{path} holds rows of the test of {score.task}: a temperature is not fitted on what it is judged by.",
            "Score the validation rows: finbench eval --metadata split=validation; or leave --validation out.",
        )
    return of_labels(rows[chosen.task])
