"""Scoring of questions about pages of annual reports: TAT-QA, FinQA, ConvFinQA, calculations. Standard library only.

Strict reads numbers, yes and no by the rules of ``answers.py`` and ``amounts.py``. "56.2%" and "0.562" are one number,
"1.5 million" and "1,500,000" are one number, and the sign always counts. What else a percent sign and a scale word may
mean beside a gold without a unit says ``units.py``. Spans are the first line, with or without a lead, and are compared
without case, punctuation and articles. Several are separated by "|", in any order.

How near a number must be follows from how it is written. TAT-QA asks for two decimals: half a unit of the second one.
FinQA states five decimals and asks for none: a gold that rounds to what the answer prints is right, unless they differ
by more than 2 %, so that "1" is no answer for 0.62. The official scores stand beside: TAT-QA's EM and F1, FinQA's
execution accuracy, written from descriptions of their scripts.
"""

import re
import runpy
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

amounts: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("amounts.py"))))
programs: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("programs.py"))))
units: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("units.py"))))
tatqa: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tatqa.py"))))
answers = amounts.answers

_PROSE = 10_000  # characters of an answer that are looked at
_RELATIVE = Decimal("0.02")
_FIFTH = Decimal("0.000005")  # half a unit of FinQA's fifth decimal
_SECOND = Decimal("0.005")
_TEXTBOOK = Decimal("0.005")  # relative, as the authors of XFinBench: textbooks round their steps
_DRESS = "\"'`* "
_SPARE = 16  # words beside the gold in a sentence that answers; the first 16 of a page hold 2 % of TAT-QA's golds
_DENYING = re.compile(
    r"(?i)\b(?:not|neither|nor|never|none|unsure|whether|cannot|could be|might be|but)\b|n['’]t\b|\?\W*$|\? no\b"
)
_CUTS = [re.compile(cut) for cut in (r"(?<=[.!?])\s+|\n+|,? (?=because\b|since\b)", r"\n\s*\n")]


def _half(number: Decimal) -> Decimal:
    """Half a unit of the last printed digit."""
    half: Decimal = amounts.shifted(Decimal("0.5"), min(0, int(number.as_tuple().exponent)))
    return half


def _readings(said: Any, unit: Any) -> list[tuple[Decimal, Decimal]]:
    """(value, half a unit of its last printed digit): the value that is stated, and what it is in the gold's unit."""
    shifts = {said.power - 2 * (said.kind == "percent")}
    if said.power:
        shifts |= {said.power - power for power in unit.powers}
    elif unit.percent and not said.money:
        shifts.add(0 if said.kind == "percent" else 2)
    return [(amounts.shifted(said.number, by), amounts.shifted(_half(said.number), by)) for by in sorted(shifts)]


def parse(text: str) -> Any:
    """The number that a text is, without lead or reason, or None."""
    return amounts.plain_number(text.strip(_DRESS))


def _line(answer: str) -> str:
    return " ".join(answers.said(answer).strip().partition("\n")[0][:_PROSE].split())


def _loose(answer: str) -> Any:
    """The only number of an answer, else the last one, where working out ends."""
    return next(reversed(list(amounts.numbers(answers.said(answer)))), None)


def _loose_readings(said: Any) -> list[tuple[Decimal, Decimal]]:
    """(value, half a unit of its last digit): as stated, and without its percent sign or scale word, or with one."""
    bare = not (said.power or said.kind == "percent")
    shifts = (0, 2, -2) if bare else (0, said.power - 2 * (said.kind == "percent"))
    return [(amounts.shifted(said.number, by), amounts.shifted(_half(said.number), by)) for by in shifts]


def _one_side(a: Decimal, b: Decimal) -> bool:
    return (a < 0) == (b < 0) or not a or not b


def chosen_mean(items: Sequence[tuple[float, float]]) -> float:
    """Mean of the values of the chosen documents; items are (chosen: 1 or 0, value). 0 where none is chosen."""
    chosen = sum(item[0] for item in items)
    return sum(item[0] * item[1] for item in items) / chosen if chosen else 0.0


# ---------------------------------------------------------------- TAT-QA

_TOKEN = re.compile(r"(?:[-−–]\.?(?=\d))?\w+(?:[.,]\d+)*|%")
KINDS = {"span": "acc_span", "multi-span": "acc_spans", "count": "acc_count", "arithmetic": "acc_arithmetic"}


def _words(text: str) -> list[str]:
    """A span without case, punctuation and articles; the signs of numbers stay."""
    found = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold().replace("−", "-").replace("–", "-"))
    return [word for word in found if word not in ("a", "an", "the")]


def spans_of(line: str) -> list[str]:
    """The answers in a line, separated by "|"."""
    return [part.strip() for part in line.split("|") if part.strip()]


def _is(said: str, gold: str, slack: Decimal) -> bool:
    """Whether a span is the gold one: equal numbers within ``slack`` of the gold's own unit, else equal words."""
    right = parse(gold)
    if right is None:
        return bool(_words(gold)) and _words(said) == _words(gold)
    found = parse(said)
    return found is not None and _is_value(found, right, slack)


def _is_value(found: Any, right: Any, slack: Decimal) -> bool:
    if any(one and other and one != other for one, other in zip(_units(found), _units(right), strict=True)):
        return False
    if not slack and found.number and found.kind == "percent" != right.kind:  # what is copied or counted is no share
        return False
    near = amounts.shifted(slack, right.power - 2 * (right.kind == "percent"))
    return _one_side(found.value, right.value) and bool(abs(found.value - right.value) <= near)


def _units(said: Any) -> tuple[str, str]:
    """(its kind or currency, of what it is), "" for what is not said; a dollar sign is taken for US dollars."""
    of = re.sub(r"^(?:/ ?|an? )", "per ", said.of).removesuffix("s")
    return said.kind.replace("money", "USD"), of


def _same_spans(said: Sequence[str], golds: Sequence[str], slack: Decimal) -> bool:
    left = list(golds)
    for span in said:
        match = next((gold for gold in left if _is(span, gold, slack)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _unled(answer: str, *marks: str) -> str:
    """The line that answers, without what announces it, nor ``marks`` (of words, if none are given)."""
    bodies = (line[answers.body(line, *marks)[0] :].strip(_DRESS) for line in answers.lines(answer))
    return next(filter(None, bodies), "")


def _holds(text: str, golds: Sequence[str], question: str) -> bool:
    """Whether ``text`` has every gold, denies nothing, and has few words and numbers that are not the question's.

    What copies a page holds any gold.
    """
    gold, asked = " ".join(golds), {one.number for one in amounts.numbers(question) if one}
    numbers, words, known = list(amounts.numbers(text)), _words(text), {*_words(question)}
    told = {value for found in numbers if found for value in (found.number, found.value)}
    more = [one for one in numbers if not one or one.number not in asked]
    others = [word for word in words if word not in known]
    if len(others) > len(_words(gold)) + _SPARE or len(more) > len(list(amounts.numbers(gold))) + 1:
        return False
    if any(
        denial[0].lower() not in f"{question} {gold}".lower().replace("?", "") for denial in _DENYING.finditer(text)
    ):
        return False
    line = f" {' '.join(words)} "

    def has(part: str) -> bool:
        if one := parse(part):
            return bool({one.number, one.value} & told)
        return bool(_words(part)) and f" {' '.join(_words(part))} " in line

    return all(map(has, golds))


def _forgiven(answer: str, doc: Mapping[str, Any], golds: Sequence[str], slack: Decimal) -> bool:
    """Lenient: a short answer, or the first or last sentence or paragraph, holds every gold; of a number the last one,
    any scale."""
    right = parse(golds[0]) if len(golds) == 1 else None
    if right is None:
        text = re.sub(r"(?m)^\s*\d{1,2}[.)] ", "", answers.said(answer)[:_PROSE])  # of a list
        text = re.sub(r"(?<=\w)[-−–](?=\d)", " ", text).strip()  # "2018-2019" has no minus sign
        parts = [part for cut in _CUTS for part in (cut.split(text)[0], cut.split(text)[-1])]
        return any(_holds(part, golds, str(doc.get("question", ""))) for part in {text, *parts})
    found = _loose(answer)
    return found is not None and any(
        _one_side(value, right.number) and abs(value - right.number) <= slack
        for value in (found.number, amounts.shifted(found.value, 2 * (right.kind == "percent") - right.power))
    )


def score_tatqa(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results``. ``doc`` has ``answer`` (spans with their scale), ``kind``, ``spans``, ``scale``."""
    golds, line = doc["answer"].split(" | "), _line(results[0])
    said, number = spans_of(line), doc["kind"] in ("count", "arithmetic")
    slack = _SECOND if doc["kind"] == "arithmetic" else Decimal(0)
    read = amounts.number(results[0]) if number else None
    if number:
        right = read is not None and _is_value(read, parse(golds[0]), slack)
    else:  # a span may begin as leads do; brackets, signs and points are a part of a number, and of no word
        words = _unled(results[0])
        texts = (line, _unled(results[0], answers.MARKS), words if words[:1].isalpha() else "")
        right = any(_same_spans(spans_of(text), golds, slack) for text in texts)
    em, f1 = tatqa.official(*tatqa.without_scale(said), doc["spans"], doc["scale"], number)
    return {
        "acc": float(right),
        "em": em,
        "f1": f1,
        **{name: (float(kind == doc["kind"]), float(right)) for kind, name in KINDS.items()},
        "acc_lenient": float(right or _forgiven(results[0], doc, golds, slack)),
        "parse_rate": float(read is not None if number else bool(said)),
    }


# ---------------------------------------------------------------- FinQA and ConvFinQA


def _near(readings: Sequence[tuple[Decimal, Decimal]], gold: Decimal) -> bool:
    """Whether a gold of five decimals rounds to what is printed, and both differ by at most 2 %."""
    return any(
        _one_side(value, gold) and abs(value - gold) <= max(min(half, abs(gold) * _RELATIVE), _FIFTH)
        for value, half in readings
    )


def _right(answer: str, gold: str, unit: Any) -> tuple[bool, bool]:
    """(right, parsed)."""
    if gold in ("yes", "no"):
        found = answers.label(answer, ("yes", "no"))
        if found == "yes" and answers.taken_back(_unled(answer)[3:]):
            found = None
        return found == gold, found is not None
    said = amounts.number(answer)
    return said is not None and _near(_readings(said, unit), Decimal(gold)), said is not None


def _loosely(answer: str, gold: str) -> bool:
    if gold in ("yes", "no"):
        words = set(re.findall(r"(?<![^\W_])(yes|no)(?![^\W_])", answers.said(answer)[:_PROSE].casefold()))
        return words == {gold}
    said = _loose(answer)
    return said is not None and _near(_loose_readings(said), Decimal(gold))


def score_finqa(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer`` (exe_ans: yes, no or a number) and ``table`` (JSON).

    Its ``question``, ``text`` and ``program`` say in what unit the answer is.
    """
    line, gold = _line(results[0]), doc["answer"]
    result = programs.execute(line, doc.get("table") or "[]") if "(" in line and not parse(line) else None
    target = gold if gold in ("yes", "no") else float(gold)
    equal = _exact(line, gold) if result is None else result == target
    right, parsed = (equal, True) if result is not None else _right(results[0], gold, units.of_row(doc, gold))
    return {
        "acc": float(right),
        "exe_acc": float(equal),
        "acc_lenient": float(right or _loosely(results[0], gold)),
        "parse_rate": float(parsed),
    }


def _exact(line: str, gold: str) -> bool:
    """The official comparison of a number: equal at five decimals, "5%" being 0.05."""
    if gold in ("yes", "no"):
        return line.casefold() == gold
    said = parse(line)
    return said is not None and said.power == 0 and round(float(said.value), 5) == float(gold)


def score_turn(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` of one turn. ``doc`` has ``answer`` and ``last`` (1 for the last turn, else 0)."""
    before = [turn["answer"] for turn in doc.get("history") or ()]
    right, parsed = _right(results[0], doc["answer"], units.of_row(doc, doc["answer"], before))
    lenient = right or _loosely(results[0], doc["answer"])
    return {
        "acc": float(right),
        "acc_last": (float(doc["last"]), float(right)),
        "acc_lenient": float(lenient),
        "parse_rate": float(parsed),
    }


_NUMBERED = re.compile(r"\(?(\d{1,2})[.):]+ +(.*)")


def _turns(answer: str, count: int) -> list[str]:
    """What ``answer`` says to each of ``count`` turns: its lines in order, or by their numbers; "" to one without.

    A first line without a digit that ends with a colon announces. A dash before every line is a list's.
    """
    lines = [" ".join(re.sub(r"[*_`]{2,}", "", line).split()) for line in answers.said(answer)[:_PROSE].splitlines()]
    lines = [line for line in lines if line]
    if lines and re.fullmatch(r"[^\d]*:", lines[0]):
        lines = lines[1:]
    if len(lines) > 1 and all(line[0] in "-–*•" and line[1:2] == " " for line in lines):
        lines = [line[2:] for line in lines]
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(found):
        numbered: dict[int, str] = {int(match[1]): match[2] for match in reversed(found) if match}
        lines = [numbered.get(number, "") for number in range(1, count + 1)]
    return (lines + [""] * count)[:count]


def score_conversation(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` of a whole conversation, one line a turn. ``doc`` has ``answers``.

    ``acc_turns`` is the share of turns that are right, ``acc_last`` the last turn.
    """
    golds = doc["answers"]
    lines, asked = _turns(results[0], len(golds)), doc.get("questions") or [""] * len(golds)
    docs = [{**doc, "question": question} for question in asked]
    said_in = [units.of_row(docs[place], gold, golds[:place]) for place, gold in enumerate(golds)]
    scored = [_right(line, gold, unit) for line, gold, unit in zip(lines, golds, said_in, strict=True)]
    loose = [right or _loosely(line, gold) for (right, _), line, gold in zip(scored, lines, golds, strict=True)]
    return {
        "acc_last": float(scored[-1][0]),
        "acc_turns": sum(right for right, _ in scored) / len(golds),
        "acc_turns_lenient": sum(loose) / len(golds),
        "parse_rate": float(all(parsed for _, parsed in scored)),
    }


# ---------------------------------------------------------------- textbook calculations


def score_textbook(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results`` of a calculation. ``doc`` has ``answer``, in the unit that the question implies.

    Right is what is within 0.5 %, or what the gold is with its printed decimals, but for 2 % at most: "0.018" may be
    0.0183. A gold without decimals says of no rounding. ``acc_published`` is the authors' count: within 0.5 % of what
    was said, shares and percentages alike; they take no 0.
    """
    gold = Decimal(doc["answer"])
    unit = units.of_textbook(gold, doc.get("text") or "")
    rounded = min(_half(gold), abs(gold) * _RELATIVE) if int(gold.as_tuple().exponent) < 0 else 0
    slack = max(abs(gold) * _TEXTBOOK, rounded)

    def right(readings: Sequence[tuple[Decimal, Decimal]]) -> bool:
        return any(_one_side(value, gold) and abs(value - gold) <= slack for value, _ in readings)

    said, loose = amounts.number(results[0]), _loose(results[0])
    # the unit is asked for: a bare number is in it
    strict = said is not None and right(_readings(said, unit._replace(percent=unit.percent and said.kind == "percent")))
    plain = said.number if said and not said.power else Decimal(0)
    theirs = [amounts.shifted(plain, by) for by in (0, 2, -2)]
    return {
        "acc": float(strict),
        "acc_published": float(bool(plain) and any(abs(one - gold) < abs(one) * _TEXTBOOK for one in theirs)),
        "acc_lenient": float(strict or (loose is not None and right(_loose_readings(loose)))),
        "parse_rate": float(said is not None),
    }
