"""The part of docs/methods.md on IR-QLoRA, ROSA and ReLoRA: what differs from the papers' code, and measurements."""

# ruff: noqa: E501 - the page's lines are as long as its tables need

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "irqlora_cpu.json"
HALVES = ("NF4", "NF4 + ICQ", "NF4 + IEC", "NF4 + ICQ + IEC")
HEAD = """
## IR-QLoRA

`--method irqlora` has two halves, each with a switch.

- **ICQ** (`--set icq=false` turns it off) shifts each block of 64 weights by its own tau before it
  is coded, so that the 16 codes carry more information.
- **IEC** (`--set iec=false` turns it off) adds a pooled and a repeated path around A and B, with two
  trained scalars for each layer.

Without both it is `qlora`, bit for bit.
When the adapter is saved, the two paths are folded into A and B, exactly (eq. 16).
Without ICQ the result is an ordinary LoRA of the NF4 base.
With ICQ the base has other codes. The shifts (a byte for each block) are saved beside A and B, and
the codes are made again from the published weights.
The folder's `peft_type` is then `IRQLORA`, so that peft stops instead of putting A and B on plain
NF4. In `finbench eval` the base beside the adapter is plain NF4, and the adapter brings its codes:
while it is active, the layers are held twice in 4 bits.

Where this differs from the paper or from its authors' code, and why:

| point | paper | authors' code | here | why |
|--|--|--|--|--|
| range of tau | 0.1 sigma around the median, sigma of N(0,1) | sigma = 0.541 absmax | the code's; `spread` is the 0.1 | their results come from it |
| values tried | 2n, n = 100 | 2n + 1, n = 51, 100 or 125 by script | at most 101 of those that can be stored, and 0 | entropy jumps where a weight changes its code; a value that is found and then rounded to 8 bits is no longer that value |
| tau the codes see | the stored one is implied | the unrounded one; dequantising adds the rounded one | the stored one, for both | else codes and values do not belong together |
| plain NF4 | never better, it says | not looked at | every block whose codes, as bitsandbytes makes them, have no more entropy keeps tau = 0 | some blocks would lose otherwise (below) |
| storage of tau | double quantisation, 16-bit scale | the same | signed 8 bits, one float32 for 256 | zero must be storable exactly |
| shapes | - | the number of weights a multiple of 16,384 | inputs a multiple of 64, else refused | a block's shift is then a constant times a sum of inputs |
| forward pass | - | the whole weight is dequantised in torch | the fused NF4 product, plus tau times sums over blocks of 64 inputs | exact, and tau's part is 1/64 of the work |
| layers | all | all | those that carry the adapter (`all-linear` by default) | the shifts are saved with it |
| pooled path | eqs. 12-14: concatenated copies | interleaved copies | eq. 16: interleaved | concatenated copies do not merge as eq. 16 says |
| sizes | gcd form | r must divide both | gcd form | any rank |
| dropout | - | the pooled input is not dropped | A and the pooled path see the same input | it trains what is merged |
| start | - | 16-bit and 4-bit model in memory together | likewise | the shifts are found in the weights |
"""
ENTROPY = """
**Entropy and storage**, every block of every layer of `smollm2-135m`
(`python benchmarks/irqlora_cpu.py entropy`).
The embedded copy of that base was once stored in 4 bits (Q4_1), so its weights lie on a grid;
Gaussian weights stand beside it.
"Error" is the squared error of the weights, as a multiple of NF4's.

| layers | blocks | bits of entropy: NF4 | ICQ | gain | blocks below NF4 | tau = 0 | error | bits a weight: NF4 | ICQ |
|--|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""
COSTS = """
**Cost**, {steps} steps of 8 rows of fpb, processor time of one thread ({cpu}, torch {torch}, {dtype}), on a machine with other work. NF4 is `qlora`.

| | trains | to start, s | a step, s | peak memory | on disk |
|--|--:|--:|--:|--:|--:|
"""
UNTRAINED = """
**Perplexity before any training**, {pages} pages of annual reports (evidence of financebench), {tokens} tokens each:
{values}. So more entropy is not a better model here: the shifts improve the codes, not the error that they leave.
"""
ABLATION = """
**Each half with and without**: {rows} rows of fpb, one epoch of {steps} steps, lr {lr:g}, {seeds}.
Macro-F1 is of {n} rows of fpb in its log-likelihood form (untrained: {base:.1f}).
Perplexity is of the same pages as above, on which no cell was trained.

| | macro-F1 | perplexity | loss at the end | seeds |
|--|--:|--:|--:|--:|
"""
MOVING = """
## ROSA and ReLoRA

At intervals (`every`: steps, or a share of the run) both fold what they have learnt into W and
continue with new factors.
So the rank of the whole update grows with each cycle: by twice the rank with `rosa` (new factors
less those taken out), by the rank with `relora`.
In training W is held in float32, whatever the base's dtype, and is in every checkpoint, so a run
that was killed in a cycle still ends in the same bits, on a processor.
On quantised weights both are refused, because a fold would be rounded away.

The difference to the published weights is saved as a LoRA of the rank that it has, by SVD.
`--set save_rank=64` cuts it; record and model card state what that lost, in weights and in
log-probabilities. `--set save=model` writes the whole model in float32.

| point | paper and authors' code | here | why |
|--|--|--|--|
| ROSA: which triples | "random"; in the code a window of neighbouring ones with a random start | a random subset, drawn from the seed; `pick=top` or `bottom` | as the paper says |
| ROSA: split of the singular values | a = US, b = V^T in the paper; several in the code | the square root to each side | the one the README recommends; steps of A and B are of one size |
| ROSA: scale | none by default | s = alpha / r, divided out of the factors at each start | W is split the same; s scales the steps, as in LoRA |
| ROSA: what is saved | the weights | the difference as a LoRA, or the weights | an adapter is smaller, and is served beside its base |
| ROSA: when | every epoch | `every`, a quarter of the run by default | fine-tuning runs have few epochs |
| ROSA: what trains beside | biases; no MLP layers | no biases; all linear layers | a trained bias is no low-rank update |
| ROSA: optimiser, learning rate | restarted; the schedule goes on | the same | |
| ROSA: half precision | the scripts load float16, for which there is no SVD | float32 | |
| ReLoRA: warm start | a share of full-rank training first | none | it is for training from scratch; a pretrained base is a warm start (in the paper most of the gain came from it) |
| ReLoRA: optimiser | reset, or 90 to 99 % of each moment cut by its own size | `prune=0.99` cuts both where the first is small; `prune=1` resets | where one is kept without the other, Adam divides by nothing: A has no gradient until B moves, and runs diverged |
| ReLoRA: learning rate | cosine with restarts from zero | the recipe's schedule (cosine by default) times a rise from zero over `restart_warmup` of a cycle | |
| ReLoRA: first A | zero in the code where the weights are kept | LoRA's own | with A and B both zero nothing would train |
"""


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _entropy(found: dict[str, Any], grid: dict[str, Any]) -> str:
    lines = []
    kinds = {name: row for name, row in found.items() if name != "Gaussian weights"}
    together = {key: sum(row[key] for row in kinds.values()) for key in next(iter(kinds.values()))}
    rows = {**{f"`{name}`": row for name, row in kinds.items()}, "**all**": together}
    for name, row in {**rows, "Gaussian weights": found["Gaussian weights"]}.items():
        plain, gained = row["nf4"] / row["blocks"], row["icq"] / row["blocks"]
        shares = f"{100 * row['unshifted'] / row['blocks']:.1f} %", f"{row['icq_error'] / row['nf4_error']:.3f}"
        bits = (f"{row[key] / row['weights']:.3f}" for key in ("nf4_bits", "icq_bits"))
        gain = f"{gained - plain:+.3f}"
        lines.append(
            _row(name, f"{row['blocks']:,}", f"{plain:.3f}", f"{gained:.3f}", gain, row["below"], *shares, *bits)
        )
    spent = f"\nThe search took {together['seconds']:.0f} s of processor time for all layers of the model.\n"
    if grid:
        late, ours = grid["rounded"], grid["storable"]
        spent += f"""On Gaussian weights the authors' grid of 201 values gives {grid["searched"]["entropy"]:.3f} bits (NF4 {grid["NF4"]["entropy"]:.3f}), with {100 * grid["searched"]["below"]:.1f} % of the blocks below NF4; rounded to
8 bits afterwards {late["entropy"]:.3f}, with {100 * late["below"]:.1f} % below; searching what can be stored {ours["entropy"]:.3f}, with {100 * ours["below"]:.1f} %.
"""
    return "".join(lines) + spent


def _costs(found: dict[str, Any]) -> str:
    first = next(iter(found.values()))
    head = COSTS.format(
        steps=first["steps"], cpu=first["hardware"]["cpu"], torch=first["packages"]["torch"], dtype=first["dtype"]
    )
    lines = []
    for name, row in found.items():
        sizes = f"{row['peak_memory_bytes'] / 1e9:.2f} GB", f"{row['bytes'] / 1e6:.1f} MB"
        times = f"{row['start_seconds']:.0f}", f"{row['step_seconds']:.2f}"
        lines.append(_row(name, f"{row['trainable_parameters']:,}", *times, *sizes))
    return head + "".join(lines)


def _spread(values: list[float]) -> str:
    middle = f"{statistics.mean(values):.2f}"
    return f"{middle} ± {statistics.stdev(values):.2f}" if len(values) > 1 else middle


def _ablation(found: dict[str, Any]) -> str:
    rows = list(found.values())
    first, seeds = rows[0], sorted({row["seed"] for row in rows})
    said = (
        f"seeds {', '.join(map(str, seeds))} (mean ± standard deviation)"
        if len(seeds) > 1
        else f"seed {seeds[0]} alone"
    )
    head = ABLATION.format(
        rows=first["rows"],
        steps=first["steps"],
        lr=first["lr"],
        seeds=said,
        n=first["n"],
        base=100 * first["base_macro_f1"],
    )
    lines = []
    for halves in HALVES:
        own = [row for row in rows if row["halves"] == halves]
        if own:
            scores = _spread([100 * row["macro_f1"] for row in own]), _spread([row["perplexity"] for row in own])
            lines.append(_row(halves, *scores, _spread([row["final_loss"] for row in own]), len(own)))
    missing = len(HALVES) * 3 - len(rows)
    note = f"\n{missing} of {len(HALVES) * 3} cells have not been run yet: `python benchmarks/irqlora_cpu.py ablation` goes on with them.\n"
    told = "\nNo half moves macro-F1 by more than seeds do; ICQ raises perplexity by more than they do.\n"
    return head + "".join(lines) + (note if missing else told)


def section() -> str:
    """Markdown from the committed results; a table whose measurement is not there is left out."""
    found = json.loads(RESULTS.read_text())
    parts = [HEAD, ENTROPY, _entropy(found["entropy"], found.get("free grid", {}))]
    if found["costs"]:
        parts.append(_costs(found["costs"]))
    if found["untrained"]:
        first = next(iter(found["untrained"].values()))
        values = ", ".join(f"{name} {row['perplexity']:.2f}" for name, row in found["untrained"].items())
        parts.append(UNTRAINED.format(pages=first["pages"], tokens=first["tokens"], values=values))
    if found["ablation"]:
        parts.append(_ablation(found["ablation"]))
    return "".join([*parts, MOVING])
