"""The face of a package: the names that its ``__init__`` shows, imported when they are first used.

An ``__init__`` states its names once, as ordinary imports under ``if TYPE_CHECKING:``, where type checkers, editors
and the documentation find them. Imported at once they would load torch for ``finbench zoo list``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def face(package: str) -> Callable[[str], Any]:
    """``__getattr__`` for the module ``package``: finds a name in the module that its ``__init__`` says it is of."""

    def shown(name: str) -> Any:
        home = _homes(package).get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = importlib.import_module(f"{home}.{name}" if home == package else home)
        if home != package:  # else the name is a whole module
            found = getattr(found, name)
        setattr(sys.modules[package], name, found)  # from now on without this function
        return found

    return shown


@functools.cache
def _homes(package: str) -> dict[str, str]:
    """Name -> module, of the imports under ``if TYPE_CHECKING:``."""
    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    return {
        alias.name: str(line.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
