"""Scoring of answers that should be one number, right within a tolerance that the row states.

Numbers are read as by ``numbers.py``, which lies beside this file and is read from it: lm-eval loads helpers by their
path, so that one cannot import another.
"""

import runpy
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

numbers: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("numbers.py"))))


def slack(tolerance: str, gold: Decimal) -> Decimal:
    """What an answer may differ by: "0.5" as it is, "1%" of the right answer. Raises ArithmeticError for a word."""
    share = Decimal(tolerance.removesuffix("%"))
    return abs(gold) * share / 100 if tolerance.endswith("%") else share


def _misses(answer: Any, gold: Any) -> list[Decimal]:
    """How far ``answer`` is from ``gold`` as printed, and as a share where only one of them has a percent sign."""
    printed: Decimal = answer.scaled
    shift = 2 * ((gold.kind == "percent") - (answer.kind == "percent"))
    return [abs(number - gold.scaled) for number in {printed, numbers.amounts.shifted(printed, shift)}]


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``; ``doc`` has ``answer``, a number as text, and ``tolerance`` ("0", "0.5", "1%").

    Strict: the first line is one number. Lenient: the only number in the answer, or of several the last, where working
    out ends. A percent sign on one side only: "12.5" and "0.125" are both right for "12.5%", and "12.5%" for either;
    the tolerance is in the unit of the right answer.
    """
    gold = numbers.amounts.plain_number(doc["answer"])
    if gold is None:
        raise ValueError(f"the gold answer is not a number: {doc['answer']!r}")
    strict = numbers.amounts.number(results[0])
    lenient = strict or numbers._only(results[0]) or next(reversed(numbers._all(results[0])), None)
    most = slack(doc["tolerance"], gold.scaled)
    acc, acc_lenient = (float(bool(read) and min(_misses(read, gold)) <= most) for read in (strict, lenient))
    return {"acc": acc, "acc_lenient": acc_lenient, "parse_rate": float(strict is not None)}
