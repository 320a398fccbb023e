"""From the Hub to this machine: safe files only, each hash checked, whole or absent, usable offline afterwards.

The bytes lie in the Hub client's own cache, so that nothing is stored twice. What finbench opens is a folder of its own
that links to exactly the files that were asked for and checked: another program's downloads of the same repository
(pickles, code) are not in it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finbench.core import hashes, paths
from finbench.core.console import progress
from finbench.core.errors import FinbenchError
from finbench.core.files import folder_atomic, sha256_file, write_atomic
from finbench.hub.client import Unreachable, address, api, endpoint, explained, sentence, shown_endpoint
from finbench.hub.listing import BY_HAND, Remote, blob_id, is_file, items, remote

# What a model is made of, and nothing that runs code when it is loaded. Only files at the top of a repository.
SAFE_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5")
_PICKLED = re.compile(r"(adapter|pytorch)_model[\w.-]*\.(bin|pt|pth|pkl)", re.ASCII)  # of weights, not of an optimizer
LARGEST_TEXT = 64 * 2**20  # bytes of a JSON, vocabulary or template; the largest tokenizers have 35 MB
MOST_FILES = 20_000  # of a repository with a model
_CHECKED_AGAIN = 2**30  # bytes up to which every hash is taken again at each use, lest a disk has lost bits
_SHA = re.compile(r"[0-9a-f]{40}")


class Fetched(NamedTuple):
    """A folder with the files of a repository at one commit."""

    folder: Path
    sha: str


def fetch(repo: str, revision: str | None = None, pickled: bool = False) -> Fetched:
    """Fetch a model's or adapter's safetensors, JSON and tokenizer files; return (folder, commit).

    With ``pickled``, of a repository without safetensors, its pickled weights with them, in a folder of their own that
    nothing but ``models.pickles`` opens. Raises Unreachable without a network and without a cached copy; FinbenchError
    for a repository that is missing, gated, private or hostile, and for a file whose hash is not what the Hub says.
    """
    wanted, place = address(repo, revision=revision), _Place(repo, pickled)
    pinned = revision if revision and _SHA.fullmatch(revision) else None
    if pinned and place.whole(pinned):
        return Fetched(place.view(pinned), pinned)
    try:
        with explained(wanted):
            sha = str(api().repo_info(repo, revision=revision, timeout=10).sha)
            if not _SHA.fullmatch(sha):
                raise FinbenchError(f"{sentence(wanted)}: the Hub names no commit.", "Is HF_ENDPOINT right?")
            if pinned and sha != pinned:
                raise FinbenchError(f"{sentence(wanted)}: the Hub answered with commit {sha}.", "Is HF_ENDPOINT right?")
            if not place.whole(sha):
                place.download(sha, _chosen(items(repo, "model", sha, most=MOST_FILES), sentence(wanted), pickled))
    except Unreachable:
        for known in [pinned] if pinned else place.remembered(revision or "main"):
            if place.whole(known) or place.taken_over(known):
                return Fetched(place.view(known), known)
        raise
    place.remember(revision or "main", sha)
    return Fetched(place.view(sha), sha)


def fetch_paths(repo: str, revision: str, names: Iterable[str], most: int = LARGEST_TEXT) -> dict[str, Path]:
    """Some small files of a repository at a commit, hash-checked, beside each other as there; less those it lacks.

    Raises FinbenchError where they have more than ``most`` bytes together.
    """
    wanted = address(repo)
    with explained(wanted):
        listed = {item.path: item for item in api().get_paths_info(repo, list(names), revision=revision)}
        files = [remote(listed[name]) for name in names if name in listed]
        for file in files:
            _within(file, sentence(wanted))
        if sum(file.size for file in files) > most:
            raise FinbenchError(
                f"{sentence(wanted)}: {len(files):,} files beside the weights are too large together.", BY_HAND
            )
        return {file.name: _one(repo, revision, file) for file in files}


def sha256_there(repo: str, revision: str, name: str) -> str | None:
    """The SHA-256 of one file of a repository, as the Hub states it; None where there is no such file.

    The Hub states none of a small file that is kept in git: that one is fetched.
    """
    with explained(address(repo)):
        for item in api().get_paths_info(repo, [name], revision=revision):
            file = remote(item)
            return file.sha256 or sha256_file(_one(repo, revision, file))
    return None


def commit(repo: str, revision: str | None = None) -> str | None:
    """The commit that ``fetch`` would bring: the Hub's, or without a network that of a copy here; None without either.

    Raises FinbenchError for a repository or revision that is not there.
    """
    if revision and _SHA.fullmatch(revision):
        return revision
    place = _Place(repo, False)
    try:
        with explained(address(repo, revision=revision)):
            return str(api().repo_info(repo, revision=revision, timeout=10).sha)
    except Unreachable:
        known = place.remembered(revision or "main")
        return next((sha for sha in known if place.whole(sha) or place.taken_over(sha)), None)


def head(repo: str) -> str | None:
    """The commit that a model's repository is at; None where there is none yet, and where no Hub can be asked."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        with explained(address(repo)):
            try:
                return str(api().repo_info(repo, revision="main", timeout=10).sha)
            except RepositoryNotFoundError:
                return None
    except Unreachable:
        return None


def names_below(repo: str, revision: str, folder: str) -> list[str]:
    """The files directly in a folder of a repository; none where there is no such folder. Hostile names are refused."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with explained(address(repo)):
        try:
            return [item.path for item in items(repo, "model", revision, folder, MOST_FILES) if is_file(item)]
        except RemoteEntryNotFoundError:
            return []


class _Place:
    """Where a repository's folders lie in finbench's cache, and how they get there."""

    def __init__(self, repo: str, pickled: bool = False) -> None:
        self.repo, self.pickled = repo, pickled
        host = re.sub(r"[^A-Za-z0-9.-]+", "-", shown_endpoint().partition("://")[2])
        org, _, self.name = repo.rpartition("/")
        self.root = paths.cache_dir() / "hub" / host / ("pickled" if pickled else "models") / (org or "-")
        self.branches = self.root / f"{self.name}.refs"  # the commits they were at when last asked for
        self.client = _client_cache() / f"models--{repo.replace('/', '--')}"

    def view(self, sha: str) -> Path:
        """The folder of a commit; its last part is the repository's name, for people."""
        return self.root / sha / self.name

    def manifest(self, sha: str) -> Path:
        """What the folder holds; written last, so it says that the folder is whole."""
        return self.root / sha / f".{self.name}.files"

    def whole(self, sha: str) -> bool:
        """Whether every file is there as it was checked; large ones are hashed again when they have changed."""
        try:
            stated: dict[str, Any] = json.loads(self.manifest(sha).read_text(encoding="utf-8"))
            here = {path.name: path.stat().st_size for path in self.view(sha).iterdir()}
            if here != {name: size for name, (size, _) in stated.items()}:
                return False
            taken = sha256_file if sum(here.values()) <= _CHECKED_AGAIN else hashes.of_file
            return all(_hash(self.view(sha) / name, known, taken) == known for name, (_, known) in stated.items())
        except (OSError, ValueError, TypeError, AttributeError):
            return False

    def remembered(self, branch: str) -> list[str]:
        """The commits of a branch when it was last asked for, by finbench and by the Hub's client."""
        found: list[Any] = []
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found.append(json.loads(self.branches.read_text(encoding="utf-8")).get(branch))
        with contextlib.suppress(OSError, ValueError):
            found.append((self.client / "refs" / branch).read_text(encoding="utf-8").strip())
        return [sha for sha in found if isinstance(sha, str) and _SHA.fullmatch(sha)]

    def remember(self, branch: str, sha: str) -> None:
        """Keep which commit a branch is at, for offline use."""
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self.branches.read_text(encoding="utf-8"))
        if known.get(branch) != sha:
            write_atomic(self.branches, json.dumps({**known, branch: sha}) + "\n")

    def download(self, sha: str, files: Sequence[Remote]) -> None:
        """Fetch these files of a commit, each checked, and make its folder."""
        total, cache = sum(file.size for file in files), _client_cache()
        with contextlib.suppress(FileNotFoundError):
            free = shutil.disk_usage(next(parent for parent in (cache, *cache.parents) if parent.exists())).free
            if total > free:
                raise FinbenchError(
                    f"hub:{self.repo} has {total / 1e9:.1f} GB; {free / 1e9:.1f} GB are free at {cache}.",
                    "Make room, or move the cache: export HF_HOME=/a/folder",
                )
        sources = {}
        with progress() as bar:
            line = bar.add_task(f"fetching {self.repo}", total=total, note="")
            for file in files:
                sources[file.name] = (_one(self.repo, sha, file), file)
                bar.advance(line, file.size)
        self._build(sha, sources)

    def taken_over(self, sha: str) -> bool:
        """Make a folder of what ``hf download`` has left here; files are named by their hashes there."""
        sources = {}
        for path in sorted((self.client / "snapshots" / sha).glob("*")):
            named = path.resolve().name
            if (_is_safe(path.name) or (self.pickled and _PICKLED.fullmatch(path.name))) and re.fullmatch(
                r"[0-9a-f]{40}|[0-9a-f]{64}", named
            ):
                large = named if len(named) == 64 else None
                sources[path.name] = (path, Remote(path.name, path.stat().st_size, large, named))
        if not any(_PICKLED.fullmatch(name) if self.pickled else name.endswith(".safetensors") for name in sources):
            return False
        for path, file in sources.values():
            if _hash(path, file.hash) != file.hash:
                raise FinbenchError(f"{path} is damaged: it does not have the hash it is named by.", "Fetch it again.")
        self._build(sha, sources)
        return True

    def _build(self, sha: str, sources: Mapping[str, tuple[Path, Remote]]) -> None:
        self.manifest(sha).unlink(missing_ok=True)
        with folder_atomic(self.view(sha)) as staging:
            for name, (source, _) in sources.items():
                try:
                    (staging / name).symlink_to(source.resolve())
                except OSError:  # Windows without the right to link
                    shutil.copyfile(source, staging / name)
        stated = {name: [file.size, file.hash] for name, (_, file) in sources.items()}
        write_atomic(self.manifest(sha), json.dumps(stated) + "\n")


def _is_safe(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SAFE_FILES)


def _chosen(listed: Iterable[Any], said: str, pickled: bool = False) -> list[Remote]:
    """The files to fetch. Refuses a repository that only has pickles, and files too large to be read.

    With ``pickled``, pickles are fetched too, and one that has safetensors is refused.
    """
    found, names = [], []
    for item in listed:
        names.append(item.path)
        plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,150}", item.path, re.ASCII)
        if plain and is_file(item) and (_is_safe(item.path) or (pickled and _PICKLED.fullmatch(item.path))):
            found.append(remote(item))
    weights = [file for file in found if file.name.endswith(".safetensors")]
    if pickled and weights:
        raise FinbenchError(f"{said} has safetensors: nothing is to be converted.", "Leave --convert out.")
    weights += [file for file in found if pickled and _PICKLED.fullmatch(file.name)]
    for file in found:
        if file not in weights:
            _within(file, said)
    pickles = [name for name in names if name.endswith(PICKLES) and name != "training_args.bin"]
    if pickles and not weights:
        raise FinbenchError(
            f"{said} has only pickled weights ({pickles[0][:80]}), which can run code and are never loaded.",
            "Have their tensors written as safetensors: finbench pull hub:org/name --convert --out ./name",
        )
    if len({file.name.lower() for file in found}) != len(found):
        raise FinbenchError(
            f"{said} lists names that differ only in case; they are one file on some machines.",
            "Ask its author to rename one of them.",
        )
    return found


def _within(file: Remote, said: str) -> None:
    if not 0 <= file.size <= LARGEST_TEXT:
        raise FinbenchError(f"{said}: {file.name} has {file.size:,} bytes; at most {LARGEST_TEXT:,} are read.", BY_HAND)


def _client_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _one(repo: str, sha: str, file: Remote) -> Path:
    """Download one file and check its hash; what fails is removed, so that it is never used."""
    from huggingface_hub import hf_hub_download

    hub, cache = endpoint(), _client_cache()
    for again in (False, True):
        try:
            found = hf_hub_download(
                repo, file.name, revision=sha, endpoint=hub, cache_dir=cache, etag_timeout=10, force_download=again
            )
        except OSError as fault:
            if "Consistency check failed" not in str(fault):
                raise
            reason = "arrived short"
            continue
        path = Path(found)
        if path.stat().st_size == file.size and _hash(path, file.hash) == file.hash:
            return path
        reason = "does not have the hash that the Hub states"
        for part in {path.resolve(), path}:
            part.unlink(missing_ok=True)
    raise FinbenchError(f"hub:{repo}: {file.name} {reason}, twice; it was not kept.", "Repeat the command.")


def _hash(path: Path, like: str, taken: Callable[[Path], str] = hashes.of_file) -> str:
    """The hash of a file, of the kind of ``like``: SHA-256, or git's for a blob."""
    return taken(path) if len(like) == 64 else blob_id(path)
