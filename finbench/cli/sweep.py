"""The command of grids: sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench.cli.cards import DataDir, Json


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(sweep)


def sweep(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The sweep's YAML; or a word: status, fetch")],
    place: Annotated[
        str | None,
        typer.Argument(metavar="[DIR]", help="With status and fetch: where the results lie, a folder or URL."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Results: a folder all nodes see, or a URL; default runs/sweep-<name>.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="A running cluster: auto, host:port; default: Ray on this machine.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells, what is done already, and what the rest takes.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(help="With --dry-run: the card to plan for, as for finbench plan; default: this machine."),
    ] = None,
    price: Annotated[float | None, typer.Option(help="With --dry-run: an hour of a card, in any currency.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """A grid of models, methods, tasks and seeds on Ray; the same command goes on after a stop or a kill.

    finbench sweep status DIR, from another shell, shows how it stands; finbench sweep fetch URL copies the scorecards
    here, into --out or runs/<name>.
    """
    from finbench.cli.show import grids
    from finbench.core.errors import FinbenchError

    if file in ("status", "fetch"):
        from finbench.grid import sweep_status

        if place is None:
            raise FinbenchError("Which sweep?", f"finbench sweep {file} runs/sweep-NAME, or a URL")
        if file == "fetch":
            _fetch(place, out, as_json)
            return
        found = sweep_status(place)
        typer.echo(json.dumps(found, indent=1)) if as_json else grids.status(found)
        return
    if place is not None:
        raise FinbenchError(
            f"One file is swept, and {place} is a second argument.", f"finbench sweep {file} --out {place}"
        )
    from finbench.grid import Place, Schedule, forecast, planned_memory

    if not dry_run and (gpu or price is not None):
        raise FinbenchError(
            "--gpu and --price are for a plan.", f"finbench sweep {file} --dry-run --gpu h100 --price 2.50"
        )
    result = finbench.sweep(Path(file), out, ray_address=ray, data_dir=data_dir, dry_run=dry_run)
    if isinstance(result, Schedule):
        found = forecast.forecasts(result, gpu, price, data_dir)
        results = Place(out or f"runs/sweep-{result.sweep.name}")
        grids.planned(result, found, planned_memory(result, results, data_dir, found), as_json)
        return
    grids.ended(result, as_json, result.place)
    if result.failed:
        first = result.failed[0]
        raise FinbenchError(
            f"{len(result.failed)} of {result.cells} cells failed; the first, {first['cell']}: {first['message']}",
            first["hint"] or "The same command tries them again.",
        )


def _fetch(place: str, out: str | None, as_json: bool) -> None:
    from finbench.grid import Place

    target = Path(out or f"runs/{place.rstrip('/').rsplit('/', 1)[-1]}") / "scorecards"
    count = Place(place).fetch_cards(target)
    if as_json:
        typer.echo(json.dumps({"cards": count, "folder": str(target)}, indent=1))
        return
    typer.echo(f"{count:,} scorecards are in {target}.\nNext: finbench report {target} --spread seeds")
