"""The loop of a pretraining: transformers' Trainer on the sequences of a mixture.

Every process is handed the number of a step, reads that step's sequences and trains on its share of them, so that two
processes take the steps that one takes. Held-out bits per byte are logged as the loss is, and lie in each checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from finbench.models import bases
from finbench.models.structured import layers, penalty
from finbench.pretraining import lowmemory
from finbench.pretraining.members import RELORA, Member, relora_recipe
from finbench.pretraining.prepared import PreparedText
from finbench.pretraining.spec import PretrainRecipe
from finbench.training import Keeper, StepTrainer

BITS, NATS = "bits_per_byte", "nats_per_token"  # in the log: bits_per_byte/<source>
STATE = "optimizer_state_bytes"  # in the log, beside the last of these
_POINTS = 1000  # of the loss curve


@dataclass(frozen=True)
class Phase:
    """Consecutive steps with one optimiser: the full-rank warm-up, or the rest, or all.

    ``first``: steps of the phases before it; ``steps``: its own.
    """

    first: int
    steps: int

    @property
    def last(self) -> int:
        """The step that it ends with, counted from the beginning of the run."""
        return self.first + self.steps


def factor(recipe: PretrainRecipe, step: int) -> float:
    """Share of the peak learning rate at ``step`` (from 0): a linear rise, then the schedule down to ``final``."""
    steps, warm = recipe.total_steps, math.ceil(recipe.warmup * recipe.total_steps)
    if step < warm:
        return (step + 1) / warm
    gone = min(1.0, (step - warm) / max(1, steps - warm))
    down = {"cosine": 0.5 * (1 + math.cos(math.pi * gone)), "linear": 1 - gone, "constant": 1.0}[recipe.schedule]
    return recipe.final + (1 - recipe.final) * down


class PretrainingWatch(Keeper):
    """The keeper of a pretraining: held-out text is scored before, at intervals and after; steps are timed."""

    slower = "--set lr={0:.2g}"

    def __init__(self, recipe: PretrainRecipe, phase: Phase, folder: Path, bar: Any, name: str) -> None:
        super().__init__(recipe.lr, phase.steps, folder, bar, before=phase.first)
        bar.remove_task(self.task)
        self.task = bar.add_task(name, total=recipe.total_steps, note="")
        self.phase = phase
        self.log_before: list[dict[str, Any]] = []  # of the phases before this one, and what was done between
        self.every = recipe.eval_every or max(1, math.ceil(recipe.total_steps / 10))
        self.trainer: PretrainTrainer | None = None
        self.paused = 0.0  # seconds of scoring, which are no training
        self.step_started = time.monotonic()
        self.step_seconds: list[float] = []

    @property
    def seconds(self) -> float:
        """Seconds of training of the whole run, without those of scoring."""
        return self.earlier + time.monotonic() - self.started - self.paused

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        super().on_train_begin(args, state, control, **more)
        if not state.global_step:
            state.log_history[:0] = self.log_before
            self.score()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step_started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.step_seconds.append(time.monotonic() - self.step_started)
        super().on_step_end(args, state, control, **more)
        step = self.before + state.global_step
        if step % self.every == 0 or step == self.phase.last:
            self.score()

    def score(self) -> None:
        """Held-out bits per byte, into the log."""
        begun = time.monotonic()
        assert self.trainer is not None
        found = self.trainer.run.score(self.trainer.model, self.trainer.accelerator)
        self.paused += time.monotonic() - begun
        due = self.trainer.control.should_log  # which a log of ours would clear, and the loss of this step be missing
        bits = {f"{BITS}/{name}": part.per_byte for name, part in found.items()}
        nats = {f"{NATS}/{name}": part.nats / part.tokens for name, part in found.items()}
        state = {STATE: lowmemory.held_bytes(self.trainer.optimizer)} if self.trainer.optimizer else {}
        self.trainer.log({**bits, **nats, **state})
        self.trainer.control.should_log = due

    def held(self, model: Any) -> dict[str, Any]:
        """What ReLoRA remembers."""
        return RELORA.state(model) if self.trainer and self.trainer.method else {}


class PretrainTrainer(StepTrainer):
    """Trains on the steps of a mixture."""

    watch: PretrainingWatch

    def __init__(self, run: PreparedText, watch: PretrainingWatch, one: Member, **arguments: Any) -> None:
        self.run, self.recipe, self.phase, self.how = run, run.recipe, watch.phase, one.optimizer
        method, own = (RELORA, relora_recipe(run.recipe)) if one.relora else (None, None)
        super().__init__(method, own, watch, **arguments, train_dataset=range(self.phase.steps))
        watch.trainer = self

    def get_train_dataloader(self) -> Any:
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=lambda numbers: {"step": numbers})

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW, or the recipe's other; matrices decay, but not the factors whose product does."""
        if self.optimizer is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            decaying = set(self.get_decay_parameter_names(self.model))
            for name, layer in layers(self.model).items():
                if layer.decay:
                    decaying -= {f"{name}.down.weight", f"{name}.up.weight"}
            low, rank = lowmemory.reduced(self.model, self.how)
            parts: dict[tuple[bool, bool], list[Any]] = {(True, False): [], (True, True): [], (False, False): []}
            for name, tensor in self.model.named_parameters():
                if tensor.requires_grad:
                    parts[name in decaying, name in low].append(tensor)
            groups = [
                {"params": part, "weight_decay": self.args.weight_decay * decays, **({"rank": rank} if small else {})}
                for (decays, small), part in parts.items()
                if part
            ]
            if self.how.low_memory:
                own = {key: settings[key] for key in ("lr", "betas", "eps")}
                self.optimizer = lowmemory.LowMemoryAdamW(groups, self.how, self.recipe.seed, **own)
            else:
                self.optimizer = kind(groups, **settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's schedule over all phases; ReLoRA's restarts on top."""
        if self.lr_scheduler is None:
            again = RELORA.restart(relora_recipe(self.recipe), self.phase.steps) if self.method else lambda step: 1.0
            chosen = optimizer if optimizer is not None else self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen, lambda step: factor(self.recipe, self.phase.first + step) * again(step)
            )
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Steps are counted from the beginning of the run; losses carry the seconds that a step took."""
        if "loss" in logs and self.watch.step_seconds:
            logs["step_seconds"] = sum(self.watch.step_seconds) / len(self.watch.step_seconds)
            self.watch.step_seconds.clear()
        super().log(logs, start_time)
        self.state.log_history[-1]["step"] = self.phase.first + self.state.global_step

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """The gradients of a whole optimiser step; returns its loss, the mean over all tokens of all processes."""
        model.train()
        recipe, world, rank = self.recipe, self.accelerator.num_processes, self.accelerator.process_index
        picks = self.run.mixture.step(self.phase.first + self.state.global_step)
        self.watch.tokens += len(picks) * recipe.context
        mine = picks[rank::world]
        share = world / (len(picks) * recipe.context)  # DDP takes the mean over processes
        parts = [mine[first : first + recipe.micro_batch] for first in range(0, len(mine), recipe.micro_batch)]
        total = torch.zeros((), device=self.args.device)
        for number, part in enumerate(parts, start=1):
            ids = torch.from_numpy(self.run.mixture.ids(part)).to(self.args.device)
            last = number == len(parts)  # processes exchange gradients in the backward pass of the last one
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
                loss = share * torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
                )
                total += loss.detach()
                if last and (more := penalty(self.model)) is not None:
                    loss = loss + more
                self.accelerator.backward(loss)
        return total


def arguments(recipe: PretrainRecipe, phase: Phase, run: Path) -> TrainingArguments:
    """transformers' arguments for a phase; checkpoints start in ``run/staging``."""
    dtype = bases.compute_dtype(recipe.dtype)
    return TrainingArguments(
        output_dir=str(run / "staging"),  # checkpoints move out of here when they are whole
        max_steps=phase.steps,
        ignore_data_skip=True,  # the number of the step says which sequences it has
        per_device_train_batch_size=1,  # a step
        learning_rate=recipe.lr,
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.beta2,
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch",
        seed=recipe.seed,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        gradient_checkpointing=recipe.recompute,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=recipe.save_every,
        logging_steps=max(1, recipe.total_steps // _POINTS),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
