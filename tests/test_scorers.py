"""What holds for every scorer in tasks/lib: golden cases, oracle, chance, hash seed, speed, hostile answers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import quick, task_helper, within

HELPERS = {name: task_helper(name) for name in ("labels", "numbers", "questions", "spans", "finlora", "regression")}
GOLDEN = Path(__file__).parent / "golden" / "scorers.json"
GROUPS = json.loads(GOLDEN.read_text(encoding="utf-8"))
CASES = [(group, case) for group in GROUPS for case in group["cases"]]

SEVEN = [f"{level} {side}" for side in ("negative", "positive") for level in ("strong", "moderately", "mildly")]
SEVEN.insert(3, "neutral")
TYPES = ["person", "organization", "location"]
Row = tuple[dict[str, Any], str]  # a row and its right answer


def scorer(name: str) -> Callable[[dict[str, Any], list[str]], dict[str, Any]]:
    module, function = name.split(".")
    return getattr(HELPERS[module], function)  # type: ignore[no-any-return]


def entities(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"text": text, "type": kind, "start": 10 * place} for place, (text, kind) in enumerate(pairs)]


def listed(found: list[dict[str, Any]]) -> Row:
    doc = {"text": "A sentence .", "entities": found, "choices": TYPES}
    return doc, HELPERS["spans"].target(doc)


ROWS: dict[str, list[Row]] = {  # of each scorer: rows whose answers are as many different ones
    "labels.score": [({"label": label, "choices": SEVEN}, label) for label in SEVEN],
    "questions.score": [
        ({"attribute": name, "label": label, "choices": ["Yes", "No"]}, label)
        for name in ("price_up", "past")
        for label in ("Yes", "No")
    ],
    "numbers.score": [({"answer": text}, text) for text in ("1,000", "100", "10", "-10", "(12)", "0.5")],
    "numbers.score_close": [({"answer": text}, text) for text in ("10.0", "100.0", "1.0", "0.07", "15092.44", "-3.5")],
    "numbers.score_unit": [
        ({"answer": text, "scale": scale}, text)
        for text, scale in (("$1577.00", 6), ("$8.70", 9), ("1.9%", 0), ("0.66", 0), ("-0.02", 0), ("93.86", 0))
    ],
    "spans.score": [
        listed(entities(("Ana Roth", "person"))),
        listed(entities(("Acme", "organization"))),
        listed(entities(("Ulm", "location"), ("Ulm", "organization"))),
        listed(entities(("Ulm", "organization"), ("Ulm", "location"), ("Bo", "person"))),
    ],
    "finlora.score_labels": [({"text": "?\nAnswer: ", "target": label, "choices": SEVEN}, label) for label in SEVEN],
    "finlora.score_number": [
        ({"text": "?\nAnswer:", "target": text}, text) for text in ("10", "100", "1", "0.07", "-3.5")
    ],
    "finlora.score_text": [({"text": "?\nAnswer:", "target": text}, text) for text in ("Data Center", "Data", "Yes.")],
    "regression.score": [({"score": score}, str(score)) for score in (-1.0, -0.374, 0.0, 0.25, 1.0)],
}
AGGREGATIONS = {
    "macro_f1": "labels.macro_f1",
    "weighted_f1": "labels.weighted_f1",
    "mcc": "labels.mcc",
    "question_f1": "questions.question_f1_pooled",
    "question_mcc": "questions.question_mcc",
    "span_f1": "spans.span_f1",
    "span_macro_f1": "spans.span_macro_f1",
    "finlora_acc": "finlora.finlora_acc",
    "finlora_f1": "finlora.finlora_f1",
    "r2": "regression.r2",
    "mse": "regression.mse",
}
CHANCE = {  # of a shuffle, where it is not the share of each answer
    "question_f1": 0.5,
    "mcc": 0.0,
    "question_mcc": 0.0,
    "r2": -1.0,
}


def aggregated(results: list[dict[str, Any]]) -> dict[str, float]:
    found = {}
    for metric in results[0]:
        values = [result[metric] for result in results]
        named = AGGREGATIONS.get(metric.removesuffix("_lenient"))
        found[metric] = float(scorer(named)(values) if named else sum(values) / len(values))  # type: ignore[call-arg, arg-type]
    return found


def read(group: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """What a golden case compares; ``theirs``: whether FinLoRA's rule finds the answer right among these targets."""
    result = scorer(group["scorer"])(group["doc"], [case["answer"]])
    if group["scorer"] == "finlora.score":
        others = [(label, label) for label in group.get("labels", group["doc"].get("choices"))]
        share = HELPERS["finlora"].finlora_acc([result["finlora_acc"], *others])
        result["theirs"] = round(share * (len(others) + 1) - len(others))
    if group["scorer"] == "regression.score":
        result |= {"read": result["r2"][1], "lenient": result["r2_lenient"][1]}
    return {name: list(result[name]) if isinstance(result[name], tuple) else result[name] for name in case["expect"]}


@pytest.mark.parametrize(
    ("group", "case"), CASES, ids=[f"{group['scorer']}: {case['answer'][:30]!r}" for group, case in CASES]
)
def test_an_answer_scores_as_the_golden_file_says(group: dict[str, Any], case: dict[str, Any]) -> None:
    assert read(group, case) == case["expect"], case["why"]


@pytest.mark.parametrize(("group", "case"), CASES, ids=range(len(CASES)))
def test_the_golden_file_never_scores_strict_above_lenient(group: dict[str, Any], case: dict[str, Any]) -> None:
    expect = case["expect"]
    assert expect.get("acc", 0) <= expect.get("acc_lenient", 1)
    assert expect.get("acc", 0) <= expect["parse_rate"]


@pytest.mark.parametrize("name", ROWS)
def test_an_oracle_scores_everything(name: str) -> None:
    found = aggregated([scorer(name)(doc, [" " + answer]) for doc, answer in ROWS[name] * 3])
    for metric, value in found.items():
        assert value == (0.0 if metric.startswith("mse") else 1.0), metric


@pytest.mark.parametrize("name", ROWS)
def test_silence_scores_nothing(name: str) -> None:
    found = aggregated([scorer(name)(doc, [""]) for doc, _ in ROWS[name] * 3])
    for metric, value in found.items():
        assert value >= 1 if metric.startswith("mse") else value <= 0, metric


@pytest.mark.parametrize("name", [name for name in ROWS if name != "spans.score"])
def test_shuffled_answers_score_chance(name: str) -> None:
    """Answers without regard to the row: each metric within five standard errors of what independence gives."""
    copies = 6000 // len(ROWS[name])
    rows = ROWS[name] * copies
    answers = [answer for _, answer in rows]
    random.Random(7).shuffle(answers)
    found = aggregated([scorer(name)(doc, [answer]) for (doc, _), answer in zip(rows, answers, strict=True)])
    share = 1 / len(set(answers))
    slack = 10 * (share * (1 - share) / len(rows)) ** 0.5  # an F1 has up to twice the error of a share
    for metric, value in found.items():
        if metric.startswith("mse"):
            continue
        expected = 1.0 if metric == "parse_rate" else CHANCE.get(metric.removesuffix("_lenient"), share)
        assert value == pytest.approx(expected, abs=max(slack, 0.1 if metric.startswith("r2") else 0)), metric


def test_shuffled_lists_of_entities_score_what_the_lists_share() -> None:
    rows = ROWS["spans.score"] * 1000
    answers = [answer for _, answer in rows]
    random.Random(7).shuffle(answers)
    found = aggregated([scorer("spans.score")(doc, [answer]) for (doc, _), answer in zip(rows, answers, strict=True)])
    # lists of 1, 1, 2 and 3 entities: 7 hits where a list meets itself, 1 + 1 where both Ulms meet in the other order
    assert found["span_f1"] == pytest.approx((7 + 2) / 4 / 7, abs=0.03)
    assert found["exact_match"] == pytest.approx(0.25, abs=0.035)


SEEDED = """
import importlib.util, json, sys
golden, *files = sys.argv[1:]
found, helpers = [], {}
for file in files:
    spec = importlib.util.spec_from_file_location(file, file)
    helpers[file.rsplit("/", 1)[-1].removesuffix(".py")] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
theirs = []
for group in json.load(open(golden, encoding="utf-8")):
    module, function = group["scorer"].split(".")
    results = [getattr(helpers[module], function)(group["doc"], [case["answer"]]) for case in group["cases"]]
    found.append(results)
    if module == "finlora":
        theirs += [result["finlora_f1"] for result in results]
found += [helpers["finlora"].finlora_acc(theirs), helpers["finlora"].finlora_f1(theirs)]
print(json.dumps(found))
"""


def test_no_score_depends_on_the_hash_seed() -> None:
    files = [str(module.__file__) for module in HELPERS.values()]
    printed = set()
    for seed in ("0", "1", "2", "3"):
        command = [sys.executable, "-c", SEEDED, str(GOLDEN), *files]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1
    assert len(printed.pop()) > 10_000


@pytest.mark.parametrize("name", ROWS)
def test_twenty_thousand_items_are_aggregated_in_a_second(name: str) -> None:
    rows = ROWS[name] * (20_000 // len(ROWS[name]))
    results = [scorer(name)(doc, [answer]) for doc, answer in rows[: len(ROWS[name])]]
    results *= 20_000 // len(results)
    with within(2):  # of all metrics of the scorer
        aggregated(results)


def test_twenty_thousand_different_targets_are_searched_in_a_second() -> None:
    rng = random.Random(0)
    items = [(f"it is {rng.random():.6f}", f"{rng.random():.6f}") for _ in range(20_000)]
    with within(1):
        HELPERS["finlora"].finlora_acc(items)


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # with lone surrogates and NUL
PIECES = (
    *("positive", "mildly", "negative", "not", "n't", "Yes", "no", "Answer:", "<think>", "</think>", "because", "_"),
    *("1,000", "1000", "(", ")", "$", "%", " percent", "million", "-", "−", "e3", ".", ",", "0.5", "10", "\u0000"),
    *("[", "]", "{", "}", '"text"', '"type"', ":", '"Ulm"', '"person"', "NaN", "```", "\n", " ", "\\", "'"),
)
LIKELY = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@pytest.mark.parametrize("name", ROWS)
@given(answer=ANY_TEXT | LIKELY, place=st.integers(0, 3))
def test_any_answer_scores_and_never_higher_strictly(name: str, answer: str, place: int) -> None:
    doc, _ = ROWS[name][place % len(ROWS[name])]
    result = scorer(name)(doc, [answer])
    assert result["parse_rate"] in (0.0, 1.0)
    assert result.get("acc", 0.0) <= result.get("acc_lenient", 1.0)
    assert result.get("acc", 0.0) <= result["parse_rate"]
    found = aggregated([result])
    assert all(value == value and abs(value) < 1e9 for value in found.values())


HOSTILE = [
    *("positive " * 5600, "not positive " * 3800, "no " * 16_000, "Yes " * 12_000, "is not " * 7000),
    *("mildly " * 7000, "mildly" + " " * 50_000, "answer" + " " * 50_000, "a,a " * 12_000, "\u00a0" * 50_000),
    *("1" * 50_000, "1," * 25_000, "1 " * 25_000, "1.1" * 16_000, "-" * 50_000, "(" * 50_000, "$ " * 25_000),
    *("0.5 " * 12_000, "1e" * 25_000, "9" * 4999 + "e999", "5 million " * 990, "1" + " " * 9990 + "%", "%" * 50_000),
    *("[" * 50_000, "[" * 25_000 + "]" * 25_000, '{"a":' * 10_000, '[{"text":' * 5000, "[[" + "{}," * 16_000),
    *(("[" + "{}," * 160) * 100, '["' * 25_000, "[NaN," * 10_000, "[" + "Infinity," * 5000, "[" + "9" * 49_000 + "]"),
    *("\u0000" * 50_000, "\ud800" * 50_000, "<think>" * 7000, "</think>" * 6000, "\u0130" * 25_000, "ﷺ" * 2700),
    *('[{"text":"Ulm","type":"person"}' + ',{"text":"Ulm","type":"location"}' * 1400 + "]", "Answer:" * 7000),
    "[" + '{"text":"Ulm","type":"location"},{"text":"Ulm","type":"organization"},' * 700 + "{}]",
]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("answer", HOSTILE, ids=[f"{answer[:12]!r}" for answer in HOSTILE])
def test_fifty_thousand_hostile_characters_take_no_tenth_of_a_second(name: str, answer: str) -> None:
    doc, _ = ROWS[name][-1]
    spent = []
    for _ in range(3):
        start = time.process_time()
        scorer(name)(doc, [answer])
        spent.append(time.process_time() - start)
        if spent[-1] < 0.1:
            break
    assert quick(min(spent), 0.1)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("piece", ["[", '[{"text":', "9", "-", "positive", "not "])
def test_a_million_hostile_characters_end(name: str, piece: str) -> None:
    doc, _ = ROWS[name][-1]
    with within(3):
        assert scorer(name)(doc, [piece * (10**6 // len(piece))]).get("acc", 0.0) == 0.0
