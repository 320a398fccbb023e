"""Subject x Tasks -> Scorecard: a base and any number of its adapters in one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from finbench.cards import cardfiles, write_reports
from finbench.core import catalog, environment
from finbench.core.console import progress, quiet, say
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Score, Scorecard, Task
from finbench.core.settings import Evaluation, Settings, called_with
from finbench.evaluation import preflight
from finbench.evaluation.journal import Journal, request_digests
from finbench.evaluation.subjects import Candidate, at_endpoint, by_engine, candidates, start_engine
from finbench.models import bases, template_digest
from finbench.scoring import (
    baselines,
    clusters_of,
    metrics,
    overlap_with_training,
    prompts,
    sample_counts,
    sample_rows,
    split_metrics,
)

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
    quiet()
    parsed = preflight.arguments(wanted.engine, wanted.arguments)
    if wanted.engine == "server":
        if wanted.adapters or wanted.base:
            raise FinbenchError("An endpoint's models are named by --model.", "Leave --adapter and --base out.")
        found, defaults = at_endpoint(wanted.model, parsed["url"], bool(wanted.chat)), list[str]()
    else:
        found, defaults = candidates(wanted)
    names = wanted.named or defaults
    if not names:
        raise FinbenchError(
            "Which tasks? None is named, and no adapter's recipe names any.",
            "Add --tasks fpb, or see: finbench tasks list",
        )
    lm_tasks = prompts.load(catalog.expand(names), wanted.data_dir, wanted.shots, wanted.seed, wanted.metadata)
    written: list[Path] = []
    with cardfiles.lock(wanted.out):
        pass  # a folder that cannot be written is refused before a model is loaded, or merged for vLLM
    engine, found = preflight.choose(wanted.engine, found, parsed)
    wanted = replace(wanted, engine=engine, arguments=parsed)
    with progress() as bar:
        engine_runs = [_EngineRun(group, lm_tasks, wanted, bar) for group in by_engine(found)]
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
    return [cardfiles.read(path) for path in dict.fromkeys(written)]


def _stated(settings: Settings) -> dict[str, Any]:
    """Arguments for the card. Another choice of rows is another run, and never takes an earlier card's place."""
    chosen = {f"metadata.{name.removeprefix(catalog.PREFIX)}": value for name, value in settings.metadata.items()}
    kept = {name: value for name, value in settings.arguments.items() if name not in preflight.NOT_ON_CARDS}
    return {**kept, **chosen}


# ---------------------------------------------------------------- the run


@dataclass(frozen=True)
class _Work:
    """A subject's card in the making: what an earlier command has scored, and which tasks are missing."""

    candidate: Candidate
    card: Scorecard
    scores: dict[str, Score]
    samples: dict[str, list[dict[str, Any]]]
    missing: list[Task]


@dataclass(frozen=True)
class _TaskRun:
    """A subject at one task: its journal, the digests of its requests, and what is answered so far, by digest."""

    work: _Work
    form: Form
    journal: Journal
    names: list[str]
    answers: dict[str, Any]


class _EngineRun:
    """One engine, its subjects, all tasks."""

    def __init__(self, group: list[Candidate], lm_tasks: dict[str, Any], settings: Evaluation, bar: Any) -> None:
        self.group, self.lm_tasks, self.settings, self.out, self.bar = group, lm_tasks, settings, settings.out, bar
        self.engine: Any = None
        self.requests: dict[tuple[str, bool], tuple[list[Any], int, int]] = {}  # instances, prompt tokens, cut
        self.device = self._device()
        self.data = {
            name: prompts.data_id(
                catalog.tasks()[name], lm_task, "test", prompts.rows(lm_task, "test")[: settings.limit]
            )
            for name, lm_task in lm_tasks.items()
        }
        self.examples = {
            name: prompts.data_id(
                catalog.tasks()[name], lm_task, "train", prompts.rows(lm_task, str(lm_task.config.fewshot_split))
            ).digest
            for name, lm_task in lm_tasks.items()
            if settings.shots
        }
        self.works = [self._work(candidate) for candidate in group]

    def prepare(self) -> None:
        """Load each subject that has something to be scored, and render and measure its prompts."""
        for work in self.works:
            if work.missing:
                self._use(work.candidate)
                self._requests(work.candidate.subject.chat, work.missing)

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
        return _Work(candidate, card, scores, samples, missing)

    def _score_together(self, works: list[_Work]) -> None:
        """Evaluate subjects together, task by task; all of them in the engine."""
        started = time.monotonic()
        forms: dict[str, Form] = {}
        for work in works:
            self._use(work.candidate)
            forms[work.card.run_key] = "merged" if work.candidate.merged else self.engine.form
        for name in self.lm_tasks:
            task = catalog.tasks()[name]
            with contextlib.ExitStack() as held:
                task_runs = []
                # other processes may be at the same: all take their journals in one order
                for work in sorted((one for one in works if task in one.missing), key=lambda one: one.card.run_key):
                    key, what = self._key(work, task, forms[work.card.run_key]), work.card.subject.name
                    journal = held.enter_context(Journal(self.out, key, f"{what} on {name}"))
                    if not (journal.waited and self._scored_meanwhile(work, task)):
                        names = request_digests(self.requests[name, work.card.subject.chat][0])
                        task_runs.append(
                            _TaskRun(work, forms[work.card.run_key], journal, names, dict(journal.answers))
                        )
                try:
                    seconds = self._answer(task, task_runs) if task_runs else 0.0
                except KeyboardInterrupt as stop:
                    raise self._interrupted(works) from stop
                for task_run in task_runs:
                    work = task_run.work
                    work.scores[name], work.samples[name] = self._score(task, task_run, seconds)
                    self._write(work, task_run.form, time.monotonic() - started)
                    task_run.journal.finish()

    def _interrupted(self, works: list[_Work]) -> Interrupted:
        done = [f"{len(work.scores)} of {len(self.lm_tasks)} tasks of {work.card.subject.name}" for work in works]
        kept = f"{', '.join(done)} are in {self.out}" if any(work.scores for work in works) else "nothing was finished"
        return Interrupted(f"Stopped; {kept}.", "Repeat the command: what was answered is not asked again.")

    def _key(self, work: _Work, task: Task, form: Form) -> dict[str, Any]:
        """All that decides the answers of a subject on a task."""
        card = work.card
        return {
            "base": card.subject.base.fingerprint,
            "adapter": card.subject.adapter,
            "form": form,
            "engine": card.engine,
            "computed": card.computed,
            "template": card.chat_template,
            "run": card.run_key,
            "task": [task.name, task.digest],
            "data": [self.data[task.name].digest, self.examples.get(task.name)],
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
            self.engine = start_engine(self.group, self.settings, self.lm_tasks)
        self.engine.use(candidate.beside)

    def _requests(self, chat: bool, tasks: list[Task]) -> None:
        """Render the requests of ``tasks`` once for each prompt style, and refuse prompts that do not fit."""
        template = self.engine.chat_template() if chat else None
        faults = []
        for task in tasks:
            if (task.name, chat) in self.requests:
                continue
            instances = prompts.requests(self.lm_tasks[task.name], self.settings.limit, template)
            sizes = [self.engine.prompt_tokens(instance) for instance in instances]
            over = [needed for _, needed in sizes if needed > self.engine.max_length]
            by_document = {instance.doc_id: prompt for instance, (prompt, _) in zip(instances, sizes, strict=True)}
            self.requests[task.name, chat] = (instances, sum(by_document.values()), len(over))
            if over and self.settings.arguments.get("truncate") != "left":
                faults.append(f"{task.name}: {len(over)} of {len(instances)} prompts need up to {max(over)} tokens")
        if faults:
            raise FinbenchError(
                f"The model's context has {self.engine.max_length} tokens. " + "; ".join(faults) + ".",
                "Cut them on the left, which the scorecard will show: --arg truncate=left",
            )

    def _score(self, task: Task, task_run: _TaskRun, seconds: float) -> tuple[Score, list[dict[str, Any]]]:
        lm_task, candidate = self.lm_tasks[task.name], task_run.work.candidate
        instances, prompt_tokens, cut = self.requests[task.name, candidate.subject.chat]
        for instance, name in zip(instances, task_run.names, strict=True):
            instance.resps = [task_run.answers[name]]
        rows, values = sample_rows(lm_task, instances, choice=task.form == "choice", restricted=task.restricted)
        strict, lenient, parse_rate = split_metrics(values, lm_task.aggregation(), clusters_of(rows))
        score = Score(
            task=task.name,
            version=task.version,
            task_digest=task.digest,
            family=task.family,
            form=task.form,
            main_metric=task.main_metric,
            data=self.data[task.name],
            licence=task.licence,
            **sample_counts(rows),
            overlap=overlap_with_training(candidate.contamination, task.set),
            metrics=strict,
            lenient=lenient,
            parse_rate=parse_rate,
            lower_is_better=metrics.lower_is_better(task.name),
            baselines=baselines(lm_task, prompts.rows(lm_task, "test")[: self.settings.limit]),
            truncated=cut,
            prompt_tokens=prompt_tokens,
            seconds=round(seconds, 2),
            prompt_style=task.prompt_style,
            fewshot_split=str(lm_task.config.fewshot_split) if self.settings.shots else None,
            fewshot_digest=self.examples.get(task.name),
        )
        return score, rows

    def _answer(self, task: Task, task_runs: list[_TaskRun]) -> float:
        """Ask the engine what no journal holds, each batch into its journal at once; return the seconds a subject."""
        started, short = time.monotonic(), task.name.removeprefix(catalog.PREFIX)
        asked: list[tuple[Path | None, Any]] = []
        homes: list[tuple[int, str]] = []  # task run and digest of each request
        lines = []
        for number, task_run in enumerate(task_runs):
            instances = self.requests[task.name, task_run.work.card.subject.chat][0]
            left = [pair for pair in zip(task_run.names, instances, strict=True) if pair[0] not in task_run.answers]
            if task.name in self.engine.best:  # bounds hold beside the best of the same race: a torn one is run anew
                torn = {instance.doc_id for _, instance in left}
                left = [pair for pair in zip(task_run.names, instances, strict=True) if pair[1].doc_id in torn]
            lines.append(
                self.bar.add_task(f"{task_run.work.card.subject.name}: {short}", total=len(instances), note="")
            )
            self.bar.advance(lines[-1], len(instances) - len(left))
            asked += [(task_run.work.candidate.beside, instance) for _, instance in left]
            homes += [(number, name) for name, _ in left]

        def done(part: Mapping[int, Any]) -> None:
            by_run: dict[int, dict[str, Any]] = {}
            for at, answer in part.items():
                by_run.setdefault(homes[at][0], {})[homes[at][1]] = answer
            for number, own in by_run.items():
                task_runs[number].journal.keep(own)
                task_runs[number].answers.update(own)
                self.bar.advance(lines[number], len(own))

        if asked and self.engine.mixes:
            self.engine.answer_all(asked, done)
        elif asked:
            self.engine.answer([instance for _, instance in asked], done)
        for line in lines:
            self.bar.remove_task(line)
        return (time.monotonic() - started) / len(task_runs)

    # ------------------------------------------------------------ the card

    def _device(self) -> str:
        """What arithmetic the answers come from: dtype and kind of device."""
        if self.settings.engine in ("dummy", "server"):
            return "none" if self.settings.engine == "dummy" else "unknown"
        import torch

        dtype = bases.compute_dtype(dict[str, Any](self.settings.arguments).get("dtype", "auto"))
        return f"{str(dtype).removeprefix('torch.')} on {'cuda' if torch.cuda.is_available() else 'cpu'}"

    def _blank(self, candidate: Candidate) -> Scorecard:
        """The card of a subject before it has a score, with its run key."""
        subject, settings = candidate.subject, self.settings
        unseen = settings.engine in ("dummy", "server")
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
            arguments=_stated(settings),
            computed=self.device,
            chat_template=template_digest(candidate.base.folder)
            if subject.chat and candidate.base and not unseen
            else None,
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
            same_data = score.task not in self.data or self.data[score.task].digest == score.data.digest
            if same_task and same_data and score.fewshot_digest == self.examples.get(score.task, score.fewshot_digest):
                kept[score.task] = score
        return kept, {name: rows.get(name, []) for name in kept}

    def _write(self, work: _Work, form: Form, seconds: float) -> None:
        done = all(name in work.scores for name in self.lm_tasks) and self.settings.limit is None
        card = work.card.model_copy(
            update={
                "status": "complete" if done else "partial",
                "scores": list(work.scores.values()),
                "form": form if work.card.subject.kind == "peft" else work.card.form,
                "peak_memory_bytes": self.engine.memory(),
                "seconds": round(seconds, 2),
                "provenance": environment.provenance(self.settings.engine),
            }
        )
        cardfiles.store(self.out, card, work.samples)
