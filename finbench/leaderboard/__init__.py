"""The leaderboard: scorecards in, tables and one static page out. See leaderboards/CONTRIBUTING.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.leaderboard.building import Built, build, pictures
    from finbench.leaderboard.intake import add
    from finbench.leaderboard.queue import Reproduction, reproduce
    from finbench.leaderboard.space import publication, push
else:
    __getattr__ = face(__name__)

__all__ = ["Built", "Reproduction", "add", "build", "pictures", "publication", "push", "reproduce"]
