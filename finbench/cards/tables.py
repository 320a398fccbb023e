"""The table of a report: columns are exams, lines are subjects; what templates and plots show."""

from __future__ import annotations

from dataclasses import dataclass, field

from finbench.core import catalog
from finbench.core.records import Measure, Score
from finbench.scoring import metrics, seed_spread


@dataclass
class Column:
    """One exam: a task under one set of conditions."""

    score: Score
    conditions: tuple[str, ...]

    @property
    def title(self) -> str:
        """The task as people type it, and what sets the exam apart."""
        return ", ".join([self.score.task.removeprefix(catalog.PREFIX), *self.conditions])

    @property
    def metric(self) -> str:
        """The main metric, in words."""
        return metrics.spoken(self.score.main_metric)

    @property
    def family(self) -> tuple[str, str]:
        """Scores are averaged over tasks of one family and one form."""
        return self.score.family, self.score.form

    @property
    def share(self) -> bool:
        """Shown in percent."""
        return metrics.is_share(self.score.main_metric)


@dataclass(frozen=True)
class TableCell:
    """A number of the table. ``best``: significantly better than every other; ``tied``: no worse than the best."""

    measure: Measure
    share: bool
    runs: tuple[float, ...] = ()
    exact: bool = False  # of a baseline, which is not measured
    best: bool = False
    tied: bool = False

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, where there are several."""
        return seed_spread(self.runs).deviation if len(self.runs) > 1 else None


@dataclass
class Line:
    """A subject, or a baseline that needs no model."""

    name: str
    what: str
    cells: list[TableCell | None]
    means: list[float | None] = field(default_factory=list)
    baseline: bool = False


@dataclass
class Table:
    """Everything that the templates show."""

    columns: list[Column]
    families: list[str]
    lines: list[Line]
    spread: str
    tested: bool
    plots: list[tuple[str, str]] = field(default_factory=list)
