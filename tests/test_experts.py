"""Updates of experts (``target_parameters``): trained, resumed, planned, read by peft alone, evaluated and merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_families import FAMILIES, SHAPE
from test_loops import assert_same, gradients, recipe, single
from transformers import AutoConfig, AutoModelForCausalLM

from alone import read_alone
from conftest import Once, _tokenizer
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.engines import servable
from finbench.methods import METHODS, method_named
from finbench.methods.lora import LoraMethod
from finbench.models import attaching, bases
from finbench.training import checkpoints, merging, planning, runner
from finbench.training.merging import log_probabilities

TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."
NAMED = ["experts.gate_up_proj", "experts.down_proj"]
KINDS = {"qwen3_moe": FAMILIES["qwen3_moe"], "mixtral": {"num_local_experts": 4}}


@pytest.fixture(scope="module", params=list(KINDS))
def mixture(request: pytest.FixtureRequest, once: Once) -> Path:
    """Folder of a tiny mixture of experts."""

    def make(folder: Path) -> None:
        torch.manual_seed(1)
        made = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(request.param, **{**SHAPE, **KINDS[request.param]})
        )
        made.save_pretrained(folder)
        _tokenizer(folder)

    return once(f"experts/{request.param}", make)


def stated(base: Path, **more: Any) -> Any:
    return recipe(base, **{"options": {"target_parameters": NAMED}, "target_modules": ["q_proj"], "limit": 24, **more})


def test_experts_are_trained_read_by_peft_alone_evaluated_and_merged(mixture: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    made = runner.train(stated(mixture, options={"target_parameters": NAMED, "rank_pattern": {NAMED[0]: 2}}), out)
    assert isinstance(made, Adapter)
    tensors = load_file(out / "adapter_model.safetensors")
    found = {name: tensor for name, tensor in tensors.items() if ".experts." in name}
    assert len(found) == 2 * 2 * 2  # factors, parameters, layers
    assert sorted({len(tensor) for name, tensor in found.items() if "lora_A" in name}) == [2 * 4, 4 * 4]  # of 4 experts
    assert all(tensor.any() for tensor in found.values())
    model, tokenizer = bases.load(bases.resolve(str(mixture)), 16, torch.float32)
    plain = log_probabilities(model, tokenizer, TEXT)
    here = log_probabilities(attaching.attach(model, out, bases.resolve(str(mixture))).eval(), tokenizer, TEXT)
    assert float((here - plain).abs().max()) > 1e-3
    [alone] = read_alone([(mixture, out, "peft", 16)], TEXT, tmp_path)
    assert float((here - alone).abs().max()) < 1e-5
    assert servable.route(json.loads((out / "adapter_config.json").read_text()), True).how == "merged"
    merged = merging.merge(str(out), tmp_path / "merged", base=str(mixture), dtype="float32")
    assert merged.merge is not None
    assert merged.merge.agreement == 1
    assert merged.merge.largest_difference < 1e-4


@pytest.mark.parametrize("loop", ["packed", "shared"])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
def test_every_loop_has_the_same_gradients(mixture: Path, loop: str, again: bool, tmp_path: Path) -> None:
    named = {"options": {"target_parameters": NAMED}, "target_modules": ["q_proj"]}
    run, model, rows = single(mixture, **named, gradient_checkpointing=again)
    plain = gradients(run, model, "padded", rows, tmp_path, checkpointed=False)
    assert any("experts" in name for name in plain[1])
    assert_same(gradients(run, model, loop, rows, tmp_path), plain, 1e-4)


def test_it_resumes_in_the_same_bits(mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = stated(mixture, save_every=1)
    with monkeypatch.context() as kept_all:
        kept_all.setattr("finbench.training.checkpoints.shutil.rmtree", lambda *_, **__: None)
        kept_all.setattr("finbench.training.checkpoints.clear", lambda *_, **__: None)
        kept_all.setattr(checkpoints, "prune", lambda *_: None)
        whole = runner.train(chosen, tmp_path / "whole")
    first = tmp_path / "whole/checkpoints/checkpoint-1"
    shutil.copytree(first, tmp_path / "resumed/checkpoints/checkpoint-1")
    shutil.copy(first.parent / "run.json", tmp_path / "resumed/checkpoints")
    resumed = runner.train(chosen, tmp_path / "resumed", resume=True)
    assert isinstance(whole, Adapter)
    assert isinstance(resumed, Adapter)
    assert resumed.files == whole.files


@pytest.mark.parametrize(
    "options", [{}, {"target_parameters": NAMED, "rank_pattern": {NAMED[0]: 2}}], ids=["all", "some"]
)
def test_a_plan_counts_them(options: dict[str, Any], mixture: Path, tmp_path: Path) -> None:
    """peft puts updates on experts and router too where every linear layer is meant: they were linear layers once."""
    chosen = recipe(mixture, limit=8, **({"options": options, "target_modules": ["q_proj"]} if options else {}))
    made = runner.train(chosen, tmp_path / "run")
    assert isinstance(made, Adapter)
    tensors = load_file(tmp_path / "run/adapter_model.safetensors")
    assert any(".experts." in name for name in tensors)
    assert planning.plan(chosen, "h100")["trained"] == made.training.trainable_parameters
    assert sum(tensor.numel() for tensor in tensors.values()) == made.training.trainable_parameters


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("lora", {"options": {"target_parameters": ["experts.gate_up"]}}, "no stack of experts.* gate_up_proj"),
        ("lora", {"options": {"target_parameters": ["q_proj.weight"]}}, "no stack of experts"),
        ("lora", {"options": {"target_parameters": "experts.down_proj"}}, "target_parameters is a list"),
        ("lora", {"dropout": 0.1}, "Dropout does not go with the experts"),
        ("lora", {"compile": True}, "compile does not go with the experts"),
        (
            "lora",
            {"options": {"target_parameters": NAMED, "rank_pattern": {NAMED[0]: 65}}},
            "Rank 65 is above .*experts",
        ),
        (
            "lora",
            {"options": {"target_parameters": NAMED, "init_lora_weights": "orthogonal"}},
            "init_lora_weights=orth",
        ),
        *((one, {}, "target_parameters is refused: .*rslora and lora") for one in ("dora", "pissa", "lora-fa")),
        *(
            (one, {"options": {}, "target_modules": "all-linear"}, f"Method {one} does not go with the experts")
            for one, method in METHODS.items()
            if isinstance(method, LoraMethod) and not method.experts
        ),
    ],
)
def test_what_does_not_go_with_experts_is_said_first(
    method: str, more: dict[str, Any], said: str, mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match=said):
        runner.prepare(stated(mixture, method=method, bits=method_named(method).bits[0], **more))


def test_a_base_without_experts_says_so(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match="no stack of experts") as caught:
        runner.prepare(stated(llama))
    assert "It has none" in caught.value.hint
