"""The code that a folder of tasks carries: found without running any, shown, and trusted by the digest of the folder.

Helpers that are byte for byte those of ``tasks/lib`` need no trust.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.core import paths, safety, templates
from finbench.core.errors import FinbenchError, shortened
from finbench.core.files import write_atomic
from finbench.core.taskfiles import Function

DATA = ("json", "csv", "parquet", "text", "arrow")  # readers of files that cannot run any (pandas reads pickles)
_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)  # "..x.f" and "/x.f" would leave the folder
_FILES = 20_000  # in a folder of tasks
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_COMPILED = ("so", "pyd", "dll", "dylib", "pyc", "pyo")
_LONGEST, _SECONDS = 2_000, 1.0  # characters of a regular expression, and seconds for its trial
_SIZE = 2**30  # bytes of a folder that is read for its digest at once


def files_of(root: Path) -> list[Path]:
    """Every file of a folder, sorted; refused are links that lead outside, and what is neither file nor folder."""
    found = []
    for path in root.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise FinbenchError(f"{path} is a link that leads outside of {root}.", "Copy the file into the folder.")
        if path.is_dir():
            if path.suffix == ".py":  # Python runs what is in it, __main__.pyc too
                raise FinbenchError(f"{path} is a folder, but is called like a helper.", "Rename it.")
            continue
        if not path.is_file():
            raise FinbenchError(f"{path} is no plain file.", "Remove it from the folder.")
        found.append(path)
        if len(found) > _FILES:
            raise FinbenchError(f"{root} holds more than {_FILES:,} files.", "Name the folder of one benchmark.")
    return sorted(found)


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


def python_in(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """Python in a folder, named by its functions or not: one file may import another."""
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.suffix == ".py" and not is_helper(file):
            content = file.read_bytes()
            sha = hashlib.sha256(content).hexdigest()[:12]
            yield f"{name} ({len(content.splitlines()):,} lines, SHA-256 {sha})"
        elif file.suffix[1:] in _COMPILED and "__pycache__" not in file.relative_to(root).parts:
            yield f"{name} (compiled code, which nobody can read)"


def _calls(called: Iterable[Function], file: Path, root: Path) -> Iterator[str]:
    for part in called:
        _check_function(part, file, root)
        path = ((part.home or root) / part.module).resolve()
        if not path.is_file() or not is_helper(path):
            yield f"{file.relative_to(root).as_posix()}: calls {part.spec}"


def code_of(config: Mapping[str, Any], called: Iterable[Function], file: Path, root: Path) -> Iterator[str]:
    """What of a task would run code that the user has not seen: its functions, and what its keys ask lm-eval to do."""
    yield from _calls(called, file, root)
    name = file.relative_to(root).as_posix()
    if "class" in config:
        yield f"{name}: class makes the task by Python"
    if config.get("unsafe_code"):
        yield f"{name}: unsafe_code runs what a model answers"
    if config.get("use_prompt"):
        yield f"{name}: use_prompt loads a prompt by promptsource"
    yield from (f"{name}: {said}" for said in (*_data_faults(config), *_metric_faults(config)))
    found = [*_patterns(config)]
    for key, text in _templates(config):
        if odd := templates.beyond(text):
            yield f"{name}: the template of {key} has {odd}"
        else:
            found += templates.patterns(text)
    if endless := [pattern for pattern in dict.fromkeys(found) if not _ends(pattern)]:
        yield f"{name}: the regular expression {shortened(endless[0])} is none, or searches without end"


def _patterns(value: Any) -> Iterator[str]:
    """Regular expressions of filters and metrics, which are tried on what models answer."""
    for part in (value := [value]):  # grows
        if isinstance(part, dict):
            for key, inner in part.items():
                if "regex" in str(key):
                    yield from _texts(inner)
            value += part.values()
        elif isinstance(part, list):
            value += part


_TRIAL = """
import json, re, sys
pattern = json.load(sys.stdin)
way, own = re.compile(pattern), "".join(dict.fromkeys(pattern))
runs = [*own, *"a1 .,", *re.findall(r"\\w+", pattern), own, "a1 ", "a,", "1.", "ab"]
for run in runs:
    for end in ("!", "\\n", ""):
        text = (run * 400)[:400] + end
        way.search(text), way.findall(text), way.sub("", text), way.match("\\n" + text)
"""


@functools.lru_cache(1024)
def _ends(pattern: str) -> bool:
    """Whether a search for a regular expression ends soon, on runs of its own characters that end otherwise."""
    return pattern.isalnum() or (len(pattern) <= _LONGEST and safety.finishes(_TRIAL, pattern, _SECONDS))


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
    if source is not None and source not in DATA:
        if not isinstance(source, str) or not _HUB.fullmatch(source):
            yield f"dataset_path {str(source)[:80]!r} is neither a data set of the Hub nor one of {', '.join(DATA)}"
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
    for file in files_of(root):
        name = file.relative_to(root).as_posix()
        if "__pycache__" in file.relative_to(root).parts and file.suffix == ".pyc":
            continue
        size += file.stat().st_size
        if size > _SIZE:
            raise FinbenchError(f"{root} holds more than {_SIZE // 2**30} GB.", "Keep its data on the Hub.")
        sha.update(f"{name}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape") + file.read_bytes())
    return sha.hexdigest()


def _mark(digest: str) -> Path:
    return paths.cache_dir() / "trusted-tasks" / f"{digest}.json"


def check_trust(root: Path, code: Sequence[str], trust: bool) -> bool:
    """FinbenchError for code that is not trusted; with ``trust`` it is from now on. Whether it was said just now."""
    if not code:
        return False
    if compiled := [path for path in root.rglob("__pycache__") if any(path.glob("*.pyc"))]:
        raise FinbenchError(
            f"{compiled[0]} holds compiled code, which runs instead of the files that one can read.",
            f"Remove it: rm -r {compiled[0]}",
        )
    mark = _mark(digest_of(root))
    if mark.is_file():
        return False
    if not trust:
        raise FinbenchError(
            f"{root} carries code, which would run as you:\n" + "\n".join(f"- {line}" for line in code),
            "Read it. If you trust all of it, add --trust-task-code: it is asked once, and again when a file changes.",
        )
    write_atomic(mark, json.dumps({"folder": root.name, "code": code}, indent=1) + "\n")
    return True
