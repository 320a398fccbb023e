"""Repositories of the development Hub on disk: blobs by hash, commits, branches, pull requests."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from finbench.hub.community import EVAL_YAML, benchmark_faults

LFS_ENDINGS = (".safetensors", ".bin", ".gguf", ".parquet", ".zst", ".model", ".png", ".zip", ".pt", ".pkl")
_LFS_SIZE = 10 * 2**20  # bytes from which any file is large
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}")
_ATTRIBUTES = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS).encode()
_FIRST_PAGE = {
    "README.md": b"---\ntitle: New\nemoji: \xf0\x9f\x98\xbb\ncolorFrom: blue\ncolorTo: green\nsdk: static\n---\n",
    "index.html": b"<!doctype html><title>A new Space</title><link rel=stylesheet href=style.css>\n",
    "style.css": b"body { padding: 2rem }\n",
}


class Refusal(Exception):
    """A request that cannot be served: HTTP status, the Hub's error code, a message."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Moved(Refusal):
    """A repository that is called ``to`` now: the Hub redirects to it."""

    def __init__(self, name: str, to: str) -> None:
        super().__init__(307, f"Temporary Redirect. Redirecting to {to}")
        self.name, self.to = name, to


class StoredFile(NamedTuple):
    """A file of a commit: size in bytes, git blob id, and SHA-256 (which names the blob on disk)."""

    size: int
    oid: str
    sha256: str
    lfs: bool

    def as_tree(self, path: str) -> dict[str, Any]:
        """As an item of the ``tree`` answer."""
        item: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.lfs:
            item["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return item


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(data: bytes) -> str:
    """Git's id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(path: str, size: int) -> bool:
    """Whether the Hub keeps a file by LFS."""
    return path.endswith(LFS_ENDINGS) or size >= _LFS_SIZE


def _write(path: Path, data: bytes) -> None:
    """Write a file at once: a reader sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    Path(name).replace(path)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    _write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


class Store:
    """Every repository below a folder, and the blobs of all of them. Methods raise Refusal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()  # held by all that writes a repository
        self.multipart = 0  # bytes from which uploads come in parts of 1 MiB; 0: never
        self.parts: dict[tuple[str, int], bytes] = {}
        self.benchmarks: set[str] = set()  # data sets that count as registered
        (root / "blobs").mkdir(parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Path:
        """Where a blob lies, whether it is there or not."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise Refusal(422, f"not a SHA-256: {sha256[:80]!r}")
        return self.root / "blobs" / sha256

    def put_blob(self, sha256: str, data: bytes) -> None:
        """Keep a blob whose hash is as stated."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Refusal(400, "the content does not have the SHA-256 that was announced")
        if not self.blob(sha256).is_file():
            _write(self.blob(sha256), data)

    def repository(self, kind: str, name: str) -> Repository:
        """A repository, whether it is there or not. ``kind``: models, datasets or spaces."""
        if not _NAME.fullmatch(name) or ".." in name or "--" in name:
            raise Refusal(400, f"not a repository name: {name[:100]!r}")
        return Repository(self, kind, name)

    def move(self, repo: Repository, new: str) -> None:
        """Rename; the old name leads to the new one until another takes it. Refusal 409 if the new one is taken."""
        target = self.repository(repo.kind, new)
        with self.lock:
            if target.folder.exists():
                raise Refusal(409, f"{new} is there already")
            target.folder.parent.mkdir(parents=True, exist_ok=True)
            repo.folder.rename(target.folder)
            moved = {old: new if to == repo.name else to for old, to in self._moved(repo.kind).items()}
            _write_json(self.root / repo.kind / "moved.json", {**moved, repo.name: new})
            if repo.kind == "datasets" and repo.name in self.benchmarks:
                self.benchmarks.add(new)

    def _moved(self, kind: str) -> dict[str, str]:
        path = self.root / kind / "moved.json"
        return dict(_read_json(path)) if path.is_file() else {}

    def check_name(self, repo: Repository) -> None:
        """Moved where nothing is called so any more."""
        if not (repo.folder / "repo.json").is_file() and (to := self._moved(repo.kind).get(repo.name)):
            raise Moved(repo.name, to)

    def repositories(self, kind: str) -> list[Repository]:
        """All that there are, by name."""
        folders = sorted(path.parent for path in (self.root / kind).glob("*/*/repo.json"))
        return [Repository(self, kind, folder.relative_to(self.root / kind).as_posix()) for folder in folders]


@dataclass(frozen=True)
class Repository:
    """A repository of a store, in a folder of its own. Methods raise Refusal."""

    store: Store
    kind: str
    name: str

    @property
    def folder(self) -> Path:
        """Where it lies, whether it is there or not."""
        return self.store.root / self.kind / self.name

    @property
    def owner(self) -> str:
        return self.name.partition("/")[0]

    @property
    def page(self) -> str:
        """The path of its page: the Hub names the kind of all but models."""
        return self.name if self.kind == "models" else f"{self.kind}/{self.name}"

    def info(self) -> dict[str, Any]:
        """What was stated when it was made: private, gated, created."""
        try:
            return dict(_read_json(self.folder / "repo.json"))
        except FileNotFoundError as fault:
            raise Refusal(404, "Repository not found", "RepoNotFound") from fault

    def create(self, *, private: bool) -> None:
        """Make it, with one commit, as the Hub does; Refusal 409 if it is there.

        Models and data sets begin empty, a Space with a page of the Hub's.
        """
        with self.store.lock:
            if (self.folder / "repo.json").is_file():
                raise Refusal(409, "You already created this model repo")
            files = {".gitattributes": _ATTRIBUTES} | (_FIRST_PAGE if self.kind == "spaces" else {})
            tree = {path: self._regular(data) for path, data in files.items()}
            first = self._add_commit(None, "initial commit", tree)
            _write_json(self.folder / "refs.json", {"refs/heads/main": first})
            _write_json(self.folder / "repo.json", {"private": private, "gated": False, "created": now()})

    def change(self, settings: Mapping[str, Any]) -> None:
        with self.store.lock:
            info = self.info() | {key: settings[key] for key in ("private", "gated") if key in settings}
            if "visibility" in settings:
                info["private"] = settings["visibility"] == "private"
            _write_json(self.folder / "repo.json", info)

    def refs(self) -> dict[str, str]:
        """Every ref by its full name."""
        self.info()
        return dict(_read_json(self.folder / "refs.json"))

    def _set_ref(self, revision: str, sha: str) -> None:
        name = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        _write_json(self.folder / "refs.json", {**self.refs(), name: sha})

    def add_ref(self, name: str, sha: str) -> None:
        """Point a new ref (full name) at a commit; Refusal 409 if it is there."""
        with self.store.lock:
            if name in self.refs():
                raise Refusal(409, f"Reference {name} exists already")
            self._set_ref(name, sha)

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag, pull request or commit names."""
        refs = self.refs()
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in refs:
                return refs[name]
        if _SHA.fullmatch(revision) and (self.folder / "commits" / f"{revision}.json").is_file():
            return revision
        raise Refusal(404, f"Invalid rev id: {revision[:80]}", "RevisionNotFound")

    def commit_of(self, sha: str) -> dict[str, Any]:
        """A commit: parent, summary, description, date, tree."""
        return dict(_read_json(self.folder / "commits" / f"{sha}.json"))

    def tree(self, sha: str) -> dict[str, StoredFile]:
        """The files of a commit by path."""
        return {path: StoredFile(*item) for path, item in self.commit_of(sha)["tree"].items()}

    def _add_commit(
        self, parent: str | None, summary: str, tree: Mapping[str, StoredFile], description: str = ""
    ) -> str:
        record: dict[str, Any] = {"parent": parent, "summary": summary, "description": description, "date": now()}
        record["tree"] = dict(sorted(tree.items()))
        sha = hashlib.sha1(json.dumps(record).encode(), usedforsecurity=False).hexdigest()
        _write_json(self.folder / "commits" / f"{sha}.json", record)
        return sha

    def _regular(self, data: bytes) -> StoredFile:
        sha = hashlib.sha256(data).hexdigest()
        self.store.put_blob(sha, data)
        return StoredFile(len(data), git_oid(data), sha, lfs=False)

    def commit(
        self, revision: str, lines: Sequence[Mapping[str, Any]], author: str, create_pr: bool
    ) -> tuple[str, int | None]:
        """Apply a commit's lines (as the client sends them); return (commit, number of the pull request).

        All or nothing: the ref moves last. Refusal 412 where the parent it names is not the head.
        """
        with self.store.lock:
            for line in lines:
                if not isinstance(line.get("key"), str) or not isinstance(line.get("value"), dict):
                    raise Refusal(400, "Every line of a commit is {key, value}")
            header = {line["key"]: line["value"] for line in lines}.get("header", {})
            if not header.get("summary"):
                raise Refusal(400, "A commit needs a header with a summary")
            head = self.resolve(revision)
            parent = str(header.get("parentCommit") or head)
            if not create_pr and not head.startswith(parent):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            base = self.resolve(parent) if create_pr and _SHA.fullmatch(parent) else head
            tree = self.tree(base)
            for line in lines:
                if line["key"] != "header":
                    self._apply(tree, line["key"], line["value"])
            self._check_benchmark(tree)
            summary, description = str(header["summary"]), str(header.get("description") or "")
            sha = self._add_commit(base, summary, tree, description)
            if not create_pr:
                self._set_ref(revision, sha)
                return sha, None
            number = self.discuss(summary, description, author, pull_request=True)
            self._set_ref(f"refs/pr/{number}", sha)
            return sha, number

    def _check_benchmark(self, tree: Mapping[str, StoredFile]) -> None:
        if self.kind == "datasets" and (file := tree.get(EVAL_YAML)):
            faults = benchmark_faults(self.store.blob(file.sha256).read_text(encoding="utf-8", errors="replace"))
            if faults:
                raise Refusal(400, f"{EVAL_YAML} is invalid: {'; '.join(faults)}")

    def _apply(self, tree: dict[str, StoredFile], key: str, value: Mapping[str, Any]) -> None:
        path = str(value.get("path", ""))
        if "\\" in path or "\0" in path or {"", ".", "..", ".git"} & set(path.split("/")):
            raise Refusal(400, f"Invalid path: {path[:100]!r}")
        if key == "file":
            tree[path] = self._regular(base64.b64decode(str(value["content"])))
        elif key == "lfsFile":
            sha = str(value["oid"])
            if not self.store.blob(sha).is_file():
                raise Refusal(400, f"Your push was rejected: LFS object {sha} was never uploaded")
            size = self.store.blob(sha).stat().st_size
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n"
            tree[path] = StoredFile(size, git_oid(pointer.encode()), sha, lfs=True)
        elif key == "deletedFile":
            if path not in tree:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            del tree[path]
        elif key == "deletedFolder":
            for name in [name for name in tree if name.startswith(path.rstrip("/") + "/")]:
                del tree[name]
        else:
            raise Refusal(400, f"Unknown operation: {key[:80]!r}")

    def discussions(self) -> list[dict[str, Any]]:
        """Discussions and pull requests, oldest first."""
        path = self.folder / "discussions.json"
        return list(_read_json(path)) if path.is_file() else []

    def discuss(self, title: str, description: str, author: str, *, pull_request: bool) -> int:
        """Open a discussion or a pull request; return its number."""
        with self.store.lock:
            found = self.discussions()
            number = len(found) + 1
            record = {"num": number, "title": title, "description": description, "author": author, "date": now()}
            record |= {"pull_request": pull_request, "status": "open", "merged": None}
            _write_json(self.folder / "discussions.json", [*found, record])
            return number

    def merge(self, number: int) -> None:
        """Merge a pull request into main: its files that differ from its parent's are taken over."""
        with self.store.lock:
            found = self.discussions()
            if not 0 < number <= len(found) or not found[number - 1]["pull_request"]:
                raise Refusal(404, "No such pull request")
            sha, head = self.resolve(f"refs/pr/{number}"), self.resolve("main")
            before, proposed = self.tree(str(self.commit_of(sha)["parent"])), self.tree(sha)
            tree = self.tree(head) | {path: e for path, e in proposed.items() if before.get(path) != e}
            for path in set(before) - set(proposed):
                tree.pop(path, None)
            merged = self._add_commit(head, f"{found[number - 1]['title']} (#{number})", tree)
            self._set_ref("main", merged)
            self.set_status(number, "merged", merged)

    def set_status(self, number: int, status: str, merged: str | None = None) -> None:
        """Close, reopen or mark as merged."""
        with self.store.lock:
            found = self.discussions()
            if not 0 < number <= len(found):
                raise Refusal(404, "No such discussion")
            found[number - 1] |= {"status": status, "merged": merged}
            _write_json(self.folder / "discussions.json", found)
