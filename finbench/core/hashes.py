"""SHA-256 of large files and of the tensors in them: every byte is read once, and again only when a file has changed.

What was computed is kept in finbench's cache under the file's device and inode, beside its size and the times, in
nanoseconds, of its last change of content and of its last change at all. Anybody can set the first of these times back
(``touch -d``); the second is the system's own, and moves with every write, rename, and setting of the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import IO, Any

from finbench.core import paths
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, sha256_file, stable_json, write_atomic
from finbench.core.safety import check_header

_KEPT = 2**24  # bytes of a file above which its hashes are kept; smaller ones take a hundredth of a second
_TOLD = 2**32  # bytes above which reading them takes seconds, and is announced
_TICK = 0.05  # seconds: two changes of a file within one tick of the system's clock (at most 10 ms) look like one
_PIECE = 2**20  # bytes that are read at a time
_LARGEST_ENTRY = 2**26  # bytes of what is kept of a file; 92,000 tensors take ten million


def of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Of safetensors, the hashes of its tensors are taken in the same pass."""
    kept = _Kept(path)
    if "sha256" not in kept.found:
        if kept.worth_it and path.suffix == ".safetensors":
            with contextlib.suppress(FinbenchError):  # what is no safetensors file is still a file
                kept.add(_read(path, whole=True))
        if "sha256" not in kept.found:
            kept.add({"sha256": sha256_file(path)})
    return str(kept.found["sha256"])


def of_tensors(path: Path) -> dict[str, str]:
    """SHA-256 (hex) of dtype, shape and bytes of every tensor of a safetensors file, by name."""
    kept = _Kept(path)
    if "tensors" not in kept.found:
        kept.add(_read(path))
    found: dict[str, str] = kept.found["tensors"]
    return found


def root(tensors: dict[str, str]) -> str:
    """The Merkle root over tensors, the same for every order and division into files."""
    return digest(sorted(tensors.items()))


class _Kept:
    """What is known of a file as it is now; ``add`` keeps more, where the file did not change meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path, self.stamp = path, _stamp(path)
        device, inode, size = self.stamp[:3]
        self.worth_it = size >= _KEPT
        self.entry = paths.cache_dir() / "hashes" / f"{device:x}-{inode:x}.json"
        self.found: dict[str, Any] = {}
        if not self.worth_it:
            return
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if self.entry.stat().st_size <= _LARGEST_ENTRY:
                stated = json.loads(self.entry.read_text(encoding="utf-8"))
                if (
                    isinstance(stated, dict)
                    and stated.get("stamp") == self.stamp
                    and isinstance(found := stated.get("found"), dict)
                ):
                    self.found = found
        if not self.found:
            # a change right after we have read must give the file another time than the one it has now
            time.sleep(min(_TICK, max(0.0, self.stamp[-1] / 1e9 + _TICK - time.time())))

    def add(self, found: dict[str, Any]) -> None:
        self.found |= found
        if not self.worth_it:
            return
        if _stamp(self.path) != self.stamp:
            raise FinbenchError(f"{self.path} changed while it was read.", "Repeat the command when it is whole.")
        if self.stamp[-1] / 1e9 < time.time():  # else its time says nothing: the clock was set back
            with contextlib.suppress(FinbenchError):  # a cache that cannot be written costs time, no more
                write_atomic(self.entry, json.dumps({"stamp": self.stamp, "found": self.found}) + "\n")


def _stamp(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def _read(path: Path, whole: bool = False) -> dict[str, Any]:
    """The hashes of the tensors of a safetensors file, and with ``whole`` of all of it, in one pass."""
    header = check_header(path)
    size = path.stat().st_size
    if size >= _TOLD:
        say(f"Reading {path.name} ({size / 1e9:.1f} GB) once, for its hash ...")
    sha = hashlib.sha256() if whole else None
    found = {}
    with path.open("rb") as handle:
        length = int.from_bytes(_taken(handle, 8, sha, None), "little")
        _taken(handle, length, sha, None)
        end, at = size - 8 - length, 0
        for name, entry in sorted(header.items(), key=lambda item: _place(path, item[1])):
            first, last = _place(path, entry)
            if first != at or not first <= last <= end:
                raise FinbenchError(f"{path} is torn or not safetensors (at {name[:80]}).", "Fetch it again.")
            own = hashlib.sha256(stable_json([entry.get("dtype"), entry.get("shape")]).encode())
            _taken(handle, last - first, sha, own)
            found[name], at = own.hexdigest(), last
        if at != end:
            raise FinbenchError(f"{path} has {end - at:,} bytes that no tensor has.", "Fetch it again.")
    return {"tensors": found} | ({"sha256": sha.hexdigest()} if sha else {})


def _place(path: Path, entry: dict[str, Any]) -> tuple[int, int]:
    match entry.get("data_offsets"):
        case [int(first), int(last)]:
            return first, last
    raise FinbenchError(f"{path} is torn or not safetensors.", "Fetch it again.")


def _taken(handle: IO[bytes], length: int, *hashes: Any) -> bytes:
    """Read on by ``length`` bytes and hash them; the last piece."""
    piece = b""
    while length:
        piece = handle.read(min(_PIECE, length))
        if not piece:
            raise FinbenchError(f"{handle.name} is torn.", "Fetch it again.")
        for sha in hashes:
            if sha is not None:
                sha.update(piece)
        length -= len(piece)
    return piece
