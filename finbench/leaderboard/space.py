"""What a leaderboard publishes: a data set with the cards, and a static Space with the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finbench import hub
from finbench.cards import from_template
from finbench.core.errors import FinbenchError
from finbench.core.files import folder_atomic
from finbench.leaderboard.attested import ADAPTERS, RERUNS
from finbench.leaderboard.board import SCORECARDS
from finbench.leaderboard.building import DETAILS, build
from finbench.leaderboard.published import FILE

DATASET, SPACE = "dataset", "space"
# Cards are evidence: one that is published stays. Of the page what does not belong to it goes, and what the Hub puts
# into a new Space.
OWNED = {DATASET: (), SPACE: (f"{DETAILS}/*.js", "style.css")}


@dataclass(frozen=True)
class Publication:
    """The files of a leaderboard's two repositories by their paths there, and what a commit of them is called."""

    dataset: dict[str, Path | bytes]
    space: dict[str, Path | bytes]
    message: str

    def of(self, kind: str) -> dict[str, Path | bytes]:
        """The files of one of them."""
        return self.dataset if kind == DATASET else self.space


def gather(folder: Path, repo: str | None = None) -> Publication:
    """Everything to publish of a leaderboard folder; ``repo`` (org/name) is where, for links between the two.

    Raises FinbenchError where the generated files are stale or a card holds restricted texts: what is published is
    what was checked.
    """
    made = build(folder, check=True)
    if made.stale:
        raise FinbenchError(f"Stale: {', '.join(made.stale)}.", f"finbench leaderboard build {folder}")
    facts = {
        "cards": len(made.board.entries),
        "tests": len(made.board.tests),
        "repo": repo,
        "dataset_page": hub.page(repo, "dataset") if repo else None,
        "space_page": hub.page(repo, "space") if repo else None,
    }
    kept = [path for name in (SCORECARDS, ADAPTERS) for path in sorted((folder / name).rglob("*")) if path.is_file()]
    kept += [folder / name for name in ("leaderboard.csv", RERUNS, FILE) if (folder / name).is_file()]
    dataset: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in kept
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    space: dict[str, Path | bytes] = {name: folder / name for name in made.files}
    for files, name in ((dataset, DATASET), (space, SPACE)):
        files["README.md"] = from_template(f"leaderboard/{name}.md.j2", escape=False, **facts).encode()
    return Publication(dataset, space, f"finbench: leaderboard of {facts['cards']} scorecards")


def publication(folder: Path, out: Path) -> dict[str, Path]:
    """Write ``out/dataset`` (cards, samples, table) and ``out/space`` (page), each a repository as the Hub wants it.

    Returns the two folders by kind. Raises FinbenchError as ``gather`` does.
    """
    made = gather(folder)
    for kind in (DATASET, SPACE):
        with folder_atomic(out / kind) as place:
            for name, content in made.of(kind).items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return {DATASET: out / DATASET, SPACE: out / SPACE}
