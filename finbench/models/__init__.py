"""Bases and adapters: found, checked, loaded, written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.models import adapters, bases, prefixes, structured, zoo
    from finbench.models.described import has_template, taken_for
    from finbench.models.ggufs import accept
    from finbench.models.modelfiles import STRUCTURE, empty_model, is_structured, template_digest
else:
    __getattr__ = face(__name__)

__all__ = [
    "STRUCTURE",
    "accept",
    "adapters",
    "bases",
    "empty_model",
    "has_template",
    "is_structured",
    "prefixes",
    "structured",
    "taken_for",
    "template_digest",
    "zoo",
]
