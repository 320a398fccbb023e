"""Answers of questions that state their formula: which numbers of the question, put into it, give the answer.

Nothing tells which number is which variable, so every assignment is tried. An answer that one of them gives is sound.
One that none gives, while one gives it times -1, 10 or 1/10, is not: by chance that is rare, for the numbers are few.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterator

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_STATED = re.compile(r"Formula\s*:\s*[^=]{1,80}?=\s*(?P<right>[^=,]{3,160}?)\s*,\s*Explanation\s*:", re.DOTALL)
_NAME = re.compile(r"[A-Za-zα-ωΑ-Ω][\w'’]*(?:\s+(?!\d)[A-Za-z][\w'’]*)*")
_AMOUNT = re.compile(r"(?<![\w.])(-?\d[\d,]*(?:\.\d+)?)\s?(%|million|billion|thousand|k\b|percent)?", re.IGNORECASE)
_UNITS = {"%": 0.01, "percent": 0.01, "thousand": 1e3, "k": 1e3, "million": 1e6, "billion": 1e9}
_MOST = 4  # variables, and numbers: of more, some assignment gives everything
Expression = Callable[[list[float]], float]


def misplaced(prompt: str, question: str, told: float) -> bool | None:
    """Whether an answer is what its formula gives times -1, 10 or 1/10; False if it is that, None if nobody knows."""
    stated = _STATED.search(prompt)
    made = _expression(stated["right"]) if stated else None
    amounts = [
        (float(number.replace(",", "")), _UNITS.get(unit.casefold(), 1.0)) for number, unit in _AMOUNT.findall(question)
    ]
    if made is None or not told or not 1 <= made[1] <= _MOST or len(amounts) != made[1]:
        return None
    found = {value for value in _values(*made, amounts) if value}
    if any(_near(told, value * power, 0.01) for value in found for power in (1, 100, 0.01)):
        return False
    if any(_near(told, value * factor, 0.0005) for value in found for factor in (-1, 10, 0.1, -100)):
        return True
    return None


def _near(told: float, value: float, close: float) -> bool:
    return abs(told - value) <= max(close * abs(value), 0.0051 if close > 0.001 else 0.0)


def _values(run: Expression, count: int, amounts: list[tuple[float, float]]) -> Iterator[float]:
    """What every assignment gives; a number with a unit stands for itself too."""
    ways = [{number * unit, number} for number, unit in amounts]
    for numbers in itertools.product(*ways):
        for order in itertools.permutations(numbers, count):
            try:
                value = run(list(order))
            except (ArithmeticError, ValueError):
                continue
            if isinstance(value, float) and math.isfinite(value):
                yield value


def _expression(right: str) -> tuple[Expression, int] | None:
    """A formula as a function of its variables, and their number; None if it is not plain arithmetic."""
    text = right.replace("×", "*").replace("÷", "/").replace("^", "**").replace("[", "(").replace("]", ")")
    names = list(dict.fromkeys(" ".join(name.split()) for name in _NAME.findall(text)))
    text = _NAME.sub(lambda name: f" v{names.index(' '.join(name[0].split()))} ", text)
    text = re.sub(r"(?<=[\w)])\s+(?=\()|(?<=\))\s*(?=v)", " * ", text.strip())
    try:
        return _built(ast.parse(text, mode="eval").body), len(names)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _built(node: ast.AST) -> Expression:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            constant = float(number)
            return lambda numbers: constant
        case ast.Name(id=name):
            at = int(name[1:])
            return lambda numbers: numbers[at]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            run = _built(inner)
            return lambda numbers: -run(numbers)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            do, one, other = _OPERATORS[type(op)], _built(left), _built(right)
            return lambda numbers: do(one(numbers), other(numbers))
    raise ValueError("not arithmetic")
