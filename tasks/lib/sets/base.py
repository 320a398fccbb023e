"""What the readers of the data sets share: the kinds of things they yield, and how columns are asked for."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]
Record = tuple[Row, str, str | None]  # a row as its authors wrote it, its place, and what the file's name tells


class Unit(NamedTuple):
    """What must not be divided between splits: one text and every row that is made of it.

    Copies of a text must agree on ``label``; None: its parts have different ones, so that no label of the whole is
    right. ``split`` is the authors', if they gave one. ``layer``: of nested files the strictest comes first.
    """

    text: str
    label: Any
    rows: list[Row]
    place: str
    split: str | None = None
    layer: int = 0


class Drop(NamedTuple):
    """A row left out on purpose, and why."""

    why: str


Item = Unit | Drop | str  # a fault as text that starts with its place
Units = Callable[[Iterable[Record]], Iterator[Item]]
Offer = Callable[[Sequence[tuple[str, str]]], list[list[str]]]  # of a split's (id, label) pairs


class WrongFile(ValueError):
    """The file is not one of this set: the message starts with the place."""


class Part(NamedTuple):
    """Rows on the Hub: a split of a configuration, and what it is to us (a split, a level of agreement)."""

    detail: str
    split: str = "train"  # "*" is all of them
    config: str | None = None
    file: str | None = None  # of a repository whose loading script is dead: its file of Parquet or CSV


class Hub(NamedTuple):
    """Where a set lies on the Hub. ``ref``: its commit; or the branch that is followed where none is pinned.

    ``known``: how the commit of ``main`` begins from which the rows of a followed branch were described: while it is
    there, nothing has moved.
    """

    path: str
    parts: tuple[Part, ...]
    ref: str = "main"
    known: str = ""


class Set(NamedTuple):
    """One data set: who made it, its authors' files, its place on the Hub, and how its rows are read."""

    units: Units
    origin: str
    files: str  # what the authors call them; patterns by which they are found in a folder or an archive
    detail: Callable[[str], str | None]  # of a file's name, lower case and without ending
    whole: int  # rows of the authors' complete files
    hub: Hub | None = None
    tests: Mapping[str, int] = {}  # its test: pattern of a file's name, lower case -> its rows; the first that is here
    text: str | None = None  # how files without a telling ending are written
    nested: bool = False  # each file holds the rows of the stricter ones
    trains: bool = True  # False: published as a test alone, by one source at least
    verbatim: bool = False  # a published test taken as it is, duplicates and conflicts too
    template: Callable[[str], str] | None = None  # what texts have in common that were written from one template
    offer: Offer | None = None  # the candidates of rows that name one of many tags
    joined: bool = False  # a unit spans records: one that cannot be read spoils its neighbours
    shas: Mapping[str, str] = {}  # SHA-256 of the authors' files by name, where they are known
    family: str = ""  # sets that ask about the same documents: an adapter trained on one knows the others
    corrected: str = ""  # what is wrong with the source, and what was done about it


def split_in(name: str) -> str | None:
    """The authors' split by the file's name, the only place where they state it."""
    for word, split in (("train", "train"), ("dev", "validation"), ("val", "validation"), ("test", "test")):
        if word in name:
            return split
    return None


def parts(*details: str, config: str | None = None) -> tuple[Part, ...]:
    """Splits of the Hub that are called what they are to us."""
    return tuple(Part(detail, detail, config) for detail in details)


def parted(text: str, *marks: str) -> list[str] | None:
    """The pieces of ``text`` around ``marks``, which follow one another; None if one is missing. Linear in length."""
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found:
            return None
        pieces.append(piece)
    return [*pieces, text]


def key_of(column: str) -> str:
    """A column's name without case, spaces and underscores: files of one set differ in these."""
    return re.sub(r"[^a-z0-9]", "", column.casefold())


def text_of(row: Row, place: str, *columns: str) -> str:
    """The stripped text in the first of ``columns`` that the row has; "" for null and NaN. WrongFile if it has none."""
    by_key = {key_of(name): value for name, value in row.items()}
    for column in columns:
        if key_of(column) in by_key:
            value = by_key[key_of(column)]
            return "" if value is None or value != value else str(value).strip()
    found = ", ".join(map(str, row))
    raise WrongFile(f"{place}: a column {' or '.join(columns)} is expected, found {found[:120]}")


def coded(value: Any, codes: dict[str, str]) -> str | None:
    """The label of a code, given as text or number; a label stands for itself; None if it is neither."""
    text = str(value).strip().casefold()
    text = text[:-2] if text.endswith(".0") else text  # a table that once held a gap has its whole numbers so
    return codes.get(text) or (text if text in codes.values() else None)
