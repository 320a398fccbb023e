"""IR-QLoRA on the embedded base: entropy and storage of its codes, cost of a step, and each half with and without.

    OMP_NUM_THREADS=1 python benchmarks/irqlora_cpu.py entropy                  every block of every layer
    OMP_NUM_THREADS=1 python benchmarks/irqlora_cpu.py untrained --data-dir DATA    perplexity before any training
    OMP_NUM_THREADS=1 python benchmarks/irqlora_cpu.py costs --data-dir DATA    two steps of each, a process each
    OMP_NUM_THREADS=1 python benchmarks/irqlora_cpu.py ablation --data-dir DATA
    python docs/generate.py                                                     the tables of docs/methods.md

The ablation trains qlora's NF4 base with neither half, with each and with both, on a few rows of fpb, three seeds, and
goes on where it was stopped: what irqlora_cpu.json holds is not measured again. Perplexity is that of pages of annual
reports (the evidence texts of financebench), which no cell was trained on. DATA is where ``finbench data import`` has
put fpb and financebench.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finbench.training import recipes

RESULTS = Path(__file__).parent / "irqlora_cpu.json"
HALVES: dict[str, dict[str, bool]] = {
    "NF4": {"icq": False, "iec": False},
    "NF4 + ICQ": {"icq": True, "iec": False},
    "NF4 + IEC": {"icq": False, "iec": True},
    "NF4 + ICQ + IEC": {"icq": True, "iec": True},
}
SEEDS = (0, 1, 2)
ROWS, BATCH, TESTS = 256, 8, 300  # of the ablation
PAGES, TOKENS = 8, 384  # of the perplexity
STEPS = 2  # of the costs


def read() -> dict[str, Any]:
    """The results so far."""
    if RESULTS.is_file():
        return json.loads(RESULTS.read_text())
    return {"entropy": {}, "untrained": {}, "costs": {}, "ablation": {}}


def _keep(part: str, line: str, row: dict[str, Any]) -> None:
    found = read()
    found.setdefault(part, {})[line] = row
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _base() -> Any:
    from finbench.models import bases

    return bases.resolve("smollm2-135m", "wheel")


def entropy() -> None:
    """Entropy of NF4's codes and of the calibrated ones, and the error of each, over all blocks of a kind of layer."""
    import bitsandbytes as bnb
    import torch

    from finbench.methods import icq
    from finbench.models import bases

    model, _ = bases.load(_base(), 16, torch.bfloat16)
    layers = [(n.rpartition(".")[2], m.weight.data) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    layers = [(kind, weight) for kind, weight in layers if kind != "lm_head"]
    generator = torch.Generator().manual_seed(0)
    layers += [("Gaussian weights", torch.randn(576, 576, generator=generator) * 0.02) for _ in range(4)]
    sums: dict[str, dict[str, float]] = {}
    for kind, stored in layers:
        weight, before = stored.float(), time.process_time()
        shift, scale = icq.calibrate(weight, 0.1)
        spent = time.process_time() - before
        tau = icq.expand(shift, scale, (weight.shape[0], weight.shape[1]))
        found = []
        for moved in (torch.zeros_like(tau), tau):
            packed, state = icq.quantised(weight, moved)
            back = bnb.functional.dequantize_4bit(packed, state) + moved.repeat_interleave(icq.BLOCK, dim=1)
            held = 8 * packed.numel() + 8 * state.absmax.numel() + 32 * state.state2.absmax.numel()
            found.append((icq.entropy(icq.codes(packed)), float((back - weight).square().sum()), held))
        (plain, error, bits), (gained, other, _) = found
        row = {
            "layers": 1,
            "weights": weight.numel(),
            "blocks": len(shift),
            "nf4": float(plain.sum()),
            "icq": float(gained.sum()),
            "below": int((gained < plain).sum()),
            "unshifted": int((shift == 0).sum()),
            "nf4_error": error,
            "icq_error": other,
            "nf4_bits": bits,
            "icq_bits": bits + 8 * shift.numel() + 32 * scale.numel(),
            "seconds": spent,
        }
        total = sums.setdefault(kind, dict.fromkeys(row, 0))
        sums[kind] = {key: total[key] + value for key, value in row.items()}
    for kind, row in sums.items():
        _keep("entropy", kind, row)


def free_grid() -> None:
    """Gaussian weights with tau searched on the authors' grid of 201 values, as found and then rounded to 8 bits."""
    import torch

    from finbench.methods import icq

    weight = torch.randn(576, 576, generator=torch.Generator().manual_seed(0)) * 0.02
    blocks = weight.view(-1, icq.BLOCK)

    def entropies(tau: Any) -> Any:
        return icq.entropy(icq.codes(icq.quantised(weight, tau.view(576, -1))[0]))

    middle, half = blocks.median(dim=1).values, 0.1 * 0.541 * blocks.abs().amax(dim=1)
    best, tau = torch.full_like(middle, -1.0), torch.zeros_like(middle)
    for share in torch.linspace(-1, 1, 201):
        candidate = middle + share * half
        found = entropies(candidate)
        tau, best = torch.where(found > best, candidate, tau), torch.maximum(found, best)
    groups = torch.nn.functional.pad(tau, (0, -len(tau) % icq.GROUP)).view(-1, icq.GROUP)
    scale = (groups.abs().amax(dim=1) / 127).repeat_interleave(icq.GROUP)[: len(tau)]
    rounded = entropies((tau / scale).round() * scale)
    plain, ours = entropies(torch.zeros_like(tau)), entropies(icq.expand(*icq.calibrate(weight, 0.1), (576, 576)))
    for line, found in (("NF4", plain), ("searched", best), ("rounded", rounded), ("storable", ours)):
        _keep("free grid", line, {"entropy": float(found.mean()), "below": float((found < plain).float().mean())})


def _recipe(halves: str, seed: int, rows: int) -> Any:

    stated = {"method": "irqlora", "tasks": ["fpb"], "limit": rows, "batch_size": BATCH, "seed": seed}
    return recipes.recipe(None, {**stated, **HALVES[halves]})


def cost(halves: str, data_dir: Path | None) -> None:
    """Time and memory of a few steps; of NF4 alone it is what qlora costs."""
    from finbench.training import runner

    before: dict[str, float] = {}
    real = runner.fit

    def timed(*arguments: Any, **named: Any) -> Any:
        before["fit"] = time.process_time()
        found = real(*arguments, **named)
        before["end"] = time.process_time()
        return found

    runner.fit = timed
    began = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out) / "a"
        made = runner.train(_recipe(halves, 0, BATCH * STEPS), folder, data_dir=data_dir)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    run = made.training
    row = {
        "steps": run.steps,
        "trainable_parameters": run.trainable_parameters,
        "start_seconds": round(before["fit"] - began, 2),
        "step_seconds": round((before["end"] - before["fit"]) / run.steps, 3),
        "peak_memory_bytes": run.peak_memory_bytes,
        "bytes": size,
        "dtype": made.dtype,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "hardware": made.provenance.hardware,
        "packages": made.provenance.packages,
    }
    _keep("costs", halves, row)


def _remembered() -> None:
    """Calibrate equal weights once a process: the shifts follow from the weights alone."""
    from finbench.methods import icq

    real: Callable[..., Any] = icq.calibrate
    known: dict[str, Any] = {}

    def calibrate(weight: Any, spread: float) -> Any:
        key = hashlib.sha256(weight.numpy().tobytes()).hexdigest() + str(spread)
        if key not in known:
            known[key] = real(weight, spread)
        return known[key]

    icq.calibrate = calibrate


def perplexity(model: Any, tokenizer: Any, data_dir: Path) -> float:
    """exp of the mean loss a token over the first tokens of pages of annual reports."""
    import torch

    rows = [json.loads(line) for line in (data_dir / "financebench" / "test.jsonl").read_text().splitlines()]
    pages = (tokenizer.encode(str(row["text"])) for row in rows)
    chosen = [page[:TOKENS] for page in pages if len(page) >= TOKENS][:PAGES]
    loss, count = 0.0, 0
    for page in chosen:
        ids = torch.tensor([page])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].float()
        loss += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(page) - 1
    return math.exp(loss / count)


def untrained(data_dir: Path) -> None:
    """Perplexity of the base as published, in NF4 and in calibrated codes."""
    from finbench.methods import icq, quantise
    from finbench.models import bases

    dtype = bases.compute_dtype("auto")
    full, tokenizer = bases.load(_base(), 16, dtype)
    low, _ = bases.load(_base(), 4, dtype)
    for line, model in (("16 bits", full), ("NF4", low)):
        if line not in read().get("untrained", {}):
            value = perplexity(model, tokenizer, data_dir)
            _keep("untrained", line, {"perplexity": value, "pages": PAGES, "tokens": TOKENS})
    if "NF4 + ICQ" in read()["untrained"]:
        return
    for name, layer in list(low.named_modules()):
        if quantise.dequantised(layer) is not None:
            weight = full.get_submodule(name).weight.data.float()
            place, _, leaf = name.rpartition(".")
            shifted = icq.ShiftedLinear4bit(layer, weight, *icq.calibrate(weight, 0.1))
            setattr(low.get_submodule(place), leaf, shifted)
    value = perplexity(low, tokenizer, data_dir)
    _keep("untrained", "NF4 + ICQ", {"perplexity": value, "pages": PAGES, "tokens": TOKENS})


def ablation(data_dir: Path, home: Path) -> None:
    """Every cell that is not there yet, seed by seed."""
    from finbench.evaluation import evaluator
    from finbench.models import attaching, bases
    from finbench.training import runner

    _remembered()
    for seed in SEEDS:
        for halves in HALVES:
            cell = f"{halves}, seed {seed}"
            if cell in read()["ablation"]:
                continue
            recipe = _recipe(halves, seed, ROWS)
            folder = home / cell.replace(", seed ", "-s").replace(" + ", "-").lower()
            made = runner.train(recipe, folder, data_dir=data_dir)
            cards = evaluator.evaluate(
                [str(folder)], tasks=["fpb_mc"], limit=TESTS, out=home / "cards", data_dir=data_dir
            )
            found = {card.subject.kind: card.scores[0] for card in cards}
            model, tokenizer = bases.load(_base(), 4, bases.compute_dtype("auto"))
            model = attaching.attach(model, folder, _base()).eval()
            row = {
                "halves": halves,
                "seed": seed,
                "rows": made.training.rows,
                "steps": made.training.steps,
                "lr": recipe.lr,
                "final_loss": made.training.final_loss,
                "macro_f1": found["peft"].main.value,
                "base_macro_f1": found["base"].main.value,
                "n": found["peft"].n,
                "perplexity": perplexity(model, tokenizer, data_dir),
            }
            _keep("ablation", cell, row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("entropy", "untrained", "costs", "ablation"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--home", type=Path, default=Path("runs/irqlora"), help="where the ablation keeps its adapters")
    parser.add_argument("--halves", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "entropy":
        entropy()
        free_grid()
    elif options.what == "untrained":
        untrained(options.data_dir)
    elif options.what == "ablation":
        ablation(options.data_dir, options.home)
    elif options.halves:
        cost(options.halves, options.data_dir)
    else:
        for halves in [line for line in HALVES if line not in read()["costs"]]:
            command = [sys.executable, __file__, "costs", "--halves", halves]
            subprocess.run([*command, *(["--data-dir", str(options.data_dir)] if options.data_dir else [])], check=True)
