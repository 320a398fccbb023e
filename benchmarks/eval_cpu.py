"""Scoring, side by side: lm-eval's HFLM at its best batch size, and finbench's token trees, on the same requests.

    python benchmarks/eval_cpu.py run --data-dir DATA --adapter ./folder     # writes benchmarks/eval_cpu.json
    python benchmarks/eval_cpu.py errors --data-dir DATA                     # adds whose answers are nearer to float64
    python benchmarks/eval_cpu.py details --data-dir DATA --adapter ./folder # adds where our own time goes
    python benchmarks/eval_cpu.py page                                       # docs/speed.md, from what was written

The two take turns on the same encoded requests in one process (compute only: no loading, no rendering, and for
log-likelihoods no tokenising), so that other work on the machine slows both. The fastest of the repeats counts.
On a machine with other work take processor time of one thread (OMP_NUM_THREADS=1, --clock cpu).
The floor is the arithmetic of the tokens that must be run, at the matrix product rate of this machine at that moment.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from finbench.core import catalog, environment
from finbench.core.console import quiet, say
from finbench.core.prose import wrapped
from finbench.engines import choices, generation
from finbench.engines.lm import TreeLM
from finbench.models import bases
from finbench.scoring import prompts

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "speed.md"
HEAD = """\
# Speed of scoring

Written by `python benchmarks/eval_cpu.py page` from `benchmarks/eval_cpu.json`.

lm-eval's `HFLM` at its best batch size and finbench's engine take turns on the same requests in one
process. Only the computation counts, without loading and rendering.
SmolLM2-135M, {cores} cores of {cpu}, torch {torch}, transformers {transformers}, lm-eval {lmeval}.

The floor is the arithmetic of the tokens that must be run, each once, at the speed that matrix
products had on this machine at that moment.
The difference is the largest one of log-likelihoods. Predictions never differed, except for ties.

"""
TAIL = """\
## Where the two differ by more than 1e-4

Sums in float32 are rounded, and more so for longer continuations.
The same requests in float64, one at a time, show which side is nearer:

| work | largest error of lm-eval | largest error of finbench |
|--|--:|--:|
{errors}

## Where a goal is missed

- **fpb, zero-shot, adapter.** {products:.0%} of our time is in torch's matrix products (its profiler,
  {documents} documents). That is the floor, apart from the shape of the products.
  The merged adapter costs nothing over the base.
  Seconds for the same documents, by the tokens of a batch: {batches}. We take 512.
- **139 candidate tags.** A us-gaap tag has about eight tokens, so the answers alone are 139 branches
  of eight tokens, which both sides must run.
  The context, which we run once and lm-eval 139 times, is hardly longer.
  Even the floor does not allow 20 times.
- **fpb generated, base.** The untrained base writes on to the limit of twelve tokens.
  A step of decoding reads every weight, for two rows as for sixty ({two:.2f} s against
  {sixty:.2f} s), so finished rows make room for waiting ones.
"""
BATCHES = (16, 32, 64)
# name, task, shots, rows, goal
WORKS = (
    ("fpb, zero-shot, base", "fpb_mc", 0, 64, 2.5),
    ("fpb, zero-shot, adapter", "fpb_mc", 0, 64, 4.0),
    ("fpb, 5-shot", "fpb_mc", 5, 48, 10.0),
    ("nwgi, 7 labels", "nwgi_mc", 0, 16, 6.0),
    ("fnxl, 139 candidate tags", "fnxl_mc", 0, 2, 20.0),
    ("fpb generated, base", "fpb", 0, 128, 2.0),
    ("fpb generated, adapter", "fpb", 0, 128, 2.0),
    ("piqa", "piqa", 0, 16, None),
    ("winogrande", "winogrande", 0, 24, None),
)


def requests(work: tuple[Any, ...], data_dir: Path | None) -> list[Any]:
    """The lm-eval requests of a work."""
    name, task, shots, rows, _ = work
    [lm_task] = prompts.load(catalog.expand([task]), data_dir, shots).values()
    asked = prompts.requests(lm_task, rows)
    if "139" not in name:
        return asked
    # the answers of the train split, most frequent first, stand in for FiNER-139's own tags
    answers = [
        str(lm_task.doc_to_choice(row)[prompts.gold_choice(lm_task, row)]) for row in prompts.rows(lm_task, "train")
    ]
    tags = sorted(dict.fromkeys(answers), key=lambda tag: -answers.count(tag))[:139]
    made = []
    for one in (request for request in asked if request.idx == 0):
        text = one.args[0].partition(" Choose one of these")[0] + " Answer with the tag only.\nAnswer:"
        for number, tag in enumerate(tags):
            made.append(type(one)("loglikelihood", one.doc, (text, f" {tag}"), number, one.metadata))
    return made


class Side:
    """One of the two, ready to be timed."""

    def __init__(self, lm: Any, asked: list[Any], clock: Any) -> None:
        self.lm, self.asked, self.clock = lm, asked, clock
        self.generates = asked[0].request_type == "generate_until"
        self.encoded = [] if self.generates else [(one.args, *encode(lm, *one.args)) for one in asked]

    def run(self, share: int = 1) -> tuple[float, list[Any]]:
        """Seconds and answers; of every ``share``-th document only."""
        chosen = [at for at, one in enumerate(self.asked) if one.doc_id % share == 0]
        if isinstance(self.lm, TreeLM):
            self.lm.changed()  # what was computed before is not kept
        start = self.clock()
        if self.generates:
            answers = self.lm.generate_until([self.asked[at] for at in chosen], disable_tqdm=True)
        else:
            answers = self.lm._loglikelihood_tokens([self.encoded[at] for at in chosen], disable_tqdm=True)
        return self.clock() - start, answers


def encode(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """A pair in tokens, as lm-eval encodes it."""
    encoded: tuple[list[int], list[int]] = lm._encode_pair(context, continuation)
    return encoded


def rate(dtype: torch.dtype, clock: Any) -> float:
    """FLOP/s of matrix products of the model's size, here and now."""
    left, right = torch.randn(512, 576).to(dtype), torch.randn(576, 1536).to(dtype)
    best = 0.0
    for _ in range(30):
        start = clock()
        for _ in range(10):
            left @ right
        best = max(best, 10 * 2 * 512 * 576 * 1536 / (clock() - start))
    return best


def floor(lm: Any, side: Side, per_second: float) -> float | None:
    """Seconds of arithmetic for the tokens that trees run, at ``per_second``; None for generation."""
    if side.generates:
        return None
    plan = choices.plan([(context, continuation) for _, context, continuation in side.encoded], lm.max_length)
    weights = sum(p.numel() for name, p in lm.bare.named_parameters() if p.dim() == 2 and "embed" not in name)
    head = lm.bare.get_output_embeddings().weight.numel()
    nodes = sum(len(tree.wanted) for tree in plan.trees)
    tokens = len(plan.prefix) + sum(len(tree.tokens) for tree in plan.trees)
    return 2 * (tokens * weights + nodes * head) / per_second


def agreement(asked: list[Any], ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    """How equal two sets of answers are."""
    if asked[0].request_type == "generate_until":
        return {"different_texts": sum(a != b for a, b in zip(ours, theirs, strict=True))}
    documents: dict[int, list[int]] = {}
    for at, one in enumerate(asked):
        documents.setdefault(one.doc_id, []).append(at)
    moved = ties = 0
    for group in documents.values():
        a, b = (max(group, key=lambda at, side=side: side[at][0]) for side in (ours, theirs))
        tied = abs(theirs[a][0] - theirs[b][0]) <= 2e-4
        moved, ties = moved + (a != b and not tied), ties + (a != b and tied)
    gap = max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True))
    return {"largest_difference": float(f"{gap:.2g}"), "different_predictions": moved, "ties": ties}


def measure(
    work: tuple[Any, ...],
    dtype: torch.dtype,
    data_dir: Path | None,
    adapter: str,
    repeats: int,
    clock: Any,
    batches: tuple[int, ...] = BATCHES,
) -> Any:
    """One row of the table."""
    name, *_, goal = work
    asked = requests(work, data_dir)
    folder = str(bases.resolve("smollm2-135m").folder)
    common: dict[str, Any] = {"pretrained": folder, "dtype": str(dtype).removeprefix("torch."), "device": "cpu"}
    if "adapter" in name:
        common["peft"] = adapter
    ours = Side(TreeLM(**common), asked, clock)
    theirs = Side(HFLM(**common, batch_size=batches[0]), asked, clock)
    share = max(2, len({one.doc_id for one in asked}) // 12)
    trials = {}
    for size in batches:
        theirs.lm.batch_size_per_gpu = size
        trials[size] = theirs.run(share)[0]
    theirs.lm.batch_size_per_gpu = min(trials, key=lambda size: trials[size])
    ours.run(share)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        (b, stock), (a, found) = theirs.run(), ours.run()
        times["ours"].append(round(a, 3))
        times["theirs"].append(round(b, 3))
    least = floor(ours.lm, ours, rate(dtype, clock))
    row = {
        "work": name,
        "dtype": common["dtype"],
        "documents": len({one.doc_id for one in asked}),
        "requests": len(asked),
        "stock_batch": theirs.lm.batch_size_per_gpu,
        "stock_seconds": min(times["theirs"]),
        "seconds": min(times["ours"]),
        "all": times,
        "ratio": round(min(times["theirs"]) / min(times["ours"]), 2),
        "goal": goal,
        "floor_seconds": None if least is None else round(least, 3),
        **agreement(asked, found, stock),
    }
    say(json.dumps(row))
    return row


def errors(work: tuple[Any, ...], data_dir: Path | None) -> dict[str, float]:
    """Largest errors of both in float32, against float64 without batches."""
    asked = requests(work, data_dir)
    folder = str(bases.resolve("smollm2-135m").folder)
    found = {}
    for name, kind, dtype in (("exact", HFLM, "float64"), ("theirs", HFLM, "float32"), ("ours", TreeLM, "float32")):
        options = {} if kind is TreeLM else {"batch_size": 1 if name == "exact" else 16}
        side = Side(kind(pretrained=folder, dtype=dtype, device="cpu", **options), asked, time.perf_counter)
        found[name] = [answer[0] for answer in side.run()[1]]
    gaps = {
        name: max(abs(a - b) for a, b in zip(found[name], found["exact"], strict=True)) for name in ("theirs", "ours")
    }
    return {name: float(f"{gap:.2g}") for name, gap in gaps.items()}


def details(data_dir: Path | None, adapter: str, clock: Any, documents: int = 48, repeats: int = 3) -> dict[str, Any]:
    """Share of the matrix products in our time, seconds by the tokens of a batch, seconds of a step of decoding."""
    asked = requests(("", "fpb_mc", 0, documents, None), data_dir)
    lm = TreeLM(pretrained=str(bases.resolve("smollm2-135m").folder), dtype="float32", device="cpu", peft=adapter)
    side = Side(lm, asked, clock)
    side.run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        side.run()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    products = sum(times.get(f"aten::{name}", 0) for name in ("mm", "addmm", "bmm"))
    batches: dict[int, list[float]] = {tokens: [] for tokens in (256, 384, 512, 768, 1024, 2048)}
    for _ in range(repeats):
        for tokens, spent in batches.items():
            lm.tokens = tokens
            spent.append(side.run()[0])
    lm.tokens = 512

    def decode(rows: int, steps: int) -> float:
        prompts = [lm.tok_encode(one.args[0])[-64:] for one in asked[:: len(asked) // documents]] * 2
        start = clock()
        generation.generate(
            lm.forward, prompts[:rows], [], steps, lambda said: False, tokens=8192, rows=64, deliver=lambda _: None
        )
        return float(clock() - start)

    steps = {}
    for rows in (2, 60):
        decode(rows, 2)
        steps[rows] = round(min((decode(rows, 12) - decode(rows, 2)) / 10 for _ in range(repeats)), 3)
    return {
        "documents": documents,
        "products": round(products / sum(times.values()), 3),
        "batches": {tokens: round(min(spent), 2) for tokens, spent in batches.items()},
        "step": steps,
        "threads": torch.get_num_threads(),
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    packages = results["packages"]
    about = {name: results["hardware"][name] for name in ("cores", "cpu")}
    about |= {"torch": packages["torch"], "transformers": packages["transformers"], "lmeval": packages["lm-eval"]}
    lines = [
        "| work | documents | lm-eval, s (batch) | finbench, s | times as fast | goal | floor, s | difference |",
        "|--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(results["rows"], key=lambda row: [work[0] for work in WORKS].index(row["work"])):
        texts = row.get("different_texts")
        apart = f"{texts} texts" if texts is not None else f"{row['largest_difference']:.0e}"
        goal = f"{row['goal']:g}" if row["goal"] else ""
        least = f"{row['floor_seconds']:.1f}" if row["floor_seconds"] else ""
        stock = f"{row['stock_seconds']:.1f} ({row['stock_batch']})"
        name = row["work"] + (", bfloat16" if row["dtype"] == "bfloat16" else "")
        cells = [name, row["documents"], stock, f"{row['seconds']:.1f}", f"**{row['ratio']:.1f}**", goal, least, apart]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    wrong = [
        f"| {name} | {found['theirs']:.1e} | {found['ours']:.1e} |" for name, found in results.get("errors", {}).items()
    ]
    own = results["details"]
    shown = {
        "errors": "\n".join(wrong),
        "products": own["products"],
        "documents": own["documents"],
        "batches": ", ".join(f"{int(tokens):,}: {spent:.1f}" for tokens, spent in own["batches"].items()),
        "two": own["step"]["2"],
        "sixty": own["step"]["60"],
    }
    return wrapped(HEAD.format(**about) + "\n".join(lines) + "\n\n" + TAIL.format(**shown))


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "errors", "details", "page"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--adapter", help="an adapter of smollm2-135m that was trained on fpb")
    parser.add_argument("--only", default="")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    if given.what == "page":
        PAGE.write_text(page(kept), encoding="utf-8")
        return
    quiet()
    works = [work for work in WORKS if given.only in work[0] and (given.adapter or "adapter" not in work[0])]
    if given.what == "errors":
        apart = {row["work"] for row in kept["rows"] if row.get("largest_difference", 0) > 1e-4}
        found = {work[0]: errors(work, given.data_dir) for work in works if work[0] in apart}
        kept["errors"] = {**kept.get("errors", {}), **found}
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    if given.what == "details":
        kept["details"] = json.loads(json.dumps(details(given.data_dir, given.adapter, clock)))
    for dtype in given.dtypes.split(",") if given.what == "run" else ():
        for work in works:
            made = measure(work, getattr(torch, dtype), given.data_dir, given.adapter, given.repeats, clock)
            made["threads"], made["clock"] = torch.get_num_threads(), given.clock
            rows = [row for row in kept["rows"] if (row["work"], row["dtype"]) != (made["work"], made["dtype"])]
            kept |= {"hardware": environment.hardware(), "packages": environment.versions(), "rows": [*rows, made]}
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
