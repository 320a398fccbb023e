"""Inline XBRL transformations: what is printed -> what it means.

Source: XBRL International's Transformation Registries 1-5 (names differ in hyphens only, hence compared without)
and the SEC's own (``ixt-sec``). A format that is not here leaves its fact unread, which is counted: no guess.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from decimal import Decimal

from finbench.data.xbrl.model import LONGEST_NUMBER

_REGISTRY = re.compile(r"https?://www\.(?:xbrl\.org|sec\.gov)/(?:\d{4}/)?inlineXBRL/transformation(?:/[\d-]+)?")
_SPACES = re.compile(r"[\s\u00a0\u2009\u202f]+")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_WORDS |= {"no": 0, "none": 0, "nil": 0, "a": 1, "an": 1}
_POWERS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def known(namespace: str) -> bool:
    """Whether a namespace is a transformation registry."""
    return bool(_REGISTRY.fullmatch(namespace))


def _grouped(text: str, groups: str, point: str) -> Decimal:
    """Digits with ``groups`` between them and one decimal ``point``; raises ValueError."""
    whole, dot, part = text.partition(point) if point else (text, "", "")
    whole = re.sub(f"[{re.escape(groups)}]", "", _SPACES.sub("", whole)) if groups else _SPACES.sub("", whole)
    digits = whole + ("." + _SPACES.sub("", part) if dot else "")
    if len(digits) > LONGEST_NUMBER or not re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", digits, re.ASCII):
        raise ValueError(f"not a number: {text[:40]!r}")
    return Decimal(digits)


def _dash(text: str) -> Decimal:
    if not re.fullmatch(r"\s*[-‐-―−]\s*", text):
        raise ValueError(f"a dash is expected, found {text[:40]!r}")
    return Decimal(0)


def _words(text: str) -> Decimal:
    """English numerals such as "one hundred and twenty-three million", or digits."""
    clean = " ".join(re.sub(r"[-‐-―,]", " ", text.casefold()).split())
    if re.fullmatch(r"[\d ]+(?:\.\d+)?", clean):
        return _grouped(text, ",", ".")
    total = current = 0
    last = 10**15  # the power of ten before: they get smaller, "two thousand three million" is none
    words = [word for word in clean.split() if word != "and"]
    fits = 0 < len(words) <= 30
    for word in words if fits else ():
        if word in _WORDS:  # "twenty-five" and "hundred ten", but not "twenty twenty", "ten five" or "two zero"
            room = 100 if current % 100 == 0 else 10 if current % 10 == 0 and current % 100 > 10 else 0
            fits = fits and _WORDS[word] < room and (_WORDS[word] > 0 or len(words) == 1)
            current += _WORDS[word]
        elif word == "hundred":
            fits = fits and current < 20
            current = max(current, 1) * 100
        elif word in _POWERS:
            fits = fits and _POWERS[word] < last
            last = _POWERS[word]
            total, current = total + max(current, 1) * last, 0
        else:
            fits = False
    if not fits:
        raise ValueError(f"not a number in words: {text[:40]!r}")
    return Decimal(total + current)


def _units(text: str) -> Decimal:
    """ "1,234 dollars 5 cents" as 1234.05."""
    match = re.fullmatch(r"\s*(\d[\d., ]{0,40}?)\s*[^\W\d_][^\d,.]{0,40}?(\d{1,2})\s*[^\d,.]{0,40}", text, re.ASCII)
    if match is None:
        raise ValueError(f"no amount in two units: {text[:40]!r}")
    return Decimal(f"{re.sub('[., ]', '', match[1])}.{match[2]:0>2}")


_dot = functools.partial(_grouped, groups=",'’`", point=".")
_comma = functools.partial(_grouped, groups=".'’`", point=",")
_NUMBERS: dict[str, Callable[[str], Decimal]] = {
    **dict.fromkeys(("numdotdecimal", "numcommadot", "numspacedot", "numdotdecimalapos"), _dot),
    "numdotdecimalin": _dot,  # Indian grouping: 12,34,567
    **dict.fromkeys(("numcommadecimal", "numdotcomma", "numspacecomma", "numcomma", "numcommadecimalapos"), _comma),
    **dict.fromkeys(("numunitdecimal", "numunitdecimalapos"), _units),
    **dict.fromkeys(("numdash", "zerodash"), _dash),
    "fixedzero": lambda text: Decimal(0),
    "numwordsen": _words,
}


def _date(text: str) -> str:
    """ "September 28, 2024" or "28 September 2024" as ISO 8601; raises ValueError."""
    words = re.findall(r"[A-Za-z]+|\d+", text)
    months = [_MONTHS.index(word[:3].lower()) + 1 for word in words if word[:3].lower() in _MONTHS]
    digits = [int(word) for word in words if word.isdecimal() and len(word) <= 4]
    if len(months) != 1 or len(digits) != 2 or not 1 <= digits[0] <= 31:
        raise ValueError(f"not a date in words: {text[:40]!r}")
    year = digits[1] + (2000 if digits[1] < 100 else 0)
    return f"{year:04d}-{months[0]:02d}-{digits[0]:02d}"


_TEXTS: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("datemonthnamedayyearen", "datedaymonthnameyearen"), _date),
    **dict.fromkeys(("datelongus", "dateshortus", "datelonguk"), _date),
    **dict.fromkeys(("fixedtrue", "booleantrue"), lambda text: "true"),
    **dict.fromkeys(("fixedfalse", "booleanfalse"), lambda text: "false"),
    **dict.fromkeys(("fixedempty", "nocontent"), lambda text: ""),
}


def read_number(text: str, name: str) -> Decimal:
    """The non-negative number that ``text`` prints under format ``name`` ("" for none); raises ValueError."""
    if not name:  # no format: the text is an xs:decimal without a sign
        return _grouped(text, "", ".")
    if rule := _NUMBERS.get(name.replace("-", "").lower()):
        return rule(text)
    raise ValueError(f"the number format {name!r} is not known")


def read_text(text: str, name: str) -> str:
    """What ``text`` means under format ``name`` ("" for none); raises ValueError."""
    if not name:
        return " ".join(text.split())
    if rule := _TEXTS.get(name.replace("-", "").lower()):
        return rule(text)
    raise ValueError(f"the text format {name!r} is not known")
