"""finbench's tasks for inspect-ai: ``inspect eval finbench/fpb --model hf/ORG/NAME``.

inspect loads this module by its entry point. Rows, prompts and scorers are those of the task's YAML, as lm-eval
builds them. inspect only generates: of tasks that rank by log-likelihoods and have no generated form there is one by
letters, whose metric is called so, for it is another measurement. ``docs/harnesses.md`` says what is the same.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import inspect_ai
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import Score, metric, scorer
from inspect_ai.solver import solver

from finbench.core import catalog, paths
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.core.records import Task
from finbench.core.version import __version__
from finbench.evaluation import inspectlogs
from finbench.scoring import prompts, sample_rows, value_of

try:  # what inspect shows without a trace; it has no public name
    from inspect_ai._util.error import PrerequisiteError
except ImportError:
    PrerequisiteError = RuntimeError

_ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
_RAW = "{{ messages[0]['content'] }}"  # a chat template that leaves a prompt as it is
_BY_LETTER: dict[str, Any] = {"until": ["\n"], "max_gen_toks": 12}
_ASK = "Answer with the letter of the right one."


@dataclass(frozen=True)
class Loaded:
    """A task with its test rows: what is asked about each (JSON of its turns in a chat), and how it is generated."""

    task: Task
    lm_task: Any
    asked: Sequence[str]
    docs: Sequence[dict[str, Any]]
    instances: Sequence[Any]  # none for a task by letters
    how: Mapping[str, Any]

    def values(self, at: int, answer: str) -> dict[str, Any]:
        """What the task's own scorer says about an answer to row ``at``, by metric."""
        for stop in filter(None, self.how["until"]):
            answer = answer.split(stop)[0]
        if not self.instances:
            return self._by_letter(self.docs[at], answer)
        self.instances[at].resps = [answer]
        _, values = sample_rows(self.lm_task, [self.instances[at]], choice=False, restricted=False)
        return {name: found for name, [found] in values.items()}

    def _by_letter(self, doc: dict[str, Any], answer: str) -> dict[str, float]:
        letters = list(ascii_uppercase[: len(self.lm_task.doc_to_choice(doc))])
        said = paths.helper("labels").parse(answer, letters)
        right = said is not None and letters.index(said) == prompts.gold_choice(self.lm_task, doc)
        return {"acc_letters": float(right), "parse_rate": float(said is not None)}


def _lettered(lm_task: Any, doc: dict[str, Any]) -> str:
    """The question with its choices by letter; where the question itself has the letters, as it is."""
    choices = [str(choice) for choice in lm_task.doc_to_choice(doc)]
    if lm_task.multiple_input:
        question, choices = "Which is right?", [f"{choice} {lm_task.doc_to_target(doc)}" for choice in choices]
    else:
        question = str(lm_task.doc_to_text(doc))
    if choices == list(ascii_uppercase[: len(choices)]):
        return question
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return f"{question}\n\n{listed}\n\n{_ASK}\nAnswer:"


@functools.cache
def load(name: str, chat: bool, shots: int, seed: int) -> Loaded:
    """A task as it is asked; FinbenchError where its rows cannot be had."""
    quiet()
    task = catalog.shipped_tasks()[name]
    by_letter = task.form == "choice"
    if by_letter and shots:
        raise FinbenchError(f"{name} has no worked examples where it is asked by letters.", "Leave out: -T shots=...")
    lm_task = prompts.load([task], None, shots, seed)[name]
    docs = prompts.rows(lm_task, "test")
    if not by_letter:
        instances = prompts.requests(lm_task, None, inspectlogs.turns if chat else None)
        return Loaded(task, lm_task, [one.args[0] for one in instances], docs, instances, instances[0].args[1])
    asked = [_lettered(lm_task, doc) for doc in docs]
    asked = [inspectlogs.turns([{"role": "user", "content": text}]) for text in asked] if chat else asked
    return Loaded(task, lm_task, asked, docs, [], _BY_LETTER)


def _sample(loaded: Loaded, at: int, chat: bool) -> Sample:
    asked: Any = loaded.asked[at]
    if chat:
        asked = [_ROLES[role](content=content) for role, content in json.loads(asked)]
    return Sample(id=at, input=asked, target=prompts.gold_answer(loaded.lm_task, loaded.docs[at]))


def _takes_raw(api: str) -> bool:
    return api == "hf" or api.endswith("completions")


_raw: ContextVar[bool] = ContextVar("_raw", default=False)  # whether the prompt of this sample is plain text


def _teach(api: Any) -> None:
    """Have inspect's ``hf`` take plain prompts and answer greedily at temperature 0; by itself it does neither.

    PrerequisiteError for one that is built otherwise than the one that finbench knows.
    """
    if "generate" in vars(api):
        return
    if lost := [name for name in ("chat_template", "do_sample", "use_chat_template") if name not in vars(api)]:
        raise PrerequisiteError(
            f"inspect-ai {inspect_ai.__version__} is another than finbench knows: its provider hf has no {lost[0]}. "
            f"Install the one it knows: {install('inspect')}"
        )

    async def generate(input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
        own = copy.copy(api)  # other samples of this process may be asked otherwise at the same time
        own.do_sample = bool(config.temperature)
        if _raw.get():
            if own.chat_template is not None or own.use_chat_template is False:
                raise PrerequisiteError("A chat template was given, and prompts without turns: -T chat=true")
            own.chat_template = _RAW
        return await type(api).generate(own, input, tools, tool_choice, config)

    api.generate = generate


def _ask() -> Any:
    async def solve(state: Any, generate: Any) -> Any:
        if str(state.model).startswith("hf/"):
            _teach(get_model().api)
            _raw.set(isinstance(state.input, str))
        return await generate(state)

    return solve


def _scorer(task: str, chat: bool, shots: int, seed: int) -> Any:
    async def score(state: Any, target: Any) -> Score:
        values = load(task, chat, shots, seed).values(int(state.sample_id), state.output.completion)
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        return Score(value=numbers or {"scored": 1.0}, answer=state.output.completion, metadata={"values": values})

    return score


def _metric(task: str) -> Any:
    """The task's metrics over all documents, strict and lenient, by lm-eval's own aggregation."""

    def measured(scores: Sequence[Any]) -> dict[str, float]:
        found = [one.score.metadata["values"] for one in scores if one.score.metadata]
        aggregation = _aggregation(task)
        if not found:  # before the first answer
            return dict.fromkeys(aggregation, math.nan)
        return {name: value_of([values[name] for values in found], aggregation[name]) for name in found[0]}

    return measured


@functools.cache
def _aggregation(task: str) -> dict[str, Any]:
    from finbench.scoring import metrics

    mean = metrics.mean
    if catalog.shipped_tasks()[task].form == "choice":
        return {"acc_letters": mean, "parse_rate": mean}
    return metrics.aggregations(task)


ask = solver(name=inspectlogs.SOLVER)(_ask)
score = scorer(metrics=[], name=inspectlogs.SCORER)(_scorer)
strict = metric(name="strict")(_metric)


def _registered(task: Task) -> Any:
    """inspect's task, a function of its options; ``chat``: None, as the provider takes prompts."""

    def made(chat: bool | None, shots: int, seed: int) -> inspect_ai.Task:
        api = str(get_model()).partition("/")[0]
        turns = chat if chat is not None else not _takes_raw(api)
        if not turns and not _takes_raw(api):
            raise FinbenchError(f"inspect's provider {api} has no prompts without turns.", "Leave out: -T chat=false")
        loaded = load(task.name, turns, shots, seed)
        return inspect_ai.Task(
            dataset=MemoryDataset([_sample(loaded, at, turns) for at in range(len(loaded.docs))], name=task.name),
            solver=ask(),
            scorer=score(task.name, turns, shots, seed),
            metrics=[strict(task.name)],
            config=GenerateConfig(
                temperature=0.0,
                max_tokens=int(loaded.how["max_gen_toks"]),
                stop_seqs=None if turns else list(loaded.how["until"]),
            ),
            version=task.version,
            metadata={
                "task": task.name,
                "task_digest": task.digest,
                "form": "letters" if task.form == "choice" else "generate",
                "chat": turns,
                "shots": shots,
                "seed": seed,
                "rows": len(loaded.docs),
                "finbench": __version__,
            },
        )

    def build(chat: bool | None = None, shots: int = 0, seed: int = 1234) -> inspect_ai.Task:
        try:
            return made(chat, shots, seed)
        except FinbenchError as fault:  # shown by inspect as it is, without a trace
            raise PrerequisiteError(str(fault)) from fault

    short = task.name.removeprefix(catalog.PREFIX)
    build.__name__ = build.__qualname__ = short
    return inspect_ai.task(name=short)(build)


TASKS = [  # what has a generated form of its own needs none by letters
    _registered(task)
    for name, task in catalog.shipped_tasks().items()
    if task.form == "generate" or not name.endswith("_mc")
]
