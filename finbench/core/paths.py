"""Where things lie: the shipped folders, the user's cache, the data directory."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from finbench.core.errors import FinbenchError
from finbench.core.installing import install


@functools.cache
def shipped(name: str) -> Path:
    """The folder ``tasks`` or ``adapters_zoo``: inside the package (wheel), else beside it (checkout)."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent / name):
        if (folder / {"tasks": "finbench.yaml", "adapters_zoo": "bases.yaml"}[name]).is_file():
            return folder
    raise FinbenchError(f"The folder {name}/ of finbench is missing.", f"Install it again: {install(again=True)}")


def cache_dir() -> Path:
    """``$FINBENCH_CACHE``, else ``finbench`` in the user's cache folder."""
    if chosen := os.environ.get("FINBENCH_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "finbench"


def data_dir(chosen: Path | None = None) -> Path:
    """``chosen``, else ``$FINBENCH_DATA``, else ``finbench/data`` in the user's cache.

    The same rule as in ``tasks/lib/rows.py``, which cannot import finbench (a test compares them).
    """
    if named := chosen or os.environ.get("FINBENCH_DATA"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "finbench" / "data"


@functools.cache
def helper(name: str) -> ModuleType:
    """A module or package of ``tasks/lib``, which stock lm-eval loads by its path, so that finbench does too.

    It is known to Python as ``finbench_<name>``, the name that ``lib/rows.py`` gives it as well.
    """
    folder = shipped("tasks") / "lib"
    package = folder / name / "__init__.py"
    path = package if package.is_file() else folder / f"{name}.py"
    search = [str(package.parent)] if package.is_file() else None
    spec = importlib.util.spec_from_file_location(f"finbench_{name}", path, submodule_search_locations=search)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: its own parts import each other by this name
    spec.loader.exec_module(module)
    return module
