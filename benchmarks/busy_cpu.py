"""Trainings on cores that others use: tokens a second of one alone and of two at once, by how their threads wait.

    python benchmarks/busy_cpu.py [--seconds 20] [--limit 400]

Each training is a process of its own, with LoRA of rank 8 on smollm2-135m and rows of mini_sentiment in steps of 8; its
first step is not timed. ``settled`` is what finbench does; ``spin`` and ``sleep`` are libgomp's own ways, stated by
OMP_WAIT_POLICY; ``one thread`` is OMP_NUM_THREADS=1. Beside the speed by the clock stand tokens a second of processor
time, how many cores the process had, and the load of the machine: where others are at work, speeds by the clock say
what was left, and only those of one run can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, str]] = {
    "settled": {},
    "spin": {"OMP_WAIT_POLICY": "active"},
    "sleep": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
STATED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def train(seconds: float, limit: int) -> dict[str, Any]:
    """Steps for so long, in this process."""
    import torch

    from finbench.core.errors import Interrupted
    from finbench.training import recipes, runner
    from finbench.training.trainer import AnswerTrainer

    stated = {"tasks": ["mini_sentiment"], "limit": limit, "rank": 8, "batch_size": 8, "epochs": 1000}
    run = runner.prepare(recipes.recipe(None, stated), None)
    model, tokenizer = runner.begin(run, run.dtype)
    marks: list[tuple[float, float, int]] = []
    step = AnswerTrainer.training_step

    def timed(self: Any, *arguments: Any, **more: Any) -> Any:
        marks.append((time.perf_counter(), time.process_time(), self.watch.tokens))
        self.watch.interrupted = marks[-1][0] - marks[0][0] > seconds
        return step(self, *arguments, **more)

    AnswerTrainer.training_step = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Interrupted):
        runner.fit(run, model, tokenizer, Path(folder) / "checkpoints")
    clock, used, tokens = (last - first for first, last in zip(marks[1], marks[-1], strict=True))
    return {
        "tokens_per_second": round(tokens / clock, 1),
        "of_a_core": round(tokens / used, 1),
        "cores": round(used / clock, 2),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }


def together(count: int, way: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """So many trainings at once."""
    free = {name: text for name, text in os.environ.items() if name not in STATED} | WAYS[way]
    command = [sys.executable, "-W", "ignore", __file__, "--own"]
    command += ["--seconds", str(given.seconds), "--limit", str(given.limit)]
    begun = [
        subprocess.Popen(command, env=free, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(count)
    ]
    return [json.loads(one.communicate()[0].splitlines()[-1]) for one in begun]


def main() -> None:
    """One alone, and two at once, each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.own:
        print(json.dumps(train(given.seconds, given.limit)))
        return
    for way in WAYS:
        for count in (1, 2):
            for found in together(count, way, given):
                shown = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found.items())
                print(f"{way:10} {count} at once: {shown}", flush=True)


if __name__ == "__main__":
    main()
