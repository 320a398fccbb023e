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
from finbench.core.records import Recipe, Task
from finbench.core.strict import Record
from finbench.methods import METHODS, Method, method_named

PREFIX = "finbench_"  # of our keys in a task's metadata: lm-eval lets --model_args overwrite unprefixed ones


class Wheel(Record):
    """A PyPI package with a GGUF file inside."""

    package: str
    version: str
    file: str
    sha256: str


class Base(Record):
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
                line = node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} twice in line {line}", node.start_mark
                )
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor("!function", lambda loader, node: Function(str(node.value)))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, strictly. Faults are FinbenchErrors with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > 1_000_000 or text.count("*") > 10_000:  # an alias bomb is never a configuration
            raise FinbenchError(f"{path}: too large for a configuration file.")
        value = yaml.load(text, Loader=_StrictLoader)
    except FileNotFoundError as fault:
        raise FinbenchError(f"No such file: {path}") from fault
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise FinbenchError(f"{place}: not valid YAML ({getattr(fault, 'problem', None) or fault})") from fault
    except (OSError, ValueError, RecursionError) as fault:  # UnicodeDecodeError, and dates such as 2024-13-45
        raise FinbenchError(f"{path}: cannot be read ({fault})") from fault
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FinbenchError(f"{path}: a mapping with text keys is expected.")
    return value


# ---------------------------------------------------------------- tasks


def task_files() -> list[Path]:
    """Every task and group YAML, sorted by name."""
    return sorted(paths.shipped("tasks").glob("*.yaml"))


def merged(path: Path, seen: list[Path] | None = None) -> dict[str, Any]:
    """A task YAML with its includes merged as lm-eval merges them; every file read is appended to ``seen``."""
    seen = [] if seen is None else seen
    if path in seen:
        raise FinbenchError(f"{path}: includes itself.")
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
    elif isinstance(value, dict):
        for part in value.values():
            yield from functions(part)
    elif isinstance(value, list):
        for part in value:
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


def _digest(config: Mapping[str, Any], files: Iterable[Path]) -> str:
    """SHA-256 of what defines the exam: the YAML files and the helpers that render and score.

    The loader of rows is left out: what it yields is covered by the data digest.
    """
    folder = paths.shipped("tasks")
    helpers = {f.module for key, value in config.items() if key != "custom_dataset" for f in functions(value)}
    sha = hashlib.sha256()
    for path in [*files, *(folder / helper for helper in sorted(helpers))]:
        try:
            content = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as fault:
            raise FinbenchError(f"{path}: cannot be read ({fault.strerror})") from fault
        sha.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()


@functools.cache
def tasks() -> dict[str, Task]:
    """Every task by name."""
    return {
        task.name: task
        for path in task_files()
        if "task" in (y := read_yaml(path)) and "group" not in y
        for task in [read_task(path)]
    }


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


# ---------------------------------------------------------------- bases and recipes


@functools.cache
def bases() -> dict[str, Base]:
    """Every base of ``bases.yaml`` by alias."""
    path = paths.shipped("adapters_zoo") / "bases.yaml"
    return {
        alias: Base.parse({"alias": alias, **entry}, f"{path}: {alias}") for alias, entry in read_yaml(path).items()
    }


def recipe_files() -> dict[str, Path]:
    """Recipes of the zoo by name."""
    return {
        path.stem: path
        for path in sorted(paths.shipped("adapters_zoo").glob("*.yaml"))
        if path.stem not in ("bases", "published", "_defaults")
    }


def recipe(source: str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The Recipe from a zoo name or a YAML file (or neither), with overrides on top of ``_defaults.yaml``.

    Precedence: overrides, the recipe, the method's own defaults, ``_defaults.yaml``. None is a value as any other: it
    takes back a ``limit``, say.
    """
    defaults = _defaults()
    stated: dict[str, Any] = {}
    where = "options"
    if source is not None:
        path = _recipe_path(source)
        stated, where = read_yaml(path), str(path)
    changes = dict(overrides or {})
    if set(changes) - {"seed", "search"}:
        stated.pop("search", None)  # another recipe than the one that was searched for
    chosen = {**stated, **changes}
    method = method_named(str(chosen.get("method", defaults["method"])))
    chosen = _with_options(chosen, method, where)
    complete = {**defaults, **method.defaults, **chosen}
    complete["method"] = method.name
    for key in method.unused:
        if complete[key] != {**defaults, **method.defaults}[key]:
            raise FinbenchError(f"{where}: method {method.name} has no {key}.", f"Leave {key} out: finbench methods")
    if not complete.get("tasks"):
        raise FinbenchError(
            "What should be trained? No task is named.", "Add --task fpb, or name a recipe of: finbench zoo list"
        )
    complete["tasks"] = _weights(complete["tasks"])
    complete.setdefault("name", f"{_slug(path.stem)}-s{complete['seed']}" if source is not None else _name(complete))
    result = Recipe.parse(complete, where)
    method.check(result)
    return result


def defaults_of(method: Method) -> dict[str, Any]:
    """What ``method`` starts from unless a recipe says otherwise: rate, rank, scale, and what it sets by itself."""
    chosen = {**{key: _defaults()[key] for key in ("lr", "rank", "alpha")}, **method.defaults}
    return {key: value for key, value in chosen.items() if key not in method.unused}


@functools.cache
def _defaults() -> dict[str, Any]:
    return read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml")


def _with_options(chosen: dict[str, Any], method: Method, where: str) -> dict[str, Any]:
    """``chosen`` with every key that is the method's own moved into its ``options``; unknown ones are refused."""
    loose = sorted(set(chosen) - set(Recipe.model_fields))
    if not loose:
        return chosen
    strange = [key for key in loose if key not in method.option_names()]
    if strange:
        offered = sorted(method.offered())  # not those that are refused: they would be the next error
        raise FinbenchError(
            f"{where}: unknown recipe key {', '.join(repr(key) + _meant(key, method) for key in strange)}.",
            f"Keys: {', '.join(Recipe.model_fields)}\nOptions of {method.name}: {', '.join(offered)}",
        )
    stated = chosen.get("options") or {}
    if not isinstance(stated, Mapping):
        raise FinbenchError(f"{where}: options is a mapping, got {stated!r}.")
    rest = {key: value for key, value in chosen.items() if key not in loose}
    return {**rest, "options": {**stated, **{key: chosen[key] for key in loose}}}


def _meant(key: str, method: Method) -> str:
    """What a key was probably meant to be, for an error."""
    if owners := [name for name, other in METHODS.items() if key in other.options]:
        return f" (an option of {', '.join(owners)})"
    close = near_misses(key, Recipe.model_fields) or near_misses(key, method.meant())
    return f" (did you mean {close[0]}?)" if close else ""


def _recipe_path(source: str) -> Path:
    name = source.removeprefix("zoo:")
    if name in recipe_files():
        return recipe_files()[name]
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml") or "/" in source:
        if not path.is_file():
            raise FinbenchError(f"No such recipe file: {path}", "Recipes that come with finbench: finbench zoo list")
        return path
    raise unknown("recipe", name, recipe_files(), "finbench zoo list")


def _weights(stated: Any) -> dict[str, float]:
    """Tasks as ``{full name: weight}`` from a mapping, or from names such as ``fpb`` and ``tfns:0.5``."""
    if isinstance(stated, str):
        stated = [stated]
    if isinstance(stated, list) and all(isinstance(item, str) for item in stated):
        pairs = [item.partition(":") for item in stated]
        stated = {name: weight or 1.0 for name, _, weight in pairs}
    if not isinstance(stated, Mapping) or not all(isinstance(name, str) for name in stated):
        raise FinbenchError("tasks: a task, a list of tasks, or a mapping of tasks to weights is expected.")
    weights: dict[str, float] = {}
    for name, weight in stated.items():
        try:
            number = float(weight)
        except (TypeError, ValueError) as fault:
            raise FinbenchError(
                f"The weight of task {name} is not a number: {weight!r}.", "Write --task fpb:0.5"
            ) from fault
        for task in expand([name]):
            weights[task.name] = number
    return weights


def _name(complete: Mapping[str, Any]) -> str:
    """A name for people: it is never parsed."""
    tasks_part = "-".join(name.removeprefix(PREFIX).replace("_", "-") for name in complete["tasks"])
    base = str(complete["base"])
    short = Path(base).expanduser().resolve().name if base[:1] in ("~", ".", "/") else base.split("/")[-1].split("@")[0]
    return _slug(f"{tasks_part[:40]}-{short}-{_spelled(complete['method'])}-s{complete['seed']}")


def _spelled(method: str) -> str:
    """``lora+`` must not share a folder with ``lora``."""
    return method.replace("+", "plus")


def _slug(text: str) -> str:
    """Lower-case letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._") or "recipe"
