"""Subject x Tasks -> Scorecard: a base and any number of its adapters in one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench import __version__, adapters, bases, cardfiles, cards, catalog, environment, prompts, scoring
from finbench.adapters import AdapterFolder
from finbench.console import progress, quiet, say
from finbench.errors import FinbenchError, Interrupted, unknown
from finbench.files import digest, write_atomic
from finbench.records import BaseModelId, Bits, Score, Scorecard, Subject, Task

ENGINES = ("auto", "hf", "dummy")
ARGUMENTS = {"dtype": str, "batch_size": int, "answers": str, "truncate": str}
_SALT = "finbench-v1:"


@dataclass(frozen=True)
class Settings:
    """All that decides an answer, except subject, task and data."""

    engine: str
    shots: int
    limit: int | None
    seed: int
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Examinee:
    """A subject and how to load it."""

    subject: Subject
    base: bases.Base | None
    adapter: Path | None


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

    Each is written to ``out`` as ``<subject>.json`` with its samples, all together as ``report.md`` and
    ``report.html``.

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
    examinees, defaults = _examinees(adapter, model, base, bits, chat, settings.engine)
    names = list(tasks) or defaults
    if not names:
        raise FinbenchError(
            "Which tasks? None is named, and no adapter's recipe names any.",
            "Add --tasks fpb, or see: finbench tasks list",
        )
    exams = prompts.load(catalog.expand(names), data_dir, shots, seed)
    written: list[Path] = []
    with environment.owner(out), progress() as bar:
        for group in _by_engine(examinees):
            sitting = _Sitting(group, exams, settings, out, bar)
            written += sitting.run()
        found = [cardfiles.read(path) for path in dict.fromkeys(written)]
        write_atomic(out / "report.md", cards.markdown(found))
        write_atomic(out / "report.html", cards.html(found))
    return found


# ---------------------------------------------------------------- who


def _engine_name(engine: str) -> str:
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES, "finbench eval --help")
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


def _examinees(
    references: Sequence[str], model: str | None, base: str | None, bits: Bits | None, chat: bool | None, engine: str
) -> tuple[list[Examinee], list[str]]:
    """Every subject, the bases first, and the tasks of the adapters' recipes. Faults are reported together."""
    found: list[Examinee] = []
    tasks: list[str] = []
    faults: list[FinbenchError] = []
    dummy = (
        bases.Base(BaseModelId(alias="dummy", source="folder", fingerprint="dummy"), Path())
        if engine == "dummy"
        else None
    )
    for text in references:
        try:
            adapter = adapters.read(adapters.locate(text))
            on = dummy or adapters.base_of(adapter, base)
            examinee = _adapter_subject(adapter, on, bits, chat)
            beside = _base_subject(on, examinee.subject.bits, examinee.subject.chat)
            found += [beside, examinee]
            tasks += list(adapter.record.recipe.tasks) if adapter.record else []
        except FinbenchError as fault:
            faults.append(fault)
    if faults:
        hint = next((fault.hint for fault in faults if fault.hint), "")
        raise FinbenchError("\n".join(fault.message for fault in faults), hint)
    named = [model] if model else [base or "smollm2-135m"] if not references else []
    if not references and not model and not base and engine != "dummy":
        raise FinbenchError(
            "Nothing to examine.", "Name an adapter (--adapter ./folder) or a base (--model smollm2-135m)."
        )
    for text in named:
        found.append(_base_subject(dummy or bases.resolve(text), bits or 16, bool(chat)))
    unique = {digest(examinee.subject.model_dump()): examinee for examinee in found}
    ordered = sorted(unique.values(), key=lambda examinee: examinee.subject.kind != "base")
    return _distinct_names(ordered), list(dict.fromkeys(tasks))


def _base_subject(base: bases.Base, bits: Bits, chat: bool) -> Examinee:
    name = base.id.alias + (f"-{bits}bit" if bits != 16 else "") + ("-chat" if chat else "")
    return Examinee(Subject(name=name, base=base.id, bits=bits, chat=chat), base, None)


def _adapter_subject(adapter: AdapterFolder, base: bases.Base, bits: Bits | None, chat: bool | None) -> Examinee:
    recipe = adapter.record.recipe if adapter.record else None
    subject = Subject(
        name=adapter.name,
        base=base.id,
        adapter=adapter.sha256,
        adapter_name=adapter.name,
        method=recipe.method if recipe else str(adapter.config.get("peft_type", "unknown")).lower(),
        rank=recipe.rank if recipe else adapter.config.get("r"),
        trainable_parameters=adapter.record.training.trainable_parameters if adapter.record else None,
        seed=recipe.seed if recipe else None,
        bits=bits or (recipe.bits if recipe else 16),
        chat=chat if chat is not None else bool(recipe and recipe.chat),
        kind=adapter.kind,
    )
    return Examinee(subject, base, adapter.folder)


def _distinct_names(examinees: list[Examinee]) -> list[Examinee]:
    """Two adapters may have one name: the later one gets part of its hash."""
    taken: set[str] = set()
    result = []
    for examinee in examinees:
        name = examinee.subject.name
        if name in taken:
            name += "-" + (examinee.subject.adapter or examinee.subject.base.fingerprint)[:6]
        taken.add(name)
        result.append(replace(examinee, subject=examinee.subject.model_copy(update={"name": name})))
    return result


def _by_engine(examinees: list[Examinee]) -> list[list[Examinee]]:
    """Subjects that one engine can serve: the same base and bits; a whole model has an engine of its own."""
    groups: dict[tuple[Any, ...], list[Examinee]] = {}
    for examinee in examinees:
        subject = examinee.subject
        own = subject.adapter if subject.kind == "model" else None
        groups.setdefault((subject.base.fingerprint, subject.bits, own), []).append(examinee)
    return list(groups.values())


# ---------------------------------------------------------------- the sitting


class _Sitting:
    """One engine, its subjects, all tasks."""

    def __init__(self, group: list[Examinee], exams: dict[str, Any], settings: Settings, out: Path, bar: Any) -> None:
        self.group, self.exams, self.settings, self.out, self.bar = group, exams, settings, out, bar
        self.engine: Any = None
        self.data = {
            name: prompts.data_id(catalog.tasks()[name], exam, "test", prompts.rows(exam, "test")[: settings.limit])
            for name, exam in exams.items()
        }

    def run(self) -> list[Path]:
        """Examine every subject; return the cards' paths."""
        return [self._examine(examinee) for examinee in self.group]

    def _examine(self, examinee: Examinee) -> Path:
        subject, started = examinee.subject, time.monotonic()
        key = self._run_key(subject)
        path = cardfiles.place_for(self.out, subject.name, key)
        scores, samples = self._earlier(path)
        missing = [catalog.tasks()[name] for name in self.exams if name not in scores]
        if not missing:
            say(f"{subject.name}: scored before, taken from {path}")
            return path
        engine = self._engine(examinee)
        requests = {task.name: self._requests(task, subject) for task in missing}
        cut = self._check_lengths(requests)
        for task in missing:
            try:
                score, rows = self._score(task, requests[task.name], cut[task.name], subject)
            except KeyboardInterrupt as stop:
                kept = (
                    f"{len(scores)} of {len(self.exams)} tasks of {subject.name} are in {path}"
                    if scores
                    else "nothing was finished"
                )
                raise Interrupted(
                    f"Stopped; {kept}.", "Repeat the command: what is finished is not scored again."
                ) from stop
            scores[task.name], samples[task.name] = score, rows
            self._write(path, subject, key, engine, scores, samples, time.monotonic() - started)
        return path

    def _engine(self, examinee: Examinee) -> Any:
        """The engine, started at the first subject that needs it, switched to this one."""
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
        return self.engine

    def _requests(self, task: Task, subject: Subject) -> list[Any]:
        template = self.engine.chat_template() if subject.chat else None
        return prompts.requests(self.exams[task.name], self.settings.limit, template)

    def _check_lengths(self, requests: dict[str, list[Any]]) -> dict[str, tuple[int, int]]:
        """(prompt tokens, prompts cut) of each task; refuses a prompt that does not fit unless cutting is allowed."""
        found, faults = {}, []
        for name, instances in requests.items():
            counts = [self.engine.prompt_tokens(instance) for instance in instances]
            over = [needed for _, needed in counts if needed > self.engine.max_length]
            first = {
                instance.doc_id: tokens for instance, (tokens, _) in reversed(list(zip(instances, counts, strict=True)))
            }
            found[name] = (sum(first.values()), len(over))
            if over and self.settings.arguments.get("truncate") != "left":
                faults.append(f"{name}: {len(over)} of {len(instances)} prompts need up to {max(over)} tokens")
        if faults:
            raise FinbenchError(
                f"The model's context has {self.engine.max_length} tokens. " + "; ".join(faults) + ".",
                "Cut them on the left, which the scorecard will show: --arg truncate=left",
            )
        return found

    def _score(
        self, task: Task, instances: list[Any], cut: tuple[int, int], subject: Subject
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
            truncated=cut[1],
            prompt_tokens=cut[0],
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

    def _run_key(self, subject: Subject) -> str:
        who = subject.model_dump(exclude={"name", "adapter_name"})
        how = {
            "engine": self.settings.engine,
            "shots": self.settings.shots,
            "limit": self.settings.limit,
            "seed": self.settings.seed,
            "arguments": self.settings.arguments,
        }
        return digest({"subject": who, "settings": how, "versions": environment.versions(), "finbench": __version__})

    def _earlier(self, path: Path) -> tuple[dict[str, Score], dict[str, list[dict[str, Any]]]]:
        """Scores of this very run that an earlier command has written, for the tasks of this one."""
        if not path.exists():
            return {}, {}
        card, rows = cardfiles.read(path), cardfiles.read_samples(path)
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

    def _write(
        self,
        path: Path,
        subject: Subject,
        key: str,
        engine: Any,
        scores: dict[str, Score],
        samples: dict[str, list[dict[str, Any]]],
        seconds: float,
    ) -> None:
        done = all(name in scores for name in self.exams) and self.settings.limit is None
        card = Scorecard(
            status="complete" if done else "partial",
            subject=subject,
            scores=[scores[name] for name in sorted(scores)],
            engine=engine.name,
            dtype=engine.dtype,
            form="none" if engine.name == "dummy" else "unmerged" if subject.kind == "peft" else "base",
            shots=self.settings.shots,
            limit=self.settings.limit,
            seed=self.settings.seed,
            run_key=key,
            samples=None,
            peak_memory_bytes=environment.peak_memory(),
            seconds=round(seconds, 2),
            provenance=environment.provenance(),
        )
        cardfiles.write(path, card, [row for name in sorted(samples) for row in samples[name]])


def _salted(text: Any) -> str:
    """128 bits of salted SHA-256: tells texts apart, and confirms one that is known, without giving it away."""
    return hashlib.sha256((_SALT + str(text)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
