"""One task, evaluated on its own example rows: prompts, scores of right and wrong answers, what must not leak.

lm-eval builds the task as it would for a model, and the answers go through its filters and the task's scorer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from finbench.core import catalog, paths
from finbench.core.catalog import Function
from finbench.core.console import quiet
from finbench.core.files import write_atomic
from finbench.core.records import Task
from finbench.scoring import foreign, measuring, prompts, wordings


def task_faults(task: Task, write: bool = False) -> Iterator[str]:
    """Findings about a task, one line each; ``write`` refreshes its golden prompts."""
    try:
        lm_task = task_of_examples(task)
    except Exception as fault:  # noqa: BLE001 - lm-eval raises what it likes for a task that cannot be built
        yield f"lm-eval cannot build it: {type(fault).__name__}: {fault}"
        return
    docs = list(lm_task.dataset["test"])
    golden = {
        "version": task.version,
        "digest": task.digest,
        "pairs": [list(prompts.pair(lm_task, doc)) for doc in docs],
    }
    yield from _prompt_faults(lm_task, docs)
    yield from _score_faults(task, lm_task)
    if task.own:
        return
    yield from _golden_faults(task, golden, write)
    if task.shipped:
        yield from _data_faults(task)


def resolve_function(function: Function) -> Callable[..., Any]:
    """The function that a YAML names, loaded as lm-eval loads it."""
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    resolved: Callable[..., Any] = _import_func_in_yml(function.spec, function.home or paths.shipped("tasks"))
    return resolved


def task_of_examples(task: Task) -> Any:
    """The task as lm-eval builds it, on its three invented rows: no data set is needed."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    quiet()
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = [{**row, **({"choices": task.labels} if task.labels else {})} for row in task.examples]
    own = catalog.own(task.name)
    for function in own.functions if own else ():
        foreign.resolved(function)
    config = load_yaml(catalog.file_of(task.name))
    split = datasets.Dataset.from_list(rows)
    config["custom_dataset"] = lambda **_: {"train": split, "validation": split, "test": split}
    return ConfigurableTask(config=config)


def golden_prompt(task: Task) -> str:
    """The prompt and answer of a task's first example, as the model sees it; else of its first row."""
    lm_task = task_of_examples(task) if task.examples else prompts.load([task], None)[task.name]
    return _pair_of(lm_task)


def _pair_of(lm_task: Any) -> str:
    prompt, answer = prompts.pair(lm_task, prompts.rows(lm_task, "test")[0])
    return f"{prompt if isinstance(prompt, str) else prompt[0]}{answer}"


def other_prompts(task: Task) -> dict[str, str]:
    """What a task shows by its other prompts (``--prompts``), each with its answer, of its first example."""
    known = wordings.of(task)[1:]
    lm_task = task_of_examples(task) if known else None
    return {one.name: _pair_of(wordings.put(lm_task, one)) for one in known}


# Other answers than those of the examples; of a label another one of its choices.
_GOLD: dict[str, Any] = {"label": None, "target": "a target", "answer": "4711", "score": 0.125, "entities": []}


def _prompt_faults(lm_task: Any, docs: list[dict[str, Any]]) -> Iterator[str]:
    """The prompt shows the row's text, and does not change with its answer."""
    for doc in docs:
        shown = prompts.shown(lm_task, doc)
        if not _words(str(doc.get("text", ""))) <= _words(shown):
            yield "a prompt does not show the text of its row"
            return
        for name in _GOLD.keys() & doc.keys():
            if name == "label" and lm_task.multiple_input:
                continue  # the number of the right context is what lm-eval takes for the text
            other = _GOLD[name]
            if name == "label" and isinstance(doc["label"], int):
                other = 1 - min(1, doc["label"])
            elif name == "label":
                other = next((label for label in doc.get("choices") or () if label != doc["label"]), None)
            if other is not None and prompts.prompt(lm_task, {**doc, name: other}) != prompts.prompt(lm_task, doc):
                yield f"the prompt changes with the row's {name}: it gives the answer away"
                return


def _words(text: str) -> set[str]:
    return set(text.partition("_")[0].split())


def _score_faults(task: Task, lm_task: Any) -> Iterator[str]:
    """Right answers score 1 on the main metric, wrong ones and silence 0 or, of a metric without a floor, less.

    Every metric is aggregated, and prefers the right answers as its higher_is_better says.
    """
    if task.main_metric not in lm_task.aggregation():
        return  # said already
    try:
        right, wrong = _scored(task, lm_task, right=True), _scored(task, lm_task, right=False)
    except Exception as fault:  # noqa: BLE001 - a scorer is anybody's code
        yield f"its scorer fails on the example rows: {type(fault).__name__}: {fault}"
        return
    if right[task.main_metric] != 1.0:
        yield f"its own gold answers score {right[task.main_metric]:g} on {task.main_metric}, not 1"
    if wrong[task.main_metric] > 0.0:
        what = "wrong labels" if task.form == "choice" else "empty answers"
        yield f"{what} score {wrong[task.main_metric]:g} on {task.main_metric}, not 0"
    for name, higher in lm_task.higher_is_better().items():
        if not math.isfinite(right[name]) or (right[name] - wrong[name]) * (1 if higher else -1) < 0:
            yield f"{name} is {right[name]:g} for right answers and {wrong[name]:g} for wrong ones"


def _scored(task: Task, lm_task: Any, right: bool) -> dict[str, float]:
    instances = prompts.requests(lm_task)
    for instance in instances:
        answer: Any = " " + str(lm_task.doc_to_target(instance.doc)) if right else ""
        if task.form == "choice":
            hit = instance.idx == prompts.gold_choice(lm_task, instance.doc)
            answer = float(hit == right), False
        instance.resps = [answer]
    _, values = measuring.sample_rows(lm_task, instances, choice=task.form == "choice", restricted=False)
    aggregation = lm_task.aggregation()
    if unknown := set(values) ^ set(aggregation):
        raise ValueError(f"the scorer and metric_list differ in {', '.join(sorted(unknown))}")
    return {name: float(aggregation[name](items)) for name, items in values.items()}


def _golden_faults(task: Task, golden: dict[str, Any], write: bool) -> Iterator[str]:
    path = paths.shipped("tasks") / "golden" / f"{task.name}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        kept = int(stored["version"]), str(stored["digest"])
    except FileNotFoundError:
        stored, kept = None, (0, "")
    except (ValueError, TypeError, KeyError) as fault:
        yield f"{path.name} is torn ({fault}): restore it, for it says what this version was"
        return
    if stored == golden:
        return
    if kept[0] > task.version:
        yield f"its version went back from {kept[0]} to {task.version}"
    elif kept[0] == task.version and kept[1] != task.digest:
        yield f"its definition has changed, but its version is still {task.version}: scores no longer compare"
    elif write:
        write_atomic(path, json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    else:
        yield "its golden prompts are missing or stale: finbench tasks check --write"


def _data_faults(task: Task) -> Iterator[str]:
    """Rows of a shipped set: each is valid, and no text of test is in train."""
    find, read = (resolve_function(Function(f"lib.rows.{name}")) for name in ("find", "read"))
    try:
        rows = {split: read(file, task.labels) for split, file in find(task.set, True).items()}
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
