"""Benchmarks that are not finbench's own: a folder of lm-eval tasks, or one of lm-eval's tasks.

A folder may come from anybody. What of it would run code is found without running any, shown, and runs only when the
user has said once that it is trusted; the digest of the whole folder is remembered, so that a changed file is asked
about again. Helpers that are byte for byte those of ``tasks/lib`` need no trust.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.core import paths, templates
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import write_atomic
from finbench.core.records import Task
from finbench.core.taskfiles import Function, functions, merged, read_yaml

LM_EVAL = "lm_eval:"  # before the name of one of lm-eval's own tasks
FAMILY = "own"  # of every such task, whatever it says: it is never ranked
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)  # "..x.f" and "/x.f" would leave the folder
_FILES = 20_000  # in a folder of tasks
_DATA = ("json", "csv", "parquet", "text", "arrow")  # readers of files that cannot run any (pandas reads pickles)
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_OUTPUTS = ("generate_until", "multiple_choice")
_COMPILED = ("so", "pyd", "dll", "dylib")
_SIZE = 2**30  # bytes of a folder that is read for its digest at once


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
        raise FinbenchError(f"No such folder of tasks: {place}", "Make one of a CSV: finbench tasks new FILE.csv --help")
    files = _files(root)
    yamls = [place.resolve()] if place.is_file() else [file for file in files if file.suffix == ".yaml"]
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
        found = OwnTask(_task(config, file, root, seen), file, root, config, _functions(seen))
        if found.task.name in tasks:
            raise FinbenchError(f"{file}: {found.task.name} is in {tasks[found.task.name].file.name} too.", "Rename one.")
        tasks[found.task.name] = found
        code |= dict.fromkeys((*_calls(found), *_code_of(config, file, root)))
    if not tasks:
        raise FinbenchError(f"{place} holds no task of lm-eval.", "A task is a YAML file with the key task.")
    return OwnFolder(root, tasks, groups, [*_python(root, files), *code])


def _files(root: Path) -> list[Path]:
    """Every file of a folder, sorted; refused are links that lead outside, and what is neither file nor folder."""
    found = []
    for path in root.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise FinbenchError(f"{path} is a link that leads outside of {root}.", "Copy the file into the folder.")
        if path.is_dir():
            continue
        if not path.is_file():
            raise FinbenchError(f"{path} is no plain file.", "Remove it from the folder.")
        found.append(path)
        if len(found) > _FILES:
            raise FinbenchError(f"{root} holds more than {_FILES:,} files.", "Name the folder of one benchmark.")
    return sorted(found)


# ---------------------------------------------------------------- a task from its YAML


def _named(name: Any, file: Path) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FinbenchError(f"{file}: {str(name)[:80]!r} is no name of a task.", "Letters, digits, dots, - and _ only.")
    return name


def _task(config: Mapping[str, Any], file: Path, root: Path, seen: Iterable[Path], prefix: str = "") -> Task:
    """What is known of a task. The keys of its metadata that begin with ``finbench_`` count, where there are any."""
    name = _named(config["task"], file)
    told = config.get("metadata")
    stated = dict(told) if isinstance(told, dict) else {}
    output = config.get("output_type", "generate_until")
    wrong = [
        (output not in _OUTPUTS, f"output_type is {output}; scored are {' and '.join(_OUTPUTS)}"),
        (config.get("repeats", 1) != 1, "repeats is not 1; one answer a question is scored"),
        ("doc_to_image" in config or "doc_to_audio" in config, "it shows pictures or sounds; texts are scored"),
    ]
    if faults := [text for bad, text in wrong if bad]:
        raise FinbenchError(f"{file}: {'; '.join(faults)}.", "Score it by lm-eval itself: finbench lm-eval run --help")
    form = "choice" if output == "multiple_choice" else "generate"
    own = {key.removeprefix("finbench_"): value for key, value in stated.items() if str(key).startswith("finbench_")}
    taken = ("labels", "main_metric", "baselines", "licence", "restricted", "split", "paper", "prompt_style", "examples")
    source = config.get("dataset_path") if isinstance(config.get("dataset_path"), str) else None
    facts = {
        "main_metric": next(iter(metric_names(config)), "acc"),
        "baselines": {},
        "licence": "not stated",
        "restricted": True,  # nobody has said that its texts may be passed on
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
        "data": f"hub:{source}" if source and source not in _DATA else "in its folder",
        "digest": definition(config, seen, root),
        "own": "lm_eval" if prefix else "folder",
    }
    return Task.parse(facts, str(file))


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


def definition(config: Mapping[str, Any], files: Iterable[Path], root: Path) -> str:
    """SHA-256 of what defines a task: the YAML files and the helpers that render and score.

    The loader of rows is left out: what it yields is covered by the data digest. Of a helper outside of ``root`` (of
    lm-eval itself) only the name counts.
    """
    stated = {part for key, value in config.items() if key != "custom_dataset" for part in functions(value)}
    helpers = {(part.home or root) / part.module for part in stated}
    inside = {path for path in helpers if path.is_file() and path.resolve().is_relative_to(root)}
    sha = hashlib.sha256()
    for path in [*files, *sorted(inside)]:
        try:
            content = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as fault:
            raise FinbenchError(f"{path}: cannot be read ({fault.strerror})", "Put it back, or install it again.") from fault
        sha.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()


# ---------------------------------------------------------------- code


@functools.cache
def _shipped() -> dict[str, str]:
    """SHA-256 of every helper of ``tasks/lib`` -> its name."""
    folder = paths.shipped("tasks") / "lib"
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in sorted(folder.rglob("*.py"))}


def is_helper(path: Path) -> bool:
    """Whether a Python file is a helper of ``tasks/lib``, or byte for byte the same under the same name."""
    try:
        if path.resolve().is_relative_to(paths.shipped("tasks") / "lib"):
            return True
        return _shipped().get(hashlib.sha256(path.read_bytes()).hexdigest()) == path.name
    except OSError:
        return False


def _python(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """Python in a folder, named by its functions or not: one file may import another."""
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.suffix == ".py" and not is_helper(file):
            content = file.read_bytes()
            yield f"{name} ({content.count(bytes([10])) + 1:,} lines, SHA-256 {hashlib.sha256(content).hexdigest()[:12]})"
        elif file.suffix[1:] in _COMPILED:
            yield f"{name} (compiled code, which nobody can read)"


def _functions(files: Iterable[Path]) -> tuple[Function, ...]:
    return tuple(dict.fromkeys(part for path in files for part in functions(read_yaml(path))))


def _calls(own: OwnTask) -> Iterator[str]:
    for part in own.functions:
        _check_function(part, own.file, own.root)
        path = ((part.home or own.root) / part.module).resolve()
        if not path.is_file() or not is_helper(path):
            yield f"{own.file.relative_to(own.root).as_posix()}: calls {part.spec}"


def _code_of(config: Mapping[str, Any], file: Path, root: Path) -> Iterator[str]:
    """What of a task's configuration, but its functions, would run code that the user has not seen."""
    name = file.relative_to(root).as_posix()
    if "class" in config:
        yield f"{name}: class makes the task by Python"
    if config.get("unsafe_code"):
        yield f"{name}: unsafe_code runs what a model answers"
    if config.get("use_prompt"):
        yield f"{name}: use_prompt loads a prompt by promptsource"
    yield from (f"{name}: {said}" for said in (*_data_faults(config), *_metric_faults(config)))
    for key, text in _templates(config):
        if odd := templates.beyond(text):
            yield f"{name}: the template of {key} has {odd}"


def _check_function(part: Function, file: Path, root: Path) -> None:
    inside = bool(_SPEC.fullmatch(part.spec))
    path = ((part.home or root) / part.module).resolve() if inside else root
    if inside and path.is_file():
        inside = path.is_relative_to(root)
    elif inside:
        inside = part.spec.startswith("lm_eval.")
    if not inside:
        raise FinbenchError(
            f"{file}: !function {part.spec[:80]!r} is of no file in {root}.",
            "Put the function into a .py file of the folder: !function utils.score",
        )


def _data_faults(config: Mapping[str, Any]) -> Iterator[str]:
    source, options = config.get("dataset_path"), config.get("dataset_kwargs")
    options = options if isinstance(options, dict) else {}
    if source is not None and source not in _DATA:
        if not isinstance(source, str) or not _HUB.fullmatch(source):
            yield f"dataset_path {str(source)[:80]!r} is neither a data set of the Hub nor one of {', '.join(_DATA)}"
        elif source.endswith(".py") or Path(source).exists() or (_packaged() / source).is_dir():
            yield f"dataset_path {source!r} is read by a program of its own"
    if options.get("trust_remote_code"):
        yield "dataset_kwargs asks to run the code of a data set"
    for text in _texts(options.get("data_files")):
        parts = Path(text).parts
        if Path(text).is_absolute() or ".." in parts or "~" in text or ("://" in text and not text.startswith("hf://")):
            yield f"data_files {text[:80]!r} lies outside of the folder"
    if options.get("data_dir"):
        yield f"dataset_kwargs reads the folder {str(options['data_dir'])[:80]!r}"


def _packaged() -> Path:
    """Where ``datasets`` keeps its readers of files."""
    found = importlib.util.find_spec("datasets")
    return Path(str(found.origin)).parent / "packaged_modules" if found else Path("none")


def _metric_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Names that lm-eval would look for on the Hub, as programs."""
    from lm_eval.api import metrics as _  # noqa: F401  fills the registry
    from lm_eval.api.registry import metric_registry

    listed = config.get("metric_list")
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or isinstance(entry.get("metric"), Function):
            continue
        metric = str(entry.get("metric"))
        if entry.get("hf_evaluate") or ("process_results" not in config and metric not in metric_registry):
            yield f"metric {metric[:60]!r} is a program on the Hub, loaded by evaluate"


def _texts(value: Any) -> Iterator[str]:
    parts = [value]
    for part in parts:  # grows
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _templates(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if key != "metadata":
            yield from ((key, text) for text in _texts(value) if "{{" in text or "{%" in text)


# ---------------------------------------------------------------- trust


def digest_of(root: Path) -> str:
    """SHA-256 of every file of a folder with its name; what Python has compiled there is not used, and left out."""
    sha, size = hashlib.sha256(), 0
    for file in _files(root):
        name = file.relative_to(root).as_posix()
        if "__pycache__" in file.parts:
            continue
        size += file.stat().st_size
        if size > _SIZE:
            raise FinbenchError(f"{root} holds more than {_SIZE // 2**30} GB.", "Keep its data on the Hub.")
        sha.update(f"{name}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape") + file.read_bytes())
    return sha.hexdigest()


def _mark(digest: str) -> Path:
    return paths.cache_dir() / "trusted-tasks" / f"{digest}.json"


def check_trust(folder: OwnFolder, trust: bool) -> bool:
    """FinbenchError for code that is not trusted; with ``trust`` it is from now on. Whether it was said just now."""
    if not folder.code:
        return False
    if compiled := [path for path in folder.root.rglob("__pycache__") if any(path.glob("*.pyc"))]:
        raise FinbenchError(
            f"{compiled[0]} holds compiled code, which runs instead of the files that one can read.",
            f"Remove it: rm -r {compiled[0]}",
        )
    mark = _mark(digest_of(folder.root))
    if mark.is_file():
        return False
    if not trust:
        raise FinbenchError(
            f"{folder.root} carries code, which would run as you:\n" + "\n".join(f"- {line}" for line in folder.code),
            "Read it. If you trust all of it, add --trust-task-code: it is asked once, and again when a file changes.",
        )
    write_atomic(mark, json.dumps({"folder": folder.root.name, "code": folder.code}, indent=1) + "\n")
    return True


# ---------------------------------------------------------------- found again


def remember(folder: OwnFolder) -> None:
    """Where the tasks of a folder lie, by digest: a card names its tasks so, and then the folder need not be named."""
    for own in folder.tasks.values():
        text = json.dumps({"file": str(own.file)}) + "\n"
        place = _place(own.task.name, own.task.digest)
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            write_atomic(place, text)


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
    found = {}
    named = re.compile(r"^[\"']?task[\"']?:\s*[\"']?([\w.-]+)[\"']?\s*(?:#.*)?$", re.MULTILINE | re.ASCII)
    for file in sorted(lm_eval_folder().rglob("*.yaml")):
        match = named.search(file.read_text(encoding="utf-8", errors="replace"))
        if match:
            found.setdefault(match[1], file)
    return found
