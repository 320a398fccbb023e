"""Intervals: equal to scipy and scikit-learn, and of the promised coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from conftest import task_helper
from finbench import scoring, stats

LABELS = task_helper("labels")
SPANS = task_helper("spans")
NAMES = ("negative", "neutral", "positive")


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    successes, n = counts
    found = stats.wilson(successes, n)
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)
    assert found.low <= found.value <= found.high


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=60))
def test_confusion_statistics_equal_scikit_learn_and_the_tasks_own(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    table = stats.confusion(gold, predicted, 3)
    expected = f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert float(stats.macro_f1(table)) == pytest.approx(expected)
    assert float(stats.accuracy(table)) == pytest.approx(accuracy_score(gold, predicted))
    items = [(NAMES[g], NAMES[p] if p < 3 else None, NAMES) for g, p in pairs]
    assert LABELS.macro_f1(items) == pytest.approx(expected)


def test_a_multinomial_resample_of_cells_is_a_resample_of_documents() -> None:
    """The fast bootstrap has the distribution of the plain one: compare quantiles of both."""
    rng = np.random.default_rng(5)
    gold = rng.integers(3, size=300)
    predicted = np.where(rng.random(300) < 0.7, gold, rng.integers(4, size=300))
    fast = stats.bootstrap_table(stats.confusion(gold, predicted, 3), stats.macro_f1, resamples=4000)
    plain = []
    for _ in range(2000):
        chosen = rng.integers(300, size=300)
        plain.append(float(stats.macro_f1(stats.confusion(gold[chosen], predicted[chosen], 3))))
    low, high = np.quantile(plain, [0.025, 0.975])
    assert fast.low == pytest.approx(low, abs=0.008)
    assert fast.high == pytest.approx(high, abs=0.008)


def test_macro_f1_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    joint = np.array([[0.10, 0.02, 0.01, 0.01], [0.04, 0.50, 0.05, 0.01], [0.01, 0.05, 0.19, 0.01]])
    truth = float(stats.macro_f1(joint))
    covered = 0
    for _ in range(400):
        table = rng.multinomial(400, joint.ravel()).reshape(3, 4).astype(float)
        found = stats.bootstrap_table(table, stats.macro_f1, resamples=500)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_measures_agree_with_the_aggregation_that_lm_eval_uses() -> None:
    questions = [("up", "Yes", "Yes"), ("up", "No", "Yes"), ("down", "Yes", None), ("down", "No", "No")] * 9
    found = scoring.measure(questions, LABELS.question_f1)
    assert found.value == pytest.approx((2 / 3 + 0) / 2)
    assert found.low <= found.value <= found.high
    spans = [(2, 1, 0), (0, 0, 3), (1, 0, 0), (0, 0, 0)] * 9
    assert scoring.measure(spans, SPANS.span_f1).value == pytest.approx(6 / (6 + 1 + 3))

    def mean(values: Any) -> float:
        return float(np.mean(values))

    scores = [0.25, 1.0, 0.5] * 20
    assert scoring.measure(scores, mean).value == pytest.approx(np.mean(scores))
    assert scoring.measure([1.0, 0.0, 1.0, 1.0], mean) == stats.wilson(3, 4)


def test_an_aggregation_that_disagrees_with_its_interval_is_a_bug() -> None:
    def mean(values: Any) -> float:
        return 0.123

    with pytest.raises(AssertionError, match="lm-eval gives"):
        scoring.measure([1.0, 0.0], mean)
