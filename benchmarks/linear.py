"""What a linear model gets on every ranked task: the floor that a language model must pass.

    python benchmarks/linear.py --data-dir DATA [--task fpb ...]    # prints, tells where tasks/linear.json differs
    python benchmarks/linear.py --data-dir DATA --write             # and writes it; docs/tasks.md shows it

DATA is where ``finbench data import`` and ``finbench data xbrl`` have put the rows. Three models, none of which is
pretrained, trained on the task's train split and scored by the task's own scorer and main metric:

- text: words and pairs of words (TF-IDF) of what the row shows, logistic regression, its strength by cross-validation.
  One model a question where a text is asked several. For candidates: the most probable of them.
- candidates: the list alone, never the text: for each candidate its words, how often it was right in train, how near it
  is to the others and its place; logistic regression.
- nearest: for answers that are no labels, the answer of the train row whose text and question are nearest (TF-IDF).

On 400 rows: the mean of five draws. Tasks without a train split have no such floor.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from finbench.core import catalog
from finbench.core.catalog import Task
from finbench.data.sources import describe_set
from finbench.scoring import prompts

FILE = Path(__file__).resolve().parent.parent / "tasks" / "linear.json"
FEW, DRAWS, TOLERANCE = 400, 5, 0.02
UNRANKED = ("finlora", "published", "mini", "general")
Rows = Sequence[dict[str, Any]]
Guess = Callable[[Rows, Rows], list[Any]]  # (train, test) -> an answer for each row of the test


def shown(row: dict[str, Any]) -> str:
    """What the row shows, as words: those of its shorter fields are other words than those of its text."""
    named = [f"{field}__{word}" for field in ("entity", "numeral") for word in str(row.get(field, "")).split()]
    return " ".join([row["text"], row.get("question", ""), row.get("options", ""), *named])


def fitted(texts: Sequence[str], labels: Sequence[str]) -> Any:
    """Logistic regression over words and pairs of words, by three-fold cross-validation where each label has copies."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[%$]")
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=300))
    if min(Counter(labels).values()) < 3:
        return model.fit(texts, labels)
    grid = {"logisticregression__C": [1, 10, 100], "logisticregression__class_weight": [None, "balanced"]}
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return GridSearchCV(model, grid, scoring="f1_macro", cv=folds).fit(texts, labels)


def by_text(train: Rows, test: Rows) -> list[Any]:
    """Labels by the text; a model of its own for each question where the questions are few."""
    found: list[Any] = [None] * len(test)
    questions = {row.get("question") for row in train}
    apart = 1 < len(questions) <= 20
    for question in sorted(questions, key=str) if apart else [None]:
        own = [row for row in train if not apart or row.get("question") == question]
        at = [n for n, row in enumerate(test) if not apart or row.get("question") == question]
        labels = [row["label"] for row in own]
        if len(set(labels)) < 2:
            guesses = [labels[0]] * len(at)
        else:
            model = fitted([shown(row) for row in own], labels)
            probabilities, classes = model.predict_proba([shown(test[n]) for n in at]), list(model.classes_)
            guesses = [
                _allowed(dict(zip(classes, p, strict=True)), test[n]) for n, p in zip(at, probabilities, strict=True)
            ]
        for n, guess in zip(at, guesses, strict=True):
            found[n] = guess
    return found


def _allowed(probability: dict[str, float], row: dict[str, Any]) -> str:
    choices: list[str] = row["choices"]
    return max(choices, key=lambda choice: probability.get(choice, 0.0))


def by_candidates(train: Rows, test: Rows) -> list[Any]:
    """The candidate that looks right beside the others; the text is not read."""
    right = Counter(row["label"] for row in train)

    def words(tag: str) -> frozenset[str]:
        return frozenset("".join(f" {c}" if c.isupper() else c for c in tag).casefold().split())

    def features(row: dict[str, Any]) -> list[dict[str, float]]:
        sets = [words(tag) for tag in row["choices"]]
        near = [[len(a & b) / (len(a | b) or 1) for b in sets] for a in sets]
        means = [(sum(line) - 1) / max(1, len(line) - 1) for line in near]
        made = []
        for place, tag in enumerate(row["choices"]):
            frequency = right[tag] - (tag == row["label"] and row in seen)  # of the other rows
            made.append(
                {"often": np.log1p(frequency), "never": frequency == 0, "mean": means[place], "length": len(tag) / 50}
                | {"most": max(means) == means[place], "least": min(means) == means[place], f"place {place}": 1.0}
                | {"rank": sorted(means).index(means[place]) / len(means)}
                | {f"word {word}": 1.0 for word in sets[place]}
            )
        return made

    seen = _Ids(train)
    shape = DictVectorizer()
    data = shape.fit_transform([line for row in train for line in features(row)])
    model = LogisticRegression(C=1, max_iter=300)
    model.fit(data, [choice == row["label"] for row in train for choice in row["choices"]])
    guesses = []
    for row in test:
        scores = model.decision_function(shape.transform(features(row)))
        guesses.append(row["choices"][int(np.argmax(scores))])
    return guesses


class _Ids:
    """Which rows are of these, by id."""

    def __init__(self, rows: Rows) -> None:
        self.ids = {row["id"] for row in rows}

    def __contains__(self, row: dict[str, Any]) -> bool:
        return row["id"] in self.ids


def by_nearest(train: Rows, test: Rows) -> list[Any]:
    """The answer of the nearest train row."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = words.fit_transform([shown(row) for row in train])
    near = words.transform([shown(row) for row in test]) @ known.T
    return [train[int(n)] for n in np.asarray(near.argmax(axis=1)).ravel()]


def answered(lm_task: Any, rows: Rows, guesses: Sequence[Any]) -> float:
    """The main metric of the guesses: labels, or train rows whose answer is given."""
    texts = [lm_task.doc_to_target(guess) if isinstance(guess, dict) else guess for guess in guesses]
    per_row = [lm_task.process_results(row, [str(text)]) for row, text in zip(rows, texts, strict=True)]
    name = str(lm_task.config.metadata["finbench_main_metric"])
    return float(lm_task.aggregation()[name]([values[name] for values in per_row]))


def floors(task: Task, lm_task: Any) -> dict[str, Any] | None:
    """``{train: rows, test: rows, digest, model: {rows trained on: main metric}}``; None without a train split.

    ``digest`` is that of a scorecard's data: where it is the same, the floor is of the very rows.
    """
    train, test = (list(prompts.rows(lm_task, split)) for split in ("train", "test"))
    if not train or not test:
        return None
    digest = prompts.data_id(task, lm_task, "test", test).digest
    found: dict[str, Any] = {"train": len(train), "test": len(test), "digest": digest}
    models: dict[str, Guess] = {"nearest": by_nearest}
    if "label" in train[0] and "choices" in train[0]:
        models = {"text": by_text}
        if len({tuple(row["choices"]) for row in train}) > 1:
            models["candidates"] = by_candidates
    for name, guess in models.items():
        draws = [random.Random(seed).sample(train, FEW) for seed in range(DRAWS)] if len(train) > FEW else []
        few = [answered(lm_task, test, guess(rows, test)) for rows in draws]
        found[name] = {str(FEW): round(float(np.mean(few)), 3)} if few else {}
        found[name]["all"] = round(answered(lm_task, test, guess(train, test)), 3)
    return found


def main() -> int:
    """Print every task's floors; 1 where tasks/linear.json says something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # lm-eval's, of --metadata
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    wrong = []
    for task in catalog.tasks().values():
        short = task.name.removeprefix("finbench_")
        chosen = short in given.task if given.task else task.family not in UNRANKED and not short.endswith("_mc")
        if not chosen or task.shipped or not describe_set(task.set, given.data_dir):
            continue
        found = floors(task, prompts.load([task], given.data_dir)[task.name])
        if found is None:
            continue
        print(short, json.dumps(found), flush=True)
        if not _alike(found, known.get(short)):
            wrong.append(short)
            known[short] = found
    if given.write:
        FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")
        return 0
    print(f"other than in {FILE.name}: {', '.join(wrong)} (--write)" if wrong else "as stated", file=sys.stderr)
    return int(bool(wrong))


def _alike(found: dict[str, Any], stated: dict[str, Any] | None) -> bool:
    def flat(of: dict[str, Any]) -> dict[str, float]:
        return {
            f"{a} {b}": v
            for a, inner in of.items()
            if a != "digest"
            for b, v in (inner.items() if isinstance(inner, dict) else [("", inner)])
        }

    if stated is None or found["digest"] != stated.get("digest"):
        return False
    one, other = flat(found), flat(stated)
    return one.keys() == other.keys() and all(abs(one[key] - other[key]) <= TOLERANCE for key in one)


if __name__ == "__main__":
    sys.exit(main())
