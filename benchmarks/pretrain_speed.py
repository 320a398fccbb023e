"""Speed of structured layers and models beside dense ones, on the same work, with the ratio of operations beside it.

    python benchmarks/pretrain_speed.py run [--rounds 7] [--tokens 512]
    python benchmarks/pretrain_speed.py table

``run`` writes benchmarks/pretrain_speed.json, ``table`` prints what docs/pretrain.md shows of it. Every way does one
forward and one backward pass over the same tokens, float32, on one thread; all take turns, once a round, and the first
round is not counted. Times are processor time: on a machine that others use, the clock would tell of them. The speed-up
is the median of the ratios within a round. Weights are random: what is computed does not depend on them.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = HERE / "pretrain_speed.json"
LAYERS = {"gpt2-124m c_fc": (768, 3072), "gpt2-1.5b c_fc": (1600, 6400)}
SHARES = {"d/2": 0.5, "d/4": 0.25, "d/8": 0.125}
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
}  # fmt: skip
MODELS = {"smollm2-135m": {"1.5x": 1.5, "2.64x": 2.64}}


def layer(inputs: int, outputs: int, kind: str, rank: int) -> Any:
    """A layer of that kind with weights."""
    import torch

    from finbench.models.structured.inits import support
    from finbench.models.structured.modules import MODULES, SLTrainLinear
    from finbench.models.structured.structures import Factored, entries

    if kind == "dense":
        return torch.nn.Linear(inputs, outputs)
    count = entries(inputs, outputs, 0.03 if kind == "sltrain" else None)
    shape = Factored(name="x", form="Linear", inputs=inputs, outputs=outputs, bias=True, rank=rank, entries=count)
    made = MODULES[kind](shape)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    if isinstance(made, SLTrainLinear):
        made.support.copy_(support(shape, 0))
    return made


def model(name: str, kind: str, amount: float) -> Any:
    """A model of that shape; ``amount`` is the compression."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from finbench.models.structured import surgery
    from finbench.models.structured.structures import Structure

    config = LlamaConfig(**SHAPES[name])
    made = AutoModelForCausalLM.from_config(config)
    if kind != "dense":
        surgery.restructure(made, Structure.model_validate({"kind": kind, "init": "kaiming", "compression": amount}))
    return made


def _layer_pass(made: Any, x: Any, gradient: Any) -> None:
    made(x).backward(gradient)


def _model_pass(made: Any, ids: Any) -> None:
    made(input_ids=ids, labels=ids, use_cache=False).loss.backward()


def turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor of each way, round by round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            start = time.process_time()
            work()
            if number:
                times[name].append(time.process_time() - start)
    return times


def compared(times: dict[str, list[float]], operations: dict[str, float], rank: dict[str, int | None]) -> list[Any]:
    """Rows of a table: speed-up over ``dense``, its range over the rounds, and operations of dense over these."""
    rows = []
    for name, own in times.items():
        ratios = [dense / mine for dense, mine in zip(times["dense"], own, strict=True)]
        rows.append(
            {
                "way": name,
                "rank": rank.get(name),
                "milliseconds": round(1000 * statistics.median(own), 2),
                "speed_up": round(statistics.median(ratios), 3),
                "range": [round(min(ratios), 3), round(max(ratios), 3)],
                "operations": round(operations["dense"] / operations[name], 3),
            }
        )
    return rows


def layers(rounds: int, tokens: int) -> dict[str, Any]:
    """Each layer in each kind and rank."""
    import torch

    found = {}
    for name, (inputs, outputs) in LAYERS.items():
        x = torch.randn(tokens, inputs, requires_grad=True)
        up = torch.randn(tokens, outputs)
        ways: dict[str, Callable[[], Any]] = {}
        operations: dict[str, float] = {}
        ranks: dict[str, int | None] = {}
        chosen = [("dense", "", 0), *((kind, text, round(share * inputs))
                  for kind in ("lowrank", "cola", "sltrain") for text, share in SHARES.items())]  # fmt: skip
        for kind, text, rank in chosen:
            made, way = layer(inputs, outputs, kind, rank), f"{kind} {text}".strip()
            ways[way] = functools.partial(_layer_pass, made, x, up)
            ranks[way] = rank or None
            operations[way] = float(inputs * outputs if kind == "dense" else rank * (inputs + outputs))
            if kind == "sltrain":
                operations[way] = inputs * outputs + rank * min(inputs + outputs, inputs * outputs / tokens)
        found[name] = compared(turns(ways, rounds), operations, ranks)
    return found


def models(rounds: int, tokens: int) -> dict[str, Any]:
    """Each model in each kind."""
    import torch

    from finbench.models.structured import counts, modules

    found = {}
    for name, amounts in MODELS.items():
        ids = torch.randint(0, 40_000, (1, tokens))
        ways: dict[str, Callable[[], Any]] = {}
        operations: dict[str, float] = {}
        ranks: dict[str, int | None] = {}
        chosen = [("dense", "", 0.0), *((kind, text, amount)
                  for kind in ("lowrank", "cola", "sltrain") for text, amount in amounts.items())]  # fmt: skip
        for kind, text, amount in chosen:
            if kind != "lowrank" and text == "1.5x":
                continue
            made, way = model(name, kind, amount), f"{kind} {text}".strip()
            first = next(iter(modules.layers(made).values()), None)
            ranks[way] = None if first is None else first.record.rank
            operations[way] = counts.flops_per_token(made, tokens).forward
            ways[way] = functools.partial(_model_pass, made, ids)
        found[name] = compared(turns(ways, rounds), operations, ranks)
    return found


def table(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| what | way | rank | ms | speed-up | of rounds | operations, dense over these |",
        "|--|--|--:|--:|--:|--|--:|",
    ]
    for part in ("layers", "models"):
        for name, rows in found[part].items():
            lines += [
                f"| {name} | {row['way']} | {row['rank'] or ''} | {row['milliseconds']:,.0f} | {row['speed_up']:.2f} | "
                f"{row['range'][0]:.2f} to {row['range'][1]:.2f} | {row['operations']:.2f} |"
                for row in rows
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=512)
    given = parser.parse_args()
    if given.what == "table":
        print(table(json.loads(FOUND.read_text(encoding="utf-8"))), end="")
        return
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {
        "machine": {"processor": _processor(), "torch": torch.__version__, "threads": 1},
        "rounds": given.rounds,
        "tokens": given.tokens,
        "layers": layers(given.rounds, given.tokens),
        "models": models(max(3, given.rounds // 2), given.tokens // 2),
    }
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found), end="")


def _processor() -> str:
    """Its name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
