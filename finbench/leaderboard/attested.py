"""What a card cannot say about itself: its adapter's training, and that somebody asked the model again.

``adapters/<first 16 digits of its identity>.json`` holds the training record of an adapter with what ties it to the
card: identity is the digest of weights and configuration. ``reruns.json`` names the cards that were reproduced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from finbench.core.errors import FinbenchError
from finbench.core.files import digest, sha256_file, stable_json, write_atomic
from finbench.core.records import Adapter, Subject
from finbench.core.strict import Record
from finbench.models import adapters

ADAPTERS, RERUNS = "adapters", "reruns.json"


class AttestedAdapter(Record):
    """The record of an adapter, and its configuration, from which with the weights' SHA-256 its identity follows."""

    identity: str = Field(pattern=r"^[0-9a-f]{64}$", description="`subject.adapter` of its cards")
    config: dict[str, Any] = Field(description="adapter_config.json, less what does not decide an answer")
    record: Adapter = Field(description="finbench.json of the adapter folder")


class Rerun(Record):
    """Somebody asked the card's model again, and it answered the same (`finbench verify --rerun`)."""

    card: str = Field(description="name of the card's file")
    sha256: str = Field(description="of the card's file")
    documents: int = Field(ge=1, description="of each task, asked again")
    seed: int = Field(description="of their choice")
    created: str = Field(description="UTC, ISO 8601, seconds")


def _trained_path(folder: Path, identity: str) -> Path:
    return folder / ADAPTERS / f"{identity[:16]}.json"


def trained(folder: Path, subject: Subject) -> AttestedAdapter | None:
    """The training record of a card's adapter; None where there is none. FinbenchError for one that is another's."""
    if subject.adapter is None or not (path := _trained_path(folder, subject.adapter)).is_file():
        return None
    try:
        found = AttestedAdapter.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{path} is torn or not JSON ({fault}).",
            "Delete it, then add the card again: finbench leaderboard add CARD --to DIR --adapter ./folder",
        ) from fault
    files = found.record.files
    decisive = {"weights": files.get(adapters.WEIGHTS), "config": found.config}
    named = digest(files if found.record.kind == "model" else decisive)
    if not found.identity == subject.adapter == named:
        raise FinbenchError(f"{path} is not the record of the adapter {subject.adapter[:16]}.", "Add the card again.")
    return found


def keep_training(folder: Path, reference: str, subject: Subject) -> None:
    """Store the training record of an adapter folder; FinbenchError if it is not the card's adapter, or has none."""
    found = adapters.read(adapters.locate(reference))
    if found.identity != subject.adapter:
        raise FinbenchError(
            f"{reference} is not the adapter of {subject.name}: its identity is {found.identity[:16]}.",
            "Name the card's own adapter: --adapter ./folder",
        )
    if found.record is None:
        raise FinbenchError(
            f"{reference} has no finbench.json: who trained it, and how, is not known.",
            "Leave --adapter out, or name a folder that finbench train wrote.",
        )
    made = AttestedAdapter(identity=found.identity, config=adapters.decisive_config(found.config), record=found.record)
    write_atomic(_trained_path(folder, found.identity), made.model_dump_json(indent=1, by_alias=True) + "\n")


def reruns(folder: Path) -> list[Rerun]:
    """The cards that were reproduced."""
    path = folder / RERUNS
    if not path.is_file():
        return []
    try:
        return [Rerun.parse(entry, str(path)) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, RecursionError, TypeError) as fault:
        raise FinbenchError(
            f"{path} is torn or not a list ({fault}).",
            "Fetch the leaderboard again, or delete this file and add the cards again with --rerun.",
        ) from fault


def keep_rerun(folder: Path, made: Rerun) -> None:
    """Add to ``reruns.json``; a card that is there gets the newer entry."""
    kept = {entry.card: entry for entry in reruns(folder)} | {made.card: made}
    lines = ",\n ".join(stable_json(kept[name].model_dump()) for name in sorted(kept))
    write_atomic(folder / RERUNS, f"[{lines}]\n")


def level(folder: Path, card: Path, checked: str) -> str:
    """``reproduced`` where the card's samples stand and this very file was asked again; else what was checked."""
    same = [entry for entry in reruns(folder) if entry.card == card.name and entry.sha256 == sha256_file(card)]
    return "reproduced" if checked == "samples-attached" and same else checked
