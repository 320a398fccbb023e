"""Faults of the text itself, row by row while a file is read: encoding damage, HTML, empty cells, constant columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from finbench.data.audit.columns import Item, Layout, as_text
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import SHOWN, Finding

_CODES = ("cp1252", "latin-1", "mac_roman", "cp437", "cp850")
_RUN = re.compile(r"[^\x00-\x7f]{2,8}")
_LOST = re.compile(r"�")
# the lead byte of a UTF-8 letter became a box of the DOS code pages, and that a plus: "J+ñtehuolto" for "Jätehuolto"
_DOS = re.compile(r"[A-Za-z]\+[^\x00-\x7f\s\w]?[¡-ÿ](?=[A-Za-z\s]|$)|(?<=[A-Za-z])[├┬][^\x00-\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_HTML = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});|</?(?:p|br|div|span|b|i|a|td|tr)\b[^<>]*>"
)
_NAMES = {
    "mojibake": "UTF-8 that was read as another encoding",
    "lost": "characters that were replaced by U+FFFD",
    "control": "control characters",
    "html": "HTML",
}


def damage(text: str) -> str:
    """What is wrong with the encoding of a text: a key of the table of faults, or ""."""
    if text.isascii():
        return "html" if "&" in text and _HTML.search(text) else "control" if _CONTROL.search(text) else ""
    if _LOST.search(text):
        return "lost"
    if _CONTROL.search(text):
        return "mojibake" if _misread(text) else "control"
    if _misread(text) or _DOS.search(text):
        return "mojibake"
    return "html" if "&" in text and _HTML.search(text) else ""


def _misread(text: str) -> bool:
    """Whether a run of characters is the UTF-8 of a common one, read in a one-byte encoding."""
    for run in _RUN.findall(text):
        for code in _CODES:
            try:
                told = run.encode(code).decode("utf-8")
            except UnicodeError:
                continue
            if all(ord(c) < 0x180 or 0x2000 <= ord(c) < 0x2300 or ord(c) >= 0x1F000 for c in told):
                return True
    return False


class Texts:
    """What is noticed of one source while it is read."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.counts: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}
        self.constant: dict[str, Any] = {}
        self.examples: dict[str, str] = {}
        self.rows = 0

    def see(self, item: Item, row: dict[str, Any]) -> None:
        """Look at a row."""
        self.rows += 1
        if fault := damage(item.body) or damage(item.gold or ""):
            self._count(fault, item)
        if not item.body.strip() or item.body.strip().casefold() in ("nan", "none", "null"):
            self._count("empty", item)
        if self.rows == 1:
            self.constant = {name: as_text(value) for name, value in row.items()}
        elif self.constant:
            self.constant = {k: v for k, v in self.constant.items() if as_text(row.get(k)) == v}

    def _count(self, fault: str, item: Item) -> None:
        self.counts[fault] += 1
        if len(self.places.setdefault(fault, [])) < SHOWN:
            self.places[fault].append(item.line)
            self.examples.setdefault(fault, item.body)

    def findings(self, context: AuditContext, source: AuditedFile) -> Iterator[Finding]:
        """What was wrong with the texts of the source."""
        for fault, count in self.counts.items():
            what = _NAMES.get(fault)
            said = (
                f"{share(count, self.rows)} rows hold {what}."
                if what
                else f"{share(count, self.rows)} rows have no text."
            )
            made = context.find(
                "encoding" if what else "empty",
                "note" if fault == "html" else "warning",
                [source],
                (count, self.rows),
                said,
                body=context.store.key(context.store.normal(self.examples[fault])) if what else None,
            )
            yield made.model_copy(update={"places": [f"{source.name}{line}" for line in self.places[fault]]})
        used = {self.layout.text, *self.layout.asked, *self.layout.gold, self.layout.split}
        same = [name for name, value in self.constant.items() if name not in used and value.strip()]
        if same and self.rows >= 50:
            yield context.find(
                "constant", "note", [source], (len(same), len(same)), f"Columns that never change: {', '.join(same)}."
            )
