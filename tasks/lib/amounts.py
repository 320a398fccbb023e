"""Numbers as answers write them: which one an answer gives, and all that a text holds. Standard library only.

A point is always the decimal point and a comma only ever groups thousands: "1.000" is one, "1.000,00" and "0,5" are no
numbers. "bn" and "mn" are scale words; "m", "M", "B" and "k" are not, for M is a thousand to some. Brackets are the
minus of accounts. "About" and "≈" change nothing: the number is judged as it stands. Words that say of what it is, and
nothing of how much ("years", "per share"), may follow. One amount may be said twice: "0.125 (12.5%)". "Increased by"
leads to a number; "decreased by" does not, for it leaves open whether a minus was asked for. A direction after the
number that is not that of its sign ("5%, down") takes it back.
"""

import decimal
import re
import runpy
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

answers: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("answers.py"))))

_SIGN = "[-+−–—‒－﹣]"
_MONEY = r"(?:US\$|[$€£¥]|USD|EUR|GBP|JPY)"
_SCALE = r"thousands?|millions?|billions?|trillions?|mn|bn"
_NUMBER = (  # every gap is at most one space: a run of them must not be tried in every way
    rf"(?:(?P<before>{_MONEY}) ?(?=\())?(?P<open>\()? ?(?P<sign>{_SIGN}|(?:minus|negative)\b)? ?"
    rf"(?P<money>{_MONEY})? ?(?P<minus>{_SIGN})?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3})?"
    rf"(?: ?(?P<early>\)))? ?(?P<scale>{_SCALE})?"
    r" ?(?P<unit>%|percent(?:age points?)?|per cent|pct|x|times|:1(?![\d.,:]))?"
    rf" ?(?P<code>USD|EUR|GBP|JPY|dollars|[€£¥])? ?(?P<late>{_SCALE})?"
    r"(?: ?(?P<of>(?:years?|months?|weeks?|days?|(?:per |/ ?|an? )(?:share|year|month|day|employee))\b))?"
    r"(?: ?(?P<close>\)))?"
)
_AT = re.compile(_NUMBER, re.IGNORECASE)
_ANYWHERE = re.compile(r"(?<![\w.,\-−–—‒－﹣])" + _NUMBER + r"(?!\w|[.,\-−–—‒－﹣]\d)", re.IGNORECASE)
_SCALES = {"thousand": 3, "million": 6, "mn": 6, "billion": 9, "bn": 9, "trillion": 12}
_KINDS = {
    "%": "percent",
    "x": "times",
    "times": "times",
    ":1": "times",
    "$": "money",
    "dollars": "money",
}  # a dollar sign is of many countries
_KINDS |= {"us$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_ABOUT = re.compile(r"(?:[≈~]|(?:about|approximately|approx\.?|around|roughly)\s) ?", re.IGNORECASE)
# what makes another amount of the number before it
_MORE = re.compile(
    rf"\d|[%‰$€£¥]|\b(?:{_SCALE}|hundreds?|dozens?|percent|per cent|pct|basis points?|bps|times|half|twice|minus|USD|"
    "EUR|GBP|JPY|dollars?|euros?|zero|two|three|four|five|six|seven|eight|nine|ten)\\b",
    re.IGNORECASE,
)
# what makes no number of it: an open bracket's end, a range, a calculation
_NO_REASON = re.compile(r"[\"'`*_\]}”’]*[)>+−–—-]|\s[)>*/^+=<−]")
# the name of what was asked for, such as "Current ratio =" and "Total assets were"
_NAMED = re.compile(
    r"(?!.*\b(?:not|no|never|cannot|\w+n['’]t|wrong|incorrect|un\w+|if|whether|or|between|i|would|could|might|maybe|"
    r"perhaps|guess|sorry|least|most|than|over|under|above|below)\b)"
    r"(?:[*_]{0,3}[A-Za-z][A-Za-z ,'’()&/-]{0,80}?[*_]{0,3}(?:\s(?:is|are|was|were|equals)\s|\s?[:=≈])[*_]{0,3}\s?|"
    r"(?:[A-Za-z][A-Za-z ,'’()&/-]{0,80}? )?(?:increased|rose|risen|grew|grown)\s(?:by\s)?|"
    r"an? (?:increase|rise|growth) of\s|an?\s(?=[\d.]+ ?(?:%|percent)\s(?:increase|rise|growth)\b))",
    re.IGNORECASE,
)
_RISE = re.compile(r"\s(?:increase|rise|growth)(?!\w)", re.IGNORECASE)
# the other direction than the number's sign, as the first word after it: "5%, down", "-5% (increase)"
_ITS = r"\W*(?:(?:an?|it|is|was|which|that|and)\s)*"
_DOWN = re.compile(
    rf"{_ITS}(?:down|decreas\w*|declin\w*|drop\w*|fell|fall\w*|lower|loss\w*|lost|reduc\w*|shr[aiu]nk\w*)\b|"
    # a reason may name an effect: "since the negative effect of currencies was small"
    rf"{_ITS}(?:the\s)?negative|.*(?:(?<!\bthe )(?<!\bof )(?<!\bby )(?<!\bto )negative|"
    r"negative(?! (?:\w+ )?(?:effect|impact|influence)s?\s\w))",
    re.IGNORECASE,
)
_UP = re.compile(rf"{_ITS}(?:up|increas\w*|ris(?:e|en|ing)|rose|gr[eo]w\w*|higher|gain\w*)\b", re.IGNORECASE)
_AGAIN = re.compile(r"\s?(?:[(=≈]|,? or|, i\.e\.,?) ?", re.IGNORECASE)  # between an amount and the same in other words
_ITEM = re.compile(r"\d{1,2}[*_]*\.[*_]* \S")  # "1. First": a list is numbered
_CODE = re.compile(r"(?<=[\w)]) ?\((USD|EUR|GBP|JPY)\)", re.IGNORECASE)  # "4,100 (USD)"
_DIGITS = 60  # nothing in finance is longer, and a megabyte of digits is an attack
_PROSE = 10_000  # characters of an answer in which a number is looked for


class Amount(NamedTuple):
    """A number as it is written: "-$1.2 million" is (-1.2, 6, "money", False)."""

    number: Decimal
    power: int  # of ten, from a scale word
    kind: str  # "percent", "times", "money" (a dollar sign), "USD" and other codes; "" for a bare number
    brackets: bool  # accounts write a minus so
    of: str = ""  # "years", "per share"

    @property
    def scaled(self) -> Decimal:
        """The number with its scale word; 5 % is 5."""
        return shifted(self.number, self.power)

    @property
    def value(self) -> Decimal:
        """The number that is meant; 5 % is 0.05."""
        return shifted(self.number, self.power - 2 * (self.kind == "percent"))

    @property
    def money(self) -> bool:
        """Whether it is said to be money."""
        return self.kind not in ("", "percent", "times")


def shifted(number: Decimal, power: int) -> Decimal:
    """``number`` times ten to the ``power``, not rounded."""
    with decimal.localcontext() as context:
        context.prec = 200
        return number.scaleb(power)


def _amount(match: re.Match[str]) -> Amount | None:
    brackets = bool(match["open"])
    closed = bool(match["early"]) + bool(match["close"])
    minuses = brackets + sum(sign not in (None, "+") for sign in (match["sign"], match["minus"]))
    kinds = {_KINDS.get(text.lower(), text.upper()) for text in match.group("before", "money", "code") if text}
    kinds = kinds - {"money"} if kinds & {"USD"} else kinds
    if unit := match["unit"]:
        kinds.add(_KINDS.get(unit.lower(), "percent"))
    digits = match["digits"].replace(",", "")
    if closed != brackets or minuses > 1 or len(kinds) > 1 or len(digits) > _DIGITS:
        return None
    if match["scale"] and match["late"]:
        return None
    number = Decimal(digits + (match["exponent"] or ""))
    power = _SCALES.get((match["scale"] or match["late"] or "").lower().removesuffix("s"), 0)
    # copy_negate, for the unary minus rounds to the context's 28 digits
    kind, of = kinds.pop() if kinds else "", (match["of"] or "").lower()
    return Amount(number.copy_negate() if minuses else number, power, kind, brackets, of)


def _said_twice(one: Amount, rest: str) -> Amount | None:
    """The amount, its percentage rather than its share, if ``rest`` is no more than the same one; or None."""
    again = _AGAIN.match(rest)
    other = _AT.fullmatch(rest[again.end() :].rstrip(" ).")) if again else None
    amount = _amount(other) if other else None
    if amount is None or amount.value != one.value:
        return None
    return amount if amount.kind == "percent" else one


def plain_number(text: str) -> Amount | None:
    """The number that ``text`` is, without lead or reason, or None: for right answers."""
    match = _AT.fullmatch(" ".join(text.split()).rstrip(".")) if len(text) <= answers.LONGEST_LINE else None
    return _amount(match) if match else None


def number(answer: str, clean: Callable[[str], str] = str) -> Amount | None:
    """The number that ``answer`` gives by the rules of ``answers.py``, or None.

    In an answer of one line the name of what was asked for may announce it ("Current ratio = 2.25"). A reason after it
    must hold no digit and no word of scale or unit. ``clean`` takes from a line what may stand beside its number.
    """

    def read(line: str) -> tuple[Amount, bool | None] | None:
        line = clean(_CODE.sub(r" \1", line))
        place, led = answers.body(line, answers.MARKS)
        if named := _NAMED.match(line, place):
            place, led = named.end(), led or None
        if line[:place].endswith("#"):  # a rank
            return None
        about = _ABOUT.match(line, place)
        match = _AT.match(line, about.end() if about else place)
        amount = _amount(match) if match else None
        if match is None or amount is None:
            return None
        rest = line[match.start() + len(match[0].rstrip()) :]
        rest = rest.rstrip("\"'`*_]}”’».! ") and rest
        if twice := _said_twice(amount, rest):
            return twice, led
        rest = rest[risen.end() :] if amount.kind == "percent" and (risen := _RISE.match(rest)) else rest
        if rest and (_NO_REASON.match(rest) or not answers.may_follow(rest) or _MORE.search(rest)):
            return None
        if _ITEM.match(match[0].strip() + rest):
            return None
        if amount.number and (_DOWN if amount.number > 0 else _UP).match(rest):
            return None
        return amount, led

    def same(one: Amount, other: Amount) -> bool:
        return one.scaled == other.scaled or one.value == other.value

    found: Amount | None = answers.one(answer, read, same, working=True)
    return found


def numbers(text: str) -> Iterator[Amount | None]:
    """Every number in ``text``, None where it is in doubt; none in a text that is too long."""
    if len(text) <= _PROSE:
        for match in _ANYWHERE.finditer("\n".join(" ".join(line.split()) for line in text.splitlines())):
            yield _amount(match)
