"""Scoring of answers about XBRL: tags, formulas over tags or numbers, results. Standard library only.

Strict: the whole first line is the answer. Lenient: the only one that the answer holds. Tags are compared without
the prefix ``us-gaap:`` (or ``us-gaap_``). Formulas are compared by structure (order of terms and factors,
brackets and ``*`` signs do not matter) and, as ``acc_value``, by their value over the facts that the prompt shows.
Results may be off by half a unit of the last decimal that was asked for.
"""

import decimal
import fractions
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PREFIX = re.compile(r"us[-_ ]?gaap\s*[:_]\s*", re.IGNORECASE)
_NAME = r"[A-Z][A-Za-z0-9]{1,254}"
_TAG = re.compile(r"(?:us-gaap:)?(" + _NAME + r")")
_TRIM = " \t\"'`*<>/."
_LONGEST = 600  # characters of a formula or of a number's line
_DEEPEST = 30  # brackets within brackets

# ---------------------------------------------------------------- tags


def _first_line(answer: str) -> str:
    lines = answer.strip().splitlines()
    return " ".join(lines[0].split()) if lines else ""


def parse_tag(answer: str) -> str | None:
    """The us-gaap element, without prefix, that the first line of ``answer`` is, or None."""
    line = _PREFIX.sub("us-gaap:", _first_line(answer)[:_LONGEST]).strip(_TRIM)
    match = _TAG.fullmatch(line)
    return match[1] if match else None


def parse_tag_lenient(answer: str, known: Mapping[str, str]) -> str | None:
    """The only element in ``answer`` that is prefixed with us-gaap, or else that is among ``known``; or None.

    ``known`` maps lower-case names to names.
    """
    text = _PREFIX.sub("us-gaap:", answer[:10_000])
    named = re.findall(r"us-gaap:([A-Za-z0-9]+)", text)
    found = {known.get(name.lower(), name) for name in named}
    if not found:
        found = {known[word.lower()] for word in re.findall(r"(?<![\w:])[A-Za-z0-9]+", text) if word.lower() in known}
    return found.pop() if len(found) == 1 else None


def _concepts(text: str) -> dict[str, str]:
    return {name.lower(): name for name in re.findall(r"us-gaap:(" + _NAME + r")", text)}


def score_tag(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer`` (a tag) and ``text`` (the facts)."""
    gold = parse_tag(doc["answer"])
    if gold is None:
        raise ValueError(f"the gold answer is not a us-gaap tag: {doc['answer']!r}")
    strict = parse_tag(results[0])
    lenient = strict or parse_tag_lenient(results[0], _concepts(doc["text"]))
    if lenient is not None:
        lenient = _concepts(doc["text"]).get(lenient.lower(), lenient)
    return {
        "acc": float(strict == gold),
        "acc_lenient": float(lenient == gold),
        "parse_rate": float(strict is not None),
    }


# ---------------------------------------------------------------- formulas

# A formula in normal form is a sum: {factors: coefficient}, where factors is a sorted tuple of (atom, power) and an
# atom is a tag, or a sum inside brackets that had to be kept (as a sorted tuple).
_TOKEN = re.compile(r"\s*(?:us-gaap:(?P<tag>" + _NAME + r")|(?P<number>\d[\d,]*(?:\.\d+)?|\.\d+)|(?P<sign>[-+*/()]))")
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "÷": "/", "[": "(", "]": ")", "·": "*"})

Sum = dict[tuple[Any, ...], fractions.Fraction]


def _tokens(text: str) -> list[str] | None:
    """Tokens of a formula, tags with their prefix; None if it holds anything else."""
    text = _PREFIX.sub("us-gaap:", text.translate(_SIGNS)).strip()
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            return None
        found.append(match[0].strip())
        place = match.end()
    return found


def _product(a: Sum, b: Sum) -> Sum:
    """The product of two sums; a sum of several terms stays in its brackets as one factor."""
    result: Sum = {(): fractions.Fraction(1)}
    for part in (a, b):
        if len(part) != 1:
            part = {((_frozen(part), 1),): fractions.Fraction(1)}
        ((factors, coefficient),) = part.items()
        ((have, number),) = result.items()
        powers = dict(have)
        for atom, power in factors:
            powers[atom] = powers.get(atom, 0) + power
        kept = tuple(sorted(((atom, power) for atom, power in powers.items() if power), key=repr))
        result = {kept: number * coefficient}
    return result


def _frozen(part: Sum) -> tuple[Any, ...]:
    return tuple(sorted(part.items(), key=repr))


def _inverse(part: Sum) -> Sum:
    if len(part) != 1:
        return {((_frozen(part), -1),): fractions.Fraction(1)}
    ((factors, coefficient),) = part.items()
    return {tuple((atom, -power) for atom, power in factors): 1 / coefficient}


class _Parser:
    """Recursive descent over the tokens; ValueError where they make no formula, ZeroDivisionError for x / 0."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place, self.depth = tokens, 0, 0

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.place += 1
        return token

    def sum(self) -> Sum:
        total: Sum = {}
        sign = 1
        while True:
            for factors, coefficient in self.term().items():
                total[factors] = total.get(factors, fractions.Fraction(0)) + sign * coefficient
            if self.peek() not in ("+", "-"):
                return {factors: number for factors, number in total.items() if number} or {(): fractions.Fraction(0)}
            sign = 1 if self.take() == "+" else -1

    def term(self) -> Sum:
        value = self.factor()
        while self.peek() in ("*", "/"):
            multiply = self.take() == "*"
            other = self.factor()
            value = _product(value, other if multiply else _inverse(other))
        return value

    def factor(self) -> Sum:
        sign = 1
        while self.peek() in ("-", "+"):
            sign = -sign if self.take() == "-" else sign
        token = self.take()
        if token == "(":
            self.depth += 1
            if self.depth > _DEEPEST:
                raise ValueError("too many brackets")
            value = self.sum()
            self.depth -= 1
            if self.take() != ")":
                raise ValueError("a bracket is not closed")
        elif token.startswith("us-gaap:"):
            value = {((token, 1),): fractions.Fraction(1)}
        elif token and token[0] in ".0123456789":
            value = {(): fractions.Fraction(token.replace(",", ""))}
        else:
            raise ValueError("a tag, a number or a bracket is expected")
        return {factors: sign * number for factors, number in value.items()}


def parse_formula(text: str) -> Sum | None:
    """The formula that ``text`` is, in normal form, or None."""
    tokens = _tokens(text) if len(text) <= _LONGEST else None
    if not tokens:
        return None
    parser = _Parser(tokens)
    try:
        value = parser.sum()
    except (ValueError, ZeroDivisionError):
        return None
    return value if parser.place == len(tokens) else None


def parse_formula_lenient(answer: str) -> Sum | None:
    """The only formula among the lines of ``answer``, what follows "=" or ":" in a line too; or None."""
    found = []
    for line in answer[:10_000].splitlines()[:50]:
        for part in (line, line.rpartition("=")[2], line.rpartition(": ")[2]):
            value = parse_formula(part.strip(_TRIM + "$\\"))
            if value is not None and value not in found:
                found.append(value)
    return found[0] if len(found) == 1 else None


def evaluate(part: Sum, facts: Mapping[str, fractions.Fraction]) -> fractions.Fraction | None:
    """The value of a formula over ``facts`` (tag -> number); None for an unknown tag or a division by zero."""
    total = fractions.Fraction(0)
    for factors, coefficient in part.items():
        for atom, power in factors:
            value = facts.get(atom) if isinstance(atom, str) else evaluate(dict(atom), facts)
            if value is None or (power < 0 and not value) or abs(power) > 9:
                return None
            coefficient *= value**power
        total += coefficient
    return total


def facts_of(text: str) -> dict[str, fractions.Fraction]:
    """Tag -> number of the fact lines of a prompt. A tag with two values has none."""
    found: dict[str, set[str]] = {}
    for tag, number in re.findall(r"(us-gaap:\w+)(?: |>)(-?\d{1,60}(?:\.\d{1,60})?)(?= |<|$)", text, re.MULTILINE):
        found.setdefault(tag, set()).add(number)
    return {tag: fractions.Fraction(values.pop()) for tag, values in found.items() if len(values) == 1}


def _without_percent(part: Sum) -> Sum:
    return {factors: number / 100 for factors, number in part.items()}


def score_formula(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer`` (a formula) and ``text`` (the facts).

    Leniently, a missing or added factor of 100 (a share instead of per cent) is forgiven.
    """
    gold = parse_formula(doc["answer"])
    if gold is None:
        raise ValueError(f"the gold answer is not a formula: {doc['answer']!r}")
    strict = parse_formula(_first_line(results[0]).strip("`*\"' ."))
    lenient = strict if strict is not None else parse_formula_lenient(results[0])
    close = lenient is not None and (
        lenient == gold or _without_percent(lenient) == gold or lenient == _without_percent(gold)
    )
    return {
        "acc": float(strict == gold),
        "acc_value": float(strict is not None and _same_value(strict, gold, doc["text"])),
        "acc_lenient": float(close),
        "parse_rate": float(strict is not None),
    }


def _same_value(one: Sum, gold: Sum, text: str) -> bool:
    """Whether two formulas have one value over the facts, to one part in a million."""
    facts = facts_of(text)
    values = [evaluate(part, facts) for part in (one, gold)]
    if values[0] is None or values[1] is None:
        return one == gold
    return abs(values[0] - values[1]) <= abs(values[1]) / 1_000_000


# ---------------------------------------------------------------- results

_RESULT = re.compile(
    r"(?P<open>\()?(?P<sign>[-+−–])? ?(?:US\$|\$|USD|EUR|€)? ?(?P<minus>[-−–])?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d{1,60})?|\d{1,60}(?:\.\d{0,60})?|\.\d{1,60})"
    r" ?(?P<scale>thousand|million|billion|trillion)?"
    r" ?(?P<unit>%|percent|per cent|x|times|USD|EUR|dollars)?(?P<close>\))?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


def _result(match: re.Match[str]) -> decimal.Decimal | None:
    if bool(match["open"]) != bool(match["close"]):
        return None
    with decimal.localcontext() as context:
        context.prec = 200
        value = decimal.Decimal(match["digits"].replace(",", "").rstrip("."))
        if match["scale"]:
            value = value.scaleb(_SCALES[match["scale"].lower()])
    minus = bool(match["open"]) + (match["sign"] not in (None, "+")) + bool(match["minus"])
    return -value if minus == 1 else None if minus else value


def parse_result(answer: str) -> decimal.Decimal | None:
    """The number that the first line of ``answer`` is, its unit aside (12.5% is 12.5), or None."""
    line = _first_line(answer)[:_LONGEST].strip("\"'`* ").removesuffix(".")
    match = _RESULT.fullmatch(line)
    return _result(match) if match else None


def parse_result_lenient(answer: str) -> decimal.Decimal | None:
    """The only number in ``answer``, else the only one after its last "=", or None."""
    text = " ".join(answer[:10_000].split())
    for part in (text, text.rpartition("=")[2]):
        found = [_result(m) for m in re.finditer(r"(?<![\w.,-])" + _RESULT.pattern + r"(?![\w,]|\.\d)", part, re.I)]
        if len(set(found)) == 1:
            return found[0]
    return None


def score_result(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer`` (rounded), ``exact`` and ``result_unit``.

    A quotient (unit "percent" or "times") may be off by half a unit of the answer's last decimal; a sum of money
    must be exact.
    """
    gold, exact = decimal.Decimal(doc["answer"]), decimal.Decimal(doc["exact"])
    quotient = doc["result_unit"] in ("percent", "times")
    strict = parse_result(results[0])
    lenient = strict if strict is not None else parse_result_lenient(results[0])

    def right(value: decimal.Decimal | None) -> bool:
        if value is None:
            return False
        places = -int(gold.as_tuple().exponent)
        return value == gold or (quotient and abs(value - exact) <= decimal.Decimal(5).scaleb(-places - 1))

    return {
        "acc": float(right(strict)),
        "acc_lenient": float(right(lenient)),
        "parse_rate": float(strict is not None),
    }


# ---------------------------------------------------------------- all four in one task


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` for a task that mixes the kinds; ``doc`` says in ``task`` which it is."""
    if doc["task"] == "tags":
        return score_tag(doc, results)
    if doc["task"] == "formula":
        found = score_formula(doc, results)
        return {name: found[name] for name in ("acc", "acc_lenient", "parse_rate")}
    return score_result(doc, results)
