"""FinLoRA's published XBRL-analysis questions, with the facts of their filing put back.

A published row has the question, the answer, and which context of which instance it is about; the facts themselves
(up to 400,000 tokens with text blocks) are not in it. They are the short us-gaap facts of that context, written as in
FinLoRA's prompts. Source: Wang et al. 2025, arXiv:2505.19819; format of the four kinds of CSV files it publishes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.data.readers import SourceFile, decode_csv
from finbench.data.xbrl.model import Filing

SETS = {  # what is in a file's name -> set
    "xbrl_tags": "finlora_xbrl_tags",
    "value": "finlora_xbrl_values",
    "formula_formatted_with_tags": "finlora_xbrl_formula",
    "formula_calculation": "finlora_xbrl_calc",
}
_COLUMNS = {"instruction", "input", "output", "doc_path", "context_id"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """A published row. ``document`` is the instance's file name; ``place`` is file:line."""

    set: str
    split: str
    instruction: str
    question: str
    answer: str
    document: str
    context: str
    company: str
    place: str


def read_questions(paths: Iterable[Path]) -> list[Question]:
    """Every row of FinLoRA's CSV files. Raises FinbenchError for a file that is none of them."""
    found: list[Question] = []
    for path in paths:
        if not path.is_file():
            raise FinbenchError(f"No such file: {path}", "Give FinLoRA's CSV files, such as value_test.csv.")
        stem = path.stem.lower()
        set_ = next((name for key, name in SETS.items() if stem.startswith(key)), "")
        split = next((name for name in ("train", "test") if stem.endswith(name)), "")
        if not set_ or not split:
            raise FinbenchError(
                f"{path}: the name does not say which of FinLoRA's files it is.",
                f"They are called {', '.join(f'{key}_test.csv' for key in SETS)} or ..._train.csv.",
            )
        for record in decode_csv(SourceFile(path)):
            if isinstance(record, str):
                raise FinbenchError(f"{record}.", "Get the file again; it is torn.")
            if missing := _COLUMNS - set(record.row):
                raise FinbenchError(f"{path}: column {', '.join(sorted(missing))} is missing.", "Is it FinLoRA's file?")
            row: dict[str, str] = record.row
            instruction, answer = row["instruction"].rstrip("\n"), row["output"].strip()
            document, company = PurePosixPath(row["doc_path"]).name, row.get("company", "")
            about = document, row["context_id"], company, record.place
            found.append(Question(set_, split, instruction, row["input"], answer, *about))
    return found


def document_of(filing: Filing) -> str:
    """The file name by which published rows call a filing's instance."""
    return next(iter(filing.digests), "")


def join(
    filing: Filing, questions: Sequence[Question], dropped: Counter[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(set, split, row) of the questions about this filing; what cannot be asked is counted by reason."""
    for question in questions:
        if question.document != document_of(filing):
            continue
        text = "\n".join(  # the short us-gaap facts of a context as FinLoRA's prompts write them, one a line
            f"<{fact.concept}>{fact.value}</>"
            for fact in filing.facts
            if fact.context == question.context and fact.concept.startswith("us-gaap:") and fact.value
        )
        if reason := _unusable(question, text):
            dropped[f"{question.set}: {reason}"] += 1
            continue
        row = {
            "id": f"{question.set}-{question.split}-{question.place.rpartition(':')[2]}",
            "group": filing.id,
            "company": filing.company,
            "text": text,
            "instruction": question.instruction,
            "question": question.question,
            "answer": question.answer,
            "context": question.context,
        }
        yield question.set, question.split, row


def _unusable(question: Question, text: str) -> str:
    if not text:
        return "its context has no short us-gaap facts"
    if question.set == "finlora_xbrl_tags" and not question.answer.startswith("us-gaap:"):
        return "the answer is a number" if _NUMBER.fullmatch(question.answer) else "the answer is no us-gaap tag"
    return ""
