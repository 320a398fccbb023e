"""peft's other tuners: each row of the table says what peft's code really does; each tuner has a row or a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_gpt2, make_llama
from finbench import adapters, bases, catalog, training
from finbench.errors import FinbenchError
from finbench.merging import log_probabilities, merge
from finbench.methods import METHODS, TUNERS, method_named
from finbench.records import Adapter

TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."
OPTIONS: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 32},
    "vblora": {"vector_length": 32},
    "ia3": {"target_modules": ["down_proj", "k_proj", "v_proj"], "feedforward_modules": ["down_proj"]},
}
QUICK = ("fourierft", "hira", "ia3", "road", "shira")  # the others are run by .ci/run
ROWS = [
    pytest.param(name, bits, marks=[] if bits == 16 and name in QUICK else [pytest.mark.slow])
    for name, tuner in TUNERS.items()
    for bits in tuner.bits
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("bases") / "llama", hidden=128)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gpt2(tmp_path_factory.mktemp("bases") / "gpt2")


def recipe(base: Path, method: str, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 24, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 1e-2} | ({"rank": 4} if method_named(method).rank else {})
    return catalog.recipe(None, {**stated, **OPTIONS.get(method, {}), **overrides})


@pytest.mark.parametrize(("method", "bits"), ROWS)
def test_it_trains_is_read_again_and_merges(
    method: str, bits: int, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = training._save

    def spy(run: Any, model: Any, tokenizer: Any, *rest: Any) -> Adapter:
        seen.append(log_probabilities(model.eval(), tokenizer, TEXT))
        return real(run, model, tokenizer, *rest)

    monkeypatch.setattr(training, "_save", spy)
    training.train(recipe(llama, method, bits=bits), tmp_path / "a")
    model, tokenizer = bases.load(bases.resolve(str(llama)), bits, torch.float32)  # type: ignore[arg-type]
    base = log_probabilities(model, tokenizer, TEXT)
    found = log_probabilities(adapters.attach(model, adapters.read(tmp_path / "a").folder).eval(), tokenizer, TEXT)
    torch.testing.assert_close(found, seen[0], atol=1e-4, rtol=0)
    assert not torch.allclose(found, base, atol=1e-6)
    made = merge(str(tmp_path / "a"), tmp_path / "m", base=str(llama), dtype="float32").merge
    assert made is not None
    assert made.largest_difference < (0.05 if bits == 8 else 5e-4)


@pytest.mark.parametrize("method", list(TUNERS))
def test_gpt2s_layers_are_taken_or_refused_before_anything_is_loaded(
    method: str, gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"c_proj": {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}}
    more = changes["c_proj"] if method == "ia3" else {}
    chosen = recipe(gpt2, method, **more)
    if TUNERS[method].conv1d:
        run = training.prepare(chosen)
        model, tokenizer = training.begin(run, torch.float32)
        assert log_probabilities(model, tokenizer, TEXT).isfinite().all()
    else:
        monkeypatch.setattr(bases, "load", None)
        with pytest.raises(FinbenchError, match="Conv1D"):
            training.prepare(chosen)


def test_every_tuner_of_peft_is_a_method_or_refused_with_a_reason() -> None:
    from peft import PeftType

    for kind in PeftType:
        name = kind.value.lower()
        if name in METHODS or name in TUNERS:
            continue
        with pytest.raises(FinbenchError, match=f"Method {name} is refused: "):
            method_named(name)


@pytest.mark.parametrize("method", [name for name, tuner in TUNERS.items() if tuner.divides])
def test_sizes_that_do_not_divide_are_refused_by_layer(method: str, llama: Path) -> None:
    [(key, _)] = TUNERS[method].divides
    size = {"road": 6, "gralora": 3}.get(method, 7)  # peft itself wants an even one, and a divisor of the rank
    more = {"rank": 3} if method == "gralora" else {}
    with pytest.raises(FinbenchError, match=rf"{key} {size} does not divide model.layers.0.self_attn"):
        training.prepare(recipe(llama, method, **{key: size}, **more))
