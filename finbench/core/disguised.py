"""What a file is that lies where weights should: a pointer of Git LFS, a page of an error, an empty file."""

from __future__ import annotations

import codecs
from pathlib import Path

from finbench.core.errors import FinbenchError

_LOOKED_AT = 512  # bytes at its beginning
_POINTER = b"version https://git-lfs.github.com/spec/"
_AGAIN = "Fetch it again; the site may ask for a key first, or have moved the file."


def refusal(path: Path) -> FinbenchError | None:
    """The refusal of a file that holds no weights at all, which says what it is; None: it may well hold some."""
    with path.open("rb") as handle:
        start = handle.read(_LOOKED_AT)
    if found := _found(start, path):
        what, hint = found
        return FinbenchError(f"{path} is {what}, not a file of weights.", hint)
    return None


def _found(start: bytes, path: Path) -> tuple[str, str] | None:
    if not start:
        return "empty", "Fetch it again."
    if start.startswith(_POINTER):
        return (
            "a pointer of Git LFS to a file that was not fetched",
            f"In the clone: git lfs pull --include {path.name}; or fetch the repository whole: hub:org/name",
        )
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # a character that the end cuts is left out
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").strip()
    if not all(character.isprintable() or character in "\r\n\t" for character in text):
        return None
    kind = "a web page" if text[:1] == "<" else "a text"
    return f"{kind} ({(text or ' ').splitlines()[0][:60]!r})", _AGAIN
