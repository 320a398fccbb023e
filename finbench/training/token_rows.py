"""Training rows on disk: one flat file of tokens, mapped into memory, of which only what is used is held.

A million rows as lists of Python's numbers would take gigabytes; here a row takes some 30 bytes of memory, and its
tokens two or four bytes of disk. The file has no name: it is gone with its process, however that ends.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, overload

import numpy as np

from finbench.core import paths
from finbench.core.files import cannot_write
from finbench.training.batches import TrainingRow

_TOGETHER = 1 << 20  # tokens written at once


class TokenRows(Sequence[TrainingRow]):
    """Rows by number. ``lengths``: tokens of each, (rows,)."""

    def __init__(self, tokens: Any, ends: Any, marks: Any, mark_ends: Any, chosen: Any) -> None:
        self._tokens, self._ends, self._marks, self._mark_ends, self._chosen = tokens, ends, marks, mark_ends, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        found: list[int] = (self._ends[self._chosen + 1] - self._ends[self._chosen]).tolist()
        return found

    @overload
    def __getitem__(self, index: int) -> TrainingRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingRow]: ...
    def __getitem__(self, index: int | slice) -> TrainingRow | list[TrainingRow]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = self._chosen[index]
        ids = self._tokens[self._ends[row] : self._ends[row + 1]].tolist()
        answer, *silent = self._marks[self._mark_ends[row] : self._mark_ends[row + 1]].tolist()
        return TrainingRow(ids, answer, tuple(zip(silent[::2], silent[1::2], strict=True)))

    def __iter__(self) -> Iterator[TrainingRow]:
        return (self[number] for number in range(len(self)))


class TokenWriter:
    """Takes rows one by one; ``rows`` gives those that are chosen, by their numbers in the order they came."""

    def __init__(self, vocabulary: int) -> None:
        self._dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
        self._waiting = array("L")
        self._ends, self._marks, self._mark_ends = array("q", [0]), array("q"), array("q", [0])
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, row: TrainingRow) -> None:
        """One more row."""
        self._waiting.extend(row.ids)
        self._ends.append(self._ends[-1] + len(row.ids))
        self._marks.append(row.answer)
        for span in row.silent:
            self._marks.extend(span)
        self._mark_ends.append(len(self._marks))
        if len(self._waiting) >= _TOGETHER:
            self._flush()

    def rows(self, chosen: Iterable[int]) -> TokenRows:
        """The rows with these numbers, in this order; a number may occur more than once."""
        self._flush()
        assert self._file is not None
        tokens = np.zeros(0, self._dtype)
        if self._ends[-1]:
            tokens = np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._ends[-1],))
        ends, marks, mark_ends = (np.array(one, np.int64) for one in (self._ends, self._marks, self._mark_ends))
        return TokenRows(tokens, ends, marks, mark_ends, np.fromiter(chosen, np.int64))

    def _flush(self) -> None:
        place = paths.cache_dir()
        try:
            if self._file is None:
                place.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115  (not in /tmp, which may be memory)
            # not tofile, which says nothing of a disk that is full when the last bytes leave its buffer
            self._file.write(np.array(self._waiting, np.uint64).astype(self._dtype).tobytes())
            self._file.flush()
        except OSError as fault:
            raise cannot_write(place, fault) from fault
        self._waiting = array("L")
