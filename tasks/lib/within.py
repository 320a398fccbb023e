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


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``; ``doc`` has ``answer``, a number as text, and ``tolerance`` ("0", "0.5", "1%").

    Strict: the first line is one number. Lenient: the only number in the answer, or of several the last, where working
    out ends.
    """
    gold = numbers.parse(doc["answer"])
    if gold is None:
        raise ValueError(f"the gold answer is not a number: {doc['answer']!r}")
    strict, lenient = numbers.parse(results[0]), numbers.parse_lenient(results[0])
    if lenient is None:
        last = next(reversed(numbers._all(results[0])), None)
        lenient = last.value if last else None
    lenient = lenient if strict is None else strict
    most = slack(doc["tolerance"], gold)
    return {
        "acc": float(strict is not None and abs(strict - gold) <= most),
        "acc_lenient": float(lenient is not None and abs(lenient - gold) <= most),
        "parse_rate": float(strict is not None),
    }
