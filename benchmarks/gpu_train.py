"""Training steps of a Llama-3.1-8B with random weights on the GPU that is here: tokens/s, MFU, peak memory.

    python benchmarks/gpu_train.py                   # lora on 16 and 4 bits, by each loop; some minutes on an H100
    python benchmarks/gpu_train.py --tiny            # the same on a processor with a small Llama: that the script works

Rows are as FPB's: an instruction of 26 tokens that all begin with, 4 to 90 tokens of their own, an answer of 2 (--long:
one row of 4,096 tokens, an answer of all but 26, which is what published rates are of). A token counts once
and without padding, however many were computed. MFU is of the tokens computed, 4 operations a weight and token
(forward, and backward through frozen weights), 6 a trained one, over the card's dense bf16 peak (machines.py).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from finbench.core import environment
from finbench.methods import method_named, quantise
from finbench.models import bases
from finbench.training import batches, loops, machines, planning, recipes
from finbench.training.trainer import AnswerTrainer, arguments

HERE = Path(__file__).parent
WAYS = [(bits, loop) for bits in (16, 4) for loop in ("shared", "packed", "padded")]
ANCHOR = "NeMo AutoModel, Llama-3.1-8B LoRA r 16, one H100, packed to 4,096: 12,473 tokens/s, 40.6 % of the peak"


def rows(number: int, vocabulary: int, long: bool, seed: int = 0) -> list[batches.TrainingRow]:
    """Rows of FPB's lengths with random tokens: 56 tokens on average."""
    rng = random.Random(seed)
    instruction = [rng.randrange(vocabulary) for _ in range(26)]
    made = []
    for _ in range(number):
        own = 4_070 if long else min(90, max(4, round(rng.gammavariate(4, 7))))
        ids = [
            *instruction,
            *(rng.randrange(vocabulary) for _ in range(own)),
            *(rng.randrange(vocabulary) for _ in "ab"),
        ]
        made.append(batches.TrainingRow(ids, len(ids) - 26 if long else 2))
    return made


def model_of(tiny: bool, bits: int, dtype: Any) -> Any:
    """A Llama with random weights, made where it will run; at 4 bits its layers but the head are NF4."""
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM

    config = planning.shaped("tiny" if tiny else "llama-3.1-8b").config
    torch.manual_seed(0)
    with torch.device(environment.device()):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if bits == 16:
        return model.eval()
    chosen = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    for name, layer in chosen.items():
        if name != "lm_head":
            made = bnb.nn.Linear4bit(
                layer.in_features, layer.out_features, False, dtype, compress_statistics=True, quant_type="nf4"
            )
            made.weight = bnb.nn.Params4bit(
                layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
            )
            model.set_submodule(name, made.to(environment.device()))
    model.is_loaded_in_4bit = True
    quantise.cure_cpu_repacking(model)
    return model.eval()


def steps(way: tuple[int, str], options: argparse.Namespace) -> dict[str, Any]:
    """Some optimiser steps of one way."""
    bits, loop = way
    dtype = bases.compute_dtype("auto")
    stated = {"tasks": ["mini_sentiment"], "rank": options.rank, "alpha": 2 * options.rank, "bits": bits, "lr": 1e-4}
    stated |= {"pass_tokens": options.pass_tokens, "batch_size": options.batch, "compile": options.compile}
    recipe = recipes.recipe(None, {**stated, "optimizer": options.optimizer, "kernels": options.kernels})
    model = model_of(options.tiny, bits, dtype)
    layers = bases.layers_of(planning.shaped("tiny" if options.tiny else "llama-3.1-8b"))
    model = method_named("lora").apply(model, recipe)
    vocabulary = model.config.vocab_size
    made = rows(options.batch * (options.steps + options.warm), vocabulary, options.long)
    sampler = batches.StepSampler([len(row.ids) for row in made], recipe.batch_size, recipe.accumulate, 0)
    passes = loops.Passes.of(recipe, loop, vocabulary, 0)
    ends: list[float] = []
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        stated_arguments = arguments(recipe, options.steps, Path(folder), dtype)
        stated_arguments.save_strategy = "no"
        trainer = AnswerTrainer(sampler, None, recipe, passes, model=model, args=stated_arguments, train_dataset=made)
        trainer.add_callback(_clock(ends))
        with passes.at_work(model):
            trainer.train()
    order = list(sampler)[options.warm :]
    real = [sum(len(made[index].ids) for index in step) for step in order]
    computed = [passes.run([made[index] for index in step]) for step in order]
    times = [after - before for before, after in zip(ends[options.warm - 1 :], ends[options.warm :], strict=False)]
    rate = statistics.median(tokens / seconds for tokens, seconds in zip(real, times, strict=True))
    worked = statistics.median(tokens / seconds for tokens, seconds in zip(computed, times, strict=True))
    work = 4 * planning.inner(layers) + 6 * planning.trained(recipe, layers, 0)
    peak = _peak()
    return {
        "bits": bits,
        "loop": loop,
        "tokens_per_second": round(rate, 1),
        "computed_share": round(sum(computed) / sum(real), 3),
        "tflops": round(worked * work / 1e12, 4),
        "mfu": None if peak is None else round(worked * work / 1e12 / peak, 4),
        "peak_memory_gib": round(environment.peak_memory() / machines.GIB, 2),
        "step_seconds": round(statistics.median(times), 4),
        "fpb_seconds": round(694_400 / rate, 1),
    }


def _clock(ends: list[float]) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    return Clock()


def _peak() -> float | None:
    """Dense bf16 TFLOP/s of the card that is here, if the table has it; of a processor, what its products reach now."""
    if not torch.cuda.is_available():
        return machines.products(bases.compute_dtype("auto")) / 1e12
    name = torch.cuda.get_device_name(0).lower().replace(" ", "").replace("-", "")
    memory = torch.cuda.get_device_properties(0).total_memory / machines.GIB
    found = [
        card.tflops
        for key, card in machines.CARDS.items()
        if key.split("-")[0] in name and ("-" not in key or abs(card.memory - memory) < 8)
    ]
    return found[0] if found else None


def main() -> None:
    """Measure every way; write JSON with the card's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm", type=int, default=3, help="first steps, not timed")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--pass-tokens", type=int, default=4096)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--kernels", default="torch")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ways", default=",".join(f"{bits}-{loop}" for bits, loop in WAYS))
    parser.add_argument("--out", type=Path, help="JSON; default benchmarks/gpu_train_<card>.json")
    options = parser.parse_args()
    planning.SHAPES["tiny"] = (64, 128, 2, 4, 2, 600)
    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    found = []
    for way in options.ways.split(","):
        bits, _, loop = way.partition("-")
        found.append(steps((int(bits), loop), options))
        print(json.dumps(found[-1]), flush=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    stated = {key: value for key, value in vars(options).items() if key != "out"}
    written = {"card": card, "anchor": ANCHOR, "options": stated, "ways": found}
    written["provenance"] = environment.provenance().model_dump()
    name = card.lower().replace(" ", "-")
    out = options.out or HERE / f"gpu_train_{'tiny' if options.tiny else name}.json"
    out.write_text(json.dumps(written, indent=1) + "\n")
    print(f"{card}: {out}")


if __name__ == "__main__":
    main()
