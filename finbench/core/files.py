"""Writing files so that a reader never sees half of one, and hashing them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError

_STAGING = ".finbench-staging"  # ends the name of a folder that is being written: nothing else is ever swept up
_PARTS = 8_000_000  # values, of up to 200 bytes each, in a file that is read whole; lm-eval's samples have a million
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# made once: thousands of rows are written and read
_STABLE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stable_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN. Equal values give equal text."""
    return _STABLE.encode(value)


def strict_json(text: str) -> Any:
    """The value of a JSON text; ValueError for what readers see differently.

    That is a key that an object names twice, a number that JSON does not have, or no float, and half of a character
    of two (a lone surrogate), which no file can hold.
    """
    found = _STRICT.decode(text)
    refuse_halves(text, found)
    return found


def refuse_halves(text: str, value: Any) -> None:
    """ValueError where the JSON ``text`` of ``value`` has half of a character: no file can hold it, and no hash."""
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")


def bearable(text: str, *more: str) -> str:
    """The JSON text itself; ValueError where it has, with ``more``, more values than fit into memory."""
    if sum(one.count(mark) for one in (text, *more) for mark in ",[{") > _PARTS:
        raise ValueError(f"more than {_PARTS:,} values")
    return text


def json_text(path: Path, largest: int) -> str:
    """The text of a JSON file of a stranger; ValueError for more bytes, or values, than any honest one has."""
    if path.stat().st_size > largest:
        raise ValueError(f"more than {largest:,} bytes")
    return bearable(path.read_text(encoding="utf-8"))


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for a key that is there twice, of which readers take one or the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=_no_number, parse_float=_finite)


def json_lines(text: str) -> list[Any]:
    """The values of JSON lines. Only a newline ends a line: U+2028 and U+0085 may stand in a text."""
    return [strict_json(line) for line in text.split("\n") if line.strip()]


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(stable_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a sibling temporary file, flush it to disk, rename it over ``path``.

    Raises FinbenchError when the disk is full or the folder is read-only; an earlier file stays as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as fault:
        raise cannot_write(path, fault) from fault
    finally:
        if temporary is not None:  # in place by now, or it never will be
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def check_replaced(target: Path, names: Collection[str], mark: str = "") -> None:
    """Refuse to put a folder of ``names`` where something of the user's lies, which would be gone.

    What has these names may be replaced; with ``mark``, only where the file of that name shows who wrote them.
    """
    if target.is_dir():
        own = set(names) if not mark or (target / mark).is_file() else set()
        if others := sorted({path.name for path in target.iterdir()} - own):
            raise FinbenchError(
                f"{target} holds other files ({', '.join(others[:3])}), which would be lost.",
                "Move them elsewhere, or choose another folder.",
            )


@contextlib.contextmanager
def folder_atomic(target: Path) -> Iterator[Path]:
    """Yield an empty sibling folder; on a clean exit it takes the place of ``target``, else it vanishes.

    What a killed process left there is swept up a day later.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target, 86_400)
        staging = Path(tempfile.mkdtemp(_STAGING, f".{target.name}.", target.parent))
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    try:
        with writing(target):
            yield staging
            staging.chmod(0o755)
            for path in staging.rglob("*"):
                if path.is_file():
                    flush(path)
            if target.exists():
                _exchange(staging, target)  # what was there is now in staging, and goes with it
            else:
                staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sweep(target: Path, age: float = 0.0) -> None:
    """Remove what ``folder_atomic`` left of ``target`` in processes that were killed ``age`` seconds ago or earlier."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{_STAGING}*"):
        # tempfile's eight characters, our mark, and what _exchange adds: no folder of a user's has such a name
        ours = re.fullmatch(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(_STAGING)}(\.old)?", left.name)
        if ours and not left.is_symlink() and left.stat().st_mtime <= time.time() - age:
            shutil.rmtree(left, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders. Linux does it in one step, so that a kill leaves the old or the new, never neither."""
    at_fdcwd, rename_exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 and not renameat2(at_fdcwd, bytes(one), at_fdcwd, bytes(other), rename_exchange):
        return
    aside = one.with_name(one.name + ".old")  # elsewhere: two renames
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why ``path`` could not be written, also where safetensors or torch found out.

    On a full disk the first raises an error of its own, and torch.save a RuntimeError about positions in the file.
    """
    try:
        yield
    except OSError as fault:
        raise cannot_write(path, fault) from fault
    except Exception as fault:
        from safetensors import SafetensorError

        if not isinstance(fault, RuntimeError | SafetensorError):
            raise
        said = re.search(r"I/O error: (.*?)(?: \(os error \d+\))?$", str(fault))
        if said is None and not re.search(r"inline_container|PytorchStreamWriter", str(fault)):
            raise
        raise cannot_write(path, OSError(said[1] if said else "a file was not taken to its end")) from fault


def check_writable(path: Path) -> None:
    """Refuse a file or folder that cannot be written, before the work that it is to hold; nothing is left behind."""
    whole = path.expanduser().absolute()
    try:
        there = next(one for one in (whole, *whole.parents) if one.exists())
        if there != whole and not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file")
        with tempfile.TemporaryFile(dir=there if there.is_dir() else there.parent):
            pass
    except OSError as fault:
        raise cannot_write(path, fault) from fault


def check_file(path: Path, name: str) -> None:
    """``check_writable`` of a file; also refused: a folder, in which ``name`` would do, and what is no plain file."""
    check_writable(path)
    if path.is_dir():
        raise FinbenchError(f"{path} is a folder.", f"Name a file: --out {shlex.quote(str(path / name))}")
    if path.exists() and not path.is_file():  # /dev/null would be replaced
        raise FinbenchError(f"{path} is no plain file.", f"Name a file: --out {name}")


def cannot_write(path: Path, fault: Exception) -> FinbenchError:
    """Say in one line why ``path`` could not be written."""
    reason = getattr(fault, "strerror", None) or str(fault)
    return FinbenchError(
        f"Cannot write {path}: {reason}. Nothing that was there before has changed.",
        "Choose another folder, or make room there, then repeat the command.",
    )
