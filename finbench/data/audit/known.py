"""What is known of a file beyond its rows: which published set it is, what its codes stand for, its licence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from finbench.core import catalog
from finbench.core.paths import helper
from finbench.data.audit.columns import Layout, canonical
from finbench.data.audit.context import AuditContext, AuditedFile
from finbench.data.audit.findings import Finding
from finbench.data.readers import RawRecord
from finbench.data.splits import split_in

_FREE = re.compile(
    r"\b(?:apache|cc0|public domain|openmdw|odc-by|bsd|cc[- ]by(?:[- ]sa)?[- ]?\d|attribution 4\.0)"
    r"|\bmit\b|creative commons attribution",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    r"non-?commercial|\bnc\b|by-nc|all rights reserved|not stated|unclear|unknown|\bgpt\b", re.IGNORECASE
)


class Known(NamedTuple):
    """A published set that a file belongs to."""

    set: str
    codes: dict[str, str]  # label in the file -> label of the set; "" where that depends on the row


def code_of(known: Known, raw: RawRecord, name: str) -> str:
    """What the label of a row stands for, as the set's reader has it; "" if the reader refuses the row."""
    try:
        return _code(known.set, raw, name) or ""
    except (KeyError, TypeError, ValueError):
        return ""


def recognise(name: str, sample: Sequence[RawRecord], layout: Layout) -> Known | None:
    """The set whose files are called like this and whose reader takes these rows; None if there is none."""
    file, named = Path(name).name.casefold(), []
    for set_, chosen in helper("sets").SETS.items():
        fitting = [pattern for pattern in chosen.files.split() if fnmatch(file, pattern.casefold())]
        if fitting:
            named.append((sum(pattern.count("*") for pattern in fitting), set_))
    for _, set_ in sorted(named):
        try:
            found = [_code(set_, raw, name) for raw in sample[:200]]
        except (KeyError, TypeError, ValueError):
            continue  # the set's reader refuses them
        if len(found) - found.count(None) >= 0.9 * len(found):
            codes: dict[str, str] = {}
            for raw, code in zip(sample, found, strict=False):
                if code and len(layout.gold) == 1:
                    label = canonical(raw.row.get(layout.gold[0]))
                    codes[label] = code if codes.get(label, code) == code else ""
            return Known(set_, codes)
    return None


def _code(set_: str, raw: RawRecord, name: str) -> str | None:
    """What a row's label stands for; "" if it has none of its own, None if the reader drops the row."""
    sets = helper("sets")
    made = list(sets.SETS[set_].units([(raw.row, name, split_in(name))]))
    if any(isinstance(item, str) for item in made):
        return None
    units = [item for item in made if isinstance(item, sets.Unit)]
    one = len(units) == 1 and isinstance(units[0].label, str)
    return canonical(units[0].label) if one else ""


def licence_of(name: str, folder: Path) -> tuple[str | None, bool | None]:
    """(licence, whether it lets texts be shown; None: not known) of a set as its task states it, else of its folder."""
    for task in catalog.tasks().values():
        if task.set == name:
            return task.licence, not task.restricted
    text = _stated(folder)
    if text is None:
        return None, None
    return text, False if _CLOSED.search(text) else True if _FREE.search(text) else None


def _stated(folder: Path) -> str | None:
    try:
        card = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if isinstance(card, dict) and card.get("licence"):
            return str(card["licence"])
    except (OSError, ValueError, RecursionError):
        pass
    for path in sorted(folder.glob("README*")) + sorted(folder.glob("readme*")):
        head = _head(path)
        if head.startswith("---") and (found := re.search(r"^licen[sc]e:\s*(\S.*)$", head, re.MULTILINE)):
            return found[1].strip()
    for path in sorted(folder.glob("[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*")):
        text = " ".join(_head(path).split())
        if text:
            found = re.search(r"(?:[^.]|\.\d)*(?:licen[sc]ed?|commons|copyright)(?:[^.]|\.\d)*", text, re.IGNORECASE)
            stated = re.split(r" (?=copyright|permission|>)", (found[0] if found else text).strip("# "), flags=re.I)[0]
            return f"{path.name}: {stated[:120]}"
    return None


def _head(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            return handle.read(5000)
    except OSError:
        return ""


def licences(context: AuditContext) -> Iterator[Finding]:
    """One note for each licence that does not let texts be shown. What nobody knows a licence of is in the table."""
    found: dict[str, list[AuditedFile]] = {}
    for source in context.sources:
        if source.open is False and source.licence:
            found.setdefault(source.licence, []).append(source)
    for licence, sources in found.items():
        said = f"The licence is unclear or does not allow every use: {licence}."
        yield context.find("licence", "note", sources, (len(sources), len(context.sources)), said)
