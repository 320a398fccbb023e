"""Numbers that do not recompute: arithmetic in a question, its own formula, net present values."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from finbench.core.paths import helper
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_CLOSE = Fraction(1, 100)  # relative: golds are rounded
_EXPRESSION = re.compile(r"(?<![\w.,])[-(]*\d[\d.,]*(?:\s*[-+*/×÷^()]\s*[-(]*\d[\d.,]*\)*|\))+(?![\w])")
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def recompute(context: AuditContext) -> Iterator[Finding]:
    """Numeric answers against what their own question gives. Only what can be worked out for certain is judged."""
    for source in context.sources:
        judged: dict[str, list[int]] = {}  # how -> numbers of rows that are wrong
        seen: dict[str, int] = {}
        shown: dict[str, str] = {}
        query = (
            "SELECT row.n, body.body, body.shown, coalesce(ask.shown, ''), gold FROM row JOIN body USING (body)"
            " LEFT JOIN ask USING (ask) WHERE src = ? AND gold GLOB '*[0-9]*'"
        )
        for number, _, body, ask, gold in context.store.db.execute(query, (source.id,)).fetchall():
            told = _number(gold)
            if told is None:
                continue
            for how, worked in _worked(body, ask):
                seen[how] = seen.get(how, 0) + 1
                if not _near(told, worked):
                    judged.setdefault(how, []).append(number)
                    shown.setdefault(how, f"{gold} given, {float(worked):.10g} worked out")
        for how, wrong in judged.items():
            yield from _said(context, source, how, wrong, seen[how], shown[how])


def _said(
    context: AuditContext, source: AuditedFile, how: str, wrong: list[int], seen: int, shown: str
) -> Iterator[Finding]:
    if how.startswith("formula") and len(wrong) > 0.3 * seen:
        return  # more likely that the question was not understood than that most answers are wrong
    yield context.find(
        "impossible-gold",
        "error",
        [source],
        (len(wrong), seen),
        f"{share(len(wrong), seen)} answers do not follow from {_HOW.get(how, how)} ({shown}).",
        (f"SELECT n FROM row WHERE n IN ({','.join(map(str, wrong[:50]))})", ()),
    )


_HOW = {
    "npv": "the cash flows of their question, each at the end of its year, less the outlay (net present value)",
    "arithmetic": "the arithmetic in their question",
}


def _worked(body: str, ask: str) -> Iterator[tuple[str, Fraction]]:
    """(how, result) of everything in a question that can be worked out for certain."""
    if re.search(r"net present value|\bnpv\b", f"{ask} {body}", re.IGNORECASE):
        value, _ = helper("sets").npv.audit(" ".join(body.split()).strip('" .'))
        if value is not None:
            yield "npv", Fraction(value)
        return
    found = [text for text in _EXPRESSION.findall(body) if re.search(r"\d\s*[-+*/×÷^]", text)]
    if len(found) == 1 and re.search(
        r"calculate|compute|evaluate|what is|how much is|=\s*\??\s*$|result", body, re.IGNORECASE
    ):
        plain = found[0]
        outside = body.replace(plain, " ", 1)
        dated = re.fullmatch(r"\d{1,4}[-/]\d{1,2}(?:[-/]\d{1,4})?|\d{4}[-/]\d{2,4}", plain.strip())
        if not re.search(r"\d", outside) and not dated and (value := evaluate(plain)) is not None:
            yield "arithmetic", value
    if named := _of_formula(ask, body):
        yield named


def evaluate(text: str) -> Fraction | None:
    """The value of plain arithmetic; None if it is none."""
    bare = text.replace("×", "*").replace("÷", "/").replace("^", "**")
    bare = re.sub(r"(?<=\d),(?=\d{3})", "", bare).strip()
    if len(bare) > 200:
        return None
    try:
        return _value(ast.parse(bare, mode="eval").body, {})
    except (
        SyntaxError,
        ValueError,
        ZeroDivisionError,
        OverflowError,
        KeyError,
        TypeError,
        MemoryError,
        RecursionError,
    ):
        return None


def _value(node: ast.AST, names: dict[str, Fraction]) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Fraction(str(node.value))
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, names)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, names), _value(node.right, names)
        if isinstance(node.op, ast.Pow):
            if right.denominator != 1 or abs(right) > 400:
                return Fraction(float(left) ** float(right))
            return left ** int(right)
        return Fraction(_OPERATORS[type(node.op)](left, right))
    raise ValueError("not arithmetic")


def _number(text: str) -> Fraction | None:
    bare = re.sub(r"[,$€£%\s]", "", text)
    try:
        return Fraction(bare)
    except (ValueError, ZeroDivisionError):
        return None


def _near(told: Fraction, worked: Fraction) -> bool:
    """Equal but for rounding; a share may be given in per cent."""
    return any(abs(told - value) <= max(abs(value) * _CLOSE, Fraction(6, 1000)) for value in (worked, worked * 100))


# ---------------------------------------------------------------- formulas of prompts

_STATED = re.compile(
    r"Formula\s*:\s*(?P<left>[^=]{1,80}?)\s*=\s*(?P<right>[^=,]{3,160}?)\s*,\s*Explanation\s*:\s*(?P<names>.*)",
    re.DOTALL,
)
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z_]*(?:\s+[A-Za-z][A-Za-z_]*){0,5}")
_SCALES = {
    "%": Fraction(1, 100),
    "thousand": Fraction(1000),
    "k": Fraction(1000),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
}
_AMOUNT = r"[^\d\n.;?]{0,25}?[$€£]?\s?(-?\d[\d,]*(?:\.\d+)?)\s?(%|million|billion|thousand|k\b)?"


def _of_formula(ask: str, body: str) -> tuple[str, Fraction] | None:
    """(formula, result) where a prompt states a formula whose every variable the question gives once, by name."""
    stated = _STATED.search(f"{ask} {body}")
    if not stated:
        return None
    right = stated["right"].replace("×", "*").replace("÷", "/").replace("^", "**")
    symbols = sorted(set(_SYMBOL.findall(right)), key=len, reverse=True)
    means = dict(re.findall(r"([A-Za-z][\w ]{0,40}?)\s*:\s*([^,:]{3,80})", stated["names"]))
    names: dict[str, Fraction] = {}
    used = 0
    for index, symbol in enumerate(symbols):
        value = _given(symbol, means.get(symbol, ""), body)
        if value is None:
            return None
        names[f"v{index}"] = value
        used += 1
        right = re.sub(rf"(?<![A-Za-z_]){re.escape(symbol)}(?![A-Za-z_])", f" v{index} ", right)
    numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", body)
    if not used or len(numbers) != used or len(set(names.values())) != used:
        return None
    try:
        return f"formula {stated['left'].strip()} = {stated['right'].strip()}", _value(
            ast.parse(right.strip(), mode="eval").body, names
        )
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, KeyError, TypeError, RecursionError):
        return None


def _given(symbol: str, name: str, body: str) -> Fraction | None:
    """The one number that the question gives for a variable; per cent are hundredths."""
    found: set[Fraction] = set()
    for word in filter(None, (symbol if len(symbol) > 1 else "", name.strip())):
        for number, unit in re.findall(rf"(?i)\b{re.escape(word)}\b{_AMOUNT}", body):
            value = Fraction(number.replace(",", ""))
            found.add(value * _SCALES.get(unit.casefold(), Fraction(1)))
    if not found and len(symbol) == 1:
        found = {
            Fraction(n.replace(",", "")) * (Fraction(1, 100) if u == "%" else 1)
            for n, u in re.findall(rf"\b{symbol}\s*=\s*[$€£]?(-?\d[\d,]*(?:\.\d+)?)\s?(%?)", body)
        }
    return found.pop() if len(found) == 1 else None
