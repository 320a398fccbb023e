"""The files of a repository at a commit, as the Hub lists them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.hub.client import Kind, address, api, no_hub, sentence

MOST_FILES = 100_000  # of a repository, as the Hub advises
BY_HAND = "Fetch the files that you need (hf download REPO FILE --local-dir DIR), then name the folder."


@dataclass(frozen=True)
class Remote:
    """A file as the listing states it. ``sha256`` for large files, else ``git``: the id of a git blob."""

    name: str
    size: int
    sha256: str | None
    git: str

    @property
    def hash(self) -> str:
        """The hash that the content must have."""
        return self.sha256 or self.git

    def holds(self, hashes: tuple[str, str]) -> bool:
        """Whether its content is the one with these hashes (SHA-256, git's id)."""
        return self.hash == hashes[0 if self.sha256 else 1]


def items(repo: str, kind: Kind, sha: str, folder: str | None = None, most: int = MOST_FILES) -> Iterator[Any]:
    """What the client gives for each entry, files and folders; of one ``folder`` only what lies directly in it.

    Raises FinbenchError after ``most`` entries, and for a name that leads out of the repository or the folder.
    """
    said = sentence(address(repo, kind))
    try:
        listed = api().list_repo_tree(repo, folder, repo_type=kind, revision=sha, recursive=folder is None)
        for number, item in enumerate(listed):
            if number == most:
                raise FinbenchError(f"{said} lists more than {most:,} files; that is too many.", BY_HAND)
            name = str(item.path)
            below = name.removeprefix(f"{folder}/")
            if hostile(name) or (folder is not None and (below == name or "/" in below)):
                raise FinbenchError(
                    f"{said} lists a file that leads out of its folder ({name[:60]!r}): refused.",
                    "Use another repository, and report this one to the Hub.",
                )
            yield item
    except (TypeError, KeyError, AttributeError) as fault:  # what the client makes of JSON that is no listing
        raise no_hub() from fault


def files(repo: str, kind: Kind, sha: str) -> dict[str, Remote]:
    """Every file of a commit by its path."""
    return {item.path: remote(item) for item in items(repo, kind, sha) if is_file(item)}


def is_file(item: Any) -> bool:
    """Whether an entry is a file, not a folder."""
    return hasattr(item, "blob_id")


def remote(item: Any) -> Remote:
    """An entry as the record that it is; FinbenchError for hashes that are none."""
    large = item.lfs
    git, sha256 = str(item.blob_id), str(large.sha256) if large else None
    if not re.fullmatch(r"[0-9a-f]{40}", git) or (sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise FinbenchError(f"The Hub lists {str(item.path)[:80]!r} without a hash.", "Is HF_ENDPOINT right?")
    return Remote(str(item.path), int(large.size if large else item.size), sha256, git)


def hostile(name: str) -> bool:
    """Whether a path leads out of the folder that it is written below, on any system."""
    odd = any(ord(character) < 32 for character in name) or "\\" in name or re.match(r"[A-Za-z]:", name)
    return bool(odd) or any(part in ("", ".", "..") for part in name.split("/"))


def blob_id(content: Path | bytes) -> str:
    """Git's id of a file's content."""
    if isinstance(content, bytes):
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    begun = hashlib.sha1(b"blob %d\0" % content.stat().st_size, usedforsecurity=False)
    with content.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: begun).hexdigest()
