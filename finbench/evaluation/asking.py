"""One sentence to an adapter and its base, side by side: what each would answer, and how probable each label is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta

from finbench.core import catalog
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.records import Task
from finbench.core.settings import Evaluation
from finbench.evaluation.subjects import by_engine, candidates, start_engine
from finbench.scoring import prompts, task_of_examples

_KNOWN = {"text", "choices"}  # columns that a question may show: the text, and the labels of the task


@dataclass(frozen=True)
class SubjectReply:
    """What a subject answers. ``probabilities``: of the labels, normalised over them; ``mass``: what they have of all.

    Both are None for a task without a fixed set of labels.
    """

    name: str
    kind: str
    answer: str
    probabilities: dict[str, float] | None
    mass: float | None

    @property
    def likeliest(self) -> str | None:
        """The most probable label."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


class Asker:
    """An adapter and its base, or a model alone, in memory, asked by one task; one question takes a moment.

    ``task`` defaults to the only one of the adapter's recipe. Raises FinbenchError for a reference, a base or a task
    that is not known, and for a task whose questions are more than a text.
    """

    def __init__(self, adapter: str, task: str | None = None, *, base: str | None = None) -> None:
        quiet()
        wanted = Evaluation(adapter=adapter, base=base, engine="hf")
        named = _with_question(_one(task)) if task else None  # before a base is fetched
        found, learnt = candidates(wanted)
        self.task, self.lm_task = named or _with_question(_learnt(learnt))
        golds = {row.get("label") for row in prompts.rows(self.lm_task, "test")[:100]}
        labels = self.task.labels or []
        self.labels = labels if golds <= set(labels) else []  # of entities they are types, and no answers
        self.engines = [(start_engine(group, wanted, {}), group) for group in by_engine(found)]

    def ask(self, text: str) -> list[SubjectReply]:
        """The replies to a text, the base's first. FinbenchError for an empty text, and one that does not fit."""
        asked = _text(text)
        return [self._reply(engine, candidate, asked) for engine, group in self.engines for candidate in group]

    @property
    def names(self) -> list[str]:
        """Of the subjects, in the order of their replies."""
        return [candidate.subject.name for _, group in self.engines for candidate in group]

    def close(self) -> None:
        """Let go of the models."""
        for engine, _ in self.engines:
            engine.close()

    def _reply(self, engine: Any, candidate: Any, text: str) -> SubjectReply:
        engine.use(candidate.beside)
        subject, labels = candidate.subject, self.labels
        template = engine.chat_template() if subject.chat else None
        doc = {**prompts.rows(self.lm_task, "test")[0], "text": text}
        prompt = str(prompts.prompt(self.lm_task, doc, template))
        between = "" if template else self.lm_task.config.target_delimiter
        asked = [_request("generate_until", self.task, 0, (prompt, self._how()), doc)]
        for number, label in enumerate(labels):
            asked.append(_request("loglikelihood", self.task, number, (prompt, f"{between}{label}"), doc))
        most = max(needed for _, needed in map(engine.prompt_tokens, asked))
        if most > engine.max_length:
            raise FinbenchError(
                f"With its question the text has {most:,} tokens, and {subject.name} reads {engine.max_length:,}.",
                "Ask a shorter one.",
            )
        answer = str(engine.answer(asked[:1], lambda _: None)[0]).strip()
        if not labels:
            return SubjectReply(subject.name, subject.kind, answer, None, None)
        likely = [math.exp(value) for value, _ in engine.answer(asked[1:], lambda _: None)]
        whole = sum(likely)
        shares = {label: part / whole if whole else 1 / len(labels) for label, part in zip(labels, likely, strict=True)}
        return SubjectReply(subject.name, subject.kind, answer, shares, whole)

    def _how(self) -> dict[str, Any]:
        stated = dict(self.lm_task.config.generation_kwargs or {})
        return {"until": ["\n"], "max_gen_toks": 16, **stated}


def ask(adapter: str, text: str, *, task: str | None = None, base: str | None = None) -> list[SubjectReply]:
    """What ``adapter`` and its base answer to ``text``, asked as ``task`` asks; the base first."""
    _text(text)
    asker = Asker(adapter, task, base=base)
    try:
        return asker.ask(text)
    finally:
        asker.close()


def _text(text: str) -> str:
    """On one line; FinbenchError where nothing is left."""
    found = " ".join(text.split())
    if not found:
        raise FinbenchError("There is nothing to ask: the text is empty.", 'finbench ask ADAPTER "Sales rose."')
    return found


def _one(name: str) -> Task:
    found = catalog.expand([name])
    if len(found) != 1:
        members = ", ".join(task.name.removeprefix(catalog.PREFIX) for task in found[:6])
        raise FinbenchError(f"{name} is a group of {len(found)} tasks.", f"One of them: --task {members}")
    return found[0]


def _learnt(names: Sequence[str]) -> Task:
    if not names:
        raise FinbenchError("As which task should it be asked? The adapter names none.", "Add --task fpb")
    return _one(names[0])


def _with_question(task: Task) -> tuple[Task, Any]:
    """A task that asks about a text alone, as lm-eval builds it; FinbenchError for one that asks about more."""
    lm_task = task_of_examples(task) if task.examples else prompts.load([task], None)[task.name]
    question = lm_task.config.doc_to_text
    columns = {key for row in prompts.rows(lm_task, "test")[:1] for key in row}
    if isinstance(question, str):
        columns &= meta.find_undeclared_variables(jinja2.Environment(autoescape=False).parse(question))
    more = sorted(columns - (_KNOWN if task.labels else {"text"}))
    if more or lm_task.multiple_input or "text" not in columns:
        short, what = task.name.removeprefix(catalog.PREFIX), ", ".join(more) or "its choices"
        raise FinbenchError(
            f"{short} asks about more than a text: {what}.", "Name a task that asks about a text, such as --task fpb"
        )
    return task, lm_task


def _request(kind: str, task: Task, number: int, arguments: tuple[Any, ...], doc: dict[str, Any]) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc=doc, arguments=arguments, idx=number, metadata=(task.name, 0, 1))
