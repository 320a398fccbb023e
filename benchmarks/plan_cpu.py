"""`finbench plan --gpu cpu` beside real trainings here: with and without AMX and bfloat16, one thread and two.

python benchmarks/plan_cpu.py run --data-dir DATA    # benchmarks/plan_cpu.json; a few minutes of an idle machine
python benchmarks/plan_cpu.py page                   # the table of docs/training.md

oneDNN, which multiplies matrices for torch, can be told to do without instructions that the processor has.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from finbench.core import environment
from finbench.core.console import quiet

FOUND = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"
KINDS = (("", "bfloat16"), ("AVX512_CORE_BF16", "bfloat16"), ("AVX512_CORE", "float32"), ("AVX2", "float32"))
NAMES = {"": "all that it has", "AVX512_CORE_BF16": "AVX-512, without AMX"}
NAMES |= {"AVX512_CORE": "AVX-512, without bfloat16", "AVX2": "AVX2"}


def one(arguments: argparse.Namespace) -> None:
    """Plan and train in this process; the result is the last line that is printed."""
    import train_cpu

    from finbench.training import planning, recipes

    quiet()
    stated: dict[str, Any] = {"tasks": [arguments.task], "limit": arguments.rows, "rank": train_cpu.RANK}
    stated |= {"batch_size": train_cpu.BATCH, "lr": train_cpu.LR, "dtype": arguments.dtype}
    planned = planning.plan(recipes.recipe(None, stated), "cpu", data_dir=arguments.data_dir)
    made = train_cpu.ours("shared", arguments.task, arguments.rows, arguments.data_dir, arguments.dtype)
    steps = [after - before for (before, _), (after, _) in zip(made["ends"], made["ends"][1:], strict=False)]
    print(json.dumps({"planned": planned["seconds"] / planned["steps"], "real": statistics.mean(steps)}))


def run(arguments: argparse.Namespace) -> None:
    """Every kind of processor and number of threads, on every task, in a process of its own."""
    found = []
    for task in arguments.tasks.split(","):
        for kind, dtype in KINDS:
            for threads in (1, 2):
                command = [sys.executable, __file__, "one", "--task", task, "--rows", str(arguments.rows)]
                command += ["--dtype", dtype, "--data-dir", str(arguments.data_dir)]
                told = {"ONEDNN_MAX_CPU_ISA": kind} if kind else {}
                env = {**os.environ, **told, "OMP_NUM_THREADS": str(threads)}
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
                if done.returncode:
                    raise SystemExit(done.stderr[-3000:])
                said = json.loads(done.stdout.strip().splitlines()[-1])
                found.append({"task": task, "kind": kind, "dtype": dtype, "threads": threads, **said})
                print(*found[-1].values(), f"load {os.getloadavg()[0]:.1f}", flush=True)
                made = {"provenance": environment.provenance().model_dump(), "rows": arguments.rows, "trainings": found}
                FOUND.write_text(json.dumps(made, indent=1) + "\n")


def page(_: argparse.Namespace) -> None:
    """docs/training.md between its marks."""
    lines = ["| instructions | dtype | threads | task | a step, s | by plan | off |", "|--|--|--:|--|--:|--:|--:|"]
    for made in json.loads(FOUND.read_text())["trainings"]:
        real, planned = made["real"], made["planned"]
        lines.append(
            f"| {NAMES[made['kind']]} | {made['dtype']} | {made['threads']} | {made['task']} | {real:.2f} | "
            f"{planned:.2f} | {planned / real - 1:+.0%} |"
        )
    begin, end = "<!-- plan_cpu -->\n", "<!-- /plan_cpu -->"
    head, rest = PAGE.read_text().split(begin)
    PAGE.write_text(head + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "one", "page"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--tasks", default="fpb")
    parser.add_argument("--task")
    parser.add_argument("--dtype")
    arguments = parser.parse_args()
    {"run": run, "one": one, "page": page}[arguments.what](arguments)


if __name__ == "__main__":
    main()
