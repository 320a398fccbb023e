"""From rows of tokens to batches: mixing of tasks, a resumable length-sorted order, collation."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from finbench.core.errors import FinbenchError

if TYPE_CHECKING:
    import torch

Row = TypeVar("Row")  # a row, or its number
IGNORED = -100  # label of a position without loss
_POOL = 64  # batches sorted by length together: padding stays near 3 %, and batches still differ each epoch


@dataclass(frozen=True)
class TrainingRow:
    """A training row: token ids, of which ``answer`` bear loss: the last ones, but for ``silent`` spans among them.

    ``silent``: (first, behind the last) of what others say between two answers of a conversation, in order.
    """

    ids: list[int]
    answer: int
    silent: tuple[tuple[int, int], ...] = ()

    @property
    def prompt(self) -> int:
        """Tokens before the first answer."""
        return len(self.ids) - self.answer - sum(end - start for start, end in self.silent)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(first, behind the last) of the tokens that bear loss, in order."""
        edges = [self.prompt, *(edge for span in self.silent for edge in span), len(self.ids)]
        return list(zip(edges[::2], edges[1::2], strict=True))


def check_lengths(rows: Sequence[TrainingRow], longest: int, what: str) -> None:
    """Refuse rows above ``longest`` tokens: cutting one would train on something else than is evaluated."""
    over = [len(row.ids) for row in rows if len(row.ids) > longest]
    if over:
        raise FinbenchError(
            f"{len(over)} of {len(rows)} rows of {what} are longer than {longest} tokens (up to {max(over)}).",
            f"Allow them with --set max_length={max(over)}, if the base's context allows that many.",
        )
    if any(row.answer < 1 for row in rows):
        raise FinbenchError(
            f"{what} has a row whose answer has no token of its own.", "Use another base: finbench bases"
        )


def share_of(rows: Sequence[Row], weight: float, seed: int) -> list[Row]:
    """``weight`` times the rows: whole copies, and a seeded choice for the fraction."""
    if round(weight * len(rows)) < 1:
        raise FinbenchError(
            f"A weight of {weight:g} leaves none of {len(rows)} rows.", "Use a larger weight, or leave the task out."
        )
    whole, part = divmod(weight * len(rows), len(rows))
    chosen = sorted(random.Random(f"finbench-share-{seed}").sample(range(len(rows)), round(part)))
    return [*rows] * int(whole) + [rows[index] for index in chosen]


def choose(docs: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """A seeded choice of ``limit`` rows, in their own order."""
    return [docs[index] for index in sorted(random.Random(f"finbench-limit-{seed}").sample(range(len(docs)), limit))]


class StepSampler:
    """The rows of each optimiser step of ``epoch``: ``accumulate`` batches of rows of similar lengths, by index.

    A function of (seed, epoch) alone: rows are shuffled, pools of 64 batches are sorted by length, whole batches
    are shuffled. So a run resumed in any epoch sees exactly the batches it would have seen. (transformers'
    ``group_by_length`` draws from a generator whose state is not that of the uninterrupted run.)
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, accumulate: int, seed: int) -> None:
        self.lengths, self.seed = list(lengths), seed
        self.batch_size, self.accumulate = batch_size, accumulate
        self.epoch = 0  # whose order ``__iter__`` gives

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.accumulate)

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch, in order; a short one is last."""
        rng = random.Random(f"finbench-order-{self.seed}-{epoch}")
        order = rng.sample(range(len(self.lengths)), len(self.lengths))
        pool = self.batch_size * _POOL
        full: list[list[int]] = []
        short: list[list[int]] = []
        for start in range(0, len(order), pool):
            group = sorted(order[start : start + pool], key=lambda index: self.lengths[index])
            for first in range(0, len(group), self.batch_size):
                batch = group[first : first + self.batch_size]
                (full if len(batch) == self.batch_size else short).append(batch)
        rng.shuffle(full)
        return full + short

    def steps(self, epoch: int) -> list[list[int]]:
        """All steps of an epoch, in order; the last one may have fewer batches."""
        order = self.batches(epoch)
        return [
            [index for batch in order[first : first + self.accumulate] for index in batch]
            for first in range(0, len(order), self.accumulate)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.steps(self.epoch))

    def first(self, steps: int) -> Iterator[list[int]]:
        """The rows of each of the first ``steps`` steps of a run."""
        epoch = 0
        while steps > 0:
            order = self.steps(epoch)[:steps]
            yield from order
            steps, epoch = steps - len(order), epoch + 1


def share(rows: Sequence[Row], rank: int, processes: int) -> tuple[list[Row], float]:
    """(rows of a step that process ``rank`` runs, their weight): every so many-th row, so that all have like lengths.

    A process without rows runs the first one with weight 0: it takes part in what processes do together.
    """
    return (list(rows[rank::processes]), 1.0) if rank < len(rows) else (list(rows[:1]), 0.0)


def collate(rows: Sequence[TrainingRow], pad: int) -> dict[str, torch.Tensor]:
    """A batch, padded on the left, so that all answers end at the last position.

    ``input_ids``, ``attention_mask``, ``position_ids``: (B, T). ``labels``: (B, K + 1) for the last K + 1
    positions, where K is the longest part that answers begin: the head is computed there only.
    """
    import torch

    width = max(len(row.ids) for row in rows)
    keep = 1 + max(len(row.ids) - row.prompt for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), keep), IGNORED)
    for index, row in enumerate(rows):
        ids[index, width - len(row.ids) :] = torch.tensor(row.ids)
        mask[index, width - len(row.ids) :] = 1
        for start, end in row.spans:
            labels[index, keep - len(row.ids) + start : keep - len(row.ids) + end] = torch.tensor(row.ids[start:end])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}
