"""Commands that make weights, or say what that would take: train, plan, tune, merge, pretrain, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import finbench
from finbench import grid, pretraining, training
from finbench.cli import command, show
from finbench.cli.command import DataDir, Found, RecipeOptions, echo, taking
from finbench.core import tracking
from finbench.core.errors import FinbenchError, counted
from finbench.core.files import check_writable

Place = Annotated[str, typer.Argument(metavar="DIR", help="Where the results lie: a folder or URL.")]
Resume = Annotated[bool, "--resume", "Go on with a run that was stopped."]


@taking(RecipeOptions, "Recipe")
def train(
    stated: RecipeOptions,
    out: Annotated[Path | None, "Adapter folder; default runs/<name>. Scorecards say the name, not the folder."] = None,
    resume: Resume = False,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs that share the rows of every step.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that do, on the processor: --gpus without a GPU.")
    ] = None,
    report: Annotated[
        list[str] | None, "Trackers that get what is logged, repeatable: trackio, wandb, mlflow, tensorboard."
    ] = None,
    dry_run: Annotated[bool, "--dry-run", "Show what would be trained."] = False,
    data_dir: DataDir = None,
) -> Found | None:
    """Train an adapter (Ctrl-C keeps everything so far; --resume goes on exactly)."""
    tracking.named(report or ())  # at once, and not after rows are read
    check_writable(out or Path("runs"))
    resolved = stated.resolved(data_dir)
    folder = out or Path("runs") / resolved.name
    if stated.recipe and not dry_run and folder.is_dir() and folder.resolve() == Path(stated.recipe).resolve():
        raise FinbenchError(f"{folder} is the adapter that was named.", "Train it again elsewhere: --out FOLDER")
    workers = training.process_count(gpus, processes)
    how = {"data_dir": data_dir, "processes": workers, "report": report or ()}
    result = finbench.train(resolved, folder, resume=resume, dry_run=dry_run, **how)  # type: ignore[arg-type]
    if not pretraining.main_process():  # torchrun has started others too
        return None
    if isinstance(result, dict):
        return Found(result, lambda: show.trainings.planned(result, folder))
    return Found(result, lambda: show.trainings.trained(result, folder, resolved.base))


@taking(RecipeOptions, "Recipe")
def plan(
    stated: RecipeOptions,
    gpu: Annotated[
        str | None,
        "h100, h200, h100-pcie, a100-80, a100-40, l40s, l4, rtx4090, rtx3090, a6000, a5000; cpu; default: this one's.",
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Cards that share the rows.")] = 1,
    shape: Annotated[str | None, "Plan for a base of this size, unfetched: llama-3.1-8b, llama-3.1-70b ..."] = None,
    price: Annotated[float | None, "An hour of a card, in any currency."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Memory, time and cost of a training or pretraining, before it is paid for; refuses what cannot fit."""

    if gpu not in (None, "cpu"):
        training.machines.card(gpu)  # at once, and not after seconds of imports
    if training.recipes.is_pretraining(stated.recipe):
        named = [key for key, value in vars(stated).items() if value is not None and key not in ("recipe", "set")]
        named += [key for key, value in (("shape", shape), ("data_dir", data_dir)) if value is not None]
        if named:
            raise FinbenchError(
                f"{stated.recipe} is a pretraining: its plan takes no --{named[0].replace('_', '-')}.",
                "It takes --gpu, --gpus, --price, and --set for keys of its recipe.",
            )
        chosen = pretraining.read_recipe(str(stated.recipe), command.settings(stated.set or []))
        costs = pretraining.plan(chosen, gpu, price=price, processes=gpus)
        return Found(costs, lambda: show.trainings.pretraining_costs(costs))
    recipe = stated.resolved(data_dir, fitted=shape is None)
    found = finbench.plan(recipe, gpu, price=price, shape=shape, processes=gpus, data_dir=data_dir)
    return Found(found, lambda: show.trainings.costs(found))


@taking(RecipeOptions, "Recipe")
def tune(
    stated: RecipeOptions,
    budget: Annotated[
        int,
        typer.Option(min=1, max=6, help="Whole trainings that trials add up to: 2^budget rates, halved after each."),
    ] = 3,
    out: Annotated[Path | None, "Folder of the search; default runs/tune-<name>."] = None,
    dry_run: Annotated[bool, "--dry-run", "Show what would be trained, and how much of it."] = False,
    data_dir: DataDir = None,
) -> Found:
    """Find the learning rate of a recipe on rows held out of train; the same command goes on after a stop."""
    check_writable(out or Path("runs"))
    resolved = stated.resolved(data_dir)
    folder = out or Path("runs") / f"tune-{resolved.name}"
    if dry_run:
        outline = training.search_outline(resolved, budget=budget, data_dir=data_dir)
        return Found(outline, lambda: show.trainings.outlined(outline, folder))
    tuned, path = finbench.tune(resolved, folder, budget=budget, data_dir=data_dir)
    return Found(tuned, lambda: show.trainings.tuned(tuned, path))


def runs(folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs")) -> Found:
    """The trainings that lie in a folder: in what their recipes differ, how far they are, and their scores."""
    found = training.runs_in(folder)
    return Found(found, lambda: show.trainings.runs(found, folder))


def merge(
    adapters: Annotated[list[str], "./folder, or hub:org/name[@rev]; of factors too. Several LoRAs become one LoRA."],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    base: Annotated[str | None, "The adapter's base, where bases.yaml does not know it."] = None,
    onto: Annotated[str | None, "auto; dequantised: what was trained; bf16: the weights as published."] = None,
    dtype: Annotated[str | None, "bfloat16 (default), float16 or float32."] = None,
    bits: Annotated[int | None, "16, 8 or 4: of its base in training, where the adapter does not say."] = None,
    how: Annotated[str | None, "Of several: cat (sum of updates), linear (mean), ties, dare, dare_ties."] = None,
    weights: Annotated[str | None, "One for each of several, commas between; default: 1."] = None,
    density: Annotated[float | None, "Share of numbers that ties and dare keep; default: 0.5."] = None,
    rank: Annotated[int | None, "Of the new LoRA; default: the ranks added up."] = None,
    seed: Annotated[int | None, "Of dare's draws; default: 0."] = None,
) -> Found:
    """Make one 16-bit model of an adapter and its base, or one LoRA of several, and say how close it comes."""
    whole = {"base": base, "onto": onto, "dtype": dtype, "bits": bits}
    several: dict[str, Any] = {"how": how, "weights": weights, "density": density, "rank": rank, "seed": seed}
    if odd := [f"--{name}" for name, value in (whole if len(adapters) > 1 else several).items() if value is not None]:
        what = "makes a LoRA of several" if len(adapters) > 1 else "makes a model of one adapter and its base"
        raise FinbenchError(f"This {what}: it takes no {' or '.join(odd)}.", "See its options: finbench merge --help")
    check_writable(out)
    if len(adapters) > 1:
        several["weights"] = None if weights is None else command.numbers(weights, "--weights")
        chosen = {name: value for name, value in several.items() if value is not None}
        combined = finbench.combine(adapters, out, **chosen)
        return Found(combined, lambda: show.trainings.combined(combined, out))
    given = {"onto": onto, "dtype": dtype}
    stated = {name: value for name, value in given.items() if value is not None}
    made = finbench.merge(adapters[0], out, base=base, bits=command.bits(bits), **stated)
    return Found(made, lambda: show.trainings.merged(made, out))


def export(
    adapter: Annotated[str, "./folder, or hub:org/name[@rev]."],
    out: Annotated[Path, typer.Option(help="New folder for the files.")],
    to: Annotated[str, "gguf: for llama.cpp; ollama: a Modelfile beside it; mlx: for mlx-lm."] = "gguf",
    base: Annotated[str | None, "The adapter's base, where bases.yaml does not know it."] = None,
    bits: Annotated[int | None, "16, 8 or 4: of its base in training, where the adapter does not say."] = None,
    weights: Annotated[str | None, "f16; q8_0 (GGUF alone): half the size; bf16 (default of mlx); f32."] = None,
) -> Found:
    """Write an adapter and its base as one model for llama.cpp, Ollama or MLX; for the first two the LoRA alone too."""

    check_writable(out)
    made = finbench.export(adapter, out, to=to, base=base, bits=command.bits(bits), weights=weights)
    return Found(made, lambda: show.trainings.exported(made, out))


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
    check_writable(out or Path("runs"))
    stated = pretraining.read_recipe(recipe, command.settings(set_ or []))
    folder = out or Path("runs") / stated.name
    result = finbench.pretrain(stated, folder, resume=resume, dry_run=dry_run)
    if not pretraining.main_process():
        return None
    if isinstance(result, dict):
        return Found(result, lambda: show.trainings.pretraining_planned(result, folder))
    return Found(result, lambda: show.trainings.pretrained(result, folder))


def sweep_run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep's YAML: examples/sweep-*.yaml.")],
    out: Annotated[str | None, "Results: a folder all nodes see, or a URL; default runs/sweep-<name>."] = None,
    ray: Annotated[str | None, "A running cluster: auto, host:port; default: Ray on this machine."] = None,
    dry_run: Annotated[bool, "--dry-run", "Show the cells, what is done already, and what the rest takes."] = False,
    gpu: Annotated[
        str | None, "With --dry-run: the card to plan for, as for finbench plan; default: this machine."
    ] = None,
    price: Annotated[float | None, "With --dry-run: an hour of a card, in any currency."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Run every cell of a grid on Ray, as `finbench sweep FILE`; the same command goes on after a stop or a kill."""
    if not dry_run and (gpu or price is not None):
        example = f"finbench sweep {file} --dry-run --gpu h100 --price 2.50"
        raise FinbenchError("--gpu and --price are for a plan.", example)
    result = finbench.sweep(file, out, ray_address=ray, data_dir=data_dir, dry_run=dry_run)
    if isinstance(result, grid.Schedule):
        plan = grid.sweep_outline(result, grid.Place(out or f"runs/sweep-{result.sweep.name}"), gpu, price, data_dir)
        return Found(plan, lambda: show.grids.planned(plan))
    fault = None
    if result.failed:
        first = result.failed[0]
        cells = result.cells - result.done
        others = len(result.failed) - cells
        parts = [f"{cells} of {result.cells} cells"] if cells else []
        parts += [f"{counted(others, 'scoring')} of bases"] if others else []
        fault = FinbenchError(
            f"{' and '.join(parts)} failed; the first, {first['cell']}: {first['message']}",
            first["hint"] or "The same command tries them again.",
        )
    return Found(result, lambda: show.grids.ended(result), fault)


def sweep_status(place: Place) -> Found:
    """How a sweep stands: cells, what runs, the best so far, what failed; from any shell or machine."""
    found = grid.sweep_status(place)
    return Found(found, lambda: show.grids.status(found))


def sweep_fetch(place: Place, out: Annotated[str | None, "Folder to copy into; default runs/<name>."] = None) -> Found:
    """Copy the scorecards of a sweep whose results lie at a URL here."""
    target = Path(out or f"runs/{place.rstrip('/').rsplit('/', 1)[-1]}") / "scorecards"
    count = grid.Place(place).fetch_cards(target)
    said = f"{counted(count, 'scorecard')} in {target}.\nNext: finbench report {target} --spread seeds"
    return Found({"cards": count, "folder": str(target)}, lambda: echo(said))
