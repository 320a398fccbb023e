"""The command of pretraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench.cli.cards import Json, settings


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(pretrain)


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A YAML file: examples/pretrain-*.yaml, docs/pretrain.md.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tokenise the text, and show what would be.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A recipe key, key=value; structure.rank=64 reaches into a part; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Pretrain a model with low-rank structure, from nothing or from a checkpoint, beside dense baselines.

    Ctrl-C keeps everything so far; --resume goes on at the exact batch.
    """
    from finbench.pretraining import main_process, read_recipe

    stated = read_recipe(recipe, settings(set_ or []))
    folder = out or Path("runs") / stated.name
    result = finbench.pretrain(stated, folder, resume=resume, dry_run=dry_run)
    if not main_process():
        return
    if as_json:
        typer.echo(json.dumps(result, indent=1) if isinstance(result, dict) else result.to_json().rstrip())
        return
    from finbench.cli.show import pretrained

    pretrained.planned(result, folder) if isinstance(result, dict) else pretrained.trained(result, folder)
