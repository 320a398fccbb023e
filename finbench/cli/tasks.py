"""Commands about what is shipped: tasks, bases."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from finbench.cli.options import Json
from finbench.core.errors import FinbenchError

tasks_app = typer.Typer(no_args_is_help=True, help="The tasks: list, show, check; their folder for lm-eval.")


def register(app: typer.Typer) -> None:
    """Hang the commands into the command line."""
    app.add_typer(tasks_app, name="tasks")
    app.command()(bases)


@tasks_app.command("list")
def tasks_list(as_json: Json = False) -> None:
    """Every task and group."""
    from finbench.cli.show import runs
    from finbench.core import catalog

    found = catalog.tasks()
    if as_json:
        typer.echo(json.dumps({name: task.model_dump() for name, task in found.items()}, indent=1))
    else:
        runs.tasks(found.values(), catalog.groups())


@tasks_app.command("show")
def tasks_show(name: Annotated[str, typer.Argument(help="Task, such as fpb.")], as_json: Json = False) -> None:
    """One task: what it measures, its data, and its prompt as a model sees it, on an invented example."""
    from finbench.cli.show import runs
    from finbench.core import catalog
    from finbench.scoring import golden_prompt

    found = catalog.expand([name])
    shown = [{**task.model_dump(), "golden_prompt": golden_prompt(task)} for task in found]
    if as_json:
        typer.echo(json.dumps(shown, indent=1))
    else:
        runs.task_details(shown)


@tasks_app.command("path")
def tasks_path(as_json: Json = False) -> None:
    """The folder for lm-eval: lm_eval run --include_path "$(finbench tasks path)" --tasks finbench_fpb"""
    from finbench.core import paths

    folder = str(paths.shipped("tasks"))
    typer.echo(json.dumps(folder) if as_json else folder)


@tasks_app.command("check")
def tasks_check(
    write: Annotated[bool, typer.Option("--write", help="Refresh the golden prompts.")] = False, as_json: Json = False
) -> None:
    """Check every task and recipe: all findings at once, exit 1 if there is one."""
    from finbench.core import catalog
    from finbench.evaluation import check_tasks

    findings = check_tasks(write)
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    elif findings:
        raise FinbenchError("\n".join(findings), f"{len(findings)} findings.")
    else:
        counts = (len(catalog.tasks()), len(catalog.groups()), len(catalog.recipe_files()))
        typer.echo("{} tasks, {} groups, {} recipes: all well.".format(*counts))
    if findings:
        raise typer.Exit(1)


def bases(as_json: Json = False) -> None:
    """Base models by alias."""
    from finbench.cli.show import runs
    from finbench.core import catalog

    found = catalog.bases()
    if as_json:
        typer.echo(json.dumps({alias: base.model_dump() for alias, base in found.items()}, indent=1))
    else:
        runs.bases(found.values())
