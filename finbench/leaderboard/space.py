"""What a leaderboard publishes: a data set with the cards, and a static Space with the page, both of one name."""

from __future__ import annotations

import re
from pathlib import Path

from finbench import hub
from finbench.cards import cardfiles, from_template
from finbench.core import refs
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.files import check_replaced, folder_atomic
from finbench.hub import Kind
from finbench.leaderboard import store
from finbench.leaderboard.attested import ADAPTERS, ATTESTATIONS
from finbench.leaderboard.board import Board
from finbench.leaderboard.building import PARQUET, build
from finbench.leaderboard.page import PAGE
from finbench.leaderboard.precedence import ARRIVALS
from finbench.leaderboard.published import FILE
from finbench.leaderboard.signing import REVOKED, SIGNERS
from finbench.leaderboard.store import SCORECARDS
from finbench.publishing import Pushed

# Cards are evidence: one that is published stays. Of the page what does not belong to it goes, and what the Hub puts
# into a new Space. The data set first: a push that stops between the two leaves a page all of whose cards can be
# looked up.
_OWNED: dict[Kind, tuple[str, ...]] = {"dataset": (), "space": (f"{PAGE}/*", f"{PAGE}/*/*", "style.css")}


def gather(folder: Path, repo: str | None = None) -> tuple[dict[Kind, dict[str, Path | bytes]], str]:
    """The files of a leaderboard's two repositories by their paths there, and what a commit of them is called.

    ``repo`` (org/name) is where, for links between the two. Raises FinbenchError where the generated files are stale;
    cards that are refused or of an older version, and files of no card, stay here: what is published was checked.
    """
    made = build(folder, check=True)
    if "index.html" not in made.files:
        raise FinbenchError(f"{folder} holds no page yet.", f"finbench leaderboard build {folder}")
    if made.stale:
        raise FinbenchError(f"Stale: {made.stale_named}.", f"finbench leaderboard build {folder}")
    facts = {
        "cards": len(made.board.entries),
        "tests": len(made.board.tests),
        "repo": repo,
        "dataset_page": hub.page(repo, "dataset") if repo else None,
        "space_page": hub.page(repo, "space") if repo else None,
    }
    kept = _cards(folder, made.board)
    for name in (ADAPTERS, ATTESTATIONS):
        kept += [path for path in sorted((folder / name).rglob("*")) if path.is_file() and not path.is_symlink()]
    beside = ("leaderboard.csv", "leaderboard.json", PARQUET, ARRIVALS, SIGNERS, REVOKED, FILE)
    kept += [folder / name for name in beside if (folder / name).is_file()]
    inside = {path.relative_to(folder): path for path in kept}
    files: dict[Kind, dict[str, Path | bytes]] = {
        "dataset": {at.as_posix(): path for at, path in inside.items() if not any(p.startswith(".") for p in at.parts)},
        "space": {name: folder / name for name in made.files if name != PARQUET},
    }
    for kind, own in files.items():
        own["README.md"] = from_template(f"leaderboard/{kind}.md.j2", escape=False, **facts).encode()
    return files, f"finbench: leaderboard of {facts['cards']} scorecards"


def _cards(folder: Path, board: Board) -> list[Path]:
    """The cards that the page shows or has as history, with their samples, and Parquet files of such cards alone."""
    shown = {entry.key for entry in board.entries}.union(*board.history.values())
    places, wrong = store.places(folder)
    unfit = [f"{place.key}.json" for place in places if place.packed and place.key not in shown]
    unfit += [name for name in wrong if re.search(r"\.parquet(:|$)", name)]
    if unfit:
        raise FinbenchError(
            f"Parquet files of {folder} hold cards that are left out of the page, {len(unfit):,} in all: {unfit[0]}.",
            f"Take the cards out as files, and the Parquet files away: finbench leaderboard unpack OUT {folder}",
        )
    cards = [place.path for place in places if place.key in shown and not place.packed]
    samples = [path for card in cards if (path := cardfiles.samples_path(card)).is_file()]
    packed = [path for path in (folder / SCORECARDS).rglob("*.parquet") if path.is_file() and not path.is_symlink()]
    return sorted([*cards, *samples, *packed])


def publication(folder: Path, out: Path) -> dict[str, Path]:
    """Write ``out/dataset`` (cards, samples, table) and ``out/space`` (page), each a repository as the Hub wants it.

    Returns the two folders by kind. Raises FinbenchError as ``gather`` does.
    """
    files, _ = gather(folder)
    for kind, own in files.items():
        check_replaced(out / kind, {Path(name).parts[0] for name in own})
    for kind, own in files.items():
        with folder_atomic(out / kind) as place:
            for name, content in own.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return {kind: out / kind for kind in files}


def push(
    to: str, folder: Path = Path("leaderboards"), *, dry_run: bool = False, public: bool = False, pr: bool = False
) -> list[Pushed]:
    """Publish a leaderboard folder to ``hub:org/name``: the data set of that name, then the Space of that name.

    Each is one commit on the very state its plan was made for, with ``pr`` a pull request; both plans are made before
    anything is sent. New repositories are private unless ``public``. ``dry_run`` returns the plans alone, without a
    Hub too. Published cards that the folder lacks stay; details of the page that it lacks go.

    Raises FinbenchError for a folder whose generated files are stale, a card that ``finbench verify`` finds wrong or
    that holds restricted texts, and for every refusal of the Hub.
    """
    quiet()
    target = refs.parse(to)
    if target.kind != "hub" or target.revision:
        raise FinbenchError(f"{to} is no repository of the Hub to push to.{refs.meant(to)}", "Write hub:org/name.")
    files, message = gather(folder, target.name)
    plans = [
        hub.make_plan(
            target.name,
            [hub.File(name, content) for name, content in files[kind].items()],
            message=message,
            kind=kind,
            public=public,
            pull_request=pr,
            owned=owned,
            dry=dry_run,
        )
        for kind, owned in _OWNED.items()
    ]
    return [
        Pushed(plan, bytes(files[kind]["README.md"]).decode(), None if dry_run else hub.execute(plan))
        for kind, plan in zip(_OWNED, plans, strict=True)
    ]
