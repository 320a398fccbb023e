"""What is wrong with a card, by every rule of the leaderboard, and what is kept of one with which nothing is.

As a process (``python -m finbench.leaderboard.examine``) it does so for the files whose names come on standard input, a
line each, and ends with it. ``reading`` starts as many as there are processors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from finbench.cards import cardfiles
from finbench.core import catalog, lifeline
from finbench.core.errors import FinbenchError
from finbench.core.records import Score, Scorecard
from finbench.core.seal import leaves
from finbench.evaluation import Verification, verify
from finbench.leaderboard import evidence, known, precedence, texts
from finbench.leaderboard.known import KnownCard

_NO_DATA = Path("/.none/finbench")  # data on this machine must not decide
_SHOWN = 3  # faults of a card that are listed


def faults(
    path: Path, *, adapter: str | None = None, data_dir: Path | None = _NO_DATA
) -> tuple[list[str], KnownCard | None]:
    """Everything that keeps a card off the leaderboard, a sentence each; and what is kept where there is nothing."""
    looked = Verification(str(path))
    with looked.reading(""):
        return _faults(path, adapter, data_dir)
    return [fault.message for fault in looked.faults], None


def _faults(path: Path, adapter: str | None, data_dir: Path | None) -> tuple[list[str], KnownCard | None]:
    card = cardfiles.read(path)
    found = verify(path, adapter=adapter, data_dir=data_dir)
    wrong = [f"{fault.field} {fault.message}" for fault in found.faults]
    rows = found.rows or {}
    if card.samples is not None and (wrong or texts.restricted([row for own in rows.values() for row in own])):
        # texts first: a card that holds some must go, whatever else is wrong with it
        wrong = [*texts.restricted(cardfiles.read_samples(path)), *wrong]
    if wrong:
        return wrong, None
    wrong += [f"engine {fault}" for fault in [precedence.without_model(card)] if fault]
    wrong += [
        f"{where} is no name: {len(str(value))} characters"
        for where, value in leaves(card.model_dump(include={"subject", "provenance", "arguments", "engine", "form"}))
        if isinstance(value, str) and len(value) > texts.LONGEST
    ]
    tasks = catalog.tasks()
    if own := [score.task for score in card.scores if score.task not in tasks or tasks[score.task].own]:
        wrong.append(f"{', '.join(own)} is no task of finbench, and never stands beside those that are ranked")
    choices = {f"{k}={v}" for score in card.scores for k, v in score.data.choices.items() if k != "agreement"}
    if choices:
        wrong.append(f"--metadata {', '.join(sorted(choices))}: only scores of the test as it is are ranked")
    kept = {score.task: evidence.of(score, rows.get(score.task, ())) for score in card.scores}
    proofs = {task: one for task, one in kept.items() if one is not None}
    return wrong, None if wrong else KnownCard(known.outlined(card), found.level, found.checks, found.notes, proofs)


def present(score: Score) -> bool:
    """Whether a score is of the version that its task has here, or of a task that is not known here."""
    tasks = catalog.tasks()
    return score.task not in tasks or score.version >= tasks[score.task].version


def examined(path: Path) -> list[str]:
    """The first faults of a card; where there are none, what is kept of it is in the cache afterwards."""
    key = known.key_of(path)
    try:
        wrong, kept = faults(path)
    except FinbenchError as fault:
        return [str(fault)]
    if kept is not None and key is not None and key == known.key_of(path):  # nobody wrote the card meanwhile
        known.write(key, kept)
    more = [f"and {len(wrong) - _SHOWN:,} more: finbench verify"] if len(wrong) > _SHOWN else []
    return wrong[:_SHOWN] + more


def older(card: Scorecard) -> str:
    """The first task of a card that has a newer version here, by which its answers cannot be scored again."""
    return next((score.task for score in card.scores if not present(score)), "")


def _asked() -> Iterator[Path]:
    yield from (Path(line.decode("utf-8", "surrogateescape")) for line in lifeline.lines())


def main(asked: Iterable[Path]) -> None:
    """Examine files, and say what is wrong with each in a line of JSON."""
    with cardfiles.sharing_rows():
        for path in asked:
            print(json.dumps(examined(path)), flush=True)


if __name__ == "__main__":
    main(_asked())
