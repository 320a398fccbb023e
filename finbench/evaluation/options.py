"""The options of an evaluation, checked before a library is imported or a model is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finbench.core import catalog, refs, tracking
from finbench.core.errors import FinbenchError, shortened, unknown
from finbench.core.files import check_writable, stable_json, strict_json
from finbench.core.records import Task
from finbench.core.settings import Evaluation
from finbench.evaluation import profiles
from finbench.models import adapters, bases
from finbench.scoring import noise, wordings

ENGINES = ("auto", "hf", "vllm", "server", "api", "dummy")
ENDPOINTS = ("server", "api")  # whose models are elsewhere
_COMMON = {"dtype": str, "batch_size": int, "truncate": str}
_ROOM = {"max_length": int, "gpu_memory": float}  # options of their own: --max-length, --gpu-memory
# fields of a request that finbench sets itself
_OURS = {"model", "messages", "prompt", "stop", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
         "n", "stream", "logprobs", "echo"}  # fmt: skip


def _fields(stated: str) -> str:
    """Fields of a request as JSON, in one order; ValueError for anything but an object of others than our own."""
    try:
        found = strict_json(stated)
    except (TypeError, RecursionError) as fault:
        raise ValueError(stated) from fault
    if not isinstance(found, dict):
        raise ValueError(stated)
    if ours := sorted(found.keys() & _OURS):
        raise FinbenchError(f"--arg body cannot set {ours[0]}, which finbench does.", "See finbench eval --help")
    return stable_json(found)


_KINDS = {int: ("whole number", "4"), float: ("number", "0.5"), _fields: ("JSON object", "'{\"top_k\": 20}'")}
_ELSEWHERE: dict[str, Any] = {
    "url": str, "concurrency": int, "timeout": int, "requests_per_minute": int, "tokens_per_minute": int,
    "price_in": float, "price_out": float, "answered_by": str, "withheld": str,
}  # fmt: skip
ARGUMENTS: dict[str, dict[str, Any]] = {
    "hf": {**_COMMON, **_ROOM, "labels": str, "merge": str},
    "vllm": {**_COMMON, **_ROOM, "labels": str, "tensor_parallel": int, "data_parallel": int},
    "server": {**_ELSEWHERE, "body": _fields},
    "api": {**_ELSEWHERE, "reasoning_effort": str},
    "dummy": {**_COMMON, "merge": str, "answers": str},
}
# where a model stands is nobody's business, and like its share of a GPU it decides nothing; prices, names and what was
# withheld stand in the card's ``hosted``
NOT_ON_CARDS = (*_ELSEWHERE, "gpu_memory")
_CHOICES = {"withheld": ("wrong",), "reasoning_effort": ("minimal", "low", "medium", "high")}


def arguments(engine: str, stated: Mapping[str, str | int | float]) -> dict[str, Any]:
    """The parsed ``--arg`` of an engine; FinbenchError for an unknown engine, argument or value."""
    if engine not in ENGINES:
        raise FinbenchError(f"No engine is called {engine!r}.", f"Engines: {', '.join(ENGINES)}")
    known = ARGUMENTS["hf" if engine == "auto" else engine]
    parsed: dict[str, Any] = {}
    for key, value in stated.items():
        option = f"--{key.replace('_', '-')} " if key in _ROOM else f"--arg {key}="
        if key in _ROOM and key not in known:
            raise FinbenchError(f"The engine {engine} takes no {option.strip()}.", "Engines that do: hf, vllm")
        if key not in known:
            raise unknown("engine argument", key, known, "finbench eval --help")
        try:
            parsed[key] = known[key](value)
        except ValueError as fault:
            kind, example = _KINDS[known[key]]
            said = f"{option.rstrip('= ')} must be a {kind}, got {shortened(repr(value))}."
            raise FinbenchError(said, f"For example: {option}{example}") from fault
        if key == "gpu_memory":
            check_share(parsed[key])
        elif known[key] is float and not 0 <= parsed[key] < float("inf"):
            raise FinbenchError(f"--arg {key} must be at least 0, got {value!r}.", f"For example: --arg {key}=0.15")
        if key in _CHOICES and parsed[key] not in _CHOICES[key]:
            raise FinbenchError(f"--arg {key} cannot be {value!r}.", f"One of: {', '.join(_CHOICES[key])}")
        if known[key] is int and parsed[key] < 1:
            said = f"{option.rstrip('= ')} must be at least 1, got {parsed[key]}."
            raise FinbenchError(said, f"For example: {option}4")
    if engine == "server" and "url" not in parsed:
        raise FinbenchError("Which endpoint?", "--arg url=http://127.0.0.1:8000/v1 --model NAME")
    if parsed.get("truncate", "left") != "left":
        raise FinbenchError("--arg truncate can only be left.", "Write --arg truncate=left, or leave it out.")
    if parsed.get("labels", "best") != "best":
        raise FinbenchError(
            "--arg labels can only be best; leave it out to run every label to its end.", "--arg labels=best"
        )
    if parsed.get("merge", "no") != "no":
        raise FinbenchError(
            "--arg merge can only be no; adapters are merged where that gives their answers.",
            "Write --arg merge=no, or leave it out.",
        )
    if parsed.get("dtype", "auto") not in ("auto", "float32", "bfloat16", "float16"):
        raise FinbenchError(f"Unknown dtype {parsed['dtype']!r}.", "One of: auto, float32, bfloat16, float16")
    return parsed


def at_endpoint(wanted: Evaluation) -> Evaluation:
    """The settings of a run at an endpoint; hosted models are asked in messages. FinbenchError for what cannot be."""
    if wanted.adapters or wanted.base:
        raise FinbenchError("An endpoint's models are named by --model.", "Leave --adapter and --base out.")
    if wanted.engine == "server":
        return wanted
    if wanted.chat is False:
        raise FinbenchError("Hosted models are asked in messages.", "Leave --no-chat out, or use --engine server.")
    scored = [task.name.removeprefix(catalog.PREFIX) for task in catalog.expand(wanted.named) if task.form == "choice"]
    if scored:
        raise FinbenchError(
            f"Hosted models give no log-likelihoods of labels, which {', '.join(scored)} need.",
            "Ask the generated form (fpb, not fpb_mc), or an endpoint that echoes: --engine server",
        )
    return replace(wanted, chat=True)


def checked(wanted: Evaluation) -> tuple[Evaluation, dict[str, Any], list[Task]]:
    """(settings with the chat template that they need, the engine's arguments, the tasks that are named).

    FinbenchError for settings that do not fit each other, an unknown name, and a folder that is not there.
    """
    tracking.named(wanted.report)
    named = catalog.expand(wanted.named)
    if not named and not wanted.adapters:
        raise no_tasks()
    wanted, parsed = fitting(wanted, named)
    if wanted.engine not in (*ENDPOINTS, "dummy"):
        check_folders(wanted.adapters, wanted.model, wanted.base)
    if wanted.prompts is not None:
        wordings.check_known(named, wanted.prompts)
    check_writable(wanted.out)
    return wanted, parsed, named


def fitting(wanted: Evaluation, named: Sequence[Task]) -> tuple[Evaluation, dict[str, Any]]:
    """(settings with the chat template that they need, the engine's arguments), or why they do not fit each other.

    ``named``: the tasks that are asked; none: those of adapters, which nobody has looked at yet.
    """
    parsed = arguments(wanted.engine, wanted.arguments)
    wanted = profiles.in_template(wanted)
    if wanted.budget is not None and wanted.engine not in ENDPOINTS:
        raise FinbenchError("--budget is for engines that are paid for: server and api.", "Leave --budget out.")
    wanted = at_endpoint(wanted) if wanted.engine in ENDPOINTS else wanted
    profiles.check_fit(wanted, named)
    noise.checked(named or list(catalog.tasks().values()), wanted.metadata)
    if wanted.shots and str(wanted.metadata.get("split")) == "train":
        raise FinbenchError("Worked examples are rows of train, and so are the rows to ask.", "Leave --shots out.")
    return wanted, parsed


def no_tasks() -> FinbenchError:
    """Nobody says on what to evaluate."""
    return FinbenchError(
        "Which tasks? None is named, and no adapter's recipe names any.",
        "Add --tasks fpb, or see: finbench tasks list",
    )


def check_folders(stated: Sequence[str], *named: str | None) -> None:
    """Let those who read adapters and bases say what is not there."""
    for text in stated if len(stated) == 1 else ():  # of several all faults are told at once
        if refs.parse(text).kind in ("folder", "name") and not Path(text).expanduser().is_dir():
            adapters.find(text)
    for text in filter(None, named):
        bases.check_there(text)


def check_share(share: float) -> None:
    """Refuse what is no share of a GPU's memory."""
    if not 0 < share <= 1:  # nor is what is no number
        raise FinbenchError(
            f"--gpu-memory is the share of a GPU that may be taken, between 0 and 1, got {share:g}.", "--gpu-memory 0.5"
        )
