"""finbench plan beside published trainings: speed and memory, what it was fitted to and what it was not.

python benchmarks/plan_points.py    # the table of docs/training.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finbench.core.console import quiet
from finbench.models import bases
from finbench.training import batches, loops, machines, planning, recipes, shapes, timing

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"
MARKS = ("<!-- by benchmarks/plan_points.py -->", "<!-- end of plan_points -->")


def memory(step: timing.PublishedStep) -> float:
    """GiB of one card by the plan, for the heaviest pass that finbench makes of these rows: it limits the logits."""
    stated: dict[str, Any] = {"tasks": ["mini_sentiment"], "bits": step.bits, "rank": step.rank}
    stated |= {"target_modules": step.modules, "gradient_checkpointing": step.checkpointing}
    stated |= {"sharding": "fsdp"} if step.cards > 1 else {}
    number, tokens = step.rows
    recipe, model = recipes.recipe(None, {**stated, "pass_tokens": number * tokens}), shapes.shaped(step.shape)
    rows = [batches.TrainingRow([first, *range(1, tokens)], tokens - 1) for first in range(number)]
    heaviest = loops.Passes.of(recipe, "shared", model.config.vocab_size, 0).cut(rows)[0]
    found = planning.needs(model, recipe, bases.layers_of(model), heaviest, step.cards)
    card = machines.CARDS[step.card]
    return found.chosen(recipe, card).on(card)


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| published | on | tokens/s a card | plan | off | GiB a card | plan | |",
        "|--|--|--:|--:|--:|--:|--:|--|",
    ]
    for step in timing.PUBLISHED:
        predicted = timing.predicted(step)
        said = f"{step.shape}, {'LoRA' if step.bits == 16 else 'QLoRA'} r {step.rank}, "
        said += f"{step.rows[0]} × {step.rows[1]:,}{', checkpointing' if step.checkpointing else ''}"
        said += f"{', compiled' if step.compiled else ''} ({step.source.partition(',')[0]})"
        held = f"{step.memory:.1f}" if step.memory else ""
        lines.append(
            f"| {said} | {step.cards} × {step.card} | {step.rate:,.0f} | {predicted:,.0f} | "
            f"{predicted / step.rate - 1:+.0%} | {held} | {memory(step):.1f} | {'fitted' if step.fitted else ''} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write it into the page."""
    quiet()
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table()}{MARKS[1]}{rest.partition(MARKS[1])[2]}")


if __name__ == "__main__":
    main()
