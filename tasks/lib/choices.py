"""Scoring of multiple choice where every question has choices of its own. Standard library only.

``acc``: the choice of the highest log-likelihood. ``acc_norm``: the same after division by the choice's length in
characters, as lm-eval defines it. The first of tied choices wins. A log-likelihood that is not a number stops the
run: argmax of NaN would be the first choice, which looks like an answer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def _likelihoods(results: Sequence[tuple[float, bool]]) -> list[float]:
    scores = [float(loglikelihood) for loglikelihood, _ in results]
    if not all(math.isfinite(value) for value in scores):
        raise ValueError(f"log-likelihoods of the choices are not finite: {scores}")
    return scores


def _right(scores: Sequence[float], label: int) -> float:
    return float(scores.index(max(scores)) == label)


def score(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """lm-eval ``process_results``; ``doc`` has ``choices`` and ``label``, the number of the right one."""
    scores = _likelihoods(results)
    by_length = [value / max(1, len(choice)) for value, choice in zip(scores, doc["choices"], strict=True)]
    return {"acc": _right(scores, doc["label"]), "acc_norm": _right(by_length, doc["label"])}


def score_acc(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """lm-eval ``process_results`` where the choices are letters, or the contexts: ``acc`` alone."""
    return {"acc": _right(_likelihoods(results), doc["label"])}


def filled(doc: Mapping[str, Any]) -> list[str]:
    """WinoGrande's contexts: the sentence up to the blank, filled with each option (partial evaluation)."""
    before = doc["text"].partition("_")[0]
    return [before + choice for choice in doc["choices"]]


def rest(doc: Mapping[str, Any]) -> str:
    """WinoGrande's continuation: what stands after the blank."""
    return str(doc["text"].partition("_")[2].strip())


def label(doc: Mapping[str, Any]) -> int:
    """The number of the right context; lm-eval takes a number as the text for a task of several contexts."""
    return int(doc["label"])
