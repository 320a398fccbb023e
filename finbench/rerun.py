"""Ask the model again: a seeded choice of a card's documents, answered anew and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finbench import catalog, environment, prompts, scoring
from finbench.console import quiet
from finbench.errors import FinbenchError
from finbench.files import stable_json
from finbench.records import UNKNOWN, Score, Scorecard
from finbench.subjects import Examinee, examinees, start_engine

if TYPE_CHECKING:
    from finbench.verify import Verification

TOLERATED = 0.02  # share of readings that may differ in half precision or on other versions


def rerun(
    card: Scorecard,
    by_task: Mapping[str, Sequence[dict[str, Any]]],
    count: int,
    adapter: str | None,
    base: str | None,
    seed: int,
    data_dir: Path | None,
    found: Verification,
) -> None:
    """Answer ``count`` documents of each task again and note every reading that differs.

    In float32 with the same versions none may; elsewhere one in fifty, for the order of additions moves a few.
    """
    quiet()
    examinee = _examinee(card, adapter, base)
    exams = prompts.load([catalog.tasks()[s.task] for s in card.scores], data_dir, card.shots, card.seed)
    engine = start_engine(examinee, card.engine, card.arguments, card.seed, exams)
    engine.use(examinee.adapter if examinee.subject.kind == "peft" else None)
    template = engine.chat_template() if card.subject.chat else None
    exact = engine.dtype in ("float32", "none") and card.provenance.packages == environment.versions()
    for score in card.scores:
        _again(card, score, by_task[score.task], exams[score.task], engine, template, count, seed, exact, found)


def _examinee(card: Scorecard, adapter: str | None, base: str | None) -> Examinee:
    """The card's own subject, loaded from where the user says; FinbenchError if that is another one."""
    subject = card.subject
    if subject.adapter and not adapter and card.engine != "dummy":
        raise FinbenchError(f"Where is the adapter {subject.adapter_name} of this card?", "Name it: --adapter ./folder")
    if card.origin != "finbench" and not base and not adapter:
        raise FinbenchError("This card does not say exactly which model answered.", "Name it: --base, --adapter")
    model = None if adapter else base or subject.base.alias
    candidates, _ = examinees(
        [adapter] if adapter else [], model, base if adapter else None, subject.bits, subject.chat, card.engine
    )
    chosen = next(c for c in candidates if (c.subject.adapter is not None) == (adapter is not None))
    for what, stated, real in (
        ("base", subject.base.fingerprint, chosen.subject.base.fingerprint),
        ("adapter", subject.adapter or UNKNOWN, chosen.subject.adapter),
    ):
        if stated not in (UNKNOWN, real) and real is not None:
            raise FinbenchError(
                f"The {what} here is not the one of the card: {real[:12]}, not {stated[:12]}.",
                f"Name the card's own: --{what}",
            )
    return chosen


def _again(
    card: Scorecard,
    score: Score,
    rows: Sequence[dict[str, Any]],
    exam: Any,
    engine: Any,
    template: Any,
    count: int,
    seed: int,
    exact: bool,
    found: Verification,
) -> None:
    chosen = set(np.random.default_rng(seed).choice(score.n, size=min(count, score.n), replace=False).tolist())
    task = catalog.tasks()[score.task]
    asked = [i for i in prompts.requests(exam, card.limit, template) if i.doc_id in chosen]
    for instance, answer in zip(asked, engine.answer(asked, lambda done: None), strict=True):
        instance.resps = [answer]
    new = scoring.sample_rows(exam, asked, choice=score.form == "choice", restricted=task.restricted)
    moved = [row["index"] for row in new if stable_json(row["values"]) != stable_json(rows[row["index"]]["values"])]
    allowed = 0 if exact else math.ceil(TOLERATED * len(new))
    same = f"{len(new) - len(moved)} of {len(new)} documents read the same when asked again"
    if len(moved) > allowed:
        shown = ", ".join(map(str, moved[:10])) + (" …" if len(moved) > 10 else "")
        found.fault(f"samples[{score.task}].values", f"{same}; not the same: {shown} ({allowed} would be tolerated)")
    else:
        found.checks.append(f"{score.task}: {same}")
