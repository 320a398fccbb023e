"""Padding by order of rows: share of padding tokens in a batch of 16, on every shipped set (and fpb if imported).

    python benchmarks/padding.py [--data-dir DATA]

Compares random order, transformers' ``group_by_length`` sampler and finbench's, over three epochs.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from finbench import batches, catalog
from finbench.console import quiet
from finbench.data.sources import describe
from finbench.training import prepare

BATCH, EPOCHS = 16, 3


def padding(lengths: list[int], order: list[int]) -> float:
    """Share of padding when ``order`` is cut into batches."""
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    padded = sum(len(chunk) * max(lengths[index] for index in chunk) for chunk in chunks)
    return 1 - sum(lengths) / padded


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    data_dir = parser.parse_args().data_dir
    quiet()
    names = ["mini_sentiment", "mini_headline", "mini_ner", "mini_xbrl_value"]
    names += [name for name in ("fpb", "fiqa_sa", "tfns") if describe(name, data_dir)]
    print(f"{'set':16} {'rows':>6} {'random':>8} {'grouped':>8} {'finbench':>8}")
    for name in names:
        run = prepare(catalog.recipe(None, {"tasks": [name]}), data_dir)
        lengths = [len(row.ids) for row in run.rows]
        rng, generator = random.Random(0), torch.Generator().manual_seed(0)
        shuffled = [padding(lengths, rng.sample(range(len(lengths)), len(lengths))) for _ in range(EPOCHS)]
        grouped = [
            padding(lengths, list(LengthGroupedSampler(BATCH, lengths=lengths, generator=generator)))
            for _ in range(EPOCHS)
        ]
        sampler = batches.LengthSampler(lengths, BATCH, seed=0)
        ours = [padding(lengths, [i for batch in sampler.batches(epoch) for i in batch]) for epoch in range(EPOCHS)]
        means = [100 * sum(part) / EPOCHS for part in (shuffled, grouped, ours)]
        print(f"{name:16} {len(lengths):6} " + " ".join(f"{mean:7.1f}%" for mean in means))


if __name__ == "__main__":
    main()
