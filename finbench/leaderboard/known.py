"""What was found out about cards and pairs of rows before, by digest, so that no build does it twice.

All of it lies in ``leaderboard/`` of the cache folder, and may be deleted at any time. An entry says that nothing was
wrong with a card: its name is the digest of the card's bytes, of its samples' bytes, and of everything that judges
them: code, tasks, libraries. So it cannot outlive what it rests on, and a card at fault is always looked at again. It
holds what a table needs of the card, which is a third of what the card says. Entries are written beside their place and
renamed, with a digest of their own in front; a torn one, or one of another build at the same time, does no harm.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zstandard

from finbench.cards import cardfiles
from finbench.core import catalog, paths
from finbench.core.files import digest, sha256_file, stable_json
from finbench.core.records import Score, Scorecard
from finbench.leaderboard.evidence import Proof

_SMALL, _LARGE = "<u1", "<u4"  # numbers of few kinds, and of many
_LIBRARIES = ("numpy", "scipy", "lm-eval", "pydantic", "pyyaml", "zstandard")

# p by the digests of two rows, and what documents say of their difference; a mean's interval by those of its
# trainings; a part of the page by its file's name
Kind = Literal["tests", "gaps", "means", "parts"]


@dataclass(frozen=True)
class KnownCard:
    """That nothing is wrong with a card, what was checked, its main metrics, and its evidence by task."""

    card: Scorecard  # ``outlined``
    level: Literal["none", "self-reported", "samples-attached", "reproduced"]
    checks: list[str]
    notes: list[str]
    evidence: dict[str, Proof]


def key_of(path: Path) -> str | None:
    """Name of a card's entry; None where its files cannot be read."""
    try:
        samples = cardfiles.samples_path(path)
        shas = [sha256_file(path), sha256_file(samples) if samples.is_file() else None]
    except OSError:
        return None
    return digest([shas, judges()])


def outlined(card: Scorecard) -> Scorecard:
    """A card with the main metric of each score alone: all that a table needs, in a third of the time."""
    return card.model_copy(update={"scores": [_outlined(score) for score in card.scores]})


def _outlined(score: Score) -> Score:
    main = score.main_metric
    own = {name: {main: found[main]} for name in ("metrics", "lenient") if main in (found := getattr(score, name))}
    return score.model_copy(update={"lenient": {}, **own})


@functools.cache
def judges() -> str:
    """Digest of all that decides what is found: code of finbench and its tasks, tasks of others, libraries."""
    found = hashlib.sha256()
    for root, kind in ((Path(__file__).resolve().parents[1], "*.py"), (paths.shipped("tasks"), "*")):
        for path in sorted(path for path in root.rglob(kind) if path.is_file() and path.suffix != ".pyc"):
            # by its place below the root: what one checkout knows holds in another
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    tasks = sorted((task.name, task.digest) for task in catalog.tasks().values())
    libraries = [importlib.metadata.version(name) for name in _LIBRARIES]
    return digest([found.hexdigest(), tasks, libraries, platform.python_version()])


def read(key: str) -> KnownCard | None:
    """What is known of a card; None if nothing is."""
    found = _load("cards", key)
    if found is None:
        return None
    evidence = {task: _evidence(one) for task, one in found.pop("evidence").items()}
    return KnownCard(Scorecard.model_validate_json(found.pop("card")), **found, evidence=evidence)


def write(key: str, known: KnownCard) -> None:
    """Keep what was found, as far as the cache can be written."""
    evidence = {task: _plain(one) for task, one in known.evidence.items()}
    said = {"level": known.level, "checks": known.checks, "notes": known.notes, "evidence": evidence}
    _store("cards", key, {"card": known.card.model_dump_json(by_alias=True), **said})


@dataclass
class Kept:
    """Values by the digests of what each rests on: those of before, and those used now."""

    before: dict[str, Any] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of ``key``, by ``make`` where nobody has done it."""
        if key not in self.used:
            self.used[key] = self.before[key] if key in self.before else make()
        return self.used[key]


@contextlib.contextmanager
def kept(kind: Kind, of: str) -> Iterator[Kept]:
    """What was computed before of a test or a folder; of it what was used stays, and nothing else."""
    key = digest([of, judges()])
    found = Kept(_load(kind, key) or {})
    yield found
    if found.used != found.before:
        _store(kind, key, found.used)


def _plain(one: Proof) -> dict[str, Any]:
    kind = _SMALL if len(one.kinds) <= 256 else _LARGE
    codes = None if one.codes is None else base64.b64encode(one.codes.astype(kind).tobytes()).decode()
    return {
        "digest": one.digest,
        "docs": one.docs,
        "sources": one.sources,
        "samples": one.samples,
        "marks": one.marks,
        "kinds": one.kinds,
        "codes": codes,
        "breakdown": one.breakdown,
    }


_shared = functools.lru_cache(100_000)(lambda kinds: kinds)  # thousands of cards have the same few


def _evidence(found: Mapping[str, Any]) -> Proof:
    codes, kind = found["codes"], _SMALL if len(found["kinds"]) <= 256 else _LARGE
    made = Proof(
        found["docs"],
        None if found["sources"] is None else tuple(found["sources"]),
        found["samples"],
        tuple(found["marks"]),
        _shared(tuple(found["kinds"])),
        None if codes is None else np.frombuffer(base64.b64decode(codes), dtype=kind),
        found["breakdown"],
    )
    vars(made)["digest"] = found["digest"]  # as it was computed then
    return made


def _place(kind: str, key: str) -> Path:
    return paths.cache_dir() / "leaderboard" / kind / key[:2] / key


def _load(kind: str, key: str) -> Any:
    """An entry; None for one that is not there, or not whole."""
    with contextlib.suppress(OSError, ValueError, zstandard.ZstdError):
        content = _place(kind, key).read_bytes()
        if hashlib.sha256(key.encode() + content[32:]).digest() == content[:32]:
            return json.loads(zstandard.ZstdDecompressor().decompress(content[32:]))
    return None


def _store(kind: str, key: str, value: Any) -> None:
    place = _place(kind, key)
    content = zstandard.ZstdCompressor(level=1).compress(stable_json(value).encode())
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(key.encode() + content).digest() + content)
            Path(name).replace(place)
        finally:
            Path(name).unlink(missing_ok=True)
