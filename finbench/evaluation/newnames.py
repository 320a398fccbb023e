"""Splits that the names of files state: ``train.csv`` and ``test.csv`` in one folder are not divided anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finbench.core.errors import shortened
from finbench.data import readers, splits


def told(record: readers.RawRecord, file: readers.SourceFile, top: Path) -> readers.RawRecord:
    """A row with the split that its file's name states.

    The name of what the user named, ``top``, tells nothing of the files in it.
    """
    name = file.member or (file.path.relative_to(top).as_posix() if top.is_dir() else file.name)
    return record._replace(detail=splits.split_in(name), source=name)


def divided(raw: Sequence[readers.RawRecord]) -> tuple[bool, list[str]]:
    """Whether names divide the rows, and what to say of it: each has a split, and one of several is the test."""
    named = list(dict.fromkeys((record.source, record.detail) for record in raw))
    splits = {split for _, split in named}
    if len(named) < 2 or splits == {None}:
        return False, []
    listed = shortened(", ".join(f"{name} is {split or 'no split'}" for name, split in named))
    if None not in splits and "test" in splits and len(splits) > 1:
        return True, [f"divided as names say: {listed}"]
    return False, [f"divided by texts, whatever names say ({listed}): they count where all state a split, one test"]
