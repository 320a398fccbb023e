"""Questions with a number as the answer: financial formulas and FinanceBench."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from . import formulas
from .base import Drop, Item, Record, Row, Unit, WrongFile, key_of, parted, text_of
from .npv import audit

_FORMULA = ("Use formula ", " to answer the question.", " Formula: ", ", Explanation: ", " Question: ")
_GOLD = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_TRAIN = 16  # of the twenty questions of a formula the authors train on the first sixteen


def fin_math(records: Iterable[Record]) -> Iterator[Item]:
    """Fifty formulas, twenty questions each: FinLoRA's prompts, or the Hub's row a formula."""
    for row, place, split in records:
        columns = {key_of(str(name)): value for name, value in row.items()}
        if "context" in columns:
            context = text_of(row, place, "context")
            found = parted(context.removesuffix(". Answer:"), *_FORMULA)
            if found is None or found[0] or not context.endswith(". Answer:"):
                yield f"{place}: not a prompt of formula, explanation and question"
            else:
                _, name, _, formula, explanation, question = found
                told = {"name": name, "formula": formula, "explanation": explanation, "question": question}
                yield _formula(told, text_of(row, place, "target"), place, split)
            continue
        about = {
            "name": text_of(row, place, "Formula Name"),
            "formula": text_of(row, place, "Formula"),
            "explanation": text_of(row, place, "Explanation"),
        }
        numbers = sorted(int(key[8:]) for key in columns if re.fullmatch(r"question\d+", key))
        for number in numbers:
            question, answer = text_of(row, place, f"Question {number}"), text_of(row, place, f"Answer {number}")
            side = "train" if number <= _TRAIN else "test"
            yield _formula({**about, "question": question}, answer, f"{place}, question {number}", side)


def _formula(told: dict[str, str], answer: str, place: str, split: str | None) -> Item:
    question = " ".join(told["question"].split()).strip('" ')
    if not _GOLD.fullmatch(answer):
        return f"{place}: the answer is a number, found {answer[:40]!r}"
    name, published = " ".join(told["name"].split()), answer.replace(",", "")
    made = {"text": question, "formula_name": name, "formula": told["formula"], "explanation": told["explanation"]}
    right: str | None = published
    if "net present value" in name.casefold():
        right, why = audit(question)
        if right is None:
            return Drop(f"net present value: {why}")
    why, unrounded = formulas.recomputed(name, question, str(right))
    if why:
        return Drop(why)
    made |= {"answer": str(right), "unrounded": unrounded, "answer_published": published, "group": name}
    return Unit(f"{name} {question}", right, [made], place, split)


_NUMBER = re.compile(r"-?\s?\$?\s?-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)\s?%?")
_SCALE = re.compile(r"\bUSD\s+(thousand|million|billion)s?\b")
_POWERS = {"thousand": 3, "million": 6, "billion": 9}


def financebench(records: Iterable[Record]) -> Iterator[Item]:
    """FinanceBench questions whose answer is one number, with the evidence that its authors marked."""
    for row, place, _ in records:
        question, answer = text_of(row, place, "question"), text_of(row, place, "answer")
        evidence = _evidence(row.get("evidence"), place)
        document = text_of(row, place, "doc_name")
        if not question or not answer or not evidence:
            yield f"{place}: needs a question, an answer and evidence"
        elif not _one_number(answer):
            yield Drop("the answer is not one number")
        else:
            scale = _SCALE.search(question)
            made: Row = {"text": evidence, "question": question, "answer": answer, "group": document}
            made["scale"] = _POWERS[scale.group(1)] if scale else 0
            yield Unit(f"{document} {question}", answer, [made], place, "test")


def _one_number(answer: str) -> bool:
    """A figure with its signs, in parentheses where it is below zero as accountants write it."""
    return bool(_NUMBER.fullmatch(answer[1:-1] if answer.startswith("(") and answer.endswith(")") else answer))


def _evidence(value: Any, place: str) -> str:
    """The passages, one after the other; empty lines and runs of blanks carry nothing."""
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise WrongFile(f"{place}: evidence is a list of passages")
    lines = [" ".join(line.split()) for part in value for line in text_of(part, place, "evidence_text").split("\n")]
    return "\n".join(line for line in lines if line)
