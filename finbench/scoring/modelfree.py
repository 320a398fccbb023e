"""What needs no language model on a test: constants and random labels on its very rows, and linear models.

The first are computed for every score; a linear model is trained on the train split by benchmarks/linear.py, which
writes what it reaches on our copies of the sets.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from finbench.core import catalog, paths
from finbench.core.records import Score
from finbench.scoring import foreign, prompts
from finbench.scoring.measuring import LENIENT, RIGHT

CONSTANTS = 5  # commonest answers that are tried on every row
BASELINES = {  # what needs no model, as it is called where it is shown, in that order
    "majority": "majority label",
    "question_majority": "question majority",
    "always_yes": "always yes",
    "random": "random label",
}
TRAINED = {  # what benchmarks/linear.py trains, as it is called where it is shown
    "text": "linear model",
    "candidates": "linear model of the candidates",
    "nearest": "nearest train row",
}


def baselines(lm_task: Any, docs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What needs no model, on these very rows: ``random`` labels (mean of 100 seeded draws), ``majority`` label.

    Where a text is asked several questions, also ``always_yes`` and ``question_majority``, the commonest answer of the
    train split to each. Where the answer is no label but right or wrong, ``majority`` is the constant that is right
    most often, of the commonest answers. Others have none.
    """
    if not docs or not foreign.has_our_scorer(lm_task):
        return {}
    if "label" not in docs[0] or "choices" not in docs[0]:
        return _constant(lm_task, docs)
    options = [_options(doc) for doc in docs]
    golds = [doc["label"] for doc in docs]
    majority = max(dict.fromkeys(option for own in options for option in own), key=golds.count)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(100):
        places = rng.random(len(docs))
        draws.append(_guess(lm_task, docs, [own[int(at * len(own))] for own, at in zip(options, places, strict=True)]))
    return {
        "random": {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]},
        "majority": _guess(lm_task, docs, [majority] * len(docs)),
        **_by_question(lm_task, docs),
    }


def floors(score: Score) -> dict[str, dict[str, float]]:
    """What needs no language model, by what it is called -> metric -> value: the baselines of the score, then what was
    trained on the whole train split (``tasks/linear.json``), where that was measured on the very rows of the score.
    """
    found = {said: score.baselines[name] for name, said in BASELINES.items() if name in score.baselines}
    made = _trained().get(score.data.digest, {}).get(score.main_metric, {})
    return found | {said: {score.main_metric: made[name]["all"]} for name, said in TRAINED.items() if name in made}


@functools.cache
def _trained() -> dict[str, dict[str, dict[str, Any]]]:
    """By digest of the test rows and main metric: other tasks on the same rows may have another one."""
    stated = json.loads((paths.shipped("tasks") / "linear.json").read_text(encoding="utf-8"))
    known = catalog.shipped_tasks()
    return {entry["digest"]: {known[catalog.PREFIX + name].main_metric: entry} for name, entry in stated.items()}


def _by_question(lm_task: Any, docs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Constants of tasks that ask several questions of a text, which differ in how often Yes is right."""
    if "attribute" not in docs[0]:
        return {}
    found = {"always_yes": _guess(lm_task, docs, ["Yes"] * len(docs))}
    known: dict[str, Counter[str]] = {}
    for row in prompts.rows(lm_task, "train"):
        known.setdefault(row["attribute"], Counter())[row["label"]] += 1
    if all(doc["attribute"] in known for doc in docs):
        usual = {question: counts.most_common(1)[0][0] for question, counts in known.items()}
        found["question_majority"] = _guess(lm_task, docs, [usual[doc["attribute"]] for doc in docs])
    return found


def _constant(lm_task: Any, docs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The best of the commonest gold answers, given to every row; nothing for scores that are not right or wrong."""
    golds = Counter(str(lm_task.doc_to_target(doc)) for doc in docs)
    main = (lm_task.config.metadata or {}).get("finbench_main_metric")
    if lm_task.OUTPUT_TYPE != "generate_until" or main not in RIGHT:
        return {}
    guesses = [_guess(lm_task, docs, [gold] * len(docs)) for gold, _ in golds.most_common(CONSTANTS)]
    return {"majority": max(guesses, key=lambda guess: guess[main])}


def _options(doc: dict[str, Any]) -> list[Any]:
    """What a label may be: a text, or its number where every question has choices of its own."""
    choices = list(doc["choices"])
    return list(range(len(choices))) if isinstance(doc["label"], int) else choices


def _guess(lm_task: Any, docs: Sequence[dict[str, Any]], guesses: Sequence[Any]) -> dict[str, float]:
    per_doc = []
    for doc, guess in zip(docs, guesses, strict=True):
        answers: list[Any] = [guess]
        if lm_task.OUTPUT_TYPE != "generate_until":
            options = _options(doc)
            if guess not in options:  # the row does not offer it: an option that is wrong as well
                guess = next((option for option in options if option != doc["label"]), guess)
            answers = [(float(option == guess), True) for option in options]
        per_doc.append(lm_task.process_results(doc, answers))
    aggregation = lm_task.aggregation()
    return {
        name: float(aggregation[name]([values[name] for values in per_doc]))
        for name in per_doc[0]
        if not name.endswith(LENIENT) and name != "parse_rate"
    }
