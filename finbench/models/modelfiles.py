"""Model folders: checked and named exactly without loading their weights; those of a loaded model are finite."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from finbench.core import hashes
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, sha256_file
from finbench.core.safety import check_header, read_json, refuse_code, refuse_sizes
from finbench.models import decisive
from finbench.models.decisive import LARGEST_JSON

# A model with low-rank structure (structured/storage.py): files of other names, lest others load it as a dense one.
STRUCTURE, FACTORISED = "structure.json", "factorised.safetensors"


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


_READ = (".json", ".jinja", ".model", ".safetensors", ".txt")  # endings of files that are read of a model
# Settings of generation by which text depends on a clock, on other models, or on a search without end
_NO_CHOICE = {
    "assistant_early_exit", "compile_config", "constraints", "continuous_batching_config", "dola_layers",
    "force_words_ids", "max_time", "penalty_alpha", "prompt_lookup_num_tokens", "stop_strings", "token_healing",
    "use_mtp", "watermarking_config",
}  # fmt: skip
_MOST_BEAMS, _MOST_TOKENS, _MOST_NUMBER = 16, 100_000, 10**6
_NUMBERS = {
    "diversity_penalty", "encoder_no_repeat_ngram_size", "guidance_scale", "length_penalty", "min_length",
    "min_new_tokens", "no_repeat_ngram_size",
}  # fmt: skip


def _speaks(key: str, value: Any) -> bool:
    """Whether a setting of a configuration, if it is one of generation, chooses among tokens within bounds."""
    if value is None or value is False:
        return True
    if key in ("num_beams", "num_beam_groups", "num_return_sequences"):
        return type(value) is int and 1 <= value <= (_MOST_BEAMS if key == "num_beams" else 1)
    if key.endswith("repetition_penalty"):
        return value == 1 or (type(value) is float and 0 < value <= _MOST_NUMBER)
    if key in _NUMBERS:
        return type(value) in (int, float) and 0 <= abs(value) <= _MOST_NUMBER
    if key in ("bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id", "forced_eos_token_id"):
        return _tokens(value if isinstance(value, list) else [value])
    if key.endswith("suppress_tokens"):
        return value == [] or _tokens(value)
    if key == "bad_words_ids":
        return isinstance(value, list) and bool(value) and all(map(_tokens, value))
    return key not in _NO_CHOICE


def _tokens(value: Any) -> bool:
    """Whether a value is a list of numbers of tokens, of which -1 is none."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_TOKENS
        and all(type(one) is int and -1 <= one < 2**31 for one in value)
    )


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
    for path in sorted(folder.iterdir()):
        if path.suffix in _READ and not path.is_file():  # a pipe would be waited for, and a device has no end
            raise FinbenchError(f"{path} is no plain file.", "Take it away, or fetch the model again.")
    refuse_sizes(read_json(folder / "config.json", folder), folder / "config.json")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json"):
        if (folder / name).is_file():
            stated = read_json(folder / name, folder, LARGEST_JSON)
            refuse_code(stated, folder / name)
            if wrong := sorted(key for key, value in stated.items() if not _speaks(key, value)):
                raise FinbenchError(
                    f"{folder / name}: {', '.join(wrong)[:200]} states no choice among tokens that can be made.",
                    "Take it out if the model is your own; else choose another: finbench bases",
                )
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
            f"{folder} has no safetensors weights.",
            "Pickled weights (.bin) are never loaded: finbench pull ./folder --convert --out ./converted",
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


def stored_as(folder: Path) -> list[str]:
    """Name and dtype of each tensor of a folder's weights, by the headers of their files: "lm_head.weight BF16"."""
    return [f"{name} {entry.get('dtype')}" for shard in _shards(folder) for name, entry in check_header(shard).items()]


def fingerprint(folder: Path) -> str:
    """SHA-256 of all that decides a base's answers, the same for every way of saving it.

    It covers every byte of every tensor, by name, in whatever files they lie (``hashes.root``), and what of
    configuration, generation settings and tokenizer decides (``decisive``). Weights are read once, at 1.4 GB a second
    of one thread, and again only when a file has changed.
    """
    config = read_json(folder / "config.json", folder)
    structure = read_json(folder / STRUCTURE, folder, LARGEST_JSON) if is_structured(folder) else None
    if structure is not None:
        config["model_type"] = structure.get("model_type")
    stated = decisive.configuration(config)
    parts = [stated, decisive.generation(folder, config), decisive.tokenizer(folder, config), structure]
    tensors: dict[str, str] = {}
    for shard in _shards(folder):
        found = hashes.of_tensors(shard)
        if twice := sorted(tensors.keys() & found.keys()):
            raise damaged(f"{folder} has the tensor {twice[0][:80]} in two files.")
        tensors |= found
    text = json.dumps(parts, sort_keys=True)  # as ASCII, and with the Infinity that some configurations have
    return hashlib.sha256(f"{text}\n{hashes.root(tensors)}".encode()).hexdigest()


def template_digest(folder: Path) -> str:
    """SHA-256 of the chat template of a base, wherever its folder keeps it."""
    if named := sorted((folder / "additional_chat_templates").glob("*.jinja")):  # one of them may be the default
        return digest({path.name: sha256_file(path) for path in [*named, *folder.glob("chat_template.jinja")]})
    if (folder / "chat_template.jinja").is_file():
        return sha256_file(folder / "chat_template.jinja")
    config = folder / "tokenizer_config.json"
    return digest(read_json(config, folder, LARGEST_JSON).get("chat_template") if config.is_file() else None)


def not_finite(model: Any) -> list[str]:
    """Names of the weights of a loaded model in which a number is not finite."""
    return [
        name
        for name, tensor in model.named_parameters()
        # codes of 4 bits may be stored as numbers, and then are none
        if tensor.is_floating_point() and not hasattr(tensor, "quant_state") and not _finite(tensor)
    ]


def _finite(tensor: Any) -> bool:
    """Whether all its numbers are. A sum of finite ones may overflow, so only a finite sum says it at once."""
    import torch

    return math.isfinite(float(tensor.detach().sum(dtype=torch.float32))) or bool(tensor.float().isfinite().all())
