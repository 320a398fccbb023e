"""Benchmarks that are not finbench's own: a folder of lm-eval tasks, or one of lm-eval's tasks.

A folder may come from anybody. What of it would run code is found without running any (``taskcode``), shown, and runs
only when the user has said once that it is trusted; the digest of the whole folder is remembered, so that a changed
file is asked about again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.core import paths, taskcode
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import write_atomic
from finbench.core.records import Task
from finbench.core.taskfiles import Function, functions, head_of, loads, merged, read_yaml

LM_EVAL = "lm_eval:"  # before the name of one of lm-eval's own tasks
UNSTATED = "not stated"  # licence
FAMILY = "own"  # of every such task, whatever it says: it is never ranked
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST = 500  # characters of what a card says of a task
_OUTPUTS = ("generate_until", "multiple_choice")


@dataclass(frozen=True)
class OwnTask:
    """A task, its YAML, the folder it belongs to, the configuration as merged, and every function of its files.

    lm-eval resolves what an included file names even where another takes its place.
    """

    task: Task
    file: Path
    root: Path
    config: dict[str, Any] = field(repr=False)
    functions: tuple[Function, ...] = ()


@dataclass(frozen=True)
class OwnFolder:
    """The tasks and groups of a folder, and a line for each thing in it that would run code."""

    root: Path
    tasks: dict[str, OwnTask]
    groups: dict[str, list[str]]
    code: list[str]


def is_path(name: str) -> bool:
    """Whether a task is named by its folder, or by its YAML file."""
    return "/" in name or name[:1] in (".", "~") or name.endswith((".yaml", ".yml"))


def read(place: Path) -> OwnFolder:
    """The tasks of a folder (or of one YAML file), without running anything of it. FinbenchError names file and line.

    Refused whatever the user trusts: links and includes that lead outside of the folder, functions of files or packages
    outside of it but lm-eval's, and what finbench cannot score.
    """
    place = place.expanduser()
    root = (place.parent if place.is_file() else place).resolve()
    if not root.is_dir():
        raise FinbenchError(
            f"No such folder of tasks: {place}", "Make one of a CSV: finbench tasks new FILE.csv --help"
        )
    files = taskcode.files_of(root)
    yamls = [place.resolve()] if place.is_file() else [file for file in files if file.suffix == ".yaml"]
    own_code = [path for path in files if path.suffix == ".py" and not taskcode.is_helper(path)]
    tasks: dict[str, OwnTask] = {}
    groups: dict[str, list[str]] = {}
    code: dict[str, None] = {}
    for file in yamls:
        stated = read_yaml(file)
        if "group" in stated and isinstance(stated.get("task"), list):
            groups[_named(stated["group"], file)] = [str(member) for member in stated["task"]]
            continue
        if "task" not in stated or isinstance(stated["task"], list):
            continue  # a template, a README's metadata
        seen: list[Path] = []
        config = merged(file, seen, root)
        found = OwnTask(_task(config, file, root, seen, own_code), file, root, config, _functions(seen))
        if found.task.name in tasks:
            raise FinbenchError(
                f"{file}: {found.task.name} is in {tasks[found.task.name].file.name} too.", "Rename one."
            )
        tasks[found.task.name] = found
        code |= dict.fromkeys(taskcode.code_of(config, found.functions, file, root))
    if not tasks:
        raise FinbenchError(f"{place} holds no task of lm-eval.", "A task is a YAML file with the key task.")
    return OwnFolder(root, tasks, groups, [*taskcode.python_in(root, files), *code])


# ---------------------------------------------------------------- a task from its YAML


def _named(name: Any, file: Path) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FinbenchError(f"{file}: {str(name)[:80]!r} is no name of a task.", "Letters, digits, dots, - and _ only.")
    return name


def _functions(files: Iterable[Path]) -> tuple[Function, ...]:
    return tuple(dict.fromkeys(part for path in files for part in functions(read_yaml(path))))


def _task(
    config: Mapping[str, Any],
    file: Path,
    root: Path,
    seen: Iterable[Path],
    beside: Iterable[Path] = (),
    prefix: str = "",
) -> Task:
    """What is known of a task. The keys of its metadata that begin with ``finbench_`` count, where there are any."""
    name = _named(config["task"], file)
    told = config.get("metadata")
    stated = dict(told) if isinstance(told, dict) else {}
    output = config.get("output_type", "generate_until")
    wrong = [
        (output not in _OUTPUTS, f"output_type is {output}; scored are {' and '.join(_OUTPUTS)}"),
        (
            any(isinstance(value, str) and len(value) > _LONGEST for value in stated.values()),
            "its metadata are too long",
        ),
        (config.get("repeats", 1) != 1, "repeats is not 1; one answer a question is scored"),
        ("doc_to_image" in config or "doc_to_audio" in config, "it shows pictures or sounds; texts are scored"),
    ]
    if faults := [text for bad, text in wrong if bad]:
        raise FinbenchError(f"{file}: {'; '.join(faults)}.", "Score it by lm-eval itself: finbench lm-eval run --help")
    form = "choice" if output == "multiple_choice" else "generate"
    own = {key.removeprefix("finbench_"): value for key, value in stated.items() if str(key).startswith("finbench_")}
    taken = (
        "labels",
        "main_metric",
        "baselines",
        "licence",
        "restricted",
        "split",
        "paper",
        "prompt_style",
        "examples",
        "source",
    )
    source = config.get("dataset_path") if isinstance(config.get("dataset_path"), str) else None
    known = metric_names(config) or (["acc", "acc_norm"] if form == "choice" else ["exact_match"])  # as lm-eval has it
    if own.get("main_metric", known[0]) not in known:
        raise FinbenchError(
            f"{file}: finbench_main_metric is none of {', '.join(known)}.", "Name one of metric_list, or leave it out."
        )
    licence = str(own.get("licence") or (UNSTATED if prefix else licence_beside(root)))
    facts = {
        "main_metric": known[0],
        "baselines": {},
        "licence": licence,
        "restricted": restricts(licence),
        "split": "as its author divided it",
        "paper": "not stated",
        "prompt_style": "as its YAML states it",
        "examples": [],
        **{key: own[key] for key in taken if own.get(key) is not None},
        "name": prefix + name,
        "version": _version(stated.get("version")),
        "set": prefix.replace(":", "-") + name,
        "family": FAMILY,
        "form": form,
        "data": f"hub:{source}" if source and source not in taskcode.DATA else "in its folder",
        "digest": definition(config, seen, root, beside),
        "own": "lm_eval" if prefix else "folder",
    }
    return Task.parse(facts, str(file))


def licence_beside(root: Path) -> str:
    """The licence that a folder's README states, as the Hub has it: no part of what defines a task, so of no digest."""
    try:
        with (root / "README.md").open(encoding="utf-8", errors="replace") as handle:
            head = head_of(handle.read(100_000))
    except OSError:
        return UNSTATED
    stated = [str(head.get(key) or "") for key in ("license", "license_name")]
    found = stated[1] if stated[0] == "other" else stated[0]
    return UNSTATED if found in ("", "unknown") else found[:_LONGEST]


def restricts(licence: str) -> bool:
    """Whether texts under a licence must not be shown with results: nobody has stated one, or it is non-commercial."""
    return licence == UNSTATED or "-nc" in licence.lower()


def on_card(task: Task, licence: str) -> Task:
    """A task of others under the licence that it had when a card was made: it may have been stated since."""
    if not task.own or task.licence == licence:
        return task
    return task.model_copy(update={"licence": licence, "restricted": restricts(licence)})


def metric_names(config: Mapping[str, Any]) -> list[str]:
    """The names in ``metric_list``, of a function its own."""
    listed = config.get("metric_list")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    names = [entry.get("metric") for entry in entries]
    return [name.name if isinstance(name, Function) else str(name) for name in names if name is not None]


def _version(stated: Any) -> int:
    """lm-eval's versions are numbers with a point, or words; the digest tells definitions apart."""
    try:
        return max(1, int(float(stated)))
    except (TypeError, ValueError, OverflowError):
        return 1


def definition(config: Mapping[str, Any], files: Iterable[Path], root: Path, beside: Iterable[Path] = ()) -> str:
    """SHA-256 of what defines a task: the YAML files and the helpers that render and score.

    Helpers that these load are helpers too. The loader of rows is left out: the data digest covers what it yields. Of a
    helper outside of ``root`` (of lm-eval itself) only the name counts. ``beside``: further code that these may load.
    """
    stated = {part for key, value in config.items() if key != "custom_dataset" for part in functions(value)}
    helpers = {(part.home or root) / part.module for part in stated}
    inside = {path for path in helpers if path.is_file() and path.resolve().is_relative_to(root)}
    inside |= {path for path in beside if path.resolve() not in {one.resolve() for one in inside}}
    sha = hashlib.sha256()
    yamls, done = [*files], set[Path]()
    queue = [*yamls, *sorted(inside)]
    for path in queue:
        try:
            content = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as fault:
            raise FinbenchError(
                f"{path}: cannot be read ({fault.strerror})", "Put it back, or install it again."
            ) from fault
        sha.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
        loaded = [] if path in yamls else [one for one in loads(path) if one.is_file() and one.name != "rows.py"]
        queue += [one for one in loaded if one not in done]
        done.update(loaded)
    return sha.hexdigest()


# ---------------------------------------------------------------- found again


def remember(folder: OwnFolder) -> None:
    """Where the tasks of a folder lie, by digest: a card names its tasks so, and then the folder need not be named."""
    for own in folder.tasks.values():
        text = json.dumps({"file": str(own.file)}) + "\n"
        place = _place(own.task.name, own.task.digest)
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            write_atomic(place, text)
        if own.task.source and re.fullmatch(r"[0-9a-f]{64}", own.task.source):
            write_atomic(_made_of(own.task.source) / f"{own.task.digest[:32]}.json", text)


def made_of(source: str) -> list[Path]:
    """The folders of the benchmarks that were made here of the rows with this SHA-256, and are still there."""
    found = []
    for mark in sorted(_made_of(source).glob("*.json")):
        try:
            file = Path(json.loads(mark.read_text(encoding="utf-8"))["file"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found += [file.parent] if file.is_file() else []
    return list(dict.fromkeys(found))


def _made_of(source: str) -> Path:
    return paths.cache_dir() / "own-tasks" / "of" / source


def recalled(name: str, digest: str) -> Path | None:
    """The YAML of a task of this very definition that was used here before, if it is still there."""
    if name.startswith(LM_EVAL):
        return None
    try:
        file = Path(json.loads(_place(name, digest).read_text(encoding="utf-8"))["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return file if file.is_file() else None


def _place(name: str, digest: str) -> Path:
    return paths.cache_dir() / "own-tasks" / f"{name[:100]}-{digest[:32]}.json"


# ---------------------------------------------------------------- lm-eval's own


def lm_eval_folder() -> Path:
    """The folder of the tasks that come with lm-eval."""
    found = importlib.util.find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "tasks"


def lm_eval_task(name: str) -> OwnTask:
    """One of lm-eval's own tasks, whose code is installed with it; FinbenchError with near misses for another name."""
    root = lm_eval_folder()
    short = name.removeprefix(LM_EVAL)
    file = _index().get(short)
    if file is None:
        raise unknown("task of lm-eval", short, _index(), "finbench lm-eval ls tasks")
    seen: list[Path] = []
    config = merged(file, seen, root)
    return OwnTask(_task(config, file, root, seen, prefix=LM_EVAL), file, root, config, _functions(seen))


@functools.cache
def _index() -> dict[str, Path]:
    """Task -> YAML of everything that comes with lm-eval, by the line that names it: 12,000 files are not parsed."""
    found: dict[str, Path] = {}
    named = re.compile(r"^[\"']?task[\"']?:\s*[\"']?([\w.-]+)[\"']?\s*(?:#.*)?$", re.MULTILINE | re.ASCII)
    for file in sorted(lm_eval_folder().rglob("*.yaml")):
        match = named.search(file.read_text(encoding="utf-8", errors="replace"))
        if match:
            found.setdefault(match[1], file)
    return found
