"""References to models and adapters: ``hub:org/name[@rev]``, ``zoo:name``, ``./folder`` or a plain name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finbench.errors import FinbenchError

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_HUB = re.compile(rf"({_PART})/({_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,99}}))?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Ref:
    """A parsed reference. ``hub``: ``name`` is org/name and ``revision`` may be set; ``folder``: ``path``."""

    kind: Literal["hub", "zoo", "folder", "name"]
    name: str
    revision: str | None = None

    @property
    def path(self) -> Path:
        """The folder, for a ``folder`` reference."""
        return Path(self.name).expanduser()


def parse(text: str) -> Ref:
    """Parse a reference, strictly.

    ``hub:`` and ``zoo:`` never name a local path. A text with a slash, or that starts with ``.`` or ``~``, is a
    folder; anything else is a plain name, for the caller's own table.

    Raises FinbenchError for anything else, naming what is wrong.
    """
    if text.startswith("hub:"):
        return _hub(text)
    if text.startswith("zoo:"):
        if not _NAME.fullmatch(text[4:]):
            raise _bad(text, "zoo:name")
        return Ref("zoo", text[4:])
    if not text or "\0" in text or "\n" in text or re.match(r"[a-z]{2,}:", text):
        raise _bad(text, "hub:org/name, zoo:name or ./folder")
    if "/" in text or "\\" in text or text[0] in ".~":
        return Ref("folder", text)
    if not _NAME.fullmatch(text):
        raise _bad(text, "a name, hub:org/name, zoo:name or ./folder")
    return Ref("name", text)


def _hub(text: str) -> Ref:
    match = _HUB.fullmatch(text[4:])
    if match is None or ".." in text or "--" in text or "//" in text or text.split("@")[0].endswith(".git"):
        raise _bad(text, "hub:org/name or hub:org/name@revision")
    return Ref("hub", f"{match[1]}/{match[2]}", match[3])


def _bad(text: str, form: str) -> FinbenchError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return FinbenchError(f"Not a valid reference: {shown!r}.", f"Write {form}.")
