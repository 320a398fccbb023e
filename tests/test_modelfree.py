"""What needs no language model stands beside every score, and a linear model only on the rows it was measured on."""

from __future__ import annotations

import json
from pathlib import Path

from finbench.cards import cardfiles
from finbench.core import paths
from finbench.scoring import floors

ROOT = Path(__file__).parent.parent
CARD = ROOT / "leaderboards" / "scorecards" / "fpb-smollm2-135m-lora-s0.json"


def test_a_linear_model_stands_beside_scores_of_its_very_rows_in_any_form() -> None:
    stated = json.loads((paths.shipped("tasks") / "linear.json").read_text(encoding="utf-8"))["fpb"]
    scores = cardfiles.read(CARD).scores
    assert {score.task for score in scores} >= {"finbench_fpb", "finbench_fpb_mc"}
    for score in scores:
        assert score.data.digest == stated["digest"]
        found = floors(score)
        assert found["linear model"] == {"macro_f1": stated["text"]["all"]}
        assert found["majority label"] == score.baselines["majority"]
        part = score.model_copy(update={"data": score.data.model_copy(update={"digest": "0" * 64})})
        assert "linear model" not in floors(part)
        other = score.model_copy(update={"main_metric": "acc"})  # of a task of others on the same rows
        assert "linear model" not in floors(other)
