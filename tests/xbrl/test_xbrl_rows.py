"""Every generated answer is found again by a second, independent reading of the filing."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from finbench.core import paths
from finbench.data.xbrl import filings
from finbench.data.xbrl.model import Filing
from finbench.data.xbrl.ratios import RATIOS, solve
from finbench.data.xbrl.rows import SETS, QuestionSettings, rows
from finbench.data.xbrl.sheets import sheets
from xbrl_samples import instance, second_labels, second_reading, second_value, statement

MINI = sorted((paths.shipped("tasks") / "mini" / "filings").glob("*.htm"))
QUOTED = re.compile(r'"([^"]+)"')
FIGURE = re.compile(r"(?<![\w.,-])-?\d[\d,]*(?:\.\d+)?(?= [A-Za-z/]+)")


def made_of(path: Path, budget: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    (filing,) = filings.read(path)
    return list(rows(filing, QuestionSettings(seed=3, max_context=budget), Counter()))


def shown_facts(text: str) -> dict[str, str]:
    """concept -> value of the fact lines of a prompt."""
    lines = [line.split(" ") for line in text.splitlines() if line.startswith("us-gaap:")]
    return {parts[0]: parts[1] for parts in lines}


def check(path: Path, labels: Path | None, budget: int | None) -> Counter[str]:
    """Every row of a filing against the second reading; how many of each set."""
    numbers = second_reading(path)
    named = second_labels(labels) if labels else {}
    counts: Counter[str] = Counter()
    for set_, row in made_of(path, budget):
        counts[set_] += 1
        contexts, concepts = row["context"].split(), row["concepts"].split()
        found = {
            concept: {n for where in contexts for n in numbers.get((where, concept), set())} for concept in concepts
        }
        shown = {concept: Fraction(value) for concept, value in shown_facts(row["text"]).items() if concept in concepts}
        for concept in concepts:  # what the prompt shows is in the filing, in this very context
            assert shown[concept] in found[concept], (set_, row["id"])
        if set_ == "xbrl_values":
            assert Fraction(row["answer"]) == shown[concepts[0]]
        elif set_ == "xbrl_tags":
            assert row["answer"] == concepts[0]
            _check_tag(row, shown[concepts[0]], named)
        else:
            value = second_value(row["formula"], shown)
            assert abs(value - Fraction(row["exact"])) <= abs(value) / 10**30
            if set_ == "xbrl_formula":
                assert row["answer"] == row["formula"]
            else:
                places = -int(Decimal(row["answer"]).as_tuple().exponent)
                assert abs(value - Fraction(row["answer"])) <= Fraction(1, 2 * 10**places) * bool(places)
        if named and set_ == "xbrl_values":
            assert QUOTED.search(row["question"])[1] in {label.replace('"', "'") for label in named[concepts[0]]}  # type: ignore[index]
    return counts


def _check_tag(row: dict[str, Any], number: Fraction, named: dict[str, set[str]]) -> None:
    if row["kind"] == "by value":
        (asked,) = [m for m in FIGURE.findall(row["question"]) if Fraction(m.replace(",", "")) == number][:1]
        assert Fraction(asked.replace(",", "")) == number
        same = [tag for tag, value in shown_facts(row["text"]).items() if _number(value) == number]
        assert same == [row["answer"]]
    elif named:
        assert QUOTED.search(row["question"])[1] in {label.replace('"', "'") for label in named[row["answer"]]}  # type: ignore[index]


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ValueError:
        return None


@pytest.mark.parametrize("budget", [None, 560], ids=["whole", "budget"])
@pytest.mark.parametrize("path", MINI, ids=lambda path: path.stem)
def test_answers_of_the_invented_filings(path: Path, budget: int | None) -> None:
    counts = check(path, path.with_name(f"{path.stem}_lab.xml"), budget)
    assert set(counts) == set(SETS)
    assert counts["xbrl_values"] > 30


def test_answers_of_an_instance_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(instance(statement()))
    assert check(path, None, None) == {"xbrl_tags": 9, "xbrl_values": 9, "xbrl_formula": 12, "xbrl_calc": 12}


@pytest.mark.parametrize("budget", [None, 900], ids=["whole", "budget"])
@pytest.mark.parametrize(
    "name", ["aapl-20220924", "aapl-20230930", "aapl-20240928-inline", "amzn-20221231", "nflx-20091231"]
)
def test_answers_of_real_filings(real_data: Path, name: str, budget: int | None) -> None:
    folder = real_data / "filings" / name
    stem = name.removesuffix("-inline")
    path = next(p for p in (folder / f"{stem}_htm.xml", folder / f"{stem}.xml", *folder.glob("*.html")) if p.is_file())
    labels = folder / f"{stem}_lab.xml"
    counts = check(path, labels if labels.is_file() else None, budget)
    assert sum(counts.values()) > 400


def test_the_budget_holds_and_the_answers_facts_are_always_there() -> None:
    for budget in (400, 560, 900):
        for _, row in made_of(MINI[0], budget):
            assert len(row["text"]) <= budget
            assert set(row["concepts"].split()) <= set(shown_facts(row["text"]))
            assert len(shown_facts(row["text"])) >= 4
            told = re.search(r"\((\d+) more facts", row["text"])
            assert int(told[1] if told else 0) == row["facts_left_out"]


def test_the_facts_shown_differ_by_seed_the_answers_do_not(tmp_path: Path) -> None:
    (filing,) = filings.read(MINI[0])
    one, other = (list(rows(filing, QuestionSettings(seed, 560), Counter())) for seed in (0, 1))
    assert [row["answer"] for set_, row in one if set_ != "xbrl_tags"] == [
        row["answer"] for set_, row in other if set_ != "xbrl_tags"
    ]
    assert [row["text"] for _, row in one] != [row["text"] for _, row in other]
    assert [row["question"] for _, row in one] != [row["question"] for _, row in other]


def test_several_wordings_are_used() -> None:
    made = made_of(MINI[0])
    values = [row["question"] for set_, row in made if set_ == "xbrl_values"]
    heads = Counter(re.sub(r"[^a-z ].*", "", question.lower())[:12] for question in values)
    assert len(heads) >= 4


def test_rows_carry_where_their_facts_come_from() -> None:
    (row,) = [
        r
        for s, r in made_of(MINI[0].with_name("oakmere-20211231.htm"))
        if s == "xbrl_values" and r["concepts"] == "us-gaap:Assets" and "2021" in r["end"]
    ]
    assert row["group"] == "9900000000-10-K-20211231"
    assert (row["context"], row["unit"], row["decimals"], row["scale"], row["sign"]) == ("i1", "USD", "-3", "3", "+")
    assert (row["start"], row["end"], row["filed"]) == ("", "2021-12-31", "")


def test_each_ratio_can_be_solved_and_divides_by_nothing_that_is_zero() -> None:
    (filing,) = filings.read(MINI[0])
    found, _ = sheets(filing)
    numbers = {name: fact for sheet in found for name, fact in sheet.numbers.items()}
    solved = [ratio.name for ratio in RATIOS if solve(ratio, numbers)]
    assert "quick ratio (current assets less inventory)" in solved
    assert "effective tax rate" not in solved  # no pre-tax income is reported
    assert len({ratio.name for ratio in RATIOS}) == len(RATIOS)


def test_a_role_with_two_values_is_not_asked_about(tmp_path: Path) -> None:
    two = '<us-gaap:SalesRevenueNet contextRef="d" unitRef="usd" decimals="0">{}</us-gaap:SalesRevenueNet>'
    kinds = {}
    for number in (999, 1000):
        path = tmp_path / f"{number}.xml"
        path.write_bytes(instance(statement(revenue=1000) + two.format(number)))
        kinds[number] = {row["kind"] for set_, row in made_of(path) if set_ == "xbrl_calc"}
    assert "gross margin" not in kinds[999]
    assert "gross margin" in kinds[1000]


def tags_asked(filing: Filing, seed: int) -> dict[str, str]:
    """concept -> how its tag is asked for."""
    made = rows(filing, QuestionSettings(seed=seed), Counter())
    return {row["answer"]: row["kind"] for set_, row in made if set_ == "xbrl_tags"}


def test_a_label_or_value_of_two_concepts_is_not_asked_by(tmp_path: Path) -> None:
    twin = '<us-gaap:SalesRevenueNet contextRef="d" unitRef="usd" decimals="0">1000</us-gaap:SalesRevenueNet>'
    path = tmp_path / "a.xml"
    path.write_bytes(instance(statement() + twin))
    (filing,) = filings.read(path)
    filing.labels = {"us-gaap:Revenues": "Turnover", "us-gaap:SalesRevenueNet": "Sales revenue, net"}
    asked = tags_asked(filing, 3)
    assert asked["us-gaap:Revenues"] == "by label"
    assert "us-gaap:SalesRevenueNet" not in asked  # its label is its name, its value that of another
    filing.labels = dict.fromkeys(filing.labels, "Turnover")
    assert "us-gaap:Revenues" not in tags_asked(filing, 3)


def test_a_label_that_is_the_name_of_the_tag_is_not_asked_by(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(instance(statement()))
    (filing,) = filings.read(path)
    found = {kind for seed in range(10) for kind in tags_asked(filing, seed).values()}
    assert found == {"by value"}  # a filing without labels: the tags' own words are not asked about
    filing.labels = {"us-gaap:Revenues": "Revenues.", "us-gaap:Assets": "Total assets"}
    kinds = {(tag, kind) for seed in range(10) for tag, kind in tags_asked(filing, seed).items()}
    assert ("us-gaap:Assets", "by label") in kinds
    assert ("us-gaap:Revenues", "by label") not in kinds


def test_rows_are_json_of_text_and_numbers() -> None:
    for _, row in made_of(MINI[0]):
        assert json.loads(json.dumps(row)) == row
        assert all(isinstance(value, str) for key, value in row.items() if key != "facts_left_out")
