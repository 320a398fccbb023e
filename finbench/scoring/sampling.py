"""Several answers to one prompt: what each took, the reading that most agree on, and pass@k."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from finbench.core import paths
from finbench.core.seal import salted

_amounts = functools.cache(lambda: paths.helper("amounts"))


def row_of(generated: Any, sample: int | None, answer: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a sample row says beyond its values; ``sample``: its number where there are several."""
    row: dict[str, Any] = {
        "reasoning_tokens": generated.reasoning_tokens,
        "answer_tokens": generated.answer_tokens,
        "truncated": generated.truncated,
    }
    return row if sample is None else row | {"sample": sample, "reading": reading(answer, values)}


def reading(answer: str, values: Mapping[str, Any]) -> str:
    """What an answer says, as a hash; empty where it did not parse: equal readings vote together.

    The label that a scorer read, else a number however it is written, or the text without its dress and case.
    """
    if values.get("parse_rate", 1) == 0:
        return ""
    for value in values.values():
        match value:
            case [_, str(said), [*_]] | [str(_), str(_), str(said)]:
                return salted(said)[:16]
    if values.get("acc", values.get("exact_match")) == 1:
        return salted("right")[:16]  # right answers agree, in whatever words
    number = _amounts().number(answer)
    return salted(f"{number.scaled.normalize():f}" if number else _amounts().answers.plain(answer))[:16]


def hidden(values: Mapping[str, Any]) -> str | None:
    """The reading of an answer of which only a hash is there, as far as its values tell; None where they do not."""
    told = reading("?", values)
    return told if told in ("", salted("right")[:16]) or told != salted("?")[:16] else None


def as_given(row: Mapping[str, Any], wordings: Sequence[str]) -> list[Any] | None:
    """The answers of a sample row as an engine gave them; a hashed one is found among what models usually say."""
    if isinstance(row.get("answer"), list):
        return [(float(value), False) for value in row["answer"]]
    if "answer" in row:
        return [row["answer"]]
    wanted = str(row.get("answer_sha256"))
    for wording in wordings:
        for said in (wording, wording.capitalize(), wording.upper(), wording.lower()):
            for answer in (f"{before}{said}{after}" for before in ("", " ") for after in ("", ".", " ", "\n")):
                if salted(answer) == wanted:
                    return [answer]
    return [""] if salted("") == wanted else None


def vote(readings: Sequence[str], right: Sequence[float]) -> float:
    """Whether the commonest reading is right; of several that are as common, the share that is. Empty ones abstain."""
    counts = Counter(said for said in readings if said)
    if not counts:
        return 0.0
    most = max(counts.values())
    first = [readings.index(said) for said, count in counts.items() if count == most]
    return sum(right[at] for at in first) / len(first)


def pass_at(samples: int, right: int, k: int) -> float:
    """Unbiased estimate, from ``samples`` of which ``right`` are right, that one of ``k`` is (Chen et al. 2021)."""
    return 1 - comb(samples - right, k) / comb(samples, k)
