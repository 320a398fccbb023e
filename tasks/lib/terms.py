"""Scoring of a term's explanation against a reference: chrF and ROUGE-L, each of a sentence, averaged.

Both lie between 0 and 1 here. chrF: sacrebleu's chrF2 (character 6-grams, beta 2; Popovic 2015). ROUGE-L: F-measure
of the longest common subsequence, with Porter stemming (Lin 2004). Neither measures truth: an explanation of the
opposite shares most of its words.
"""

import functools
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rouge_score.rouge_scorer
import sacrebleu.metrics

answers: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("answers.py"))))

_LONGEST = 4_000  # characters of an answer that are compared; explanations have some 150


@functools.cache
def _scorers() -> tuple[Any, Any]:
    return sacrebleu.metrics.CHRF(), rouge_score.rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval ``process_results``. ``doc`` has ``answer``; strict takes the first line, lenient the whole answer."""
    said = answers.said(results[0]).strip()[:_LONGEST]
    whole, lines = " ".join(said.split()), said.splitlines()
    first = " ".join(lines[0].split()) if lines else ""
    chrf, rouge = _scorers()
    found = {}
    for suffix, text in (("", first), ("_lenient", whole)):
        found["chrf" + suffix] = chrf.sentence_score(text, [doc["answer"]]).score / 100 if text else 0.0
        found["rouge_l" + suffix] = rouge.score(doc["answer"], text)["rougeL"].fmeasure if text else 0.0
    return {**found, "parse_rate": float(bool(first))}
