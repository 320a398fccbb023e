"""Finds and strictly reads what is shipped: tasks, groups, recipes, bases. Unknown names get near misses.

Beside the shipped tasks it knows those of others that were named in this process: by ``--tasks ./folder``, by
``lm_eval:name``, by ``--include-path``, or in ``FINBENCH_TASKS``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from finbench.core import owntasks, paths, taskcode
from finbench.core.console import say
from finbench.core.errors import FinbenchError, unknown
from finbench.core.owntasks import LM_EVAL, OwnTask
from finbench.core.records import Task
from finbench.core.strict import Record
from finbench.core.taskfiles import Function as Function
from finbench.core.taskfiles import functions as functions
from finbench.core.taskfiles import merged as merged
from finbench.core.taskfiles import read_yaml as read_yaml

PREFIX = "finbench_"  # of our keys in a task's metadata: lm-eval lets --model_args overwrite unprefixed ones


class Wheel(Record):
    """A GGUF file inside a PyPI package, or in parts inside several."""

    packages: list[str] = Field(description="as pip takes them: name==version")
    files: list[str] = Field(description="the file, or its parts in order, below the folder of installed packages")
    sha256: str = Field(description="of the whole file")
    terms: str | None = Field(None, description="address of terms that whoever uses the weights has to accept first")


class Cutoff(Record):
    """Up to when a base has read, and who says so."""

    date: str = Field(description="a year, or a year and its month", pattern=r"^(19|20)\d\d(-(0[1-9]|1[0-2]))?$")
    source: str

    @property
    def year(self) -> int:
        """The year of the date."""
        return int(self.date[:4])


class BaseEntry(Record):
    """An entry of ``bases.yaml``."""

    alias: str
    hub_id: str
    revision: str | None = Field(description="commit; null: resolved when first fetched, and recorded")
    parameters: str
    licence: str
    gated: bool
    chat: bool
    wheel: Wheel | None = None
    cutoff: Cutoff | None = None


def task_files() -> list[Path]:
    """Every task and group YAML, sorted by name."""
    return sorted(paths.shipped("tasks").glob("*.yaml"))


def read_task(path: Path) -> Task:
    """The Task that a YAML states."""
    files: list[Path] = []
    config = merged(path, files)
    stated = {key.removeprefix(PREFIX): value for key, value in (config.get("metadata") or {}).items()}
    form = "choice" if config.get("output_type") == "multiple_choice" else "generate"
    stated |= {"name": config.get("task"), "form": form, "digest": owntasks.definition(config, files, path.parent)}
    stated.setdefault("prompt_style", "instruction, text, 'Answer:'")
    return Task.parse(stated, str(path))


@functools.cache
def shipped_tasks() -> dict[str, Task]:
    """Every task of finbench by name."""
    stated = {path: read_yaml(path) for path in task_files()}
    found = [read_task(path) for path, keys in stated.items() if "task" in keys and "group" not in keys]
    return {task.name: task for task in found}


@functools.cache
def tasks() -> dict[str, Task]:
    """Every task that is known here by name: finbench's, and those of others that were included."""
    _stated()
    return {**shipped_tasks(), **{name: own.task for name, own in _own.items()}}


@functools.cache
def groups() -> dict[str, list[str]]:
    """Every group by name: its direct members."""
    _stated()
    shipped = {y["group"]: list(y["task"]) for path in task_files() if "group" in (y := read_yaml(path))}
    return {**shipped, **_own_groups}


def of_set(name: str) -> Task:
    """A task on the data set ``name``; its licence, split rule and import command are the set's."""
    found = next((task for task in tasks().values() if task.set == name), None)
    if found is None:
        raise unknown("data set", name, {task.set for task in tasks().values()}, "finbench data list")
    return found


def full_name(name: str) -> str:
    """``fpb`` -> ``finbench_fpb``; a known full name stays. Raises FinbenchError with near misses."""
    if name.startswith(LM_EVAL):
        _include_lm_eval(name)
    known = {**tasks(), **groups()}
    for candidate in (name, PREFIX + name):
        if candidate in known:
            return candidate
    short = [known_name.removeprefix(PREFIX) for known_name in known]
    fault = unknown("task", name, short, "finbench tasks list")
    if Path(name).is_dir():
        fault.hint = f"If you mean the folder, write it as a path: ./{name}"
    raise fault


def expand(names: Iterable[str]) -> list[Task]:
    """Leaf tasks of tasks and groups, each once, in the order given. All unknown names are reported at once.

    A folder stands for every task in it.
    """
    found: dict[str, Task] = {}
    faults: list[FinbenchError] = []
    for name in names:
        try:
            name = name.strip()
            inside = include_tasks(Path(name)) if owntasks.is_path(name) else _leaves(full_name(name))
            found |= {task.name: task for task in inside}
        except FinbenchError as fault:
            faults.append(fault)
    if faults:
        raise FinbenchError(" ".join(fault.message for fault in faults), faults[0].hint)
    return list(found.values())


def _leaves(name: str, above: tuple[str, ...] = ()) -> list[Task]:
    if name in tasks():
        return [tasks()[name]]
    if name not in groups() or name in above:
        raise FinbenchError(
            f"Group {above[-1] if above else name} has the member {name!r}, which is no task, or the group itself.",
            "Correct the group's YAML.",
        )
    return [leaf for member in groups()[name] for leaf in _leaves(member, (*above, name))]


@functools.cache
def bases() -> dict[str, BaseEntry]:
    """Every base of ``bases.yaml`` by alias."""
    path = paths.shipped("adapters_zoo") / "bases.yaml"
    stated = read_yaml(path)
    return {alias: BaseEntry.parse({"alias": alias, **stated[alias]}, f"{path}: {alias}") for alias in stated}


TRAINED = "trained.yaml"  # what recipes of the zoo gave
_NO_RECIPES = ("bases.yaml", "published.yaml", "_defaults.yaml", TRAINED)


def recipe_files() -> dict[str, Path]:
    """Recipes of the zoo by name."""
    files = sorted(paths.shipped("adapters_zoo").glob("*.yaml"))
    return {path.stem: path for path in files if path.name not in _NO_RECIPES}


# what a family of tasks holds, in the order in which they are listed
FAMILIES = {
    "sentiment": "Sentiment",
    "headline": "Headlines",
    "ner": "Named entities",
    "xbrl": "XBRL",
    "qa": "Questions with a number as the answer",
    "reports": "Questions about pages of annual reports",
    "stance": "Stance and claims",
    "textbook": "Textbook finance",
    "general": "General ability: what fine-tuning forgets",
    "finlora": "FinLoRA's own prompts (compatibility, never ranked)",
    "fingpt": "FinGPT's instructions over our rows (for its adapters, never ranked)",
    "published": "Tests as published (to compare with papers, never ranked)",
    "noise": "Small changes that turn the answer (written for this project, never ranked)",
    "mini": "Small sets written for this project (demos and tests, never ranked)",
}


# ---------------------------------------------------------------- tasks of others

VARIABLE = "FINBENCH_TASKS"  # folders of tasks, separated as in PATH; processes that this one starts read it too
_own: dict[str, OwnTask] = {}
_own_groups: dict[str, list[str]] = {}
_trusting: list[bool] = [False]


def trust_code(trust: bool = True) -> None:
    """From now on, folders that are named may run their code, and their digests are remembered."""
    _trusting[0] = trust


def include_tasks(folder: Path | str, *, trust: bool = False) -> list[Task]:
    """Make the tasks of a folder (or of one YAML file) known to this process; return them.

    Raises FinbenchError for what cannot be scored, for a name that finbench has itself, and for code in the folder
    that the user has not yet trusted (``trust``): it is shown, and none of it was run.
    """
    place = Path(folder).expanduser()
    read = owntasks.read(place)
    known = {path.stem for path in task_files()}
    taken = [name for name in (*read.tasks, *read.groups) if {name, PREFIX + name} & known]
    if taken:
        raise FinbenchError(
            f"{place}: {taken[0]} is the name of a task of finbench.",
            "Give the task another name in its YAML, and file.",
        )
    for name, own in read.tasks.items():
        if name in _own and _own[name].file != own.file:
            raise FinbenchError(f"{own.file} and {_own[name].file} both have a task {name}.", "Name one of them.")
    if taskcode.check_trust(read.root, read.code, trust or _trusting[0]):
        say(f"{place}: its code is trusted from now on, as long as no file of it changes.")
    _own.update(read.tasks)
    _own_groups.update(read.groups)
    owntasks.remember(read)
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*included(), str(place.resolve())]))
    _forget()
    return [own.task for own in read.tasks.values()]


def included() -> list[str]:
    """The folders, and YAML files, whose tasks were included here."""
    return [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


def recall(name: str, digest: str) -> None:
    """Make a task known that a card names, if its folder was used on this machine and is still as it was."""
    if name in tasks():
        return
    if name.startswith(LM_EVAL):
        _include_lm_eval(name)
    elif file := owntasks.recalled(name, digest):
        found = owntasks.read(file).tasks.get(name)
        if found and found.task.digest == digest:
            include_tasks(file)


def not_here(name: str) -> FinbenchError:
    """The fault for a task that a card names and that is not known here."""
    return FinbenchError(
        f"{name} is no task of this finbench, and the folder of such a benchmark was not named.",
        f"Name the folder of the benchmark: --include-path DIR, or export {VARIABLE}=DIR; else: finbench tasks list",
    )


def own(name: str) -> OwnTask | None:
    """The task of others by this name; None where it is finbench's."""
    return _own.get(name)


def file_of(name: str) -> Path:
    """The YAML of a task that is known here."""
    found = _own.get(name)
    return found.file if found else paths.shipped("tasks") / f"{name}.yaml"


def root_of(name: str) -> Path:
    """The folder outside of which a task includes nothing."""
    found = _own.get(name)
    return found.root if found else paths.shipped("tasks")


def _include_lm_eval(name: str) -> None:
    if name not in _own:
        _own[name] = owntasks.lm_eval_task(name)
        _forget()


def _stated() -> None:
    """Include what FINBENCH_TASKS names, where that has not been done."""
    for part in included():
        place = Path(part).expanduser()
        if place.resolve() not in {path for one in _own.values() for path in (one.root, one.file)}:
            try:
                include_tasks(place)
            except FinbenchError as fault:
                hint = f"{fault.hint}\n" if place.exists() else ""
                fault.hint = f"{hint}It is named by {VARIABLE}: unset {VARIABLE}, or correct it."
                raise


def forget() -> None:
    """Know finbench's tasks only, and trust no code, as a new process does."""
    if _own or _own_groups:
        _own.clear()
        _own_groups.clear()
        _forget()
    trust_code(False)


def _forget() -> None:
    tasks.cache_clear()
    groups.cache_clear()
