"""Net present values worked out anew from the wording of a question.

The published answers discount from t = 0 and forget what the investment costs. Here a cash flow falls at the end of its
year unless the question says otherwise (now, upfront, immediately), and an outlay counts as a negative flow.
Nothing is guessed: every amount of the question must have its place in time, else there is no answer.
Arithmetic is ``decimal``; NPV = sum of R_t / (1 + i)^t (Brealey, Myers and Allen, Principles of Corporate Finance).
"""

import re
from decimal import ROUND_HALF_UP, Decimal

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()  # noqa: SIM905
_AMOUNT = r"\$([\d,]+(?:\.\d+)?)"
_COUNT = r"(\d+|" + "|".join(_WORDS[1:]) + ")"
_EACH = r"(?:annual(?:ly)?|yearly|per year|a year|each year|every year|per annum)"
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_YEARS = re.compile(_COUNT + r"[\s-]+years?\b|years?:?\s+(?:1|one)\s*(?:to|-|through)\s*" + _COUNT)
_COST = r"(?:costs?|outlay|investment|expenditure|payment|price|proposition)"
_OUTLAYS = [
    re.compile(rf"(?:upfront|up-front|initial|starting)\s+(?:cash\s+)?{_COST}\s+of\s+{_AMOUNT}"),
    re.compile(rf"{_COST}\s+(?:of\s+)?{_AMOUNT}\s+(?:upfront|up front|today|now|initially|immediately)"),
    re.compile(rf"(?:requires?|requiring|needs?)\s+an?\s+(?:initial\s+)?{_COST}\s+of\s+{_AMOUNT}"),
]
_UNKNOWN_COST = re.compile(r"\b(?:upfront|up-front|initial)\s+(?:cost|outlay|investment|expenditure)\b")
_NOW = re.compile(rf"immediate\s+(?:cash\s+)?(?:inflow|return|payment|receipt)\s+of\s+{_AMOUNT}")
_AFTER = re.compile(rf"{_AMOUNT}\s+(?:in|after)\s+{_COUNT}\s+years?\b")
_NTH = re.compile(
    rf"{_AMOUNT}\s+(?:[a-z]+\s+){{0,4}}?(?:in|at the end of|after|during)\s+(?:its|the|their)?\s*"
    rf"({'|'.join(_ORDINALS[1:])})(?:\s+year)?\b"
)
_STEP = re.compile(
    rf"(increas|decreas|grow|declin|ris|fall)\w*\s+by\s+{_AMOUNT}\s+{_EACH}"
    rf"|(increas|decreas)\w*\s+{_EACH}\s+by\s+{_AMOUNT}"
)
_DUE = re.compile(
    r"first\s+\w+\s+(?:starting|occurring|received|paid|arriving)?\s*(?:immediately|now|today)"
    r"|(?:beginning|start) of each year"
)
_ANNUITIES = [
    re.compile(rf"annual\s+(?:[a-z]+\s+){{0,4}}?of\s+{_AMOUNT}"),
    re.compile(rf"{_AMOUNT}\s+(?:[a-z]+\s+){{0,3}}?(?:{_EACH}|at the end of each year)"),
]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _WORDS.index(text)


def _money(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def flows(question: str) -> tuple[dict[int, Decimal] | None, str]:
    """({year: cash flow}, "") as the question states them, or (None, why not)."""
    text = " ".join(question.casefold().split())
    used: list[tuple[int, int]] = []
    found: dict[int, Decimal] = {}

    def add(year: int, amount: Decimal, match: re.Match[str]) -> None:
        found[year] = found.get(year, Decimal(0)) + amount
        used.append(match.span())

    for pattern in _OUTLAYS:
        for match in pattern.finditer(text):
            if not any(start < match.end() and match.start() < end for start, end in used):
                add(0, -_money(match.group(1)), match)
    if not used and _UNKNOWN_COST.search(text):
        return None, "what the investment costs is not told"
    step = _STEP.search(text)
    if step and re.search(r"initial (?:net )?(?:cash )?(?:inflow|flow|return)", text):
        return None, "whether the initial inflow is now or after a year is not told"
    years = [_number(a or b) for a, b in _YEARS.findall(text)]
    listed = [*_NTH.finditer(text), *_NOW.finditer(text)]
    if step:
        if len(listed) != 1 or not listed[0].groups()[1:] or not years:
            return None, "the growing flows cannot be read for certain"
        sign = -1 if (step.group(1) or step.group(3))[:3] in ("dec", "fal") else 1
        amount, change = _money(listed[0].group(1)), sign * _money(step.group(2) or step.group(4))
        first = _ORDINALS.index(listed[0].group(2))
        for number in range(years[-1] - first + 1):
            add(first + number, amount + number * change, listed[0])
        used.append(step.span())
    elif listed:
        for match in listed:
            nth = match.re is _NTH
            add(_ORDINALS.index(match.group(2)) if nth else 0, _money(match.group(1)), match)
        for match in _AFTER.finditer(text):
            add(_number(match.group(2)), _money(match.group(1)), match)
    else:
        annuities: list[re.Match[str]] = []
        for pattern in _ANNUITIES:
            taken = [*used, *(match.span() for match in annuities)]
            annuities += [m for m in pattern.finditer(text) if not any(s < m.end() and m.start() < e for s, e in taken)]
        if len(annuities) != 1 or len(set(years)) != 1:
            return None, "the cash flows cannot be read for certain"
        begin = 0 if _DUE.search(text) else 1
        for year in range(begin, begin + years[0]):
            add(year, _money(annuities[0].group(1)), annuities[0])
    inside = [m for m in re.finditer(r"\$[\d,]+", text) if not any(s <= m.start() < e for s, e in used)]
    if inside:
        return None, "an amount has no place in time"
    return found, ""


def audit(question: str) -> tuple[str | None, str]:
    """(net present value with two decimals, "") or (None, why there is no certain one)."""
    rates = {Decimal(rate) for rate in _RATE.findall(question)}
    if len(rates) != 1:
        return None, "not one discount rate"
    stated, why = flows(question)
    if stated is None:
        return None, why
    base = 1 + rates.pop() / 100
    value = sum((amount / base**year for year, amount in stated.items()), Decimal(0))
    return str(value.quantize(Decimal("0.01"), ROUND_HALF_UP)), ""
