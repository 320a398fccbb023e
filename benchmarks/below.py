"""Adapters beside what knows no language, of the same rows: where they are below it, or hardly need any.

    python benchmarks/below.py headlines --data-dir DATA    # question by question
    python benchmarks/below.py xbrl_term --data-dir DATA    # by how near the nearest train row's answer is
    python benchmarks/below.py xbrl_tags --data-dir DATA    # a program that looks for the value, or for equal words
    python benchmarks/below.py xbrl_values --data-dir DATA  # a program that looks for equal words
    python benchmarks/below.py fnxl --data-dir DATA         # the tag of which most words stand in the sentence

DATA is where ``finbench data import`` has put the rows; the card is that of seed 0 in ``benchmarks/flagship``.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from linear import Rows, by_nearest, by_text

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.scoring import prompts

CARD = "flagship/scorecards/{}-smollm2-135m-lora-s0.json"
BOUNDS = (0, 30, 50, 80, 100)  # chrF of the nearest train row's answer


def counts(pairs: Sequence[tuple[str, str]]) -> tuple[int, int, float]:
    """(found, said without reason, F1 in %) of (gold, answer) pairs of a question; the answer looked for is Yes."""
    seen = Counter((gold == "Yes", answer == "Yes") for gold, answer in pairs)
    found, false, missed = seen[True, True], seen[False, True], seen[True, False]
    return found, false, 200 * found / max(1, 2 * found + false + missed)


def questions(lm_task: Any, train: Rows, test: Rows, values: Sequence[dict[str, Any]]) -> None:
    """Of each question: how many Yes there are, how many are found, said without reason, and F1."""
    linear = by_text(train, test)
    print("| question | Yes in train | Yes asked | adapter: found, false, F1 | linear model |")
    print("|--|--:|--:|--:|--:|")
    for question in dict.fromkeys(row["question"] for row in test):
        at = [n for n, row in enumerate(test) if row["question"] == question]
        told = [values[n]["question_f1"] for n in at]
        ways = (told, [(None, test[n]["label"], linear[n]) for n in at])
        shown = ["{}, {}, {:.1f}".format(*counts([(gold, answer) for _, gold, answer in way])) for way in ways]
        known = sum(row["label"] == "Yes" for row in train if row["question"] == question)
        print(f"| {told[0][0]} | {known:,} | {sum(gold == 'Yes' for _, gold, _ in told)} | {' | '.join(shown)} |")


def nearness(lm_task: Any, train: Rows, test: Rows, values: Sequence[dict[str, Any]]) -> None:
    """Mean chrF of the nearest train row's answer and of the adapter's, by the former."""
    copied = [str(lm_task.doc_to_target(row)) for row in by_nearest(train, test)]
    near = np.array(
        [100 * lm_task.process_results(row, [text])["chrf"] for row, text in zip(test, copied, strict=True)]
    )
    own = np.array([100 * value["chrf"] for value in values])
    print("| chrF of the nearest row's answer | rows | its mean | adapter |")
    print("|--|--:|--:|--:|")
    for low, high in itertools.pairwise(BOUNDS):
        among = (near >= low) & ((near < high) | (high == BOUNDS[-1]))
        print(f"| {low} to {high} | {among.sum()} | {near[among].mean():.1f} | {own[among].mean():.1f} |")


def facts_of(row: dict[str, Any]) -> list[list[str]]:
    """The (tag, value) pairs that a prompt shows."""
    return [line.split()[:2] for line in row["text"].splitlines() if re.match(r"[\w-]+:\w+ ", line)]


def nearest_fact(row: dict[str, Any]) -> list[str]:
    """The fact shown whose tag shares most words with the question."""
    asked = {word.lower()[:5] for word in re.findall(r"[A-Za-z]+", row["question"])}

    def shared(fact: list[str]) -> float:
        words = [word.lower()[:5] for word in re.findall(r"[A-Z][a-z]*", fact[0].partition(":")[2])]
        return sum(word in asked for word in words) / (len(words) + 2)  # long names have a word of every question

    return max(facts_of(row), key=shared)


def tag_of(row: dict[str, Any]) -> str:
    """The first tag shown whose value stands in the question; else the one that shares most words with it."""
    figures = {figure.replace(",", "") for figure in re.findall(r"[\d,.]*\d", row["question"])}
    found = next((tag for tag, value in facts_of(row) if value.lstrip("-") in figures), None)
    return found or nearest_fact(row)[0]


def value_of(row: dict[str, Any]) -> str:
    """The value of the fact whose tag shares most words with the question."""
    return nearest_fact(row)[1]


def offered(lm_task: Any, train: Rows, test: Rows, values: Sequence[dict[str, Any]]) -> None:
    """Right answers in %: of the tag offered whose words stand most in the sentence, first five letters of each."""

    def shared(tag: str, text: str) -> float:
        said = {word.lower()[:5] for word in re.findall("[A-Za-z]+", text)}
        words = re.findall("[A-Z][a-z]*", tag)
        return sum(word.lower()[:5] in said for word in words) / (len(words) + 2)

    right = [max(row["choices"], key=lambda tag: shared(tag, row["text"])) == row["label"] for row in test]
    print("| rows | looked up |\n|--:|--:|")
    print(f"| {len(test):,} | {100 * np.mean(right):.1f} |")


def lookups(
    look: Callable[[dict[str, Any]], str], lm_task: Any, train: Rows, test: Rows, values: Sequence[dict[str, Any]]
) -> None:
    """Right answers in %, by the kind of a question."""
    print("| asked | rows | looked up | adapter |")
    print("|--|--:|--:|--:|")
    for kind in dict.fromkeys(row["kind"] for row in test):
        at = [n for n, row in enumerate(test) if row["kind"] == kind]
        right = np.mean([look(test[n]) == test[n]["answer"] for n in at])
        print(f"| {kind} | {len(at)} | {100 * right:.1f} | {100 * np.mean([values[n]['acc'] for n in at]):.1f} |")


SHOWN: dict[str, Callable[..., None]] = {
    "headlines": questions,
    "xbrl_term": nearness,
    "xbrl_tags": partial(lookups, tag_of),
    "xbrl_values": partial(lookups, value_of),
    "fnxl": offered,
}


def main() -> int:
    """Print the table of a task; 1 where the card's rows are not those of DATA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=SHOWN)
    parser.add_argument("--data-dir", type=Path, required=True)
    given = parser.parse_args()
    path = Path(__file__).parent / CARD.format(given.task.replace("_", "-"))
    [task] = catalog.expand([given.task])
    [score] = [score for score in cardfiles.read(path).scores if score.task == task.name]
    values = [row["values"] for row in cardfiles.read_samples(path) if row["task"] == task.name]
    lm_task = prompts.load([task], given.data_dir)[task.name]
    train, test = (list(prompts.rows(lm_task, split)) for split in ("train", "test"))
    test = test[: score.n]
    if prompts.data_id(task, lm_task, "test", test).digest != score.data.digest:
        print(f"{given.data_dir}: the test rows are not those of the card.", file=sys.stderr)
        return 1
    SHOWN[given.task](lm_task, train, test, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
