"""finbench plan beside published trainings: speed and memory, what it was fitted to and what it was not.

python benchmarks/plan_points.py    # the tables of docs/training.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finbench.core.console import quiet
from finbench.models import bases
from finbench.training import batches, loops, machines, planning, recipes, shapes, timing

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"


def memory(step: timing.PublishedStep) -> tuple[float, float]:
    """GiB of tensors on one card by the plan: as finbench trains, and as torchtune does.

    Of the heaviest pass that finbench makes of these rows, for it limits logits; without the card's context and what
    the allocator keeps. torchtune has 2 bytes for a logit, where we have 12; 8 for a trained number, where we have 16,
    and in shards no number twice.
    """
    stated: dict[str, Any] = {"tasks": ["mini_sentiment"], "bits": step.bits, "rank": step.rank}
    stated |= {"target_modules": step.modules, "gradient_checkpointing": step.checkpointing}
    stated |= {"sharding": "fsdp"} if step.cards > 1 else {}
    number, tokens = step.rows
    recipe, model = recipes.recipe(None, {**stated, "pass_tokens": number * tokens}), shapes.shaped(step.shape)
    rows = [batches.TrainingRow([first, *range(1, tokens)], tokens - 1) for first in range(number)]
    heaviest = loops.Passes.of(recipe, "shared", model.config.vocab_size, 0).cut(rows)[0]
    found = planning.needs(model, recipe, bases.layers_of(model), heaviest, step.cards)
    found = found.chosen(recipe, machines.CARDS[step.card])
    theirs = found.weights + found.trained / 2 / step.cards + found.activations + found.logits / 6
    return found.used / machines.GIB, theirs / machines.GIB


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| published | on | tokens/s a card | plan | off | GiB a card | plan | off | torchtune's way | |",
        "|--|--|--:|--:|--:|--:|--:|--:|--:|--|",
    ]
    for step in timing.PUBLISHED:
        predicted = timing.predicted(step)
        said = f"{step.shape}, {'LoRA' if step.bits == 16 else 'QLoRA'} r {step.rank}, "
        said += f"{step.rows[0]} × {step.rows[1]:,}{', checkpointing' if step.checkpointing else ''}"
        said += f"{', compiled' if step.compiled else ''} ({step.source.partition(',')[0]})"
        (gib, theirs), held, beside, way = memory(step), "", "", ""
        if step.memory:
            held, beside = f"{step.memory:.1f}", f"{gib / step.memory - 1:+.0%}"
            way = f"{theirs:.1f} ({theirs / step.memory - 1:+.0%})"
        lines.append(
            f"| {said} | {step.cards} × {step.card} | {step.rate:,.0f} | {predicted:,.0f} | "
            f"{predicted / step.rate - 1:+.0%} | {held} | {gib:.1f} | {beside} | {way} | "
            f"{'fitted' if step.fitted else 'held out'} |"
        )
    return "\n".join(lines) + "\n"


def checkpointing() -> str:
    """Memory with and without activation checkpointing, and the parts of it: of long rows, and of a long start."""
    stated: dict[str, Any] = {"tasks": ["mini_sentiment"], "bits": 4, "rank": 8, "pass_tokens": 4096}
    lines = ["| NF4, rank 8, Llama-3.1-8B | checkpointing | activations | all, by plan |", "|--|--|--:|--:|"]
    start = range(1, 1501)
    passes = {
        "2 rows of 2,048": [batches.TrainingRow([first, *range(1, 2048)], 100) for first in range(2)],
        "54 rows of 48 behind a start of 1,500": [
            batches.TrainingRow([*start, *range(2000 + 48 * row, 2048 + 48 * row)], 2) for row in range(54)
        ],
    }
    for rows, made in passes.items():
        for name, again in (("without", False), ("with", True)):
            recipe = recipes.recipe(None, {**stated, "gradient_checkpointing": again})
            model = shapes.shaped("llama-3.1-8b")
            needed = planning.needs(model, recipe, bases.layers_of(model), made)
            found = needed.chosen(recipe, machines.CARDS["h100"])
            held, whole = found.parts["activations"], found.on(machines.CARDS["h100"])
            lines.append(f"| {rows} | {name} | {held:.1f} GiB | {whole:.1f} GiB |")
    return "\n".join(lines) + "\n"


# GB of 1e9 bytes by (bits, batch), rank 8 on q, k and v: memory of the training, and of the weights
FINLORA = {
    (16, 4): (30.91, 16.08), (16, 8): (30.91, 16.08), (8, 4): (11.41, 8.04), (8, 8): (11.81, 8.04),
    (4, 4): (8.26, 4.02), (4, 8): (8.65, 4.02),
}  # fmt: skip


def finlora() -> str:
    """FinLoRA's published memory beside the plan."""
    lines = ["| rank, bits | batch | published | plan | weights published | weights |", "|--|--:|--:|--:|--:|--:|"]
    for (bits, batch), (held, weights) in FINLORA.items():
        stated = {"tasks": ["mini_sentiment"], "bits": bits, "rank": 8, "gradient_checkpointing": False}
        recipe = recipes.recipe(None, {**stated, "target_modules": ["q_proj", "k_proj", "v_proj"]})
        rows, model = [batches.TrainingRow([n, *range(1, 100)], 2) for n in range(batch)], shapes.shaped("llama-3.1-8b")
        found = planning.needs(model, recipe, bases.layers_of(model), rows)
        planned, own = found.total / 1e9, found.weights / 1e9
        lines.append(f"| 8, {bits} | {batch} | {held:.2f} | {planned:.2f} | {weights:.2f} | {own:.2f} |")
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """The page with its tables made anew."""
    for name, made in (("", table), (" checkpointing", checkpointing), (" finlora", finlora)):
        first, last = (f"<!-- {words} benchmarks/plan_points.py{name} -->" for words in ("by", "end of"))
        before, _, rest = text.partition(first)
        text = f"{before}{first}\n{made()}{last}{rest.partition(last)[2]}"
    return text


def main() -> None:
    """Write them into the page."""
    quiet()
    PAGE.write_text(filled(PAGE.read_text()))


if __name__ == "__main__":
    main()
