"""Scoring of answers that should be a number from -1 to 1, such as a sentiment score. Standard library only.

Strict: by the rules of ``answers.py`` the answer is one plain number on that scale. Lenient: the only number in the
answer. A percent sign, brackets, a second number or a number off the scale ("85", "NaN", "1e999") is no answer: nothing
is clipped, for "85" on another scale is not "very positive" on this one.
An answer that does not parse counts as the worst answer on the
scale, an error of |gold| + 1, so that silence never scores above a guess, nor one wild number below all others.
"""

import math
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

amounts: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("amounts.py"))))
answers = amounts.answers

Item = tuple[float, float | None]  # gold, predicted or None

_SIGN = "[-+−–－﹣]"
_NUMBER = rf"{_SIGN}?(?:[0-9]{{1,20}}(?:\.[0-9]{{0,40}})?|\.[0-9]{{1,40}})(?:[eE][-+]?[0-9]{{1,3}})?"
_ANYWHERE = re.compile(rf"(?<![\w.,−–－﹣+-])({_NUMBER})(?![\w%]|[.,−–－﹣-]\w|\s?%)")
_ANY_DIGITS = re.compile(r"\d+")
_PROSE = 10_000  # characters of an answer in which a number is looked for


def _value(text: str) -> float | None:
    value = float(re.sub("[−–－﹣]", "-", text))
    return value if -1 <= value <= 1 else None


def parse(answer: str) -> float | None:
    """The number on the scale that ``answer`` gives, or None."""
    amount = amounts.number(answer)
    if amount is None or amount.power or amount.kind or amount.of or amount.brackets or not -1 <= amount.number <= 1:
        return None
    return float(amount.number)


def parse_lenient(answer: str) -> float | None:
    """The only number in ``answer`` (repetitions allowed), or None: off the scale, or beside other digits."""
    text = answers.said(answer)
    if len(text) > _PROSE:
        return None
    values = {_value(match[1]) for match in _ANYWHERE.finditer(text)}
    rest = _ANYWHERE.sub(" ", text)
    return values.pop() if len(values) == 1 and not _ANY_DIGITS.search(rest) else None


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results``. ``doc`` has ``score``, a number from -1 to 1."""
    gold = float(doc["score"])
    if not -1 <= gold <= 1:
        raise ValueError(f"the gold score is not from -1 to 1: {doc['score']!r}")
    strict = parse(results[0])
    lenient = strict if strict is not None else parse_lenient(results[0])
    return {
        **dict.fromkeys(("r2", "mse"), (gold, strict)),
        **dict.fromkeys(("r2_lenient", "mse_lenient"), (gold, lenient)),
        "parse_rate": float(strict is not None),
    }


def _squares(items: Sequence[Item]) -> float:
    errors = (abs(gold) + 1 if predicted is None else gold - predicted for gold, predicted in items)
    return math.fsum(error * error for error in errors)


def mse(items: Sequence[Item]) -> float:
    """Mean squared error; items are (gold, predicted or None)."""
    return _squares(items) / len(items)


def r2(items: Sequence[Item]) -> float:
    """Coefficient of determination, 1 - SSE / SST (Wright 1921; scikit-learn's ``r2_score``); items as for ``mse``.

    The mean of the golds as every answer scores 0, and worse answers score below. Golds that are all one number: 1 if
    every answer is it, else 0.
    """
    mean = math.fsum(gold for gold, _ in items) / len(items)
    spread = math.fsum((gold - mean) ** 2 for gold, _ in items)
    errors = _squares(items)
    if spread == 0:
        return float(errors == 0)
    return 1 - errors / spread
