"""Options that not every machine has: refused with what to type; the same losses where they are."""

from __future__ import annotations

import contextlib
import gc
import sys
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from test_launch import SMALL, curve
from test_training import recipe

from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.core.records import Adapter
from finbench.models import bases
from finbench.training import machines, runner, speedups, tuning
from finbench.training.trainer import Diverged


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"optimizer": "paged_adamw_8bit"}, "no GPU is here", "optimizer=adamw_8bit"),
        ({"optimizer": "paged_adamw_32bit"}, "no GPU is here", "optimizer=adamw"),
        ({"kernels": "liger"}, "Liger's kernels run on a GPU", "kernels=torch"),
        ({"compile": True, "sharding": "fsdp"}, "not been made to work together", "compile=false"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(
    overrides: dict[str, Any], message: str, hint: str, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FinbenchError, match=message) as caught:
        speedups.check(recipe(llama, **overrides))
    assert hint in caught.value.hint


def test_what_is_to_be_installed_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedups.shutil, "which", lambda name: None)
    with pytest.raises(FinbenchError, match=r"a C\+\+ compiler") as caught:
        speedups.check(recipe(llama, compile=True))
    assert "apt install g++" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(speedups.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FinbenchError, match="not installed") as caught:
        speedups.check(recipe(llama, kernels="liger"))
    assert caught.value.hint == install("liger")
    with pytest.raises(FinbenchError, match="Triton"):
        speedups.check(recipe(llama, compile=True))
    speedups.check(recipe(llama, optimizer="paged_adamw_8bit"))


def test_moments_in_8_bits_learn_as_well(llama: Path, tmp_path: Path) -> None:
    wide = {**SMALL, "rank": 64, "target_modules": ["up_proj", "down_proj"]}  # smaller tensors keep theirs in 32 bits
    plain = runner.train(recipe(llama, **wide), tmp_path / "plain")
    small = runner.train(recipe(llama, **wide, optimizer="adamw_8bit"), tmp_path / "small")
    assert curve(small) != curve(plain)
    assert curve(small) == pytest.approx(curve(plain), abs=0.02)
    with pytest.raises(FinbenchError, match="optimizer 'adamw_8bit' there, 'adamw' now"):
        runner.train(recipe(llama, **wide), tmp_path / "small")


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["padded", "shared"])
def test_compiled_layers_have_the_losses_of_plain_ones(loop: str, llama: Path, tmp_path: Path) -> None:
    stated = {**SMALL, "loop": loop}
    plain = runner.train(recipe(llama, **stated), tmp_path / "plain")
    compiled = runner.train(recipe(llama, **stated, compile=True), tmp_path / "compiled")
    assert isinstance(compiled, Adapter)
    assert curve(compiled) == pytest.approx(curve(plain), abs=1e-4)


# ---------------------------------------------------------------- Liger, by a stand-in for its package


@pytest.fixture
def fake_liger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that does to Llama what Liger does: an instance's norms, and the module's rotation and norm class."""
    from transformers.models.llama import modeling_llama

    def apply(model: Any, **_: Any) -> None:
        real = modeling_llama.apply_rotary_pos_emb
        modeling_llama.apply_rotary_pos_emb = lambda *given, **named: real(*given, **named)
        modeling_llama.LlamaRMSNorm = type("LigerRMSNorm", (modeling_llama.LlamaRMSNorm,), {})

    known = types.ModuleType("liger_kernel.transformers.monkey_patch")
    known.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply, "qwen3": apply}  # type: ignore[attr-defined]
    top = types.ModuleType("liger_kernel.transformers")
    top._apply_liger_kernel_to_instance = apply  # type: ignore[attr-defined]
    for name, module in (("", types.ModuleType("liger_kernel")), (".transformers", top)):
        monkeypatch.setitem(sys.modules, f"liger_kernel{name}", module)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", known)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)


@pytest.mark.usefixtures("fake_liger")
def test_a_base_that_liger_does_not_know_is_refused(llama: Path, gpt2: Path) -> None:
    chosen = recipe(llama, kernels="liger")
    speedups.check_base(chosen, bases.skeleton(bases.resolve(str(llama))))
    with pytest.raises(FinbenchError, match=r"a model of type gpt2; it has for: llama, qwen3\.") as caught:
        speedups.check_base(chosen, bases.skeleton(bases.resolve(str(gpt2))))
    assert caught.value.hint == "--set kernels=torch"


@pytest.mark.usefixtures("fake_liger")
def test_liger_is_taken_back(llama: Path) -> None:
    from transformers.models.llama import modeling_llama

    def stated() -> list[Any]:
        return [modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaRMSNorm]

    before = stated()
    model, _ = bases.load(bases.resolve(str(llama)), 16, torch.float32)
    with contextlib.suppress(ZeroDivisionError), speedups.liger(model):
        assert all(now is not then for now, then in zip(stated(), before, strict=True))
        raise ZeroDivisionError  # a run that fails takes them back too
    assert stated() == before


# ---------------------------------------------------------------- memory that is given back


def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Weak references to every module and tensor of the bases that are loaded from now on."""
    found: list[tuple[str, Any]] = []
    real = bases.load

    def spy(*given: Any, **named: Any) -> Any:
        model, tokenizer = real(*given, **named)
        parts = [("the model", model), *model.named_modules(), *model.named_parameters(), *model.named_buffers()]
        found.extend((name, weakref.ref(part)) for name, part in parts)
        return model, tokenizer

    monkeypatch.setattr(bases, "load", spy)
    return found


def alive(found: list[tuple[str, Any]]) -> list[str]:
    return [name for name, part in found if part() is not None]


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"bits": 4},
        {"optimizer": "adamw_8bit"},
        {"method": "adalora"},
        {"method": "shira", "bits": 16},
        {"loop": "padded"},
    ],
    ids=str,
)
def test_nothing_of_a_model_lives_on(
    overrides: dict[str, Any], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for Python to look for circles: the next model needs the memory at once."""
    found = loaded(monkeypatch)
    gc.collect()
    gc.disable()
    try:
        runner.train(recipe(llama, **{**SMALL, "limit": 48, **overrides}), tmp_path / "a")
        assert len(found) > 40
        assert alive(found) == []
    finally:
        gc.enable()


def test_a_search_holds_one_model_at_a_time(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a rate that diverged goes too."""
    found = loaded(monkeypatch)
    held: list[list[str]] = []
    real = runner.begin

    def begin(run: Any, dtype: Any) -> Any:
        held.append(alive(found))
        return real(run, dtype)

    def answer(model: Any, *_: Any) -> float:
        if len(held) == 2:
            raise Diverged("not a number")
        return 1.0

    monkeypatch.setattr(runner, "begin", begin)
    monkeypatch.setattr(tuning, "answer_loss", answer)
    gc.collect()
    gc.disable()
    try:
        tuning.tune(recipe(llama, **{**SMALL, "limit": 48}), tmp_path / "s", budget=2)
        assert len(held) == 6
        assert held == [[]] * 6
        assert alive(found) == []
    finally:
        gc.enable()


# ---------------------------------------------------------------- a GPU that is too small, or computes otherwise


def test_a_card_that_does_not_hold_the_weights_is_refused_before_they_are_loaded(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "here", lambda: ("gpu", machines.Card(1e-4, 0, 0, context=0)))
    with pytest.raises(FinbenchError, match=r"By plan this training needs 0\.\d GiB, and 0\.0 are here") as caught:
        runner.train(recipe(llama, **SMALL), tmp_path / "a")
    assert "A card that holds it" in caught.value.hint
    assert not (tmp_path / "a").exists()
    with pytest.raises(FinbenchError, match=r"By plan this training needs 0\.\d GiB, and 0\.0 are here"):
        tuning.tune(recipe(llama, **SMALL), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_memory_that_runs_out_is_told_with_what_fits(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(runner, "begin", full)
    small = recipe(llama, **SMALL, gradient_checkpointing=False)
    with pytest.raises(FinbenchError, match=r"memory ran out: by plan .* needs \d\.\d GiB of \d") as caught:
        runner.train(small, tmp_path / "a")
    assert "--set pass_tokens=1024 --set gradient_checkpointing=true. Where" in caught.value.hint
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    with pytest.raises(FinbenchError, match="memory ran out"):
        runner.train(small, tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []
    with pytest.raises(FinbenchError, match="memory ran out") as caught:
        tuning.tune(small, tmp_path / "runs" / "search")
    assert "The trials that were finished are kept: the same command goes on." in caught.value.hint
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(machines, "here", lambda: ("gpu", machines.Card(0.0025, 0, 0, context=0)))
    with pytest.raises(FinbenchError, match="memory ran out") as caught:
        runner.train(small, tmp_path / "a")
    assert "By plan this training needs" in capsys.readouterr().err
    assert "It would fit with" in caught.value.hint


def test_a_dtype_that_a_card_emulates_is_refused(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(FinbenchError, match="Tesla T4 does not compute in bfloat16") as caught:
        speedups.check(recipe(llama, dtype="bfloat16"))
    assert "--set dtype=float16" in caught.value.hint
    for refused in (tuning.tune, runner.train):
        with pytest.raises(FinbenchError, match="Tesla T4 does not compute in bfloat16"):
            refused(recipe(llama, dtype="bfloat16"), tmp_path / "a")
        assert not (tmp_path / "a").exists()
    speedups.check(recipe(llama, dtype="float16"))
