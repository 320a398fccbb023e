"""``finbench demo``: the whole path in a few minutes, on the embedded base and a shipped set."""

from __future__ import annotations

from pathlib import Path

from finbench.core.console import say
from finbench.core.records import Scorecard
from finbench.evaluation import evaluate
from finbench.training import recipes, train

RECIPE = "mini-sentiment-smollm2-135m-lora"


def demo(out: Path) -> list[Scorecard]:
    """Train the demo recipe into ``out/adapter`` and score base and adapter; return their scorecards.

    What ``out`` holds already is not done again.
    """
    recipe = recipes.recipe(RECIPE)
    say("1. Train a LoRA adapter of smollm2-135m on 600 invented news sentences.")
    resume = (out / "adapter" / "checkpoints").is_dir()
    train(recipe, out / "adapter", resume=resume)
    say("2. Score the base and the adapter on 150 sentences about companies and with words they have not seen.")
    return evaluate([str((out / "adapter").resolve())], out=out / "scorecards")
