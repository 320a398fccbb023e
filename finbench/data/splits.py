"""The names of splits, as people write them: on files and sheets, in columns, as the keys of a document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "heldout"), "test"),
}
_SPLIT = re.compile(r"([a-z]+?)(?:[ _-]?(?:set|split|data))?")


def split_named(word: Any) -> str | None:
    """The split that a word stands for: train, Training, train_set, test split."""
    found = _SPLIT.fullmatch(str(word).strip().casefold())
    return _SPLITS.get(found[1]) if found else None


def split_in(name: str) -> str | None:
    """The split that the name of a file or sheet, or the folder it lies in, states as a word of its own."""
    path = Path(name.replace("#", "/"))  # the sheet of a workbook
    for part in (path.stem, path.parent.name):
        for word in re.split(r"[^a-z]+", part.casefold()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None
