"""Facts about machines: what cards hold and reach, and this machine's own processor."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError, unknown

GIB = 2**30
# Seconds of the host for an operation of eager torch, forward or backward: what a small base is bound by on a GPU.
# benchmarks/host_overhead.py: 10.3 us.
HOST = 10e-6
# Share of the speed of one decoder layer that a training with shared starts reaches on a processor: 0.85 to 1.11, with
# and without AMX and bfloat16, of one thread and two (`python benchmarks/plan_cpu.py`).
_CPU_SHARE = 1.0
# SmolLM2-135M's layer
_LAYER = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
_TOKENS = 512

_TRIES, _WARM = 8, 3  # of its passes: some hundredths of a second each
_WATCHED = 1.0  # seconds of them


@dataclass(frozen=True)
class Card:
    """GiB that a program sees, dense bf16 TFLOP/s, GB/s of its memory, and what a card sends to others, GB/s.

    ``reached``: share of the peak, and where from, where it is known of this very card; else ``timing.share`` says it.
    """

    memory: float
    tflops: float
    bandwidth: float
    link: float = 20  # PCIe 4.0 x16; NVLink: four fifths of what one direction has
    context: float = 0.6  # GiB that are gone before the first tensor
    reached: tuple[float, str] | None = None


CARDS = {
    "h100": Card(79.1, 989, 3350, 360),
    "h200": Card(139.8, 989, 4800, 360),
    "h100-pcie": Card(79.1, 756, 2000),
    "a100-80": Card(79.1, 312, 2039, 240),
    "a100-40": Card(39.4, 312, 1555, 240),
    "l40s": Card(44.4, 362, 864),
    "l4": Card(22.0, 121, 300),
    "rtx4090": Card(23.5, 165, 1008),
    "rtx3090": Card(23.5, 71, 936),
    "a6000": Card(47.4, 155, 768),
    "a5000": Card(23.6, 111, 768),
}
# What CUDA calls them, whole: an "L40S" is no L4, and an H100 on PCIe is no SXM.
_NAMES = {
    "nvidiah10080gbhbm3": "h100",
    "nvidiah100sxm580gb": "h100",
    "nvidiah100pcie": "h100-pcie",
    "nvidiah200": "h200",
    "nvidiaa100sxm480gb": "a100-80",
    "nvidiaa10080gbpcie": "a100-80",
    "nvidiaa100sxm440gb": "a100-40",
    "nvidiaa100pcie40gb": "a100-40",
    "nvidial40s": "l40s",
    "nvidial4": "l4",
    "nvidiageforcertx4090": "rtx4090",
    "nvidiageforcertx3090": "rtx3090",
    "nvidiartxa6000": "a6000",
    "nvidiartxa5000": "a5000",
}


def known_as(name: str) -> str | None:
    """The key in ``CARDS`` of a card by the whole name that CUDA gives it; None for one that is not there."""
    return _NAMES.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def here() -> tuple[str, Card]:
    """(``gpu`` or ``cpu``, what trainings have here of memory: the smallest GPU, or the machine's; speeds unknown)."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", Card(_memory(), 0, 0, context=1.2)
    gpus = [  # a step of a grid may have a share of one
        torch.cuda.get_device_properties(number).total_memory * torch.cuda.get_per_process_memory_fraction(number)
        for number in range(torch.cuda.device_count())
    ]
    return "gpu", Card(min(gpus) / GIB, 0, 0)


def this() -> str:
    """The card of this machine as ``card`` knows it, or ``cpu``; FinbenchError for a GPU that is not in the table."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    name = torch.cuda.get_device_name(0)
    known = known_as(name)
    if known is None:
        raise FinbenchError(f"This machine's {name} is not among the cards that can be planned for.",
                            f"Name the one most like it: --gpu {', '.join(CARDS)}")  # fmt: skip
    return known


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def card(name: str, dtype: str = "auto") -> Card:
    """A card by name; ``cpu`` is this machine's processor, whose speed in ``dtype`` is measured in a moment."""
    if name == "cpu":
        from finbench.models import bases

        source = "a training is about as fast as passes through one layer of SmolLM2-135M, measured here just now"
        rate = layers(bases.compute_dtype(dtype)) / 1e12
        return Card(round(_memory(), 1), rate, 30, context=1.2, reached=(_CPU_SHARE, source))
    if name not in CARDS:
        raise unknown("gpu", name, [*CARDS, "cpu"], "finbench plan --help")
    return CARDS[name]


def layers(dtype: Any) -> float:
    """FLOP/s of this machine in decoder layers that compute in ``dtype``, all its threads together; once a process.

    Not those of bare products: with AMX a processor multiplies several times as fast as a layer trains.
    """
    import torch

    return _layers(dtype, torch.get_num_threads())[0]


def crowding(dtype: Any) -> float:
    """How many times longer than alone the passes took in that measurement: what others do on the machine."""
    import torch

    best, now = _layers(dtype, torch.get_num_threads())
    return best / now


@functools.cache
def _layers(dtype: Any, threads: int) -> tuple[float, float]:
    """(the best of many tries, their mean), after a warm-up: what others do on the machine can only slow a try down.

    A try: forward through a layer of frozen weights, and the gradient of its inputs. For a second at least, in which
    others have their turns at the cores.
    """
    import torch
    from transformers import LlamaConfig, LlamaModel

    layer = LlamaModel(LlamaConfig(**_LAYER, num_hidden_layers=1, vocab_size=1)).to(dtype).requires_grad_(False)
    weights = sum(weight.numel() for weight in layer.layers.parameters() if weight.dim() == 2)
    inputs = torch.randn(1, _TOKENS, _LAYER["hidden_size"], dtype=dtype, requires_grad=True)
    times: list[float] = []
    while len(times) < _TRIES or sum(times) < _WATCHED:
        start = time.perf_counter()
        layer(inputs_embeds=inputs).last_hidden_state.sum().backward()
        times.append(time.perf_counter() - start)
    work, times = 4 * weights * _TOKENS, times[_WARM:]
    return work / min(times), work * len(times) / sum(times)
