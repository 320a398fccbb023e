"""The first sheet of an Excel workbook (.xlsx) as rows of a table: what authors of small sets publish.

Cells are read as they are stored: text, numbers, true and false; formulas by the value that was saved with them. A
workbook is a zip of XML from strangers, and is refused like one.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.data.xbrl.parsing import Element, events, local

LARGEST = 64 << 20  # bytes of a workbook
_UNPACKED = 256 << 20  # bytes of one of its parts
_RATIO = 200  # times its size; sheets of text compress ten times
_HINT = "Save it again as .xlsx, or export its sheet as CSV."
_CELL = re.compile(r"([A-Z]{1,3})\d{1,7}")


def rows(name: str, content: bytes) -> Iterator[tuple[dict[str, Any], str]]:
    """(row, place) of the first sheet under its first row as header; ``name`` is for messages.

    Raises FinbenchError for what is no workbook, is too large, or has no row below its header.
    """
    if len(content) > LARGEST:
        raise FinbenchError(f"{name}: a workbook of more than {LARGEST:,} bytes.", _HINT)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            shared = _strings(name, book)
            found = _rows(name, _part(name, book, _first_sheet(name, book)), shared)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as fault:
        raise FinbenchError(f"{name}: not an Excel workbook ({fault}).", _HINT) from fault
    _, cells = next(found, (0, {}))
    header = {column: str(value).strip() for column, value in cells.items() if str(value).strip()}
    if not header or len(set(header.values())) < len(header):
        raise FinbenchError(f"{name}: its first row is no header of different names.", _HINT)
    bare = True
    for number, cells in found:
        bare = False
        if cells:
            yield {column: cells.get(at) for at, column in header.items()}, f"{name}:{number}"
    if bare:
        raise FinbenchError(f"{name}: no row follows the header {','.join(header.values())[:80]!r}.", _HINT)


def _part(name: str, book: zipfile.ZipFile, part: str) -> bytes:
    try:
        info = book.getinfo(part)
    except KeyError as fault:
        raise FinbenchError(f"{name}: not an Excel workbook ({part} is missing).", _HINT) from fault
    if info.file_size > _UNPACKED or (info.file_size > 1 << 20 and info.file_size > _RATIO * info.compress_size):
        raise FinbenchError(f"{name}: {part} unpacks to {info.file_size:,} bytes: a zip bomb?", _HINT)
    with book.open(info) as handle:
        content = handle.read(_UNPACKED + 1)
    if len(content) > _UNPACKED:
        raise FinbenchError(f"{name}: {part} unpacks to more than it says: a zip bomb?", _HINT)
    return content


def _elements(name: str, part: str, data: bytes) -> Iterator[Element]:
    """Each element at its end."""
    try:
        for event, element in events(f"{name}: {part}", data):
            if event == "end":
                yield element
    except FinbenchError as fault:
        raise FinbenchError(fault.message, _HINT) from fault


def _first_sheet(name: str, book: zipfile.ZipFile) -> str:
    """The part that holds the sheet shown first."""
    sheets = [e for e in _elements(name, "workbook", _part(name, book, "xl/workbook.xml")) if local(e) == "sheet"]
    links = _elements(name, "relations", _part(name, book, "xl/_rels/workbook.xml.rels"))
    targets = {link.get("Id"): link.get("Target") or "" for link in links if local(link) == "Relationship"}
    ids = [value for sheet in sheets for key, value in sheet.items() if key.endswith("}id")]
    if not ids or not targets.get(ids[0]):
        raise FinbenchError(f"{name}: the workbook has no sheet.", _HINT)
    target = targets[ids[0]]
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _strings(name: str, book: zipfile.ZipFile) -> list[str]:
    """The texts that cells point at by number; none where every cell holds its own."""
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    found = _elements(name, "strings", _part(name, book, "xl/sharedStrings.xml"))
    return [_text(element) for element in found if local(element) == "si"]


def _text(element: Element) -> str:
    """The text of a cell, its formatted runs joined; notes on how to say it (rPh) are none."""
    runs = (run for run in element.iter() if local(run) == "t" and local(run.getparent()) != "rPh")
    return "".join(run.text or "" for run in runs)


def _rows(name: str, data: bytes, shared: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number, column letters -> value) of the rows; empty cells are left out."""
    cells: dict[str, Any] = {}
    for element in _elements(name, "sheet", data):
        if local(element) == "c":
            place = _CELL.fullmatch(element.get("r") or "")
            if place is None:
                raise FinbenchError(f"{name}: a cell without a place.", _HINT)
            value = _value(name, element, shared)
            if value not in (None, ""):
                cells[place[1]] = value
        elif local(element) == "row":
            number = element.get("r") or ""
            yield int(number) if number.isdigit() else 0, cells
            cells = {}
            element.clear()


def _value(name: str, cell: Element, shared: list[str]) -> Any:
    """A cell's value: text, a number (whole ones without a point), or None."""
    kind = cell.get("t") or "n"
    if kind == "inlineStr":
        return _text(cell)
    text = next((part.text or "" for part in cell if local(part) == "v"), "")
    if kind == "s":
        try:
            return shared[int(text)]
        except (ValueError, IndexError) as fault:
            raise FinbenchError(f"{name}: cell {cell.get('r')} points at no text.", _HINT) from fault
    if kind in ("str", "b", "d", "e") or not text:
        return text or None
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
