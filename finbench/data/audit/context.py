"""What every check is given: the rows, where they come from, and how a finding is worded."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.paths import helper
from finbench.data.audit.columns import Layout
from finbench.data.audit.findings import SHOWN, Finding, Level, Seen
from finbench.data.audit.row_store import RowStore

LABELS = 30  # more different answers than this are no label set
_LABEL = re.compile(
    r"[\w&.,'’+-]{0,40}(?:[ /|_-]{1,3}[\w&.,'’-]{1,40}){0,4}"
)  # a few words: no formula, no tag, no sentence


@dataclass
class AuditedFile:
    """A file, or one split in it."""

    id: int
    name: str
    split: str | None
    layout: Layout
    licence: str | None
    open: bool | None  # whether its texts may be shown; None: not known
    codes: dict[str, str]  # what the labels of a known set stand for
    rows: int = 0

    @property
    def title(self) -> str:
        """Name, and the split where the name does not tell it."""
        return f"{self.name} [{self.split}]" if self.split and self.layout.split else self.name

    @property
    def family(self) -> str:
        """The name without the words that tell a split: files of one division share it."""
        stem = re.sub(r"(?i)(?<![a-z])(train|training|dev|valid|validation|val|test|testing)(?![a-z])", "", self.name)
        return re.sub(r"[^a-z0-9/]+", " ", stem.casefold().rpartition(".")[0]).strip()

    def seen(self) -> Seen:
        return Seen(
            name=self.name,
            split=self.split,
            rows=self.rows,
            texts=[str(name) for name in (self.layout.text, *self.layout.asked)],
            gold=[str(name) for name in self.layout.gold],
            licence=self.licence,
            open=self.open,
        )

    @property
    def stem(self) -> str:
        return Path(self.name).name


@dataclass
class AuditContext:
    """The rows and the sources they come from."""

    store: RowStore
    sources: list[AuditedFile]

    def query(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return self.store.db.execute(sql, values)

    def find(
        self,
        check: str,
        level: Level,
        sources: list[AuditedFile],
        counted: tuple[int, int],
        said: str,
        rows: Sequence[Any] = (),
        body: int | None = None,
        **stated: Any,
    ) -> Finding:
        """A Finding. ``rows``: a query for the numbers of the rows that show it, and its values.

        ``body``: the text of an example, default one of these rows; ``stated``: other fields of the Finding.
        """
        if rows:
            query = f"SELECT src, line, body FROM row WHERE n IN ({rows[0]}) ORDER BY src, n LIMIT {SHOWN}"
            shown = self.query(query, *rows[1:]).fetchall()
            stated["places"] = [f"{self.sources[src].name}{line}" for src, line, _ in shown]
            if body is None and shown:
                body = shown[0][2]
        if body is not None:
            stated.setdefault("example", self.example(body, sources))
        titles, (count, of) = [source.title for source in sources], counted
        return Finding(check=check, level=level, sources=titles, count=count, of=of, said=said, **stated)

    def example(self, body: int, sources: list[AuditedFile]) -> str | None:
        """The text of a key, cut; its salted hash where a source's licence does not let texts be shown."""
        text = self.store.shown(body)
        if not text:
            return None
        if any(source.open is False or source.id in self.closed for source in sources):
            return f"sha256 {helper('sets').hash_of(self.store.normal(text)).hex()[:16]}"
        return text if len(text) <= 160 else text[:157] + "..."

    @functools.cached_property
    def labels(self) -> dict[int, dict[str, int]]:
        """Of each source whose answers are labels (few, and each of several rows): label -> rows."""
        found: dict[int, dict[str, int]] = {}
        query = "SELECT gold, count(*) FROM row WHERE src = ? AND gold IS NOT NULL GROUP BY gold LIMIT ?"
        for source in self.sources:
            counts = dict(self.query(query, source.id, LABELS + 1))
            few = 0 < len(counts) <= LABELS and (len(counts) <= 3 or len(counts) <= 0.2 * source.rows)
            if few and all(map(_LABEL.fullmatch, counts)) and len(source.layout.gold) == 1:
                found[source.id] = counts
        return found

    @functools.cached_property
    def shared(self) -> dict[tuple[int, int], int]:
        """Of each pair of sources: how many different texts are in both."""
        pairs: dict[tuple[int, int], int] = {}
        for column, wanted in (("body", False), ("text", True)):
            query = (
                f"WITH one AS (SELECT DISTINCT {column} AS key, src FROM row JOIN body USING (body) WHERE words != '')"
                " SELECT a.src, b.src, count(*) FROM one a JOIN one b ON a.key = b.key AND a.src < b.src GROUP BY 1, 2"
            )
            for first, second, count in self.query(query):
                if bool({first, second} & self.by_question) == wanted:
                    pairs[first, second] = count
        return pairs

    @functools.cached_property
    def by_question(self) -> set[int]:
        """Sources whose rows each have a question of their own: their texts are compared with it."""
        return {src for (src,) in self.query("SELECT DISTINCT src FROM row WHERE text != body")}

    @functools.cached_property
    def closed(self) -> set[int]:
        """Sources of unknown licence that have a good part of their texts from one whose texts must not be shown."""
        barred = {source.id for source in self.sources if source.open is False}
        found = set()
        for (a, b), count in self.shared.items():
            for one, other in ((a, b), (b, a)):
                if one in barred and self.sources[other].open is None and count >= 0.1 * self.distinct[other]:
                    found.add(other)
        return found

    @functools.cached_property
    def distinct(self) -> dict[int, int]:
        return dict(self.query("SELECT src, count(DISTINCT text) FROM row GROUP BY src"))


def share(count: int, of: int) -> str:
    """``34 of 1,000 (3.4 %)``."""
    return f"{count:,} of {of:,}" + (f" ({100 * count / of:.1f} %)" if of >= 20 and count not in (0, of) else "")
