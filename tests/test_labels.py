"""tasks/lib/labels.py: which label an answer is, and the scores over labels."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

from conftest import task_helper, within

labels = task_helper("labels")

GOLDEN = Path(__file__).parent / "golden" / "labels.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))
SENTIMENT = ("negative", "neutral", "positive")
NESTED = ("strong negative", "mildly negative", "negative", "neutral", "positive", "mildly positive", "strong positive")
YES_NO = ("Yes", "No")

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # with lone surrogates
FRAGMENTS = (*NESTED, *YES_NO, "not", "isn't", "The sentiment is", "Answer:", " ", "\n", ".", ",", "-", "**", "because")
LIKELY_TEXT = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(" ".join)


def scored(answer: str, gold: str, choices: tuple[str, ...] = SENTIMENT) -> dict[str, Any]:
    return labels.score({"label": gold, "choices": list(choices)}, [answer])


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_an_answer_is_read_as_the_golden_file_says(case: dict[str, Any]) -> None:
    read = (labels.parse(case["answer"], case["labels"]), labels.parse_lenient(case["answer"], case["labels"]))
    assert read == (case["strict"], case["lenient"])


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_the_order_of_the_labels_changes_no_reading(case: dict[str, Any]) -> None:
    for parse in (labels.parse, labels.parse_lenient):
        assert parse(case["answer"], case["labels"][::-1]) == parse(case["answer"], case["labels"])


def test_readings_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import importlib.util, json, sys\n"
        "spec = importlib.util.spec_from_file_location('labels', sys.argv[1])\n"
        "labels = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(labels)\n"
        "cases = json.load(open(sys.argv[2], encoding='utf-8'))\n"
        "parsers = labels.parse, labels.parse_lenient\n"
        "print(json.dumps([[parse(case['answer'], case['labels']) for parse in parsers] for case in cases]))\n"
    )
    here = [[parse(c["answer"], c["labels"]) for parse in (labels.parse, labels.parse_lenient)] for c in CASES]
    for seed in ("0", "1", "7", "4242"):
        command = [sys.executable, "-c", program, str(labels.__file__), str(GOLDEN)]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        assert json.loads(done.stdout) == here


@given(ANY_TEXT | LIKELY_TEXT, st.sampled_from([SENTIMENT, NESTED, YES_NO]))
def test_any_text_reads_as_a_label_of_the_task_or_as_none(answer: str, choices: tuple[str, ...]) -> None:
    strict, lenient = labels.parse(answer, choices), labels.parse_lenient(answer, choices)
    assert {strict, lenient} <= {*choices, None}
    if strict is not None:
        assert lenient in (None, strict)


@given(ANY_TEXT | LIKELY_TEXT, st.sampled_from(SENTIMENT))
def test_lenient_scores_are_never_below_strict_ones(answer: str, gold: str) -> None:
    result = scored(answer, gold)
    assert result["acc_lenient"] >= result["acc"]
    assert result["parse_rate"] == float(result["macro_f1"][1] is not None)


@pytest.mark.parametrize(
    ("answer", "strict"),
    [
        ("x" * 10**6, None),
        ("positive\n" + "x " * 500_000, "positive"),
        ("positive " * 20_000, None),
        ("not a a a a " * 10_000 + "positive " * 10_000, None),
        ("not " * 50_000 + "positive", None),
        ("not" + " " * 100_000 + "positive", None),
        ("not " + "a" * 100_000 + "," * 100_000 + "positive", None),
        ("answer" + " " * 100_000 + "x", None),
        ("positive" + " " * 100_000 + "x", None),
        (("strong" + " " * 1000) * 200, None),
    ],
    ids=[
        "word",
        "tail",
        "label",
        "negations and labels",
        "negations",
        "space",
        "runs",
        "lead-in",
        "after",
        "half label",
    ],
)
def test_a_very_long_answer_is_read_fast(answer: str, strict: str | None) -> None:
    with within(2):
        assert labels.parse(answer, NESTED) == strict
        assert labels.parse_lenient(answer, NESTED) in (*NESTED, None)


@pytest.mark.parametrize("choices", [SENTIMENT, NESTED, YES_NO], ids=["three", "seven", "yes and no"])
def test_an_oracle_scores_one(choices: tuple[str, ...]) -> None:
    results = [scored(label, label, choices) for label in choices * 3]
    for metric in ("macro_f1", "macro_f1_lenient"):
        assert labels.macro_f1([result[metric] for result in results]) == 1.0
    for metric in ("acc", "acc_lenient", "parse_rate"):
        assert {result[metric] for result in results} == {1.0}


def test_shuffled_answers_score_about_chance() -> None:
    rng = random.Random(0)
    golds = [label for label in SENTIMENT for _ in range(2000)]
    results = [scored(answer, gold) for answer, gold in zip(rng.sample(golds, len(golds)), golds, strict=True)]
    assert labels.macro_f1([result["macro_f1"] for result in results]) == pytest.approx(1 / 3, abs=0.03)


def test_an_unparsed_answer_counts_as_wrong() -> None:
    result = scored("I cannot say", "neutral")
    assert (result["acc"], result["acc_lenient"], result["parse_rate"]) == (0.0, 0.0, 0.0)
    assert result["macro_f1"] == result["weighted_f1"] == result["mcc"] == ("neutral", None, SENTIMENT)


def test_a_lenient_reading_counts_only_in_the_lenient_scores() -> None:
    result = scored("I think it is neutral", "neutral")
    assert (result["acc"], result["acc_lenient"], result["parse_rate"]) == (0.0, 1.0, 0.0)


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(
    st.sampled_from([SENTIMENT, NESTED, YES_NO]).flatmap(
        lambda choices: st.tuples(
            st.just(choices),
            st.lists(st.tuples(st.sampled_from(choices), st.sampled_from([*choices, None])), min_size=1),
        )
    )
)
def test_the_scores_over_labels_equal_scikit_learns(drawn: tuple[tuple[str, ...], list[Any]]) -> None:
    choices, pairs = drawn
    gold, predicted = [pair[0] for pair in pairs], [pair[1] or "unparsed" for pair in pairs]
    items = [(*pair, choices) for pair in pairs]
    for average, ours in (("macro", labels.macro_f1), ("weighted", labels.weighted_f1)):
        expected = f1_score(gold, predicted, average=average, labels=list(choices), zero_division=0)
        assert ours(items) == pytest.approx(expected, abs=1e-12)
    assert labels.mcc(items) == pytest.approx(matthews_corrcoef(gold, predicted), abs=1e-12)


def test_frequent_labels_hide_rare_ones_in_weighted_f1_only() -> None:
    items = [("neutral", "neutral", SENTIMENT)] * 98 + [(rare, "neutral", SENTIMENT) for rare in SENTIMENT[::2]]
    assert labels.weighted_f1(items) == pytest.approx(0.98 * 0.98 * 2 / 1.98)
    assert labels.macro_f1(items) == pytest.approx(0.98 * 2 / 1.98 / 3)
    assert labels.mcc(items) == 0.0


def test_an_unparsed_answer_lowers_mcc_as_a_class_of_its_own() -> None:
    items = [(label, label, YES_NO) for label in YES_NO] * 10
    assert labels.mcc(items) == 1.0
    assert labels.mcc([*items, ("Yes", None, YES_NO)]) == pytest.approx(
        matthews_corrcoef([*YES_NO * 10, "Yes"], [*YES_NO * 10, "unparsed"])
    )


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("neither up nor down, it is positive", None),
        ("no a b c d e f g positive", "no negation reaches this far: positive"),
        ("no a b c d e f positive", None),
        ("no. positive", "the sentence ends: positive"),
        ("no, positive", None),
        ("n't positive", None),
        ("nothing" + " " * 199 + "positive", None),
        ("nothing" + " " * 201 + "positive", "too far: positive"),
        ("not bad. No fear of it, then: positive", None),
        ("positive, not that it matters", "a negation after it: positive"),
        ("knot positive", "'not' in a word: positive"),
    ],
)
def test_a_negation_reaches_a_label_through_six_words_of_its_sentence(answer: str, label: str | None) -> None:
    assert labels.parse_lenient(answer, SENTIMENT) == (label and label.rpartition(": ")[2])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(YES_NO), st.sampled_from([*YES_NO, None])), min_size=1)
)
def test_question_f1_is_the_mean_of_scikit_learns_per_question(items: list[tuple[str, str, str | None]]) -> None:
    questions = sorted({question for question, _, _ in items})
    each = []
    for question in questions:
        own = [(gold == "Yes", predicted == "Yes") for name, gold, predicted in items if name == question]
        each.append(f1_score(*zip(*own, strict=True), zero_division=0))
    assert labels.question_f1(items) == pytest.approx(sum(each) / len(each), abs=1e-12)


def test_question_f1_is_not_pooled_over_questions() -> None:
    items = [("price_up", "Yes", "Yes")] * 9 + [("price_down", "Yes", "No")]
    assert labels.question_f1(items) == 0.5


@pytest.mark.parametrize(("answer", "acc", "rate"), [("No", 1.0, 1.0), ("Yes", 0.0, 1.0), ("notable", 0.0, 0.0)])
def test_a_question_keeps_its_attribute(answer: str, acc: float, rate: float) -> None:
    doc = {"attribute": "price_up", "label": "No", "choices": list(YES_NO)}
    result = labels.score_question(doc, [answer])
    assert (result["acc"], result["parse_rate"]) == (acc, rate)
    assert result["question_f1"] == ("price_up", "No", answer if rate else None)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([-3.0, -1.0, -2.0], "neutral"),
        ([-1.0, -1.0, -2.0], "negative"),
        ([-2.0, -1.0, -1.0], "neutral"),
        ([-1.0, -1.0, -1.0], "negative"),
    ],
)
def test_the_likeliest_label_wins_and_the_first_of_tied_ones(scores: list[float], best: str) -> None:
    doc = {"label": best, "choices": list(SENTIMENT)}
    result = labels.score_choice(doc, [(score, False) for score in scores])
    item = (best, best, SENTIMENT)
    assert result == {"macro_f1": item, "weighted_f1": item, "mcc": item, "acc": 1.0}


@pytest.mark.parametrize(("scores", "best"), [([-1.0, -2.0], "Yes"), ([-2.0, -1.0], "No"), ([-1.0, -1.0], "Yes")])
def test_a_question_is_answered_by_the_likeliest_label(scores: list[float], best: str) -> None:
    doc = {"attribute": "price_up", "label": "No", "choices": list(YES_NO)}
    result = labels.score_question_choice(doc, [(score, False) for score in scores])
    assert result == {"question_f1": ("price_up", "No", best), "acc": float(best == "No")}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_loglikelihood_that_is_no_number_stops_the_run(value: float, place: int) -> None:
    scores = [(-1.0, False), (-2.0, False), (-3.0, False)]
    scores[place] = (value, False)
    doc = {"attribute": "price_up", "label": "neutral", "choices": list(SENTIMENT)}
    for score in (labels.score_choice, labels.score_question_choice):
        with pytest.raises(ValueError, match="not finite"):
            score(doc, scores)


@pytest.mark.parametrize("said", ["an appropriate label.", "a correct answer", "a clear fit", "a good description"])
def test_a_quoted_label_may_be_called_one(said: str) -> None:
    assert labels.parse(f'"Positive" is {said}', ("negative", "neutral", "positive")) == "positive"


def test_a_letter_and_its_text_are_not_two_letters_nor_a_range() -> None:
    ratings = {"label": "A", "choices": ["A", "B", "C"], "options": "A. B\nB. A\nC. AAA"}
    shares = {**ratings, "options": "A. Class B shares\nB. Company with a C rating.\nC. B and A"}
    for answer in ("A - B", "A-B", "A_B", "A B"):
        assert labels.score(ratings, [answer])["acc_lenient"] == 0.0
    assert labels.score(shares, ["C-B and A"])["parse_rate"] == 0.0
    assert labels.score(shares, ["I think A. Class B shares"])["acc_lenient"] == 1.0
    with within(2):
        for answer in ("A" + "_" * 40_000 + "\nfoo", "A_A_" * 10_000 + "\nfoo"):
            labels.score(shares, [answer])
