"""What GPT-2 124M would reach, dense and in factors, by a law through five small sizes.

    OMP_NUM_THREADS=1 python benchmarks/pretrain_scaling.py run --filings FOLDER [--workers 2]   repeated, it goes on
    python benchmarks/pretrain_scaling.py page                                     the tables of docs/pretrain.md

Text and tokenizer are those of pretrain_cpu.py. Each size trains on as many tokens a parameter of its dense model; the
largest reads its text 2.9 times. Rank is a quarter of the width, or the share of it at which GPT-2 124M would be 2.64
times smaller. The law is L = a + b C^-c: bits per byte L over operations of the whole training C,
a, b >= 0. Its interval is a jackknife over sizes, with Student's t; it knows nothing of other laws, rates or texts. Of
400 simulated lines (a = 1, c = 0.18, each loss off by a standard deviation of 0.01) it held the truth in 97 %, and half
of the intervals were wider than 0.50 bits per byte at 1e17 operations: five sizes tell little of one so far away.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "pretrain_scaling.json"
PAGE = HERE.parent / "docs" / "pretrain.md"
MARKS = ("<!-- by benchmarks/pretrain_scaling.py -->\n\n", "<!-- end of benchmarks/pretrain_scaling.py -->")
# width, layers, heads
SIZES = {"48": (48, 2, 2), "64": (64, 2, 2), "96": (96, 3, 3), "128": (128, 4, 4), "192": (192, 6, 6)}
KINDS: dict[str, Any] = {
    "dense": "dense",
    "lowrank": {"kind": "lowrank", "rank": 0.25},
    "cola": {"kind": "cola", "rank": 0.25},
    "sltrain": {"kind": "sltrain", "rank": 0.25},
    "lowrank d/16": {"kind": "lowrank", "rank": 1 / 16},
    "cola d/16": {"kind": "cola", "rank": 1 / 16},
    "sltrain d/22": {"kind": "sltrain", "rank": 0.045},
}
A_PARAMETER = 1.1  # tokens, as many as the text has for a width of 128
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # Student's t of 95 % for so many sizes
_EXPONENTS = np.geomspace(0.003, 3, 2000)


@dataclass(frozen=True)
class Law:
    """L = a + b C^-c."""

    a: float
    b: float
    c: float

    def at(self, compute: float) -> float:
        """L at so many operations."""
        return self.a + self.b * compute**-self.c


def fit(compute: Sequence[float], loss: Sequence[float]) -> Law:
    """The law of least squares with a, b >= 0: for each exponent of a grid a and b are linear; the best of all.

    Of less than three points, or of losses that fall nowhere, the end of the grid or a flat line.
    """
    x, y = np.log(np.asarray(compute, float)), np.asarray(loss, float)
    middle = x.mean()
    u = np.exp(-_EXPONENTS[:, None] * (x - middle))  # (exponents, points)
    spread = u - u.mean(axis=1, keepdims=True)
    b = (spread @ (y - y.mean())) / (spread**2).sum(axis=1)
    a = y.mean() - b * u.mean(axis=1)
    through = (u @ y) / (u**2).sum(axis=1)  # b where a is 0
    b, a = np.where(a < 0, through, b), np.maximum(a, 0)
    a, b = np.where(b < 0, y.mean(), a), np.maximum(b, 0)
    best = int(((a[:, None] + b[:, None] * u - y) ** 2).sum(axis=1).argmin())
    c = float(_EXPONENTS[best])
    return Law(float(a[best]), float(b[best]) * math.exp(c * middle), c)


def jackknife(whole: float, without: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of ``whole``, from its values without each size."""
    count = len(without)
    error = math.sqrt((count - 1) / count * sum((value - sum(without) / count) ** 2 for value in without))
    return whole - T[count] * error, whole + T[count] * error


def predicted(
    compute: Sequence[float], loss: Sequence[float], target: float
) -> tuple[float, tuple[float, float], list[float]]:
    """(L at ``target``, its interval, L there without each size)."""
    points = list(zip(compute, loss, strict=True))
    without = []
    for left_out in range(len(points)):
        part = [point for number, point in enumerate(points) if number != left_out]
        without.append(fit(*zip(*part, strict=True)).at(target))
    whole = fit(compute, loss).at(target)
    return whole, jackknife(whole, without), without


def stated(kind: str, size: str, filings: Path, out: Path) -> Any:
    """The recipe of a cell."""
    cpu = runpy.run_path(str(HERE / "pretrain_cpu.py"))
    width, layers, heads = SIZES[size]
    start = {"shape": "gpt2-tiny", "config": {"n_embd": width, "n_layer": layers, "n_head": heads}, "vocabulary": 2048}
    dense = 2048 * width + cpu["SCRATCH"]["context"] * width + layers * (12 * width**2 + 13 * width) + 2 * width
    own = {"start": start, "tokens": int(A_PARAMETER * dense), "structure": KINDS[kind], "eval_every": 10**6}
    name = f"scaling-{kind}-{size}".replace(" ", "-").replace("/", "-")
    return cpu["recipe"](name, {**cpu["SCRATCH"], "store": []}, own, filings, out)


def trained(kind: str, size: str, filings: Path, out: Path) -> dict[str, Any]:
    """One cell."""
    from finbench.pretraining import run

    recipe = stated(kind, size, filings, out)
    done = run.pretrain(recipe, out / recipe.name, resume=True)
    model = json.loads(done.to_json())["models"][0]  # type: ignore[union-attr]
    keys = ("parameters", "dense_parameters", "flops_training", "steps", "tokens", "seconds", "bits_curve")
    return {key: model[key] for key in keys}


def target(kind: str) -> dict[str, float]:
    """GPT-2 124M with as many tokens a parameter: parameters, tokens and operations, counted."""
    from finbench.pretraining import members, spec

    class Counted:
        """GPT-2's tokenizer, as far as sizes need it."""

        bos_token_id = eos_token_id = 50256

        def __len__(self) -> int:
            return 50257

    recipe = spec.PretrainRecipe.parse(
        {
            "name": "target",
            "start": {"shape": "gpt2-124m", "tokenizer": "gpt2"},
            "structure": KINDS[kind],
            "data": [{"text": "t"}],
            "context": 1024,
            "steps": 1,
        },
        "target",
    )
    size = members.size(members.members(recipe, Counted())[0], recipe)
    tokens = A_PARAMETER * size.done.before
    return {"parameters": size.parameters, "tokens": tokens, "compute": size.flops.training * tokens}


def read() -> dict[str, Any]:
    """The cells so far, by kind and size."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def every(filings: Path, out: Path, workers: int) -> None:
    """Every cell that is not there, the smallest size of all kinds first, each in a process of its own."""
    cells = [(kind, size) for size in SIZES for kind in KINDS if size not in read().get(kind, {})]
    runpy.run_path(str(HERE / "pretrain_cpu.py"))["bible"](out)  # once, before several want it
    with ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {pool.submit(trained, kind, size, filings, out): (kind, size) for kind, size in cells}
        for done in as_completed(waiting):
            kind, size = waiting[done]
            found = read()
            found.setdefault(kind, {})[size] = done.result()
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def page() -> str:
    """What was run; and the prediction for 124M, where three sizes of a kind or more are there."""
    found = read()
    lines = ["| model | width | parameters | tokens | operations | bits per byte |", "|--|--:|--:|--:|--:|--:|"]
    points: dict[str, tuple[list[float], list[float]]] = {}
    for kind in KINDS:
        for size, cell in sorted(found.get(kind, {}).items(), key=lambda one: int(one[0])):
            compute, bits = cell["flops_training"] * cell["tokens"], cell["bits_curve"][-1][1]["all"]
            xs, ys = points.setdefault(kind, ([], []))
            xs.append(compute)
            ys.append(bits)
            lines.append(
                f"| {kind} | {size} | {cell['parameters']:,} | {cell['tokens']:,} | {compute:.2e} | {bits:.4f} |"
            )
    if any(len(xs) < len(SIZES) for xs, _ in points.values()) or "dense" not in points:
        return "\n".join([*lines, "", "Not all sizes were run, so no law is drawn through them.", ""])
    lines += [
        "",
        "| GPT-2 124M | operations | a | b | c | bits per byte | against dense |",
        "|--|--:|--:|--:|--:|--:|--:|",
    ]
    dense, _, dense_without = predicted(*points["dense"], target("dense")["compute"])
    for kind, (xs, ys) in points.items():
        compute = target(kind)["compute"]
        whole, (low, high), without = predicted(xs, ys, compute)
        gap = jackknife(whole - dense, [one - two for one, two in zip(without, dense_without, strict=True)])
        law = fit(xs, ys)
        against = "" if kind == "dense" else f"{whole - dense:+.3f} [{gap[0]:+.3f}, {gap[1]:+.3f}]"
        lines.append(
            f"| {kind} | {compute:.2e} | {law.a:.3f} | {law.b:.3g} | {law.c:.3f} | {whole:.3f} [{low:.3f}, {high:.3f}] "
            f"| {against} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "page"))
    parser.add_argument("--filings", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/pretrain-scaling"))
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    if given.part == "page":
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        PAGE.write_text(before + MARKS[0] + page() + "\n" + MARKS[1] + rest.partition(MARKS[1])[2], encoding="utf-8")
        return
    given.out.mkdir(parents=True, exist_ok=True)
    every(given.filings, given.out, given.workers)


if __name__ == "__main__":
    main()
