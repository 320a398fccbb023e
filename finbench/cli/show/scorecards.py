"""What the commands about scorecards print for people. No logic: each function shows what it is given."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from finbench.cards import (
    Comparison,
    Contest,
    cardfiles,
    endpoint_notes,
    shown_points,
    shown_probability,
    task_views,
    terminal_tables,
)
from finbench.cli.show.layout import columned, put
from finbench.core.catalog import PREFIX
from finbench.core.console import out
from finbench.core.records import Scorecard
from finbench.evaluation import Rescored, Verification
from finbench.scoring import metrics

_FAULTS = 12  # faults that are shown one by one


def scored(cards: Sequence[Scorecard], folder: Path) -> None:
    """The end of an evaluation: tables with bars, and where the files are."""
    for table in terminal_tables(cards, out.width):
        out.print(table)
        out.print()
    out.print("[dim]▓▒ 95 % interval; lenient: score under lenient parsing; parsed: share that parses strictly[/]")
    if any(view.generated for view in task_views(cards)):
        put("[dim]cut off: share that the budget cut off; thought: tokens of reasoning an answer[/]", wrap=True)
    for view in task_views(cards):
        for warning in view.warnings:
            put(f"[yellow]{escape(view.title)}:[/] {escape(warning)}", wrap=True)
    for note in endpoint_notes(cards):
        put(f"[dim]{escape(note)}[/]", wrap=True)
    partial = dict.fromkeys(card.subject.name for card in cards if card.status == "partial")
    if partial:
        out.print(f"[yellow]Partial[/] (on a leaderboard in tables of its own): {escape(', '.join(partial))}")
    noises = [str(card.arguments.get("metadata.noise", "")) for card in cards]
    several = len(set(noises)) > 1  # each has a folder of its own
    homes = [folder / noise if several else folder for noise in noises]
    names = {
        card.run_key: cardfiles.place_for(home, card.subject.name, card.run_key)
        for card, home in zip(cards, homes, strict=True)
    }
    put(f"{'Scorecard' if len(names) == 1 else 'Scorecards'}: {escape(', '.join(map(str, names.values())))}", wrap=True)
    if several:
        put(f"Next: finbench card noise CARD {escape(shlex.quote(str(folder)))}, CARD being the one without noise")
        return
    put(f"Report: {escape(str(folder / 'report.html'))}")
    files = {key: escape(shlex.quote(str(path))) for key, path in names.items()}
    if asked := {files[card.run_key]: 0 for card in cards if any(score.prompts for score in card.scores)}:
        put(f"Next: finbench card prompts {' '.join(asked)}")
    if sure := {files[card.run_key]: 0 for card in cards if card.generation and card.generation.confidence}:
        put(f"Next: finbench card calibration {' '.join(sure)}")
    if len(names) > 1:
        first = sorted(cards, key=lambda card: card.subject.kind == "base")  # is it better than the others?
        put(f"Next: finbench compare {escape(shlex.join(str(names[card.run_key]) for card in first))}")


def compared(found: Sequence[Comparison], show: int) -> None:
    """Verdict, table and differing documents of each pair."""
    for number, pair in enumerate(found):
        if number:
            out.print()
        put(f"[bold]{escape(pair.verdict)}[/]", wrap=True)
        out.print()
        out.print(_contests(pair))
        for task in pair.unshared:
            put(f"[dim]{task.removeprefix(PREFIX)}: only one of the two has it[/]", wrap=True)
        for contest in pair.contests:
            _differing(pair, contest, show)


def _contests(pair: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", caption_justify="left")
    table.caption = f"A: {escape(pair.a)}\nB: {escape(pair.b)}\np: paired permutation test, Holm-adjusted"
    table.caption += "\nn to settle: documents like these that would show a difference of this size, 4 times in 5"
    heads = ("", "metric", "A", "B", "A - B", "95 % interval", "p", "n to settle")
    lines = [_contest(contest) for contest in pair.contests]
    for number, head in enumerate(heads):
        needed = max(len(Text.from_markup(line[number]).plain) for line in lines)
        numeric = number > 1  # numbers are never cut; names are where the terminal is narrow
        table.add_column(
            head,
            justify="right" if numeric else "left",
            min_width=max(needed, 1) if numeric else None,
            no_wrap=numeric or number == 0,
            overflow="fold" if numeric else "ellipsis",
        )
    for line in lines:
        table.add_row(*line)
    return table


def _contest(contest: Contest) -> list[str]:
    colour = {"a": "green", "b": "red", None: "default"}[contest.winner]
    a, b = (shown_points(contest.metric, value, sign=False) for value in (contest.a.value, contest.b.value))
    ends = [shown_points(contest.metric, end, sign=False) for end in contest.difference.interval or ()]
    # where there is a winner, nothing is left to settle; "-" where no test was possible
    settled = (
        ""
        if contest.winner
        else "-"
        if contest.needed is None or contest.few
        else f"{max(contest.needed, contest.n):,}"
    )
    return [
        contest.task.removeprefix(PREFIX),
        metrics.spoken(contest.metric),
        a,
        b,
        f"[{colour}]{shown_points(contest.metric, contest.difference.value)}[/]",
        " to ".join(ends) or "–",
        "< .001" if contest.adjusted < 0.001 else f"{contest.adjusted:.3f}",
        settled,
    ]


def _differing(pair: Comparison, contest: Contest, show: int) -> None:
    count, name = len(contest.differing), contest.task.removeprefix(PREFIX)
    if contest.only_a is None:
        right = ""
    else:
        test = f"; McNemar {shown_probability(contest.mcnemar)}" if contest.mcnemar is not None else ""
        right = f"; only A is right on {contest.only_a:,}, only B on {contest.only_b:,}{test}"
    part = f" ({contest.part})" if contest.part else ""
    put(f"\n[bold]{name}[/]{part}: {count:,} of {contest.n:,} documents read differently{right}", wrap=True)
    if contest.by_prompt:
        gaps = [-gap if contest.lower_is_better else gap for gap in contest.by_prompt.values()]
        put(f"A is ahead by {sum(gap > 0 for gap in gaps)} of {len(gaps)} prompts, B by {sum(gap < 0 for gap in gaps)}")
    if not count or show < 1:
        return
    table = columned("row", "gold", "A", "B", "text" if any(d.text for d in contest.differing) else "document")
    for place in contest.differing[:show]:
        shown = escape(place.text) if place.text else f"[dim]{place.doc}[/]"
        table.add_row(str(place.index), escape(place.gold or ""), escape(place.a), escape(place.b), shown)
    out.print(table)
    if count > show:
        put(f"[dim]and {count - show:,} more (--show {count}, or --json)[/]", wrap=True)


def rescored(found: Sequence[Rescored]) -> None:
    """A line for each new score; then one for each card that stays as it was, and what to type."""
    for one in found:
        for change in one.changes:
            put(f"[green]new [/]  {escape(one.card)}: {escape(change.removeprefix(PREFIX))}", wrap=True)
    same = sum(not one.changes and not one.refused for one in found)
    if same:
        put(f"{same:,} of {len(found):,} cards are of the present versions already")
    for one in found:
        if one.refused:
            put(f"[bold red]left[/]  {escape(one.card)}: {escape(one.refused)}", wrap=True)
    for hint in dict.fromkeys(one.hint for one in found if one.hint):
        put(escape(hint))


def verified(found: Verification) -> None:
    """The verdict: faults by field, in red, then what was right all the same, then what it comes to."""
    for fault in found.faults[:_FAULTS]:
        put(f"[bold red]fault[/]  [bold]{escape(fault.field)}[/] {escape(fault.message)}", wrap=True)
    if len(found.faults) > _FAULTS:
        put(f"       and {len(found.faults) - _FAULTS:,} more (--json)", wrap=True)
    for note in found.notes:
        put(f"[yellow]note [/]  {escape(note.removeprefix(PREFIX))}", wrap=True)
    for check in found.right:
        put(f"[green]ok   [/]  {escape(check.removeprefix(PREFIX))}", wrap=True)
    if found.faults:
        put(f"\n[bold red]Not to be trusted[/]: {escape(found.card)}")
    else:
        put(f"\n[bold green]{found.level}[/]: {escape(found.card)}")
