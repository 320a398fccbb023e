"""Subject x Tasks -> Scorecard: a base and any number of its adapters in one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from finbench.cards import cardfiles, write_reports
from finbench.core import catalog, environment
from finbench.core.console import progress, quiet, say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Generation, Score, Scorecard, Task
from finbench.core.settings import Evaluation, called_with
from finbench.engines import Purse
from finbench.evaluation import options, preflight, profiles
from finbench.evaluation.journal import Journal
from finbench.evaluation.look import Looks
from finbench.evaluation.noises import under_each
from finbench.evaluation.notes import hosted
from finbench.evaluation.requests import Requests
from finbench.evaluation.scored import asked_rows, hear, score_answers, status
from finbench.evaluation.subjects import Candidate, Overlaps, by_engine, candidates, models_of, start_engine
from finbench.models import Unchanged, bases, template_digest
from finbench.scoring import prompts, wordings

Form = Literal["base", "unmerged", "merged", "none"]
_FORMS: dict[str, Form] = {"base": "base", "peft": "merged", "model": "merged"}


@called_with(Evaluation)
def evaluate(wanted: Evaluation) -> list[Scorecard]:
    """Score adapters beside their base, or a base alone; return their scorecards, bases first.

    ``evaluate("runs/a", tasks="fpb", limit=50)``: every field of ``Evaluation`` is a keyword, and an option of
    ``finbench eval``. Cards are written to ``out`` as ``<subject>.json`` with their samples; ``report.md`` and
    ``report.html`` there show every card of the folder, those of earlier runs too; not without ``reports``.

    ``bits`` and ``chat`` default to what each adapter was trained with, ``tasks`` to those of the recipes. The
    base is always scored beside its adapters. What the folder ``out`` already holds under the same run key,
    task digest and data digest is not scored again. ``metadata`` chooses of a data set: {"agreement": "75"}.

    Raises FinbenchError before anything is scored for a fault of a setting, a reference, an adapter, a base, a task
    or its data, and for a prompt that does not fit (unless ``truncate=left`` is among ``arguments``); Interrupted
    after Ctrl-C, with every finished task kept.
    """
    wanted, parsed, named = options.checked(wanted)
    quiet()
    return under_each(wanted, partial(_evaluated, parsed=parsed, named=named))


def _evaluated(wanted: Evaluation, parsed: dict[str, Any], named: list[Task]) -> list[Scorecard]:
    told = preflight.reported(wanted.report)
    elsewhere = wanted.engine in options.ENDPOINTS
    how = (wanted.data_dir, wanted.shots, wanted.seed, wanted.metadata, wanted.limit)
    lm_tasks = prompts.load(named, *how) if named else {}  # before a base is fetched or unpacked for minutes
    if elsewhere:
        found, defaults = models_of(wanted.engine, wanted.model, parsed.get("url"), bool(wanted.chat)), list[str]()
    else:
        found, defaults = candidates(wanted)
    if not named:
        if not defaults:
            raise options.no_tasks()
        named = _of_recipe(defaults)
        lm_tasks = prompts.load(named, *how)
    if alone := wordings.left_alone(named, wanted.prompts):
        say(f"{', '.join(alone)}: there is no other prompt, so the own one alone is asked.")
    generation = profiles.generation_of(wanted, named, [one.subject for one in found])
    written: list[Path] = []
    with environment.unmade(wanted.out):
        with cardfiles.lock(wanted.out):
            pass  # a folder that cannot be written is refused before a model is loaded, or merged for vLLM
        engine, found = preflight.choose(wanted.engine, found, parsed)
    wanted = replace(wanted, engine=engine, arguments=parsed)
    purse = Purse(wanted.budget)  # one for all engines of the command
    with progress() as bar:
        engine_runs = [_EngineRun(group, lm_tasks, wanted, generation, bar, purse) for group in by_engine(found)]
        try:
            for engine_run in engine_runs:  # every subject is loaded and checked before one is scored
                engine_run.prepare()
                if len(engine_runs) > 1:
                    engine_run.release()
            for engine_run in engine_runs:
                written += engine_run.run()
                engine_run.release()
        finally:
            for engine_run in engine_runs:
                engine_run.release()
    if wanted.reports:
        write_reports(wanted.out)
    cards = [cardfiles.read(path) for path in dict.fromkeys(written)]
    told(cards, wanted.out)
    return cards


def _of_recipe(names: list[str]) -> list[Task]:
    """The tasks that an adapter was trained on; one may be a benchmark whose folder was not named."""
    try:
        return catalog.expand(names)
    except FinbenchError as fault:
        raise FinbenchError(
            f"The adapter was trained on what is not known here: {fault.message}",
            "Name the folder of that benchmark, or other tasks: --tasks ./folder,fpb",
        ) from fault


@dataclass
class _Work:
    """A subject's card in the making: what an earlier command has scored, and which tasks are missing."""

    candidate: Candidate
    card: Scorecard
    scores: dict[str, Score]
    samples: dict[str, list[dict[str, Any]]]
    missing: list[Task]
    overlaps: Overlaps = field(default_factory=dict)  # with what its adapter learnt, of the tasks that are missing
    form: Form = "none"  # as the engine runs the subject, once it does


class _EngineRun:
    """One engine, its subjects, all tasks."""

    def __init__(
        self,
        group: list[Candidate],
        lm_tasks: dict[str, Any],
        settings: Evaluation,
        generation: Generation | None,
        bar: Any,
        purse: Purse,
    ) -> None:
        self.group, self.lm_tasks, self.settings, self.out, self.bar = group, lm_tasks, settings, settings.out, bar
        self.generation, self.purse = generation, purse
        self.engine: Any = None
        self.unchanged = Unchanged()
        self.looks = Looks(settings, lm_tasks)
        tasks = catalog.tasks()
        self.requests = Requests([tasks[name] for name in lm_tasks], lm_tasks, settings, generation)
        self.device = self._device()
        self.asked = {
            name: asked_rows(tasks[name], lm_task, prompts.whole(lm_task, settings.limit))
            for name, lm_task in lm_tasks.items()
        }
        self.works = [self._work(candidate) for candidate in group]

    def prepare(self) -> None:
        """Load each subject that has something to be scored, and render and measure its prompts."""
        for work in self.works:
            if work.missing:
                left = {task.name: self.lm_tasks[task.name] for task in work.missing}
                work.overlaps = work.candidate.overlaps(left, self.settings.data_dir, say)
                self._use(work.candidate)
                self.requests.render(self.engine, work.candidate.subject.chat, work.missing)
                if told := self.engine.forecast(self._unanswered(work)):
                    say(told)

    def run(self) -> list[Path]:
        """Evaluate every subject, all at once where the engine can; return the cards' paths."""
        works = [work for work in self.works if work.missing]
        if works:
            self._use(works[0].candidate)
        for group in [works] if works and self.engine.mixes else [[work] for work in works]:
            self._score_together(group)
        return [cardfiles.place_for(self.out, w.card.subject.name, w.card.run_key) for w in self.works]

    def release(self) -> None:
        """Let go of the model; it is loaded again when needed."""
        if self.engine is not None:
            self.engine.close()
        self.engine = None

    def _work(self, candidate: Candidate) -> _Work:
        card = self._blank(candidate)
        path = cardfiles.place_for(self.out, card.subject.name, card.run_key)
        scores, samples = self._earlier(path)
        missing = [catalog.tasks()[name] for name in self.lm_tasks if name not in scores]
        if not missing:
            say(f"{card.subject.name}: scored before, taken from {path}")
        for name in scores if self.settings.look else ():
            if name in self.lm_tasks:
                self.looks.back(catalog.tasks()[name], card, samples[name])
        return _Work(candidate, card, scores, samples, missing)

    def _score_together(self, works: list[_Work]) -> None:
        """Evaluate subjects together, task by task; all of them in the engine."""
        started = time.monotonic()
        for work in works:
            self._use(work.candidate)
            work.form = "merged" if work.candidate.merged else self.engine.form
        for name in self.lm_tasks:
            task = catalog.tasks()[name]
            with contextlib.ExitStack() as held:
                journals = []
                # other processes may be at the same: all take their journals in one order
                for work in sorted((one for one in works if task in one.missing), key=lambda one: one.card.run_key):
                    what = f"{work.card.subject.name} on {name}"
                    journal = held.enter_context(Journal(self.out, self._key(work, task), what))
                    if not (journal.waited and self._scored_meanwhile(work, task)):
                        journals.append((work, journal))
                try:
                    seconds = self._answer(task, journals) if journals else 0.0
                except KeyboardInterrupt as stop:
                    raise self._interrupted(works) from stop
                for work, journal in journals:
                    work.candidate.check(self.unchanged, journal.finish)
                    self._score(task, work, journal, seconds)
                    self._write(work, time.monotonic() - started)
                    journal.finish()

    def _unanswered(self, work: _Work) -> list[Any]:
        """The requests of a subject that no journal answers, before anything is asked."""
        left: list[Any] = []
        for task in work.missing:
            kept = Journal(self.out, self._key(work, task), task.name)
            kept.read()
            requests = self.requests.every(task.name, work.card.subject.chat)
            left += [request for name, request in requests.items() if name not in kept.answers]
        return left

    def _interrupted(self, works: list[_Work]) -> Interrupted:
        done = [f"{len(work.scores)} of {len(self.lm_tasks)} tasks of {work.card.subject.name}" for work in works]
        kept = f"{', '.join(done)} are in {self.out}" if any(work.scores for work in works) else "nothing was finished"
        return Interrupted(f"Stopped; {kept}.", "Repeat the command: what was answered is not asked again.")

    def _key(self, work: _Work, task: Task) -> dict[str, Any]:
        """All that decides the answers of a subject on a task."""
        card, (data, examples) = work.card, self.asked[task.name]
        return {
            "base": card.subject.base.fingerprint,
            "adapter": card.subject.adapter,
            "form": work.form,
            "engine": card.engine,
            "computed": card.computed,
            "template": card.chat_template,
            "run": card.run_key,
            "task": [task.name, task.digest],
            "data": [data.digest, examples],
        }

    def _scored_meanwhile(self, work: _Work, task: Task) -> bool:
        """Take the score that another process has written while this one waited, if it has."""
        scores, samples = self._earlier(cardfiles.place_for(self.out, work.card.subject.name, work.card.run_key))
        if task.name in scores:
            work.scores[task.name], work.samples[task.name] = scores[task.name], samples[task.name]
        return task.name in scores

    def _use(self, candidate: Candidate) -> None:
        """Switch the engine to a subject; it is started at the first one that needs it."""
        if self.engine is None:
            self.engine = start_engine(self.group, self.settings, self.lm_tasks, self.purse)
        self.engine.use(candidate.beside)
        candidate.check(self.unchanged)  # its files may have been others when they were loaded

    def _score(self, task: Task, work: _Work, journal: Journal, seconds: float) -> None:
        chat = work.card.subject.chat
        self.looks.all(task, *self._heard(work, task, journal))
        for name, instance in self.requests.every(task.name, chat).items():
            hear(instance, journal.answers[name])
        own = self.requests.own(task.name, chat)
        score, rows = score_answers(
            task,
            self.lm_tasks[task.name],
            list(own.values()),
            self.asked[task.name],
            overlap=work.overlaps[task.name],
            seconds=round(seconds, 2),
            hosted=hosted(journal.notes[name] for name in own if name in journal.notes),
            **self.requests.measured(task.name, chat),
        )
        found = self.requests.with_prompts(task, chat, score, rows)
        work.scores[task.name], work.samples[task.name] = found

    def _answer(self, task: Task, journals: list[tuple[_Work, Journal]]) -> float:
        """Ask the engine what no journal holds, each batch into its journal at once; return the seconds a subject."""
        started, short = time.monotonic(), task.name.removeprefix(catalog.PREFIX)
        asked: list[tuple[Path | None, Any]] = []
        homes: list[tuple[int, str]] = []  # number of the subject and digest of each request
        lines = []
        for number, (work, journal) in enumerate(journals):
            requests = self.requests.every(task.name, work.card.subject.chat)
            left = requests.keys() - journal.answers.keys()
            if task.name in self.engine.best:  # bounds hold beside the best of the same race: a torn one is run anew
                torn = {requests[name].doc_id for name in left}
                left = {name for name, instance in requests.items() if instance.doc_id in torn}
            lines.append(self.bar.add_task(f"{work.card.subject.name}: {short}", total=len(requests), note=""))
            self.bar.advance(lines[-1], len(requests) - len(left))
            asked += [(work.candidate.beside, instance) for name, instance in requests.items() if name in left]
            homes += [(number, name) for name in requests if name in left]

        def done(part: Mapping[int, Any]) -> None:
            by_run: dict[int, dict[str, Any]] = {}
            for at, answer in part.items():
                by_run.setdefault(homes[at][0], {})[homes[at][1]] = answer
            for number, own in by_run.items():
                journals[number][1].keep(own)
                self.bar.advance(lines[number], len(own))

        for part in self.looks.parts(task, [instance for _, instance in asked]):
            chosen = [asked[at] for at in part]

            def deliver(found: Mapping[int, Any], part: list[int] = part) -> None:
                done({part[at]: answer for at, answer in found.items()})

            if self.engine.mixes:
                self.engine.answer_all(chosen, deliver)
            else:
                self.engine.answer([instance for _, instance in chosen], deliver)
            if len(part) < len(asked) or self.settings.look:
                for work, journal in journals:
                    self.looks.first(task, *self._heard(work, task, journal))
        for line in lines:
            self.bar.remove_task(line)
        return (time.monotonic() - started) / len(journals)

    def _heard(self, work: _Work, task: Task, journal: Journal) -> tuple[Any, ...]:
        requests = self.requests.own(task.name, work.card.subject.chat)
        return work.card.run_key, work.candidate, requests, journal, self.engine

    def _device(self) -> str:
        """What arithmetic the answers come from: dtype and kind of device."""
        if self.settings.engine in (*options.ENDPOINTS, "dummy"):
            return "none" if self.settings.engine == "dummy" else "unknown"
        import torch

        dtype = bases.compute_dtype(dict[str, Any](self.settings.arguments).get("dtype", "auto"))
        return f"{str(dtype).removeprefix('torch.')} on {'cuda' if torch.cuda.is_available() else 'cpu'}"

    def _blank(self, candidate: Candidate) -> Scorecard:
        """The card of a subject before it has a score, with its run key."""
        subject, settings = candidate.subject, self.settings
        unseen = settings.engine in (*options.ENDPOINTS, "dummy")
        stated = dict[str, Any](settings.arguments)
        arguments = {name: value for name, value in stated.items() if name not in options.NOT_ON_CARDS}
        # another choice of rows is another run, and never takes an earlier card's place
        arguments |= {f"metadata.{k.removeprefix(catalog.PREFIX)}": v for k, v in settings.metadata.items()}
        template = template_digest(candidate.base.folder) if subject.chat and candidate.base and not unseen else None
        card = Scorecard(
            status="partial",
            origin="finbench",
            subject=subject,
            scores=[],
            engine=settings.engine,
            dtype=self.device.partition(" ")[0],
            form="none" if unseen else _FORMS[subject.kind],
            shots=settings.shots,
            limit=settings.limit,
            seed=settings.seed,
            arguments=arguments,
            generation=self.generation,
            computed=self.device,
            chat_template=template,
            run_key="",
            samples=None,
            peak_memory_bytes=0,
            seconds=0,
            provenance=environment.provenance(settings.engine),
        )
        return card.model_copy(update={"run_key": cardfiles.run_key(card)})

    def _earlier(self, path: Path) -> tuple[dict[str, Score], dict[str, list[dict[str, Any]]]]:
        """Scores of this very run that an earlier command has written, for the tasks of this one."""
        if not path.exists():
            return {}, {}
        card = cardfiles.read(path)
        try:
            rows = cardfiles.rows_by_task(path, card)
        except FinbenchError as fault:  # killed between the writing of the two files
            say(f"{fault.message} Scoring again.")
            return {}, {}
        kept = {}
        for score in card.scores:
            task = catalog.tasks().get(score.task)
            same_task = task is not None and task.digest == score.task_digest
            data, examples = self.asked.get(score.task, (score.data, score.fewshot_digest))
            same_rows = (data.digest, examples) == (score.data.digest, score.fewshot_digest)
            if same_task and same_rows and score.task in self.lm_tasks and self.requests.holds(score):
                kept[score.task] = score
        return kept, {name: rows.get(name, []) for name in kept}

    def _write(self, work: _Work, seconds: float) -> None:
        done = all(name in work.scores for name in self.lm_tasks) and self.settings.limit is None
        card = work.card.model_copy(
            update={
                "status": status(work.scores.values(), done),
                "scores": list(work.scores.values()),
                "form": work.form if work.card.subject.kind == "peft" else work.card.form,
                "peak_memory_bytes": self.engine.memory(),
                "seconds": round(seconds, 2),
                "provenance": environment.provenance(self.settings.engine),
            }
        )
        cardfiles.store(self.out, card, work.samples)
