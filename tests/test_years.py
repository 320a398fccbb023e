"""A score by the year of its documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import finbench
from finbench.cards import cardfiles, overtime
from finbench.cli import app
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.core.records import BaseModelId
from finbench.core.strict import plain
from finbench.scoring import group_difference, metrics, prompts, years

CARDS = Path(__file__).parent.parent / "leaderboards" / "scorecards"


@pytest.mark.parametrize(
    ("row", "year"),
    [
        ({"year": "1998"}, 1998), ({"year": 2008}, 2008), ({"year": ""}, None), ({"year": "98"}, None),
        ({"document": "AAL/2014/page_89.pdf"}, 2014), ({"document": "3M"}, None), ({"text": "in 2014"}, None),
        ({"group": "0000320193-10-K-20220924"}, 2022), ({"group": "convfinqa-4c7dbcf4e157f50c"}, None),
        ({"group": "0000320193-10-K-20220924|0001018724-10-K-20231231"}, 2023),
        ({"group": "3M_2018_10K"}, 2018), ({"group": "PEPSICO_2023Q1_EARNINGS"}, 2023),
        ({"end": "2022-09-24", "group": "0000320193-10-K-20230930"}, 2022), ({"year": "3014"}, None), ({}, None),
    ],
)  # fmt: skip
def test_the_year_of_a_row_is_what_its_set_or_filing_says(row: dict[str, Any], year: int | None) -> None:
    assert years.year_of(row) == year


def test_the_authors_years_of_fomc_are_kept() -> None:
    sets = paths.helper("sets")
    table = [({"sentence": f"rates {number}", "year": 2000 + number, "label": 1}, "f:1", None) for number in range(3)]
    units = sets.SETS["fomc"].units(table)
    assert [row["year"] for unit in units for row in unit.rows] == ["2000", "2001", "2002"]


def dated(tmp_path: Path, late: float) -> Path:
    """A card of 240 answers, 30 a year from 2020 to 2027; those after 2024 are right at another rate."""
    base = CARDS / "fpb-smollm2-135m.json"
    card = cardfiles.read(base)
    score = next(one for one in card.scores if one.task == "finbench_fpb_mc")
    rows = [row for row in cardfiles.read_samples(base) if row["task"] == score.task][:240]
    rng, labels = np.random.default_rng(1), ["negative", "neutral", "positive"]
    for at, row in enumerate(rows):
        row |= {"index": at, "year": 2020 + at % 8, "cluster": f"c{at:015}"}
        gold = labels[at // 8 % 3]
        right = rng.random() < (late if row["year"] > 2024 else 0.9)
        said = gold if right else labels[(labels.index(gold) + 1) % 3]
        row["values"] = {name: [gold, said, labels] for name in row["values"]} | {"acc": float(right)}
    made = card.model_copy(update={"scores": [score.model_copy(update={"n": len(rows)})]})
    cardfiles.write(tmp_path / "dated.json", made, rows)
    return tmp_path / "dated.json"


def test_a_score_by_year_stands_beside_the_cut_off_of_the_base(tmp_path: Path) -> None:
    path = dated(tmp_path, 0.5)
    (found,) = finbench.by_year([path])
    assert [part.name for part in found.years] == [str(year) for year in range(2020, 2028)]
    assert {part.n for part in found.years} == {30}
    assert [part.n for part in found.sides] == [120, 30, 90]
    assert found.cutoff == catalog.bases()["smollm2-135m"].cutoff
    assert found.difference is not None
    assert found.difference.high is not None
    assert found.difference.high < 0
    json.dumps(plain(found))
    (later,) = finbench.by_year([path], cutoff="2030-01")
    assert later.difference is None
    assert "No document here is later" in later.said
    page = finbench.risk(path, [path], out=tmp_path / "risk.html", cutoff="2021")
    (shown,) = [one for one in page.shown if one.title == "Years"]
    assert [row[1] for row in shown.rows[-3:]] == ["before 2021", "in 2021, the year of the cut-off", "after 2021"]
    assert "dashed: cut-off" in (tmp_path / "risk.html").read_text(encoding="utf-8")
    done = CliRunner().invoke(app.app, ["card", "years", str(path), "--cutoff", "2021"])
    assert "After minus before" in " ".join(done.stdout.split())
    for wrong in ("soon", "24", "2024-13"):
        with pytest.raises(FinbenchError, match="no date"):
            finbench.by_year([path], cutoff=wrong)
    with pytest.raises(FinbenchError, match="No document"):
        finbench.by_year([CARDS / "fpb-smollm2-135m.json"], tasks=["fpb_mc"])


def test_years_are_looked_up_where_the_data_lie_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = CARDS / "fpb-smollm2-135m.json"
    card = cardfiles.read(base)
    rows = [{**row, "task": "finbench_fomc_mc"} for row in cardfiles.read_samples(base)
            if row["task"] == "finbench_fpb_mc"][:9]  # fmt: skip
    score = next(one for one in card.scores if one.task == "finbench_fpb_mc")
    score = score.model_copy(update={"n": 9, "task": "finbench_fomc_mc"})
    cardfiles.write(tmp_path / "old.json", card.model_copy(update={"scores": [score]}), rows)
    monkeypatch.setattr(prompts, "load", lambda *_, **__: pytest.fail("the data are not here"))
    with pytest.raises(FinbenchError, match="the data of fomc do not lie in") as refused:
        finbench.by_year([tmp_path / "old.json"], data_dir=tmp_path / "none")
    assert "finbench data import fomc" in refused.value.hint
    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "none"))
    page = finbench.risk(tmp_path / "old.json", [tmp_path / "old.json"])
    assert any(one.startswith("Years: the data of fomc, which say the years, are not here") for one in page.untested)
    monkeypatch.undo()
    (tmp_path / "data" / "fomc").mkdir(parents=True)
    row = {"text": "a", "label": "hawkish", "choices": ["dovish", "hawkish", "neutral"]}
    (tmp_path / "data" / "fomc" / "test.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(FinbenchError, match="No document") as refused:
        finbench.by_year([tmp_path / "old.json"], data_dir=tmp_path / "data")
    assert refused.value.hint == "fomc_mc: this import has no years; import it again."


def test_a_base_that_nobody_dated_has_no_cut_off() -> None:
    base = BaseModelId(alias="mine", source="folder", fingerprint="x")
    assert overtime.cutoff_of(base) is None
    assert all(catalog.bases()[name].cutoff for name in ("smollm2-135m", "gemma3-270m"))


@pytest.mark.parametrize("n", [30, 200])
def test_the_interval_of_two_groups_holds_their_difference(n: int) -> None:
    rng, held = np.random.default_rng(5), []
    for _ in range(60):
        a, b = ((rng.random(size) < share).astype(float).tolist() for size, share in ((n, 0.8), (2 * n, 0.6)))
        found = group_difference((a, range(n)), (b, range(2 * n)), metrics.mean)
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= 0.2 <= found.high)
    assert np.mean(held) >= 0.87
    assert group_difference(([0.0] * 9, range(9)), ([0.0] * 9, range(9)), metrics.mean).low is None  # all alike
    assert group_difference(([1.0], ["a"]), ([0.0, 1.0], ["b", "c"]), metrics.mean).low is None
