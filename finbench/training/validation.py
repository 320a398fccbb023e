"""Held-out rows during a training: their loss every so many steps, the tasks' metric, the best step, the end.

What is known of the best step is trainer's own history of logs, which every checkpoint holds: a run that is resumed
knows what one that was not stopped knows. The best step has a checkpoint of its own, which is kept.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState

from finbench.core.console import say
from finbench.core.records import Recipe, Validation
from finbench.models import bases
from finbench.training import batches, checkpoints, loops
from finbench.training.answering import Answerer
from finbench.training.holdout import HeldOut

if TYPE_CHECKING:
    from finbench.training.preparation import Prepared
    from finbench.training.trainer import AnswerTrainer

LOSS, METRIC, SECONDS = "eval_loss", "eval_metric", "eval_seconds"  # keys of the history


class History:
    """What a training's history says of held-out rows."""

    def __init__(self, recipe: Recipe, lower_is_better: bool, log: Sequence[Mapping[str, Any]]) -> None:
        self.patience, self.sign = recipe.patience, 1 if lower_is_better else -1
        key = METRIC if recipe.validate_on == "metric" else LOSS
        found = [entry for entry in log if LOSS in entry]
        self.loss = [(int(entry["step"]), float(entry[LOSS])) for entry in found]
        self.curve = [(int(entry["step"]), float(entry[key])) for entry in found]
        self.seconds = sum(float(entry[SECONDS]) for entry in found)

    @property
    def bests(self) -> list[int]:
        """The steps that did better than every earlier one, the untrained model not counted."""
        found: list[int] = []
        least = math.inf
        for step, value in self.curve:
            if step and self.sign * value < least:
                found, least = [*found, step], self.sign * value
        return found

    @property
    def best(self) -> int | None:
        """The step that did best, the earlier one of equals; None before there is one."""
        return self.bests[-1] if self.bests else None

    @property
    def waited(self) -> int:
        """Validations since the best one."""
        return sum(step > (self.best or 0) for step, _ in self.curve)

    @property
    def over(self) -> bool:
        """Whether patience has ended."""
        return self.patience is not None and self.waited >= self.patience

    @property
    def helped(self) -> bool:
        """Whether any step did better than none."""
        values = dict(self.curve)
        first = values.get(0, math.nan)
        return self.best is None or not math.isfinite(first) or self.sign * values[self.best] < self.sign * first


class Validator(TrainerCallback):
    """Validates after every so many steps, before the checkpoint of that step is written."""

    def __init__(self, run: Prepared, held: HeldOut, trainer: AnswerTrainer, tokenizer: Any) -> None:
        self.recipe, self.held, self.trainer, self.tokenizer, self.last = (
            run.recipe,
            held,
            trainer,
            tokenizer,
            run.steps,
        )
        self.template = bases.chat_template(tokenizer, run.base.id.alias) if run.recipe.chat else None
        self.answerer: Answerer | None = None

    @property
    def history(self) -> History:
        """All that is known so far."""
        return History(self.recipe, self.held.lower_is_better, self.trainer.state.log_history)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Once before the first step: what the base does."""
        if state.global_step == 0:
            self._validate()
        self._keep()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """After the loss of a step is known, and found to be a number."""
        step = state.global_step
        if "loss" not in (logs or {}) or (step % self.held.every and step != self.last):
            return
        self._validate()
        if self.history.best == step:
            control.should_save = True
        if self.history.over and step < self.last:
            control.should_save = control.should_training_stop = True
        self._keep()

    def _keep(self) -> None:
        """Let the checkpoints of the last two best steps stay: the two newest checkpoints may need either."""
        assert self.trainer.watch is not None
        self.trainer.watch.kept = set(self.history.bests[-2:]) if self.recipe.select == "best" else set()

    def _validate(self) -> None:
        started = time.monotonic()
        with _same_numbers(self.trainer.model.device):
            logs = {LOSS: self._loss()}
            if self.held.asked:
                with self.trainer.resting():
                    self.answerer = self.answerer or Answerer(self.trainer.model, self.tokenizer)
                    logs[METRIC] = self.answerer.metric(self.held.asked, self.template)
        self.trainer.model.train()
        assert self.trainer.watch is not None
        self.trainer.watch.pace()  # the next step's speed is its own
        self.trainer.log({**logs, SECONDS: round(time.monotonic() - started, 3)})

    def _loss(self) -> float:
        """Mean negative log-likelihood of an answer's token, by the loop of the training; all processes take part."""
        trainer, model = self.trainer, self.trainer.model
        world, device = trainer.accelerator.num_processes, trainer.args.device
        mine, weight = batches.share(self.held.rows, trainer.accelerator.process_index, world)
        parts = [(part, weight) for part in trainer.passes.cut(sorted(mine, key=lambda row: len(row.ids)))]
        if self.recipe.sharding != "none":  # processes gather layers together: all make as many passes
            from finbench.training.trainer import largest

            parts += [(mine[:1], 0.0)] * (int(largest(len(parts), device)) - len(parts))
        model.eval()
        total = torch.zeros((), dtype=torch.float64, device=device)
        with torch.no_grad():
            for part, share in parts:
                made = trainer.passes.prepare(part, device)
                with loops.attending(made):
                    total += share * loops.loss(model, made).double()
        if world > 1:
            torch.distributed.all_reduce(total)
        return float(total) / sum(row.answer for row in self.held.rows)

    def choose(self, folder: Path) -> int:
        """Put the weights of the step that is kept into the model; return its number."""
        history, step = self.history, int(self.trainer.state.global_step)
        if self.recipe.select == "best" and history.best not in (None, step):
            assert history.best is not None
            self.trainer.load_weights(folder / f"checkpoint-{history.best}")
            step = history.best
        if not history.helped:
            say("No step did better on held-out rows than the base without training.")
        return step

    def record(self, selected: int) -> Validation:
        """For the adapter's record; ``selected``: the step whose weights are kept."""
        held, history = self.held, self.history
        finite = [(step, round(value, 6)) for step, value in history.curve if math.isfinite(value)]
        return Validation(
            source=held.source,
            rows=len(held.rows),
            digest=held.digest,
            left_out=held.left_out,
            measure=held.measure,
            lower_is_better=held.lower_is_better,
            every=held.every,
            curve=finite,
            loss=[(step, round(value, 6)) for step, value in history.loss if math.isfinite(value)],
            select=self.recipe.select,
            selected=selected,
            patience=self.recipe.patience,
            stopped=int(self.trainer.state.global_step) < self.last,
            seconds=round(history.seconds, 2),
        )


@contextlib.contextmanager
def _same_numbers(device: Any) -> Iterator[None]:
    """Inside, random numbers may be drawn: training goes on with those that it would have drawn."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield


def history_of(run: Prepared, checkpoint: Path) -> History | None:
    """What a checkpoint knows of held-out rows; None for a run without any."""
    if run.held is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return History(run.recipe, run.held.lower_is_better, state.log_history)


def ended(run: Prepared, checkpoint: Path) -> bool:
    """Whether a run had ended when its checkpoint was written."""
    history = history_of(run, checkpoint)
    return checkpoints.step_of(checkpoint) == run.steps or (history is not None and history.over)


def lacking(run: Prepared, checkpoint: Path) -> str | None:
    """Why a whole checkpoint is of no use: the best step that it knows has none; None where it is."""
    try:
        history = history_of(run, checkpoint)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        return "its history is torn"
    if history is None or run.recipe.select == "last" or history.best in (None, checkpoints.step_of(checkpoint)):
        return None
    best = checkpoint.with_name(f"checkpoint-{history.best}")
    return None if checkpoints.fault(best) is None else f"the best step it knows, {history.best}, has none"
