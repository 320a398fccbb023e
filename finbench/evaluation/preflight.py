"""Before an engine starts: which one, with which arguments, and can it serve every subject? All faults at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from finbench.core import environment, paths, tracking
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Bits, DType, Scorecard
from finbench.engines import servable
from finbench.engines.vllm import installation, memory
from finbench.evaluation.subjects import Candidate, by_engine
from finbench.models import adapters, bases, is_structured
from finbench.training import merge

NO_SHARE = "Leave --gpu-memory out; on a CPU, VLLM_CPU_KVCACHE_SPACE=8 gives vLLM 8 GiB of keys and values."
_FEWER: tuple[Bits, ...] = (8, 4)
_CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # sizes that vLLM's attention on a CPU takes


def choose(engine: str, found: list[Candidate], given: Mapping[str, Any]) -> tuple[str, list[Candidate]]:
    """(engine, subjects): ``auto`` becomes one, which is told with the reason; what vLLM needs merged is merged.

    Raises FinbenchError with every reason why the engine ``vllm`` cannot serve the subjects.
    """
    import torch

    if engine in ("auto", "hf", "vllm"):
        environment.check_gpu()
    if "gpu_memory" in given and not torch.cuda.is_available():
        raise FinbenchError("There is no GPU of which a share could be taken.", NO_SHARE)
    if engine == "auto":
        engine, reason = _automatic(found, given)
        say(f"Engine {engine}: {reason}.")
    if engine == "hf":
        _check_hf(found, given)
    if engine != "vllm":
        return engine, found
    faults = missing()
    wanted, there = given.get("tensor_parallel", 1) * given.get("data_parallel", 1), torch.cuda.device_count()
    if torch.cuda.is_available() and wanted > there:
        faults.append(f"tensor_parallel x data_parallel asks for {wanted} GPUs, and there are {there}")
    faults += [fault for one in found for fault in against(one, given.get("dtype", "auto"))]
    if faults := faults or on_gpu(found, **_placed(given)):
        raise FinbenchError(
            "vLLM cannot serve this:\n" + "\n".join(f"- {fault}" for fault in dict.fromkeys(faults)),
            "finbench doctor says what to install; everything else is served by --engine hf",
        )
    return engine, [_ready(one, given) for one in found]


def _check_hf(found: Sequence[Candidate], given: Mapping[str, Any]) -> None:
    """Refuse what transformers cannot load, on this machine or into its GPU, or compute there."""
    import torch

    for group in by_engine(list(found)):
        bases.check_loadable(group[0].loaded, group[0].subject.bits)
    if not torch.cuda.is_available():
        return
    bases.check_dtype(given.get("dtype", "auto"), "--arg dtype=float16, or leave it out")
    name = bases.dtype_name(given.get("dtype", "auto"))
    (card, total), share = memory.card(), given.get("gpu_memory", 1.0)
    for group in by_engine(list(found)):
        base, bits = group[0].loaded, group[0].subject.bits
        held = memory.holding(base, [], name)
        if (taken := held.in_bits(bits)) <= share * total:
            continue
        fewer = [one for one in _FEWER if one < bits and held.in_bits(one) <= 0.9 * share * total][:1]
        mends = [f"--bits {one}, which holds it in {held.in_bits(one) / memory.GIB:.1f} GiB" for one in fewer]
        mends += ["a larger --gpu-memory"] if taken <= 0.9 * total else []
        mends.append(f"a GPU of {math.ceil(1.1 * taken / share / memory.GIB)} GiB, or a smaller base: finbench bases")
        raise FinbenchError(
            f"{base.id.alias} does not fit into the GPU: in {name if bits == 16 else f'{bits} bits'} it takes "
            f"{taken / memory.GIB:.1f} GiB, and of {card} {share * total / memory.GIB:.1f} may be taken.",
            ", or ".join(mends),
        )


def _automatic(found: Sequence[Candidate], given: Mapping[str, Any]) -> tuple[str, str]:
    import torch

    if not installation.installed():
        return "hf", "vLLM is not installed"
    if not torch.cuda.is_available():
        return "hf", "without a GPU its token trees have less to do than vLLM (docs/vllm.md)"
    if "merge" in given:
        return "hf", "merge=no is an argument of it"
    faults = [*missing(), *(fault for one in found for fault in against(one, given.get("dtype", "auto")))]
    if faults := faults or on_gpu(found, **_placed(given)):
        return "hf", f"vLLM cannot serve this ({faults[0]})"
    if any(route(one).how == "merged" for one in found):
        return "hf", "vLLM would need merged models"
    if any(one.subject.bits != 16 for one in found):
        return "hf", "it quantises as the training did; --engine vllm, which quantises by itself, was not tried on GPUs"
    return "vllm", "there is a GPU, and every adapter can be served beside its base"


def missing() -> list[str]:
    """What of the installation keeps vLLM from running."""
    if not installation.installed():
        return [f"vLLM is not installed: {installation.how()}"]
    if wrong := installation.broken():
        return [f"{' and '.join(wrong)} were built for CUDA and break vLLM's import: finbench doctor --fix"]
    return [fault] if (fault := installation.mismatched()) else []


def _placed(given: Mapping[str, Any]) -> dict[str, Any]:
    share = given.get("gpu_memory", memory.SHARE)
    return {"dtype": given.get("dtype", "auto"), "tensor_parallel": given.get("tensor_parallel", 1), "share": share}


def on_gpu(
    found: Sequence[Candidate], dtype: DType, tensor_parallel: int, share: float, serving: bool = False
) -> list[str]:
    """Why this machine's GPUs cannot hold the subjects in vLLM, or compute in ``dtype``; nothing without a GPU.

    ``share`` of each GPU may be taken. ``serving``: what to type is an option of ``finbench serve``.
    """
    import torch

    if not torch.cuda.is_available():
        return []

    def typed(name: str, value: object) -> str:
        return f"--{name.replace('_', '-')} {value}" if serving else f"--arg {name}={value}"

    faults, name = [], bases.dtype_name(dtype)
    card, total = memory.card()
    capability = torch.cuda.get_device_capability(0)
    if name == "bfloat16" and torch.version.hip is None and capability < (8, 0):
        stated = ".".join(map(str, capability))
        faults.append(f"{card} (compute capability {stated}) does not compute in bfloat16: {typed('dtype', 'float16')}")
    for group in by_engine(list(found)):
        folders = [one.adapter for one in group if one.beside and one.adapter and route(one).how == "unmerged"]
        if name == "float32" and folders:
            faults.append(
                "on a GPU vLLM's LoRA layers compute in bfloat16 and float16, not in float32: "
                + typed("dtype", "bfloat16" if capability >= (8, 0) else "float16")
            )
        base = group[0].loaded
        held, there = memory.holding(base, folders, name), torch.cuda.device_count()
        bits = group[0].subject.bits
        own, budget = held.on(tensor_parallel, bits), share * total
        if own.least > budget:
            wider = [count for count in (2, 4, 8) if tensor_parallel < count <= there]
            mends = [typed("tensor_parallel", count) for count in wider if held.on(count, bits).comfortable <= budget][
                :1
            ]
            if not mends and share < 0.95 and own.comfortable <= 0.95 * total:
                mends = ["--gpu-memory 0.95"]
            if not serving and bits == 16 and held.in_bits(4) <= 0.8 * budget:
                mends.append(f"--engine hf --bits 4, which holds it in {held.in_bits(4) / memory.GIB:.1f} GiB")
            mends.append(f"a GPU of {math.ceil(own.comfortable / share / memory.GIB)} GiB")
            faults.append(
                f"{base.id.alias}{' with an adapter' if folders else ''} takes {own.least / memory.GIB:.1f} GiB of "
                f"each GPU in {name}, and of {card} {budget / memory.GIB:.1f} of {total / memory.GIB:.1f} GiB may be "
                f"taken: {', or '.join(mends)}"
            )
    return faults


def against(one: Candidate, dtype: DType = "auto") -> list[str]:
    """Every reason why vLLM, computing in ``dtype``, can serve a subject neither unmerged nor merged."""
    import torch

    assert one.base is not None
    found = []
    if is_structured(one.base.folder):
        found.append(
            f"{one.base.id.alias} is stored as low-rank factors, which finbench alone computes; vLLM serves it dense: "
            f"finbench merge {one.base.folder} --out dense"
        )
    how = route(one)
    found += [f"{one.subject.name}: {fault}" for fault in _against_format(one, dtype, how.how == "merged")]
    if how.how == "no":
        found.append(f"{one.subject.name}: " + ", ".join(how.reasons))
    if how.how == "unmerged" and one.adapter is not None and one.subject.kind == "peft":
        odd = servable.unmatched(one.adapter, bases.linear_layers(one.base))
        if odd:
            found.append(f"{one.subject.name}: {len(odd)} tensors match no layer of its base, such as {odd[0]}")
    size = bases.head_size(one.base)
    if size is not None and size not in _CPU_HEADS and not torch.cuda.is_available():
        known = ", ".join(map(str, _CPU_HEADS))
        found.append(f"{one.base.id.alias} has attention heads of size {size}; on a CPU vLLM takes {known}")
    return found


def _against_format(one: Candidate, dtype: DType, merged: bool) -> list[str]:
    """Why vLLM cannot hold the weights of a subject in their format."""
    quantised = None if one.subject.kind == "model" or one.base is None else one.base.id.quantised
    if quantised and quantised.method == "gguf":
        quantised = None  # it is numbers of a dtype by now
    if quantised and one.subject.bits != 16:
        return [f"its base is quantised by {quantised.described} already: leave --bits out"]
    found, instead = [], "--bits 16 scores it on the 16-bit base"
    if one.subject.bits == 8:
        found.append(f"vLLM's loader for bitsandbytes makes NF4 alone, not int8; {instead}")
    if one.subject.bits == 4:
        if (stated := bases.dtype_name(dtype)) != "bfloat16":
            found.append(f"NF4 layers compute in bfloat16 in vLLM, not in {stated}: --arg dtype=bfloat16")
        if merged:
            found.append(f"it would have to be merged, and NF4 of the sum would round the update away; {instead}")
    elif merged and quantised:
        found.append(f"it would have to be merged, and its base is {quantised.described}: --engine hf")
    elif quantised and one.beside:
        try:  # the answers that vLLM's are held against are peft's
            bases.check_loadable(one.loaded, 16)
        except FinbenchError as fault:
            found.append(f"vLLM's answers are held against peft's: {fault.message} {fault.hint.partition('; or')[0]}")
    loads = one.subject.bits == 4 or (quantised is not None and quantised.method.startswith("bitsandbytes"))
    if loads and not installation.loads_bitsandbytes():
        found.append(f"vLLM loads {one.subject.stored} by a plugin: pip install --no-deps {installation.BITSANDBYTES}")
    return found


def route(one: Candidate) -> servable.Route:
    """How vLLM can serve a subject, by its files."""
    if one.subject.kind != "peft" or one.adapter is None:
        return servable.Route("unmerged")
    recorded = (one.adapter / "finbench.json").is_file()
    kind = bases.architecture(one.base) if one.base is not None else ""
    return servable.route(adapters.stated_config(one.adapter), recorded, kind)


def _ready(one: Candidate, given: Mapping[str, Any]) -> Candidate:
    """The subject with its merged model, made by ``finbench merge`` and kept in the cache, if it needs one."""
    how = route(one)
    if how.how != "merged":
        return one
    assert one.base is not None
    dtype = bases.dtype_name(given.get("dtype", "auto"))
    # onto the 16-bit base, whatever the adapter was trained on: that is what --bits 16 scores, and all that vLLM runs
    key = digest([one.subject.adapter, one.base.id.fingerprint, dtype, "bf16"])[:32]
    place = paths.cache_dir() / "merged" / key
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if (place / "finbench.json").is_file():
            return replace(one, merged=place)
        say(f"{one.subject.name} is merged for vLLM ({', '.join(how.reasons)}), once ...")
        merge(str(one.adapter), place, base=str(one.base.folder), dtype=dtype, onto="bf16")
    return replace(one, merged=place)


def reported(stated: str | Sequence[str]) -> Callable[[Sequence[Scorecard], Path], None]:
    """What hands cards of a folder to trackers; FinbenchError for one that is not known, or not installed."""
    if not stated:
        return lambda cards, folder: None
    names = tracking.named(stated)
    from finbench.cards import trackers  # takes the libraries' time

    return lambda cards, folder: trackers.report_cards(names, cards, folder)
