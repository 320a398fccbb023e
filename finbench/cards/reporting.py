"""A table as in a paper, from scorecards: Markdown, LaTeX (booktabs) or HTML, with plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles, plots
from finbench.cards.comparison import LEVEL, aggregation_of, difference, documents, follows, setup_of
from finbench.cards.plots import Column, Line, Table, TableCell
from finbench.cards.render import conditions_of, describe_subject, from_template
from finbench.core import catalog
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import write_atomic
from finbench.core.records import Measure, Score, Scorecard
from finbench.scoring import clusters_of, hidden_metrics, holm, seed_spread, values_of, welch

FORMATS = {"md": "table.md.j2", "latex": "table.tex.j2", "html": "table.html.j2"}
SPREADS = ("interval", "seeds")


@dataclass(frozen=True)
class SeedRun:
    """One subject's score in one task, with its sample rows if the card has them."""

    card: Scorecard
    score: Score
    rows: list[dict[str, Any]] | None


def report(
    cards: Sequence[Path | str],
    *,
    format: str = "md",
    spread: str = "interval",
    tasks: Sequence[str] = (),
    out: Path | None = None,
) -> str:
    """Render the scorecards (files, or folders of them) as one table; also written to ``out`` if that is named.

    ``spread``: ``interval`` shows 95 % intervals over documents, a line a card; ``seeds`` shows mean and standard
    deviation of subjects that differ only in their seed. Bold is who is significantly better than every other
    line of its column (paired permutation tests, or Welch's t test over seeds; 5 %, Holm over the table); a
    dagger marks who is not significantly different from the best. Plots are part of HTML; for other formats they
    are written as SVG beside ``out``.

    Raises FinbenchError for a file that is no scorecard, and an unknown format, spread or task.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, "finbench report --help")
    if spread not in SPREADS:
        raise unknown("spread", spread, SPREADS, "finbench report --help")
    names = [task.name for task in catalog.expand(tasks)]
    shown = table(cardfiles.expand(cards), spread, names)
    text = from_template(FORMATS[format], escape=format == "html", t=shown)
    if out is not None:
        if format != "html":
            for number, (_, svg) in enumerate(shown.plots):
                slug = re.sub(r"[^a-z0-9]+", "-", shown.columns[number].title.lower())
                write_atomic(out.with_name(f"{out.stem}-{slug}.svg"), svg)
        write_atomic(out, text)
    return text


def table(files: Sequence[Path], spread: str = "interval", tasks: Sequence[str] = ()) -> Table:
    """The table of these cards: columns by family and task, subjects in the order of their mean, bases first."""
    by_key: dict[str, Column] = {}
    runs: dict[tuple[str, str], dict[str, list[SeedRun]]] = {}  # (name, what) -> task -> runs
    read: set[str] = set()
    for path in files:
        card = cardfiles.read(path)
        if (text := card.to_json()) in read:
            continue  # a copy in another folder is no second run
        read.add(text)
        rows = cardfiles.rows_by_task(path, card)
        scores = {_key(card, score): score for score in card.scores if not tasks or score.task in tasks}
        for score in scores.values():
            if score.task in rows:
                follows(score, rows[score.task], path)
        who = _who(card, spread)
        if not all(
            _one_line(card, run.card, key in scores, spread) for key, own in runs.get(who, {}).items() for run in own
        ):
            who = f"{who[0]} ({path.with_suffix('')})", who[1]  # another run, or another subject, of the same name
        for key, score in scores.items():
            by_key.setdefault(key, Column(score, conditions_of(card)))
            runs.setdefault(who, {}).setdefault(key, []).append(SeedRun(card, score, rows.get(score.task)))
    if not by_key:
        raise FinbenchError("None of the cards has a score of the tasks named.", "See them all: finbench tasks list")
    order = sorted(by_key, key=lambda e: (by_key[e].score.family, by_key[e].score.form == "choice", by_key[e].title, e))
    columns = _told_apart([by_key[key] for key in order])
    by_key = dict(zip(order, columns, strict=True))
    lines = [
        Line(name, what, [_cell(found.get(key), by_key[key]) for key in order])
        for (name, what), found in _ordered(runs)
    ]
    tested = _mark(lines, columns, [[found.get(key) for key in order] for _, found in _ordered(runs)], spread)
    lines += _baselines(columns)
    families = _means(columns, lines)
    made = Table(columns, families, lines, spread, tested)
    made.plots = [(column.title, plots.forest(made, number)) for number, column in enumerate(columns)]
    return made


def _key(card: Scorecard, score: Score) -> str:
    return str(sorted((k, str(v)) for k, v in (setup_of(card, score) | {"task": score.task}).items()))


def _told_apart(columns: list[Column]) -> list[Column]:
    """Columns of one title, which are other versions of a task or other rows, say which."""
    titles = [column.title for column in columns]
    return [
        column
        if titles.count(column.title) == 1
        else replace(
            column,
            conditions=(*column.conditions, f"v{column.score.version}", f"data {column.score.data.digest[:6]}"),
        )
        for column in columns
    ]


def _who(card: Scorecard, spread: str) -> tuple[str, str]:
    """Name and description of the line a card belongs to; with ``seeds``, without its seed."""
    subject = card.subject
    what = describe_subject(subject)
    if spread == "seeds" and subject.seed is not None:
        return subject.name.removesuffix(f"-s{subject.seed}"), what
    return subject.name, what


def _one_line(card: Scorecard, other: Scorecard, same_setup: bool, spread: str) -> bool:
    """Two cards of one name are one line: the same subject in different tasks, or other seeds of it in the same."""
    one, two = card.subject, other.subject
    if (one.base.alias, one.base.fingerprint) != (two.base.alias, two.base.fingerprint):
        return False
    if spread == "seeds" and one.seed != two.seed:
        return True
    return one.adapter == two.adapter and not same_setup


def _ordered(runs: dict[tuple[str, str], Any]) -> list[tuple[tuple[str, str], Any]]:
    """Bases first, then by name."""
    return sorted(runs.items(), key=lambda item: (item[0][1].partition(",")[0] != "base", item[0]))


def _cell(runs: list[SeedRun] | None, column: Column) -> TableCell | None:
    if not runs:
        return None
    values = tuple(run.score.main.value for run in runs)
    if len(values) == 1:
        return TableCell(runs[0].score.main, column.share, values)
    spread = seed_spread(values)
    return TableCell(
        Measure(value=spread.mean, low=spread.low, high=spread.high, method="Student's t over seeds"),
        column.share,
        values,
    )


# ---------------------------------------------------------------- who is best


def _mark(lines: list[Line], columns: list[Column], runs: list[list[list[SeedRun] | None]], spread: str) -> bool:
    """Set ``best`` and ``tied`` in every column; False where nothing could be tested."""
    tests: list[tuple[int, int, int, float | None]] = []  # column, best line, other line, p
    for number, column in enumerate(columns):
        sign = -1 if column.score.main_metric in column.score.lower_is_better else 1
        present = [(line, cell) for line, cells in enumerate(lines) if (cell := cells.cells[number]) is not None]
        best = max(present, key=lambda pair: sign * pair[1].measure.value)[0]
        for line, _ in present:
            if line != best:
                tests.append((number, best, line, _p(runs[best][number], runs[line][number], column, spread)))
    if all(p is None for *_, p in tests):
        return False
    adjusted = holm([1.0 if p is None else p for *_, p in tests])
    for number in range(len(columns)):
        mine = [(best, line, p) for (c, best, line, _), p in zip(tests, adjusted, strict=True) if c == number]
        if not mine:
            continue
        level = [line for _, line, p in mine if p >= LEVEL]
        _set(lines[mine[0][0]], number, best=not level, tied=bool(level))
        for line in level:
            _set(lines[line], number, best=False, tied=True)
    return True


def _set(line: Line, number: int, *, best: bool, tied: bool) -> None:
    cell = line.cells[number]
    assert cell is not None
    line.cells[number] = replace(cell, best=best, tied=tied)


def _p(a: list[SeedRun] | None, b: list[SeedRun] | None, column: Column, spread: str) -> float | None:
    """p-value that two lines of a column are alike; None where that cannot be tested."""
    assert a
    assert b
    if spread == "seeds":
        if max(len(a), len(b)) < 2:
            return None
        return welch([run.score.main.value for run in a], [run.score.main.value for run in b])
    one, other = a[-1].rows, b[-1].rows
    if not one or not other or documents(one) != documents(other):
        return None
    if column.score.main_metric in hidden_metrics(one) | hidden_metrics(other):
        return None
    values = [values_of(rows)[column.score.main_metric] for rows in (one, other)]
    how = aggregation_of(column.score.task, column.score.main_metric)
    names = f"{a[-1].card.subject.name} or {b[-1].card.subject.name}"
    return difference(values[0], values[1], how, clusters_of(one), names).p


# ---------------------------------------------------------------- baselines and means


def _baselines(columns: list[Column]) -> list[Line]:
    lines = []
    for name in ("majority", "random"):
        values = [column.score.baselines.get(name, {}).get(column.score.main_metric) for column in columns]
        if any(value is not None for value in values):
            cells = [
                None
                if value is None
                else TableCell(Measure(value=value, low=None, high=None, method=""), column.share, exact=True)
                for value, column in zip(values, columns, strict=True)
            ]
            lines.append(Line(f"{name} label", "no model", cells, baseline=True))
    return lines


def _means(columns: list[Column], lines: list[Line]) -> list[str]:
    """Add the mean over each family of at least two tasks to the lines that have them all; return the headings."""
    members: dict[tuple[str, str], list[int]] = {}
    for number, column in enumerate(columns):
        if column.share and not column.conditions:
            members.setdefault(column.family, []).append(number)
    chosen = {family: numbers for family, numbers in members.items() if len(numbers) > 1}
    for line in lines:
        for numbers in chosen.values():
            values = [cell.measure.value for n in numbers if (cell := line.cells[n]) is not None]
            line.means.append(sum(values) / len(values) if len(values) == len(numbers) else None)
    both = {family for family, form in chosen if (family, "choice") in chosen and (family, "generate") in chosen}
    return [f"{family}, {form}" if family in both else family for family, form in chosen]
