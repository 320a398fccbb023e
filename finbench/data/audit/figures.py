"""Numbers that do not recompute: arithmetic in a question, its own formula, net present values."""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from finbench.core.paths import helper
from finbench.data.audit.columns import as_text
from finbench.data.audit.context import AuditContext, share
from finbench.data.audit.findings import Finding

_CLOSE = Fraction(1, 100)  # relative: golds are rounded
_EXPRESSION = re.compile(r"(?<![\w.,])[-(]*\d[\d.,]*(?:\s*[-+*/×÷^()]\s*[-(]*\d[\d.,]*\)*|\))+(?![\w])")
_TOLD = re.compile(r"calculate|compute|evaluate|what is|how much is|=\s*\??\s*$|result", re.IGNORECASE)
_NPV = "the cash flows of their question, each at the end of its year, less the outlay (net present value)"
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def recompute(context: AuditContext) -> Iterator[Finding]:
    """Numeric answers against what their own question gives. Only what can be worked out for certain is judged."""
    query = (
        "SELECT row.n, body.shown, coalesce(ask.shown, ''), gold FROM row JOIN body USING (body)"
        " LEFT JOIN ask USING (ask) WHERE src = ? AND gold GLOB '*[0-9]*'"
    )
    for source in context.sources:
        seen: Counter[str] = Counter()
        wrong: dict[str, list[int]] = {}  # how -> numbers of rows
        shown: dict[str, str] = {}
        for number, body, ask, gold in context.query(query, source.id):
            told = _number(gold)
            if told is None:
                continue
            for how, worked in _worked(body, ask):
                seen[how] += 1
                if not _near(told, worked):
                    wrong.setdefault(how, []).append(number)
                    shown.setdefault(how, f"{gold} given, {float(worked):.10g} worked out")
        for how, rows in wrong.items():
            if how.startswith("formula") and len(rows) > 0.3 * seen[how]:
                continue  # more likely that the question was not understood than that most answers are wrong
            yield context.find(
                "impossible-gold",
                "error",
                [source],
                (len(rows), seen[how]),
                f"{share(len(rows), seen[how])} answers do not follow from {how} ({shown[how]}).",
                (f"SELECT n FROM row WHERE n IN ({','.join(map(str, rows[:50]))})",),
            )


def contradicted(told: Any, worked: Any, program: bool) -> bool:
    """Whether an answer is another number than its derivation gives or, ``program``, than its program gave.

    Sign, rounding and a factor of 100 are forgiven: which of the two is right is not known. What cannot be worked out
    for certain contradicts nothing, nor do brackets around one number, which may be a minus sign.
    """
    reports = helper("sets").reports
    if isinstance(worked, str) and _SUM.search(worked):
        value = derived(worked)
        result = None if value is None else reports.written(value)
    else:
        result = reports.result_of(worked) if program else None
    return result is not None and bool(reports.contradicts(as_text(told).removesuffix("\\n").strip(), result))


_SUM = re.compile(r"\d[\s)%]*[-+*/×÷]")


def derived(text: str) -> float | None:
    """What the arithmetic of a derivation gives; None where brackets may be a minus sign, or it is no arithmetic."""
    if not _SUM.search(text):
        return None
    bare = re.sub(r"[$£€]", "", re.sub(r"([\d.]+)%", r"(\1/100)", text))
    value = None if re.search(r"\([\d.,]+\)|#", text) else evaluate(bare)
    return None if value is None else float(value)


def _worked(body: str, ask: str) -> Iterator[tuple[str, Fraction]]:
    """(how, result) of everything in a question that can be worked out for certain."""
    if re.search(r"net present value|\bnpv\b", f"{ask} {body}", re.IGNORECASE):
        value, _ = helper("sets").npv.audit(" ".join(body.split()).strip('" .'))
        if value is not None:
            yield _NPV, Fraction(value)
        return
    found = [text for text in _EXPRESSION.findall(body) if re.search(r"\d\s*[-+*/×÷^]", text)]
    if len(found) == 1 and _TOLD.search(body) and not re.search(r"\d", body.replace(found[0], " ", 1)):
        dated = re.fullmatch(r"\d{1,4}[-/]\d{1,2}(?:[-/]\d{1,4})?|\d{4}[-/]\d{2,4}", found[0].strip())
        if not dated and (value := evaluate(found[0])) is not None:
            yield "the arithmetic in their question", value
    if named := of_formula(ask, body):
        yield named


def _signs(text: str) -> str:
    return text.replace("×", "*").replace("÷", "/").replace("^", "**")


def evaluate(text: str) -> Fraction | None:
    """The value of plain arithmetic; None if it is none."""
    bare = re.sub(r"(?<=\d),(?=\d{3})", "", _signs(text)).strip()
    return _worked_out(bare, {}) if len(bare) <= 200 else None


def _worked_out(text: str, names: dict[str, Fraction]) -> Fraction | None:
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, names)
    except (SyntaxError, ValueError, ArithmeticError, KeyError, TypeError, MemoryError, RecursionError):
        return None


def _value(node: ast.AST, names: dict[str, Fraction]) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
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
    if re.search(r"e[-+]?\d{3}", bare):  # a Fraction writes 1e-999999999 out
        return None
    try:
        return Fraction(bare)
    except (ValueError, ZeroDivisionError):
        return None


def _near(told: Fraction, worked: Fraction) -> bool:
    """Equal but for rounding; a share may be given in per cent."""
    return any(abs(told - value) <= max(abs(value) * _CLOSE, Fraction(6, 1000)) for value in (worked, worked * 100))


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


def of_formula(ask: str, body: str) -> tuple[str, Fraction] | None:
    """(formula, result) where a prompt states a formula whose every variable the question gives once, by name."""
    stated = _STATED.search(f"{ask} {body}")
    if not stated:
        return None
    right = _signs(stated["right"])
    symbols = sorted(set(_SYMBOL.findall(right)), key=len, reverse=True)
    means = dict(re.findall(r"([A-Za-z][\w ]{0,40}?)\s*:\s*([^,:]{3,80})", stated["names"]))
    names: dict[str, Fraction] = {}
    for index, symbol in enumerate(symbols):
        value = _given(symbol, means.get(symbol, ""), body)
        if value is None:
            return None
        names[f"v{index}"] = value
        right = re.sub(rf"(?<![A-Za-z_]){re.escape(symbol)}(?![A-Za-z_])", f" v{index} ", right)
    numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", body)
    if not names or len(numbers) != len(names) or len(set(names.values())) != len(names):
        return None
    result = _worked_out(right, names)
    return None if result is None else (f"formula {stated['left'].strip()} = {stated['right'].strip()}", result)


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
