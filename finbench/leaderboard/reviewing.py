"""A pull request with cards: whether they may be taken, and where they would stand."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finbench.cards import cardfiles, in_brackets
from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.core.records import Measure
from finbench.leaderboard import attested, intake, precedence, signing, store
from finbench.leaderboard.board import board
from finbench.leaderboard.reading import read
from finbench.leaderboard.rows import BoardTest

_SHOWN = 40  # rows of a comment, and faults
_FAULT = 1_000  # characters of a fault: two names of 200, and what to do at its end
_LEVEL = 5  # names of those that a card is level with


@dataclass(frozen=True)
class Standing:
    """Where a card stands in a test: its place among ``of`` rows, and its group."""

    card: str
    name: str
    test: str
    value: float
    low: float | None
    high: float | None
    share: bool  # shown in percent
    place: int
    of: int
    group: int | None
    level: list[str]  # others of its group, best first


@dataclass(frozen=True)
class Review:
    """New cards of a leaderboard, what keeps them off it, and where they would stand."""

    new: list[str]
    faults: list[str]
    standings: list[Standing]

    @property
    def comment(self) -> str:
        """For the pull request, in Markdown. What cards say stands in code, where it can neither link nor call."""
        count = f"{len(self.new)} new scorecard{'' if len(self.new) == 1 else 's'}"
        if self.faults:
            lines = [
                f"**Not yet**: {count}, and this is wrong:",
                "",
                *(f"- {_code(one, _FAULT)}" for one in self.faults[:_SHOWN]),
            ]
            more = len(self.faults) - _SHOWN
            return "\n".join([*lines, *([f"- and {more:,} more"] if more > 0 else []), ""])
        lines = [f"**Fit to be taken**: {count}. Every number follows from its samples. It would stand here:", ""]
        lines += ["| card | test | place | group | value | level with |", "|--|--|--|--|--|--|"]
        lines += [self._line(one) for one in self.standings[:_SHOWN]]
        more = len(self.standings) - _SHOWN
        lines += [f"\nand {more:,} more rows"] if more > 0 else []
        lines += [] if self.standings else ["\nNo row: cards of the same subjects or answers count before."]
        return "\n".join([*lines, ""])

    def _line(self, one: Standing) -> str:
        level = ", ".join(map(_code, one.level[:_LEVEL])) + (
            f" and {len(one.level) - _LEVEL}" * (len(one.level) > _LEVEL)
        )
        cells = (
            _code(one.name),
            _code(one.test),
            f"{one.place:,} of {one.of:,}",
            one.group or "–",
            in_brackets(Measure(value=one.value, low=one.low, high=one.high, method=""), one.share),
        )
        return f"| {' | '.join(map(str, cells))} | {level or '–'} |"


@environment.uncollected()
def review(folder: Path, against: Path) -> Review:
    """Compare a leaderboard with the one it would be merged into, whose keys and order are believed.

    Cards are added, never edited or taken away; lines are added to the end of the order of arrival; and keys do not
    change together with cards. Every new card is checked as ``finbench leaderboard add`` does. FinbenchError where
    either folder is no leaderboard.
    """
    for root in (folder, against):
        if not (root / store.SCORECARDS).is_dir():
            raise FinbenchError(f"{root} is no leaderboard: it has no folder {store.SCORECARDS}.", "Name two folders.")
    (here, wrong), (there, _) = store.places(folder), store.places(against)
    before = {place.key: place.path for place in there}
    new = [place for place in here if place.key not in before]
    faults = [f"{name} {fault}" for name, fault in wrong.items()]
    faults += [f"{key}.json was taken away: cards stay" for key in before.keys() - {place.key for place in here}]
    keys = {place.key for place in new}
    faults += _changed(folder, against, new, there)
    faults += _order(folder, against, keys)
    for name in (signing.SIGNERS, signing.REVOKED):
        if new and _bytes(folder / name) != _bytes(against / name):
            faults.append(f"{name} changes together with a card: only a maintainer changes it, alone")
    for place in new:
        try:
            faults += [f"{place.key}.json: {fault}" for fault in intake.check(place.path)]
        except FinbenchError as fault:
            faults.append(f"{place.key}.json: {fault.message}")
    if faults or not new:
        return Review(sorted(keys), sorted(faults), [])
    cards = read(folder, against)
    made = board(cards.entries, cards.refused)
    known = {one.file for one in read(against).refused} if made.refused else set()
    faults = [f"{one.file}: {one.faults[0]}" for one in made.refused if one.file not in known]
    return Review(
        sorted(keys), faults, [] if faults else [one for test in made.tests for one in _standings(test, keys)]
    )


def _changed(
    folder: Path, against: Path, places: Sequence[store.CardPlace], there: Sequence[store.CardPlace]
) -> Iterator[str]:
    """Files beside the pages that a request may not touch: all but new cards, their samples and their trainings.

    Of a training only who brought the first card that states none other for its adapter says how it was.
    """
    new = {f"{store.SCORECARDS}/{place.key}.json" for place in places}
    new |= {cardfiles.samples_path(folder / name).relative_to(folder).as_posix() for name in new}
    trained = {name: place for place in reversed(places) if (name := _training(folder, place))}
    brought = {name for name in trained if (folder / name).is_file() and not (against / name).is_file()}
    order = precedence.arrivals(against)
    for place in sorted(there, key=lambda one: order.get(one.key, math.inf)) if brought else ():
        if (name := _training(folder, place)) in brought:
            brought.remove(name)
            if store.owner_of(place.key) != store.owner_of(trained[name].key):
                said = f"{name} is the training of an adapter that {place.key}.json brought: its owner adds it"
                yield f"{said}, or a maintainer whom you ask"
    new |= trained.keys()
    for part in (store.SCORECARDS, "adapters", "attestations"):
        mine, theirs = ({path.relative_to(root).as_posix(): path for path in sorted((root / part).rglob("*"))
                         if path.is_symlink() or path.is_file()} for root in (folder, against))  # fmt: skip
        for name in sorted(mine.keys() | theirs.keys()):
            if name not in mine:
                if not name.endswith(".json") or part != store.SCORECARDS:  # of cards it is said already
                    yield f"{name} was taken away"
            elif mine[name].is_symlink():
                yield f"{name} is a link"
            elif name not in theirs:
                if name not in new and not _is_lock(mine[name]):
                    yield f"{name} is no card, nor the samples or the training of a new one"
            elif sha256_file(mine[name]) != sha256_file(theirs[name]):
                yield f"{name} was edited: cards are added, never changed"


def _training(folder: Path, place: store.CardPlace) -> str:
    """Where the training of a card's adapter lies; empty where none does, and where the card states another."""
    with contextlib.suppress(FinbenchError):  # which is said elsewhere
        subject = cardfiles.read(place.path).subject
        return attested.training_file(subject) if attested.trained(folder, subject) else ""
    return ""


def _is_lock(path: Path) -> bool:
    """What ``add`` leaves beside the cards, which Git passes over."""
    return path.name == ".lock" and path.stat().st_size == 0


def _order(folder: Path, against: Path, keys: set[str]) -> list[str]:
    """What is wrong with the order of arrival."""
    found = [precedence.arrivals(root) for root in (folder, against)]
    mine, theirs = (sorted(places, key=places.__getitem__) for places in found)
    if mine[: len(theirs)] != theirs:
        return [f"{precedence.ARRIVALS} changes otherwise than at its end"]
    strange = [key for key in mine[len(theirs) :] if key not in keys]
    mend, name = f"has no line in {precedence.ARRIVALS}. Write one: echo", f"leaderboards/{precedence.ARRIVALS}"
    lacking = [f"{key}.json {mend} {shlex.quote(key)} >> {name}" for key in keys.difference(mine)]
    return [f"{precedence.ARRIVALS} names {key}, which is no new card" for key in strange] + lacking


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _standings(test: BoardTest, keys: set[str]) -> Iterator[Standing]:
    for place, row in enumerate(test.rows):
        mine = {run.entry.key for run in (row.runs or (row,))} & keys
        if not mine:
            continue
        main = row.main
        level = [other.name for other in test.rows if row.group and other.group == row.group and other is not row]
        yield Standing(
            sorted(mine)[0], row.name, test.title, main.value, main.low, main.high, test.share,
            place + 1, len(test.rows), row.group, level,
        )  # fmt: skip


def _code(text: str, most: int = 160) -> str:
    plain = re.sub(r"[`|\x00-\x1f\u2028\u2029]", " ", text).strip()
    return f"`{plain[:most] + '…' * (len(plain) > most)}`"
