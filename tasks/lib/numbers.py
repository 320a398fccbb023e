"""Scoring of answers that should be one number. Standard library only.

Strict: by the rules of ``answers.py`` the answer is one number: digits with or without correctly placed thousands
commas, a decimal part, a sign or accounting brackets, a currency sign or code, a percent sign, a scale word ("$1.2
million"). Lenient: the only number in the answer. Numbers are compared as decimals: 1,000 = 1000 = 1000.0.
"""

import re
import runpy
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

amounts: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("amounts.py"))))
answers = amounts.answers

_HALF_CENT = Decimal("0.005")
_ROUNDED = Decimal("0.02")  # a number of few digits is rounded by more, but not so far
_RELATIVE = Decimal("0.001")
_MONEY = Decimal("0.03")


def _all(answer: str) -> list[Any]:
    """Every number in ``answer``, None where it is in doubt; none in an answer that is too long."""
    return list(amounts.numbers(answers.said(answer)))


def _only(answer: str) -> Any:
    """The only number in ``answer`` (repetitions allowed), or None; a number in doubt is a number too."""
    found = _all(answer)
    return found[0] if len({amount and amount.value for amount in found}) == 1 else None


def parse(answer: str) -> Decimal | None:
    """The number that ``answer`` gives, as a Decimal, or None."""
    amount = amounts.number(answer)
    return amount.value if amount else None


def parse_lenient(answer: str) -> Decimal | None:
    """The only number that occurs in ``answer`` (repetitions allowed), as a Decimal, or None."""
    amount = _only(answer)
    return amount.value if amount else None


def _gold(doc: Mapping[str, Any]) -> Any:
    gold = amounts.plain_number(doc["answer"])
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

    ``doc`` has ``answer``, the number as text, with two decimals, and may have ``unrounded``, the same with more of
    them, of which there may be several between blanks. Right is what is within half a unit of the second decimal and
    2 % (``exact``), or within 0.1 % (``acc``), which forgives the rounding of steps and no other formula. Where
    ``formula`` multiplies by 100 a number with a percent sign is right as it is printed, elsewhere as a hundredth.
    Lenient takes, of several numbers, the last, where working out ends.
    """
    gold = _gold(doc).value
    slack = min(_HALF_CENT, abs(gold) * _ROUNDED)
    more = (Decimal(value) for value in (doc.get("unrounded") or "").split())
    near = {value: abs(value) * _RELATIVE for value in (gold, *more)}
    strict = amounts.number(results[0])
    lenient = strict or _only(results[0]) or next(reversed(_all(results[0])), None)
    meant, meant_leniently = (_meant(one, doc.get("formula")) if one else [] for one in (strict, lenient))

    def close(readings: Sequence[Decimal]) -> float:
        golds = {**near, gold: max(slack, near[gold])}
        return float(any(abs(read - right) <= most for read in readings for right, most in golds.items()))

    return {
        "acc": close(meant),
        "exact": float(any(abs(read - gold) <= slack for read in meant)),
        "acc_lenient": close(meant_leniently),
        "parse_rate": float(strict is not None),
    }


def _meant(amount: Any, formula: str | None) -> list[Decimal]:
    """What an amount is, in the unit of the formula: 100 in it makes per cent. Without a formula nobody knows."""
    if amount.kind != "percent" or formula is None:
        return [amount.value, amount.scaled]
    return [amount.scaled if re.search(r"\b100\b", formula) else amount.value]


def _printed(gold: Any) -> Decimal:
    """Half a unit of the last printed decimal of ``gold``; none for 0, which is 0 and nothing near it.

    FinanceBench prints every amount of money with two decimals, whatever its precision ("$8.70" for 8.738 billion,
    "$0.40" for 0.389 billion, "$1577.00"): there the zeros at the end say nothing, up to 3 % of the amount.
    """
    if not gold.number:
        return Decimal(0)
    printed: Decimal = amounts.shifted(Decimal("0.5"), min(0, int(gold.number.as_tuple().exponent)))
    if not gold.money:
        return printed
    bare: Decimal = amounts.shifted(Decimal("0.5"), min(0, int(gold.number.normalize().as_tuple().exponent)))
    most: Decimal = abs(gold.number) * _MONEY
    return max(printed, min(bare, most))


def _as_asked(answer: Any, gold: Any, scale: int) -> Decimal | None:
    """``answer`` in the unit of ``gold``, or None where it is in another one.

    A bare number is in the unit that was asked for: percent, or 10^scale of money. Nothing is nothing in any unit.
    """
    if not answer.number:
        nothing: Decimal = answer.number
        return nothing
    if gold.kind == "percent":
        return None if answer.money or answer.power else answer.number
    if answer.kind == "percent" or (answer.money and not gold.money and not scale):
        return None
    asked: Decimal = amounts.shifted(answer.number, answer.power - scale) if answer.power else answer.number
    return asked


def _otherwise(answer: Any, gold: Any, scale: int) -> list[Decimal]:
    """What else a generous reader may take ``answer`` for, in the unit of ``gold``: lenient readings."""
    if gold.kind == "percent":
        return [] if answer.kind == "percent" or answer.money or answer.power else [amounts.shifted(answer.number, 2)]
    if answer.kind == "percent":
        return [] if gold.money else [answer.value]
    return [amounts.shifted(answer.number, answer.power - scale)]


def score_unit(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` for a figure whose unit the question names.

    ``doc`` has ``answer`` ("$1577.00", "1.9%", "0.66") and ``scale``, the power of ten asked for (6: "in USD
    millions"; 0: none). Right, to the printed precision of the gold: "1577", "$1577 million", "$1.577 billion"; "1.9%",
    "1.9 percent", "1.9"; "0.66". Right leniently only: "1,577,000,000" (scale not applied), "0.019" for 1.9%, "66%" for
    0.66, and the only number in a sentence.
    """
    gold, scale = _gold(doc), int(doc["scale"])
    power = gold.power - scale if gold.power else 0
    right, slack = amounts.shifted(gold.number, power), amounts.shifted(_printed(gold), power)
    strict = amounts.number(results[0])
    lenient = strict or _only(results[0])
    asked = _as_asked(strict, gold, scale) if strict else None
    readings = [_as_asked(lenient, gold, scale), *_otherwise(lenient, gold, scale)] if lenient else []
    return {
        "acc": float(asked is not None and abs(asked - right) <= slack),
        "acc_lenient": float(any(read is not None and abs(read - right) <= slack for read in readings)),
        "parse_rate": float(strict is not None),
    }
