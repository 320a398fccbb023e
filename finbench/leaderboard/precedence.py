"""Whose card counts: by evidence, then by the order in which cards were added, never by what a card says of its date.

``arrivals.txt`` holds that order, the name of a card's file a line; ``finbench leaderboard add`` appends to it, and a
card that it does not name came last.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core.files import digest, stable_json, write_atomic
from finbench.core.records import UNKNOWN, Score, Scorecard, Subject
from finbench.evaluation import DUMMY, drawing
from finbench.leaderboard.store import SCORECARDS

ARRIVALS = "arrivals.txt"
STRENGTH = {"self-reported": 0, "samples-attached": 1, "revoked": 1, "reproduced": 2}
# Characters that show nothing (Unicode's Default_Ignorable_Code_Point), or turn the line around
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# wrong answers, and answers other than the commonest of their question: two models do not share as many by chance
_TELLING = 20


def arrivals(folder: Path) -> dict[str, int]:
    """Place of each card in the order of arrival, by the name of its file without the ending."""
    path = folder / ARRIVALS
    lines = path.read_text("utf-8", "replace").split("\n") if path.is_file() else []
    return {name: number for number, name in reversed(list(enumerate(filter(None, map(str.strip, lines)))))}


def arrived(folder: Path, names: Sequence[str]) -> None:
    """Append cards to the order of arrival; one that is in it keeps its place."""
    with cardfiles.lock(folder / SCORECARDS):  # two that add a card at once keep both
        before = arrivals(folder)
        lines = [*sorted(before, key=lambda name: before[name]), *(name for name in names if name not in before)]
        write_atomic(folder / ARRIVALS, "".join(f"{line}\n" for line in lines))


def identity(subject: Subject) -> str:
    """Digest of the weights that answered: base and adapter; where nobody took theirs, of their names."""
    base = subject.base
    who = [base.fingerprint, subject.adapter]
    who += [base.alias, base.hub_id, base.revision] if base.fingerprint == UNKNOWN else []
    who += [subject.adapter_name] if subject.adapter == UNKNOWN else []
    return digest(who)


def spoken(name: str) -> str:
    """A name as far as a reader tells names apart."""
    return " ".join(_UNSEEN.sub("", unicodedata.normalize("NFKC", name)).casefold().split())


def how(card: Scorecard) -> str:
    """Digest of the way in which a card's answers were computed."""
    # of one way to put the question; it may be sampled in several
    generation = card.generation and card.generation.model_dump()
    return digest([card.engine, card.dtype, card.form, card.origin, card.subject.bits, generation])


def answered(score: Score, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Digest of all answers, where two models cannot have the same ones by chance; nothing else."""
    said = [cardfiles.of_row(row, "answer", _said) for row in rows]
    if not said:
        return
    _, wrong, unparsed = drawing.strata(score, rows)
    by_question: dict[str | None, Counter[str]] = {}  # many an adapter learns no more than what is mostly right of each
    for row, answer in zip(rows, said, strict=True):
        by_question.setdefault(cardfiles.of_row(row, "question", _question), Counter())[answer] += 1
    common = sum(max(counts.values()) for counts in by_question.values())
    if len(wrong) + len(unparsed) >= _TELLING and len(said) - common >= _TELLING:
        yield "answers " + digest([said, [row["doc"] for row in rows]])


def _said(row: Mapping[str, Any]) -> str:
    return stable_json(row.get("answer", row.get("answer_sha256")))


def _question(row: Mapping[str, Any]) -> str | None:
    """Which of the questions that are asked of each text."""
    values = row["values"].get("question_f1")
    return str(values[0]) if isinstance(values, list | tuple) else None


def without_model(card: Scorecard) -> str:
    """Why no model answered, in words; empty where one may have."""
    nobody = card.engine.endswith("dummy") or DUMMY.fingerprint == card.subject.base.fingerprint
    return "is the dummy engine's, which answers without a model and stands on no leaderboard" if nobody else ""
