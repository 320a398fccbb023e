"""Model folders: checked and named exactly without loading their weights."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.files import digest, sha256_file, stable_json
from finbench.core.safety import check_header, read_json, refuse_code, refuse_sizes

# What of a config.json decides an answer, and is written alike by every version of transformers.
_DECISIVE = (
    *("model_type", "vocab_size", "tie_word_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "n_embd", "n_layer", "n_head", "sliding_window"),
    *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "hidden_act", "activation_function"),
)
_TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
# A model with low-rank structure (structured/storage.py): files of other names, lest others load it as a dense one.
STRUCTURE, FACTORISED = "structure.json", "factorised.safetensors"
_BLOCK = 4096
LARGEST_JSON = 64 * 2**20  # bytes; the largest tokenizers have 35 MB


def damaged(message: str, what: str = "it") -> FinbenchError:
    """The fault of a file that is not what its author wrote."""
    return FinbenchError(message, f"Fetch {what} again.")


def empty_model(config: Any) -> Any:
    """The causal language model of transformers' ``config`` without weights, on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def is_structured(folder: Path) -> bool:
    """Whether a folder holds a model with low-rank structure, as finbench stores it."""
    return (folder / STRUCTURE).is_file()


def check_folder(folder: Path) -> None:
    """Refuse a model folder that is missing, torn, pickled, or that would run code. Reads no weights."""
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise FinbenchError(f"No such folder: {folder}", "Known bases: finbench bases")
    if (folder / "adapter_config.json").is_file():
        raise FinbenchError(
            f"{folder} is an adapter, or holds one beside a model, which would be applied in silence.",
            "Name it as an adapter: --adapter; or keep base and adapter in folders of their own.",
        )
    refuse_sizes(read_json(folder / "config.json", folder), folder / "config.json")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json"):
        if (folder / name).is_file():
            refuse_code(read_json(folder / name, folder, LARGEST_JSON), folder / name)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise FinbenchError(f"{folder} has no tokenizer.", f"Copy the base's tokenizer.json into {folder}.")
    for shard in _shards(folder):
        check_header(shard)
        try:
            with safe_open(shard, framework="numpy"):
                pass
        except (SafetensorError, OSError) as fault:
            raise damaged(f"{shard} is torn or not safetensors ({fault}).") from fault


def _shards(folder: Path) -> list[Path]:
    """The weight files that would be loaded: of factors, ``model.safetensors``, else all that the index names."""
    if is_structured(folder):
        if (folder / FACTORISED).is_file():
            return [folder / FACTORISED]
        raise damaged(f"{folder} is incomplete: {FACTORISED}.")
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise FinbenchError(
            f"{folder} has no safetensors weights.", "Pickled weights (.bin) are never loaded; convert them first."
        )
    weight_map = read_json(index, folder, LARGEST_JSON).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        raise damaged(f"{folder} is incomplete: {', '.join(missing) or 'the index names no shard'}.")
    return [folder / name for name in names]


def elements(folder: Path) -> int:
    """How many numbers the weights of a folder hold, by the headers of their files."""
    return sum(math.prod(entry["shape"]) for shard in _shards(folder) for entry in check_header(shard).values())


def fingerprint(folder: Path) -> str:
    """SHA-256 that tells two bases apart without reading all of 140 GB, the same for every way of saving one.

    Covers what of the configuration and of the tokenizer decides an answer, and of every tensor, by name: type,
    shape, and 4 KiB of its data from the start, the middle and the end.
    """
    config = read_json(folder / "config.json", folder)
    decisive = {key: config.get(key) for key in _DECISIVE} | {"rope": _rope(config)}
    parts = [decisive, _tokenizer(folder)]
    if is_structured(folder):
        parts.append(read_json(folder / STRUCTURE, folder, LARGEST_JSON))
    sha = hashlib.sha256(stable_json(parts).encode("utf-8", "surrogatepass"))
    tensors: dict[str, bytes] = {}
    for shard in _shards(folder):
        header = check_header(shard)
        with shard.open("rb") as handle:
            start = 8 + int.from_bytes(handle.read(8), "little")
            for name, entry in header.items():
                tensors[name] = stable_json([entry["dtype"], entry["shape"]]).encode()
                first, last = (start + offset for offset in entry["data_offsets"])
                for place in (first, (first + last) // 2, max(first, last - _BLOCK)):
                    handle.seek(place)
                    tensors[name] += handle.read(min(_BLOCK, last - place))
    for name in sorted(tensors):
        sha.update(name.encode() + b"\0" + tensors[name])
    return sha.hexdigest()


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings, which older files spell ``rope_theta`` and ``rope_scaling``, newer ``rope_parameters``."""
    found: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        found |= config.get(key) or {}
    found["rope_type"] = found.pop("type", None) or found.get("rope_type") or "default"
    return {key: value for key, value in found.items() if value is not None}


def _tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file():
        names = [name for name in ("tokenizer.model", "vocab.json", "merges.txt") if (folder / name).is_file()]
        return {name: sha256_file(folder / name) for name in names}
    stated = read_json(folder / "tokenizer.json", folder, LARGEST_JSON)
    model, added = stated.get("model"), stated.get("added_tokens")
    if not isinstance(model, dict) or "vocab" not in model:
        raise damaged(f"{folder}/tokenizer.json holds no tokenizer.")
    tokens = [[entry.get("id"), entry.get("content"), entry.get("special")] for entry in added or []]
    return [model["vocab"], model.get("merges"), tokens, [stated.get(part) for part in _TOKENIZER_PARTS]]


def template_digest(folder: Path) -> str:
    """SHA-256 of the chat template of a base, wherever its folder keeps it."""
    if (folder / "chat_template.jinja").is_file():
        return sha256_file(folder / "chat_template.jinja")
    config = folder / "tokenizer_config.json"
    return digest(read_json(config, folder, LARGEST_JSON).get("chat_template") if config.is_file() else None)
