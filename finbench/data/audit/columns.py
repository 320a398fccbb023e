"""Which columns of a file are the text, the question and the answer; and what a prompt is made of."""

from __future__ import annotations

import ast
import functools
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from types import MappingProxyType
from typing import Any, NamedTuple

from finbench.core.errors import FinbenchError
from finbench.data.readers import RawRecord
from finbench.data.splits import split_named

# Names as they are met, without case, spaces and underscores, the likeliest first.
_TEXT = (
    *("text", "sentence", "news", "headline", "tweet", "content", "context", "passage", "input", "document"),
    *(
        "originalsent",
        "article",
        "post",
        "body",
        "title",
        "review",
        "message",
        "paragraph",
        "premise",
        "goal",
        "term",
        "ctx",
        "sentence1",
    ),
    *("tokens", "words", "goldtoken", "token", "question", "query", "prompt", "userprompt", "instruction", "evidence"),
)
_OFFERED = (  # what makes another question of the same words: its choices, the picture that it is about
    *("choice", "choices", "endings", "options", "sol1", "sol2", "option1", "option2", "option3", "option4"),
    *("figure", "image", "picture"),
)
_ABOUT = ("entity", "target", "aspect")
_WHOSE = (
    *("company", "companyname", "ticker", "symbol", "issuer", "firm", "stock"),
    *("org", "organisation", "organization"),
)
_ASKED = (
    *("instruction", "system", "question", "questions", "query", "prompt", "hypothesis", "sentence2"),
    *_ABOUT,
    *_OFFERED,
)
ANSWERS = (
    *(
        "label",
        "labels",
        "goldlabel",
        "groundtruth",
        "target",
        "gold",
        "answer",
        "answers",
        "sentiment",
        "sentimentlabel",
        "class",
    ),
    *(
        "category",
        "nertags",
        "tags",
        "entities",
        "output",
        "response",
        "resp",
        "completion",
        "answerkey",
        "explanation",
    ),
    *("definition", "score", "sentimentscore", "info", "y", "chosen", "polarity", "rating", "probability"),
    *("stance", "intent", "topic", "kategorie", "klasse", "etikett", "stimmung", "thema", "antwort", "categorie"),
    *("classe", "etiquette", "reponse", "categoria", "clase", "etiqueta", "sentimiento", "respuesta", "risposta"),
)
_GOLD_ENDS = ("label", "labels", "tags", "target", "sentiment", "class", "answer")
_WORKED = ("exeans", "finalresult", "derivation")  # what gives the answer too: a program's result, arithmetic
_DIVIDES = ("split", "set", "partition", "fold", "subset", "datasplit", "dataset", "splitname", "part")
_CHAT = ("messages", "conversations", "conversation", "chat")


class Item(NamedTuple):
    """One row, understood. ``gold`` is canonical (see ``canonical``), None where the file has no answers."""

    body: str  # the text that is asked about
    ask: str  # the question or instruction, without the quoted parts that name something in the text
    slots: str  # those parts
    gold: str | None
    meta: str  # the other columns that rows share
    line: str
    split: str | None


@dataclass
class Layout:
    """The columns of a file by what they are."""

    text: str
    asked: list[str]
    gold: list[str]
    meta: list[str]
    worked: str | None = None  # the column of what gives the answer too
    sentence: list[str] = field(default_factory=list)  # of a file with one token a row: what tells a sentence
    split: str | None = None
    chat: bool = False
    prefix: str = ""  # what every prompt starts with
    suffix: str = ""

    @property
    def offers(self) -> bool:
        """Whether rows have choices or pictures of their own."""
        return any(key_of(column) in _OFFERED for column in self.asked)

    @property
    def asks_apart(self) -> bool:
        """Whether rows of one text may be other questions: of other choices, or about another company or aspect."""
        return self.offers or any(key_of(column) in (*_ABOUT, *_WHOSE) for column in self.asked)

    def item(self, raw: RawRecord) -> Item:
        row = raw.row
        gold: str | None
        if self.chat:
            asked, text, gold = _of_chat(row.get(self.text))
        else:
            text, asked = as_text(row.get(self.text)), "\n".join(as_text(row.get(name)) for name in self.asked)
            golds = {name: canonical(row.get(name)) for name in self.gold}
            gold = json.dumps(golds, ensure_ascii=False) if len(golds) > 1 else next(iter(golds.values()), None)
        bare, prompt = unwrap(text, self.prefix, self.suffix)
        ask, slots = _template(f"{asked}\n{prompt}", bare)
        meta = "\x1f".join(as_text(row.get(name)) for name in self.meta)
        told = raw.detail or (split_named(row.get(self.split)) if self.split else None)
        return Item(bare, ask, slots, gold, meta, raw.place, told)


@functools.lru_cache(10_000)  # of every row
def key_of(column: Any) -> str:
    """A column's name without case, accents, spaces and underscores."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", str(column)).casefold())


def is_answer(column: Any) -> bool:
    """Whether a column is called like an answer, or like what gives one."""
    return key_of(column) in (*ANSWERS, *_WORKED)


def layout(sample: Sequence[RawRecord], name: str, named: Mapping[str, str] = MappingProxyType({})) -> Layout:
    """The layout of a file by a sample of its rows, and by the columns that the user has ``named``: text, answer.

    FinbenchError if no column holds text.
    """
    columns = list(dict.fromkeys(column for raw in sample for column in raw.row))
    keys = {key_of(column): column for column in reversed(columns)}
    values = {column: [raw.row.get(column) for raw in sample] for column in columns}
    for key in _CHAT:
        if key in keys and any(isinstance(value, list) for value in values[keys[key]]):
            return Layout(keys[key], [], ["(last turn)"], [], chat=True)
    own = {role: column for role, column in named.items() if column in values}
    text = own.get("text") or _text_column(keys, values)
    if text is None:
        raise FinbenchError(
            f"{name}: no column of text among {', '.join(map(str, columns))[:120]}.",
            "Name the column of the texts: --map text=COLUMN; or rename it to text.",
        )
    gold = [own["answer"]] if "answer" in own else _gold_columns(keys, values, text)
    asked = [keys[key] for key in _ASKED if key in keys and keys[key] not in (text, *gold)]
    asked += [column for column in columns if key_of(column) in _WHOSE and _asks(values[column], values[text])]
    asked = [column for column in asked if any(as_text(value).strip() for value in values[column])]
    worked = next((keys[key] for key in _WORKED if key in keys and keys[key] not in gold), None)
    worked = worked if len(gold) == 1 else None
    split = next((column for column in columns if key_of(column) in _DIVIDES and _divides(values[column])), None)
    rest = [column for column in columns if column not in (text, split, *gold, *asked)]
    # rows are grouped by columns of several values, each of several rows
    meta = [column for column in rest if 2 <= len(set(map(as_text, values[column]))) <= 0.6 * len(sample)]
    made = Layout(text, asked, gold, meta, worked, split=split)
    shown = [as_text(value) for value in values[text]]
    if shown and sum(len(value.split()) <= 1 for value in shown) >= 0.98 * len(shown):
        made.sentence = [c for c in columns if "sent" in key_of(c) or re.search(r"(idx|id|index)$", key_of(c))]
        made.meta = []
    elif len(sample) >= 20:
        made.prefix, made.suffix = _common(shown)
    return made


def _divides(cells: Sequence[Any]) -> bool:
    """Whether a column tells splits: a fold may be a number, and a set the name of one."""
    filled = [text for text in map(as_text, cells) if text.strip()]
    return bool(filled) and sum(split_named(text) is not None for text in filled) >= 0.9 * len(filled)


def _asks(whose: Sequence[Any], texts: Sequence[Any]) -> bool:
    """Whether a company belongs to what is asked: one text stands beside several. Else it says whose text it is."""
    both = {(as_text(text), as_text(who).strip()) for text, who in zip(texts, whose, strict=True)}
    return len(both) > len({text for text, _ in both})


def _text_column(keys: dict[str, Any], values: dict[Any, list[Any]]) -> Any:
    for key in _TEXT:
        found = values[keys[key]] if key in keys else []
        filled = sum(isinstance(value, str | list) and bool(as_text(value).strip()) for value in found)
        if found and filled >= 0.5 * len(found):
            return keys[key]
    lengths = {
        column: sum(len(as_text(value).split()) for value in found) / len(found)
        for column, found in values.items()
        if any(isinstance(value, str) for value in found)
    }
    best = max(lengths, key=lengths.__getitem__, default=None)
    return best if best is not None and lengths[best] >= 3 else None


def _gold_columns(keys: dict[str, Any], values: dict[Any, list[Any]], text: Any) -> list[Any]:
    names = [keys[key] for key in ANSWERS if key in keys and keys[key] != text]
    said = [keys[key] for key in ("score", "sentimentscore", "sentiment", "sentimentlabel", "polarity") if key in keys]
    if names and key_of(names[0]) == "target" and said:
        return said[:1]  # the target is who is spoken about, as in FiQA
    if names:
        return names[:1]
    ended = [column for key, column in keys.items() if key.endswith(_GOLD_ENDS) and column != text]
    if ended:
        return ended[:1]
    # one yes/no column for each question, as in the gold headlines
    return [c for c, found in values.items() if c != text and {str(v) for v in found} <= {"0", "1", "True", "False"}]


def as_text(value: Any) -> str:
    """A cell as text; tokens are joined by blanks."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return " ".join(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    return str(value)


_NUMBER = re.compile(r"[-+]?\$?(?:\d{1,3}(?:,\d{2})*(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


def canonical(value: Any) -> str:
    """An answer so written that equal ones are equal: 5, 5.0 and "5" are "5"; case and spaces do not count."""
    if isinstance(value, str):
        text = " ".join(value.split()).casefold()
        if text[:1] in ("[", "{") and len(text) < 5000:
            try:
                return canonical(ast.literal_eval(value.strip()))
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return text
        if _NUMBER.fullmatch(text) and not re.fullmatch(r"0\d+", text):
            return _plain(float(text.replace(",", "").replace("$", "")), text)
        return text
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        try:
            return _plain(float(value), str(value))
        except (OverflowError, ValueError):  # an integer beyond every float, or of more digits than Python writes
            return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        for key in ("sentiment_score", "score", "label", "text"):
            if key in value:
                return canonical(value[key])
        return json.dumps({str(key): canonical(part) for key, part in sorted(value.items(), key=str)})
    if isinstance(value, list | tuple):
        return " | ".join(map(canonical, value)) if value else "[]"  # no entity is an answer
    return str(value).casefold()


def _plain(number: float, written: str) -> str:
    """A number in one spelling; what no float holds (1e400, NaN) is "inf", "-inf" or "nan"."""
    if not math.isfinite(number):
        return repr(number)
    if number == 0 and re.search("[1-9]", written.partition("e")[0]):
        return written  # 1e-400 is not 0
    return str(int(number)) if abs(number) < 1e15 and number.is_integer() else repr(number)


_MARKS = re.compile(r"\[/?INST\]|<\|[^|<>]{1,40}\|>|</?s>|^#{1,4}[ \t]*", re.MULTILINE)
_TAIL = re.compile(r"(?:\n|\.\s|\s)(?:your )?(?:answer|output|response|label|sentiment)\s*:\s*$", re.IGNORECASE)
_INPUT = re.compile(
    r"^(?:input|input text|text|sentence|tweet|news|headline|passage|statement)\s*:[ \t]*", re.IGNORECASE | re.MULTILINE
)
_QUESTION = re.compile(r"(?:^|[\s.,;])question\s*:[ \t]*", re.IGNORECASE)
_AFTER = re.compile(r"\n[\w ]{0,40}context\s*:[ \t]*\n?", re.IGNORECASE)


def unwrap(text: str, prefix: str = "", suffix: str = "") -> tuple[str, str]:
    """(the text asked about, the words around it) of a prompt; a plain text is itself and ""."""
    stripped = text.removeprefix(prefix).removesuffix(suffix)
    bare = _TAIL.sub("", _MARKS.sub("", text)).strip() if ":" in text or "[" in text or "<" in text else text.strip()
    found = next(reversed(list(_INPUT.finditer(bare))), None)
    if found and found.start() > 0:
        return bare[found.end() :].strip(), bare[: found.start()].strip()
    asked = _QUESTION.search(bare)
    if asked:
        question = bare[asked.end() :].strip()
        if pages := _AFTER.search(question):
            return question[pages.end() :].strip(), f"{bare[: asked.start()]} {question[: pages.start()]}".strip()
        if question:
            return question, bare[: asked.start()].strip()
    if stripped != text and stripped.strip():
        return stripped.strip(), f"{prefix}{suffix}".strip()
    return bare, ""


def _common(texts: list[str]) -> tuple[str, str]:
    """What all prompts of a file start and end with, up to a word's end; "" if it is short."""
    distinct = list(set(texts))
    if len(distinct) < 10:
        return "", ""
    prefix = commonprefix(distinct)  # noqa: RUF071 (of characters)
    prefix = prefix[: max(prefix.rfind(" "), prefix.rfind("\n")) + 1]
    suffix = commonprefix([text[::-1] for text in distinct])[::-1]  # noqa: RUF071
    at = min((i for i in (suffix.find(" "), suffix.find("\n"), suffix.find(".")) if i >= 0), default=-1)
    suffix = suffix[at:] if at >= 0 else ""
    return (prefix if len(prefix) >= 15 else ""), (suffix if len(suffix.strip()) >= 6 else "")


_QUOTED = re.compile(r"(?<!\w)['\"“‘]([^'\"\n]{2,80}?)['\"”’](?!\w)")
_OPTIONS = re.compile(r"(?im)^(?:options|choices)\s*:(.*)$")


def _template(ask: str, body: str) -> tuple[str, str]:
    """(the instruction without what it quotes of the text, the quoted parts). The order of options does not count."""
    if not ask.strip():
        return "", ""
    low = body.casefold()
    slots = [quoted for quoted in _QUOTED.findall(ask) if quoted.casefold() in low]
    for quoted in slots:
        ask = ask.replace(quoted, "…")
    ask = _OPTIONS.sub(lambda found: "options " + ", ".join(sorted(p.strip() for p in found[1].split(","))), ask)
    return ask.strip(), " | ".join(slots)


def _of_chat(turns: Any) -> tuple[str, str, str]:
    """(what comes before, the user's last turn, the assistant's last turn) of a conversation."""
    said = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    spoken = [
        (key_of(str(turn.get("role", turn.get("from")))), as_text(turn.get("content", turn.get("value"))))
        for turn in said
    ]
    users = [text for role, text in spoken if role in ("user", "human")]
    others = [text for role, text in spoken if role in ("assistant", "gpt", "model", "bot")]
    system = [text for role, text in spoken if role == "system"]
    return "\n".join([*system, *users[:-1]]), users[-1] if users else "", canonical(others[-1] if others else "")
