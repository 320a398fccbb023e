"""Subject x Tasks -> Scorecard: a base and any number of its adapters in one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finbench import __version__, bases, cardfiles, cards, catalog, environment, modelfiles, prompts, scoring
from finbench.console import progress, quiet, say
from finbench.errors import FinbenchError, Interrupted, unknown
from finbench.files import digest, write_atomic
from finbench.records import Bits, Score, Scorecard, Subject, Task
from finbench.subjects import Examinee, by_engine, examinees

ENGINES = ("auto", "hf", "dummy")
ARGUMENTS = {"dtype": str, "batch_size": int, "answers": str, "truncate": str}
_FORMS: dict[str, Literal["base", "unmerged", "merged"]] = {"base": "base", "peft": "unmerged", "model": "merged"}
_SALT = "finbench-v1:"


@dataclass(frozen=True)
class Settings:
    """All that decides an answer, except subject, task and data."""

    engine: str
    shots: int
    limit: int | None
    seed: int
    arguments: dict[str, Any]


def evaluate(
    adapter: Sequence[str] = (),
    *,
    model: str | None = None,
    base: str | None = None,
    tasks: Sequence[str] = (),
    engine: str = "auto",
    bits: Bits | None = None,
    chat: bool | None = None,
    shots: int = 0,
    limit: int | None = None,
    seed: int = 0,
    out: Path = Path("scorecards"),
    data_dir: Path | None = None,
    arguments: dict[str, str] | None = None,
) -> list[Scorecard]:
    """Score adapters beside their base, or a base alone; return their scorecards, bases first.

    Each is written to ``out`` as ``<subject>.json`` with its samples; ``report.md`` and ``report.html`` there show
    every card of the folder, those of earlier runs too.

    ``bits`` and ``chat`` default to what each adapter was trained with, ``tasks`` to those of the recipes. The
    base is always scored beside its adapters. What the folder ``out`` already holds under the same run key,
    task digest and data digest is not scored again.

    Raises FinbenchError before anything is scored for a fault of a reference, an adapter, a base, a task or its
    data, and for a prompt that does not fit (unless ``truncate=left`` is among ``arguments``); Interrupted
    after Ctrl-C, with every finished task kept.
    """
    quiet()
    settings = Settings(_engine_name(engine), shots, limit, seed, _arguments(arguments or {}))
    if (limit is not None and limit < 1) or shots < 0:
        raise FinbenchError(f"--limit must be at least 1 and --shots at least 0, got {limit} and {shots}.")
    found, defaults = examinees(adapter, model, base, bits, chat, settings.engine)
    names = list(tasks) or defaults
    if not names:
        raise FinbenchError(
            "Which tasks? None is named, and no adapter's recipe names any.",
            "Add --tasks fpb, or see: finbench tasks list",
        )
    exams = prompts.load(catalog.expand(names), data_dir, shots, seed)
    written: list[Path] = []
    with environment.owner(out), progress() as bar:
        sittings = [_Sitting(group, exams, settings, out, bar) for group in by_engine(found)]
        for sitting in sittings:  # every subject is loaded and checked before one is scored
            sitting.prepare()
            if len(sittings) > 1:
                sitting.release()
        for sitting in sittings:
            written += sitting.run()
            sitting.release()
        cards_written = [cardfiles.read(path) for path in dict.fromkeys(written)]
        everything = cardfiles.folder(out)
        write_atomic(out / "report.md", cards.markdown(everything))
        write_atomic(out / "report.html", cards.html(everything))
    return cards_written


def _engine_name(engine: str) -> str:
    if engine not in ENGINES:
        raise FinbenchError(f"No engine is called {engine!r}.", f"Engines: {', '.join(ENGINES)}")
    return "hf" if engine == "auto" else engine


def _arguments(stated: dict[str, str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for key, value in stated.items():
        if key not in ARGUMENTS:
            raise unknown("engine argument", key, ARGUMENTS, "finbench eval --help")
        try:
            parsed[key] = ARGUMENTS[key](value)
        except ValueError as fault:
            raise FinbenchError(f"--arg {key} must be a whole number, got {value!r}.") from fault
    if parsed.get("truncate", "left") != "left":
        raise FinbenchError("--arg truncate can only be left.")
    if parsed.get("dtype", "auto") not in ("auto", "float32", "bfloat16", "float16"):
        raise FinbenchError(f"Unknown dtype {parsed['dtype']!r}.", "One of: auto, float32, bfloat16, float16")
    return parsed


# ---------------------------------------------------------------- the sitting


@dataclass(frozen=True)
class _Work:
    """A subject's card in the making: what an earlier command has scored, and which tasks are missing."""

    examinee: Examinee
    key: str
    path: Path
    scores: dict[str, Score]
    samples: dict[str, list[dict[str, Any]]]
    missing: list[Task]


class _Sitting:
    """One engine, its subjects, all tasks."""

    def __init__(self, group: list[Examinee], exams: dict[str, Any], settings: Settings, out: Path, bar: Any) -> None:
        self.group, self.exams, self.settings, self.out, self.bar = group, exams, settings, out, bar
        self.engine: Any = None
        self.requests: dict[tuple[str, bool], tuple[list[Any], int, int]] = {}  # instances, prompt tokens, cut
        self.device = self._device()
        self.data = {
            name: prompts.data_id(catalog.tasks()[name], exam, "test", prompts.rows(exam, "test")[: settings.limit])
            for name, exam in exams.items()
        }
        self.works = [self._work(examinee) for examinee in group]

    def prepare(self) -> None:
        """Load each subject that has something to be scored, and render and measure its prompts."""
        for work in self.works:
            if work.missing:
                self._use(work.examinee)
                self._requests(work.examinee.subject.chat, work.missing)

    def run(self) -> list[Path]:
        """Examine every subject; return the cards' paths."""
        for work in self.works:
            if work.missing:
                self._examine(work)
        return [work.path for work in self.works]

    def release(self) -> None:
        """Let go of the model; it is loaded again when needed."""
        self.engine = None

    def _work(self, examinee: Examinee) -> _Work:
        subject = examinee.subject
        key = self._run_key(examinee)
        path = cardfiles.place_for(self.out, subject.name, key)
        scores, samples = self._earlier(path)
        missing = [catalog.tasks()[name] for name in self.exams if name not in scores]
        if not missing:
            say(f"{subject.name}: scored before, taken from {path}")
        return _Work(examinee, key, path, scores, samples, missing)

    def _examine(self, work: _Work) -> None:
        subject, started = work.examinee.subject, time.monotonic()
        self._use(work.examinee)
        for task in work.missing:
            try:
                score, rows = self._score(task, *self.requests[task.name, subject.chat], subject)
            except KeyboardInterrupt as stop:
                done = f"{len(work.scores)} of {len(self.exams)} tasks of {subject.name} are in {work.path}"
                raise Interrupted(
                    f"Stopped; {done if work.scores else 'nothing was finished'}.",
                    "Repeat the command: what is finished is not scored again.",
                ) from stop
            work.scores[task.name], work.samples[task.name] = score, rows
            self._write(work, time.monotonic() - started)

    def _use(self, examinee: Examinee) -> None:
        """Switch the engine to a subject; it is started at the first one that needs it."""
        arguments = self.settings.arguments
        if self.engine is None:
            if self.settings.engine == "dummy":
                from finbench.engines.dummy import DummyEngine

                self.engine = DummyEngine(arguments.get("answers", "random"), self.settings.seed)
                self.engine.exams = self.exams
            else:
                from finbench.engines.hf import HFEngine

                assert examinee.base is not None
                base = examinee.base
                if examinee.subject.kind == "model" and examinee.adapter is not None:
                    base = bases.Base(base.id, examinee.adapter)
                chosen = {key: arguments[key] for key in ("dtype", "batch_size") if key in arguments}
                self.engine = HFEngine(base, examinee.subject.bits, **chosen)
        self.engine.use(examinee.adapter if examinee.subject.kind == "peft" else None)

    def _requests(self, chat: bool, tasks: list[Task]) -> None:
        """Render the requests of ``tasks`` once for each prompt style, and refuse prompts that do not fit."""
        template = self.engine.chat_template() if chat else None
        faults = []
        for task in tasks:
            if (task.name, chat) in self.requests:
                continue
            instances = prompts.requests(self.exams[task.name], self.settings.limit, template)
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

    def _score(
        self, task: Task, instances: list[Any], prompt_tokens: int, cut: int, subject: Subject
    ) -> tuple[Score, list[dict[str, Any]]]:
        exam, started = self.exams[task.name], time.monotonic()
        line = self.bar.add_task(
            f"{subject.name}: {task.name.removeprefix(catalog.PREFIX)}", total=len(instances), note=""
        )
        answers = self.engine.answer(instances, lambda count: self.bar.advance(line, count))
        seconds = time.monotonic() - started
        self.bar.remove_task(line)
        for instance, answer in zip(instances, answers, strict=True):
            instance.resps = [answer]
        exam._instances = instances  # where lm-eval's filters look for them
        exam.apply_filters()
        values, rows = self._values(task, exam, instances)
        strict, lenient, parse_rate = scoring.split_metrics(values, exam.aggregation())
        docs = list(dict.fromkeys(instance.doc_id for instance in instances))
        score = Score(
            task=task.name,
            version=task.version,
            task_digest=task.digest,
            family=task.family,
            form=task.form,
            main_metric=task.main_metric,
            data=self.data[task.name],
            licence=task.licence,
            n=len(docs),
            metrics=strict,
            lenient=lenient,
            parse_rate=parse_rate,
            baselines=scoring.baselines(exam, prompts.rows(exam, "test")[: self.settings.limit]),
            truncated=cut,
            prompt_tokens=prompt_tokens,
            seconds=round(seconds, 2),
        )
        return score, rows

    def _values(self, task: Task, exam: Any, instances: list[Any]) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
        """Per-document values by metric, and the sample rows: hashes, values and, where allowed, the answer."""
        by_document: dict[int, list[Any]] = {}
        for instance in instances:
            by_document.setdefault(instance.doc_id, []).append(instance)
        values: dict[str, list[Any]] = {}
        rows = []
        for index, group in sorted(by_document.items()):
            group.sort(key=lambda instance: instance.idx)
            key = next(iter(group[0].filtered_resps))
            found = exam.process_results(group[0].doc, [instance.filtered_resps[key] for instance in group])
            for metric, value in found.items():
                values.setdefault(metric, []).append(value)
            answer = (
                group[0].resps[0] if task.form == "generate" else [round(instance.resps[0][0], 6) for instance in group]
            )
            row = {"task": task.name, "index": index, "doc": _salted(exam.doc_to_text(group[0].doc)), "values": found}
            if task.form == "choice" or not task.restricted:
                row["answer"] = answer
            else:  # a model may repeat its prompt, whose text may not be published
                row["answer_sha256"] = _salted(answer)
            rows.append(row)
        return values, rows

    # ------------------------------------------------------------ the card

    def _device(self) -> str:
        """What arithmetic the answers come from: dtype and kind of device."""
        if self.settings.engine == "dummy":
            return "none"
        import torch

        dtype = bases.compute_dtype(self.settings.arguments.get("dtype", "auto"))
        return f"{dtype} on {'cuda' if torch.cuda.is_available() else 'cpu'}"

    def _run_key(self, examinee: Examinee) -> str:
        """Digest of all that decides an answer except task and data."""
        subject, settings = examinee.subject, self.settings
        how = {
            "engine": settings.engine,
            "shots": settings.shots,
            "limit": settings.limit,
            "seed": settings.seed,
            "arguments": settings.arguments,
            "computed": self.device,
            "template": modelfiles.template_digest(examinee.base.folder) if subject.chat and examinee.base else None,
            "examples": {
                name: prompts.data_id(catalog.tasks()[name], exam, "train", prompts.rows(exam, "train")).digest
                for name, exam in self.exams.items()
            }
            if settings.shots
            else None,
        }
        who = subject.model_dump(exclude={"name", "adapter_name"})
        return digest({"subject": who, "settings": how, "versions": environment.versions(), "finbench": __version__})

    def _earlier(self, path: Path) -> tuple[dict[str, Score], dict[str, list[dict[str, Any]]]]:
        """Scores of this very run that an earlier command has written, for the tasks of this one."""
        if not path.exists():
            return {}, {}
        card = cardfiles.read(path)
        try:
            rows = cardfiles.read_samples(path)
        except FinbenchError as fault:  # killed between the writing of the two files
            say(f"{fault.message} Scoring again.")
            return {}, {}
        kept = {}
        for score in card.scores:
            task = catalog.tasks().get(score.task)
            same_task = task is not None and task.digest == score.task_digest
            if same_task and (score.task not in self.data or self.data[score.task] == score.data):
                kept[score.task] = score
        samples: dict[str, list[dict[str, Any]]] = {name: [] for name in kept}
        for row in rows:
            if row["task"] in kept:
                samples[row["task"]].append(row)
        return kept, samples

    def _write(self, work: _Work, seconds: float) -> None:
        subject, engine, scores = work.examinee.subject, self.engine, work.scores
        done = all(name in scores for name in self.exams) and self.settings.limit is None
        card = Scorecard(
            status="complete" if done else "partial",
            subject=subject,
            scores=[scores[name] for name in sorted(scores)],
            engine=engine.name,
            dtype=engine.dtype,
            form="none" if engine.name == "dummy" else _FORMS[subject.kind],
            shots=self.settings.shots,
            limit=self.settings.limit,
            seed=self.settings.seed,
            run_key=work.key,
            samples=None,
            peak_memory_bytes=environment.peak_memory(),
            seconds=round(seconds, 2),
            provenance=environment.provenance(),
        )
        cardfiles.write(work.path, card, [row for name in sorted(work.samples) for row in work.samples[name]])


def _salted(text: Any) -> str:
    """128 bits of salted SHA-256: tells texts apart, and confirms one that is known, without giving it away."""
    return hashlib.sha256((_SALT + str(text)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
