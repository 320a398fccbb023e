"""How everything that is printed for people is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from finbench.core.console import out


def put(text: object = "", wrap: bool = False, **look: Any) -> None:
    """Print something, coloured only by markup; a line is broken at the terminal's end if ``wrap``."""
    out.print(text, highlight=False, soft_wrap=not wrap, **look)


def put_facts(table: Table, facts: Mapping[str, object]) -> None:
    """Print a table of names and what they are."""
    for name, fact in facts.items():
        table.add_row(f"[dim]{name}[/]", escape(str(fact)))
    out.print(table)


def columned(*columns: str, numbers: range = range(0)) -> Table:
    """A table without lines, with these headers, if any; the first column is never broken, ``numbers`` are at right."""
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=any(columns))
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if number in numbers else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=number == 0)
    return table
