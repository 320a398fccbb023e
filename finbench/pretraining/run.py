"""``finbench pretrain``: a recipe -> a model beside its dense baselines, in one folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finbench.core import environment
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.files import digest, write_atomic
from finbench.models import MARK, bases, unfinished
from finbench.pretraining import prepared, spec
from finbench.pretraining.prepared import RECORD, PreparedText
from finbench.pretraining.result import Pretrained
from finbench.pretraining.spec import PretrainRecipe
from finbench.training import checkpoints


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
    from finbench.pretraining import fit, report

    recipe = recipe if isinstance(recipe, PretrainRecipe) else spec.read_recipe(recipe)
    out = out or Path("runs") / recipe.name
    environment.check_gpu()
    bases.check_dtype(recipe.dtype, "--set dtype=float16, or dtype=auto")
    run = prepared.prepare(recipe)
    if dry_run:
        return prepared.outline(run)
    if not prepared.main_process():
        return fit.train_members(run, out)
    checkpoints.check_folder(out, out / RECORD, out / MARK)
    with environment.owner(out):
        _claim(run, out, resume)
        if finished := _finished(run, out):
            say(f"{out} holds this run already; nothing to do.")
            return finished
        with _disclaimed(out, run):
            done = fit.train_members(run, out)
        report.write(done, out)
        if recipe.tasks:
            done = report.with_scores(done, out)
            report.write(done, out)
        _clear(out, run)
    return done


def _clear(out: Path, run: PreparedText) -> None:
    """Remove what the run kept until it was done."""
    for one in run.members:
        if (out / "checkpoints" / one.name).is_dir():
            checkpoints.clear(out / "checkpoints" / one.name)
    checkpoints.clear(out / "checkpoints", *(f"{one.name}.json" for one in run.members))


def _claim(run: PreparedText, out: Path, resume: bool) -> None:
    """Mark ``out`` as this run's; refuse to mix two runs, or to start over an unfinished one."""
    mark, record = out / MARK, out / RECORD
    identities = [part.about["identity"] for part in run.shards]
    now = prepared.decisive(run.recipe, identities, run.identity, run.base, bases.dtype_name(run.recipe.dtype))
    about = {"processes": environment.processes(), "versions": environment.versions()}
    command = unfinished.typed()
    if record.is_file() or mark.is_file():
        if record.is_file():
            of = prepared.read_record(record)
            identities = [part.identity for part in of.sources]
            found = prepared.decisive(of.recipe, identities, of.tokenizer, of.base, of.dtype)
        else:
            found = prepared.read_json(mark)
        keys = [key for key in now if found.get(key) != now[key]]
        if keys:
            shown = ", ".join(f"{key} {_short(found.get(key))} there, {_short(now[key])} now" for key in keys[:4])
            raise FinbenchError(
                f"{out} was begun with another recipe, base or text ({shown}).", "Choose another --out."
            )
        begun = any(checkpoints.newest(folder)[0] for folder in (out / "checkpoints").glob("*") if folder.is_dir())
        if begun and not resume:
            raise FinbenchError(
                f"{out} holds an unfinished run.", f"Go on: {unfinished.way_on(out)}\nOr choose another --out."
            )
        for key, value in about.items():
            if found.get(key, value) != value:
                say(f"It was begun with other {key}: the end may differ in the last bits.")
    elif resume:
        say(f"Nothing was begun in {out}, so there is nothing to resume: pretraining starts.")
    write_atomic(mark, json.dumps({**now, **about, "command": command}, indent=1) + "\n")


@contextlib.contextmanager
def _disclaimed(out: Path, run: PreparedText) -> Iterator[None]:
    """A run that was refused before its first checkpoint leaves nothing in ``out``."""
    try:
        yield
    except Interrupted:
        raise
    except FinbenchError:
        place = out / MARK.parent
        begun = [*place.glob("*/checkpoint-*"), *(found for found in place.glob("*.json") if found != out / MARK)]
        if not begun and not (out / RECORD).exists():
            _clear(out, run)
        raise


def _finished(run: PreparedText, out: Path) -> Pretrained | None:
    """The record of this run, where nothing is missing from it."""
    if not (out / RECORD).is_file():
        return None
    found = prepared.read_record(out / RECORD)
    whole = {one.name for one in run.members} <= {model.name for model in found.models}
    scored = all(model.scores for model in found.models) or not run.recipe.tasks
    if not whole or not scored or found.recipe.tasks != run.recipe.tasks:
        return None
    _clear(out, run)
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{digest(value)[:8]}…"
