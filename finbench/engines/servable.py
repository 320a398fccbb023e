"""Can vLLM serve an adapter unmerged? Every reason against it at once, from its files, before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finbench.methods import Layer

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank
# starts that only set the adapter's own first values; others change the base, which vLLM would not do
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_PROMPT_KINDS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "ADAPTION_PROMPT", "CPT")
_OPTIONS = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in the update",
    "modules_to_save": "whole modules beside the update",
    "trainable_token_indices": "trained tokens",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "repeated layers",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QA-LoRA",
    "target_parameters": "an update of bare parameters",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "a router",
}
# architectures of transformers to which vLLM 0.32 gives no LoRA layers
_NO_LORA = frozenset(
    f"{name}ForCausalLM"
    for name in ("Bloom", "Dbrx", "DeepseekV32", "DeepseekV4", "Falcon", "FalconMamba", "GPTJ", "Gemma3n", "KimiLinear",
                 "Mamba", "Mamba2", "MiMoV2", "Orion", "StableLm", "Zamba2")
) | {"GPT2LMHeadModel"}  # fmt: skip
_ENDS = ("lm_head", "embed_tokens", "embed_out", "wte")  # tied to each other in many models


@dataclass(frozen=True)
class Route:
    """How vLLM can serve an adapter: beside its base, as a merged model, or not at all; and why not better."""

    how: Literal["unmerged", "merged", "no"]
    reasons: tuple[str, ...] = ()


def served_rank(config: Mapping[str, Any]) -> int | None:
    """The least max_lora_rank of vLLM that holds the adapter; None where there is none so large, or no rank."""
    rank = max([config.get("r") or 0, *(config.get("rank_pattern") or {}).values()])
    return next((size for size in RANKS if size >= rank), None) if rank else None


def route(config: Mapping[str, Any], recorded: bool, architecture: str = "") -> Route:
    """How the adapter of an ``adapter_config.json`` can be served; ``recorded``: finbench can merge it.

    ``architecture`` is that of its base, as its config.json has it.
    """
    kind = str(config.get("peft_type") or "LORA").upper()
    reasons = _obstacles(config) if kind == "LORA" else [f"it is of type {kind}, not LoRA"]
    if architecture in _NO_LORA:
        reasons.append(f"vLLM has no LoRA for {architecture}")
    if not reasons:
        return Route("unmerged")
    if any(option in kind for option in _PROMPT_KINDS):
        return Route("no", (*reasons, "and there is nothing to merge"))
    if not recorded:
        return Route("no", (*reasons, "and without a finbench.json it is not known what to merge it into"))
    return Route("merged", tuple(reasons))


def beyond_lora(config: Mapping[str, Any]) -> list[str]:
    """What makes a LoRA more than products of two factors that are added to weights of its base."""
    found = [f"it has {what} ({key})" for key, what in _OPTIONS.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("it trains biases")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        found.append(f"it starts from changed base weights (init_lora_weights={start})")
    return found


def _obstacles(config: Mapping[str, Any]) -> list[str]:
    found = beyond_lora(config)
    if served_rank(config) is None:
        found.append(f"its rank is {config.get('r')}; the largest that is served is {RANKS[-1]}")
    targets = config.get("target_modules") or []
    named = [targets] if isinstance(targets, str) else list(targets)
    if ends := sorted(end for end in _ENDS if any(end == name.rpartition(".")[2] for name in named)):
        found.append(f"it changes {' and '.join(ends)}")
    return found


def targets(folder: Path) -> set[str]:
    """Endings of the modules that the adapter's tensors name; vLLM is to put LoRA layers nowhere else."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        return {name.partition(".lora_")[0].rpartition(".")[2] for name in tensors.keys()}  # noqa: SIM118


def unmatched(folder: Path, layers: Sequence[Layer]) -> list[str]:
    """Tensors of a LoRA that fit no layer of its base, by name and shape: vLLM would leave them out without a word."""
    from safetensors import safe_open

    known = {f"{layer.name}.lora_A": (1, layer.inputs) for layer in layers}
    known |= {f"{layer.name}.lora_B": (0, layer.outputs) for layer in layers}
    odd = []
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            match = re.fullmatch(r"base_model\.model\.(.+\.lora_[AB])(?:\.default)?\.weight", name)
            axis, size = known.get(match[1], (0, -1)) if match else (0, -1)
            if tensors.get_slice(name).get_shape()[axis : axis + 1] != [size]:
                odd.append(name)
    return odd
