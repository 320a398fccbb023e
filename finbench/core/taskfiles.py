"""Task YAMLs and other configurations, read strictly: nothing in them is run, no alias makes them large.

A task YAML may include others and name functions; both are kept as they are written, with the folder they count from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finbench.core import paths
from finbench.core.errors import FinbenchError, near_misses

_LARGEST = 1_000_000  # characters of a configuration
_FILES = 50  # of one task with its includes
_MERGED = 10_000  # keys of a mapping
_BESIDE = re.compile(rb'with_name\("(\w+\.py)"\)')  # how a helper of tasks/lib loads another
_NODES = 200_000  # of one with its aliases written out: more is a bomb
_MARKS = 50_000  # signs that begin a part; the reader takes a second and a half for as many


@dataclass(frozen=True)
class Function:
    """A ``!function module.name`` of a task YAML, unresolved; ``home``: the folder of the YAML, None: ``tasks/``."""

    spec: str
    home: Path | None = None

    @property
    def module(self) -> str:
        """Path of the helper module below the folder of the YAML."""
        return self.spec.rpartition(".")[0].replace(".", "/") + ".py"

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.spec.rpartition(".")[2]


class _Strict(yaml.constructor.SafeConstructor):
    """Refuses a key given twice and keeps ``!function`` as text."""

    home: Path | None = None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[tuple[str, str], Any] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            mark: Any = key.start_mark
            before = first.setdefault((key.tag, key.value), mark)
            if before is not mark:
                problem = f"key {key.value!r} twice, first in line {before.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """What ``<<`` merges: ten of ten of ten ... would be made here, before anybody can count them."""
        super().flatten_mapping(node)
        if len(node.value) > _MERGED:
            raise yaml.constructor.ConstructorError(None, None, "too many merged keys", node.start_mark)


def _function(loader: Any, node: yaml.Node) -> Function:
    return Function(str(node.value), loader.home)


_Strict.add_constructor("!function", _function)


class _StrictLoader(_Strict, yaml.SafeLoader):
    """In Python, which a file of any depth cannot crash."""


class _FastLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C, for finbench's own files: eight times as fast, but a deep enough file overflows its stack."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, strictly. Faults are FinbenchErrors with file and line."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise FinbenchError(f"{path}: not a file.", "Name a YAML file.")
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= 4 * _LARGEST else " " * (_LARGEST + 1)
        if len(text) > _LARGEST:
            raise FinbenchError(
                f"{path}: too large for a configuration file.", "Name another file: a configuration has at most 1 MB."
            )
        if _too_many(text):
            raise FinbenchError(f"{path}: more than {_MARKS:,} parts; no configuration has so many.", "Shorten it.")
        value = _constructed(text, path.parent, _FastLoader if _is_ours(path) else _StrictLoader)
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
    if not _bounded(value):
        raise FinbenchError(
            f"{path}: its aliases make it too large for a configuration.", "Write such parts out, or leave them away."
        )
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FinbenchError(f"{path}: a mapping with text keys is expected.", "Write lines of: key: value")
    return value


def head_of(text: str) -> dict[str, Any]:
    """The block of metadata that a README of the Hub starts with; empty where there is none that can be read."""
    found = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text[:_LARGEST], re.DOTALL | re.MULTILINE)
    try:
        value = _constructed(found[1], Path()) if found and not _too_many(found[1]) else {}
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and _bounded(value) else {}


def _too_many(text: str) -> bool:
    """Whether a YAML text has more parts than a configuration, found before they are made."""
    return sum(map(text.count, ",\n:[{")) > _MARKS


def _is_ours(path: Path) -> bool:
    return path.parent in (paths.shipped("tasks"), paths.shipped("adapters_zoo"))


def _constructed(text: str, home: Path, kind: Any = _StrictLoader) -> Any:
    loader = kind(text)
    loader.home = home
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _bounded(value: Any) -> bool:
    """Whether a value has few parts when each alias is written out; one that contains itself has not."""
    parts = [value]
    for number, part in enumerate(parts):  # grows
        if number > _NODES or len(parts) > _NODES:
            return False
        if isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return True


def merged(path: Path, seen: list[Path] | None = None, root: Path | None = None) -> dict[str, Any]:
    """A task YAML with its includes merged as lm-eval merges them; every file read is appended to ``seen``.

    With ``root``, an include that lies outside of this folder is refused.
    """
    seen = [] if seen is None else seen
    if path in seen:
        raise FinbenchError(f"{path}: includes itself.", "Remove the include line that leads back to it.")
    if len(seen) > _FILES:
        raise FinbenchError(f"{path}: more than {_FILES} files include each other.", "Write them as one file.")
    seen.append(path)
    own = read_yaml(path)
    includes = own.pop("include", [])
    names = [includes] if isinstance(includes, str) else includes
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FinbenchError(f"{path}: include is a file or a list of files.", "Write include: _template.yaml")
    config: dict[str, Any] = {}
    for name in names:
        if root is not None and not (path.parent / name).resolve().is_relative_to(root):
            raise FinbenchError(
                f"{path}: includes {name!r}, which lies outside of {root}.", "Copy that file into the folder."
            )
        config |= merged(path.parent / name, seen, root)
    return config | own


def functions(value: Any) -> Iterable[Function]:
    """Every ``!function`` inside a part of a task YAML."""
    if isinstance(value, Function):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from functions(part)


def loads(helper: Path) -> list[Path]:
    """The helpers that a helper loads from beside it, by its text."""
    return [helper.with_name(name.decode()) for name in _BESIDE.findall(helper.read_bytes())]
