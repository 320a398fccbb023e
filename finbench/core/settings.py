"""The settings of commands with many options, declared once: for the command line, for Python and for YAML files.

The text beside a type is the help of its option. Nothing heavy is imported: ``--help`` reads this.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from inspect import signature
from pathlib import Path
from typing import Annotated, ClassVar, Literal, ParamSpec, TypeVar

_STRICT = {"extra": "forbid"}  # unknown keys are refused by name
Bits = Literal[16, 8, 4]
Profile = Literal["direct", "chat", "think", "cot"]
TEMPLATED = ("chat", "think")  # the profiles that need a chat template
DATA_DIR = "Data directory; else $FINBENCH_DATA, else the cache."
P = ParamSpec("P")
Stated = TypeVar("Stated")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How subjects are evaluated."""

    __pydantic_config__: ClassVar = _STRICT

    tasks: Annotated[str | Sequence[str], "Tasks or groups, by comma; default: the recipe's."] = ()
    engine: Annotated[str, "auto, hf, vllm, server, api or dummy."] = "auto"
    bits: Annotated[Bits | None, "16, 8 or 4; default: as trained."] = None
    chat: Annotated[bool | None, "Chat template; default: as trained."] = None
    shots: Annotated[int, "Worked examples a prompt, from the split that the task names: train, for ours."] = 0
    limit: Annotated[int | None, "So many rows of each task, a sample of its test: a partial card."] = None
    seed: Annotated[int, "Seed of worked examples and of sampling."] = 0
    arguments: Annotated[
        Mapping[str, str | int | float],
        "--arg",
        "dtype=, batch_size=, truncate=left, labels=best; hf: merge=no; vllm: tensor_parallel=2; server, api: url=.",
    ] = field(default_factory=dict)
    max_length: Annotated[int | None, "Tokens of a prompt with its answer; default: the base's context."] = None
    gpu_memory: Annotated[float | None, "Share of each GPU's memory that may be taken; vLLM's default: 0.92."] = None
    metadata: Annotated[
        Mapping[str, str], "Rows: agreement=75 (fpb), split=validation, noise=typos,ocr or noise=all."
    ] = field(default_factory=dict)
    profile: Annotated[Profile, "direct, chat, think or cot: how models answer."] = "direct"
    max_tokens: Annotated[int | None, "Tokens an answer may take, reasoning included; not for direct."] = None
    temperature: Annotated[float | None, "Of sampling; default: the most probable token."] = None
    top_p: Annotated[float | None, "Share of the probability that is sampled from."] = None
    samples: Annotated[int, "Answers to every prompt; needs --temperature."] = 1
    think_end: Annotated[str | None, "Text that ends the reasoning, of a model that finbench does not know."] = None
    system_prompt: Annotated[str | None, "Text before every prompt; the system's turn in a chat template."] = None
    confidence: Annotated[bool, "--confidence", "Ask for a line `Confidence: 0-100`; not for direct."] = False
    budget: Annotated[float | None, "USD that this command may spend; of engines api and server."] = None
    fewshot_as_multiturn: Annotated[bool | None, "Worked examples as turns; default: in a chat template."] = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        if self.shots < 0:
            raise ValueError(f"shots must be at least 0, got {self.shots}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise ValueError(f"budget must be above 0, got {self.budget}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.temperature is not None and not 0 <= self.temperature <= 10:
            raise ValueError(f"temperature must be from 0 to 10, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {self.max_length}")
        if self.gpu_memory is not None and not 0 < self.gpu_memory <= 1:  # nor is what is no number
            raise ValueError(f"gpu_memory is a share of a GPU, above 0 and at most 1, got {self.gpu_memory:g}")
        # arguments of the engines that have an option of their own
        own = {"max_length": self.max_length, "gpu_memory": self.gpu_memory}
        stated = {key: value for key, value in own.items() if value is not None}
        for key, value in stated.items():
            if str(self.arguments.get(key, value)) != str(value):
                raise ValueError(f"{key} is stated twice: {value} and {self.arguments[key]}")
        object.__setattr__(self, "arguments", {**self.arguments, **stated})

    @property
    def named(self) -> list[str]:
        """The tasks and groups, one by one."""
        return [name.strip() for text in _listed(self.tasks) for name in text.split(",") if name.strip()]


@dataclass(frozen=True)
class _Subjects:
    """Who is evaluated."""

    adapter: Annotated[str | Sequence[str], "./folder, hub:org/name[@rev] or zoo:name; repeatable."] = ()
    _: KW_ONLY
    model: Annotated[
        str | None,
        "A model alone, also your own: alias, ./folder, hub:org/name, FILE.gguf; of server, api: its name there.",
    ] = None
    base: Annotated[str | None, "The adapters' base, where bases.yaml does not know it."] = None

    @property
    def adapters(self) -> list[str]:
        """The references to adapters, one by one."""
        return _listed(self.adapter)


@dataclass(frozen=True, kw_only=True)
class Evaluation(Settings, _Subjects):
    """Who is evaluated, how, and where the scorecards go."""

    prompts: Annotated[str | None, "Ask by several prompts of each task: all, how many (8), or names by comma."] = None
    look: Annotated[int, "Show so many prompts of each task with raw answers, before the long run."] = 0
    out: Annotated[Path, "Folder for scorecards and report."] = Path("scorecards")
    data_dir: Annotated[Path | None, DATA_DIR] = None
    report: Annotated[str | Sequence[str], "Trackers that get the scores: trackio, wandb, mlflow, tensorboard."] = ()
    reports: bool = True  # of all cards in the folder

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.look < 0:
            raise ValueError(f"look counts from 0, got {self.look}")


@dataclass(frozen=True)
class PushSettings:
    """What is published, where, and how."""

    __pydantic_config__: ClassVar = _STRICT

    path: Annotated[
        Path | None, "PATH", "Adapter, merged model, scorecards, <data dir>/<set>, or the tasks; none with --benchmark."
    ] = None
    to: Annotated[str | None, "TO", "hub:org/name"] = None
    _: KW_ONLY
    dry_run: Annotated[bool, "--dry-run", "Show what would be sent; send nothing."] = False
    public: Annotated[bool, "--public", "Make a new repository public; else private."] = False
    pr: Annotated[bool, "--pr", "Open a pull request instead of changing the repository."] = False
    cards: Annotated[
        Sequence[Path], "Scorecards to publish beside an adapter; default: its own in scorecards/, here and beside it."
    ] = ()
    base: Annotated[str | None, "hub:org/name@commit of the base, where it was a folder in training."] = None
    licence: Annotated[str | None, "Another licence than base and data give, by the Hub's id."] = None
    benchmark: Annotated[
        str | None, "Without PATH: publish the tasks as this benchmark, hub:org/name. With PATH: results belong to it."
    ] = None
    tasks: Annotated[
        str, "Of the benchmark: tasks or groups, by comma; default: all that are ranked, whose sets are here whole."
    ] = ""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    model: Annotated[bool, "--model", "Scorecards go to the model's own repository, not to a data set of results."] = (
        False
    )
    yes: Annotated[bool, "--yes", "Ask nothing: make an adapter public that has no results."] = False


Kind = Literal["labels", "yesno", "number", "spans", "text", "choice"]


@dataclass(frozen=True)
class TaskSettings:
    """What a benchmark is made of, and how it asks."""

    __pydantic_config__: ClassVar = _STRICT

    file: Annotated[Path, "CSV, JSONL, JSON, Parquet or Excel with your rows, or a folder of such."]
    _: KW_ONLY
    text: Annotated[str, "Column of the text."] = "text"
    label: Annotated[str, "Column of the right answer."] = "label"
    to: Annotated[Path | None, "New folder; default: the file's name. Its last part is the task's name."] = None
    kind: Annotated[Kind, "labels, yesno, number, spans, text or choice."] = "labels"
    labels: Annotated[str | None, "Labels by comma, perhaps with what stands for them: 0=dovish,1=hawkish."] = None
    question: Annotated[str | None, "yesno, number, text: column of the question, where rows have their own."] = None
    choices: Annotated[str | None, "choice: columns of the choices by comma, or one that holds a JSON list."] = None
    tolerance: Annotated[str, "number: 0.5, or 1% of the right answer; 0: equality."] = "0"
    prompt: Annotated[str | None, "Instruction, or a whole prompt with {{text}} and other columns in it."] = None
    metric: Annotated[str | None, "Main metric; the error for a wrong one names those there are."] = None
    split: Annotated[str | None, "Column that says train, validation or test; default: by a hash of the text."] = None
    all_test: Annotated[bool, "--all-test", "All rows are the test; none is kept to train on."] = False
    licence: Annotated[str | None, "Licence of the rows; without one they are never published."] = None
    skip_bad: Annotated[bool, "--skip-bad", "Leave rows out that cannot be used, and count them."] = False


def _listed(stated: str | Sequence[str]) -> list[str]:
    return [stated] if isinstance(stated, str) else list(stated)


def called_with(kind: Callable[P, Stated]) -> Callable[[Callable[[Stated], Result]], Callable[P, Result]]:
    """Let a function of one settings object be called with the fields of that object, checked; help() shows them."""

    def decorated(function: Callable[[Stated], Result]) -> Callable[P, Result]:
        taken = signature(kind).replace(return_annotation=signature(function).return_annotation)

        @functools.wraps(function)
        def call(*values: P.args, **named: P.kwargs) -> Result:
            from finbench.core.strict import checked

            known = {key: value for key, value in named.items() if key in taken.parameters}
            stated = {**taken.bind_partial(*values, **known).arguments, **named}
            return function(checked(kind, stated, function.__name__, f"It takes: {', '.join(taken.parameters)}"))

        call.__signature__ = taken  # type: ignore[attr-defined]
        return call

    return decorated
