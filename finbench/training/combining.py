"""``finbench merge A B``: several LoRAs of one base become one, from their files alone: no base is loaded.

An update is what a LoRA adds to a weight of its base: ``s B A``, shape (outputs, inputs). ``cat`` is the weighted sum
of updates and ``linear`` their weighted mean, both exact: the factors stand side by side. TIES (arXiv:2306.01708)
keeps the largest numbers of each update and takes the mean of those that have the sign of the weighted majority; DARE
(arXiv:2311.03099) drops numbers at random and scales the others up. What these make of updates has no low rank, so it
is cut to ``rank`` by a singular value decomposition, and how much that lost is recorded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from finbench.cards import combined_card
from finbench.core import environment
from finbench.core.combined import Combined, CombinedPart, How
from finbench.core.console import progress, say
from finbench.core.errors import FinbenchError, counted, shortened
from finbench.core.files import folder_atomic, write_atomic
from finbench.data import contamination
from finbench.engines import servable
from finbench.models import adapters

Tensor = torch.Tensor
_SPARSE = ("ties", "dare", "dare_ties")
_EXACT = 1024  # the smaller side up to which a whole decomposition is affordable: seconds a weight
_NOTHING = 1e-5  # of the parts' own updates: what is left of them where they cancel out is rounding
_UNSEEN = 1e-12  # norm of all updates that no base's weights would show, in 32 bits
_SECOND = re.compile(r"base_model\.model\..+\.lora_(?:B\.weight|embedding_B)")
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_(?:A\.weight|embedding_A)")  # as peft names it in its files


class _Module(NamedTuple):
    """The factors of one weight's update: A (rank, inputs), B (outputs, rank), the scale in A."""

    a: Tensor
    b: Tensor


def combine(
    parts: Sequence[str],
    out: Path,
    *,
    how: str = "cat",
    weights: Sequence[float] | None = None,
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
) -> Combined:
    """Write the adapter that the adapters ``parts`` are together into the new folder ``out``; return its record.

    ``weights``: one for each part, 1 by default. ``density``: the share of numbers that TIES and DARE keep, 0.5 by
    default. ``rank`` of what is written: by default the sum of the parts' ranks, and at most what holds all of it.
    ``seed`` of DARE's draws.

    Raises FinbenchError for adapters of other kinds than LoRA, of other bases or bits, for options that do not fit.
    """
    if isinstance(parts, str) or len(parts) < 2:
        raise FinbenchError(
            "Several adapters become one: name at least two, as in combine(['runs/a', 'runs/b'], out).",
            "To merge one into its base: finbench.merge(adapter, out)",
        )
    if out.exists():
        raise FinbenchError(f"{out} exists already.", "Choose a new folder with --out.")
    weights, density = _checked(len(parts), how, weights, density, rank, seed)
    found = [adapters.find(part) for part in parts]
    _fit(found)
    modules = [_modules(one) for one in found]
    _check_sizes(found, modules)
    names = sorted({name for one in modules for name in one})
    whole = sum(max(len(module.a) for module in one.values()) for one in modules)
    most = max(min(len(m.b), m.a.shape[1]) for one in modules for m in one.values()) if how in _SPARSE else whole
    kept = min(rank or whole, most)
    if rank and rank > kept:
        say(f"Rank {kept} holds all of it: the rest of {rank} would be zeros.")
    used = [weight / sum(weights) for weight in weights] if how == "linear" else weights
    generator = torch.Generator().manual_seed(seed)
    made, lost, alone, together = {}, 0.0, 0.0, 0.0
    with progress() as shown:
        step = shown.add_task("Combining", total=len(names))
        for name in names:
            own = [(one[name], weight) for one, weight in zip(modules, used, strict=True) if name in one]
            made[name], error = _update(own, how, density, kept, generator)
            lost, together = max(lost, error), together + _norm(made[name])
            alone += sum(abs(weight) * _norm(module) for module, weight in own)
            shown.advance(step)
    if together <= max(_NOTHING * alone, _UNSEEN):
        raise FinbenchError(
            "Together these adapters change nothing: their updates cancel out, or the weights are too small.",
            "Choose other --weights, or other adapters.",
        )
    with folder_atomic(out) as staging:
        _write(made, found[0].config, kept, staging)
        record = Combined(
            how=how,  # type: ignore[arg-type]
            parts=[_part(one, own, weight) for one, own, weight in zip(found, modules, weights, strict=True)],
            density=density if how in _SPARSE else None,
            seed=seed if "dare" in how else None,
            rank=kept,
            lost=lost,
            base=next((one.base for one in found if one.base), None),
            bits=found[0].bits,
            chat=found[0].chat,
            tasks=list(dict.fromkeys(task for one in found for task in one.tasks)),
            contamination=contamination.together([one.contamination for one in found]),
            identity=adapters.identity(staging),
            provenance=environment.provenance(),
        )
        write_atomic(staging / "README.md", combined_card(record, out.name))
        write_atomic(staging / "combined.json", record.to_json())
    say(f"Wrote {out}.")
    return record


def _checked(
    count: int, how: str, weights: Sequence[float] | None, density: float | None, rank: int | None, seed: int
) -> tuple[list[float], float]:
    """(weights, density) as they will be used."""
    if how not in get_args(How):
        raise FinbenchError(f"--how is {', '.join(get_args(How))}, not {how!r}.", "The weighted sum: --how cat")
    stated = [_float(weight) for weight in weights] if weights is not None else [1.0] * count
    single = torch.tensor(stated, dtype=torch.float32)  # in which updates are computed: not 1e39, nor 1e-60
    if len(stated) != count or not (single.isfinite() & (single != 0)).all():
        given = ",".join(f"{weight:g}" for weight in stated)
        raise FinbenchError(
            f"--weights {given}: {count} adapters have {count} weights, numbers other than 0 (in 32 bits).",
            "Like this: --weights " + ",".join(["0.5"] * count),
        )
    if how == "linear" and abs(sum(stated)) < 1e-6 * sum(map(abs, stated)):
        raise FinbenchError("A weighted mean has weights whose sum is not 0.", "Take the weighted sum: --how cat")
    if density is not None and how not in _SPARSE:
        raise FinbenchError(f"--how {how} keeps every number: it takes no --density.", "Leave --density out.")
    if density is not None and not 0 < density <= 1:
        raise FinbenchError(f"--density is a share above 0, at most 1, not {density:g}.", "--density 0.5")
    if rank is not None and rank < 1:
        raise FinbenchError(f"--rank is at least 1, not {rank}.", "Leave it out: the parts' ranks are added.")
    if not 0 <= seed < 2**32:
        raise FinbenchError(f"--seed is a whole number from 0 to {2**32 - 1}, not {shortened(str(seed))}.", "--seed 0")
    return stated, density or 0.5


def _fit(found: Sequence[adapters.AdapterFolder]) -> None:
    """Raise FinbenchError where the adapters are not LoRAs of one base, in the same bits and with the same prompts."""
    for one in found:
        kind = str(one.config.get("peft_type") or "LORA").upper()
        beyond = servable.beyond_lora(one.config) if kind == "LORA" else [f"it is of type {kind}"]
        if one.kind == "model" or beyond:
            why = beyond[0] if one.kind != "model" else "it is a whole model"
            raise FinbenchError(
                f"{one.name} is no plain LoRA: {why}.", "Train it with --method lora, or merge each into its base."
            )
    first = found[0]
    for other in found[1:]:
        pairs: dict[str, list[Any]] = {
            "bases": [_base(one) for one in (first, other)],
            "bits": [one.bits for one in (first, other)],
            "prompts": ["chat template" if one.chat else "raw" for one in (first, other)],
        }
        for what, (one, another) in pairs.items():
            if one != another:
                raise FinbenchError(
                    f"{first.name} and {other.name} were trained on different {what}: {one} and {another}.",
                    "Train one of them again as the other was.",
                )


def _check_sizes(found: Sequence[adapters.AdapterFolder], modules: Sequence[dict[str, _Module]]) -> None:
    """Raise FinbenchError where updates of one weight differ in size: bases of one name need not be one."""
    known: dict[str, tuple[str, str]] = {}
    for one, own in zip(found, modules, strict=True):
        for name, module in own.items():
            size = f"{module.b.shape[0]} x {module.a.shape[1]}"
            before, other = known.setdefault(name, (size, one.name))
            if size != before:
                weight = name.removeprefix("base_model.model.").partition(".lora_")[0]
                raise FinbenchError(
                    f"{other} and {one.name} were trained on different bases: {weight} is {before} and {size}.",
                    "Train one of them again on the other's base.",
                )


def _float(weight: float) -> float:
    try:
        return float(weight)
    except OverflowError:  # of a whole number
        return math.inf


def _base(one: adapters.AdapterFolder) -> str:
    """What tells its base apart: the fingerprint where a record has it."""
    stated = str(one.config.get("base_model_name_or_path") or "an unnamed base")
    return f"{one.base.alias} ({one.base.fingerprint[:12]})" if one.base else stated


def _modules(one: adapters.AdapterFolder) -> dict[str, _Module]:
    """The factors of every module in float32, by peft's names of the tensors with {} for A or B."""
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    tensors = load_file(one.folder / adapters.WEIGHTS)
    alphas = one.config.get("alpha_pattern") or {}
    found = {}
    for match in list(filter(None, map(_FACTOR.fullmatch, tensors))):
        name, module = match[0], match[1]
        other = name.replace(".lora_A", ".lora_B").replace(".lora_embedding_A", ".lora_embedding_B")
        if other not in tensors:
            raise FinbenchError(f"{one.name} has {name} without {other}.", "Fetch it again, or train it again.")
        a, b = tensors[name].float(), tensors.pop(other).float()
        if a.dim() != 2 or b.dim() != 2 or len(a) != b.shape[1]:
            sizes = " and ".join(" x ".join(map(str, factor.shape)) for factor in (b, a))
            raise FinbenchError(
                f"{one.name}: the factors of {module} are {sizes}; those of a matrix are n x rank and rank x m.",
                "Merge it into its base alone, or fetch it again.",
            )
        alpha = alphas.get(get_pattern_key(alphas, module), one.config.get("lora_alpha", 8))
        scale = alpha / (math.sqrt(len(a)) if one.config.get("use_rslora") else len(a))
        place = name.replace(".lora_A", ".lora_{}").replace(".lora_embedding_A", ".lora_embedding_{}")
        found[place] = _Module(a * scale, b)
    if odd := sorted(name for name in tensors if not _FACTOR.fullmatch(name)):
        count = counted(len(odd), "tensor")
        if alone := [name for name in odd if _SECOND.fullmatch(name)]:
            raise FinbenchError(
                f"{one.name}: {alone[0]} has no other factor beside it.", "Fetch the adapter again, or train it again."
            )
        if ".lora_" in odd[0]:  # nothing would load them, nor would they meet their like of another adapter
            raise FinbenchError(
                f"{one.name} has factors under names that peft does not write ({count}: {odd[0]}).",
                "Have peft write it: PeftModel.save_pretrained(folder)",
            )
        raise FinbenchError(
            f"{one.name} has tensors that are no factors of an update ({count}: {odd[0]}).",
            "Only plain LoRAs are combined: train it with --method lora.",
        )
    return found


def _update(
    own: Sequence[tuple[_Module, float]], how: str, density: float, rank: int, generator: torch.Generator
) -> tuple[_Module, float]:
    """(factors of what the updates of one weight make together, relative error of cutting it to ``rank``)."""
    if how in _SPARSE:
        updates = [module.b @ module.a for module, _ in own]
        weights = torch.tensor([weight for _, weight in own]).view(-1, 1, 1)
        if how == "ties":
            thinned = [_largest(update, density) for update in updates]
        else:
            thinned = [
                update * torch.bernoulli(torch.full_like(update, density), generator=generator) / density
                for update in updates
            ]
        stacked = _bounded(torch.stack(thinned) * weights)
        return _cut(stacked.sum(0) if how == "dare" else _elected(stacked), rank)
    a, b = torch.cat([module.a * weight for module, weight in own]), torch.cat([module.b for module, _ in own], 1)
    joined = _Module(_bounded(a), _bounded(b))
    if len(joined.a) <= rank:
        return joined, 0.0
    (out, right), (inner, left) = torch.linalg.qr(joined.b), torch.linalg.qr(joined.a.T)  # of the ranks alone
    cut, error = _cut(right @ left.T, rank)
    return _Module(cut.a @ inner.T, out @ cut.b), error


def _bounded(numbers: Tensor) -> Tensor:
    """The numbers; FinbenchError where they are infinite, or so large that their squares are."""
    if not math.isfinite(float(numbers.norm())):
        raise FinbenchError(
            "The updates, times their weights, are too large for numbers of 32 bits.", "Choose smaller --weights."
        )
    return numbers


def _norm(module: _Module) -> float:
    """The norm of its update, from products of the ranks alone."""
    a, b = module.a.double(), module.b.double()
    return math.sqrt(max(0.0, float(((a @ a.T) * (b.T @ b)).sum())))


def _largest(update: Tensor, density: float) -> Tensor:
    """The update with all but the share ``density`` of its largest numbers set to 0."""
    count = max(1, int(density * update.numel()))
    places = update.abs().flatten().topk(count).indices
    return torch.zeros_like(update).flatten().index_copy(0, places, update.flatten()[places]).view_as(update)


def _elected(stacked: Tensor) -> Tensor:
    """The mean of the weighted updates (parts, outputs, inputs) that have the sign of their sum, number by number."""
    agree = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def _cut(update: Tensor, rank: int) -> tuple[_Module, float]:
    if min(update.shape) <= _EXACT:
        u, s, v = torch.linalg.svd(update, full_matrices=False)
    else:
        torch.manual_seed(0)  # of the random projection
        u, s, v = torch.svd_lowrank(update, q=min(rank + 32, *update.shape), niter=4)
        v = v.T
    root = s[:rank].sqrt()
    kept = _Module(root[:, None] * v[:rank], u[:, :rank] * root)
    whole = float(update.norm())
    return kept, float((update - kept.b @ kept.a).norm()) / whole if whole else 0.0


def _write(made: dict[str, _Module], like: dict[str, Any], rank: int, folder: Path) -> None:
    """The files of a LoRA of one rank for all modules, scale 1; smaller factors get zeros."""
    from safetensors.torch import save_file

    tensors = {}
    for name, module in made.items():
        more = rank - len(module.a)
        tensors[name.format("A")] = torch.nn.functional.pad(module.a, (0, 0, 0, more)).contiguous()
        tensors[name.format("B")] = torch.nn.functional.pad(module.b, (0, more)).contiguous()
    save_file(tensors, folder / adapters.WEIGHTS, metadata={"format": "pt"})
    modules = sorted(name.removeprefix("base_model.model.").partition(".lora_")[0] for name in made)
    stated = like.get("target_modules")
    ends = {name.rpartition(".")[2] for name in modules}
    less = like.get("layers_to_transform") or like.get("exclude_modules")  # so endings alone would name more
    same = isinstance(stated, list) and set(stated) == ends and not less
    config = like | {
        "r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": sorted(ends) if same else modules, "exclude_modules": None, "lora_dropout": 0.0,
        "layers_to_transform": None, "layers_pattern": None, "init_lora_weights": True, "inference_mode": True,
    }  # fmt: skip
    write_atomic(folder / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def _part(one: adapters.AdapterFolder, own: dict[str, _Module], weight: float) -> CombinedPart:
    return CombinedPart(
        name=one.name,
        identity=one.identity,
        source=one.source,
        method=one.method,
        rank=max(len(module.a) for module in own.values()),
        weight=weight,
    )
