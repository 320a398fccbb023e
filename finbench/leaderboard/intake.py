"""Adding cards to a leaderboard: verified, without restricted texts, under a name of their own."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file, write_atomic
from finbench.core.records import Scorecard
from finbench.core.seal import leaves
from finbench.evaluation import drawing, import_card, verify
from finbench.leaderboard import attested, precedence
from finbench.leaderboard.board import FAMILIES, SCORECARDS

_KEYS = {"task", "index", "doc", "cluster", "values", "answer", "answer_sha256", "of"}
_HASHES = ("doc", "cluster", "answer_sha256")
_NOT_SHOWN = "none of its tasks is shown"
_LONGEST = 200  # characters of a name, or of one word: the longest XBRL tags have 150


def add(
    sources: Sequence[Path | str],
    *,
    to: Path = Path("leaderboards"),
    adapter: str | None = None,
    base: str | None = None,
    rerun: int | str = 0,
    key: Path | None = None,
    name: str | None = None,
    data_dir: Path | None = None,
) -> list[Path]:
    """Verify scorecards, or what stock lm-eval wrote, and copy them with their samples to ``to/scorecards``.

    ``adapter`` (a reference as for ``finbench eval``) adds its training record; with ``rerun`` that many documents a
    task (``auto``: as many as it takes) are asked again. ``key``, a private key of OpenSSH that the leaderboard
    believes, signs what they showed, and the card counts as reproduced. ``name`` is the subject's, for lm-eval's
    output. Raises FinbenchError for a card in which anything is wrong, that holds restricted texts, or whose tasks are
    never shown. Nothing is copied unless every card is fit.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = [path for source in sources for path in _cards(Path(source), Path(scratch), name, data_dir)]
        if key and drawing.wanted(rerun) == 0:
            rerun = drawing.AUTO
        asked = drawing.wanted(rerun) != 0
        if (adapter or asked) and len(paths) != 1:
            raise FinbenchError(f"--adapter and --rerun are of one card, here are {len(paths)}.", "Add one at a time.")
        faults = [f"{path.name}: {fault}" for path in paths for fault in check(path, data_dir=data_dir)]
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
        added = [_copy(path, to / SCORECARDS) for path in paths]
        if adapter is not None:
            attested.keep_training(to, adapter, cardfiles.read(paths[0]).subject)
        if found and key:
            say(f"Signed: {attested.attest(to, added[0], found, key)}")
        elif found:
            say("The model answered the same. That gives no badge unless a maintainer signs it: --key FILE")
        precedence.arrived(to, [path.stem for path in added])
    return added


def _cards(source: Path, scratch: Path, name: str | None, data_dir: Path | None) -> list[Path]:
    """The cards of a file or folder; lm-eval's results become cards first."""
    if source.is_dir() and any(source.rglob("results_*.json")):
        out = scratch / f"{len(list(scratch.iterdir()))}"
        import_card(source, out=out, name=name, data_dir=data_dir)
        return cardfiles.expand([out])
    return cardfiles.expand([source])


def _copy(path: Path, folder: Path) -> Path:
    """Card and samples under a name that is free; a card that is there already stays as it is."""
    card = cardfiles.read(path)
    with cardfiles.lock(folder):
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


def check(path: Path, *, data_dir: Path | None = None) -> list[str]:
    """Everything that keeps a card off the leaderboard, a sentence each: what `finbench verify` finds, and texts."""
    card = cardfiles.read(path)
    # texts first: a card that holds some must go, whatever else is wrong with it
    texts = restricted(cardfiles.read_samples(path)) if card.samples is not None else []
    found = verify(path, data_dir=data_dir)
    faults = texts + [f"{fault.field} {fault.message}" for fault in found.faults]
    if faults:
        return faults
    faults += [f"engine {fault}" for fault in [precedence.without_model(card)] if fault]
    faults += [
        f"{where} is no name: {len(str(value))} characters"
        for where, value in leaves(card.subject.model_dump())
        if isinstance(value, str) and len(value) > _LONGEST
    ]
    if own := [score.task for score in card.scores if (task := catalog.tasks().get(score.task)) is None or task.own]:
        faults.append(f"{', '.join(own)} is no task of finbench, and never stands beside those that are ranked")
    if chosen := sorted(
        {f"{k}={v}" for score in card.scores for k, v in score.data.choices.items() if k != "agreement"}
    ):
        faults.append(f"--metadata {', '.join(chosen)}: only scores of the test as it is are ranked")
    if not any(score.family in FAMILIES for score in card.scores):
        asked = ", ".join(score.task.removeprefix(catalog.PREFIX) for score in card.scores)
        faults.append(f"{_NOT_SHOWN} ({asked}); families that are: {', '.join(FAMILIES)}")
    return faults


def restricted(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts in sample rows that may not be published, a sentence for each kind of place.

    Of a restricted set a row holds labels, numbers and hashes: neither an answer in words nor any value that is not a
    label of the task. Of every set it holds the keys of a sample row and no others.
    """
    found: Counter[str] = Counter()
    for row in rows:
        task = catalog.tasks().get(str(row.get("task")))
        closed = task is None or task.restricted
        labels = task.labels if task and task.labels else []
        found.update(f"samples[{row.get('task')}].{place}" for place in _texts(row, labels if closed else None))
    return [
        f"{where} holds text that may not be published ({count} row{'' if count == 1 else 's'})"
        for where, count in found.items()
    ]


def _texts(row: Mapping[str, Any], labels: Collection[str] | None) -> Iterator[str]:
    """Places with text in a row; ``labels``: the only words that may stand in it, None where any may."""
    yield from (key for key in row if key not in _KEYS)
    yield from (key for key in _HASHES if not re.fullmatch("[0-9a-f]{0,4096}", str(row.get(key, ""))))
    values = row.get("values")
    if not isinstance(values, dict):
        yield "values"
        return
    if labels is None:
        return
    if any(isinstance(leaf, str) for _, leaf in leaves(row.get("answer"))):
        yield "answer"
    for name, value in values.items():
        if isinstance(value, dict) and set(value) == {"sha256"} and re.fullmatch("[0-9a-f]{32}", str(value["sha256"])):
            continue
        words = [leaf for _, leaf in leaves(value) if isinstance(leaf, str)]
        words += [*value] if isinstance(value, dict) else []
        # tags and the names of questions are one word; a sentence is not
        if any(word not in labels and (re.search(r"\s", word) or len(word) > _LONGEST) for word in words):
            yield f"values.{name}"
