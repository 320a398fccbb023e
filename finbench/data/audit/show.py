"""An audit for people: the files in a table, then every finding in a sentence, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from finbench.core.errors import counted
from finbench.data.audit.findings import LEVELS, Audit, Finding

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}
_PLACES = 3


def audit_tables(found: Audit) -> Iterator[Any]:
    """What to print, piece by piece."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("file", "split", "rows", "text", "answer", "licence"):
        table.add_column(column, overflow="fold", justify="right" if column == "rows" else "left")
    for seen in found.sources:
        gold = ", ".join(seen.gold[:2]) + (f" and {len(seen.gold) - 2} more" if len(seen.gold) > 2 else "")
        cells = (seen.name, seen.split or "", f"{seen.rows:,}", ", ".join(seen.texts), gold)
        table.add_row(*map(escape, (*cells, seen.licence or "not stated")))
    yield table
    for name, why in found.skipped.items():
        yield f"[dim]left out: {escape(name)}: {escape(why)}[/]"
    for name, why in found.unread.items():
        yield f"[yellow]not read: {escape(name)}: {escape(why)}[/]"
    yield ""
    before = None
    for finding in found.findings:
        if before not in (None, finding.level):
            yield ""
        before = finding.level
        yield from _lines(finding)
    rows = sum(seen.rows for seen in found.sources)
    counts = {level: sum(finding.level == level for finding in found.findings) for level in LEVELS}
    said = ", ".join(counted(count, level) for level, count in counts.items())
    read = f"{counted(rows, 'row')} of {counted(len(found.sources), 'file')}"
    unread = f"; {counted(len(found.unread), 'file')} not read, or not all of it" if found.unread else ""
    yield ("\n" if found.findings else "") + f"{read}: {said if found.findings else 'nothing found'}{unread}."


def _lines(finding: Finding) -> Iterator[str]:
    colour = _COLOURS[finding.level]
    yield f"[{colour}]{finding.level}[/] [bold]{finding.check}[/]  [dim]{escape(', '.join(finding.sources))}[/]"
    yield f"  {escape(finding.said)}"
    if finding.detail:
        yield "  [dim]" + escape(", ".join(f"{name}: {count:,}" for name, count in finding.detail.items())) + "[/]"
    if finding.places:
        more = f" and {finding.count - _PLACES:,} more" if finding.count > _PLACES < len(finding.places) else ""
        yield f"  [dim]{escape(', '.join(finding.places[:_PLACES]))}{more}[/]"
    if finding.example:
        yield f"  [dim]e.g. {escape(' '.join(finding.example.split()))}[/]"
