"""Whose a run folder is: one run's, from its first step to its adapter, and of all its processes."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from finbench.core import environment
from finbench.core.console import say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.files import write_atomic
from finbench.core.records import Adapter
from finbench.models import MARK, adapters, bases, unfinished
from finbench.training import checkpoints, launch
from finbench.training.preparation import Prepared, decisive

_LATE = 100  # tenths of a second that another machine's files may take to be seen


def claimed(run: Prepared, out: Path, resume: bool, processes: int, held: contextlib.ExitStack) -> Prepared | None:
    """``run`` as ``out`` has begun it, which is owned until ``held`` ends; None where the adapter is there already."""
    checkpoints.check_folder(out, out / "finbench.json", out / MARK)
    held.enter_context(environment.owner(out))
    if _finished(run, out):
        say(f"{out} holds this adapter already; nothing to do.")
        return None
    run = _claim(run, out, resume, processes)
    held.push(lambda kind, fault, trace: _disclaim(out, fault))
    if run.slower:
        say(run.slower)
    return run


def _disclaim(out: Path, fault: BaseException | None) -> None:
    """A run that was refused before its first checkpoint leaves nothing in ``out``; one that crashed, its logs."""
    refused = isinstance(fault, FinbenchError) and not isinstance(fault, (Interrupted, launch.Crashed))
    if refused and not any((out / MARK.parent).glob("checkpoint-*")) and not (out / "finbench.json").exists():
        checkpoints.clear(out / MARK.parent)


def mark(out: Path) -> str:
    """What the folder of an unfinished run says."""
    return (out / MARK).read_text(encoding="utf-8")


def check_shared(out: Path, text: str) -> None:
    """Refuse a folder that is another one on this machine: checkpoints are written and read by all processes."""
    for _ in range(_LATE):
        if (text and (out / MARK).is_file() and mark(out) == text) or (not text and (out / "finbench.json").is_file()):
            return
        time.sleep(0.1)  # a file system of the network may show it late
    raise FinbenchError(
        f"Process {environment.rank()} does not see what process 0 wrote to {out}.",
        "Choose an --out that all machines share, such as a network folder.",
    )


def _finished(run: Prepared, out: Path) -> Adapter | None:
    if not (out / "finbench.json").is_file():
        return None
    found = adapters.record(out)
    stated = decisive(found.recipe, found.data, found.base.fingerprint)
    if difference := _difference(stated, run.decisive):
        raise FinbenchError(f"{out} holds another adapter ({difference}).", "Choose another --out.")
    return found


def _difference(there: dict[str, Any], now: dict[str, Any]) -> str:
    keys = [key for key in now if there.get(key) != now[key]]
    return ", ".join(
        key if key in ("data", "weights", "base") else f"{key} {there.get(key)!r} there, {now[key]!r} now"
        for key in keys
    )


def _claim(run: Prepared, out: Path, resume: bool, processes: int) -> Prepared:
    """Mark ``out`` as this run's, and return it with the loop it was begun with; refuse to mix two runs."""
    place = out / MARK
    now = {
        **run.decisive,
        "held-out rows": run.validated_on,
        "loop": run.passes.loop,
        "pass_tokens": run.passes.tokens,
        "sharding": run.recipe.sharding,
        "dtype_used": str(run.dtype),
        "versions": environment.versions(),
    }
    if checkpoints.newest(place.parent)[0]:
        if not resume:
            raise FinbenchError(
                f"{out} holds an unfinished run.", f"Go on: {unfinished.way_on(out)}\nOr choose another --out."
            )
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
            versions, found["versions"] = found["versions"], now["versions"]
            before, others, _ = found["loop"], found.pop("processes"), found.pop("recipe")
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise FinbenchError(f"{place} is missing or torn.", "Choose another --out.") from fault
        if run.recipe.loop == "auto" and before in ("padded", "packed") and before != now["loop"]:
            say(f"It was begun with {before} rows, and goes on so.")
            run = run.begun(before, run.passes.checkpointed)
            now["loop"] = before
        if difference := _difference(found, now):
            raise FinbenchError(
                f"{out} was begun with another recipe, base or data ({difference}).",
                "Resume with what it was begun with, or choose another --out.",
            )
        if others != processes:
            _regroup(run, out, others, processes)
        if versions != now["versions"]:
            say("It was begun with other versions of the libraries: the end may differ in the last bits.")
    elif resume:
        say(f"Nothing was begun in {out}, so there is nothing to resume: training starts.")
    told = {"processes": processes, "command": unfinished.typed(), "recipe": run.placeless.model_dump(mode="json")}
    write_atomic(place, json.dumps({**now, **told}, indent=1) + "\n")
    return run


def _regroup(run: Prepared, out: Path, before: int, processes: int) -> None:
    from finbench.training import loops

    begun = f"was begun by {before} process{'' if before == 1 else 'es'}"
    if reason := loops.without_sharing(bases.skeleton(run.base), run.recipe):
        raise FinbenchError(
            f"{out} {begun}, and {processes} would learn something else: {reason}.",
            f"Resume with --processes {before} (--gpus {before} on GPUs), or choose another --out.",
        )
    say(f"It {begun}: the end may differ in the last bits.")
