"""What decides a step beside its recipe: the bytes of its base and its rows, and the definitions of its tasks.

A step that is done is taken for one that is asked for only where all of that is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finbench.core import catalog, paths, taskcode
from finbench.core.files import sha256_file
from finbench.core.records import OwnData, Recipe
from finbench.data import locked_sets, own
from finbench.models import adapters, bases


class Identities:
    """The identities of bases, tasks and rows as they are now; each is found once."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir, self._found = data_dir, dict[tuple[str, str], Any]()

    def base(self, base: str) -> str:
        """What decides the weights of a base."""
        if (key := ("base", base)) not in self._found:
            self._found[key] = bases.named(base)
        return str(self._found[key])

    def tasks(self, names: Iterable[str]) -> dict[str, Any]:
        """Of each task its definition and the rows of its set."""
        return {name: [catalog.tasks()[name].digest, self._set(name)] for name in names}

    def learnt(self, recipe: Recipe) -> dict[str, Any]:
        """What a recipe learns from, and is validated on."""
        found = self.tasks(recipe.tasks)
        held = [part for part in (recipe.validation, recipe.preferences) if isinstance(part, OwnData)]
        for number, part in enumerate((*recipe.data, *held)):
            if (key := ("own", part.source)) not in self._found:
                self._found[key] = own.locate(part.model_copy(update={"sha256": None})).sha256
            found[f"own {number}"] = [self._found[key], part.model_dump(exclude={"source", "sha256"})]
        if recipe.start is not None:
            found["start"] = adapters.find(recipe.start.source).identity
        return found

    def _set(self, name: str) -> Any:
        """The files of rows as they are here, or the commit at which the Hub's are taken where there are none."""
        task = catalog.tasks()[name]
        key = ("set", catalog.root_of(name).as_posix() if task.own == "folder" else task.set)
        if key not in self._found:
            if task.own == "folder":
                self._found[key] = taskcode.digest_of(catalog.root_of(name))
                return self._found[key]
            mini, imported = paths.shipped("tasks") / "mini", paths.data_dir(self.data_dir) / task.set
            files = sorted(mini.glob(f"{task.set}.*.jsonl") if task.shipped else imported.glob("*.jsonl"))
            self._found[key] = {path.name: sha256_file(path) for path in files} or locked_sets().get(task.set)
        return self._found[key]
