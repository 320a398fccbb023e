"""Questions about pages of annual reports, tables and text together: TAT-QA, FinQA.

A unit is one page with all its questions, named by its authors, so that no page is on two sides of a split. Its table
is shown as Markdown. FinQA and ConvFinQA share their pages: ``document`` names the page in both. A page is asked a
question once: of repeats the first stays; where their answers differ none does, for nobody knows which is right.
"""

import ast
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .base import Drop, Hub, Item, Part, Record, Row, Set, Unit, WrongFile, split_in
from .splits import signed

_SCALES = ("", "thousand", "million", "billion", "percent")
_KINDS = ("span", "multi-span", "count", "arithmetic")
DISPUTED = "same question, different answers"
_PRINTED = 1_000_000  # characters of a list as Python prints it, which is parsed as Python


def gap(value: Any) -> bool:
    """Whether a cell is none: null, NaN, or "nan", which a table once held and wrote as text."""
    return value is None or value != value or (isinstance(value, str) and value.strip().casefold() == "nan")


def plain(value: Any) -> str:
    """A cell as text; "" for none."""
    return "" if gap(value) else str(value).strip()


def unpacked(value: Any, place: str) -> Any:
    """A list or dictionary that a table kept as text, in JSON or as Python prints it; all else as it is.

    WrongFile where it cannot be read back whole: NumPy prints lists without commas and long ones with dots.
    """
    if not isinstance(value, str) or value.strip()[:1] + value.strip()[-1:] not in ("[]", "{}"):
        return value
    text = value.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(text) if len(text) < _PRINTED else None
        whole = repr(found) == text
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        whole = False
    if not whole:
        raise WrongFile(f"{place}: a list that was printed as text, {text[:30]!r}; write it anew with to_json or json")
    return found


def markdown(table: Any, place: str) -> str:
    """Rows of cells as a Markdown table, the first row as its head. WrongFile if it is none."""
    table = unpacked(table, place)
    if not isinstance(table, list) or not table or not all(isinstance(row, list) and row for row in table):
        raise WrongFile(f"{place}: table is a list of rows of cells")
    if any(isinstance(cell, dict | list) for row in table for cell in row):
        raise WrongFile(f"{place}: a cell of the table is a text or a number")
    width = max(map(len, table))
    lines = []
    for row in table:
        cells = [" ".join(plain(cell).split()).replace("|", "/") for cell in row]
        lines.append("| " + " | ".join(cells + [""] * (width - len(cells))) + " |")
    return "\n".join([lines[0], "|" + " -- |" * width, *lines[1:]])


def needs(row: Row, place: str, *keys: str) -> None:
    if missing := [key for key in keys if key not in row]:
        found = ", ".join(map(str, row))
        raise WrongFile(f"{place}: {', '.join(missing)} expected, found {found[:120]}")


def prose(value: Any, place: str) -> str:
    """Sentences as one paragraph; a text stands for itself."""
    value = unpacked(value, place)
    if isinstance(value, str) and not gap(value):
        return " ".join(value.split())
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise WrongFile(f"{place}: the text is a list of sentences")
    return " ".join(" ".join(part.split()) for part in value if part.strip(" ."))


def page_of(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def once(asked: Iterable[tuple[Any, Any, Any]]) -> tuple[list[Any], list[Drop]]:
    """What a page is asked, each question once, and a Drop for what is left out. Given are (question, answer, item).

    The first of repeats stays; of a question with different answers no copy does.
    """
    copies: dict[str, list[tuple[Any, Any]]] = {}
    for question, answer, item in asked:
        copies.setdefault(signed(json.dumps(question, ensure_ascii=False)), []).append((answer, item))
    kept, dropped = [], []
    for given in copies.values():
        disputed = any(answer != given[0][0] for answer, _ in given)
        kept += [] if disputed else [given[0][1]]
        dropped += [Drop(DISPUTED)] * len(given) if disputed else [Drop("duplicate")] * (len(given) - 1)
    return kept, dropped


# ---------------------------------------------------------------- TAT-QA


def tatqa(records: Iterable[Record]) -> Iterator[Item]:
    """TAT-QA: ``table``, ``paragraphs`` and ``questions`` of one context. Where no test is given, dev is the test."""
    units = []
    for row, place, split in records:
        needs(row, place, "table", "paragraphs", "questions")
        table, paragraphs, questions = (unpacked(row[key], place) for key in ("table", "paragraphs", "questions"))
        if not isinstance(paragraphs, list) or not isinstance(questions, list):
            raise WrongFile(f"{place}: paragraphs and questions are lists")
        cells = table.get("table") if isinstance(table, dict) else None
        text = page_of(markdown(cells, place), *_paragraphs(paragraphs, place))
        read = [_question(one, text, f"{place}, question {number}") for number, one in enumerate(questions, 1)]
        yield from (one for one in read if not isinstance(one, dict))
        rows, dropped = once((one["question"], _value(one), one) for one in read if isinstance(one, dict))
        yield from dropped
        if rows:
            golds = [[made["question"], made["answer"]] for made in rows]
            units.append(Unit(text, golds, rows, place, split))
    tested = any(unit.split == "test" for unit in units)
    for unit in units:
        yield unit if tested or unit.split != "validation" else unit._replace(split="test")


def _value(row: Row) -> tuple[str, list[str]]:
    """A right answer as it is compared with that of a repeat: spans in any order, a bracket as a minus sign."""
    return row["scale"], sorted(signed(span.replace("$", "").replace("(", "-")) for span in row["spans"])


def _paragraphs(given: list[Any], place: str) -> list[str]:
    told = [part.get("text") for part in given if isinstance(part, dict)]
    if len(told) < len(given) or any(gap(text) or not isinstance(text, str) for text in told):
        raise WrongFile(f"{place}: a paragraph has an order and a text")
    ordered = sorted(given, key=lambda part: float(part["order"]) if finite(part.get("order")) else 0.0)
    return [" ".join(part["text"].split()) for part in ordered]


def _question(given: Any, text: str, place: str) -> Row | Item:
    if not isinstance(given, dict) or not isinstance(given.get("question"), str) or not plain(given["question"]):
        return f"{place}: not a question of TAT-QA"
    kind, scale, answer = given.get("answer_type"), given.get("scale"), unpacked(given.get("answer"), place)
    if "answer" not in given or ((gap(answer) or answer in ("", [])) and (gap(kind) or kind == "")):
        raise WrongFile(f"{place}: it has no answer: tatqa_dataset_test.json comes without; give ..._test_gold.json")
    if kind not in _KINDS or scale not in _SCALES:
        return f"{place}: answer_type {str(kind)[:40]!r}, scale {str(scale)[:40]!r} are not of TAT-QA"
    spans = answer if isinstance(answer, list) else [answer]
    if any(gap(span) or isinstance(span, bool | dict | list) for span in spans):
        return f"{place}: an answer is a text, a number or a list of them, found {str(answer)[:40]!r}"
    numbers = kind in ("count", "arithmetic")
    if numbers and not (len(spans) == 1 and finite(spans[0])):
        return f"{place}: the answer is a number, found {str(answer)[:40]!r}"
    spans = [written(span) if numbers else str(span).strip() for span in spans]
    spans = [span for span in spans if span]
    if not spans:
        return f"{place}: the answer is empty"
    if any("|" in span or "\n" in span for span in spans):
        return Drop("a span holds the sign that separates spans")
    if kind == "span" and scale and not re.search(r"\d", spans[0]):
        return Drop("a scale beside words")
    made = {"id": plain(given.get("uid")), "uid": plain(given.get("uid")), "text": text}
    return made | {
        "question": " ".join(given["question"].split()),
        "answer": " | ".join(scaled(span, scale) for span in spans),
        "kind": kind,
        "spans": spans,
        "scale": scale,
        "source": plain(given.get("answer_from")),
        "derivation": " ".join(plain(given.get("derivation")).split()),
    }


def scaled(span: str, scale: str) -> str:
    """An answer with its scale, as it is asked for: "1,496.5 million", "22.22%"."""
    if not scale or (scale == "percent" and "%" in span):
        return span
    return f"{span}%" if scale == "percent" and not span.endswith(")") else f"{span} {scale}"


def finite(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def written(value: Any) -> str:
    """A number in digits: 94.0 and "94" are "94"; never with an exponent."""
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:.10f}".rstrip("0").rstrip(".")


# ---------------------------------------------------------------- FinQA

_HUMAN = re.compile(r"(?<![\w.])-?\s?\$?\s?-?\(?(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?")
_POWERS = (0, 2, -2)  # of ten: a share, and per cent
_RESPONSE = "The answer is:"
_PARTS = ("### Table", "### Text", "### Question", "### Response")


def contradicts(human: str, result: str) -> bool:
    """Whether the annotator's answer is another number than the program's, sign and unit forgiven.

    Rounding is forgiven too: to the decimals that the annotator gave, and by 2 %. An answer without a number says
    nothing, but for yes and no.
    """
    words = human.casefold().strip()
    if result in ("yes", "no"):
        return words in ("yes", "no") and words != result
    numbers = [match for match in _HUMAN.finditer(human) if match[1] or match[2]]
    if not numbers:
        return words in ("yes", "no")
    found = numbers[0]
    told, right = float((found[1] or "0").replace(",", "") + (found[2] or "")), abs(float(result))
    unit = 10.0 ** -max(0, len(found[2] or "") - 1)
    return not any(abs(told - right * 10.0**power) <= max(0.51 * unit, 0.02 * right * 10.0**power) for power in _POWERS)


class _Asked(NamedTuple):
    """A question of FinQA: its page as text, its row, and where it stands."""

    text: str
    row: Row
    place: str
    split: str | None
    whole: bool  # with the annotator's answer, by which the program was checked


def finqa(records: Iterable[Record]) -> Iterator[Item]:
    """FinQA by its authors' keys, TAT-LLM's rewriting of it, or the Hub's columns; one unit a page.

    All questions are held in memory, for those of one page lie apart. Of a question that is given twice the copy with
    the authors' keys stands. Where no test is given, dev is the test.
    """
    pages: dict[str, dict[str, _Asked]] = {}
    for row, place, split in records:
        found = _tatllm(row, place) if "user_prompt" in row else _finqa(row, place)
        if not isinstance(found, tuple):
            yield found
            continue
        page, name, text, made, whole = found
        asked = pages.setdefault(page, {})
        if name in asked:
            known = asked[name]
            disputed = known.whole == whole and any(known.row[key] != made[key] for key in ("question", "answer"))
            yield Drop(DISPUTED if disputed else "duplicate")
            if disputed:
                known.row["wrong"] = DISPUTED
            if known.whole or not whole:
                continue
        asked[name] = _Asked(text, made, place, split, whole)
    tested = any(one.split == "test" for asked in pages.values() for one in asked.values())
    for page, asked in pages.items():
        sides = {one.split for one in asked.values()}
        side = next((name for name in ("test", "validation", "train") if name in sides), None)
        text = next((one.text for one in asked.values() if one.whole), next(iter(asked.values())).text)
        given = [one.row for one in asked.values()]
        kept, dropped = once((row["question"], (row["answer"], row["wrong"]), row) for row in given)
        yield from dropped
        yield from (Drop(row["wrong"]) for row in kept if row["wrong"])
        rows = [{**row, "text": text} for row in kept if not row.pop("wrong")]
        if rows:
            side = side if tested or side != "validation" else "test"
            golds = [[row["question"], row["answer"]] for row in rows]
            yield Unit(f"finqa {page}", golds, rows, next(iter(asked.values())).place, side)


_Read = tuple[str, str, str, Row, bool]  # page, name of the question, text of the page, row, by the authors' keys


def _finqa(row: Row, place: str) -> _Read | str:
    qa = unpacked(row.get("qa"), place)
    if qa is None and "final_result" in row:  # the Hub's columns
        qa = {"question": row.get("question"), "answer": row.get("answer"), "exe_ans": row["final_result"]}
        qa["program"] = row.get("program_re")
        row = {**row, "qa": qa}
    table = unpacked(row.get("table"), place)
    if "annotation" in row:
        raise WrongFile(f"{place}: a conversation of ConvFinQA; import it with: finbench data import convfinqa")
    needs(row, place, "id", "pre_text", "post_text", "table", "qa")
    if isinstance(qa, dict) and "question" in qa and "exe_ans" not in qa:
        raise WrongFile(f"{place}: it has no answer (exe_ans): private_test.json comes without; give test.json")
    if not isinstance(qa, dict) or not {"question", "exe_ans"} <= set(qa):
        raise WrongFile(f"{place}: qa has a question and exe_ans")
    result, human = result_of(qa["exe_ans"]), plain(qa.get("answer")).removesuffix("\\n").strip()
    if result is None or not isinstance(qa["question"], str) or not plain(qa["question"]):
        return f"{place}: needs a question and exe_ans, a number or yes or no, found {str(qa['exe_ans'])[:40]!r}"
    text = page_of(prose(row["pre_text"], place), markdown(table, place), prose(row["post_text"], place))
    page = plain(row.get("filename")) or str(row["id"]).rpartition("-")[0]
    made = _finqa_row(page, str(row["id"]), str(qa["question"]), result)
    made |= {"program": plain(qa.get("program")), "answer_published": human}
    made["table"] = json.dumps([[None if gap(cell) else cell for cell in cells] for cells in table], ensure_ascii=False)
    if human and contradicts(human, result):
        made["wrong"] = "the annotator's answer contradicts the program"
    return page, str(row["id"]), text, made, True


def _finqa_row(page: str, name: str, question: str, result: str) -> Row:
    made: Row = {"id": name.rpartition("-")[2], "text": "", "question": " ".join(question.split()), "answer": result}
    return made | {"document": page, "program": "", "answer_published": "", "table": "[]", "wrong": ""}


def result_of(value: Any) -> str | None:
    """``exe_ans`` as text: yes, no, or a number; None if it is neither."""
    told = {"true": "yes", "false": "no"}.get(str(value).strip().casefold(), str(value).strip().casefold())
    if told in ("yes", "no"):
        return told
    return written(value) if not isinstance(value, bool) and finite(value) else None


def _tatllm(row: Row, place: str) -> _Read | str:
    """TAT-LLM's prompts: instruction, table, numbered sentences, question; the answer is ``exe_ans``."""
    needs(row, place, "id", "user_prompt", "resp")
    prompt, name = str(row["user_prompt"]), str(row["id"])
    pieces, rest = [], prompt
    for mark in _PARTS:
        piece, found, rest = rest.partition(mark)
        if not found:
            raise WrongFile(f"{place}: not a prompt of TAT-LLM: {mark!r} is missing")
        pieces.append(piece)
    result = result_of(str(row["resp"]).partition(_RESPONSE)[2].strip())
    question = " ".join(pieces[3].split())
    if result is None or not question or "-" not in name:
        return f"{place}: needs an id, a question and {_RESPONSE!r} with a number, found {str(row['resp'])[:60]!r}"
    lines = [line.strip().strip("|").split("|") for line in pieces[1].splitlines() if line.strip()]
    sentences = [re.sub(r"^\d+ ", "", line.strip()) for line in pieces[2].splitlines()]
    page = name.rpartition("-")[0]
    text = page_of(markdown(lines, place), prose(sentences, place))
    return page, name, text, _finqa_row(page, name, question, result), False


REPORT_SETS = {
    "tatqa": Set(
        tatqa,
        "TAT-QA (Zhu et al. 2021), tatqa_dataset_{train,dev,test_gold}.json, one row a context",
        "tatqa_dataset_train.json tatqa_dataset_dev.json tatqa_dataset_test_gold.json",
        split_in,
        2756,
        Hub(
            "next-tat/TAT-QA",
            (
                Part("train", file="tatqa_dataset_train.json"),
                Part("validation", file="tatqa_dataset_dev.json"),
                Part("test", file="tatqa_dataset_test_gold.json"),
            ),
            "c96247f5077eac447f63527fd3dcfdc58bb56d6a",
        ),
        tests={"*test_gold*": 277, "*dev*": 278},
        trains=False,
        shas={"tatqa_dataset_dev.json": "8da095a819af6db3c14877c6df2d4d29960e41d1a63dd1fa853507bd2a616af5"},
        corrected=(
            "Answer and scale are one value. The sign counts, which the official metric loses of a span such as "
            "(1,212); an answer 0 counts, which it takes for none. A scale beside words is left out, and so is a "
            "question that one page has twice with different answers."
        ),
    ),
    "finqa": Set(
        finqa,
        "FinQA (Chen et al. 2021), train.json, dev.json and test.json; or TAT-LLM's finqa_dataset_dev.json",
        "train.json dev.json test.json finqa_*.json",
        split_in,
        8281,
        Hub(
            "ibm-research/finqa",
            tuple(Part(split, file=f"default/{split}/0000.parquet") for split in ("train", "validation", "test")),
            "refs/convert/parquet",
            known="1d0076a",
        ),
        tests={"*test*.json": 1147, "*dev*.json": 883},
        trains=False,
        shas={
            "train.json": "49f237eb9779b569473b26b08048867d04635a7cc39ad6a7a5664c55bb428db6",
            "dev.json": "a847fb7e0d61a3125a1e2909852df6b89f1ee64d2c5ff1bf689e332214deee51",
            "test.json": "831dbfb2e785dbc227f895ce3f24046433467aec67b09db2bd6ac7692a8a30dc",
        },
        family="finqa",
        corrected=(
            "The target is what the program gives (exe_ans). Questions whose annotator gave another number, sign, "
            "per cent and the table's unit forgiven, are left out, for nobody knows which is right, and so are those "
            "that one page has twice with different results; of repeats one stays."
        ),
    ),
}
