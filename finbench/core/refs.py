"""References to models and adapters: ``hub:org/name[@rev]``, ``zoo:name``, ``./folder`` or a plain name."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finbench.core.errors import FinbenchError

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

    @property
    def pinned(self) -> bool:
        """Whether ``revision`` is a commit (40 digits of base 16), not a branch or a tag, which may move."""
        return bool(self.revision and re.fullmatch("[0-9a-f]{40}", self.revision))


def parse(text: str) -> Ref:
    """Parse a reference, strictly.

    ``hub:`` and ``zoo:`` never name a local path. A text with a slash, or that starts with ``.`` or ``~``, is a
    folder; anything else is a plain name, for the caller's own table.

    Raises FinbenchError for anything else, naming what is wrong.
    """
    if text.startswith("hub:"):
        match, name = _HUB.fullmatch(text[4:]), text.partition("@")[0]
        odd = ".." in text or "//" in text or "--" in name or name.endswith((".git", ".ipynb"))
        if match is None or odd or text.endswith(("/", ".")):
            raise _bad(text, "hub:org/name or hub:org/name@revision")
        return Ref("hub", f"{match[1]}/{match[2]}", match[3])
    if text.startswith("zoo:"):
        if not _NAME.fullmatch(text[4:]):
            raise _bad(text, "zoo:name")
        return Ref("zoo", text[4:])
    if re.match("https?://", text):
        page = re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", text)
        raise _bad(text, f"hub:{page[1]}" if page else "--engine server --model NAME --arg url=ADDRESS for an endpoint")
    first = unicodedata.normalize("NFKC", re.split(r"[/\\]", text)[0])  # other scripts have colons too
    drive = re.fullmatch(r"[A-Za-z]:", first)
    if not text or any(ord(character) < 32 for character in text) or (":" in first and not drive):
        raise _bad(text, "hub:org/name, zoo:name or ./folder")  # file:, HUB:, and what looks like hub: in other scripts
    if "/" in text or "\\" in text or text[0] in ".~":
        return Ref("folder", text)
    if not _NAME.fullmatch(text):
        raise _bad(text, "a name, hub:org/name, zoo:name or ./folder")
    return Ref("name", text)


def typed(folder: Path) -> str:
    """A folder as commands take it: a bare word is a name."""
    return str(folder) if "/" in str(folder) else f"./{folder}"


def meant(text: str) -> str:
    """' Did you mean hub:org/name?' for a text that lacks but the prefix, else nothing."""
    return f" Did you mean hub:{text}?" if _HUB.fullmatch(text) and not Path(text).exists() else ""


def _bad(text: str, form: str) -> FinbenchError:
    shown = text if len(text) <= 80 else text[:77] + "..."  # repr escapes what a terminal would obey
    return FinbenchError(f"Not a valid reference: {shown!r}.", f"Write {form}.")
