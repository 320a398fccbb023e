"""The leaderboard: scorecards in, tables and one static page out. See leaderboards/CONTRIBUTING.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.leaderboard.building import Built, build, pictures
    from finbench.leaderboard.intake import add
    from finbench.leaderboard.queue import Reproduction, reproduce
    from finbench.leaderboard.reviewing import Review, review
    from finbench.leaderboard.space import publication, push
    from finbench.leaderboard.store import pack, unpack
else:
    __getattr__ = face(__name__)

__all__ = [
    "Built",
    "Reproduction",
    "Review",
    "add",
    "build",
    "pack",
    "pictures",
    "publication",
    "push",
    "reproduce",
    "review",
    "unpack",
]
