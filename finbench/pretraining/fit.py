"""One model of a pretraining: its phases, what they measured, and the folder that it is saved in."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal

from finbench.core import environment, threads
from finbench.core.console import say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.files import folder_atomic, write_atomic, writing
from finbench.models import bases
from finbench.models.structured import surgery
from finbench.pretraining import members, prepared
from finbench.pretraining.loop import BITS, NATS, STATE, Phase, PretrainingWatch, PretrainTrainer, arguments
from finbench.pretraining.members import Member
from finbench.pretraining.prepared import RECORD, PreparedText
from finbench.pretraining.result import Cutting, Pretrained, Trained
from finbench.training import checkpoints, stopping_gently

_BASE_BITS, _CUTTING = "base_bits_per_byte", "cutting"  # in the log, as what happened before a phase
_CURVE = 400  # points of a loss curve that are kept


def _member(run: PreparedText, one: Member, out: Path) -> None:
    """Train and save a model of the run, unless it is there; its result lies beside the checkpoints."""
    if _found(one, out):
        return
    environment.forget_peak()
    if environment.device() == "cpu":
        environment.keep_freed_memory()
        threads.settle()
    smaller = f"--set micro_batch={max(1, run.recipe.micro_batch // 2)}"
    smaller += "" if run.recipe.recompute else " --set recompute=true"
    with environment.fitting(f"Smaller passes: {smaller}. Where there is a checkpoint, --resume goes on from it."):
        model, log, seconds = _fit(run, one, out / "checkpoints" / one.name)
    peak = environment.peak_memory()
    if prepared.main_process():
        bad = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
        if bad:
            raise FinbenchError(
                f"Training ended with weights that are not finite ({bad[0]}).", "Use a smaller learning rate: --set lr="
            )
        dense_folder = _save(run, one, model, out)
        result = Trained(
            **_result(run, one, log, out),
            seconds=round(seconds, 2),
            peak_memory_bytes=peak,
            dense_folder=dense_folder,
            stored_bits=_stored_bits(run, one, out),
        )
        write_atomic(_result_path(one, out), result.to_json())
        checkpoints.clear(out / "checkpoints" / one.name)
    del model
    gc.collect()


def train_members(run: PreparedText, out: Path) -> Pretrained:
    """Train every model of the run that is not there yet; the record of all."""
    for one in run.members:
        _member(run, one, out)
    found = [_found(one, out) for one in run.members]
    return Pretrained(
        recipe=run.recipe,
        base=run.base,
        tokenizer=run.identity,
        vocabulary=len(run.tokenizer),
        sources=prepared.texts(run),
        dtype=bases.dtype_name(run.recipe.dtype),
        processes=environment.processes(),
        models=[result for result in found if result is not None],
        provenance=environment.provenance(),
    )


def _result_path(one: Member, out: Path) -> Path:
    return out / "checkpoints" / f"{one.name}.json"


def _found(one: Member, out: Path) -> Trained | None:
    """The result of a model that was trained by this run before."""
    path = _result_path(one, out)
    if path.is_file():
        return Trained.parse(prepared.read_json(path), str(path))
    if (out / RECORD).is_file():
        return next((model for model in prepared.read_record(out / RECORD).models if model.name == one.name), None)
    return None


def _fit(run: PreparedText, one: Member, folder: Path) -> tuple[Any, list[dict[str, Any]], float]:
    """(the trained model, the log of all its phases, seconds)."""
    checkpoint, passed = checkpoints.newest(folder)
    step = checkpoints.step_of(checkpoint) if checkpoint else 0
    if prepared.main_process():
        for line in passed:
            say(line)
        if checkpoint:
            say(f"{one.name}: resuming after step {step} of {run.recipe.total_steps}.")
    total = run.recipe.total_steps
    phases = [Phase(0, one.warmup)] if one.warmup else []
    phases.append(Phase(one.warmup, total - one.warmup))
    model, log, seconds = members.begin(one, run.recipe), list[dict[str, Any]](), 0.0
    for phase in phases:
        if step > phase.last:  # the checkpoint is of a later phase
            continue
        there = checkpoint if checkpoint and step > phase.first else None
        if phase.last == total and one.structure.kind != "dense":
            if there:  # the weights of the checkpoint follow
                surgery.restructure(model, one.structure.model_copy(update={"init": "kaiming"}))
            else:
                log = log + list(_restructure(run, one, model, phase))
        if one.relora:
            model = members.moved(run.recipe, model)
        with prepared.bar() as shown:
            watch = PretrainingWatch(run.recipe, phase, folder, shown, one.name)
            watch.log_before, watch.earlier = log, seconds
            own = arguments(run.recipe, phase, folder)
            trainer = PretrainTrainer(run, watch, one, model=model, args=own)
            with checkpoints.staged(folder / "staging"), stopping_gently(watch), writing(folder):
                if there and step == phase.last:
                    trainer.restore(there)
                else:
                    trainer.train(resume_from_checkpoint=str(there) if there else None)
        step = phase.first + trainer.state.global_step
        if step < total and watch.stopping(own.device):
            raise Interrupted(
                f"Stopped after step {step} of {total} of {one.name}; everything so far is in {folder}.",
                "Go on with the same command and --resume.",
            )
        log, seconds, checkpoint = trainer.state.log_history, watch.seconds, None
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return model, log, seconds


def _restructure(run: PreparedText, one: Member, model: Any, phase: Phase) -> Iterator[dict[str, Any]]:
    """Factorise the model, in place; what it lost goes into the log, and from there into every checkpoint."""
    if one.base:
        yield {_BASE_BITS: _per_byte(run, model), "step": phase.first}
    device = next(model.parameters()).device
    done = surgery.restructure(model, one.structure, run.calibration(device))
    for warning in done.warnings if prepared.main_process() else ():
        say(f"Warning: {warning}")
    cutting = Cutting(rank=done.rank, layers=list(done.layers), kept=list(done.kept))
    yield {_CUTTING: cutting.model_dump(mode="json"), "step": phase.first}


def _save(run: PreparedText, one: Member, model: Any, out: Path) -> str | None:
    """Write the model; the name of the folder that has it as dense weights, if they compute it."""
    import torch

    from finbench.models.structured import storage

    dtype = torch.bfloat16 if bases.dtype_name(run.recipe.dtype) == "bfloat16" else torch.float32
    if one.relora:
        model = model.merge_and_unload()
    model = model.to(dtype)
    model.config.name_or_path = ""  # not the local path that a base was loaded from
    if one.structure.kind == "dense":
        with folder_atomic(out / one.name) as staging:
            model.save_pretrained(staging)
            run.tokenizer.save_pretrained(staging)
        return one.name
    storage.save(model, out / one.name, tokenizer=run.tokenizer, structure=one.structure)
    for bits, folder in _copies(run, one, out).items():
        storage.save(model, folder, tokenizer=run.tokenizer, structure=one.structure, bits=bits)
    if one.structure.kind == "cola":  # computes no matrix
        return None
    dense = f"{one.name}-dense"
    shutil.rmtree(out / dense, ignore_errors=True)  # of a run that was killed here
    storage.export_dense(out / one.name, out / dense)
    return dense


def _copies(run: PreparedText, one: Member, out: Path) -> dict[Literal[8, 4], Path]:
    """Folders of the quantised copies of a model, by bits; only factors have any."""
    wanted = run.recipe.store if one.structure.kind != "dense" else []
    return {bits: out / f"{one.name}-{bits}bit" for bits in wanted}


def _stored_bits(run: PreparedText, one: Member, out: Path) -> dict[str, dict[str, float]]:
    """Bits per byte of each quantised copy, read back from its folder: what is lost by storing it so."""
    from finbench.models.structured import storage

    found = {}
    for bits, folder in _copies(run, one, out).items():
        say(f"{one.name}: held-out text at {bits} bits.")
        model = storage.load(folder, bases.compute_dtype(run.recipe.dtype), environment.device())
        found[str(bits)] = _per_byte(run, model)
    return found


def _per_byte(run: PreparedText, model: Any) -> dict[str, float]:
    """Bits per byte of held-out text, by source, for a record."""
    return {name: round(part.per_byte, 6) for name, part in run.score(model).items()}


def _result(run: PreparedText, one: Member, log: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """What the log and the folders say of a trained model, for its record."""
    recipe = run.recipe
    curve = [(entry["step"], round(entry["loss"], 5)) for entry in log if "loss" in entry]
    every = recipe.total_steps // _CURVE + 1
    pace = median(entry["step_seconds"] for entry in log if "step_seconds" in entry and entry["step"] > one.warmup)
    return {
        "name": one.name,
        "what": one.what,
        "structure": one.structure,
        "cutting": next((entry[_CUTTING] for entry in log if _CUTTING in entry), None),
        **members.size(one, recipe).described(),
        "steps": recipe.total_steps,
        "tokens": recipe.total_steps * recipe.batch * recipe.context,
        "step_seconds": round(pace, 5),
        "tokens_per_second": round(recipe.batch * recipe.context / pace, 1),
        "optimizer": one.optimizer.kind,
        "optimizer_state_bytes": next((entry[STATE] for entry in reversed(log) if STATE in entry), None),
        "bytes": _weights(out / one.name),
        "stored": {str(bits): _weights(folder) for bits, folder in _copies(run, one, out).items()},
        "folder": one.name,
        "loss_curve": [point for number, point in enumerate(curve) if number % every == 0 or number == len(curve) - 1],
        "base_bits": next((entry[_BASE_BITS] for entry in log if _BASE_BITS in entry), {}),
        "bits_curve": [(entry["step"], _of(entry, BITS)) for entry in log if _of(entry, BITS)],
        "nats_per_token": _of([entry for entry in log if _of(entry, NATS)][-1], NATS),
    }


def _weights(folder: Path) -> int:
    """Bytes of the weight files of a model."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _of(entry: dict[str, Any], what: str) -> dict[str, float]:
    """``what/<source>`` of an entry of the log, by source."""
    return {key.removeprefix(f"{what}/"): round(value, 6) for key, value in entry.items() if key.startswith(f"{what}/")}
