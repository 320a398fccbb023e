"""One model of a pretraining: its phases, what they measured, and the folder that it is saved in."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from finbench.core import environment
from finbench.core.console import say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.files import folder_atomic, write_atomic, writing
from finbench.models import bases
from finbench.models.structured import surgery
from finbench.pretraining import held as scoring
from finbench.pretraining import members
from finbench.pretraining.loop import BITS, NATS, Phase, PretrainingWatch, PretrainTrainer, arguments
from finbench.pretraining.members import Member
from finbench.pretraining.prepared import (
    RECORD,
    PreparedText,
    bar,
    dtype_name,
    main_process,
    processes,
    read_record,
    texts,
)
from finbench.pretraining.result import Cutting, Pretrained, Share, Trained
from finbench.training import checkpoints, stopping_gently

_BASE_BITS, _CUTTING = "base_bits_per_byte", "cutting"  # in the log, as what happened before a phase
_CURVE = 400  # points of a loss curve that are kept


@dataclass(frozen=True)
class Fitted:
    """A trained model with the log of all its phases."""

    model: Any
    log: list[dict[str, Any]]
    seconds: float


def member(run: PreparedText, one: Member, out: Path) -> None:
    """Train and save a model of the run, unless it is there; its result lies beside the checkpoints."""
    if _found(one, out):
        return
    environment.forget_peak()
    if environment.device() == "cpu":
        environment.keep_freed_memory()
    fitted = _fit(run, one, out / "checkpoints" / one.name)
    peak = environment.peak_memory()
    if main_process():
        _finite(fitted.model)
        folder, dense_folder = _save(run, one, fitted.model, out)
        result = _result(run, one, fitted, peak, out / folder)
        update = {"folder": folder, "dense_folder": dense_folder, "stored_bits": _stored_bits(run, one, out)}
        result = result.model_copy(update=update)
        write_atomic(_result_path(one, out), result.to_json())
        shutil.rmtree(out / "checkpoints" / one.name, ignore_errors=True)
    del fitted
    gc.collect()


def gathered(run: PreparedText, out: Path) -> Pretrained:
    """The record of the run from the results of its models."""
    found = [_found(one, out) for one in run.members]
    return Pretrained(
        recipe=run.recipe,
        base=members.base_id(run.members),
        tokenizer=run.identity,
        vocabulary=len(run.tokenizer),
        sources=texts(run),
        dtype=dtype_name(run.recipe),
        processes=processes(),
        models=[result for result in found if result is not None],
        provenance=environment.provenance(),
    )


def _result_path(one: Member, out: Path) -> Path:
    return out / "checkpoints" / f"{one.name}.json"


def _found(one: Member, out: Path) -> Trained | None:
    """The result of a model that was trained by this run before."""
    path = _result_path(one, out)
    if path.is_file():
        return Trained.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
    if (out / RECORD).is_file():
        return next((model for model in read_record(out / RECORD).models if model.name == one.name), None)
    return None


# ---------------------------------------------------------------- training


def phases(run: PreparedText, one: Member) -> list[Phase]:
    """The dense warm-up, if there is one, and the rest."""
    total = run.recipe.total_steps
    rest = Phase(one.warmup, total - one.warmup, total)
    return [Phase(0, one.warmup, total), rest] if one.warmup else [rest]


def _fit(run: PreparedText, one: Member, folder: Path) -> Fitted:
    checkpoint, passed = checkpoints.newest(folder)
    for line in passed if main_process() else []:
        say(line)
    step = checkpoints.step_of(checkpoint) if checkpoint else 0
    if checkpoint and main_process():
        say(f"{one.name}: resuming after step {step} of {run.recipe.total_steps}.")
    model, log, seconds = members.begin(one, run.recipe), list[dict[str, Any]](), 0.0
    own = phases(run, one)
    for phase in own:
        last = phase is own[-1]
        if step > phase.last:  # the checkpoint is of a later phase
            continue
        there = checkpoint if checkpoint and step > phase.first else None
        if last and one.structure.kind != "dense":
            if there:
                members.empty(model, one)
            else:
                log = log + list(_restructure(run, one, model, phase))
        if last and one.relora:
            model = members.moved(run.recipe, model)
        trainer = _train(run, one, model, phase, folder, there, log, seconds)
        log, seconds, checkpoint = trainer.state.log_history, trainer.watch.seconds, None
        model, step = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), phase.last
    return Fitted(model, log, seconds)


def _restructure(run: PreparedText, one: Member, model: Any, phase: Phase) -> Iterator[dict[str, Any]]:
    """Factorise the model, in place; what it lost goes into the log, and from there into every checkpoint."""
    if one.base:
        found = scoring.score(model, run.held, run.recipe.context, run.recipe.micro_batch)
        yield {_BASE_BITS: {name: round(part.per_byte, 6) for name, part in found.items()}, "step": phase.first}
    device = next(model.parameters()).device
    done: surgery.Surgery = members.restructured(model, one, run.calibration(device))
    for warning in done.warnings if main_process() else ():
        say(f"Warning: {warning}")
    cutting = Cutting(rank=done.rank, layers=list(done.layers), kept=list(done.kept))
    yield {_CUTTING: cutting.model_dump(mode="json"), "step": phase.first}


def _train(
    run: PreparedText,
    one: Member,
    model: Any,
    phase: Phase,
    folder: Path,
    checkpoint: Path | None,
    log: list[dict[str, Any]],
    seconds: float,
) -> PretrainTrainer:
    recipe = run.recipe
    with bar() as shown:
        watch = PretrainingWatch(recipe, phase, folder, shown, one.name)
        watch.log_before, watch.earlier = log, seconds
        trainer = PretrainTrainer(
            recipe,
            phase,
            run.mixture,
            run.held,
            watch,
            members.moving(recipe) if one.relora else None,
            model=model,
            args=arguments(recipe, phase, folder, bases.compute_dtype(recipe.dtype)),
        )
        with stopping_gently(watch), writing(folder):
            if checkpoint and checkpoints.step_of(checkpoint) == phase.last:
                trainer.restore(checkpoint)
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    reached = phase.first + trainer.state.global_step
    if watch.interrupted and reached < recipe.total_steps:
        raise Interrupted(
            f"Stopped after step {reached} of {recipe.total_steps} of {one.name}; everything so far is in {folder}.",
            "Go on with the same command and --resume.",
        )
    return trainer


def _finite(model: Any) -> None:
    bad = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    if bad:
        raise FinbenchError(
            f"Training ended with weights that are not finite ({bad[0]}).", "Use a smaller learning rate: --set lr="
        )


# ---------------------------------------------------------------- after


def _save(run: PreparedText, one: Member, model: Any, out: Path) -> tuple[str, str | None]:
    """Write the model; (its folder, that of the same function as dense weights, if it is another)."""
    import torch

    from finbench.models.structured import storage

    dtype = torch.bfloat16 if dtype_name(run.recipe) == "bfloat16" else torch.float32
    if one.relora:
        model = model.merge_and_unload()
    model = model.to(dtype)
    model.config.name_or_path = ""  # not the local path that a base was loaded from
    if one.structure.kind == "dense":
        with folder_atomic(out / one.name) as staging:
            model.save_pretrained(staging)
            run.tokenizer.save_pretrained(staging)
        return one.name, one.name
    storage.save(model, out / one.name, tokenizer=run.tokenizer, structure=one.structure)
    for bits in _copies(run, one):
        storage.save(model, _copy(one, bits, out), tokenizer=run.tokenizer, structure=one.structure, bits=bits)
    if one.structure.kind == "cola":  # computes no matrix
        return one.name, None
    dense = f"{one.name}-dense"
    shutil.rmtree(out / dense, ignore_errors=True)  # of a run that was killed here
    storage.export_dense(out / one.name, out / dense)
    return one.name, dense


def _stored_bits(run: PreparedText, one: Member, out: Path) -> dict[str, dict[str, float]]:
    """Bits per byte of each quantised copy, read back from its folder: what is lost by storing it so."""
    from finbench.models.structured import storage

    found = {}
    for bits in _copies(run, one):
        say(f"{one.name}: held-out text at {bits} bits.")
        model = storage.load(_copy(one, bits, out), bases.compute_dtype(run.recipe.dtype), environment.device())
        scored = scoring.score(model, run.held, run.recipe.context, run.recipe.micro_batch)
        found[str(bits)] = {name: round(part.per_byte, 6) for name, part in scored.items()}
    return found


def _copies(run: PreparedText, one: Member) -> list[Literal[8, 4]]:
    """Bits of the quantised copies of a model; only factors have any."""
    return run.recipe.store if one.structure.kind != "dense" else []


def _copy(one: Member, bits: int, out: Path) -> Path:
    return out / f"{one.name}-{bits}bit"


def _result(run: PreparedText, one: Member, fitted: Fitted, peak: int, folder: Path) -> Trained:
    recipe, size, log = run.recipe, members.size(one, run.recipe), fitted.log
    curve = [(entry["step"], round(entry["loss"], 5)) for entry in log if "loss" in entry]
    every = recipe.total_steps // _CURVE + 1
    own = [entry["step_seconds"] for entry in log if "step_seconds" in entry and entry["step"] > one.warmup]
    cutting = next((entry[_CUTTING] for entry in log if _CUTTING in entry), None)
    tokens = recipe.total_steps * recipe.batch * recipe.context
    pace = median(own)
    return Trained(
        name=one.name,
        what=one.what,
        structure=one.structure,
        cutting=Cutting.model_validate(cutting) if cutting else None,
        parameters=size.parameters,
        dense_parameters=size.dense_parameters,
        trainable_parameters=size.trainable,
        parts=[Share(name=part.name, parameters=part.parameters, bytes=part.bytes) for part in size.parts],
        flops_forward=size.flops.forward,
        flops_training=size.flops.training,
        steps=recipe.total_steps,
        tokens=tokens,
        seconds=round(fitted.seconds, 2),
        step_seconds=round(pace, 5),
        tokens_per_second=round(recipe.batch * recipe.context / pace, 1),
        peak_memory_bytes=peak,
        bytes=_weights(folder),
        stored={str(bits): _weights(_copy(one, bits, folder.parent)) for bits in _copies(run, one)},
        folder=one.name,
        loss_curve=[point for number, point in enumerate(curve) if number % every == 0 or number == len(curve) - 1],
        base_bits=next((entry[_BASE_BITS] for entry in log if _BASE_BITS in entry), {}),
        bits_curve=[(entry["step"], _of(entry, BITS)) for entry in log if _of(entry, BITS)],
        nats_per_token=_of([entry for entry in log if _of(entry, NATS)][-1], NATS),
    )


def _weights(folder: Path) -> int:
    """Bytes of the weight files of a model."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _of(entry: dict[str, Any], what: str) -> dict[str, float]:
    """``what/<source>`` of an entry of the log, by source."""
    return {key.removeprefix(f"{what}/"): round(value, 6) for key, value in entry.items() if key.startswith(f"{what}/")}
