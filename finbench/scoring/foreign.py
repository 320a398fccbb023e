"""lm-eval's task objects of benchmarks that are not finbench's: built by lm-eval, from source, in a sandbox.

Their prompts are rendered in Jinja's sandbox; their functions are compiled from the files that were looked at, never
from what Python may have left beside them; what their scorers return is checked.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, reason
from finbench.core.owntasks import OwnTask, metric_names
from finbench.core.records import Task
from finbench.core.taskcode import is_helper


class _Source(SourceFileLoader):
    """A loader that compiles a file, and neither reads nor writes what was compiled of it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_source(path: Path) -> Any:
    """A Python file as the module that lm-eval would load, known under the name by which lm-eval looks for it."""
    name, marker, time = str(path.with_suffix("")), "/lm_eval/tasks/", path.stat().st_mtime_ns
    if marker in name:
        name = "lm_eval.tasks." + name.partition(marker)[2].replace("/", ".")
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__mtime__", None) == time:
        return known
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__mtime__ = time  # type: ignore[attr-defined]
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        _Source(name, str(path)).exec_module(module)
    finally:
        sys.dont_write_bytecode = writing
    sys.modules[name] = module
    return module


def resolved(function: catalog.Function) -> Any:
    """What a ``!function`` of a task of others names; of the folder its file is compiled, else it is lm-eval's own."""
    path = ((function.home or Path()) / function.module).resolve()
    try:
        if path.is_file():
            return getattr(load_source(path), function.name)
        return getattr(importlib.import_module(function.spec.rpartition(".")[0]), function.name)
    except Exception as fault:  # a file of others may raise anything
        raise FinbenchError(
            f"!function {function.spec} cannot be loaded ({type(fault).__name__}: {reason(fault)}).",
            "Correct that file, or install what it imports.",
        ) from fault


def build(own: OwnTask, stated: Mapping[str, Any]) -> Any:
    """lm-eval's task object; FinbenchError, in one line, for what it cannot be built of."""
    from lm_eval.tasks._factory import TaskFactory
    from lm_eval.tasks._index import TaskIndex

    _sandbox()
    if own.task.own == "folder":
        catalog.include_tasks(own.file)  # looked at again: a file may have changed since
        own = catalog.own(own.task.name) or own
    before, sys.pycache_prefix = sys.pycache_prefix, str(paths.cache_dir() / "none")  # what lies beside is not run
    try:
        for part in own.functions:
            resolved(part)
        entry = TaskIndex.entry_from_path(own.file)
        lm_task: Any = TaskFactory(meta=dict(stated)).build(entry, overrides=_overrides(own), registry={})
        config, docs = lm_task.config, lm_task.eval_docs
        if config.training_split and config.training_split == (config.test_split or config.validation_split):
            config.training_split = None  # it would learn the test
            lm_task.sampler.replace_df(list(lm_task.fewshot_docs()))  # nor are worked examples of it
        if config.num_fewshot:
            lm_task.set_config(key="num_fewshot", value=0)  # --shots says how many, and the card states that
        lm_task.process_results = _Checked(lm_task, own.task.name)
    except FinbenchError:
        raise
    except Exception as fault:  # lm-eval, datasets and the code of others raise what they like
        raise _not_built(own.task, fault) from fault
    finally:
        sys.pycache_prefix = before
    if not len(docs):
        raise FinbenchError(f"Task {own.task.name} has no rows to score.", f"Look at its data: {own.file}")
    return lm_task


def _overrides(own: OwnTask) -> dict[str, Any]:
    """The name it has here; files of rows that count from its folder, wherever the user stands."""
    changed: dict[str, Any] = {"task": own.task.name}
    options = own.config.get("dataset_kwargs")
    if isinstance(options, dict) and "data_files" in options:
        changed["dataset_kwargs"] = {**options, "data_files": _placed(options["data_files"], own.file.parent)}
    return changed


def _placed(value: Any, home: Path) -> Any:
    if isinstance(value, dict):
        return {key: _placed(part, home) for key, part in value.items()}
    if isinstance(value, list):
        return [_placed(part, home) for part in value]
    return str(home / value) if isinstance(value, str) and (home / value).is_file() else value


def _not_built(task: Task, fault: Exception) -> FinbenchError:
    from finbench.hub import offline

    if type(fault).__name__ == "DatasetGenerationError" and isinstance(fault.__cause__, Exception):
        fault = fault.__cause__  # it only says that there is a reason
    said = f"Task {task.name}: {type(fault).__name__}: {' '.join(str(fault).split())[:300] or reason(fault)}"
    if task.data.startswith("hub:") and isinstance(fault, OSError | ConnectionError):
        where = (
            "HF_HUB_OFFLINE is set" if offline() else "the Hub cannot be reached, or asks for a login (hf auth login)"
        )
        return FinbenchError(
            f"The data of {task.name} are on the Hub ({task.data}), and are not on this machine: {where}.",
            "With a network, the same command fetches them, and they stay: unset HF_HUB_OFFLINE",
        )
    return FinbenchError(said, "lm-eval cannot build it: correct its YAML or its data.")


def has_our_scorer(lm_task: Any) -> bool:
    """Whether a task is scored by a helper of ``tasks/lib``, so that its rows have the fields that such a one reads."""
    own = catalog.own(lm_task.config.task)
    if own is None:
        return True
    scorer = own.config.get("process_results")
    return isinstance(scorer, catalog.Function) and is_helper((scorer.home or own.root) / scorer.module)


class _Checked:
    """A scorer of others: it gives each metric that its task states, as JSON has it, and nothing else."""

    def __init__(self, lm_task: Any, name: str) -> None:
        self.inner, self.name, self.metrics = lm_task.process_results, name, list(lm_task.aggregation())

    def __call__(self, doc: Any, results: Any) -> dict[str, Any]:
        try:
            found = self.inner(doc, results)
            return {metric: _plain(found[metric]) for metric in self.metrics}
        except Exception as fault:  # the code of others raises what it likes
            raise FinbenchError(
                f"The scorer of {self.name} fails on an answer ({type(fault).__name__}: {reason(fault)[:200]}).",
                "Correct it; its metrics must be those of its metric_list.",
            ) from fault


def _plain(value: Any) -> Any:
    """A metric's value of one document, as JSON gives it back; ValueError for what JSON has not."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a value that is no finite number")
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a value of type {type(value).__name__}")


def _sandbox() -> None:
    """Let lm-eval render every prompt in Jinja's sandbox: a template of others may not reach Python's insides."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    if isinstance(utils.env, ImmutableSandboxedEnvironment):
        return
    safe = ImmutableSandboxedEnvironment(
        loader=utils.env.loader, undefined=utils.env.undefined, keep_trailing_newline=utils.env.keep_trailing_newline
    )
    safe.filters.update(utils.env.filters)
    utils.env = safe


def aggregations(config: Mapping[str, Any]) -> dict[str, Any]:
    """Metric -> aggregation of a task of others, as lm-eval chooses it; FinbenchError for one it does not know."""
    from lm_eval.api import registry

    found = {}
    for entry in _entries(config):
        stated, metric = entry.get("aggregation"), entry["metric"]
        if isinstance(stated, catalog.Function):
            found[metric] = resolved(stated)
            continue
        known = registry.get_aggregation(str(stated)) if stated else registry.get_metric_aggregation(metric)
        if known is None:
            raise FinbenchError(f"lm-eval knows no aggregation {stated!r} of {metric}.", "Correct metric_list.")
        found[metric] = known
    return found


def lower_is_better(config: Mapping[str, Any]) -> list[str]:
    """Metrics of a task of others of which less is better, as its YAML or lm-eval says."""
    from lm_eval.api.registry import is_higher_better

    return [
        entry["metric"]
        for entry in _entries(config)
        if not (
            entry["higher_is_better"] if "higher_is_better" in entry else is_higher_better(entry["metric"]) is not False
        )
    ]


def _entries(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``metric_list`` with names, or what lm-eval measures where there is none."""
    from lm_eval.api import metrics as _  # noqa: F401  fills the registry
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    listed = config.get("metric_list")
    if not listed:
        names = DEFAULT_METRIC_REGISTRY[config.get("output_type", "generate_until")]
        return [{"metric": name} for name in names]
    named = zip(listed, metric_names(config), strict=True)
    return [{**entry, "metric": name} for entry, name in named]
