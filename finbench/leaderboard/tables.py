"""The leaderboard as text: Markdown for readers, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from finbench.cards import amount, describe_subject, from_template, in_brackets, percent
from finbench.core.prose import wrapped
from finbench.leaderboard import published
from finbench.leaderboard.board import FAMILIES, Board, BoardRow, BoardTest
from finbench.scoring import BASELINES, metrics

COLUMNS = (
    "family", "task", "task_version", "task_digest", "data_digest", "prompt_style", "chat", "shots", "whole_test", "n",
    "group", "subject", "base", "base_fingerprint", "adapter", "method", "bits", "rank", "seed", "metric", "value",
    "low", "high", "parse_rate", "trainable_parameters", "peak_memory_bytes", "tokens_per_second",
    "seconds_per_1000_documents", "machine", "overlap", "evidence", "card", "profile", "lenient", "truncated",
    "thinking_tokens",
)  # fmt: skip


def markdown(board: Board, blocks: Sequence[published.PublishedScore]) -> str:
    """Tables by family and test, whole tests before partial ones, and what others published at the end."""
    sections = [(title, board.family(name)) for name, title in FAMILIES.items()]
    page = from_template(
        "leaderboard/leaderboard.md.j2",
        escape=False,
        sections=[(title, tests) for title, tests in sections if tests],
        published=blocks,
        marks=published.marks,
        line=line,
        spoken=metrics.spoken,
        baselines=BASELINES,
    )
    return wrapped(page)


def line(test: BoardTest, row: BoardRow) -> list[str]:
    """Cells of a row of a Markdown table."""
    card, subject = row.entry.card, row.entry.card.subject
    return [
        str(row.group or "–"),
        row.entry.name,
        subject.base.alias,
        describe_subject(subject),
        in_brackets(row.score.main, test.share),
        percent(row.score.parse_rate.value),
        *_of_answers(test, row),
        "–" if subject.trainable_parameters is None else f"{subject.trainable_parameters:,}",
        f"{card.peak_memory_bytes / 1e9:.1f}" if card.peak_memory_bytes else "–",
        "–" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        "–" if row.cost is None else f"{row.cost:,.0f}",
        row.entry.level,
    ]


def _of_answers(test: BoardTest, row: BoardRow) -> list[str]:
    """Lenient; of answers that were not generated directly also cut off, and tokens of reasoning an answer."""
    lenient, answers = row.score.lenient.get(row.score.main_metric), row.score.answers
    cells = [amount(lenient.value, test.share) if lenient else "–"] if test.lenient else []
    if test.generated:
        cells += [percent(answers.truncated.value) if answers else "–"]
        cells += ["–" if row.thinking is None else f"{row.thinking:,.0f}"]
    return cells


def table(board: Board) -> str:
    """Every row of every test, a line each; numbers in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for test in board.tests:
        for row in test.rows:
            writer.writerow({key: _safe(value) for key, value in _record(test, row).items()})
    return text.getvalue()


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _record(test: BoardTest, row: BoardRow) -> dict[str, Any]:
    card, score, subject = row.entry.card, row.score, row.entry.card.subject
    tokens, cost = row.tokens_per_second, row.cost
    same_names = {"chat", "adapter", "method", "bits", "rank", "seed", "trainable_parameters"}
    return {
        **subject.model_dump(include=same_names),
        **score.model_dump(include={"family", "task", "task_digest", "prompt_style", "n"}),
        **score.main.model_dump(include={"value", "low", "high"}),
        "task_version": score.version,
        "data_digest": score.data.digest,
        "shots": card.shots,
        "whole_test": test.whole,
        "group": row.group,
        "subject": row.entry.name,
        "base": subject.base.alias,
        "base_fingerprint": subject.base.fingerprint,
        "metric": score.main_metric,
        "parse_rate": score.parse_rate.value,
        "peak_memory_bytes": card.peak_memory_bytes,
        "tokens_per_second": None if tokens is None else round(tokens, 2),
        "seconds_per_1000_documents": None if cost is None else round(cost, 3),
        "machine": row.entry.machine,
        "overlap": row.seen,
        "evidence": row.entry.level,
        "card": row.entry.key,
        "profile": card.generation.profile if card.generation else "direct",
        "lenient": score.lenient[score.main_metric].value if score.main_metric in score.lenient else None,
        "truncated": score.answers.truncated.value if score.answers else None,
        "thinking_tokens": None if row.thinking is None else round(row.thinking, 2),
    }
