"""What a filing holds, as plain records: contexts, units, facts."""

from __future__ import annotations

import datetime
import decimal
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

LONGEST_NUMBER = 60  # characters; no figure of a filing is longer, and a megabyte of digits is an attack
LONGEST_VALUE = 60  # characters of a value that is not a number; longer ones are prose or text blocks
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?")
_TIME = re.compile(r"(?:T((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d|24:00:00)(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?", re.ASCII)
_STANDARD = ("us-gaap", "dei", "srt", "ecd", "country")
_NAMESPACE = re.compile(
    r"https?://(?:fasb\.org|xbrl\.us|xbrl\.sec\.gov)/("
    + "|".join(_STANDARD)
    + r")/\d{4}(?:q[1-4])?(?:-\d\d-\d\d)?(?:#.*)?"
)


def number(text: str) -> Decimal | None:
    """The number that an XBRL numeric item spells (xs:decimal or xs:double), or None.

    INF and NaN are no numbers, nor is anything longer than 60 characters.
    """
    stripped = text.strip(" \t\r\n")
    if len(stripped) > LONGEST_NUMBER or not stripped.isascii() or not _DECIMAL.fullmatch(stripped):
        return None
    return Decimal(stripped)


def plain(value: Decimal) -> str:
    """A number in digits: no exponent, no trailing zeros after the point, no minus zero."""
    with decimal.localcontext() as context:
        context.prec = 4 * LONGEST_NUMBER
        text = format(value.normalize(), "f")
    return "0" if text == "-0" else text


def concept_name(namespace: str, local: str, prefix: str | None) -> str:
    """``us-gaap:Assets`` whatever prefix the file uses for the namespace; the file's own ``prefix`` for others.

    A namespace that is not the FASB's cannot pass for it by its prefix.
    """
    known = _NAMESPACE.fullmatch(namespace)
    own = "?" if prefix in (None, "", *_STANDARD) else prefix
    return f"{known[1] if known else own}:{local}"


def day(text: str, ends: bool = False) -> str:
    """An XBRL date as ISO 8601. With ``ends``, midnight is the end of the day before (XBRL 2.1, 4.7.2).

    A time zone changes nothing: a report's days are those of its writer. Raises ValueError for anything else.
    """
    text = text.strip()
    date = datetime.date.fromisoformat(text[:10])
    time = _TIME.fullmatch(text[10:])
    if time is None:
        raise ValueError(f"not a date: {text[:40]!r}")
    try:
        if ends and time[1] == "00:00:00":
            date -= datetime.timedelta(days=1)
        elif not ends and time[1] == "24:00:00":  # the midnight at which this day ends and the next begins
            date += datetime.timedelta(days=1)
    except OverflowError as fault:
        raise ValueError(f"not a date: {text[:40]!r}") from fault
    return date.isoformat()


@dataclass(frozen=True)
class Context:
    """Whom and when a fact is about. ``start`` is "" for an instant; ``end`` is "" for "forever"."""

    id: str
    entity: str
    start: str
    end: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for contexts that say the same (files may define one twice)."""
        return self.entity, self.start, self.end

    @property
    def days(self) -> int:
        """Length of a duration, both ends counted; 0 for an instant."""
        if not self.start:
            return 0
        return (datetime.date.fromisoformat(self.end) - datetime.date.fromisoformat(self.start)).days + 1


@dataclass(frozen=True)
class Fact:
    """One reported value. ``number`` is None for text, nil and what could not be read."""

    concept: str
    context: str
    value: str
    number: Decimal | None = None
    unit: str = ""
    decimals: str = ""
    scale: str = ""  # as in the inline document, "" in an instance
    sign: str = ""  # "-" where the inline document prints the number without its minus
    nil: bool = False


@dataclass
class Filing:
    """A filing as read. ``unread`` counts what was left out while reading, by reason."""

    name: str  # of the file, for messages
    inline: bool
    contexts: dict[str, Context] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    schemas: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    filed: str = ""  # ISO date, "" if nobody says
    digests: dict[str, str] = field(default_factory=dict)  # file name -> SHA-256
    checked: dict[str, int] = field(default_factory=dict)  # by Arelle, where a taxonomy package was given

    def about(self, name: str) -> str:
        """The value of a cover-page item such as ``EntityRegistrantName``; "" if it is not there."""
        return next((fact.value for fact in self.facts if fact.concept == f"dei:{name}" and fact.value), "")

    @property
    def company(self) -> str:
        """The registrant's name, else its identifier."""
        return " ".join(self.about("EntityRegistrantName").split()) or self.cik

    @property
    def cik(self) -> str:
        """The identifier that most contexts name: the SEC's Central Index Key, ten digits."""
        named = Counter(context.entity for context in self.contexts.values())
        return min(named, key=lambda entity: (-named[entity], entity)) if named else ""

    @property
    def ticker(self) -> str:
        return self.about("TradingSymbol").strip().upper()

    @property
    def period_end(self) -> str:
        """The end of the period that the document is about, else the latest end of a period in it."""
        try:
            return day(self.about("DocumentPeriodEndDate"))
        except ValueError:
            return max((context.end for context in self.contexts.values() if context.start), default="")

    @property
    def id(self) -> str:
        """``0000320193-10-K-20230930``: who, which form, until when."""
        form = re.sub(r"[^A-Za-z0-9]+", "-", self.about("DocumentType")).strip("-") or "filing"
        return f"{self.cik}-{form}-{self.period_end.replace('-', '')}"
