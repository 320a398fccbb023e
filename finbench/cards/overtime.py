"""A score by the year of its documents, beside the date up to which the base has read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.cards import cardfiles
from finbench.cards.comparison import aggregation_of
from finbench.cards.verdicts import shown_points
from finbench.core import catalog, paths
from finbench.core.catalog import Cutoff
from finbench.core.errors import FinbenchError
from finbench.core.records import BaseModelId, Measure, Score, Scorecard, Task
from finbench.core.seal import salted
from finbench.scoring import (
    clusters_of,
    group_difference,
    hidden_metrics,
    measure,
    metrics,
    prompts,
    samples_of,
    values_of,
    years,
)

_SETS = "Years are known of fomc, finqa, convfinqa, financebench and of questions about filings (xbrl_values ...)"
_DATED = {"fomc", "finqa", "convfinqa", "financebench"}  # sets of which every import has years now
_FILINGS = {"xbrl_tags", "xbrl_values", "xbrl_formula", "xbrl_calc", "xbrl_reason"}  # which name theirs, most of them
_DATE = re.compile(r"(?:19|20)\d{2}(?:-(?:0[1-9]|1[0-2]))?")


@dataclass(frozen=True)
class Period:
    """The documents of one year, or of all years on one side of the cut-off."""

    name: str
    n: int
    score: Measure


@dataclass(frozen=True)
class OverTime:
    """One score by year."""

    subject: str
    task: str
    metric: str
    dated: int  # documents whose year is known
    n: int
    cutoff: Cutoff | None
    years: list[Period]
    sides: list[Period]  # before the year of the cut-off, in it, and after it, as far as there are documents
    difference: Measure | None  # after minus before

    @property
    def said(self) -> str:
        """What can be told of text that the base has not read, in a sentence or two."""
        if self.cutoff is None:
            return "Up to when its base has read nobody has stated: --cutoff 2024-08."
        told = f"Its base has read up to {self.cutoff.date} ({self.cutoff.source})."
        if self.difference is None:
            late = any(part.name.startswith("after") for part in self.sides)
            return f"{told} No document here is {'earlier' if late else 'later'}: no before and after to compare."
        ends = " to ".join(shown_points(self.metric, end) for end in self.difference.interval or ())
        return f"{told} After minus before: {shown_points(self.metric, self.difference.value)}" + (
            f" [{ends}]." if ends else f" (no interval: {self.difference.lacking})."
        )


def cutoff_of(base: BaseModelId, stated: str | None = None) -> Cutoff | None:
    """The cut-off that the user ``stated`` (2024, or 2024-08), else the one that bases.yaml has; None for no other."""
    if stated is not None:
        if not _DATE.fullmatch(stated):
            raise FinbenchError(f"--cutoff {stated}: no date.", "Write a year, or a year and its month: 2024-08")
        return Cutoff(date=stated, source="as stated by --cutoff")
    known = (one for one in catalog.bases().values() if one.alias == base.alias or one.hub_id == base.hub_id)
    return next((one.cutoff for one in known if one.cutoff), None)


def by_year(
    cards: Sequence[Path | str],
    *,
    tasks: Sequence[str] = (),
    cutoff: str | None = None,
    data_dir: Path | None = None,
) -> list[OverTime]:
    """Every score of these cards (files, or folders) whose documents have years, year by year.

    Years are in the samples; of a card from before they were, they are looked up in the data, where these lie here.
    ``cutoff``: up to when the base has read, 2024 or 2024-08; default: as bases.yaml says, if it does.

    Raises FinbenchError where no document has a year, and for a ``cutoff`` that is no date.
    """
    names, found, old = {task.name for task in catalog.expand(tasks)}, [], list[str]()
    gone: list[Task] = []
    for path in cardfiles.expand(cards):
        card = cardfiles.read(path)
        rows, end = cardfiles.rows_by_task(path, card), cutoff_of(card.subject.base, cutoff)
        for score in card.scores:
            own = rows.get(score.task, [])
            if own and (not names or score.task in names):
                made = of_rows(card, score, with_years(score, own, data_dir), end)
                found += [made] if made else []
                gone += [task] if not made and (task := not_here(score, data_dir)) else []
                old += [] if made or not _lacks_years(score, data_dir) else [score.task.removeprefix(catalog.PREFIX)]
    if not found and gone:
        told = ", ".join(dict.fromkeys(task.set for task in gone))
        raise FinbenchError(
            f"No sample here says its year, and the data of {told} do not lie in {paths.data_dir(data_dir)}.",
            "\n".join(["Get them, or name their folder (--data-dir):", *dict.fromkeys(task.data for task in gone)]),
        )
    if not found:
        again = [f"{task}: this import has no years; import it again." for task in dict.fromkeys(old)]
        raise FinbenchError("No document of these scores has a year.", "\n".join(again) or _SETS)
    return found


def with_years(score: Score, rows: Sequence[dict[str, Any]], data_dir: Path | None = None) -> Sequence[dict[str, Any]]:
    """Sample rows with their years: as they are, else as the data say, where these lie here."""
    return rows if any("year" in row for row in rows) else _looked_up(score, rows, data_dir)


def not_here(score: Score, data_dir: Path | None = None) -> Task | None:
    """The task of a score whose documents have years, where its data do not lie here; else None."""
    task = catalog.tasks().get(score.task)
    dated = task is not None and (task.set in _DATED or task.set in _FILINGS)
    return task if dated and _imported(score, data_dir) is None else None


def _imported(score: Score, data_dir: Path | None) -> Task | None:
    """The task of a score, where its data lie here: nothing is fetched for a look."""
    task = catalog.tasks().get(score.task)
    if task is None or task.data.startswith("hub:"):
        return None
    here = task.shipped or task.own or _file(task, data_dir).is_file()
    return task if here else None


def _file(task: Task, data_dir: Path | None) -> Path:
    return paths.data_dir(data_dir) / task.set / "test.jsonl"


def _lacks_years(score: Score, data_dir: Path | None) -> bool:
    """Whether the data here are from before their set had years."""
    task = _imported(score, data_dir)
    if task is None or task.set not in _DATED:
        return False
    with _file(task, data_dir).open(encoding="utf-8") as lines:
        return years.year_of(json.loads(next(lines))) is None


def _looked_up(score: Score, rows: Sequence[dict[str, Any]], data_dir: Path | None) -> list[dict[str, Any]]:
    """Sample rows with the years that the data here know; as they are where the data are not here."""
    task = _imported(score, data_dir)
    try:
        lm_task = prompts.load([task], data_dir, metadata=score.data.choices)[score.task] if task else None
    except FinbenchError:
        lm_task = None
    docs = prompts.rows(lm_task, "test") if lm_task else []
    told = {salted(prompts.shown(lm_task, doc)): years.row_of(doc) for doc in docs if years.row_of(doc)}
    return [{**row, **told.get(row["doc"], {})} for row in rows]


def of_rows(card: Scorecard, score: Score, rows: Sequence[dict[str, Any]], end: Cutoff | None) -> OverTime | None:
    """One score by year; None where no row has one, or the main metric quotes what may not be shown."""
    metric = score.main_metric
    dated = [row for row in rows if "year" in row]
    if not dated or metric in hidden_metrics(rows):
        return None
    catalog.recall(score.task, score.task_digest)
    how = aggregation_of(score.task, metric)

    def part(name: str, own: Sequence[dict[str, Any]]) -> Period:
        found = measure(values_of(own)[metric], how, clusters_of(own), within=metrics.bounds(metric), samples=samples)
        return Period(name, len(own) // samples, found)

    samples = samples_of(rows)
    of_years = [
        (year, [row for row in dated if row["year"] == year]) for year in sorted({row["year"] for row in dated})
    ]
    parts, difference = [], None
    if end:
        signs = np.sign([row["year"] - end.year for row in dated])
        sides = [[row for row, sign in zip(dated, signs, strict=True) if sign == wanted] for wanted in (-1, 0, 1)]
        said = (f"before {end.year}", f"in {end.year}, the year of the cut-off", f"after {end.year}")
        parts = [part(name, own) for name, own in zip(said, sides, strict=True) if own]
        if sides[0] and sides[2]:
            later, earlier = (([*values_of(own)[metric]], clusters_of(own)) for own in (sides[2], sides[0]))
            difference = group_difference(later, earlier, how, samples)
    return OverTime(
        subject=card.subject.name,
        task=score.task,
        metric=metric,
        dated=len(dated) // samples,
        n=score.n,
        cutoff=end,
        years=[part(str(year), own) for year, own in of_years],
        sides=parts,
        difference=difference,
    )
