"""What a publication would change: computed without writing, shown by ``--dry-run``, executed as it is."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finbench.errors import FinbenchError
from finbench.files import sha256_file
from finbench.hub.client import Kind, Unreachable, api, explained, has_token, holds_token, page
from finbench.hub.fetching import SAFE_FILES

State = Literal["added", "replaced", "unchanged", "removed"]
MOST_FILES = 500  # of one commit; the Hub advises about 100, the tasks are 180


@dataclass(frozen=True)
class File:
    """A file to publish: its path in the repository, and a local file or the bytes themselves."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def hashes(self) -> tuple[str, str]:
        """(SHA-256, git's id of the blob)."""
        sha1 = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        if isinstance(self.content, bytes):
            sha1.update(self.content)
            return hashlib.sha256(self.content).hexdigest(), sha1.hexdigest()
        with self.content.open("rb") as handle:
            while block := handle.read(1 << 20):
                sha1.update(block)
        return sha256_file(self.content), sha1.hexdigest()


@dataclass(frozen=True)
class Change:
    """What happens to one file."""

    path: str
    state: State
    size: int

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"path": self.path, "state": self.state, "bytes": self.size}


@dataclass(frozen=True)
class Plan:
    """A publication: one commit on ``parent`` (None: the repository will be made), or one pull request.

    ``whole``: see ``make_plan``. ``compared`` is False where the Hub could not be asked: then
    every file counts as added.
    """

    repo: str
    kind: Kind
    message: str
    files: tuple[File, ...]
    changes: tuple[Change, ...]
    exists: bool
    parent: str | None
    private: bool
    pull_request: bool
    whole: bool = False
    compared: bool = True
    hashes: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # path -> (SHA-256, git id)

    @property
    def upload_bytes(self) -> int:
        """Bytes of what is added or replaced."""
        return sum(change.size for change in self.changes if change.state in ("added", "replaced"))

    @property
    def changing(self) -> list[Change]:
        """What is not as it should be yet."""
        return [change for change in self.changes if change.state != "unchanged"]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "repo": self.repo,
            "type": self.kind,
            "url": page(self.repo, self.kind),
            "exists": self.exists,
            "private": self.private,
            "pull_request": self.pull_request,
            "parent": self.parent,
            "compared": self.compared,
            "message": self.message,
            "upload_bytes": self.upload_bytes,
            "changes": [change.as_dict() for change in self.changes],
        }


def make_plan(
    repo: str,
    files: Sequence[File],
    *,
    message: str,
    kind: Kind = "model",
    public: bool = False,
    pull_request: bool = False,
    whole: bool = False,
    dry: bool = False,
) -> Plan:
    """Compare ``files`` with what lies at the head of a repository.

    ``whole``: the files are all of a model or adapter, so that other weights and configurations at the top of the
    repository are removed by the same commit. ``dry`` allows a plan without a Hub. Raises FinbenchError for too many
    files, a path twice, a file that holds a token, and whatever the Hub refuses.
    """
    _check(files)
    head: str | None = None
    remote: dict[str, tuple[str | None, str, int]] = {}
    private, compared = not public, True
    try:
        head, remote, private = _there(repo, kind, private, pull_request)
    except Unreachable:
        if not dry:
            raise
        compared = False
    hashes = {file.path: file.hashes() for file in files}
    changes = []
    for file in files:
        there = remote.get(file.path)
        same = there is not None and (
            there[0] == hashes[file.path][0] if there[0] else there[1] == hashes[file.path][1]
        )
        changes.append(Change(file.path, "unchanged" if same else "replaced" if there else "added", file.size))
    if whole:
        for path, (_, _, size) in remote.items():
            if path not in hashes and decisive(path):
                changes.append(Change(path, "removed", size))
    ordered = tuple(sorted(changes, key=lambda change: change.path))
    exists = head is not None
    return Plan(
        repo, kind, message, tuple(files), ordered, exists, head, private, pull_request, whole, compared, hashes
    )


def decisive(path: str) -> bool:
    """Whether a file of a repository is part of its model: what finbench, peft or transformers would load."""
    return "/" not in path and any(fnmatch.fnmatchcase(path, pattern) for pattern in SAFE_FILES)


def _check(files: Sequence[File]) -> None:
    names = [file.path for file in files]
    if len(names) > MOST_FILES:
        raise FinbenchError(f"{len(names)} files do not fit into one commit ({MOST_FILES} at most).")
    if len(set(names)) != len(names):
        raise FinbenchError("Two files would have one name on the Hub: " + ", ".join(sorted(names)))
    for file in files:
        if file.path.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")):
            raise FinbenchError(f"{file.path} is a pickle, which is never published.")
        if file.size <= 2**20 and not file.path.endswith((".safetensors", ".zst", ".png")):
            data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            text = data.decode("utf-8", "replace")
            if holds_token(text):
                raise FinbenchError(f"{file.path} holds what looks like a token; nothing was sent.", "Remove it there.")


def _there(
    repo: str, kind: Kind, private: bool, pull_request: bool
) -> tuple[str | None, dict[str, tuple[str | None, str, int]], bool]:
    """(head commit, path -> (SHA-256 or None, git id, size), private) of a repository; no head where there is none."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    wanted = ("datasets/" if kind == "dataset" else "") + repo
    with explained(wanted, writing=True):
        try:
            info = api().repo_info(repo, repo_type=kind, revision="main", timeout=10)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if pull_request or not has_token():
                raise
            return None, {}, private
        return str(info.sha), listing(repo, kind, str(info.sha)), bool(info.private)


def listing(repo: str, kind: Kind, sha: str) -> dict[str, tuple[str | None, str, int]]:
    """path -> (SHA-256 of a large file, git's id, bytes) of every file of a commit."""
    found = api().list_repo_tree(repo, repo_type=kind, revision=sha, recursive=True)
    return {
        item.path: (item.lfs.sha256 if item.lfs else None, str(item.blob_id), int(item.size))
        for item in found
        if hasattr(item, "blob_id")
    }
