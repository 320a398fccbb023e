"""Checkpoints that are whole or absent: written aside, listed in a manifest, then renamed into place."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from finbench.cards import trackers
from finbench.core import environment
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import flush, sha256_file
from finbench.models import MARK

MANIFEST = "finbench-checkpoint.json"
# what else a run of ours writes beside its checkpoints
_OWN = (MARK.name, trackers.RUNS, "staging", "final", "ranks")
_ASIDE = re.compile(r"\.(.+)\.[a-z0-9_]{8}")


def publish(staging: Path, target: Path) -> None:
    """Make ``staging`` the checkpoint ``target``: manifest last, everything flushed, one rename."""
    files = {str(path.relative_to(staging)): sha256_file(path) for path in sorted(staging.rglob("*")) if path.is_file()}
    for name in files:
        flush(staging / name)
    (staging / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")
    flush(staging / MANIFEST)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    flush(target.parent)


@contextlib.contextmanager
def staged(staging: Path) -> Iterator[None]:
    """Begin without ``staging``, in which files are whole only together, and leave none of it: a disk may be full.

    Of several processes the first one removes it, which publishes from there.
    """
    first = environment.rank() == 0
    if first:
        shutil.rmtree(staging, ignore_errors=True)
    try:
        yield
    finally:
        if first:
            shutil.rmtree(staging, ignore_errors=True)


def check_folder(out: Path, *marks: Path) -> None:
    """Refuse a folder that holds something else than a training of ours, which has one of ``marks``.

    What is there would be lost, or mixed with ours. A folder named checkpoints without one of ours in it is somebody
    else's, and so is a mark that does not state versions, as each of ours does.
    """
    if not out.is_dir() or any(map(_ours, marks)):
        return
    found = {path.name for path in out.iterdir()} - {".lock"}
    if any((out / "checkpoints").glob(f"checkpoint-*/{MANIFEST}")) or not any((out / "checkpoints").glob("*")):
        found -= {"checkpoints"}
    if found:
        raise FinbenchError(
            f"{out} holds other files ({', '.join(sorted(found)[:3])}).", "Choose an empty or a new folder with --out."
        )


def _ours(mark: Path) -> bool:
    """Whether a file is a mark as finbench writes it: a record of an adapter, or of a run with its versions."""
    try:
        stated = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return mark.is_file() and mark.stat().st_size == 0  # of a disk that was full
    return isinstance(stated, dict) and bool({"versions", "provenance"} & stated.keys())


def clear(folder: Path, *own: str) -> None:
    """Remove what a run keeps in ``folder`` until it is done, with ``own`` names; what else lies there stays."""
    names = {*_OWN, *own}
    for path in folder.iterdir() if folder.is_dir() else ():
        written = _ASIDE.fullmatch(path.name)  # by write_atomic in a process that was killed
        named = (written[1] if written else path.name) in names
        if path.is_symlink() or not (named or (step_of(path) >= 0 and (path / MANIFEST).is_file())):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        try:
            folder.rmdir()
        except OSError:
            say(f"{folder} stays: it holds files that are not of this run.")


def fault(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole; None if it is."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
        for name, sha in files.items():
            if sha256_file(checkpoint / name) != sha:
                return f"{name} has changed"
    except FileNotFoundError as missing:
        return f"{Path(missing.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return "its manifest is torn"
    return None


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which it was written; -1 for another folder."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() and number != checkpoint.name else -1


def newest(
    folder: Path, lacking: Callable[[Path], str | None] = lambda checkpoint: None
) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a run, and a line for each that was passed over: torn, or ``lacking`` says why."""
    passed: list[str] = []
    found = [path for path in folder.glob("checkpoint-*") if step_of(path) >= 0]
    for checkpoint in sorted(found, key=step_of, reverse=True):
        why = fault(checkpoint) or lacking(checkpoint)
        if why is None:
            return checkpoint, passed
        passed.append(f"{checkpoint.name} is not whole ({why}); passed over")
    return None, passed


def prune(folder: Path, kept: Collection[int] = ()) -> None:
    """Remove all but the two newest whole checkpoints and those of the steps that are to be ``kept``."""
    found = sorted((path for path in folder.glob("checkpoint-*") if step_of(path) >= 0), key=step_of, reverse=True)
    whole = [path for path in found if fault(path) is None][:2]
    for path in found:
        if path not in whole and step_of(path) not in kept and (path / MANIFEST).is_file():
            shutil.rmtree(path, ignore_errors=True)
