"""What people see: scorecards and model cards as terminal, Markdown and HTML."""

from __future__ import annotations

import html as html_module
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape
from rich.table import Table

from finbench.cards import cardfiles
from finbench.cards.elsewhere import endpoint_notes, unseen
from finbench.core import catalog
from finbench.core.catalog import PREFIX
from finbench.core.errors import harmless
from finbench.core.files import write_atomic
from finbench.core.records import Generation, Measure, Prompts, Score, Scorecard, Subject
from finbench.core.seal import salted
from finbench.core.settings import TEMPLATED
from finbench.scoring import floors, noise
from finbench.scoring.metrics import is_share, spoken

_BAR = 24  # characters of a full bar in the terminal
_MOST = 0.5  # share of answers that were not read from which a person is warned


@dataclass(frozen=True)
class ViewRow:
    """A line of a task's table: a subject, or a baseline that needs no model."""

    name: str
    what: str
    main: Measure
    accuracy: Measure | None
    lenient: Measure | None = None
    parse_rate: Measure | None = None
    cut_off: Measure | None = None  # share of the answers
    thinking: float | None = None  # tokens an answer
    colour: str = "default"
    baseline: bool = False
    seen: str = ""  # of the test, in training
    prompts: Prompts | None = None  # what other prompts gave


@dataclass
class Heading:
    """What a table, or a column of one, is of: a task under one set of conditions."""

    score: Score
    conditions: tuple[str, ...]

    @property
    def task(self) -> str:
        """As people type it."""
        return self.score.task.removeprefix(PREFIX)

    @property
    def title(self) -> str:
        """The task, and the settings that are not the usual ones."""
        return ", ".join([self.task, *self.conditions])

    @property
    def share(self) -> bool:
        """The main metric is shown in percent."""
        return is_share(self.score.main_metric)

    @property
    def measured(self) -> str:
        """The main metric in words, with its unit."""
        return spoken(self.score.main_metric) + (" in %" if self.share else "")

    @property
    def lower_is_better(self) -> bool:
        """Less of the main metric is better."""
        return self.score.main_metric in self.score.lower_is_better


@dataclass
class TaskView(Heading):
    """A task with all its rows; scores of another definition or other data get a view of their own."""

    rows: list[ViewRow]

    @property
    def generated(self) -> bool:
        """Answers were generated under another profile than direct, so that tokens were counted."""
        return self.has("thinking")

    def has(self, column: str) -> bool:
        """A row has something to show there."""
        return any(getattr(row, column) is not None for row in self.rows)

    @property
    def by_prompt(self) -> list[tuple[str, Prompts]]:
        """Names of the subjects that were asked by several prompts, and what these gave."""
        return [(row.name, row.prompts) for row in self.rows if row.prompts]

    @property
    def warnings(self) -> list[str]:
        """Who saw some of this test in training, and whose answers were mostly not read, a sentence each."""
        seen = [f"{row.name} was trained on {row.seen} of this test." for row in self.rows if row.seen]
        cut = [row for row in self.rows if row.cut_off and row.cut_off.value > _MOST]
        unread = [row for row in self.rows if row not in cut and row.parse_rate and row.parse_rate.value < 1 - _MOST]
        return [
            *seen,
            *(f"{row.name}: {percent(one.value)} % of the answers were cut off, and count as wrong."
              for row in cut if (one := row.cut_off)),
            *(f"{row.name}: only {percent(one.value)} % of the answers are in the form asked for; others are wrong."
              for row in unread if (one := row.parse_rate)),
        ]  # fmt: skip


def task_views(cards: Sequence[Scorecard]) -> list[TaskView]:
    """One view for each (task digest, data digest, shots, chat, profile) among the cards; baselines come last."""
    groups: dict[tuple[Any, ...], list[tuple[Scorecard, Score]]] = {}
    for card in cards:
        for score in card.scores:
            how = conditions_of(card, score) if card.generation else ()
            key = (score.task, score.task_digest, score.data.digest, card.shots, card.subject.chat, *how)
            groups.setdefault(key, []).append((card, score))
    views = []
    for _, group in sorted(groups.items(), key=lambda item: str(item[0])):
        card, score = group[0]
        rows = [*(_row(*pair) for pair in group), *_baseline_rows(score)]
        views.append(TaskView(score, conditions_of(card, score), rows))
    return views


def conditions_of(card: Scorecard, score: Score | None = None) -> tuple[str, ...]:
    """What sets one table apart from the plain one; a ``score`` on fewer rows than the limit is of the whole test."""
    how = card.generation or Generation(profile="direct")
    profile = [how.profile] if how.profile != "direct" else []
    budget = [f"{how.max_tokens:,} tokens"] if how.max_tokens else []
    samples = [f"{how.samples} samples"] if how.samples > 1 else []
    shots = [f"{card.shots} shots"] if card.shots else []
    shots += ["examples in one turn"] if how.fewshot_as_multiturn is False else []
    chat = ["chat template"] if card.subject.chat and how.profile not in TEMPLATED else []
    system = [f"system prompt {salted(how.system_prompt)[:6]}"] if how.system_prompt else []
    return (*profile, *budget, *samples, *shots, *chat, *system, *parts_of(card, score))


def parts_of(card: Scorecard, score: Score | None = None) -> tuple[str, ...]:
    """What of a test a score is of, where it is not the whole one: a share of the set, a sample of its rows.

    Rows lie in the order of their hash, so that the first ones are a sample; but for those of lm-eval's own tasks.
    """
    whole = score.is_whole(card.limit) if score else card.limit is None
    known = catalog.tasks().get(score.task) if score else None
    drawn = "first" if known and known.own == "lm_eval" else "a sample of"
    limit = [] if whole else [f"{drawn} {score.n if score else card.limit} rows"]
    share = [f"{percent(score.data.share)} % of the test"] if score and score.data.share else []
    chosen = score.data.choices.items() if score else ()
    return (*share, *(f"{name} {value}" for name, value in chosen if name in noise.OF_EVERY), *limit)


def describe_subject(subject: Subject) -> str:
    """Method, rank and format: "lora, r 16, nf4"; "base" for a base alone. Numbers of a dtype are not named."""
    rank = [f"r {subject.rank}"] if subject.rank and subject.kind == "peft" else []
    stored = [subject.stored] if subject.stored else []
    return ", ".join([subject.method or subject.kind, *rank, *stored])


def thinking_tokens(card: Scorecard, score: Score) -> float | None:
    """Tokens of reasoning an answer; None where answers were generated directly."""
    samples = card.generation.samples if card.generation else 1
    return None if score.answers is None else score.answers.thinking_tokens / (score.n * samples)


def _row(card: Scorecard, score: Score) -> ViewRow:
    subject = card.subject
    return ViewRow(
        name=subject.name,
        what=describe_subject(subject),
        main=score.main,
        accuracy=_accuracy(score, score.metrics),
        lenient=score.lenient.get(score.main_metric),
        parse_rate=score.parse_rate,
        cut_off=score.answers.truncated if score.answers else None,
        thinking=thinking_tokens(card, score),
        colour="default" if subject.kind == "base" else "blue",
        seen=_seen(score),
        prompts=score.prompts,
    )


def _accuracy(score: Score, measures: Mapping[str, Measure]) -> Measure | None:
    """Beside another main metric."""
    return measures.get("acc") if score.main_metric != "acc" else None


def _seen(score: Score) -> str:
    """ "12 of the 340 texts (3.5 %)"; nothing where none was in training, or nobody looked."""
    if score.overlap is None or not score.overlap.texts:
        return ""
    texts, of = score.overlap.texts, score.overlap.of
    return f"{texts:,} of the {of:,} texts ({percent(texts / of)} %)"


def _baseline_rows(score: Score) -> Iterator[ViewRow]:
    for said, values in floors(score).items():
        if score.main_metric in values:
            exact = {key: Measure(value=value, low=None, high=None, method="") for key, value in values.items()}
            accuracy = _accuracy(score, exact)
            yield ViewRow(said, "no model", exact[score.main_metric], accuracy, baseline=True)


def percent(value: float) -> str:
    """0.8142 -> 81.4"""
    return f"{100 * value:z.1f}"


def amount(value: float, share: bool = True) -> str:
    """81.4 for a share of 0.8142; 0.814 for what is no share."""
    return percent(value) if share else f"{value:z.3f}"


def in_brackets(measure: Measure, share: bool = True) -> str:
    """81.4 [78.2, 84.1]; 81.4 [–: one source] where there is no interval."""
    return f"{amount(measure.value, share)} [{limits(measure, share, ', ')}]"


def limits(measure: Measure, share: bool = True, between: str = "–") -> str:
    """78.2–84.1; "–: one source" where there is no interval, with the reason."""
    if measure.interval is None:
        return f"–: {measure.lacking}" if measure.lacking else "–"
    return between.join(amount(end, share) for end in measure.interval)


def terminal_tables(cards: Sequence[Scorecard], width: int = 100) -> list[Table]:
    """A table for each task, with bars that show value and 95 % interval, for a terminal of ``width`` columns."""
    return [_table(view, width) for view in task_views(cards)]


def _table(view: TaskView, width: int) -> Table:
    share = view.share
    optional = [name for name in ("accuracy", "lenient", "parse_rate") if view.has(name)]
    table = Table(
        title=f"{view.title}: {view.measured}, n = {view.score.n}",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
    )
    taken = 18 if view.generated else 0  # of the columns about tokens
    names = min(max(len(row.name) for row in view.rows), max(16, width - taken - 56))  # the bar needs what is left
    length = max(8, min(_BAR, width - taken - names - 48))
    bars = share and (not taken or length < width - taken - names - 46)  # numbers go before pictures
    table.add_column("", no_wrap=True, width=names, overflow="ellipsis")
    table.add_column("score", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True, style="dim")
    if bars or not taken:
        table.add_column("0".ljust(length - 3) + "100" if share else "", no_wrap=True)
    heads = {"accuracy": "acc.", "lenient": "lenient", "parse_rate": "parsed"}
    for name in [*map(heads.__getitem__, optional), *(["cut off", "thought"] if view.generated else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in view.rows:
        ends = "" if row.baseline else limits(row.main, share, " - ") if row.main.interval else "–"
        drawn = f"[{row.colour}]{bar(row.main, length)}[/]" if share else ""
        cells = [escape(shorten_name(row.name, names)), amount(row.main.value, share), ends]
        cells += [drawn] if bars or not taken else []
        for name in optional:
            value: Measure | None = getattr(row, name)
            cells.append(amount(value.value, share or name != "lenient") if value else "")
        if view.generated:
            cells += [percent(row.cut_off.value) if row.cut_off else ""]
            cells += ["" if row.thinking is None else f"{row.thinking:,.0f}"]
        table.add_row(*cells, style="dim" if row.baseline else "")
    lacking = dict.fromkeys(row.main.lacking for row in view.rows if row.main.lacking and not row.baseline)
    table.caption = f"–: no interval ({'; '.join(lacking)})" if lacking else None
    table.caption_justify = "left"
    return table


def shorten_name(name: str, width: int) -> str:
    """A name of at most ``width`` characters; what is left out is in the middle, for names differ at their ends."""
    if len(name) <= width:
        return name
    return name[: width // 2] + "…" + name[len(name) - (width - width // 2 - 1) :]


def bar(measure: Measure, width: int = _BAR) -> str:
    """A bar up to the value; its 95 % interval is shaded."""
    ends = measure.interval or (measure.value, measure.value)
    low, value, high = (round(width * part) for part in (ends[0], measure.value, ends[1]))
    return "█" * low + "▓" * (value - low) + "▒" * (high - value) + "·" * (width - high)


def from_template(name: str, *, escape: bool, **values: Any) -> str:
    """A template of finbench, filled. ``escape``: as HTML, every value escaped, so that text of a card stays text."""
    environment = Environment(
        loader=PackageLoader("finbench"),
        autoescape=escape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:g}",
        "percent": percent,
        "interval": in_brackets,
        "limits": limits,
        "metric": spoken,
        "amount": amount,
        "unseen": unseen,
        "cell": _cell,
        "python": repr,
        "value": _value,
        "around": _around,
        "plain": lambda cell, spread: " ".join(filter(None, [_value(cell), _around(cell, spread)])),
        "tex": _tex,
        "latex": latex,
        "slug": slug,
        "label": lambda table: slug("-".join(["finbench", *dict.fromkeys(column.task for column in table.columns)])),
    }
    return environment.get_template(name).render(**values)


def _value(cell: Any) -> str:
    return amount(cell.measure.value, cell.share)


def _around(cell: Any, spread: str) -> str:
    """The interval in brackets, or the deviation over seeds; nothing for a number without either."""
    scale, digits = (100, 1) if cell.share else (1, 3)
    if spread == "seeds":
        return "" if cell.deviation is None else f"± {scale * cell.deviation:.{digits}f}"
    return "" if not cell.runs else f"[{limits(cell.measure, cell.share, ', ')}]"


def _tex(cell: Any, spread: str) -> str:
    value = rf"\textbf{{{_value(cell)}}}" if cell.best else _value(cell)
    around = _around(cell, spread).replace("± ", r"$\pm$ ").replace("–", "--")
    return value + (rf" {{\scriptsize {around}}}" if around else "")


def latex(text: object) -> str:
    """Text with LaTeX's special characters escaped."""
    special = {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    special |= {c: f"{{{c}}}" for c in "[]*"}  # after the end of a line they would be an option of it
    special |= {"^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$^\dagger$", "–": "--"}
    special |= {"²": "$^2$", "<": "$<$", ">": "$>$"}
    return "".join(special.get(character, character) for character in _line(text))


def _line(text: object) -> str:
    """Text of a stranger on one line; what a terminal or a reader would obey is shown as its escape."""
    return harmless(" ".join(str(text).split()))


def slug(text: str) -> str:
    """For the name of a file, or a label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cell(text: object) -> str:
    """Text in a Markdown table: no markup, no HTML, no end of the cell, and no address that becomes a link."""
    plain = html_module.escape(_line(text), quote=False)
    if re.search(r"[|`*\[\]<>]|\b_|_\b", str(text)):
        plain = re.sub(r"([|\\`*_\[\]])", r"\\\1", plain)
    return re.sub(r"(?i)\bwww\.", lambda found: f"{found[0][:-1]}&#46;", plain.replace("://", "&#58;//"))


def markdown(cards: Sequence[Scorecard]) -> str:
    """The cards as Markdown tables."""
    values = {"cards": cards, "views": task_views(cards), "notes": endpoint_notes(cards)}
    return from_template("report.md.j2", escape=False, **values)


def html(cards: Sequence[Scorecard]) -> str:
    """The cards as one self-contained page: no script, no request."""
    values = {"cards": cards, "views": task_views(cards), "notes": endpoint_notes(cards)}
    return from_template("report.html.j2", escape=True, **values)


def write_reports(folder: Path) -> list[Scorecard]:
    """Write ``report.md`` and ``report.html`` over every card of a folder; return those."""
    with cardfiles.lock(folder):
        everything = cardfiles.folder(folder)
        write_atomic(folder / "report.md", markdown(everything))
        write_atomic(folder / "report.html", html(everything))
    return everything
