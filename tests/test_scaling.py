"""The law through sizes and its interval, on data whose truth is known."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "pretrain_scaling.py"))
COMPUTE = np.array([1.9e11, 4.1e11, 2.2e12, 8.3e12, 6.8e13])  # as the dense models' five
FAR = 1e17


def law(a: float, b: float, c: float) -> Any:
    return BENCH["Law"](a, b, c)


@pytest.mark.parametrize("truth", [(0.7, 400.0, 0.2), (1.0, 30.0, 0.1), (0.0, 60.0, 0.12), (1.2, 1e5, 0.45)])
def test_points_on_a_law_give_it_back(truth: tuple[float, float, float]) -> None:
    true = law(*truth)
    found = BENCH["fit"](COMPUTE, [true.at(x) for x in COMPUTE])
    assert (found.a, found.c) == pytest.approx((true.a, true.c), abs=5e-3)
    assert found.at(FAR) == pytest.approx(true.at(FAR), abs=5e-3)
    whole, (low, high), _ = BENCH["predicted"](COMPUTE, [true.at(x) for x in COMPUTE], FAR)
    assert low - 1e-3 <= true.at(FAR) <= high + 1e-3
    assert high - low < 0.1
    assert whole == pytest.approx(true.at(FAR), abs=5e-3)


def test_neither_part_of_the_law_is_negative() -> None:
    rising = BENCH["fit"](COMPUTE, [1.0, 1.1, 1.2, 1.3, 1.4])
    assert (rising.b, rising.at(FAR)) == pytest.approx((0.0, 1.2))
    steep = BENCH["fit"](COMPUTE, [5.0, 4.0, 3.0, 2.0, 1.0])  # a straight line in log C would cross 0
    assert min(steep.a, steep.b) >= 0
    assert steep.at(FAR) >= 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true = law(1.0, 200.0, 0.18)
    exact = np.array([true.at(x) for x in COMPUTE])
    held, wide = [], []
    for _ in range(400):
        noisy = exact + rng.normal(0, 0.01, len(exact))
        _, (low, high), _ = BENCH["predicted"](COMPUTE, noisy, FAR)
        held.append(low <= true.at(FAR) <= high)
        wide.append(high - low)
    assert np.mean(held) > 0.9
    assert np.median(wide) > 0.4  # and says how little five sizes know of one that is so far


def test_the_target_is_gpt2() -> None:
    dense, factors = BENCH["target"]("dense"), BENCH["target"]("lowrank")
    for kind in ("lowrank d/16", "cola d/16", "sltrain d/22"):  # of FinGPT-HPC's ratio, 2.64
        assert dense["parameters"] / BENCH["target"](kind)["parameters"] == pytest.approx(2.64, abs=0.04)
    assert dense["parameters"] == 124_439_808
    assert dense["parameters"] / factors["parameters"] == pytest.approx(1.83, abs=0.01)
    assert factors["tokens"] == dense["tokens"]
    assert factors["compute"] < dense["compute"]


def test_cells_of_a_size_have_the_tokens_of_its_dense_model(tmp_path: Path) -> None:
    from finbench.pretraining import members

    (tmp_path / "kjv.txt").write_text("not read here")

    class Tokenizer:
        bos_token_id = eos_token_id = 0

        def __len__(self) -> int:
            return 2048

    recipe = BENCH["stated"]("lowrank", "64", tmp_path, tmp_path)
    size = members.size(members.members(recipe, Tokenizer())[0], recipe)
    assert recipe.tokens == int(BENCH["A_PARAMETER"] * size.done.before)


def test_the_page_shows_what_was_measured() -> None:
    assert BENCH["MARKS"][0] + BENCH["page"]() + "\n" + BENCH["MARKS"][1] in BENCH["PAGE"].read_text(encoding="utf-8")
