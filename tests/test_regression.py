"""tasks/lib/regression.py: which score an answer is, and the errors over scores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import mean_squared_error, r2_score

from conftest import task_helper

regression = task_helper("regression")

SCORES = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)
ITEMS = st.lists(st.tuples(SCORES, SCORES), min_size=2)


@given(ITEMS)
def test_both_measures_equal_scikit_learns(items: list[tuple[float, float]]) -> None:
    gold, predicted = zip(*items, strict=True)
    assert regression.mse(items) == pytest.approx(mean_squared_error(gold, predicted), abs=1e-12)
    assume(len(set(gold)) > 1)
    assert regression.r2(items) == pytest.approx(r2_score(gold, predicted), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("items", "value"),
    [
        pytest.param([(0.5, 0.5)], 1.0, id="one item, right"),
        pytest.param([(0.5, 0.4)], 0.0, id="one item, wrong"),
        pytest.param([(0.1, 0.1)] * 3, 1.0, id="one gold, right"),
        pytest.param([(0.1, 0.1), (0.1, None)], 0.0, id="one gold, one unparsed"),
        pytest.param([(-1.0, 0.0), (1.0, 0.0)], 0.0, id="the mean everywhere"),
        pytest.param([(-1.0, 1.0), (1.0, -1.0)], -3.0, id="the other end everywhere"),
        pytest.param([(-1.0, None), (1.0, None)], -3.0, id="unparsed is the other end"),
    ],
)
def test_r2_of(items: list[tuple[float, float | None]], value: float) -> None:
    assert regression.r2(items) == value


@given(ITEMS, st.integers(0, 10**6), SCORES)
def test_silence_never_beats_an_answer_on_the_scale(items: list[Any], place: int, guess: float) -> None:
    place %= len(items)
    gold = items[place][0]
    silent = [*items[:place], (gold, None), *items[place + 1 :]]
    guessed = [*items[:place], (gold, guess), *items[place + 1 :]]
    assert regression.mse(silent) >= regression.mse(guessed)
    assert regression.r2(silent) <= regression.r2(guessed)


@pytest.mark.parametrize("style", ["{}", "{:+}", "{:.4f}", "`{}`", "**{}**", " {}\n", "{:e}"])
@given(score=SCORES)
def test_a_score_reads_back(style: str, score: float) -> None:
    assert regression.parse(style.format(score)) == score
    assert regression.parse_lenient(f"I would say {score}, all told.") == score


@given(st.text(st.characters(exclude_categories=())) | st.text("0123456789.,-−+e%() \n", max_size=12))
def test_the_lenient_reading_never_contradicts_the_strict_one(answer: str) -> None:
    strict, lenient = regression.parse(answer), regression.parse_lenient(answer)
    assert all(value is None or -1 <= value <= 1 for value in (strict, lenient))
    assert strict is None or lenient is None or lenient == strict or "\n" in answer.strip()


def test_an_answer_scores() -> None:
    result = regression.score({"score": "-0.374"}, ["I think it is 0.5"])
    assert result == {
        "r2": (-0.374, None),
        "mse": (-0.374, None),
        "r2_lenient": (-0.374, 0.5),
        "mse_lenient": (-0.374, 0.5),
        "parse_rate": 0.0,
    }


@pytest.mark.parametrize("gold", [1.5, "nan", "-2"])
def test_a_gold_score_off_the_scale_stops_the_run(gold: Any) -> None:
    with pytest.raises(ValueError, match="not from -1 to 1"):
        regression.score({"score": gold}, ["0"])
