"""Adapters whose weights were changed by hand: their old record moves aside."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.models import adapters
from finbench.models.adapters import AdapterFolder


def adopt(folder: Path) -> AdapterFolder:
    """Take a folder whose weights are no longer those of its ``finbench.json`` for an adapter made elsewhere.

    The record moves to ``history/finbench-<date>.json`` there, for it tells of other weights. Raises FinbenchError
    where there is none, where it is right, and for a folder that is no adapter even without it.
    """
    place = shlex.quote(str(folder) if "/" in str(folder) else f"./{folder}")
    if not (folder / "finbench.json").is_file():
        stated = adapters.read(folder).config.get("base_model_name_or_path")  # or why it is no adapter
        base = "" if stated in {entry.hub_id for entry in catalog.bases().values()} else " --base BASE"
        raise FinbenchError(
            f"{folder} has no record of finbench's (finbench.json): it counts as made elsewhere already.",
            f"Score it: finbench eval --adapter {place}{base}; or publish it: finbench push {place} hub:org/name",
        )
    found = adapters.record(folder)
    if {name: sha for name, sha in adapters.decisive_files(folder).items() if name in found.files} == found.files:
        raise FinbenchError(
            f"{folder / 'finbench.json'} is of these very weights: nothing is to be adopted.",
            f"finbench eval --adapter {place}",
        )
    if found.kind == "model":
        raise FinbenchError(
            f"{folder} is a whole model, not an adapter.", f"It needs no record: finbench eval --model {folder}"
        )
    when = re.sub(r"[^0-9TZ]", "", found.provenance.created)
    kept = folder / "history" / f"finbench-{when}.json"
    kept.parent.mkdir(exist_ok=True)
    (folder / "finbench.json").rename(kept)
    try:
        return adapters.read(folder)
    except FinbenchError:
        kept.rename(folder / "finbench.json")
        raise
