"""What is printed about how sure a model is. No logic: each function shows what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from finbench.cards import (
    CardCalibration,
    Contextual,
    OverTime,
    PromptEffects,
    RiskPage,
    UnderNoise,
    amount,
    in_brackets,
    limits,
    percent,
    shown_points,
    shown_probability,
)
from finbench.cli.show.layout import columned, put, put_facts
from finbench.core.catalog import PREFIX
from finbench.core.console import out
from finbench.scoring import metrics

_WIDTH = 30  # characters of a full bar


def calibrated(found: Sequence[CardCalibration]) -> None:
    """Numbers, reliability as bars, and thresholds, of each score."""
    for number, one in enumerate(found):
        if number:
            out.print()
        own = one.found
        put(f"[bold]{escape(one.subject)}, {escape(one.task.removeprefix(PREFIX))}[/]: {one.signal}", wrap=True)
        table = columned("", "")
        facts: dict[str, object] = {
            "accuracy": f"{in_brackets(own.accuracy)} %, n = {own.n:,}, sources {own.sources:,}",
            "mean confidence": f"{percent(own.confidence)} %",
            "calibration error": f"{in_brackets(own.error)} % (of chance alone {percent(own.chance)})",
            "Brier score": f"{in_brackets(own.brier.score, share=False)} = reliability {own.brier.reliability:z.3f}"
            f" - resolution {own.brier.resolution:z.3f} + uncertainty {own.brier.uncertainty:.3f}"
            f" + within bins {own.brier.within:z.3f}",
        }
        if own.tempered:
            facts["temperature"] = (
                f"{own.tempered.temperature:.2f}{own.tempered.at_edge}, fitted on {own.tempered.fitted_on}"
            )
            facts["its gain"] = (
                f"{in_brackets(own.tempered.gain, share=False)} nats of log loss;"
                f" calibration error then {in_brackets(own.tempered.error)} %"
            )
        facts["the surest 80 %"] = f"{in_brackets(own.selective)} % right"
        facts["area under risk-coverage"] = f"{percent(own.area)} % wrong"
        put_facts(table, facts)
        bars = columned("confidence", "right", "n", "", numbers=range(3))
        for point in own.bins:
            filled, mark = round(_WIDTH * point.accuracy), min(_WIDTH - 1, round(_WIDTH * point.confidence))
            drawn = "█" * filled + "·" * (_WIDTH - filled)
            drawn = f"{drawn[:mark]}[bold red]|[/]{drawn[mark + 1 :]}"
            bars.add_row(percent(point.confidence), percent(point.accuracy), f"{point.n:,}", drawn)
        out.print(bars)
        for rule in own.thresholds:
            said = f"at most {100 * rule.wanted:g} % wrong: "
            if rule.least is None:
                put(f"{said}[yellow]no threshold can be guaranteed on these {rule.n:,} documents[/]", wrap=True)
            else:
                put(f"{said}take answers of more than {rule.least:.4f}: {percent(rule.coverage)} % of documents,"
                    f" {percent(rule.wrong)} % of them wrong here", wrap=True)  # fmt: skip
    put("[dim]| mean confidence; a guarantee holds with 95 % probability, for documents like these[/]", wrap=True)


def noises(found: Sequence[UnderNoise], unreached: Sequence[str] = ()) -> None:
    """A line for each noise on each task, and for each that changed no row."""
    for task in dict.fromkeys(one.task for one in found):
        own = [one for one in found if one.task == task]
        short, metric = escape(task.removeprefix(PREFIX)), own[0].metric
        put(f"[bold]{escape(own[0].subject)}, {short}[/]: {metrics.spoken(metric)}", wrap=True)
        table = columned("noise", "n", "plain", "noisy", "difference", "flips, %", numbers=range(1, 6))
        for one in own:
            share = metrics.is_share(metric)
            ends = [shown_points(metric, end) for end in one.difference.interval or ()]
            table.add_row(
                one.noise + (" ↔" if one.rule == "flipped" else ""),
                f"{one.n:,}",
                amount(one.plain.value, share),
                amount(one.noisy.value, share),
                shown_points(metric, one.difference.value) + (f" [{escape(', '.join(ends))}]" if ends else ""),
                escape(in_brackets(one.flips)),
            )
        out.print(table)
    for note in unreached:
        put(f"[yellow]{escape(note)}[/]", wrap=True)
    put(
        "[dim]n: documents that the noise changes; plain: these without it; ↔: the answer should turn; flips: answers"
        " that do not follow this[/]",
        wrap=True,
    )


def contextual(found: Sequence[Contextual]) -> None:
    """The score as it is and calibrated, of each task, and what the subject prefers."""
    for one in found:
        share = metrics.is_share(one.metric)
        said = f"{metrics.spoken(one.metric)}, n = {one.n:,}"
        put(f"[bold]{escape(one.subject)}, {escape(one.task.removeprefix(PREFIX))}[/]: {said}", wrap=True)
        ends = [shown_points(one.metric, end) for end in one.difference.interval or ()]
        gap = shown_points(one.metric, one.difference.value) + (f" [{', '.join(ends)}]" if ends else "")
        facts: dict[str, object] = {
            "as it is": in_brackets(one.plain, share),
            "calibrated": in_brackets(one.calibrated, share),
            "difference": f"{gap}, {shown_probability(one.p)}",
            "nothing to read": ", ".join(f"{label} {percent(part)} %" for label, part in one.preferred.items()),
        }
        put_facts(columned("", ""), facts)
    put("[dim]nothing to read: how probable each label is where the text has no content[/]", wrap=True)


def by_year(found: Sequence[OverTime]) -> None:
    """A line for each year, and for each side of the cut-off."""
    for number, one in enumerate(found):
        if number:
            out.print()
        share = metrics.is_share(one.metric)
        said = f"{metrics.spoken(one.metric)}, {one.dated:,} of {one.n:,} documents have a year"
        put(f"[bold]{escape(one.subject)}, {escape(one.task.removeprefix(PREFIX))}[/]: {said}", wrap=True)
        table = columned("", "n", "score", "95 % interval", numbers=range(1, 4))
        for part in (*one.years, *one.sides):
            ends = limits(part.score, share, " - ")
            table.add_row(part.name, f"{part.n:,}", amount(part.score.value, share), ends)
        out.print(table)
        put(f"[dim]{escape(one.said)}[/]", wrap=True)


def by_prompt(found: PromptEffects) -> None:
    """A line for each prompt of each score; then the stability of the order of subjects."""
    for one in found.scores:
        own, share = one.prompts, metrics.is_share(one.metric)
        task = one.task.removeprefix(PREFIX)
        put(f"[bold]{escape(one.subject)}, {task}[/]: {metrics.spoken(one.metric)}, n = {own.n:,}", wrap=True)
        table = columned("prompt", "differs in", "score", "95 % interval", "parsed, %", numbers=range(2, 5))
        for prompt in own.each:
            name = f"[red]{prompt.name}[/]" if prompt.name == own.worst and own.spread else prompt.name
            ends = limits(prompt.main, share, " to ")
            about = ", ".join(prompt.about) or "the task's own"
            table.add_row(name, about, amount(prompt.main.value, share), ends, percent(prompt.parse_rate))
        out.print(table)
        facts: dict[str, object] = {
            "own prompt": f"{in_brackets(one.own, share)}, other documents",
            "mean of prompts": f"{in_brackets(own.mean, share)}, other documents and other prompts",
            "spread": f"{amount(own.spread, share)} from {own.worst} to {own.best}" if own.spread else "none",
            "variance": ", ".join(f"{name} {percent(part)} %" for name, part in own.share.items()),
        }
        biases = {"label order": own.label_order_bias, "answer position": own.answer_position_bias}
        facts |= {f"bias of {name}": f"{in_brackets(one)} %" for name, one in biases.items() if one}
        put_facts(columned("", ""), facts)
        out.print()
    for ranks in found.ranks:
        first = ", ".join(f"{escape(name)} {count}" for name, count in ranks.firsts.items())
        first += f"; {ranks.tied} tied" if ranks.tied else ""
        put(
            f"[bold]{ranks.task.removeprefix(PREFIX)}[/]: order of {len(ranks.subjects)} subjects over"
            f" {len(ranks.prompts)} prompts: Kendall's tau {ranks.tau:.2f}; {percent(ranks.swapped)} % of the pairs"
            f" swap; first by so many prompts: {first}",
            wrap=True,
        )
    put("[dim]bias: by how much more often an answer is given where it is listed first than where last[/]", wrap=True)


def risky(page: RiskPage, file: Path) -> None:
    """What the page has, and what nobody tested."""
    put(f"[bold]{escape(page.subject)}[/]: {', '.join(one.title.lower() for one in page.shown)}", wrap=True)
    for one in page.untested:
        said, _, command = one.partition(": `")
        put(f"[yellow]untested[/] {escape(said)}{':' if command else ''}", wrap=True)
        if command:
            put(f"  {escape(command.rstrip('`'))}")  # on one line, so that it can be copied
    put(f"Page: {escape(str(file))}")
