"""Scorecards on disk: ``<name>.json`` and ``<name>.samples.jsonl.zst``, each written at once, never half."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import zstandard

from finbench.errors import FinbenchError
from finbench.files import sha256_file, stable_json, write_atomic
from finbench.records import Scorecard

_LARGEST = 256 * 2**20  # bytes of samples after decompression; a card's are a few megabytes


def read(path: Path) -> Scorecard:
    """A scorecard; FinbenchError for one that is missing, torn or not a scorecard."""
    try:
        return Scorecard.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError as fault:
        raise FinbenchError(f"No such scorecard: {path}") from fault
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{path} is torn or not a scorecard ({fault}).", "Move it away, or choose another folder with --out."
        ) from fault


def folder(place: Path) -> list[Scorecard]:
    """Every scorecard of a folder, bases first, then by name; other JSON files are passed over."""
    found = []
    for path in sorted(place.glob("*.json")):
        with contextlib.suppress(FinbenchError):
            found.append(read(path))
    return sorted(found, key=lambda card: (card.subject.kind != "base", card.subject.name, card.provenance.created))


def samples_path(card: Path) -> Path:
    """Where the samples of a card lie."""
    return card.with_name(card.name.removesuffix(".json") + ".samples.jsonl.zst")


def read_samples(card: Path) -> list[dict[str, Any]]:
    """The sample rows of a card; checked against the SHA-256 in it."""
    path, found = samples_path(card), read(card)
    if found.samples is None:
        return []
    try:
        if sha256_file(path) != found.samples:
            raise FinbenchError(f"{path} does not belong to {card} (its SHA-256 differs).")
        with path.open("rb") as handle, zstandard.ZstdDecompressor().stream_reader(handle) as stream:
            text = stream.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise FinbenchError(f"{path} is larger than any samples file can be.")
        return [json.loads(line) for line in text.decode("utf-8").splitlines()]
    except (OSError, ValueError, zstandard.ZstdError) as fault:
        raise FinbenchError(f"{path} is missing or torn ({fault}).") from fault


def write(path: Path, card: Scorecard, samples: list[dict[str, Any]]) -> Scorecard:
    """Write samples, then the card that names them; return the card as written."""
    lines = "".join(stable_json(row) + "\n" for row in samples)
    target = samples_path(path)
    write_atomic(target, zstandard.ZstdCompressor(level=10).compress(lines.encode("utf-8")))
    card = card.model_copy(update={"samples": sha256_file(target)})
    write_atomic(path, card.to_json())
    return card


def place_for(folder: Path, name: str, run_key: str) -> Path:
    """The file for a card of subject ``name``: an earlier one of the same run, else a name that is free.

    Evidence is never overwritten by a run with other settings: that gets the run's key in its name.
    """
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "subject"
    for candidate in (folder / f"{slug}.json", folder / f"{slug}-{run_key[:8]}.json"):
        if not candidate.exists() or read(candidate).run_key == run_key:
            return candidate
    raise FinbenchError(f"{folder} has a card of {name} that is not readable.", "Choose another --out.")
