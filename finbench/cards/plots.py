"""Plots as SVG text: no drawing library, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from finbench.cards.render import Heading, amount, in_brackets, shorten_name
from finbench.core.errors import listed
from finbench.core.records import Measure, Score, Scorecard
from finbench.scoring import seed_spread

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 600, 214, 60, 28, 34
_BESIDE = 24  # letters of a bold title that surely end left of the axis
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c2430}.s{fill:#68727f;font-size:12px}.g{stroke:#dfe4ea}"
    ".d{fill:#2f6f9f}.w{stroke:#2f6f9f;stroke-width:2}.b{fill:#8a94a0}.bw{stroke:#8a94a0;stroke-width:2}"
    ".m{stroke:#8a94a0;stroke-width:1.5;stroke-dasharray:4 3}.r{fill:#2f6f9f;opacity:.35}"
    "@media(prefers-color-scheme:dark){text{fill:#e6eaef}.s{fill:#96a1ad}.g{stroke:#2d3641}.d,.r{fill:#6db0dd}"
    ".w{stroke:#6db0dd}}"
)

_PAGE = "<style>.p{fill:#fff}@media(prefers-color-scheme:dark){.p{fill:#12171d}}</style>"


@dataclass(frozen=True)
class SeedRun:
    """One subject's score in one task, with its sample rows if the card has them."""

    card: Scorecard
    score: Score
    rows: list[dict[str, Any]] | None


@dataclass
class TableCell:
    """A number of the table. ``best``: significantly better than every other; ``tied``: no worse than the best."""

    measure: Measure
    share: bool
    runs: Sequence[SeedRun] = ()  # none of a baseline, which is not measured
    best: bool = False
    tied: bool = False

    @property
    def values(self) -> list[float]:
        """The main number of each run."""
        return [run.score.main.value for run in self.runs]

    def whisker(self, spread: str) -> Measure:
        """What a plot draws: a figure has one kind of error bar, so over seeds a single run has none."""
        if spread == "seeds" and len(self.runs) < 2:
            return self.measure.model_copy(update={"low": None, "high": None})
        return self.measure

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, where there are several."""
        return seed_spread(self.values).deviation if len(self.runs) > 1 else None


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

    columns: list[Heading]
    families: list[str]
    lines: list[Line]
    spread: str
    tested: bool
    plots: list[Plot] = field(default_factory=list)

    def seeds(self, number: int | None = None) -> str:
        """ "2 to 3 training seeds": of who has several, in a column or the whole table."""
        cells = [cell for line in self.lines for cell in (line.cells if number is None else [line.cells[number]])]
        counts = {len(cell.runs) for cell in cells if cell is not None and cell.runs}
        several = counts - {1}
        ends = sorted({min(several), max(several)}) if several else []
        return f"{' to '.join(map(str, ends))} training seeds" if ends else "1 training seed"

    @property
    def caption(self) -> str:
        """What the numbers of a report's table are, in sentences."""
        sizes = "; ".join(f"{column.title}: {column.score.n:,}" for column in self.columns)
        if self.spread == "seeds":
            around, test = (
                f"mean ± standard deviation over {self.seeds()}; without ±: one run",
                "Welch's t test over seeds",
            )
        else:
            around, test = "95 % intervals over documents in brackets", "paired permutation tests"
        marks = (
            f"Bold: significantly better than every other subject ({test} at 5 %, Holm over the table). "
            "†: not significantly different from the best."
            if self.tested
            else "No significance test was possible, so nothing is bold."
        )
        return " ".join([f"Strict parsing, in % ({around}). {marks} Documents of {sizes}.", *self._by_prompt()])

    def _by_prompt(self) -> Iterator[str]:
        """A sentence for each number of a report's table whose prompt was one of several."""
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                for run in cell.runs if cell else ():
                    if (of := run.score.prompts) is not None:
                        yield (
                            f"{run.card.subject.name} on {column.title} by {len(of.each)} prompts: mean "
                            f"{in_brackets(of.mean, column.share)}, spread {amount(of.spread, column.share)}, worst "
                            f"{of.worst}."
                        )


@dataclass(frozen=True)
class Plot:
    """A drawing of a column, and what its marks are, in sentences for below it."""

    title: str
    svg: str
    caption: str


def plot(table: Table, number: int) -> Plot:
    """The forest of a column, and its caption: what, of how many documents, and what the error bars are."""
    column = table.columns[number]
    dashed = [line.name for line in table.lines if line.baseline and line.cells[number] is not None]
    about = f"{column.measured} of {column.title}, n = {column.score.n:,} documents. {_bars(table, number)}."
    about += " They are Student's t; a subject with one run has none." if table.spread == "seeds" else ""
    about += f" Dashed: {listed(dashed)}." if dashed else ""
    return Plot(column.title, forest(table, number), about[:1].upper() + about[1:])


def _bars(table: Table, number: int) -> str:
    """What the error bars of a column's plot are."""
    if table.spread == "seeds":
        return f"Whiskers: 95 % intervals of the mean over {table.seeds(number)}; pale dots: runs"
    return f"Whiskers: 95 % intervals over {table.columns[number].score.n:,} documents"


def forest(table: Table, number: int) -> str:
    """Dot and whisker for each line of a column of a report's table; baselines are dashed lines.

    Whiskers are 95 % intervals of one kind: over documents, or of the mean over seeds, whose runs are the pale dots.
    """
    column = table.columns[number]
    scale = 100 if column.share else 1
    lines = [(line, cell) for line in table.lines if (cell := line.cells[number]) is not None]
    subjects = [(line, cell) for line, cell in lines if not line.baseline]
    ends = [
        scale * end for _, cell in lines for end in (cell.measure.value, *(cell.whisker(table.spread).interval or ()))
    ]
    ends += [scale * value for _, cell in subjects for value in cell.values]
    low, high, step = _axis(min(ends), max(ends), (0, 100) if column.share else (-math.inf, math.inf))
    marked = sum(line.baseline for line, _ in lines)
    below = 13 * max(0, (marked - 1) // 2)  # for the labels of baselines, two a line
    height = _TOP + _ROW * len(subjects) + 58 + below
    bottom = height - 52 - below

    def x(value: float) -> float:
        inside = min(max(scale * value, low), high)
        return round(_LEFT + (inside - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    place = f'x="{_LEFT}"' if len(column.title) <= _BESIDE else 'dx="12"'
    parts = [
        _head(column.title, _WIDTH, height),
        # above the axis if the title leaves room for it, else behind the title
        f'<text x="0" y="18"><tspan style="font-weight:600">{escape(column.title)}</tspan>'
        f'<tspan class="s" {place}>{escape(column.measured)}, n = {column.score.n:,}</tspan></text>',
    ]
    for tick in range(round((high - low) / step) + 1):
        at = low + tick * step
        parts.append(f'<path class="g" d="M{x(at / scale)} {_TOP}V{bottom}"/>')
        parts.append(_text(x(at / scale), bottom + 15, f"{at:g}", "s", "middle"))
    marks = sorted((x(cell.measure.value), line.name) for line, cell in lines if line.baseline)
    for order, (across, name) in enumerate(marks):
        # the left one's label ends at its line and the right one's starts there, so that they never overlap; the inner
        # two are a line lower
        deep = min(order, len(marks) - 1 - order)
        anchor, shift = ("end", -3) if order < len(marks) // 2 else ("start", 3)
        parts.append(f'<path class="m" d="M{across} {_TOP}V{bottom + 17}"/>')
        parts.append(_text(across + shift, bottom + 30 + 13 * deep, name.split()[0], "s", anchor))
    for row, (line, cell) in enumerate(subjects):
        y = _TOP + _ROW * row + _ROW / 2
        parts.append(_text(_LEFT - 12, y + 4, shorten_name(line.name, 29), anchor="end"))
        kind = "b" if line.what.startswith("base") else "d"
        parts += _dot(cell.whisker(table.spread), kind, y, x, cell.values if len(cell.runs) > 1 else ())
        weight = ' style="font-weight:700"' if cell.best else ""
        shown = f"{scale * cell.measure.value:.{1 if column.share else 3}f}" + ("†" if cell.tied else "")
        parts.append(f'<text x="{_WIDTH - _RIGHT + 14}" y="{y + 4}"{weight}>{shown}</text>')
    parts.append(_text(0, height - 4, _bars(table, number).replace("W", "w", 1), "s"))
    return "\n".join([*parts, "</svg>"]) + "\n"


_WIDE, _NAMES, _PAIR = 760, 262, 46  # of a plot of pairs: width, width of names in a wide font, height of a pair
_TALL_FROM = 8  # pairs from which the scale is written above them too


def pairs(title: str, rows: Sequence[tuple[str, str, Measure, Measure | None]]) -> str:
    """Dots and whiskers of shares, two a row: (name, what it measures, this adapter's, its base's if there is one).

    It has a background of its own, for a page may be dark where the reader's system is light.
    """
    bottom = _TOP + 10 + _PAIR * max(1, len(rows))

    def x(share: float) -> float:
        return round(_NAMES + min(max(share, 0), 1) * (_WIDE - _NAMES - _RIGHT), 1)

    parts = [
        _head(title, _WIDE, bottom + 40),
        _PAGE,
        f'<rect class="p" width="{_WIDE}" height="{bottom + 40}"/>',
        f'<text x="16" y="28" style="font-weight:600">{escape(title)}</text>',
    ]
    for tick in range(0, 101, 20):
        parts.append(f'<path class="g" d="M{x(tick / 100)} {_TOP + 10}V{bottom}"/>')
        for y in (bottom + 15, _TOP + 5)[: 2 if len(rows) > _TALL_FROM else 1]:
            parts.append(_text(x(tick / 100), y, str(tick), "s", "middle"))
    for row, (name, about, own, base) in enumerate(rows):
        y = _TOP + 10 + _PAIR * row + _PAIR // 2
        parts += [_text(16, y - 3, name), _text(16, y + 13, about, "s")]
        for measure, kind, at in ((base, "b", y + 8), (own, "d", y - 8)):
            if measure is not None:
                parts += _dot(measure, kind, at, x)
                parts.append(_text(_WIDE - _RIGHT + 14, at + 4, f"{100 * measure.value:.1f}", f"s {kind}"))
    parts.append(_text(16, bottom + 32, "blue: this adapter, grey: its base, whiskers: 95 % intervals", "s"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "") -> str:
    drawn = f' class="{kind}"' if kind else ""
    end = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text{drawn} x="{x}" y="{y}"{end}>{escape(said)}</text>'


def _head(title: str, width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>'
    )


def _dot(measure: Measure, kind: str, y: float, x: Callable[[float], float], runs: Sequence[float] = ()) -> list[str]:
    """Dot and whisker at ``y``, in the colours of ``kind``; pale dots are runs."""
    parts = []
    if measure.interval is not None:
        low, high = map(x, measure.interval)
        parts.append(f'<path class="{"w" if kind == "d" else "bw"}" d="M{low} {y}H{high}"/>')
    parts += [f'<circle class="r" cx="{x(value)}" cy="{y}" r="4"/>' for value in runs]
    return [*parts, f'<circle class="{kind}" cx="{x(measure.value)}" cy="{y}" r="5"/>']


_FARTHEST = 1e300  # of an axis: beyond, its length would be no number
_COLOURS = ("#2f6f9f", "#c0643c", "#4f8f5a", "#8a5fa8", "#a3862b", "#8a94a0")
_TALL, _SIDE = 300, 52


def curves(
    title: str,
    about: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    most: float = math.inf,
    *,
    mark: float | None = None,
    page: bool = False,
) -> str:
    """Lines over steps, one for each name, which stands at its end; points above ``most`` are left out.

    ``mark``: a step with a dashed line through it. ``page``: with a background of its own.
    """
    kept = {name: [point for point in points if point[1] <= most] for name, points in series.items()}
    shown = {name: points for name, points in kept.items() if points}
    right = 12 + 7 * max((len(name) for name in shown), default=0)
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    left, end, stride = _axis(min(0, *xs), max(xs), (-math.inf, math.inf))
    low, high, step = _axis(min(ys), max(ys), (-math.inf, math.inf))

    def at(x: float, y: float) -> tuple[float, float]:
        across = _SIDE + (x - left) / (end - left) * (_WIDTH - _SIDE - right)
        return round(across, 1), round(_TOP + (high - y) / (high - low) * (_TALL - _TOP - 36), 1)

    parts = [
        _head(title, _WIDTH, _TALL),
        *([_PAGE, f'<rect class="p" width="{_WIDTH}" height="{_TALL}"/>'] if page else []),
        f'<text x="0" y="16" style="font-weight:600">{escape(title)}</text>',
        _text(_WIDTH, 16, about, "s", "end"),
    ]
    if mark is not None:
        parts.append(f'<path class="m" d="M{at(mark, low)[0]} {_TOP}V{at(mark, low)[1]}"/>')
    for tick in range(round((high - low) / step) + 1):
        x, y = at(left, low + tick * step)
        parts.append(f'<path class="g" d="M{x} {y}H{_WIDTH - right}"/>')
        parts.append(_text(x - 8, y + 4, f"{low + tick * step:g}", "s", "end"))
    for tick in range(math.floor((end - left) / stride + 1e-9) + 1):
        x, y = at(left + tick * stride, low)
        parts.append(_text(x, y + 18, f"{left + tick * stride:g}", "s", "middle"))
    parts.append(_text(_WIDTH - right, _TALL - 2, "step", "s", "end"))
    ends = sorted((at(*points[-1])[1], name) for name, points in shown.items())
    places: dict[str, float] = {}
    for y, name in ends:  # names never overlap
        places[name] = max(y, max(places.values(), default=-math.inf) + 14)
    lowest = at(left, low)[1] - 4  # nor stand among the numbers of the axis
    for name, y in reversed(places.items()):
        places[name] = min(y, lowest)
        lowest = places[name] - 14
    for number, (name, points) in enumerate(shown.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = "L".join(f"{x} {y}" for x, y in (at(*point) for point in points))
        dash = ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        parts.append(
            f'<text x="{at(*points[-1])[0] + 6}" y="{places[name] + 4}" style="fill:{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axis(low: float, high: float, limits: tuple[float, float]) -> tuple[float, float, float]:
    """(start, end, step) of an axis with 4 to 8 round steps around [low, high], within ``limits``."""
    low, high = (min(max(end, -_FARTHEST), _FARTHEST) for end in (low, high))
    span = max(high - low, 1e-9, 1e-12 * abs(high))  # less than that is rounding
    base = 10 ** math.floor(math.log10(span / 5))
    step = next(base * k for k in (1, 2, 5, 10) if span / (base * k) <= 6)
    start = max(limits[0], math.floor(low / step) * step)
    end = min(limits[1], math.ceil(high / step) * step)
    return start, end if end > start else start + step, step
