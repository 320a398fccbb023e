"""The licence of a published adapter: the stricter one of its base and of the data it learnt from."""

from __future__ import annotations

from dataclasses import dataclass

from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, BaseModelId, name_of_source

# finbench's names -> the Hub's identifiers; strictness: 0 attribution, 1 share-alike, 2 the base maker's own terms,
# 3 non-commercial, 4 nobody has said
_KNOWN: dict[str, tuple[str, int]] = {
    "MIT": ("mit", 0),
    "Apache-2.0": ("apache-2.0", 0),
    "AFL-3.0": ("afl-3.0", 0),
    "CC-BY": ("cc-by-4.0", 0),
    "CC-BY-3.0": ("cc-by-3.0", 0),
    "CC-BY-4.0": ("cc-by-4.0", 0),
    "CC-BY-SA-3.0": ("cc-by-sa-3.0", 1),
    "CC-BY-SA-4.0": ("cc-by-sa-4.0", 1),
    "Llama-2": ("llama2", 2),
    "Llama-3.1": ("llama3.1", 2),
    "Gemma": ("gemma", 2),
    "CC-BY-NC-4.0": ("cc-by-nc-4.0", 3),
    "CC-BY-NC-SA-3.0": ("cc-by-nc-sa-3.0", 3),
}
# no condition that a weight would carry on
_FREE = {"OpenMDW-1.0": "openmdw-1.0", "the companies' own public filings": "other"}


@dataclass(frozen=True)
class Licence:
    """``id`` is the Hub's identifier, or ``other`` with a ``name``; ``why`` says what it follows from."""

    id: str
    name: str | None
    why: str


def licence_of(record: Adapter | None, base: BaseModelId, chosen: str | None) -> Licence:
    """The licence to state. ``chosen`` is the user's own word, an identifier of the Hub."""
    if chosen is not None:
        return Licence(checked(chosen), None, "as its publisher states it")
    entry = next((e for e in catalog.bases().values() if e.hub_id == base.hub_id), None)
    parts = {f"base ({entry.licence})": entry.licence} if entry else {"base (unknown)": "unknown"}
    if record is None:
        parts["data (unknown)"] = "unknown"
    for task in record.recipe.tasks if record else ():
        stated = catalog.tasks()[task].licence if task in catalog.tasks() else "unknown"
        parts[f"{task.removeprefix(catalog.PREFIX)} ({stated})"] = stated
    for part in record.recipe.data if record else ():
        parts[f"{name_of_source(part.source)} (unknown)"] = "unknown"
    for known in record.data if record and record.recipe.preferences else ():  # with those of its start
        if known.sha256:
            parts[f"{known.set} (unknown)"] = "unknown"
    ranked = [("mit", 0) if stated in _FREE else _KNOWN.get(stated, ("other", 4)) for stated in parts.values()]
    ranked.sort(key=lambda licence: licence[1])
    identifier, strictness = ranked[-1]
    terms = {licence for licence, strict in ranked if strict >= 1}
    why = "the strictest of " + ", ".join(parts)
    if strictness == 4 or len(terms) > 1:  # several conditions at once have no identifier
        return Licence("other", "terms-of-base-and-data", why)
    return Licence(identifier, None, why)


def checked(chosen: str) -> str:
    """A licence as a user states it: an identifier of the Hub."""
    if not chosen.replace("-", "").replace(".", "").isalnum() or chosen != chosen.lower() or not chosen.isascii():
        raise FinbenchError(f"--licence {chosen!r} is no identifier of the Hub.", "Such as apache-2.0 or cc-by-nc-4.0")
    return chosen


def hub_identifier(stated: str) -> str | None:
    """The Hub's identifier of a data set's licence; None where none lets its rows be passed on."""
    known = {name.lower(): identifier for name, (identifier, _) in _KNOWN.items()}
    known |= {identifier: identifier for identifier in known.values()} | {"cc0-1.0": "cc0-1.0", "odc-by": "odc-by"}
    return _FREE.get(stated) or known.get(stated.lower())
