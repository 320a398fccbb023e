"""``finbench pretrain``: a recipe -> a model beside its dense baselines, in one folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import bases, catalog, checkpoints, console, environment
from finbench.console import quiet, say
from finbench.errors import FinbenchError
from finbench.files import digest, write_atomic
from finbench.pretraining import corpus, members, spec, vocabulary
from finbench.pretraining.members import Member
from finbench.pretraining.mixture import Mixture
from finbench.pretraining.result import Pretrained, Text
from finbench.pretraining.shards import Held, Shards, build
from finbench.pretraining.spec import PretrainRecipe
from finbench.records import BaseModelId

RECORD = "pretrain.json"
_MARK = Path("checkpoints") / "run.json"
_CALIBRATION = 64  # sequences that an activation-aware start sees


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs but the weights."""

    recipe: PretrainRecipe
    tokenizer: Any
    shards: list[Shards]
    mixture: Mixture
    held: dict[str, Held]
    members: list[Member]

    @property
    def identity(self) -> str:
        """The digest of the tokenizer."""
        return vocabulary.identity(self.tokenizer)

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides the weights: all of the recipe but names, and how often it is looked at."""
        identities = [part.about["identity"] for part in self.shards]
        return decisive(self.recipe, identities, self.identity, members.base_id(self.members))

    def calibration(self, device: Any) -> Iterator[Any]:
        """Batches of token ids, (rows, context), the first that the run trains on."""
        import torch

        picks = [self.mixture.pick(number) for number in range(_CALIBRATION)]
        for first in range(0, len(picks), self.recipe.micro_batch):
            ids = self.mixture.ids(picks[first : first + self.recipe.micro_batch])
            yield torch.from_numpy(ids[:, :-1]).to(device)


def pretrain(
    recipe: PretrainRecipe | str | Path, out: Path | None = None, *, resume: bool = False, dry_run: bool = False
) -> Pretrained | dict[str, Any]:
    """Pretrain the model that ``recipe`` (a record, or a YAML file) describes, and its baselines, into ``out``.

    ``out`` defaults to ``runs/<name>``. A model that is there already is not trained again. With ``resume``, a run that
    was killed goes on from its newest whole checkpoint and ends in the same weights as one that was not. With
    ``dry_run`` text is tokenised, nothing is trained, and what would be is returned. Under ``accelerate launch`` the
    processes share each step; the first one writes.

    Raises Interrupted after Ctrl-C, with a checkpoint written; FinbenchError for faults of recipe, data, base or disk.
    """
    quiet()  # before the libraries that speak when they are imported
    from finbench.pretraining import fit, outline, report

    recipe = recipe if isinstance(recipe, PretrainRecipe) else spec.read(recipe)
    out = out or Path("runs") / recipe.name
    run = prepare(recipe)
    if dry_run:
        return outline.outline(run)
    if not main_process():
        for member in run.members:
            fit.member(run, member, out)
        return fit.gathered(run, out)
    _check_folder(out)
    with environment.owner(out):
        _claim(run, out, resume)
        if finished := _finished(run, out):
            say(f"{out} holds this run already; nothing to do.")
            return finished
        for member in run.members:
            fit.member(run, member, out)
        done = fit.gathered(run, out)
        _record(done, out)
        if recipe.tasks:
            done = report.with_scores(done, out)
            _record(done, out)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return done


def _record(done: Pretrained, out: Path) -> None:
    from finbench.pretraining import report

    write_atomic(out / RECORD, done.to_json())
    report.write(done, out)


def prepare(recipe: PretrainRecipe) -> Prepared:
    """Find text, tokenizer, base and configurations; tokenise what is not yet. Loads no weights."""
    if recipe.batch < processes():
        raise FinbenchError(
            f"batch is {recipe.batch} sequences, less than one for each of {processes()} processes.", "--set batch="
        )
    catalog.expand(recipe.tasks)
    located = [corpus.locate(source, name) for source, name in zip(recipe.data, recipe.names, strict=True)]
    tokenizer = vocabulary.tokenizer_of(recipe.start, located, recipe.held_out)
    found = members.members(recipe, tokenizer)  # faults of the model before minutes of tokenising
    for member in found:
        members.size(member, recipe)
    with bar() as shown:
        shards = [build(part, tokenizer, recipe.held_out, shown) for part in located]
    mixture = Mixture(shards, [source.weight for source in recipe.data], recipe.context, recipe.batch, recipe.seed)
    held = {part.name: part.held(recipe.eval_tokens) for part in shards}
    return Prepared(recipe, tokenizer, shards, mixture, held, found)


def decisive(recipe: PretrainRecipe, sources: list[str], tokenizer: str, base: BaseModelId | None) -> dict[str, Any]:
    """What decides the weights of a run, as JSON."""
    unimportant = {"name", "eval_every", "eval_tokens", "save_every", "data", "tasks", "baselines", "store"}
    stated = {
        **recipe.model_dump(mode="json", exclude=unimportant),
        "sources": sources,
        "weights": [source.weight for source in recipe.data],
        "tokenizer": tokenizer,
        "base": base.fingerprint if base else None,
    }
    stated["start"] = {key: value for key, value in stated["start"].items() if key not in ("base", "tokenizer")}
    return stated


def main_process() -> bool:
    """Whether this is the only process, or the first of those that accelerate or torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def bar() -> Any:
    """Progress, of the first process."""
    import contextlib

    return console.progress() if main_process() else contextlib.nullcontext(console.Lines(every=float("inf")))


def texts(run: Prepared) -> list[Text]:
    """The sources, as the run uses them."""
    epochs = run.mixture.epochs(run.recipe.total_steps)
    return [
        Text(
            name=part.name,
            kind=part.about["kind"],
            identity=part.about["identity"],
            revision=part.about["revision"],
            weight=round(weight, 6),
            epochs=round(epoch, 4),
            documents=part.about["train_documents"],
            tokens=part.tokens,
            bytes=part.about["train_bytes"],
            bytes_per_token=round(part.bytes_per_token, 4),
            held_out_documents=part.about["held_documents"],
            held_out_bytes=part.about["held_bytes"],
            scored_tokens=run.held[part.name].tokens,
            scored_bytes=run.held[part.name].bytes,
            dropped=part.about["dropped"],
        )
        for part, weight, epoch in zip(run.shards, run.mixture.weights, epochs, strict=True)
    ]


# ---------------------------------------------------------------- the folder


def _check_folder(out: Path) -> None:
    """Refuse a folder that holds something else."""
    if out.is_dir() and not (out / RECORD).is_file() and not (out / _MARK).is_file():
        others = sorted(path.name for path in out.iterdir() if path.name not in (".lock", "checkpoints"))
        if others:
            raise FinbenchError(
                f"{out} holds other files ({', '.join(others[:3])}).", "Choose an empty or a new folder with --out."
            )


def _claim(run: Prepared, out: Path, resume: bool) -> None:
    """Mark ``out`` as this run's; refuse to mix two runs, or to start over an unfinished one."""
    mark, record = out / _MARK, out / RECORD
    now = {**run.decisive, "dtype_used": dtype_name(run.recipe)}
    about = {"processes": processes(), "versions": environment.versions()}
    if record.is_file() or mark.is_file():
        found = _recorded(record) if record.is_file() else _marked(mark)
        keys = [key for key in now if found.get(key) != now[key]]
        if keys:
            shown = ", ".join(f"{key} {_short(found.get(key))} there, {_short(now[key])} now" for key in keys[:4])
            raise FinbenchError(
                f"{out} was begun with another recipe, base or text ({shown}).", "Choose another --out."
            )
        unfinished = any(checkpoints.newest(folder)[0] for folder in (out / "checkpoints").glob("*") if folder.is_dir())
        if unfinished and not resume:
            raise FinbenchError(f"{out} holds an unfinished run.", "Go on with --resume, or choose another --out.")
        for key, value in about.items():
            if found.get(key, value) != value:
                say(f"It was begun with other {key}: the end may differ in the last bits.")
    elif resume:
        say("There is nothing to resume; starting from the beginning.")
    write_atomic(mark, json.dumps({**now, **about}, indent=1) + "\n")


def _finished(run: Prepared, out: Path) -> Pretrained | None:
    """The record of this run, where nothing is missing from it."""
    if not (out / RECORD).is_file():
        return None
    found = read_record(out / RECORD)
    whole = {one.name for one in run.members} <= {model.name for model in found.models}
    scored = all(model.scores for model in found.models) or not run.recipe.tasks
    if not whole or not scored or found.recipe.tasks != run.recipe.tasks:
        return None
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return found


def _recorded(path: Path) -> dict[str, Any]:
    """What a finished run was made of."""
    found = read_record(path)
    identities = [part.identity for part in found.sources]
    return {**decisive(found.recipe, identities, found.tokenizer, found.base), "dtype_used": found.dtype}


def read_record(path: Path) -> Pretrained:
    """The record of a finished run. Raises FinbenchError for one that cannot be read."""
    try:
        return Pretrained.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as fault:
        raise FinbenchError(f"{path} is torn.", "Choose another --out.") from fault


def _marked(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise FinbenchError(f"{path} is torn.", "Choose another --out.") from fault


def dtype_name(recipe: PretrainRecipe) -> str:
    """``float32``, ``bfloat16`` or ``float16``: what matrices are multiplied in."""
    return str(bases.compute_dtype(recipe.dtype)).removeprefix("torch.")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{digest(value)[:8]}…"
