"""One rule for train, validation and test of every set. Standard library only.

The split of a text depends on the text alone: no text is on two sides, and adding rows moves none. Where the authors
give a test split it is kept, and its texts leave train; else 20 % are test and 10 % validation, by salted hash.
Texts are compared normalised. Copies with different labels are all dropped, for nobody knows which is right.
Test rows come in the order of their hash, so that the first N are a random sample; the others in the authors' order.
"""

import hashlib
import itertools
import json
import pathlib
import re
import sqlite3
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from .base import Offer, Unit

SALT = "finbench-v1:"
SPLITS = ("train", "validation", "test")
_LINK = re.compile(r"https?://\S+")
_WORD = re.compile(r"\w+", re.UNICODE)
_SIGNED = re.compile(r"\w+|[-+−*/^=<>](?=\s?[\d(])|(?<=\d)\s?[-+−*/^=<>%]", re.UNICODE)
# What feeds put around one and the same text: "$TICK - ", "RT @name: ", " by @name"
_WRAP = re.compile(
    r"^(?:\s*(?:RT\s+@\w+:?|\$[A-Za-z.]{1,6}(?:\s+\$[A-Za-z.]{1,6})*\s*[-:–—])\s)+|\s(?:by|via)\s+@\w+\s*$"
)


def normalise(text: str) -> str:
    """The text by which leaks are found: no links, case, punctuation, spacing, or what a feed puts around it.

    Copies of one sentence differ in these between files ("profit rose ." and "Profit rose."). A text with no
    word at all stands for itself.
    """
    bare = _LINK.sub(" ", text).strip()
    words = _WORD.findall(unicodedata.normalize("NFKC", _WRAP.sub(" ", bare)).casefold())
    return " ".join(words) or text.strip()


def signed(text: str) -> str:
    """``normalise`` with the signs of numbers: "-5 %" and "+5 %" are two texts, though on one side of the split."""
    bare = _LINK.sub(" ", text).strip()
    words = _SIGNED.findall(unicodedata.normalize("NFKC", _WRAP.sub(" ", bare)).casefold())
    return " ".join(word.strip() for word in words) or text.strip()


_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_SLOTS = re.compile(rf"\b(?:\w*\d\w*|{'|'.join(_MONTHS)}|{'|'.join(month[:3] for month in _MONTHS)}|sept)\b")


def template_of(text: str) -> str:
    """``normalise`` with one mark for numbers and names of months, so that texts of one template are one."""
    return re.sub(r"#(?: #)+", "#", _SLOTS.sub("#", normalise(text)))


def hash_of(normalised: str) -> bytes:
    """The salted hash of a normalised text, 32 bytes."""
    return hashlib.sha256((SALT + normalised).encode("utf-8", "surrogatepass")).digest()


def split_of(normalised: str, has_test: bool = False) -> str:
    """20 % test, 10 % validation, 70 % train; with ``has_test`` (the authors gave a test split) 10 % and 90 %."""
    return _split_of(hash_of(normalised), has_test)


def _split_of(digest: bytes, has_test: bool) -> str:
    place = int.from_bytes(digest[:8], "big") / 2**64
    if not has_test and place < 0.2:
        return "test"
    return "validation" if place < (0.1 if has_test else 0.3) else "train"


class Divided:
    """Units divided into splits, on disk: memory does not grow with their number. A context manager."""

    def __init__(
        self,
        name: str,
        units: Iterable[Unit],
        verbatim: bool = False,
        home: pathlib.Path | None = None,
        offer: Offer | None = None,
        template: Callable[[str], str] | None = None,
    ) -> None:
        """Read every unit. ``verbatim``: a published test taken as it is, duplicates, conflicts and all.

        ``offer``: gives each row ``choices``, by its split's other rows. ``template``: what texts have in common that
        were written from one; where one of them is in the test, none is in train or validation. ``home``: the folder on
        whose disk they lie meanwhile, default the system's for temporary files. Raises sqlite3.Error or OSError where
        it is full.
        """
        self.name, self.offer, self.dropped = name, offer, Counter[str]()
        self._template = template
        self._folder = tempfile.TemporaryDirectory(prefix=f".{name}.", dir=home)
        self._db = sqlite3.connect(pathlib.Path(self._folder.name) / "units.sqlite", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768; PRAGMA temp_store=FILE;"
            "CREATE TABLE unit (n INTEGER PRIMARY KEY, hash BLOB, same BLOB, exact BLOB, label TEXT, split INTEGER,"
            " layer INTEGER, size INTEGER, rows TEXT, form BLOB);"
            "CREATE TABLE kept (n INTEGER PRIMARY KEY, home TEXT);"
        )
        try:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO unit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._records(units, verbatim)
            )
            if verbatim:
                homes = "CASE split WHEN 3 THEN 'test' WHEN 2 THEN 'validation' ELSE 'train' END"
                self._db.execute(f"INSERT INTO kept SELECT n, {homes} FROM unit")
            else:
                self._divide()
            self._db.execute("COMMIT")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Delete what lies on disk."""
        self._db.close()
        self._folder.cleanup()

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of a split, in their order. A row's own ``id`` is appended to that of its text."""
        if self.offer is None:
            yield from self._rows(split)
            return
        offered = self.offer([(row["id"], row["label"]) for row in self._rows(split)])
        for row, choices in zip(self._rows(split), offered, strict=True):
            yield {**row, "choices": choices}

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        order = "hash, n" if split == "test" else "n"
        query = f"SELECT same, rows FROM kept JOIN unit USING (n) WHERE home = ? ORDER BY {order}"
        for digest, text in self._db.execute(query, (split,)):
            identity = f"{self.name}-{digest.hex()[:16]}"
            made = json.loads(text)
            shared = {"group": identity} if len(made) > 1 else {}  # rows of one text are one cluster
            for row in made:
                own = row.pop("id", None)
                yield {"id": identity if own is None else f"{identity}-{own}", **row, **shared}

    def count(self, split: str) -> int:
        """How many rows a split has."""
        query = "SELECT coalesce(sum(size), 0) FROM kept JOIN unit USING (n) WHERE home = ?"
        return int(self._db.execute(query, (split,)).fetchone()[0])

    def _records(self, units: Iterable[Unit], verbatim: bool) -> Iterator[tuple[Any, ...]]:
        ranks = {None: 0, "train": 1, "validation": 2, "test": 3}
        for number, (text, label, rows, _, split, layer) in enumerate(units):
            key, same = (f"{split}:{number}:{text}",) * 2 if verbatim else (normalise(text), signed(text))
            agreed = json.dumps(label, sort_keys=True)
            exact = hashlib.sha256(f"{text}\0{agreed}".encode("utf-8", "surrogatepass")).digest()
            form = None if self._template is None else hash_of(self._template(text))
            packed = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
            yield number, hash_of(key), hash_of(same), exact, agreed, ranks[split], layer, len(rows), packed, form

    def _divide(self) -> None:
        """Of copies with one label the first is kept, and one in the authors' test split goes before one in train."""
        execute = self._db.execute
        execute("CREATE INDEX by_exact ON unit (exact, layer)")
        earlier = "SELECT 1 FROM unit AS other WHERE other.exact = unit.exact AND other.layer < unit.layer"
        nested = execute(f"DELETE FROM unit WHERE EXISTS ({earlier})").rowcount
        execute("CREATE INDEX by_hash ON unit (hash, same, split DESC, n)")
        (authors,) = execute("SELECT EXISTS (SELECT 1 FROM unit WHERE split > 0)").fetchone()
        ordered = execute("SELECT hash, same, n, label, split FROM unit ORDER BY hash, same, split DESC, n")
        groups = itertools.groupby(ordered, key=lambda found: found[0])
        homes = (home for digest, group in groups for home in self._settle(digest, list(group), bool(authors)))
        self._db.executemany("INSERT INTO kept VALUES (?, ?)", homes)
        if self._template is not None:
            execute("CREATE INDEX by_form ON unit (form)")
            self._part("validation", "'test'")
            self._part("train", "'test', 'validation'")
        self.dropped["also in a file of higher agreement"] += nested
        self.dropped = +self.dropped

    def _part(self, split: str, others: str) -> None:
        """Take out of ``split`` what was written from a template of the ``others``."""
        forms = f"SELECT form FROM unit JOIN kept USING (n) WHERE home IN ({others})"
        written = f"SELECT n FROM unit WHERE form IN ({forms})"
        gone = self._db.execute(f"DELETE FROM kept WHERE home = ? AND n IN ({written})", (split,)).rowcount
        self.dropped["from the same template as one of the test or validation split"] += gone

    def _settle(
        self, digest: bytes, group: list[tuple[bytes, bytes, int, str, int]], authors: bool
    ) -> list[tuple[int, str]]:
        """(n, split) of the copies of a text that are kept: one of each signed form, all on one side."""
        side = max(split for *_, split in group)
        kept = []
        for _, copies in itertools.groupby(group, key=lambda found: found[1]):
            same = list(copies)
            labels = {label for *_, label, _ in same}
            if "null" in labels or len(labels) > 1:
                why = "several targets with different labels" if "null" in labels else "same text, different labels"
                self.dropped[why] += len(same)
                continue
            _, _, number, _, split = same[0]
            if split != side:
                self.dropped["also in the test or validation split"] += len(same)
                continue
            crossing = sum(other != split for *_, other in same)
            self.dropped["also in the test or validation split"] += crossing
            self.dropped["duplicate"] += len(same) - 1 - crossing
            kept.append((number, SPLITS[split - 1] if split > 1 else _split_of(digest, authors)))
        return kept
