"""Scorecards from what others wrote: lm-eval, inspect-ai, Every Eval Ever, or a file of answers."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from finbench.cards import cardfiles, everyeval, write_reports
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError
from finbench.core.records import Scorecard
from finbench.evaluation.answers import import_answers
from finbench.evaluation.inspectlogs import import_log
from finbench.evaluation.lmeval import import_results
from finbench.evaluation.verification import verify

_EVERY = re.compile(r'\s*\{\s*"schema_version"\s*:.*"evaluation_id"', re.DOTALL)
_INSPECT = re.compile(r'\s*\{\s*"version"\s*:\s*\d')


def import_card(
    source: Path | str,
    *,
    out: Path = Path("scorecards"),
    name: str | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
) -> list[Scorecard]:
    """The scorecards of a file, or of all that are known below a folder, written to ``out`` with their samples.

    With ``task``, ``source`` is a file of answers to its test rows: see ``finbench.evaluation.answers``. Else it is
    lm-eval's ``results_*.json``, inspect's log (``.eval``, ``.json``) or finbench's own record of Every Eval Ever.
    ``name`` is that of the subject. ``columns``: which column of such a file is its ``id``, ``text`` or ``answer``.

    Raises FinbenchError where nothing is known, and for what cannot be scored as our own task is.
    """
    quiet()
    place = Path(source)
    if task:
        return import_answers(place, task, out=out, name=name, columns=columns or {}, data_dir=data_dir)
    if columns:
        raise FinbenchError("--map is about the columns of a file of answers, which needs its task.", "Add --task fpb")
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    made: dict[str, Scorecard] = {}
    refused: list[FinbenchError] = []
    for path in files:
        if (reader := _reader(path)) is None:
            continue
        try:
            made |= {card.run_key: card for card in reader(path, out, name, data_dir)}
        except FinbenchError as fault:
            if place.is_file():
                raise
            say(f"Left out: {fault.message}")  # a folder may hold what others measured
            refused.append(fault)
    if refused and not made:
        raise refused[0]
    if not made:
        raise FinbenchError(
            f"No results_*.json of lm-eval, no log of inspect and no record of Every Eval Ever: {place}.",
            "A file of answers needs --task; lm_eval's output is made like this: "
            'lm_eval run --include_path "$(finbench tasks path)" --tasks finbench_fpb --log_samples --output_path DIR',
        )
    write_reports(out)
    return list(made.values())


def _reader(path: Path) -> Callable[[Path, Path, str | None, Path | None], list[Scorecard]] | None:
    """What reads a file, by its name and its first letters; None for what is none of ours."""
    if path.suffix == ".json" and path.name.startswith("results_"):
        return lambda path, out, name, data_dir: import_results(path, out=out, name=name, data_dir=data_dir)
    if path.suffix == ".eval" or (path.suffix == ".json" and _INSPECT.match(_beginning(path))):
        return lambda path, out, name, data_dir: [import_log(path, out=out, name=name, data_dir=data_dir)]
    if path.suffix == ".json" and _EVERY.match(_beginning(path)):
        return _restored
    return None


def _restored(path: Path, out: Path, name: str | None, data_dir: Path | None) -> list[Scorecard]:
    """The card that a record of Every Eval Ever was made of, if everything in it follows from its answers."""
    card, rows = everyeval.restored(path, data_dir)
    with tempfile.TemporaryDirectory() as scratch:
        place, again = cardfiles.store(Path(scratch), card, rows)
        found = verify(place, data_dir=data_dir)
    if found.faults:
        fault = found.faults[0]
        raise FinbenchError(
            f"{path}: {fault.field} {fault.message}",
            "Export its card again; one of an earlier version after: finbench card rescore CARD",
        )
    if again.samples != card.samples:
        raise FinbenchError(
            f"{path}: its answers are not those that its scorecard names: another SHA-256 of samples.",
            "Export its card again; zstandard of another version may pack the same answers otherwise",
        )
    if name:
        card = card.model_copy(update={"subject": card.subject.model_copy(update={"name": name})})
    place, written = cardfiles.store(out, card, rows)
    say(f"{path.name} -> {place}")
    return [written]


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(200).decode(errors="replace")
