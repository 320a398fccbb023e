"""Scoring of answers that name the us-gaap tag of a figure in a sentence. Standard library only.

The prompt offers ``choices``, the answers of ten questions, the gold tag among them. Strict: by the rules of
``answers.py`` the answer is one of them, with or without the prefix ``us-gaap:``. Lenient: the only one of them that
the answer holds, in any case. Any other answer is a miss for its gold tag and no false alarm for another.
"""

import importlib.util
import math
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

answers: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("answers.py"))))

_WORD = re.compile(r"[A-Za-z0-9]+")
_LONGEST = 10_000  # characters of an answer that are looked at


def parse(answer: str, choices: Sequence[str]) -> str | None:
    """The choice that ``answer`` gives, or None."""
    found: str | None = answers.tag(answer, frozenset(choices), only=True)
    return found


def parse_lenient(answer: str, choices: Sequence[str]) -> str | None:
    """The only choice that occurs in ``answer`` as a whole word, in any case, or None."""
    known = {choice.casefold(): choice for choice in choices}
    text = answers.prefixed(answers.said(answer)[:_LONGEST])
    found = {known[word.casefold()] for word in _WORD.findall(text) if word.casefold() in known}
    return found.pop() if len(found) == 1 else None


def _counts(gold: str, predicted: str | None) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) of one figure, for micro F1."""
    hit = int(gold == predicted)
    return hit, int(predicted is not None) - hit, 1 - hit


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` for a generated tag. ``doc`` has ``label`` and ``choices``."""
    gold, choices = doc["label"], doc["choices"]
    strict = parse(results[0], choices)
    lenient = strict or parse_lenient(results[0], choices)
    return {
        "micro_f1": _counts(gold, strict),
        "macro_f1": (gold, strict),
        "acc": float(strict == gold),
        "micro_f1_lenient": _counts(gold, lenient),
        "macro_f1_lenient": (gold, lenient),
        "acc_lenient": float(lenient == gold),
        "parse_rate": float(strict is not None),
    }


def score_choice(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """lm-eval ``process_results`` for log-likelihoods of the ``choices``; the first of tied ones wins."""
    scores = [float(loglikelihood) for loglikelihood, _ in results]
    if not all(math.isfinite(value) for value in scores):
        raise ValueError(f"log-likelihoods of the tags are not finite: {scores}")
    best = doc["choices"][scores.index(max(scores))]
    gold = doc["label"]
    return {"micro_f1": _counts(gold, best), "macro_f1": (gold, best), "acc": float(best == gold)}


def gold_macro_f1(items: Sequence[tuple[str, str | None]]) -> float:
    """Mean F1 over the tags that are gold at least once; items are (gold, predicted or None).

    With thousands of tags most are neither gold nor predicted in a test set; they say nothing and are left out.
    """
    hits: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for gold, predicted in items:
        hits[gold] = hits.get(gold, 0) + (gold == predicted)
        sizes[gold] = sizes.get(gold, 0) + 1
        if predicted is not None:
            sizes[predicted] = sizes.get(predicted, 0) + 1
    return sum(2 * hit / sizes[tag] for tag, hit in hits.items()) / len(hits)


def load_all(**metadata: Any) -> dict[str, Any]:
    """lm-eval ``custom_dataset``: the rows of ``lib/rows.py``, and as choices of each every tag offered in the set."""
    spec = importlib.util.spec_from_file_location("finbench_rows", Path(__file__).with_name("rows.py"))
    assert spec is not None
    assert spec.loader is not None
    rows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rows)
    return with_all_choices(rows.load(**metadata))


def with_all_choices(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a set's splits with the choices of all rows as the choices of each row."""
    tags = sorted({choice for table in tables.values() if len(table) for own in table["choices"] for choice in own})
    whole = {split: table for split, table in tables.items() if len(table)}
    whole = {split: t.remove_columns("choices").add_column("choices", [tags] * len(t)) for split, t in whole.items()}
    return {**tables, **whole}
