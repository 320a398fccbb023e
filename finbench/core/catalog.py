"""Finds and strictly reads what is shipped: tasks, groups, recipes, bases. Unknown names get near misses."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from finbench.core import paths
from finbench.core.errors import FinbenchError, near_misses, unknown
from finbench.core.records import Task
from finbench.core.strict import Record

PREFIX = "finbench_"  # of our keys in a task's metadata: lm-eval lets --model_args overwrite unprefixed ones


class Wheel(Record):
    """A PyPI package with a GGUF file inside."""

    package: str
    version: str
    file: str
    sha256: str


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


@dataclass(frozen=True)
class Function:
    """A ``!function module.name`` of a task YAML, unresolved."""

    spec: str

    @property
    def module(self) -> str:
        """Path of the helper module below ``tasks/``."""
        return self.spec.rpartition(".")[0].replace(".", "/") + ".py"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and keeps ``!function`` as text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                problem = f"key {key!r} twice in line {node.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor("!function", lambda loader, node: Function(str(node.value)))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, strictly. Faults are FinbenchErrors with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > 1_000_000 or text.count("*") > 10_000:  # an alias bomb is never a configuration
            raise FinbenchError(
                f"{path}: too large for a configuration file.", "Name another file: a configuration has at most 1 MB."
            )
        value = yaml.load(text, Loader=_StrictLoader)
    except FileNotFoundError as fault:
        close = near_misses(path.name, (other.name for other in path.parent.glob("*.y*ml")))
        meant = f" Did you mean {' or '.join(close)}?" if close else ""
        raise FinbenchError(f"No such file: {path}.{meant}", f"See what is there: ls {path.parent}") from fault
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise FinbenchError(
            f"{place}: not valid YAML ({getattr(fault, 'problem', None) or fault})",
            "Correct that line; a text with a colon or # needs quotes.",
        ) from fault
    except (OSError, ValueError, RecursionError) as fault:  # UnicodeDecodeError, and dates such as 2024-13-45
        raise FinbenchError(
            f"{path}: cannot be read ({fault})", "Save it as UTF-8 text that you may read; write a date as 2024-06-30."
        ) from fault
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FinbenchError(f"{path}: a mapping with text keys is expected.", "Write lines of: key: value")
    return value


def task_files() -> list[Path]:
    """Every task and group YAML, sorted by name."""
    return sorted(paths.shipped("tasks").glob("*.yaml"))


def merged(path: Path, seen: list[Path] | None = None) -> dict[str, Any]:
    """A task YAML with its includes merged as lm-eval merges them; every file read is appended to ``seen``."""
    seen = [] if seen is None else seen
    if path in seen:
        raise FinbenchError(f"{path}: includes itself.", "Remove the include line that leads back to it.")
    seen.append(path)
    own = read_yaml(path)
    includes = own.pop("include", [])
    config: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        config |= merged(path.parent / name, seen)
    return config | own


def functions(value: Any) -> Iterable[Function]:
    """Every ``!function`` inside a part of a task YAML."""
    if isinstance(value, Function):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from functions(part)


def read_task(path: Path) -> Task:
    """The Task that a YAML states."""
    files: list[Path] = []
    config = merged(path, files)
    stated = {key.removeprefix(PREFIX): value for key, value in (config.get("metadata") or {}).items()}
    form = "choice" if config.get("output_type") == "multiple_choice" else "generate"
    stated |= {"name": config.get("task"), "form": form, "digest": _digest(config, files)}
    stated.setdefault("prompt_style", "instruction, text, 'Answer:'")
    return Task.parse(stated, str(path))


_BESIDE = re.compile(rb'with_name\("(\w+\.py)"\)')  # how a helper of tasks/lib loads another


def _digest(config: Mapping[str, Any], files: Iterable[Path]) -> str:
    """SHA-256 of what defines the task: the YAML files and the helpers that render and score.

    Helpers that these load are helpers too. The loader of rows is left out: the data digest covers what it yields.
    """
    folder = paths.shipped("tasks")
    helpers = {f.module for key, value in config.items() if key != "custom_dataset" for f in functions(value)}
    sha = hashlib.sha256()
    queue, done = [*files, *(folder / helper for helper in sorted(helpers))], set()
    for path in queue:
        try:
            content = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as fault:
            raise FinbenchError(
                f"{path}: cannot be read ({fault.strerror})", "Install it again: pip install --force-reinstall finbench"
            ) from fault
        sha.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
        beside = [path.with_name(name.decode()) for name in _BESIDE.findall(content)] if path not in files else []
        queue += [other for other in beside if other.name != "rows.py" and other not in done]
        done.update(beside)
    return sha.hexdigest()


@functools.cache
def tasks() -> dict[str, Task]:
    """Every task by name."""
    stated = {path: read_yaml(path) for path in task_files()}
    found = [read_task(path) for path, keys in stated.items() if "task" in keys and "group" not in keys]
    return {task.name: task for task in found}


@functools.cache
def groups() -> dict[str, list[str]]:
    """Every group by name: its direct members."""
    return {y["group"]: list(y["task"]) for path in task_files() if "group" in (y := read_yaml(path))}


def of_set(name: str) -> Task:
    """A task on the data set ``name``; its licence, split rule and import command are the set's."""
    found = next((task for task in tasks().values() if task.set == name), None)
    if found is None:
        raise unknown("data set", name, {task.set for task in tasks().values()}, "finbench data list")
    return found


def full_name(name: str) -> str:
    """``fpb`` -> ``finbench_fpb``; a known full name stays. Raises FinbenchError with near misses."""
    known = {**tasks(), **groups()}
    for candidate in (name, PREFIX + name):
        if candidate in known:
            return candidate
    short = [known_name.removeprefix(PREFIX) for known_name in known]
    raise unknown("task", name, short, "finbench tasks list")


def expand(names: Iterable[str]) -> list[Task]:
    """Leaf tasks of tasks and groups, each once, in the order given. All unknown names are reported at once."""
    found: dict[str, Task] = {}
    faults: list[FinbenchError] = []
    for name in names:
        try:
            for task in _leaves(full_name(name.strip())):
                found[task.name] = task
        except FinbenchError as fault:
            faults.append(fault)
    if faults:
        raise FinbenchError(" ".join(fault.message for fault in faults), faults[0].hint)
    return list(found.values())


def _leaves(name: str) -> list[Task]:
    if name in tasks():
        return [tasks()[name]]
    return [leaf for member in groups()[name] for leaf in _leaves(member)]


@functools.cache
def bases() -> dict[str, BaseEntry]:
    """Every base of ``bases.yaml`` by alias."""
    path = paths.shipped("adapters_zoo") / "bases.yaml"
    stated = read_yaml(path)
    return {alias: BaseEntry.parse({"alias": alias, **stated[alias]}, f"{path}: {alias}") for alias in stated}


def recipe_files() -> dict[str, Path]:
    """Recipes of the zoo by name."""
    files = sorted(paths.shipped("adapters_zoo").glob("*.yaml"))
    return {path.stem: path for path in files if path.stem not in ("bases", "published", "_defaults")}
