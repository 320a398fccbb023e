"""The authors' files as records, streamed: text, CSV, JSON, JSONL, CoNLL, Parquet, Excel; alone, in a folder or a zip.

A decoder yields a Record for each row, or a fault as text that starts with ``file:line``.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import itertools
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from finbench import hub
from finbench.core import console, zips
from finbench.core.errors import FinbenchError
from finbench.core.files import unique_keys
from finbench.data import archives, spreadsheets
from finbench.data.splits import split_named

_CHUNK = 1 << 20  # bytes
_LINE = 16 << 20  # characters
_DOCUMENT = 512 << 20  # bytes of a JSON document, which is read whole
_PARTS = 12_000_000  # values in it, of some 60 bytes each
_ROW_PARTS = 200_000  # values in a row of JSONL: characters of which a megabyte would take twenty
_COLUMNS = 10_000  # of a CSV file
PACKED = {".gz": "gunzip -k", ".zst": "zstd -d", ".bz2": "bunzip2 -k", ".xz": "unxz -k"}  # and what unpacks it
_POINTER = b"version https://git-lfs.github.com/spec/"  # what Git leaves of a large file that was not fetched
_POINTER_SIZE = 1024  # bytes; a pointer has some 130


class RawRecord(NamedTuple):
    """One row as its authors wrote it. ``detail`` is what its file's name tells: a split, a level."""

    row: dict[str, Any]
    place: str
    detail: str | None = None
    source: str = ""  # the file's own name


@dataclass(frozen=True)
class SourceFile:
    """A file, or a member of a zip archive."""

    path: Path
    member: str | None = None
    archive: zipfile.ZipFile | None = field(default=None, compare=False, repr=False)  # open, for its many members
    sheet: str | None = None  # of a workbook

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem.lower()

    @property
    def size(self) -> int:
        if self.archive and self.member:
            return self.archive.getinfo(self.member).file_size
        return self.path.stat().st_size

    def __str__(self) -> str:
        sheet = f"#{self.sheet}" if self.sheet else ""
        return f"{self.path}:{self.member}" if self.member else f"{self.path}{sheet}"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes. A file that cannot be read, a pointer of Git LFS, or a damaged member, is a FinbenchError."""
        try:
            if self.archive is None or self.member is None:
                with open(self.path, "rb") as handle:
                    self._refuse_pointer(handle)
                    yield handle
            else:
                with self.archive.open(self.member) as handle:
                    self._refuse_pointer(handle)
                    yield handle
        except OSError as fault:
            raise FinbenchError(
                f"{self}: cannot be read ({fault.strerror or fault}).",
                f"Allow yourself to read it: chmod u+r {self.path}",
            ) from fault
        except RecursionError:  # a RuntimeError too: the decoder's, of what it reads
            raise
        except (*zips.TORN, RuntimeError) as fault:
            raise FinbenchError(
                f"{self}: the archive is damaged or encrypted ({fault}).",
                "Download it again, or unpack it yourself and name the folder.",
            ) from fault

    def _refuse_pointer(self, handle: IO[bytes]) -> None:
        if self.size < _POINTER_SIZE and handle.read(len(_POINTER)) == _POINTER:
            raise FinbenchError(
                f"{self}: a pointer of Git LFS, not the file itself.", "Fetch it: git lfs pull; or download the file."
            )
        handle.seek(0)


def beside(path: Path) -> list[str]:
    """What lies in the folder of a path that is not there, under a like name."""
    try:
        names = [found.name for found in path.parent.iterdir()]
    except OSError:
        return []
    return [str(path.parent / name) for name in difflib.get_close_matches(path.name, names, n=3, cutoff=0.7)]


def expand(paths: list[Path], pattern: str, like: str = "") -> list[SourceFile]:
    """Files as they are; of folders and zip archives what fits ``pattern`` (several, separated by spaces).

    ``like``: the hint of an error.
    """
    found: list[SourceFile] = []
    missing = [path for path, _ in map(spreadsheets.sheet_of, paths) if not path.exists()]
    if missing:
        near = [name for path in missing for name in beside(path)]
        mean = f" Did you mean {' or '.join(near[:3])}?" if near else ""
        here = "" if near or all(path.is_absolute() for path in missing) else f" (in {Path.cwd()})"
        raise FinbenchError(f"No such file{here}: {', '.join(map(str, missing))}.{mean}", like)
    for path, sheet in map(spreadsheets.sheet_of, paths):
        if path.is_dir():
            inside = [SourceFile(file) for file in sorted(path.rglob("*")) if file.is_file()]
        elif not path.is_file():
            raise FinbenchError(f"{path}: not a file or folder.", like)  # a pipe, a device: it may never end
        elif path.suffix.lower() != ".xlsx" and zipfile.is_zipfile(path):
            archive, names = archives.opened(path)
            inside = [SourceFile(path, name, archive) for name in names]
        else:
            found.append(SourceFile(path, sheet=sheet))
            continue
        fitting = [file for file in inside if any(fnmatch(file.name.lower(), p.lower()) for p in pattern.split())]
        if not fitting:
            raise FinbenchError(f"{path}: holds no file called {pattern.replace(' ', ' or ')}.", like)
        found += fitting
    return found


@contextmanager
def text_of(file: SourceFile, fallback: str | None = None) -> Iterator[io.TextIOWrapper]:
    """The text, line ends as they are; lines end at ``\\n`` alone.

    It is UTF-8 or UTF-16 by its byte order mark, else UTF-8, else ``fallback``. The whole file is decoded once,
    strictly, so that a fault stops the import before anything is made of it; it names the line. Faults as well: an
    empty file, a NUL character, lines that end in a lone carriage return or are too long to be held.
    """
    with file.open() as handle:
        head = handle.read(4)
    if head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):  # of which the first begins as UTF-16 does
        raise FinbenchError(f"{file}:1: UTF-32, which is not read.", "Convert it: iconv -f UTF-32 -t UTF-8 FILE > NEW")
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        _check(file, encoding)
    except FinbenchError as fault:
        marked = encoding == "utf-16" or head.startswith(codecs.BOM_UTF8)
        if fallback is None or marked or not isinstance(fault.__cause__, UnicodeDecodeError):
            raise
        encoding = fallback
        _check(file, encoding)
    with file.open() as handle:
        # not universal newlines: U+0085 and a lone carriage return may stand inside a line
        yield io.TextIOWrapper(handle, encoding=encoding, newline="\n")


def _check(file: SourceFile, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    line, empty, chunk, open_line, returns = 1, True, b"first", 0, False
    with file.open() as handle:
        while chunk:
            chunk = handle.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as fault:
                line += fault.object.count(b"\n", 0, fault.start)
                name = encoding.removesuffix("-sig").upper()
                raise FinbenchError(
                    f"{file}:{line}: not {name} ({fault.reason}).", f"Convert it: iconv -f LATIN1 -t {name} FILE > NEW"
                ) from fault
            if "\0" in text:
                line += text.count("\n", 0, text.index("\0"))
                order = "BE" if text.startswith("\0") else "LE"  # of a Latin letter the greater byte is 0
                name = ("UTF-32" if "\0\0\0" in text else "UTF-16") + order
                raise FinbenchError(
                    f"{file}:{line}: a NUL character; is this a text file?",
                    f"If it is {name}, convert it: iconv -f {name} -t UTF-8 FILE > NEW; else name another file.",
                )
            ends = text.count("\n")
            first, last = text.find("\n"), text.rfind("\n")
            longest = open_line + (first if ends else len(text))
            open_line = len(text) - last - 1 if ends else longest
            if longest > _LINE and file.suffix != ".json":
                raise FinbenchError(
                    f"{file}:{line}: a line of more than {_LINE:,} characters.",
                    "Break the line in two, or leave the file out.",
                )
            line += ends
            returns = returns or "\r" in text
            empty = empty and not text.strip()
    if empty:
        raise FinbenchError(f"{file}: the file is empty.", "Download it again, or leave it out.")
    if returns and line == 1 and file.suffix != ".json":
        said = "its lines end in carriage returns alone"
        raise FinbenchError(f"{file}: {said}.", "Convert it: tr '\\r' '\\n' < FILE > NEW")


Decoder = Callable[[SourceFile], Iterator["RawRecord | str"]]


def first_lines(file: SourceFile, most: int = 20) -> list[str]:
    """The first lines of a text file, each of at most a million characters."""
    with text_of(file) as text:
        return [line for line in (text.readline(1_000_000) for _ in range(most)) if line]


def told_delimiter(line: str) -> str:
    """What a first line of a CSV file tells Excel: ``sep=;``. Empty where it is another line."""
    found = re.fullmatch(r"sep=([^\w\s]|\t)\s*", line)
    return found[1] if found else ""


def delimiter_of(lines: Sequence[str]) -> str:
    """The sign between the fields of a CSV file, by its first lines: spreadsheets write semicolons in many countries.

    Of several in the header the one that parts all lines into as many fields, and into most; a comma where none does.
    """
    header = lines[0] if lines else ""
    if told := told_delimiter(header):
        return told
    if "," not in header:
        return max(",;\t|", key=header.count)
    found, most = ",", 1
    for sign in ",;\t|":
        try:
            counts = {len(row) for row in csv.reader(lines, strict=True, delimiter=sign) if row}
        except csv.Error:  # the last of the lines may end within quotes
            continue
        if len(counts) == 1 and max(counts) > most:
            found, most = sign, max(counts)
    return found


def decode_csv(file: SourceFile, delimiter: str = ",") -> Iterator[RawRecord | str]:
    """CSV with a header line, perhaps after one that tells Excel the delimiter."""
    with text_of(file) as text:
        reader, start = csv.reader(text, strict=True, delimiter=delimiter), 1
        try:
            first = next(reader)
            header = [name.strip() for name in (next(reader, []) if first == ["sep=", ""] else first)]
            if len(header) > _COLUMNS:
                raise FinbenchError(f"{file}:1: a header of {len(header):,} columns.", "Keep those that are needed.")
            if len(set(header)) < len(header):
                said = f"a column occurs twice in the header {','.join(header)!r}"
                raise FinbenchError(f"{file}:1: {said}.", "Rename one of the two columns in the file.")
            start, bare = reader.line_num + 1, True
            for row in reader:
                bare = False
                place, start = f"{file}:{start}", reader.line_num + 1
                if not row:
                    continue
                if len(row) != len(header):
                    yield f"{place}: {len(row)} fields, the header has {len(header)} ({','.join(header)[:80]})"
                else:
                    yield RawRecord(dict(zip(header, row, strict=True)), place)
            if bare:
                yield f"{file}:1: no row follows the header {','.join(header)[:80]!r}"
        except csv.Error as fault:  # what begins a row is known, not which of its quotes lacks another
            last = reader.line_num
            why = f"{fault}; the row goes on to line {last:,}: is a quote not closed?" if last > start else f"{fault}"
            quotes = "Correct that line; inside quotes a quote is doubled."
            raise FinbenchError(
                f"{file}:{start}: not valid CSV ({why}).",
                "Give texts as long as that as JSON lines." if "limit" in str(fault) and last == start else quotes,
            ) from fault


def decode_jsonl(file: SourceFile) -> Iterator[RawRecord | str]:
    """One JSON object a line."""
    with text_of(file) as text:
        for number, line in enumerate(text, 1):
            place = f"{file}:{number}"
            if not line.strip():
                continue
            if len(line) > _ROW_PARTS and sum(map(line.count, ",[{")) > _ROW_PARTS:
                yield f"{place}: a row of more than {_ROW_PARTS:,} values"
                continue
            try:
                row = json.loads(line, object_pairs_hook=unique_keys)
            except (ValueError, RecursionError) as fault:
                yield f"{place}: not valid JSON ({fault})"
                continue
            if isinstance(row, list) and row and isinstance(row[0], dict):
                yield f"{place}: a list of rows, where each line is one: call the file .json"
            else:
                yield RawRecord(row, place) if isinstance(row, dict) else f"{place}: a JSON object is expected"


def holds_lines(file: SourceFile) -> bool:
    """Whether a ``.json`` file holds JSON lines, as many programs write them: two objects or more, each on a line."""
    with text_of(file) as text:
        lines = list(itertools.islice((line for line in text if line.strip()), 2))
    try:
        return len(lines) == 2 and isinstance(json.loads(lines[0]), dict) and lines[1].lstrip().startswith("{")
    except (ValueError, RecursionError):
        return False


def decode_json(file: SourceFile) -> Iterator[RawRecord | str]:
    """One JSON document: a list of objects, perhaps the one value of an object; or objects by id (the key ``_id``)."""
    if file.size > _DOCUMENT:
        raise FinbenchError(f"{file}: a JSON document of {file.size:,} bytes.", "Give it as JSONL, one row a line.")
    try:
        with text_of(file) as text:
            whole = text.read()
        if sum(map(whole.count, ",[{")) > _PARTS:
            raise FinbenchError(f"{file}: a JSON document of more than {_PARTS:,} values.", "Give it as JSONL.")
        document = json.loads(whole, object_pairs_hook=unique_keys)
        if not isinstance(document, dict | list) or not document:
            raise ValueError("a list of objects, or objects by id, are expected")
    except (ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{file}:{getattr(fault, 'lineno', 1)}: not valid JSON ({fault}).",
            "Correct it at that line, or download it again.",
        ) from fault
    if isinstance(document, dict) and len(document) == 1 and not any(map(split_named, document)):
        [(key, rows)] = document.items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            console.say(f"{file}: its rows are the list under {key!a}.")
            document = rows
    if isinstance(document, dict) and all(isinstance(value, list) for value in document.values()):
        said = f"lists under {', '.join(map(ascii, list(document)[:4]))}: columns, or splits"
        raise FinbenchError(f"{file}: {said}.", "Write a list of objects, one a row; a column may name their split.")
    entries = document.items() if isinstance(document, dict) else enumerate(document, 1)
    for key, row in entries:
        place = f"{file}: id {ascii(key)[1:-1]}" if isinstance(document, dict) else f"{file}: entry {key}"
        if isinstance(row, dict):
            yield RawRecord({**row, "_id": key} if isinstance(document, dict) else row, place)
        else:
            yield f"{place}: a JSON object is expected"


def decode_parquet(file: SourceFile) -> Iterator[RawRecord | str]:
    """Parquet, as the Hub stores data sets."""
    from finbench.data import parquets

    if file.member:
        raise FinbenchError(f"{file}: Parquet is not read out of archives.", "Unpack it first.")
    for number, row in enumerate(parquets.rows(file.path), 1):
        yield RawRecord(row, f"{file}: row {number}")


def _decode_xlsx(file: SourceFile) -> Iterator[RawRecord | str]:
    with file.open() as handle:
        content = handle.read(spreadsheets.LARGEST + 1)
    for found in spreadsheets.rows(str(file), content, file.sheet):
        yield found if isinstance(found, str) else RawRecord(*found)


def decode_conll(file: SourceFile) -> Iterator[RawRecord | str]:
    """CoNLL 2003: ``token POS chunk tag`` a line, a blank line between sentences; a Record is one sentence."""
    tokens: list[str] = []
    tags: list[str] = []
    start, whole = 1, True  # a sentence with a line that cannot be read is no sentence
    with text_of(file) as text:
        for number, line in enumerate(itertools.chain(text, ["\n"]), 1):
            fields = line.split()
            if not fields or fields[0] == "-DOCSTART-":
                if tokens and whole:
                    yield RawRecord({"tokens": tokens, "tags": tags}, f"{file}:{start}")
                tokens, tags, whole = [], [], True
                continue
            if not tokens:
                start = number
            if len(fields) == 4:
                tokens.append(fields[0])
                tags.append(fields[3])
            else:
                yield f"{file}:{number}: a line is token POS chunk tag, found {line.strip()[:40]!r}"
                whole = False


def decode_at(file: SourceFile) -> Iterator[RawRecord | str]:
    """Lines ``sentence@label``, split at the last ``@``, ISO-8859-1 where they are not UTF-8."""
    with text_of(file, "iso-8859-1") as text:
        for number, line in enumerate(text, 1):
            sentence, at, label = line.rpartition("@")
            if at:
                yield RawRecord({"sentence": sentence, "label": label.strip()}, f"{file}:{number}")
            elif line.strip():
                yield f"{file}:{number}: a line is sentence@label, found {line.strip()[-40:]!r}"


def explained(path: str, found: Iterator[Any]) -> Iterator[Any]:
    """Rows of a data set of the Hub. What the Hub raises is explained, not what is done with a row."""
    while True:
        with hub.data_explained(path):
            row = next(found, None)
        if row is None:
            return
        yield row


_BY_SUFFIX: dict[str, Decoder] = {
    ".csv": decode_csv,
    ".json": decode_json,
    ".jsonl": decode_jsonl,
    ".ndjson": decode_jsonl,
    ".parquet": decode_parquet,
    ".xlsx": _decode_xlsx,
}
TEXT = {"sentence@label": decode_at, "conll": decode_conll}


def decoder_of(file: SourceFile, text: str | None) -> Decoder:
    """The decoder by the file's ending; ``text`` names the one for any other ending."""
    if file.suffix == ".json" and holds_lines(file):
        return decode_jsonl
    if file.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[file.suffix]
    if text:
        return TEXT[text]
    if file.suffix in PACKED:
        raise FinbenchError(f"{file} is compressed.", f"Unpack it: {PACKED[file.suffix]} {file}")
    raise FinbenchError(
        f"{file}: files of rows end with {', '.join(_BY_SUFFIX)}.",
        "Name files that end so, or a folder or zip archive of them.",
    )
