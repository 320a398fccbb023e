"""Scoring of answers that list entities as JSON: ``[{"text": "...", "type": "..."}, ...]``. Standard library only.

Strict: the whole answer is such a list, with these two keys and types from the task's set. Lenient: a code fence or
words around the list are ignored, keys may have company, types match without case, entries of an unknown type
are dropped. Entities are compared as (text, type) pairs with their multiplicity, so naming one twice costs a
false alarm.
"""

import collections
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Pairs = list[tuple[str, str]]


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)


def _load(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError):
        return None


_TRIES = 100  # opening brackets at which a list is looked for; bounds the time of a hostile answer
_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins)


def parse(answer: str, types: Sequence[str]) -> Pairs | None:
    """The (text, type) pairs of a strictly well-formed answer, or None."""
    value = _load(answer.strip())
    if not isinstance(value, list):
        return None
    pairs = []
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"text", "type"}:
            return None
        if not isinstance(entry["text"], str) or entry["type"] not in types:
            return None
        pairs.append((entry["text"], entry["type"]))
    return pairs


def parse_lenient(answer: str, types: Sequence[str]) -> Pairs | None:
    """The (text, type) pairs that can be read from the first JSON list in the answer, or None."""
    value = None
    for match in itertools.islice(re.finditer(r"\[", answer), _TRIES):
        try:
            value, _ = _DECODER.raw_decode(answer, match.start())
            break
        except RecursionError:
            return None
        except ValueError:
            continue
    if not isinstance(value, list):
        return None
    by_case = {kind.casefold(): kind for kind in types}
    pairs = []
    for entry in value:
        if isinstance(entry, dict) and isinstance(entry.get("text"), str):
            kind = by_case.get(str(entry.get("type", "")).strip().casefold())
            if kind:
                pairs.append((entry["text"].strip(), kind))
    return pairs


def _counts(gold: Pairs, predicted: Pairs | None) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) of two multisets of pairs."""
    want, have = collections.Counter(gold), collections.Counter(predicted or [])
    hits = sum((want & have).values())
    return hits, sum(have.values()) - hits, sum(want.values()) - hits


def target(doc: Mapping[str, Any]) -> str:
    """The gold answer as the model should write it."""
    return json.dumps([{"text": e["text"], "type": e["type"]} for e in doc["entities"]], ensure_ascii=False)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results``. ``doc`` has ``entities`` (text, type) and ``choices`` (the types)."""
    gold = [(entity["text"], entity["type"]) for entity in doc["entities"]]
    types = tuple(doc["choices"])
    strict = parse(results[0], types)
    lenient = strict if strict is not None else parse_lenient(results[0], types)
    return {
        "span_f1": _counts(gold, strict),
        "exact_match": float(strict is not None and sorted(strict) == sorted(gold)),
        "span_f1_lenient": _counts(gold, lenient),
        "exact_match_lenient": float(lenient is not None and sorted(lenient) == sorted(gold)),
        "parse_rate": float(strict is not None),
    }


def span_f1(items: Sequence[tuple[int, int, int]]) -> float:
    """Micro F1 over entities; items are (true positives, false positives, false negatives) of a document."""
    hits, wrong, missed = (sum(column) for column in zip(*items, strict=True))
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0
