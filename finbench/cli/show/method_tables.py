"""What ``finbench methods`` shows, to be read on 80 columns."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from finbench.core.console import out
from finbench.methods import SERVED, Method, Tuner
from finbench.training import recipes


def methods(found: Iterable[Method], others: Iterable[Tuner]) -> None:
    """A line each, what the last column means, and the names of peft's other tuners."""
    found = list(found)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for head in ("method", "what it trains", "bits", "becomes"):
        table.add_column(head, no_wrap=head != "what it trains")
    for one in found:
        table.add_row(f"[bold]{one.name}[/]", escape(one.summary), _bits(one), one.becomes)
    out.print(table, highlight=False)
    out.print()
    meaning = Table.grid(padding=(0, 2))
    meaning.add_row("[dim]becomes[/]", "[dim]and is served[/]")
    for kind, how in SERVED.items():
        meaning.add_row(kind, escape(how.replace("`", "")))
    out.print(meaning, highlight=False)
    out.print("\nTuners of peft, by peft's own name (*: not on GPT-2's Conv1D layers)")
    names = Table.grid(padding=(0, 2))
    names.add_column(no_wrap=True)
    by_bits: dict[str, list[str]] = {}
    for tuner in others:
        by_bits.setdefault(_bits(tuner), []).append(tuner.name + ("" if tuner.conv1d else "*"))
    for bits in sorted(by_bits, key=len, reverse=True):
        names.add_row(f"[dim]{bits} bits[/]", ", ".join(by_bits[bits]))
    out.print(names, highlight=False)
    out.print("\nEquation, paper, defaults and options of one: [bold]finbench methods NAME[/]", highlight=False)


def method(found: Method) -> None:
    """One method: what it computes, what becomes of it, and every option."""
    out.print(f"[bold]{found.name}[/]  {escape(found.summary)}\n", highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    whole = found.becomes == "model"
    reason = f": {found.refused}" if found.refused and found.bits != (16, 8, 4) else ""
    defaults = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                         for key, value in recipes.defaults_of(found).items())  # fmt: skip
    layers = [] if found.conv1d else ["nn.Linear, not GPT-2's Conv1D"]
    for name, text in (
        ("computes", found.equation),
        ("trains", found.trains and f"a layer: {found.trains} (h inputs, o outputs, rank r)"),
        ("paper", found.paper.removeprefix("-")),
        ("bits", ("" if whole else "any of " if len(found.bits) > 1 else "only ") + _bits(found) + reason),
        ("layers", ", ".join(layers)),
        ("becomes", f"{found.becomes}: {SERVED[found.becomes].replace('`', '')}"),
        ("defaults", defaults),
        ("not used", ", ".join(found.unused)),
    ):
        if text:
            table.add_row(name, escape(text))
    out.print(table, highlight=False)
    offered = found.offered()
    if found.options:
        out.print("\nIts own options, as [bold]--set key=value[/], and their defaults", highlight=False)
        own = Table.grid(padding=(0, 2))
        for key, value in found.options.items():
            shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            own.add_row(key, shown, escape(found.about.get(key, "as peft documents it")))
        out.print(own, highlight=False)
    if others := sorted(offered - set(found.options)):
        out.print(f"\nAlso, as peft documents them: {', '.join(others)}", highlight=False)
    bits = "" if 16 in found.bits or "bits" in found.defaults else f" --bits {found.bits[0]}"
    out.print(f"\nTry it: [bold]finbench train --task mini_sentiment --method {found.name}{bits}[/]", highlight=False)


def _bits(found: Method) -> str:
    return ", ".join(map(str, found.bits))
