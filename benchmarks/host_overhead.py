"""Seconds of the host for one operation of a training pass, and for a layer of codes: what binds a small base on a GPU.

    python benchmarks/host_overhead.py

A Llama of 30 layers so narrow that its sums take next to nothing runs packed passes of 40 tokens, forward and backward.
Operations of the forward part are counted as `finbench plan` counts them, those of the backward part as twice as many.
Then a linear layer of bitsandbytes, with next to nothing to expand, beside one in 16 bits.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from finbench.core.console import quiet
from finbench.methods import method_named, quantise
from finbench.training import batches, counting, loops, packing, recipes, shapes


def main() -> None:
    """Print it."""
    quiet()
    torch.set_num_threads(1)
    shapes.SHAPES["narrow"] = (32, 64, 30, 4, 2, 100)
    recipe = recipes.recipe(None, {"tasks": ["mini_sentiment"], "rank": 2, "dtype": "float32"})
    rows = [batches.TrainingRow([*range(10), *range(number, number + 10)], 2) for number in range(4)]
    operations = counting.counted(shapes.shaped("narrow"), recipe, rows).operations
    model = shapes.shaped("narrow").to_empty(device="cpu")
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
    plain = of_layer(torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16).requires_grad_(False))
    for bits in (8, 4):
        forward, backward = (1e6 * (own - other) for own, other in zip(of_layer(coded(bits)), plain, strict=True))
        print(f"a layer in {bits} bits: {forward:.0f} us more forward, {backward:.0f} us more backward")


def coded(bits: int) -> Any:
    """A layer of bitsandbytes, 64 by 64."""
    import bitsandbytes as bnb

    weight = torch.randn(64, 64, dtype=torch.bfloat16)
    if bits == 8:
        made = bnb.nn.Linear8bitLt(64, 64, False, has_fp16_weights=False)
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        return made.to("cpu")
    made = bnb.nn.Linear4bit(64, 64, False, torch.bfloat16, True, "nf4")
    made.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
    quantise.cure_cpu_repacking(torch.nn.Sequential(made := made.to("cpu")))
    return made


def of_layer(layer: Any, times: int = 2000) -> tuple[float, float]:
    """Seconds of the processor for one forward and one backward pass."""
    x = torch.randn(40, 64, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.ones(40, 64, dtype=torch.bfloat16)
    for _ in range(20):
        layer(x).backward(gradient)
    start = time.process_time()
    made = [layer(x) for _ in range(times)]
    middle = time.process_time()
    for one in made:
        one.backward(gradient)
    return (middle - start) / times, (time.process_time() - middle) / times


if __name__ == "__main__":
    main()
