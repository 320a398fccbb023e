"""Sentiment: Financial PhraseBank, FiQA, Twitter Financial News, News With GPT Instructions."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .base import Item, Record, Row, Unit, coded, key_of, parted, text_of

LABELS = ("negative", "neutral", "positive")
LEVELS = (
    *("strong negative", "moderately negative", "mildly negative", "neutral"),
    *("mildly positive", "moderately positive", "strong positive"),
)
AGREEMENT = ("100", "75", "66", "50")  # per cent of the annotators, the strictest first


def agreement_in(name: str) -> str:
    """The agreement level in the authors' file name; 50 % is what every level has at least."""
    levels = {"allagree": "100", "75agree": "75", "66agree": "66", "50agree": "50"}
    return next((level for word, level in levels.items() if word in name), "50")


def fpb(records: Iterable[Record]) -> Iterator[Item]:
    """Financial PhraseBank: ``sentence`` and ``label`` (a word, or 0, 1, 2 in the order of LABELS)."""
    codes = dict(zip("012", LABELS, strict=True))
    for row, place, agreement in records:
        text, told = text_of(row, place, "sentence"), text_of(row, place, "label", "sentiment")
        label = coded(told, codes)
        if not label:
            yield f"{place}: the label is {', '.join(LABELS)}, found {told[:40]!r}"
        elif not text:
            yield f"{place}: the sentence is empty"
        else:
            made = {"text": text, "label": label, "agreement": agreement}
            yield Unit(text, label, [made], place, None, AGREEMENT.index(agreement or "50"))


def fiqa_label(score: float) -> str:
    """FiQA's score in [-1, 1] as a label: below -0.1 negative, from 0.1 positive, else neutral."""
    return "negative" if score < -0.1 else "neutral" if score < 0.1 else "positive"


def fiqa(records: Iterable[Record]) -> Iterator[Item]:
    """FiQA task 1: a sentence with an ``info`` for each target (the challenge), or a row for each target (the Hub).

    All entries are held in memory, for a row of the Hub is joined to others of its sentence (1,111 in all).
    A sentence about several targets is one row with the mean score, unless their labels differ: then no label of
    the whole sentence is right.
    """
    gathered: dict[tuple[str, str | None], tuple[str, str, list[Row]]] = {}
    for row, place, split in records:
        if "info" in row or ("_id" in row and "score" not in row):
            yield _fiqa_unit(row.get("sentence"), row.get("info"), None, place, split)
            continue
        text = text_of(row, place, "sentence")
        kind = text_of({"kind": "", **row}, place, "type", "format", "kind")
        score = text_of(row, place, "score", "sentiment_score")
        info = {"target": row.get("target"), "sentiment_score": score}
        gathered.setdefault((text, split), (place, kind, []))[2].append(info)
    for (text, split), (place, kind, infos) in gathered.items():
        yield _fiqa_unit(text, infos, kind, place, split)


def _score(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a score is a number, found a truth value")
    return float(value)


def _fiqa_unit(sentence: Any, infos: Any, kind: str | None, place: str, split: str | None) -> Unit | str:
    try:
        text = sentence.strip()
        scores = [_score(info["sentiment_score"]) for info in infos]
        targets = list(dict.fromkeys(str(info.get("target") or "").strip() for info in infos))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        return f"{place}: not a FiQA entry of sentence and info ({type(fault).__name__}: {fault})"
    if not text or not scores or not all(-1 <= score <= 1 for score in scores):
        return f"{place}: needs a sentence and scores between -1 and 1"
    labels = {fiqa_label(score) for score in scores}
    label = labels.pop() if len(labels) == 1 else None
    mean = round(math.fsum(scores) / len(scores), 6)
    told = kind.casefold() if kind else "post" if "post" in _file(place) or text.startswith("$") else "headline"
    made = {"text": text, "label": label, "score": mean, "kind": told, "targets": targets}
    return Unit(text, label, [made], place, split)


def _file(place: str) -> str:
    """The file's own name in a place such as ``folder/file.json: id 7`` or ``files.zip:folder/file.csv:12``."""
    file = re.sub(r":\d+$", "", place.partition(": ")[0])
    return re.split(r"[/\\:]", file)[-1].casefold()


def tfns(records: Iterable[Record]) -> Iterator[Item]:
    """Twitter Financial News Sentiment: ``text`` and ``label``; 0 bearish, 1 bullish, 2 neutral."""
    codes = {"0": "negative", "1": "positive", "2": "neutral"}
    for row, place, split in records:
        text, told = text_of(row, place, "text"), text_of(row, place, "label")
        label = codes.get(told.removesuffix(".0"))
        if label is None:
            yield f"{place}: the label is 0, 1 or 2, found {told[:40]!r}"
        elif not text:
            yield f"{place}: the text is empty"
        else:
            yield Unit(text, label, [{"text": text, "label": label}], place, split)


def _finlora_news(context: str) -> str:
    """The news in FinLoRA's prompt about seven labels; "" if it is not one."""
    found = parted(context, "Instruction: ", "{strong negative/", "}.", "\nInput: ")
    if found is None or found[0] or found[3].strip():
        return ""
    news, _, rest = found[4].rpartition("\nAnswer:")
    return "" if rest.strip() else news.strip()


def nwgi(records: Iterable[Record]) -> Iterator[Item]:
    """News With GPT Instructions: ``news`` and ``label`` (the Hub), or FinLoRA's prompts ``context``, ``target``.

    ``level3`` is FinGPT's mapping to three labels: mild is neutral.
    """
    for row, place, split in records:
        if key_of("context") in {key_of(name) for name in row}:
            text, told = _finlora_news(text_of(row, place, "context")), text_of(row, place, "target")
        else:
            text, told = text_of(row, place, "news"), text_of(row, place, "label")
        label = " ".join(told.casefold().split()).replace("strongly ", "strong ")
        if label not in LEVELS:
            yield f"{place}: the label is one of {', '.join(LEVELS)}, found {told[:40]!r}"
        elif not text:
            yield f"{place}: no news text is found"
        else:
            degree, _, sign = label.rpartition(" ")
            coarse = sign if degree in ("strong", "moderately") else "neutral"
            yield Unit(text, label, [{"text": text, "label": label, "level3": coarse}], place, split)
