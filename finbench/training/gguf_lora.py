"""A plain LoRA as a GGUF file, which llama.cpp puts on a GGUF of its base (``llama-cli --lora``)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finbench.core import safety

# model_type -> (its architecture in llama.cpp, whether the rows of query and key are stored there in another order)
_ARCHITECTURES = {
    "llama": ("llama", True),
    "mistral": ("llama", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "gemma3_text": ("gemma3", False),
}
_PART = re.compile(r"base_model\.model\.(model\.layers\.\d+\.[\w.]+)\.lora_([AB])\.weight")
_BEYOND = (
    *("use_dora", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save"),
    *("target_parameters", "trainable_token_indices", "alora_invocation_tokens", "use_qalora"),
)


class NoLora(Exception):
    """The adapter has no such form; the text says why."""


def write(folder: Path, config: Mapping[str, Any], base: Path, target: Path) -> None:
    """Write the LoRA of ``folder`` for the model of the folder ``base``; NoLora for what is more or other than that.

    Its scale (alpha / r, of rsLoRA alpha / sqrt(r)) is multiplied into B in float32: llama.cpp has no other than the
    first, and takes none where alpha is 0.
    """
    import gguf
    import torch
    from safetensors.torch import load_file

    kind = str(config.get("peft_type") or "LORA")
    beyond = [key for key in _BEYOND if config.get(key)]
    if kind != "LORA" or beyond or config.get("bias") not in (None, "none"):
        raise NoLora(f"it is no plain LoRA ({', '.join(beyond) or kind})")
    model = safety.read_json(base / "config.json", base)
    stated = str(model.get("model_type"))[:40]
    if stated not in _ARCHITECTURES:
        raise NoLora(f"a LoRA for {stated} is not known here, only for {', '.join(_ARCHITECTURES)}")
    name, permuted = _ARCHITECTURES[stated]
    number = next(key for key, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
    names = gguf.get_tensor_name_map(number, int(model["num_hidden_layers"]))
    heads = int(model["num_attention_heads"])
    counts = {"q_proj": heads, "k_proj": int(model.get("num_key_value_heads") or heads)}
    rank, alpha = int(config.get("r") or 8), float(config.get("lora_alpha") or 8)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    made: dict[str, Any] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        found = _PART.fullmatch(key)
        module = names.get_name(f"{found[1]}.weight", try_suffixes=(".weight",)) if found else None
        if found is None or module is None:
            raise NoLora(f"it changes {key[-80:]}, which has no place in one")
        tensor = tensor.to(torch.float32)
        if found[2] == "B":
            tensor = tensor * scale
            part = found[1].rpartition(".")[2]
            if permuted and part in counts:  # as llama.cpp stores the rows of these two, for its rotation
                pairs = tensor.reshape(counts[part], 2, -1, tensor.shape[1])
                tensor = pairs.swapaxes(1, 2).reshape(tensor.shape)
        made[f"{module}.lora_{found[2].lower()}"] = tensor.contiguous().numpy()
    writer = gguf.GGUFWriter(str(target), name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for key, value in sorted(made.items()):
        writer.add_tensor(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
