"""Two scorers of FinLoRA's own rows side by side: a strict one, and what FinLoRA measured. Standard library only.

Strict (``acc``, ``macro_f1``, ``parse_rate``), by the rules of ``answers.py``: the answer leads with exactly one label
and names no other; a number equals the target as a number; a text equals it but for case, spacing and the final stop.

FinLoRA (``finlora_acc``, ``finlora_f1``; Wang et al. 2025, arXiv 2505.19819, written from a description of its test
script): the text after the last "Answer:" is the output; the labels are the targets of the whole test; the label that
occurs first in the lower-cased output, anywhere in it, is the prediction, and where none does the output itself is.
"know" contains "no", and no answer can be unparsed: these numbers serve comparison with the published ones only.
Theirs breaks ties at one position ("10" and "100") by the order of a Python set, which changes with the hash seed;
here the longest wins, so that a perfect answer is right (two different labels of one length cannot tie). The labels
are those of the items that are scored: with ``--limit`` there are fewer.
"""

import collections
import functools
import runpy
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

amounts: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("amounts.py"))))
answers = amounts.answers

Item = tuple[str, str]  # output after "Answer:", target

_INDEXED = 4  # characters by which labels are found; more makes the index larger and no faster


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _compared(amount: Any) -> tuple[Decimal, bool] | None:
    """(number, percent sign or not): 5% equals neither 5 nor 0.05."""
    return (amount.scaled, amount.kind == "percent") if amount else None


def score_labels(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """``score`` of a row whose ``choices`` are labels."""
    labels = tuple(doc["choices"])
    strict = answers.label(results[0], labels)
    return {
        "acc": float(strict == doc["target"]),
        "macro_f1": (doc["target"], strict, labels),
        "parse_rate": float(strict is not None),
        **_theirs(doc, results[0]),
    }


def score_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """``score`` of a row whose target is a number: equal as a number, "1,000" to "1000.0"."""
    gold, strict = _compared(amounts.plain_number(doc["target"])), _compared(amounts.number(results[0]))
    if gold is None:
        raise ValueError(f"the target is not a number: {doc['target']!r}")
    return {
        "acc": float(strict == gold),
        "parse_rate": float(strict is not None),
        **_theirs(doc, results[0]),
    }


def score_text(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """``score`` of a row whose target is a text: equal but for case, spacing and the final stop."""
    said, gold = (_plain(text).rstrip(".") for text in (answers.said(results[0]), doc["target"]))
    return {"acc": float(said == gold), "parse_rate": float(bool(said)), **_theirs(doc, results[0])}


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results``. ``doc`` has ``text`` (the prompt), ``target`` and ``choices``, labels or None.

    Aggregate ``macro_f1`` with ``lib.labels.macro_f1``; only rows with ``choices`` have it.
    """
    if doc.get("choices"):
        return score_labels(doc, results)
    return (score_text if amounts.plain_number(doc["target"]) is None else score_number)(doc, results)


def _theirs(doc: Mapping[str, Any], answer: str) -> dict[str, Item]:
    """The prompt is a part of the text that theirs splits; it ends in "Answer: " in all of their rows."""
    output = (doc["text"] + answer).rpartition("Answer:")[2].strip()
    return dict.fromkeys(("finlora_acc", "finlora_f1"), (output, doc["target"]))


def _predictions(items: Sequence[Item]) -> Iterator[tuple[str, str, bool]]:
    """(target, output, right) of each item, by FinLoRA's rule."""
    labels = {target.lower() for _, target in items if target}
    shortest = min((len(label) for label in labels), default=0)
    size = min(_INDEXED, shortest)
    index: dict[str, list[str]] = collections.defaultdict(list)
    for label in sorted(labels, key=lambda label: (-len(label), label)):
        index[label[:size]].append(label)

    @functools.cache
    def first(said: str) -> str | None:
        for start in range(len(said) - shortest + 1):
            for label in index.get(said[start : start + size], ()):
                if said.startswith(label, start):
                    return label
        return None

    for output, target in items:
        found = first(output.lower())
        yield target, output, (output == target if found is None else found == target.lower())


def finlora_acc(items: Sequence[Item]) -> float:
    """FinLoRA's accuracy; items are (output, target), the targets of all items being the label set."""
    return sum(right for _, _, right in _predictions(items)) / len(items)


def finlora_f1(items: Sequence[Item]) -> float:
    """FinLoRA's F1: that of each target, weighted by how often it is one; items as for ``finlora_acc``.

    A right item counts as its target, and a wrong one as its own raw output, which is a false alarm only where it
    happens to be a target. So it grows with the share of wrong outputs that are no labels: no F1 of the answers.
    """
    gold, predicted, hits = (collections.Counter[str]() for _ in range(3))
    for target, output, right in _predictions(items):
        gold[target] += 1
        predicted[target if right else output] += 1
        hits[target] += right
    return sum(count * 2 * hits[target] / (count + predicted[target]) for target, count in gold.items()) / len(items)
