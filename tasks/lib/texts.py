"""Scoring of free text against a reference: exact match, and chrF of each answer, averaged; both from 0 to 1.

Exact match ignores spacing at the ends and runs of it, nothing else; lenient ignores case and a full stop at the end
too. chrF is sacrebleu's chrF2 (character 6-grams, beta 2; Popovic 2015), which measures words, not truth. Strict takes
the first line of an answer, lenient all of it. Thinking before "</think>" is no part of it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sacrebleu.metrics

_LONGEST = 20_000  # characters of an answer that are compared


@functools.cache
def _chrf() -> Any:
    return sacrebleu.metrics.CHRF()


def _said(answer: str) -> str:
    """The answer without the thinking before it; thinking that does not end is no answer."""
    _, end, said = answer.rpartition("</think>")
    said = said if end else "" if answer.lstrip().startswith("<think>") else answer
    return said.strip()[:_LONGEST]


def _plain(text: str) -> str:
    return text.casefold().rstrip(" .")


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer``."""
    gold, said = " ".join(doc["answer"].split()), _said(results[0])
    first, whole = " ".join(said.splitlines()[0].split()) if said else "", " ".join(said.split())
    near = {_plain(first), _plain(whole)} if said else set()
    found = {"exact_match": float(first == gold), "exact_match_lenient": float(_plain(gold) in near)}
    for suffix, text in (("", first), ("_lenient", whole)):
        found["chrf" + suffix] = _chrf().sentence_score(text, [gold]).score / 100 if text else 0.0
    return {**found, "parse_rate": float(bool(first))}
