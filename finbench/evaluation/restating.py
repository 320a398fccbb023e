"""Older scorecards, stated anew: today's scorers and today's intervals on the answers that were recorded.

A score of a task's present version keeps its sample rows and gets the intervals that they give today. One of an
earlier version is scored again from its answers, if the same questions are asked today and every answer is known: of
restricted sets the rows hold salted hashes, which only give away what models usually say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles, gold_and_answer
from finbench.core import catalog
from finbench.core.console import quiet
from finbench.core.files import sha256_file, stable_json
from finbench.core.records import SCHEMA, Measure, Restatement, Score, Scorecard, Task
from finbench.core.seal import salted
from finbench.core.version import __version__
from finbench.evaluation import rescore, verification
from finbench.scoring import baselines, clusters_of, metrics, prompts, sample_counts, split_metrics, values_of

_SAME = 1e-6  # as verification: intervals come of the same seed, but older ones have Student's t to seven digits
_SHOWN = 3  # faults of a card


@dataclass(frozen=True)
class Restated:
    """What became of a card: what changed in it, a line each, or why it could not be restated."""

    path: Path
    changes: list[str] = field(default_factory=list)
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"card": str(self.path), "changes": self.changes, "refused": self.refused or None}


def restate(cards: Sequence[Path | str], *, data_dir: Path | None = None, dry_run: bool = False) -> list[Restated]:
    """Restate scorecards (files, or folders of them) where they lie; a card in which nothing changes stays as it is.

    A card is restated whole or not at all, and only if nothing is wrong with it: what is refused says why. The new
    card names the SHA-256 of the one before. ``dry_run``: only say what would change.
    """
    quiet()
    return [_restated(path, data_dir, dry_run) for path in cardfiles.expand(cards)]


def _restated(path: Path, data_dir: Path | None, dry_run: bool) -> Restated:
    found = verification.verify(path, data_dir=data_dir)
    if found.faults:
        first = "; ".join(f"{fault.field} {fault.message}" for fault in found.faults[:_SHOWN])
        return Restated(path, refused=f"it cannot be trusted: {first}")
    card, before = cardfiles.read(path), sha256_file(path)
    if card.samples is None:
        return Restated(path, refused="it has no samples")
    try:
        made, rows = _anew(path, card, data_dir)
    except _Refused as reason:
        return Restated(path, refused=str(reason))
    changes = _changes(card, made)
    if changes and not dry_run:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = made.model_copy(update={"restated": Restatement(finbench=__version__, created=now, before=before)})
        with cardfiles.lock(path.parent):
            if sha256_file(path) != before:
                return Restated(path, refused="another process has written it meanwhile")
            cardfiles.write(path, made, [row for score in made.scores for row in rows[score.task]])
    return Restated(path, changes)


class _Refused(Exception):
    """Why a card cannot be restated."""


def _anew(path: Path, card: Scorecard, data_dir: Path | None) -> tuple[Scorecard, dict[str, list[dict[str, Any]]]]:
    """The card as today's finbench states it, with its sample rows by task."""
    rows, scores = cardfiles.rows_by_task(path, card), []
    for score in card.scores:
        task = catalog.tasks()[score.task]
        if card.schema_ > 0 and score.version == task.version:
            own = rows[score.task]
        else:
            score, own = _upgraded(card, score, task, rows[score.task], data_dir)
        rows[score.task] = own
        scores.append(_measured(score, own))
    made = card.model_copy(update={"schema_": SCHEMA, "scores": scores})
    if made != card and card.origin == "finbench":
        made = made.model_copy(update={"run_key": cardfiles.run_key(made)})
    return made, rows


def _measured(score: Score, rows: list[dict[str, Any]]) -> Score:
    """The score with today's measures of its rows; what rows cannot give, and what did not change, stays as it is."""
    found = split_metrics(values_of(rows), metrics.aggregations(score.task), clusters_of(rows))
    strict, lenient, parse_rate = found
    return score.model_copy(
        update={
            "metrics": score.metrics | {name: _kept(score.metrics.get(name), new) for name, new in strict.items()},
            "lenient": score.lenient | {name: _kept(score.lenient.get(name), new) for name, new in lenient.items()},
            "parse_rate": _kept(score.parse_rate, parse_rate),
        }
    )


def _kept(old: Measure | None, new: Measure) -> Measure:
    """The old measure where the new one differs by rounding alone."""
    if old is None or old.method != new.method or (old.interval is None) != (new.interval is None):
        return new
    ends = zip((old.value, *(old.interval or ())), (new.value, *(new.interval or ())), strict=True)
    return old if all(abs(one - other) <= _SAME for one, other in ends) else new


def _upgraded(
    card: Scorecard, score: Score, task: Task, rows: Sequence[Mapping[str, Any]], data_dir: Path | None
) -> tuple[Score, list[dict[str, Any]]]:
    """A score of an earlier version, or of schema 0, and its rows, made of its answers by today's scorer."""
    name, here = score.task, f"{score.task} is of version {score.version}, here it is {task.version}"
    if score.version in metrics.asked_otherwise(name):
        raise _Refused(f"{here}: it asked other questions")
    if card.shots and score.version != task.version:
        raise _Refused(f"{here}: its worked examples were drawn in another way")
    if not rescore.at_hand(task, data_dir):
        raise _Refused(f"{here}, and its rows are not on this machine ({task.data})")
    exam = prompts.load([task], data_dir, metadata=rescore.choices(card, task))[name]
    docs = prompts.rows(exam, "test")[: card.limit]
    # rows of a set have not always lain in today's order
    place = {salted(prompts.shown(exam, doc)): number for number, doc in enumerate(docs)}
    if len(place) != len(docs) or sorted(row["doc"] for row in rows) != sorted(place):
        raise _Refused(f"{here}, and the rows on this machine are of another edition, or asked in other words")
    again = rescore.again(task, exam, rows, {row["index"]: place[row["doc"]] for row in rows})
    if len(again) < len(rows):
        lost = len(rows) - len(again)
        raise _Refused(f"{here}, and {lost:,} of its {len(rows):,} answers are hashes of words that nobody can guess")
    if any(_golds(row) - _golds(again[row["index"]]) for row in rows):
        raise _Refused(f"{here}, and the rows on this machine have other right answers")
    made = sorted(again.values(), key=lambda row: int(row["index"]))
    stated = {
        "data": prompts.data_id(task, exam, "test", docs),
        "version": task.version,
        "task_digest": task.digest,
        "family": task.family,
        "main_metric": task.main_metric,
        "licence": task.licence,
        "metrics": {},
        "lenient": {},
        "lower_is_better": metrics.lower_is_better(name),
        "baselines": baselines(exam, docs),
        "prompt_style": task.prompt_style,
        **sample_counts(made),
    }
    return score.model_copy(update=stated), made


def _golds(row: Mapping[str, Any]) -> set[str]:
    """The right answers that a row states, in metrics that state one."""
    return {gold for value in row["values"].values() if (gold := gold_and_answer(value)[0]) is not None}


def _changes(before: Scorecard, after: Scorecard) -> list[str]:
    """What is different, a line each."""
    lines = [] if before.schema_ == after.schema_ else [f"schema: {before.schema_} -> {after.schema_}"]
    for old, new in zip(before.scores, after.scores, strict=True):
        if old.version != new.version:
            lines.append(f"{new.task}: version {old.version} -> {new.version}")
        for group in ("metrics", "lenient"):
            one, other = getattr(old, group), getattr(new, group)
            lines += [_line(f"{new.task}.{group}.{name}", one.get(name), other[name]) for name in other]
        lines.append(_line(f"{new.task}.parse_rate", old.parse_rate, new.parse_rate))
        if old != new and not any(lines):
            lines.append(f"{new.task}: counts or baselines")
    lines = [line for line in lines if line]
    return lines or (["the card"] if stable_json(before.model_dump()) != stable_json(after.model_dump()) else [])


def _line(place: str, old: Measure | None, new: Measure) -> str:
    if old is None:
        return f"{place}: {_said(new)}, which is new"
    return "" if old == new else f"{place}: {_said(old)} -> {_said(new)}"


def _said(measure: Measure) -> str:
    ends = "no interval" if measure.interval is None else "{:.4f} to {:.4f}".format(*measure.interval)
    return f"{measure.value:.4f} ({ends})"
