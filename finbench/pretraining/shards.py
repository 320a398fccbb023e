"""Documents, tokenised once: streams of token ids in memory-mapped files, found again by tokenizer and sources.

A source's stream is written in pieces: ``train-00000.bin`` and ``held-00000.bin`` (uint16, or uint32 for vocabularies
above 65,536), then ``piece-00000.json``, by which the piece counts. A process that was killed loses the piece it was
at, and the next one goes on after the last whole one. Bytes of text are kept beside tokens: bits per byte are exact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.core import paths
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import cannot_write, digest, write_atomic
from finbench.pretraining import corpus, vocabulary

PIECE = 2**24  # training tokens of a piece: 32 or 64 MiB
_TOGETHER = 2**20  # characters that are tokenised at a time
_DONE = "done.json"
_FORMAT = 1
_COUNTS = ("train_tokens", "train_text_tokens", "train_bytes", "train_documents")


@dataclass(frozen=True)
class Held:
    """The held-out documents of a source that are scored: ids, which of them are text, and bytes of that text."""

    ids: Any  # (T,)
    text: Any  # (T,) bool: False for what frames a document
    bytes: int
    documents: int

    @property
    def tokens(self) -> int:
        """Tokens of text."""
        return int(self.text.sum())


class Shards:
    """The token stream of one source. Raises FinbenchError where a file is not as it was written."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.about: dict[str, Any] = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        self.dtype = np.dtype(self.about["dtype"])
        self.pieces = [
            _map(folder / f"train-{number:05}.bin", self.dtype, piece["train_tokens"])
            for number, piece in enumerate(self.about["pieces"])
        ]
        self.ends = np.cumsum([0] + [len(piece) for piece in self.pieces])

    @property
    def tokens(self) -> int:
        """Training tokens, with those that frame documents."""
        return int(self.ends[-1])

    def windows(self, context: int) -> int:
        """Sequences of ``context`` tokens, each with the token after it."""
        return max(0, (self.tokens - 1) // context)

    def window(self, number: int, context: int) -> Any:
        """The ids of sequence ``number`` and the one after it, (context + 1,) int64."""
        first, last = number * context, (number + 1) * context + 1
        parts = []
        piece = int(np.searchsorted(self.ends, first, side="right")) - 1
        while first < last:
            stop = min(last, int(self.ends[piece + 1]))
            parts.append(self.pieces[piece][first - self.ends[piece] : stop - self.ends[piece]])
            first, piece = stop, piece + 1
        return np.concatenate(parts).astype(np.int64)

    def held(self, most: int) -> Held:
        """Held-out documents, whole ones, evenly from all of them: about ``most`` tokens, and one document at least."""
        sizes = [size for piece in self.about["pieces"] for size in piece["held"]]
        stride = max(1, -(-sum(tokens for tokens, _ in sizes) // most))
        before, after = self.about["frame"]
        ids: list[Any] = []
        text: list[Any] = []
        bytes_, number = 0, 0
        for place, piece in enumerate(self.about["pieces"]):
            whole = sum(tokens + len(before) + len(after) for tokens, _ in piece["held"])
            stream = _map(self.folder / f"held-{place:05}.bin", self.dtype, whole)
            at = 0
            for tokens, size in piece["held"]:
                long = tokens + len(before) + len(after)
                if number % stride == 0:
                    ids.append(stream[at : at + long].astype(np.int64))
                    text.append(np.r_[np.zeros(len(before), bool), np.ones(tokens, bool), np.zeros(len(after), bool)])
                    bytes_ += size
                at, number = at + long, number + 1
        if not ids:
            raise FinbenchError(
                f"data: of {self.name} no document is held out (it has {number + self.about['train_documents']:,}).",
                "Raise held_out, or cut its files up: per: paragraph, or per: 4000",
            )
        return Held(np.concatenate(ids), np.concatenate(text), bytes_, len(ids))


def _map(path: Path, dtype: Any, tokens: int) -> Any:
    if not tokens:
        return np.empty(0, dtype)
    if not path.is_file() or path.stat().st_size != tokens * dtype.itemsize:
        what = "torn" if path.is_file() else "missing"
        raise FinbenchError(f"{path} is {what}.", f"Remove {path.parent} and repeat the command.")
    return np.memmap(path, dtype=dtype, mode="r", shape=(tokens,))


def build(located: corpus.Located, tokenizer: Any, held_out: float, bar: Any) -> Shards:
    """The stream of a source: that of an earlier run, or made now, going on after the last whole piece."""
    from filelock import FileLock

    named = {"format": _FORMAT, "source": located.identity, "tokenizer": vocabulary.identity(tokenizer)}
    key = digest({**named, "held_out": held_out})
    folder = paths.cache_dir() / "pretrain" / f"{located.name}-{key[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / ".lock")):  # other processes of the run, or another run, wait here
            if not (folder / _DONE).is_file():
                _Writer(folder, located, tokenizer, held_out, bar).run()
    except OSError as fault:
        raise cannot_write(folder, fault) from fault
    return Shards(folder, located.name)


class _Writer:
    def __init__(self, folder: Path, located: corpus.Located, tokenizer: Any, held_out: float, bar: Any) -> None:
        self.folder, self.located, self.tokenizer, self.bar = folder, located, tokenizer, bar
        self.divider = corpus.Divider(held_out)
        self.before, self.after = vocabulary.frame(tokenizer)
        self.dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
        self.pieces: list[dict[str, Any]] = []
        self.empty()

    def empty(self) -> None:
        """Begin a piece."""
        self.train: list[Any] = []
        self.held: list[Any] = []
        self.sizes: list[list[int]] = []
        self.count = dict.fromkeys(_COUNTS, 0)

    def run(self) -> None:
        """Write what is missing."""
        while (path := self.folder / f"piece-{len(self.pieces):05}.json").is_file():
            self.pieces.append(json.loads(path.read_text(encoding="utf-8")))
        done = self.pieces[-1]["read"] if self.pieces else 0
        if done:
            say(f"{self.located.name}: {done:,} documents are tokenised already; going on after them.")
        size = sum(path.stat().st_size for path in self.located.files)
        task = self.bar.add_task(f"tokenising {self.located.name}", total=size, note="")
        read = 0
        for batch in _batches(corpus.raw(self.located)):
            placed = []
            for text in batch:
                held_out = self.divider.held_out(text)
                if held_out is not None and self.divider.read > done:
                    placed.append((text, held_out))
            read += sum(map(len, batch))
            if placed:
                self.take(placed)
            self.bar.update(task, completed=read, note=f"{self.divider.read:,} documents")
            if self.count["train_tokens"] >= PIECE:
                self.flush()
        if not self.pieces or self.divider.read > self.pieces[-1]["read"]:
            self.flush()
        self.bar.remove_task(task)
        about = {
            "source": self.located.name,
            "kind": self.located.source.kind,
            "identity": self.located.identity,
            "revision": self.located.revision,
            "dtype": self.dtype.name,
            "frame": [self.before, self.after],
            **{key: sum(piece[key] for piece in self.pieces) for key in _COUNTS},
            "held_documents": sum(len(piece["held"]) for piece in self.pieces),
            "held_bytes": sum(size for piece in self.pieces for _, size in piece["held"]),
            "read": self.divider.read,
            "dropped": dict(self.divider.dropped),
            "pieces": self.pieces,
        }
        write_atomic(self.folder / _DONE, json.dumps(about) + "\n")

    def take(self, placed: list[tuple[str, bool]]) -> None:
        """Tokenise some documents, each with whether it is held out, into the piece."""
        encoded = self.tokenizer([text for text, _ in placed], add_special_tokens=False, verbose=False)["input_ids"]
        for (text, held_out), ids in zip(placed, encoded, strict=True):
            size = len(text.encode())
            row = np.array([*self.before, *ids, *self.after], self.dtype)
            if held_out:
                self.held.append(row)
                self.sizes.append([len(ids), size])
            else:
                self.train.append(row)
                self.count["train_tokens"] += len(row)
                self.count["train_text_tokens"] += len(ids)
                self.count["train_bytes"] += size
                self.count["train_documents"] += 1

    def flush(self) -> None:
        """Write the piece; its JSON last, which says that the rest is whole."""
        number = len(self.pieces)
        for kind, rows in (("train", self.train), ("held", self.held)):
            if rows:
                _write(self.folder / f"{kind}-{number:05}.bin", np.concatenate(rows))
        read, dropped = self.divider.read, dict(self.divider.dropped)
        piece = {**self.count, "held": self.sizes, "read": read, "dropped": dropped}
        write_atomic(self.folder / f"piece-{number:05}.json", json.dumps(piece) + "\n")
        self.pieces.append(piece)
        self.empty()


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _TOGETHER:
            yield held
            held, size = [], 0
    if held:
        yield held


def _write(path: Path, ids: Any) -> None:
    """Aside, flushed, renamed: a reader never sees half of it."""
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as handle:
        handle.write(ids.tobytes())  # tofile says nothing of a full disk when the last bytes leave its buffer
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(path)
