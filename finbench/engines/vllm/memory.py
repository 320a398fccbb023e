"""What vLLM needs of a GPU, in bytes from configurations: does the base fit, and how many adapters beside it?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finbench.core.records import Bits
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
HEADS = ("lm_head", "embed_out")  # stay in 16 bits, and without updates in what is served
_NF4 = 0.516  # bytes of a weight with its scales: 4.127 bits
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Need:
    """Bytes that one GPU must hold: its part of the weights, and each adapter that a batch may name."""

    weights: int
    slot: int = 0

    @property
    def least(self) -> int:
        """The base and one adapter; there may still be no room to compute."""
        return self.weights + self.slot

    @property
    def comfortable(self) -> float:
        """With what computing takes, before any keys and values."""
        return self.least + _WORKING

    def slots(self, budget: float, wanted: int) -> int:
        """How many of the ``wanted`` adapters a batch may name in ``budget`` bytes of a card; at least one."""
        left = _FOR_ADAPTERS * (budget - self.weights - _WORKING)
        return max(1, min(wanted, MOST_SLOTS, int(left // self.slot) if self.slot else wanted))


@dataclass(frozen=True)
class Holding:
    """A base, and slots for adapters of a rank in its layers that end in ``endings``; ``width``: bytes of a number."""

    weights: int  # bytes
    parameters: int  # tied ones once
    layers: tuple[Layer, ...]
    width: int
    rank: int = 0
    endings: frozenset[str] = frozenset()

    def on(self, gpus: int, bits: Bits = 16) -> Need:
        """What each of so many GPUs holds with tensor parallelism."""
        slot = slot_bytes(self.layers, self.endings, self.rank, self.width, gpus)
        return Need(int(self.in_bits(bits)) // gpus, slot)

    def in_bits(self, bits: Bits) -> float:
        """Bytes of the base with its linear layers in so many bits."""
        if bits == 16:
            return self.weights
        linear = sum(layer.inputs * layer.outputs for layer in self.layers if layer.ending not in HEADS)
        return (self.parameters - linear) * self.width + linear * (_NF4 if bits == 4 else 1)


def holding(base: bases.Base, folders: Sequence[Path], dtype: str) -> Holding:
    """What ``base`` in ``dtype`` with the adapters of ``folders`` takes, from their configurations."""
    outline = bases.skeleton(base)
    parameters, width = sum(tensor.numel() for tensor in outline.parameters()), _WIDTHS[dtype]
    stored = sum(file.stat().st_size for file in base.folder.glob("*.safetensors"))  # less where it is quantised
    weights = min(parameters * width, stored or parameters * width)
    known = weights, parameters, tuple(bases.layers_of(outline)), width
    if not folders:
        return Holding(*known)
    return Holding(*known, largest_rank(folders), frozenset(ending for one in folders for ending in targets(one)))


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
