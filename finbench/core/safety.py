"""What strangers' files may not contain: checked on their bytes, before any library opens them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finbench.core import limits
from finbench.core.errors import FinbenchError
from finbench.core.files import stable_json

LARGEST_HEADER = 32 * 2**20  # bytes; 200,000 tensors need about 25 million
MOST_TENSORS = 200_000  # rank updates of 256 experts in 60 layers are 92,000
LARGEST_CONFIG = 2**20  # bytes of a config.json
LARGEST_RANK = 4096
_COUNTED = re.compile("layer|expert|position")
_MOST = {"layer": 1_000, "expert": 10_000, "position": 10**9}
_DEEPEST = 60  # lists or objects in each other in a configuration; those of models have five
_SECONDS = 1.0  # of the processor, for the patterns of module names; real ones take milliseconds
# Keys by which loading a model has been made to import or run code (CVE-2026-4372, peft issue 3085, and their like).
_HOSTILE = re.compile(r"auto_map|auto_mapping|megatron_.*|trust_remote_code|_attn_implementation.*|custom_generate")
_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_PLAIN = re.compile(r"[\w.-]*")
_REFUSED = "Choose another model; a file like this is broken or made to harm. Tell its author."
_CORRECT = "Correct the file if it is your own; else fetch it again, or tell its author."


def read_json(path: Path, folder: Path, largest: int = LARGEST_CONFIG) -> dict[str, Any]:
    """A JSON object of a model folder; FinbenchError if it is missing, torn, too large, too deep or something else."""
    try:
        if path.stat().st_size > largest:
            raise FinbenchError(f"{path} is too large for a configuration ({path.stat().st_size:,} bytes).", _REFUSED)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise FinbenchError(
            f"{folder} is not a model folder: {path.name} is missing.", f"Name the folder in which {path.name} lies."
        ) from fault
    except (ValueError, OSError, RecursionError) as fault:
        raise FinbenchError(f"{path} is torn or not JSON ({fault}).", "Fetch it again.") from fault
    if not isinstance(value, dict):
        raise FinbenchError(f"{path}: an object is expected.", _CORRECT)
    if _deeper(value, _DEEPEST):
        raise FinbenchError(f"{path} is nested more than {_DEEPEST} deep; no configuration is.", _REFUSED)
    return value


def _deeper(value: Any, most: int) -> bool:
    """Whether something lies more than ``most`` lists or objects deep, found without recursion."""
    level = [value]
    for _ in range(most):
        level = [
            part
            for whole in level
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
    return bool(level)


def refuse_code(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration with a key, at any depth, that would have code imported or run."""
    found = sorted(set(_hostile_keys(config)))
    if found:
        raise FinbenchError(
            f"{path} asks to run code ({', '.join(found)[:200]}); finbench never does.",
            "Choose a model that transformers knows by itself: finbench bases",
        )


def _hostile_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if _HOSTILE.fullmatch(str(key)) and part is not None and part is not False and not _harmless(key, part):
                yield str(key)[:60]
            yield from _hostile_keys(part)
    elif isinstance(value, list):
        for part in value:
            yield from _hostile_keys(part)


def refuse_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Refuse more layers or experts than any model has: a library makes each one before it looks at the weights."""
    parts: list[Any] = [config]
    for part in parts:  # grows: what is nested is a configuration too
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            if isinstance(value, dict | list):
                parts.append(value)
            elif type(value) is int and (found := _COUNTED.search(str(key))) and value > _MOST[found[0]]:
                raise FinbenchError(f"{path}: {str(key)[:60]} is {value:,}; no model has so many.", _REFUSED)


def _harmless(key: str, part: Any) -> bool:
    """What the libraries themselves write: peft its default, transformers which of its own attentions was chosen."""
    if key == "megatron_core":
        return bool(part == "megatron.core")
    return key.startswith("_attn_implementation") and (part is True or part in _ATTENTION)


# ---------------------------------------------------------------- weights


def check_header(path: Path) -> dict[str, Any]:
    """The tensors that a safetensors file names, from its header alone: {name: {dtype, shape, data_offsets}}.

    Refuses what is no safetensors file (a pickle under its name), a header that is too large, and more tensors than
    any model has, before a library allocates anything for them.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            start = handle.read(8)
            length = int.from_bytes(start, "little")
            whole = length + 8 <= size and handle.read(1) == b"{"  # the length may begin with a pickle's byte as well
            handle.seek(8)
            if not whole and (start[:1] == b"\x80" or start[:2] == b"PK"):
                raise FinbenchError(
                    f"{path} is a pickle under another name; it is never loaded.", "Ask its author for safetensors."
                )
            if len(start) < 8 or length + 8 > size:
                raise FinbenchError(f"{path} is torn or not safetensors.", "Fetch it again.")
            if length > LARGEST_HEADER:
                raise FinbenchError(f"{path} has a header of {length:,} bytes; no model needs that.", _REFUSED)
            raw = handle.read(length)
            if raw.count(b"{") > MOST_TENSORS or raw.count(b"[") > 2 * MOST_TENSORS:  # what a reader allocates for
                raise FinbenchError(f"{path} names more than {MOST_TENSORS:,} tensors; no model has so many.", _REFUSED)
            header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(f"{path} is torn or not safetensors ({str(fault)[:100]}).", "Fetch it again.") from fault
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise FinbenchError(f"{path} is torn or not safetensors.", "Fetch it again.")
    header.pop("__metadata__", None)
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError for a key given twice, of which readers take one or the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


# ---------------------------------------------------------------- adapters


def check_adapter(config: Mapping[str, Any], path: Path, tensors: Iterable[str]) -> None:
    """Refuse an adapter configuration that would run code, take all memory, or match names for ever."""
    refuse_code(config, path)
    least = 1 if str(config.get("peft_type") or "LORA").upper() == "LORA" else 0  # OFT by block size has rank 0
    ranks = {"r": config.get("r")}
    ranks |= {f"rank_pattern {k}": v for k, v in _mapping(config, "rank_pattern", path).items()}
    for name, rank in ranks.items():
        if rank is not None and (type(rank) is not int or not least <= rank <= LARGEST_RANK):
            said = f"a rank is a whole number from {least} to {LARGEST_RANK}"
            raise FinbenchError(f"{path}: {name[:80]} is {rank!r}; {said}.", _CORRECT)
    scales = {"lora_alpha": config.get("lora_alpha")}
    scales |= {f"alpha_pattern {k}": v for k, v in _mapping(config, "alpha_pattern", path).items()}
    for name, scale in scales.items():
        if scale is not None and (type(scale) not in (int, float) or not scale or not math.isfinite(scale)):
            raise FinbenchError(f"{path}: {name[:80]} is {scale!r}; a scale is a number other than 0.", _CORRECT)
    try:
        stable_json(config)  # of which its identity is made
    except ValueError as fault:
        raise FinbenchError(f"{path} has a number that JSON does not have (NaN or Infinity).", _CORRECT) from fault
    if config.get("layer_replication"):
        raise FinbenchError(
            f"{path}: layer_replication changes the base, which finbench does not support.",
            "Train the adapter again without layer_replication.",
        )
    patterns = [*_mapping(config, "rank_pattern", path), *_mapping(config, "alpha_pattern", path)]
    for key in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "target_parameters"):
        value = config.get(key)
        parts = [value] if isinstance(value, str) else value or []
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise FinbenchError(f"{path}: {key} is neither a name nor a list of names.", _CORRECT)
        patterns += parts
    if len(patterns) > 10_000 or any(len(pattern) > 2_000 for pattern in patterns):
        raise FinbenchError(f"{path}: its patterns of module names are too many or too long.", _REFUSED)
    odd = [pattern for pattern in patterns if not _PLAIN.fullmatch(pattern)]
    if odd:
        _terminates(odd, tensors, path)


def _mapping(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise FinbenchError(f"{path}: {key} is no mapping.", _CORRECT)
    return value


_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        re.fullmatch(pattern, name), re.match(rf"(.*\\\\.)?({pattern})$", name)
"""


def _terminates(patterns: list[str], tensors: Iterable[str], path: Path) -> None:
    """Match the regular expressions of a stranger in a process of its own, which is stopped if it takes too long."""
    modules = {
        re.sub(r"\.(lora|hada|lokr|vera|ia3|oft)_.*$", "", name.removeprefix("base_model.model.")) for name in tensors
    }
    modules |= {"model.layers.0.self_attn.q_proj", "transformer.h.0.attn.c_attn", "model.embed_tokens", "lm_head"}
    names = sorted(modules)[:2_000]
    names += [name + "!" for name in names[:200]]
    if not limits.finishes(_MATCH, [patterns, names], _SECONDS):
        raise FinbenchError(
            f"{path} names modules by a regular expression that is invalid or takes too long.", _CORRECT
        )
