"""Texts in sample rows that may not be published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.seal import leaves
from finbench.scoring import prompted

_KEYS = {"task", "index", "doc", "cluster", "values", "answer", "answer_sha256", "of"}
_HASHES = ("doc", "cluster", "answer_sha256", "reading")
_NUMBERS = {"year", "confidence", "sample", "reasoning_tokens", "answer_tokens", "truncated"}
_MOST = 10**9  # of a number beside an answer: a larger one could spell a text
LONGEST = 200  # characters of a name, or of one word: the longest XBRL tags have 150


def restricted(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts in sample rows that may not be published, a sentence for each kind of place.

    Of a restricted set a row holds labels, numbers and hashes: neither an answer in words nor any value that is not a
    label of the task. Of every set it holds the keys of a sample row and no others.
    """
    found: Counter[str] = Counter()
    for row in rows:
        found.update(f"samples[{row.get('task')}].{place}" for place in cardfiles.of_row(row, "texts", _texts))
    return [
        f"{where} holds text that may not be published ({count} row{'' if count == 1 else 's'})"
        for where, count in found.items()
    ]


def _texts(row: Mapping[str, Any]) -> list[str]:
    task = catalog.tasks().get(str(row.get("task")))
    closed = task is None or task.restricted
    labels = task.labels if task and task.labels else []
    return [*_places(row, labels if closed else None)]


def _places(row: Mapping[str, Any], labels: Collection[str] | None) -> Iterator[str]:
    """Places with text in a row; ``labels``: the only words that may stand in it, None where any may."""
    for key in sorted(row.keys() - _KEYS - {*_HASHES}):
        if key == "prompts" and isinstance(row[key], dict):  # by the name of each a row without its place in the set
            for name, part in row[key].items():
                if not re.fullmatch("[a-z]{1,20}", name) or not isinstance(part, dict):
                    yield key
                    continue
                own = {held: value for held, value in part.items() if held != "place" or value not in prompted.PLACES}
                yield from (f"{key}.{place}" for place in _places(own, labels))
        elif key not in _NUMBERS or not isinstance(row[key], int) or not -1 <= row[key] <= _MOST:
            yield key
    for key in _HASHES:
        if not isinstance(row.get(key, ""), str) or not re.fullmatch("[0-9a-f]{0,4096}", row.get(key, "")):
            yield key
    values = row.get("values")
    if not isinstance(values, dict):
        yield "values"
        return
    if labels is None:
        return
    if any(isinstance(leaf, str) for _, leaf in leaves(row.get("answer"))):
        yield "answer"
    for name, value in values.items():
        if isinstance(value, dict) and set(value) == {"sha256"} and re.fullmatch("[0-9a-f]{32}", str(value["sha256"])):
            continue
        words = [leaf for _, leaf in leaves(value) if isinstance(leaf, str)]
        words += [*value] if isinstance(value, dict) else []
        # tags and the names of questions are one word; a sentence is not
        if any(word not in labels and (re.search(r"\s", word) or len(word) > LONGEST) for word in words):
            yield f"values.{name}"
