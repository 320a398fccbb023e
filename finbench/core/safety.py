"""What strangers' files may not contain, checked on their bytes before any library opens them.

Regular expressions and chat templates of strangers run within bounds on time and memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finbench.core import disguised
from finbench.core.errors import FinbenchError, shortened
from finbench.core.files import refuse_halves, stable_json, unique_keys

LARGEST_HEADER = 32 * 2**20  # bytes; 200,000 tensors need about 25 million
MOST_TENSORS = 200_000  # rank updates of 256 experts in 60 layers are 92,000
LARGEST_CONFIG = 2**20  # bytes of a config.json
LARGEST_RANK = 4096
_LARGEST_SCALE = 10**9
_LARGEST_SIZE = 2_000_000  # of a tuner's vectors or frequencies, each of which is made in every layer
_SEED = re.compile("seed|prng")
_STARTS = ("true", "false", "gaussian", "eva", "orthogonal", "mica")  # which leave the base as it is
_MATCHES = 2_000_000  # of patterns of ranks and scales with tensors: about a second
_FEW, _MOST_FEW = ("modules_to_save", "layers_pattern"), 100  # names that peft compiles anew for every module
_COUNTED = re.compile(
    "(?:layer|expert|position|label)(?!.*_(?:size|dim))"
)  # no widths: shared_expert_intermediate_size
_MOST = {"layer": 1_000, "expert": 10_000, "position": 10**9, "label": 100_000}
_MOST_PARTS = 6_000_000  # values in a JSON file, which take more memory than bytes; the largest tokenizers have two
_DIGITS = 40  # of a whole number; tokenizers say of any length that it is at most 10**30
_DEEPEST = 60  # lists or objects in each other in a configuration; those of models have five
_SECONDS, _MOST_SECONDS = 1.0, 4.0  # of the processor, for patterns of module names; real ones take milliseconds
_SECONDS_A_MATCH = 1e-5  # more of them for each name
# Keys by which loading a model has been made to import or run code (CVE-2026-4372, peft issue 3085, and their like).
# Kernels of the Hub are named by the last two, with and without the underscore.
_HOSTILE = re.compile(
    r"auto_map|auto_mapping|megatron_.*|trust_remote_code|custom_generate|_?(?:attn|experts)_implementation.*"
)
# Keys by which transformers reads another file instead, which nobody has checked or hashed.
_ELSEWHERE = re.compile(r"configuration_files|fast_tokenizer_files|gguf_file|transformers_weights")
# Keys by which peft opens further files or models, unchecked: X-LoRA's adapters, CorDA's and LoRA-GA's pickles, and
# whatever the next one is called. The two that are left out are never opened when an adapter is put on a base.
_FILES = re.compile(r"adapters|\w+_(path|file|dir|folder|model|checkpoint)")
_NOT_OPENED = ("base_model_name_or_path", "tokenizer_name_or_path")
_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_EXPERTS = ("eager", "grouped_mm", "batched_mm")
_PLAIN = re.compile(r"[\w.-]*")
_TICK = 0.02  # seconds between two looks at the clock and at memory
_STALLED = 120.0  # seconds of the wall after which a process that takes no processor time is given up
_REFUSED = "Choose another model; a file like this is broken or made to harm. Tell its author."
_CORRECT = "Correct the file if it is your own; else fetch it again, or tell its author."


def read_json(path: Path, folder: Path, largest: int = LARGEST_CONFIG) -> dict[str, Any]:
    """A JSON object of a model folder; FinbenchError if it is missing, torn, too large, too deep or something else."""
    try:
        if path.stat().st_size > largest:
            raise FinbenchError(f"{path} is too large for a configuration ({path.stat().st_size:,} bytes).", _REFUSED)
        text = path.read_text(encoding="utf-8")
        if len(text) > LARGEST_CONFIG and sum(map(text.count, ",[{")) > _MOST_PARTS:
            raise FinbenchError(f"{path} has more than {_MOST_PARTS:,} values; no model's has so many.", _REFUSED)
        value = json.loads(text, parse_int=_whole)
        refuse_halves(text, value)
    except FileNotFoundError as fault:
        raise FinbenchError(
            f"{folder} is not a model folder: {path.name} is missing.", f"Name the folder in which {path.name} lies."
        ) from fault
    except (ValueError, OSError, RecursionError) as fault:
        raise FinbenchError(f"{path} is torn or not JSON ({fault}).", "Fetch it again.") from fault
    if not isinstance(value, dict):
        raise FinbenchError(f"{path}: an object is expected.", _CORRECT)
    if _deeper(value):
        raise FinbenchError(f"{path} is nested more than {_DEEPEST} deep; no configuration is.", _REFUSED)
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _deeper(value: Any) -> bool:
    """Whether something lies deeper than in ``_DEEPEST`` lists or objects, found without recursion."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            part
            for whole in level
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
    return bool(level)


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a configuration with its value, at any depth."""
    parts: list[Any] = [config]
    for part in parts:  # grows: what is nested is a configuration too
        if isinstance(part, dict):
            yield from part.items()
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def refuse_code(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration with a key, at any depth, that would have code run, or other files read."""
    found = {
        key[:60]
        for key, value in _entries(config)
        if _HOSTILE.fullmatch(key) and value is not None and value is not False and not _harmless(key, value)
    }
    if found:
        raise FinbenchError(
            f"{path} asks to run code ({', '.join(sorted(found))[:200]}); finbench never does.",
            "Choose a model that transformers knows by itself: finbench bases",
        )
    if elsewhere := sorted({key for key, value in _entries(config) if _ELSEWHERE.fullmatch(key) and value}):
        raise FinbenchError(
            f"{path} has other files read instead ({', '.join(elsewhere)}), which nobody has checked.",
            "Give the file that it means this one's name, and take that key out.",
        )


def _refuse_files(config: Mapping[str, Any], path: Path) -> None:
    """Refuse an adapter that names further files: nobody has checked them, and its identity does not cover them."""
    found = sorted(
        key[:60]
        for key, value in _entries(config)
        if _FILES.fullmatch(key) and key not in _NOT_OPENED and value and not isinstance(value, bool)
    )
    if found:
        raise FinbenchError(
            f"{path} names further files ({', '.join(found)[:200]}), which would be opened unchecked.",
            "Ask its author for an adapter in one file: PeftModel.save_pretrained.",
        )


def _refuse_rank(config: Mapping[str, Any], path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse a LoRA whose stated rank is not that of its tensors: peft would allocate what is stated.

    Its patterns must have been seen to terminate. Factors of a parameter that holds several experts are stacked: their
    rank is a multiple of the stated one.
    """
    patterns = [(re.compile(rf"(.*\.)?({key})$"), rank) for key, rank in _mapping(config, "rank_pattern", path).items()]

    def stated_of(module: str) -> Any:
        # as peft chooses: the first pattern that the module's name ends with; 8 is its default
        named = (rank for pattern, rank in patterns if pattern.match(module))
        return next(named, config.get("r") or 8)

    experts = config.get("target_parameters") or ()
    stacked = {stated_of(name) for name in ([experts] if isinstance(experts, str) else experts)}
    found_ranks = set[int]()
    for name, about in tensors.items():
        found = re.match(r"(.*)\.lora_(A|B|embedding_A|embedding_B)(\.|$)", name)
        shape = about.get("shape")
        if not found or not isinstance(shape, list) or len(shape) < 2:
            continue
        stated = stated_of(found[1])
        rank = shape[0] if found[2].endswith("A") else shape[1]
        found_ranks.add(rank)
        if rank != stated and not any(_multiple(rank, one) for one in stacked):
            raise FinbenchError(f"{path} states rank {stated}, and {name[-80:]} has {str(rank)[:20]}.", _CORRECT)
    if unused := [one for one in stacked if not any(_multiple(rank, one) for rank in found_ranks)]:
        raise FinbenchError(f"{path} states rank {str(unused[0])[:20]}, and no tensor has it.", _CORRECT)


def _multiple(rank: Any, of: Any) -> bool:
    return type(rank) is int and type(of) is int and of > 0 and rank % of == 0


def refuse_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Refuse more layers, experts or labels than any model has: a library makes each before it looks at the weights."""
    for key, value in _entries(config):
        if type(value) is int and (found := _COUNTED.search(key)) and value > _MOST[found[0]]:
            raise FinbenchError(f"{path}: {key[:60]} is {value:,}; no model has so many.", _REFUSED)


def _harmless(key: str, value: Any) -> bool:
    """What the libraries themselves write: peft its default, transformers which of its own attentions was chosen."""
    if key == "megatron_core":
        return bool(value == "megatron.core")
    if isinstance(value, dict):  # of the parts of a model, by their names
        return "_implementation" in key and all(part is None or _harmless(key, part) for part in value.values())
    known = {"attn": _ATTENTION, "experts": _EXPERTS}.get(key.lstrip("_").partition("_")[0], ())
    return (value is True and bool(known)) or value in known


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
                raise disguised.refusal(path) or FinbenchError(f"{path} is torn or not safetensors.", "Fetch it again.")
            if length > LARGEST_HEADER:
                raise FinbenchError(f"{path} has a header of {length:,} bytes; no model needs that.", _REFUSED)
            raw = handle.read(length)
            if raw.count(b"{") > MOST_TENSORS or raw.count(b"[") > 2 * MOST_TENSORS:  # what a reader allocates for
                raise FinbenchError(f"{path} names more than {MOST_TENSORS:,} tensors; no model has so many.", _REFUSED)
            header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(f"{path} is torn or not safetensors ({str(fault)[:100]}).", "Fetch it again.") from fault
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise FinbenchError(f"{path} is torn or not safetensors.", "Fetch it again.")
    header.pop("__metadata__", None)
    return header


def check_adapter(config: Mapping[str, Any], path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse a configuration that would run code, open files, take all memory, or match names for ever.

    ``tensors``: what ``check_header`` read of the weights beside it.
    """
    refuse_code(config, path)
    _refuse_files(config, path)
    lora = str(config.get("peft_type") or "LORA").upper() == "LORA"
    least = 1 if lora else 0  # OFT by block size has rank 0
    rank_pattern, alpha_pattern = (_mapping(config, key, path) for key in ("rank_pattern", "alpha_pattern"))
    ranks = {"r": config.get("r")} | {f"rank_pattern {name}": rank for name, rank in rank_pattern.items()}
    for name, rank in ranks.items():
        if rank is not None and (type(rank) is not int or not least <= rank <= LARGEST_RANK):
            said = f"a rank is a whole number from {least} to {LARGEST_RANK}"
            raise FinbenchError(f"{path}: {name[:80]} is {shortened(repr(rank))}; {said}.", _CORRECT)
    scales = {f"alpha_pattern {name}": scale for name, scale in alpha_pattern.items()}
    if "lora_alpha" in config and (lora or config["lora_alpha"] is not None):  # other kinds may leave it open
        scales["lora_alpha"] = config["lora_alpha"]
    for name, scale in scales.items():
        if type(scale) not in (int, float) or not 0 < abs(scale) <= _LARGEST_SCALE:
            said = f"a scale is a number other than 0, at most {_LARGEST_SCALE:,}"
            raise FinbenchError(f"{path}: {name[:80]} is {shortened(repr(scale))}; {said}.", _CORRECT)
    try:
        stable_json(config)  # of which its identity is made
    except ValueError as fault:
        raise FinbenchError(f"{path} has a number that JSON does not have (NaN or Infinity).", _CORRECT) from fault
    if config.get("layer_replication"):
        said = "layer_replication changes the base, which finbench does not support"
        raise FinbenchError(f"{path}: {said}.", "Train the adapter again without layer_replication.")
    patterns = _patterns(config, path)
    if len(patterns) > 20_000 or any(len(pattern) > 2_000 for _, pattern in patterns):
        raise FinbenchError(f"{path}: its patterns of module names are too many or too long.", _REFUSED)
    for key in _FEW:
        if isinstance(config.get(key), list) and len(config[key]) > _MOST_FEW:
            raise FinbenchError(f"{path}: {key} has {len(config[key]):,} names; no adapter's has so many.", _REFUSED)
    matched = sum(len(value) for key, value in config.items() if key.endswith("_pattern") and isinstance(value, dict))
    if matched * (len(tensors) + len(config.get("target_parameters") or ())) > _MATCHES:
        raise FinbenchError(f"{path}: its patterns of ranks and scales have {matched:,} entries.", _REFUSED)
    layers = (name.removeprefix("base_model.model.") for name in tensors)
    modules = {re.sub(r"\.(lora|hada|lokr|vera|ia3|oft)_.*$", "", layer) for layer in layers}
    modules |= {"model.layers.0.self_attn.q_proj", "transformer.h.0.attn.c_attn", "model.embed_tokens", "lm_head"}
    check_patterns(config, path, modules)
    if lora:
        _refuse_rank(config, path, tensors)
        start = config.get("init_lora_weights")
        if isinstance(start, str) and start.lower() not in _STARTS:  # peft would decompose each weight of the base
            raise FinbenchError(
                f"{path}: an adapter that starts by {start[:40]!r} changes the base model itself when it is loaded.",
                "Ask its author for a plain LoRA: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
            )
    else:
        for key, value in _entries(config):
            if type(value) is int and value > _LARGEST_SIZE and not _SEED.search(key):
                raise FinbenchError(f"{path}: {key[:60]} is {value:,}; no adapter's is so large.", _REFUSED)


def _mapping(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise FinbenchError(f"{path}: {key} is no mapping.", _CORRECT)
    return value


def _patterns(config: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """Every pattern of module names, with each of the forms in which peft matches it; FinbenchError for none."""
    found = []
    for key in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "target_parameters"):
        value = config.get(key)
        parts = [value] if isinstance(value, str) else value or []
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise FinbenchError(f"{path}: {key} is neither a name nor a list of names.", _CORRECT)
        found += [(_FORMS.get(key, "{}"), part) for part in parts]
    for key, value in config.items():
        if key == "feedforward_modules" and isinstance(value, str):
            found.append(("{}", value))
        if key.endswith("_pattern") and isinstance(value, dict):  # of ranks, scales, frequencies, block sizes
            found += [(form, name) for name in value for form in _KEYED]
    return found


_FORMS = {"modules_to_save": r"(^|.*\.){}($|\..*)", "layers_pattern": r"(?:^|.*?\.){}\.(\d+)\."}
_KEYED = (r"(.*\.)?({})$", r".*\.{}$")
_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for form, pattern in patterns:
    way = re.compile(form.replace("{}", pattern))
    for name in names:
        way.fullmatch(name), way.match(name), way.search(name)
"""


def check_patterns(config: Mapping[str, Any], path: Path, names: Iterable[str]) -> None:
    """Try patterns of a stranger on names of modules as peft does, in a process that is stopped if it takes long."""
    odd = [(form, pattern) for form, pattern in _patterns(config, path) if not _PLAIN.fullmatch(pattern)]
    if not odd:
        return
    modules = sorted(set(names))
    modules += [name + "!" for name in modules[:200]]
    seconds = min(_SECONDS + len(odd) * len(modules) * _SECONDS_A_MATCH, _MOST_SECONDS)
    if not finishes(_MATCH, [odd, modules], seconds):
        said = "names modules by a regular expression that is invalid or takes too long"
        raise FinbenchError(f"{path} {said}.", _CORRECT)


class Exceeded(FinbenchError):
    """Something of a stranger's took too long, or too much memory."""


def finishes(code: str, payload: Any, seconds: float, memory: int = 4 * 2**30, imports: str = "") -> bool:
    """Whether Python code that reads JSON from stdin ends well in a process of its own, within these bounds.

    ``seconds`` are of the processor, from after ``imports`` on, so that a busy machine refuses nothing that an idle one
    takes. The process is isolated (no user site, no environment variables of Python) and has no more than ``memory``
    bytes, where the system can bound them.
    """
    bounded = (
        f"{imports}\nimport resource, signal\n"
        f"try:\n resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\nexcept (ValueError, OSError):\n pass\n"
        # what SIGPROF does by itself: the process ends, also in the middle of C code
        f"signal.setitimer(signal.ITIMER_PROF, {seconds})\n{code}"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", bounded],
            input=json.dumps(payload),
            capture_output=True,
            text=True,
            timeout=_STALLED,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@contextlib.contextmanager
def bounded(what: str, seconds: float, hint: str) -> Iterator[None]:
    """Stop the block, by Exceeded, after ``seconds`` of the processor or when it has taken a GB of memory more.

    Works between two steps of Python, in the main thread; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    start, before = time.thread_time(), resident()  # a machine that is busy, or was asleep, stops nothing

    def look(*_: object) -> None:
        if time.thread_time() - start > seconds:
            raise Exceeded(f"{what} was stopped after {seconds:g} s.", hint)
        if resident() - before > 2**30:
            raise Exceeded(f"{what} was stopped: it took more than 1 GB of memory.", hint)

    earlier = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
