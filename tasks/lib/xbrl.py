"""Scoring of answers about XBRL: tags, formulas over tags or numbers, results. Standard library only.

Strict: by the rules of ``answers.py``. Lenient: the only one that the answer holds. Tags, in formulas too, are
compared without the prefix ``us-gaap:`` (or ``us-gaap_``). Formulas are compared by structure (order of terms and
factors, brackets and ``*`` signs do not matter) and, as ``acc_value``, by their value over the facts that the prompt
shows. Values are compared as numbers, with or without their unit as the prompt shows it. Results may be off by half
a unit of the last decimal that was asked for; a unit other than the one asked for is no answer.
"""

import decimal
import fractions
import re
import runpy
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

amounts: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("amounts.py"))))
answers = amounts.answers

_NAME = r"[A-Z][A-Za-z0-9]{1,254}"
_TRIM = " \t\"'`*<>/."
_LONGEST = 600  # characters of a formula or of a number's line
_PROSE = 10_000  # characters of an answer in which one is looked for
_DEEPEST = 30  # brackets within brackets

# ---------------------------------------------------------------- tags


def parse_tag(answer: str, known: Collection[str] = ()) -> str | None:
    """The us-gaap element, without prefix, that ``answer`` names, or None; ``known`` are those of the prompt."""
    found: str | None = answers.tag(answer, known)
    return found


def parse_tag_lenient(answer: str, known: Mapping[str, str]) -> str | None:
    """The only element in ``answer`` that is prefixed with us-gaap, or else that is among ``known``; or None.

    ``known`` maps lower-case names to names.
    """
    text = answers.prefixed(answers.said(answer)[:_PROSE])
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
    concepts = _concepts(doc["text"])
    strict = parse_tag(results[0], frozenset(concepts.values()))
    lenient = strict or parse_tag_lenient(results[0], concepts)
    if lenient is not None:
        lenient = concepts.get(lenient.lower(), lenient)
    return {
        "acc": float(strict == gold),
        "acc_lenient": float(lenient == gold),
        "parse_rate": float(strict is not None),
    }


# ---------------------------------------------------------------- formulas

# A formula in normal form is a sum: {factors: coefficient}, where factors is a sorted tuple of (atom, power) and an
# atom is a tag, or a sum inside brackets that had to be kept (as a sorted tuple).
_TOKEN = re.compile(
    r"\s*(?:(?:us-gaap:)?(?P<tag>" + _NAME + r")(?!\w)|(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![\w.,])"
    r"|(?P<sign>[-+*/()]))",
    re.ASCII,
)
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "÷": "/", "∕": "/", "[": "(", "]": ")", "·": "*"})

Sum = dict[tuple[Any, ...], fractions.Fraction]


def _tokens(text: str) -> list[str] | None:
    """Tokens of a formula, every tag with its prefix; None if it holds anything else."""
    text = answers.prefixed(text.translate(_SIGNS)).strip()
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            return None
        found.append(f"us-gaap:{match['tag']}" if match["tag"] else match[0].strip())
        place = match.end()
    return found


def _one_term(part: Sum) -> Sum:
    """A sum of several terms as one factor in brackets, the coefficient of its first term before them."""
    if len(part) == 1:
        return part
    terms = sorted(part.items(), key=lambda term: repr(term[0]))
    lead = terms[0][1]
    return {((tuple((factors, number / lead) for factors, number in terms), 1),): lead}


def _product(a: Sum, b: Sum) -> Sum:
    """The product of two sums; a sum of several terms stays in its brackets as one factor."""
    ((have, one),) = _one_term(a).items()
    ((more, other),) = _one_term(b).items()
    powers = dict(have)
    for atom, power in more:
        powers[atom] = powers.get(atom, 0) + power
    kept = tuple(sorted(((atom, power) for atom, power in powers.items() if power), key=repr))
    if len(kept) == 1 and kept[0][1] == 1 and not isinstance(kept[0][0], str):  # a number times a sum
        return {factors: number * one * other for factors, number in kept[0][0]}
    return {kept: one * other}


def _inverse(part: Sum) -> Sum:
    ((factors, coefficient),) = _one_term(part).items()
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


_MARKS = " \t\"'“”‘’`*_#•={"  # dress before a formula, of which brackets are a part
_NAMED = re.compile(
    r"(?!.*\b(?:not|wrong|incorrect)\b)[A-Za-z][A-Za-z ()'’&-]{0,80}?(?:=|\bis (?:calculated|computed) as\b)(?!.*=)",
    re.IGNORECASE,
)
_WORDS_AFTER = re.compile(
    r"(?:[,;:.] | (?=(?:because|since|is)\b)|(?<![-+*/÷×(]) [(–—])(?!.*(?:us-gaap|\d))[A-Za-z –—].*"
)


def _read_formula(line: str) -> tuple[Sum, bool] | None:
    """The formula that ``line`` gives, after "=" and its name too, and whether a lead announces it; or None."""
    place, led = answers.body(line, _MARKS)
    bold, line = "**" in line[:place], line[place:]
    if bold:
        line = re.sub(r"(?<=\S)\*\*(?= [A-Za-z(–—])", "", line, count=1)  # where it ends
    if named := _NAMED.match(line):
        line = line[named.end() :]
    if words := _WORDS_AFTER.search(line):
        line = line[: words.start()] if answers.may_follow(words[0]) else ""
    line = line.strip("`*\"'“”‘’ .${}")
    value = None if re.fullmatch(_NAME, line) else parse_formula(line)
    return (value, led) if value is not None else None


def parse_formula_lenient(answer: str) -> Sum | None:
    """The only formula among the lines of ``answer``, what follows "=" or ":" in a line too; or None.

    A word alone ("Formula:") is none: it takes an operator or a prefix.
    """
    found = []
    for line in answers.said(answer)[:_PROSE].splitlines()[:50]:
        for part in (line, line.rpartition("=")[2], line.rpartition(": ")[2]):
            text = part.strip(_TRIM + "$\\")
            value = None if re.fullmatch(_NAME, text) else parse_formula(text)
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
    strict = answers.one(results[0], _read_formula)
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


# ---------------------------------------------------------------- values and results


def in_unit(amount: Any, unit: str) -> decimal.Decimal | None:
    """The number in the unit that was asked for; None if it is said to be in another.

    ``unit`` is "percent", "times", or as in a filing: "USD", "USD/shares", "shares", "pure"; "" if not known.
    """
    money = re.match(r"[A-Z]{3}(?![A-Za-z])", unit)
    if amount.of:
        return None
    right = {"", unit} | ({"money", money[0]} if money else set())
    if amount.kind in right or (not unit and amount.kind not in ("percent", "times")):
        number: decimal.Decimal = amount.scaled
        return number
    if amount.kind == "percent" and not money and unit != "times":
        hundredth: decimal.Decimal = amount.value
        return hundredth
    return None


def _bare(text: str, unit: str) -> str:
    """``text`` without ``unit`` after a number, as the facts of the prompt show it ("shares", "USD/shares")."""
    if unit.endswith("/shares"):
        text = re.sub(r" per share(?!\w)", "", text, flags=re.IGNORECASE)
    # after a digit, a bracket, or the last letter of "thousand" and "million"
    return re.sub(r"(?<=[\d.)dn]) ?" + re.escape(unit) + r"(?![\w/])", "", text, flags=re.IGNORECASE) if unit else text


def parse_amount(answer: str, unit: str = "") -> Any:
    """The number that ``answer`` gives, with or without ``unit``, or None."""
    return amounts.number(answer, lambda line: _bare(line, unit))


def parse_amount_lenient(answer: str, unit: str = "") -> Any:
    """The only number in ``answer``, else the only one after its last "=", or None."""
    text = _bare(" ".join(answers.said(answer)[:_PROSE].split()), unit)
    for part in (text, text.rpartition("=")[2]):
        found = list(amounts.numbers(part))
        if len({amount and in_unit(amount, unit) for amount in found}) == 1:
            return found[0]
    return None


def _scored(answer: str, unit: str, right: Callable[[decimal.Decimal], bool]) -> dict[str, float]:
    strict = parse_amount(answer, unit)
    lenient = strict or parse_amount_lenient(answer, unit)
    values = [in_unit(amount, unit) if amount else None for amount in (strict, lenient)]
    acc, acc_lenient = (float(value is not None and right(value)) for value in values)
    return {"acc": acc, "acc_lenient": acc_lenient, "parse_rate": float(strict is not None)}


def score_value(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``: a reported value. ``doc`` has ``answer``, a number, and its ``unit``."""
    gold = decimal.Decimal(doc["answer"])
    return _scored(results[0], doc.get("unit") or doc.get("result_unit") or "", lambda value: value == gold)


def score_result(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer`` (rounded), ``exact`` and ``result_unit``.

    A quotient (unit "percent" or "times") may be off by half a unit of the answer's last decimal; a sum of money
    must be exact. A percentage is asked for as such: 0.125 is not 12.5.
    """
    gold, exact, unit = decimal.Decimal(doc["answer"]), decimal.Decimal(doc["exact"]), doc["result_unit"]
    slack = decimal.Decimal(5).scaleb(int(gold.as_tuple().exponent) - 1)
    quotient = unit in ("percent", "times")

    def right(value: decimal.Decimal) -> bool:
        return value == gold or (quotient and abs(value - exact) <= slack)

    return _scored(results[0], unit, right)


# ---------------------------------------------------------------- all four in one task


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` for a task that mixes the kinds; ``doc`` says in ``task`` which it is."""
    if doc["task"] == "formula":
        found = score_formula(doc, results)
        return {name: found[name] for name in ("acc", "acc_lenient", "parse_rate")}
    return {"tags": score_tag, "values": score_value, "calc": score_result}[doc["task"]](doc, results)
