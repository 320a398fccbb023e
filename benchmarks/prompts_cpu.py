"""What eight prompts of a test cost beside one: processor time of one thread, both in turns.

    python benchmarks/prompts_cpu.py --data-dir DATA [--tasks fpb_mc,fpb] [--limit 64] [--turns 3] [--adapter FOLDER]

The embedded base, or an adapter on it, answers the same documents by their own prompt (A) and by eight (B), A B A B
...; the figures are the medians of B / A: of the answers alone, and of all from rows to score (rendering, intervals).
Loading does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from finbench.core import catalog
from finbench.core.console import quiet
from finbench.core.settings import Evaluation
from finbench.engines import HFEngine
from finbench.evaluation.requests import Requests
from finbench.evaluation.scored import asked_rows, hear, score_answers
from finbench.models import bases
from finbench.scoring import prompts


def once(task: catalog.Task, engine: HFEngine, wanted: Evaluation, lm_task: object) -> tuple[float, float]:
    """Seconds of the processor for the answers to a task, and for all from its rows to its score."""
    started = time.process_time()
    requests = Requests([task], {task.name: lm_task}, wanted, None)
    requests.render(engine, False, [task])
    every = list(requests.every(task.name, False).values())
    engine.lm.forward.forget()
    asking = time.process_time()
    answers = engine.answer(every, lambda done: None)
    asking = time.process_time() - asking
    for request, answer in zip(every, answers, strict=True):
        hear(request, answer)
    own = list(requests.own(task.name, False).values())
    measured = requests.measured(task.name, False)
    score, rows = score_answers(
        task, lm_task, own, asked_rows(task, lm_task, wanted.limit), overlap=None, seconds=0.0, hosted=None, **measured
    )
    requests.with_prompts(task, False, score, rows)
    return asking, time.process_time() - started


def main() -> None:
    """Print the seconds of each turn and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--tasks", default="fpb_mc,fpb")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    stated = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    engine = HFEngine(bases.resolve(stated.base))
    engine.use(stated.adapter)
    for task in catalog.expand(stated.tasks.split(",")):
        [lm_task] = prompts.load([task], stated.data_dir).values()
        plain = Evaluation(tasks=task.name, limit=stated.limit)
        several = Evaluation(tasks=task.name, limit=stated.limit, prompts="8")
        once(task, engine, Evaluation(tasks=task.name, limit=4), lm_task)
        found = []
        for _ in range(stated.turns):
            one, eight = (once(task, engine, wanted, lm_task) for wanted in (plain, several))
            found.append([b / a for a, b in zip(one, eight, strict=True)])
            both = " and ".join(f"{a:.1f} s, {b:.1f} s" for a, b in zip(one, eight, strict=True))
            print(f"{task.name}: one and eight, answers {both} in all", flush=True)
        answers, whole = (statistics.median(column) for column in zip(*found, strict=True))
        print(
            f"{task.name}, {stated.limit} documents: answers {answers:.2f} times, in all {whole:.2f} times", flush=True
        )


if __name__ == "__main__":
    main()
