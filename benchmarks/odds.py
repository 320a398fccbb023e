"""How often a paired interval leaves out zero, and how often the paired test says p < 5 %, by simulation of macro-F1.

    python benchmarks/odds.py        prints the table of docs/statistics.md (half a minute on one idle core)

A answers by the way that is named, B (right on some documents, guessing on the others) was made to have the same true
macro-F1, or one that is 8 points higher. Three labels with shares of 12, 60 and 28 %; 400 tests a line.
"""

from __future__ import annotations

import numpy as np

from finbench.scoring import paired
from finbench.scoring.stats import Counts, ratio

SHARES = np.array([0.12, 0.60, 0.28])
EVALUATIONS, RESAMPLES = 400, 1000


def macro_f1(sums: Counts) -> Counts:
    """Of (true positives, answered, gold) of each label."""
    return np.asarray(ratio(2 * sums[..., :3], sums[..., 3:6] + sums[..., 6:]).mean(-1))


def parts(gold: Counts, said: Counts) -> Counts:
    """Of each document what ``macro_f1`` sums."""
    right, wrong = gold[:, None] == np.arange(3), said[:, None] == np.arange(3)
    return np.concatenate([right & wrong, wrong, right], axis=1).astype(float)


def truth(ways: Counts) -> float:
    """The macro-F1 of answers by a table: gold label, how often each label is said."""
    joint = SHARES[:, None] * ways
    return float(macro_f1(np.concatenate([np.diag(joint), joint.sum(axis=0), SHARES])))


def one_label(other: float) -> Counts:
    """The second label always, but for a share of ``other`` answers that are any of the other two."""
    return np.array([[other / 2, 1 - other, other / 2]] * 3)


def able(share: float) -> Counts:
    """Right on ``share`` of the documents, a guess on the others."""
    return share * np.eye(3) + (1 - share) / 3


def as_good(wanted: float) -> Counts:
    """An ``able`` table of a macro-F1; where none guesses so badly, one that errs on purpose."""
    low, high = -0.49, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if truth(able(middle)) < wanted else (low, middle)
    return able(low)


def rates(a: Counts, b: Counts, n: int) -> tuple[float, float]:
    """Shares of tests in which the interval leaves out 0, and in which p < 5 %."""
    out, small = 0, 0
    for seed in range(EVALUATIONS):
        rng = np.random.default_rng(seed)
        gold = rng.choice(3, n, p=SHARES)
        one, other = (
            parts(gold, (rng.random(n)[:, None] > np.cumsum(ways[gold], axis=1)).sum(axis=1).clip(0, 2))
            for ways in (a, b)
        )
        found = paired.difference(one, other, macro_f1, resamples=RESAMPLES)
        low, high = found.measure.interval or (0.0, 0.0)
        out += not low <= 0 <= high
        small += found.p < 0.05
    return out / EVALUATIONS, small / EVALUATIONS


def main() -> None:
    """Print the table."""
    print("| A answers | B is | n | interval leaves out 0 | p < 5 % |\n|--|--|--:|--:|--:|")
    for how, a in (
        ("one label, 98 %", one_label(0.02)),
        ("one label, 70 %", one_label(0.3)),
        ("able, 25 %", able(0.25)),
    ):
        for more, sizes in ((0.0, (60, 200, 700)), (0.08, (60, 200))):
            for n in sizes:
                out, small = rates(a, as_good(truth(a) + more), n)
                print(
                    f"| {how} | {'as good' if not more else '8 better'} | {n} | {100 * out:.1f} | {100 * small:.1f} |"
                )


if __name__ == "__main__":
    main()
