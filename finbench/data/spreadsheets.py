"""The first sheet of an Excel workbook (.xlsx) as rows of a table, read by openpyxl (extra ``excel``).

Formulas have the value that was saved with them. A workbook is a zip of XML from strangers, and is looked at first.
"""

from __future__ import annotations

import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import ParseError

from finbench.core.errors import FinbenchError
from finbench.core.installing import install

LARGEST = 64 << 20  # bytes of a workbook
_UNPACKED = 256 << 20  # bytes of its parts
_RATIO = 200  # times its size; sheets of text compress ten times
_HINT = "Save it again as .xlsx, or export its sheet as CSV."
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ParseError, KeyError,
           IndexError, ValueError, TypeError, AttributeError, OSError)  # fmt: skip


def rows(name: str, content: bytes) -> Iterator[tuple[dict[str, Any], str]]:
    """(row, place) of the first sheet under its first row as header; ``name`` is for messages.

    Raises FinbenchError for what is no workbook, is too large, or has no row below its header.
    """
    if len(content) > LARGEST:
        raise FinbenchError(f"{name}: a workbook of more than {LARGEST:,} bytes.", _HINT)
    found = _cells(name, content)
    header = [str("" if value is None else value).strip() for value in next(found, ())]
    named = [column for column in header if column]
    if not named or len(set(named)) < len(named):
        raise FinbenchError(f"{name}: its first row is no header of different names.", _HINT)
    bare = True
    for number, cells in enumerate(found, 2):
        bare = False
        if any(value not in (None, "") for value in cells):
            pairs = itertools.zip_longest(header, cells[: len(header)])
            yield {column: None if value == "" else value for column, value in pairs if column}, f"{name}:{number}"
    if bare:
        raise FinbenchError(f"{name}: no row follows the header {','.join(named)[:80]!r}.", _HINT)


def _cells(name: str, content: bytes) -> Iterator[tuple[Any, ...]]:
    try:
        import openpyxl
    except ImportError as fault:
        raise FinbenchError(
            f"{name}: Excel workbooks are read with openpyxl, which is not installed.",
            f"{install('excel')}, or export its sheet as CSV.",
        ) from fault
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            _refuse_hostile(name, book)
        sheets = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True).worksheets
        if not sheets:
            raise FinbenchError(f"{name}: the workbook has no sheet.", _HINT)
        sheets[0].reset_dimensions()  # what a file says of its own size may be wrong
        yield from sheets[0].iter_rows(values_only=True)
    except _DAMAGE as fault:
        raise FinbenchError(f"{name}: not an Excel workbook ({fault}).", _HINT) from fault


def _refuse_hostile(name: str, book: zipfile.ZipFile) -> None:
    for info in book.infolist():
        if info.file_size > _UNPACKED or (info.file_size > 1 << 20 and info.file_size > _RATIO * info.compress_size):
            raise FinbenchError(f"{name}: {info.filename} unpacks to {info.file_size:,} bytes: a zip bomb?", _HINT)
        with book.open(info) as handle:
            if b"<!DOCTYPE" in handle.read(4096):
                raise FinbenchError(f"{name}: {info.filename} declares a document type, and may hold entities.", _HINT)
