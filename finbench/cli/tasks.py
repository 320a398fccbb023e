"""Commands about what is shipped: tasks, bases, methods."""

from __future__ import annotations

from typing import Annotated

import typer

from finbench import evaluation, models
from finbench.cli import show
from finbench.cli.command import DataDir, Found, echo, taking
from finbench.core.errors import FinbenchError, counted
from finbench.core.settings import TaskSettings


def tasks_list(data_dir: DataDir = None) -> Found:
    """Every task and group, and whether its data are here."""
    from finbench.core import catalog, paths

    found, home = catalog.tasks(), paths.data_dir(data_dir)
    here = {task.set for task in found.values() if (home / task.set / "dataset.json").is_file()}
    return Found(found, lambda: show.listings.tasks(found.values(), catalog.groups(), here))


def tasks_show(name: Annotated[str, "Task, such as fpb."]) -> Found:
    """One task: what it measures, its data, and its prompt as a model sees it, on an invented example."""
    from finbench.core import catalog

    found = catalog.expand([name])
    shown = [evaluation.described(task) for task in found]
    return Found(shown, lambda: show.listings.task_details(shown))


@taking(TaskSettings)
def tasks_new(stated: TaskSettings) -> Found:
    """Make a benchmark of your own rows: a folder that finbench and stock lm-eval run, in which no text leaks."""
    made = evaluation.new_task(**vars(stated))
    return Found(made, lambda: show.listings.new_task(made))


def tasks_path() -> Found:
    """The folder for lm-eval: lm_eval run --include_path "$(finbench tasks path)" --tasks finbench_fpb"""
    from finbench.core import paths

    folder = str(paths.shipped("tasks"))
    return Found(folder, lambda: echo(folder))


def tasks_check(write: Annotated[bool, "--write", "Refresh the golden prompts."] = False) -> Found:
    """Check every task and recipe: all findings at once, exit 1 if there is one."""
    from finbench.core import catalog

    findings = evaluation.check_tasks(write)

    def shown() -> None:
        if findings:
            raise FinbenchError("\n".join(findings), counted(len(findings), "finding") + ".")
        counts = (len(catalog.tasks()), len(catalog.groups()), len(catalog.recipe_files()))
        echo("{} tasks, {} groups, {} recipes: all well.".format(*counts))

    return Found(findings, shown, typer.Exit(1) if findings else None)


def bases(
    accept: Annotated[str | None, "A base whose maker's terms you have read and accept."] = None,
) -> Found:
    """Base models by alias."""
    from finbench.core import catalog

    found = catalog.bases()
    if accept is not None:
        from finbench.core.errors import unknown

        if accept not in found:
            raise unknown("base", accept, found, "finbench bases")
        record = models.accept(found[accept])
        said = f"{accept}: its terms are accepted, as {record} says.\nNext: finbench demo --base {accept}"
        return Found({"accepted": accept, "record": str(record)}, lambda: echo(said))
    return Found(found, lambda: show.listings.bases(found.values()))


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, with every option it takes.")] = None,
) -> Found:
    """Low-rank methods: equation, paper, bits, and what a trained one becomes."""
    from finbench.methods import METHODS, TUNERS, method_named

    if name is not None:
        found = method_named(name)
        stated = {**found.described(), "option_names": sorted(found.offered())}
        return Found(stated, lambda: show.listings.method(found))
    every = [method.described() for method in [*METHODS.values(), *TUNERS.values()]]
    return Found(every, lambda: show.listings.methods(METHODS.values(), TUNERS.values()))
