"""The rows of an audit, on disk: memory does not grow with their number, but for 12 bytes a near-duplicate band."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from finbench.core import paths
from finbench.core.files import cannot_write
from finbench.data.audit.columns import Item

_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; PRAGMA temp_store=FILE;
CREATE TABLE row (n INTEGER PRIMARY KEY, src INTEGER, line TEXT, body INTEGER, slotted INTEGER, asked INTEGER,
 ask INTEGER, gold TEXT, meta INTEGER, unit INTEGER, text INTEGER);
CREATE TABLE body (body INTEGER PRIMARY KEY, shown TEXT, words TEXT);
CREATE TABLE ask (ask INTEGER PRIMARY KEY, shown TEXT);
CREATE TABLE meta (meta INTEGER PRIMARY KEY, shown TEXT);
"""
SHOWN = 4000  # characters kept of a text, and of its normalised words: enough to show it and to tell copies apart


@contextlib.contextmanager
def stored() -> Iterator[RowStore]:
    """Rows in the folder for temporary files, while they are looked at; one line where that has no room."""
    try:
        with RowStore() as store:
            yield store
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorname.startswith(("SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY")):
            raise cannot_write(Path(tempfile.gettempdir()), fault) from fault
        raise


class RowStore(contextlib.ExitStack):
    """Rows by number, source and keys. A context manager; ``db`` answers SQL.

    ``body`` is the key of the text, ``slotted`` of the text and what is asked of it by name, ``asked`` of the text
    and the whole question. ``unit`` is the one of these by which rows of a source are the same question, ``text``
    the one by which they are the same text. Keys are 63 bits of the salted hash by which finbench divides splits.
    """

    def __init__(self) -> None:
        super().__init__()
        helper = paths.helper("sets")
        self._signed, self._hash = helper.splits.signed, helper.hash_of
        folder = self.enter_context(tempfile.TemporaryDirectory(prefix="finbench-"))
        database = sqlite3.connect(Path(folder) / "audit.sqlite", isolation_level=None)
        self.db = self.enter_context(contextlib.closing(database))
        self.db.executescript(_SCHEMA)
        self._numbers = itertools.count()
        self._ask = functools.lru_cache(50_000)(self._put_ask)

    def normal(self, text: str) -> str:
        return str(self._signed(text))

    def key(self, text: str) -> int:
        return int.from_bytes(self._hash(text)[:8], "big") >> 1

    def add(self, pairs: Iterable[tuple[int, Item]]) -> None:
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO row VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL)", self._records(pairs))
        self.db.execute("COMMIT")

    def take_back(self, first: int) -> None:
        """After a fault of what was added: the rows of this source and of later ones, and the texts of no other."""
        self.db.execute("DELETE FROM row WHERE src >= ?", (first,))
        self.db.execute("DELETE FROM body WHERE body NOT IN (SELECT body FROM row)")
        self.db.execute("COMMIT")

    def _records(self, pairs: Iterable[tuple[int, Item]]) -> Iterator[tuple[Any, ...]]:
        for src, item in pairs:
            words = self.normal(item.body)
            body = slotted = asked = self.key(words)
            self.db.execute("INSERT OR IGNORE INTO body VALUES (?,?,?)", (body, item.body[:SHOWN], words[:SHOWN]))
            ask = self._ask(item.ask) if item.ask else 0
            if item.slots:
                slotted = asked = self.key(f"{words}\0{self.normal(item.slots)}")
            if ask:
                asked = self.key(f"{words}\0{self.normal(item.slots)}\0{ask}")
            meta = self.key(item.meta) if item.meta else 0
            if meta:
                self.db.execute("INSERT OR IGNORE INTO meta VALUES (?,?)", (meta, item.meta))
            yield next(self._numbers), src, item.line, body, slotted, asked, ask, item.gold, meta

    def _put_ask(self, text: str) -> int:
        key = self.key(self.normal(text))
        self.db.execute("INSERT OR IGNORE INTO ask VALUES (?,?)", (key, text[:1000]))
        return key

    def settle(self) -> None:
        """After the last row: decide by which key the rows of each source are compared."""
        self.db.execute("CREATE INDEX by_source ON row (src, body)")
        for (src,) in self.db.execute("SELECT DISTINCT src FROM row").fetchall():
            unit, text = self._keys(src)
            self.db.execute(f"UPDATE row SET unit = {unit}, text = {text} WHERE src = ?", (src,))
        self.db.execute("CREATE INDEX by_unit ON row (unit, src)")
        self.db.execute("CREATE INDEX by_text ON row (text, src)")

    def _keys(self, src: int) -> tuple[str, str]:
        one = self.db.execute
        rows, asks, slotted = one(
            "SELECT count(*), count(DISTINCT ask), sum(slotted != body) FROM row WHERE src = ?", (src,)
        ).fetchone()
        if slotted >= 0.8 * rows:
            return "slotted", "body"
        if asks > max(20, 0.5 * rows):  # every row has its own question
            return "asked", "asked"
        (several,) = one(
            "SELECT coalesce(sum(size), 0) FROM (SELECT count(*) AS size FROM row WHERE src = ? GROUP BY body"
            " HAVING count(DISTINCT ask) > 1)",
            (src,),
        ).fetchone()
        return ("asked" if several >= 0.2 * rows else "body"), "body"

    def shown(self, body: int) -> str:
        """The text of a key, as it stood in the first file that has it."""
        found = self.db.execute("SELECT shown FROM body WHERE body = ?", (body,)).fetchone()
        return str(found[0]) if found else ""
