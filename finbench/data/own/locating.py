"""Where rows of the user's own lie: files, folders of files, data sets of the Hub at a commit."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from finbench import hub
from finbench.core import paths, refs
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import cannot_write, digest, sha256_file, write_atomic
from finbench.core.records import OwnData
from finbench.data import readers, spreadsheets
from finbench.data.audit import formats
from finbench.data.own.shapes import Recognised, recognise
from finbench.data.readers import RawRecord, SourceFile
from finbench.data.splits import split_in

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
_PATTERN = " ".join(f"*{suffix}" for suffix in _SUFFIXES)
_ABOUT = re.compile(r"(dataset|dataset_infos?|dataset_dict|state)\.json")  # what lies beside rows, and is none
_EXAMPLE = "Name a .jsonl, .json, .csv, .tsv, .parquet or .xlsx file, a folder of them, or hub:org/name"
_SAMPLE = 100  # rows by which a format is recognised


class OwnFile(NamedTuple):
    """A file of own rows, and what it is called in messages."""

    file: SourceFile
    name: str

    def records(self) -> Iterator[RawRecord | str]:
        """Its rows; a row that cannot be read is a text that starts with its line."""
        return formats.rows(self.file, strict=True)


class LocatedRows(NamedTuple):
    """Own rows, found. ``sha256``: of the file (and the name of its sheet); of several, of their names and hashes.

    ``revision``: on the Hub.
    """

    stated: OwnData
    files: list[OwnFile]
    sha256: str
    revision: str | None
    left: list[str]  # files of a folder that are not read

    @property
    def name(self) -> str:
        """For people and records."""
        ref = self.stated.source
        return ref if ref.startswith("hub:") else Path(ref).name or ref


def absolute(source: str, folder: Path | None = None) -> str:
    """A source that means the same in another folder; ``folder``: what a relative path is relative to."""
    if source.startswith("hub:"):
        refs.parse(source)
        return source
    return os.path.abspath((folder or Path()) / Path(source).expanduser())


def locate(stated: OwnData) -> LocatedRows:
    """Find the files of a source. Raises FinbenchError for none, and for another digest than the recipe states.

    A data set of the Hub is fetched once a commit, its train split, into the cache.
    """
    revision, left = None, list[str]()
    if stated.source.startswith("hub:"):
        path, revision = _fetched(stated.source)
        files = [OwnFile(SourceFile(path), stated.source.partition("@")[0])]
    else:
        files, left = _files(Path(stated.source))
    shas = {one.name: _sha(one.file) for one in files}
    sha = next(iter(shas.values())) if len(shas) == 1 else digest(shas)
    found = LocatedRows(stated, files, sha, revision, left)
    if stated.sha256 and stated.sha256 != sha:
        raise FinbenchError(
            f"{found.name} is not what the recipe names: its SHA-256 is {sha[:12]}, the recipe says "
            f"{stated.sha256[:12]}.",
            f"Name the file that was meant, or take the new one by sha256: {sha}",
        )
    return found


def _sha(file: SourceFile) -> str:
    """Of a file; a named sheet of a workbook is not the rows of another one."""
    whole = sha256_file(file.path)
    return digest([whole, file.sheet.casefold()]) if file.sheet else whole


def remember(found: LocatedRows) -> None:
    """Where a source lies: an adapter's record has its SHA-256 only, and a later test may ask what it learnt."""
    place = found.files[0].file.path if found.revision else found.stated.source
    write_atomic(_known(found.sha256), json.dumps({"source": str(place)}) + "\n")


def again(stated: OwnData, sha256: str, near: Sequence[Path] = ()) -> LocatedRows | None:
    """The very rows of a SHA-256: where they were when they were learnt, or by their name in folders ``near``."""
    places = [folder / Path(stated.source).name for folder in near]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        places.insert(0, Path(json.loads(_known(sha256).read_text(encoding="utf-8"))["source"]))
    for place in places:
        if spreadsheets.sheet_of(place)[0].exists():
            try:
                return locate(stated.model_copy(update={"source": str(place), "sha256": sha256}))
            except FinbenchError:  # other rows lie there now
                continue
    return None


def _known(sha256: str) -> Path:
    return paths.cache_dir() / "own-rows" / f"{sha256}.json"


def holds_conversations(stated: OwnData) -> bool:
    """Whether the first rows of a source that is here are conversations, which need a chat template."""
    if stated.source.startswith("hub:"):
        return False
    files, _ = _files(Path(stated.source))
    return format_of(files[0], stated)[0].shape.chat


def format_of(file: OwnFile, stated: OwnData) -> tuple[Recognised, Iterator[RawRecord | str]]:
    """The format of a file, and its rows from the first one on."""
    try:
        rows = file.records()
        head = list(itertools.islice(rows, _SAMPLE))
    except FinbenchError as fault:
        raise FinbenchError(fault.message, fault.hint.replace("data audit", "data check")) from fault
    known = [one.row for one in head if isinstance(one, RawRecord)]
    return recognise(known, stated.map, file.name), itertools.chain(head, rows)


def _files(path: Path) -> tuple[list[OwnFile], list[str]]:
    if path.suffix.lower() in readers.PACKED:
        raise FinbenchError(f"{path} is compressed.", f"Unpack it: {readers.PACKED[path.suffix.lower()]} {path}")
    if path.is_file() and path.suffix.lower() not in (*_SUFFIXES, ".zip"):
        raise FinbenchError(f"{path}: files of rows do not end with {path.suffix or 'nothing'}.", _EXAMPLE)
    if path.is_dir() and (packed := sorted(one for one in path.rglob("*") if one.suffix.lower() in readers.PACKED)):
        unpack = readers.PACKED[packed[0].suffix.lower()]
        raise FinbenchError(
            f"{path} holds what is compressed: {', '.join(one.name for one in packed[:3])}.",
            f"Unpack it: {unpack} {packed[0]}; or name the files one by one: --data FILE --data FILE",
        )
    found = readers.expand([path], _PATTERN, _EXAMPLE)
    if len(found) == 1 and found[0].path == spreadsheets.sheet_of(path)[0] and found[0].member is None:
        return [OwnFile(found[0], path.name)], []
    named = [OwnFile(one, one.member or one.path.relative_to(path).as_posix()) for one in found]
    named = [one for one in named if not _hidden(one.name) and not _ABOUT.fullmatch(one.file.name)]
    # what is held out by its name is held out here
    kept = [one for one in named if split_in(one.name) in (None, "train")]
    left = [one.name for one in named if one not in kept]
    if not kept:
        said = f"only rows to test on ({', '.join(left[:3])})" if left else "no file of rows"
        raise FinbenchError(f"{path} holds {said}.", "Name the files one by one: --data FILE --data FILE")
    return kept, left


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _fetched(source: str) -> tuple[Path, str]:
    """The train split of a data set of the Hub as JSON lines in the cache, and its commit."""
    ref = refs.parse(source)
    pinned = ref.revision if ref.pinned else None
    place = paths.cache_dir() / "own" / ref.name.replace("/", "--")
    if pinned and (place / f"{pinned}.jsonl").is_file():
        return place / f"{pinned}.jsonl", pinned
    revision = hub.dataset_sha(ref.name, ref.revision or "main")
    target = place / f"{revision}.jsonl"
    if target.is_file():
        return target, revision
    say(f"Fetching the train split of hub:{ref.name} at {revision[:12]} ...")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=place, delete=False, suffix=".part") as handle:
            try:
                _write(formats.hub_rows(ref.name, revision, "train"), handle, ref.name)
            except BaseException:
                os.unlink(handle.name)
                raise
        os.replace(handle.name, target)
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    return target, revision


def _write(rows: Iterator[RawRecord | str], handle: object, name: str) -> None:
    configuration: Sequence[str] = ()
    for row in rows:
        if isinstance(row, str):
            continue
        if configuration and row.place.split()[:1] != configuration:
            raise FinbenchError(
                f"hub:{name} has several configurations ({configuration[0]}, {row.place.split()[0]}, ...).",
                f"Fetch one (hf download {name} --repo-type dataset --local-dir DIR), then --data DIR",
            )
        configuration = row.place.split()[:1]
        print(json.dumps(row.row, ensure_ascii=True, default=str), file=handle)  # type: ignore[call-overload]
