"""Files of any usual shape as raw records: ``place`` is what follows the file name (``:12``), ``detail`` the split."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finbench import hub
from finbench.core import refs
from finbench.core.errors import FinbenchError
from finbench.data import readers
from finbench.data.readers import RawRecord, SourceFile, text_of
from finbench.data.splits import split_named

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".txt", ".conll", ".data")
_PATTERN = " ".join(f"*{suffix}{packed}" for suffix in SUFFIXES for packed in ("", *readers.PACKED))


class Input(NamedTuple):
    """A file to read, or a data set of the Hub at a commit, and what it is called in findings."""

    file: SourceFile
    name: str
    folder: Path  # where a licence or a card may lie
    hub: tuple[str, str] | None = None
    named: bool = True  # by the user, and not found in a folder or an archive

    def rows(self, strict: bool = False) -> Iterator[RawRecord | str]:
        return hub_rows(*self.hub) if self.hub else map(_whole, rows(self.file, strict))


class NoRows(FinbenchError):
    """A file that can be read, and holds prose or a record: in a folder that is no fault."""


_HALF = re.compile("[\ud800-\udfff]")


def _whole(item: RawRecord | str) -> RawRecord | str:
    """A record whose halves of surrogate pairs, which JSON can write and nothing can encode, became U+FFFD."""

    def mended(value: Any) -> Any:
        if isinstance(value, str):
            return value if value.isascii() else _HALF.sub("\ufffd", value)
        if isinstance(value, list):
            return list(map(mended, value))
        return {mended(key): mended(part) for key, part in value.items()} if isinstance(value, dict) else value

    if isinstance(item, str):
        return item
    if all(isinstance(part, str) and part.isascii() for part in (item.place, *item.row, *item.row.values())):
        return item
    return item._replace(row=mended(item.row), place=mended(item.place))


def inputs(paths: list[Path]) -> list[Input]:
    """The files of ``paths``: files, folders (all that can hold rows) and zip archives, in a fixed order."""
    found: dict[str, Input] = {}
    for path in paths:
        for file in readers.expand([path], _PATTERN, "Name files, folders, zip archives or sets: finbench data list"):
            if path.is_dir():
                name, folder = file.path.relative_to(path).as_posix(), _stating(file.path.parent, path)
            else:
                name, folder = file.member or path.name, path.parent
            if f"{file}" not in {str(known.file) for known in found.values()}:
                base, number = name, 2
                while name in found:  # two folders may hold files of one name
                    above = path if path.is_dir() or file.member else path.parent
                    name, number = f"{above.name}/{base}" if number == 2 else f"{base} ({number})", number + 1
                found[name] = Input(file, name, folder, named=not (path.is_dir() or file.member))
    return list(found.values())


def _stating(folder: Path, top: Path) -> Path:
    """The nearest folder, from this one up to ``top``, with a licence or a card; this one where there is none."""
    up = [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]
    return next((one for one in up if any(one.glob("LICEN[CS]E*")) or (one / "dataset.json").is_file()), folder)


def rows(file: SourceFile, strict: bool = False) -> Iterator[RawRecord | str]:
    """The rows of a file; a row that cannot be read is a text that starts with its line.

    With ``strict``, no encoding but UTF-8 and UTF-16 is taken. Raises FinbenchError for a file that cannot be read at
    all, or that holds no rows.
    """
    found = _decoded(file, strict)
    head = list(itertools.islice(found, 200))
    if not any(isinstance(item, RawRecord) for item in head):
        if head:
            line = f"{head[0]}".partition(":")[0]
            hint = f"Correct line {line} and those like it, or leave the file out."
            raise FinbenchError(f"{file.name}: no rows ({head[0]}).", hint)
        raise NoRows(f"{file.name}: no rows.", "Leave it out, or name a file of rows: finbench data audit FILE")
    yield from head
    yield from found


def _decoded(file: SourceFile, strict: bool) -> Iterator[RawRecord | str]:
    if file.suffix == ".json" and not readers.holds_lines(file):
        yield from _json(file)
        return
    decoder: Any
    if file.suffix == ".tsv":
        # strictly as CSV, whose quotes a spreadsheet writes; the sets of others have some that close nothing
        decoder = functools.partial(readers.decode_csv, delimiter="\t") if strict else _tsv
    elif file.suffix == ".csv":
        decoder = functools.partial(readers.decode_csv, delimiter=readers.delimiter_of(readers.first_lines(file)))
    elif file.suffix in (".txt", ".conll", ".data"):
        decoder = _sniffed(file)
    else:
        decoder = readers.decoder_of(file, None)
    start = len(str(file))
    for item in decoder(file):
        yield item._replace(place=item.place[start:]) if isinstance(item, RawRecord) else item[start:].lstrip(":")


_PAGE = ("pre_text", "paragraphs", "post_text")  # the prose of a page, in its order
_ASKS = ("question", "query")


def unfolded(item: RawRecord | str) -> Iterator[RawRecord | str]:
    """A page with its questions as a row for each question; any other row as it is.

    Questions are objects with a question, in a list or alone ("qa"). What is prose on the page becomes the column
    ``text``, where there is none of that name; a page without prose is its table.
    """
    if isinstance(item, str):
        yield item
        return
    row = item.row
    if "text" not in row and any(name in row for name in _PAGE):
        prose = " ".join(word for name in _PAGE for word in _words(row.get(name)))
        row = {**row, "text": prose or " ".join(_words(row.get("table")))}
    found = {name: [value] if isinstance(value, dict) else value for name, value in row.items()}
    lists = {
        name: value for name, value in found.items() if isinstance(value, list) and value and all(map(_asks, value))
    }
    asked = [question for value in lists.values() for question in value]
    page = {name: value for name, value in row.items() if name not in lists}
    for number, question in enumerate(asked, 1):
        place = item.place if len(asked) == 1 else f"{item.place}, question {number}"
        yield item._replace(row={**page, **question}, place=place)
    if not asked:
        yield item._replace(row=row)


def _asks(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(name), str) for name in _ASKS)


def _words(value: Any) -> Iterator[str]:
    """The texts in what is nested, but for names such as uid; paragraphs in their order."""
    if isinstance(value, str):
        if value.strip(" ."):
            yield value
    elif isinstance(value, dict):
        yield from (word for name, part in value.items() if name not in ("uid", "id") for word in _words(part))
    elif isinstance(value, list):
        ordered = all(isinstance(part, dict) and isinstance(part.get("order"), int) for part in value)
        for part in sorted(value, key=lambda part: part["order"]) if ordered else value:
            yield from _words(part)


def flat(item: RawRecord | str) -> RawRecord | str:
    """A row whose objects became columns: of their parts' names, or of their own where they have one part."""
    if isinstance(item, str):
        return item
    columns: dict[str, Any] = {}
    for name, value in item.row.items():
        if not isinstance(value, dict):
            columns[name] = value
            continue
        for key, part in value.items():
            short = name if len(value) == 1 else str(key)
            columns[f"{name}.{key}" if short in columns else short] = part
    return item._replace(row=columns)


def _sniffed(file: SourceFile) -> Any:
    with text_of(file, "iso-8859-1") as text:
        lines = list(itertools.islice(text, 300))
    full = [line for line in lines if line.strip()]
    if not full:
        raise FinbenchError(f"{file.name}: the file is empty.", "Leave it out, or fetch it again.")
    if sum(bool(re.search(r"@\w{1,12}\s*$", line)) for line in full) >= 0.9 * len(full):
        return readers.decode_at
    fields = [len(line.split()) for line in full]
    if len(full) < len(lines) and sum(count == 4 for count in fields) >= 0.95 * len(fields):
        return readers.decode_conll
    if len(full) > 2 and len({line.count("\t") for line in full}) == 1 and "\t" in full[0]:
        return _tsv
    raise NoRows(f"{file.name}: prose, not rows.", "Put one row on a line, in columns: CSV, TSV or JSON lines.")


def _tsv(file: SourceFile) -> Iterator[RawRecord | str]:
    with text_of(file, "iso-8859-1") as text:
        reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            header = [name.strip() for name in next(reader)]
            for row in reader:
                place = f"{file}:{reader.line_num}"
                if row and len(row) != len(header):
                    yield f"{place}: {len(row)} fields, the header has {len(header)}"
                elif row:
                    yield RawRecord(dict(zip(header, row, strict=True)), place)
        except csv.Error as fault:
            raise FinbenchError(
                f"{file}:{reader.line_num}: not valid TSV ({fault}).", "Give texts as long as that as JSON lines."
            ) from fault


def _json(file: SourceFile) -> Iterator[RawRecord | str]:
    """A list of objects; objects by id; lists by split; columns by name."""
    try:
        with text_of(file) as text:
            document = json.load(text)
    except (ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{file.name}:{getattr(fault, 'lineno', 1)}: not valid JSON ({fault}).",
            "Correct it at that line, or fetch it again.",
        ) from fault
    yield from _of_json(document, None)


def _of_json(document: Any, split: str | None) -> Iterator[RawRecord | str]:
    if isinstance(document, list):
        for number, row in enumerate(document, 1):
            place = f"entry {number}"
            yield RawRecord(row, f": {place}", split) if isinstance(row, dict) else f"{place}: not an object"
    elif isinstance(document, dict) and all(isinstance(value, dict) for value in document.values()):
        splits = all(map(split_named, document))
        for key, row in document.items():
            if splits:
                yield from _of_json(row, split_named(key))
            else:
                yield RawRecord(row, f": id {ascii(key)[1:-1]}", split)
    elif isinstance(document, dict):
        columns = {key: value for key, value in document.items() if isinstance(value, list)}
        if all(value and isinstance(value[0], dict) for value in columns.values()):
            for key, value in columns.items():
                yield from _of_json(value, split_named(key) or split)
        elif len(set(map(len, columns.values()))) == 1:
            for number, cells in enumerate(zip(*columns.values(), strict=True), 1):
                yield RawRecord(dict(zip(columns, cells, strict=True)), f": entry {number}", split)


def on_hub(reference: str) -> Iterator[Input]:
    """A data set of the Hub, ``hub:org/name[@rev]``. Raises FinbenchError if it cannot be had."""
    named = refs.parse(reference)
    revision = hub.dataset_sha(named.name, named.revision or "main")
    yield Input(SourceFile(Path(named.name)), f"hub:{named.name}@{revision[:8]}", Path(), (named.name, revision))


def hub_rows(path: str, revision: str, only: str | None = None) -> Iterator[RawRecord | str]:
    """The rows of every configuration and split of a data set of the Hub, or of one split, streamed at a commit."""
    import datasets

    with hub.data_explained(path):
        configs = datasets.get_dataset_config_names(path, revision=revision)
    for config in configs:
        with hub.data_explained(path):
            splits = datasets.load_dataset(path, config, revision=revision, streaming=True)
        chosen = {split: table for split, table in splits.items() if only in (None, split_named(split))}
        if not chosen:
            raise FinbenchError(f"hub:{path} has no split {only}: {', '.join(map(str, splits))}.", "Name another.")
        for split, table in chosen.items():
            for number, row in enumerate(readers.explained(path, _named(table)), 1):
                yield RawRecord(row, f" {config} {split} row {number}", split_named(split) or str(split))


def _named(table: Any) -> Iterator[dict[str, Any]]:
    """Rows with the names of their classes, where the data set has names for its codes."""
    names = {name: feature.names for name, feature in (table.features or {}).items() if hasattr(feature, "names")}
    for row in table:
        coded = {key: names[key][row[key]] for key in names if isinstance(row.get(key), int) and row[key] >= 0}
        yield {**row, **coded}
