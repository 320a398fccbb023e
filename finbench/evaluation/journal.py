"""What a model has answered so far, one line a request: a killed evaluation goes on where it was.

A journal belongs to one subject, one task and one setting; all that decides an answer is its key, in its name and in
its first line, so that another base, adapter, task, data set, engine, dtype or template never finds it. It is only
appended to, flushed to disk after every batch, and removed when the scorecard holds the score.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from finbench.core.console import say
from finbench.core.files import cannot_write, digest
from finbench.engines import Generated, Told

FOLDER = ".journal"


def request_digests(requests: Sequence[Any]) -> list[str]:
    """What tells the requests of a task apart: document, choice, kind and every argument."""
    return [digest([one.doc_id, one.idx, one.request_type, list(one.args)]) for one in requests]


class Journal:
    """The journal of ``key`` in ``folder``, held by one process at a time: others wait, and are told so.

    ``waited`` says that another process held it before: its scores may be there by now.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], what: str) -> None:
        self.key, self.what, self.waited = dict(key), what, False
        self.path = folder / FOLDER / f"{digest(self.key)[:32]}.jsonl"
        self.lock = FileLock(str(self.path.with_suffix(".lock")))
        self.answers: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}  # what an endpoint said beside an answer
        self.stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                say(f"{self.what}: another process is at it; waiting for it ...")
                self.waited = True
                self.lock.acquire()
            self._open()
        except OSError as fault:
            self._close()
            self.lock.release()
            raise cannot_write(self.path, fault) from fault
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._close()
        self.lock.release()

    def _open(self) -> None:
        """Read what is whole, cut off what is torn, and stand at the end."""
        whole = self.read()
        self.stream = self.path.open("ab")
        self.stream.truncate(whole)
        if not whole:
            self._append([{"key": self.key}])

    def read(self) -> int:
        """Take what is whole; bytes of that. It may be read while another process holds it, for a forecast."""
        whole = 0
        if self.path.exists():
            with self.path.open("rb") as stream:
                for number, line in enumerate(stream):
                    found = _entry(line)
                    if found is None or (number == 0) != ("key" in found) or found.get("key", self.key) != self.key:
                        break
                    if number:
                        self.answers[found["r"]] = _answer(found["a"])
                        self.notes |= {found["r"]: found["n"]} if "n" in found else {}
                    whole += len(line)
        return whole

    def _append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """A line each: checksum, space, JSON, newline; all of it ASCII."""
        assert self.stream is not None
        for entry in entries:
            text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
            self.stream.write(_checksum(text) + text + b"\n")
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def _close(self) -> None:
        if self.stream is not None:
            with contextlib.suppress(OSError):  # a full disk: what is left to write was reported when it was kept
                self.stream.close()
            self.stream = None

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Add the answers of a batch, by digest of their request. Raises FinbenchError where the disk is full."""
        notes = {name: dict(said.note) for name, said in answers.items() if isinstance(said, Told)}
        plain = {name: said.answer if isinstance(said, Told) else said for name, said in answers.items()}
        entries = [
            {"r": name, "a": _plain(said)} | ({"n": notes[name]} if name in notes else {})
            for name, said in plain.items()
        ]
        try:
            self._append(entries)
        except OSError as fault:
            raise cannot_write(self.path, fault) from fault
        self.answers.update(plain)
        self.notes.update(notes)

    def finish(self) -> None:
        """The scorecard holds the score: nothing here is needed any more."""
        self._close()
        self.path.unlink(missing_ok=True)


def _plain(answer: Any) -> Any:
    """As JSON: a text, a pair of numbers, or the fields of an answer that was taken apart."""
    return asdict(answer) if isinstance(answer, Generated) else answer


def _answer(found: Any) -> Any:
    return Generated(**found) if isinstance(found, dict) else tuple(found) if isinstance(found, list) else found


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x} ".encode("ascii")


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None for one that is torn or was changed."""
    if not line.endswith(b"\n") or line[:9] != _checksum(line[9:-1]):
        return None
    found = json.loads(line[9:-1])
    return found if isinstance(found, dict) else None
