"""ConvFinQA: conversations of numeric questions about FinQA's pages, whole, or a row a turn."""

import ast
import math
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .base import Drop, Item, Record, Row, Set, Unit, WrongFile, split_in
from .reports import finite, gap, markdown, needs, once, page_of, plain, prose, result_of, unpacked, written

_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Gt: operator.gt,
    ast.USub: operator.neg,
}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_NAME = re.compile(r"(?:Single|Double)_(?P<page>.+\.pdf)(?:-\d+)?")


def run(program: str) -> float | bool:
    """The value of ``ans`` after assignments such as "x0 = 15 - 19; ans = x0 / 19". ValueError for anything else."""
    names: dict[str, float | bool] = {}

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Compare(left=left, ops=[ast.Gt()], comparators=[right]):
                return value(left) > value(right)
        raise ValueError("only arithmetic is expected")

    try:
        if len(program) > 1000:
            raise ValueError("too long")
        for step in ast.parse(_PERCENT.sub(r"(\1 / 100)", program).replace("; ", "\n").replace(";", "\n").strip()).body:
            match step:
                case ast.Assign(targets=[ast.Name(id=name)], value=node):
                    names[name] = value(node)
                case _:
                    raise ValueError("assignments are expected")
        found = names["ans"]
        if isinstance(found, complex) or not math.isfinite(found):
            raise ValueError("no finite number")
    except (SyntaxError, KeyError, ArithmeticError, TypeError, RecursionError, MemoryError) as fault:
        raise ValueError(f"{type(fault).__name__}: {fault}") from fault
    return found


def convfinqa(records: Iterable[Record]) -> Iterator[Item]:
    """ConvFinQA, a row a turn with the turns before it. See ``convfinqa_own``."""
    for item in convfinqa_own(records):
        if not isinstance(item, Unit):
            yield item
            continue
        turns = [turn for row in item.rows for turn in _turns(row)]
        before = [[told["question"] for told in turn["history"]] for turn in turns]
        rows, dropped = once(
            ([*asked, turn["question"]], turn["answer"], turn) for asked, turn in zip(before, turns, strict=True)
        )
        yield from dropped
        if rows:
            yield item._replace(rows=rows)


def _turns(row: Row) -> Iterator[Row]:
    told = [{"question": q, "answer": a} for q, a in zip(row["questions"], row["answers"], strict=True)]
    shared = {"text": row["text"], "document": row["document"]}
    for number, turn in enumerate(told):
        last = int(number == len(told) - 1)
        yield {"id": f"{row['id']}-{number}", **shared, "history": told[:number], **turn, "last": last}


def convfinqa_own(records: Iterable[Record]) -> Iterator[Item]:
    """ConvFinQA conversations: the authors' (``annotation``), or Program-of-Thoughts' (``questions``, ``programs``).

    All are held in memory, for conversations about one page lie apart. A row holds the whole conversation.
    """
    pages: dict[tuple[str, str | None], tuple[str, list[Row], str]] = {}
    for row, place, split in records:
        told = unpacked(row.get("annotation"), place)
        made = _annotated(told, row, place) if isinstance(told, dict) else _program_of_thoughts(row, place)
        if not isinstance(made, dict):
            yield made
            continue
        text, rows, _ = pages.setdefault((made["document"], split), (made["text"], [], place))
        rows.append({**made, "text": text})
    for (page, split), (_, talks, place) in pages.items():
        rows, dropped = once((row["questions"], row["answers"], row) for row in talks)
        yield from dropped
        if not rows:
            continue
        side = "test" if split == "validation" else split  # as the field scores it: the test has no public answers
        yield Unit(f"convfinqa {page}", [[row["questions"], row["answers"]] for row in rows], rows, place, side)


def _conversation(row: Row, place: str, text: str, questions: Sequence[Any], answers: Sequence[Any]) -> Row | str:
    if not isinstance(questions, list) or not isinstance(answers, list):
        return f"{place}: questions and answers are lists"
    told = [result_of(answer) for answer in answers]
    if (
        len(questions) != len(told)
        or not questions
        or None in told
        or not all(isinstance(q, str) and plain(q) for q in questions)
    ):
        return f"{place}: needs a question and an answer, a number or yes or no, for each turn"
    name = str(row["id"])
    found = _NAME.fullmatch(name)
    page = plain(row.get("filename")) or (found["page"] if found else name)
    asked = [" ".join(str(question).split()) for question in questions]
    return {"id": name, "document": page, "text": text, "questions": asked, "answers": told}


def _annotated(told: Row, row: Row, place: str) -> Row | Item:
    if "turn_ind" in told or "cur_dial" in told:
        raise WrongFile(
            f"{place}: one turn of a conversation; give the authors' train.json and dev.json, not *_turn.json"
        )
    needs(row, place, "id", "pre_text", "post_text", "table")
    if "dialogue_break" in told and "exe_ans_list" not in told:
        raise WrongFile(f"{place}: it has no answers (exe_ans_list): test_private.json comes without; give dev.json")
    needs(told, place, "dialogue_break", "exe_ans_list")
    text = page_of(prose(row["pre_text"], place), markdown(row["table"], place), prose(row["post_text"], place))
    questions, answers = (unpacked(told[key], place) for key in ("dialogue_break", "exe_ans_list"))
    return _conversation(row, place, text, questions, answers)


def _program_of_thoughts(row: Row, place: str) -> Row | Item:
    if "cur_dial" in row or "turn_ind" in row or "cur_question" in row:
        raise WrongFile(f"{place}: one turn of a conversation; give the file of conversations")
    needs(row, place, "id", "questions", "programs", "answer", "text", "table")
    questions, programs = unpacked(row["questions"], place), unpacked(row["programs"], place)
    if not isinstance(questions, list) or not isinstance(programs, list):
        raise WrongFile(f"{place}: questions and programs are lists")
    if gap(row["answer"]):
        return f"{place}: needs the answer of the last turn, found {str(row['answer'])[:40]!r}"
    try:
        answers = [_rounded(run(str(program))) for program in programs]
    except ValueError as fault:
        return f"{place}: a program cannot be run ({fault})"
    last, stated = answers[-1] if answers else None, result_of(row["answer"])
    close = stated == last or (finite(stated) and finite(last) and abs(float(stated) - float(last)) < 1.1e-5)  # type: ignore[arg-type]
    if not close:
        return Drop("the last program does not give the stated answer")
    table = unpacked(row["table"], place)
    if isinstance(table, str):
        table = [line.split(" | ") for line in plain(table).splitlines() if line.strip()]
    text = page_of(markdown(table, place), prose(row["text"], place))
    return _conversation(row, place, text, questions, answers)


def _rounded(value: float | bool) -> str:
    """As FinQA rounds: five decimals; yes and no for a comparison."""
    return ("yes" if value else "no") if isinstance(value, bool) else written(round(value, 5))


CONVERSATION_SETS = {
    name: Set(
        units,
        "ConvFinQA (Chen et al. 2022), train.json and dev.json; or Program-of-Thoughts' convfinqa_dev.json",
        "train.json dev.json convfinqa_*.json",
        split_in,
        3458,
        tests={"*dev*.json": 421},
        trains=False,
        family="finqa",
        corrected=(
            "Answers of earlier turns are worked out from their programs. What one page is asked twice stays once, or "
            "not at all where the answers differ. Its pages are FinQA's: one family, never train on one and test on "
            "the other."
        ),
    )
    for name, units in (("convfinqa", convfinqa), ("convfinqa_own", convfinqa_own))
}
