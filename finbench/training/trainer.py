"""The training loop: transformers' Trainer with our loss, our order of rows, our passes and our checkpoints."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerState

from finbench.core import environment
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe, Validation
from finbench.methods import method_named
from finbench.training import batches, checkpoints, launch, loops, ranks, speedups
from finbench.training.curves import running

ELAPSED = "finbench-elapsed.json"  # in a checkpoint: seconds of training up to it
METHOD = "finbench-method.safetensors"  # in a checkpoint: what the method remembers beside weights and optimiser


class Diverged(FinbenchError):
    """The loss is not a number any more."""


class StepTrainer(Trainer):
    """transformers' Trainer, handed a whole optimiser step at once; its checkpoints hold a method's state too."""

    model: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, method: Any, recipe: Any, watch: Keeper | None, **arguments: Any) -> None:
        arguments["args"]._n_gpu = min(1, arguments["args"].n_gpu)  # else Trainer splits batches by nn.DataParallel
        self.method, self.watch = method, watch
        own = method.callbacks(arguments["model"], recipe) if method else []
        super().__init__(**arguments, callbacks=[*own, *([watch] if watch else [])])
        self.remove_callback(PrinterCallback)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers' estimate walks over all parameters at every step."""
        return 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        held = Path(resume_from_checkpoint) / METHOD
        if self.method and held.is_file():
            self.method.restore(self.model, load_file(held))

    def load_weights(self, checkpoint: Path) -> None:
        """The weights of a checkpoint, and what the method remembers there."""
        self._load_from_checkpoint(str(checkpoint))

    def restore(self, checkpoint: Path) -> None:
        """Load a run that ended: Trainer itself would take one step more where that was in the middle of an epoch."""
        self.load_weights(checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if self.watch:
            self.watch.on_train_begin(self.args, self.state, self.control)


class AnswerTrainer(StepTrainer):
    """The loss on answers only, and the resumable length-sorted order.

    It is handed the rows of a step, on every process those of all, and cuts its own share into forward passes.
    """

    def __init__(
        self,
        sampler: batches.StepSampler,
        watch: TrainingWatch | None,
        recipe: Recipe,
        passes: loops.Passes,
        **arguments: Any,
    ) -> None:
        self.recipe, self.sampler, self.passes = recipe, sampler, passes
        super().__init__(method_named(recipe.method), recipe, watch, **arguments)
        self.validated: Validation | None = None  # what held-out rows said, when training is over
        self.kernel = ""  # by which packed rows attend
        self.peak = 0  # bytes that the process with most has held, when training is over
        if self.accelerator.num_processes > 1:  # they draw from the same seed; this makes sure that they start alike
            for tensor in self.trained():
                torch.distributed.broadcast(tensor.data, 0)

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers does, but for DistributedDataParallel: gradients are exchanged by ``training_step``.

        Adapters are small: one exchange a step after the last pass costs less than a hook for each tensor, and the
        model stays what it is, its base whole or in shards.
        """
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, the model runs as the loop needs it, but where it is ``resting``."""
        with contextlib.ExitStack() as self.working:
            self.working.enter_context(self.passes.at_work(self.model))
            yield

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Inside, the model is what it is outside of training."""
        self.working.close()
        try:
            yield
        finally:
            self.working.enter_context(self.passes.at_work(self.model))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers does, with speed and memory beside each loss."""
        if "loss" in logs and self.watch:
            held = environment.memory_now()
            logs |= {"tokens_per_second": round(self.watch.pace(), 1), "memory_gb": round(held / 1e9, 3)}
        super().log(logs, start_time)

    def trained(self) -> list[Any]:
        """The tensors that train."""
        return [tensor for tensor in self.model.parameters() if tensor.requires_grad]

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW as transformers makes it, over the method's parameter groups if it has some."""
        if self.optimizer is None:
            groups = self.method.groups(self.model, self.recipe)
            if groups is not None:
                kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
                self.optimizer = kind([group for group in groups if group["params"]], **settings)
            else:
                super().create_optimizer(model)
            self.method.tune_optimizer(self.optimizer, self.model, self.recipe)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The method's own schedule if it has one."""
        if self.lr_scheduler is None:
            chosen = optimizer if optimizer is not None else self.optimizer
            self.lr_scheduler = self.method.scheduler(chosen, self.recipe, num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """That of the first process where this one has none: the run was begun by another number of processes."""
        own = f"rng_state_{self.args.process_index}.pth" if self.args.world_size > 1 else "rng_state.pth"
        if checkpoint is None or (Path(checkpoint) / own).is_file():
            super()._load_rng_state(checkpoint)
            return
        candidates = [Path(checkpoint) / name for name in ("rng_state.pth", "rng_state_0.pth")]
        first = next(path for path in candidates if path.is_file())
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(first, Path(folder) / own)
            super()._load_rng_state(folder)

    def get_train_dataloader(self) -> Any:
        return DataLoader(self.train_dataset, batch_sampler=self.sampler, collate_fn=lambda rows: {"rows": rows})

    def size(self, rows: Sequence[Any]) -> int:
        """What the sum of a step's losses is divided by."""
        return sum(row.answer for row in rows)

    def summed(self, model: Any, made: Any, part: Sequence[Any]) -> Any:
        """The sum of the losses of a pass over ``part``."""
        return loops.loss(model, made)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """The gradients of an optimiser step; returns its loss, cross-entropy a token over all processes' answers."""
        model.train()
        rows: list[batches.TrainingRow] = inputs["rows"]
        if self.watch:
            self.watch.tokens += sum(len(row.ids) for row in rows)
        world = self.accelerator.num_processes
        mine, weight = batches.share(rows, self.accelerator.process_index, world)
        weight *= world / self.size(rows)  # the mean over processes is taken below
        parts = [(part, weight) for part in self.passes.cut(mine)]
        if self.recipe.sharding != "none":  # processes gather layers together: all make as many passes
            parts += [(mine[:1], 0.0)] * (int(largest(len(parts), self.args.device)) - len(parts))
        total = torch.zeros((), device=self.args.device)
        for number, (part, share) in enumerate(parts, start=1):
            made = self.passes.prepare(part, self.args.device)
            with loops.attending(made), loops.noise(model, made, self.recipe.neftune):
                loss = share * self.summed(model, made, part)
                if number == len(parts) and (penalty := self.method.penalty(model)) is not None:
                    loss = loss + penalty
                self.accelerator.backward(loss)
            total += loss.detach()
        if world > 1:
            self._average()
        return total

    def _average(self) -> None:
        kinds: dict[Any, list[Any]] = {}
        for tensor in self.trained():
            if tensor.grad is not None:
                kinds.setdefault(tensor.grad.dtype, []).append(tensor.grad)
        for gradients in kinds.values():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            torch.distributed.all_reduce(flat)
            flat /= self.accelerator.num_processes
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def part(self) -> None:
        """When all processes are through training."""
        self.peak = int(largest(environment.peak_memory(), self.args.device))

    def release(self) -> None:
        """Let the model go, when it is saved: nothing but who asked for it holds it then.

        accelerate's wrap of ``forward`` holds it in a circle. bitsandbytes' manager remembers embeddings that 8-bit
        optimisers should leave in 32 bits, peft the layers that it has warned of: both for good.
        """
        from bitsandbytes.optim import GlobalOptimManager

        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        GlobalOptimManager.get_instance().initialize()
        for name, module in list(sys.modules.items()):
            for value in list(vars(module).values()) if name.startswith("peft.tuners.") else ():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()
        self.model = self.optimizer = self.lr_scheduler = None
        environment.release_memory()


def largest(number: float, device: Any) -> float:
    """The largest of the numbers that the processes of a training have; each must ask."""
    if not torch.distributed.is_initialized():
        return number
    held = torch.tensor(float(number), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(held, torch.distributed.ReduceOp.MAX)
    return float(held)


class Keeper(TrainerCallback):
    """Progress, whole checkpoints, Ctrl-C, and a stop when the loss is not a number.

    ``before``: optimiser steps that were made by another trainer, before this one's first.
    """

    slower = "--lr {0:.2g}"  # how the command takes another learning rate

    def __init__(self, lr: float, steps: int, folder: Path, bar: Any, before: int = 0) -> None:
        self.lr, self.folder, self.bar, self.before = lr, folder, bar, before
        self.task = bar.add_task("training", total=before + steps, note="")
        self.interrupted = False  # by Ctrl-C, which may come at any time and is never taken back
        self.started = time.monotonic()
        self.tokens = 0  # without padding, since this process began to train
        self.kept: set[int] = set()  # steps whose checkpoints stay
        self.paced = (self.started, 0)  # when ``pace`` was asked, and tokens by then
        self.earlier = 0.0  # seconds that the run had taken before it was stopped and resumed

    @property
    def seconds(self) -> float:
        """Seconds of training of the whole run, over all its resumptions."""
        return self.earlier + time.monotonic() - self.started

    def pace(self) -> float:
        """Tokens a second since it was last asked."""
        (began, before), now = self.paced, time.monotonic()
        self.paced = (now, self.tokens)
        return (self.tokens - before) / max(now - began, 1e-9)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.monotonic()
        self.paced = (self.started, self.tokens)
        note = self.folder / f"checkpoint-{self.before + state.global_step}" / ELAPSED
        if self.before + state.global_step and note.is_file():
            self.earlier = float(json.loads(note.read_text())["seconds"])
        self.bar.update(self.task, completed=self.before + state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopping(args.device):
            control.should_save = control.should_training_stop = True

    def stopping(self, device: Any) -> bool:
        """Whether one of the processes was interrupted, Ctrl-C finds them at different steps; each must ask."""
        return bool(largest(self.interrupted, device))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        step = self.before + state.global_step
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss is not a number at step {step}: training has diverged.",
                f"Use a smaller learning rate than {self.lr:g}: {self.slower.format(self.lr / 4)}",
            )
        speed = self.tokens / max(self.seconds - self.earlier, 1e-9)
        self.bar.update(self.task, completed=step, note=f"{running(state.log_history)}  {speed:,.0f} tok/s")

    def held(self, model: Any) -> dict[str, Any]:
        """Tensors that a checkpoint needs beside weights and optimiser."""
        return {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        ranks.wait()  # the others have written what is theirs; of a whole model this one writes for long
        if state.is_world_process_zero:
            self._publish(Path(args.output_dir), state.global_step, kwargs["model"])
        ranks.wait()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        ranks.wait()  # the others have looked through the folder of checkpoints, which the first one removes now

    def _publish(self, folder: Path, number: int, model: Any) -> None:
        staging = folder / f"checkpoint-{number}"
        if held := self.held(model):
            save_file({key: tensor.contiguous() for key, tensor in held.items()}, staging / METHOD)
        (staging / ELAPSED).write_text(json.dumps({"seconds": self.seconds}) + "\n")
        checkpoints.publish(staging, self.folder / f"checkpoint-{self.before + number}")
        checkpoints.prune(self.folder, self.kept)


class TrainingWatch(Keeper):
    """The keeper of a training on answers: the order of the epoch, and what the method remembers."""

    def __init__(self, recipe: Recipe, sampler: batches.StepSampler, steps: int, folder: Path, bar: Any) -> None:
        super().__init__(recipe.lr, steps, folder, bar)
        self.recipe, self.sampler = recipe, sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.epoch = state.global_step // len(self.sampler)

    def held(self, model: Any) -> dict[str, Any]:
        """The method's state."""
        return method_named(self.recipe.method).state(model)


def arguments(recipe: Recipe, steps: int, run: Path, dtype: Any) -> TrainingArguments:
    """transformers' arguments for a recipe of ``steps`` optimiser steps; checkpoints start in ``run/staging``."""
    return TrainingArguments(
        output_dir=str(run / "staging"),  # checkpoints move out of here when they are whole
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=1,  # the passes of a step are cut by training_step
        learning_rate=recipe.lr,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=min(math.ceil(recipe.warmup * steps), steps - 1),  # begins at rate 0
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim=speedups.OPTIMIZERS[recipe.optimizer][0],
        seed=recipe.seed,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=recipe.save_every,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def stopping_gently(watch: Keeper) -> contextlib.AbstractContextManager[None]:
    """The first Ctrl-C ends training after the current step, with a checkpoint; the second one at once."""

    def note(number: int, frame: FrameType | None) -> None:
        watch.interrupted = True
        say("Stopping after this step ... (Ctrl-C again: at once)")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return launch.on_ctrl_c(note)
