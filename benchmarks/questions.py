"""Where an adapter of `headlines` stays below the linear model: question by question, of the same rows.

    python benchmarks/questions.py CARD --data-dir DATA    # DATA: where `finbench data import` has put the rows

Prints of each question the rows whose answer is Yes, in the train split and among those asked, how many of the latter
the adapter and the linear model of `benchmarks/linear.py` find, how often they say Yes without reason, and their F1.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from linear import by_text

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.scoring import prompts

TASK = "finbench_headlines"


def counts(pairs: Sequence[tuple[str, str]]) -> tuple[int, int, float]:
    """(found, said without reason, F1 in %) of (gold, answer) pairs of a question; the answer looked for is Yes."""
    seen = Counter((gold == "Yes", answer == "Yes") for gold, answer in pairs)
    found, false, missed = seen[True, True], seen[False, True], seen[True, False]
    return found, false, 200 * found / max(1, 2 * found + false + missed)


def main() -> int:
    """Print the table; 1 where the card's rows are not those of DATA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    given = parser.parse_args()
    card = cardfiles.read(given.card)
    [score] = [score for score in card.scores if score.task == TASK]
    answers = [row["values"] for row in cardfiles.read_samples(given.card) if row["task"] == TASK]
    task = catalog.tasks()[TASK]
    lm_task = prompts.load([task], given.data_dir)[TASK]
    train, test = (list(prompts.rows(lm_task, split)) for split in ("train", "test"))
    test = test[: score.n]
    if prompts.data_id(task, lm_task, "test", test).digest != score.data.digest:
        print(f"{given.data_dir}: the test rows are not those of the card.", file=sys.stderr)
        return 1
    linear = by_text(train, test)
    print("| question | Yes in train | Yes asked | adapter: found, false, F1 | linear model |")
    print("|--|--:|--:|--:|--:|")
    for question in dict.fromkeys(row["question"] for row in test):
        at = [n for n, row in enumerate(test) if row["question"] == question]
        known = sum(row["label"] == "Yes" for row in train if row["question"] == question)
        told = [answers[n]["question_f1"] for n in at]
        ways = [
            counts([(gold, answer) for _, gold, answer in told]),
            counts([(test[n]["label"], linear[n]) for n in at]),
        ]
        asked = sum(gold == "Yes" for _, gold, _ in told)
        shown = " | ".join(f"{found}, {false}, {f1:.1f}" for found, false, f1 in ways)
        print(f"| {told[0][0]} | {known:,} | {asked} | {shown} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
