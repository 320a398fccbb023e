"""What people see: scorecards and model cards as terminal, Markdown and HTML."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from finbench.catalog import PREFIX
from finbench.methods import METHODS
from finbench.records import Adapter


def _environment(html: bool) -> Environment:
    """Templates of finbench. ``html``: every value is escaped, so that text from a card stays text."""
    environment = Environment(
        loader=PackageLoader("finbench"), autoescape=html, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["number"] = lambda value: f"{value:g}"
    return environment


def model_card(adapter: Adapter) -> str:
    """README.md of an adapter folder (Markdown with the Hub's metadata block)."""
    tasks = ", ".join(
        name.removeprefix(PREFIX) + (f" ({weight:g} x)" if weight != 1 else "")
        for name, weight in adapter.recipe.tasks.items()
    )
    method = METHODS[adapter.recipe.method]
    template: Any = _environment(html=False).get_template("adapter.md.j2")
    return str(template.render(a=adapter, method=method, tasks=tasks))
