"""Real filings (where FINBENCH_REAL_DATA names them): counts, comparatives, published rows, Arelle, time and memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from conftest import quick
from finbench.core import paths
from finbench.data.xbrl import filings
from finbench.data.xbrl.build import build_questions
from finbench.data.xbrl.finlora_questions import document_of
from finbench.data.xbrl.model import Filing
from finbench.data.xbrl.sheets import sheets
from xbrl_samples import measured

ROOT = Path(__file__).parents[2]
COUNTS = {  # facts, contexts; of the inline document 26 of 1,127 facts have formats that are not read
    "aapl-20220924": (1174, 226),
    "aapl-20230930": (1164, 205),
    "amzn-20221231": (1457, 339),
    "nflx-20091231": (383, 43),
    "aapl-20240928-inline": (1101, 193),
}
RESTATED = {  # items that Apple put together anew in the later report, at the end of the period or for the year
    ("aapl-20220924", "aapl-20230930"): {
        ("2021-09-25", "IncreaseDecreaseInOtherOperatingLiabilities"),
        ("2021-09-25", "OtherNoncashIncomeExpense"),
        ("2021-09-25", "PaymentsForProceedsFromOtherInvestingActivities"),
        ("2022-09-24", "DeferredIncomeTaxLiabilities"),
        ("2022-09-24", "DeferredTaxAssetsGross"),
        ("2022-09-24", "DeferredTaxAssetsNet"),
        ("2022-09-24", "DeferredTaxAssetsOther"),
        ("2022-09-24", "IncomeTaxReconciliationOtherAdjustments"),
        ("2022-09-24", "IncreaseDecreaseInOtherOperatingLiabilities"),
        ("2022-09-24", "OtherNoncashIncomeExpense"),
        ("2022-09-24", "PaymentsForProceedsFromOtherInvestingActivities"),
    },
    ("aapl-20220924", "aapl-20240928-inline"): {
        ("2022-09-24", "IncomeTaxReconciliationOtherAdjustments"),
        ("2022-09-24", "IncreaseDecreaseInOtherOperatingLiabilities"),
        ("2022-09-24", "OtherNoncashIncomeExpense"),
        ("2022-09-24", "PaymentsForProceedsFromOtherInvestingActivities"),
    },
    ("aapl-20230930", "aapl-20240928-inline"): {("2022-09-24", "IncomeTaxReconciliationOtherAdjustments")},
}


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, Filing]:
    return {name: filing for name in COUNTS for filing in filings.read(real_data / "filings" / name)}


def test_every_fact_and_context_is_read(real: dict[str, Filing]) -> None:
    assert {name: (len(filing.facts), len(filing.contexts)) for name, filing in real.items()} == COUNTS
    assert {name: sum(filing.unread.values()) for name, filing in real.items() if filing.unread} == {
        "aapl-20240928-inline": 26
    }
    assert [filing.filed for filing in real.values()] == ["", "2023-11-03", "2023-02-03", "2010-02-22", "2024-11-01"]
    assert {filing.ticker for filing in real.values()} == {"AAPL", "AMZN", "NFLX"}


def test_no_fact_of_a_real_filing_is_in_conflict(real: dict[str, Filing]) -> None:
    for filing in real.values():
        assert sheets(filing)[1]["in conflict with another fact"] == 0


def numbers(filing: Filing) -> dict[tuple[str, str, str, str], Any]:
    return {
        (sheet.context.start, sheet.context.end, concept.partition(":")[2], fact.unit): fact.number
        for sheet in sheets(filing)[0]
        for concept, fact in sheet.numbers.items()
    }


@pytest.mark.parametrize(("pair", "shared"), list(zip(RESTATED, (238, 82, 236), strict=True)))
def test_comparative_periods_agree_but_for_what_was_restated(
    pair: tuple[str, str], shared: int, real: dict[str, Filing]
) -> None:
    one, other = (numbers(real[name]) for name in pair)
    both = set(one) & set(other)
    assert len(both) == shared
    assert {
        (end, concept)
        for start, end, concept, unit in both
        if one[start, end, concept, unit] != other[start, end, concept, unit]
    } == RESTATED[pair]


def test_the_published_rows_are_joined_and_the_errata_are_what_the_script_finds(
    real_data: Path, tmp_path: Path
) -> None:
    files = sorted((real_data / "xbrl_analysis").glob("*.csv"))
    given = [real_data / "filings" / name for name in ("aapl-20220924", "aapl-20230930", "amzn-20221231")]
    built = build_questions(given, tmp_path, finlora=files)
    counts = {name: sum(part.values()) for name, part in built.rows.items() if name.startswith("finlora")}
    assert counts == {
        "finlora_xbrl_tags": 95,
        "finlora_xbrl_values": 90,
        "finlora_xbrl_formula": 100,
        "finlora_xbrl_calc": 100,
    }
    assert built.dropped["finlora_xbrl_tags: the answer is a number"] == 5
    script = [
        sys.executable,
        str(ROOT / "benchmarks" / "xbrl_errata.py"),
        str(real_data / "xbrl_analysis"),
        *map(str, given),
    ]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "| **all** | **390** | | **385** | **5** |" in done.stdout
    assert done.stdout in (ROOT / "docs" / "errata.md").read_text(encoding="utf-8")


def test_published_answers_score_as_right_by_the_tasks_scorers(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "xbrl_analysis").glob("*.csv"))
    build_questions([real_data / "filings" / "aapl-20230930"], tmp_path, finlora=files)
    helpers = {name: paths.helper(name) for name in ("xbrl", "numbers")}
    scorers = {
        "tags": helpers["xbrl"].score_tag,
        "values": helpers["numbers"].score,
        "formula": helpers["xbrl"].score_formula,
    }
    for kind, score in {**scorers, "calc": helpers["xbrl"].score_formula}.items():
        for line in (tmp_path / f"finlora_xbrl_{kind}" / "test.jsonl").read_text(encoding="utf-8").splitlines():
            doc = json.loads(line)
            assert set(score(doc, [doc["answer"]]).values()) == {1.0}, doc["id"]
            if kind == "formula":  # every tag of the answer is among the facts shown
                assert all(f"<{tag}>" in doc["text"] for tag in re.findall(r"us-gaap:\w+", doc["answer"]))


def test_a_10_k_takes_less_than_ten_seconds_and_a_gigabyte(real_data: Path, tmp_path: Path) -> None:
    for name in ("amzn-20221231", "aapl-20240928-inline"):
        seconds, peak = measured(str(real_data / "filings" / name), "--out", str(tmp_path / name))
        assert quick(seconds, 10)
        assert peak < 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_arelle_reads_the_same_numbers(name: str, real: dict[str, Filing], real_data: Path) -> None:
    """Arelle without a taxonomy: most facts stay undefined to it, but it still has their text (inline: transformed)."""
    pytest.importorskip("arelle", reason="the extra [xbrl] is not installed")
    from arelle import Cntlr

    filing = real[name]
    controller = Cntlr.Cntlr(logFileName="logToBuffer")
    controller.webCache.workOffline = True
    model = controller.modelManager.load(str(real_data / "filings" / name / document_of(filing)))
    facts = [*model.factsInInstance, *(model.undefinedFacts or [])] if not filing.inline else list(model.facts)
    theirs: dict[tuple[str, str], set[Fraction]] = {}
    for fact in facts:
        if not fact.get("unitRef") or fact.get("{http://www.w3.org/2001/XMLSchema-instance}nil") in ("true", "1"):
            continue
        if (fact.get("format") or "").endswith("numwordsen"):
            continue  # the SEC's transformations are a plug-in of Arelle's
        text = str(fact.value if hasattr(fact, "value") else fact.stringValue)
        concept = (fact.get("name") or "").rpartition(":")[2] or fact.qname.localName
        theirs.setdefault((fact.get("contextRef"), concept), set()).add(Fraction(text.strip()))
    ours: dict[tuple[str, str], set[Fraction]] = {}
    for found in filing.facts:
        if found.number is not None:
            ours.setdefault((found.context, found.concept.partition(":")[2]), set()).add(Fraction(found.number))
    differing = {key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key)}
    assert len(theirs) > 300
    assert len(differing) == (4 if filing.inline else 0)  # the four numbers in words
