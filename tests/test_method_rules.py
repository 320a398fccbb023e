"""What methods refuse before any weight is loaded, what their optimisers do, and that their runs resume exactly."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_gpt2, make_llama
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.methods import METHODS, method_named, quantise
from finbench.models import adapters, bases, modelfiles
from finbench.training import batches, checkpoints, loops, recipes, runner
from finbench.training.trainer import AnswerTrainer, arguments


def recipe(base: Path, method: str, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 48, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 3e-3}
    if "rank" not in method_named(method).unused:
        stated |= {"rank": 4}
    return recipes.recipe(None, {**stated, **overrides})


def _trainer(run: runner.Prepared, folder: Path, **more: Any) -> AnswerTrainer:
    model, tokenizer = runner.begin(run, torch.float32)
    return AnswerTrainer(
        run.sampler,
        None,
        run.recipe,
        loops.Passes("padded", run.recipe.batch_size),
        model=model,
        args=arguments(run.recipe, run.steps, folder, torch.float32),
        train_dataset=run.rows,
        data_collator=lambda part: batches.collate(part, tokenizer.pad_token_id),
        **more,
    )


# ---------------------------------------------------------------- refused before any weight is loaded


@pytest.mark.parametrize(
    ("stated", "message", "hint"),
    [
        ({"rank": 0}, "rank", ""),
        ({"rank": 65}, r"Rank 65 is above the smaller dimension of .*k_proj \(64 x 128\)", "--rank 64"),
        ({"alpha": 0}, "alpha", ""),
        ({"alpha": -2}, "alpha", ""),
        ({"target_modules": ["q_porj"]}, "Did you mean q_proj", "Modules of this base"),
        ({"target_modules": ["q_proj", "query"]}, "'query'", "Modules of this base"),
        ({"target_modules": "q_proj"}, "regular expression for whole names", r"target_modules=\[q_proj\]"),
        ({"target_modules": "("}, "not a regular expression", ""),
        ({"method": "full", "bits": 4}, "quantised weights have no gradients", "--bits 16"),
        ({"method": "loftq", "bits": 16}, "no error of the weights", "--bits 4"),
        ({"method": "delora", "bits": 4}, "does not read quantised weights", "--bits 16"),
        ({"method": "lora", "bits": 4, "use_bdlora": {"nblocks": 2}}, "peft ignores it there", "--bits 16"),
        ({"method": "lora", "bits": 4, "init_lora_weights": "mica"}, "full-precision weights", "--bits 16"),
        ({"method": "lora", "kasa_config": {}}, "cuts singular values off the base", "Leave it out"),
        ({"method": "lora", "monteclora_config": {}}, "loss term of its own", "Leave it out"),
        ({"method": "lora", "bits": 4, "init_lora_weights": "corda"}, "a method of its own", "--method corda"),
        ({"method": "lora", "init_lora_weights": "pissa"}, "method of its own", "--method pissa"),
        ({"method": "lora", "init_lora_weights": False}, "not start as the base", ""),
        ({"method": "lora", "init_lora_weights": 0}, "not start as the base", ""),
        ({"method": "lora", "init_lora_weights": "orthogonal", "rank": 3}, "an even rank", "--rank 4"),
        ({"method": "lora+", "init_lora_weights": "mica"}, "mica trains A alone", "--method lora"),
        ({"method": "lora-fa", "init_lora_weights": "mica"}, "mica trains A alone", "--method lora"),
        ({"method": "lora-fa", "init_lora_weights": "orthogonal"}, "gives A half its rank", "--method lora"),
        ({"method": "pissa", "init_lora_weights": "gaussian"}, "takes no init_lora_weights", ""),
        ({"method": "loftq", "bits": 4, "init_lora_weights": "orthogonal"}, "takes no init_lora_weights", ""),
        ({"method": "pissa", "use_dora": True}, "saved as a plain LoRA", "--method dora"),
        ({"method": "eva", "use_dora": True}, "saved as a plain LoRA", "--method dora"),
        ({"method": "olora", "use_bdlora": {"nblocks": 2}}, "saved as a plain LoRA", "Leave it out"),
        ({"exclude_modules": ".*"}, "leave none of the target modules", "State others"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [9]}, "has no layer 9", "layers 0 to 1"),
        ({"method": "oft", "layers_to_transform": [0]}, "needs a list of target modules", r"target_modules=\[q_proj,"),
        ({"method": "lora", "layers_to_transform": 0}, "needs a list of target modules", r"target_modules=\[q_proj,"),
        ({"method": "oft", "oft_block_size": 48}, "oft_block_size 48 does not divide", "its inputs"),
        ({"method": "oft", "oft_block_size": "x"}, "whole number", ""),
        ({"method": "boft", "boft_block_size": -4}, "whole number", ""),
        ({"method": "lora", "bias": "all"}, "change the base itself", ""),
        ({"method": "lora", "use_rolsra": True}, "did you mean use_rslora", "Options of a method"),
        ({"method": "dora", "use_dora": False}, "what makes method dora", "finbench methods"),
        ({"method": "lora+", "lr_ratio": 0.5}, "from 1 to 1000", "lr_ratio=16"),
        ({"method": "lora+", "lr_ratio": True}, "from 1 to 1000", "lr_ratio=16"),
        ({"method": "eva", "rho": 1e9}, "above the 128 inputs", ""),
        ({"method": "eva", "rank": 32, "rho": 8}, "above the 128 inputs", "--rank 16"),
        ({"method": "eva", "tau": 0}, "tau must be", "tau"),
        ({"method": "eva", "rank_pattern": {"q_proj": 8}}, "finds the rank of each layer", "Leave it out"),
        ({"method": "rosa", "velora_config": None}, "rosa makes its own factors", "Leave it out"),
        ({"method": "irqlora", "use_bdlora": {"nblocks": 2}}, "peft ignores it there", "--bits 16"),
        ({"method": "pissa", "rank_pattern": {"q_proj": 0}}, "q_proj is 0", ""),
        ({"rank_pattern": {"k_proj": 65}}, r"Rank 65 is above .*k_proj \(64 x 128\)", "Use 64 or less in rank_pattern"),
        ({"alpha_pattern": {"q_proj": -1}}, "q_proj is -1", ""),
        ({"method": "adalora", "warm": 0.8}, "make no schedule", "shares of the steps"),
        ({"method": "adalora", "start_ratio": 1}, "make no schedule", "start_ratio"),
        ({"method": "pissa", "niter": 0}, "whole number", "niter=16"),
        ({"method": "vera", "alpha": 16}, "has no alpha", "Leave alpha out"),
        ({"method": "oft", "rank": 8}, "has no rank", "Leave rank out"),
        ({"method": "full", "rank": 8}, "has no rank", "Leave rank out"),
        ({"method": "hira", "rank": 65}, "Rank 65 is above the smaller dimension", "--rank 64"),
        ({"method": "prefix_tuning"}, "trains prompts", "finbench methods"),
        ({"method": "kasa"}, "cuts singular values off the base", "finbench methods"),
        ({"method": "corda", "mode": "both"}, "mode is ipm or kpm", "mode=ipm"),
        ({"method": "corda", "batches": 0}, "whole number from 1 to 32", "batches=8"),
        ({"method": "lora-ga", "rank": 33}, "twice the rank", "--rank 32"),
        ({"method": "lora-ga", "bits": 4}, "rounded anew", "16"),
        ({"method": "lora", "init_lora_weights": "lora_ga"}, "a method of its own", "--method lora-ga"),
        ({"method": "mica"}, "an option of lora", "--method lora --set init_lora_weights=mica"),
        ({"method": "lro"}, "Did you mean .*lora", "finbench methods"),
    ],
    ids=str,
)
def test_it_is_refused_with_what_to_type(
    stated: dict[str, Any], message: str, hint: str, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "load", None)  # reaching for weights would be another error
    with pytest.raises(FinbenchError, match=message) as caught:
        runner.prepare(
            recipes.recipe(None, {"base": str(wide), "tasks": ["mini_sentiment"], "method": "lora", **stated})
        )
    if hint:
        assert re.search(hint, caught.value.hint), caught.value.hint


def test_an_option_that_is_declined_may_be_stated_as_nothing(wide: Path) -> None:
    layers = bases.layers_of(bases.skeleton(bases.resolve(str(wide))))
    for name, options in (("irqlora", {"use_bdlora": {}}), ("eva", {"rank_pattern": None})):
        METHODS[name].verify(recipe(wide, name, **options), layers)


def test_quantised_bits_without_bitsandbytes_are_refused(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match="4 bits need bitsandbytes") as caught:
        runner.prepare(recipe(wide, "qlora"))
    assert caught.value.hint == "pip install bitsandbytes"


def test_an_adapter_of_an_unknown_method_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORRA", "r": 4}))
    with pytest.raises(FinbenchError, match=r"'LORRA' is no method .*did you mean LORA") as caught:
        adapters.read(tmp_path)
    assert "finbench methods" in caught.value.hint


def test_every_method_has_its_own_run_folder() -> None:
    names = {recipes.recipe(None, {"tasks": ["fpb"], "method": name}).name for name in METHODS}
    assert len(names) == len(METHODS)


# ---------------------------------------------------------------- optimisers


def test_lora_plus_keeps_its_ratio_at_every_step(wide: Path, tmp_path: Path) -> None:
    run = runner.prepare(recipe(wide, "lora+", lr_ratio=8, schedule="cosine", warmup=0.3))
    trainer = _trainer(run, tmp_path)
    seen: list[tuple[float, float]] = []

    def note(optimizer: Any, *_: Any) -> None:
        slow, fast = optimizer.param_groups
        seen.append((slow["lr"], fast["lr"]))

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(note)
    trainer.train()
    assert len(seen) == run.steps
    assert len({slow for slow, _ in seen}) > 3
    assert all(fast == pytest.approx(8 * slow, rel=1e-12) for slow, fast in seen)
    names = {id(tensor): name for name, tensor in trainer.model.named_parameters()}
    slow, fast = ({names[id(tensor)] for tensor in group["params"]} for group in trainer.optimizer.param_groups)
    assert all(".lora_B." in name for name in fast)
    assert all(".lora_A." in name for name in slow)
    assert len(fast) == len(slow) == 14


def test_lora_plus_leaves_vectors_at_the_slow_rate(wide: Path, tmp_path: Path) -> None:
    """peft's factory would give DoRA's magnitudes the fast one."""
    run = runner.prepare(recipe(wide, "lora+", use_dora=True))
    trainer = _trainer(run, tmp_path)
    trainer.create_optimizer()
    slow, fast = trainer.optimizer.param_groups
    assert sum(tensor.ndim == 1 for tensor in slow["params"]) == 14
    assert all(tensor.ndim == 2 for tensor in fast["params"])


def test_lora_plus_with_ratio_one_is_lora_bit_for_bit(wide: Path, tmp_path: Path) -> None:
    made = {}
    for method, more in (("lora", {}), ("lora+", {"lr_ratio": 1})):
        out = tmp_path / method
        runner.train(recipe(wide, method, weight_decay=0.01, **more), out)
        made[method] = (out / "adapter_model.safetensors").read_bytes()
    assert made["lora"] == made["lora+"]


_FROZEN = {(name, "llama", 16) for name in METHODS} | {(name, "gpt2", 16) for name in ("pissa", "lora-fa", "vera")}


@pytest.mark.parametrize(
    ("method", "base", "bits"),
    [
        pytest.param(method.name, base, bits, marks=[] if (method.name, base, bits) in _FROZEN else [pytest.mark.slow])
        for method in METHODS.values()
        for base in ("llama", "gpt2")
        for bits in method.bits
        if method.name != "full" and (base == "llama" or method.conv1d)
    ],
)
def test_frozen_tensors_keep_their_bits(
    method: str, base: str, bits: int, wide: Path, gpt2: Path, tmp_path: Path
) -> None:
    run = runner.prepare(recipe(wide if base == "llama" else gpt2, method, bits=bits))
    trainer = _trainer(run, tmp_path)
    model = trainer.model
    trains = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    frozen = {name: t.detach().clone() for name, t in _tensors(model).items() if name not in trains}
    before = {name: t.detach().clone() for name, t in model.named_parameters() if name in trains}
    trainer.train()
    after = _tensors(model)
    moved = [name for name in frozen if not torch.equal(after[name], frozen[name])]
    if method in ("rosa", "relora"):  # what a cycle has learnt goes into the weights of the layers, and nowhere else
        assert moved == [name for name in frozen if name.endswith(".base_layer.weight")]
    else:
        assert moved == []
    assert any(not torch.equal(after[name], before[name]) for name in trains)
    held = {id(tensor) for group in trainer.optimizer.param_groups for tensor in group["params"]}
    assert held == {id(tensor) for name, tensor in model.named_parameters() if name in trains}
    kinds = {"lora-fa": ("lora_B",), "vera": ("vera_lambda",), "randlora": ("randlora_lambda", "randlora_gamma")}
    kinds |= {"oft": ("oft_R",), "dora": ("lora_A", "lora_B", "lora_magnitude_vector")}
    kinds |= {"adalora": ("lora_A", "lora_B", "lora_E"), "irqlora": ("lora_A", "lora_B", "lora_beta")}
    assert all(any(kind in name for kind in kinds.get(method, ("lora_A", "lora_B"))) for name in trains)


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers, saved or not."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_lora_fa_takes_the_projection_of_the_full_gradient(wide: Path, tmp_path: Path) -> None:
    """s g_B A, with g_B as corrected, is the full gradient projected onto the rows of A: least squares."""
    run = runner.prepare(recipe(wide, "lora-fa"))
    trainer = _trainer(run, tmp_path)
    trainer.create_optimizer()
    layer = trainer.model.base_model.model.model.layers[0].self_attn.q_proj
    a, b, s = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]
    full = torch.randn(b.shape[0], a.shape[1], generator=torch.Generator().manual_seed(0))
    b.grad = s * full @ a.T  # what autograd gives B where the weight's own gradient is ``full``
    trainer.optimizer.step()
    step = s * b.grad @ a  # the direction in which BA moves
    projector = a.T @ torch.linalg.inv(a @ a.T) @ a
    torch.testing.assert_close(step, full @ projector, atol=1e-3, rtol=1e-3)


def test_adalora_spends_its_budget_and_adds_its_penalty(wide: Path, tmp_path: Path) -> None:
    run = runner.prepare(recipe(wide, "adalora", epochs=3))
    trainer = _trainer(run, tmp_path)
    model = trainer.model
    penalty = float(method_named("adalora").penalty(model).detach())
    gram = [
        t @ t.T if "lora_A" in n else t.T @ t for n, t in model.named_parameters() if "lora_A" in n or "lora_B" in n
    ]
    expected = 0.5 * sum(float(torch.linalg.norm(g - torch.eye(len(g)))) for g in gram) / len(gram)
    assert penalty == pytest.approx(expected, rel=1e-5)
    trainer.train()
    kept = sum(int((t != 0).sum()) for name, t in model.named_parameters() if "lora_E" in name)
    assert kept == pytest.approx(4 * 14, abs=1)


@pytest.mark.parametrize("limit", [8, 16])
def test_adalora_refuses_a_run_without_room_for_its_schedule(
    limit: int, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match=f"more than {limit // 8} optimiser steps"):
        runner.prepare(recipe(wide, "adalora", limit=limit))
    runner.prepare(recipe(wide, "adalora", limit=24))


# ---------------------------------------------------------------- resumed


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        *(("lora-fa", 16), ("adalora", 16)),  # cycles of rosa and relora: test_subspaces.py
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("lora+", 16), ("pissa", 16), ("eva", 16))),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("pissa", 4), ("irqlora", 4), ("loftq", 4))),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("vera", 16), ("dora", 8))),
    ],
)
def test_a_resumed_run_ends_in_the_same_bits(
    method: str, bits: int, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "prune", lambda *_: None)
    monkeypatch.setattr("finbench.training.checkpoints.shutil.rmtree", lambda *_, **__: None)
    monkeypatch.setattr("finbench.training.checkpoints.clear", lambda *_, **__: None)
    chosen = recipe(wide, method, bits=bits, save_every=4, epochs=2, dropout=0.1)
    whole = runner.train(chosen, tmp_path / "whole")
    assert isinstance(whole, Adapter)
    kept = sorted((tmp_path / "whole" / "checkpoints").glob("checkpoint-*"), key=checkpoints.step_of)
    assert [checkpoints.step_of(path) for path in kept] == [4, 8, 12]
    for checkpoint in kept[:2]:
        out = tmp_path / checkpoint.name
        (out / "checkpoints").mkdir(parents=True)
        shutil.copytree(checkpoint, out / "checkpoints" / checkpoint.name)
        shutil.copy(checkpoint.parent / "run.json", out / "checkpoints")
        resumed = runner.train(chosen, out, resume=True)
        assert isinstance(resumed, Adapter)
        assert resumed.files == whole.files, checkpoint.name
        assert resumed.training.loss_curve == whole.training.loss_curve


# ---------------------------------------------------------------- bits


def test_bits_per_weight_are_as_the_theory_says(tmp_path: Path) -> None:
    """NF4: 4 bits, 8 bits of scale a block of 64, and 32 bits a block of 256 scales (and one offset a tensor)."""
    import bitsandbytes as bnb

    base = make_llama(tmp_path / "llama", hidden=512, layers=1)
    model, _ = bases.load(bases.resolve(str(base)), 4, torch.float32)
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    states = [layer.weight.quant_state for layer in layers]
    held = sum(8 * layer.weight.numel() * layer.weight.element_size() for layer in layers)
    held += sum(8 * state.absmax.numel() + 32 * state.state2.absmax.numel() for state in states)
    assert held / weights == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), rel=1e-4)
    eight, _ = bases.load(bases.resolve(str(base)), 8, torch.float32)
    ints = [m for m in eight.modules() if isinstance(m, bnb.nn.Linear8bitLt)]
    held = sum(8 * m.weight.numel() * m.weight.element_size() + 32 * m.weight.SCB.numel() for m in ints)
    rows = sum(m.out_features for m in ints)
    assert held / weights == pytest.approx(8 + 32 * rows / weights, rel=1e-6)


def test_nf4s_blocks_keep_their_largest_weight_and_beat_fp4_on_gaussian_ones() -> None:
    import bitsandbytes as bnb

    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    errors = {}
    for kind in ("nf4", "fp4"):
        code, state = bnb.functional.quantize_4bit(weight, blocksize=64, quant_type=kind)
        back = bnb.functional.dequantize_4bit(code, state)
        errors[kind] = float(((back - weight) ** 2).mean())
        blocks, again = weight.view(-1, 64), back.view(-1, 64)
        most = blocks.abs().argmax(dim=1, keepdim=True)
        torch.testing.assert_close(again.gather(1, most), blocks.gather(1, most))
    assert errors["nf4"] < 0.7 * errors["fp4"]


def test_dequantised_is_what_the_layer_computes_with(wide: Path) -> None:
    import bitsandbytes as bnb

    for bits in (8, 4):
        model, _ = bases.load(bases.resolve(str(wide)), bits, torch.float32)  # type: ignore[arg-type]
        for name, layer in model.named_modules():
            if isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt):
                weight = quantise.dequantised(layer)
                layer.train()
                x = torch.randn(3, layer.in_features, requires_grad=True)
                torch.testing.assert_close(layer(x), x @ weight.T, atol=1e-5, rtol=1e-4, msg=name)
                torch.testing.assert_close(quantise.dequantised(layer), weight)


def test_gpt2s_layers_are_known_from_the_configuration(tmp_path: Path) -> None:
    base = bases.resolve(str(make_gpt2(tmp_path / "gpt2")))
    modelfiles.check_folder(base.folder)
    found = {layer.name: layer for layer in bases.linear_layers(base)}
    layer = found["transformer.h.0.attn.c_attn"]
    assert (layer.kind, layer.outputs, layer.inputs) == ("Conv1D", 192, 64)
    assert found["lm_head"].kind == "Linear"
