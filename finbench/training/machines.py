"""Facts about machines: what cards hold and reach, published LoRA steps, and this machine's own processor."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import unknown

GIB = 2**30
_ASSUMED = 0.40  # of the peak, where nobody has published a step
# Seconds of the host for an operation of eager torch, forward or backward: what a small base is bound by on a GPU.
# benchmarks/host_overhead.py: 14.6 us on a busy processor that also did the sums.
HOST = 10e-6
# Share of what a processor's matrix products allow that a training with shared starts reaches (docs/training.md:
# 384 tokens/s of a core where the best products of its day, 215 GFLOP/s, allow 881; packed rows reach 47 %).
_CPU_SHARE = 0.44

_TRIES, _WARM = 43, 3  # of this machine's products: some milliseconds each


@dataclass(frozen=True)
class PublishedStep:
    """A published LoRA step: weights of the base, share of the peak reached at 4 operations a weight and token."""

    parameters: float
    share: float
    source: str


@dataclass(frozen=True)
class Card:
    """GiB that a program sees, dense bf16 TFLOP/s, GB/s of its memory, and published steps, the smallest base first."""

    memory: float
    tflops: float
    bandwidth: float
    steps: Sequence[PublishedStep] = ()
    context: float = 0.6  # GiB that are gone before the first tensor

    def share(self, parameters: float) -> tuple[float, str]:
        """(share of the peak for a base of this size, where from): between published sizes by the logarithm."""
        if not self.steps:
            return _ASSUMED, f"nobody's published step: {_ASSUMED:.0%} of the peak is assumed"
        below = [step for step in self.steps if step.parameters <= parameters]
        above = [step for step in self.steps if step.parameters > parameters]
        if not below or not above:
            nearest = below[-1] if below else above[0]
            return nearest.share, nearest.source
        low, high = below[-1], above[0]
        part = math.log(parameters / low.parameters) / math.log(high.parameters / low.parameters)
        return low.share + part * (high.share - low.share), f"between {low.source} and {high.source}"


CARDS = {
    "h100": Card(
        79.1,
        989,
        3350,
        (
            PublishedStep(8.03e9, 0.406, "NeMo AutoModel, Llama-3.1-8B LoRA, packed to 4,096: 12,473 tokens/s"),
            PublishedStep(70.6e9, 0.32, "NeMo AutoModel, Llama-3-70B LoRA on 8 cards: 1,092 tokens/s each"),
        ),
    ),
    "h200": Card(139.8, 989, 4800),
    "a100-80": Card(79.1, 312, 2039),
    "a100-40": Card(39.4, 312, 1555),
    "rtx4090": Card(
        23.5,
        165,
        1008,
        (PublishedStep(8.03e9, 0.56, "torchtune, Llama-3.1-8B LoRA, packed to 2,048, compiled: 3,083 tokens/s"),),
    ),
    "rtx3090": Card(23.5, 71, 936),
    "a6000": Card(47.4, 155, 768),
    "a5000": Card(23.6, 111, 768),
    "l4": Card(22.0, 121, 300),
}


def here() -> tuple[str, Card]:
    """(``gpu`` or ``cpu``, what trainings have here of memory: the smallest GPU, or the machine's; speeds unknown)."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", Card(_memory(), 0, 0, context=1.2)
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return "gpu", Card(min(gpu.total_memory for gpu in gpus) / GIB, 0, 0)


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def card(name: str) -> Card:
    """A card by name; ``cpu`` is this machine's processor, whose products are measured in a moment."""
    if name == "cpu":
        from finbench.models import bases

        source = f"SmolLM2-135M: {_CPU_SHARE:.0%} of what the products of this minute allow"
        rate = products(bases.compute_dtype("auto")) / 1e12
        return Card(round(_memory(), 1), rate, 30, (PublishedStep(1.35e8, _CPU_SHARE, source),), context=1.2)
    if name not in CARDS:
        raise unknown("gpu", name, [*CARDS, "cpu"], "finbench plan --help")
    return CARDS[name]


def products(dtype: Any) -> float:
    """FLOP/s of this machine's matrix products in ``dtype``, all its threads together; measured once a process."""
    import torch

    return _products(dtype, torch.get_num_threads())


@functools.cache
def _products(dtype: Any, threads: int) -> float:
    """The best of many tries, after a warm-up: what others do on the machine can only slow a try down."""
    import torch

    x, w = torch.randn(1024, 576, dtype=dtype), torch.randn(1536, 576, dtype=dtype)
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        torch.nn.functional.linear(x, w)
        times.append(time.perf_counter() - start)
    return 2 * 1024 * 576 * 1536 / min(times[_WARM:])
