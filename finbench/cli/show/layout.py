"""How everything that is printed for people is laid out."""

from __future__ import annotations

from typing import Any, Literal

from rich.table import Table

from finbench.core.console import out


def put(text: str, **look: Any) -> None:
    """Print a text as it is: no terminal is too narrow for it, and nothing in it is coloured but by markup."""
    out.print(text, highlight=False, soft_wrap=True, **look)


def columned(*columns: str, numbers: range = range(0)) -> Table:
    """A table without lines, with these headers, if any; the first column is never broken, ``numbers`` are at right."""
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=any(columns))
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if number in numbers else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=number == 0)
    return table
