"""Scoring of answers that should be one of a fixed set of labels. Standard library only.

Strict is the main number. The first line of the answer must *lead* with exactly one label, as a whole word,
perhaps after "The sentiment is" or "Answer:"; nothing but punctuation (or "sentiment", "tone") may follow the
label directly, and no second label may appear in that line. "positive", "Positive.", "**positive**", "The
sentiment is positive" and "Positive, because sales rose" are answers; "not positive", "positive or neutral", "I
cannot say whether it is positive" and "" are not. Lenient takes the only label that occurs anywhere in the answer
as a whole word and is not negated. Neither ever falls back to a default label, and the label set comes from the
task, never from the gold column.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_LEAD = re.compile(
    r"(?:(?:the|this|its?)\s+)?(?:(?:overall|final|correct|best)\s+)?"
    r"(?:answer|label|sentiment|tone|class|category)[*_]*\s*(?:(?:here|of (?:this|the) \w+)\s+)?(?:is|:|=|-)\s*:?\s*"
)
_TRIM = " \t\r\n\"'`*_#>([{<“”‘’«»:.-"
_TAIL = re.compile(r"(?:\s+(?:sentiment|tone|outlook|label|answer))?\s*(?:$|[.,;:!)\]}>\"'`*_”’»–—-])")
# A negation reaches the label through a few words of its own sentence.
_NEGATION = re.compile(
    r"(?:\b(?:not|never|neither|nor|without|hardly|cannot|non|(?:ca|is|are|was|were|do|does|did|would|could)nt)\b|n['’]t\b)"
    r"(?:[^\w.!?]+\w+){0,6}[^\w.!?]*$"
)
_NO = re.compile(r"\b(?:no|nothing|none)\b(?:[^\w.!?]+\w+){0,6}[^\w.!?]*$")
_REACH = 200  # characters before a label in which its negation is looked for; bounds the time of a long answer


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _pattern(labels: Sequence[str]) -> re.Pattern[str]:
    """Whole-word alternation, longest label first, so that a label inside a longer one is not seen twice."""
    words = sorted({_plain(label) for label in labels}, key=len, reverse=True)
    inner = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words)
    # "_" is markdown, no letter; a hyphenated word is another word
    return re.compile(r"(?<![^\W_])(?<![^\W_]-)(?:" + inner + r")(?![^\W_]|-\w)")


def _canonical(found: str, labels: Sequence[str]) -> str:
    squeezed = " ".join(found.split())
    return next(label for label in labels if " ".join(_plain(label).split()) == squeezed)


def parse(answer: str, labels: Sequence[str]) -> str | None:
    """The label that the first line of ``answer`` leads with, or None (see the module's text)."""
    lines = answer.strip().splitlines()
    if not lines:
        return None
    line = _plain(lines[0]).lstrip(_TRIM)
    lead = _LEAD.match(line)
    line = line[lead.end() :].lstrip(_TRIM) if lead else line
    found = list(_pattern(labels).finditer(line))
    names = {_canonical(match.group(), labels) for match in found}
    if not found or found[0].start() != 0 or len(names) != 1 or not _TAIL.match(line, found[0].end()):
        return None
    return names.pop()


def parse_lenient(answer: str, labels: Sequence[str]) -> str | None:
    """The only label that occurs in ``answer`` as a whole word and un-negated, or None."""
    text = _plain(answer)
    names = set()
    for match in _pattern(labels).finditer(text):
        before = text[max(0, match.start() - _REACH) : match.start()]
        if _NEGATION.search(before) or ("no" not in map(_plain, labels) and _NO.search(before)):
            return None
        names.add(_canonical(match.group(), labels))
        if len(names) > 1:
            return None
    return names.pop() if len(names) == 1 else None


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` for a generated answer. ``doc`` has ``label`` and ``choices``."""
    labels = tuple(doc["choices"])
    strict, lenient = parse(results[0], labels), parse_lenient(results[0], labels)
    lenient = strict if lenient is None else lenient
    return {
        "macro_f1": (doc["label"], strict, labels),
        "acc": float(strict == doc["label"]),
        "macro_f1_lenient": (doc["label"], lenient, labels),
        "acc_lenient": float(lenient == doc["label"]),
        "parse_rate": float(strict is not None),
    }


def score_choice(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """lm-eval ``process_results`` for log-likelihoods of the labels, in the order of ``choices``.

    The first of tied labels wins. A log-likelihood that is not a number stops the run: argmax of NaN would be
    the first label, which looks like an answer.
    """
    labels = tuple(doc["choices"])
    scores = [float(loglikelihood) for loglikelihood, _ in results]
    if not all(math.isfinite(value) for value in scores):
        raise ValueError(f"log-likelihoods of the labels are not finite: {scores}")
    best = labels[scores.index(max(scores))]
    return {"macro_f1": (doc["label"], best, labels), "acc": float(best == doc["label"])}


def score_question(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` for a Yes/No question about a headline. ``doc`` has ``attribute`` too."""
    labels = tuple(doc["choices"])
    strict, lenient = parse(results[0], labels), parse_lenient(results[0], labels)
    lenient = strict if lenient is None else lenient
    return {
        "question_f1": (doc["attribute"], doc["label"], strict),
        "acc": float(strict == doc["label"]),
        "question_f1_lenient": (doc["attribute"], doc["label"], lenient),
        "acc_lenient": float(lenient == doc["label"]),
        "parse_rate": float(strict is not None),
    }


def macro_f1(items: Sequence[tuple[str, str | None, Sequence[str]]]) -> float:
    """Mean F1 over the fixed label set; items are (gold, predicted or None, labels).

    An unparsed answer is a miss for its gold label and no false alarm for another; a label that is neither gold
    nor predicted counts 0, as in scikit-learn with ``labels=`` and ``zero_division=0``.
    """
    labels = items[0][2]
    total = 0.0
    for label in labels:
        hits = sum(gold == label == predicted for gold, predicted, _ in items)
        sizes = sum((gold == label) + (predicted == label) for gold, predicted, _ in items)
        total += 2 * hits / sizes if sizes else 0.0
    return total / len(labels)


def question_f1(items: Sequence[tuple[str, str, str | None]]) -> float:
    """Mean over the questions of the F1 of "Yes"; items are (question, gold, predicted or None). Never pooled."""
    by_question: dict[str, tuple[int, int]] = {}
    for question, gold, predicted in items:
        hit, size = by_question.get(question, (0, 0))
        by_question[question] = (
            hit + (gold == predicted == "Yes"),
            size + (gold == "Yes") + (predicted == "Yes"),
        )
    return sum(2 * hit / size if size else 0.0 for hit, size in by_question.values()) / len(by_question)
