"""What a linear model gets, as docs/tasks.md states it: on the texts, and on nothing but the candidates.

Two sets are computed again here; `python benchmarks/linear.py` computes all, fnxl's candidates for minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finbench.core import paths
from finbench.data.sources import import_data

ROOT = Path(__file__).parent.parent
FILES = {"fpb": "fpb/Sentences_*Agree.txt", "fiqa_sa": "fiqa/task1_*_ABSA_*.json"}
STATED = json.loads((paths.shipped("tasks") / "linear.json").read_text(encoding="utf-8"))


def test_the_candidates_alone_are_at_the_level_of_chance() -> None:
    for name, found in STATED.items():
        for rows, value in found.get("candidates", {}).items():
            spread = (0.1 * 0.9 / found["test"]) ** 0.5
            assert abs(value - 0.1) < 3 * spread, (name, rows, value)


def test_every_share_is_one_and_more_rows_are_stated_with_more_rows() -> None:
    assert len(STATED) >= 15
    for name, found in STATED.items():
        assert found["train"] > 0 < found["test"]
        ways = [found[way] for way in ("text", "candidates", "nearest") if way in found]
        assert ways, name
        assert all(("400" in way) == (found["train"] > 400) for way in ways)


@pytest.mark.slow
def test_the_figures_are_what_the_rows_give(real_data: Path, tmp_path: Path) -> None:
    for name, pattern in FILES.items():
        import_data(name, sorted(real_data.glob(pattern)), tmp_path)
    asked = [part for name in FILES for part in ("--task", name)]
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "benchmarks" / "linear.py"),
        "--data-dir",
        str(tmp_path),
        *asked,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.endswith("as stated\n")
