"""Padding by order of rows: share of padding in batches of 16, on every built-in set that is here.

    python benchmarks/padding.py [--data-dir DATA] [--limit 2000]

Random order, transformers' ``group_by_length`` sampler and finbench's in padded batches, over three epochs; then packed
passes of the first epoch, padded in attention alone: where the share is of its scores, not of tokens.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from finbench.core import catalog
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.data.sources import describe_set
from finbench.training import batches, packing, recipes
from finbench.training.preparation import Prepared, prepare

BATCH, EPOCHS = 16, 3


def padding(lengths: list[int], order: list[int]) -> float:
    """Share of padding when ``order`` is cut into batches."""
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    padded = sum(len(chunk) * max(lengths[index] for index in chunk) for chunk in chunks)
    return 1 - sum(lengths) / padded


def packed(run: Prepared) -> tuple[float, float]:
    """(share of padding among the positions of packed passes, among the scores of their attention)."""
    passes = replace(run.passes, loop="packed")
    positions = real = scores = needed = 0
    for batch in run.sampler.batches(0):
        rows = [run.rows[index] for index in batch]
        for part in passes.cut(rows):
            made = packing.pack(part, False)
            positions += made.ids.shape[1]
            real += sum(len(row.ids) - 1 for row in part)  # the last token of a row is only predicted
            scores += sum(block.own.shape[0] * block.own.shape[1] ** 2 for block in made.blocks)
            needed += sum((len(row.ids) - 1) ** 2 for row in part)
    return 1 - real / positions, 1 - needed / scores


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int)
    stated = parser.parse_args()
    quiet()
    print(f"{'task':24} {'rows':>6} {'random':>8} {'grouped':>8} {'sorted':>8} {'packed':>8} {'attention':>9}")
    for name, task in catalog.tasks().items():
        if task.form != "generate" or not (task.shipped or describe_set(task.set, stated.data_dir)):
            continue
        try:
            recipe = recipes.recipe(None, {"tasks": [name], "limit": stated.limit, "max_length": 8192})
            run = prepare(
                recipe, stated.data_dir, lambda name, count, known_by: range(count)
            )  # leaks are not what is looked for
        except FinbenchError as fault:
            print(f"{name.removeprefix('finbench_'):24} {fault.message.splitlines()[0][:80]}")
            continue
        lengths = [len(row.ids) for row in run.rows]
        rng, generator = random.Random(0), torch.Generator().manual_seed(0)
        shuffled = [padding(lengths, rng.sample(range(len(lengths)), len(lengths))) for _ in range(EPOCHS)]
        grouped = [
            padding(lengths, list(LengthGroupedSampler(BATCH, lengths=lengths, generator=generator)))
            for _ in range(EPOCHS)
        ]
        sampler = batches.StepSampler(lengths, BATCH, 1, seed=0)
        ours = [padding(lengths, [i for batch in sampler.batches(epoch) for i in batch]) for epoch in range(EPOCHS)]
        means = [100 * sum(part) / EPOCHS for part in (shuffled, grouped, ours)]
        shown = " ".join(f"{value:7.1f}%" for value in (*means, *(100 * part for part in packed(run))))
        print(f"{name.removeprefix('finbench_'):24} {len(lengths):6} {shown}", flush=True)


if __name__ == "__main__":
    main()
