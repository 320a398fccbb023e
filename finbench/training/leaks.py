"""Does a benchmark that is not finbench's ask what an adapter has learnt? Looked for in the rows, while they lie here.

Test texts of ranked tasks are looked for when an adapter is trained. A benchmark of the user's own may be made later,
of the same file, or of a file with the same texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, LearntData, Overlap, Recipe
from finbench.data import contamination, own
from finbench.scoring import prompts
from finbench.training.batches import choose


@dataclass(frozen=True)
class Leaks:
    """``found``: benchmark -> how much of its test an adapter has learnt; ``unseen``: rows that are not here."""

    found: dict[str, Overlap]
    unseen: list[str]

    def warnings(self) -> list[str]:
        """One line for each benchmark of which something was learnt, and one for what nobody can say."""
        said = [
            f"{one.texts:,} of {one.of:,} test texts of {name} stand in the rows that it learnt from: of these its "
            "score says how well they were learnt by heart."
            for name, one in self.found.items()
            if one.texts
        ]
        if self.unseen:
            said.append(
                f"whether it has learnt the test is not known: {', '.join(self.unseen)}, which it learnt from, "
                f"{'lies' if len(self.unseen) == 1 else 'lie'} not here."
            )
        return said


def of_adapter(
    record: Adapter, lm_tasks: Mapping[str, Any], data_dir: Path | None = None, near: Sequence[Path] = ()
) -> Leaks:
    """How much of the tests of these tasks of others stands in the rows that an adapter learnt from.

    Own rows are looked for where they were, and by name in the folders ``near``; only the very ones, by SHA-256, count.
    Where they are gone, a benchmark that was made of the same file is known by that.
    """
    tests = {name: prompts.rows(lm_task, "test") for name, lm_task in lm_tasks.items()}
    index = contamination.Index({name: contamination.texts_of(docs) for name, docs in tests.items()})
    seen, unseen, whole = set[int](), list[str](), set[str]()
    for texts, name, sha in _sources(record, data_dir, near):
        if texts is None:
            unseen.append(name)
            whole |= {one for one in tests if sha and catalog.tasks()[one].source == sha and not record.recipe.limit}
            continue
        for row in texts:
            seen |= index.seen(row)
    counted = index.counted(seen)
    found = {}
    for name, of in index.texts.items():
        texts_seen = of if name in whole else counted.found.get(name, 0)
        if of and (texts_seen or not unseen):
            found[name] = Overlap(texts=texts_seen, of=of)
    return Leaks(found, unseen if set(found) != set(tests) else [])


def _sources(
    record: Adapter, data_dir: Path | None, near: Sequence[Path]
) -> Iterator[tuple[Iterator[list[str]] | None, str, str | None]]:
    """(the texts of each row, or None where they are not here; its name; SHA-256 of own rows) of each part."""
    learnt = list(record.data)
    for name in record.recipe.tasks:
        data = learnt.pop(0) if learnt else None
        yield _task_rows(name, data, record.recipe, data_dir), name.removeprefix(catalog.PREFIX), None
    parts = list(zip(record.recipe.data, learnt, strict=False))
    located = [own.again(part, data.sha256, near) if data.sha256 else None for part, data in parts]
    surveys = iter(own.surveys(one for one in located if one))
    for (_, data), one in zip(parts, located, strict=True):
        yield (_own_rows(next(surveys), record.recipe) if one else None), data.set, data.sha256
    for data in learnt[len(parts) :]:  # pairs of answers, and what an adapter that was gone on from had learnt
        yield None, data.set, data.sha256


def _task_rows(
    name: str, learnt: LearntData | None, recipe: Recipe, data_dir: Path | None
) -> Iterator[list[str]] | None:
    task = catalog.tasks().get(name)
    if task is None or learnt is None:
        return None
    try:
        lm_task = prompts.load([task], data_dir)[name]
    except FinbenchError:
        return None
    docs = prompts.rows(lm_task, "train")
    if recipe.limit is not None and recipe.limit < len(docs):
        docs = choose(docs, recipe.limit, recipe.seed)
    if prompts.data_id(task, lm_task, "train", docs).digest != learnt.digest:
        return None
    return (list(contamination.fields(doc)) for doc in docs)


def _own_rows(found: own.Survey, recipe: Recipe) -> Iterator[list[str]]:
    kept = found.kept
    numbers = np.flatnonzero(kept)
    if recipe.limit is not None and recipe.limit < len(numbers):
        kept = np.zeros(len(kept), bool)
        kept[numbers[choose(range(len(numbers)), recipe.limit, recipe.seed)]] = True
    return ([text for _, text in turns] for turns, _ in itertools.compress(found.contents(), kept.tolist()))
