"""The sections of gpu_check.py, each in a process of its own.

    python benchmarks/gpu_sections.py NUMBER RESULTS SEED [--tiny] [EARLIER ...]

Each writes rows (name, found, limit, passed or None where nothing is asked) and what section 9 needs of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface

from finbench.core import environment
from finbench.core.console import quiet
from finbench.methods import method_named, quantise
from finbench.models import bases
from finbench.training import batches, counting, loops, machines, packing, recipes, shapes, speedups, timing
from finbench.training.trainer import AnswerTrainer, arguments

DEVICE = environment.device()
GPU = torch.cuda.is_available()
# hidden, MLP, layers, heads, key and value heads, vocabulary
SHAPES = {
    "gqa": (4096, 14336, 2, 32, 8, 32000),
    "1b": (2048, 8192, 16, 32, 8, 32000),
    "8b": shapes.SHAPES["llama-3.1-8b"],
}
TINY = (128, 256, 2, 4, 2, 600)
STARTS = (0, 26, 500)  # tokens that all rows begin with
NATS, COSINE = 0.15, 0.999
Rows = list[dict[str, Any]]


def row(name: str, found: str, limit: str = "", passed: bool | None = None) -> dict[str, Any]:
    """One line of the table."""
    return {"name": name, "found": found, "limit": limit, "passed": passed}


class Check:
    """What all sections share: the seed, whether models are small, and results of earlier sections."""

    def __init__(self, seed: int, tiny: bool, earlier: dict[str, Any]) -> None:
        self.seed, self.tiny, self.earlier = seed, tiny, earlier
        for name, shape in SHAPES.items():
            shapes.SHAPES[f"check-{name}"] = TINY if tiny else shape
        self.kept: dict[str, Any] = {}  # for section 9

    def shape(self, name: str) -> str:
        return f"check-{name}"

    def fast(self, reached: bool) -> bool | None:
        """A limit of speed, which a processor is not asked for."""
        return reached if GPU and not self.tiny else None


# ---------------------------------------------------------------- models and rows


def model_of(shape: str, bits: int, dtype: Any, seed: int) -> Any:
    """A Llama with random weights, made where it will run; at 4 bits its layers but the head are NF4.

    Each layer keeps the size of what it is given, queries and keys excepted, and logits differ by some units: so
    attention and answers depend on every token.
    """
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = shapes.shaped(shape).config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear):
            continue
        gain = 3.0 if name == "lm_head" else 1.5 if name.endswith(("q_proj", "k_proj")) else 1.0
        weight = torch.randn(layer.out_features, layer.in_features, device=DEVICE, dtype=dtype)
        weight *= gain / layer.in_features**0.5
        if bits == 16 or name == "lm_head":
            layer.weight = torch.nn.Parameter(weight)
            continue
        # coded layer by layer on the device: the model in 16 bits is never there
        made = bnb.nn.Linear4bit(layer.in_features, layer.out_features, False, dtype, True, "nf4", device="meta")
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
        model.set_submodule(name, made.to(DEVICE))
    for module in model.modules():  # the embedding and the norms
        for name, tensor in list(module._parameters.items()):
            if tensor is not None and tensor.is_meta:
                value = torch.randn if tensor.dim() > 1 else torch.ones
                module._parameters[name] = torch.nn.Parameter(value(tensor.shape, device=DEVICE, dtype=dtype))
    with torch.device(DEVICE):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    if bits == 4:
        model.is_loaded_in_4bit = True
        quantise.cure_cpu_repacking(model)
    return model.eval()


def rows_like_fpb(number: int, vocabulary: int, start: int, seed: int) -> list[batches.TrainingRow]:
    """Random tokens: ``start`` that all rows begin with, 4 to 90 of their own (FPB's lengths), an answer of 2."""
    rng = random.Random(seed)
    begin = [rng.randrange(1, vocabulary) for _ in range(start)]
    made = []
    for _ in range(number):
        own = min(90, max(4, round(rng.gammavariate(4, 7))))
        made.append(batches.TrainingRow([*begin, *(rng.randrange(1, vocabulary) for _ in range(own + 2))], 2))
    return made


def long_rows(number: int, vocabulary: int, length: int, seed: int) -> list[batches.TrainingRow]:
    """Rows of which every token but the first is an answer, as published rates are of."""
    rng = random.Random(seed)
    return [
        batches.TrainingRow([rng.randrange(1, vocabulary) for _ in range(length)], length - 1) for _ in range(number)
    ]


def with_lora(model: Any, **stated: Any) -> tuple[Any, Any]:
    """(model, recipe): LoRA on all linear layers, no factor at zero."""
    wanted = {"tasks": ["mini_sentiment"], "rank": 16, "alpha": 32, "lr": 1e-4, **stated}
    recipe = recipes.recipe(None, wanted)
    made = method_named("lora").apply(model, recipe)
    generator = torch.Generator(DEVICE).manual_seed(1)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if "lora_B" in name:
                tensor.copy_(0.01 * torch.randn(tensor.shape, generator=generator, device=DEVICE))
    return made, recipe


def autocast(dtype: Any) -> Any:
    """Half precision as training has it."""
    return torch.autocast(DEVICE.partition(":")[0], dtype, enabled=dtype != torch.float32)


def answers_and_gradients(
    model: Any, recipe: Any, loop: str, made: Sequence[batches.TrainingRow], dtype: Any
) -> tuple[Any, Any]:
    """(log-probabilities of the answers in the order of the rows, all gradients of the adapter as one vector)."""
    passes = dataclasses.replace(loops.Passes.of(recipe, loop, model.config.vocab_size, 0), rows=len(made))
    prepared = passes.prepare(made, model.device)
    model.zero_grad()
    with passes.at_work(model), loops.attending(prepared):
        with autocast(dtype):
            found, labels = loops.logits(model, prepared)
            chosen = labels != batches.IGNORED
            said = found.float()[chosen].log_softmax(-1).gather(1, labels[chosen][:, None])[:, 0]
        (-said.sum()).backward()
    return said.detach(), torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])


@contextlib.contextmanager
def off_by_one() -> Iterator[None]:
    """A planted fault: every token attends to the values of the token before. The checks must see it."""

    def shifted(module: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        return packing.attend(module, query, key, value.roll(1, 2), *rest, **named)

    AttentionInterface.register(packing.ATTENTION, shifted)
    try:
        yield
    finally:
        AttentionInterface.register(packing.ATTENTION, packing.attend)


# ---------------------------------------------------------------- the sections


def versions(check: Check) -> Rows:
    """Section 0."""
    known = environment.versions((*environment.PACKAGES, "vllm", "liger-kernel", "trl"))
    made = [row("versions", ", ".join(f"{name} {version}" for name, version in known.items()))]
    dtype = bases.compute_dtype("auto")
    if not GPU:
        return [*made, row("dtype", str(dtype), "a CUDA device", None if check.tiny else False)]
    capability = torch.cuda.get_device_capability()
    half = torch.bfloat16 if capability >= (8, 0) else torch.float16
    made.append(row("CUDA of torch", str(torch.version.cuda), "there is one", torch.version.cuda is not None))
    made.append(row(f"dtype at compute capability {capability}", str(dtype), str(half), dtype == half))
    varlen = packing._varlen() is not None
    made.append(row("attention over rows of any length", "there" if varlen else "missing", "there", varlen))
    return made


def packed_rows(check: Check) -> Rows:
    """Section 1."""
    made: Rows = []
    half = bases.compute_dtype("auto") if GPU else torch.bfloat16
    base = model_of(check.shape("gqa"), 16, half, check.seed)
    exact, recipe = with_lora(_copy(base).float())
    model, _ = with_lora(base)
    with torch.no_grad():
        for own, other in zip(model.parameters(), exact.parameters(), strict=True):
            other.copy_(own)
    for start in STARTS:
        given = rows_like_fpb(8 if check.tiny else 32, model.config.vocab_size, start, check.seed)
        expected = answers_and_gradients(exact, recipe, "padded", given, torch.float32)
        for loop in ("packed", "shared", "padded"):
            said, gradient = answers_and_gradients(model, recipe, loop, given, half)
            gap = float((said - expected[0]).abs().max())
            alike = float(torch.nn.functional.cosine_similarity(gradient, expected[1], dim=0))
            name = f"{loop}, a start of {start}: answers, gradients"
            limit = f"≤ {NATS} nat, cosine > {COSINE}"
            # padded rows are transformers' own way: what they reach is the measure of half precision, not a check
            passed = gap <= NATS and alike > COSINE if loop != "padded" else None
            made.append(row(name, f"{gap:.3f} nat, {alike:.5f}", limit if passed is not None else "", passed))
    with off_by_one():
        said, _ = answers_and_gradients(model, recipe, "shared", given, half)
    gap = float((said - expected[0]).abs().max())
    made.append(row("a planted fault: values off by one", f"{gap:.2f} nat", f"> {NATS} nat", gap > NATS))
    for loop in ("packed", "shared"):
        with torch.profiler.profile() as profile:
            answers_and_gradients(model, recipe, loop, given, half)
        names = {event.key for event in profile.key_averages()}
        attention = sorted(name for name in names if "attention" in name or "varlen" in name)
        passed = bool(attention) and not any("attention_math" in name for name in attention)
        shown = ", ".join(name.removeprefix("aten::_") for name in attention)[:120]
        made.append(row(f"{loop}: kernels of attention", shown, "not the math kernel", check.fast(passed)))
    return made


def _copy(model: Any) -> Any:
    import copy

    return copy.deepcopy(model)


def nf4(check: Check) -> Rows:
    """Section 2: the same codes, weights and products as on the processor; the same bits in three runs."""
    from bitsandbytes import functional

    torch.manual_seed(check.seed)
    size = 256 if check.tiny else 4096
    weight = torch.randn(size, size) * 0.02
    weight[torch.rand(size, size) < 1e-3] *= 20  # outliers
    weight = weight.to(torch.bfloat16)
    x = torch.randn(64, size, dtype=torch.bfloat16)

    def coded(device: str) -> tuple[Any, Any]:
        packed, state = functional.quantize_4bit(
            weight.to(device), quant_type="nf4", compress_statistics=True, blocksize=64
        )
        return packed.cpu(), functional.dequantize_4bit(packed, state)

    here, there = coded("cpu"), coded(DEVICE)
    same = bool((here[0] == there[0]).all())
    made = [row("NF4 codes", f"{int((here[0] != there[0]).sum()):,} of {here[0].numel():,} differ", "none", same)]
    gap = float((here[1].float() - there[1].cpu().float()).abs().max())
    step = float(here[1].float().abs().max()) * 2**-8  # the scales are coded around a mean, whose sum has an order
    made.append(row("dequantised weights", f"differ by {gap:.2g} at most", "one step of bfloat16", gap <= step))
    exact = x.double() @ here[1].double().T
    product = (x.to(DEVICE) @ there[1].T).cpu().double()
    error = float((product - exact).norm() / exact.norm())
    made.append(row("products with them", f"relative error {error:.1e} of float64", "≤ 4e-3 (bfloat16)", error < 4e-3))
    runs = [(packed, x.to(DEVICE) @ w.T) for packed, w in (coded(DEVICE) for _ in range(3))]
    bits = all(torch.equal(runs[0][0], p) and torch.equal(runs[0][1], y) for p, y in runs[1:])
    made.append(row("three runs", "bit-equal" if bits else "differ", "bit-equal", bits))
    return made


def steps(
    model: Any, recipe: Any, loop: str, made: Sequence[batches.TrainingRow], number: int, warm: int = 2
) -> dict[str, Any]:
    """Optimiser steps over ``made``: tokens a second (median), computed positions a real token, peak GiB, last loss."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if GPU:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    environment.forget_peak()
    dtype = bases.compute_dtype("auto")
    sampler = batches.StepSampler([len(one.ids) for one in made], recipe.batch_size, recipe.accumulate, 0)
    passes = loops.Passes.of(recipe, loop, model.config.vocab_size, 0)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        stated = arguments(recipe, number, Path(folder), dtype)
        stated.save_strategy, stated.max_steps = "no", number
        trainer = AnswerTrainer(sampler, None, recipe, passes, model=model, args=stated, train_dataset=made)
        trainer.add_callback(Clock())
        with passes.at_work(model):
            trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    order = list(sampler)[: len(ends)]
    real = [sum(len(made[index].ids) for index in step) for step in order]
    computed = [passes.run([made[index] for index in step]) for step in order]
    times = [after - before for before, after in zip(ends[warm - 1 :], ends[warm:], strict=False)]
    first = [made[index] for index in order[warm]]
    return {
        "tokens_per_second": statistics.median(t / s for t, s in zip(real[warm:], times, strict=True)),
        "computed": sum(computed) / sum(real),
        "peak_gib": environment.peak_memory() / machines.GIB,
        "loss": losses[-1],
        "seconds": statistics.median(times),
        "passes": [(passes.run(part), sum(one.answer for one in part)) for part in passes.cut(first)],
    }


def short_rates(check: Check) -> Rows:
    """Section 3."""
    made: Rows = []
    number, batch = (4, 16) if check.tiny else (10, 64)
    rates: dict[tuple[int, str], dict[str, Any]] = {}
    for bits in (16, 4):
        try:
            base = model_of(check.shape("8b"), bits, bases.compute_dtype("auto"), check.seed)
        except torch.OutOfMemoryError:
            made.append(row(f"{bits} bits", "does not fit on this card"))
            _let_go()
            continue
        model, recipe = with_lora(base, bits=bits, batch_size=batch, pass_tokens=4096)
        given = rows_like_fpb(batch * number, model.config.vocab_size, 26, check.seed)
        for loop in ("shared", "packed", "padded"):
            try:
                rates[bits, loop] = check.kept[f"{bits}-{loop}"] = steps(model, recipe, loop, given, number)
            except torch.OutOfMemoryError:
                made.append(row(f"{bits} bits, {loop}", "does not fit on this card"))
                _let_go()
        del model, base
        _let_go()
    work = _work(check.shape("8b"), 16)
    for (bits, loop), found in rates.items():
        share = found["tokens_per_second"] * found["computed"] * work / 1e12 / _peak()
        said = f"{found['tokens_per_second']:,.0f} tokens/s, {share:.0%} of the peak, {found['peak_gib']:.1f} GiB"
        wanted = (bits, loop) == (16, "packed")
        limit = "≥ 30 % of the peak" if wanted else ""
        known = wanted and _card_here() is not None
        made.append(row(f"{bits} bits, {loop}", said, limit, check.fast(share >= 0.3) if known else None))
    asked = {
        "shared over packed": ((16, "shared"), (16, "packed"), 1.3),
        "4 bits over 16 bits": ((4, "shared"), (16, "shared"), 0.6),
    }
    for name, (one, other, least) in asked.items():
        if one in rates and other in rates:
            ratio = rates[one]["tokens_per_second"] / rates[other]["tokens_per_second"]
            made.append(row(name, f"{ratio:.2f}", f"≥ {least}", check.fast(ratio >= least)))
    if (16, "shared") in rates:
        seconds = 694_400 / rates[16, "shared"]["tokens_per_second"]
        made.append(
            row("FPB, 694,400 tokens", f"{seconds:.0f} s", "≤ 45 s", check.fast(seconds <= 45) if _h100() else None)
        )
    return made


def long_rates(check: Check) -> Rows:
    """Section 4."""
    length, number = (128, 4) if check.tiny else (2048, 6)
    base = model_of(check.shape("8b"), 16, bases.compute_dtype("auto"), check.seed)
    model, recipe = with_lora(base, batch_size=2, pass_tokens=2 * length, max_length=4096)
    given = long_rows(2 * number, model.config.vocab_size, length, check.seed)
    try:
        found = check.kept["16-long"] = steps(model, recipe, "packed", given, number)
    except torch.OutOfMemoryError:
        return [row(f"rows of {length:,}, 16 bits", "does not fit on this card")]
    said = f"{found['tokens_per_second']:,.0f} tokens/s, {found['peak_gib']:.1f} GiB"
    reached = 9_000 <= found["tokens_per_second"] <= 14_000
    made = [
        row(
            f"rows of {length:,}, 16 bits", said, "9,000 to 14,000 on an H100", check.fast(reached) if _h100() else None
        )
    ]
    del model, base
    _let_go()
    if importlib.util.find_spec("trl") is None:
        return [*made, row("TRL on the same rows", "not installed")]
    rate, peak = _trl(check, given, number)
    beside = f"{rate:,.0f} tokens/s, {peak:.1f} GiB; ours is {found['tokens_per_second'] / rate:.2f} times as fast"
    return [*made, row("TRL on the same rows, without checkpointing", beside)]


def _trl(check: Check, given: Sequence[batches.TrainingRow], number: int) -> tuple[float, float]:
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if GPU:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    environment.forget_peak()
    dtype = bases.compute_dtype("auto")
    base = model_of(check.shape("8b"), 16, dtype, check.seed)
    stated = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, stated, autocast_adapter_dtype=False)
    rows = [{"input_ids": one.ids, "labels": one.ids} for one in given]
    with tempfile.TemporaryDirectory() as place:
        folder = _folder(check, Path(place), "gqa", tokenizer_only=True)
        from transformers import AutoTokenizer

        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=place, per_device_train_batch_size=2, max_steps=number, report_to="none", save_strategy="no",
                disable_tqdm=True, gradient_checkpointing=False, bf16=False, use_cpu=not GPU, max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True}, logging_steps=1,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )  # fmt: skip
        trainer.add_callback(Clock())
        trainer.train()
    tokens = 2 * len(given[0].ids)
    seconds = statistics.median(after - before for before, after in itertools.pairwise(ends[1:]))
    return tokens / seconds, environment.peak_memory() / machines.GIB


def options(check: Check) -> Rows:
    """Section 5: what recipes may ask for, each beside the plain way; and a run that is killed and resumed."""
    made: Rows = []
    number = 4 if check.tiny else 10
    ways: dict[str, dict[str, Any]] = {"plain": {}, "compile": {"compile": True}}
    if GPU and importlib.util.find_spec("liger_kernel"):
        ways["liger"] = {"kernels": "liger"}
    ways["adamw_8bit"] = {"optimizer": "adamw_8bit"}
    if GPU:
        ways["paged_adamw_8bit"] = {"optimizer": "paged_adamw_8bit"}
    ways["checkpointing"] = {"gradient_checkpointing": True}
    plain: dict[str, Any] = {}
    for name, stated in ways.items():
        base = model_of(check.shape("1b"), 16, bases.compute_dtype("auto"), check.seed)
        model, recipe = with_lora(base, batch_size=16, pass_tokens=4096, max_length=1024, **stated)
        length = 64 if check.tiny else 512
        given = long_rows(16 * number, model.config.vocab_size, length, check.seed)
        around = speedups.liger(model) if recipe.kernels == "liger" else contextlib.nullcontext()
        try:
            with around:
                found = steps(model, recipe, "packed", given, number)
        except Exception as fault:  # noqa: BLE001  a row of the table
            said = " ".join(str(fault).split())
            made.append(row(name, f"{type(fault).__name__}: {said[:80]} … {said[-200:]}", "it runs", False))
            continue
        plain = plain or found
        said = (
            f"{found['tokens_per_second'] / plain['tokens_per_second']:.2f} times as fast, "
            f"{found['peak_gib'] - plain['peak_gib']:+.2f} GiB, loss {found['loss']:.4f}"
        )
        near = math.isclose(found["loss"], plain["loss"], rel_tol=0.02)
        made.append(row(name, said, f"loss within 2 % of {plain['loss']:.4f}", near))
        del model, base
        _let_go()
    return [*made, *_resumed(check)]


def _resumed(check: Check) -> Rows:
    """A training killed after a checkpoint goes on; says whether it ends in the same bits."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = _folder(check, folder / "base", "gqa")
        stated = ["train", "--base", str(base), "--task", "mini_sentiment", "--set", "save_every=4", "--set", "rank=8"]
        command = [sys.executable, "-m", "finbench", *stated, "--set", "epochs=1", "--out"]
        whole = subprocess.run([*command, place + "/whole"], capture_output=True, text=True, check=False)
        if whole.returncode:
            return [row("resume", (whole.stderr.strip().splitlines() or ["no message"])[-1][:120], "trains", False)]
        process = subprocess.Popen([*command, place + "/killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if list((folder / "killed" / "checkpoints").glob("checkpoint-*/finbench-checkpoint.json")):
                process.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        killed = process.wait() == -signal.SIGKILL
        subprocess.run([*command, place + "/killed", "--resume"], capture_output=True, check=True)
        curves, files = [], []
        for name in ("whole", "killed"):
            record = json.loads((folder / name / "finbench.json").read_text())
            curves.append([loss for _, loss in record["training"]["loss_curve"]])
            files.append(record["files"])
        gap = max(abs(a - b) for a, b in zip(*curves, strict=True))
        bits = "the same bits" if files[0] == files[1] else "not the same bits"
        said = f"{'killed, then' if killed else 'NOT killed,'} resumed: losses differ by {gap:.1e}, {bits}"
        return [row("resume", said, "losses within 0.02", gap <= 0.02 and killed)]


def sharded(check: Check) -> Rows:
    """Section 6: FSDP by one process gives what the whole model gives."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = "29511"
    torch.distributed.init_process_group("nccl" if GPU else "gloo")
    half = bases.compute_dtype("auto") if GPU else torch.bfloat16
    found = []
    for spread in (False, True):
        model, recipe = with_lora(model_of(check.shape("gqa"), 16, half, check.seed))
        given = rows_like_fpb(8 if check.tiny else 32, model.config.vocab_size, 26, check.seed)
        if spread:
            speedups.shard(model, whole=True)
        found.append(answers_and_gradients(model, recipe, "shared", given, half))
    torch.distributed.destroy_process_group()
    gap = float((found[0][0] - found[1][0]).abs().max())
    alike = float(torch.nn.functional.cosine_similarity(found[0][1], found[1][1], dim=0))
    return [row("sharded beside whole", f"{gap:.3f} nat, cosine {alike:.5f}", f"≤ {NATS} nat, > {COSINE}",
                gap <= NATS and alike > COSINE)]  # fmt: skip


def served(check: Check) -> Rows:
    """Section 7: vLLM beside transformers, ranks, one adapter beside many."""
    if importlib.util.find_spec("vllm") is None:
        return [row("vLLM", "not installed", "", None)]
    from finbench.core import catalog
    from finbench.engines import HFEngine
    from finbench.engines.vllm import VLLMEngine
    from finbench.scoring import prompts

    [task] = prompts.load(catalog.expand(["mini_sentiment"]), None).values()
    asked = [
        type(one)("loglikelihood", one.doc, (one.args[0], f" {label}"), number, one.metadata)
        for one in prompts.requests(task, 20 if check.tiny else 60)
        for number, label in enumerate(("positive", "negative", "neutral"))
    ]
    made: Rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = bases.resolve(str(_folder(check, folder / "base", "1b")))
        dtype: Any = str(bases.compute_dtype("auto")).removeprefix("torch.")
        for rank in (8, 16, 64):
            adapter = _adapter(base.folder, folder / f"r{rank}", rank, rank)
            hf, said = HFEngine(base, dtype=dtype, merge=False), []
            for folder_or_base in (adapter, None):
                hf.use(folder_or_base)
                said.append([value for value, _ in hf.answer(asked, lambda _: None)])
            expected, beside = said
            del hf
            _let_go()
            engine = VLLMEngine(base, [adapter], dtype)
            engine.use(adapter)
            try:
                found = [value for value, _ in engine.answer(asked, lambda _: None)]
            finally:
                engine.close()
            gap, moved = _apart(found, expected), _apart(beside, expected)
            shown = f"{gap:.2g} nat apart (root mean square); the adapter moves {moved:.2g}"
            limit = "≤ a quarter of that"
            made.append(row(f"vLLM beside transformers, rank {rank}, {dtype}", shown, limit, gap <= moved / 4))
        many = [_adapter(base.folder, folder / f"m{number}", 16, number) for number in range(4 if check.tiny else 32)]
        speeds = []
        for folders in (many[:1], many):
            engine = VLLMEngine(base, folders, dtype)
            try:
                engine.answer_all(_in_turns(folders, asked, "warm"), lambda _: None)
                order = _in_turns(folders, asked * 4, "Text")
                start = time.perf_counter()
                engine.answer_all(order, lambda _: None)
                speeds.append(len(order) / (time.perf_counter() - start))
            finally:
                engine.close()
        ratio = speeds[1] / speeds[0]
        said = f"{speeds[0]:.0f} and {speeds[1]:.0f} requests/s: {ratio:.2f}"
        made.append(row(f"1 adapter and {len(many)} in turns", said, "≥ 0.6", check.fast(ratio >= 0.6)))
    return made


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Root mean square of the differences."""
    return math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def _in_turns(folders: Sequence[Path], asked: Sequence[Any], word: str) -> list[tuple[Path, Any]]:
    """Documents by the adapters in turns, each prompt once: nothing is found in a cache, with one adapter or many."""
    return [
        (
            folders[at // 3 % len(folders)],
            type(one)("loglikelihood", one.doc, (f"{word} {at // 3}. {one.args[0]}", one.args[1]), at, one.metadata),
        )
        for at, one in enumerate(asked)
    ]


def killed_server(check: Check) -> Rows:
    """Section 8: two adapters behind one address; when the command is killed, nothing stays."""
    if importlib.util.find_spec("vllm") is None:
        return [row("serve", "vLLM is not installed", "", None)]
    import urllib.request

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = _folder(check, folder / "base", "1b")
        adapters = [_adapter(base, folder / name, 16, number) for number, name in enumerate(("one", "two"))]
        command = [sys.executable, "-m", "finbench", "serve", "--base", str(base), "--port", "8765"]
        command += [part for adapter in adapters for part in ("--adapter", str(adapter))]
        log = folder / "log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            models: list[str] = []
            until = time.monotonic() + 300
            while process.poll() is None and time.monotonic() < until and len(models) < 3:
                time.sleep(1)
                with (
                    contextlib.suppress(OSError, ValueError),
                    urllib.request.urlopen("http://127.0.0.1:8765/v1/models", timeout=2) as answer,
                ):
                    models = [one["id"] for one in json.load(answer)["data"]]
            said: list[float] = []
            for name in models:
                body = {"model": name, "prompt": "Sales rose.", "max_tokens": 4, "temperature": 0, "logprobs": 1}
                request = urllib.request.Request(
                    "http://127.0.0.1:8765/v1/completions",
                    json.dumps(body).encode(),
                    {"Content-Type": "application/json"},
                )
                with (
                    contextlib.suppress(OSError, ValueError, LookupError, TypeError),
                    urllib.request.urlopen(request, timeout=60) as answer,
                ):
                    said.append(json.load(answer)["choices"][0]["logprobs"]["token_logprobs"][0])
            children = _descendants(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            until = time.monotonic() + 30
            while (left := [pid for pid in children if _lives(pid)]) and time.monotonic() < until:
                time.sleep(0.2)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        finally:
            for pid in [process.pid, *_descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        last = " ".join(log.read_text().split())[-160:] or "it said nothing"
    apart = len(set(said)) == 3
    return [
        row("serve: models", f"{len(models)}, {len(set(said))} answers" if models else last, "3, all apart", apart),
        row("serve: processes 30 s after kill -9", str(len(left)), "0", bool(children) and not left),
    ]


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        below = [child for child, above in parents.items() if above == parent]
        found += below
        waiting += below
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def planned(check: Check) -> Rows:
    """Section 9: what `finbench plan` says of sections 3 and 4, and which share of the peak would be right."""
    made: Rows = []
    kept = {**check.earlier.get("3", {}), **check.earlier.get("4", {})}
    card = _card_here()
    if not kept or card is None:
        return [row("finbench plan", "nothing was measured, or its table has no such card")]
    share = timing.share(card)[0]
    made.append(row("share of the peak that the plan takes", f"{share:.3f}"))
    for way, found in kept.items():
        bits, loop = way.split("-")
        recipe = recipes.recipe(None, {"tasks": ["mini_sentiment"], "bits": int(bits), "rank": 16, "alpha": 32})
        model = shapes.shaped(check.shape("8b"))
        layers, head = bases.layers_of(model), model.config.hidden_size * model.config.vocab_size
        operations = counting.counted(model, recipe, rows_like_fpb(4, 600, 26, check.seed)).operations
        work = timing.Work.of(recipe, layers, timing.trained(recipe, layers, 0), head, operations, False)
        seconds = timing.optimiser() + sum(work.seconds(card, share, *part)[0] for part in found["passes"])
        off = found["seconds"] / seconds - 1
        whole = [sum(part[column] for part in found["passes"]) for column in (0, 1)]
        products = found["seconds"] - timing.optimiser() - (len(found["passes"]) - 1) * work.elsewhere(card)
        refit = work.share_for(card, *whole, products)
        rate = found["tokens_per_second"]
        said = f"plan {rate * (1 + off):,.0f}, measured {rate:,.0f} tokens/s: {off:+.0%}; share {refit:.3f}"
        asked = loop != "padded"
        passed = check.fast(abs(off) <= 0.25) if asked else None
        made.append(row(f"finbench plan, {way}", said, "within 25 %" if asked else "", passed))
    return made


# ---------------------------------------------------------------- what they need


def _card_here() -> machines.Card | None:
    if not GPU:
        return machines.card("cpu")
    name = machines.known_as(torch.cuda.get_device_name(0))
    return machines.CARDS[name] if name else None


def _peak() -> float:
    """Dense TFLOP/s of the card or processor that is here; infinite for a card that is not in the table."""
    card = _card_here()
    return card.tflops if card else math.inf


def _h100() -> bool:
    return GPU and _card_here() is machines.CARDS["h100"]


def _work(shape: str, rank: int) -> float:
    """Operations a token that is run: forward and backward through frozen weights, 6 a trained number."""
    layers = bases.layers_of(shapes.shaped(shape))
    recipe = recipes.recipe(None, {"tasks": ["mini_sentiment"], "rank": rank})
    return 4 * timing.inner(layers) + 6 * timing.trained(recipe, layers, 0)


def _let_go() -> None:
    import gc

    gc.collect()
    if GPU:
        torch.cuda.empty_cache()


def _folder(check: Check, folder: Path, shape: str, tokenizer_only: bool = False) -> Path:
    """A base of random weights on the disk, with a byte-level tokenizer of 600 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from finbench.core import paths

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    raw.train([str(paths.shipped("tasks") / "mini" / "mini_sentiment.train.jsonl")], trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>").save_pretrained(folder)
    if not tokenizer_only:
        model = model_of(check.shape(shape), 16, bases.compute_dtype("auto"), check.seed)
        model.config.eos_token_id = model.config.pad_token_id = model.config.bos_token_id = 0
        model.save_pretrained(folder)
        del model
        _let_go()
    return folder


def _adapter(base: Path, folder: Path, rank: int, seed: int) -> Path:
    """A LoRA of random weights, as any other program would save it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    modules = ["q_proj", "v_proj", "o_proj"]
    stated = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), stated)
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.02)
    model.peft_config["default"].base_model_name_or_path = ""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    return folder


RUN: dict[str, Callable[[Check], Rows]] = {
    "0": versions,
    "1": packed_rows,
    "2": nf4,
    "3": short_rates,
    "4": long_rates,
    "5": options,
    "6": sharded,
    "7": served,
    "8": killed_server,
    "9": planned,
}


def main() -> None:
    """One section; its rows into RESULTS, even where it ends in a fault."""
    number, results, seed, *rest = sys.argv[1:]
    earlier = {Path(path).stem: json.loads(Path(path).read_text())["kept"] for path in rest if path != "--tiny"}
    quiet()
    check = Check(int(seed), "--tiny" in rest, earlier)
    rows: Rows = []
    try:
        rows = RUN[number](check)
    except Exception as fault:  # noqa: BLE001  a row of the table; the trace goes to the terminal
        import traceback

        traceback.print_exc()
        rows.append(row("it ended in a fault", f"{type(fault).__name__}: {str(fault)[:100]}", "no fault", False))
    Path(results).write_text(json.dumps({"rows": rows, "kept": check.kept}))


if __name__ == "__main__":
    main()
