"""A table as in a paper, from scorecards: Markdown, LaTeX (booktabs) or HTML, with plots."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from finbench.cards import cardfiles, plots
from finbench.cards.comparison import aggregation_of, difference, documents, follows, golds, other_golds
from finbench.cards.plots import Line, SeedRun, Table, TableCell
from finbench.cards.render import Heading, conditions_of, describe_subject, from_template, slug
from finbench.cards.setups import setup_of
from finbench.cards.verdicts import LEVEL
from finbench.core import catalog, seal
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import check_file, write_atomic
from finbench.core.installing import install
from finbench.core.records import Measure, Score, Scorecard
from finbench.scoring import clusters_of, floors, hidden_metrics, holm, samples_of, seed_spread, values_of, welch

FORMATS = {"md": "table.md.j2", "latex": "table.tex.j2", "html": "table.html.j2"}
FIGURES = ("svg", "pdf", "png")
_ENDINGS = {"md": ".md", "latex": ".tex", "html": ".html"}
SPREADS = ("interval", "seeds")
_SHOWN = {"md": ("svg", "png"), "latex": ("pdf", "png"), "html": ()}  # figures that a report can show, the best first


def report(
    cards: Sequence[Path | str],
    *,
    format: str | None = None,
    spread: str = "interval",
    tasks: Sequence[str] = (),
    out: Path | None = None,
    figures: Sequence[str] | None = None,
) -> str:
    """Render the scorecards (files, or folders of them) as one table; also written to ``out`` if that is named.

    ``format``: md, latex or html; default: as ``out`` ends (.md, .tex, .html), else md.
    ``spread``: ``interval`` shows 95 % intervals over documents, a line a card; ``seeds`` shows mean and standard
    deviation of subjects that differ only in their seed. Bold is who is significantly better than every other
    line of its column (paired permutation tests, or Welch's t test over seeds; 5 %, Holm over the table); a
    dagger marks who is not significantly different from the best. Plots are part of HTML; for other formats they are
    written beside ``out`` in the formats of ``figures``: svg, pdf, png; by default what the report can show. Each has
    error bars of one kind, which its caption names; LaTeX includes the pdf or png, Markdown the svg or png.

    Raises FinbenchError for a file that is no scorecard, and an unknown format, spread or task.
    """
    format = format or format_of(out)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, "finbench report --help")
    if spread not in SPREADS:
        raise unknown("spread", spread, SPREADS, "finbench report --help")
    stated = figures is not None
    if figures is None:  # LaTeX includes no SVG
        figures = ("pdf",) if format == "latex" and find_spec("vl_convert") else ("svg",)
    for kind in figures:
        if kind not in FIGURES:
            raise unknown("figure format", kind, FIGURES, "finbench report --help")
    if out is None and stated:
        raise FinbenchError("Figures are written beside the report, and it is not written.", "Add --out table.tex")
    if out is not None:
        check_file(out, f"report{_ENDINGS[format]}")
    if set(figures) - {"svg"} and find_spec("vl_convert") is None:
        kinds = " and ".join(kind.upper() for kind in figures if kind != "svg")
        raise FinbenchError(f"Figures as {kinds} need vl-convert, which is not installed.", install("board"))
    names = [task.name for task in catalog.expand(tasks)]
    shown = table(cardfiles.expand(cards), spread, names)
    drawn: list[tuple[plots.Plot, str]] = []  # with the file that the report shows
    if out is not None and (format != "html" or stated):
        wanted = [kind for kind in _SHOWN[format] if kind in figures]
        for plot in shown.plots:
            stem = f"{out.stem}-{slug(plot.title)}"
            for kind in dict.fromkeys(figures):
                write_atomic(out.with_name(f"{stem}.{kind}"), _figure(plot.svg, kind))
            drawn += [(plot, f"{stem}.{wanted[0]}")] if wanted else []
    text = from_template(FORMATS[format], escape=format == "html", t=shown, drawn=drawn)
    if out is not None:
        write_atomic(out, text)
    return text


def format_of(out: Path | None) -> str:
    """The format that a file's name ends in, else md."""
    return next((kind for kind, end in _ENDINGS.items() if out is not None and out.suffix == end), "md")


def _figure(svg: str, kind: str) -> str | bytes:
    """A plot in another format; a PNG has 300 dots an inch."""
    if kind == "svg":
        return svg
    import vl_convert

    made: bytes = vl_convert.svg_to_pdf(svg) if kind == "pdf" else vl_convert.svg_to_png(svg, ppi=300)
    return made


def table(files: Sequence[Path], spread: str = "interval", tasks: Sequence[str] = ()) -> Table:
    """The table of these cards: columns by family and task, subjects in the order of their mean, bases first."""
    by_key: dict[str, Heading] = {}
    runs: dict[tuple[str, str], dict[str, list[SeedRun]]] = {}  # (name, what) -> task -> runs
    read: set[str] = set()
    for path in files:
        card = cardfiles.read(path)
        seal.refuse_edited(cardfiles.raw(path), str(path))
        if (text := card.to_json()) in read:
            continue  # a copy in another folder is no second run
        read.add(text)
        rows = cardfiles.rows_by_task(path, card)
        scores = {_key(card, score): score for score in card.scores if not tasks or score.task in tasks}
        for score in scores.values():
            catalog.recall(score.task, score.task_digest)
            if score.task in rows:
                follows(score, rows[score.task], path)
        who = _who(card, spread)
        earlier = [(run.card, key in scores) for key, own in runs.get(who, {}).items() for run in own]
        if not all(_one_line(card, other, same_setup, spread) for other, same_setup in earlier):
            who = f"{who[0]} ({path.with_suffix('')})", who[1]  # another run, or another subject, of the same name
        for key, score in scores.items():
            by_key.setdefault(key, Heading(score, conditions_of(card, score)))
            runs.setdefault(who, {}).setdefault(key, []).append(SeedRun(card, score, rows.get(score.task)))
    if not by_key:
        raise FinbenchError("None of the cards has a score of the tasks named.", "See them all: finbench tasks list")
    order = sorted(by_key, key=lambda e: (by_key[e].score.family, by_key[e].score.form == "choice", by_key[e].title, e))
    columns = [by_key[key] for key in order]
    titles = [column.title for column in columns]
    for column in columns:
        if titles.count(column.title) > 1:  # another version of the task, or other rows: it says which
            column.conditions += (f"v{column.score.version}", f"data {column.score.data.digest[:6]}")
    bases_first = sorted(runs.items(), key=lambda item: (item[0][1].partition(",")[0] != "base", item[0]))
    lines = [
        Line(name, what, [_cell(found[key], by_key[key]) if key in found else None for key in order])
        for (name, what), found in bases_first
    ]
    tested = _mark(lines, columns, spread)
    lines += _baselines(columns)
    families = _means(columns, lines)
    made = Table(columns, families, lines, spread, tested)
    made.plots = [plots.plot(made, number) for number in range(len(columns))]
    return made


def _key(card: Scorecard, score: Score) -> str:
    return str(sorted((k, str(v)) for k, v in (setup_of(card, score) | {"task": score.task}).items()))


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


def _cell(runs: list[SeedRun], column: Heading) -> TableCell:
    cell = TableCell(runs[0].score.main, column.share, runs)
    if len(runs) > 1:
        spread = seed_spread(cell.values)
        cell.measure = Measure(value=spread.mean, low=spread.low, high=spread.high, method="Student's t over seeds")
    return cell


def _mark(lines: list[Line], columns: list[Heading], spread: str) -> bool:
    """Set ``best`` and ``tied`` in every column; False where nothing could be tested."""
    tests: list[tuple[TableCell, TableCell, float | None]] = []  # the best of a column, another one, p
    for number, column in enumerate(columns):
        sign = -1 if column.lower_is_better else 1
        present = [cell for line in lines if (cell := line.cells[number]) is not None]
        best = max(present, key=lambda cell: sign * cell.measure.value)
        tests += [(best, cell, _p(best, cell, column, spread)) for cell in present if cell is not best]
    if all(p is None for *_, p in tests):
        return False
    adjusted = holm([1.0 if p is None else p for *_, p in tests])
    for best, _, _ in tests:
        best.best = True
    for (best, other, _), p in zip(tests, adjusted, strict=True):
        if p >= LEVEL:
            best.best, best.tied, other.tied = False, True, True
    return True


def _p(a: TableCell, b: TableCell, column: Heading, spread: str) -> float | None:
    """p-value that two lines of a column are alike; None where that cannot be tested."""
    if spread == "seeds":
        return welch(a.values, b.values) if max(len(a.runs), len(b.runs)) > 1 else None
    one, other = a.runs[-1].rows, b.runs[-1].rows
    metric = column.score.main_metric
    if not one or not other or documents(one) != documents(other):
        return None
    if other_golds(golds(column.score.task, one), golds(column.score.task, other)):
        return None
    if metric in hidden_metrics(one) | hidden_metrics(other):
        return None
    how = aggregation_of(column.score.task, metric)
    names = " or ".join(cell.runs[-1].card.subject.name for cell in (a, b))
    values = values_of(one)[metric], values_of(other)[metric]
    return difference(*values, how, clusters_of(one), names, samples_of(one)).p


def _baselines(columns: list[Heading]) -> list[Line]:
    lines = []
    found = [floors(column.score) for column in columns]
    for said in dict.fromkeys(said for each in found for said in each):
        values = [each.get(said, {}).get(column.score.main_metric) for each, column in zip(found, columns, strict=True)]
        cells: list[TableCell | None] = [None] * len(columns)
        for number, value in enumerate(values):
            if value is not None:
                exact = Measure(value=value, low=None, high=None, method="")
                cells[number] = TableCell(exact, columns[number].share)
        if any(cells):
            lines.append(Line(said, "no model", cells, baseline=True))
    return lines


def _means(columns: list[Heading], lines: list[Line]) -> list[str]:
    """Add the mean over each family of at least two tasks to the lines that have them all; return the headings.

    A mean that no subject has is left out.
    """
    members: dict[tuple[str, str], list[int]] = {}
    for number, column in enumerate(columns):
        if column.share and not column.conditions:
            members.setdefault((column.score.family, column.score.form), []).append(number)
    subjects = [line for line in lines if not line.baseline]
    chosen = {
        family: numbers
        for family, numbers in members.items()
        if len(numbers) > 1 and any(all(line.cells[n] for n in numbers) for line in subjects)
    }
    for line in lines:
        for numbers in chosen.values():
            values = [cell.measure.value for n in numbers if (cell := line.cells[n]) is not None]
            line.means.append(sum(values) / len(values) if len(values) == len(numbers) else None)
    both = {family for family, form in chosen if (family, "choice") in chosen and (family, "generate") in chosen}
    return [f"{family}, {form}" if family in both else family for family, form in chosen]
