"""Where an adapter stays below a model that knows no language (``benchmarks/linear.py``), of the same rows.

    python benchmarks/below.py headlines --data-dir DATA    # question by question
    python benchmarks/below.py xbrl_term --data-dir DATA    # by how near the nearest train row's answer is

DATA is where ``finbench data import`` has put the rows; the card is that of seed 0 in ``benchmarks/flagship``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
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


SHOWN: dict[str, Callable[..., None]] = {"headlines": questions, "xbrl_term": nearness}


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
