"""What half precision explains of an adapter's log-probabilities, and what is a fault: the tolerances of parity.py.

python benchmarks/parity.py --adapter ./folder [--base BASE] [--dtype bfloat16]

By transformers and peft on the probes of ``finbench/engines/vllm/parity.py``, root mean square of the differences in
nats: of the base and the adapter in half precision from float32, and of faulty copies of the adapter from the right one
in half precision. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finbench.engines.vllm import parity
from finbench.models import adapters, attaching, bases

Change = Callable[[dict[str, Any], dict[str, Any]], None]  # of a configuration and the tensors


def without(part: str) -> Change:
    """The update of what has ``part`` in its name is lost."""

    def change(config: dict[str, Any], tensors: dict[str, Any]) -> None:
        for name in tensors:
            if part in name and "lora_B" in name:
                tensors[name] = torch.zeros_like(tensors[name])

    return change


def scaled(factor: float) -> Change:
    """Another alpha."""
    return lambda config, tensors: config.update(lora_alpha=config["lora_alpha"] * factor)


def faults(folder: Path) -> dict[str, Change]:
    """What may go wrong when somebody serves it."""
    config = json.loads((folder / "adapter_config.json").read_text())
    names = load_file(folder / "adapter_model.safetensors")
    layers = sorted({int(name.split("layers.")[1].split(".")[0]) for name in names if "layers." in name})
    kinds = {f"without {kind}": without(f".{kind}.") for kind in sorted(config["target_modules"])}
    some = {f"without layer {layers[at]}": without(f"layers.{layers[at]}.") for at in (0, len(layers) // 2, -1)}
    return {"twice its scale": scaled(2), "half its scale": scaled(0.5), **kinds, **some}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, type=Path)
    parser.add_argument("--base", default=None)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    stated = parser.parse_args()
    folder = adapters.find(str(stated.adapter))
    base = adapters.base_of(folder, stated.base)

    exact, tokenizer = bases.load(base, 16, torch.float32)
    plain = parity.after_probes(exact, tokenizer)
    right = parity.after_probes(attaching.attach(exact, folder.folder).eval(), tokenizer)
    ids = [row.topk(parity.TOP).indices for row in right]
    del exact

    def chosen(rows: list[Any]) -> parity.Scores:
        return [row[at].tolist() for row, at in zip(rows, ids, strict=True)]

    def apart(one: list[Any], other: list[Any]) -> str:
        return f"{parity.root_mean_square(chosen(one), chosen(other)):.3f}"

    half, _ = bases.load(base, 16, getattr(torch, stated.dtype))
    table = [("what the adapter moves, in float32", apart(right, plain))]
    table.append((f"{stated.dtype} from float32: base", apart(parity.after_probes(half, tokenizer), plain)))
    attached = attaching.attach(half, folder.folder).eval()
    served = parity.after_probes(attached, tokenizer)
    half = attached.unload()
    table.append((f"{stated.dtype} from float32: adapter", apart(served, right)))
    with tempfile.TemporaryDirectory() as place:
        for name, change in faults(folder.folder).items():
            copy = Path(place) / name.replace(" ", "-")
            shutil.copytree(folder.folder, copy)
            config = json.loads((copy / "adapter_config.json").read_text())
            tensors = load_file(copy / "adapter_model.safetensors")
            change(config, tensors)
            (copy / "adapter_config.json").write_text(json.dumps(config))
            save_file(tensors, copy / "adapter_model.safetensors")
            attached = attaching.attach(half, copy).eval()
            table.append((f"adapter {name}", apart(parity.after_probes(attached, tokenizer), served)))
            half = attached.unload()
    print(f"| {folder.name} | nats |\n|--|--:|")
    for what, value in table:
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()
