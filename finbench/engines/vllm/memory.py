"""What vLLM needs of a GPU, in bytes from configurations: does the base fit, and how many adapters beside it?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finbench.engines.servable import served_rank, targets
from finbench.methods import Layer
from finbench.models import adapters, bases

SHARE = 0.92  # of a card's memory: vLLM's own default
AUTO_FIT = -1  # max_model_len of vLLM: as much of the base's context as there is memory for
GIB = 2**30
MOST_SLOTS = 32  # adapters in one batch on a GPU; more make its kernels slow, and the others wait for a slot
_WORKING = 1.5 * GIB  # activations, CUDA graphs and CUDA itself, which vLLM measures only when it runs
_FOR_ADAPTERS = 0.5  # of what is then left; the rest holds keys and values
_PACKED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # one layer in vLLM
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Need:
    """Bytes that one GPU must hold of a base and its adapters: the weights, and each adapter that a batch may name."""

    weights: int
    slot: int = 0

    def slots(self, budget: float, wanted: int) -> int:
        """How many of the ``wanted`` adapters a batch may name in ``budget`` bytes of a card; at least one."""
        left = _FOR_ADAPTERS * (budget - self.weights - _WORKING)
        return max(1, min(wanted, MOST_SLOTS, int(left // self.slot) if self.slot else wanted))

    def fits(self, budget: float) -> bool:
        """Whether base and one adapter can be held at all; there may still be no room to compute."""
        return self.weights + self.slot <= budget


def need(base: bases.Base, folders: Sequence[Path], dtype: str, tensor_parallel: int = 1) -> Need:
    """What ``base`` in ``dtype`` with the adapters of ``folders`` takes of each of ``tensor_parallel`` GPUs."""
    outline, width, slot = bases.skeleton(base), _WIDTHS[dtype], 0
    if folders:
        endings = {ending for folder in folders for ending in targets(folder)}
        slot = slot_bytes(bases.layers_of(outline), endings, largest_rank(folders), width, tensor_parallel)
    parameters = sum(tensor.numel() for tensor in outline.parameters())  # tied ones once
    return Need(parameters * width // tensor_parallel, slot)


def largest_rank(folders: Iterable[Path]) -> int:
    """The rank for which vLLM makes room in every slot: the largest that is served, rounded up to what it takes."""
    return max(served_rank(adapters.stated_config(folder)) or 1 for folder in folders)


def slot_bytes(
    layers: Iterable[Layer], endings: Collection[str], rank: int, width: int, tensor_parallel: int = 1
) -> int:
    """Bytes of one slot: A (rank x inputs) and B (outputs x rank) of each layer that ends in one of ``endings``.

    Layers that vLLM packs into one (query, key and value; gate and up) have room for an update if one of them has an
    adapter. Tensor parallelism divides one of the two matrices; here the smaller one, so this is an upper bound.
    """
    wide = {*endings, *(name for group in _PACKED if set(group) & set(endings) for name in group)}
    total = 0
    for layer in layers:
        if layer.ending in wide:
            small, large = sorted((layer.inputs, layer.outputs))
            total += rank * (large + small // tensor_parallel)
    return total * width


def card() -> tuple[str, int]:
    """Name and bytes of the first GPU that this process sees."""
    import torch

    about = torch.cuda.get_device_properties(0)
    return about.name, int(about.total_memory)
