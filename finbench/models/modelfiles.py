"""Model folders: checked and named exactly without loading their weights."""

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
