"""Tiny checkpoints as others quantise them, written tensor by tensor: AWQ, GPTQ, compressed-tensors, FP8; symmetric.

A GGUF file as well.

In 4 bits, but for ``int8`` (compressed-tensors, whose layers round their inputs to 8 bits too) and ``fp8``.

Beside each the float model with the very weights that its codes stand for, which is what it must answer as.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

GROUP = 32  # inputs that share a scale
_AWQ = (0, 2, 4, 6, 1, 3, 5, 7)  # which output's code lies in which four bits of a word
KINDS = ("awq", "gptq", "compressed-tensors")


def codes_of(weight: Any) -> tuple[Any, Any]:
    """(codes from -8 to 7 (out, in), scales (out, groups)) of a weight, by rounding."""
    import torch

    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    scales = (groups.abs().amax(-1) / 7).clamp_min(1e-6).half()
    codes = (groups / scales.float()[..., None]).round().clamp(-8, 7)
    return codes.reshape(weight.shape).to(torch.int32), scales


def _packed(codes: Any, order: tuple[int, ...] = tuple(range(8))) -> Any:
    """Eight codes of 0 to 15 along the last axis in each int32."""
    import torch

    parts = codes.reshape(*codes.shape[:-1], -1, 8).to(torch.int64)
    word = sum(parts[..., place] << 4 * number for number, place in enumerate(order))
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def _awq(name: str, codes: Any, scales: Any) -> dict[str, Any]:
    zeros = scales.t().float() * 0 + 8
    return {
        f"{name}.qweight": _packed(codes.t() + 8, _AWQ),
        f"{name}.qzeros": _packed(zeros, _AWQ),
        f"{name}.scales": scales.t().contiguous(),
    }


def _gptq(name: str, codes: Any, scales: Any) -> dict[str, Any]:
    import torch

    zeros = scales.t().float() * 0 + 7  # the format adds one
    return {
        f"{name}.qweight": _packed(codes + 8).t().contiguous(),
        f"{name}.qzeros": _packed(zeros),
        f"{name}.scales": scales.t().contiguous(),
        f"{name}.g_idx": torch.arange(codes.shape[1], dtype=torch.int32) // GROUP,
    }


def _compressed(name: str, codes: Any, scales: Any) -> dict[str, Any]:
    import torch

    return {
        f"{name}.weight_packed": _packed(codes + 8),
        f"{name}.weight_scale": scales,
        f"{name}.weight_shape": torch.tensor(codes.shape, dtype=torch.int64),
    }


def _int8(name: str, weight: Any) -> tuple[dict[str, Any], Any]:
    """Tensors of a layer with a scale an output, and the weight that they stand for."""
    import torch

    scales = weight.float().abs().amax(1, keepdim=True) / 127
    codes = (weight.float() / scales).round().to(torch.int8)
    return {f"{name}.weight": codes, f"{name}.weight_scale": scales}, codes.float() * scales


def _fp8(name: str, weight: Any) -> tuple[dict[str, Any], Any]:
    """The same with one scale: a block is as large as the layer."""
    import torch

    scale = weight.float().abs().max() / 448
    codes = (weight.float() / scale).to(torch.float8_e4m3fn)
    return {f"{name}.weight": codes, f"{name}.weight_scale_inv": scale.reshape(1, 1)}, codes.float() * scale


def _stated(kind: str) -> dict[str, Any]:
    if kind == "fp8":
        return {"quant_method": "fp8", "weight_block_size": [256, 256], "modules_to_not_convert": ["lm_head"]}
    if kind == "int8":
        weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
        inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }
    if kind == "awq":
        return {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    if kind == "gptq":
        how = {"desc_act": False, "sym": True, "checkpoint_format": "gptq"}
        return {"quant_method": "gptq", "bits": 4, "group_size": GROUP, **how}
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def make_quantised(kind: str, folder: Path, base: Path) -> tuple[Path, Path]:
    """(quantised checkpoint, float model of the same values) of a Llama in ``base``, in ``folder``."""
    from safetensors.torch import load_file, save_file

    write = {"awq": _awq, "gptq": _gptq, "compressed-tensors": _compressed}.get(kind)
    made, plain = folder / kind, folder / f"{kind}-float"
    stored, meant = dict[str, Any](), dict[str, Any]()
    for name, tensor in load_file(base / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name], meant[name] = tensor.half(), tensor.half()
            continue
        if write is None:
            tensors, meant[name] = {"int8": _int8, "fp8": _fp8}[kind](name.removesuffix(".weight"), tensor)
            stored |= tensors
            continue
        codes, scales = codes_of(tensor)
        stored |= write(name.removesuffix(".weight"), codes, scales)
        meant[name] = (codes.reshape(*scales.shape, GROUP) * scales.float()[..., None]).reshape(codes.shape)
    config = json.loads((base / "config.json").read_text())
    config |= {"dtype": "float16"}
    for place, tensors, extra in ((made, stored, {"quantization_config": _stated(kind)}), (plain, meant, {})):
        shutil.copytree(base, place)
        save_file({k: v.contiguous() for k, v in tensors.items()}, place / "model.safetensors", {"format": "pt"})
        (place / "config.json").write_text(json.dumps(config | extra))
    return made, plain


CODES = {
    "awq": ("qweight", "int32"),
    "gptq": ("qweight", "int32"),
    "fp8": ("weight", "float8_e4m3fn"),
    "compressed-tensors": ("weight_packed", "int32"),
    "bitsandbytes": ("weight", "uint8"),
}


def checkpoint(base: Path, folder: Path, stated: Any, codes: str | None = "as stated", **above: Any) -> Path:
    """A folder whose config.json states a quantisation; one of its tensors is of ``codes``, or all are numbers.

    ``above``: what it states in place of ``stated``.
    """
    import torch
    from safetensors.torch import load_file, save_file

    made = Path(shutil.copytree(base, folder))
    config = json.loads((made / "config.json").read_text()) | (above or {"quantization_config": stated})
    (made / "config.json").write_text(json.dumps(config))
    if codes == "as stated":
        codes = str(stated.get("quant_method", "bitsandbytes"))
    if codes in CODES:
        name, dtype = CODES[codes]
        tensors = load_file(made / "model.safetensors")
        tensors[f"model.layers.0.mlp.up_proj.{name}"] = torch.zeros(8, 8).to(getattr(torch, dtype))
        save_file(tensors, made / "model.safetensors", {"format": "pt"})
    return made


def write_gguf(folder: Path, path: Path, kind: str = "F32") -> Path:
    """A tiny Llama as llama.cpp's converter writes one: queries and keys in its order, the tokenizer as metadata.

    ``kind``: how its matrices are stored.
    """
    import gguf
    import numpy as np
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config["vocab_size"])
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    tokens += [f"<unused{number}>" for number in range(config["vocab_size"] - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    parts |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    parts |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for layer in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in parts.items()}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        array = tensor.to(torch.float32).numpy()
        if (count := heads.get(stem.rpartition(".")[2])) is not None:
            rows, columns = array.shape
            array = array.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        stored = gguf.GGMLQuantizationType[kind if array.ndim == 2 else "F32"]
        array = gguf.quants.quantize(np.ascontiguousarray(array), stored)
        writer.add_tensor(f"{names[stem]}.weight", array, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
