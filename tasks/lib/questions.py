"""Scores of yes/no questions about one text, several of which ask about each. Standard library only.

An answer is read as ``labels.py`` reads it. What is counted here is counted within the questions, for they differ in
how often Yes is right.
"""

import collections
import math
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

labels: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("labels.py"))))

Answered = tuple[str, str, str | None]  # question, gold, predicted or None

LEAST = 10  # positives of a question that has an F1 of its own


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` for a generated answer. ``doc`` has ``attribute``, ``label`` and ``choices``."""
    found: dict[str, Any] = labels.score_question(doc, results)
    return {"question_mcc": found["question_f1"], **found}


def score_choice(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """lm-eval ``process_results`` for log-likelihoods of "Yes" and "No", in the order of ``choices``."""
    found: dict[str, Any] = labels.score_question_choice(doc, results)
    return {"question_mcc": found["question_f1"], **found}


def question_f1_pooled(items: Sequence[Answered]) -> float:
    """Mean over the questions of the F1 of "Yes", those with few positives as one question.

    F1 of a question with a handful of positives moves in steps, and of one without any it does not exist. So those
    asked with fewer than ``LEAST`` positives count together, as one, and not at all where none of them has a positive.
    Where nothing has one, what is left is the share of right answers. A perfect model has 1 on any rows.
    """
    positives = collections.Counter(question for question, gold, _ in items if gold == "Yes")
    named = [(question if positives[question] >= LEAST else "", gold, said) for question, gold, said in items]
    pool = sum(count for count in positives.values() if count < LEAST)
    asked = [item for item in named if item[0] or pool]
    if not asked:
        return sum(gold == said for _, gold, said in items) / len(items)
    mean: float = labels.question_f1(asked)
    return mean


def question_mcc(items: Sequence[Answered]) -> float:
    """Matthews correlation within the questions: covariances and spreads of each are summed, never across questions.

    One constant answer to each question has 0, however many of its golds it hits, and a perfect model 1. A question
    whose golds are all alike adds nothing to the covariance; unparsed answers are one more predicted class.
    """
    by_question: dict[str, list[tuple[str, str | None]]] = {}
    for question, gold, said in items:
        by_question.setdefault(question, []).append((gold, said))
    covariance, spreads = 0.0, [0.0, 0.0]
    for pairs in by_question.values():
        counts = [collections.Counter(pair[side] for pair in pairs) for side in (0, 1)]
        right, n = sum(gold == said for gold, said in pairs), len(pairs)
        covariance += right - sum(count * counts[1][label] for label, count in counts[0].items()) / n
        own = [n - sum(count * count for count in side.values()) / n for side in counts]
        spreads = [spread + one for spread, one in zip(spreads, own, strict=True)]
    return covariance / math.sqrt(spreads[0] * spreads[1]) if all(spreads) else 0.0
