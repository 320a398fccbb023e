"""What ``finbench plan`` shows."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from finbench.core.console import out


def costs(plan: dict[str, Any]) -> None:
    """What ``finbench plan`` found."""
    need = plan["memory_gib"]
    parts = ", ".join(f"{name} {value:g}" for name, value in need.items() if name != "total")
    time = f"{plan['seconds']:,.{int(plan['seconds'] < 100)}f}"
    table = Table.grid(padding=(0, 2))
    shown = {
        "card": f"{_count(plan)}{plan['gpu']}, {plan['gpu_gib']:g} GiB",
        "base": plan["shape"],
        "memory": f"{need['total']:g} GiB: {parts}, and the libraries' own",
        "work": f"{plan['steps']:,} steps, {plan['tokens']:,} tokens, {plan['computed'] / plan['tokens']:.0%} computed",
        "time": f"{time} s, {plan['tokens_per_second']:,} tokens/s, without loading",
        "from": f"{plan['source']}; the card computes {plan['busy']:.0%} of the time, else it waits for the host",
        **({} if plan["cost"] is None else {"cost": f"{plan['cost']:.2f}"}),
    }
    for name, value in shown.items():
        table.add_row(f"[dim]{name}[/]", escape(str(value)))
    out.print(table)


def _count(plan: dict[str, Any]) -> str:
    return f"{plan['processes']} x " if plan["processes"] > 1 else ""
