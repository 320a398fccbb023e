"""Adding cards to a leaderboard: verified, without restricted texts, under a name of their own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from finbench.cards import cardfiles, conditions_of
from finbench.core import catalog
from finbench.core.console import progress, say
from finbench.core.errors import FinbenchError, check_used
from finbench.core.files import sha256_file, write_atomic
from finbench.core.records import Scorecard
from finbench.evaluation import drawing, import_card, verify
from finbench.leaderboard import attested, examine, precedence, store
from finbench.leaderboard.board import FAMILIES
from finbench.leaderboard.store import SCORECARDS

_NOT_SHOWN = "none of its tasks is shown"


def add(
    sources: Sequence[Path | str],
    *,
    to: Path = Path("leaderboards"),
    adapter: str | None = None,
    base: str | None = None,
    rerun: int | str = 0,
    key: Path | None = None,
    name: str | None = None,
    owner: str | None = None,
    data_dir: Path | None = None,
) -> list[Path]:
    """Verify scorecards, or what stock lm-eval wrote, and copy them with their samples to ``to/scorecards``.

    ``adapter`` (a reference as for ``finbench eval``) adds its training record; with ``rerun`` that many documents a
    task (``auto``: as many as it takes) are asked again. ``key``, a private key of OpenSSH that the leaderboard
    believes, signs what they showed, and the card counts as reproduced. ``name`` is the subject's, for lm-eval's
    output. ``owner``: who brings them; then they lie in ``scorecards/OWNER/SUBJECT``. Raises FinbenchError for a card
    in which anything is wrong, that holds restricted texts, or whose tasks are never shown. Nothing is copied unless
    every card is fit.
    """
    if owner is not None and not re.fullmatch(store.OWNER, owner, re.ASCII):
        raise FinbenchError(f"--owner is a name as on the Hub, got {owner[:100]!r}.", "Write it as in org/name: org.")
    if not key and drawing.wanted(rerun) == 0:
        check_used({"--base": base}, "--rerun auto")
    with tempfile.TemporaryDirectory() as scratch:
        paths = [path for source in sources for path in _cards(Path(source), Path(scratch), name, data_dir)]
        if key and drawing.wanted(rerun) == 0:
            rerun = drawing.AUTO
        asked = drawing.wanted(rerun) != 0
        if (adapter or asked) and len(paths) != 1:
            raise FinbenchError(f"--adapter and --rerun are of one card, here are {len(paths)}.", "Add one at a time.")
        faults: list[str] = []
        with progress() as bar:
            line = bar.add_task("verifying", total=len(paths), note="")
            for path in paths:
                bar.update(line, note=path.name)
                faults += [f"{path.name}: {fault}" for fault in check(path, adapter=adapter, data_dir=data_dir)]
                bar.advance(line)
        if faults:
            mend = "See all that was checked: finbench verify CARD"
            if all(_NOT_SHOWN in fault for fault in faults):
                mend = "Evaluate it on tasks that are shown: finbench eval --tasks sentiment; "
                mend += "see them all: finbench tasks list"
            raise FinbenchError("\n".join(faults), mend)
        if key:  # before the model is asked, which may take hours
            attested.can_sign(to, key, cardfiles.read(paths[0]))
        found = verify(paths[0], rerun=rerun, adapter=adapter, base=base, data_dir=data_dir) if asked else None
        if found and found.level != "reproduced":
            said = [f"{fault.field} {fault.message}" for fault in found.faults] or found.notes
            raise FinbenchError("Not reproduced: " + "\n".join(said), "finbench verify CARD --rerun auto")
        subject = cardfiles.read(paths[0]).subject
        training = None if adapter is None else attested.training(to, adapter, subject)
        added = [_copy(path, to / SCORECARDS, owner) for path in paths]
        if training is not None:
            write_atomic(to / attested.training_file(subject), training)
        if found and key:
            say(f"Signed: {attested.attest(to, added[0], found, key)}")
        elif found:
            say("The model answered the same. That gives no badge unless a maintainer signs it: --key FILE")
        precedence.arrived(to, [store.key_of(to, path) for path in added])
    for path in added:
        _tell_partial(path)
    return added


def _tell_partial(path: Path) -> None:
    """Say of a partial card what it is of, and where it will stand."""
    card = cardfiles.read(path)
    if card.status == "complete":
        return
    parts = [score for score in card.scores if score.data.share or not score.is_whole(card.limit)]
    of = "; ".join(f"{one.task.removeprefix(catalog.PREFIX)}: {', '.join(conditions_of(card, one))}" for one in parts)
    where = " It stands in tables of its own, apart from those of whole tests." if parts else ""
    say(f"{path.name} is partial ({of or 'tasks that were asked are missing'}).{where}")


def _cards(source: Path, scratch: Path, name: str | None, data_dir: Path | None) -> list[Path]:
    """The cards of a file or folder; lm-eval's results become cards first."""
    if source.is_dir() and any(source.rglob("results_*.json")):
        out = scratch / f"{len(list(scratch.iterdir()))}"
        import_card(source, out=out, name=name, data_dir=data_dir)
        return cardfiles.expand([out])
    return cardfiles.expand([source])


def _copy(path: Path, root: Path, owner: str | None) -> Path:
    """Card and samples under a name that is free; a card that is there already stays as it is."""
    card = cardfiles.read(path)
    folder = root / owner / cardfiles.slug(card.subject.name) if owner else root
    with cardfiles.lock(root):
        place = _place(folder, path, card)
        if not place.exists():
            if card.samples is not None:
                source = cardfiles.samples_bytes(path, card.samples)
                write_atomic(cardfiles.samples_path(place), source.read_bytes())
            write_atomic(place, path.read_bytes())
    return place


def _place(folder: Path, path: Path, card: Scorecard) -> Path:
    """By the subject's name, else with the run's key, else with the file's hash: cards are never overwritten."""
    wanted = cardfiles.slug(card.subject.name)
    for stem in (wanted, f"{wanted}-{card.run_key[:8]}", f"{wanted}-{sha256_file(path)[:12]}"):
        place = folder / f"{stem}.json"
        if not place.exists() or sha256_file(place) == sha256_file(path):
            return place
    raise FinbenchError(f"{folder} has another card named {wanted}.", "Choose another folder: --to DIR")


def check(path: Path, *, adapter: str | None = None, data_dir: Path | None = None) -> list[str]:
    """Everything that keeps a card off the leaderboard, a sentence each: what `finbench verify` finds, and texts."""
    found, _ = examine.faults(path, adapter=adapter, data_dir=data_dir)
    card = cardfiles.read(path)
    if found:
        return found
    if not any(score.family in FAMILIES for score in card.scores):
        asked = ", ".join(score.task.removeprefix(catalog.PREFIX) for score in card.scores)
        found.append(f"{_NOT_SHOWN} ({asked}); families that are: {', '.join(FAMILIES)}")
    return found
