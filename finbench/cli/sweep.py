"""The command of grids: sweep."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench import grid
from finbench.cli import show
from finbench.cli.command import DataDir, Found
from finbench.core.errors import FinbenchError


def sweep(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The sweep's YAML; or a word: status, fetch")],
    place: Annotated[
        str | None,
        typer.Argument(metavar="[DIR]", help="With status and fetch: where the results lie, a folder or URL."),
    ] = None,
    out: Annotated[str | None, "Results: a folder all nodes see, or a URL; default runs/sweep-<name>."] = None,
    ray: Annotated[str | None, "A running cluster: auto, host:port; default: Ray on this machine."] = None,
    dry_run: Annotated[bool, "--dry-run", "Show the cells, what is done already, and what the rest takes."] = False,
    gpu: Annotated[
        str | None, "With --dry-run: the card to plan for, as for finbench plan; default: this machine."
    ] = None,
    price: Annotated[float | None, "With --dry-run: an hour of a card, in any currency."] = None,
    data_dir: DataDir = None,
) -> Found:
    """A grid of models, methods, tasks and seeds on Ray; the same command goes on after a stop or a kill.

    finbench sweep status DIR, from another shell, shows how it stands; finbench sweep fetch URL copies the scorecards
    here, into --out or runs/<name>.
    """
    if file in ("status", "fetch"):
        if place is None:
            raise FinbenchError("Which sweep?", f"finbench sweep {file} runs/sweep-NAME, or a URL")
        if file == "fetch":
            return _fetched(grid.Place(place), out)
        found = grid.sweep_status(place)
        return Found(found, lambda: show.grids.status(found))
    if place is not None:
        message = f"One file is swept, and {place} is a second argument."
        raise FinbenchError(message, f"finbench sweep {file} --out {place}")
    if not dry_run and (gpu or price is not None):
        example = f"finbench sweep {file} --dry-run --gpu h100 --price 2.50"
        raise FinbenchError("--gpu and --price are for a plan.", example)
    result = finbench.sweep(Path(file), out, ray_address=ray, data_dir=data_dir, dry_run=dry_run)
    if isinstance(result, grid.Schedule):
        plan = grid.sweep_outline(result, grid.Place(out or f"runs/sweep-{result.sweep.name}"), gpu, price, data_dir)
        return Found(plan, lambda: show.grids.planned(plan))
    fault = None
    if result.failed:
        first = result.failed[0]
        fault = FinbenchError(
            f"{len(result.failed)} of {result.cells} cells failed; the first, {first['cell']}: {first['message']}",
            first["hint"] or "The same command tries them again.",
        )
    return Found(asdict(result), lambda: show.grids.ended(result), fault)


def _fetched(place: grid.Place, out: str | None) -> Found:
    target = Path(out or f"runs/{place.url.rstrip('/').rsplit('/', 1)[-1]}") / "scorecards"
    count = place.fetch_cards(target)
    said = f"{count:,} scorecards are in {target}.\nNext: finbench report {target} --spread seeds"
    return Found({"cards": count, "folder": str(target)}, lambda: typer.echo(said))
