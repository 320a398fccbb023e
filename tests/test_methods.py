"""Every method keeps what it declares: how it starts, what trains, what it becomes, merged as unmerged, read again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import make_gpt2, make_llama
from finbench import adapters, bases, catalog, training
from finbench.errors import FinbenchError
from finbench.merging import log_probabilities, merge
from finbench.methods import METHODS, method_named, quantise
from finbench.records import Adapter

TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."
SMALL: dict[str, dict[str, Any]] = {
    "vera": {"rank": 16},
    "randlora": {"rank": 8, "alpha": 160},
    "oft": {"oft_block_size": 16},
}
COMBINATIONS = [
    (method.name, base, bits)
    for method in METHODS.values()
    for base in ("llama", "gpt2")
    for bits in method.bits
    if base == "llama" or method.conv1d
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Llama whose rows are whole NF4 blocks, and a tiny GPT-2 with Conv1D layers."""
    made = tmp_path_factory.mktemp("bases")
    return {"llama": make_llama(made / "llama", hidden=128), "gpt2": make_gpt2(made / "gpt2")}


def recipe(base: Path, method: str, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 48, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 3e-3, "alpha": 8, "rank": 4} | SMALL.get(method, {})
    unused = method_named(method).unused
    return catalog.recipe(None, {key: value for key, value in {**stated, **overrides}.items() if key not in unused})


@dataclass
class Trained:
    """A finished run, and what the model in memory said before it was saved."""

    folder: Path
    record: Adapter
    logits: torch.Tensor


@pytest.fixture(scope="module")
def train_once(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Callable[..., Trained]:
    """Train each combination at most once in this module."""
    done: dict[tuple[str, str, int], Trained] = {}
    real = training._save

    def run(method: str, base: str, bits: int) -> Trained:
        key = (method, base, bits)
        if key not in done:
            seen: list[torch.Tensor] = []

            def spy(prepared: Any, model: Any, tokenizer: Any, *rest: Any) -> Adapter:
                seen.append(log_probabilities(model.eval(), tokenizer, TEXT))
                return real(prepared, model, tokenizer, *rest)

            out = tmp_path_factory.mktemp("runs") / f"{method}-{base}-{bits}".replace("+", "p")
            training._save = spy
            try:
                made = training.train(recipe(folders[base], method, bits=bits), out)
            finally:
                training._save = real
            assert isinstance(made, Adapter)
            done[key] = Trained(out, made, seen[0])
        return done[key]

    return run


def _loaded(base: Path, bits: int = 16) -> tuple[Any, Any]:
    return bases.load(bases.resolve(str(base)), bits, torch.float32)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the start


@pytest.mark.parametrize(("method", "base", "bits"), COMBINATIONS)
def test_it_starts_as_the_base(method: str, base: str, bits: int, folders: dict[str, Path]) -> None:
    """No-op at the start; residual + adapter = W where a part of W is moved; closer than the base for loftq."""
    run = training.prepare(recipe(folders[base], method, bits=bits))
    plain, tokenizer = _loaded(folders[base])
    before = log_probabilities(_loaded(folders[base], bits)[0], tokenizer, TEXT)
    full = log_probabilities(plain, tokenizer, TEXT)
    model, _ = training.begin(run, torch.float32)
    found = log_probabilities(model.eval(), tokenizer, TEXT)
    if method == "loftq" or (method in ("pissa", "olora") and bits != 16):
        assert (found - full).abs().mean() < (before - full).abs().mean()
        assert not torch.equal(found, before)
    else:
        torch.testing.assert_close(found, before, atol=2e-5, rtol=0)
    if method == "full":
        return
    trains = [tensor for tensor in model.parameters() if tensor.requires_grad]
    assert trains
    assert all(tensor.dtype is torch.float32 for tensor in trains)
    if method in ("pissa", "olora"):
        with model.disable_adapter():
            assert not torch.allclose(log_probabilities(model, tokenizer, TEXT), before, atol=1e-3)


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(("method", "base", "bits"), COMBINATIONS)
def test_it_learns_and_is_read_again_as_it_was(
    method: str, base: str, bits: int, train_once: Callable[..., Trained], folders: dict[str, Path]
) -> None:
    """By finbench.adapters, which refuses whatever does not fit, and, where it is a model, by transformers."""
    run = train_once(method, base, bits)
    curve = run.record.training.loss_curve
    assert run.record.training.final_loss < curve[0][1]
    made = adapters.read(run.folder)
    if run.record.kind == "model":
        model, tokenizer = bases.load(bases.Base(run.record.base, run.folder), 16, torch.float32)
    else:
        model, tokenizer = _loaded(folders[base], bits)
        model = adapters.attach(model, made.folder)
    torch.testing.assert_close(log_probabilities(model.eval(), tokenizer, TEXT), run.logits, atol=1e-4, rtol=0)
    assert not torch.allclose(run.logits, log_probabilities(_loaded(folders[base], bits)[0], tokenizer, TEXT), atol=1e-4)


@pytest.mark.parametrize(("method", "base", "bits"), COMBINATIONS)
def test_merged_is_unmerged(
    method: str, base: str, bits: int, train_once: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = train_once(method, base, bits)
    if run.record.kind == "model":
        with pytest.raises(FinbenchError, match="whole model already"):
            merge(str(run.folder), tmp_path / "m", base=str(folders[base]))
        return
    made = merge(str(run.folder), tmp_path / "m", base=str(folders[base]), dtype="float32")
    assert made.merge is not None
    assert made.merge.onto == ("bf16" if bits == 16 else "dequantised")
    assert made.merge.largest_difference < (0.2 if bits == 8 else 2e-4)  # int8 also rounds activations as it computes
    assert made.merge.agreement > 0.95
    assert made.merge.answers == 1
    model, tokenizer = bases.load(bases.resolve(str(tmp_path / "m")), 16, torch.float32)
    torch.testing.assert_close(
        log_probabilities(model, tokenizer, TEXT), run.logits, atol=0.2 if bits == 8 else 2e-4, rtol=0
    )
    adapters.read(tmp_path / "m")
