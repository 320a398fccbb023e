"""The check of a GPU works: on a processor with small models, and it sees the faults that are planted."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loops import ragged, seen_to_be_off

from finbench.models import bases
from finbench.training import loops, machines, packing

CHECK = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu_check.py"


def run(sections: str, out: Path) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, str(CHECK), "run", "--tiny", "--only", sections, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(out.read_text())["checks"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of the check as a module, by its name."""
    monkeypatch.syspath_prepend(str(CHECK.parent))
    return importlib.import_module


def test_section_0_runs_attention_and_sees_a_kernel_that_is_wrong(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = script("gpu_sections")
    check = sections.Check(0, True, {})
    rows = sections.attention(check, torch.bfloat16, False)
    assert [row["passed"] for row in rows] == [True, True]
    assert all(row["found"].startswith("torch's own for a processor; off by") for row in rows)
    assert not any(row["passed"] for row in sections.attention(check, torch.bfloat16, True)[:1])  # another one ran

    def by(kernel: Any) -> list[bool]:
        monkeypatch.setattr(packing, "_ragged", lambda query, dropout: kernel)
        return [row["passed"] for row in sections.attention(check, torch.bfloat16, False)]

    def shifted(q: Any, k: Any, v: Any, queries: Any, keys: Any, *longest: int, **named: Any) -> Any:
        """Causal from the first key on: what shared starts are for is not seen."""
        found = ragged(q, k, v, queries, keys, *longest, **named)
        first = ragged(q, k[: len(q)], v[: len(q)], queries, queries, longest[0], longest[0], **named)
        below = (keys.diff() > queries.diff()).repeat_interleave(queries.diff())
        return torch.where(below[:, None, None], first, found)

    assert by(ragged) == [True, True]
    assert by(shifted) == [False, False]
    assert by(lambda q, k, v, *ends, **named: ragged(q, k, v.roll(1, 0), *ends, **named)) == [False, False]


@pytest.mark.parametrize(("loop", "how"), [("packed", "row"), ("shared", "token"), ("shared", "first")])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(
                    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
                    reason="needs a CUDA device with flash attention for sequences of any length",
                ),
            ],
        ),
    ],
)
def test_a_mask_that_is_off_is_seen_before_training(
    device: str, loop: str, how: str, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, where attention matters as in a trained base; by GPUs' kernel, on a CPU by a reference of it."""
    models = script("gpu_models")
    monkeypatch.setattr(models, "DEVICE", device)
    check = models.Check(0, True, {})
    model, recipe = models.with_lora(models.model_of(check.shape("gqa"), 16, torch.bfloat16, 0))
    passes = loops.Passes.of(recipe, loop, model.config.vocab_size, 0)  # type: ignore[arg-type]
    rows = models.rows_like_fpb(8, model.config.vocab_size, 26, 0)
    assert seen_to_be_off(passes, model, rows, how, ragged if device == "cpu" else None)


def test_layers_of_4_bits_are_coded_one_by_one(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a layer is coded, those before it are codes already and those behind it have no weights yet."""
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM

    models = script("gpu_models")
    check, made, wide = models.Check(0, True, {}), [], []
    begin, code = AutoModelForCausalLM.from_config, bnb.functional.quantize_4bit

    def from_config(*given: Any, **named: Any) -> Any:
        made.append(begin(*given, **named))
        return made[-1]

    def quantize(*given: Any, **named: Any) -> Any:
        layers = [one for one in made[0].modules() if type(one) is torch.nn.Linear and one is not made[0].lm_head]
        wide.append(sum(not one.weight.is_meta for one in layers))
        return code(*given, **named)

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", from_config)
    monkeypatch.setattr(bnb.functional, "quantize_4bit", quantize)
    model = models.model_of(check.shape("8b"), 4, torch.bfloat16, 0)
    assert wide == [0] * 14  # seven of each of two layers
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_nothing_else_is_run_after_a_failure_of_section_0(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check, ran = script("gpu_check"), []

    def section(number: str, *_: Any) -> list[dict[str, Any]]:
        ran.append(number)
        return [{"name": "packed attention", "found": "off by 2", "limit": "", "passed": number != "0"}]

    monkeypatch.setattr(check, "_section", section)
    options = argparse.Namespace(only="0,1,2", out=tmp_path / "found.json", tiny=True, seed=0, minutes=8)
    assert check.run(options) == 1
    assert ran == ["0"]
    assert "nothing else is run" in capsys.readouterr().out
    assert len(json.loads(options.out.read_text())["checks"]) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
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
    code, rows = run("0,1,2,3,4,5,6,9", tmp_path / "found.json")
    assert [row for row in rows if row["passed"] is False] == []
    assert code == 0
    if torch.cuda.get_device_capability() >= (8, 0):
        ran = {str(row["found"]) for row in rows if "kernels of attention" in str(row["name"])}
        assert ran == {"flash, for sequences of any length"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_layers_are_coded_on_the_card_one_after_the_other(script: Any) -> None:
    """The base in 16 bits is nowhere, and nothing waits for the processor."""
    models = script("gpu_models")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, started = torch.cuda.memory_allocated(), time.process_time()
    model = models.model_of("1b", 4, torch.float16, 0)
    assert time.process_time() - started < 60
    assert all(tensor.is_cuda for tensor in [*model.parameters(), *model.buffers()])
    whole = 2 * bases.parameter_count(model)
    assert torch.cuda.max_memory_allocated() - before < 0.75 * whole


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_card_is_taken_for_itself() -> None:
    known = machines.known_as(torch.cuda.get_device_name(0))
    if known is None:
        pytest.skip(f"{torch.cuda.get_device_name(0)} is not in the table")
    has = torch.cuda.get_device_properties(0).total_memory / machines.GIB
    assert machines.CARDS[known].memory == pytest.approx(has, rel=0.03)
