"""Scorecards from what stock lm-eval wrote: every answer of its sample files is scored again by us.

lm-eval writes ``results_<time>.json`` and, with ``--log_samples``, ``samples_<task>_<time>.jsonl``. Nothing of its
scores is taken over: documents and prompts must be those of our tasks, answers are read and scored anew.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError, reason
from finbench.core.files import json_lines, json_text, sha256_file, stable_json
from finbench.core.records import UNKNOWN, BaseModelId, Bits, Score, Scorecard, Subject, Task
from finbench.evaluation.scored import UNCOUNTED, asked_rows, blank, score_answers, stored
from finbench.scoring import prompts

_EDITION = "Import the same edition of the data."
_SHOW = "See it: finbench tasks show NAME"
_AGAIN = 'Run it again: lm_eval run --include_path "$(finbench tasks path)" --log_samples ...'
_LARGEST = 2**29  # bytes of a samples file; lm-eval repeats every prompt in it


def import_results(path: Path, *, out: Path, name: str | None, data_dir: Path | None) -> list[Scorecard]:
    """One scorecard for a ``results_*.json``, written to ``out`` with its samples.

    Where ``--limit`` was a share, so that each task was cut at another number of rows, there is a card for each number.

    Raises FinbenchError where there are no samples of our tasks beside it, for another version of a task, and for
    documents or prompts that are not those of the task, naming file and document.
    """
    with _stated(path):
        results = json.loads(json_text(path, _LARGEST))
        if not all(isinstance(results[key], dict) for key in ("results", "versions", "config", "n-shot")):
            raise ValueError("results, versions, config and n-shot are expected")
        counted = results.get("n-samples", {})
        if not isinstance(counted, dict) or not all(isinstance(count, dict) for count in counted.values()):
            raise ValueError("n-samples must say how many documents each task has")
    time = path.stem.removeprefix("results_")
    for task in results["versions"].keys() - catalog.tasks().keys():
        say(f"{path.name}: {task} is not a task of finbench; left out")
    known = sorted(results["versions"].keys() & catalog.tasks().keys())
    files = {task: path.with_name(f"samples_{task}_{time}.jsonl") for task in known}
    files = {task: file for task, file in files.items() if file.is_file()}
    if not files:
        raise FinbenchError(f"{path}: no samples of a finbench task lie beside it.", "Run lm_eval with --log_samples.")
    with _stated(path):
        shots = {int(results["n-shot"].get(task, 0)) for task in files}
        seed = int(results["config"].get("fewshot_seed") or 0)
        bare = _blank(results, path, name, seed)
    if len(shots) > 1:
        raise FinbenchError(
            f"{path}: its tasks have different numbers of shots: {sorted(shots)}.",
            "Run lm_eval on all of them with one --num_fewshot, for example: --num_fewshot 0",
        )
    if results.get("system_instruction"):
        raise FinbenchError(
            f"{path}: a system instruction stood before every prompt; the tasks have none.",
            "Run lm_eval again without --system_instruction.",
        )
    [shown] = shots
    lm_tasks = prompts.load([catalog.tasks()[task] for task in files], data_dir, shown, seed)
    scores, samples = [], {}
    for task, file in files.items():
        score, samples[task], limit = _score(catalog.tasks()[task], lm_tasks[task], results, file)
        scores.append((limit, score))
    made = []
    for limit, together in _by_limit(scores).items():
        own = [(score, samples[score.task]) for score in together]
        made.append(stored(out, path, bare, own, limit=limit, shots=shown))
    return made


def _by_limit(scores: Sequence[tuple[int | None, Score]]) -> dict[int | None, list[Score]]:
    """Scores by the limit of their card: one for all, where one number of rows explains every n, else one a number."""
    cuts = {cut for cut, _ in scores if cut is not None}
    limit = max(cuts, default=None)
    if len(cuts) < 2 and all(limit is None or score.n <= limit for _, score in scores):
        return {limit: [score for _, score in scores]}
    return {cut: [score for own, score in scores if own == cut] for cut in dict.fromkeys(cut for cut, _ in scores)}


@contextlib.contextmanager
def _stated(path: Path) -> Iterator[None]:
    """What lm-eval says of a run, by whoever wrote it: one line for what it cannot have said."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError) as fault:
        raise FinbenchError(
            f"{path} is no results file of lm-eval ({reason(fault)}).",
            "Name the folder that lm_eval wrote: its --output_path",
        ) from fault


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json_lines(json_text(path, _LARGEST))
        ordered = sorted(rows, key=lambda row: int(row["doc_id"]))
        if [row["doc_id"] for row in ordered] != list(range(len(rows))):
            raise ValueError("documents are missing or occur twice")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise FinbenchError(f"{path} is no samples file of lm-eval ({fault}).", _AGAIN) from fault
    return ordered


def _score(
    task: Task, lm_task: Any, results: Mapping[str, Any], file: Path
) -> tuple[Score, list[dict[str, Any]], int | None]:
    """Score, sample rows, and at how many rows the task was cut (None: not at all)."""
    rows = _lines(file)
    theirs = results["versions"][task.name]
    if theirs != task.version:
        raise FinbenchError(f"{file}: version {theirs} of the task, here it is {task.version}.", _AGAIN)
    stated = results.get("n-samples", {}).get(task.name, {}).get("effective", len(rows))
    if stated != len(rows):
        raise FinbenchError(f"{file} has {len(rows)} documents; its results file says {stated}.", _AGAIN)
    limit = len(rows) if len(rows) < len(prompts.rows(lm_task, "test")) else None
    instances = prompts.requests(lm_task, limit)
    by_document: dict[int, list[Any]] = {}
    for instance in instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    if len(by_document) != len(rows):
        raise FinbenchError(f"{file}: {len(rows)} documents, the data here have {len(by_document)}.", _EDITION)
    chat = bool(results.get("chat_template"))
    for row in rows:
        requests = by_document[row["doc_id"]]
        # under a chat template we cannot render the whole prompt, but the question must stand in it
        question = ("" if lm_task.multiple_input else str(lm_task.doc_to_text(requests[0].doc))) if chat else None
        _fill(requests, row, f"{file}: document {row['doc_id']}", question)
    score, made = score_answers(task, lm_task, instances, asked_rows(task, lm_task, limit), **UNCOUNTED)
    said = results["results"].get(task.name, {})
    for name, measure in score.metrics.items() if isinstance(said, dict) else ():
        stated = said.get(f"{name},none")
        if isinstance(stated, int | float) and abs(stated - measure.value) > 1e-9:
            say(f"{task.name}: their file says {name} = {stated:.4f}; the answers in it give {measure.value:.4f}")
    return score, made, limit


def _fill(instances: list[Any], row: Mapping[str, Any], place: str, question: str | None) -> None:
    """Put the recorded answers into our own requests, after a look at document and prompt.

    The prompt must be ours, or where ``question`` is given contain it.
    """
    instances.sort(key=lambda instance: instance.idx)
    try:
        given = [row["arguments"][f"gen_args_{number}"] for number in range(len(row["arguments"]))]
        asked = [(arguments["arg_0"], arguments["arg_1"]) for arguments in given]
        answers = [answer[0] for answer in row["resps"]]
        if len(answers) != len(instances) or len(asked) != len(instances):
            raise ValueError(f"{len(answers)} answers to {len(instances)} requests")
        choice = instances[0].request_type == "loglikelihood"
        answers = [(float(a[0]), str(a[1]) == "True") for a in answers] if choice else [str(a) for a in answers]
        if choice and not all(math.isfinite(a[0]) for a in answers):
            raise ValueError("a log-likelihood is no finite number")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as fault:
        raise FinbenchError(f"{place}: not a sample of lm-eval ({fault}).", _AGAIN) from fault
    if stable_json(row.get("doc")) != stable_json(instances[0].doc):
        raise FinbenchError(f"{place} is not the row of the data here.", _EDITION)
    for instance, (prompt, then), answer in zip(instances, asked, answers, strict=True):
        ours = instance.args[1]
        if then != ours and not (choice and question is not None and str(then).strip() == ours.strip()):
            what = "the choice" if choice else "how its answer was generated"
            raise FinbenchError(f"{place}: {what} is not the task's: {stable_json(then)[:200]}.", _SHOW)
        if not (instance.args[0] == prompt if question is None else question.strip() in str(prompt)):
            raise FinbenchError(f"{place}: its prompt is not the task's.", _SHOW)
        instance.resps = [answer]


def _blank(results: Mapping[str, Any], path: Path, name: str | None, seed: int) -> Scorecard:
    """The card of a results file without its scores, their limit and shots."""
    config = results["config"]
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        arguments = dict(pair.partition("=")[::2] for pair in arguments.split(",") if pair)
    chat = bool(results.get("chat_template"))
    subject = _subject(config, arguments, name or results.get("model_name") or "model", chat)
    dummy = config.get("model") == "dummy"
    when = datetime.fromtimestamp(float(results.get("date") or 0), UTC)
    packages = {"lm-eval": results.get("lm_eval_version"), "transformers": results.get("transformers_version")}
    dtype = str(config.get("model_dtype") or "unknown").removeprefix("torch.")
    return blank(
        when,
        {key: str(value) for key, value in packages.items() if value},
        origin="lm-eval",
        subject=subject,
        engine=f"lm-eval {config.get('model') or 'unknown'}",
        dtype="none" if dummy else dtype,
        form="none" if dummy else "unmerged" if subject.adapter else "base",
        seed=seed,
        arguments={"results_sha256": sha256_file(path)},
        chat_template=results.get("chat_template_sha"),
        seconds=float(results.get("total_evaluation_time_seconds") or 0),
    )


def _subject(config: Mapping[str, Any], arguments: Mapping[str, Any], name: str, chat: bool) -> Subject:
    """What lm-eval says of the model; a local path gives its last part only."""
    pretrained, peft = str(arguments.get("pretrained") or name), arguments.get("peft")
    sha = config.get("model_sha") or None
    short = _last(pretrained) or name
    quantised = {bits for bits in (4, 8) if str(arguments.get(f"load_in_{bits}bit")).lower() == "true"}
    bits: Bits = 4 if 4 in quantised else 8 if 8 in quantised else 16
    base = BaseModelId(
        alias=short,
        hub_id=pretrained if sha else None,
        revision=str(sha) if sha else None,
        source="hub" if sha else "folder",
        fingerprint=UNKNOWN,
    )
    adapter = _last(str(peft)) if peft else None
    return Subject(
        name=adapter or (_last(name) or short),
        base=base,
        adapter=str(config.get("peft_sha") or UNKNOWN) if peft else None,
        adapter_name=adapter,
        bits=bits,
        chat=chat,
        kind="peft" if peft else "base",
    )


def _last(place: str) -> str | None:
    return next((part for part in reversed(re.split(r"[/\\]", place)) if part), None)
