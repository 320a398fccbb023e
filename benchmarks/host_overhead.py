"""Seconds of the host for one operation of a training pass: what a small base is bound by on a GPU.

    python benchmarks/host_overhead.py

A Llama of 30 layers so narrow that its sums take next to nothing runs packed passes of 40 tokens, forward and backward.
Operations of the forward part are counted as `finbench plan` counts them, those of the backward part as twice as many.
"""

from __future__ import annotations

import statistics
import time

import torch

from finbench.core.console import quiet
from finbench.methods import method_named
from finbench.training import batches, loops, packing, planning, recipes


def main() -> None:
    """Print it."""
    quiet()
    torch.set_num_threads(1)
    planning.SHAPES["narrow"] = (32, 64, 30, 4, 2, 100)
    recipe = recipes.recipe(None, {"tasks": ["mini_sentiment"], "rank": 2, "dtype": "float32"})
    rows = [batches.TrainingRow([*range(10), *range(number, number + 10)], 2) for number in range(4)]
    _, operations = planning.counted(planning.shaped("narrow"), recipe, rows)
    model = planning.shaped("narrow").to_empty(device="cpu")
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.02)
    model = method_named("lora").apply(model, recipe)
    passes, times = loops.Passes("shared", 4), []
    made = packing.pack(rows, True)
    with passes.at_work(model):
        for _ in range(30):
            start = time.process_time()
            with loops.attending(made):
                loops.loss(model, made).backward()
            times.append(time.process_time() - start)
    middle = statistics.median(times[5:])
    print(
        f"{operations} operations forward, {1e3 * middle:.1f} ms a pass: {1e6 * middle / (3 * operations):.1f} us each"
    )


if __name__ == "__main__":
    main()
