"""Commands that make weights, or say what that would take: train, plan, tune, merge, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench import pretraining, training
from finbench.cli import command, show
from finbench.cli.command import DataDir, Found, RecipeOptions, taking

Resume = Annotated[bool, "--resume", "Go on with a run that was stopped."]


@taking(RecipeOptions, "Recipe")
def train(
    stated: RecipeOptions,
    out: Annotated[Path | None, "Adapter folder; default runs/<name>."] = None,
    resume: Resume = False,
    gpus: Annotated[int | None, "GPUs that share the rows of every step."] = None,
    processes: Annotated[int | None, "Processes that do, on the processor: --gpus without a GPU."] = None,
    dry_run: Annotated[bool, "--dry-run", "Show what would be trained."] = False,
    data_dir: DataDir = None,
) -> Found:
    """Train an adapter (Ctrl-C keeps everything so far; --resume goes on exactly)."""
    resolved = stated.resolved()
    folder = out or Path("runs") / resolved.name
    workers = training.process_count(gpus, processes)
    result = finbench.train(resolved, folder, data_dir=data_dir, resume=resume, dry_run=dry_run, processes=workers)
    if isinstance(result, dict):
        return Found(result, lambda: show.trainings.planned(result, folder))
    return Found(result, lambda: show.trainings.trained(result, folder, resolved.base))


@taking(RecipeOptions, "Recipe")
def plan(
    stated: RecipeOptions,
    gpu: Annotated[
        str, "h100, h200, a100-80, a100-40, rtx4090, rtx3090, a6000, a5000, l4; cpu: this machine."
    ] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="Cards that share the rows.")] = 1,
    shape: Annotated[str | None, "Plan for a base of this size, unfetched: llama-3.1-8b, llama-3.1-70b ..."] = None,
    price: Annotated[float | None, "An hour of a card, in any currency."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Memory, time and cost of a training, before it is paid for; refuses what cannot fit."""

    found = finbench.plan(stated.resolved(), gpu, price=price, shape=shape, processes=gpus, data_dir=data_dir)
    return Found(found, lambda: show.trainings.costs(found))


@taking(RecipeOptions, "Recipe")
def tune(
    stated: RecipeOptions,
    budget: Annotated[int, "Cost in whole trainings: 2^budget rates, halved after each."] = 3,
    out: Annotated[Path | None, "Folder of the search; default runs/tune-<name>."] = None,
    dry_run: Annotated[bool, "--dry-run", "Show what would be trained, and how much of it."] = False,
    data_dir: DataDir = None,
) -> Found:
    """Find the learning rate of a recipe on rows held out of train; the same command goes on after a stop."""
    resolved = stated.resolved()
    folder = out or Path("runs") / f"tune-{resolved.name}"
    if dry_run:
        outline = training.search_outline(resolved, budget=budget, data_dir=data_dir)
        return Found(outline, lambda: show.trainings.outlined(outline, folder))
    tuned, path = finbench.tune(resolved, folder, budget=budget, data_dir=data_dir)
    return Found(tuned, lambda: show.trainings.tuned(tuned, path))


def merge(
    adapter: Annotated[str, "./folder, or hub:org/name[@rev]; of factors too."],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    base: Annotated[str | None, "The adapter's base, where bases.yaml does not know it."] = None,
    onto: Annotated[str, "auto; dequantised: what was trained; bf16: the weights as published."] = "auto",
    dtype: Annotated[str, "bfloat16, float16 or float32."] = "bfloat16",
    bits: Annotated[int | None, "16, 8 or 4: of the base that an adapter without finbench.json was trained on."] = None,
) -> Found:
    """Make one 16-bit model of an adapter and its base, or of low-rank factors, and say how close the two are."""

    made = finbench.merge(adapter, out, base=base, onto=onto, dtype=dtype, bits=command.bits(bits))
    return Found(made, lambda: show.trainings.merged(made, out))


def pretrain(
    recipe: Annotated[Path, "A YAML file: examples/pretrain-*.yaml, docs/pretrain.md."],
    out: Annotated[Path | None, "Folder of the run; default runs/<name>."] = None,
    resume: Resume = False,
    dry_run: Annotated[bool, "--dry-run", "Tokenise the text, and show what would be."] = False,
    set_: Annotated[
        list[str] | None, "--set", "A recipe key, key=value; structure.rank=64 reaches into a part; repeatable."
    ] = None,
) -> Found | None:
    """Pretrain a model with low-rank structure, from nothing or from a checkpoint, beside dense baselines.

    Ctrl-C keeps everything so far; --resume goes on at the exact batch.
    """
    stated = pretraining.read_recipe(recipe, command.settings(set_ or []))
    folder = out or Path("runs") / stated.name
    result = finbench.pretrain(stated, folder, resume=resume, dry_run=dry_run)
    if not pretraining.main_process():
        return None
    if isinstance(result, dict):
        return Found(result, lambda: show.pretrained.planned(result, folder))
    return Found(result, lambda: show.pretrained.trained(result, folder))
