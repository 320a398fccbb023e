"""README.md of a folder on this machine: an adapter, a merged model, an adapter made of others."""

from __future__ import annotations

from finbench.cards.render import from_template
from finbench.core.combined import Combined
from finbench.core.records import Adapter, MergedModel
from finbench.methods import method_named


def model_card(adapter: Adapter | MergedModel) -> str:
    """README.md of an adapter folder, or of a merged model (Markdown with the Hub's metadata block)."""
    if isinstance(adapter, MergedModel):
        return from_template("merged.md.j2", escape=False, m=adapter)
    learnt = adapter.recipe.learnt.items()
    tasks = ", ".join(name + (f" ({weight:g} x)" if weight != 1 else "") for name, weight in learnt)
    return from_template(
        "adapter.md.j2",
        escape=False,
        a=adapter,
        method=method_named(adapter.recipe.method),
        tasks=tasks,
        pictured=adapter.merge is None,  # the training of a merged model was elsewhere
    )


def combined_card(made: Combined, name: str) -> str:
    """README.md of an adapter that was made of others."""
    return from_template("combined.md.j2", escape=False, c=made, title=name).lstrip()
