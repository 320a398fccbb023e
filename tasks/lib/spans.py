"""Scoring of answers that list entities as JSON: ``[{"text": "...", "type": "..."}, ...]``. Standard library only.

Strict: by the rules of ``answers.py`` the answer is such a list, with these two keys and types from the task's set in
any case. A code fence, a line or lead that announces the list, an object around it ({"entities": [...]}) and what
follows in later lines are no part of it; a second list is a second answer. Lenient: any words around the list are
ignored, keys may have company, "entity" may stand for "text", entries of an unknown type are dropped. A key given
twice, a list that is cut off and thinking that does not end are no answer.

Entities are compared as (text, type) pairs with their multiplicity, so naming one twice costs a false alarm. Where the
gold entities have a ``start`` (offset of token or character), mentions of one text are matched with it in the order of
the sentence: of "Apple" the fruit and then the firm, the firm and then the fruit is one hit, not two. Where no text
occurs twice in a sentence that is exact-span F1 as ``seqeval`` computes it from IOB2 tags.
"""

import collections
import itertools
import json
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

answers: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("answers.py"))))

Pairs = list[tuple[str, str]]
Counts = tuple[int, int, int]  # true positives, false positives, false negatives

_TRIES = 30  # opening brackets at which a list is looked for; bounds the time of a hostile answer
_MENTIONS = 100  # of one text whose order counts; more than a sentence has


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


_ENTRY = re.compile(r"[\[{]\s*\"|\[\s*[\]{]")  # what a second list or object begins with
_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins)


def _listed(answer: str) -> Any:
    """The only JSON of ``answer``, if nothing but dress, an announcement and a reason stand around it; or None."""
    text, place = answers.structure(answer)
    try:
        value, end = _DECODER.raw_decode(text, place) if place >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return None
    own, _, later = text[end:].partition("\n")
    own = answers.undressed(own.strip().lstrip("`*_~"))
    if not answers.may_follow(own) or _ENTRY.search(own) or _ENTRY.search(later):
        return None
    if any(map(answers.taken_back, later.splitlines()[:_TRIES])):
        return None
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def parse(answer: str, types: Sequence[str]) -> Pairs | None:
    """The (text, type) pairs of a strictly well-formed answer, or None."""
    value = _listed(answer)
    if not isinstance(value, list):
        return None
    by_case = {kind.casefold(): kind for kind in types}
    pairs = []
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"text", "type"}:
            return None
        kind = by_case.get(entry["type"].casefold()) if isinstance(entry["type"], str) else None
        if not isinstance(entry["text"], str) or kind is None:
            return None
        pairs.append((entry["text"], kind))
    return pairs


def parse_lenient(answer: str, types: Sequence[str]) -> Pairs | None:
    """The (text, type) pairs that can be read from the first JSON list in the answer, or None.

    A list of which nothing can be read is no answer: only an empty one says that there are no entities.
    """
    value, said = None, answers.said(answer)
    for match in itertools.islice(re.finditer(r"\[", said), _TRIES):
        try:
            value, _ = _DECODER.raw_decode(said, match.start())
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
        if isinstance(entry, dict):
            text, said_kind = entry.get("text", entry.get("entity")), entry.get("type")
            kind = by_case.get(said_kind.strip().casefold()) if isinstance(said_kind, str) else None
            if isinstance(text, str) and kind:
                pairs.append((text.strip(), kind))
    return pairs if pairs or not value else None


def _in_order(want: Sequence[str], have: Sequence[str]) -> collections.Counter[str]:
    """How many of each type match in order: a longest common subsequence of the types of one text's mentions."""
    best = [collections.Counter[str]()] * (len(have) + 1)
    for kind in want:
        row = [best[0]]
        for place, other in enumerate(have):
            row.append(
                best[place] + collections.Counter((kind,))
                if kind == other
                else max(row[place], best[place + 1], key=lambda counts: counts.total())
            )
        best = row
    return best[-1]


def _hits(entities: Sequence[Mapping[str, Any]], predicted: Pairs) -> collections.Counter[str]:
    """True positives of each type."""
    gold = [(entity["text"], entity["type"]) for entity in entities]
    both = collections.Counter(gold) & collections.Counter(predicted)
    if all(entity.get("start") is not None for entity in entities):
        gold = [gold[place] for place in sorted(range(len(gold)), key=lambda place: entities[place]["start"])]
        # order matters only to a text that occurs with more than one type
        twice = {text for text, count in collections.Counter(text for text, _ in both).items() if count > 1}
    else:
        twice = set()
    hits = collections.Counter[str]()
    for (text, kind), count in both.items():
        hits[kind] += count if text not in twice else 0
    for text in sorted(twice):
        want, have = ([kind for name, kind in pairs if name == text][:_MENTIONS] for pairs in (gold, predicted))
        hits.update(_in_order(want, have))
    return hits


def _counts(entities: Sequence[Mapping[str, Any]], predicted: Pairs | None, types: Sequence[str]) -> tuple[Counts, ...]:
    """(true positives, false positives, false negatives) of each type, in the order of ``types``."""
    hits = _hits(entities, predicted or [])
    want = collections.Counter(entity["type"] for entity in entities)
    if unknown := set(want) - set(types):
        raise ValueError(f"gold entities of a type that is none of {', '.join(types)}: {', '.join(sorted(unknown))}")
    have = collections.Counter(kind for _, kind in predicted or [])
    return tuple((hits[kind], have[kind] - hits[kind], want[kind] - hits[kind]) for kind in types)


def target(doc: Mapping[str, Any]) -> str:
    """The gold answer as the model should write it."""
    return json.dumps([{"text": e["text"], "type": e["type"]} for e in doc["entities"]], ensure_ascii=False)


def _total(counts: Sequence[Counts]) -> Counts:
    hits, wrong, missed = (sum(column) for column in zip(*counts, strict=True))
    return hits, wrong, missed


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results``. ``doc`` has ``entities`` (text, type, perhaps start) and ``choices`` (the types)."""
    types = tuple(doc["choices"])
    strict = parse(results[0], types)
    lenient = strict if strict is not None else parse_lenient(results[0], types)
    read: dict[str, Any] = {}
    for suffix, pairs in (("", strict), ("_lenient", lenient)):
        counts = _counts(doc["entities"], pairs, types)
        read[f"span_f1{suffix}"] = _total(counts)
        read[f"span_macro_f1{suffix}"] = counts
        read[f"exact_match{suffix}"] = float(pairs is not None and not any(_total(counts)[1:]))
    return {**read, "parse_rate": float(strict is not None)}


def _f1(counts: Counts) -> float:
    hits, wrong, missed = counts
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


def span_f1(items: Sequence[Counts]) -> float:
    """Micro F1 over entities; items are (true positives, false positives, false negatives) of a document."""
    return _f1(_total(items))


def span_macro_f1(items: Sequence[Sequence[Counts]]) -> float:
    """Mean over the types of the F1 of each; items are a document's counts of each type, in one order.

    A type that is neither gold nor predicted counts 0, as in ``labels.macro_f1``; ``seqeval`` leaves it out.
    """
    each = [_f1(_total(counts)) for counts in zip(*items, strict=True)]
    return sum(each) / len(each)
