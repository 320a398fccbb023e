"""What lies in a folder of runs: recipes by what differs, how far each run is, and its scores where cards are there.

A score is that of a whole test under plain conditions, in the bits that were trained; any other says what it is of.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finbench.cards import cardfiles, conditions_of
from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Recipe, Scorecard
from finbench.models import MARK, adapters, modelfiles, unfinished

_NOT_TOLD = {"name", "search", "save_every"}  # keys that make no other adapter
_PRETRAINED, _MERGED = "pretrain.json", "merge.json"
_Cards = dict[str, list[Scorecard]]


@dataclass
class Run:
    """One training. ``recipe``: what was asked for, not what ``auto`` became. ``differs``: keys that are not all alike.

    ``scores``: main metrics by task, with the conditions that are not the plain ones. ``what``: of a pretrained or
    merged model. ``resume``: how an unfinished one goes on.
    """

    folder: str
    state: Literal["done", "running", "unfinished", "unreadable"]
    recipe: dict[str, Any] = field(default_factory=dict)
    loss: float | None = None
    created: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    differs: dict[str, Any] = field(default_factory=dict)
    what: str = ""
    resume: str = ""


def runs_in(place: Path) -> list[Run]:
    """Every training below ``place``, two levels deep, oldest first; FinbenchError where the folder is not there."""
    if not place.is_dir():
        raise FinbenchError(f"{place} is no folder.", "Name one that has runs, or make one: finbench train --task fpb")
    cards = _cards_by_subject(place)
    found = [run for folder in sorted({*place.glob("*/"), *place.glob("*/*/")}) for run in _runs(folder, cards)]
    known = [run.recipe for run in found if run.recipe]
    for key in Recipe.model_fields.keys() - _NOT_TOLD:
        if len({json.dumps(recipe[key], sort_keys=True, default=str) for recipe in known if key in recipe}) > 1:
            for run in found:
                run.differs |= {key: run.recipe[key]} if key in run.recipe else {}
    return sorted(found, key=lambda run: (run.created or "~", run.folder))


def _runs(folder: Path, cards: _Cards) -> list[Run]:
    """The training of a folder, or the models of a pretraining."""
    if (folder / _PRETRAINED).is_file():
        return _pretrained(folder, cards)
    if (folder / "finbench.json").is_file():
        try:
            record = adapters.record(folder)
            whole = record.kind == "model"
            identity = digest(record.files) if whole else adapters.identity(folder)
        except FinbenchError:
            return [Run(str(folder), "unreadable")]
        recipe, created = record.recipe, record.provenance.created
        own = _scores(cards.get(identity, []), 16 if whole else recipe.bits)
        what = ("merged" if record.merge else "whole weights") if whole else ""
        return [Run(str(folder), "done", recipe.model_dump(), record.training.final_loss, created, own, what=what)]
    if (folder / _MERGED).is_file() and (folder / "config.json").is_file():
        return [Run(str(folder), "done", scores=_of_model(folder, cards), what="merged")]
    if not (folder / MARK).is_file():
        return []
    stated = unfinished.stated(folder)
    if stated is None:
        return [Run(str(folder), "unreadable")]
    asked = stated.get("recipe")
    known = {key: asked[key] for key in Recipe.model_fields if key in asked} if isinstance(asked, dict) else {}
    if environment.owned(folder):
        return [Run(str(folder), "running", known)]
    return [Run(str(folder), "unfinished", known, resume=unfinished.way_on(folder))]


def _pretrained(folder: Path, cards: _Cards) -> list[Run]:
    """Each model of a finished pretraining, by the few keys of its record that are shown."""
    try:
        stated = json.loads((folder / _PRETRAINED).read_text(encoding="utf-8"))
        created, found = str(stated["provenance"]["created"]), []
        for model in stated["models"]:
            place = folder / Path(str(model["folder"])).name
            losses = [float(loss) for _, loss in model["loss_curve"]]
            last = losses[-max(1, len(losses) // 10) :]
            own = {str(task): float(value) for task, value in model["scores"].items()} | _of_model(place, cards)
            what = f"pretrained, {model['name']}"
            found.append(Run(str(place), "done", {}, sum(last) / len(last), created, own, what=what))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return [Run(str(folder), "unreadable")]
    return found


def _of_model(folder: Path, cards: _Cards) -> dict[str, float]:
    """The scores of a whole model, which its cards know by its fingerprint."""
    if not any(card.subject.kind == "base" for own in cards.values() for card in own):
        return {}  # its weights need not be read
    with contextlib.suppress(FinbenchError, OSError):
        return _scores(cards.get(modelfiles.fingerprint(folder), []), 16)
    return {}


def _scores(cards: Sequence[Scorecard], bits: int) -> dict[str, float]:
    """Task -> main metric; in other ``bits``, another prompt style, or of a part of the rows the key says so."""
    found: dict[str, float] = {}
    for card in cards:
        own = [] if card.subject.bits == bits else [f"base in {card.subject.stored or '16 bits'}"]
        for score in card.scores:
            found[", ".join([score.task, *own, *conditions_of(card, score)])] = score.main.value
    return found


def _cards_by_subject(place: Path) -> _Cards:
    """The cards below ``place`` and in ``scorecards/``, by what was scored; not those of ``--limit``."""
    found: _Cards = {}
    for path in _cards(place):
        with contextlib.suppress(FinbenchError):
            card = cardfiles.read(path)
            if card.limit is None and card.engine != "dummy":
                found.setdefault(card.subject.adapter or card.subject.base.fingerprint, []).append(card)
    return found


def _cards(place: Path) -> Iterator[Path]:
    """Files that have samples beside them."""
    for folder, depth in ((place, ("*", "*/*", "*/*/*")), (Path("scorecards"), ("*",))):
        for pattern in depth:
            for path in sorted(folder.glob(f"{pattern}.json")):
                if cardfiles.samples_path(path).is_file():
                    yield path
