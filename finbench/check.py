"""``finbench tasks check``: every fault of the shipped tasks and recipes, found at once and before any model runs.

lm-eval skips a YAML that does not parse in silence, and its ``validate`` only asks whether a name exists.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finbench import catalog, paths, taskdocs
from finbench.catalog import Function
from finbench.console import quiet
from finbench.errors import FinbenchError
from finbench.files import write_atomic
from finbench.records import Task

_LONGEST = 30  # lines of a task YAML
_ROOTS = ("finbench", "finbench_mc", "finbench_mini", "finbench_finlora")


def check(write: bool = False) -> list[str]:
    """Findings, one line each; empty when all is well. ``write`` refreshes the golden prompts first."""
    quiet()
    findings: list[str] = []
    reached = set()
    for path in catalog.task_files():
        try:
            config = catalog.merged(path)
        except FinbenchError as fault:
            findings.append(fault.message)
            continue
        findings += [f"{path.name}: {fault}" for fault in _file_faults(path, config)]
        if "group" not in config:
            try:
                task = catalog.read_task(path)
            except FinbenchError as fault:
                findings.append(fault.message)
                continue
            findings += [f"{path.name}: {fault}" for fault in _task_faults(task, config, write)]
    if not findings:  # groups and recipes can only be resolved when every task can
        for root in _ROOTS:
            reached |= {task.name for task in catalog.expand([root])}
        findings += [
            f"{name}: in none of the groups {', '.join(_ROOTS)}" for name in sorted(set(catalog.tasks()) - reached)
        ]
        findings += list(_recipe_faults())
        findings += list(_page_faults(write))
    return findings


def _page_faults(write: bool) -> Iterator[str]:
    """In a checkout, docs/tasks.md shows what the YAMLs say; a wheel has no docs."""
    path = paths.shipped("tasks").parent / "docs" / "tasks.md"
    if not path.parent.is_dir():
        return
    page = taskdocs.page()
    if path.is_file() and path.read_text(encoding="utf-8") == page:
        return
    if write:
        write_atomic(path, page)
    else:
        yield "docs/tasks.md is stale: finbench tasks check --write"


# ---------------------------------------------------------------- files


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
        known = {file.stem for file in catalog.task_files()}
        yield from (f"member {member!r} does not exist" for member in config["task"] if member not in known)
        return
    fields = {field.name for field in dataclasses.fields(TaskConfig)}
    yield from (f"lm-eval knows no key {key!r}" for key in config if key not in fields)
    for function in catalog.functions(config):
        try:
            _resolve(function)
        except (FinbenchError, ImportError, SyntaxError, AttributeError) as fault:
            yield f"!function {function.spec}: {fault}"
    yield from _metric_faults(config)


def _resolve(function: Function) -> Callable[..., Any]:
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    resolved: Callable[..., Any] = _import_func_in_yml(function.spec, paths.shipped("tasks"))
    return resolved


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
    splits = [config.get(key) for key in ("training_split", "test_split")]
    if splits[0] == splits[1]:
        yield f"train and test are one split ({splits[0]!r})"


# ---------------------------------------------------------------- tasks


def _task_faults(task: Task, config: dict[str, Any], write: bool) -> Iterator[str]:
    try:
        exam = _exam_of_examples(task)
    except Exception as fault:  # noqa: BLE001 - lm-eval raises what it likes for a task that cannot be built
        yield f"lm-eval cannot build it: {type(fault).__name__}: {fault}"
        return
    docs = list(exam.dataset["test"])
    golden = {"version": task.version, "digest": task.digest, "pairs": [list(_pair(exam, doc)) for doc in docs]}
    yield from _score_faults(task, exam, docs)
    yield from _golden_faults(task, golden, write)
    if task.shipped:
        yield from _data_faults(task, config)


def _exam_of_examples(task: Task) -> Any:
    """The task as lm-eval builds it, on its three invented rows: no data set is needed."""
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = [{**row, **({"choices": task.labels} if task.labels else {})} for row in task.examples]
    config = load_yaml(paths.shipped("tasks") / f"{task.name}.yaml")
    split = datasets.Dataset.from_list(rows)
    config["custom_dataset"] = lambda **_: {"train": split, "validation": split, "test": split}
    return ConfigurableTask(config=config)


def _pair(exam: Any, doc: dict[str, Any]) -> tuple[str, str]:
    from finbench import prompts

    return prompts.pair(exam, doc)


def golden_prompt(task: Task) -> str:
    """The prompt and answer of a task's first example, as an exam shows it."""
    quiet()
    exam = _exam_of_examples(task)
    prompt, answer = _pair(exam, next(iter(exam.dataset["test"])))
    return prompt + answer


def _score_faults(task: Task, exam: Any, docs: list[dict[str, Any]]) -> Iterator[str]:
    """The gold answers must score 1, wrong labels and silence 0 or, of a metric without a floor, less."""
    aggregation = exam.aggregation()
    if task.main_metric not in aggregation:
        return  # said already

    def main(answers: list[list[Any]]) -> float:
        values = [exam.process_results(doc, answer) for doc, answer in zip(docs, answers, strict=True)]
        if unknown := {name for value in values for name in value} ^ set(aggregation):
            raise ValueError(f"the scorer and metric_list differ in {', '.join(sorted(unknown))}")
        return float(aggregation[task.main_metric]([value[task.main_metric] for value in values]))

    try:
        right, wrong = (
            main([_answer(task, exam, doc, True) for doc in docs]),
            main([_answer(task, exam, doc, False) for doc in docs]),
        )
    except Exception as fault:  # noqa: BLE001 - a scorer is anybody's code
        yield f"its scorer fails on the example rows: {type(fault).__name__}: {fault}"
        return
    if right != 1.0:
        yield f"its own gold answers score {right:g} on {task.main_metric}, not 1"
    if wrong > 0.0:
        what = "wrong labels" if task.form == "choice" else "empty answers"
        yield f"{what} score {wrong:g} on {task.main_metric}, not 0"


def _answer(task: Task, exam: Any, doc: dict[str, Any], right: bool) -> list[Any]:
    """What a model that is right, or wrong, would answer."""
    from finbench import prompts

    if task.form == "choice":
        gold = prompts.gold_choice(exam, doc)
        return [(float((number == gold) == right), False) for number in range(len(exam.doc_to_choice(doc)))]
    return [" " + str(exam.doc_to_target(doc)) if right else ""]


def _golden_faults(task: Task, golden: dict[str, Any], write: bool) -> Iterator[str]:
    path = paths.shipped("tasks") / "golden" / f"{task.name}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stored = None
    except ValueError as fault:
        yield f"{path.name} is torn ({fault})"
        return
    if stored == golden:
        return
    if stored and stored["version"] == task.version and stored["digest"] != task.digest:
        yield f"its definition has changed, but its version is still {task.version}: scores no longer compare"
    elif write:
        write_atomic(path, json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    else:
        yield "its golden prompts are missing or stale: finbench tasks check --write"


def _data_faults(task: Task, config: dict[str, Any]) -> Iterator[str]:
    """Rows of a shipped set: each is valid, and no text of test is in train."""
    loader = _resolve(Function("lib.rows.find"))
    reader = _resolve(Function("lib.rows.read"))
    files = loader(task.set, True)
    try:
        rows = {split: reader(file, task.labels) for split, file in files.items()}
    except ValueError as fault:
        yield str(fault)
        return
    if not {"train", "test"} <= set(rows):
        yield f"set {task.set} has no train or no test file"
        return
    key = [name for name in ("text", "question") if name in rows["test"][0]]
    sides = [
        {tuple(paths.helper("sets").normalise(str(row[name])) for name in key) for row in rows[split]}
        for split in ("train", "test")
    ]
    if shared := sides[0] & sides[1]:
        yield f"{len(shared)} texts of test are in train, such as {next(iter(shared))[0][:60]!r}"


# ---------------------------------------------------------------- recipes


def _recipe_faults() -> Iterator[str]:
    defaults = catalog.read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml")
    catalog.bases()
    for name, path in catalog.recipe_files().items():
        try:
            catalog.recipe(name)
        except FinbenchError as fault:
            yield fault.message
            continue
        stated = catalog.read_yaml(path)
        yield from (f"{path.name}: {key} repeats the default" for key in stated if defaults.get(key) == stated[key])
