"""A leaderboard folder: cards in, tables and page out; and whether what lies there is what the cards give."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.files import write_atomic
from finbench.leaderboard import charts, page, published, tables
from finbench.leaderboard.board import Board, board
from finbench.leaderboard.reading import beside, entries, read
from finbench.leaderboard.store import SCORECARDS

DETAILS = "details"


@dataclass(frozen=True)
class Built:
    """What was made of a folder: the board, the files in it, and which of them are not as they should be."""

    folder: Path
    board: Board
    files: list[str]
    stale: list[str] = field(default_factory=list)

    @property
    def refusals(self) -> list[str]:
        """What is wrong with cards that are not shown, a line a fault."""
        return [f"{one.file}: {fault}" for one in self.board.refused for fault in one.faults]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "folder": str(self.folder),
            "cards": len(self.board.entries),
            "tests": len(self.board.tests),
            "refused": {one.file: one.faults for one in self.board.refused},
            "files": self.files,
            "stale": self.stale,
        }


def build(folder: Path = Path("leaderboards"), *, check: bool = False, trusted: Path | None = None) -> Built:
    """Write ``leaderboard.md``, ``leaderboard.csv`` and ``index.html`` (beyond 200 cards ``details/`` too).

    Every card is verified first; one in which something is wrong is not shown, stops no other and stands in
    ``board.refused``. With ``check`` nothing is written, and ``stale`` names the files that are not what the cards
    give. Raises FinbenchError for a folder without cards.
    ``trusted``: a leaderboard whose keys, order of arrival and study are believed, not those in ``folder``.
    """
    _has_cards(folder)
    cards = read(folder, trusted)
    made, blocks = board(cards.entries, beside(trusted or folder), cards.refused), published.read(folder)
    files = {
        "leaderboard.md": tables.markdown(made, blocks),
        "leaderboard.csv": tables.table(made),
        **page.files(made, blocks),
    }
    # named by their digest, and of ours by their first word: what else lies there is not ours to remove
    scripts = [path for path in (folder / DETAILS).glob("*.js") if re.fullmatch(r"[0-9a-f]{12}\.js", path.name)]
    there = {f"{DETAILS}/{path.name}" for path in scripts if path.read_bytes().startswith(b"finbenchDetail(")}
    left_over = there - files.keys()  # details of cards that are gone
    if check:
        here = {name: (folder / name).read_text("utf-8") for name in files if (folder / name).is_file()}
        stale = [name for name, text in files.items() if name not in here or not page.same(here[name], text)]
        return Built(folder, made, sorted(files), sorted([*left_over, *stale]))
    for name in left_over:
        (folder / name).unlink()
    for name, text in files.items():
        write_atomic(folder / name, text)
    with contextlib.suppress(OSError):
        (folder / DETAILS).rmdir()  # only where it is empty
    return Built(folder, made, sorted(files))


def _has_cards(folder: Path) -> None:
    if not (folder / SCORECARDS).is_dir():
        raise FinbenchError(
            f"{folder} is no leaderboard: it has no folder {SCORECARDS}.",
            f"Add a card: finbench leaderboard add CARD --to {folder}",
        )


def pictures(folder: Path, out: Path) -> list[Path]:
    """PNG of score against cost for every test of at least two subjects, for model cards and documents."""
    _has_cards(folder)
    written = []
    for test in board(entries(folder), beside(folder)).tests:
        if len(test.rows) > 1 and any(row.cost is not None for row in test.rows):
            path = out / f"{cardfiles.slug(test.title)}-{test.key}.png"
            write_atomic(path, charts.png(test))
            written.append(path)
    return written
