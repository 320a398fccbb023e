"""Scoring of answers that should be one number. Standard library only.

Strict: the whole first line is one number: digits with or without correctly placed thousands commas, a decimal
part, a sign or accounting brackets, a currency sign or code, a percent sign, a scale word ("$1.2 million").
Lenient: the only number in the answer. Numbers are compared as decimals: 1,000 = 1000 = 1000.0.
"""

import decimal
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Every gap is at most one space (``_squeeze``): with several adjacent ``\s*`` a run of spaces takes n^4 steps.
_NUMBER = (
    r"(?P<open>\()? ?(?P<sign1>[-+−–—‒－﹣])? ?(?:US\$|[$€£¥]|USD|EUR|GBP|JPY)? ?(?P<sign2>[-+−–—‒－﹣])?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3})?"
    r" ?(?P<scale>thousand|million|billion|trillion)? ?(?P<percent>%)? ?(?:USD|EUR|GBP|JPY|dollars)? ?(?P<close>\))?"
)
_WHOLE = re.compile(r"[\"'`* ]*" + _NUMBER + r"[\"'`*. ]*", re.IGNORECASE)
_ANYWHERE = re.compile(r"(?<![\w.,\-−–—‒－﹣])" + _NUMBER + r"(?![\w]|[.,\-−–—‒－﹣]\d)", re.IGNORECASE)
_LONGEST = 60  # characters of digits; nothing in finance is longer, and a megabyte of digits is an attack


_PROSE = 10_000  # characters of an answer in which a number is looked for


def _squeeze(answer: str) -> str:
    """One space for each gap, so that no run of them is tried in every way."""
    return "\n".join(" ".join(line.split()) for line in answer.splitlines())


def _value(match: re.Match[str]) -> decimal.Decimal | None:
    digits = match["digits"].replace(",", "")
    if len(digits) > _LONGEST or bool(match["open"]) != bool(match["close"]):
        return None
    with decimal.localcontext() as context:
        context.prec = 2 * _LONGEST  # scaling must not round
        value = decimal.Decimal(digits.rstrip(".") + (match["exponent"] or ""))
        if match["scale"]:
            value = value.scaleb(_SCALES[match["scale"].lower()])
        if match["percent"]:
            value = value.scaleb(-2)
        signs = [match["sign1"], match["sign2"]]
        negative = bool(match["open"]) + sum(sign != "+" for sign in signs if sign)
        return -value if negative == 1 else value if negative == 0 else None


def parse(answer: str) -> decimal.Decimal | None:
    """The number that the first line of ``answer`` is, as a Decimal, or None."""
    line = _squeeze(answer.strip()).partition("\n")[0]
    match = _WHOLE.fullmatch(line) if len(line) <= 4 * _LONGEST else None
    return _value(match) if match else None


def parse_lenient(answer: str) -> decimal.Decimal | None:
    """The only number that occurs in ``answer`` (repetitions allowed), as a Decimal, or None."""
    text = _squeeze(answer)
    if len(text) > _PROSE:
        return None
    values = {_value(match) for match in _ANYWHERE.finditer(text)}  # a number in doubt is a number too
    return values.pop() if len(values) == 1 else None


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer``, a number as text."""
    gold = parse(doc["answer"])
    if gold is None:
        raise ValueError(f"the gold answer is not a number: {doc['answer']!r}")
    strict = parse(results[0])
    lenient = strict if strict is not None else parse_lenient(results[0])
    return {
        "acc": float(strict == gold),
        "acc_lenient": float(lenient == gold),
        "parse_rate": float(strict is not None),
    }
