"""Scoring, side by side: lm-eval's HFLM at its best batch size, and finbench's token trees, on the same requests.

    python benchmarks/eval_cpu.py run --data-dir DATA --adapter ./folder [--dtype bfloat16] [--threads 2]
    python benchmarks/eval_cpu.py start          # what commands take that compute nothing, or next to nothing
    python benchmarks/eval_cpu.py page           # docs/speed.md, from what was written to benchmarks/eval_cpu.json

Both answer the same encoded requests in one process, in turns: no loading, no rendering, and for log-likelihoods no
tokenising. With one thread the processor time of the process counts, so that other work on the machine is not counted;
with more it is the clock, for a machine that is idle. Every batch size is tried for lm-eval on part of the documents,
its best one is then timed on all. A work that is written is not measured again: --again measures it.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from finbench.core import catalog, environment
from finbench.core.console import quiet, say
from finbench.core.prose import wrapped
from finbench.engines import choices, products
from finbench.engines.lm import TreeLM
from finbench.models import bases
from finbench.scoring import prompts

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "speed.md"
BATCHES = (1, 2, 4, 8, 16, 32, 64)
REPEATS = 5
EXACT = 4  # documents that are computed in float64 as well
NEAR = 5e-5  # the goal for the largest difference from that
BASE = "smollm2-135m"


@dataclass(frozen=True)
class Work:
    """What both sides are asked, and how many times as fast as lm-eval finbench means to be."""

    name: str
    task: str
    documents: int | None
    goal: float | None = None
    shots: int = 0
    asked: str = "task"  # whose wording: a key of WORDINGS
    adapter: bool = False


def _text(one: Any, others: Sequence[str]) -> str:
    return f"{one.doc['text']}\nSentiment:"


def _instruction(one: Any, others: Sequence[str]) -> str:
    return (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nYou are an analyst at an investment "
        "bank. Decide whether the following piece of news is good, bad or of no consequence for somebody who holds "
        "shares of the company. Choose an answer from {negative/neutral/positive}.\n\n### Input:\n"
        f"{one.doc['text']}\n\n### Response:"
    )


def _long(one: Any, others: Sequence[str]) -> str:
    return f"News of the day:\n{' '.join(others)}\n\nThe last item: {one.doc['text']}\nSentiment:"


def _shared(one: Any, others: Sequence[str]) -> str:
    block = " ".join(others[:24])
    return f"News of the day:\n{block}\n\nWhat does the day's news mean for this? {one.doc['text']}\nSentiment:"


def _tags(one: Any, others: Sequence[str]) -> str:
    text: str = one.args[0].partition(" Choose one of these")[0]
    return text + " Answer with the tag only.\nAnswer:"


WORDINGS: dict[str, Callable[[Any, Sequence[str]], str]] = {
    "text": _text, "instruction": _instruction, "long": _long, "shared": _shared, "tags": _tags,
}  # fmt: skip
SETS = (("fpb", "fpb_mc"), ("tfns", "tfns_mc"), ("fiqa_sa", "fiqa_sa_mc"))
WORKS = (
    *(Work(f"{name}, the task's words", task, 32, 2.5) for name, task in SETS),
    *(Work(f"{name}, the task's words, adapter", task, 32, 4.0, adapter=True) for name, task in SETS),
    *(Work(f"{name}, 5-shot", task, 16, 10.0, shots=5) for name, task in SETS),
    *(Work(f"{name}, the text only", task, 32, 2.5, asked="text") for name, task in SETS),
    *(Work(f"{name}, a long instruction", task, 32, 2.5, asked="instruction") for name, task in SETS),
    Work("nwgi, 7 labels", "nwgi_mc", 12, 8.0),
    Work("fnxl, 139 tags", "fnxl_mc", 2, 12.0, asked="tags"),
    Work("fpb generated", "fpb", 32, 3.0),
    Work("fpb generated, adapter", "fpb", 32, 3.0, adapter=True),
    Work("nwgi generated", "nwgi", 12, 3.0),
    Work("900 tokens each", "fpb_mc", 6, 2.0, asked="long"),
    Work("8 questions about 700 tokens", "fpb_mc", 8, 4.0, asked="shared"),
    Work("piqa", "piqa", 16),
    Work("winogrande", "winogrande", 24),
)


def requests(work: Work, data_dir: Path | None) -> list[Any]:
    """The lm-eval requests of a work."""
    [lm_task] = prompts.load(catalog.expand([work.task]), data_dir, work.shots).values()
    asked = prompts.requests(lm_task, work.documents)
    if work.asked == "task":
        return asked
    rows = prompts.rows(lm_task, "train")
    if work.asked == "tags":  # the answers of the train split, most frequent first, stand in for FiNER-139's own tags
        answers = [str(lm_task.doc_to_choice(row)[prompts.gold_choice(lm_task, row)]) for row in rows]
        tags = sorted(dict.fromkeys(answers), key=lambda tag: -answers.count(tag))[:139]
        asked = [
            type(one)("loglikelihood", one.doc, (one.args[0], f" {tag}"), number, one.metadata)
            for one in asked
            if one.idx == 0
            for number, tag in enumerate(tags)
        ]
    made = []
    for one in asked:
        others = [str(rows[(32 * one.doc_id * (work.asked == "long") + at) % len(rows)]["text"]) for at in range(32)]
        context = WORDINGS[work.asked](one, others)
        made.append(type(one)("loglikelihood", one.doc, (context, one.args[1]), one.idx, one.metadata))
    return made


class Side:
    """One of the two, ready to be timed."""

    def __init__(self, lm: Any, asked: Sequence[Any], clock: Callable[[], float]) -> None:
        self.lm, self.asked, self.clock = lm, asked, clock
        self.generates = asked[0].request_type == "generate_until"
        self.encoded = [] if self.generates else [(one.args, *lm._encode_pair(*one.args)) for one in asked]

    def run(self, documents: int | None = None) -> tuple[float, list[Any]]:
        """Seconds and answers; of the first ``documents`` only."""
        chosen = [at for at, one in enumerate(self.asked) if documents is None or one.doc_id < documents]
        if isinstance(self.lm, TreeLM):
            self.lm.forward.known = ([], [])  # what was computed before is not kept
        start = self.clock()
        if self.generates:
            answers = self.lm.generate_until([self.asked[at] for at in chosen], disable_tqdm=True)
        else:
            answers = self.lm._loglikelihood_tokens([self.encoded[at] for at in chosen], disable_tqdm=True)
        return self.clock() - start, answers


def rate(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """FLOP/s of matrix products of the model's size, here and now."""
    left, right = torch.randn(512, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    multiply = products.product(right, None) or functools.partial(torch.nn.functional.linear, weight=right)
    best = 0.0
    for _ in range(30):
        start = clock()
        for _ in range(10):
            multiply(left)
        best = max(best, 10 * 2 * 512 * 576 * 1536 / (clock() - start))
    return best


def floor(side: Side, per_second: float) -> float:
    """Seconds of arithmetic for the tokens that trees run, at ``per_second``."""
    lm = side.lm
    plan = choices.plan([(context, continuation) for _, context, continuation in side.encoded], lm.max_length)
    weights = sum(p.numel() for name, p in lm.bare.named_parameters() if p.dim() == 2 and "embed" not in name)
    head = lm.bare.get_output_embeddings().weight.numel()
    nodes = sum(len(tree.wanted) for tree in plan.trees)
    tokens = len(plan.prefix) + sum(len(tree.tokens) for tree in plan.trees)
    return float(2 * (tokens * weights + nodes * head) / per_second)


def measure(
    work: Work,
    options: dict[str, Any],
    data_dir: Path | None,
    clock: Callable[[], float],
    batches: Sequence[int] = BATCHES,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """One row of the tables."""
    asked = requests(work, data_dir)
    documents = len({one.doc_id for one in asked})
    ours, theirs = Side(TreeLM(**options), asked, clock), Side(HFLM(**options, batch_size=1), asked, clock)
    part = max(1, documents // 3)
    trials = {}
    for size in batches:
        theirs.lm.batch_size_per_gpu = size
        trials[size] = theirs.run(part)[0]
    best = min(trials, key=lambda size: trials[size])
    theirs.lm.batch_size_per_gpu = best
    ours.run(part)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        (stock_s, stock), (own_s, found) = theirs.run(), ours.run()
        times["theirs"].append(round(stock_s, 3))
        times["ours"].append(round(own_s, 3))
    ratios = sorted(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    row: dict[str, Any] = {
        "documents": documents,
        "requests": len(asked),
        "tokens": round(statistics.mean(len(theirs.lm.tok_encode(one.args[0])) for one in asked)),
        "batches": {size: round(spent, 3) for size, spent in trials.items()},
        "best_batch": best,
        **{name: round(statistics.median(spent), 3) for name, spent in times.items()},
        "all": times,
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratios[0], 2), round(ratios[-1], 2)],
        "load": round(os.getloadavg()[0], 1),
    }
    if ours.generates:
        return row | {"other_texts": sum(a != b for a, b in zip(found, stock, strict=True))}
    begin = clock()
    products.Products(ours.lm.bare)
    row["laid_out"] = round(clock() - begin, 3)
    row["floor"] = round(floor(ours, rate(ours.lm.bare.dtype, clock)), 3)
    if options["dtype"] != "float32":
        return row
    some = [at for at, one in enumerate(asked) if one.doc_id < EXACT]
    del theirs
    gc.collect()
    exact = Side(HFLM(**options | {"dtype": "float64"}, batch_size=1), [asked[at] for at in some], clock).run()[1]
    for name, side in (("our_error", found), ("their_error", stock)):
        gap = max(abs(side[at][0] - one[0]) for at, one in zip(some, exact, strict=True))
        row[name] = float(f"{gap:.2g}")
    return row


HEAD = """\
# Speed of scoring

Written by `python benchmarks/eval_cpu.py page` from `benchmarks/eval_cpu.json`.

How long lm-eval's `HFLM` and finbench's engine `hf` take for the same requests, side by side in one
process, on a CPU. Only the computation counts: nothing is loaded, rendered or, for
log-likelihoods, tokenised. finbench lays its weights out once for a run, in {laid} s, which do
not count either: a test has more documents than these. lm-eval gets the batch size of {batches}
that is best for it.
Times are medians of {repeats} turns, "times as fast" is the median of the turns' ratios, with the
smallest and the largest behind it. Goals are our own, and **missed** ones say so.

{base} on {cpu}, torch {torch}, transformers {transformers}, lm-eval {lmeval}. Rows are of several
days, and that name is one of several processors: compare within a row.

"""
TABLE = """\
## {title}

{clock}

| work | tokens | documents | lm-eval, s (batch) | finbench, s | times as fast | goal | floor, s |
|--|--:|--:|--:|--:|--:|--:|--:|
{lines}

"""
TAIL = """\
- **Tokens** are those of a prompt with its examples, on average.
- **139 tags**: the most frequent answers of FNXL's train rows stand in for those of FiNER-139.
- **The floor** is the arithmetic of the tokens that must be run, each once, at the speed that matrix
  products of the model's size had on this machine at that moment. A goal beyond it cannot be reached
  by computing the same faster.
{told}
## How exact

Log-likelihoods in float32 beside the same requests in float64, one at a time, on the first {exact}
documents: the largest difference. Our goal is {near:.0e}.

| work | lm-eval | finbench |
|--|--:|--:|
{errors}

## What to expect

- Short prompts whose answers are one token each leave little to share: lm-eval runs such a prompt
  once for all its answers, too. What is saved there is the beginning that all prompts share, padding
  and the head.
- Answers of several tokens, examples in the prompt and several questions about one text are where
  the difference lies, for what they share is run once.
- A step of generation reads every weight, for two rows as for sixty. An answer of a few tokens
  cannot be much faster than lm-eval's, but for the prompts.
"""
START = """
## The start

Processor time of one thread of whole commands, from a cold process to its end, medians of
{repeats}. The base lay in the cache, as after its first use. Other work shared the machine (load
{low:.1f} to {high:.1f}). The first has a wrong option.

| command | s | goal |
|--|--:|--:|
{lines}
"""
NAMED = ("torch", "transformers", "lm-eval")  # packages whose versions a row keeps
STARTS = {  # command -> the most seconds that it is meant to take
    "finbench eval --shot 5": 0.3,  # no such option
    "finbench tasks list": 0.5,
    f"finbench eval --model {BASE} --tasks mini_sentiment --limit 1": 6,
}
CLOCKS = {
    "cpu": "Processor time of one thread. Other work shared the machine (load {low} to {high}).",
    "wall": "By the clock, {threads} threads, on an idle machine (load {low} to {high}).",
}


def page(kept: dict[str, Any]) -> str:
    """The results as Markdown."""
    order = {work.name: (at, work) for at, work in enumerate(WORKS)}
    named = {key: sorted({row["packages"][key] for row in kept["rows"]}) for key in NAMED}
    packages = {key: " or ".join(versions) for key, versions in named.items()}
    about = {"cpu": kept["hardware"]["cpu"], "base": "SmolLM2-135M", "repeats": REPEATS}
    about |= {"torch": packages["torch"], "transformers": packages["transformers"], "lmeval": packages["lm-eval"]}
    about["laid"] = f"{statistics.median(row['laid_out'] for row in kept['rows'] if 'laid_out' in row):.2g}"
    text = HEAD.format(batches=f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}", **about)
    rows = sorted(kept["rows"], key=lambda row: order[row["work"]][0])
    kinds = sorted({(row["dtype"] != "float32", row["threads"], row["dtype"], row["clock"]) for row in rows})
    for _, threads, dtype, clock in kinds:
        chosen = [row for row in rows if (row["threads"], row["dtype"], row["clock"]) == (threads, dtype, clock)]
        loads = [row["load"] for row in chosen]
        said = CLOCKS[clock].format(threads=threads, low=min(loads), high=max(loads))
        title = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
        lines = "\n".join(_line(row, order[row["work"]][1]) for row in chosen)
        text += TABLE.format(title=title, clock=said, lines=lines)
    written = [row for row in rows if "other_texts" in row]
    exact = [row for row in rows if "our_error" in row and row["threads"] == 1]
    missed = [", missed" if row["our_error"] > NEAR else "" for row in exact]
    errors = "\n".join(
        f"| {row['work']} | {row['their_error']:.1e} | {row['our_error']:.1e}{said} |"
        for row, said in zip(exact, missed, strict=True)
    )
    counts = []
    for dtype in dict.fromkeys(row["dtype"] for row in written):
        own = [row for row in written if row["dtype"] == dtype]
        counts.append(f"{sum(row['other_texts'] for row in own)} of {sum(row['requests'] for row in own)} in {dtype}")
    left = [work.name for work in WORKS if work.name not in {row["work"] for row in rows}]
    text += f"The script can also measure: {'; '.join(left)}.\n\n" if left else ""
    told = f"- Generated texts that differ from lm-eval's: {', '.join(counts)}.\n" if counts else ""
    starts, timed = [], kept.get("starts", [])
    for one in timed:
        least, *_, most = one["seconds"]
        took, goal = statistics.median(one["seconds"]), STARTS[one["command"]]
        told_goal = f"{goal:g}" + (", missed" if round(took, 2) > goal else "")
        starts.append(f"| `{one['command']}` | {took:.2f} ({least:.2f} to {most:.2f}) | {told_goal} |")
    text += TAIL.format(errors=errors, exact=EXACT, near=NEAR, told=told)
    if loads := [one["load"] for one in timed]:
        text += START.format(repeats=REPEATS, lines="\n".join(starts), low=min(loads), high=max(loads))
    return wrapped(text)


def started(command: str) -> dict[str, Any]:
    """Processor seconds of a command, each time in a new process and an empty folder."""
    taken = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            own = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(PAGE.parents[1])}
            words = [sys.executable, "-m", *command.split()]
            done = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True, check=False)
            if done.returncode != (2 if "--shot " in command else 0):
                sys.exit(f"{command}: {done.stderr}")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"command": command, "seconds": sorted(taken), "load": os.getloadavg()[0]}


def _line(row: dict[str, Any], work: Work) -> str:
    goal = "" if work.goal is None else f"{work.goal:g}" + (", missed" if row["ratio"] < work.goal else "")
    cells = [
        work.name,
        f"{row['tokens']:,}",
        str(row["documents"]),
        f"{row['theirs']:.2f} ({row['best_batch']})",
        f"{row['ours']:.2f}",
        f"**{row['ratio']:.2f}** ({row['ratios'][0]:.2f} to {row['ratios'][1]:.2f})",
        goal,
        f"{row['floor']:.2f}" if "floor" in row else "",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "start", "page"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--adapter", help=f"an adapter of {BASE} that was trained on fpb")
    parser.add_argument("--only", default="", help="works whose name has this in it")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what is written, too")
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    if given.what == "page":
        PAGE.write_text(page(kept), encoding="utf-8")
        return
    if given.what == "start":
        kept["starts"] = [started(command) for command in STARTS]
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        return
    quiet()
    torch.set_num_threads(given.threads)
    name, clock = ("cpu", time.process_time) if given.threads == 1 else ("wall", time.perf_counter)
    options = {"pretrained": str(bases.resolve(BASE).folder), "dtype": given.dtype, "device": "cpu"}
    done = functools.partial(_done, dtype=given.dtype, threads=given.threads)
    for work in WORKS:
        if given.only not in work.name or (work.adapter and not given.adapter):
            continue
        if not given.again and any(done(row, work) for row in kept["rows"]):
            continue
        own = options | ({"peft": given.adapter} if work.adapter else {})
        row = {"work": work.name, "dtype": given.dtype, "threads": given.threads, "clock": name}
        row |= measure(work, own, given.data_dir, clock)
        row["packages"] = {key: environment.versions()[key] for key in NAMED}
        say(json.dumps(row))
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else kept
        kept["hardware"] = environment.hardware()
        kept["rows"] = [*(one for one in kept["rows"] if not done(one, work)), row]
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def _done(row: dict[str, Any], work: Work, dtype: str, threads: int) -> bool:
    return (row["work"], row["dtype"], row["threads"]) == (work.name, dtype, threads)


if __name__ == "__main__":
    main()
