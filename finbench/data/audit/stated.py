"""Numeric answers against what their own row says: its program run, its facts looked up."""

from __future__ import annotations

import contextlib
import math
import operator
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from finbench.core.paths import helper
from finbench.data.audit import formulas
from finbench.data.audit.columns import Item, Layout, as_text, canonical, key_of
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.figures import contradicted, derived, evaluate, of_formula
from finbench.data.audit.findings import SHOWN, Finding

_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "exp": operator.pow,
}
_ARITHMETIC = ("derivation", "formula", "expression", "equation", "calculation", "program")
_STEP = re.compile(r"\s*(\w+)\(([^(),]+),([^(),]+)\)\s*(?:,|$)")


def program(text: str) -> float | None:
    """The result of a FinQA program ("subtract(5, 3), divide(#0, 3)"); None where it needs more than its numbers."""
    results: list[float] = []
    at = 0
    try:
        while at < len(text):
            step = _STEP.match(text, at)
            if not step:
                return None
            results.append(_OPERATIONS[step[1]](*(_argument(word.strip(), results) for word in step.groups()[1:])))
            at = step.end()
        return results[-1] if results and math.isfinite(results[-1]) else None
    except (KeyError, IndexError, ValueError, ArithmeticError, TypeError):
        return None


def _argument(word: str, results: list[float]) -> float:
    if word.startswith("#"):
        return results[int(word[1:])]
    number = word.removeprefix("const_").replace("m", "-") if word.startswith("const_") else word
    return float(number.replace(",", "").removesuffix("%")) / (100 if number.endswith("%") else 1)


def worked(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(column, result) of everything in a row that can be run: a program, the last of several, a formula over facts."""
    columns = {key_of(name): name for name in row}
    if isinstance(text := row.get(columns.get("program", "")), str) and (value := program(text)) is not None:
        yield str(columns["program"]), value
    for key in _ARITHMETIC:
        if isinstance(text := row.get(columns.get(key, "")), str) and (value := derived(text)) is not None:
            yield str(columns[key]), value
    if isinstance(steps := row.get(columns.get("programs", "")), list) and steps and isinstance(steps[-1], str):
        with contextlib.suppress(ValueError, OverflowError):
            yield str(columns["programs"]), float(helper("sets").conversations.run(steps[-1]))
    exact = row.get(columns.get("unrounded", ""))
    if isinstance(exact, str | int | float) and not isinstance(exact, bool):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(value := float(exact)):
                yield str(columns["unrounded"]), value
    formula = row.get(columns.get("formula", ""))
    if isinstance(formula, str) and (value := _over_facts(formula, as_text(row.get("text")))) is not None:
        yield str(columns["formula"]), value


def _prompt(row: Mapping[str, Any], ask: str) -> str:
    """The formula of a row and what it explains of it, in columns or in what is asked; "" where there is none."""
    columns = {key_of(name): name for name in row}
    formula, explained = (as_text(row.get(columns.get(key, ""))) for key in ("formula", "explanation"))
    return f"Formula: {formula}, Explanation: {explained}" if formula else ask if "Formula" in ask else ""


_TAG = re.compile(r"[A-Za-z][\w-]*:[A-Za-z]\w*")


def _over_facts(formula: str, facts: str) -> float | None:
    """A formula over tags, of each of which the facts give one value ("us-gaap:Assets 352583000000 USD")."""
    tags = set(_TAG.findall(formula))
    for tag in tags:
        values = set(re.findall(rf"(?m)^{re.escape(tag)} (-?\d+(?:\.\d+)?)(?: |$)", facts))
        if len(values) != 1:
            return None
        formula = re.sub(rf"{re.escape(tag)}(?!\w)", f"({values.pop()})", formula)
    found = evaluate(formula) if tags and len(tags) <= 8 else None
    return None if found is None else float(found)


def disagrees(told: Any, result: float, words: bool = False) -> bool:
    """Whether an answer is another number than a result, but for rounding and a factor of 100.

    ``words``: it is an annotator's, who may leave out the minus of what the question calls a decrease.
    """
    text = as_text(told).removesuffix("\\n").strip()
    try:
        number = float(re.sub(r"[,$€£%\s]", "", re.sub(r"^\((.*)\)$", r"-\1", text)))
    except ValueError:
        return False
    if not math.isfinite(number):
        return False
    digits = len(text.partition(".")[2].rstrip("% )")) if "." in text else 0
    unit = 0.51 * 10.0**-digits
    forms = [result * 10.0**power for power in (0, 2, -2)]
    forms += [-form for form in forms if words and form < 0]
    return not any(abs(number - form) <= max(unit, 0.02 * abs(form)) for form in forms)


_NUMBER = re.compile(r"(?P<before>\(\s*[$€£]?\s?|[-−–]\s?[$€£]?\s?)?(?P<number>\d+(?:,\d+)*(?:\.\d+)?|\.\d+)")
_TABLES = ("table", "paragraphs", "pretext", "posttext", "facts", "evidence")
_TELLING = 4  # digits without the zeros at both ends: less stand in a text by chance
_NEARLY, _CHANCE = 0.9, 0.02  # of the answers that can be judged
_FEWEST = 10
KINDS = ("as they are", "with the other sign", "ten times as large", "a tenth as large")


def standing(row: Mapping[str, Any], layout: Layout) -> tuple[str, bool] | None:
    """(how a number that is the answer stands in what its row shows, whether that cannot be chance).

    The first is one of KINDS, or "" where it does not stand there. None for an answer that is no number. Brackets, and
    dashes after a word, may be a minus sign or not.
    """
    gold = canonical(row.get(layout.gold[0]))
    try:
        mantissa, power = _parts(gold.removeprefix("-"))
    except InvalidOperation:
        return None
    if not mantissa:
        return None
    columns = [layout.text, *layout.asked, *(name for name in row if key_of(name) in _TABLES)]
    shown = "\n".join(as_text(row.get(name)) for name in dict.fromkeys(columns))
    found = set()
    for match in _NUMBER.finditer(shown):
        digits = match["number"]
        if re.search(r",(?!\d{3}(?!\d))", digits):  # a decimal comma, or no one number
            digits = digits.replace(",", ".") if digits.count(",") == 1 and "." not in digits else ""
        digits = digits.replace(",", "")
        if not digits:
            continue
        if mantissa not in digits.replace(".", ""):
            continue
        own, at = _parts(digits)
        if own != mantissa or abs(at - power) > 1:
            continue
        before = match["before"] or ""
        minus = before[:1] in ("-", "−", "–") and not (match.start() and shown[match.start() - 1].isalnum())
        open_ = before.startswith("(") or (before and not minus)
        same = open_ or minus == gold.startswith("-")
        found.add(1 if at == power and not same else 0 if at == power else 3 if at > power else 2)
    return KINDS[min(found)] if found else "", len(mantissa) >= _TELLING


def _parts(number: str) -> tuple[str, int]:
    """(digits without the zeros at both ends, power of ten of the last of them)."""
    sign, digits, power = Decimal(number).normalize().as_tuple()
    if sign or not isinstance(power, int):
        raise InvalidOperation
    return "".join(map(str, digits)), power


class Stated:
    """The answers of one source, seen row by row."""

    def __init__(self, source: AuditedFile) -> None:
        self.source = source
        self.wrong: list[Item] = []
        self.by: Counter[str] = Counter()  # what says otherwise
        self.standing: Counter[str] = Counter()  # of answers that tell
        self.rows: dict[tuple[str, bool], list[Item]] = defaultdict(list)

    def see(self, item: Item, row: Mapping[str, Any]) -> None:
        made = self.source.layout
        if len(made.gold) != 1 or not item.gold:
            return
        gold, column = row.get(made.gold[0]), made.worked
        # one figure in a derivation is a reason, not a result
        result = column if column and key_of(column) != "derivation" else None
        runs = dict(worked(row))
        by = [
            name
            for name, value in runs.items()
            if disagrees(gold, value, words=result is not None) or (result and disagrees(row.get(result), value))
        ]
        if column and contradicted(gold, row.get(column), result is not None):
            by.insert(0, str(column))
        if by:
            return self._wrong(item, by[0])
        if runs or result:
            return  # it is what the row works out
        number = _number(item.gold)
        prompt = "" if number is None else _prompt(row, item.ask)
        asked = prompt != "" and prompt == item.ask
        misplaced = None
        if number is not None and prompt and not (asked and of_formula(prompt, item.body)):  # that: another check's
            misplaced = formulas.misplaced(prompt, item.body, number)
        if misplaced:
            self._wrong(item, "formula, up to its sign and a factor of ten,")
        elif misplaced is None and not asked and (found := standing(row, made)):
            kind, telling = found
            self.standing[kind] += telling
            self.rows[kind, telling].append(item)

    def _wrong(self, item: Item, by: str) -> None:
        self.wrong.append(item)
        self.by[by] += 1

    def findings(self, context: AuditContext) -> Iterator[Finding]:
        judged, right = self.standing.total(), self.standing[KINDS[0]]
        # where nearly all answers stand in their rows as they are, one that does otherwise is enough
        lookup = right >= max(_FEWEST, _NEARLY * judged)
        by = ", ".join(name for name, _ in self.by.most_common())
        wrong = {
            f"are another number than their {by} gives, but for rounding and per cent": (self.wrong, self.source.rows)
        }
        for kind in KINDS[1:]:
            items = self.rows[kind, True] + (self.rows[kind, False] if lookup else [])
            if items and (lookup or len(items) >= max(3, _CHANCE * judged)):
                wrong[f"stand in their own rows {kind}"] = items, judged if judged >= len(items) else self.source.rows
        for how, (items, of) in wrong.items():
            if not items:
                continue
            yield context.find(
                "impossible-gold",
                "error",
                [self.source],
                (len(items), of),
                f"{share(len(items), of)} answers {how}.",
                body=context.store.key(context.store.normal(items[0].body)),
                places=[f"{self.source.name}{item.line}" for item in items[:SHOWN]],
            )


def _number(gold: str) -> float | None:
    try:
        return float(gold)
    except ValueError:
        return None
