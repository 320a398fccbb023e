"""The leaderboard: scorecards in, tables and one static page out. See leaderboards/CONTRIBUTING.md."""

from finbench.leaderboard.building import Built, build, pictures
from finbench.leaderboard.intake import add
from finbench.leaderboard.pushing import push
from finbench.leaderboard.space import publication

__all__ = ["Built", "add", "build", "pictures", "publication", "push"]
