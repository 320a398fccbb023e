"""``finbench leaderboard push``: the cards as a data set, the page as a static Space, both of one name."""

from __future__ import annotations

from pathlib import Path

from finbench import hub
from finbench.core import refs
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.hub import Kind
from finbench.leaderboard.space import OWNED, gather
from finbench.publishing import Pushed

# The data set first: a push that stops between the two leaves a page all of whose cards can be looked up.
_ORDER: tuple[Kind, ...] = ("dataset", "space")


def push(
    to: str,
    folder: Path = Path("leaderboards"),
    *,
    dry_run: bool = False,
    public: bool = False,
    pr: bool = False,
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
    made = gather(folder, target.name)
    plans = [
        hub.make_plan(
            target.name,
            [hub.File(name, content) for name, content in made.of(kind).items()],
            message=made.message,
            kind=kind,
            public=public,
            pull_request=pr,
            owned=OWNED[kind],
            dry=dry_run,
        )
        for kind in _ORDER
    ]
    readmes = [bytes(made.of(kind)["README.md"]).decode() for kind in _ORDER]
    return [
        Pushed(plan, readme, None if dry_run else hub.execute(plan))
        for plan, readme in zip(plans, readmes, strict=True)
    ]
