"""The check of a GPU works: on a processor with small models, and it sees the faults that are planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECK = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu_check.py"


def run(sections: str, out: Path) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, str(CHECK), "run", "--tiny", "--only", sections, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(out.read_text())["checks"]


@pytest.mark.slow
def test_sections_of_training_run_on_a_processor_with_small_models(tmp_path: Path) -> None:
    code, rows = run("0,1,2,3,4,5,6,9", tmp_path / "found.json")
    assert [row for row in rows if row["passed"] is False] == []
    assert code == 0
    assert {row["section"] for row in rows} == {0, 1, 2, 3, 4, 5, 6, 9}
    planted = next(row for row in rows if "planted" in str(row["name"]))
    assert planted["passed"] is True
    assert sum(row["section"] == 9 for row in rows) == 8  # six ways on short rows, one on long ones, and the share


@pytest.mark.vllm
def test_sections_of_vllm_run_on_a_processor_with_small_models(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    code, rows = run("7,8", tmp_path / "found.json")
    assert [row for row in rows if row["passed"] is False] == []
    assert code == 0
    assert len(rows) == 6  # three ranks, many adapters, the server's models, what stays of it


@pytest.mark.parametrize("given", [["--only", "17"], ["--only", "1"], [] if not torch.cuda.is_available() else ["x"]])
def test_what_cannot_be_checked_is_said_in_one_line(given: list[str]) -> None:
    done = subprocess.run([sys.executable, str(CHECK), "run", *given], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) <= 4
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_gpu_does_what_a_processor_does(tmp_path: Path) -> None:
    code, rows = run("0,1,2,6", tmp_path / "found.json")
    assert [row for row in rows if row["passed"] is False] == []
    assert code == 0
