"""Documents, streamed from a source: text files, JSON lines, filings, data sets. Which ones are held out.

No file set is held in memory, only one document, and a hash (some hundred bytes) of each seen. Whether a document is
held out depends on its text alone (a salted hash of the normalised text), so that copies of one, in whatever source,
are on one side, and adding documents moves none.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import hub
from finbench.core import paths, refs
from finbench.core.errors import FinbenchError, reason
from finbench.core.files import digest, sha256_file
from finbench.data.xbrl import passages
from finbench.pretraining.spec import TextSource

_LARGEST = 256 * 2**20  # bytes of a document
_HELD = "pretrain:"  # beside the salt of the tasks' own split: which side a text is on there says nothing here


@dataclass(frozen=True)
class Located:
    """A source with its files, or its data set, found. ``identity``: a digest of all that decides its documents."""

    source: TextSource
    name: str
    files: tuple[Path, ...]
    identity: str
    revision: str | None = None  # of a data set on the Hub
    rows: Any = None  # of a data set


def locate(source: TextSource, name: str) -> Located:
    """Find the files of a source. Raises FinbenchError for none, and for a data set that cannot be had."""
    if source.kind in ("hub", "folder"):
        return _data_set(source, name)
    place = Path(source.place).expanduser()
    found: Iterable[Path] = [place]
    if place.is_dir():
        found = place.rglob({"text": "*.txt", "jsonl": "*.jsonl", "filings": "*"}[source.kind])
    elif source.kind != "filings" and not place.is_file():
        found = map(Path, glob.glob(str(place), recursive=True))
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise FinbenchError(
            f"data: no file at {source.kind}: {source.place}", "Give a file, a folder, or a pattern in quotes."
        )
    shas = [sha256_file(path) for path in files]
    stated = source.model_dump(include={"field", "per"} if source.kind in ("text", "jsonl") else set())
    return Located(source, name, tuple(files), digest({"kind": source.kind, "files": shas, **stated}))


def _data_set(source: TextSource, name: str) -> Located:
    """A data set: streamed from the Hub at one commit, or memory-mapped from a folder."""
    import datasets

    stated: dict[str, Any] = {"kind": source.kind, **source.model_dump(include={"field", "config", "split"})}
    files: list[Path] = []
    revision: str | None = None
    if source.kind == "hub":
        ref = refs.parse(source.place)
        if ref.kind != "hub":
            raise FinbenchError(
                f"data: a data set on the Hub is hub:org/name[@rev], got {source.place!r}.",
                "For example: hub: wikitext/wikitext@main",
            )
        revision = hub.dataset_sha(ref.name, ref.revision or "main")
        with hub.data_explained(ref.name):
            rows = datasets.load_dataset(ref.name, source.config, split=source.split, revision=revision, streaming=True)
            columns = list(rows.column_names or next(iter(rows.take(1)), {}))
        stated |= {"name": ref.name, "revision": revision}
    else:
        place = Path(source.place).expanduser()
        try:
            rows = datasets.load_from_disk(str(place))
            rows = rows[source.split] if isinstance(rows, datasets.DatasetDict) else rows
        except (OSError, ValueError, KeyError) as fault:
            raise FinbenchError(
                f"data: {place} holds no data set that datasets can read: {reason(fault)}",
                "Name a folder that datasets' save_to_disk wrote.",
            ) from fault
        columns = rows.column_names
        files = sorted(path for path in place.rglob("*.arrow") if path.is_file())
        stated["files"] = [sha256_file(path) for path in files]
    if source.field not in columns:
        raise FinbenchError(
            f"data: {source.place} has no column {source.field!r}; it has {', '.join(columns[:12])}.",
            f"Set field: {columns[0] if columns else 'text'}",
        )
    return Located(source, name, tuple(files), digest(stated), revision, rows)


def raw(located: Located) -> Iterator[str]:
    """The documents of a source as they are, in a fixed order. Raises FinbenchError with file and line."""
    source = located.source
    if source.kind == "filings":
        yield from passages(Path(source.place).expanduser())
    elif located.rows is not None:
        with hub.data_explained(source.place) if source.kind == "hub" else contextlib.nullcontext():
            for row in located.rows.select_columns([source.field]):
                yield _text(row[source.field], located.name)
    else:
        for path in located.files:
            yield from _lines_of_json(path, source.field) if source.kind == "jsonl" else _plain(path, source.per)


def _lines_of_json(path: Path, key: str) -> Iterator[str]:
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            where = f"{path}:{number}"
            if len(line) > _LARGEST:
                raise FinbenchError(
                    f"{where}: a line of more than {_LARGEST >> 20} MiB.", "Cut the document into several lines."
                )
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as fault:
                hint = "Correct that line: each line is one JSON object."
                raise FinbenchError(f"{where}: not JSON ({fault})", hint) from fault
            if not isinstance(row, dict) or key not in row:
                known = f"; it has {', '.join(map(str, list(row)[:8]))}" if isinstance(row, dict) else ""
                raise FinbenchError(f"{where}: no field {key!r}{known}.", "Set field: in the recipe's data.")
            yield _text(row[key], where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise FinbenchError(
            f"{where}: a document is text, got {type(value).__name__}.",
            "Name the field of the text in the recipe's data: field: text",
        )
    return value


def _plain(path: Path, per: str | int) -> Iterator[str]:
    """The documents of a text file: all of it, its lines, its paragraphs, or paragraphs up to ``per`` characters."""
    try:
        if per == "file":
            if path.stat().st_size > _LARGEST:
                raise FinbenchError(
                    f"{path}: a document of more than {_LARGEST >> 20} MiB.", "Cut it up: per: paragraph, or per: 20000"
                )
            yield path.read_text(encoding="utf-8-sig")
            return
        with path.open(encoding="utf-8-sig") as handle:
            if per == "line":
                yield from (line.rstrip("\n") for line in handle)
            else:
                blocks = itertools.groupby(handle, key=lambda line: bool(line.strip()))
                paragraphs = ("".join(lines).strip("\n") for words, lines in blocks if words)
                yield from _gathered(paragraphs, per if isinstance(per, int) else 0)
    except UnicodeDecodeError as fault:
        raise FinbenchError(f"{path}: not UTF-8 ({fault.reason} at byte {fault.start})", "Convert it: iconv") from fault
    except OSError as fault:
        raise FinbenchError(
            f"{path}: cannot be read ({fault.strerror})", f"Allow yourself to read it: chmod u+r {path}"
        ) from fault


def _gathered(parts: Iterator[str], most: int) -> Iterator[str]:
    """Consecutive paragraphs together, up to ``most`` characters; one that is longer stands alone."""
    held: list[str] = []
    size = 0
    for part in parts:
        if held and size + len(part) + 2 > most:
            yield "\n\n".join(held)
            held, size = [], 0
        held.append(part)
        size += len(part) + 2
    if held:
        yield "\n\n".join(held)


class Divider:
    """Drops empty documents and exact copies, and says which of the others are held out."""

    def __init__(self, share: float) -> None:
        self.share, self.splits, self.seen = share, paths.helper("sets").splits, set[bytes]()
        self.read, self.dropped = 0, Counter[str]()

    def held_out(self, text: str) -> bool | None:
        """Whether the document is held out; None if it is dropped."""
        self.read += 1
        if not text.strip():
            self.dropped["empty"] += 1
            return None
        try:
            exact = hashlib.sha256(text.encode()).digest()[:16]
        except UnicodeEncodeError:  # half of a surrogate pair is no character, and no tokenizer takes it
            self.dropped["not Unicode"] += 1
            return None
        if exact in self.seen:
            self.dropped["exact copies"] += 1
            return None
        self.seen.add(exact)
        found = self.splits.hash_of(_HELD + self.splits.normalise(text))
        return bool(int.from_bytes(found[:8], "big") / 2**64 < self.share)
