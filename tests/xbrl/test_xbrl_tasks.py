"""Scorers of the XBRL tasks, and the invented filings that ship."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import task_helper, within
from finbench.core import catalog, paths
from finbench.data.sources import import_data
from finbench.scoring import prompts, taskcheck
from make_xbrl import xbrl_sources
from xbrl_samples import second_value

xbrl, tagging, terms = (task_helper(name) for name in ("xbrl", "tagging", "terms"))

TEXT = "[as of 2021-12-31]\nus-gaap:Assets 4100 USD\nus-gaap:Liabilities 3900 USD\nus-gaap:StockholdersEquity 200 USD"
A, L, E = (f"us-gaap:{name}" for name in ("Assets", "Liabilities", "StockholdersEquity"))


def tag(answer: str) -> tuple[float, float]:
    found = xbrl.score_tag({"answer": A, "text": TEXT}, [answer])
    return found["acc"], found["acc_lenient"]


@pytest.mark.parametrize(
    "answer",
    ["us-gaap:Assets", "Assets", "us-gaap_Assets", "US-GAAP:Assets", "us gaap: Assets", "`us-gaap:Assets`", "<us-gaap:Assets>",
     "us-gaap:Assets.", " us-gaap:Assets \nbecause", "**Assets**", "The tag is us-gaap:Assets.", "It is Assets"],
)  # fmt: skip
def test_right_tags_with_and_without_prefix(answer: str) -> None:
    assert tag(answer) == (1, 1)


@pytest.mark.parametrize("answer", ["I think us-gaap:Assets", "us-gaap:assets", "Total Assets", "assets"])
def test_tags_that_only_the_lenient_reading_finds(answer: str) -> None:
    assert tag(answer) == (0, 1)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "us-gaap:Liabilities",
        "us-gaap:Assets or us-gaap:Liabilities",
        "own:Assets x",
        "total",
        "us-gaap:AssetsCurrent",
    ],
)
def test_wrong_tags(answer: str) -> None:
    assert tag(answer) == (0, 0)


GOLD = f"({E} / {A}) * 100"


def formula(answer: str, gold: str = GOLD) -> tuple[float, float, float]:
    found = xbrl.score_formula({"answer": gold, "text": TEXT}, [answer])
    return found["acc"], found["acc_value"], found["acc_lenient"]


@pytest.mark.parametrize(
    "answer",
    [GOLD, f"{E} / {A} * 100", f"100 * {E} / {A}", f"100*({E}/{A})", "StockholdersEquity".join(["us-gaap_", " / us-gaap_Assets × 100"]),
     "StockholdersEquity / Assets * 100", "The <think>{E}</think>" + GOLD, GOLD + "<|im_end|>", f"({E} * 2) / (2 * {A}) * 100",
     f"[{E} ÷ {A}] × 100.0", f"(({E})) / (({A})) * 10 * 10", f"`{GOLD}`", f"{GOLD}.", f"{E} * 100 / {A}"],
)  # fmt: skip
def test_formulas_of_one_structure(answer: str) -> None:
    assert formula(answer) == (1, 1, 1)


def test_formulas_of_another_structure_and_the_same_value() -> None:
    assert formula(f"({A} - {L}) / {A} * 100") == (0, 1, 0)
    assert formula(f"{A} / {E}") == (0, 0, 0)
    assert formula(f"The equity ratio:\n{GOLD}") == (0, 0, 1)
    assert formula(f"The formula:\n{GOLD}") == (1, 1, 1)
    assert formula(f"{E} / {A}") == (0, 0, 1)  # a share instead of per cent
    assert formula(f"The equity ratio = {GOLD}") == (1, 1, 1)
    assert formula(f"It is not = {GOLD}") == (0, 0, 1)
    assert formula("200 / 4100 * 100") == (0, 1, 0)


@pytest.mark.parametrize(
    "answer",
    ["", "us-gaap:StockholdersEquity", f"{E} / {A} * 100)", f"({E} / {A} * 100", f"{E} / * {A}", f"{E} {A}", "x" * 100_000,
     f"{E} / 0", f"{E} / {A} % 100", "(" * 500, "import os", f"{E} / {A} * 100 perhaps", "1" * 700, f"{E} / {A} ** 100", f"{E} // {A} * 100",
     "__import__('os').system('id')", "StockholdersEquityXÄ / Assets * 100", f"{E} / {A} * 1,00", f"{E} / ({A} - {A}) * 100", "nan", "9**9**9"],
)  # fmt: skip
def test_what_is_no_such_formula(answer: str) -> None:
    assert formula(answer)[0] == 0


def test_sums_in_brackets() -> None:
    gold = f"({A} - {L}) / {E}"
    for right in (gold, f"(({A}) - {L}) / {E}", f"(-{L} + {A}) / {E}", f"1 / {E} * ({A} - {L})"):
        assert formula(right, gold)[0] == 1
    assert formula(f"{A} - {L} / {E}", gold) == (0, 0, 0)
    assert formula(f"({L} - {A}) / {E}", gold)[:2] == (0, 0)
    assert formula(f"({A} - {L} + {A} - {A}) / {E}", gold)[0] == 1
    for right in (
        f"({L} - {A}) / -{E}",
        f"(100 * {L} - 100 * {A}) / {E} / -100",
        f"({A} - {L}) * 1 / {E}",
        f"2 * ({A} - {L}) / (2 * {E})",
    ):
        assert formula(right, gold)[0] == 1, right
    assert formula(f"({A} - {L}) * 1", f"{A} - {L}")[0] == 1
    assert formula(f"{A} / {E} - {L} / {E}", gold) == (0, 1, 0)  # one more division: the value alone


def test_formulas_of_numbers() -> None:
    gold = "(96995000000 / 383285000000) * 100"
    assert formula("96,995,000,000 / 383,285,000,000 * 100", gold)[:2] == (1, 1)
    assert formula("100 * 96995000000 / 383285000000", gold)[0] == 1
    assert formula("(383285000000 / 96995000000) * 100", gold)[:2] == (0, 0)
    assert formula("(-2722000000 / 513983000000) * 100", "(-2722000000 / 513983000000) * 100")[0] == 1


def test_facts_of_a_prompt() -> None:
    assert xbrl.facts_of(TEXT)[A] == 4100
    text = "<us-gaap:Assets>-352583000000.5</>\n<us-gaap:Term>P3Y</>\nus-gaap:Twice 1 USD\nus-gaap:Twice 2 EUR"
    assert xbrl.facts_of(text) == {A: Fraction("-352583000000.5")}


ATOMS = st.sampled_from([A, L, E, "2", "100"])
TREES = st.recursive(
    ATOMS,
    lambda sub: st.tuples(sub, st.sampled_from("+-*/"), sub).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@given(TREES)
def test_normal_forms_keep_the_value(text: str) -> None:
    facts = {A: Fraction(4100), L: Fraction(3900), E: Fraction(200)}
    parsed = xbrl.parse_formula(text)
    try:
        expected = second_value(text, facts)
    except ZeroDivisionError:
        return
    assert parsed is not None
    assert xbrl.evaluate(parsed, facts) == expected


@given(st.text(max_size=200))
def test_no_answer_makes_a_scorer_fail(answer: str) -> None:
    result = {"answer": "5.00", "exact": "5", "result_unit": "percent", "text": TEXT}
    for score, doc in (
        (xbrl.score_tag, {"answer": A, "text": TEXT}),
        (xbrl.score_formula, {"answer": GOLD, "text": TEXT}),
        (xbrl.score_result, result),
        (xbrl.score_value, {"answer": "5", "unit": "USD/shares"}),
        (tagging.score, {"label": "Assets", "choices": ["Assets", "Liabilities"]}),
        (terms.score, {"answer": "Things of value."}),
    ):
        score(doc, [answer])


def test_long_answers_take_no_time() -> None:
    doc: dict[str, Any] = {"answer": GOLD, "text": TEXT}
    with within(3):
        for answer in (
            "(" * 10**6,
            f"{A} / " * 10**5,
            "1," * 10**6,
            " " * 10**6,
            "us-gaap:" * 10**5,
            "=\n" * 10**6,
            "A1" * 10**6,
        ):
            xbrl.score_formula(doc, [answer])
            xbrl.score_tag({"answer": A, "text": TEXT}, [answer])
            xbrl.score_result({"answer": "5", "exact": "5", "result_unit": "USD"}, [answer])
            xbrl.score_value({"answer": "5", "unit": "USD/shares"}, [answer])
            tagging.score({"label": "Assets", "choices": ["Assets"]}, [answer])
            terms.score({"answer": "Things of value."}, [answer])


def result(answer: str, gold: str = "12.46", exact: str = "12.4567", unit: str = "percent") -> tuple[float, float]:
    found = xbrl.score_result({"answer": gold, "exact": exact, "result_unit": unit}, [answer])
    return found["acc"], found["acc_lenient"]


def test_results() -> None:
    for right in ("12.46", "12.46%", "12.46 %", "12.46 percent", "12.457", "12.4567", "+12.46", "12.46.", "12.460"):
        assert result(right) == (1, 1), right
    for right in ("It was 12.46%.", "Net profit margin: 12.46 %"):
        assert result(right) == (1, 1), right
    for lenient in ("I think it was 12.46%.", "11 / 88 = 12.46"):
        assert result(lenient) == (0, 1), lenient
    for wrong in ("12.5", "12.47", "0.1246", "-12.46", "12,46", "", "12.46 or 13", "1246"):
        assert result(wrong)[0] == 0, wrong
    for right in ("-14", "(14)", "-$14", "$ -14", "−14", "-14 USD", "(14.0)"):
        assert result(right, "-14", "-14", "USD") == (1, 1), right
    assert result("14.2 million", "14200000", "14200000", "USD") == (1, 1)
    assert result("14200000.4", "14200000", "14200000", "USD")[0] == 0  # money is exact
    assert result("1.25x", "1.250", "1.25", "times") == (1, 1)
    assert result("-(14)", "-14", "-14", "USD")[0] == 0
    for right in ("1.246e1", "12.46<|im_end|>", "<think>5</think>12.46%", "\ufeff12.46"):
        assert result(right) == (1, 1), right
    for other in ("12.46 x", "$12.46", "12.46 USD", "NaN", "inf", "1e999"):
        assert result(other) == (0, 0), other
    for right in ("$(14)", "$ (14.00)", "(USD 14)", "－14", "-1.4e1"):
        assert result(right, "-14", "-14", "USD") == (1, 1), right
    for other in ("-14%", "-14 x", "-14 EUR", "-€14", "14", "-14." + "0" * 40 + "1"):  # nothing is rounded away
        assert result(other, "-14", "-14", "USD") == (0, 0), other
    assert result("98.8%", "0.988", "0.9879", "times")[0] == 0


def value(answer: str, gold: str = "1000", unit: str = "USD") -> tuple[float, float]:
    found = xbrl.score_value({"answer": gold, "unit": unit}, [answer])
    return found["acc"], found["acc_lenient"]


def test_values_with_the_unit_that_the_prompt_shows() -> None:
    for right in (
        "1000",
        "1,000",
        "1000.00",
        "1e3",
        "1000 USD",
        "$1,000",
        "US$1000",
        "1 thousand",
        "1000 usd.",
        "**1000**",
    ):
        assert value(right) == (1, 1), right
    for right in ("6.15 USD/shares", "$6.15", "6.15 USD per share", "$6.15 per share."):
        assert value(right, "6.15", "USD/shares") == (1, 1), right
    for right in ("15,943,425 shares", "15.943425 million shares", "15943425"):
        assert value(right, "15943425", "shares") == (1, 1), right
    for right in ("0.147", "14.7%", "0.147 pure", ".147"):
        assert value(right, "0.147", "pure") == (1, 1), right
    for right in ("The value is 1000 USD.", "Total assets: 1000 USD", "Total assets, net = $1,000"):
        assert value(right) == (1, 1), right
    for lenient in ("I think it is 1000 USD.", "us-gaap:Assets 1000 USD", "1000, that is 1,000.0"):
        assert value(lenient) == (0, 1), lenient
    for wrong in (
        "-1000",
        "(1000)",
        "1.000",
        "1,00",
        "1000 EUR",
        "1000%",
        "100000%",
        "1000x",
        "1000 or 2000",
        "1000000",
        "",
        "NaN",
    ):
        assert value(wrong) == (0, 0), wrong
    assert value("14.7", "0.147", "pure") == (0, 0)
    assert value("1000 shares") == (0, 1)  # not the unit of the fact; the number alone is right
    assert value("-0", "0") == (1, 1)


# ---------------------------------------------------------------- tags of figures


DOC = {"label": "GoodwillGross", "choices": ["Goodwill", "GoodwillGross", "GoodwillImpairmentLoss"]}


def figure(answer: str) -> tuple[float, float]:
    found = tagging.score(DOC, [answer])
    return found["acc"], found["acc_lenient"]


def test_tags_of_figures() -> None:
    for right in (
        "GoodwillGross",
        "us-gaap:GoodwillGross",
        " `GoodwillGross`.",
        "The tag is GoodwillGross",
        "GoodwillGross\nas said",
    ):
        assert figure(right) == (1, 1), right
    for lenient in ("goodwillgross", "I think GoodwillGross"):
        assert figure(lenient) == (0, 1), lenient
    for wrong in (
        "",
        "Goodwill",
        "Goodwill or GoodwillGross",
        "GoodwillGross\nGoodwill",
        "<think>GoodwillGross",
        "Assets",
    ):
        assert figure(wrong) == (0, 0), wrong


def test_macro_and_micro_f1_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    gold = ["a", "a", "b", "c", "c", "c"]
    said = ["a", "b", "b", None, "c", "z"]
    names = [name or "none" for name in said]
    expected = f1_score(gold, names, labels=sorted(set(gold)), average="macro")
    assert tagging.gold_macro_f1(list(zip(gold, said, strict=True))) == pytest.approx(expected)
    counts = [tagging._counts(*pair) for pair in zip(gold, said, strict=True)]
    hits, wrong, missed = (sum(column) for column in zip(*counts, strict=True))
    assert (hits, wrong, missed) == (3, 2, 3)
    assert f1_score(gold, names, labels=["a", "b", "c", "z"], average="micro") == pytest.approx(6 / (6 + 2 + 3))


def test_choices_by_likelihood() -> None:
    assert tagging.score_choice(DOC, [(-3.0, False), (-1.0, False), (-2.0, False)])["acc"] == 1
    assert tagging.score_choice(DOC, [(-1.0, False), (-1.0, False), (-2.0, False)])["acc"] == 0  # the first of tied
    with pytest.raises(ValueError, match="not finite"):
        tagging.score_choice(DOC, [(float("nan"), False)] * 3)


def test_all_tags_of_the_set_become_choices() -> None:
    import datasets

    rows = [{"choices": ["b", "a"], "label": "a"}, {"choices": ["c", "b"], "label": "b"}]
    tables = {
        "train": datasets.Dataset.from_list(rows),
        "test": datasets.Dataset.from_list([{"choices": ["d"], "label": "d"}]),
    }
    tables["validation"] = tables["test"].select([])
    made = tagging.with_all_choices(tables)
    assert [row["choices"] for split in ("train", "test") for row in made[split]] == [["a", "b", "c", "d"]] * 3
    assert [row["label"] for row in made["train"]] == ["a", "b"]
    assert len(made["validation"]) == 0


def test_the_choice_form_of_finer139_asks_for_all_tags(tmp_path: Path) -> None:
    import_data("finer139", xbrl_sources(tmp_path, 60)["finer139"], tmp_path / "data")
    lm_tasks = prompts.load(catalog.expand(["finer139", "finer139_mc"]), tmp_path / "data")
    few, many = (prompts.rows(lm_tasks[f"finbench_{name}"], "test") for name in ("finer139", "finer139_mc"))
    offered = {
        choice
        for split in ("train", "validation", "test")
        for row in prompts.rows(lm_tasks["finbench_finer139"], split)
        for choice in row["choices"]
    }
    assert [len(row["choices"]) for row in few] == [3] * 60  # these rows have three tags
    assert [row["choices"] for row in many] == [sorted(offered)] * 60
    asked = prompts.requests(lm_tasks["finbench_finer139_mc"], 2)
    assert len(asked) == 2 * len(offered)
    assert not any(choice in asked[0].args[0] for choice in offered if choice != "Goodwill")  # the prompt lists none


def test_terms() -> None:
    doc = {"answer": "Things of value that the entity owns."}
    assert terms.score(doc, ["Things of value that the entity owns.\nmore"])["chrf"] == 1
    assert terms.score(doc, ["Things of value that the entity owns.\nmore"])["rouge_l_lenient"] < 1
    assert terms.score(doc, [""]) == {"chrf": 0, "rouge_l": 0, "chrf_lenient": 0, "rouge_l_lenient": 0, "parse_rate": 0}
    assert 0 < terms.score(doc, ["Things owned."])["rouge_l"] < 1


# ---------------------------------------------------------------- what ships


def test_the_invented_filings_and_rows_are_what_their_script_writes() -> None:
    script = paths.shipped("tasks") / "mini" / "xbrl.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)


def test_the_mini_rows_score_as_their_own_answers() -> None:
    lm_task = prompts.load(catalog.expand(["mini_xbrl"]), None)["finbench_mini_xbrl"]
    docs = prompts.rows(lm_task, "test")
    assert {doc["task"] for doc in docs} == {"tags", "values", "formula", "calc"}
    for doc in docs:
        right = lm_task.process_results(doc, [" " + str(lm_task.doc_to_target(doc))])
        assert right == {"acc": 1, "acc_lenient": 1, "parse_rate": 1}, doc
        assert lm_task.process_results(doc, [""])["acc"] == 0
        prompt, answer = prompts.pair(lm_task, doc)
        assert len(prompt + answer) < 1100
        assert doc["answer"] in answer
    sides = [{doc["company"] for doc in prompts.rows(lm_task, split)} for split in ("train", "test")]
    assert not sides[0] & sides[1]


def test_golden_prompts_of_the_xbrl_tasks() -> None:
    for task in catalog.expand(["finbench_xbrl", "finbench_fnxl_mc", "finbench_finer139_mc", "mini_xbrl"]):
        golden = json.loads((paths.shipped("tasks") / "golden" / f"{task.name}.json").read_text(encoding="utf-8"))
        assert golden["digest"] == task.digest
        prompt, answer = golden["pairs"][0]
        assert taskcheck.golden_prompt(task) == prompt + answer
