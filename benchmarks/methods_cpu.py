"""Every method on Financial PhraseBank with the embedded base, on one CPU thread, on the same rows.

    OMP_NUM_THREADS=1 python benchmarks/methods_cpu.py scores --data-dir DATA   trains and scores each method once
    OMP_NUM_THREADS=1 python benchmarks/methods_cpu.py costs --data-dir DATA    a few steps of each method and bits
    python benchmarks/methods_cpu.py plot                    accuracy against cost (wants matplotlib)
    python docs/generate.py                                  the tables of docs/methods.md

Both measure what is not in methods_cpu.json yet, each line in a process of its own, so that its peak memory is its own.
DATA is where ``finbench data import fpb Sentences_*Agree.txt`` has put the rows. Every method has its default learning
rate and one seed: this is what a method costs and that it learns, not which one is best. Costs are processor time,
which other processes on the machine lengthen less than time by the clock (``seconds``, ``tokens_per_second``): rslora
does the very work of lora, so what the two differ by is the noise. What a change of subspace costs (rosa, relora) is
not in the time of a step but beside it (``move_seconds``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finbench.training import recipes

HERE = Path(__file__).parent
RESULTS = HERE / "methods_cpu.json"
ROWS, BATCH, TESTS = 400, 16, 300  # of the scores
SMALL = 8  # of the costs: rows a step
STEPS = {"eva": 12, "adalora": 4}  # eva's start wants more batches than two, adalora's schedule more steps
SCORED: tuple[tuple[str, int], ...] = (
    *(("lora", 16), ("qlora", 4), ("dora", 16), ("vera", 16), ("pissa", 16), ("full", 16), ("loftq", 4)),
    *(("rslora", 16), ("lora+", 16), ("lora-fa", 16), ("eva", 16), ("adalora", 16), ("oft", 16), ("randlora", 16)),
    *(("olora", 16), ("irqlora", 4), ("rosa", 16), ("relora", 16)),
)


def read() -> dict[str, dict[str, Any]]:
    """The results so far: ``scores`` and ``costs`` by line, such as ``lora, 16 bits``."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"scores": {}, "costs": {}}


def key(method: str, bits: int) -> str:
    """The name of a line."""
    return f"{method}, {bits} bits"


def _keep(part: str, line: str, row: dict[str, Any]) -> None:
    found = read()
    found[part][line] = row
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _timed(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        before = time.process_time()
        try:
            return work(*arguments, **named)
        finally:
            spent.append(time.process_time() - before)

    return run


def train(
    method: str, bits: int, rows: int, batch: int, data_dir: Path | None, out: Path
) -> tuple[Path, dict[str, Any]]:
    """Train one line on ``rows`` rows; (adapter folder, what it cost)."""
    from finbench.methods.subspaces import Moving
    from finbench.training import runner

    started: list[float] = []
    fitted: list[float] = []
    moved: list[float] = []
    runner.begin = _timed(runner.begin, started)
    runner.fit = _timed(runner.fit, fitted)
    Moving.move = _timed(Moving.move, moved)  # type: ignore[method-assign]
    recipe = recipes.recipe(
        None, {"tasks": ["fpb"], "method": method, "bits": bits, "limit": rows, "batch_size": batch}
    )
    folder = out / recipe.name
    made = runner.train(recipe, folder, data_dir=data_dir)
    run = made.training
    return folder, {
        "method": method,
        "bits": bits,
        "lr": recipe.lr,
        "rows": run.rows,
        "steps": run.steps,
        "trainable_parameters": run.trainable_parameters,
        "start_seconds": round(started[0], 2),
        "step_seconds": round((fitted[0] - sum(moved)) / run.steps, 3),
        **({"move_seconds": round(sum(moved) / len(moved), 2)} if moved else {}),
        "seconds": run.seconds,
        "tokens_per_second": run.tokens_per_second,
        "peak_memory_bytes": run.peak_memory_bytes,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "final_loss": run.final_loss,
        "dtype": made.dtype,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "hardware": made.provenance.hardware,
        "packages": made.provenance.packages,
    }


def score(method: str, bits: int, data_dir: Path | None, out: Path) -> None:
    """Train one line, evaluate it, and add it to the results; the base alone too, if it is not there."""
    from finbench.evaluation import evaluator

    folder, row = train(method, bits, ROWS, BATCH, data_dir, out)
    for card in evaluator.evaluate([str(folder)], limit=TESTS, out=out / "cards", data_dir=data_dir):
        [found] = card.scores
        main = {"macro_f1": [found.main.value, found.main.low, found.main.high], "n": found.n}
        if card.subject.kind != "base":
            _keep("scores", key(method, bits), row | main)
        elif card.subject.bits == 16:
            _keep("scores", "base", main)


def cost(method: str, bits: int, data_dir: Path | None, out: Path) -> None:
    """Take a few steps and add their cost to the results."""
    rows = SMALL * STEPS.get(method, 2)
    _keep("costs", key(method, bits), train(method, bits, rows, SMALL, data_dir, out)[1])


def every(part: str, data_dir: Path | None) -> None:
    """Every line that the results do not hold yet, each in a process of its own."""
    from finbench.methods import METHODS

    # lora at 4 bits is qlora
    crossed = [(name, bits) for name, method in METHODS.items() for bits in method.bits if (name, bits) != ("lora", 4)]
    for method, bits in SCORED if part == "scores" else crossed:
        if key(method, bits) in read()[part]:
            continue
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, __file__, part, "--method", method, "--bits", str(bits), "--out", out]
            subprocess.run([*command, *(["--data-dir", str(data_dir)] if data_dir else [])], check=False)


def plot(target: Path = HERE.parent / "docs" / "methods_cpu.png") -> None:
    """Macro-F1 with its interval against the time of a step; the area of a dot is the peak memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    scores = read()["scores"]
    figure, axes = pyplot.subplots(figsize=(9, 5.4), dpi=130)
    colours = {16: "#2f6f9f", 8: "#b8862f", 4: "#9f3f5f"}
    shown = [name for name in scores if name != "base"]
    for bits, colour in colours.items():
        own = [name for name in shown if scores[name]["bits"] == bits]
        if not own:
            continue
        x = [scores[name]["step_seconds"] for name in own]
        y, low, high = ([100 * scores[name]["macro_f1"][at] for name in own] for at in range(3))
        down = [a - b for a, b in zip(y, low, strict=True)]
        up = [a - b for a, b in zip(high, y, strict=True)]
        sizes = [(6 * scores[name]["peak_memory_bytes"] / 1e9) ** 1.4 for name in own]
        axes.errorbar(x, y, yerr=[down, up], fmt="none", ecolor=colour, alpha=0.35)
        axes.scatter(x, y, s=sizes, color=colour, label=f"{bits} bits", zorder=3)
    _names(axes, [(scores[name]["step_seconds"], 100 * scores[name]["macro_f1"][0], name) for name in shown])
    axes.axhline(100 * scores["base"]["macro_f1"][0], color="#8a94a0", linestyle="--", linewidth=1)
    axes.annotate("the base, untrained", (0.01, 100 * scores["base"]["macro_f1"][0] + 1), fontsize=8, color="#68727f",
                  xycoords=("axes fraction", "data"))  # fmt: skip
    axes.set_xlabel(f"processor seconds a step of {BATCH} rows, one thread (larger dot: more peak memory)")
    axes.set_ylabel(f"macro-F1 on fpb in %, 95 % interval, n = {scores['base']['n']}")
    axes.set_title(f"smollm2-135m, {ROWS} rows, one epoch, default learning rates, one seed", fontsize=10)
    axes.grid(color="#dfe4ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.85))
    axes.margins(x=0.08)
    figure.tight_layout()
    figure.savefig(target, metadata={"Software": None})


def _names(axes: Any, points: list[tuple[float, float, str]]) -> None:
    """Name each dot at its right, or at its left where another name stands there."""
    span = max(x for x, _, _ in points) - min(x for x, _, _ in points)
    placed: list[tuple[float, float]] = []
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        right = all(abs(x - a) > 0.12 * span or abs(y - b) > 2.5 for a, b in placed)
        where = {"xytext": (7, 4)} if right else {"xytext": (-7, -10), "ha": "right"}
        axes.annotate(name.partition(",")[0], (x, y), textcoords="offset points", fontsize=8, **where)
        placed.append((x, y))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scores", "costs", "plot"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--bits", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "plot":
        plot()
    elif options.method is None:
        every(options.what, options.data_dir)
    elif options.what == "scores":
        score(options.method, options.bits, options.data_dir, options.out)
    else:
        cost(options.method, options.bits, options.data_dir, options.out)
