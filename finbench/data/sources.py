"""``finbench data import``: the authors' original files, or the Hub's copy of them, become canonical rows.

They are ``<data dir>/<set>/<split>.jsonl`` and ``dataset.json``. A row is a JSON object with ``id``, ``text`` and what
the set adds (``label``, ``score``, ...); ``group`` names the source that rows share (a headline, an article), by which
intervals cluster. The rule that splits is ``tasks/lib/sets/splits.py``, for lm-eval's own loader follows it too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from finbench import hub
from finbench.core import catalog, paths
from finbench.core.console import say
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import cannot_write, check_replaced, folder_atomic, sha256_file, write_atomic
from finbench.data.readers import (
    RawRecord,
    SourceFile,
    decode_csv,
    decoder_of,
    delimiter_of,
    expand,
    explained,
    first_lines,
)

SPLITS = ("train", "validation", "test")
WRITTEN = (
    "dataset.json",
    *(f"{split}.jsonl" for split in SPLITS),
)  # by an import; the first shows that
SHOWN = 10  # faults kept and listed in a message


@dataclass
class ImportReport:
    """What an import did."""

    set: str
    folder: Path
    read: int = 0
    by_file: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    faults: list[str] = field(default_factory=list)  # the first ``SHOWN``
    note: str = ""
    divided: bool = False  # by the authors' own files
    first: tuple[dict[str, Any], str, str | None] | None = None  # row, where it stands, what its file's name tells

    def fault(self, said: str) -> None:
        self.rejected += 1
        if len(self.faults) < SHOWN:
            self.faults.append(said)


def sets() -> Any:
    """The package ``tasks/lib/sets``: readers, the table of sets and the rule that splits."""
    return paths.helper("sets")


def import_data(name: str, files: list[Path], data_dir: Path | None = None, skip_bad: bool = False) -> ImportReport:
    """Turn set ``name`` into canonical rows in the data directory: from ``files``, else from the Hub.

    Files may be folders and zip archives. Rows that cannot be read stop the import, the first ones named by file and
    line, unless ``skip_bad``: then they are left out and counted. Memory does not grow with the number of rows, but
    for JSON documents (read whole), FiQA and FNXL. Nothing is written before everything was read.
    """
    name = name.removeprefix(catalog.PREFIX)
    table = sets().SETS
    if name not in table:
        raise unknown("data set", name, table, "finbench data list")
    chosen = table[name]
    report = ImportReport(name, paths.data_dir(data_dir) / name)
    check_replaced(report.folder, WRITTEN, WRITTEN[0])
    origin: dict[str, Any]
    records: Iterable[RawRecord | str]
    if files:
        sources = _ordered(name, chosen, expand(files, chosen.files, f"Like this: {catalog.of_set(name).data}"))
        records = _records(chosen, sources)
        used = sorted({source.path for source, _ in sources})
        shas = {os.fsencode(path.name).decode("utf-8", "replace"): sha256_file(path) for path in used}
        alike = {file: shas[file] == sha for file, sha in chosen.shas.items() if file in shas}
        origin = {"sources": shas} | ({"as_published": alike} if alike else {})
    else:
        found = _located(name, chosen)
        rows = explained(chosen.hub.path, sets().hub_records(chosen.hub, found["revision"]))
        records = (RawRecord(row, place, detail, detail or "") for row, place, detail in rows)
        origin = {"hub": found}
    _divide(chosen, records, report, origin, skip_bad)
    for line in _provenance(name, origin):
        say(line)
    return report


def _provenance(name: str, origin: Mapping[str, Any]) -> Iterator[str]:
    """Which commit of the Hub was taken, and which files are the authors' to the byte, as ``dataset.json`` records."""
    if found := origin.get("hub"):
        pin = "as pinned" if found["pinned"] else "the newest; pin it: finbench data lock"
        yield f"{name} is hub:{found['path']} at commit {found['revision']}, {pin}."
    for same, told in ((True, "the authors' own to the byte"), (False, "a part or a copy, not the authors' own")):
        if files := [file for file, alike in origin.get("as_published", {}).items() if alike is same]:
            yield f"By SHA-256 {', '.join(files)}: {told}."


def _divide(
    chosen: Any, records: Iterable[RawRecord | str], report: ImportReport, origin: dict[str, Any], skip_bad: bool
) -> None:
    """Read, divide and write. Faults stop it before anything is written."""
    helper, name = sets(), report.set
    try:
        beside = next(folder for folder in report.folder.absolute().parents if folder.is_dir())
        units = _units(chosen, records, report)
        with helper.Divided(name, units, chosen.verbatim, beside, chosen.offer, chosen.template) as divided:
            if report.rejected and not skip_bad:
                more = report.rejected - len(report.faults)
                raise FinbenchError(
                    f"{report.rejected} of {report.read} rows cannot be read:\n  "
                    + "\n  ".join(report.faults)
                    + (f"\n  ... and {more} more" if more else ""),
                    "Correct the file, or leave such rows out with --skip-bad.",
                )
            if not report.read:
                raise FinbenchError(
                    f"{name}: there is no row in {', '.join(report.by_file) or 'these files'}.",
                    "Give all of the authors' files: finbench data list",
                )
            report.dropped += divided.dropped
            for split in ("train", "test") if chosen.trains else ("test",):
                if not divided.count(split):
                    raise FinbenchError(
                        f"{name}: no row is left for the {split} split.", "Give all of the authors' files."
                    )
            counts = report.by_file.values()
            given = max(counts) if chosen.nested else sum(counts)  # the loosest file holds the others
            if given != chosen.whole:
                whole = f"{given:,} of the authors' {chosen.whole:,} rows"
                report.note = f"These files hold {whole}: not the whole set, nor its scores."
            earlier = describe_set(name, report.folder.parent)
            task = catalog.of_set(name)
            about = {"source": chosen.origin, "licence": task.licence, "restricted": task.restricted}
            about |= {"split_rule": task.split, "complete": not report.note}
            about["share"] = _share(chosen, report, given)
            _write(report, divided.rows, {**about, **origin})
    except (OSError, sqlite3.Error) as fault:  # of the disk; what a source raises is a FinbenchError already
        raise cannot_write(report.folder, fault) from fault
    except helper.WrongFile as fault:
        hint = f"Is it a file of {name}? Its authors' are: {chosen.files}"
        if report.first and (
            others := [other for other in helper.SETS if other != name and _is_of(other, report.first)]
        ):
            hint = f"It reads as a file of {' or '.join(others)}: finbench data import {others[0]} ..."
        raise FinbenchError(f"{fault}.", hint) from fault
    if earlier and earlier["rows"] != report.rows:
        say(f"It takes the place of an earlier import with {sum(earlier['rows'].values()):,} rows.")


def _share(chosen: Any, report: ImportReport, given: int) -> float | None:
    """How much of the authors' test was read; None for all of it, or where that is unknown."""
    whole = chosen.whole
    if report.divided and not chosen.verbatim:  # by the authors' files: a test may be whole though others are missing
        whole = given = 0
        for pattern, rows in chosen.tests.items():
            read = sum(count for name, count in report.by_file.items() if fnmatch(name.lower(), pattern))
            if read:
                whole, given = rows, read
                break
    return max(round(given / whole, 4), 0.0001) if given < whole else None


def _write(report: ImportReport, rows: Callable[[str], Iterator[dict[str, Any]]], about: dict[str, Any]) -> None:
    """Write the set's folder at once: rows and ``dataset.json``. An earlier folder stays until then.

    Rows stream to disk; the digest is over the lines of train, validation and test, in this order.
    """
    whole = hashlib.sha256()
    shas = {}
    with folder_atomic(report.folder) as staging:
        for split in SPLITS:
            sha, count, path = hashlib.sha256(), 0, staging / f"{split}.jsonl"
            with path.open("wb") as handle:
                for row in rows(split):
                    line = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
                    handle.write(line)
                    sha.update(line)
                    count += 1
            report.rows[split] = count
            whole.update(f"{split} {count} {sha.hexdigest()}\n".encode())
            if count:
                shas[path.name] = sha.hexdigest()
            else:
                path.unlink()
        card = {
            "schema": 0,
            "set": report.set,
            **about,
            "read": report.read,
            "rows": report.rows,
            "dropped": dict(sorted(report.dropped.items())),
            "rejected": report.rejected,
            "sha256": shas,
            "digest": whole.hexdigest(),
        }
        (staging / "dataset.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _units(chosen: Any, records: Iterable[RawRecord | str], report: ImportReport) -> Iterator[Any]:
    """The set's units; faults and rows left out on purpose go into ``report``."""
    drop = sets().Drop

    def good() -> Iterator[tuple[dict[str, Any], str, str | None]]:
        for record in records:
            report.read += 1
            said = record if isinstance(record, str) else _unwritable(record)
            if not isinstance(record, str):
                report.by_file[record.source] += 1
            if said and chosen.joined:
                raise FinbenchError(
                    f"{said}. Each row is a word: without it the sentence would be another sentence.",
                    "Correct the file.",
                )
            if said:
                report.fault(said)
            elif not isinstance(record, str):
                report.first = report.first or (record.row, record.place, record.detail)
                yield record.row, record.place, record.detail

    for item in chosen.units(good()):
        if isinstance(item, str):
            report.fault(item)
        elif isinstance(item, drop):
            report.dropped[item.why] += 1
        else:
            report.divided = report.divided or item.split is not None
            yield item


def _is_of(name: str, first: tuple[dict[str, Any], str, str | None]) -> bool:
    """Whether a file's first record reads as one of this set."""
    try:
        return any(isinstance(unit, sets().Unit) for unit in sets().SETS[name].units(iter([first])))
    except (sets().WrongFile, FinbenchError, LookupError, TypeError, ValueError, AttributeError):
        return False  # readers look at their own columns first: what else they raise comes from others' details


def _unwritable(record: RawRecord) -> str:
    """Why a row cannot be UTF-8: JSON escapes can spell half of a surrogate pair. Empty if it can."""
    try:
        json.dumps(record.row, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError as fault:
        return f"{record.place}: not Unicode text ({fault.reason})"
    return ""


def _ordered(name: str, chosen: Any, sources: list[SourceFile]) -> list[tuple[SourceFile, str]]:
    """Files with what their names tell, so ordered that the order in which they were given changes nothing."""
    told = []
    for source in dict.fromkeys(sources):
        detail = chosen.detail(source.stem)
        if detail is None:
            raise FinbenchError(
                f"{source.name}: the name does not say which split it is.",
                "Name it ...train..., ...valid... or ...test...",
            )
        told.append((source, detail))
    if name == "fiqa_sa" and len({"absa" in source.stem for source, _ in told}) > 1:
        raise FinbenchError(
            "These FiQA files are of two families whose splits contradict each other.",
            "Give either the challenge's task1_*_ABSA_{train,test}.json or one re-split, never both.",
        )
    return sorted(told, key=lambda pair: (-int(pair[1]) if chosen.nested else 0, pair[0].name, str(pair[0])))


def _records(chosen: Any, sources: list[tuple[SourceFile, str]]) -> Iterator[RawRecord | str]:
    for source, detail in sources:
        for record in decoder_of(source, chosen.text)(source):
            yield record if isinstance(record, str) else record._replace(detail=detail or None, source=source.name)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file, by its ending. The first row that cannot be read is a FinbenchError."""
    file = SourceFile(path)
    decode = decoder_of(file, None)
    if file.suffix == ".csv":
        decode = functools.partial(decode_csv, delimiter=delimiter_of(first_lines(file)))
    for record in decode(file):
        if isinstance(record, str):
            raise FinbenchError(f"{record}.", "Correct the file.")
        yield record.row


def on_hub(name: str) -> bool:
    """Whether the set lies on the Hub."""
    chosen = sets().SETS.get(name)
    return chosen is not None and chosen.hub is not None


def lock_file() -> Path:
    """``tasks/datasets.lock``: set -> {path, revision}, the commits at which data sets on the Hub are taken."""
    return paths.shipped("tasks") / "datasets.lock"


def locked_sets() -> dict[str, dict[str, str]]:
    """What ``datasets.lock`` holds; empty where there is none."""
    try:
        value = json.loads(lock_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(f"{lock_file()} cannot be read ({fault}).", "Write it again: finbench data lock") from fault
    entries = value.values() if isinstance(value, dict) else [None]
    if not all(isinstance(entry, dict) and {"path", "revision"} <= set(entry) for entry in entries):
        raise FinbenchError(f"{lock_file()} is torn.", "Write it again: finbench data lock")
    return dict(value)


def lock_sets() -> dict[str, dict[str, str]]:
    """Pin every set that lies on the Hub to its present commit, in ``datasets.lock``.

    Sets that cannot be had keep the pin they have; they are named by a FinbenchError after the others are written.
    """
    found: dict[str, dict[str, str]] = {}
    with contextlib.suppress(FinbenchError):  # a torn one is written anew
        found = locked_sets()
    faults = []
    for name, chosen in sets().SETS.items():
        if chosen.hub is None:
            continue
        try:
            found[name] = {"path": chosen.hub.path, "revision": hub.dataset_sha(chosen.hub.path, chosen.hub.ref)}
        except hub.Unreachable:
            raise
        except FinbenchError as fault:
            faults.append(f"{name}: {fault.message}")
    write_atomic(lock_file(), json.dumps(found, indent=1, sort_keys=True) + "\n")
    if faults:
        raise FinbenchError(
            f"{len(faults)} of the sets were not pinned, the others are: " + " ".join(faults),
            "Ask for access, or log in (hf auth login), then repeat the command.",
        )
    return found


def _located(name: str, chosen: Any) -> dict[str, Any]:
    """{path, revision, pinned} of a set on the Hub."""
    command = catalog.of_set(name).data
    if chosen.hub is None:
        raise FinbenchError(f"Which files? {name} is made from its authors' own.", f"Like this: {command}")
    pin = locked_sets().get(name)
    if pin and pin["path"] == chosen.hub.path:
        return {"path": chosen.hub.path, "revision": pin["revision"], "pinned": True}
    try:
        revision = hub.dataset_sha(chosen.hub.path, chosen.hub.ref)
        known = chosen.hub.known
        same = bool(known) and hub.dataset_sha(chosen.hub.path, "main").startswith(known)
    except FinbenchError as fault:
        raise type(fault)(
            f"Which files? Without any, {name} comes from the Hub: {fault.message}", f"From files: {command}"
        ) from fault
    if known and not same:
        say(f"hub:{chosen.hub.path} has moved on from {known}, from which {name} was described: its rows may differ.")
    return {"path": chosen.hub.path, "revision": revision, "pinned": same or revision == chosen.hub.ref}


def edition_of_test(name: str, data_dir: Path | None = None) -> str | None:
    """SHA-256 of the test rows of an imported set; None where it is not here."""
    found = (describe_set(name, data_dir) or {}).get("sha256", {}).get("test.jsonl")
    return str(found) if found else None


def describe_set(name: str, data_dir: Path | None = None) -> dict[str, Any] | None:
    """``dataset.json`` of an imported set, or None."""
    path = paths.data_dir(data_dir) / name / "dataset.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or not isinstance(value.get("rows"), dict):
            raise ValueError("an object with rows is expected")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(f"{path} is torn ({fault}).", f"Import it again: {catalog.of_set(name).data}") from fault
    return value
