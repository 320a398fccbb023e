"""Filings in XBRL: read (instance or inline), choose facts, ask questions whose answers are in the filing.

``build_questions`` is the whole of it; the command is ``finbench data xbrl``. Reading is plain XML: neither the
us-gaap schemas nor a network are needed, and nothing that a filing names is ever fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.data.xbrl.build import build_questions
    from finbench.data.xbrl.texts import passages
else:
    __getattr__ = face(__name__)

__all__ = ["build_questions", "passages"]
