"""Ask the model again: some of a card's documents, drawn when asked, are answered anew and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finbench.cards import asking, cardfiles
from finbench.core import catalog, environment, owntasks
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.files import stable_json
from finbench.core.records import UNKNOWN, Score, Scorecard
from finbench.core.settings import Evaluation
from finbench.evaluation import drawing, options, preflight, profiles
from finbench.evaluation.scored import hear
from finbench.evaluation.subjects import Candidate, Overlaps, candidates, models_of, start_engine
from finbench.models import Unchanged, adapters
from finbench.scoring import prompted, prompts, sample_rows, wordings


@dataclass(frozen=True)
class Answered:
    """Documents of one task that were asked again, and which read differently; each list by stratum.

    ``sizes``: documents that the card counts right, wrong and unparsed; ``tolerated``: share that may differ.
    ``prompts``: of a card of several prompts, which of the same documents read differently by each other one.
    """

    task: str
    seed: int
    sizes: list[int]
    rows: list[list[int]]
    moved: list[int]
    tolerated: float
    prompts: Mapping[str, list[int]] = field(default_factory=dict)

    @property
    def by_prompt(self) -> dict[str, Answered]:
        """The same documents by each other prompt."""
        return {name: replace(self, moved=moved, prompts={}) for name, moved in self.prompts.items()}

    @property
    def asked(self) -> int:
        """Documents, of all strata."""
        return sum(map(len, self.rows))

    @property
    def drawn(self) -> list[int]:
        """Documents of each stratum."""
        return [len(group) for group in self.rows]

    @property
    def same(self) -> bool:
        """No more differ than may."""
        return self._passes([sum(row in group for row in self.moved) for group in self.rows])

    @property
    def chance(self) -> bool:
        """One more differs than may, where it may be the order of additions all the same."""
        counts = [sum(row in group for row in self.moved) for group in self.rows]
        less = [[count - (at == one) for at, count in enumerate(counts)] for one, own in enumerate(counts) if own]
        return bool(self.tolerated) and not self.same and any(map(self._passes, less))

    def _passes(self, moved: Sequence[int]) -> bool:
        return drawing.estimated(self.sizes, self.drawn, moved) <= self.tolerated + 1e-9

    def escape(self, false: float) -> float:
        """Probability that a card passes of which the share ``false`` of the rows is false."""
        return drawing.escape(self.sizes, self.drawn, false, self.tolerated)

    @property
    def said(self) -> str:
        """The outcome in words."""
        return f"{self.asked - len(self.moved)} of {self.asked} documents read the same when asked again"

    @property
    def strength(self) -> str:
        """What was drawn, and what a forger risked."""
        of = ", ".join(
            f"{drawn:,} of {size:,} {name}"
            for name, drawn, size in zip(drawing.STRATA, self.drawn, self.sizes, strict=True)
            if size
        )
        risks = ", ".join(
            f"{shown_chance(share)} false rows with probability {shown_chance(self.escape(share))}" for share in _SHARES
        )
        return f"seed {self.seed} drew {of}; a card passes that has {risks}"


_SHARES = (drawing.FALSE, 2 * drawing.FALSE)  # of false rows, of which it is said how probably they pass


def shown_chance(chance: float) -> str:
    """A probability that a reader should not take for 0 or 1."""
    return "0" if chance == 0 else "< 0.1 %" if chance < 0.001 else f"{100 * chance:.2g} %"


def rerun(
    card: Scorecard,
    by_task: Mapping[str, Sequence[dict[str, Any]]],
    count: int | None,
    *,
    adapter: str | None = None,
    base: str | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
) -> list[Answered]:
    """Answer ``count`` documents of each task again and compare the readings with the rows; None: as many as it takes.

    They are drawn by ``seed``, else by one that nobody knew before: see ``finbench.evaluation.drawing``. They are asked
    by every prompt of the card.
    ``adapter`` and ``base`` say where the model is, as for ``finbench eval``, where the card does not say enough.
    In float32 with the same versions none may differ; elsewhere one in fifty, for the order of additions moves
    a few, and one more than that is left open. Raises FinbenchError where the model or the data are not to be had, or
    are not those of the card.
    """
    quiet()
    tasks = [catalog.tasks()[score.task] for score in card.scores]
    lm_tasks = prompts.load(tasks, data_dir, card.shots, card.seed, asking.chosen_rows(card))
    engine = engine_of(card, lm_tasks, adapter, base)
    same_versions = card.provenance.packages == environment.versions(environment.packages(card.engine))
    tolerated = 0.0 if same_versions and engine.dtype in ("float32", "none") else drawing.TOLERATED
    seed = drawing.new_seed() if seed is None else seed
    found = []
    try:
        for score in card.scores:
            groups = drawing.strata(score, by_task[score.task])
            sizes = [len(group) for group in groups]
            many = drawing.needed(sizes, tolerated) if count is None else count
            rows = drawing.draw(card, score, groups, many, seed)
            chosen = {row for group in rows for row in group}
            moved = _moved(card, score, by_task[score.task], lm_tasks[score.task], engine, chosen)
            own = moved.pop(wordings.OWN)
            found.append(Answered(score.task, seed, sizes, rows, own, tolerated, moved))
    finally:
        engine.close()
    return found


def overlaps(card: Scorecard, adapter: str, data_dir: Path | None) -> Overlaps:
    """What of each test the adapter has learnt, by its record and by the rows that it learnt from, if they are here.

    Raises FinbenchError for an adapter that is not the card's.
    """
    found = adapters.find(adapter)
    _same("adapter", card.subject.adapter or UNKNOWN, found.identity)
    names = {score.task: catalog.tasks()[score.task] for score in card.scores}
    lm_tasks = prompts.load([task for task in names.values() if task.own], data_dir)
    asked = Candidate(card.subject, None, found.folder, found.record, found.contamination)
    return asked.overlaps({name: lm_tasks.get(name) for name in names}, data_dir, lambda line: None)


def _same(what: str, stated: str, real: str | None) -> None:
    if stated not in (UNKNOWN, real) and real is not None:
        raise FinbenchError(
            f"The {what} here is not the one of the card: {real[:12]}, not {stated[:12]}.",
            f"Name the card's own: --{what}",
        )


def engine_of(card: Scorecard, lm_tasks: dict[str, Any], adapter: str | None, base: str | None) -> Any:
    """The card's engine with its subject in use; FinbenchError where the model is not to be had or is another one."""
    candidate, arguments = _candidate(card, adapter, base), dict[str, Any](card.arguments)
    if card.engine in options.ENDPOINTS:
        arguments |= {"url": base} if base else {}
        names = [name for score in card.scores for name in (score.hosted.models if score.hosted else ())]
        arguments |= {"answered_by": names[0]} if names else {}
        withheld = any(score.hosted and score.hosted.withheld for score in card.scores)
        arguments |= {"withheld": "wrong"} if withheld else {}
    _, [candidate] = preflight.choose(card.engine, [candidate], arguments)
    engine = start_engine([candidate], replace(profiles.settings_of(card), arguments=arguments), lm_tasks)
    engine.use(candidate.beside)
    candidate.check(Unchanged())
    return engine


def _moved(
    card: Scorecard, score: Score, rows: Sequence[dict[str, Any]], lm_task: Any, engine: Any, chosen: set[int]
) -> dict[str, list[int]]:
    """Which of the chosen documents read differently when asked again, by each prompt of the card, its own first."""
    template = engine.chat_template() if card.subject.chat else None
    told = {one.name for one in score.prompts.each} if score.prompts else {wordings.OWN}
    put = {one.name: wordings.put(lm_task, one) for one in wordings.of(catalog.tasks()[score.task]) if one.name in told}
    asked: dict[str, list[Any]] = {}
    for name, by_prompt in put.items():
        every = prompts.requests(by_prompt, card.limit, template, card.generation or prompts.PLAIN, card.seed)
        asked[name] = [request for request in every if request.doc_id in chosen]
        if len(put) > 1:
            wordings.told_apart(asked[name], by_prompt)
    together = [request for own in asked.values() for request in own]
    for request, answer in zip(together, engine.answer(together, lambda done: None), strict=True):
        hear(request, answer)
    restricted = owntasks.on_card(catalog.tasks()[score.task], score.licence).restricted
    moved = {}
    for name, by_prompt in put.items():
        new, _ = sample_rows(by_prompt, asked[name], choice=score.form == "choice", restricted=restricted)
        before = {cardfiles.in_order(row): stable_json(row["values"]) for row in prompted.rows_of(rows, name)}
        differ = [row["index"] for row in new if stable_json(row["values"]) != before[cardfiles.in_order(row)]]
        moved[name] = list(dict.fromkeys(differ))
    return moved


def _candidate(card: Scorecard, adapter: str | None, base: str | None) -> Candidate:
    """The card's own subject, loaded from where the user says; FinbenchError if that is another one."""
    if card.engine in options.ENDPOINTS:
        return _at_endpoint(card, base)
    subject, adapter = card.subject, adapter or card.subject.adapter_source
    if adapter and not subject.adapter:
        raise FinbenchError(f"This card is of the base {subject.base.alias} alone.", "Leave --adapter out.")
    if subject.adapter and not adapter and card.engine != "dummy":
        raise FinbenchError(f"Where is the adapter {subject.adapter_name} of this card?", "Name it: --adapter ./folder")
    if card.origin != "finbench" and not base and not adapter:
        raise FinbenchError("This card does not say exactly which model answered.", "Name it: --base, --adapter")
    which = {"adapter": adapter, "base": base} if adapter else {"model": base or subject.base.alias}
    profile = card.generation.profile if card.generation else "direct"
    found, _ = candidates(
        Evaluation(**which, bits=subject.bits, chat=subject.chat, engine=card.engine, profile=profile)
    )
    chosen = next(c for c in found if (c.subject.adapter is not None) == (adapter is not None))
    _same("base", subject.base.fingerprint, chosen.subject.base.fingerprint)
    _same("adapter", subject.adapter or UNKNOWN, chosen.subject.adapter)
    return chosen


def _at_endpoint(card: Scorecard, url: str | None) -> Candidate:
    """The model of a card at the endpoint that the user names; its address is on no card, only its digest."""
    if url is None and card.engine == "server":
        raise FinbenchError("This card does not say where its model is.", "Name the endpoint: --base https://.../v1")
    [found] = models_of(card.engine, card.subject.base.alias, url, card.subject.chat)
    if found.subject.base.fingerprint != card.subject.base.fingerprint:
        hint = (
            "Name its address as it was: --base https://.../v1" if url else "Name the endpoint: --base https://.../v1"
        )
        raise FinbenchError(f"{card.subject.base.alias} of this card was asked at another address.", hint)
    return found
