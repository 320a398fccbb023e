"""What people see: scorecards and model cards as terminal, Markdown and HTML."""

from __future__ import annotations

import html as html_module
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape
from rich.table import Table

from finbench.catalog import PREFIX
from finbench.methods import METHODS
from finbench.records import Adapter, Measure, Score, Scorecard

_BAR = 24  # characters of a full bar in the terminal


@dataclass(frozen=True)
class Row:
    """A line of a task's table: a subject, or a baseline that needs no model."""

    name: str
    what: str
    main: Measure
    accuracy: Measure | None
    lenient: Measure | None
    parse_rate: Measure | None
    seconds: float | None
    baseline: bool = False


@dataclass(frozen=True)
class TaskView:
    """A task with all its rows; scores of another definition or other data get a view of their own."""

    score: Score
    rows: list[Row]
    conditions: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The task as people type it."""
        return ", ".join([self.score.task.removeprefix(PREFIX), *self.conditions])


def views(cards: Sequence[Scorecard]) -> list[TaskView]:
    """One view for each (task digest, data digest, shots, chat) among the cards; baselines come last."""
    groups: dict[tuple[Any, ...], list[tuple[Scorecard, Score]]] = {}
    for card in cards:
        for score in card.scores:
            key = (score.task, score.task_digest, score.data.digest, card.shots, card.subject.chat)
            groups.setdefault(key, []).append((card, score))
    return [
        TaskView(
            group[0][1], [*(_row(*pair) for pair in group), *_baseline_rows(group[0][1])], _conditions(group[0][0])
        )
        for _, group in sorted(groups.items(), key=lambda item: str(item[0]))
    ]


def _conditions(card: Scorecard) -> tuple[str, ...]:
    """What sets an exam apart from the plain one."""
    shots = [f"{card.shots} shots"] if card.shots else []
    chat = ["chat template"] if card.subject.chat else []
    limit = [f"first {card.limit} rows only"] if card.limit else []
    return (*shots, *chat, *limit)


def _row(card: Scorecard, score: Score) -> Row:
    subject = card.subject
    method = [subject.method] if subject.method else ["base"]
    bits = [] if subject.bits == 16 else [f"{subject.bits} bits"]
    rank = [f"r {subject.rank}"] if subject.rank and subject.kind == "peft" else []
    return Row(
        name=subject.name,
        what=", ".join([*method, *rank, *bits]),
        main=score.main,
        accuracy=score.metrics.get("acc") if score.main_metric != "acc" else None,
        lenient=score.lenient.get(score.main_metric),
        parse_rate=score.parse_rate,
        seconds=score.seconds,
    )


def _baseline_rows(score: Score) -> list[Row]:
    rows = []
    for name, values in sorted(score.baselines.items()):
        main, acc = values[score.main_metric], values.get("acc")
        rows.append(
            Row(
                name=f"{name} label",
                what="no model",
                main=Measure(value=main, low=main, high=main),
                accuracy=Measure(value=acc, low=acc, high=acc)
                if acc is not None and score.main_metric != "acc"
                else None,
                lenient=None,
                parse_rate=None,
                seconds=None,
                baseline=True,
            )
        )
    return rows


def percent(value: float) -> str:
    """0.8142 -> 81.4"""
    return f"{100 * value:.1f}"


def interval(measure: Measure) -> str:
    """81.4 [78.2, 84.1]"""
    return f"{percent(measure.value)} [{percent(measure.low)}, {percent(measure.high)}]"


def metric_name(name: str) -> str:
    """A metric as it is written in prose."""
    known = {"macro_f1": "macro-F1", "acc": "accuracy", "span_f1": "entity F1", "question_f1": "mean F1 of questions"}
    return known.get(name, name.replace("_", " "))


# ---------------------------------------------------------------- terminal


def terminal(cards: Sequence[Scorecard], width: int = 100) -> list[Table]:
    """A table for each task, with bars that show value and 95 % interval, for a terminal of ``width`` columns."""
    return [_table(view, width) for view in views(cards)]


def _table(view: TaskView, width: int) -> Table:
    score = view.score
    with_accuracy = any(row.accuracy for row in view.rows)
    table = Table(
        title=f"{view.title}: {metric_name(score.main_metric)} in %, n = {score.n}",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
    )
    names = min(max(len(row.name) for row in view.rows), max(16, width - 56))  # the bar needs what is left
    length = max(8, min(_BAR, width - names - 48))
    table.add_column("", no_wrap=True, width=names, overflow="ellipsis")
    table.add_column("score", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True, style="dim")
    table.add_column("0".ljust(length - 3) + "100", no_wrap=True)
    for name, shown in (("acc.", with_accuracy), ("lenient", True), ("parsed", True)):
        if shown:
            table.add_column(name, justify="right", no_wrap=True)
    for row in view.rows:
        limits = "" if row.main.low == row.main.high else f"{percent(row.main.low)} - {percent(row.main.high)}"
        cells = [escape(shorten(row.name, names)), percent(row.main.value), limits, bar(row.main, length)]
        beside = [*([row.accuracy] if with_accuracy else []), row.lenient, row.parse_rate]
        cells += [percent(part.value) if part else "" for part in beside]
        table.add_row(*cells, style="dim" if row.baseline else "")
    return table


def shorten(name: str, width: int) -> str:
    """A name of at most ``width`` characters; what is left out is in the middle, for names differ at their ends."""
    if len(name) <= width:
        return name
    return name[: width // 2] + "…" + name[len(name) - (width - width // 2 - 1) :]


def bar(measure: Measure, width: int = _BAR) -> str:
    """A bar up to the value; its 95 % interval is shaded."""
    low, value, high = (round(width * part) for part in (measure.low, measure.value, measure.high))
    return "█" * low + "▓" * (value - low) + "▒" * (high - value) + "·" * (width - high)


# ---------------------------------------------------------------- files


def _environment(html: bool) -> Environment:
    """Templates of finbench. ``html``: every value is escaped, so that text from a card stays text."""
    environment = Environment(
        loader=PackageLoader("finbench"),
        autoescape=html,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:g}",
        "percent": percent,
        "interval": interval,
        "metric": metric_name,
        "cell": _cell,
    }
    return environment


def _cell(text: object) -> str:
    """Text in a Markdown table: no markup, no HTML, no end of the cell."""
    plain = html_module.escape(str(text), quote=False).replace("\n", " ")
    return re.sub(r"([|\\`*_\[\]])", r"\\\1", plain) if re.search(r"[|`*\[\]<>]", str(text)) else plain


def markdown(cards: Sequence[Scorecard]) -> str:
    """The cards as Markdown tables."""
    template: Any = _environment(html=False).get_template("report.md.j2")
    return str(template.render(cards=cards, views=views(cards)))


def html(cards: Sequence[Scorecard]) -> str:
    """The cards as one self-contained page: no script, no request."""
    template: Any = _environment(html=True).get_template("report.html.j2")
    return str(template.render(cards=cards, views=views(cards)))


def model_card(adapter: Adapter) -> str:
    """README.md of an adapter folder (Markdown with the Hub's metadata block)."""
    tasks = ", ".join(
        name.removeprefix(PREFIX) + (f" ({weight:g} x)" if weight != 1 else "")
        for name, weight in adapter.recipe.tasks.items()
    )
    template: Any = _environment(html=False).get_template("adapter.md.j2")
    return str(template.render(a=adapter, method=METHODS[adapter.recipe.method], tasks=tasks))
