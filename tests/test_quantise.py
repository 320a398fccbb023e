"""4 bits: right gradients after an evaluation, and what a weight takes. Training: test_methods.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finbench.methods import method_named
from finbench.models import bases
from finbench.training import recipes


def _gradients(model: object, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()
    logits = model(ids).logits[:, :-1].float()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_gradients_after_an_evaluation_equal_those_of_the_dequantised_model(wide: Path, dtype: torch.dtype) -> None:
    """Without the cure, CPUs with AVX512-BF16 train on with gradients whose cosine to the right ones is near 0."""
    import bitsandbytes as bnb

    recipe = recipes.recipe(None, {"base": str(wide), "tasks": ["mini_sentiment"], "rank": 4, "dropout": 0.0})
    base = bases.resolve(str(wide))
    quantised, tokenizer = bases.load(base, 4, dtype)
    reference, _ = bases.load(base, 16, torch.float32)
    layers = dict(quantised.named_modules())
    for name, module in reference.named_modules():
        if isinstance(layers[name], bnb.nn.Linear4bit):
            state = layers[name].weight
            module.weight.data = bnb.functional.dequantize_4bit(state.data, state.quant_state).float()
    ids = torch.tensor([tokenizer.encode("Order intake rose and the outlook for the year was raised again.")])
    found, expected = [], []
    for model, gradients in ((quantised, found), (reference, expected)):
        torch.manual_seed(0)
        wrapped = method_named("lora").apply(model, recipe)
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.02)
        with torch.no_grad():
            wrapped.eval()(ids)  # what triggers the repacking
        gradients.append(_gradients(wrapped, ids))
    for name, gradient in expected[0].items():
        cosine = torch.nn.functional.cosine_similarity(found[0][name].float().flatten(), gradient.flatten(), dim=0)
        assert cosine > (0.9999 if dtype is torch.float32 else 0.98), (name, float(cosine))


def test_nf4_takes_about_four_bits_a_weight(wide: Path) -> None:
    import bitsandbytes as bnb

    model, _ = bases.load(bases.resolve(str(wide)), 4, torch.bfloat16)
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert layers
    assert all(layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert sum(layer.weight.numel() for layer in layers) * 2 == weights


def test_codes_that_share_a_byte_are_counted_one_by_one(wide: Path) -> None:
    base = bases.resolve(str(wide))
    counts = {bits: bases.parameter_count(bases.load(base, bits, torch.bfloat16)[0]) for bits in (16, 8, 4)}
    assert set(counts.values()) == {sum(tensor.numel() for tensor in bases.skeleton(base).parameters())}
    packed, _ = bases.load(base, 4, torch.bfloat16)
    assert sum(tensor.numel() for tensor in packed.parameters()) < counts[4]
    layer = packed.model.layers[0].self_attn.q_proj
    layer.quant_state = layer.weight.quant_state
    layer.weight = torch.nn.Parameter(layer.weight.data, requires_grad=False)  # as FSDP leaves it
    assert bases.parameter_count(packed) == counts[4]
