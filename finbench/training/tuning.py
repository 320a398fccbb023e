"""``finbench tune``: the learning rate by successive halving on rows held out of train, equally dear for any method.

Comparisons at one learning rate mislead: nine LoRA variants end within one or two points of each other once each has
its own (arXiv:2602.04998, arXiv:2601.22708).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from finbench.core import environment
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError, Interrupted, counted
from finbench.core.files import digest, write_atomic
from finbench.core.records import Loop, Recipe, Search, Trial
from finbench.models import bases
from finbench.training import batches, planning, preparation, runner, speedups
from finbench.training.holdout import FORWARD, place

if TYPE_CHECKING:
    from finbench.training import loops

HELD_OUT = 0.2  # share of the train rows, by hash of their source; of few sources one at least
MOST_HELD_OUT = 200  # rows a task: more would cost as much as the training
LARGEST_BUDGET = 6
NEVER = 10**9


def plan(lr: float, budget: int) -> tuple[list[float], list[tuple[int, float]]]:
    """(2^budget rates a factor of two apart around ``lr``; of each rung: how many are trained, on what share of rows).

    A rung costs as much as one whole training of the recipe, and there are ``budget`` of them; each has half the rates
    on twice the rows, and the last one compares two on half the rows.
    """
    if not 1 <= budget <= LARGEST_BUDGET:
        raise FinbenchError(f"--budget is from 1 to {LARGEST_BUDGET} whole trainings, got {budget}.", "--budget 3")
    count = 2**budget
    rates = [float(f"{lr * 2.0**k:.4g}") for k in range(-count // 2, count // 2)]
    return rates, [(2 ** (budget - rung), 0.5 ** (budget - rung)) for rung in range(budget)]


def in_trainings(budget: int, held: float, learnt: float) -> float:
    """What a search takes, in whole trainings: its budget, and a forward pass over the rows held out after each trial.

    ``held`` and ``learnt``: rows, or tokens, of such a pass, and of a whole training.
    """
    trials = sum(count for count, _ in plan(1.0, budget)[1])
    return budget + trials * FORWARD * held / learnt


def held_share(run: preparation.Prepared) -> float:
    """Rows that a search would hold out, for one that the training ``run`` learns in all its epochs.

    Where ``limit`` leaves rows out, nobody has counted those: the most that may be held out.
    """
    limit, counts = run.recipe.limit, [part.rows for part in run.data]
    held = sum(min(MOST_HELD_OUT, count if count == limit else HELD_OUT * count) for count in counts)
    return held / (run.recipe.epochs * sum(counts))


def search_outline(recipe: Recipe, *, budget: int = 3, data_dir: Path | None = None) -> dict[str, Any]:
    """What ``tune`` would do: the rates, and how many of them are trained on how many rows in each rung.

    Raises what ``tune`` would raise before it trains anything. Loads no weights and writes nothing.
    """
    quiet()
    rates, rungs = plan(recipe.lr, budget)
    held, sides = _rows(recipe, rungs, data_dir)
    stages = [
        {"trials": count, "rows": len(run.rows), "steps": run.steps, "tokens": run.tokens(run.passes)[0]}
        for (count, _), run in zip(rungs, sides, strict=True)
    ]
    tokens = sum(stage["trials"] * stage["tokens"] for stage in stages)
    return {
        "recipe": recipe.model_dump(),
        "base": held.base.id.model_dump(),
        "budget": budget,
        "rates": rates,
        "validation_rows": len(held.rows),
        "rungs": stages,
        "tokens": tokens,
        "trainings": round(in_trainings(budget, sum(held.sampler.lengths), tokens / budget), 2),
    }


def tune(recipe: Recipe, out: Path, *, budget: int = 3, data_dir: Path | None = None) -> tuple[Recipe, Path]:
    """Find a learning rate for ``recipe`` by trials of ``budget`` trainings; return the tuned recipe and its file.

    A fifth of the train rows, at most 200 a task, is held out, by source, so that no text is on both sides; the test
    split is not touched. Rates are ranked by the mean negative log-likelihood of the held-out answers. Each finished
    trial is kept in ``out``: the same command goes on after a stop. The recipe that is written holds the winner and
    the whole search; ``train`` takes it as it is.

    Raises FinbenchError when every rate diverges, and for a folder that holds another search.
    """
    quiet()
    rates, rungs = plan(recipe.lr, budget)
    with environment.owner(out):
        held, sides = _rows(recipe, rungs, data_dir)
        path = out / "search.json"
        rows = [part.digest for run in sides for part in run.data]
        stated = {"lr": recipe.lr, "limit": recipe.limit, "budget": budget, "tasks": recipe.tasks, "rows": rows}
        key = digest({**held.decisive, **stated})
        trials = _earlier(path, key)
        kept, settled = rates, dict[Loop, Loop]()
        for rung, (run, (count, _)) in enumerate(zip(sides, rungs, strict=True)):
            for lr in kept[:count]:  # on the same rows, in the same order
                found = next((trial for trial in trials if (trial.rung, trial.lr) == (rung, lr)), None)
                if found is None:
                    found = _trial(replace(run, recipe=_untouched(recipe, lr=lr)), held, rung, settled)
                    trials.append(found)
                    environment.release_memory()  # the model of a rate that diverged too
                    stored = {"search": key, "trials": [trial.model_dump() for trial in trials]}
                    write_atomic(path, json.dumps(stored, indent=1) + "\n")
                shown = "diverged" if found.loss is None else f"validation loss {found.loss:.4f}"
                say(f"rung {rung + 1} of {budget}: lr {lr:g} on {found.rows:,} rows, {shown}")
            ranked = _ranked(trials, rung)
            if ranked[0].loss is None:
                raise FinbenchError("Every learning rate diverged.", f"Start lower: --lr {min(kept) / 16:.2g}")
            kept = [trial.lr for trial in ranked[: max(1, count // 2)]]
        search = Search(
            budget=budget,
            validation_rows=len(held.rows),
            data=[part.digest for part in sides[-1].data],
            trials=sorted(trials, key=lambda trial: (trial.rung, trial.lr)),
        )
        tuned = recipe.model_copy(update={"lr": kept[0], "search": search})
        target = out / f"{recipe.name.removesuffix(f'-s{recipe.seed}')}-tuned.yaml"
        write_atomic(target, yaml.safe_dump(tuned.model_dump(exclude={"name"}), sort_keys=False))
    if len(rates) > 2 and kept[0] in (rates[0], rates[-1]):
        say(f"{kept[0]:g} is the end of the range that was searched: search again from there, with --lr {kept[0]:g}.")
    return tuned, target


def _rows(
    recipe: Recipe, rungs: Sequence[tuple[int, float]], data_dir: Path | None
) -> tuple[runner.Prepared, list[runner.Prepared]]:
    """(rows held out, the rows of each rung)."""
    if recipe.preferences is not None:
        raise FinbenchError(
            "The rate of pairs of answers is not searched for.", "State it: finbench train ... --lr 1e-4"
        )
    chosen = _untouched(recipe)
    speedups.check_sharding(recipe, 1)
    speedups.check(recipe)
    held = runner.prepare(chosen, data_dir, _side(recipe, "held", 1.0))
    sides = [runner.prepare(chosen, data_dir, _side(recipe, "train", share), tell=False) for _, share in rungs]
    for run in sides:
        run.method.check_steps(recipe, run.steps)
    speedups.check_base(recipe, bases.skeleton(held.base))
    decided = [planning.decided(run) for run in sides]
    if last := decided[-1][1]:  # that of most rows
        say(last)
    return held, [run for run, _ in decided]


def _untouched(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe for a trial: rows are chosen by ``_side``, and nothing is written on the way."""
    unseen = {"validation": None, "validate_on": "loss", "validate_every": "auto", "select": "best", "patience": None}
    return recipe.model_copy(update={"limit": None, "save_every": NEVER, "search": None, **unseen, **changes})


def _side(recipe: Recipe, side: Literal["held", "train"], share: float) -> preparation.Select:

    def select(name: str, count: int, known_by: Callable[[int], str]) -> list[int]:
        sources = [known_by(number) for number in range(count)]
        at = {source: place(source, recipe.seed, "finbench-tune") for source in sources}
        held = {source for source in sources if at[source] < HELD_OUT} or set(sorted(at, key=at.__getitem__)[:1])
        own = [number for number, source in enumerate(sources) if (source in held) == (side == "held")]
        most = min(len(own), recipe.limit or len(own))
        if side == "held":
            most = min(most, MOST_HELD_OUT)
        if not own:
            said = f"{name} has too few train rows ({count:,}, of {counted(len(at), 'source')}) to hold some out."
            raise FinbenchError(said, "Tune on more rows.")
        return runner.choose(own, max(1, round(share * most)), recipe.seed)

    return select


def _trial(run: runner.Prepared, held: runner.Prepared, rung: int, settled: dict[Loop, Loop]) -> Trial:
    """A training and its loss. All start from the same weights: one settles a loop for all of which it is planned.

    Rows of another rung may be longer, and another loop be planned for them.
    """
    from finbench.training.trainer import Diverged

    kept = "The trials that were finished are kept: the same command goes on."
    with tempfile.TemporaryDirectory() as folder, planning.explained(run, 1, kept):
        model, tokenizer = runner.begin(run, run.dtype)
        try:
            planned = run.passes.loop
            run = run.begun(settled.get(planned, planned), run.passes.checkpointed)
            trainer, _ = runner.fit(run, model, tokenizer, Path(folder), settled=planned in settled)
            settled[planned] = trainer.passes.loop
            judge = held if held.passes.loop == "padded" else trainer  # its rows may be longer
            loss: float | None = answer_loss(model, held.rows, judge.passes)
            trainer.release()
        except Diverged:
            loss = None
        except Interrupted as fault:
            raise Interrupted(
                "Stopped; every trial that was finished is kept.", "Go on with the same command."
            ) from fault
    finite = loss is not None and math.isfinite(loss)
    return Trial(rung=rung, lr=run.recipe.lr, rows=len(run.rows), steps=run.steps, loss=loss if finite else None)


def answer_loss(model: Any, rows: Sequence[batches.TrainingRow], passes: loops.Passes) -> float:
    """Mean negative log-likelihood in nats of an answer's token, over all tokens of all answers."""
    import torch

    from finbench.training import loops

    model.eval()
    passes, total = replace(passes, compiled=False, checkpointed=False), 0.0  # nothing is kept for a backward pass
    with torch.no_grad(), passes.at_work(model):
        for part in passes.cut(sorted(rows, key=lambda row: len(row.ids))):
            made = passes.prepare(part, model.device)
            with loops.attending(made):
                total += float(loops.loss(model, made))
    return total / sum(row.answer for row in rows)


def _ranked(trials: Sequence[Trial], rung: int) -> list[Trial]:
    own = [trial for trial in trials if trial.rung == rung]
    return sorted(own, key=lambda trial: (math.inf if trial.loss is None else trial.loss, trial.lr))


def _earlier(path: Path, key: str) -> list[Trial]:
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        trials = [Trial.parse(entry, str(path)) for entry in found["trials"]]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise FinbenchError(f"{path} is torn.", "Remove it, or choose another --out.") from fault
    if found.get("search") != key:
        raise FinbenchError(
            f"{path} is of another search (recipe, data, base or budget differ).", "Choose another --out."
        )
    say(f"Going on with {len(trials)} finished trials.")
    return trials
