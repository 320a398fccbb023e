"""What ``finbench ask`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from finbench.cli.show.layout import put
from finbench.core.console import out
from finbench.core.errors import shortened
from finbench.evaluation import SubjectReply

_BAR, _NARROW = 24, 10  # characters of a full bar


def replies(found: Sequence[SubjectReply]) -> None:
    """Each subject's answer, and below it a line for each label, with a bar for every subject."""
    names = [_short(reply.name, max(12, (out.width - 18) // max(1, len(found)) - 4)) for reply in found]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    table.add_row(Text("answer", style="dim"), *(Text(_said(reply)) for reply in found))
    labels = list(found[0].probabilities or ())
    width = min(_BAR, max(_NARROW, (out.width - 2 - max(map(len, labels), default=0)) // len(found) - 12))
    for label in labels:
        table.add_row(escape(label), *(_bar(reply, label, width) for reply in found))
    if labels:
        kept = ("" if reply.mass is None else f"{100 * reply.mass:5.1f} %" for reply in found)
        table.add_row(Text("all labels", style="dim"), *(Text(one, style="dim") for one in kept))
    out.print(table)
    if labels:
        put("\n[dim]Bars: probability of a label among the labels; all labels: of all answers, theirs.[/]", wrap=True)


def _bar(reply: SubjectReply, label: str, width: int) -> Text:
    share = (reply.probabilities or {})[label]
    full = round(width * share)
    colour = "green" if label == reply.likeliest else "dim"
    drawn = ("\u2588" * full, colour), ("\u00b7" * (width - full), "dim")
    return Text.assemble((f"{100 * share:5.1f} % ", colour), *drawn)


def _said(reply: SubjectReply) -> str:
    return shortened(" ".join(reply.answer.split())) or "(nothing)"


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "\u2026"
