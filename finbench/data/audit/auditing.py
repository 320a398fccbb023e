"""Reads what is named, row by row, and lets every check look at it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, unknown
from finbench.data.audit import answers, copies, figures, known, label_checks, near, reading
from finbench.data.audit.columns import Item, as_text, canonical, layout
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
    known.licences,
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
        found = [finding for texts in reader.texts for finding in texts.findings(context)]
        for check in CHECKS:
            found += check(context)
        return reader.audit(found)


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
        if Path(name).exists():
            given.append(Path(name))
        elif short in here:
            for each in reading.inputs([home / short]):
                if each.file.suffix == ".jsonl":
                    yield each._replace(name=f"{short}/{each.name}")
        elif short in shipped:
            for path in sorted((paths.shipped("tasks") / "mini").glob(f"{short}.*.jsonl")):
                yield from reading.inputs([path])
        elif short in sets:
            raise FinbenchError(f"{short} is not in {home}.", catalog.of_set(short).data)
        elif name.startswith("hub:"):
            yield from reading.on_hub(name)
        else:
            raise unknown("file or set", name, {*sets, *beside(Path(name))}, "finbench data list")
    if given:
        yield from reading.inputs(given)


class Reader:
    """Puts rows into the store, and remembers where they come from."""

    def __init__(self, store: RowStore) -> None:
        self.store = store
        self.sources: list[AuditedFile] = []
        self.texts: list[Texts] = []  # of each source
        self.skipped: dict[str, str] = {}

    def audit(self, found: list[Finding]) -> Audit:
        """The report of what was read, the gravest findings first."""
        found = sorted(found, key=lambda finding: LEVELS.index(finding.level))
        return Audit(sources=[source.seen() for source in self.sources], findings=found, skipped=self.skipped)

    def read(self, each: Input, split: str | None = None, keep: Container[str | None] | None = None) -> None:
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
        of_set = known.recognise(each.name, good, made)
        licence, free = known.licence_of(of_set.set if of_set else Path(each.name).name.split(".")[0], each.folder)
        codes = of_set.codes if of_set else {}
        source = AuditedFile(-1, each.name, split or reading.split_in(each.name), made, licence, free, codes)
        items = self._items(itertools.chain(sample, found), source, of_set)
        self.store.add(self._pairs(items, source, split, keep))

    def _pairs(
        self,
        items: Iterator[tuple[Item, Raw]],
        file: AuditedFile,
        forced: str | None,
        keep: Container[str | None] | None,
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

    def _items(
        self, found: Iterator[Raw | str], file: AuditedFile, of_set: known.Known | None
    ) -> Iterator[tuple[Item, Raw]]:
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
            yield Item(tokens, "", "", tags, "", rows[0].line, rows[0].split), Raw({}, rows[0].line)

    def _good(self, found: Iterator[Raw | str], name: str) -> Iterator[Raw]:
        count = 0
        for item in found:
            if isinstance(item, Raw):
                yield item
            else:
                count += 1
                self.skipped[name] = f"{count} rows cannot be read (the last: {item[:200]})"
