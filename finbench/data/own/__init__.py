"""Rows of the user's own, to train on: found, their format recognised, looked through, and streamed.

Read ``shapes`` (which columns are what), then ``surveying`` (every row once, before anything is made of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.data.own.locating import absolute, again, holds_conversations, locate, remember
    from finbench.data.own.shapes import COLUMNS, Turn, looks_like_a_row
    from finbench.data.own.surveying import Survey, asked_in, survey, surveys
else:
    __getattr__ = face(__name__)

__all__ = [
    "COLUMNS",
    "Survey",
    "Turn",
    "absolute",
    "again",
    "asked_in",
    "holds_conversations",
    "locate",
    "looks_like_a_row",
    "remember",
    "survey",
    "surveys",
]
