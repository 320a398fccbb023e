"""Which sequences a step trains on: a function of (seed, step) alone, so that a run resumes at the exact batch.

A source's sequences come in the order of a permutation of its own for each epoch: none comes again before all have
come. Sources take turns as their weights say, evenly. No order is held in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finbench.core.errors import FinbenchError
from finbench.pretraining.shards import Shards

_SLOTS = 4096  # turns of a round: weights are kept to 1 / 4096
_ROUNDS = 4  # of the Feistel network


@dataclass(frozen=True)
class Pick:
    """One sequence: its source, its number there, and the epoch of that source."""

    source: int
    window: int
    epoch: int


class Mixture:
    """The order of all sequences of a run of ``steps`` steps of ``batch``.

    ``weights``: relative shares of the tokens; None where they go by size. Raises FinbenchError for a source without
    one whole sequence.
    """

    def __init__(
        self, shards: Sequence[Shards], weights: Sequence[float | None], context: int, batch: int, seed: int
    ) -> None:
        self.shards, self.context, self.batch, self.seed = list(shards), context, batch, seed
        self.windows = [part.windows(context) for part in shards]
        for part, windows in zip(shards, self.windows, strict=True):
            if not windows:
                raise FinbenchError(
                    f"data: {part.name} has {part.tokens:,} tokens, less than one sequence of {context + 1}.",
                    "Use a smaller context, or more text.",
                )
        stated = [float(weight) for weight in weights if weight is not None] or [float(n) for n in self.windows]
        self.weights = [weight / sum(stated) for weight in stated]
        self.slots, self.before = _slots(self.weights)

    def pick(self, number: int) -> Pick:
        """Sequence ``number`` of the run."""
        source = int(self.slots[number % _SLOTS])
        epoch, place = divmod(self._turns(number, source), self.windows[source])
        key = f"{self.seed}-{self.shards[source].about['identity']}-{epoch}"
        return Pick(source, permuted(place, self.windows[source], key), epoch)

    def step(self, step: int) -> list[Pick]:
        """The sequences of step ``step``, from 0 on, of all processes."""
        return [self.pick(number) for number in range(step * self.batch, (step + 1) * self.batch)]

    def ids(self, picks: Sequence[Pick]) -> Any:
        """Token ids, (N, context + 1) int64."""
        return np.stack([self.shards[pick.source].window(pick.window, self.context) for pick in picks])

    def epochs(self, steps: int) -> list[float]:
        """How often each source is seen in a run of ``steps`` steps."""
        return [self._turns(steps * self.batch, source) / windows for source, windows in enumerate(self.windows)]

    def _turns(self, number: int, source: int) -> int:
        """How many of the sequences before ``number`` are of ``source``."""
        round_, slot = divmod(number, _SLOTS)
        return round_ * int(self.before[-1][source]) + int(self.before[slot][source])


def _slots(weights: Sequence[float]) -> tuple[Any, Any]:
    """(source of each turn of a round, turns of each source before each turn): each source's turns lie evenly."""
    exact = [weight * _SLOTS for weight in weights]
    counts = [max(1, int(value)) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda source: counts[source] - exact[source])
    for number in range(_SLOTS - sum(counts)):
        counts[by_rest[number % len(counts)]] += 1
    while sum(counts) > _SLOTS:
        counts[counts.index(max(counts))] -= 1
    turns = sorted(((turn + 0.5) / count, source) for source, count in enumerate(counts) for turn in range(count))
    slots = np.array([source for _, source in turns])
    taken = np.eye(len(counts), dtype=np.int64)[slots]
    return slots, np.vstack([np.zeros_like(taken[:1]), taken.cumsum(axis=0)])


def permuted(place: int, size: int, key: str) -> int:
    """Where ``place`` goes in a pseudo-random permutation of range(size): a Feistel network, walked until inside."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = place
    while True:
        left, right = value >> half, value & mask
        for round_ in range(_ROUNDS):
            mixed = hashlib.blake2b(f"{key}-{round_}-{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed, "big") & mask)
        value = (left << half) | right
        if value < size:
            return value
