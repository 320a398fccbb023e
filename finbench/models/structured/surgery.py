"""Replacing the linear layers of a model in place, or of its configuration alone, to count what would be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from finbench.core.errors import FinbenchError, near_misses
from finbench.methods.quantise import as_stored
from finbench.models.modelfiles import empty_model
from finbench.models.structured import inits, modules
from finbench.models.structured.structures import Factored, Structure, break_even, entries

_BLOCK = re.compile(r"\.\d+\.")  # in the name of every layer of a block, and of no other
_CALIBRATION = "Give some batches of token ids: calibration=[...]"


@dataclass(frozen=True)
class Surgery:
    """What was replaced. ``kept`` are layers that were meant but would not have become smaller; ``before`` and
    ``after`` count all parameters of the model, tied ones once."""

    layers: tuple[Factored, ...]
    kept: tuple[str, ...]
    before: int
    after: int
    warnings: tuple[str, ...] = ()

    @property
    def rank(self) -> int | None:
        """The rank, where all layers have one."""
        ranks = {layer.rank for layer in self.layers}
        return ranks.pop() if len(ranks) == 1 else None


def parameters(model: Any) -> int:
    """All parameters of a model, tied ones once. Four-bit weights are packed: count before quantising."""
    return sum(parameter.numel() for parameter in model.parameters())


def restructure(model: Any, structure: Structure, calibration: Iterable[Any] | None = None) -> Surgery:
    """Replace the layers of ``model`` that ``structure`` means, in place; return what was done.

    ``calibration``: batches for ``init: activation`` (see ``inits.grams``). New parameters have the dtype and device of
    the old, and are trainable. Raises FinbenchError for layers that match nothing, ranks that do not fit, a
    compression that cannot be reached, and a model that has structure already.
    """
    before = parameters(model)
    if structure.kind == "dense":
        return Surgery((), (), before, before)
    if modules.layers(model):
        raise FinbenchError("The model has low-rank structure already.", "Start from the dense one.")
    chosen, kept, warnings = plan(model, structure)
    grams: Mapping[str, torch.Tensor] = {}
    if structure.init == "activation":
        if calibration is None:
            raise FinbenchError("An activation-aware start needs calibration batches.", _CALIBRATION)
        grams = inits.grams(model, [layer.name for layer in chosen], calibration)
        if not grams:
            raise FinbenchError("The calibration has no batch.", _CALIBRATION)
    made = []
    for layer in chosen:
        old = model.get_submodule(layer.name)
        module = replace(model, layer, structure)
        # GPT-2 starts the layers that add to the residual stream smaller, by the root of their number
        smaller = model.config.model_type == "gpt2" and layer.name.endswith(".c_proj")
        residual = 1 / math.sqrt(2 * model.config.n_layer) if smaller else 1.0
        if old.weight.device.type != "meta":
            layer = inits.begin(module, old, layer, structure, grams.get(layer.name), residual)
        module.record = layer
        made.append(layer)
    return Surgery(tuple(made), kept, before, parameters(model), warnings)


def planned(config: Any, structure: Structure) -> Surgery:
    """What ``restructure`` would do to a model of transformers' ``config``: counts alone, no weights are made."""
    if structure.init == "activation":  # the same counts
        structure = structure.model_copy(update={"init": "svd"})
    return restructure(empty_model(config), structure)


def replace(model: Any, layer: Factored, structure: Structure) -> modules.LowRankLinear:
    """Put an empty module in the place of one dense layer; return it."""
    old = model.get_submodule(layer.name)
    module = modules.MODULES[structure.kind](layer, old.weight.device, old.weight.dtype)
    module.decay = structure.frobenius_decay
    module.train(old.training)
    model.set_submodule(layer.name, module)
    return module


def linears(model: Any) -> dict[str, Any]:
    """The linear layers of a model's blocks by name: every nn.Linear and Conv1D but embeddings and head."""
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D)) and _BLOCK.search(f".{name}.")
    }


def plan(model: Any, structure: Structure) -> tuple[list[Factored], tuple[str, ...], tuple[str, ...]]:
    """(layers to replace, names of those left dense because they would not become smaller, warnings)."""
    meant = _matched(model, structure)
    shapes = {name: shape(module) for name, module in meant.items()}
    sizes = {name: (found["inputs"], found["outputs"]) for name, found in shapes.items()}
    rank = _rank(model, structure, sizes)
    most = {name: break_even(*size, structure.sparsity or 0.0) for name, size in sizes.items()}
    large = [name for name in meant if rank >= most[name]]
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if not isinstance(structure.rank, int):
        kept = tuple(large)
    elif large:
        least = min(large, key=lambda name: most[name])
        warnings = (
            f"Rank {rank} makes {len(large)} of {len(meant)} layers no smaller: {least} breaks even at rank "
            f"{most[least]:.0f}.",
        )
    if len(kept) == len(meant):
        raise FinbenchError(
            f"Rank {rank} makes none of the {len(meant)} layers smaller: they break even at rank "
            f"{max(most.values()):.0f} or below.",
            "Ask for a smaller rank or share.",
        )
    scale = structure.alpha / rank if structure.alpha else 1.0
    made = [
        Factored(name=name, rank=rank, entries=entries(*sizes[name], structure.sparsity), scale=scale, **found)
        for name, found in shapes.items()
        if name not in kept
    ]
    return made, kept, warnings


def _matched(model: Any, structure: Structure) -> dict[str, Any]:
    known = linears(model)
    if not structure.layers:
        if not known:
            raise FinbenchError(
                f"{type(model).__name__} has no linear layers in blocks.",
                "Use a base of GPT-2's or Llama's shape: finbench bases",
            )
        return known
    endings = list(dict.fromkeys(name.rpartition(".")[2] for name in known))
    hint = f"Layers of this model: {', '.join(endings)}."
    found: set[str] = set()
    for wanted in structure.layers:
        own = {name for name in known if name == wanted or name.endswith("." + wanted)}
        if not own:
            try:
                own = {name for name in known if re.fullmatch(wanted, name)}
            except re.error as fault:
                raise FinbenchError(
                    f"layers: {wanted!r} is not a regular expression: {fault}.",
                    "Write the ends of layer names: --set structure.layers=[q_proj,v_proj]",
                ) from fault
        others = [name for name, _ in model.named_modules() if name == wanted or name.endswith("." + wanted)]
        if not own and others:
            said = f"layers: {others[0]} is no linear layer of a block; embeddings, head and norms stay as they are."
            raise FinbenchError(said, hint)
        if not own:
            close = near_misses(wanted, {*endings, *known})
            meant = f" Did you mean {' or '.join(close)}?" if close else ""
            raise FinbenchError(f"layers: {wanted!r} matches nothing.{meant}", hint)
        found |= own
    return {name: module for name, module in known.items() if name in found}


def shape(module: Any) -> dict[str, Any]:
    """What a dense layer is, as ``Factored`` states it: ``form``, ``inputs``, ``outputs``, ``bias``."""
    outputs, inputs = as_stored(module, module.weight).shape
    form = "Linear" if type(module) is torch.nn.Linear else "Conv1D"
    return {"form": form, "inputs": inputs, "outputs": outputs, "bias": getattr(module, "bias", None) is not None}


def _rank(model: Any, structure: Structure, sizes: Mapping[str, tuple[int, int]]) -> int:
    if isinstance(structure.rank, int):
        over = [name for name, size in sizes.items() if structure.rank > min(size)]
        if over:
            narrow = min(over, key=lambda name: min(sizes[name]))
            inputs, outputs = sizes[narrow]
            raise FinbenchError(
                f"Rank {structure.rank} is above the smaller side of {len(over)} layers, such as {narrow} "
                f"({outputs} x {inputs}).",
                f"Use rank {min(inputs, outputs)} or less, a share of the width (rank: 0.25), or name other layers.",
            )
        return structure.rank
    if structure.rank is not None:
        return max(1, round(structure.rank * int(model.config.get_text_config().hidden_size)))
    assert structure.compression is not None
    whole = parameters(model)
    fixed = whole - sum(inputs * outputs for inputs, outputs in sizes.values())
    room = whole / structure.compression

    def total(rank: int) -> int:
        """Parameters at a rank; a layer that would not become smaller stays as it is."""
        return fixed + sum(
            min(inputs * outputs, rank * (inputs + outputs) + entries(inputs, outputs, structure.sparsity))
            for inputs, outputs in sizes.values()
        )

    if total(1) > room:
        raise FinbenchError(
            f"A compression of {structure.compression:g} cannot be reached: at rank 1 it is {whole / total(1):.2f}, "
            f"for {fixed:,} of {whole:,} parameters are not in these layers.",
            "Ask for less, or name more layers.",
        )
    low, high = 1, math.ceil(max(break_even(*size) for size in sizes.values()))
    while low < high:  # total never falls with the rank
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total(middle) <= room else (low, middle - 1)
    return low
