"""From what a method trained to an ordinary LoRA of one rank, exactly; and the product s BA of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.records import Recipe
from finbench.methods import quantise

PREFIX = "base_model.model."  # of tensor names in peft's files
NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern")  # peft's options that narrow the targets


@dataclass(frozen=True)
class Factors:
    """One layer's update ``scale * b @ a``: ``a`` is (r, inputs), ``b`` is (outputs, r), both float32."""

    a: Any
    b: Any
    scale: float


def lora_layers(model: Any) -> list[tuple[str, Any]]:
    """peft's LoRA layers of a PeftModel, by their names in it."""
    return [(name, module) for name, module in model.named_modules() if "default" in getattr(module, "lora_A", {})]


def lora_factors(model: Any) -> dict[str, Factors]:
    """The factors of every layer of a PeftModel with plain LoRA layers, by the layer's name in the base. Copies."""
    found = {}
    for name, module in lora_layers(model):
        a, b = (part["default"].weight.detach().float().clone() for part in (module.lora_A, module.lora_B))
        found[name.removeprefix(PREFIX)] = Factors(a, b, float(module.scaling["default"]))
    return found


def published(full: Any, name: str) -> Any:
    """The weight, float32 (outputs, inputs), that the base ``full`` has where a PeftModel has the layer ``name``."""
    layer = full.get_submodule(name.removeprefix(PREFIX))
    return quantise.as_stored(layer, layer.weight.data.float())


def write_lora(factors: dict[str, Factors], recipe: Recipe, targets: Any, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` of a plain LoRA.

    All layers get the largest rank among them and one scale: short factors are filled up with zeros, and what differs
    in scale goes into B, so that runtimes that know only one rank and one alpha serve it. Which of the target modules
    were left out is said as the recipe says it: without, peft would put a new adapter on them.
    """
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    rank = max(1, *(part.a.shape[0] for part in factors.values()))
    scale = next(iter(factors.values())).scale
    tensors = {}
    for name, part in factors.items():
        a = torch.zeros(rank, part.a.shape[1])
        b = torch.zeros(part.b.shape[0], rank)
        a[: part.a.shape[0]] = part.a
        b[:, : part.b.shape[1]] = part.b * (part.scale / scale)
        tensors[f"{PREFIX}{name}.lora_A.weight"], tensors[f"{PREFIX}{name}.lora_B.weight"] = a, b
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=scale * rank,
        lora_dropout=recipe.dropout,
        target_modules=targets,
        inference_mode=True,
        **{key: recipe.options[key] for key in NARROWING if key in recipe.options},
    )
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
