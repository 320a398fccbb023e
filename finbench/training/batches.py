"""From (prompt, answer) pairs to batches: tokens, mixing of tasks, a resumable length-sorted order, collation."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finbench.core.errors import FinbenchError

IGNORED = -100  # label of a position without loss
_POOL = 64  # batches sorted by length together: padding stays near 3 %, and batches still differ each epoch


@dataclass(frozen=True)
class TrainingRow:
    """A training row: token ids, of which the last ``answer`` ones bear loss."""

    ids: list[int]
    answer: int

    @property
    def prompt(self) -> int:
        """Tokens before the answer."""
        return len(self.ids) - self.answer


def encode_pair(tokenizer: Any, prompt: str, answer: str) -> TrainingRow:
    """Tokenise a pair exactly as lm-eval splits a (context, continuation) request, then append end-of-text.

    Spaces at the end of the prompt go to the answer; both are tokenised as one text; the answer is what follows
    as many tokens as the prompt alone has.
    """
    stripped = prompt.rstrip(" ")
    answer, prompt = prompt[len(stripped) :] + answer, stripped
    bos = tokenizer.bos_token
    special = not (bos and prompt.startswith(bos))  # a chat template writes its own first token

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=special)
        while ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers append it by themselves
            ids.pop()
        return ids

    ids = [*encode(prompt + answer), tokenizer.eos_token_id]
    return TrainingRow(ids, len(ids) - len(encode(prompt)))


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


def share_of(rows: Sequence[TrainingRow], weight: float, seed: int) -> list[TrainingRow]:
    """``weight`` times the rows: whole copies, and a seeded choice for the fraction."""
    if round(weight * len(rows)) < 1:
        raise FinbenchError(
            f"A weight of {weight:g} leaves none of {len(rows)} rows.", "Use a larger weight, or leave the task out."
        )
    whole, part = divmod(weight * len(rows), len(rows))
    chosen = sorted(random.Random(f"finbench-share-{seed}").sample(range(len(rows)), round(part)))
    return [*rows] * int(whole) + [rows[index] for index in chosen]


class StepSampler(torch.utils.data.Sampler[list[int]]):
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


def share(rows: Sequence[TrainingRow], rank: int, processes: int) -> tuple[list[TrainingRow], float]:
    """(rows of a step that process ``rank`` runs, their weight): every so many-th row, so that all have like lengths.

    A process without rows runs the first one with weight 0: it takes part in what processes do together.
    """
    return (list(rows[rank::processes]), 1.0) if rank < len(rows) else (list(rows[:1]), 0.0)


def collate(rows: Sequence[TrainingRow], pad: int) -> dict[str, torch.Tensor]:
    """A batch, padded on the left, so that all answers end at the last position.

    ``input_ids``, ``attention_mask``, ``position_ids``: (B, T). ``labels``: (B, K + 1) for the last K + 1
    positions, where K is the longest answer: the head is computed there only.
    """
    width = max(len(row.ids) for row in rows)
    keep = 1 + max(row.answer for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), keep), IGNORED)
    for index, row in enumerate(rows):
        ids[index, width - len(row.ids) :] = torch.tensor(row.ids)
        mask[index, width - len(row.ids) :] = 1
        labels[index, keep - row.answer :] = torch.tensor(row.ids[-row.answer :])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}
