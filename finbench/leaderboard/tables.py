"""The leaderboard as tables: Markdown for readers, CSV, JSON and Parquet for programs."""

from __future__ import annotations

import csv
import io
import json
import operator
import re
from collections.abc import Sequence
from typing import Any

from finbench.cards import amount, describe_subject, from_template, in_brackets, percent
from finbench.core import catalog
from finbench.core.prose import wrapped
from finbench.core.strict import Record
from finbench.leaderboard import published, trainings
from finbench.leaderboard.board import FAMILIES, Board
from finbench.leaderboard.rows import BoardRow, BoardTest
from finbench.scoring import floors, metrics

COLUMNS = (
    "family", "task", "task_version", "task_digest", "data_digest", "prompt_style", "chat", "shots", "whole_test", "n",
    "group", "subject", "base", "base_fingerprint", "adapter", "method", "bits", "format", "rank", "seed", "metric",
    "value", "low", "high", "parse_rate", "trainable_parameters", "peak_memory_bytes", "tokens_per_second",
    "seconds_per_1000_documents", "machine", "overlap", "evidence", "card", "profile", "lenient", "truncated",
    "thinking_tokens", "trainings", "seed_deviation", "training_rows", "training_steps", "learning_rate", "rate_chosen",
)  # fmt: skip
_WHOLE_NUMBERS = {
    "task_version", "shots", "n", "group", "bits", "rank", "trainable_parameters", "peak_memory_bytes", "trainings",
    "training_rows", "training_steps",
}  # fmt: skip
_FRACTIONS = {
    "value", "low", "high", "parse_rate", "tokens_per_second", "seconds_per_1000_documents", "overlap", "lenient",
    "truncated", "thinking_tokens", "seed_deviation", "learning_rate",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # East Asian input has wide ones
_YES_OR_NO = {"chat", "whole_test"}
_CELL = re.compile("([;\t])(?=[=+\\-@＝＋－＠])")
_values = operator.itemgetter(*COLUMNS)
Columns = dict[str, list[Any]]
READ = 100  # rows of a table of Markdown: it is for reading; programs have the others


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
        seeds=seeds,
        most=READ,
        spoken=metrics.spoken,
        floors=floors,
    )
    return wrapped(page)


def line(test: BoardTest, row: BoardRow) -> list[str]:
    """Cells of a row of a Markdown table."""
    card, subject = row.entry.card, row.entry.card.subject
    return [
        str(row.group or "–"),
        row.name,
        subject.base.alias,
        describe_subject(subject),
        *_of_trainings(test, row),
        in_brackets(row.main, test.share),
        percent(row.score.parse_rate.value),
        *_of_answers(test, row),
        "–" if subject.trainable_parameters is None else f"{subject.trainable_parameters:,}",
        f"{card.peak_memory_bytes / 1e9:.1f}" if card.peak_memory_bytes else "–",
        "–" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        "–" if row.cost is None else f"{row.cost:,.0f}",
        row.entry.level,
    ]


def _of_trainings(test: BoardTest, row: BoardRow) -> list[str]:
    """How many and how far apart; rows, steps and rate of one of them, where its record tells."""
    many = "–" if row.trainings is None else str(row.trainings)
    if row.deviation is not None:
        many += f" ± {amount(row.deviation, test.share)}"
    took = trainings.budget(row.entry)
    if took is None:
        return [many, "–", "–", "–"]
    return [many, f"{took.rows:,}", f"{took.steps:,}", f"{took.rate:g}, {took.chosen}"]


def seeds(test: BoardTest) -> str:
    """How far the seeds of one recipe are known to scatter in a test, and from where; empty without trainings."""
    if not test.ranked or not any(row.trainings for row in test.rows):
        return ""
    known = test.spread
    if known is None:
        return "How far seeds scatter is not known here: no training is grouped above another."
    elsewhere = "" if known.tasks == (test.score.task,) else f" of {', '.join(map(_short, known.tasks))}, here unknown"
    deviation = f"{amount(known.variance.deviation, test.share)}{' points' if test.share else ''}"
    many = "1 recipe" if known.recipes == 1 else f"{known.recipes} recipes"
    return f"Seeds scatter by ± {deviation} (pooled over {known.trainings} trainings of {many}{elsewhere})."


def _short(task: str) -> str:
    return catalog.tasks()[task].name.removeprefix(catalog.PREFIX)


def _of_answers(test: BoardTest, row: BoardRow) -> list[str]:
    """Lenient; of answers that were not generated directly also cut off, and tokens of reasoning an answer."""
    lenient, answers = row.score.lenient.get(row.score.main_metric), row.score.answers
    cells = [amount(lenient.value, test.share) if lenient else "–"] if test.lenient else []
    if test.generated:
        cells += [percent(answers.truncated.value) if answers else "–"]
        cells += ["–" if row.thinking is None else f"{row.thinking:,.0f}"]
    return cells


def columns(board: Board) -> Columns:
    """The values of ``COLUMNS``, in their order, of every row of every test; numbers in full."""
    cards: dict[int, dict[str, Any]] = {}  # what is said of a row's trainings, which many rows have
    # row by row, for memory of 100,000 is far apart
    lines = (_values(_record(test, row, cards)) for test in board.tests for row in test.rows)
    found = dict(zip(COLUMNS, map(list, zip(*lines, strict=True)), strict=False))
    return found or {name: [] for name in COLUMNS}  # no row has no columns to turn


def as_csv(found: Columns) -> str:
    """Rows, a line each; text that a spreadsheet would run is quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found)
    numbers, shown = _WHOLE_NUMBERS | _FRACTIONS, dict(found)
    for name, values in found.items():
        if name not in numbers:
            safe = {value: _safe(value) for value in set(values)}
            shown[name] = [safe[value] for value in values]
    writer.writerows(zip(*shown.values(), strict=True))
    return text.getvalue()


def as_json(found: Columns) -> str:
    """Names of columns and lists of values, a line each: pandas reads it with ``orient="split"``."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    lines = map(encode, zip(*found.values(), strict=True))
    return f'{{"columns":{json.dumps(COLUMNS)},"data":[\n' + ",\n".join(lines) + "\n]}\n"


def as_parquet(found: Columns) -> bytes:
    """Rows as Parquet, where pyarrow is installed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str) -> pa.DataType:
        if name in _YES_OR_NO:
            return pa.bool_()
        return pa.int64() if name in _WHOLE_NUMBERS else pa.float64() if name in _FRACTIONS else pa.string()

    arrays = {}
    for name, values in found.items():
        own = kind(name)
        text = own == pa.string()
        arrays[name] = pa.array([None if one is None else str(one) for one in values] if text else values, own)
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return sink.getvalue()


def same_parquet(one: bytes, other: bytes) -> bool:
    """Whether two files of Parquet hold the same table: their bytes depend on the version that wrote them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool(pq.read_table(io.BytesIO(one)).equals(pq.read_table(io.BytesIO(other))))
    except (pa.ArrowException, OSError):
        return False


def _listed(values: Sequence[Any]) -> Any:
    """One value as it is, several with blanks between them."""
    return values[0] if len(values) == 1 else " ".join(map(str, values))


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted, also where it takes a semicolon for a new cell."""
    if not isinstance(value, str):
        return value
    return _CELL.sub("\\1'", f"'{value}" if value.startswith(_FORMULA) else value)


def _named(record: Record, *names: str) -> dict[str, Any]:
    """Fields with plain values: a tenth of the time of ``model_dump``, and there may be 100,000 rows."""
    return {name: getattr(record, name) for name in names}


def _of_card(row: BoardRow) -> dict[str, Any]:
    card, subject = row.entry.card, row.entry.card.subject
    runs, took = [run.entry for run in row.runs or (row,)], trainings.budget(row.entry)
    return {
        **_named(subject, "chat", "method", "bits", "rank", "trainable_parameters"),
        "format": card.format,
        "adapter": _listed([run.card.subject.adapter for run in runs]),
        "seed": _listed([run.card.subject.seed for run in runs]),
        "training_rows": took and took.rows,
        "training_steps": took and took.steps,
        "learning_rate": took and took.rate,
        "rate_chosen": took and took.chosen,
        "shots": card.shots,
        "subject": row.name,
        "base": subject.base.alias,
        "base_fingerprint": subject.base.fingerprint,
        "peak_memory_bytes": card.peak_memory_bytes,
        "machine": row.entry.machine,
        "evidence": row.entry.level,
        "card": _listed([run.key for run in runs]),
        "profile": card.generation.profile if card.generation else "direct",
    }


def _record(test: BoardTest, row: BoardRow, cards: dict[int, dict[str, Any]]) -> dict[str, Any]:
    score, tokens, cost = row.score, row.tokens_per_second, row.cost
    key = id(row if row.runs else row.entry)  # of some tests not every training may be there
    said = cards.get(key) or cards.setdefault(key, _of_card(row))
    return {
        **said,
        "trainings": row.trainings,
        "seed_deviation": row.deviation,
        **_named(score, "family", "task", "task_digest", "prompt_style", "n"),
        **_named(row.main, "value", "low", "high"),
        "task_version": score.version,
        "data_digest": score.data.digest,
        "whole_test": test.whole,
        "group": row.group,
        "metric": score.main_metric,
        "parse_rate": score.parse_rate.value,
        "tokens_per_second": None if tokens is None else round(tokens, 2),
        "seconds_per_1000_documents": None if cost is None else round(cost, 3),
        "overlap": row.seen,
        "lenient": score.lenient[score.main_metric].value if score.main_metric in score.lenient else None,
        "truncated": score.answers.truncated.value if score.answers else None,
        "thinking_tokens": None if row.thinking is None else round(row.thinking, 2),
    }
