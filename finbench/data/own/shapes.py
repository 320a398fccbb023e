"""The formats of training rows that are known, how a file's is recognised, and a row as the turns that are learnt."""

from __future__ import annotations

import json
import math
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError, near_misses
from finbench.data.audit.columns import ANSWERS, key_of

Turn = tuple[str, str]  # (who: system, user, assistant, or text of nobody; what)
_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_QUESTIONS = ("question", "query", "instruction", "input", "text", "sentence", "context", "headline", "title")


class BadRow(Exception):
    """Why a row cannot be learnt."""


@dataclass(frozen=True)
class Shape:
    """A format. ``columns``: finbench's names of its columns and whether each must be there; ``said``: for people."""

    name: str
    said: str
    columns: dict[str, bool]
    turns: Callable[[Mapping[str, Any]], list[Turn]]

    @property
    def chat(self) -> bool:
        """Whether rows are conversations, which only a chat template can render."""
        return self.name == "messages"


@dataclass(frozen=True)
class Recognised:
    """The format of a file. ``of``: finbench's name of a column -> the file's; ``unused``: the file's other columns."""

    shape: Shape
    of: dict[str, str]
    unused: list[str]

    @property
    def said(self) -> str:
        """One line for people: the format, and columns of other names."""
        others = [f"{name} = {column}" for name, column in self.of.items() if column != name]
        return self.shape.said + (f" ({', '.join(others)})" if others else "")

    def turns(self, row: Mapping[str, Any]) -> list[Turn]:
        """What a row says, in turns. Raises BadRow."""
        return self.shape.turns({name: row.get(column) for name, column in self.of.items()})


def _blank(text: str) -> bool:
    """Whether nothing of it shows: spaces, control characters as NUL, marks of no width as U+200B."""
    return all(one.isspace() or unicodedata.category(one) in ("Cc", "Cf") for one in text)


def _text(row: Mapping[str, Any], name: str, empty: bool = False) -> str:
    value = row.get(name)
    if isinstance(value, str):
        if not empty and _blank(value):
            raise BadRow(f"its {name} is empty")
        return value
    if value is None:
        if empty:
            return ""
        raise BadRow(f"its {name} is missing")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadRow(f"its {name} is {value}, no text")
        try:
            return str(value)
        except ValueError:
            raise BadRow(f"its {name} is an integer of thousands of digits, no text") from None
    turns = isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "role" in one for one in value)
    mend = " (turns are read from one column, messages)" if turns else ""
    raise BadRow(f"its {name} is {_kind(value)}, no text{mend}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def _pair(row: Mapping[str, Any]) -> list[Turn]:
    return [("user", _text(row, "prompt")), ("assistant", _text(row, "completion"))]


def _instruction(row: Mapping[str, Any]) -> list[Turn]:
    system, more = _text(row, "system", empty=True), _text(row, "input", empty=True)
    asked = _text(row, "instruction") + (f"\n{more}" if more.strip() else "")
    first: list[Turn] = [("system", system)] if system.strip() else []
    return [*first, ("user", asked), ("assistant", _text(row, "output"))]


def _plain(row: Mapping[str, Any]) -> list[Turn]:
    return [("text", _text(row, "text"))]


def _conversation(row: Mapping[str, Any]) -> list[Turn]:
    found = row.get("messages")
    if isinstance(found, str) and found.lstrip().startswith("["):  # as CSV has to hold them
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as fault:
            raise BadRow(f"its messages are not valid JSON ({fault})") from fault
    if not isinstance(found, list) or not found:
        raise BadRow("its messages are no list of turns")
    turns = [_turn(one, number) for number, one in enumerate(found, 1)]
    last = max((number for number, (who, _) in enumerate(turns) if who == "assistant"), default=-1)
    if last < 0:
        raise BadRow("nobody answers in it: it has no turn of the assistant")
    if turns[0][0] == "assistant":
        raise BadRow("its first turn is of the assistant, whom nobody has asked")
    return turns[: last + 1]


def _turn(found: Any, number: int) -> Turn:
    if not isinstance(found, Mapping):
        raise BadRow(f"its turn {number} is {_kind(found)}, no object with role and content")
    role = found.get("role", found.get("from"))
    who = _ROLES.get(role.strip().casefold()) if isinstance(role, str) else None
    if found.get("tool_calls") or role in ("tool", "function"):
        raise BadRow(f"its turn {number} calls a tool, which is not learnt")
    if thoughts := next((key for key in _THOUGHTS if found.get(key)), None):
        raise BadRow(f"its turn {number} has {thoughts}, which is not learnt: take it out, or put it into content")
    if who == "assistant" and (found.get("weight", 1) == 0 or found.get("train", True) is False):
        raise BadRow(f"its turn {number} is marked as one not to learn, but every answer is learnt")
    if who is None:
        raise BadRow(f"its turn {number} is of {role!r}; known are system, user and assistant")
    content = found.get("content", found.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise BadRow(f"its turn {number} has parts that are no text")
        content = "".join(texts)
    if not isinstance(content, str):
        raise BadRow(f"its turn {number} has no content" if content is None else f"its turn {number} is no text")
    if who != "system" and _blank(content):
        raise BadRow(f"its turn {number}, of the {who}, is empty")
    return who, content


SHAPES = (
    Shape("messages", "conversations", {"messages": True}, _conversation),
    Shape("pair", "prompt and completion", {"prompt": True, "completion": True}, _pair),
    Shape(
        "instruction",
        "instruction, input and output",
        {"instruction": True, "output": True, "input": False, "system": False},
        _instruction,
    ),
    Shape("text", "plain text, all of it learnt", {"text": True}, _plain),
)
COLUMNS = tuple(dict.fromkeys(name for shape in SHAPES for name in shape.columns))  # that --map can name
_ALSO = {"messages": ("conversations", "conversation")}


def recognise(rows: Sequence[Mapping[str, Any]], mapped: Mapping[str, str], name: str) -> Recognised:
    """The format of a file by its first rows. Raises FinbenchError for none, and for more than one that fits."""
    columns = [str(column) for column in dict.fromkeys(column for row in rows for column in row)]
    for known, column in mapped.items():
        if column not in columns:
            close = near_misses(column, columns)
            mean = f" Did you mean {' or '.join(close)}?" if close else ""
            raise FinbenchError(
                f"{name} has no column {column!r}.{mean}",
                f"Its columns: {_listed(columns)}; of this file alone: --map {name}:{known}=COLUMN",
            )
    of = {known: mapped.get(known) or _same(known, columns) for known in COLUMNS}
    fitting = [
        shape
        for shape in SHAPES
        if all(of[column] for column, needed in shape.columns.items() if needed) and set(mapped) <= set(shape.columns)
    ]
    if len(fitting) > 1:  # rows of several formats: those of another one than the first are bad
        fitting = [s for s in fitting if all(of[c] in rows[0] for c, needed in s.columns.items() if needed)] or fitting
    if len(fitting) > 1:
        ways = [" and ".join(column for column, needed in shape.columns.items() if needed) for shape in fitting]
        first = ",".join(f"{column}={of[column]}" for column, needed in fitting[0].columns.items() if needed)
        raise FinbenchError(f"{name} can be read by {', or by '.join(ways)}.", f"Say which: --map {first}")
    if not fitting:
        raise _unknown(columns, mapped, name, rows)
    shape = fitting[0]
    chosen = {column: str(of[column]) for column in shape.columns if of[column]}
    unused = [column for column in columns if column not in chosen.values()]
    answers = [column for column in unused if key_of(column) in ANSWERS]
    if shape.name == "text" and answers and not mapped:
        raise FinbenchError(
            f"{name} has a column of texts and one that looks like their answers ({answers[0]}).",
            f"To learn the answers: --map prompt={chosen['text']},completion={answers[0]}\n"
            f"To learn the texts alone: --map text={chosen['text']}",
        )
    return Recognised(shape, chosen, unused)


def _same(known: str, columns: Sequence[str]) -> str | None:
    """The column of a name, but for case, spaces and underscores."""
    if known in columns:
        return known
    names = (known, *_ALSO.get(known, ()))
    return next((column for column in columns if key_of(column) in names), None)


def looks_like_a_row(header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the header of a table is a row: it has a number, a sentence, or what stands again below it."""
    odd = any(cell.strip()[:1].isdigit() or cell.strip().count(" ") > 3 or len(cell) > 60 for cell in header)
    return odd or any(cell and row.get(cell) == cell for row in rows for cell in header)


def _unknown(
    columns: Sequence[str], mapped: Mapping[str, str], name: str, rows: Sequence[Mapping[str, Any]]
) -> FinbenchError:
    said = f"{name}: no known format among its columns {_listed(columns)}."
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("csv", "tsv") and len(columns) == 1:
        said = f"{name}:1: its header has one column, {_listed(columns)}. Are columns divided by another sign?"
    elif suffix in ("csv", "tsv") and looks_like_a_row(columns, rows):
        said = f"{name}:1: its header, {_listed(columns)}, looks like a row. A header names the columns."
        return FinbenchError(said, "Write one over it, as prompt,completion")
    keys = {key_of(column): column for column in columns}
    asked = next((keys[key] for key in ("prompt", *_QUESTIONS) if key in keys), None)
    answer = next((keys[key] for key in ("completion", *ANSWERS) if key in keys and keys[key] != asked), None)
    if missing := [known for known in mapped if known in ("prompt", "completion", "instruction", "output")]:
        need = {"prompt": "completion", "completion": "prompt", "instruction": "output", "output": "instruction"}
        other = need[missing[0]]
        return FinbenchError(
            f"{name}: {missing[0]} needs {other} beside it.", f"--map {missing[0]}={mapped[missing[0]]},{other}=COLUMN"
        )
    known = "Known are prompt and completion; instruction, input and output; messages; text."
    pairs = "\nTo learn from pairs of answers: --pairs FILE" if {"chosen", "rejected"} <= keys.keys() else ""
    if len(columns) == 2 and (asked or answer):  # what is not the one is the other
        [other] = [column for column in columns if column != (asked or answer)]
        asked, answer = asked or other, answer or other
    wanted = shlex.quote(f"prompt={asked or 'COLUMN'},completion={answer or 'COLUMN'}")
    return FinbenchError(said, f"{known}\nSay which is which: --map {wanted}{pairs}")


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(column[:40]) for column in columns[:8])
    return shown + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
