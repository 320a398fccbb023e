"""``finbench tasks check``: every fault of the shipped tasks and recipes, found at once and before any model runs.

lm-eval skips a YAML that does not parse in silence, and its ``validate`` only asks whether a name exists.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finbench.cards import from_template
from finbench.core import catalog, paths
from finbench.core.catalog import Function
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.files import write_atomic
from finbench.core.prose import wrapped
from finbench.core.records import Task
from finbench.scoring import resolve_function, task_faults
from finbench.training import recipes

_LONGEST = 30  # lines of a task YAML
_ROOTS = (
    *("finbench", "finbench_mc", "finbench_long", "finbench_mini"),
    *("finbench_noise", "finbench_finlora", "finbench_fingpt", "finbench_published"),
)


def check_tasks(write: bool = False) -> list[str]:
    """Findings, one line each; empty when all is well. ``write`` refreshes the golden prompts first."""
    quiet()
    findings: list[str] = []
    for path in catalog.task_files():
        try:
            config = catalog.merged(path)
            findings += [f"{path.name}: {fault}" for fault in _file_faults(path, config)]
            if "group" not in config:
                task = catalog.read_task(path)
                findings += [f"{path.name}: {fault}" for fault in (*_set_faults(task), *task_faults(task, write))]
        except FinbenchError as fault:
            findings.append(fault.message)
    if not findings:  # groups and recipes can only be resolved when every task can
        findings += [*_place_faults(), *_recipe_faults(), *_page_faults(write)]
    return findings


def _page_faults(write: bool) -> Iterator[str]:
    """In a checkout, docs/tasks.md shows what the YAMLs say; a wheel has no docs."""
    path = paths.shipped("tasks").parent / "docs" / "tasks.md"
    if not path.parent.is_dir():
        return
    text = page()
    stale = not path.is_file() or path.read_text(encoding="utf-8") != text
    if stale and write:
        write_atomic(path, text)
    elif stale:
        yield "docs/tasks.md is stale: finbench tasks check --write"


def _file_faults(path: Path, config: dict[str, Any]) -> Iterator[str]:
    from lm_eval.config.task import TaskConfig

    name = config.get("group") or config.get("task")
    if name != path.stem:
        yield f"holds {name!r}; the file and what it holds must have one name"
    if not str(name).startswith("finbench"):
        yield f"{name!r} does not start with 'finbench': lm-eval has one name space for everybody"
    if len(path.read_text(encoding="utf-8").splitlines()) > _LONGEST:
        yield f"longer than {_LONGEST} lines: move what is shared into a template"
    if "group" in config:
        yield from _group_faults(config)
        return
    fields = {field.name for field in dataclasses.fields(TaskConfig)}
    yield from (f"lm-eval knows no key {key!r}" for key in config if key not in fields)
    for function in catalog.functions(config):
        try:
            resolve_function(function)
        except (FinbenchError, ImportError, SyntaxError, AttributeError) as fault:
            yield f"!function {function.spec}: {fault}"
    yield from _metric_faults(config)
    yield from _split_faults(config)


def _metric_faults(config: dict[str, Any]) -> Iterator[str]:
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    names = [entry.get("metric") for entry in config.get("metric_list") or []]
    main = (config.get("metadata") or {}).get("finbench_main_metric")
    if main not in names:
        yield f"the main metric {main!r} is not in metric_list ({', '.join(map(str, names))})"
    for entry in config.get("metric_list") or []:
        aggregation = entry.get("aggregation")
        if "higher_is_better" not in entry or aggregation is None:
            yield f"metric {entry.get('metric')!r} needs aggregation and higher_is_better"
        elif not isinstance(aggregation, Function) and aggregation not in AGGREGATION_REGISTRY:
            yield f"metric {entry.get('metric')!r}: lm-eval knows no aggregation {aggregation!r}"


def _split_faults(config: dict[str, Any]) -> Iterator[str]:
    """Examples and training rows come from train, the task from test: anything else leaks."""
    wanted = {"training_split": ("train",), "fewshot_split": ("train",), "test_split": ("test",)}
    for key, allowed in {**wanted, "validation_split": ("validation", None)}.items():
        if config.get(key) not in allowed:
            yield f"{key} is {config.get(key)!r}, not {allowed[0]!r}: train and test must stay apart"
    if config.get("repeats", 1) != 1:
        yield "repeats is not 1: only the first answer would count"


def _set_faults(task: Task) -> Iterator[str]:
    known = paths.helper("sets").SETS
    if not task.shipped and task.set not in known and not task.data.startswith("finbench data xbrl"):
        yield f"no data set is called {task.set!r} (tasks/lib/sets)"
    if len(task.examples) < 3:
        yield "finbench_examples has fewer than three invented rows"
    yield from (
        f"the baseline {name} is {value}, not a share of 1" for name, value in task.baselines.items() if value > 1
    )


def _group_faults(config: dict[str, Any]) -> Iterator[str]:
    """Members exist, once; means are of metrics that a member has, by an aggregation that lm-eval's groups know."""
    members = list(config.get("task") or [])
    known = {file.stem: file for file in catalog.task_files()}
    yield from (f"member {member!r} does not exist" for member in members if member not in known)
    yield from (f"member {member!r} is named twice" for member in dict.fromkeys(members) if members.count(member) > 1)
    try:
        configs = [catalog.merged(known[member]) for member in members if member in known]
    except FinbenchError:
        return  # said at that member's own file
    metrics = {entry.get("metric") for own in configs for entry in own.get("metric_list") or []}
    for entry in config.get("aggregate_metric_list") or []:
        if entry.get("metric") not in metrics:
            yield f"no member has the metric {entry.get('metric')!r}"
        if entry.get("aggregation") != "mean":
            yield f"the aggregation of a group is mean, found {entry.get('aggregation')!r}"


def _place_faults() -> Iterator[str]:
    """Every task is in the group of its kind, and in no other of the roots."""
    members = {root: catalog.expand([root]) for root in _ROOTS}
    reached = {task.name for tasks in members.values() for task in tasks}
    for name in sorted(catalog.shipped_tasks().keys() - reached):
        yield f"{name}: in none of the groups {', '.join(_ROOTS)}"
    for root, tasks in members.items():
        for task in tasks:
            kind = (
                f"finbench_{task.family}"
                if task.family in ("mini", "noise", "finlora", "fingpt", "published")
                else None
            )
            ends = {"_all_mc": "finbench_long", "_mc": "finbench_mc", "": "finbench"}
            kind = kind or next(group for end, group in ends.items() if task.name.endswith(end))
            if root != kind:
                yield f"{task.name}: belongs to {kind}, but is in {root}"


def _recipe_faults() -> Iterator[str]:
    defaults = catalog.read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml")
    catalog.bases()
    for name, path in catalog.recipe_files().items():
        try:
            recipes.recipe(name)
        except FinbenchError as fault:
            yield fault.message
            continue
        stated = catalog.read_yaml(path)
        yield from (f"{path.name}: {key} repeats the default" for key in stated if defaults.get(key) == stated[key])


def _code(text: str) -> str:
    """``text`` as code inside a table of Markdown."""
    text = text.replace("\n", "⏎").replace("|", "\\|")
    marks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    inner = f" {text} " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else text
    return f"{marks}{inner}{marks}" if text else "(nothing)"


def page() -> str:
    """Every task with its size, metrics, baselines, licence and what was corrected, as Markdown from the YAMLs."""
    known = catalog.shipped_tasks()
    families: dict[str, list[Task]] = {family: [] for family in catalog.FAMILIES}
    others: dict[str, list[str]] = {}
    sets: dict[str, Task] = {}
    for task in (task for name, task in known.items() if not name.endswith("_mc")):
        families.setdefault(task.family, []).append(task)
        if not task.shipped:
            sets.setdefault(task.set, task)
        config = catalog.merged(paths.shipped("tasks") / f"{task.name}.yaml")
        names = [entry["metric"] for entry in config["metric_list"] if not entry["metric"].endswith("_lenient")]
        others[task.name] = [name for name in names if name not in (task.main_metric, "parse_rate")]
    text = from_template(
        "taskpage.md.j2",
        escape=False,
        families=[(catalog.FAMILIES.get(family, family), tasks) for family, tasks in families.items() if tasks],
        others=others,
        known=known,
        sets=sets,
        table=paths.helper("sets").SETS,
        sizes=measured(),
        linear=json.loads((paths.shipped("tasks") / "linear.json").read_text(encoding="utf-8")),
        answers=json.loads((paths.shipped("tasks") / "answers.json").read_text(encoding="utf-8")),
        code=_code,
    )
    return wrapped(text)


def measured() -> dict[str, Any]:
    """What ``benchmarks/sets.py`` found: each set's rows by split, rows left out by reason, whether all were there."""
    found: dict[str, Any] = json.loads((paths.shipped("tasks") / "measured.json").read_text(encoding="utf-8"))
    return found
