"""What lies in a folder of runs: recipes by what differs, how far each run is, and its scores where cards are there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.models import adapters
from finbench.training.claims import MARK

_NOT_TOLD = {"name", "search", "save_every"}  # keys that make no other adapter


@dataclass
class Run:
    """One training. ``differs``: the keys in which the recipes are not all alike; ``scores``: of whole tests.

    An unfinished one goes on with ``finbench train --resume``.
    """

    folder: str
    state: Literal["done", "unfinished", "unreadable"]
    recipe: dict[str, Any] = field(default_factory=dict)
    loss: float | None = None
    created: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    differs: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def runs_in(place: Path) -> list[Run]:
    """Every training below ``place``, two levels deep, oldest first; FinbenchError where the folder is not there."""
    if not place.is_dir():
        raise FinbenchError(f"{place} is no folder.", "Name one that has runs, or make one: finbench train --task fpb")
    scores = _scores(place)
    found = [run for folder in sorted({*place.glob("*/"), *place.glob("*/*/")}) if (run := _run(folder, scores))]
    known = [run.recipe for run in found if run.recipe]
    for key in Recipe.model_fields.keys() - _NOT_TOLD:
        if len({json.dumps(recipe[key], sort_keys=True, default=str) for recipe in known if key in recipe}) > 1:
            for run in found:
                run.differs |= {key: run.recipe[key]} if key in run.recipe else {}
    return sorted(found, key=lambda run: (run.created or "~", run.folder))


def _run(folder: Path, scores: Mapping[str, dict[str, float]]) -> Run | None:
    if (folder / "finbench.json").is_file():
        try:
            record = adapters.record(folder)
            identity = adapters.identity(folder) if record.kind == "peft" else ""
        except FinbenchError:
            return Run(str(folder), "unreadable")
        own, created = scores.get(identity, {}), record.provenance.created
        return Run(str(folder), "done", record.recipe.model_dump(), record.training.final_loss, created, own)
    if not (folder / MARK).is_file():
        return None
    with contextlib.suppress(OSError, ValueError):
        stated = json.loads((folder / MARK).read_text(encoding="utf-8"))
        if isinstance(stated, dict):  # base and data are there by fingerprint and digest
            keys = Recipe.model_fields.keys() - {"base", "data", *_NOT_TOLD}
            return Run(str(folder), "unfinished", {key: stated[key] for key in stated if key in keys})
    return Run(str(folder), "unreadable")


def _scores(place: Path) -> dict[str, dict[str, float]]:
    """Adapter -> task -> main metric, of the cards below ``place`` and in ``scorecards/``."""
    found: dict[str, dict[str, float]] = {}
    for path in _cards(place):
        with contextlib.suppress(FinbenchError):
            card = cardfiles.read(path)
            if card.subject.adapter and card.limit is None:
                own = {score.task: score.main.value for score in card.scores}
                found.setdefault(card.subject.adapter, {}).update(own)
    return found


def _cards(place: Path) -> Iterator[Path]:
    """Files that have samples beside them."""
    for folder, depth in ((place, ("*", "*/*", "*/*/*")), (Path("scorecards"), ("*",))):
        for pattern in depth:
            for path in sorted(folder.glob(f"{pattern}.json")):
                if cardfiles.samples_path(path).is_file():
                    yield path
