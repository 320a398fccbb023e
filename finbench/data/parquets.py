"""Rows of a Parquet file of a stranger: how many they are, and what they mean in bytes, is tried in a jail first.

A page of sixty million equal values takes a hundred bytes, and a dictionary repeats a long text by a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finbench.core import jail
from finbench.core.errors import FinbenchError

_ROWS = 10_000_000  # the largest set that is read here has 60,000
_BATCH = 1_000  # rows that are held at a time
_BATCH_BYTES = 256 << 20  # that these may mean
_SMALL = 256 << 20  # bytes that any file may mean
_LARGEST = 4 << 30  # bytes that no file may mean
_RATIO = 200  # times its size: text compresses 20 times at most
_SECOND = 50 << 20  # bytes of a file that are decoded in a second, at least
_MEMORY = 2 * jail.MEMORY  # of which the allocator of pyarrow takes half in advance
_HINT = "If you trust it, give it as JSON lines."


def rows(
    path: Path, columns: Sequence[str] | None = None, *, batch: int = _BATCH, most: int = _ROWS
) -> Iterator[dict[str, Any]]:
    """Every row; FinbenchError for what is no Parquet file, or means far more than it has bytes.

    ``columns``: those that are read, all by default; ``batch``: rows that are held at a time, of ``most``.
    """
    import pyarrow.parquet  # noqa: F401 - before the fork, which then has it

    size = path.stat().st_size
    largest = max(_SMALL, min(_LARGEST, _RATIO * size))
    seconds = jail.SECONDS + size / _SECOND
    how: tuple[Path, list[str] | None, int] = (path, list(columns) if columns else None, batch)
    jail.confined(_measured, *how, largest, most, what=str(path), hint=_HINT, seconds=seconds, memory=_MEMORY)
    with _explained(path):
        for found in _batches(*how):
            values = {name: _python(path, name, found.column(at)) for at, name in enumerate(found.schema.names)}
            for cells in zip(*values.values(), strict=True):
                yield dict(zip(values, cells, strict=True))


def _python(path: Path, name: str, column: Any) -> list[Any]:
    """The values of a column; FinbenchError where Python has none: for other bytes than UTF-8, or the year 10000."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, LookupError) as fault:  # the last: a time zone that nobody knows
        said = str(fault).splitlines()[0][:200]
        raise FinbenchError(
            f"{path}: a value of column {name} cannot be read ({said}).", "Correct that column, or leave it out."
        ) from fault


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as fault:
        said = str(fault).splitlines()[0][:200]
        raise FinbenchError(f"{path}: not valid Parquet ({said}).", "Download it again.") from fault


def _batches(path: Path, columns: list[str] | None, batch: int) -> Iterator[Any]:
    """Some rows at a time, by one thread: a fork has no other."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as found:
        if lacking := set(columns or ()) - set(found.schema_arrow.names):
            raise FinbenchError(f"{path}: it has no column {', '.join(sorted(lacking))}.", "Name a file that has it.")
        yield from found.iter_batches(batch_size=batch, columns=columns, use_threads=False)


def _measured(path: Path, columns: list[str] | None, batch: int, largest: int, most: int) -> None:
    """In the jail: refuse a file of more rows, or of more bytes in Python, than its size can mean."""
    count = size = 0
    with _explained(path):
        for found in _batches(path, columns, batch):
            own = sum(map(_meant, found.columns))
            count, size = count + found.num_rows, size + own
            if count > most or size > largest or own > _BATCH_BYTES:
                raise FinbenchError(f"{path}: at least {count:,} rows of {size:,} bytes: a bomb?", _HINT)


def _meant(column: Any) -> int:
    """Bytes that a column means, each value counted as often as it is repeated."""
    import pyarrow

    if isinstance(column, pyarrow.DictionaryArray):
        return _meant(column.dictionary_decode())
    if isinstance(column, pyarrow.StructArray):
        return 8 * len(column) + sum(map(_meant, column.flatten()))
    if isinstance(column, pyarrow.MapArray):
        return 8 * len(column) + _meant(column.keys) + _meant(column.items)
    if isinstance(column, pyarrow.ListArray | pyarrow.LargeListArray | pyarrow.FixedSizeListArray):
        return 8 * len(column) + _meant(column.flatten())
    return 8 * len(column) + int(column.nbytes)
