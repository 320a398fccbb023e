"""lm-eval's own command line through finbench: the same numbers as its stock model, ours under it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from finbench.core.errors import FinbenchError
from finbench.evaluation import harness

ROOT = Path(__file__).resolve().parent.parent


def _results(folder: Path) -> dict[str, dict[str, float]]:
    [path] = folder.rglob("results_*.json")
    found: dict[str, dict[str, float]] = json.loads(path.read_text())["results"]
    return found


@pytest.mark.slow
def test_the_command_line_of_lm_eval_gives_what_its_own_model_gives(llama: Path, tmp_path: Path) -> None:
    tasks = "finbench_mini_sentiment"
    for model, out in (("finbench", tmp_path / "ours"), ("hf", tmp_path / "theirs")):
        command = [sys.executable, "-m", "finbench", "lm-eval", "run", "--model", model, "--tasks", tasks]
        command += ["--model_args", f"pretrained={llama},dtype=float32", "--limit", "12", "--batch_size", "4"]
        command += ["--device", "cpu", "--output_path", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = _results(tmp_path / "ours"), _results(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert {key: value for key, value in ours[tasks].items() if "stderr" not in key} == {
        key: value for key, value in theirs[tasks].items() if "stderr" not in key
    }


@pytest.mark.parametrize(
    "options",
    [
        *(["--use_cache", "x"], ["--use_cache=x"], ["-c", "x"], ["-cx"], ["--use_ca", "x"]),
        *(["--cache_requests"], ["--cache_requests=true"], ["--config", "cached.yaml"], ["-C", "cached.yaml"]),
    ],
)
@pytest.mark.parametrize("start", [["run"], []])
def test_caches_that_mix_models_are_refused_however_they_are_asked_for(
    start: list[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cached.yaml").write_text("model: finbench\nuse_cache: x\n")
    with pytest.raises(FinbenchError, match="do not keep models apart"):
        harness.run_lm_eval([*start, *options, "--model", "finbench", "--tasks", "finbench_mini_sentiment"])


def test_the_entry_points_name_the_same_classes() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lm_eval.models"]
    assert declared == harness.MODELS
    harness.register()
    harness.register()  # twice is once
    from lm_eval.api.registry import get_model

    assert [get_model(name).__name__ for name in declared] == ["TreeLM"]
