"""Bases and adapters: found, checked, loaded, written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.models import (
        adapters,
        adopting,
        attaching,
        bases,
        chatguard,
        ggufs,
        mlxs,
        modelfiles,
        pickles,
        prefixes,
        structured,
        unfinished,
        zoo,
    )
    from finbench.models.described import has_template, taken_for
    from finbench.models.ggufs import accept
    from finbench.models.modelfiles import STRUCTURE, empty_model, is_structured, template_digest
    from finbench.models.unchanged import Unchanged
    from finbench.models.unfinished import MARK
else:
    __getattr__ = face(__name__)

__all__ = [
    "MARK",
    "STRUCTURE",
    "Unchanged",
    "accept",
    "adapters",
    "adopting",
    "attaching",
    "bases",
    "chatguard",
    "empty_model",
    "ggufs",
    "has_template",
    "is_structured",
    "mlxs",
    "modelfiles",
    "pickles",
    "prefixes",
    "structured",
    "taken_for",
    "template_digest",
    "unfinished",
    "zoo",
]
