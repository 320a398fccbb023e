"""All about one card: where it comes from, how far to believe it, its numbers taken apart, how to get it again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from finbench.cards import in_brackets, what_it_cost, who_answered
from finbench.core import catalog
from finbench.core.records import Measure, Score, Scorecard
from finbench.leaderboard import commands
from finbench.leaderboard.board import Board
from finbench.leaderboard.evidence import evidence_of
from finbench.leaderboard.payload import rounded
from finbench.leaderboard.rows import BoardCard, BoardRow
from finbench.leaderboard.store import SCORECARDS
from finbench.scoring import metrics


def of(board: Board) -> Iterator[tuple[BoardCard, Any, Callable[[], dict[str, Any]]]]:
    """Every card, all that its details are made from (None: nobody knows), and what makes them.

    One after the other, for those of thousands are large.
    """
    recipes = sorted(catalog.recipe_files())
    rows: dict[str, list[tuple[str, BoardRow]]] = {entry.key: [] for entry in board.entries}
    for test in board.tests:
        for run in (run for row in test.rows for run in row.runs or (row,)):
            rows[run.entry.key].append((test.key, run))
    for entry in board.entries:
        found, trained = entry.found, entry.trained and entry.trained.model_dump_json()
        told = [entry.key, entry.packed, entry.level, found.checks, found.notes, trained, recipes]
        made = entry.seen and [entry.seen, told, [key for key, _ in rows[entry.key]]]
        yield entry, made, functools.partial(_of, entry, rows[entry.key])


def _of(entry: BoardCard, rows: Sequence[tuple[str, BoardRow]]) -> dict[str, Any]:
    scores = {score.task: score for score in entry.whole().scores}
    return of_card(entry) | {"scores": {key: _scores(row, scores[row.score.task]) for key, row in rows}}


def of_card(entry: BoardCard) -> dict[str, Any]:
    """Everything about one card but its scores: where it comes from, how far to believe it, how to get it again."""
    card, subject = entry.card, entry.card.subject
    steps = commands.reproduce(entry)
    facts: list[tuple[str, Any]] = [
        ("Card", f"{entry.key}, in Parquet" if entry.packed else f"{SCORECARDS}/{entry.key}.json"),
        ("Status", card.status + (f", a sample of {card.limit} rows of each test" if card.limit else "")),
        ("Base", f"{subject.base.alias} ({subject.base.hub_id or 'not on the Hub'}, {subject.base.source})"),
        ("Base revision", subject.base.revision),
        ("Base fingerprint", subject.base.fingerprint),
        ("Adapter SHA-256", subject.adapter),
        ("Trained with seed", subject.seed),
        ("Computed by", f"{card.engine}, {card.dtype}, {card.form}; asked by {card.origin}"),
        ("Arguments", ", ".join(f"{key}={value}" for key, value in card.arguments.items())),
        ("Prompts", f"{'chat template' if subject.chat else 'raw'}, {card.shots or 'zero'} shots"),
        ("Answers", _generated(card)),
        ("Machine", entry.machine),
        ("Run", f"{card.seconds:,.0f} s, peak memory {card.peak_memory_bytes / 1e9:.2f} GB"),
        ("Made", f"{card.provenance.created} by finbench {card.provenance.finbench}, Python {card.provenance.python}"),
        ("Packages", ", ".join(f"{name} {version}" for name, version in card.provenance.packages.items())),
        ("Samples SHA-256", card.samples),
    ]
    if entry.trained is not None:
        run, made = entry.trained.record.training, entry.trained.record.provenance.hardware
        machine = made.get("gpu", made.get("cpu", "?"))
        facts += [
            ("Training", f"{run.rows:,} rows, {run.steps:,} steps, {run.tokens:,} tokens in {run.seconds:,.0f} s"),
            ("Training speed", f"{run.tokens_per_second:,.0f} tokens/s on {machine}"),
            ("Training memory", f"{run.peak_memory_bytes / 1e9:.2f} GB"),
            ("Final loss", f"{run.final_loss:.4f}"),
        ]
    return {
        "facts": [[name, str(value)] for name, value in facts if value not in (None, "")],
        "steps": [list(step) for step in steps.steps],
        "recipe": list(steps.recipe) if steps.recipe else None,
        "checks": entry.found.checks[:40],
        "notes": entry.found.notes[:40],
    }


def _generated(card: Scorecard) -> str:
    """How answers were generated; empty for the plain way."""
    stated = card.generation.model_dump(exclude_none=True) if card.generation else {}
    return ", ".join(f"{name} {value}" for name, value in stated.items() if (name, value) != ("samples", 1))


def _scores(row: BoardRow, score: Score) -> dict[str, Any]:
    overlap = score.overlap
    return {
        "metrics": [_measure(name, measure) for name, measure in score.metrics.items()],
        "lenient": [_measure(name, measure) for name, measure in score.lenient.items()],
        "parsed": _measure("parse_rate", score.parse_rate),
        "breakdown": proof.breakdown if (proof := evidence_of(score, row.entry.samples)) else None,
        "facts": [
            ["Task", f"{score.task}, version {score.version}, {score.task_digest}"],
            ["Data", f"{score.data.set}, {score.data.split}, {score.data.digest}"],
            ["From", " ".join(filter(None, [score.data.origin or "not stated", score.data.revision]))],
            ["Documents", f"{score.n:,} in {score.clusters:,} groups of one source"],
            ["Interval", score.main.method],
            ["Truncated prompts", str(score.truncated)],
            *_answers(score),
            *([["Answered by", who_answered(told)], ["Cost", what_it_cost(score)]] if (told := score.hosted) else []),
            ["Test texts in training", f"{overlap.texts:,} of {overlap.of:,}" if overlap else "not known"],
        ],
    }


def _answers(score: Score) -> list[list[str]]:
    """What generated answers took, and what several samples give together."""
    if score.answers is None:
        return []
    found, share = score.answers, metrics.is_share("acc")
    told = [
        ["Tokens of answers", f"{found.thinking_tokens:,} of reasoning, {found.answer_tokens:,} after it"],
        ["Cut off by the budget", f"{in_brackets(found.truncated, share)} %"],
    ]
    told += [["Accuracy of the majority", f"{in_brackets(found.majority, share)} %"]] if found.majority else []
    return told + [[f"pass@{k}", f"{in_brackets(measure, share)} %"] for k, measure in found.pass_at.items()]


def _measure(name: str, measure: Measure) -> list[Any]:
    return [metrics.spoken(name), metrics.is_share(name), *rounded(measure)]
