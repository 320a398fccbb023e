"""The cards of one subject among those that lie in folders, each score beside its base's."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles, undernoise
from finbench.cards.render import parts_of
from finbench.cards.setups import apart, setup_of
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Score, Scorecard
from finbench.models import adapters, adopting

GENERAL = "general"  # family of the tasks that show what a training forgot


@dataclass
class HeldScore:
    """A score of the subject with its card, where it lies, its rows, and the base's beside it."""

    path: Path
    card: Scorecard
    score: Score
    rows: list[dict[str, Any]]
    base: HeldScore | None = None

    @property
    def task(self) -> str:
        said = self.score.task.removeprefix(catalog.PREFIX)
        return ", ".join([said, *parts_of(self.card, self.score)])


@dataclass
class SubjectCards:
    """What lies in the folders: scores of the subject on tests as they are, on validation rows, cards under noise."""

    subject: Scorecard
    path: Path
    own: list[HeldScore] = field(default_factory=list)
    fits: list[HeldScore] = field(default_factory=list)
    noisy: list[Path] = field(default_factory=list)
    adapter: Path | None = None  # its folder, where that was named
    bare: bool = False  # commands name files without their folders: for readers who have others

    def word(self, path: Path) -> str:
        """A path as a word of the shell: as seen from here, else its last two parts: a page shows nobody's home."""
        if self.bare:
            return shlex.quote(path.name)
        here, whole = Path.cwd().resolve(), path.resolve()
        return shlex.quote(str(whole.relative_to(here) if whole.is_relative_to(here) else Path(*whole.parts[-2:])))

    def words(self, held: Sequence[HeldScore]) -> str:
        """The cards of these scores as words of the shell."""
        return " ".join(dict.fromkeys(self.word(one.path) for one in held))

    @property
    def mains(self) -> list[HeldScore]:
        """The scores without those of several prompts on a sample of a test that is there whole."""
        whole = {one.score.task for one in self.own if one.score.is_whole(one.card.limit)}
        return [
            one
            for one in self.own
            if not one.score.prompts or one.score.is_whole(one.card.limit) or one.score.task not in whole
        ]


def gathered(subject: Path, places: Sequence[Path]) -> SubjectCards:
    """The cards of an adapter folder, or of the subject of a card, among those below ``places``.

    FinbenchError where no card of an adapter lies there.
    """
    folder = subject.is_dir()
    adapter = subject if folder else None
    home = Path("scorecards") if folder else subject.parent
    paths = [path for place in places or [home] for path in _within(place)]
    if folder:
        own = adapters.read(subject)
        named = [path for path in paths if cardfiles.read(path).subject.adapter == own.identity]
        if not named:
            raise FinbenchError(
                f"No scorecard of {subject} lies in {', '.join(map(str, places or [home]))}.",
                f"Make one: {adopting.to_score(own, str(subject))}; or name the folder it lies in.",
            )
        subject = max(named, key=lambda path: cardfiles.read(path).provenance.created)
    first = cardfiles.read(subject)
    found = SubjectCards(first, subject, adapter=adapter)
    bases: list[HeldScore] = []
    for path in dict.fromkeys([subject, *paths]):
        card = cardfiles.read(path)
        same = _weights(card) == _weights(first)
        if not same and not _is_base_of(card, first):
            continue
        rows = cardfiles.rows_by_task(path, card)
        held = [HeldScore(path, card, score, rows.get(score.task, [])) for score in card.scores]
        if any(undernoise.noise_of(one.score) for one in held):
            found.noisy += [path] if same and any(undernoise.is_noisy(one.score) for one in held) else []
        elif not any(one.score.data.choices.get("split") for one in held):
            (found.own if same else bases).extend(held)
        elif same:
            found.fits += held
    shown: dict[str, HeldScore] = {}
    for one in sorted(found.own, key=_newer, reverse=True):
        shown.setdefault(one.task, one)
    found.own = list(shown.values())
    for one in found.own:
        setup = setup_of(one.card, one.score)
        alike = [b for b in bases if b.score.task == one.score.task and not apart(setup, setup_of(b.card, b.score))]
        # of several the one of the same sitting: of the same machine and versions
        one.base = min(alike, key=functools.partial(_apart_in_time, one), default=None)
    found.own.sort(key=lambda one: (one.score.family == GENERAL, one.score.family, one.task))
    return found


def _newer(one: HeldScore) -> tuple[bool, str]:
    """Of several scores of one test the greatest is shown: the present version first, then the newest."""
    present = catalog.tasks().get(one.score.task)
    return present is not None and present.digest == one.score.task_digest, one.card.provenance.created


def _apart_in_time(one: HeldScore, other: HeldScore) -> timedelta:
    return abs(one.card.provenance.when() - other.card.provenance.when())


def _within(place: Path) -> Iterator[Path]:
    """Scorecards at a place, and in folders within it."""
    if not place.is_dir():
        yield from cardfiles.expand([place])
        return
    for folder in [place, *sorted(path for path in place.rglob("*") if path.is_dir())]:
        if any(folder.glob("*.json")):
            yield from (path for path in sorted(folder.glob("*.json")) if _readable(path))


def _readable(path: Path) -> bool:
    try:
        cardfiles.read(path)
    except FinbenchError:  # other JSON files are passed over
        return False
    return True


def _weights(card: Scorecard) -> tuple[Any, ...]:
    return card.subject.base.fingerprint, card.subject.adapter, card.subject.bits, card.subject.kind


def _is_base_of(card: Scorecard, other: Scorecard) -> bool:
    same = card.subject.base.fingerprint == other.subject.base.fingerprint and card.subject.bits == other.subject.bits
    return card.subject.kind == "base" and other.subject.kind != "base" and same
