"""The unit of a gold that is printed without one, from its question, its program and its page. Standard library only.

FinQA's golds are what a program gives: 0.56197 is a share, 56.197 may be per cent, 380 may be in millions. An answer
states its unit. It is right as the value that it states, or where the row says that the gold is in that unit:

- per cent, if the program multiplies by 100; if the gold, or two figures whose sum, difference or mean it is, are
  printed with "%", or it is 1 or more, or a program's, and the question asks for per cent or for a rate; never for a
  quotient of two figures, a ratio, basis points, "how many" or "in millions";
- thousands, millions, billions, if the page or the question says "in millions", or prints the gold or a figure that it
  is made of so ("5 million"); never for per cent, a share or a quotient.
"""

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

_POWERS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PRINTED = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?) ?(%|thousand\b|million\b|billion\b|trillion\b)"
)
_SCALES = re.compile(r"\b(thousand|million|billion|trillion)s\b")  # of a whole table; "$5 million" is of one figure
_SCALE = re.compile(r"\b(thousand|million|billion|trillion)s?\b")
_PERCENT = re.compile(r"(?<!\d)(?<!\d )(?:per ?cent|%)")  # asked for, and not given as in "at 5 %"
_RATE = re.compile(r"\b(?:(?<!exchange )rate|yield|return|margin|volatility|apr|ear|ytm)s?\b")
_AMOUNT = re.compile(r"\bhow many\b(?! percent)|\bin (?:thousand|million|billion)s|\bratio of\b|\bbasis points?\b")
_GIVEN = re.compile(r"\b(?:if|assuming|how much)\b")
_LABEL = re.compile(r"\"[^\"]*\"")
_SHARE = re.compile(r"\b(?:percent|ratio|portion|proportion|fraction)")
_HUNDREDFOLD = re.compile(r"multiply\((?:[^()]*, ?const_100\)|const_100,)")
_QUOTIENT = re.compile(r"divide\([^()]*, ?(?:const_100\)|(?!const_)[^()%]*\))")
_FIGURE = re.compile(r"(?<![\w#.])\d+(?:,\d{3})*(?:\.\d+)?")
_FIFTH = Decimal("0.00001")
_STATED = re.compile(r"\(unit: ?([^()]*)\)(?!.*\(unit:)", re.IGNORECASE | re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.?!])\s*(?=[A-Z])")


class Unit(NamedTuple):
    """What a gold may be in: per cent, and powers of ten."""

    percent: bool = False
    powers: frozenset[int] = frozenset()


def _powers(words: Sequence[str]) -> frozenset[int]:
    return frozenset(_POWERS[word] for word in words if word in _POWERS)


@functools.lru_cache(maxsize=64)
def _of_page(page: str) -> tuple[set[tuple[Decimal, str]], list[str]]:
    """(figures with the unit that stands beside them, scales of whole tables)."""
    page = page.casefold()
    return {(Decimal(n.replace(",", "")), unit) for n, unit in _PRINTED.findall(page)}, _SCALES.findall(page)


def of_row(doc: Mapping[str, Any], gold: str, before: Sequence[str] | None = None) -> Unit:
    """The unit of ``gold``. ``doc`` may have ``text``, ``program`` and ``question``; without it only the size is known.

    ``before``: the golds of the turns before it, where it is one of a conversation.
    """
    if gold in ("yes", "no"):
        return Unit()
    value, program, page = abs(Decimal(gold)), doc.get("program") or "", doc.get("text") or ""
    question = _LABEL.sub("", (doc.get("question") or "").casefold())
    made_of = [Decimal(part.replace(",", "")) for part in _FIGURE.findall(program)]
    made_of = made_of or [abs(Decimal(one)) for one in before or () if one not in ("yes", "no")]
    hundredfold = bool(_HUNDREDFOLD.search(program))
    if not hundredfold and (_of_quotients(program) if program else _is_quotient(value, made_of)):
        return Unit()
    printed, scales = _of_page(page)
    shares = [figure for figure in made_of if (figure, "%") in printed]
    large = value >= 1 or (bool(program) and "%" not in program)  # 1.3 of 38.4 and 37.1, and no share
    percent = (value, "%") in printed or _adds_up(value, shares) or (large and _asks(question))
    percent = hundredfold or (percent and not _AMOUNT.search(question))
    if percent or _SHARE.search(question):
        return Unit(percent)
    figures = {value, *made_of}
    # where neither a program nor a conversation says what the gold is made of it may be any figure of the page
    beside = [unit for figure, unit in printed if figure in figures or not (program or before is not None)]
    return Unit(False, _powers(beside + scales + _SCALE.findall(question)))


def _of_quotients(program: str) -> bool:
    """Whether a program gives a quotient of figures, or a difference of such: no share of an amount, which it makes."""
    return bool(_QUOTIENT.search(program)) and not program.rpartition("(")[0].endswith("multiply")


def _adds_up(value: Decimal, figures: Sequence[Decimal]) -> bool:
    """Whether a gold is a sum, a difference or a mean of two figures."""
    pairs = itertools.combinations(figures, 2)
    return any(value in (one + other, abs(one - other), (one + other) / 2) for one, other in pairs)


def _asks(question: str) -> bool:
    """Whether a question asks for per cent or a rate; one that is not known may."""
    rate = _RATE.search(question) and not _GIVEN.search(question)
    return not question or bool(rate or _PERCENT.search(question))


def _is_quotient(value: Decimal, figures: Sequence[Decimal]) -> bool:
    """Whether a gold of five decimals is one figure of an earlier turn by another, or by 100."""
    pairs = itertools.permutations([*figures, Decimal(100)], 2)
    return value % 1 != 0 and any(other and abs(one / other - value) < _FIFTH for one, other in pairs)


def of_textbook(gold: Decimal, text: str) -> Unit:
    """The unit that a question of a textbook ends with, "(Unit: million dollars)"; else what its last words ask for."""
    stated = _STATED.search(text)
    unit = stated[1].casefold() if stated else "rate"
    if "percent" in unit or not re.search(r"\b(?:rate|annum)\b", unit):
        return Unit("percent" in unit, _powers(_SCALE.findall(unit)))
    question = _SENTENCE.split((text[: stated.start()] if stated else text).strip())[-1].casefold()
    rate = abs(gold) >= 1 and _asks(question) and not _AMOUNT.search(question)
    return Unit(rate, _powers(_SCALES.findall(question)))
