"""FinQA's programs: what one gives over its table. Standard library only.

Written from a description of the authors' script, whose results it gives; a comma may stand without a blank.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

_LONGEST = 10_000  # characters of a program
# the comma that parts two arguments has a blank after it, or is the last one: "divide(12,000, 3)", "divide(12,000,3)"
_STEP = re.compile(r"(?P<op>[a-z_]+)\((?P<one>[^()]*?)(?:, |,(?=[^,()]*\)))(?P<two>[^()]*?)\)(?:, ?|$)")
_BINARY: dict[str, Callable[[float, float], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "exp": lambda a, b: a**b,
    "greater": lambda a, b: "yes" if a > b else "no",
}
_ROWS: dict[str, Callable[[Sequence[float]], float]] = {
    "table_max": max,
    "table_min": min,
    "table_sum": sum,
    "table_average": lambda row: sum(row) / len(row),
}


def execute(program: str, table: str) -> float | str | None:
    """What a FinQA program gives over ``table`` (JSON rows), to five decimals, or yes or no; None if it cannot run."""
    results: list[Any] = []
    place, program = 0, program[:_LONGEST].strip()
    try:
        while place < len(program):
            step = _STEP.match(program, place)
            if step is None:
                return None
            place = step.end()
            if step["op"] in _BINARY:
                one, two = (_argument(step[name].strip(), results) for name in ("one", "two"))
                results.append(_BINARY[step["op"]](one, two))
            else:
                rows = {str(row[0]): row[1:] for row in json.loads(table) if row}
                results.append(_ROWS[step["op"]]([_cell(str(cell)) for cell in rows[step["one"].strip()]]))
        last = results[-1]
        return last if isinstance(last, str) else round(float(last), 5)
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError, RecursionError):
        return None


def _argument(text: str, results: Sequence[Any]) -> float:
    if text.startswith("#"):
        value = results[int(text[1:])]
        if isinstance(value, str):
            raise TypeError("yes and no are no numbers")
        return float(value)
    if text.startswith("const_"):
        return -1.0 if text == "const_m1" else float(text.removeprefix("const_"))
    return _plain(text)


def _plain(text: str) -> float:
    bare = text.replace(",", "")
    return float(bare[:-1]) / 100 if bare.endswith("%") else float(bare)


def _cell(cell: str) -> float:
    return _plain(cell.replace("$", "").strip().partition("(")[0].strip())
