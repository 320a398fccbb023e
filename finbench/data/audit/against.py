"""``--against``: which test texts are in somebody's own training files, whatever their prompts look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finbench.core.errors import FinbenchError
from finbench.data.audit import near, reading
from finbench.data.audit.auditing import Reader, resolved
from finbench.data.audit.context import AuditContext, share
from finbench.data.audit.findings import SHOWN, Audit, Finding
from finbench.data.audit.reading import Input, Raw
from finbench.data.audit.row_store import RowStore
from finbench.data.contamination import Index, fields


def audit_against(what: Sequence[str | Path], files: Sequence[Path], data_dir: Path | None = None) -> Audit:
    """Look for the test texts of ``what`` (sets, files; default: every set that is here) in the rows of ``files``.

    A test text is found wherever it stands in a training row, in a prompt or a conversation too; near duplicates are
    looked for among the texts that the rows ask about. Raises FinbenchError where there is nothing to compare.
    """
    with RowStore() as store:
        reader = Reader(store)
        for each in resolved([str(name) for name in what], data_dir):
            reader.read(each, keep=("test", None))
        if not reader.sources:
            raise FinbenchError("No test rows to look for.", "Name a set or a test file: finbench data list")
        for source in reader.sources:
            source.split = "test"  # a file that was named here is a test, whatever it is called
        trained = reading.inputs([Path(path) for path in files])
        for each in trained:
            reader.read(each, split="train")
        if not any(source.split == "train" for source in reader.sources):
            why = "; ".join(reader.skipped.values())
            raise FinbenchError(f"No rows in the training files: {why}", "Name CSV, JSON, JSONL or Parquet files.")
        store.settle()
        context = AuditContext(store, reader.sources)
        found, seen = _contained(context, trained)
        found += [finding for finding in near.near(context, seen) if finding.check == "near-leak"]
        return reader.audit(found)


def _contained(context: AuditContext, trained: list[Input]) -> tuple[list[Finding], set[int]]:
    """Findings, and the keys of the test texts that were found."""
    tests = [source for source in context.sources if source.split == "test"]
    keys: dict[tuple[str, str], int] = {}
    texts: dict[str, list[str]] = {}
    for source in tests:
        column = "ask.shown" if source.id in context.by_question else "body.shown"
        query = f"SELECT {column}, row.body FROM row JOIN body USING (body) LEFT JOIN ask USING (ask) WHERE src = ?"
        for text, key in context.query(query, source.id):
            keys[source.title, context.store.normal(text)] = key
            texts.setdefault(source.title, []).append(text)
    index = Index(texts)
    findings, seen = [], set()
    for each in trained:
        lines: dict[int, str] = {}  # test text -> the first training row that it stands in
        for item in each.rows():
            if isinstance(item, Raw):
                for number in index.seen(fields(item.row)):
                    lines.setdefault(number, f"{each.name}{item.line}")
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
