"""Every method on Financial PhraseBank with the embedded base, on one CPU thread, on the same rows.

    OMP_NUM_THREADS=1 python benchmarks/methods_cpu.py run --data-dir DATA    what is not in the results yet
    python benchmarks/methods_cpu.py table                                    the table of docs/methods.md

DATA is where ``finbench data import fpb Sentences_*Agree.txt`` has put the rows. Each line trains in a process of its
own, so that its peak memory is its own. Every method has its default learning rate and one seed: this is what a step
costs and that each method learns, not which method is best.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "methods_cpu.json"
ROWS, TESTS = 400, 300
LINES: tuple[tuple[str, int], ...] = (
    *(("lora", 16), ("qlora", 4), ("dora", 16), ("vera", 16), ("pissa", 16), ("full", 16), ("loftq", 4)),
    *(("rslora", 16), ("lora+", 16), ("lora-fa", 16), ("eva", 16), ("adalora", 16), ("oft", 16), ("randlora", 16)),
    *(("olora", 16), ("lora", 8), ("pissa", 4), ("dora", 4)),
)


def read() -> dict[str, Any]:
    """The results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def one(method: str, bits: int, data_dir: Path | None, out: Path) -> None:
    """Train and score one line, and add it to the results."""
    from finbench import catalog, evaluation, training

    recipe = catalog.recipe(None, {"tasks": ["fpb"], "method": method, "bits": bits, "limit": ROWS, "batch_size": 16})
    folder = out / recipe.name
    made = training.train(recipe, folder, data_dir=data_dir)
    card = evaluation.evaluate([str(folder)], limit=TESTS, out=out / "cards", data_dir=data_dir)[-1]
    [score] = card.scores
    weights = list(folder.glob("*.safetensors"))
    found = read()
    found[f"{method}, {bits} bits"] = {
        "method": method,
        "bits": bits,
        "lr": recipe.lr,
        "macro_f1": [score.main.value, score.main.low, score.main.high],
        "n": score.n,
        "rows": made.training.rows,
        "steps": made.training.steps,
        "trainable_parameters": made.training.trainable_parameters,
        "seconds": made.training.seconds,
        "tokens_per_second": made.training.tokens_per_second,
        "peak_memory_bytes": made.training.peak_memory_bytes,
        "bytes": sum(path.stat().st_size for path in weights),
        "final_loss": made.training.final_loss,
        "dtype": made.dtype,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "hardware": made.provenance.hardware,
        "packages": made.provenance.packages,
    }
    if "base" not in found:
        base = evaluation.evaluate(
            [], model="smollm2-135m", tasks=["fpb"], limit=TESTS, out=out / "cards", data_dir=data_dir
        )
        main = base[0].scores[0].main
        found["base"] = {"macro_f1": [main.value, main.low, main.high], "n": base[0].scores[0].n}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def run(data_dir: Path | None) -> None:
    """Every line that the results do not hold yet, each in a process of its own."""
    for method, bits in LINES:
        if f"{method}, {bits} bits" in read():
            continue
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, __file__, "one", "--method", method, "--bits", str(bits), "--out", out]
            subprocess.run([*command, *(["--data-dir", str(data_dir)] if data_dir else [])], check=False)


def table() -> str:
    """Markdown, in the order of the methods."""
    found = read()
    lines = [
        "| method, bits | macro-F1, 95 % interval | trains | lr | tokens/s | s a step | peak memory | on disk |",
        "|--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in found.items():
        value, low, high = (100 * number for number in row["macro_f1"])
        score = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        if name == "base":
            lines.append(f"| base, untrained | {score} | | | | | | |")
            continue
        lines.append(
            f"| {name} | {score} | {row['trainable_parameters']:,} | {row['lr']:g} | {row['tokens_per_second']:,.0f} "
            f"| {row['seconds'] / row['steps']:.2f} | {row['peak_memory_bytes'] / 1e9:.2f} GB "
            f"| {row['bytes'] / 1e6:.1f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "one", "table"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--method")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "one":
        one(options.method, options.bits, options.data_dir, options.out)
    elif options.what == "run":
        run(options.data_dir)
    else:
        print(table())
