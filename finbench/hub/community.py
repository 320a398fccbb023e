"""What the Hub reads of benchmarks and of results: ``eval.yaml`` of a data set, ``.eval_results/*.yaml`` of a model.

Rules: huggingface.co/docs/hub/eval-results; frameworks: ``packages/tasks/src/eval.ts`` of huggingface.js.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from finbench.core.errors import FinbenchError
from finbench.hub.client import Unreachable, address, api, explained, sentence

EVAL_YAML, FACTS = "eval.yaml", "benchmark.json"
OWN = "finbench_own"  # key of a README's metadata, by which a benchmark of somebody's own is known again
FRAMEWORK = "inspect-ai"  # neither finbench nor lm-eval is among those that the Hub takes
FRAMEWORKS = frozenset(
    [
        "apex-evals",
        "archipelago",
        "benchflow",
        "claw-eval",
        "exgentic",
        "harbor",
        "inspect-ai",
        "math-arena",
        "mdpbench",
        "mteb",
        "nemo-evaluator",
        "olmocr-bench",
        "open-asr-leaderboard",
        "parsebench",
        "pier",
        "screenspot-pro",
        "swe-bench",
        "swe-bench-pro",
        "video-mme-v2",
        "wildclawbench",
        "yc-bench",
    ]
)
_TASK = {"id", "config", "split"}
_OF_INSPECT = {"field_spec", "shuffle_choices", "epochs", "epoch_reducer", "solvers", "scorers"}
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LARGEST = 2**20  # bytes of either file
_PARTS = 20_000  # values of a YAML file; a model has some hundred results


@dataclass(frozen=True)
class BenchmarkRepo:
    """A data set repository that may hold a benchmark: what it states, and whether the Hub counts it among them."""

    repo: str  # as the Hub calls it now, whatever name led to it
    sha: str
    registered: bool
    names: frozenset[str]
    facts: dict[str, Any] | None  # of benchmark.json; None where there is none that can be read
    own: str | None  # what the head of its README names as the benchmark of somebody's own


def find_benchmark(repo: str, revision: str = "main", *, writing: bool = False) -> BenchmarkRepo | None:
    """The data set ``repo`` with its ``benchmark.json``; None where there is no such data set, or none for the caller.

    Raises Unreachable without a Hub, and FinbenchError for a revision that is not there.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with explained(address(repo, "dataset", revision), writing=writing):
        try:
            info = api().dataset_info(repo, revision=revision, files_metadata=True, timeout=10)
        except RepositoryNotFoundError as fault:
            if isinstance(fault, GatedRepoError):
                raise
            return None
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        facts = None
        if 0 <= sizes.get(FACTS, -1) <= _LARGEST:
            path = api().hf_hub_download(repo, FACTS, repo_type="dataset", revision=info.sha)
            try:
                with open(path, encoding="utf-8") as file:
                    facts = json.loads(file.read(_LARGEST))
            except (ValueError, RecursionError):  # half a character is a ValueError too
                facts = None
    registered = any(str(tag).startswith("benchmark:") for tag in info.tags or [])
    own = info.card_data.get(OWN) if info.card_data else None
    return BenchmarkRepo(
        repo=str(info.id),
        sha=str(info.sha),
        registered=registered,
        names=frozenset(sizes),
        facts=facts if isinstance(facts, dict) else None,
        own=None if own is None else str(own),
    )


def is_called(found: BenchmarkRepo, name: str) -> bool:
    """Whether ``name`` is that of a repository, or was before it was renamed: the Hub leads from there to it."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if name == found.repo or not _NAME.fullmatch(name):
        return name == found.repo
    try:
        with explained(address(name, "dataset")):
            try:
                return str(api().dataset_info(name, timeout=10).id) == found.repo
            except RepositoryNotFoundError:
                return False
    except Unreachable:
        raise
    except FinbenchError:  # no name of the Hub
        return False


def benchmark_faults(text: str) -> list[str]:
    """What is wrong with an ``eval.yaml``, a sentence each."""
    stated = read_yaml(text)
    if not isinstance(stated, dict):
        return [f"{EVAL_YAML} is no YAML mapping"]
    return list(_benchmark(stated))


def _benchmark(stated: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        f"{key} is not known" for key in stated.keys() - {"name", "description", "evaluation_framework", "tasks"}
    )
    for key in ("name", "description"):
        if not isinstance(stated.get(key), str) or not stated[key].strip():
            yield f"{key} is required, a text"
    if str(stated.get("evaluation_framework")) not in FRAMEWORKS:
        yield f"evaluation_framework {str(stated.get('evaluation_framework'))[:60]!r} is none that the Hub takes"
    tasks = stated.get("tasks")
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        yield "tasks is required, a list of at least one task"
        return
    for number, task in enumerate(tasks):
        yield from (f"tasks[{number}].{key} is not known" for key in task.keys() - _TASK - _OF_INSPECT)
        for key in _TASK:
            if not isinstance(task.get(key, "" if key == "id" else "default"), str) or task.get(key) == "":
                yield f"tasks[{number}].{key} is to be a text"
        if not task.get("id"):
            yield f"tasks[{number}].id is required"
    names = [str(task.get("id")) for task in tasks]
    yield from (f"tasks: {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1}))


def result_faults(text: str) -> list[str]:
    """What is wrong with a file in ``.eval_results``, a sentence each."""
    stated = read_yaml(text)
    if not isinstance(stated, list) or not all(isinstance(entry, dict) for entry in stated):
        return ["a list of results is expected"]
    return [f"[{number}] {fault}" for number, entry in enumerate(stated) for fault in _result(entry)]


def _result(entry: Mapping[str, Any]) -> Iterator[str]:
    known = {"dataset", "value", "verifyToken", "date", "source", "notes", "evaluation_framework"}
    yield from (f"{key} is not known" for key in entry.keys() - known)
    dataset, source, date = entry.get("dataset"), entry.get("source"), entry.get("date")
    if (
        not isinstance(dataset, dict)
        or not _NAME.fullmatch(str(dataset.get("id")))
        or not (isinstance(dataset.get("task_id"), str) and dataset["task_id"])
    ):
        yield "dataset is required, with the id of a data set (org/name) and a task_id"
    elif "revision" in dataset and not re.fullmatch("[0-9a-f]{40}", str(dataset["revision"])):
        yield "dataset.revision is a commit"
    if isinstance(entry.get("value"), bool) or not isinstance(entry.get("value"), int | float):
        yield "value is required, a number"
    if source is not None and not (isinstance(source, dict) and re.match("https?://", str(source.get("url")))):
        yield "source needs a url"
    if date is not None:
        try:
            datetime.fromisoformat(str(date))
        except ValueError:
            yield "date is ISO 8601"


def read_yaml(text: str) -> Any:
    """What YAML says; None where it is none, or has more values than any such file: a megabyte takes ten seconds."""
    if sum(map(text.count, ",[{\n")) > _PARTS:
        return None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def taken(found: BenchmarkRepo) -> FinbenchError:
    """The fault for a repository that holds something else than the benchmark that is to be published there."""
    other = (found.facts or {}).get("repository")
    said = f"is a copy of hub:{str(other)[:100]}" if other not in (None, found.repo) else "is taken by another data set"
    hint = "Name a repository of its own: hub:org/another-name"
    return FinbenchError(f"{sentence(address(found.repo, 'dataset'))} {said}; nothing was sent.", hint)
