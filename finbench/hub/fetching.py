"""From the Hub to this machine: safe files only, each hash checked, whole or absent, usable offline afterwards.

The bytes lie in the Hub client's own cache, so that nothing is stored twice. What finbench opens is a folder of its own
that links to exactly the files that were asked for and checked: another program's downloads of the same repository
(pickles, code) are not in it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core import paths
from finbench.core.console import progress
from finbench.core.errors import FinbenchError
from finbench.core.files import folder_atomic, sha256_file, write_atomic
from finbench.hub.client import Kind, Unreachable, address, api, endpoint, explained, sentence, shown_endpoint
from finbench.hub.listing import Remote, is_file, items, remote

# What a model is made of, and nothing that runs code when it is loaded. Only files at the top of a repository.
SAFE_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5")
LARGEST_TEXT = 64 * 2**20  # bytes of a JSON, vocabulary or template; the largest tokenizers have 35 MB
MOST_FILES = 20_000  # of a repository with a model
_BY_HAND = "Fetch the files that you need (hf download REPO FILE --local-dir DIR), then name the folder."
_CHECKED_AGAIN = 2**30  # bytes up to which every hash is taken again at each use
_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Fetched:
    """A folder with the files of a repository at one commit."""

    repo: str
    sha: str
    folder: Path


def snapshot(repo: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a model's or adapter's safetensors, JSON and tokenizer files; return (folder, commit).

    Raises Unreachable without a network and without a cached copy; FinbenchError for a repository that is missing,
    gated, private or hostile, and for a file whose hash is not what the Hub says.
    """
    fetched = fetch(repo, revision)
    return fetched.folder, fetched.sha


def fetch(
    repo: str, revision: str | None = None, patterns: Sequence[str] = SAFE_FILES, kind: Kind = "model"
) -> Fetched:
    """``snapshot`` for other files, and for data sets; ``patterns`` are names at the top of the repository."""
    wanted = address(repo, kind, revision)
    place = _Place(repo, kind, patterns)
    if revision and _SHA.fullmatch(revision) and place.whole(revision):
        return Fetched(repo, revision, place.view(revision))
    try:
        with explained(wanted):
            sha = str(api().repo_info(repo, repo_type=kind, revision=revision, timeout=10).sha)
            if not _SHA.fullmatch(sha):
                raise FinbenchError(f"{sentence(wanted)}: the Hub names no commit.", "Is HF_ENDPOINT right?")
            if not place.whole(sha):
                _download(place, sha, _chosen(items(repo, kind, sha, most=MOST_FILES), sentence(wanted), patterns))
    except Unreachable:
        known = revision if revision and _SHA.fullmatch(revision) else place.remembered(revision)
        if known is None or not (place.whole(known) or _from_cache(place, known)):
            known = _cached_ref(place, revision)
            if known is None or not _from_cache(place, known):
                raise
        return Fetched(repo, known, place.view(known))
    place.remember(revision, sha)
    return Fetched(repo, sha, place.view(sha))


def fetch_files(
    repo: str, revision: str, names: Iterable[str], kind: Kind = "model", most: int = LARGEST_TEXT
) -> dict[str, bytes]:
    """The content of some small files of a repository at a commit, hash-checked; missing ones are left out.

    Raises FinbenchError where they have more than ``most`` bytes together.
    """
    found = {}
    wanted = address(repo, kind)
    with explained(wanted):
        listed = {
            item.path: item for item in api().get_paths_info(repo, list(names), repo_type=kind, revision=revision)
        }
        files = [remote(listed[name]) for name in names if name in listed]
        for file in files:
            _within(file, LARGEST_TEXT, sentence(wanted))
        if sum(file.size for file in files) > most:
            raise FinbenchError(
                f"{sentence(wanted)}: {len(files):,} files beside the weights are too large together.", _BY_HAND
            )
        for file in files:
            found[file.name] = _one(repo, kind, revision, file).read_bytes()
    return found


def names_below(repo: str, revision: str, folder: str, kind: Kind = "model") -> list[str]:
    """The files directly in a folder of a repository; none where there is no such folder. Hostile names are refused."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with explained(address(repo, kind)):
        try:
            return [item.path for item in items(repo, kind, revision, folder, MOST_FILES) if is_file(item)]
        except RemoteEntryNotFoundError:
            return []


class _Place:
    """Where a repository's folders lie in finbench's cache."""

    def __init__(self, repo: str, kind: Kind, patterns: Sequence[str]) -> None:
        self.repo, self.kind = repo, kind
        host = re.sub(r"[^A-Za-z0-9.-]+", "-", shown_endpoint().partition("://")[2])
        org, _, name = repo.rpartition("/")
        which = "" if tuple(patterns) == SAFE_FILES else "-" + hashlib.sha256(repr(patterns).encode()).hexdigest()[:8]
        self.name = name
        self.root = paths.cache_dir() / "hub" / host / f"{kind}s{which}" / (org or "-")

    def view(self, sha: str) -> Path:
        """The folder of a commit; its last part is the repository's name, for people."""
        return self.root / sha / self.name

    def manifest(self, sha: str) -> Path:
        """What the folder holds; written last, so it says that the folder is whole."""
        return self.root / sha / f".{self.name}.files"

    def whole(self, sha: str) -> bool:
        """Whether every file is there as it was checked: sizes always, hashes where that is quick."""
        try:
            stated: dict[str, Any] = json.loads(self.manifest(sha).read_text(encoding="utf-8"))
            view = self.view(sha)
            if sorted(stated) != sorted(path.name for path in view.iterdir()):
                return False
            if any((view / name).stat().st_size != size for name, (size, _) in stated.items()):
                return False
            quick = sum(size for size, _ in stated.values()) <= _CHECKED_AGAIN
            return not quick or all(_hash(view / name, known) == known for name, (_, known) in stated.items())
        except (OSError, ValueError, TypeError, AttributeError):
            return False

    def remembered(self, revision: str | None) -> str | None:
        """The commit that a branch was at when it was last asked for."""
        try:
            sha = json.loads((self.root / f"{self.name}.refs").read_text(encoding="utf-8")).get(revision or "main")
        except (OSError, ValueError, AttributeError):
            return None
        return sha if isinstance(sha, str) and _SHA.fullmatch(sha) else None

    def remember(self, revision: str | None, sha: str) -> None:
        """Keep which commit a branch is at, for offline use."""
        path = self.root / f"{self.name}.refs"
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
        if known.get(revision or "main") != sha:
            write_atomic(path, json.dumps({**known, (revision or "main"): sha}) + "\n")

    def build(self, sha: str, sources: Mapping[str, tuple[Path, Remote]]) -> None:
        """Make the folder of a commit from checked files."""
        self.manifest(sha).unlink(missing_ok=True)
        with folder_atomic(self.view(sha)) as staging:
            for name, (source, _) in sources.items():
                try:
                    (staging / name).symlink_to(source.resolve())
                except OSError:  # Windows without the right to link
                    shutil.copyfile(source, staging / name)
        stated = {name: [file.size, file.hash] for name, (_, file) in sources.items()}
        write_atomic(self.manifest(sha), json.dumps(stated) + "\n")


# ---------------------------------------------------------------- the listing


def _chosen(listed: Iterable[Any], said: str, patterns: Sequence[str]) -> list[Remote]:
    """The files to fetch. Refuses a repository that only has pickles, and files too large to be read."""
    found, names = [], []
    for item in listed:
        names.append(item.path)
        safe = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,150}", item.path, re.ASCII)
        if safe and is_file(item) and any(fnmatch.fnmatchcase(item.path, pattern) for pattern in patterns):
            found.append(remote(item))
    for file in found:
        if not file.name.endswith(".safetensors"):
            _within(file, LARGEST_TEXT, said)
    pickles = [name for name in names if name.endswith(PICKLES) and name != "training_args.bin"]
    if "*.safetensors" in patterns and pickles and not any(file.name.endswith(".safetensors") for file in found):
        raise FinbenchError(
            f"{said} has only pickled weights ({pickles[0][:80]}), which can run code and are never loaded.",
            "Ask its author for safetensors; the Hub converts a model at a click (Space safetensors/convert).",
        )
    if len({file.name.lower() for file in found}) != len(found):
        raise FinbenchError(
            f"{said} lists names that differ only in case; they are one file on some machines.",
            "Ask its author to rename one of them.",
        )
    return found


def _within(file: Remote, most: int, said: str) -> None:
    if not 0 <= file.size <= most:
        raise FinbenchError(f"{said}: {file.name} has {file.size:,} bytes; at most {most:,} are read.", _BY_HAND)


# ---------------------------------------------------------------- the files


def _download(place: _Place, sha: str, files: Sequence[Remote]) -> None:
    total = sum(file.size for file in files)
    cache = _cache_folder()
    with contextlib.suppress(FileNotFoundError):
        free = shutil.disk_usage(next(parent for parent in (cache, *cache.parents) if parent.exists())).free
        if total > free:
            raise FinbenchError(
                f"hub:{place.repo} has {total / 1e9:.1f} GB; {free / 1e9:.1f} GB are free at {cache}.",
                "Make room, or move the cache: export HF_HOME=/a/folder",
            )
    sources = {}
    with progress() as bar:
        line = bar.add_task(f"fetching {place.repo}", total=total, note="")
        for file in files:
            sources[file.name] = (_one(place.repo, place.kind, sha, file), file)
            bar.advance(line, file.size)
    place.build(sha, sources)


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _one(repo: str, kind: Kind, sha: str, file: Remote) -> Path:
    """Download one file and check its hash; what fails is removed, so that it is never used."""
    from huggingface_hub import hf_hub_download

    for again in (False, True):
        try:
            path = Path(
                hf_hub_download(
                    repo,
                    file.name,
                    repo_type=kind,
                    revision=sha,
                    endpoint=endpoint(),
                    cache_dir=_cache_folder(),
                    etag_timeout=10,
                    force_download=again,
                )
            )
        except OSError as fault:
            if "Consistency check failed" not in str(fault):
                raise
            reason = "arrived short"
            continue
        if path.stat().st_size == file.size and _hash(path, file.hash) == file.hash:
            return path
        reason = "does not have the hash that the Hub states"
        for part in {path.resolve(), path}:
            part.unlink(missing_ok=True)
    raise FinbenchError(f"hub:{repo}: {file.name} {reason}, twice; it was not kept.", "Repeat the command.")


def _hash(path: Path, like: str) -> str:
    """The hash of a file, of the kind of ``like``: SHA-256, or git's for a blob."""
    if len(like) == 64:
        return sha256_file(path)
    sha = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


# ---------------------------------------------------------------- what another program has fetched


def _cached_ref(place: _Place, revision: str | None) -> str | None:
    """The commit that the Hub client's cache knows for a branch."""
    if revision and _SHA.fullmatch(revision):
        return revision
    folder = _cache_folder() / f"{place.kind}s--{place.repo.replace('/', '--')}" / "refs"
    with contextlib.suppress(OSError, ValueError):
        sha = (folder / (revision or "main")).read_text(encoding="utf-8").strip()
        return sha if _SHA.fullmatch(sha) else None
    return None


def _from_cache(place: _Place, sha: str) -> bool:
    """Make a folder from what ``hf download`` has left here; files are named by their hashes there."""
    folder = _cache_folder() / f"{place.kind}s--{place.repo.replace('/', '--')}" / "snapshots" / sha
    sources = {path.name: (path, file) for path, file in _named_by_hash(folder)}
    if not any(name.endswith(".safetensors") for name in sources):
        return False
    for path, file in sources.values():
        if _hash(path, file.hash) != file.hash:
            raise FinbenchError(f"{path} is damaged: it does not have the hash it is named by.", "Fetch it again.")
    place.build(sha, sources)
    return True


def _named_by_hash(folder: Path) -> Iterator[tuple[Path, Remote]]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        target = os.path.basename(os.path.realpath(path))
        if any(fnmatch.fnmatchcase(path.name, p) for p in SAFE_FILES) and re.fullmatch(
            r"[0-9a-f]{40}|[0-9a-f]{64}", target
        ):
            large = target if len(target) == 64 else None
            yield path, Remote(path.name, path.stat().st_size, large, target)
