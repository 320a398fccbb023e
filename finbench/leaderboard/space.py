"""What a leaderboard publishes: a data set with the cards, and a static Space with the page."""

from __future__ import annotations

import shutil
from pathlib import Path

from finbench.cards import template
from finbench.errors import FinbenchError
from finbench.files import folder_atomic
from finbench.leaderboard.attested import ADAPTERS, RERUNS
from finbench.leaderboard.board import SCORECARDS
from finbench.leaderboard.building import build
from finbench.leaderboard.published import FILE

DATASET, SPACE = "dataset", "space"


def publication(folder: Path, out: Path) -> dict[str, Path]:
    """Write ``out/dataset`` (cards, samples, table) and ``out/space`` (page), each a repository as the Hub wants it.

    Returns the two folders by kind. Raises FinbenchError where the generated files are stale or a card holds
    restricted texts: what is published is what was checked.
    """
    made = build(folder, check=True)
    if made.stale:
        raise FinbenchError(f"Stale: {', '.join(made.stale)}.", f"finbench leaderboard build {folder}")
    cards, exams = len(made.board.entries), len(made.board.exams)
    with folder_atomic(out / DATASET) as place:
        for name in (SCORECARDS, ADAPTERS):
            if (folder / name).is_dir():
                shutil.copytree(folder / name, place / name, ignore=shutil.ignore_patterns(".*"))
        for name in ("leaderboard.csv", RERUNS, FILE):
            if (folder / name).is_file():
                shutil.copy(folder / name, place / name)
        (place / "README.md").write_text(
            template("leaderboard/dataset.md.j2", escape=False, cards=cards, exams=exams), encoding="utf-8"
        )
    with folder_atomic(out / SPACE) as place:
        for name in made.files:
            (place / name).parent.mkdir(exist_ok=True)
            shutil.copy(folder / name, place / name)
        (place / "README.md").write_text(
            template("leaderboard/space.md.j2", escape=False, cards=cards, exams=exams), encoding="utf-8"
        )
    return {DATASET: out / DATASET, SPACE: out / SPACE}
