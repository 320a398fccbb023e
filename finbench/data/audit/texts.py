"""What is seen row by row while a file is read: encoding damage, HTML, empty cells, constant columns.

Also whom and which pages the rows are about, and answers against their own row (``stated``).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finbench.data.audit.columns import Item, as_text, is_answer, key_of
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import SHOWN, Finding, Level
from finbench.data.audit.stated import Stated

_CODES = ("cp1252", "latin-1", "mac_roman", "cp437", "cp850")
_RUN = re.compile(r"[^\x00-\x7f]{2,8}")
# the lead byte of a UTF-8 letter became a box of the DOS code pages, and that a plus: "J+ñtehuolto" for "Jätehuolto"
_DOS = re.compile(r"[A-Za-z]\+[^\x00-\x7f\s\w]?[¡-ÿ](?=[A-Za-z\s]|$)|(?<=[A-Za-z])[├┬][^\x00-\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_HTML = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});|</?(?:p|br|div|span|b|i|a|td|tr)\b[^<>]*>"
)
_FAULTS = {
    "mojibake": "hold UTF-8 that was read as another encoding",
    "lost": "hold characters that are lost (U+FFFD, or half of a surrogate pair)",
    "control": "hold control characters",
    "html": "hold HTML",
    "empty": "have no text",
}
_NAMES = ("id", "filename", "document")
_COMPANY = re.compile(
    r"(?:company|companies|firm|filer|issuer|borrower)(?:name|id|number|code|ticker|cik|isin|lei)?"
    r"|(?:ticker|cik|isin|lei|gvkey|cusip|permno)(?:symbol|id|number|code)?"
)
_FORM = re.compile(r"\b(?:the|inc|corp|corporation|co|company|plc|ltd|limited|llc|sa|ag|nv)\b|[\W_]")  # not a name
_PAGE = re.compile(r"[^\s_/]+(?:/[^\s/]+)*\.pdf")  # in "Single_ABC/2010/page_7.pdf-1"
_LEVELS: dict[str, Level] = {"html": "note"}


@functools.lru_cache(1000)
def _names_company(column: Any) -> bool:
    return bool(_COMPANY.fullmatch(key_of(column)))


def damage(text: str) -> str:
    """What is wrong with the encoding of a text: a key of the table of faults, or ""."""
    html = "&" in text and _HTML.search(text)
    if text.isascii():
        return "html" if html else "control" if _CONTROL.search(text) else ""
    if "\ufffd" in text:
        return "lost"
    if _misread(text):
        return "mojibake"
    if _CONTROL.search(text):
        return "control"
    return "mojibake" if _DOS.search(text) else "html" if html else ""


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


@dataclass
class Company:
    """How often a source names a company, how, and where first."""

    shown: str
    first: str
    rows: int = 0


class Texts:
    """What is noticed of one source while it is read."""

    def __init__(self, source: AuditedFile) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[Item]] = {}  # of each fault
        self.constant: dict[str, str] = {}
        self.answers = Stated(source)
        self.pages: set[str] = set()  # that rows ask about, by the name of their document
        self.companies: dict[str, dict[str, Company]] = {}  # by column, then by name

    def see(self, item: Item, row: dict[str, Any]) -> None:
        self.source.rows += 1
        if fault := damage(item.body) or damage(item.gold or ""):
            self._count(fault, item)
        for column in filter(_names_company, row):
            if name := _FORM.sub("", (shown := as_text(row[column])).casefold()):
                known = self.companies.setdefault(str(column), {}).setdefault(name, Company(shown, item.line))
                known.rows += 1
        for name in _NAMES:
            self.pages.update(_PAGE.findall(str(row.get(name) or ""))[:1])
        self.answers.see(item, row)
        if item.body.strip().casefold() in ("", "nan", "none", "null"):
            self._count("empty", item)
        if self.source.rows == 1:
            self.constant = {name: as_text(value) for name, value in row.items()}
        elif self.constant:
            self.constant = {name: value for name, value in self.constant.items() if as_text(row.get(name)) == value}

    def _count(self, fault: str, item: Item) -> None:
        self.counts[fault] += 1
        if len(self.first.setdefault(fault, [])) < SHOWN:
            self.first[fault].append(item)

    def findings(self, context: AuditContext) -> Iterator[Finding]:
        source, store = self.source, context.store
        for fault, count in self.counts.items():
            yield context.find(
                fault if fault == "empty" else "encoding",
                _LEVELS.get(fault, "warning"),
                [source],
                (count, source.rows),
                f"{share(count, source.rows)} rows {_FAULTS[fault]}.",
                body=None if fault == "empty" else store.key(store.normal(self.first[fault][0].body)),
                places=[f"{source.name}{item.line}" for item in self.first[fault]],
            )
        yield from self.answers.findings(context)
        used = {source.layout.text, *source.layout.asked, *source.layout.gold, source.layout.split}
        same = [name for name, value in self.constant.items() if name not in used and value.strip()]
        answers = [name for name in same if is_answer(name)] if source.rows >= 20 else []
        for name in answers:
            said = f"All {source.rows:,} rows have one value in {name}, which is called like an answer."
            yield context.find("constant-answer", "warning", [source], (source.rows, source.rows), said)
        same = [name for name in same if name not in answers]
        if same and source.rows >= 50:
            said = f"Columns that never change: {', '.join(same)}."
            yield context.find("constant", "note", [source], (len(same), len(same)), said)


def shared_pages(seen: Sequence[Texts], context: AuditContext) -> Iterator[Finding]:
    """Pages of reports that two files ask about: who has learnt one set has read the other."""
    for one, other in itertools.combinations(seen, 2):
        both = sorted(one.pages & other.pages)
        if both:
            few, many = sorted((one, other), key=lambda texts: len(texts.pages))
            said = f"{share(len(both), len(few.pages))} pages that {few.source.stem} asks about are in "
            said += f"{many.source.stem} too: never train on one and test on the other."
            counted, sources = (len(both), len(few.pages)), [few.source, many.source]
            yield context.find("shared-pages", "warning", sources, counted, said, places=both[:SHOWN])
