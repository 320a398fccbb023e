"""Training on a CPU: finbench's loops beside TRL's SFTTrainer, on the same rows in one run.

    python benchmarks/train_cpu.py run --data-dir DATA --trl-python PYTHON [--rows 96] [--rounds 3] [--task fpb]
    python benchmarks/train_cpu.py page

``run`` writes benchmarks/train_cpu.json, ``page`` the table of docs/training.md from it. PYTHON is an interpreter with
trl and finbench's own dependencies. LoRA of rank 8 on all linear layers of smollm2-135m, 16 rows a step. Every way is a
process of its own, and all take turns, once a round; the first step of each is not timed. Time is taken twice: by the
clock, and as processor time, which with OMP_NUM_THREADS=1 also tells ways apart on a machine that others use (waiting
threads spin, so with more it does not). Tokens are those of the rows, without padding, however many were computed. The
floor is the arithmetic of the tokens that must be run (forward, and backward through the frozen weights) at the best
speed of this machine's matrix products, which are measured before each way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from finbench.training import recipes

HERE = Path(__file__).parent
FOUND = HERE / "train_cpu.json"
PAGE = HERE.parent / "docs" / "training.md"
WAYS = {
    "shared": "finbench, shared starts",
    "packed": "finbench, packed rows",
    "padded": "finbench, padded rows (the plain loop)",
    "nf4": "finbench, shared starts, NF4",
    "trl-best": "TRL at its best: rows sorted, no checkpointing, pure bf16",
    "trl": "TRL's defaults",
}
BATCH, RANK, LR = 16, 8, 1e-3


def products() -> float:
    """GFLOP/s of this machine's bf16 matrix products, in a shape of the model, by processor time."""
    import torch

    x, w = torch.randn(1024, 576, dtype=torch.bfloat16), torch.randn(1536, 576, dtype=torch.bfloat16)
    times = []
    for _ in range(12):
        start = time.process_time()
        torch.nn.functional.linear(x, w)
        times.append(time.process_time() - start)
    return 2 * 1024 * 576 * 1536 / statistics.median(times) / 1e9


def timer() -> Any:
    """A TrainerCallback that notes when steps end."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        ends: list[tuple[float, float]] = []  # noqa: RUF012

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append((time.perf_counter(), time.process_time()))

    return Timer()


def prepared(way: str, task: str, rows: int, data_dir: Path, dtype: str = "auto") -> Any:
    """The run of a way; for TRL it only gives rows."""
    from finbench.training import runner

    stated: dict[str, Any] = {"tasks": [task], "limit": rows, "rank": RANK, "alpha": 2 * RANK, "dtype": dtype}
    stated |= {"batch_size": BATCH, "lr": LR, **({"loop": way} if way in ("padded", "packed") else {})}
    return runner.prepare(recipes.recipe(None, {**stated, "bits": 4 if way == "nf4" else 16}), data_dir)


def ours(way: str, task: str, rows: int, data_dir: Path, dtype: str = "auto") -> dict[str, Any]:
    """One training by finbench."""
    from finbench.models import bases
    from finbench.training import runner

    run, clock = prepared(way, task, rows, data_dir, dtype), timer()
    model, tokenizer = runner.begin(run, bases.compute_dtype(dtype))
    from finbench.training import trainer

    real = trainer.AnswerTrainer.__init__

    def timed(self: Any, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        self.add_callback(clock)

    trainer.AnswerTrainer.__init__ = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        made, _ = runner.fit(run, model, tokenizer, Path(folder))
    tokens, computed = run.tokens(made.passes)
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    return {"tokens": tokens, "computed": computed, "ends": clock.ends, "losses": losses}


def theirs(way: str, task: str, rows: int, data_dir: Path) -> dict[str, Any]:
    """One training by TRL, on the same prompts and answers."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    run, clock = prepared("padded", task, rows, data_dir), timer()
    tokenizer = AutoTokenizer.from_pretrained(run.base.folder)
    pairs = [
        {"prompt": tokenizer.decode(row.ids[: row.prompt]), "completion": tokenizer.decode(row.ids[row.prompt : -1])}
        for row in (sorted(run.rows, key=lambda row: len(row.ids)) if way == "trl-best" else run.rows)
    ]
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        stated: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": BATCH,
            "learning_rate": LR,
            "num_train_epochs": 1,
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,  # else transformers wants a GPU for the bfloat16 of its defaults
        }
        if way == "trl":
            model: Any = AutoModelForCausalLM.from_pretrained(run.base.folder)
        else:
            stated |= {"gradient_checkpointing": False, "bf16": False, "train_sampling_strategy": "sequential"}
            base = AutoModelForCausalLM.from_pretrained(run.base.folder, dtype=torch.bfloat16)
            model = get_peft_model(base, adapter, autocast_adapter_dtype=False)
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**stated),
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
            peft_config=adapter if way == "trl" else None,
            callbacks=[clock],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"tokens": sum(len(row.ids) for row in run.rows), "ends": clock.ends, "losses": losses}


def one(arguments: argparse.Namespace) -> None:
    """A way, in this process; the result is the last line that is printed."""
    import torch

    speed = products()
    train = theirs if arguments.way.startswith("trl") else ours
    made = train(arguments.way, arguments.task, arguments.rows, arguments.data_dir)
    ends = made.pop("ends")
    timed = made["tokens"] / len(ends) * (len(ends) - 1)
    for number, name in enumerate(("tokens_per_second", "tokens_per_processor_second")):
        made[name] = timed / (ends[-1][number] - ends[0][number])
    print(json.dumps({**made, "gflops": speed, "threads": torch.get_num_threads()}))


def run(arguments: argparse.Namespace) -> None:
    """All ways in turns, once a round."""
    from finbench.core import environment

    found: dict[str, list[dict[str, Any]]] = {way: [] for way in arguments.ways.split(",")}
    for _ in range(arguments.rounds):
        for way, results in found.items():
            python = arguments.trl_python if way.startswith("trl") else sys.executable
            command = [python, __file__, "one", "--way", way, "--rows", str(arguments.rows), "--task", arguments.task]
            done = subprocess.run(
                [*command, "--data-dir", str(arguments.data_dir)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            results.append(json.loads(done.stdout.strip().splitlines()[-1]))
            speeds = (results[-1][name] for name in ("tokens_per_second", "tokens_per_processor_second"))
            print(way, *(f"{speed:.0f}" for speed in speeds), f"load {os.getloadavg()[0]:.1f}", flush=True)
            FOUND.write_text(
                json.dumps(
                    {
                        "task": arguments.task,
                        "rows": arguments.rows,
                        "provenance": environment.provenance().model_dump(),
                        "ways": found,
                    },
                    indent=1,
                )
                + "\n"
            )


def floor(result: dict[str, Any], gflops: float) -> float:
    """Tokens a second of a core if nothing but the products of the tokens that were run took time."""
    frozen, adapters = 106.17e6, 2.44e6  # weights of smollm2's linear layers, and of rank 8 beside them
    work = (4 * frozen + 6 * adapters) * result["computed"] / result["tokens"]
    return gflops * 1e9 / work


def page(_: argparse.Namespace) -> None:
    """docs/training.md between its marks."""
    found = {way: made for way, made in json.loads(FOUND.read_text())["ways"].items() if made}

    def middle(way: str, name: str) -> float:
        return statistics.median(float(one[name]) for one in found[way])

    best = max(float(one["gflops"]) for made in found.values() for one in made)
    clock, core = "tokens_per_second", "tokens_per_processor_second"
    threads = next(made[0]["threads"] for made in found.values())
    lines = [
        f"| way, {threads} threads | tokens/s | TRL's defaults | its best | tokens/s of a core | computed | floor |"
    ]
    lines.append("|--|--:|--:|--:|--:|--:|--:|")
    for way, made in found.items():
        cells = [WAYS[way], f"{middle(way, clock):,.0f}"]
        for other in ("trl", "trl-best"):
            faster = [middle(way, name) / middle(other, name) for name in (clock, core)] if other in found else []
            cells.append(" / ".join(f"{ratio:.1f}" for ratio in faster))
        cells.append(f"{middle(way, core):,.0f}")
        if "computed" in made[0]:
            cells += [f"{middle(way, 'computed') / middle(way, 'tokens'):.0%}"]
            cells += [f"{floor(made[0], best):,.0f}"]
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    rounds = min(len(made) for made in found.values())
    lines += ["", f"Medians of {rounds} rounds. How many times as fast as TRL: by the clock / by processor time."]
    text = PAGE.read_text()
    begin, end = "<!-- train_cpu -->\n", "<!-- /train_cpu -->"
    head, rest = text.split(begin)
    PAGE.write_text(head + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "one", "page"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--trl-python")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--task", default="fpb")
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--ways", default=",".join(WAYS))
    arguments = parser.parse_args()
    {"run": run, "one": one, "page": page}[arguments.what](arguments)


if __name__ == "__main__":
    main()
