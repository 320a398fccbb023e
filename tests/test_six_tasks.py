"""The planned tests of the second study, on scores whose truth is known."""

from __future__ import annotations

import itertools
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

BENCH = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "six_tasks.py"))
WAYS, TASKS, SEEDS = list(BENCH["WAYS"].values()), BENCH["TASKS"], BENCH["SEEDS"]


def scores(rng: np.random.Generator, gains: dict[str, Any], spread: float = 3.0) -> dict[tuple[str, str, int], float]:
    """Points that a seed of a task moves for all ways, and noise of each training; ``gains`` of a way, or by task."""
    found = {}
    for task, seed in itertools.product(TASKS, SEEDS):
        shared = rng.normal(50, 8)
        for way in WAYS:
            gain = gains.get(way, 0.0)
            found[way, task, seed] = (
                shared + rng.normal(0, spread) + (gain.get(task, 0) if isinstance(gain, dict) else gain)
            )
    return found


def test_the_difference_is_that_of_its_formula() -> None:
    points = scores(np.random.default_rng(1), {"DoRA": 2.0})
    value, error, free = BENCH["difference"](points, ("DoRA", "LoRA"), TASKS)
    gaps = np.array([[points["DoRA", task, seed] - points["LoRA", task, seed] for seed in SEEDS] for task in TASKS])
    assert value == pytest.approx(gaps.mean())
    shares = gaps.var(axis=1, ddof=1) / 5
    assert error == pytest.approx(np.sqrt(shares.sum()) / 6)
    assert free == pytest.approx(shares.sum() ** 2 / (shares**2 / 4).sum())
    one = BENCH["difference"](points, ("DoRA", "LoRA"), ["fpb"])
    tested = stats.ttest_1samp(gaps[0], 0)
    assert 2 * stats.t.sf(abs(one[0] / one[1]), one[2]) == pytest.approx(tested.pvalue)


def test_of_equal_ways_one_study_in_twenty_finds_something_and_intervals_hold() -> None:
    rng = np.random.default_rng(0)
    claims, held = 0, []
    for _ in range(400):
        told = BENCH["planned"](scores(rng, {}))
        claims += any(one.found for one in told)
        held += [one.low <= 0 <= one.high for one in told]
    assert claims / 400 < 0.07
    assert 0.93 < np.mean(held) < 0.97


def test_the_second_bases_test_is_a_welch_test_of_the_mean_of_two_and_wants_one_sign(monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    bench = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "four_bits.py"))
    rng, claims, held = np.random.default_rng(5), 0, 0
    for _ in range(600):
        told = bench["planned"](scores(rng, {"QLoRA": -2.0}))
        claims += told.found
        held += told.low <= -2 <= told.high
        assert (told.p < 0.05) == (not told.low <= 0 <= told.high)
        assert told.value == pytest.approx(np.mean([value for value, _, _ in told.single.values()]))
    assert 0.93 < held / 600 < 0.98
    assert 0.1 < claims / 600 < 0.4
    apart = bench["planned"](scores(rng, {"QLoRA": {"fpb": -40.0, "tfns": 9.0}}, spread=1.0))
    assert apart.p < 0.05
    assert not apart.found


def test_the_page_of_the_second_base_is_what_its_cards_give(monkeypatch: Any) -> None:
    root = Path(__file__).parent.parent
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    bench = runpy.run_path(str(root / "benchmarks" / "four_bits.py"))
    cells = bench["read"](bench["KEPT"])
    assert len(cells) == 20
    page = (root / "docs" / "study.md").read_text()
    told = bench["tables"](bench["KEPT"], cells)
    assert all(one in page for one in told)
    points = np.array(
        [[[cells[way, task, seed].points for seed in SEEDS] for task in bench["TASKS"]] for way in ("LoRA", "QLoRA")]
    )
    lora, qlora = points.mean(axis=(1, 2))
    assert f"| {qlora - lora:+.1f} [" in page
    assert f"± {np.std(points[0, 0], ddof=1):.1f} |" in page


def test_a_gain_on_all_tasks_is_found_and_one_that_rests_on_a_task_is_not() -> None:
    rng = np.random.default_rng(2)
    every = {pair.pair: pair for pair in BENCH["planned"](scores(rng, {"QLoRA": -6.0, "IR-QLoRA": -6.0}))}
    assert every["QLoRA", "LoRA"].found
    assert not every["IR-QLoRA", "QLoRA"].found
    rests = dict.fromkeys(TASKS, -0.5) | {"headlines": -40.0, "fpb": 3.0}
    told = {pair.pair: pair for pair in BENCH["planned"](scores(rng, {"QLoRA": rests}, spread=0.2))}
    one = told["QLoRA", "LoRA"]
    assert one.corrected < 0.05
    assert one.without["headlines"] > 0
    assert not one.found


def test_single_tasks_are_corrected_for_all_thirty() -> None:
    points = scores(np.random.default_rng(3), {"PiSSA": dict.fromkeys(TASKS, 0.0) | {"tfns": 15.0}})
    found = BENCH["single"](points)
    assert sum(map(len, found.values())) == 30
    raw = []
    for pair, own in found.items():
        for task, *_, corrected in own:
            gaps = [points[pair[0], task, seed] - points[pair[1], task, seed] for seed in SEEDS]
            raw.append((stats.ttest_1samp(gaps, 0).pvalue, corrected))
    raw.sort()
    expected = np.maximum.accumulate([min(1.0, p * (30 - number)) for number, (p, _) in enumerate(raw)])
    assert [one for _, one in raw] == pytest.approx(list(expected))


def test_what_is_finished_is_kept_and_no_adapter(tmp_path: Path) -> None:
    finished = {"steps/a.json", "scorecards/a.json", "scorecards/a.samples.jsonl.zst", "linear.json"}
    finished |= {"searches/a/search.json", "searches/a/a-tuned.yaml", "base/raw-labels/b.json"}
    for name in finished | {
        "adapters/a/adapter_model.safetensors",
        "running/a.json",
        "searches/a/.lock",
        "sweep.yaml",
        "scorecards/.journal/a",
        "scorecards/.lock",
    }:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    kept = tmp_path / "kept"
    BENCH["keep"](tmp_path / "out", [], kept)
    assert {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()} == finished
    assert all((kept / name).read_text() == name for name in finished)


def test_of_a_task_that_is_kept_all_trainings_and_rates_are() -> None:
    cells = BENCH["read"](BENCH["KEPT"])
    kept = {task for _, task, _ in cells}
    assert kept
    assert cells.keys() == set(itertools.product(WAYS, kept, SEEDS))
    assert BENCH["rates"](cells).keys() == set(itertools.product(WAYS, kept))
    for (way, task, seed), cell in cells.items():
        recipe, subject = cell.record.recipe, cell.card.subject
        assert (recipe.rank, recipe.seed, cell.card.limit) == (8, seed, BENCH["LIMIT"]), (way, task)
        assert (recipe.method, recipe.bits, recipe.seed) == (subject.method, subject.bits, subject.seed)
        assert cell.record.data[0].rows == recipe.limit == (200 if task == "xbrl_values" else 400)


def test_a_card_needs_the_record_of_its_training(tmp_path: Path) -> None:
    shutil.copytree(BENCH["KEPT"] / "scorecards", tmp_path / "scorecards")
    with pytest.raises(SystemExit, match="the record of its training is not in"):
        BENCH["read"](tmp_path)


def test_the_page_has_every_table_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = BENCH["MARKS"]
    (tmp_path / "study.md").write_text(f"before\n\n{marks[0]}\nold\n{marks[1]}\n\nafter\n")
    monkeypatch.setitem(BENCH["page"].__globals__, "DOCS", tmp_path)
    BENCH["page"](BENCH["KEPT"], BENCH["read"](BENCH["KEPT"]))
    text = (tmp_path / "study.md").read_text()
    assert text.startswith(f"before\n\n{marks[0]}\n")
    assert text.endswith(f"{marks[1]}\n\nafter\n")
    assert "old" not in text
    assert all(text.count(f"\n| {way} |") == 4 for way in WAYS)  # scores, answers, rates, costs
    picture = (tmp_path / "study-fpb.svg").read_text()
    assert all(f">{way}</text>" in picture for way in WAYS)
    assert picture.count('class="r"') == len(WAYS) * len(SEEDS)  # a pale dot a training
