"""What a publication would change: computed without writing, shown by ``--dry-run``, executed as it is."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.hub.client import (
    Kind,
    Unreachable,
    address,
    api,
    check_account,
    check_token,
    explained,
    has_token,
    holds_token,
    page,
)
from finbench.hub.listing import Remote, blob_id
from finbench.hub.listing import files as listing

State = Literal["added", "replaced", "moved", "unchanged", "removed"]
SENT = ("added", "replaced", "moved")  # states of files whose bytes are in the commit
MOST_FILES = 25_000  # of one commit, as the client's documentation states it
_SEARCHED = 2**24  # bytes of a file up to which it is searched for tokens; pages and tables are larger than one million


@dataclass(frozen=True)
class File:
    """A file to publish: its path in the repository, and a local file or the bytes themselves."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def hashes(self) -> tuple[str, str]:
        """(SHA-256, git's id of the blob)."""
        data = self.content
        sha256 = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else sha256_file(data)
        return sha256, blob_id(data)


@dataclass(frozen=True)
class Change:
    """What happens to one file; ``origin``: where the very bytes of one that is ``moved`` lay before."""

    path: str
    state: State
    size: int
    origin: str | None = None


@dataclass(frozen=True)
class Plan:
    """A publication: one commit on ``parent`` (None: the repository will be made), or one pull request.

    ``owned``: see ``make_plan``. ``compared`` is False where the Hub could not be asked: then
    every file counts as added.
    """

    repo: str
    kind: Kind
    message: str
    files: tuple[File, ...]
    changes: tuple[Change, ...]
    parent: str | None
    private: bool
    pull_request: bool
    owned: tuple[str, ...] = ()
    compared: bool = True
    hashes: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # path -> (SHA-256, git id)

    @property
    def exists(self) -> bool:
        """Whether there is a repository to compare with."""
        return self.parent is not None

    @property
    def upload_bytes(self) -> int:
        """Bytes of what is added, replaced or moved."""
        return sum(change.size for change in self.changes if change.state in SENT)

    @property
    def changing(self) -> list[Change]:
        """What is not as it should be yet."""
        return [change for change in self.changes if change.state != "unchanged"]

    @property
    def removals(self) -> set[str]:
        """Paths that the commit takes away: of what is removed, and of what is moved where nothing else takes them."""
        kept = {file.path for file in self.files}
        gone = {c.path for c in self.changes if c.state == "removed"} | {c.origin for c in self.changes if c.origin}
        return {path for path in gone if path and path not in kept}

    @property
    def address(self) -> str:
        """As ``client.address`` gives it."""
        return address(self.repo, self.kind)

    def owns(self, path: str) -> bool:
        """Whether a file of the repository belongs to what is published: it goes where it is not in the plan."""
        return any(fnmatch.fnmatchcase(path, p) and path.count("/") == p.count("/") for p in self.owned)

    def on(self, head: str | None, there: Mapping[str, Remote]) -> Plan:
        """The same plan on a commit with these files, or on none."""
        states = {file.path: self.state(file.path, there) for file in self.files}
        gone = {path for path in there if path not in states and self.owns(path)}
        going = {path: there[path] for path in there if path in gone or states.get(path) == "replaced"}
        changes = []
        for file in self.files:
            same = (path for path, old in going.items() if old.holds(self.hashes[file.path]))
            if states[file.path] == "added" and (origin := next(same, None)):
                del going[origin]
                gone.discard(origin)
                changes.append(Change(file.path, "moved", file.size, origin))
            else:
                changes.append(Change(file.path, states[file.path], file.size))
        changes += [Change(path, "removed", there[path].size) for path in gone]
        return replace(self, changes=tuple(sorted(changes, key=lambda change: change.path)), parent=head)

    def state(self, path: str, there: Mapping[str, Remote]) -> State:
        """What has to happen to a file of the plan where these files are."""
        known = there.get(path)
        return "added" if known is None else "unchanged" if known.holds(self.hashes[path]) else "replaced"

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
            "changes": [
                {"path": c.path, "state": c.state, "bytes": c.size} | ({"from": c.origin} if c.origin else {})
                for c in self.changes
            ],
        }


def make_plan(
    repo: str,
    files: Sequence[File],
    *,
    message: str,
    kind: Kind = "model",
    public: bool = False,
    pull_request: bool = False,
    owned: Sequence[str] = (),
    dry: bool = False,
) -> Plan:
    """Compare ``files`` with what lies at the head of a repository.

    ``owned``: patterns of paths, such as ``details/*.js``; what else matches them in the repository is removed by the
    same commit. ``dry`` allows a plan without a Hub, and asks what else the Hub answers only to who writes. Raises
    FinbenchError for too many files, a path twice, a file that holds a token, and whatever the Hub refuses.
    """
    _check(files)
    if not dry:
        check_token()
    hashes = {file.path: file.hashes() for file in files}
    plan = Plan(repo, kind, message, tuple(files), (), None, not public, pull_request, tuple(owned), hashes=hashes).on(
        None, {}
    )
    try:
        plan = _there(plan)
        if dry:
            check_account(repo, kind, new=not plan.exists, proposes=pull_request)
        return plan
    except Unreachable:
        if not dry:
            raise
        return replace(plan, compared=False)


def _check(files: Sequence[File]) -> None:
    names = [file.path for file in files]
    if len(names) > MOST_FILES:
        raise FinbenchError(
            f"{len(names)} files do not fit into one commit ({MOST_FILES} at most).",
            "Publish them in parts: name a folder with fewer files.",
        )
    if len(set(names)) != len(names):
        raise FinbenchError(
            "Two files would have one name on the Hub: " + ", ".join(sorted(names)), "Rename one of the two files."
        )
    for file in files:
        if file.path.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")):
            raise FinbenchError(
                f"{file.path} is a pickle, which is never published.",
                "Convert it to safetensors, or move it out of the folder.",
            )
        if file.size <= _SEARCHED and not file.path.endswith((".safetensors", ".zst", ".png")):
            data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            if holds_token(data.decode("utf-8", "replace")):
                raise FinbenchError(f"{file.path} holds what looks like a token; nothing was sent.", "Remove it there.")


def _there(plan: Plan) -> Plan:
    """The plan on the head of its repository; as it is where there is none yet, and one can be made."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with explained(plan.address, writing=True):
        try:
            info = api().repo_info(plan.repo, repo_type=plan.kind, revision="main", timeout=10)
        except RepositoryNotFoundError as fault:
            if isinstance(fault, GatedRepoError) or plan.pull_request or not has_token():
                raise
            return plan
        sha = str(info.sha)
        return replace(plan.on(sha, listing(plan.repo, plan.kind, sha)), private=bool(info.private))
