"""Long prompts that share a page: lm-eval's HFLM at its best batch size beside finbench, and what training computes.

    python benchmarks/reports_cpu.py score --data-dir DATA           # processor time of one thread
    python benchmarks/reports_cpu.py count --data-dir DATA           # positions of reading a whole test; no clock
    python benchmarks/reports_cpu.py train --data-dir DATA           # positions computed by each loop; no clock
    python benchmarks/reports_cpu.py page                            # docs/reports-speed.md, from what was written

The two take turns on the same requests in one process (``benchmarks/eval_cpu.py``), with OMP_NUM_THREADS=1. TAT-QA asks
six questions about a page, which finbench runs once; FinQA asks one or two. Contexts are taken whole, from the first.
Training is counted, not timed: a forward pass computes positions, and pages that rows share are computed once.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from eval_cpu import BASE, Work, measure, requests
from transformers import AutoTokenizer

from finbench.core.console import quiet, say
from finbench.core.prose import wrapped
from finbench.engines import generation
from finbench.models import bases
from finbench.training import preparation, recipes

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "reports-speed.md"
WORKS = (("tatqa", 24, 3.0), ("finqa", 20, 1.0))  # task, rows, goal
_ROWS = ("TAT-QA's dev contexts stand in for its train file, which we did not have.",)
LOOPS = ("padded", "packed", "shared")
HEAD = """\
# Speed on long pages

Written by `python benchmarks/reports_cpu.py page` from `benchmarks/reports_cpu.json`.

TAT-QA asks about six questions a page. A page has hundreds of tokens, a question some twenty.
finbench computes a page once for all of its questions, in scoring and in training."""


def score(data_dir: Path | None, repeats: int, only: str, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Processor seconds of both sides on the same requests."""
    made = []
    torch.set_num_threads(1)
    options = {"pretrained": str(bases.resolve(BASE).folder), "dtype": "float32", "device": "cpu"}
    for name, rows, goal in WORKS:
        if only in name:
            work = Work(name, name, rows, goal)
            row = measure(work, options, data_dir, time.process_time, batches, repeats)
            pages = len({one.doc["text"] for one in requests(work, data_dir)})
            made.append({"work": name, "goal": goal, **row, "pages": pages})
    return made


def count(data_dir: Path | None) -> list[dict[str, Any]]:
    """Positions that reading the prompts of a whole test computes: one prompt at a time, and as trees."""
    made = []
    encode = AutoTokenizer.from_pretrained(bases.resolve("smollm2-135m").folder).encode
    for name in ("tatqa", "finqa", "convfinqa", "xbrl_reason"):
        prompts = [encode(one.args[0]) for one in requests(Work(name, name, None), data_dir)]
        trees = generation._forest(prompts, 64)
        made.append({"task": name, "rows": len(prompts), "tokens": sum(map(len, prompts)),
                     "positions": sum(len(tree.tokens) for tree in trees)})  # fmt: skip
        say(json.dumps(made[-1]))
    return made


def train(data_dir: Path | None) -> list[dict[str, Any]]:
    """Positions that an epoch computes, by loop."""
    made = []
    for name in ("tatqa", "finqa"):
        for loop in LOOPS:
            stated = {"base": "smollm2-135m", "tasks": [name], "loop": loop, "max_length": 4096}
            prepared = preparation.prepare(recipes.recipe(None, stated | {"batch_size": 24}), data_dir)
            tokens, positions = prepared.tokens(prepared.passes)
            made.append(
                {"task": name, "loop": loop, "rows": len(prepared.rows), "tokens": tokens, "positions": positions}
            )
            say(json.dumps(made[-1]))
    return made


def page(found: dict[str, Any]) -> str:
    """The page."""
    lines = [HEAD]
    if rows := found.get("score"):
        lines += [
            "",
            "## Scoring",
            "",
            "SmolLM2-135M in float32, processor time of one thread, generated answers; medians of the turns.",
            "",
        ]
        lines += [
            "| task | rows | pages | tokens a prompt | lm-eval, s (batch) | finbench, s | ratio | goal | other texts |"
        ]
        lines += ["|--|--:|--:|--:|--:|--:|--:|--:|--:|"]
        lines += [
            f"| {r['work']} | {r['requests']} | {r['pages']} | {r['tokens']:,} | {r['theirs']:.1f}"
            f" ({r['best_batch']}) | {r['ours']:.1f} | {r['ratio']} × | {r['goal']:g} × | {r['other_texts']} |"
            for r in rows
        ]
        lines += [f"\n{told}" for told in dict.fromkeys(r["state"] for r in rows if "state" in r)]
    if rows := found.get("count"):
        lines += ["", "Positions that reading all prompts of a test computes, counted: no clock is involved.", ""]
        lines += ["| task | prompts | lm-eval | finbench | times fewer |", "|--|--:|--:|--:|--:|"]
        lines += [
            f"| {r['task']} | {r['rows']:,} | {r['tokens']:,} | {r['positions']:,}"
            f" | {r['tokens'] / r['positions']:.1f} |"
            for r in rows
        ]
    if rows := found.get("train"):
        lines += [
            "",
            "## Training",
            "",
            "Positions that one epoch computes, counted: no clock is involved.",
            *_ROWS,
            "",
        ]
        lines += ["| task | rows | tokens of the rows | loop | positions | of the tokens |", "|--|--:|--:|--|--:|--:|"]
        lines += [
            f"| {r['task']} | {r['rows']} | {r['tokens']:,} | {r['loop']} | {r['positions']:,}"
            f" | {r['positions'] / r['tokens']:.2f} |"
            for r in rows
        ]
    return wrapped("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "count", "train", "page"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", default="", help="tatqa or finqa")
    parser.add_argument("--batches", default="1,4,8", help="batch sizes of lm-eval, of which a trial takes the best")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    quiet()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if given.what == "page":
        PAGE.write_text(page(results), encoding="utf-8")
    elif given.what in ("count", "train"):
        results[given.what] = {"count": count, "train": train}[given.what](given.data_dir)
    else:
        for row in score(given.data_dir, given.repeats, given.only, tuple(map(int, given.batches.split(",")))):
            others = [one for one in results.get("score", []) if one["work"] != row["work"]]
            results["score"] = sorted([*others, row], key=lambda one: -one["goal"])
    if given.what != "page":
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
