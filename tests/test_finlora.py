"""tasks/lib/finlora.py: the strict scorer of FinLoRA's rows, and what FinLoRA measured."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from conftest import task_helper, within

finlora = task_helper("finlora")

LABELS = ("negative", "neutral", "positive")
WORDS = st.text("abAB1 ", min_size=1, max_size=4).filter(str.strip)
ITEMS = st.lists(st.tuples(st.text("abAB1 .", max_size=8), WORDS), min_size=1, max_size=12)


def by_hand(items: list[tuple[str, str]]) -> list[str]:
    """The prediction for each item: its target where FinLoRA counts it right, else the output."""
    labels = {target.lower() for _, target in items}
    read = []
    for output, target in items:
        places = [(output.lower().find(label), -len(label), label) for label in labels if label in output.lower()]
        right = min(places)[2] == target.lower() if places else output == target
        read.append(target if right else output)
    return read


@given(ITEMS)
def test_their_scores_equal_a_search_by_hand_and_scikit_learns_f1(items: list[tuple[str, str]]) -> None:
    targets, read = [target for _, target in items], by_hand(items)
    hits = sum(target == said for target, said in zip(targets, read, strict=True))
    # a wrong output that is its own target's text cannot be told from a right one in the F1; nor can theirs
    right = [right for _, _, right in finlora._predictions(items)]
    assert hits >= sum(right)
    assert finlora.finlora_acc(items) == pytest.approx(sum(right) / len(items))
    if hits == sum(right):
        expected = f1_score(targets, read, average="weighted", labels=sorted(set(targets)), zero_division=0)
        assert finlora.finlora_f1(items) == pytest.approx(expected)


def test_their_f1_of_outputs_that_are_no_labels_follows_from_the_accuracy() -> None:
    """2A / (1 + A): the published 85.64 % and .922 on the PhraseBank."""
    targets = [LABELS[place % 3] for place in range(30_000)]
    items = [(target if place % 10_000 < 8564 else "?", target) for place, target in enumerate(targets)]
    share = finlora.finlora_acc(items)
    assert share == pytest.approx(0.8564, abs=1e-3)
    assert finlora.finlora_f1(items) == pytest.approx(2 * share / (1 + share), abs=1e-4)
    assert finlora.finlora_f1(items) == pytest.approx(0.922, abs=1e-3)


def test_their_f1_of_wrong_labels_is_the_weighted_f1() -> None:
    rng = random.Random(0)
    items = [(rng.choice(LABELS), rng.choice(LABELS)) for _ in range(500)]
    outputs, targets = zip(*items, strict=True)
    assert finlora.finlora_f1(items) == pytest.approx(f1_score(targets, outputs, average="weighted"))


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), min_size=1))
def test_a_perfect_answer_is_right_whatever_the_labels(targets: list[str]) -> None:
    items = [(target, target) for target in targets]
    assert (finlora.finlora_acc(items), finlora.finlora_f1(items)) == (1.0, pytest.approx(1.0))


def test_of_labels_that_begin_alike_the_longest_is_found() -> None:
    items = [("100", "100"), ("10", "10"), ("1", "1"), ("1005", "1")]
    assert [right for _, _, right in finlora._predictions(items)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("prompt", "answer", "output"),
    [
        ("Input: x\nAnswer: ", "positive", "positive"),
        ("Input: x\nAnswer:", " positive\n", "positive"),
        ("Input: x\nAnswer: ", "positive\nAnswer: negative", "negative"),
        ("Input: x\nAnswer: ", "positive Answer:", ""),
        ("Question x", " positive", "Question x positive"),
    ],
)
def test_their_output_is_what_follows_the_last_answer_mark(prompt: str, answer: str, output: str) -> None:
    result = finlora.score({"text": prompt, "target": "positive", "choices": LABELS}, [answer])
    assert result["finlora_acc"] == result["finlora_f1"] == (output, "positive")


@pytest.mark.parametrize(
    ("doc", "metrics"),
    [
        ({"target": "positive", "choices": list(LABELS)}, {"acc", "macro_f1", "parse_rate"}),
        ({"target": "1,000.5", "choices": None}, {"acc", "parse_rate"}),
        ({"target": "Data Center", "choices": None}, {"acc", "parse_rate"}),
        ({"target": "Data Center"}, {"acc", "parse_rate"}),
    ],
)
def test_a_row_is_scored_by_its_kind(doc: dict[str, Any], metrics: set[str]) -> None:
    result = finlora.score({"text": "Answer:", **doc}, [doc["target"]])
    assert set(result) == metrics | {"finlora_acc", "finlora_f1"}
    assert (result["acc"], result["parse_rate"]) == (1.0, 1.0)


def test_an_unparsed_label_is_an_item_of_macro_f1() -> None:
    result = finlora.score({"text": "Answer:", "target": "neutral", "choices": list(LABELS)}, ["who knows"])
    assert result["macro_f1"] == ("neutral", None, LABELS)


def test_a_target_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(ValueError, match="n/a"):
        finlora.score_number({"text": "Answer:", "target": "n/a"}, ["1"])


def test_long_outputs_and_long_targets_are_searched_fast() -> None:
    targets = [f"Amount of item {place} after tax" for place in range(600)]
    items = [("Amount of " * 500, target) for target in targets]
    with within(2):
        assert finlora.finlora_acc(items) == 0.0
