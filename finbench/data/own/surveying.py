"""A look at every own row before anything is made of it: what is bad, copied, or contradicts itself.

Of a row only two hashes of eight bytes and its line are kept, so that a million rows take some 30 MB.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.data.own.locating import LocatedRows, OwnFile, format_of
from finbench.data.own.shapes import BadRow, Recognised, Turn

SHOWN = 5  # faults that are named one by one
_LABELS, _LABEL = 200, 60  # different answers at most that are labels, and characters of one
_OFTEN = 2  # times a label is given on average, at least

Content = tuple[list[Turn], str]  # (the turns of a row, its line)


@dataclass
class Survey:
    """What own rows are. Rows are numbered among those that can be learnt, in the order of the files."""

    located: LocatedRows
    formats: dict[str, Recognised] = field(default_factory=dict)  # of each file
    read: int = 0
    bad: int = 0
    faults: list[str] = field(default_factory=list)  # the first ``SHOWN``
    elsewhere: Counter[str] = field(default_factory=Counter)  # rows of other splits
    kept: Any = None  # (rows,): whether a row is no copy of an earlier one
    conflicts: int = 0  # prompts that have several answers
    conflicting: list[tuple[str, str]] = field(default_factory=list)  # lines of two such rows
    labels: dict[str, int] | None = None  # the answers, where they are few
    marks: dict[str, str] = field(default_factory=dict)  # label -> the line where it is first given
    returns: list[str] = field(default_factory=list)  # lines with carriage returns, the first three
    prompts: Any = None  # (rows,): a hash of what is asked
    hashes: Any = None  # (rows,): a hash of all of it
    _places: Any = None
    _prefixes: list[tuple[int, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the source."""
        return self.located.name

    @property
    def copies(self) -> int:
        """Rows that repeat an earlier one to the letter, of this source or of one before it."""
        return int(len(self.kept) - self.kept.sum())

    @property
    def dropped(self) -> dict[str, int]:
        """Why rows are left out -> how many."""
        found = {"copies": self.copies, "bad": self.bad, **{f"of split {k}": n for k, n in self.elsewhere.items()}}
        return {why: count for why, count in found.items() if count}

    @property
    def said(self) -> str:
        """One line: what the rows were recognised as."""
        kinds = dict.fromkeys(known.said for known in self.formats.values())
        unused = dict.fromkeys(column or "''" for known in self.formats.values() for column in known.unused)
        ignored = f"; not used: {', '.join(list(unused)[:6])}{', ...' if len(unused) > 6 else ''}" if unused else ""
        return f"{self.name}: {' / '.join(kinds)}, {len(self.kept):,} rows{ignored}"

    def place(self, number: int) -> str:
        """``file:line`` of a row."""
        before = next(prefix for start, prefix in reversed(self._prefixes) if start <= number)
        return f"{before}{self._places[number]}"

    def refuse(self) -> None:
        """Raise what is wrong with rows that cannot be learnt."""
        if self.bad:
            more = f"\n  ... and {self.bad - len(self.faults):,} more" if self.bad > len(self.faults) else ""
            raise FinbenchError(
                f"{self.bad:,} of {self.read:,} rows of {self.name} cannot be learnt:\n  "
                + "\n  ".join(self.faults)
                + more,
                "Correct them, or leave such rows out: --set bad_rows=drop",
            )

    def warnings(self) -> list[str]:
        """What contradicts itself, a line each."""
        found = []
        if self.conflicts:
            lines = "; ".join(" and ".join(pair) for pair in self.conflicting[:3])
            said = "1 prompt has" if self.conflicts == 1 else f"{self.conflicts:,} prompts have"
            found.append(f"{said} different answers ({lines}).")
        groups: dict[str, list[str]] = {}
        for label in self.labels or {}:
            groups.setdefault(" ".join(label.split()).casefold(), []).append(label)
        for same in groups.values():
            if len({label.strip() for label in same}) > 1 or len(same) > 1:
                shown = ", ".join(f"{label!r} {self.marks[label]}" for label in same[:4])
                found.append(f"Answers that differ by case or spaces alone: {shown}.")
        for one in groups:
            longer = [other for other in groups if other != one and f" {one} " in f" {other} "]
            if longer:
                found.append(f"The answer {one!r} is part of another one: {', '.join(map(repr, longer[:3]))}.")
        for label, count in (self.labels or {}).items():
            if label.strip().casefold() in ("nan", "null", "n/a", "#n/a"):
                found.append(f"{count:,} answers are {label.strip()!r} ({self.marks[label]}): missing values?")
        if self.returns:
            found.append(f"Carriage returns stand in texts, and are learnt ({', '.join(self.returns)}).")
        if self.located.left:
            place = shlex.quote(os.path.relpath(self.located.stated.source))
            left = f"Left out by their names, as rows to test on: {', '.join(self.located.left[:4])}."
            found.append(f"{left} Are copies of them among the others? finbench data audit {place}")
        return found

    def asked(self, places: Iterable[int]) -> set[int]:
        """What these rows ask (``asked_in``), read again."""
        wanted = set(places)
        return {asked_in(turns) for place, (turns, _) in enumerate(self.contents()) if place in wanted}

    def contents(self) -> Iterator[Content]:
        """The rows that can be learnt, in order: read again. Raises FinbenchError if the files have changed."""
        count = 0
        for file in self.located.files:
            for found in _each(file, self.located, Survey(self.located)):
                if not isinstance(found, str):
                    count += 1
                    yield found
        if count != len(self.kept):
            raise FinbenchError(f"{self.name} changed while it was read.", "Repeat the command.")


def surveys(sources: Iterable[LocatedRows]) -> list[Survey]:
    """Each source looked through. Of a row that several have, that of the first one is kept."""
    found: list[Survey] = []
    for located in sources:
        one = survey(located)
        for earlier in found:
            one.kept &= ~np.isin(one.hashes, earlier.hashes)
        found.append(one)
    return found


def survey(located: LocatedRows) -> Survey:
    """Read every row once. Raises FinbenchError for files that cannot be read, or have no format that is known."""
    found = Survey(located)
    rows, prompts, places = array("Q"), array("Q"), array("q")
    labels: Counter[str] | None = Counter()
    for file in located.files:
        for one in _each(file, located, found):
            if isinstance(one, str):
                found.bad += 1
                found.faults += [one] if len(found.faults) < SHOWN else []
                continue
            turns, place = one
            asked, whole = _hashes(turns)
            if len(found.returns) < 3 and any("\r" in text for _, text in turns):
                found.returns.append(place)
            prefix, number = _divided(place)
            if not found._prefixes or found._prefixes[-1][1] != prefix:
                found._prefixes.append((len(rows), prefix))
            rows.append(whole)
            prompts.append(asked)
            places.append(number)
            if labels is not None and turns[0][0] != "text":
                answer = turns[-1][1]
                labels[answer] += 1
                if labels[answer] == 1:
                    found.marks[answer] = place
                if len(labels) > _LABELS or len(answer) > _LABEL:
                    labels = None
                    found.marks.clear()
    found._places, found.prompts = places, np.array(prompts, np.uint64)
    found.hashes = np.array(rows, np.uint64)
    found.kept = np.zeros(len(rows), bool)
    found.kept[np.unique(found.hashes, return_index=True)[1]] = True
    if labels and len(rows) >= _OFTEN * len(labels):
        found.labels = dict(labels.most_common())
    _contradict(found)
    return found


def _contradict(found: Survey) -> None:
    """Count the prompts that have several answers."""
    kept = np.flatnonzero(found.kept)  # of copies the first: what is left with one prompt has different answers
    order = kept[np.argsort(found.prompts[kept], kind="stable")]
    same = np.flatnonzero(found.prompts[order][1:] == found.prompts[order][:-1])
    found.conflicts = len(np.unique(found.prompts[order[same]]))
    firsts = sorted({int(found.prompts[order[at]]): (int(order[at]), int(order[at + 1])) for at in same[::-1]}.values())
    found.conflicting = [(found.place(one), found.place(other)) for one, other in firsts[:SHOWN]]


def _each(file: OwnFile, located: LocatedRows, found: Survey) -> Iterator[Content | str]:
    """The rows of a file with their lines; of those that are bad, why."""
    known, records = format_of(file, located.stated)
    found.formats[file.name] = known
    for record in records:
        if isinstance(record, str):
            found.read += 1
            yield f"{file.name}:{record}" if record[:1].isdigit() else f"{file.name}: {record}"
        elif record.detail not in (None, "train"):
            found.elsewhere[record.detail] += 1
        else:
            found.read += 1
            place = f"{file.name}{record.place}"
            try:
                turns = known.turns(record.row)
                for _, text in turns:
                    text.encode()
            except BadRow as fault:
                yield f"{place}: {fault}"
            except UnicodeEncodeError:
                yield f"{place}: it has half of a character (a lone surrogate)"
            else:
                yield turns, place


def _divided(place: str) -> tuple[str, int]:
    """A line as what stands before its number, and the number."""
    bare = place.rstrip("0123456789")
    return (bare, int(place[len(bare) :])) if len(bare) < len(place) else (f"{place} ", 0)


def asked_in(turns: list[Turn]) -> int:
    """A hash of what a row asks, case, spaces and punctuation left aside: as texts of tasks are compared."""
    normal = paths.helper("sets").splits.signed
    asked = repr([(who, normal(text)) for who, text in turns[:-1] or turns])
    return int.from_bytes(hashlib.blake2b(asked.encode(), digest_size=8).digest(), "little")


def _hashes(turns: list[Turn]) -> tuple[int, int]:
    """(of what is asked, of the whole row)."""
    asked = hashlib.blake2b(repr(turns[:-1] or turns).encode("utf-8", "surrogatepass"), digest_size=8)
    whole = asked.copy()
    whole.update(turns[-1][1].encode("utf-8", "surrogatepass"))
    return int.from_bytes(asked.digest(), "little"), int.from_bytes(whole.digest(), "little")
