"""A sheet of an Excel workbook (.xlsx) as rows of a table, read by openpyxl (extra ``excel``).

``book.xlsx#Sheet`` names one. Formulas have the value that was saved with them.
A workbook is a zip of XML from strangers, and is looked at first.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
import shlex
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from finbench.core import zips
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.installing import install

LARGEST = 64 << 20  # bytes of a workbook
_UNPACKED = 256 << 20  # bytes of its parts
_RATIO = 200  # times its size; sheets of text compress ten times
_ROWS, _CELLS = 1_048_576, 5_000_000  # of a sheet: Excel's own bound; empty cells count as well
_SHEETS = 1000  # of a workbook
# what is read as a whole, and with what its reader's time grows by the square: 12 MB in a tag take 17 seconds
_READ_BY_ROWS, _PART = ("xl/worksheets/", "xl/sharedStrings.xml"), 16 << 20
_TAG, _MANY = 1 << 20, 1000  # bytes of a tag with the text behind it; comments
_LONG, _OTHER = re.compile(rb"<[^<]{%d}" % _TAG), re.compile(rb"<(?:!--|\?)")
_LOOK = 1000  # rows by which the sheets of a workbook are told apart
_TOLD: set[tuple[str, str]] = set()  # (workbook, sheet) that was said to be read
_HINT = "Save it again as .xlsx, or export its sheet as CSV."
_DAMAGE = (*zips.TORN, RuntimeError, ParseError, KeyError, IndexError, ValueError, TypeError, AttributeError, OSError)


def sheet_of(path: Path) -> tuple[Path, str | None]:
    """(the workbook, the sheet) of ``book.xlsx#Sheet``; any other path as it is."""
    named = re.fullmatch(r"(?i)(.+?\.xlsx)#(.+)", path.name)  # a sheet's own name may have a "#" too
    return (path.with_name(named[1]), named[2]) if named and not path.exists() else (path, None)


def rows(name: str, content: bytes, wanted: str | None = None) -> Iterator[tuple[dict[str, Any], str] | str]:
    """(row, place) of a sheet below its header, or a fault as text; ``name`` is for messages, ``wanted`` the sheet's.

    Without one it is the first sheet that shows a table: not a cover, nor one of a tenth of the rows of the largest.
    Where the choice was ours, it is said. Raises FinbenchError for what is no workbook, is too large, has no such
    sheet, or no row below its header.
    """
    if len(content) > LARGEST:
        raise FinbenchError(f"{name}: a workbook of more than {LARGEST:,} bytes.", _HINT)
    with _explained(name):
        book, formulas = _opened(name, content)
    with _explained(name):
        table = _chosen(name, book, wanted)
    found = _cells(name, table, formulas)
    header = next(found)
    names = [str("" if cell.value is None else cell.value).strip() for cell in header]
    named = [column for column in names if column]
    if not named or len(set(named)) < len(named):
        said = f"row {table.start} of its sheet {table.title!r} is no header of different names"
        raise FinbenchError(f"{name}: {said}.", "Give each column one name of its own, and save it again.")
    bare = True
    for number, cells in enumerate(found, table.start + 1):
        bare = False
        pairs = list(itertools.zip_longest(names, cells[: len(names)]))
        if lacking := [cell.coordinate for column, cell in pairs if column and _unsaved(cell)]:
            where = f"{', '.join(lacking)} of sheet {table.title!r}"
            mend = "open it in Excel or LibreOffice and save it there"
            yield f"{name}:{number}: a formula without a saved value in {where}; {mend}"
        elif any(cell.value not in (None, "") for cell in cells):
            row = {column: cell.value if cell and cell.value != "" else None for column, cell in pairs if column}
            yield row, f"{name}:{number}"
    if bare:
        said = f"no row follows the header {','.join(named)[:80]!r} of its sheet {table.title!r}"
        raise FinbenchError(f"{name}: {said}.", _other(name, table) or _HINT)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as fault:
        raise FinbenchError(f"{name}: not an Excel workbook ({fault}).", _HINT) from fault


def _opened(name: str, content: bytes) -> tuple[Any, Any]:
    """The workbook with the values that were saved, and with its formulas; None in their place where it has none."""
    try:
        import openpyxl
    except ImportError as fault:
        raise FinbenchError(
            f"{name}: Excel workbooks are read with openpyxl, which is not installed.",
            f"{install('excel')}, or export its sheet as CSV.",
        ) from fault
    with zips.opened(io.BytesIO(content)) as box:
        _refuse_hostile(name, box)
        sheets = [part for part in box.namelist() if part.startswith("xl/worksheets/")]
        calculated = any(re.search(rb"<(\w+:)?f[ />]", box.read(part)) for part in sheets)
    read = functools.partial(openpyxl.load_workbook, read_only=True)
    return read(io.BytesIO(content), data_only=True), read(io.BytesIO(content)) if calculated else None


@dataclass(frozen=True)
class _Table:
    """A sheet as its first rows show it: where its header stands (0: it is empty), in how many columns, rows below."""

    sheet: Any
    start: int
    width: int
    below: int
    others: tuple[str, ...] = ()  # sheets with rows that are not read

    @property
    def title(self) -> str:
        return str(self.sheet.title)


def _looked(name: str, sheet: Any) -> _Table:
    """A sheet by its first thousand rows. Lines above a table have less than half the cells of its rows."""
    sheet.reset_dimensions()  # what a file says of its own size may be wrong
    seen = itertools.islice(_bounded(name, sheet.iter_rows(values_only=True)), _LOOK)
    filled = {at: sum(value not in (None, "") for value in row) for at, row in enumerate(seen, 1)}
    filled = {at: count for at, count in filled.items() if count}
    width = max(filled.values(), key=list(filled.values()).count, default=0)
    start = next((at for at, count in filled.items() if 2 * count > width), next(iter(filled), 0))
    return _Table(sheet, start, width, sum(at > start for at in filled))


def _chosen(name: str, book: Any, wanted: str | None) -> _Table:
    sheets = {str(sheet.title): sheet for sheet in book.worksheets}
    if len(sheets) > _SHEETS:
        raise FinbenchError(f"{name}: a workbook of {len(sheets):,} sheets.", _HINT)
    if wanted is not None:
        title = next((one for one in sheets if one.casefold() == wanted.casefold()), None)
        if title is None:
            file = name.removesuffix(f"#{wanted}")
            ways = " or ".join(shlex.quote(f"{file}#{one}") for one in list(sheets)[:4])
            raise FinbenchError(f"{file}: it has no sheet {wanted!r}.", f"Name one that it has: {ways}")
        found = _looked(name, sheets[title])
        if not found.start:
            raise FinbenchError(f"{name}: this sheet is empty.", _HINT)
        return found
    shown = [_looked(name, sheet) for sheet in sheets.values() if sheet.sheet_state == "visible"]
    filled = [one for one in shown if one.start]
    if not filled:
        raise FinbenchError(f"{name}: the workbook has no sheet with rows.", _HINT)
    tables = [one for one in filled if one.width > 1 and one.below] or [one for one in filled if one.below] or filled
    largest = max(one.below for one in tables)
    chosen = next(one for one in tables if 10 * one.below >= largest)
    chosen = replace(chosen, others=tuple(one.title for one in filled if one is not chosen))
    if (chosen.others or chosen.start > 1) and (name, chosen.title) not in _TOLD:
        _TOLD.add((name, chosen.title))
        whence = f" from row {chosen.start} on" if chosen.start > 1 else ""
        more = f" and {len(chosen.others) - 9:,} more" if chosen.others[9:] else ""
        rest = f", not {', '.join(map(repr, chosen.others[:9]))}{more}" if chosen.others else ""
        say(f"{name}: sheet {chosen.title!r} is read{whence}{rest}. {_other(name, chosen)}".rstrip())
    return chosen


def _other(name: str, table: _Table) -> str:
    return f"To read another: {shlex.quote(f'{name}#{table.others[0]}')}" if table.others else ""


@dataclass(frozen=True)
class _Cell:
    """A cell as it was saved; ``formula``: what is computed there."""

    value: Any
    coordinate: str = ""
    formula: bool = False


def _cells(name: str, table: _Table, formulas: Any) -> Iterator[list[_Cell]]:
    """The cells of a sheet from its header on, row by row."""
    with _explained(name):
        saved = _bounded(name, table.sheet.iter_rows(min_row=table.start))
        if formulas is None:
            yield from ([_Cell(cell.value) for cell in row] for row in saved)
            return
        sheet = formulas[table.title]
        sheet.reset_dimensions()
        for row, stated in zip(saved, sheet.iter_rows(min_row=table.start), strict=True):
            pairs = zip(row, stated, strict=True)
            yield [
                _Cell(cell.value, _place(own), own.data_type == "f" and cell.data_type == "n") for cell, own in pairs
            ]


def _bounded(name: str, found: Iterator[Any]) -> Iterator[Any]:
    """The rows of a sheet, of which openpyxl makes those up that lie between: one cell may say that it is in any."""
    cells = 0
    for number, row in enumerate(found, 1):
        cells += len(row)
        if number > _ROWS or cells > _CELLS:
            raise FinbenchError(f"{name}: a sheet of more than {_ROWS:,} rows or {_CELLS:,} cells: a bomb?", _HINT)
        yield row


def _place(cell: Any) -> str:
    return getattr(cell, "coordinate", "")  # an empty one has none


def _unsaved(cell: _Cell | None) -> bool:
    """A formula of which no value was saved, as programs write it that do not compute; a saved empty text is one."""
    return cell is not None and cell.formula and cell.value is None


def _refuse_hostile(name: str, book: zipfile.ZipFile) -> None:
    for info in book.infolist():
        if info.file_size > _UNPACKED or (info.file_size > 1 << 20 and info.file_size > _RATIO * info.compress_size):
            raise FinbenchError(f"{name}: {info.filename} unpacks to {info.file_size:,} bytes: a zip bomb?", _HINT)
        content = book.read(info)
        if b"<!DOCTYPE" in content[:4096]:
            raise FinbenchError(f"{name}: {info.filename} declares a document type, and may hold entities.", _HINT)
        if info.filename.startswith("xl/media/"):
            continue
        if not info.filename.startswith(_READ_BY_ROWS) and len(content) > _PART:
            raise FinbenchError(f"{name}: {info.filename} has more than {_PART:,} bytes.", _HINT)
        others = list(itertools.islice(_OTHER.finditer(content), _MANY + 1))
        if len(others) > _MANY or _LONG.search(content) or any(_endless(content, one) for one in others):
            raise FinbenchError(f"{name}: {info.filename} has a tag without end, or comments.", _HINT)


def _endless(content: bytes, begin: re.Match[bytes]) -> bool:
    """Whether a comment, or what is meant for another program, goes on and on."""
    end = content.find(b"-->" if begin[0] == b"<!--" else b"?>", begin.end())
    return end < 0 or end - begin.end() > _TAG
