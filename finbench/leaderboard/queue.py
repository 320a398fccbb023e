"""``finbench leaderboard reproduce``: models of rows that nobody vouches for are asked again, one after another.

What was signed stays signed: the same command, here or on another machine, goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finbench.cards import cardfiles
from finbench.core.console import say
from finbench.core.errors import FinbenchError, Interrupted, reason, unknown
from finbench.core.records import Scorecard, Subject
from finbench.evaluation import drawing, verify
from finbench.leaderboard import attested, store
from finbench.models import adapters

_NOT_HERE = "its adapter is in none of the folders: --at DIR"


@dataclass(frozen=True)
class Reproduction:
    """What came of one card. ``said``: the attestation's path, what is asked, or why nobody vouches for it."""

    card: str
    outcome: Literal["signed", "already", "to ask", "not signed"]
    said: str


def reproduce(
    folder: Path = Path("leaderboards"),
    *,
    key: Path | None = None,
    only: Collection[str] = (),
    at: Sequence[Path] = (Path("runs"),),
    base: str | None = None,
    data_dir: Path | None = None,
    dry_run: bool = False,
) -> list[Reproduction]:
    """Ask the model of every card again that is not reproduced yet; sign with ``key`` what answered the same.

    ``only`` names cards by their files, without the ending. Adapters of the Hub are fetched at the commit that the card
    names, others are looked for in the folders ``at`` by their identity; ``base`` is the cards' base where
    ``bases.yaml`` does not know it. ``dry_run`` says what would be asked. A card whose model is not to be had, or
    answers otherwise, does not stop the rest. Raises FinbenchError, before anything is asked, for a name that is no
    card, and for a key that does not sign or that the leaderboard does not believe.
    """
    paths = {place.key: place.path for place in store.places(folder)[0]}
    if strange := [name for name in only if name not in paths]:
        raise unknown("card", strange[0], paths, f"ls {folder / store.SCORECARDS}")
    cards = {name: cardfiles.read(paths[name]) for name in only or paths}
    vouched, lying = attested.attestations(folder), _lying(at)
    found = {name: _state(paths[name], card, vouched, lying, data_dir) for name, card in cards.items()}
    waiting = [name for name, one in found.items() if one.outcome == "to ask"]
    if dry_run or not waiting:
        return list(found.values())
    if key is None:
        raise FinbenchError(
            "Nobody would believe a rerun that no maintainer has signed.", "Name a key: --key ~/.ssh/finbench"
        )
    attested.can_sign(folder, key, cards[waiting[0]])
    for number, name in enumerate(waiting, 1):
        say(f"{number} of {len(waiting)}, {name}: {found[name].said}")
        found[name] = _asked(folder, paths[name], cards[name].subject, key, lying, base, data_dir)
        say(f"{name} is {found[name].outcome}: {found[name].said}")
    return list(found.values())


def _lying(at: Sequence[Path]) -> dict[str, Path]:
    """Adapters and models in these folders, and in the folders there, by their identity."""
    found = {}
    for place in at:
        for folder in [place, *sorted(path for path in place.glob("*") if path.is_dir())]:
            if (folder / "adapter_config.json").is_file() or (folder / "config.json").is_file():
                try:
                    found[adapters.read(folder).identity] = folder
                except FinbenchError as fault:
                    say(f"{folder} is passed over: {fault.message}")
    return found


def _state(
    path: Path,
    card: Scorecard,
    vouched: Sequence[attested.Vouched],
    lying: Mapping[str, Path],
    data_dir: Path | None,
) -> Reproduction:
    """Whether a card waits to be asked again."""
    checked = verify(path, data_dir=data_dir)
    if checked.faults:
        return Reproduction(path.stem, "not signed", f"{checked.faults[0].field} {checked.faults[0].message}")
    if fault := attested.unfit(card):
        return Reproduction(path.stem, "not signed", f"{fault}; score its subject again: finbench eval")
    if attested.level(path, cardfiles.rows_by_task(path, card), checked, vouched) == "reproduced":
        return Reproduction(path.stem, "already", "a key that is believed vouches for it")
    where = _where(card.subject, lying)
    if card.subject.adapter and where is None:
        return Reproduction(path.stem, "not signed", _NOT_HERE)
    return Reproduction(path.stem, "to ask", where or str(card.subject.base.hub_id or card.subject.base.alias))


def _where(subject: Subject, lying: Mapping[str, Path]) -> str | None:
    """Where the adapter of a card is: here, else on the Hub; None of a base, and where nobody knows."""
    if subject.adapter and subject.adapter in lying:
        return str(lying[subject.adapter].resolve())
    return subject.adapter_source if (subject.adapter_source or "").startswith("hub:") else None


def _asked(
    folder: Path,
    path: Path,
    subject: Subject,
    key: Path,
    lying: Mapping[str, Path],
    base: str | None,
    data_dir: Path | None,
) -> Reproduction:
    try:
        where = _where(subject, lying)
        found = verify(path, rerun=drawing.AUTO, adapter=where, base=base, data_dir=data_dir)
        if found.level != "reproduced":
            said = [f"{fault.field} {fault.message}" for fault in found.faults] or found.notes or [found.level]
            return Reproduction(path.stem, "not signed", said[0])
        return Reproduction(path.stem, "signed", str(attested.attest(folder, path, found, key)))
    except Interrupted:
        raise
    except FinbenchError as fault:
        return Reproduction(path.stem, "not signed", f"{fault.message} {fault.hint}".strip())
    except (RuntimeError, MemoryError) as fault:  # torch's, of a model that does not fit: the others may
        return Reproduction(path.stem, "not signed", f"its model could not be asked ({reason(fault)})")
