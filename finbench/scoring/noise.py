"""Noise for the texts of a test: transformations with a rule for the answer, drawn by a seed and the text itself.

A rule is ``same``: the answer stays; or ``flipped``: positive and negative change places. Where a transformation finds
nothing in a text to change, or the rule would not be sure of the answer, the row is dropped. One is no noise: under
``content-free`` nothing is left to read (rule ``none``), so that an answer is what a subject prefers before it reads.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError, unknown
from finbench.core.records import Task

CHOICES = {"agreement": ("fpb", ("50", "66", "75", "100"))}  # what may be chosen of a data set, and of which
SPLITS = ("test", "validation", "train")
OF_EVERY = ("noise", "split")  # what may be chosen of the rows of every task, and is never ranked
_WORD = re.compile(r"[A-Za-z]{4,}")
_TYPOS, _MISREAD = 0.1, 0.1  # share of longer words with a slip, of letters that look alike that are misread
_LOOKALIKES = {"l": "1", "I": "l", "o": "0", "O": "0", "e": "c", "m": "rn", "S": "5", "B": "8", "h": "b", "t": "f"}
_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w]|[.,]\d)|(?<![\w.,])\d+\.\d+(?![\w]|[.,]\d)")
_YEAR = re.compile(
    r"(?<![\d.,$€£])(?<!EUR )(?<!USD )\b(?:19[5-9]\d|20[0-4]\d)\b(?![\d%]|[.,]\d| (?:per cent|percent|million|mn))"
)
_FORMS = r"Oyj|Oy|Abp|Plc|PLC|plc|Corp|Corporation|Inc|Ltd|Limited|Group|Holdings|AG|ASA|AB|SA|NV|GmbH"
_COMPANY = re.compile(
    rf"\b(?!The |In |A |At |By |For |Of )([A-Z][\w&'-]+(?: [A-Z][\w&'-]+){{0,2}}?) (?=(?:{_FORMS})\b)"
)
_TICKER = re.compile(r"\$[A-Z]{1,5}\b")
_NAMES = (
    "Norvane",
    "Quellmar",
    "Brastow",
    "Tindrel",
    "Velmoor",
    "Karsund",
    "Pellwick",
    "Drenholm",
    "Sarvund",
    "Lundrow",
)
_UP = {"rose": "rise", "increased": "increase", "grew": "grow", "climbed": "climb", "improved": "improve"}
_DOWN = {
    "fell": "fall",
    "decreased": "decrease",
    "declined": "decline",
    "dropped": "drop",
    "deteriorated": "deteriorate",
}
_OTHER = dict(zip(_UP, _DOWN, strict=True)) | dict(zip(_DOWN, _UP, strict=True))
_VERB = re.compile(rf"\b(?:{'|'.join(_OTHER)})\b")
# beside one of these a sentence has a second direction, or none, or figures that say it too: "rose less than",
# "although", "rose to 8.1 from 7.9"
_TURNS = re.compile(
    r"\b(?:from|compared|against|versus|up|down|high\w*|low\w*|more|less|better|worse|but|while|although|though|despite|however|not|n't|never|loss\w*|"
    r"increas\w+|decreas\w+|ris(?:e|es|ing)|fall\w*|gr(?:ow|owing|owth)|declin\w+|drop\w*|improv\w+|"
    r"deteriorat\w+|climb\w*|narrow\w*|widen\w*|reduc\w+|weak\w*|strong\w*|boost\w*|cut\w*|gain\w*)\b",
    re.IGNORECASE,
)


class NotReached(FinbenchError):
    """A noise that changes no row of a task, or that has no rule for its answers."""


Change = Callable[[str, random.Random], str]


@dataclass(frozen=True)
class Noise:
    """A transformation, its rule, and what it does, in words."""

    rule: str
    change: Change
    said: str


def _typos(text: str, rng: random.Random) -> str:
    def slip(match: re.Match[str]) -> str:
        word = match.group()
        if rng.random() >= _TYPOS:
            return word
        at = rng.randrange(1, len(word) - 1)  # the first letter is seldom wrong
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return rng.choice([swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]])

    return _at_least_once(text, rng, lambda: _WORD.sub(slip, text))


def _misread(text: str, rng: random.Random) -> str:
    def read(letter: str) -> str:
        return _LOOKALIKES[letter] if letter in _LOOKALIKES and rng.random() < _MISREAD else letter

    return _at_least_once(text, rng, lambda: "".join(map(read, text)))


def _at_least_once(text: str, rng: random.Random, drawn: Callable[[], str]) -> str:
    """A change that may leave a text as it is, drawn until it does not; 50 times, then there is nothing to change."""
    return next((made for made in (drawn() for _ in range(50)) if made != text), text)


def _european(text: str, rng: random.Random) -> str:
    return _NUMBER.sub(lambda match: match.group().translate(str.maketrans(",.", ".,")), text)


def _later(text: str, rng: random.Random) -> str:
    years = rng.randint(3, 12)
    return _YEAR.sub(lambda match: str(int(match.group()) + years), text)


def _renamed(text: str, rng: random.Random) -> str:
    names = list(_NAMES)
    rng.shuffle(names)
    found = dict.fromkeys(match.group(1) for match in _COMPANY.finditer(text))
    for number, own in enumerate(found):
        text = re.sub(rf"\b{re.escape(own)}\b", names[number % len(names)], text)
    tickers = dict.fromkeys(_TICKER.findall(text))
    for number, own in enumerate(tickers):
        text = re.sub(rf"{re.escape(own)}\b", f"${names[-1 - number % len(names)][:4].upper()}", text)
    return text


def _one_verb(text: str) -> re.Match[str] | None:
    """The only word of direction in a text; None where there are several, or something that may turn it."""
    verbs = list(_VERB.finditer(text))
    if len(verbs) != 1 or _TURNS.search(text[: verbs[0].start()] + " | " + text[verbs[0].end() :]):
        return None
    return verbs[0]


def _opposite(text: str, rng: random.Random) -> str:
    verb = _one_verb(text)
    return text if verb is None else text[: verb.start()] + _OTHER[verb.group()] + text[verb.end() :]


def _negated(text: str, rng: random.Random) -> str:
    verb = _one_verb(text)
    if verb is None:
        return text
    said = f"did not {(_UP | _DOWN)[verb.group()]} but {_OTHER[verb.group()]}"
    return text[: verb.start()] + said + text[verb.end() :]


NOISES = {
    "typos": Noise("same", _typos, "slips in every tenth longer word: letters swapped, left out, doubled"),
    "lower": Noise("same", lambda text, _: text.lower(), "everything in lower case"),
    "upper": Noise("same", lambda text, _: text.upper(), "everything in capitals"),
    "ocr": Noise("same", _misread, "letters read as others that look alike: l as 1, m as rn, e as c"),
    "numbers": Noise("same", _european, "1,234.5 written 1.234,5"),
    "names": Noise("same", _renamed, "companies and tickers replaced by invented ones"),
    "dates": Noise("same", _later, "years moved by 3 to 12, all of a text alike"),
    "opposite": Noise("flipped", _opposite, "rose for fell and so on, where it is the only direction in the sentence"),
    "negation": Noise("flipped", _negated, '"rose" becomes "did not rise but fell", in the same sentences'),
}
FLIPPED = {"positive": "negative", "negative": "positive"}  # the opposite of a label; others have none
_ROW = "noise_of"  # key of a row: the number of the row that it was made of
_WITHIN = {"entity", "entities", "options", "question"}  # columns that quote a text, or ask for a part of it
CONTENT_FREE = "content-free"
_EMPTY = ("N/A", "[MASK]", "")  # inputs without content, as Zhao et al. (2021) averaged over them
_EVERY = NOISES | {
    CONTENT_FREE: Noise(
        "none", lambda text, rng: rng.choice(_EMPTY), "a text without content, for contextual calibration"
    )
}


def several(stated: str) -> list[str]:
    """The noises that ``--metadata noise=`` names: by comma, or ``all``, perhaps with one seed for all: ``all@7``."""
    name, at, seed = stated.partition("@")
    names = [f"{one}{at}{seed}" for one in NOISES] if name == "all" else [one.strip() for one in stated.split(",")]
    for one in names:
        named(one)
    return list(dict.fromkeys(names))


def checked(tasks: Iterable[Task], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``--metadata`` by lm-eval's names. A choice or value that is unknown, or that no task has, is a FinbenchError."""
    stated = {}
    for name, value in metadata.items():
        short = name.removeprefix("finbench_")
        if short not in (*CHOICES, *OF_EVERY):
            raise unknown("choice", name, (*CHOICES, *OF_EVERY), "finbench eval --help")
        if short in CHOICES and not any(getattr(task, short) is not None for task in tasks):
            raise FinbenchError(f"No task here has a choice of {short}.", f"It is one of {CHOICES[short][0]}.")
        if short == "noise":
            several(str(value))
        elif str(value) not in (values := SPLITS if short == "split" else CHOICES[short][1]):
            said = f"{', '.join(values[:-1])} or {values[-1]}"
            raise FinbenchError(
                f"Unknown {short} {str(value)!r}: it is {said}.", f"Like this: --metadata {short}={values[0]}"
            )
        stated[f"finbench_{short}"] = value
    return stated


def named(stated: str) -> tuple[Noise, int]:
    """A noise and its seed, from ``typos`` or ``typos@7``."""
    name, _, seed = stated.partition("@")
    if name not in _EVERY:
        raise unknown("noise", name, _EVERY, "docs/risk.md, or take all: --metadata noise=all")
    if seed and not seed.isdecimal():
        raise FinbenchError(f"noise={stated}: the seed {seed!r} is no number.", f"Write noise={name}@1.")
    return _EVERY[name], int(seed or 0)


def noisy(stated: str, rows: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """The rows under a noise, those that it does not reach left out. Rows of one text change alike.

    Raises NotReached for a task whose answer is no label, and where no row is left.
    """
    noise, seed = named(stated)
    first = rows[0] if rows else {}
    labelled = isinstance(first.get("label"), str) and isinstance(first.get("text"), str) and "choices" in first
    within = _WITHIN & first.keys()
    if noise.rule == "none":  # with nothing to read no answer can turn
        within -= {"entity"} | ({"question"} if "attribute" in first else set())  # one of nine quotes nothing
    if not labelled or within:
        raise NotReached(
            f"{task}: noise has a rule for the answer only where it is a label of the whole text.",
            "Name such a task: --tasks fpb, tfns_mc, fomc, numclaim",
        )
    if noise.rule == "flipped" and not set(FLIPPED) <= set(first["choices"]):
        raise NotReached(
            f"{task}: noise={stated} turns positive into negative, which are no labels of it.",
            "Name a task of sentiment: --tasks fpb, tfns_mc",
        )
    made = []
    for number, row in enumerate(rows):
        rng = random.Random(hashlib.sha256(f"{stated.partition('@')[0]}:{seed}:{row['text']}".encode()).digest())
        text, label = noise.change(row["text"], rng), row["label"]
        if noise.rule == "none" and "entity" in row:  # it is quoted from the text
            row = {**row, "entity": text}
        if text == row["text"] or (noise.rule == "flipped" and label not in FLIPPED):
            continue
        label = FLIPPED[label] if noise.rule == "flipped" else label
        # sources are those of the texts as they were
        group = row.get("group") or row["text"]
        made.append({**row, "text": text, "label": label, "group": group, _ROW: number})
    if not made:
        raise NotReached(f"{task}: noise={stated} changed no row.", f"It does: {noise.said}.")
    return made


def within(rows: Sequence[Mapping[str, Any]], limit: int) -> int:
    """How many of the rows were made of the first ``limit`` rows as they are; ``limit`` where there is no noise."""
    return sum(row[_ROW] < limit for row in rows) if rows and _ROW in rows[0] else limit


def row_of(doc: Mapping[str, Any]) -> dict[str, int]:
    """What a sample row says of the row that its document was made of."""
    return {"of": int(doc[_ROW])} if _ROW in doc else {}
