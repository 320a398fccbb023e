"""Reads what is named, row by row, and lets every check look at it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, unknown
from finbench.data.audit import answers, copies, figures, known, label_checks, licence_checks, near, reading
from finbench.data.audit.columns import Item, Layout, as_text, canonical, layout
from finbench.data.audit.context import LABELS, AuditContext, AuditedFile
from finbench.data.audit.findings import LEVELS, Audit, Finding
from finbench.data.audit.reading import Input, Raw
from finbench.data.audit.row_store import RowStore
from finbench.data.audit.texts import Texts
from finbench.data.readers import beside

_SAMPLE = 1000  # rows by which a file's columns are known
CHECKS: tuple[Callable[[AuditContext], Iterator[Finding]], ...] = (
    label_checks.copies,
    label_checks.meanings,
    copies.leaks,
    copies.conflicts,
    answers.missing,
    figures.recompute,
    answers.known,
    answers.kinds,
    answers.facts,
    copies.duplicates,
    copies.row_split,
    near.near,
    label_checks.skew,
    licence_checks.licences,
)


def audit(what: Sequence[str | Path], data_dir: Path | None = None) -> Audit:
    """Audit files, folders, zip archives, sets that are here (by name) and data sets of the Hub (hub:org/name[@rev]).

    Without any: every set that is here. Raises FinbenchError if a name is unknown or nothing can be read; a file of a
    folder that holds no rows is left out and named in ``skipped``.
    """
    with RowStore() as store:
        reader = Reader(store)
        for each in resolved([str(name) for name in what], data_dir):
            reader.read(each)
        if not reader.sources:
            why = "; ".join(reader.skipped.values()) or "there is none"
            raise FinbenchError(f"No rows to audit: {why}", "Name files, folders, or sets: finbench data list")
        store.settle()
        context = AuditContext(store, reader.sources)
        found = [finding for seen in reader.texts for finding in seen[1].findings(context, seen[0])]
        for check in CHECKS:
            found += check(context)
        found.sort(key=lambda finding: LEVELS.index(finding.level))
        return Audit(sources=[source.seen() for source in reader.sources], findings=found, skipped=reader.skipped)


def resolved(names: list[str], data_dir: Path | None) -> Iterator[Input]:
    """What the names stand for. Paths come first, for a file may be called like a set."""
    home = paths.data_dir(data_dir)
    shipped = {task.set for task in catalog.tasks().values() if task.shipped}
    here = sorted({task.set for task in catalog.tasks().values()} & {path.name for path in home.glob("*")})
    if not names and not here:
        raise FinbenchError(f"There is no data set in {home}.", "Name files, or import a set: finbench data list")
    given: list[Path] = []
    for name in names or here:
        short = name.removeprefix(catalog.PREFIX)
        if Path(name).exists():
            given.append(Path(name))
        elif short in here:
            yield from _renamed(home / short, short)
        elif short in shipped:
            for path in sorted((paths.shipped("tasks") / "mini").glob(f"{short}.*.jsonl")):
                yield from reading.inputs([path])
        elif short in {task.set for task in catalog.tasks().values()}:
            raise FinbenchError(f"{short} is not in {home}.", catalog.of_set(short).data)
        elif name.startswith("hub:"):
            yield from reading.on_hub(name)
        else:
            sets = {task.set for task in catalog.tasks().values()}
            raise unknown("file or set", name, {*sets, *beside(Path(name))}, "finbench data list")
    if given:
        yield from reading.inputs(given)


def _renamed(folder: Path, name: str) -> Iterator[Input]:
    for each in reading.inputs([folder]):
        if each.file.suffix == ".jsonl":
            yield each._replace(name=f"{name}/{each.name}")


class Reader:
    """Puts rows into the store, and remembers where they come from."""

    def __init__(self, store: RowStore) -> None:
        self.store = store
        self.sources: list[AuditedFile] = []
        self.texts: list[tuple[AuditedFile, Texts]] = []
        self.skipped: dict[str, str] = {}

    def read(self, each: Input, split: str | None = None, keep: Callable[[str | None], bool] = lambda _: True) -> None:
        """One file: all of it as ``split``, where that is given; only the splits to ``keep``."""
        try:
            found = each.rows()
            sample: list[Raw | str] = list(itertools.islice(found, _SAMPLE))
            good = [item for item in sample if isinstance(item, Raw)]
            try:
                made = layout(good, each.name)
            except FinbenchError:  # its texts may lie in objects
                sample, found = [reading.flat(item) for item in sample], map(reading.flat, found)
                good = [item for item in sample if isinstance(item, Raw)]
                made = layout(good, each.name)
        except FinbenchError as fault:
            self.skipped[each.name] = fault.message
            return
        told = _Layout(each, good, made)
        self.store.add(self._pairs(itertools.chain(sample, found), told, split, keep))

    def _pairs(
        self, found: Iterator[Raw | str], told: _Layout, forced: str | None, keep: Callable[[str | None], bool]
    ) -> Iterator[tuple[int, Item]]:
        own: dict[str | None, tuple[AuditedFile, Texts]] = {}
        for item, row in told.items(found, self.skipped):
            split = forced or item.split or told.split
            if not keep(split):
                continue
            if split not in own:
                source = told.source(len(self.sources), split)
                own[split] = source, Texts(told.layout)
                self.sources.append(source)
                self.texts.append(own[split])
            source, texts = own[split]
            source.rows += 1
            texts.see(item, row)
            yield source.id, item


class _Layout:
    """What is known of a file before its rows are read."""

    def __init__(self, each: Input, sample: list[Raw], made: Layout) -> None:
        self.name, self.layout = each.name, made
        self.split = reading.split_in(each.name)
        self.known = known.recognise(each.name, sample, made)
        self.codes = self.known.codes if self.known else {}
        self.licence, self.open = known.of_set(self.known.set if self.known else Path(each.name).name.split(".")[0])
        if self.licence is None and (text := known.stated(each.folder)):
            self.licence, self.open = text, known.open_licence(text)

    def source(self, number: int, split: str | None) -> AuditedFile:
        """A new source for a split of this file."""
        return AuditedFile(number, self.name, split, self.layout, self.licence, self.open, self.codes)

    def items(self, found: Iterator[Raw | str], skipped: dict[str, str]) -> Iterator[tuple[Item, dict[str, object]]]:
        """Items with the rows they are made of; tokens become sentences, rows that cannot be read are remembered."""
        good = self._good(found, skipped)
        if not self.layout.sentence:
            for raw in good:
                item = self.layout.item(raw)
                if item.gold and self.known and item.gold not in self.codes and len(self.codes) < LABELS:
                    self.codes[item.gold] = known.code_of(self.known, raw, self.name)  # sorted by label
                yield item, raw.row
            return
        names, text, gold = self.layout.sentence, self.layout.text, self.layout.gold
        for _, group in itertools.groupby(good, key=lambda raw: [as_text(raw.row.get(name)) for name in names]):
            rows = list(group)
            tokens = " ".join(as_text(raw.row.get(text)) or "none" for raw in rows)
            tags = " ".join(canonical(raw.row.get(gold[0])) for raw in rows) if gold else None
            yield Item(tokens, "", "", tags, "", rows[0].line, rows[0].split), {}

    def _good(self, found: Iterator[Raw | str], skipped: dict[str, str]) -> Iterator[Raw]:
        count = 0
        for item in found:
            if isinstance(item, Raw):
                yield item
            else:
                count += 1
                skipped[self.name] = f"{count} rows cannot be read (the last: {item[:200]})"
