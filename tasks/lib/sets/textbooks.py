"""Textbook finance: XFinBench's statements, multiple choice and calculations."""

import re
from collections.abc import Callable, Iterable, Iterator

from .base import Drop, Hub, Item, Part, Record, Row, Set, Unit, split_in, text_of

_TRUTH = {"1.0": "true", "1": "true", "true": "true", "0.0": "false", "0": "false", "false": "false"}
_CHOICE = re.compile(r"^([A-D])[.)]\s*(.+)$", re.MULTILINE)
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:e-?\d+)?")
_CAPABILITIES = {"TU", "TR", "FF", "SP", "NM"}


def _of_task(task: str, made: Callable[[Row, str], Row | None]) -> Callable[[Iterable[Record]], Iterator[Item]]:
    """A reader of the rows of one task. Rows that need a picture are left out."""

    def units(records: Iterable[Record]) -> Iterator[Item]:
        for row, place, split in records:
            kind, question = text_of(row, place, "task"), text_of(row, place, "question")
            truth, figure = text_of(row, place, "ground_truth"), text_of(row, place, "figure")
            if kind not in ("bool", "mcq", "calcu"):
                yield f"{place}: the task is bool, mcq or calcu, found {kind[:40]!r}"
            elif kind != task:
                yield Drop("another kind of question")
            elif figure and figure.casefold() != "nan":
                yield Drop("it needs a picture")
            elif not truth or truth.casefold() == "nan":
                yield f"{place}: it has no ground_truth: an older test_set.csv came without; download it again"
            else:
                found = made({"truth": truth, "choice": text_of(row, place, "choice")}, question)
                tag = re.split(r"[;: ]+", text_of(row, place, "fin_capability"))
                if not question or question.casefold() == "nan" or found is None:
                    yield Drop("its answer is not of its kind")
                    continue
                found |= {"capability": " ".join(name for name in tag if name in _CAPABILITIES)}
                key = f"{question} {found.get('options', '')}"
                yield Unit(key, found.get("label") or found["answer"], [found], place, split)

    return units


def _bool(told: Row, question: str) -> Row | None:
    label = _TRUTH.get(told["truth"].casefold())
    return {"text": question, "label": label} if label else None


def _mcq(told: Row, question: str) -> Row | None:
    options = dict(_CHOICE.findall(told["choice"].strip()))
    if told["truth"] not in options or list(options) != ["A", "B", "C"]:
        return None
    shown = "\n".join(f"{letter}. {' '.join(text.split())}" for letter, text in options.items())
    return {"text": question, "options": shown, "label": told["truth"]}


def _calcu(told: Row, question: str) -> Row | None:
    """Dashes are minus signs; two numbers, or a calculation whose answer is none, are no one answer."""
    number = told["truth"].replace("–", "-").replace("−", "-").replace(",", "")
    if not _NUMBER.fullmatch(number) or "," in told["truth"].replace(" ", "").removesuffix(","):
        return None
    plain = f"{float(number):.12f}".rstrip("0").rstrip(".") if "e" in number else number
    return {"text": question, "answer": plain.removesuffix(".0") if plain.endswith(".0") else plain}


def _set(task: str, made: Callable[[Row, str], Row | None], corrected: str) -> Set:
    return Set(
        _of_task(task, made),
        "XFinBench (Zhang et al. 2025), validation_set.csv and test_set.csv with answers",
        "validation_set.csv test_set.csv",
        split_in,
        4235,
        Hub(
            "Zhihan/XFinBench",
            tuple(Part(split, file=f"{split}_set.csv") for split in ("validation", "test")),
            known="53546a2",
        ),
        tests={"*test*.csv": 3235},
        trains=False,
        corrected=f"Rows that need a picture are left out. {corrected}",
    )


TEXTBOOK_SETS = {
    "xfinbench_truth": _set("bool", _bool, "Truth values 1, 1.0, 0 and 0.0 are true and false."),
    "xfinbench_choice": _set("mcq", _mcq, "Questions whose answer is none of their three choices are left out."),
    "xfinbench_calc": _set("calcu", _calcu, "Dashes are minus signs; answers that are two numbers are left out."),
}
