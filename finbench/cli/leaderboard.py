"""The commands of the leaderboard: add cards, build tables and page, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finbench import leaderboard
from finbench.cli import show
from finbench.cli.command import DataDir, Found

Folder = Annotated[Path, typer.Argument(help="Leaderboard folder, with scorecards/ in it.")]


def add(
    cards: Annotated[list[Path], "Scorecards, folders of them, or lm-eval's output folder."],
    to: Annotated[Path, "Leaderboard folder."] = Path("leaderboards"),
    adapter: Annotated[str | None, "The card's adapter: its training record is added."] = None,
    base: Annotated[str | None, "The card's base, where bases.yaml does not know it."] = None,
    rerun: Annotated[int, "Ask the model this many documents of each task again."] = 0,
    name: Annotated[str | None, "Name of the subject, for lm-eval's output."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Verify cards and copy them; refused: whatever cannot be recomputed, and texts that may not be published."""
    added = leaderboard.add(cards, to=to, adapter=adapter, base=base, rerun=rerun, name=name, data_dir=data_dir)
    said = [*(f"Added: {path}" for path in added), f"Next: finbench leaderboard build {to}"]
    return Found([str(path) for path in added], lambda: typer.echo("\n".join(said)))


def build(
    folder: Folder = Path("leaderboards"),
    check: Annotated[bool, "--check", "Write nothing; exit 1 if a card is unfit or a file is stale."] = False,
    pictures: Annotated[Path | None, "Folder for PNGs of score against cost."] = None,
    export: Annotated[
        Path | None, "Folder for what goes to the Hub: dataset/ (cards, table) and space/ (page)."
    ] = None,
) -> Found:
    """Verify every card, then write leaderboard.md, leaderboard.csv and index.html."""
    made = leaderboard.build(folder, check=check)
    drawn = leaderboard.pictures(folder, pictures) if pictures else []
    if export and not made.stale:
        leaderboard.publication(folder, export)
    said = "up to date" if check else f"written to {folder}: {', '.join(made.files[:6])}"
    said = f"{len(made.board.entries)} cards, {len(made.board.tests)} tasks; {said}"
    if made.stale:
        said = f"Stale: {', '.join(made.stale)}. Run: finbench leaderboard build {folder}"
    value = made.as_dict() | {"pictures": [str(path) for path in drawn]}
    return Found(value, lambda: typer.echo(said, err=bool(made.stale)), typer.Exit(1) if made.stale else None)


def push(
    to: Annotated[str, "hub:org/name, of a data set (cards) and of a static Space (page)."],
    folder: Folder = Path("leaderboards"),
    dry_run: Annotated[bool, "--dry-run", "Show what would be sent; send nothing."] = False,
    public: Annotated[bool, "--public", "Make new repositories public; else private."] = False,
    pr: Annotated[bool, "--pr", "Open pull requests instead of changing the repositories."] = False,
) -> Found:
    """Publish cards and page, one commit each; what is stale or unfit is refused. Repeat it safely."""
    done = leaderboard.push(to, folder, dry_run=dry_run, public=public, pr=pr)
    return Found([pushed.as_dict() for pushed in done], lambda: show.publications.pushed(*done))
