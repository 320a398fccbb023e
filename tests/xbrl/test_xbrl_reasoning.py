"""Calculations over tables of filings: every answer is found again from the filing's own facts, and from the table."""

from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from conftest import task_helper
from finbench.core import paths
from finbench.data.xbrl import filings, reasoning
from finbench.data.xbrl.build import build_questions
from finbench.data.xbrl.model import Filing
from xbrl_samples import instance, second_reading, statement

MINI = sorted((paths.shipped("tasks") / "mini" / "filings").glob("*.htm"))
REAL = ("aapl-20220924", "aapl-20230930", "aapl-20240928-inline", "amzn-20221231", "nflx-20091231")
STEP = re.compile(r"(\w+)\(([^,]+), ([^)]+)\)")


def rational(program: str) -> Fraction:
    """The value of a program in exact fractions, by another reader than the scorer's."""
    results: list[Fraction] = []
    for operation, *arguments in STEP.findall(program):
        a, b = (results[int(x[1:])] if x[0] == "#" else Fraction(x.removeprefix("const_")) for x in arguments)
        results.append({"add": a + b, "subtract": a - b, "multiply": a * b, "divide": a / b if b else None}[operation])
    return results[-1]


def cells(text: str) -> list[list[str]]:
    """The rows of the Markdown tables of a prompt, without their rules."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| --")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "-- |" not in line]


def made_of(filing: Filing, budget: int | None = None) -> tuple[list[dict[str, Any]], Counter[str]]:
    dropped: Counter[str] = Counter()
    return list(reasoning.questions(filing, 3, budget, dropped)), dropped


def check(rows: list[dict[str, Any]], numbers: dict[tuple[str, str], set[Fraction]]) -> Counter[str]:
    """Every row against the second reading of its filings and against its own table."""
    score = task_helper("reports").score_finqa
    kinds: Counter[str] = Counter()
    for row in rows:
        kinds[row["kind"]] += 1
        value = rational(row["program"])
        assert abs(value - Fraction(row["answer"])) <= Fraction(1, 200_000)
        assert abs(value - Fraction(row["exact"])) <= Fraction(1, 10**12) * max(1, abs(value))
        shown = cells(row["text"])
        assert shown == json.loads(row["table"])
        printed = {Fraction(c.replace(",", "")) for line in shown for c in line[1:] if re.fullmatch(r"-?[\d,.]+", c)}
        used = re.findall(r"(?<![\w#])-?\d+(?:\.\d+)?", row["program"])
        assert {Fraction(figure) for figure in used} <= printed, row["program"]
        facts = list(zip(row["context"].split(), row["concepts"].split(), strict=True))
        scale = next(
            (10**n for n, word in ((9, "billions"), (6, "millions"), (3, "thousands")) if word in row["text"]), 1
        )
        if row["beside"] == "":
            reported = {number / scale for fact in facts for number in numbers[fact]}
            assert {Fraction(figure) for figure in used} <= reported, row["question"]
        assert score(row, [row["answer"]])["acc"] == score(row, [row["program"]])["exe_acc"] == 1.0
        assert not any(score(row, [cell])["acc"] for line in shown for cell in line[1:])  # echoes reach nothing
        assert row["derivation"].endswith(f"= {row['answer']}")
    return kinds


@pytest.mark.parametrize("budget", [None, 700])
@pytest.mark.parametrize("path", MINI, ids=lambda path: path.stem)
def test_answers_over_the_invented_filings(path: Path, budget: int | None) -> None:
    (filing,) = filings.read(path)
    rows, _ = made_of(filing, budget)
    kinds = check(rows, second_reading(path))
    assert kinds["share"] > 5
    assert budget is None or max(len(row["text"]) for row in rows) <= budget


@pytest.mark.parametrize("name", REAL)
def test_answers_over_real_filings(real_data: Path, name: str) -> None:
    folder = real_data / "filings" / name
    stem = name.removesuffix("-inline")
    path = next(p for p in (folder / f"{stem}_htm.xml", folder / f"{stem}.xml", *folder.glob("*.html")) if p.is_file())
    (filing,) = filings.read(path)
    rows, _ = made_of(filing)
    kinds = check(rows, second_reading(path))
    assert min(kinds["change"], kinds["share"], kinds["two periods"]) >= 2


def test_two_companies_are_compared_and_one_with_itself_is_not() -> None:
    (one,), (other,) = (list(filings.read(path)) for path in MINI[:2])
    rows = list(reasoning.comparisons(one, other, 3, None, Counter()))
    assert {row["kind"] for row in rows} == {"two companies"}
    check(rows, {})
    for row in rows:
        assert one.company in row["question"]
        assert other.company in row["question"]
        assert row["text"].count(" of USD:") + row["text"].count("in USD:") == 2
        assert row["group"] == f"{one.id}|{other.id}"
    assert not list(reasoning.comparisons(one, one, 3, None, Counter()))


def test_rows_do_not_depend_on_what_else_is_built_and_are_the_same_twice(tmp_path: Path) -> None:
    build_questions([MINI[0]], tmp_path / "a")
    build_questions([MINI[0], MINI[1]], tmp_path / "b")
    first, both = (
        {
            row["id"]: row
            for row in map(json.loads, (tmp_path / x / "xbrl_reason" / "test.jsonl").open(encoding="utf-8"))
        }
        for x in "ab"
    )
    assert first.items() <= both.items()
    assert any(row["kind"] == "two companies" for row in both.values())


def test_an_instance_without_comparative_figures_has_only_shares(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(instance(statement()))
    (filing,) = filings.read(path)
    rows, _ = made_of(filing)
    assert set(check(rows, second_reading(path))) <= {"share"}
