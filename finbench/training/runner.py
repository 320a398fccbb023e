"""Recipe -> Adapter folder: a compact trainer on transformers' Trainer, peft and bitsandbytes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finbench.cards import model_card, trackers
from finbench.core import environment, tracking
from finbench.core.console import err, progress, quiet, say, waiting
from finbench.core.errors import FinbenchError, Interrupted, counted
from finbench.core.files import write_atomic, writing
from finbench.core.records import (
    Adapter,
    BaseModelId,
    Preferred,
    Recipe,
    Training,
    Truncation,
)
from finbench.methods import Cut, Start
from finbench.models import Unchanged, adapters, attaching, bases
from finbench.training import batches, checkpoints, claims, launch, merging, planning, ranks, speedups
from finbench.training.batches import choose
from finbench.training.preparation import Prepared, prepare

if TYPE_CHECKING:
    from finbench.training.trainer import AnswerTrainer, TrainingWatch

__all__ = ["Prepared", "begin", "choose", "fit", "prepare", "train", "work"]

CURVE_POINTS = 200
_FIRST_BATCHES = 32  # what a method that looks at data before it starts may see


def train(
    recipe: Recipe,
    out: Path,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    processes: int = 1,
    report: str | Sequence[str] = (),
) -> Adapter | dict[str, Any]:
    """Train the adapter that ``recipe`` describes into the folder ``out``; return its record.

    The same recipe with a finished ``out`` is not trained again. With ``resume``, a run that was killed goes on
    from its newest whole checkpoint and ends in the same weights as one that was not. With ``dry_run`` nothing
    is trained: what would be is returned. Each of ``processes`` takes its share of every step's rows, on a GPU of its
    own where there are any: the same steps, by sums in another order. ``report``: trackers that get what is logged.

    Raises Interrupted after Ctrl-C, with a checkpoint written; FinbenchError for faults of recipe, data, base or
    disk, before the first step wherever possible.
    """
    if environment.rank() == 0:
        say(f"{recipe.name}: {recipe.method} on {recipe.base}. Reading rows of {', '.join(recipe.learnt)} ...")
    quiet()
    launch.check(processes)
    told = tracking.named(report)
    if environment.processes() > 1:
        return _take_part(recipe, out, data_dir, resume, dry_run, told)
    run = _decided(recipe, data_dir, processes)
    if dry_run:
        return _outline(run, processes)
    with contextlib.ExitStack() as held:
        claimed = claims.claimed(run, out, resume, processes, held)
        if claimed is None:
            return adapters.record(out)
        run = claimed
        if processes > 1:
            job = launch.Job(
                recipe=run.recipe,
                out=out,
                data_dir=data_dir,
                resume=resume,
                loop=run.passes.loop,
                checkpointed=run.passes.checkpointed,
                parent=os.getpid(),
                report=told,
            )
            launch.together(job, out / "checkpoints" / "ranks", processes)
        else:
            work(run, out, resume, told)
        environment.release_memory()
        made = adapters.record(out)
        checkpoints.clear(out / "checkpoints")
        return made


def _take_part(
    recipe: Recipe, out: Path, data_dir: Path | None, resume: bool, dry_run: bool, report: Sequence[str]
) -> Adapter | dict[str, Any]:
    """``train`` in one of the processes that torchrun started, on one machine or several: the first one writes."""
    processes, first = environment.processes(), environment.rank() == 0
    err.quiet = not first
    environment.take_place()
    with ranks.refusing_together():
        run = _decided(recipe, data_dir, processes)
    # what makes no difference to the weights must be the same too: who shards waits for all the others
    how = run.recipe.model_dump(include={"loop", "pass_tokens", "sharding", "compile", "kernels"})
    same = {"held-out rows": run.validated_on, "how": how, "dtype": str(run.dtype)}
    ranks.agree({**run.decisive, **same, "versions": environment.versions()})
    run = run.begun(run.passes.loop, any(ranks.gathered(run.passes.checkpointed)))
    if dry_run:
        ranks.part()
        return _outline(run, processes)
    with contextlib.ExitStack() as held:
        with ranks.refusing_together():
            claimed = claims.claimed(run, out, resume, processes, held) if first else None
        loop, text = ranks.gathered((claimed.passes.loop, claims.mark(out)) if claimed else (None, ""))[0]
        with ranks.refusing_together():
            claims.check_shared(out, text if loop else "")
        if loop:
            work(run.begun(loop, run.passes.checkpointed), out, resume, report)
        else:
            ranks.part()
        environment.release_memory()
        made = adapters.record(out)
        if first and loop:
            checkpoints.clear(out / "checkpoints")
        return made


def _decided(recipe: Recipe, data_dir: Path | None, processes: int) -> Prepared:
    """All that a run is but its weights; raises what can be refused before any is loaded."""
    speedups.check_sharding(recipe, processes)
    speedups.check(recipe)
    run = prepare(recipe, data_dir)
    speedups.check_base(recipe, bases.skeleton(run.base))
    run, again = planning.decided(run, processes)
    if again:
        say(again)
    return run


def _outline(run: Prepared, processes: int) -> dict[str, Any]:
    """What a run would be."""
    real, computed = run.tokens(run.passes, processes)
    return {
        "recipe": run.recipe.model_dump(),
        "becomes": run.method.ends_as(run.recipe),
        "base": run.base.id.model_dump(),
        "data": [part.model_dump() for part in run.data],
        "rows": len(run.rows),
        "steps": run.steps,
        "processes": processes,
        "tokens": real,
        "padding": max(0.0, 1 - real / computed),
        "loop": run.passes.loop,
        "slower": run.slower,
        "gradient_checkpointing": run.passes.checkpointed,
        "computed": computed,
        "first_pair": run.first_pair,
        "contamination": run.contamination and run.contamination.model_dump(),
        "validation": run.held.outline() if run.held else None,
    }


def work(run: Prepared, out: Path, resume: bool, report: Sequence[str] = ()) -> None:
    """Train, as one of the processes of a run that owns ``out``; the first one saves the adapter."""
    from finbench.training import answering, curves, validation

    folder, processes, first = out / "checkpoints", environment.processes(), environment.rank() == 0
    unit = "pair" if run.recipe.preferences else "row"
    what = f"Loading {run.base.id.alias}, to learn {counted(len(run.rows), unit)} in {counted(run.steps, 'step')}"
    with planning.explained(run, processes), ranks.parting():
        shown = waiting(what) if first else contextlib.nullcontext()  # they wait for one that reads for all
        with shown, ranks.refusing_together(), planning.explained(run, processes):
            model, tokenizer = begin(run, run.dtype)
            Unchanged().base(run.base)
        lacking = functools.partial(validation.lacking, run)
        checkpoint, passed = checkpoints.newest(folder, lacking) if resume else (None, [])
        checkpoint = ranks.gathered(checkpoint)[0]
        for line in passed:
            say(line)
        if checkpoint:
            say(f"Resuming after step {checkpoints.step_of(checkpoint)} of {run.steps}.")
        samples = answering.shown(run, model, tokenizer) if first else []
        known = trackers.facts(recipe=run.placeless.model_dump(), base=run.base.id.model_dump(), rows=len(run.rows))
        logs = out.parent / "tensorboard"
        told = [trackers.Tracker(name, run.recipe.name, known, folder, logs) for name in report]
        trainer, watch = fit(run, model, tokenizer, folder, checkpoint, told)
        if first:
            measured = _measure(run, model, trainer, watch)
            adapter = _save(run, model, tokenizer, measured, out)
            samples = answering.shown(run, model, tokenizer, samples)
            curves.write(adapter, trainer.state.log_history, samples, out)
            _finish(adapter, out)
        trainer.release()


def fit(
    run: Prepared,
    model: Any,
    tokenizer: Any,
    folder: Path,
    checkpoint: Path | None = None,
    told: Sequence[trackers.Tracker] = (),
    settled: bool = False,
) -> tuple[AnswerTrainer, TrainingWatch]:
    """Train ``model`` in place, with checkpoints in ``folder``; go on from ``checkpoint`` if there is one.

    ``settled``: the passes were held against padded ones before, in another training from the same start.
    """
    from finbench.training import loops, packing
    from finbench.training.pairwise import PairTrainer
    from finbench.training.trainer import AnswerTrainer, TrainingWatch, arguments, stopping_gently
    from finbench.training.validation import Validator, ended

    recipe, passes = run.recipe, run.passes
    with contextlib.ExitStack() as around, progress() as bar:
        if recipe.kernels == "liger":
            around.enter_context(speedups.liger(model))
        if recipe.sharding == "fsdp":
            speedups.shard(model, whole=recipe.bits != 16)
        elif not settled:
            passes, why = loops.settled(run.passes, model, run.rows)
            if why:
                say(why)
        watch = TrainingWatch(recipe, run.sampler, run.steps, folder, bar)
        with writing(folder):
            trainer = (PairTrainer if recipe.preferences else AnswerTrainer)(
                run.sampler,
                watch,
                recipe,
                passes,
                model=model,
                args=arguments(recipe, run.steps, folder, run.dtype),
                train_dataset=run.rows,
            )
        trainer.kernel = packing.kernel(model, run.dtype) if passes.loop != "padded" else ""
        if trainer.kernel and model.device.type != "cpu":
            say(f"Attention of packed rows: {trainer.kernel}.")
        validator = Validator(run, run.held, trainer, tokenizer) if run.held else None
        for callback in told:  # before who validates, whose first numbers they get
            trainer.add_callback(callback)
            around.callback(callback.close)
        if validator:
            trainer.add_callback(validator)
        with checkpoints.staged(folder / "staging"), stopping_gently(watch), trainer.at_work(), writing(folder):
            if isinstance(trainer, PairTrainer):  # before a checkpoint's weights come
                trainer.refer(run.rows)
            if checkpoint and ended(run, checkpoint):
                trainer.restore(checkpoint)
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            done = trainer.state.global_step == run.steps or bool(validator and validator.history.over)
            if validator and done:
                trainer.validated = validator.record(validator.choose(folder))
        trainer.part()
    if not done:
        raise Interrupted(
            f"Stopped after step {trainer.state.global_step} of {run.steps}; everything so far is in {folder}.",
            "Go on with the same command and --resume.",
        )
    return trainer, watch


def begin(run: Prepared, dtype: Any) -> tuple[Any, Any]:
    """(model, tokenizer) at the start of a run: the base with the method's layers, weights drawn from the seed."""
    from transformers import set_seed

    recipe, method = run.recipe, run.method
    speedups.check_sharding(recipe, environment.processes())
    speedups.check(recipe)
    speedups.check_base(recipe, bases.skeleton(run.base))
    model, tokenizer = bases.load(run.base, method.loads(recipe), dtype, recipe.sharding == "fsdp")

    def load(weights: Any | None) -> Any:
        if weights is None:
            return bases.load(run.base, recipe.bits, dtype)[0]
        with tempfile.TemporaryDirectory() as folder:
            weights.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return bases.load(bases.Base(run.base.id, Path(folder)), recipe.bits, dtype)[0]

    set_seed(recipe.seed)  # adapter weights are drawn from here on
    first = run.sampler.batches(0)[:_FIRST_BATCHES]
    collated = (batches.collate([run.rows[i] for i in part], tokenizer.pad_token_id) for part in first)
    on_device = ({key: tensor.to(model.device) for key, tensor in batch.items()} for batch in collated)
    model = method.apply(model, recipe, Start(run.steps, on_device, load))
    if recipe.start is not None:
        attaching.load_into(model, adapters.locate(recipe.start.source))
    return model, tokenizer


def _measure(run: Prepared, model: Any, trainer: AnswerTrainer, watch: TrainingWatch) -> Training:
    processes = trainer.accelerator.num_processes
    steps, validation = int(trainer.state.global_step), trainer.validated
    real, computed = run.tokens(trainer.passes, processes, steps)
    seconds = max(watch.seconds - (validation.seconds if validation else 0), 1e-9)
    curve = [(entry["step"], round(entry["loss"], 6)) for entry in trainer.state.log_history if "loss" in entry]
    last = curve[-max(1, len(curve) // 10) :]  # one batch says little
    stride = max(1, math.ceil(len(curve) / CURVE_POINTS))
    pairs = [entry for entry in trainer.state.log_history if "margin" in entry][-len(last) :]
    means = {key: round(sum(entry[key] for entry in pairs) / len(pairs), 6) for key in ("accuracy", "margin") if pairs}
    return Training(
        rows=len(run.rows),
        steps=steps,
        epochs=run.recipe.epochs if steps == run.steps else round(run.recipe.epochs * steps / run.steps, 4),
        tokens=real,
        padding=max(0.0, 1 - real / computed),
        loop=trainer.passes.loop,
        attention=trainer.kernel or "the base's own, by torch",
        gradient_checkpointing=trainer.passes.checkpointed,
        computed=computed,
        processes=processes,
        seconds=round(watch.seconds, 2),
        tokens_per_second=round(real / seconds, 1),
        peak_memory_bytes=trainer.peak,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=bases.parameter_count(model),
        final_loss=round(sum(loss for _, loss in last) / len(last), 6),
        loss_curve=curve[::stride],
        validation=validation,
        preferred=Preferred(**means) if means else None,
    )


def _save(run: Prepared, model: Any, tokenizer: Any, measured: Training, out: Path) -> Adapter:
    """Write the adapter folder but for what says that it is whole: ``_finish``."""
    recipe, base, method, dtype = run.recipe, run.base, run.method, str(run.dtype).removeprefix("torch.")
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    bad = [name for name, tensor in trained.items() if not tensor.isfinite().all()]
    if bad:
        raise FinbenchError(
            f"Training ended with weights that are not finite ({bad[0]}).", "Use a smaller learning rate: --lr"
        )
    whole = method.makes(recipe) == "model"
    staging = out / "checkpoints" / "final"
    with checkpoints.staged(staging), writing(out):
        staging.mkdir(parents=True)
        model.config.name_or_path = base.id.hub_id or base.id.alias  # not the local path it was loaded from
        cut = method.save(model, recipe, staging)
        if whole:
            tokenizer.save_pretrained(staging)
        else:
            _name_base(staging / "adapter_config.json", base.id)
            attaching.check_readable(staging, recipe.method)
        lost = None if cut is None else _truncation(run, model, tokenizer, staging, cut)
        (staging / "README.md").unlink(missing_ok=True)
        adapter = Adapter(
            kind="model" if whole else "peft",
            recipe=run.placeless,
            base=base.id,
            dtype=dtype,
            quantisation=method.quantisation(recipe, dtype),
            data=run.data,
            contamination=run.contamination,
            files=adapters.decisive_files(staging),
            training=measured,
            truncation=lost,
            provenance=environment.provenance(),
        )
        for path in sorted(staging.iterdir()):
            path.chmod(0o644)
            path.replace(out / path.name)
    return adapter


def _finish(adapter: Adapter, out: Path) -> None:
    """The card, and last ``finbench.json``, which says that the rest is whole."""
    write_atomic(out / "README.md", model_card(adapter))
    write_atomic(out / "finbench.json", adapter.to_json())


def _truncation(run: Prepared, model: Any, tokenizer: Any, saved: Path, cut: Cut) -> Truncation:
    """The adapter that was saved, on its base, beside the model in training, both in float32."""
    template = bases.chat_template(tokenizer, run.base.id.alias) if run.recipe.chat else None
    texts = merging.probes(list(run.recipe.tasks), template)
    before = [merging.log_probabilities(model.eval(), tokenizer, text) for text in texts]
    base, _ = bases.load(run.base, 16, run.dtype)
    again = attaching.attach(base.float(), saved).eval()
    after = [merging.log_probabilities(again, tokenizer, text) for text in texts]
    return Truncation(**dataclasses.asdict(cut), **merging.compare(before, after))


def _name_base(path: Path, base: BaseModelId) -> None:
    """The base by its name, and sets in order: peft writes them as this process's hash seed has it."""
    config = json.loads(path.read_text())
    config |= {"base_model_name_or_path": base.hub_id or base.alias, "revision": base.revision}
    for key in ("target_modules", "exclude_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
