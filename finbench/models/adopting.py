"""Adapters whose weights were changed by hand: their old record moves aside. How any adapter is scored as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from finbench.core import catalog, paths, refs
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.models import adapters
from finbench.models.adapters import AdapterFolder


def adopt(folder: Path) -> tuple[AdapterFolder, Adapter]:
    """Take a folder whose weights are no longer those of its ``finbench.json`` for an adapter made elsewhere.

    The record moves to ``history/finbench-<date>.json`` there, for it tells of other weights; it is returned too.
    Raises FinbenchError where there is none, where it is right, and for a folder that is no adapter even without it.
    """
    if not folder.is_dir():
        raise FinbenchError(f"No such folder: {folder}", "Name that of the adapter: finbench adopt runs/NAME")
    place = shlex.quote(refs.typed(folder))
    if not (folder / "finbench.json").is_file():
        raise FinbenchError(
            f"{folder} has no record of finbench's (finbench.json): it counts as made elsewhere already.",
            f"Score it: {to_score(adapters.read(folder), str(folder))}; "  # or why it is no adapter
            f"or publish it: finbench push {place} hub:org/name",
        )
    found = adapters.record(folder)
    if found.kind == "model":
        raise FinbenchError(
            f"{folder} is a whole model, not an adapter.", f"It needs no record: finbench eval --model {place}"
        )
    if {name: sha for name, sha in adapters.decisive_files(folder).items() if name in found.files} == found.files:
        raise FinbenchError(
            f"{folder / 'finbench.json'} is of these very weights: nothing is to be adopted.",
            to_score(adapters.read(folder), str(folder)),
        )
    when = re.sub(r"[^0-9TZ]", "", found.provenance.created)
    kept = folder / "history" / f"finbench-{when}.json"
    kept.parent.mkdir(exist_ok=True)
    (folder / "finbench.json").rename(kept)
    try:
        return adapters.read(folder), found
    except FinbenchError:
        kept.rename(folder / "finbench.json")
        raise


def to_score(found: AdapterFolder, reference: str, earlier: Adapter | None = None) -> str:
    """The ``finbench eval`` that scores an adapter, named by ``reference``, as it is and on data that are here.

    ``earlier``: the record that it had before its weights were changed, which says how it is asked.
    """
    where = reference if "/" in reference or ":" in reference else f"./{reference}"
    parts = ["finbench eval --adapter", shlex.quote(where)]
    if base := _named_base(found, earlier):
        parts.append(f"--base {shlex.quote(base)}")
    if earlier is not None and earlier.recipe.bits != 16:
        parts.append(f"--bits {earlier.recipe.bits}")
    if earlier is not None and earlier.recipe.chat:
        parts.append("--chat")
    if not found.tasks:
        learnt = [name for name in (earlier.recipe.tasks if earlier else ()) if name in catalog.tasks()]
        here = "fpb" if (paths.data_dir() / "fpb" / "test.jsonl").is_file() else "mini_sentiment"
        parts.append(f"--tasks {','.join(name.removeprefix(catalog.PREFIX) for name in learnt) or here}")
    return " ".join(parts)


def _named_base(found: AdapterFolder, earlier: Adapter | None) -> str:
    """What ``--base`` has to say; empty where the adapter's own files say enough."""
    base, stated = found.base, str(found.config.get("base_model_name_or_path") or "")
    known = {name for entry in catalog.bases().values() for name in (entry.alias, entry.hub_id)}
    if known & ({base.alias, base.hub_id} if base else {stated}):
        return ""
    if base is not None and base.source == "hub" and base.revision:
        return ""  # that very commit is fetched
    if record := found.record or earlier:
        return record.recipe.base  # as it was named then
    on_hub = stated.count("/") == 1 and not stated.startswith((".", "/")) and not Path(stated).exists()
    return f"hub:{stated}" if on_hub else stated or "BASE"
