"""Reads what is named, row by row, for every check to look at, or to look for it in training files (``--against``)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from finbench.core import catalog, paths
from finbench.core.console import progress
from finbench.core.errors import FinbenchError, counted, unknown
from finbench.data.audit import (
    answers,
    copies,
    crossed,
    entities,
    figures,
    formats,
    known,
    label_checks,
    near,
    ranges,
    tones,
)
from finbench.data.audit.columns import Item, as_text, canonical, layout
from finbench.data.audit.context import LABELS, AuditContext, AuditedFile, share
from finbench.data.audit.findings import LEVELS, SHOWN, Audit, Finding
from finbench.data.audit.formats import Input
from finbench.data.audit.row_store import RowStore, stored
from finbench.data.audit.texts import Texts, shared_pages
from finbench.data.contamination import Index, fields
from finbench.data.readers import RawRecord, beside
from finbench.data.splits import split_in
from finbench.data.spreadsheets import sheet_of

_SAMPLE = 1000  # rows by which a file's columns are known
Rows = Iterator[tuple[Item, RawRecord]]


def unlabelled(context: AuditContext) -> Iterator[Finding]:
    """Files in which no column was taken for the answer: of them nothing is known about labels."""
    sources = [source for source in context.sources if not source.layout.gold]
    if sources:
        said = "No column was taken for the answer, so labels were not checked. Name it: --map answer=COLUMN"
        yield context.find("no-answer", "note", sources, (len(sources), len(context.sources)), said)


CHECKS: tuple[Callable[[AuditContext], Iterator[Finding]], ...] = (
    label_checks.copies,
    tones.meanings,
    crossed.swapped,
    copies.leaks,
    copies.conflicts,
    answers.missing,
    figures.recompute,
    answers.known,
    answers.kinds,
    ranges.scores,
    answers.facts,
    copies.duplicates,
    copies.row_split,
    near.near,
    label_checks.skew,
    unlabelled,
    known.licences,
)


def audit(what: Sequence[str | Path], data_dir: Path | None = None, columns: Mapping[str, str] | None = None) -> Audit:
    """Audit files, folders, zip archives, sets that are here (by name) and data sets of the Hub (hub:org/name[@rev]).

    ``columns``: which column is the ``text`` and which the ``answer``, where their names do not say it.
    Without any: every set that is here. Raises FinbenchError if a name is unknown or nothing can be read; a file of a
    folder that holds no rows is left out and named in ``skipped``, what cannot be read in ``unread``.
    """
    with stored() as store:
        reader = Reader(store, columns or {})
        with progress() as bar:
            line = bar.add_task("reading", total=None, note="")
            for each in resolved([str(name) for name in what], data_dir):
                bar.update(line, note=each.name)
                reader.read(each)
                bar.advance(line)
        if not reader.sources:
            raise reader.nothing("No rows to audit", "Name files, folders, or sets: finbench data list")
        reader.check_columns()
        store.settle()
        context = AuditContext(store, reader.sources)
        found = [finding for texts in reader.texts for finding in texts.findings(context)]
        found += [*shared_pages(reader.texts, context), *entities.shared(reader.texts, context)]
        with progress() as bar:
            line = bar.add_task("checking", total=len(CHECKS), note="")
            for check in CHECKS:
                bar.update(line, note=check.__name__)
                found += check(context)
                bar.advance(line)
        return reader.audit(found)


def audit_against(what: Sequence[str | Path], files: Sequence[str | Path], data_dir: Path | None = None) -> Audit:
    """Look for the test texts of ``what`` (sets, files; default: every set that is here) in the rows of ``files``.

    These are files, folders, data sets of the Hub, or sets that are here, of which the rows to train on count.

    A test text is found wherever it stands in a training row, in a prompt or a conversation too; near duplicates are
    looked for among the texts that the rows ask about. Raises FinbenchError where there is nothing to compare.
    """
    with stored() as store:
        reader = Reader(store)
        for each in resolved([str(name) for name in what], data_dir):
            reader.read(each, keep=("test", None))
        if not reader.sources:
            raise reader.nothing("No test rows to look for", "Name a set or a test file: finbench data list")
        for source in reader.sources:
            source.split = "test"  # a file that was named here is a test, whatever it is called
        trained = _to_train_on(list(dict.fromkeys(map(str, files))), data_dir)
        for each in trained:
            reader.read(each, split="train")
        if not any(source.split == "train" for source in reader.sources):
            raise reader.nothing("No rows in the training files", "Name CSV, JSON, JSONL or Parquet files.")
        store.settle()
        context = AuditContext(store, reader.sources)
        found, seen = _contained(context, trained)
        found += [finding for finding in near.near(context, seen) if finding.check == "near-leak"]
        return reader.audit(found)


def _to_train_on(names: list[str], data_dir: Path | None) -> list[Input]:
    """Training files, told apart by their names, and what sets are trained on."""
    sets = [name for name in names if not (sheet_of(Path(name))[0].exists() or name.startswith("hub:"))]
    given = [name for name in names if name not in sets]
    found = list(resolved(given, data_dir)) if given else []  # of no name it would be every set
    for name in sets:
        kept = [each for each in resolved([name], data_dir) if split_in(each.name) == "train"]
        if not kept:
            message = f"{name} has no rows to train on."
            raise FinbenchError(message, "Name a set that has, or a file: finbench data list")
        found += kept
    return found


def _contained(context: AuditContext, trained: list[Input]) -> tuple[list[Finding], set[int]]:
    """Findings, and the keys of the test texts that were found."""
    tests = [source for source in context.sources if source.split == "test"]
    texts: dict[str, dict[str, int]] = {}
    for source in tests:
        column = "ask.shown" if source.id in context.by_question else "body.shown"
        query = f"SELECT {column}, row.body FROM row JOIN body USING (body) LEFT JOIN ask USING (ask) WHERE src = ?"
        texts.setdefault(source.title, {}).update(context.query(query, source.id))
    index = Index(texts)
    keys = {(name, index.normal(text)): key for name, found in texts.items() for text, key in found.items()}
    findings, seen = [], set()
    for each in trained:
        lines: dict[int, str] = {}  # test text -> the first training row that it stands in
        with contextlib.suppress(FinbenchError):  # which the audit names as not read
            for item in each.rows():
                if isinstance(item, RawRecord):
                    for number in index.seen(fields(item.row)):
                        lines.setdefault(number, f"{each.name}{item.place}")
        for source in tests:
            own = [number for number in lines if index.tests[number][0] == source.title]
            if own:
                bodies = {keys[index.tests[number]] for number in own}
                seen |= bodies
                counted = len(own), index.texts[source.title]
                said = f"{share(*counted)} test texts of {source.title} are in {each.name}."
                places = [lines[number] for number in own[:SHOWN]]
                made = context.find("contamination", "error", [source], counted, said, body=min(bodies), places=places)
                findings.append(made.model_copy(update={"sources": [source.title, each.name]}))
    return findings, seen


def resolved(names: list[str], data_dir: Path | None) -> Iterator[Input]:
    """What the names stand for. Paths come first, for a file may be called like a set."""
    home, tasks = paths.data_dir(data_dir), catalog.tasks().values()
    sets, shipped = {task.set for task in tasks}, {task.set for task in tasks if task.shipped}
    here = sorted(sets & {path.name for path in home.glob("*")})
    if not names and not here:
        raise FinbenchError(f"There is no data set in {home}.", "Name files, or import a set: finbench data list")
    given: list[Path] = []
    for name in names or here:
        short = name.removeprefix(catalog.PREFIX)
        if sheet_of(Path(name))[0].exists():
            given.append(Path(name))
        elif short in here:
            for each in formats.inputs([home / short]):
                if each.file.suffix == ".jsonl":
                    yield each._replace(name=f"{short}/{each.name}")
        elif short in shipped:
            for path in sorted((paths.shipped("tasks") / "mini").glob(f"{short}.*.jsonl")):
                yield from formats.inputs([path])
        elif short in sets:
            raise FinbenchError(f"{short} is not in {home}.", catalog.of_set(short).data)
        elif name.startswith("hub:"):
            yield from formats.on_hub(name)
        else:
            raise unknown("file or set", name, {*sets, *beside(Path(name))}, "finbench data list")
    if given:
        yield from formats.inputs(given)


class Reader:
    """Puts rows into the store, and remembers where they come from."""

    def __init__(self, store: RowStore, columns: Mapping[str, str] = MappingProxyType({})) -> None:
        self.store, self.columns = store, columns
        self.sources: list[AuditedFile] = []
        self.texts: list[Texts] = []  # of each source
        self.skipped: dict[str, FinbenchError] = {}
        self.unread: dict[str, FinbenchError] = {}

    def nothing(self, said: str, hint: str) -> FinbenchError:
        """That nothing was read, why, and what mends it; ``hint`` where no file was at fault."""
        faults = [*self.unread.values(), *self.skipped.values()]
        hints = list(dict.fromkeys(fault.hint for fault in faults)) or [hint]
        return FinbenchError(f"{said}: {'; '.join(f.message for f in faults) or 'there is none'}", "\n".join(hints))

    def check_columns(self) -> None:
        """Raise FinbenchError for a column that the user has named and that no file has, or for an unknown role."""
        for role, column in self.columns.items():
            if role not in ("text", "answer"):
                raise FinbenchError(f"--map names {role!r}; there are text and answer.", "--map text=...,answer=...")
            known = [source.layout.text if role == "text" else source.layout.gold for source in self.sources]
            if not any(column == name or column in name for name in known):
                raise FinbenchError(f"No file has the column {column!r} of --map.", "See the first line of the file.")

    def audit(self, found: list[Finding]) -> Audit:
        found = sorted(found, key=lambda finding: LEVELS.index(finding.level))
        skipped, unread = (
            {name: f"{fault.message} {fault.hint}" for name, fault in faults.items()}
            for faults in (self.skipped, self.unread)
        )
        seen = [source.seen() for source in self.sources]
        return Audit(sources=seen, findings=found, skipped=skipped, unread=unread)

    def read(self, each: Input, split: str | None = None, keep: Container[str | None] | None = None) -> None:
        """One file: all of it as ``split``, where that is given; only the splits to ``keep``."""
        try:
            self._read(each, split, keep)
        except formats.NoRows as fault:
            (self.unread if each.named else self.skipped)[each.name] = fault
        except FinbenchError as fault:
            self.unread[each.name] = fault

    def _read(self, each: Input, split: str | None, keep: Container[str | None] | None) -> None:
        found = each.rows()
        raw = list(itertools.islice(found, _SAMPLE))
        whole = [item for item in raw if isinstance(item, RawRecord)]
        sample = [row for item in raw for row in formats.unfolded(item)]
        found = itertools.chain.from_iterable(map(formats.unfolded, found))
        good = [item for item in sample if isinstance(item, RawRecord)]
        try:
            made = layout(good, each.name, self.columns)
        except FinbenchError:  # its texts may lie in objects
            sample, found = [formats.flat(item) for item in sample], map(formats.flat, found)
            good = [item for item in sample if isinstance(item, RawRecord)]
            made = layout(good, each.name, self.columns)
        of_set = known.recognise(each.name, whole, made)
        licence, free = known.licence_of(of_set.set if of_set else Path(each.name).name.split(".")[0], each.folder)
        codes = of_set.codes if of_set else {}
        source = AuditedFile(-1, each.name, split or split_in(each.name), made, licence, free, codes)
        items = self._items(itertools.chain(sample, found), source, of_set)
        first = len(self.sources)
        try:
            self.store.add(self._pairs(items, source, split, keep))
        except FinbenchError:
            self.store.take_back(first)
            del self.sources[first:], self.texts[first:]
            raise

    def _pairs(
        self, items: Rows, file: AuditedFile, forced: str | None, keep: Container[str | None] | None
    ) -> Iterator[tuple[int, Item]]:
        """Items with the number of their source: each split of a file is one."""
        own: dict[str | None, Texts] = {}
        for item, raw in items:
            split = forced or item.split or file.split
            if keep is not None and split not in keep:
                continue
            if split not in own:
                own[split] = Texts(replace(file, id=len(self.sources), split=split))
                self.sources.append(own[split].source)
                self.texts.append(own[split])
            own[split].see(item, raw.row)
            yield own[split].source.id, item

    def _items(self, found: Iterator[RawRecord | str], file: AuditedFile, of_set: known.Known | None) -> Rows:
        """Items with the rows they are made of; tokens become sentences, rows that cannot be read are remembered."""
        good, made = self._good(found, file.name), file.layout
        if not made.sentence:
            for raw in good:
                item = made.item(raw)
                if item.gold and of_set and item.gold not in file.codes and len(file.codes) < LABELS:
                    file.codes[item.gold] = known.code_of(of_set, raw, file.name)  # sorted by label
                yield item, raw
            return
        for _, group in itertools.groupby(good, key=lambda raw: [as_text(raw.row.get(name)) for name in made.sentence]):
            rows = list(group)
            tokens = " ".join(as_text(raw.row.get(made.text)) or "none" for raw in rows)
            tags = " ".join(canonical(raw.row.get(made.gold[0])) for raw in rows) if made.gold else None
            yield Item(tokens, "", "", tags, "", rows[0].place, rows[0].detail), RawRecord({}, "")

    def _good(self, found: Iterator[RawRecord | str], name: str) -> Iterator[RawRecord]:
        count = 0
        for item in found:
            if isinstance(item, RawRecord):
                yield item
            else:
                count += 1
                self.unread[name] = FinbenchError(
                    f"{counted(count, 'row')} cannot be read (the last: {item[:200]}).", "Correct them in the file."
                )
