"""Scorecards from inspect-ai's logs of our tasks (``.eval`` and ``.json``): every answer is scored again by us.

A log is read without inspect-ai. Nothing of its scores is taken over, and its prompts must be those of the task.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import zstandard

from finbench.core import catalog, zips
from finbench.core.console import say
from finbench.core.errors import FinbenchError, reason, shortened
from finbench.core.files import bearable, json_text
from finbench.core.records import UNKNOWN, BaseModelId, Scorecard, Subject, Task
from finbench.evaluation.scored import UNCOUNTED, asked_rows, blank, score_answers, stored
from finbench.scoring import prompts

SOLVER, SCORER = "as_the_task_asks", "strict"  # as inspecttasks registers them
_LARGEST = 2**29  # bytes of a log, unpacked
_ZSTANDARD = 93  # a member's compression, which Python's zipfile reads from 3.14 on
# settings of a generation that change no answer
_HARMLESS = ("seed", "max_connections", "adaptive_connections", "max_retries", "timeout", "attempt_timeout", "logprobs",
             "top_logprobs", "batch", "cache", "log_format", "stop_seqs")  # fmt: skip
# arguments of a model that say where and in which numbers it is computed, and no other model
_PLACE = ("dtype", "torch_dtype", "revision", "device", "device_map", "batch_size", "tokenizer_call_args",
          "hidden_states", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len", "host", "port",
          "timeout")  # fmt: skip
_AGAIN = "Run it again: inspect eval finbench/TASK --model ..."
_PACKAGES = ("inspect_ai", "transformers", "vllm")  # whose versions a card has
_PROVIDERS = ("hf", "vllm", "vllm-completions", "sglang")  # whose names of models are the Hub's


def turns(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """In the place of a chat template: the turns themselves, as JSON."""
    return json.dumps([[turn["role"], turn["content"]] for turn in messages])


def import_log(path: Path, *, out: Path, name: str | None, data_dir: Path | None) -> Scorecard:
    """The scorecard of a log, written to ``out``.

    The tasks of one run of inspect share a card. Raises FinbenchError for a log that is torn or of a run that did not
    end, of another task, version, solver, generation or epochs than ours, and for prompts that are not the task's.
    """
    with _stated(path):
        if path.stat().st_size > _LARGEST:
            raise FinbenchError(f"{path} is larger than any log of these tasks can be.", _AGAIN)
        log = _unpacked(path) if path.suffix == ".eval" else json.loads(json_text(path, _LARGEST))
        spec, steps = log["eval"], log["plan"]["steps"]
        said, config = spec.get("metadata") or {}, log["plan"].get("config") or {}
        task = _task(path, spec, said)
        chat, shots, seed = said.get("chat") is True, int(said.get("shots") or 0), int(said.get("seed") or 0)
        if [str(step["solver"]).rpartition("/")[2] for step in steps] != [SOLVER]:
            raise _other(path, f"its solver is {', '.join(str(step['solver']) for step in steps)}, not the task's own")
        if log["status"] != "success":
            raise FinbenchError(f"{path}: its run did not end well ({log['status']}).", f"inspect eval-retry {path}")
        if (epochs := spec["config"].get("epochs") or 1) != 1:
            raise _other(path, f"it asks every row {epochs} times; a card has one answer to each")
        scorers = [one["name"] for one in spec.get("scorers") or []]
        samples = log.get("samples")
        if not isinstance(samples, list):
            raise FinbenchError(f"{path} holds no answers.", "Run it again, without --no-log-samples.")
        bare = _blank(spec, log.get("stats") or {}, name, chat, shots, seed)
    if scorers != [SCORER]:
        say(f"{path.name}: scored by {', '.join(scorers) or 'nothing'}; its answers are scored anew by {task.name}")
    lm_task = prompts.load([task], data_dir, shots, seed)[task.name]
    instances = prompts.requests(lm_task, None, turns if chat else None)
    with _stated(path):
        _as_generated(path, config, instances[0].args[1], chat)
        answers = [_answer(path, sample, instances) for sample in sorted(samples, key=lambda one: int(one["id"]))]
        if [at for at, _ in answers] != list(range(len(answers))) or not answers:
            raise _other(path, "it is not of the first rows of the test, each once (--limit N takes them)")
    for at, answer in answers:
        for stop in filter(None, instances[at].args[1]["until"]):
            answer = answer.split(stop)[0]
        instances[at].resps = [answer]
    limit = len(answers) if len(answers) < len(instances) else None
    if limit:
        say(f"{path.name}: a sample of {limit:,} of {len(instances):,} rows; its card is partial")
    asked, measured = asked_rows(task, lm_task, limit), {**UNCOUNTED, "seconds": bare.seconds}
    score, rows = score_answers(task, lm_task, instances[: len(answers)], asked, **measured)
    _differing(task, log.get("results") or {}, score.metrics)
    return stored(out, path, bare, [(score, rows)], limit=limit)


def _other(path: Path, what: str) -> FinbenchError:
    return FinbenchError(f"{path}: {what}.", _AGAIN)


@contextmanager
def _stated(path: Path) -> Iterator[None]:
    """What a log says, by whoever wrote it: one line for what inspect cannot have said."""
    try:
        yield
    except (*zips.TORN, zstandard.ZstdError, json.JSONDecodeError, OSError) as fault:
        raise FinbenchError(
            f"{path} is torn, or cannot be read ({reason(fault)}).", f"inspect eval-retry {path}"
        ) from fault
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as fault:
        raise FinbenchError(
            f"{path} is no log of inspect ({type(fault).__name__}: {reason(fault)}).",
            "Name a log that inspect eval wrote: logs/*.eval",
        ) from fault


def _unpacked(path: Path) -> dict[str, Any]:
    """The JSON of an ``.eval``: a zip of a header and of samples."""
    with path.open("rb") as file, zips.opened(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if sum(info.file_size for info in members.values()) > _LARGEST:
            raise FinbenchError(f"{path} is larger than any log of these tasks can be.", _AGAIN)
        if "header.json" not in members:
            raise FinbenchError(f"{path}: its run did not end.", f"inspect eval-retry {path}")
        asked = [members["header.json"], *(info for name, info in members.items() if name.startswith("samples/"))]
        header, *own = (_member(file, archive, info) for info in asked)
        log: dict[str, Any] = json.loads(bearable(header, *own))
        return {**log, "samples": [json.loads(one) for one in own] or None}


def _member(file: IO[bytes], archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    if info.compress_type != _ZSTANDARD:
        return archive.read(info).decode()
    file.seek(info.header_offset)
    local = file.read(30)
    if local[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"{info.filename} does not lie where it should")
    file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), 1)
    packed = io.BytesIO(file.read(info.compress_size))
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        text = reader.read(info.file_size + 1)  # no more than it says that it holds
    if len(text) != info.file_size or zlib.crc32(text) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} is not whole")
    return text.decode()


def _task(path: Path, spec: Mapping[str, Any], said: Mapping[str, Any]) -> Task:
    """The task that a log is of, as it is here."""
    task = catalog.shipped_tasks().get(str(said.get("task")))
    if task is None or not str(spec["task"]).startswith("finbench/"):
        raise FinbenchError(
            f"{path} is of {spec['task']}, which is no task of finbench.", "Import logs of: inspect eval finbench/TASK"
        )
    if said.get("form") != "generate":
        raise FinbenchError(
            f"{path}: {task.name} ranks by log-likelihoods; inspect asks for letters, which is another measurement.",
            f"Score it here: finbench eval --tasks {task.name.removeprefix(catalog.PREFIX)}",
        )
    if (spec["task_version"], said.get("task_digest")) != (task.version, task.digest):
        digest = "" if spec["task_version"] != task.version else " with another definition"
        raise _other(path, f"version {spec['task_version']} of {task.name}{digest}, here it is {task.version}")
    return task


def _as_generated(path: Path, config: Mapping[str, Any], wanted: Mapping[str, Any], chat: bool) -> None:
    """Refuse answers that were drawn, or given another budget than the task's."""
    ours = {"temperature": 0.0, "max_tokens": wanted["max_gen_toks"]}
    ours |= {} if chat else {"stop_seqs": list(wanted["until"])}
    for key, value in ours.items():
        if config.get(key) != value:
            raise _other(path, f"its answers were generated with {key} {config.get(key)!r}, the task's is {value!r}")
    for key, value in config.items():
        if value not in (None, False, [], {}, "") and key not in {*ours, *_HARMLESS}:
            raise _other(path, f"its answers were generated with {key}, which the task has not")


def _answer(path: Path, sample: Mapping[str, Any], instances: list[Any]) -> tuple[int, str]:
    """(number of the row, answer) of a sample, whose prompt must be ours to the letter."""
    at = int(sample["id"])
    place = f"{path}: row {at}"
    if sample.get("error"):
        raise FinbenchError(f"{place} ended in an error.", f"inspect eval-retry {path}")
    if not 0 <= at < len(instances):
        raise FinbenchError(f"{place} is not among the {len(instances)} here.", "Import the same edition of the data.")
    *asked, last = [(turn["role"], turn["content"]) for turn in sample["messages"]]
    given = sample["input"]
    shown = given if isinstance(given, str) else turns(given)
    if shown != instances[at].args[0]:
        raise FinbenchError(
            f"{place}: its prompt is not the task's.",
            "Import the same edition of the data. See the prompt: finbench tasks show NAME",
        )
    meant = [("user", given)] if isinstance(given, str) else [(turn["role"], turn["content"]) for turn in given]
    if asked != meant or last[0] != "assistant":
        raise FinbenchError(f"{place}: the model was told more than the task's prompt.", _AGAIN)
    answer = str(sample["output"]["completion"])
    answer.encode("utf-8")  # half of a character cannot be kept
    return at, answer


def _differing(task: Task, results: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Say where the numbers of a log are not those of its answers."""
    for score in results.get("scores") or []:
        for name, found in score["metrics"].items() if score.get("name") == SCORER else ():
            stated = found.get("value")
            if name in ours and isinstance(stated, int | float) and not abs(stated - ours[name].value) <= 1e-9:
                say(f"{task.name}: the log says {name} = {stated:.4f}; the answers in it give {ours[name].value:.4f}")


def _blank(
    spec: Mapping[str, Any], stats: Mapping[str, Any], name: str | None, chat: bool, shots: int, seed: int
) -> Scorecard:
    """The card of a log without its score. inspect says of a model its name, and what the user gave it beside."""
    provider, _, model = str(spec["model"]).partition("/")
    arguments = spec.get("model_args") or {}
    short = next((part for part in reversed(model.replace("\\", "/").split("/")) if part), "model")
    if odd := [
        key for key, value in arguments.items() if key not in (*_PLACE, "model_path") and value not in (None, "")
    ]:
        raise FinbenchError(
            f"-M {odd[0]}={shortened(str(arguments[odd[0]]))} makes another model than {short}; no card could say so.",
            "Score it here: finbench eval --model",
        )
    revision = str(arguments.get("revision") or "")
    revision = revision if re.fullmatch("[0-9a-f]{40}", revision) else ""  # a branch is no commit
    here = provider in _PROVIDERS and model.count("/") == 1 and "model_path" not in arguments and bool(revision)
    base = BaseModelId(
        alias=short,
        hub_id=model if here else None,
        revision=revision if here else None,
        source="hub" if here else "folder",
        fingerprint=UNKNOWN,
    )
    dtype = str(arguments.get("dtype") or arguments.get("torch_dtype") or "unknown").removeprefix("torch.")
    begun, ended = (datetime.fromisoformat(stats[key]) for key in ("started_at", "completed_at"))
    packages = {key: str(value) for key, value in (spec.get("packages") or {}).items() if key in _PACKAGES}
    return blank(
        datetime.fromisoformat(str(spec["created"])),
        {key.replace("_", "-"): version for key, version in packages.items()},
        origin="inspect",
        subject=Subject(name=name or short, base=base, chat=chat),
        engine=f"inspect {provider}",
        dtype=dtype,
        shots=shots,
        seed=seed,
        arguments={"inspect_run": str(spec["run_id"])},
        seconds=(ended - begun).total_seconds(),
    )
