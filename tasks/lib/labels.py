"""Scoring of answers that should be one of a fixed set of labels. Standard library only.

Strict is the main number, read by the rules of ``answers.py``: the answer leads with exactly one label, as a whole
word. "positive", "Positive.", "**positive**", "The sentiment is positive" and "Positive, because sales rose" are
answers; "not positive", "positive or neutral", "I cannot say whether it is positive" and "" are not. Lenient takes the
only label that occurs anywhere in the answer as a whole word and is not negated. Neither ever falls back to a default
label, and the label set comes from the task, never from the gold column. A label of several words counts only whole
("positive" is not "mildly positive", nor is "strongly positive" "strong positive"); of labels that begin alike the
longest that fits is meant; any sign, or none, may join its words ("in-claim" is "in claim", "IN_CLAIM"); a label that
is a number is not found inside another number ("10" in "100", "10.5", "-10" or "10%"); a label of one letter is read in
its own case ("a" is an article).
"""

import bisect
import collections
import math
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

answers: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("answers.py"))))

Item = tuple[str, str | None, Sequence[str]]  # gold, predicted or None, labels

_NEGATION = (
    r"\b(?:not|never|neither|nor|without|hardly|cannot|non|less|far from|anything but|rather than|instead of|"
    r"(?:ca|is|ai|are|was|were|do|does|did|would|could)nt)\b|n['’]t\b"
)
_NEGATIONS = re.compile(_NEGATION, re.IGNORECASE)
_NEGATIONS_AND_NO = re.compile(_NEGATION + r"|\b(?:no|nothing|none)\b", re.IGNORECASE)
_GAP = re.compile(r"(?:[^\w.!?]+\w+){0,6}[^\w.!?]*")  # through which a negation reaches a label: words of one sentence
_OPTION = re.compile(r"^\(?([A-Z])[.):] *(.*?\S)\.? *$", re.MULTILINE)
_REACH = 200  # characters of that gap at most; bounds the time of a long answer
_CUT_OFF = 2_000  # characters of a last line in which an option's text may be cut off


def _shortened(answer: str, options: str) -> str:
    """Letters without the texts of their own options, which may name other letters: "A. Class B shares", cut off too.

    ``options``: lines such as "A. Class B shares". A blank is enough between a letter and several words.
    """
    for letter, text in _OPTION.findall(options):
        wide = r"|[*_\"']{0,4}\s[\s*_\"'–-]{0,8}" if re.match(r"\w\w+ ", text) else ""
        before = rf"(?<![^\W_])({letter})(?:[*_\"']{{0,4}}[.):][\s*_\"'–-]{{0,9}}{wide})"
        answer = re.sub(rf"{before}(?i:{re.escape(text)})(?!\w)", r"\1", answer)
        start = answer.rfind("\n") + 1
        if len(answer) - start <= _CUT_OFF and (cut := re.search(before + r"(\w\w.{4,})$", answer[start:])):
            answer = answer[: start + cut.end(1)] if text.startswith(cut[2]) else answer
    return answer


def parse(answer: str, labels: Sequence[str]) -> str | None:
    """The label that ``answer`` gives, or None (see ``answers.py``)."""
    found: str | None = answers.label(answer, labels)
    return found


def parse_lenient(answer: str, labels: Sequence[str]) -> str | None:
    """The only label that occurs in ``answer`` as a whole word and un-negated, or None."""
    text = answers.key(answers.said(answer), labels)
    found = answers.named(text, labels)
    names = {name for _, name in found}
    denies = answers.denies(labels)
    if len(names) != 1 or (not denies and answers.taken_back(text[found[-1][0].end() :])):
        return None
    # "no" negates, unless it is an answer itself
    negations = _NEGATIONS if denies else _NEGATIONS_AND_NO
    ends = [match.end() for match in negations.finditer(text)]
    return None if any(_negated(text, match.start(), ends) for match, _ in found) else names.pop()


def _negated(text: str, start: int, ends: Sequence[int]) -> bool:
    """Whether the last negation before ``start`` reaches it; where that one does not, no earlier one does."""
    last = bisect.bisect_right(ends, start) - 1
    return last >= 0 and start - ends[last] <= _REACH and bool(_GAP.fullmatch(text, ends[last], start))


def _read(doc: Mapping[str, Any], answer: str) -> tuple[tuple[str, ...], str | None, str | None]:
    """(labels, strict reading, lenient reading); a strict reading is a lenient one too."""
    labels = tuple(doc["choices"])
    strict, lenient = parse(answer, labels), parse_lenient(answer, labels)
    if strict is None and isinstance(options := doc.get("options"), str):
        letters = _shortened(answer, options)
        strict, lenient = parse(letters, labels), lenient or parse_lenient(letters, labels)
    return labels, strict, strict if lenient is None else lenient


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` for a generated answer. ``doc`` has ``label`` and ``choices``."""
    labels, strict, lenient = _read(doc, results[0])
    return {
        **dict.fromkeys(("macro_f1", "weighted_f1", "mcc"), (doc["label"], strict, labels)),
        "acc": float(strict == doc["label"]),
        "macro_f1_lenient": (doc["label"], lenient, labels),
        "acc_lenient": float(lenient == doc["label"]),
        "parse_rate": float(strict is not None),
    }


def _likeliest(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> str:
    """The label of the highest log-likelihood, the first of tied ones.

    A log-likelihood that is not a number stops the run: argmax of NaN would be the first label, which looks like
    an answer.
    """
    scores = [float(loglikelihood) for loglikelihood, _ in results]
    if not all(math.isfinite(value) for value in scores):
        raise ValueError(f"log-likelihoods of the labels are not finite: {scores}")
    best: str = doc["choices"][scores.index(max(scores))]
    return best


def score_choice(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """lm-eval ``process_results`` for log-likelihoods of the labels, in the order of ``choices``."""
    labels, best = tuple(doc["choices"]), _likeliest(doc, results)
    return {
        **dict.fromkeys(("macro_f1", "weighted_f1", "mcc"), (doc["label"], best, labels)),
        "acc": float(best == doc["label"]),
    }


def score_question(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval ``process_results`` for a Yes/No question about a headline. ``doc`` has ``attribute`` too."""
    _, strict, lenient = _read(doc, results[0])
    return {
        "question_f1": (doc["attribute"], doc["label"], strict),
        "acc": float(strict == doc["label"]),
        "question_f1_lenient": (doc["attribute"], doc["label"], lenient),
        "acc_lenient": float(lenient == doc["label"]),
        "parse_rate": float(strict is not None),
    }


def score_question_choice(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """lm-eval ``process_results`` for log-likelihoods of "Yes" and "No", in the order of ``choices``."""
    best = _likeliest(doc, results)
    return {"question_f1": (doc["attribute"], doc["label"], best), "acc": float(best == doc["label"])}


def _tally(items: Sequence[Item]) -> tuple[dict[str, float], collections.Counter[str]]:
    """(F1 of each label of the fixed set, gold counts).

    An unparsed answer is a miss for its gold label and no false alarm for another; a label that is neither gold
    nor predicted counts 0, as in scikit-learn with ``labels=`` and ``zero_division=0``.
    """
    gold = collections.Counter(item[0] for item in items)
    predicted = collections.Counter(item[1] for item in items)
    hits = collections.Counter(item[0] for item in items if item[0] == item[1])
    sizes = {label: gold[label] + predicted[label] for label in items[0][2]}
    return {label: 2 * hits[label] / size if size else 0.0 for label, size in sizes.items()}, gold


def macro_f1(items: Sequence[Item]) -> float:
    """Mean F1 over the fixed label set; items are (gold, predicted or None, labels)."""
    f1, _ = _tally(items)
    return sum(f1.values()) / len(f1)


def weighted_f1(items: Sequence[Item]) -> float:
    """Mean F1 over the fixed label set, weighted by the gold counts; items as for ``macro_f1``.

    For comparison with the literature only: frequent labels hide the rare ones.
    """
    f1, gold = _tally(items)
    return sum(value * gold[label] for label, value in f1.items()) / sum(gold[label] for label in f1)


def mcc(items: Sequence[Item]) -> float:
    """Matthews correlation for several classes (Gorodkin 2004, R_K); items as for ``macro_f1``.

    Unparsed answers are one more predicted class. 0 where either side has one class only.
    """
    gold = collections.Counter(item[0] for item in items)
    predicted = collections.Counter(item[1] for item in items)
    n, right = len(items), sum(item[0] == item[1] for item in items)
    covariance = right * n - sum(count * predicted[label] for label, count in gold.items())
    spreads = [n * n - sum(count * count for count in counts.values()) for counts in (gold, predicted)]
    return covariance / math.sqrt(spreads[0] * spreads[1]) if all(spreads) else 0.0


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
