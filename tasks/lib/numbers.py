"""Scoring of answers that should be one number. Standard library only.

Strict: the whole first line is one number: digits with or without correctly placed thousands commas, a decimal
part, a sign or accounting brackets, a currency sign or code, a percent sign, a scale word ("$1.2 million").
Lenient: the only number in the answer. Numbers are compared as decimals: 1,000 = 1000 = 1000.0.

A point is always the decimal point and a comma only ever groups thousands: "1.000" is one, "1.000,00" and "0,5" are
no numbers. "bn" and "mn" are scale words; "m", "M", "B" and "k" are not, for M is a thousand to some: "$5M" is no
number. Thinking before "</think>" is no part of the answer.
"""

import decimal
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

_SCALES = {"thousand": 3, "million": 6, "mn": 6, "billion": 9, "bn": 9, "trillion": 12}
_WORD = r"(?:thousand|million|billion|trillion)s?|bn|mn"
_CODE = "USD|EUR|GBP|JPY"
# Every gap is at most one space (``_squeeze``): with several adjacent ``\s*`` a run of spaces takes n^4 steps.
_NUMBER = (
    rf"(?P<open>\()? ?(?P<sign1>[-+−–—‒－﹣])? ?(?P<sign>US\$|[$€£¥]|{_CODE})? ?(?P<sign2>[-+−–—‒－﹣])?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3})?"
    rf" ?(?P<scale>{_WORD})? ?(?P<percent>%|percent(?:age points?)?|per cent|pct)?"
    rf" ?(?P<code>{_CODE}|dollars)? ?(?P<late>{_WORD})? ?(?P<close>\))?"
)
_WHOLE = re.compile(r"[\"'`* ]*" + _NUMBER + r"[\"'`*. ]*", re.IGNORECASE)
_ANYWHERE = re.compile(r"(?<![\w.,\-−–—‒－﹣])" + _NUMBER + r"(?![\w]|[.,\-−–—‒－﹣]\d)", re.IGNORECASE)
_LONGEST = 60  # characters of digits; nothing in finance is longer, and a megabyte of digits is an attack
_PROSE = 10_000  # characters of an answer in which a number is looked for
_HALF_CENT = Decimal("0.005")
_RELATIVE = Decimal("0.001")
_MONEY = Decimal("0.03")


class Amount(NamedTuple):
    """A number as it is written: "-$1.2 million" is (-1.2, 6, False, True)."""

    number: Decimal
    power: int  # of ten, from a scale word
    percent: bool
    money: bool

    @property
    def value(self) -> Decimal:
        """The number that is meant; 5 % is 0.05."""
        return _scaled(self.number, self.power - 2 * self.percent)


def _scaled(number: Decimal, power: int) -> Decimal:
    with decimal.localcontext() as context:
        context.prec = 2 * _LONGEST  # scaling must not round
        return number.scaleb(power)


_ENDS = re.compile(r"(?:\s?(?:</s>|<eos>|<\|[^<>|]{1,30}\|>))+\s?$")  # special tokens that an engine has left in
_TAIL_OF = 200  # characters in which they are looked for
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # zero-width characters and byte order marks around it


def _said(answer: str) -> str:
    """The answer without the thinking before it (thinking that does not end is no answer) and what is not text."""
    _, end, said = answer.rpartition("</think>")
    said = said if end else "" if answer.lstrip().startswith("<think>") else answer
    said = said[:-_TAIL_OF] + _ENDS.sub("", said[-_TAIL_OF:])
    return said.strip(_UNSEEN)


def _squeeze(answer: str) -> str:
    """One space for each gap, so that no run of them is tried in every way."""
    return "\n".join(" ".join(line.split()) for line in answer.splitlines())


def _amount(match: re.Match[str]) -> Amount | None:
    digits = match["digits"].replace(",", "")
    if len(digits) > _LONGEST or bool(match["open"]) != bool(match["close"]) or (match["scale"] and match["late"]):
        return None
    minuses = bool(match["open"]) + sum(sign != "+" for sign in (match["sign1"], match["sign2"]) if sign)
    if minuses > 1:
        return None
    number = Decimal(digits.rstrip(".") + (match["exponent"] or ""))
    word = (match["scale"] or match["late"] or "").lower().removesuffix("s")
    money = bool(match["sign"] or match["code"])
    # copy_negate, for the unary minus rounds to the context's 28 digits
    return Amount(number.copy_negate() if minuses else number, _SCALES.get(word, 0), bool(match["percent"]), money)


def _whole(answer: str) -> Amount | None:
    """What the first line of ``answer`` is, or None."""
    line = _squeeze(_said(answer).strip()).partition("\n")[0]
    match = _WHOLE.fullmatch(line) if len(line) <= 4 * _LONGEST else None
    return _amount(match) if match else None


def _all(answer: str) -> list[Amount | None]:
    """Every number in ``answer``, None where it is in doubt; none in an answer that is too long."""
    text = _squeeze(_said(answer))
    return [_amount(match) for match in _ANYWHERE.finditer(text)] if len(text) <= _PROSE else []


def _only(answer: str) -> Amount | None:
    """The only number in ``answer`` (repetitions allowed), or None; a number in doubt is a number too."""
    found = _all(answer)
    return found[0] if len({amount and amount.value for amount in found}) == 1 else None


def parse(answer: str) -> Decimal | None:
    """The number that the first line of ``answer`` is, as a Decimal, or None."""
    amount = _whole(answer)
    return amount.value if amount else None


def parse_lenient(answer: str) -> Decimal | None:
    """The only number that occurs in ``answer`` (repetitions allowed), as a Decimal, or None."""
    amount = _only(answer)
    return amount.value if amount else None


def _gold(doc: Mapping[str, Any]) -> Amount:
    gold = _whole(doc["answer"])
    if gold is None:
        raise ValueError(f"the gold answer is not a number: {doc['answer']!r}")
    return gold


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``: equality. ``doc`` has ``answer``, a number as text."""
    gold = _gold(doc).value
    strict = parse(results[0])
    lenient = strict if strict is not None else parse_lenient(results[0])
    return {
        "acc": float(strict == gold),
        "acc_lenient": float(lenient == gold),
        "parse_rate": float(strict is not None),
    }


def score_close(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` for a computed number that the prompt asks for with two decimals.

    ``doc`` has ``answer``, the number as text. Right is what is within half a unit of the second decimal (``exact``),
    or within 0.1 % (``acc``), which forgives the rounding of steps and no other formula. A percent sign is read as a
    hundredth; lenient takes the printed number too ("40%" for 40), and of several numbers the last, where working out
    ends.
    """
    gold = _gold(doc).value
    slack = max(_HALF_CENT, abs(gold) * _RELATIVE)
    strict = _whole(results[0])
    lenient = strict or _only(results[0]) or next(reversed(_all(results[0])), None)
    miss = abs(strict.value - gold) if strict else None
    near = lenient is not None and any(abs(read - gold) <= slack for read in (lenient.value, lenient.number))
    return {
        "acc": float(miss is not None and miss <= slack),
        "exact": float(miss is not None and miss <= _HALF_CENT),
        "acc_lenient": float(near),
        "parse_rate": float(strict is not None),
    }


def _printed(gold: Amount) -> Decimal:
    """Half a unit of the last printed decimal of ``gold``; none for 0, which is 0 and nothing near it.

    FinanceBench prints every amount of money with two decimals, whatever its precision ("$8.70" for 8.738 billion,
    "$0.40" for 0.389 billion, "$1577.00"): there the zeros at the end say nothing, up to 3 % of the amount.
    """
    if not gold.number:
        return Decimal(0)
    printed = _scaled(Decimal("0.5"), min(0, int(gold.number.as_tuple().exponent)))
    if not gold.money:
        return printed
    bare = _scaled(Decimal("0.5"), min(0, int(gold.number.normalize().as_tuple().exponent)))
    return max(printed, min(bare, abs(gold.number) * _MONEY))


def _as_asked(answer: Amount, gold: Amount, scale: int) -> Decimal | None:
    """``answer`` in the unit of ``gold``, or None where it is in another one.

    A bare number is in the unit that was asked for: percent, or 10^scale of money. Nothing is nothing in any unit.
    """
    if not answer.number:
        return answer.number
    if gold.percent:
        return None if answer.money or answer.power else answer.number
    if answer.percent or (answer.money and not gold.money and not scale):
        return None
    return _scaled(answer.number, answer.power - scale) if answer.power else answer.number


def _otherwise(answer: Amount, gold: Amount, scale: int) -> list[Decimal]:
    """What else a generous reader may take ``answer`` for, in the unit of ``gold``: lenient readings."""
    if gold.percent:
        return [] if answer.percent or answer.money or answer.power else [_scaled(answer.number, 2)]
    if answer.percent:
        return [] if gold.money else [answer.value]
    return [_scaled(answer.number, answer.power - scale)]


def score_unit(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` for a figure whose unit the question names.

    ``doc`` has ``answer`` ("$1577.00", "1.9%", "0.66") and ``scale``, the power of ten asked for (6: "in USD
    millions"; 0: none). Right, to the printed precision of the gold: "1577", "$1577 million", "$1.577 billion"; "1.9%",
    "1.9 percent", "1.9"; "0.66". Right leniently only: "1,577,000,000" (scale not applied), "0.019" for 1.9%, "66%" for
    0.66, and the only number in a sentence.
    """
    gold, scale = _gold(doc), int(doc["scale"])
    power = gold.power - scale if gold.power else 0
    right, slack = _scaled(gold.number, power), _scaled(_printed(gold), power)
    strict = _whole(results[0])
    lenient = strict or _only(results[0])
    asked = _as_asked(strict, gold, scale) if strict else None
    readings = [_as_asked(lenient, gold, scale), *_otherwise(lenient, gold, scale)] if lenient else []
    return {
        "acc": float(asked is not None and abs(asked - right) <= slack),
        "acc_lenient": float(any(read is not None and abs(read - right) <= slack for read in readings)),
        "parse_rate": float(strict is not None),
    }
