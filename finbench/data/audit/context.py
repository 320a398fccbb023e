"""What every check is given: the rows, where they come from, and how a finding is worded."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
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
_TAG = re.compile(r"\d{1,3}|o|[bilseu][-_]\S+|\S+[-_][bi]")


@dataclass
class AuditedFile:
    """A file, or one split in it."""

    id: int
    name: str
    split: str | None
    layout: Layout
    licence: str | None = None
    open: bool | None = None
    codes: dict[str, str] = field(default_factory=dict)  # what the labels of a known set stand for
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
        """As the report states it."""
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
        """The file's own name."""
        return Path(self.name).name


@dataclass
class AuditContext:
    """The rows and the sources they come from."""

    store: RowStore
    sources: list[AuditedFile]

    def find(
        self,
        check: str,
        level: Level,
        sources: list[AuditedFile],
        counted: tuple[int, int],
        said: str,
        rows: tuple[str, tuple[Any, ...]] = ("", ()),
        body: int | None = None,
        detail: dict[str, int] | None = None,
    ) -> Finding:
        """A Finding. ``rows``: a query for the numbers of the rows that show it; ``body``: the text of an example."""
        places = []
        if rows[0]:
            for src, line in self.store.places(rows[0], rows[1], SHOWN):
                places.append(f"{self.sources[src].name}{line}")
        if body is None and rows[0]:
            first = self.store.db.execute(f"SELECT body FROM row WHERE n IN ({rows[0]}) LIMIT 1", rows[1]).fetchone()
            body = first[0] if first else None
        return Finding(
            check=check,
            level=level,
            sources=[source.title for source in sources],
            count=counted[0],
            of=counted[1],
            said=said,
            places=places,
            example=None if body is None else self.example(body, sources),
            detail=detail or {},
        )

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
        for source in self.sources:
            query = "SELECT gold, count(*) FROM row WHERE src = ? AND gold IS NOT NULL GROUP BY gold LIMIT ?"
            counts = dict(self.store.db.execute(query, (source.id, LABELS + 1)).fetchall())
            few = 0 < len(counts) <= LABELS and (len(counts) <= 3 or len(counts) <= 0.2 * source.rows)
            if few and all(map(_LABEL.fullmatch, counts)) and len(source.layout.gold) == 1:
                found[source.id] = counts
        return found

    @functools.cached_property
    def shared(self) -> dict[tuple[int, int], int]:
        """Of each pair of sources: how many different texts are in both."""
        own = {src for (src,) in self.store.db.execute("SELECT DISTINCT src FROM row WHERE text != body")}
        pairs: dict[tuple[int, int], int] = {}
        for column, wanted in (("body", False), ("text", True)):
            query = (
                f"WITH one AS (SELECT DISTINCT {column} AS key, src FROM row JOIN body USING (body) WHERE words != '')"
                " SELECT a.src, b.src, count(*) FROM one a JOIN one b ON a.key = b.key AND a.src < b.src GROUP BY 1, 2"
            )
            for first, second, count in self.store.db.execute(query):
                if (first in own or second in own) == wanted:
                    pairs[first, second] = count
        return pairs

    @functools.cached_property
    def by_question(self) -> set[int]:
        """Sources whose rows each have a question of their own: their texts are compared with it."""
        return {src for (src,) in self.store.db.execute("SELECT DISTINCT src FROM row WHERE text != body")}

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

    def text_key(self, first: int, second: int) -> str:
        """The column by which two sources have texts in common."""
        return "text" if {first, second} & self.by_question else "body"

    @functools.cached_property
    def distinct(self) -> dict[int, int]:
        """Different texts of each source."""
        return dict(self.store.db.execute("SELECT src, count(DISTINCT text) FROM row GROUP BY src").fetchall())

    def units(self, src: int) -> str:
        """The column that ``unit`` is, for this source."""
        row = self.store.db.execute(
            "SELECT sum(unit = body), sum(unit = slotted), count(*) FROM row WHERE src = ?", (src,)
        ).fetchone()
        return "body" if row[0] == row[2] else "slotted" if row[1] == row[2] else "asked"


def sequence(gold: str) -> bool:
    """Whether an answer is one tag a token."""
    parts = gold.replace(" | ", " ").split()
    return len(parts) >= 2 and all(map(_TAG.fullmatch, parts))


def share(count: int, of: int) -> str:
    """``34 of 1,000 (3.4 %)``."""
    return f"{count:,} of {of:,}" + (f" ({100 * count / of:.1f} %)" if of >= 20 and count not in (0, of) else "")
