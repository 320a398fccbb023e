"""Net present values worked out anew from the wording of a question.

The published answers discount from t = 0 and forget what the investment costs. Here a cash flow falls at the end of its
year unless the question says otherwise (now, upfront, immediately), and an outlay counts as a negative flow.
Nothing is guessed: a few forms of wording are known, and a question is answered only if nothing that could bear on
the value is left over when they have been read: no number, no currency, no word of time, sign or growth. Else it is
left out.
Arithmetic is ``decimal``; NPV = sum of R_t / (1 + i)^t (Brealey, Myers and Allen, Principles of Corporate Finance).
"""

import re
from decimal import ROUND_HALF_UP, Decimal

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()  # noqa: SIM905
_AMOUNT = r"\$(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_COUNT = r"(\d{1,3}|" + "|".join(_WORDS[1:]) + ")"
_NTH_WORD = "(" + "|".join(_ORDINALS[1:]) + ")"
_EACH = r"(?:annually|yearly|per year|a year|each year|every year|per annum)"
_END = r"(?:at the end of (?:each|every) year)"
_GAIN = (
    r"(?:net\s+)?(?:cash\s+)?"
    r"(?:inflows?|flows?|returns?|benefits?|income|revenues?|profits?|earnings|gains?|savings|dividends?)"
)
_FILLER = (
    rf"(?:(?:in|from)\s+(?:an?\s+)?(?:{_GAIN}|cash|the investment|investment|project)\s+)?"  # "$X in cash annually"
)

_RATE = re.compile(
    r"(?:(?:at|with|using|is|and|if)?\s*(?:a|an|the|the same)?\s*(?:annual\s+)?(?:discount|interest|required)?\s*"
    r"(?:rate|rate \(i\))?\s*(?:of|is|:)?\s*)(\d{1,2}(?:\.\d+)?)\s?%(?:\s+(?:discount\s+)?rate)?"
)
_YEARS = re.compile(
    rf"(?:for|over|up to|lasts?|time periods \(t\):)?\s*(?:for\s+)?(?:the\s+next\s+|a period of\s+)?{_COUNT}\s+years?\b"
)
_OUTLAYS = (
    re.compile(
        rf"(?:upfront|up-front|initial)\s+(?:cash\s+)?(?:costs?|outlay|investment|expenditure)\s+of\s+{_AMOUNT}"
    ),
    re.compile(
        rf"(?:costs?|(?:an?\s+)?(?:investment|outlay|expenditure)(?:\s+proposition)?\s+of)\s+{_AMOUNT}\s+"
        r"(?:upfront|up front|today|now|initially)"
    ),
)
_UNTOLD = re.compile(r"\b(?:upfront|up-front|initial)\s+(?:cost|outlay|investment|expenditure)\b")
_NOW = re.compile(rf"immediate\s+(?:cash\s+)?(?:inflow|return|receipt)\s+of\s+{_AMOUNT}")
_AFTER = re.compile(rf"(?:followed by\s+)?{_AMOUNT}\s+in\s+{_COUNT}\s+years?\b")
_NTH = re.compile(rf"{_AMOUNT}\s+{_FILLER}(?:in|at the end of|during)\s+(?:its\s+|the\s+)?{_NTH_WORD}\s+year\b")
_STEP = re.compile(
    rf"(?:and\s+)?(?:the\s+)?(?:inflows?|cash flows?|returns?|it)\s+(increases?|decreases?)\s+by\s+{_AMOUNT}\s+{_EACH}"
)
_DUE = re.compile(
    r",?\s*(?:with\s+)?the first (?:cash )?(?:inflow|return|payment received|receipt)(?:\s+starting)?\s+immediately"
)
_LEVEL = (
    re.compile(rf"annual\s+{_GAIN}\s+of\s+{_AMOUNT}"),
    re.compile(rf"(?:net cash inflow \(r_t\):\s*)?{_AMOUNT}\s+{_FILLER}(?:{_EACH}|{_END})"),
)
# Whatever of this is left over could change the value.
_LEFT = re.compile(
    r"\d|[%$€£¥]|[-–−(]\s?\$|\b(?:"
    + "|".join([*_WORDS, *_ORDINALS])
    + r"|hundreds?|thousands?|millions?|billions?|percent|"
    r"cent|usd|eur|gbp|dollars?|euros?|pounds?|now|today|upfront|initial|initially|immediate|immediately|half|twice|double|"
    r"los\w+|costs?|expen\w+|outflow\w*|outlay\w*|spen\w+|pay\w*|paid|buy\w*|bought|borrow\w*|debt|owe\w*|negative|deduct\w*|"
    r"less|minus|fee\w*|tax\w*|depreciat\w*|inflation|salvage|scrap|residual|terminal|resale|sold|sell\w*|perpetu\w+|forever|"
    r"start\w*|begin\w*|delay\w*|defer\w*|postpone\w*|after|afterwards?|thereafter|until|till|before|later|earlier|other|"
    r"alternate|then|month\w*|quarter\w*|week\w*|dai\w+|day|days|semi\w*|bi\w*annual\w*|compound\w*|continuous\w*|grow\w*|"
    r"growth|increas\w*|decreas\w*|declin\w*|ris\w+|fall\w*|shrink\w*|reduc\w*|average|varies|vary\w*|respectively|between|"
    r"range|each|every|annually|yearly|annum|year|years|period)\b"
)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _WORDS.index(text)


def _money(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


class _Reader:
    """A question of which known wordings are taken out one after the other; what is left must be harmless."""

    def __init__(self, question: str) -> None:
        self.text = " ".join(question.casefold().split())
        self.flows: dict[int, Decimal] = {}

    def take(self, pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
        """The groups of every match, which leave the text."""
        found = [tuple(group or "" for group in match.groups()) for match in pattern.finditer(self.text)]
        self.text = pattern.sub(" | ", self.text)
        return found

    def add(self, year: int, amount: Decimal) -> None:
        self.flows[year] = self.flows.get(year, Decimal(0)) + amount


def audit(question: str) -> tuple[str | None, str]:
    """(net present value with two decimals, "") or (None, why there is no certain one)."""
    reader = _Reader(question[:2000])
    if len(question) > 2000:
        return None, "the question is too long"
    if re.search(r"initial (?:net )?(?:cash )?(?:inflow|flow|return)", reader.text):
        return None, "whether the initial inflow is now or after a year is not stated"
    if re.search(r"[-–−(]\s?\$", reader.text):
        return None, "an amount has a sign"
    for pattern in _OUTLAYS:
        for (amount,) in reader.take(pattern):
            reader.add(0, -_money(amount))
    if not reader.flows and _UNTOLD.search(reader.text):
        return None, "what the investment costs is not stated"
    why = _inflows(reader)
    rates = reader.take(_RATE)
    if why or len(rates) != 1:
        return None, why or "not one discount rate"
    left = _LEFT.search(reader.text)
    if left:
        return None, f"the words around {left.group()!r} cannot be read for certain"
    rate = 1 + Decimal(rates[0][0]) / 100
    value = sum((amount / rate**year for year, amount in reader.flows.items()), Decimal(0))
    return str(value.quantize(Decimal("0.01"), ROUND_HALF_UP)), ""


def _inflows(reader: _Reader) -> str:
    """Take one form of inflows out of the text: growing, listed by year, or level. Empty, or why it is none."""
    steps = reader.take(_STEP)
    listed = [(_ORDINALS.index(nth), _money(amount)) for amount, nth in reader.take(_NTH)]
    if steps:
        years = reader.take(_YEARS)
        if len(steps) != 1 or len(listed) != 1 or len(years) != 1 or listed[0][0] != 1:
            return "the growing flows cannot be read for certain"
        way, change = steps[0]
        step = _money(change) * (-1 if way.startswith("decrease") else 1)
        for number in range(_number(years[0][0])):
            reader.add(1 + number, listed[0][1] + number * step)
        return ""
    listed += [(0, _money(amount)) for (amount,) in reader.take(_NOW)]
    if listed:
        listed += [(_number(years), _money(amount)) for amount, years in reader.take(_AFTER)]
        if len({year for year, _ in listed}) != len(listed):
            return "a year has two flows"
        for year, amount in listed:
            reader.add(year, amount)
        return ""
    due = reader.take(_DUE)
    levels = [amount for pattern in _LEVEL for (amount,) in reader.take(pattern)]
    years = reader.take(_YEARS)
    if len(levels) != 1 or len(years) != 1:
        return "the cash flows cannot be read for certain"
    for year in range(0 if due else 1, _number(years[0][0]) + (0 if due else 1)):
        reader.add(year, _money(levels[0]))
    return ""
