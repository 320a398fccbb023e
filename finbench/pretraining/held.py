"""Bits per byte on held-out text: exact, for bytes of text are counted where tokens are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finbench.pretraining.shards import Held
from finbench.pretraining.spec import ALL


@dataclass(frozen=True)
class Bits:
    """How well held-out text is predicted."""

    nats: float  # summed over tokens of text
    tokens: int
    bytes: int

    @property
    def per_byte(self) -> float:
        """Bits a byte of text."""
        return self.nats / math.log(2) / self.bytes


def score(model: Any, held: Mapping[str, Held], context: int, rows: int, accelerator: Any = None) -> dict[str, Bits]:
    """Bits of every source, and of all together, under ``model`` in eval mode; its mode and random state stay.

    Each token of text is predicted once, from what stands before it in its window of ``context`` tokens. ``rows``
    windows are run at a time. With an accelerator, processes share the windows.
    """
    was = model.training
    model.eval()
    with torch.no_grad():
        found = {
            name: Bits(_nats(model, part, context, rows, accelerator), part.tokens, part.bytes)
            for name, part in held.items()
        }
    model.train(was)
    if len(found) > 1:
        parts = list(found.values())
        found[ALL] = Bits(*(sum(getattr(part, key) for part in parts) for key in ("nats", "tokens", "bytes")))
    return found


def _nats(model: Any, held: Held, context: int, rows: int, accelerator: Any) -> float:
    inputs, targets = windows(held, context)
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    mine = range(rank, len(inputs), world)
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    for first in range(0, len(mine), rows):
        chosen = list(mine[first : first + rows])
        ids, wanted = (torch.from_numpy(part[chosen]).to(device) for part in (inputs, targets))
        logits = model(input_ids=ids, use_cache=False).logits.float()
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="none"
        ).sum(dtype=torch.float64)
    if accelerator and world > 1:
        total = accelerator.reduce(total, "sum")
    return float(total)


def windows(held: Held, context: int) -> tuple[Any, Any]:
    """(inputs, targets), (N, context) each: every token but the first is a target once; -100 where it is no text."""
    count = max(1, -(-(len(held.ids) - 1) // context))
    inputs = np.zeros(count * context, np.int64)
    targets = np.full(count * context, -100, np.int64)
    inputs[: len(held.ids) - 1] = held.ids[:-1]
    targets[: len(held.ids) - 1] = np.where(held.text[1:], held.ids[1:], -100)
    return inputs.reshape(count, context), targets.reshape(count, context)
