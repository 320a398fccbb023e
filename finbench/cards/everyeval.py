"""Scorecards as records of Every Eval Ever (schema 0.3.0), and back.

A record is an aggregate JSON and a JSONL of a line an answer. The scorecard lies in the first and its sample rows in
the second, as text, so that both become a card again; all else in them follows from these, and is compared with what
is stated. Texts that may not be published are in neither.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core import catalog, seal
from finbench.core.console import say
from finbench.core.errors import FinbenchError, reason
from finbench.core.files import bearable, json_lines, json_text, strict_json
from finbench.core.records import Measure, Score, Scorecard, Task
from finbench.data import describe_set
from finbench.scoring import metrics, prompts, value_of

SCHEMA = "0.3.0"
_LIBRARIES = {  # who asked the model: its name there, and its package among a card's
    "finbench": ("finbench", None),
    "lm-eval": ("lm_eval", "lm-eval"),
    "inspect": ("inspect_ai", "inspect-ai"),
    "answers": ("unknown", "unknown"),
}
_ROW = "finbench_row"  # of an answer's metadata: its sample row, without the answer
_NOTHING = object()  # no such key
_LARGEST = 2**29  # bytes of a file
_RIGHT = ("acc", "exact_match")
_MISSING = "the rows that were scored are not on this machine"
_WITHHELD = re.compile(r"\[withheld: (.*); salted SHA-256 .*\]", re.DOTALL)
_EXPORT = "Write it with: finbench card export CARD.json --format every-eval-ever"


def files(card: Scorecard, path: Path, model: str | None, data_dir: Path | None) -> dict[str, str]:
    """The two files by name; without the samples of the card at ``path`` the first alone.

    Named by a UUID of version 4 that follows from the card, so that exporting twice writes the same files.
    """
    if model and (known := _repository(card)) and known != model:
        raise FinbenchError(f"The card is of hub:{known}, not of {model}.", "Leave --model out.")
    record = aggregate(card, model, cardfiles.raw(path) if card.samples else None)
    stem = _stem(card, record)
    if card.samples is None:
        return {f"{stem}.json": _json(record)}
    found, answers = cardfiles.rows_by_task(path, card), []
    for score in card.scores:
        texts = _texts(score, data_dir)
        if texts[2] == _MISSING:
            get = catalog.tasks()[score.task].data
            say(f"{score.task}: {_MISSING}; hashes stand for their texts. Get them: {get}")
        answers += [_instance(row, score, record, texts) for row in found[score.task]]
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers).encode()
    record["detailed_evaluation_results"] = _details(stem, lines, len(answers))
    return {f"{stem}.json": _json(record), f"{stem}_samples.jsonl": lines.decode()}


def _stem(card: Scorecard, record: Mapping[str, Any]) -> str:
    seed = hashlib.sha256(f"{card.run_key} {card.samples}".encode()).digest()[:16]
    developer, _, short = record["model_info"]["id"].partition("/")
    return f"data/finbench/{path_part(developer)}/{path_part(short)}/{uuid.UUID(bytes=seed, version=4)}"


def _details(stem: str, lines: bytes, rows: int) -> dict[str, Any]:
    return {
        "format": "jsonl",
        "file_path": f"{stem}_samples.jsonl",
        "hash_algorithm": "sha256",
        "checksum": hashlib.sha256(lines).hexdigest(),
        "total_rows": rows,
    }


def _repository(card: Scorecard) -> str | None:
    """The repository of the Hub that a card says its subject is from, org/name."""
    source = card.subject.adapter_source or ""
    if card.subject.adapter:
        return source.removeprefix("hub:").partition("@")[0] if source.startswith("hub:") else None
    return card.subject.base.hub_id


def _text(value: Any) -> str:
    """JSON on a line, its keys in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def aggregate(card: Scorecard, model: str | None = None, written: Any = None) -> dict[str, Any]:
    """The aggregate record: every strict metric with its interval; the scorecard itself lies in its details.

    ``model``: the subject's name as org/name, which counts where the card names no repository. ``written``: the JSON
    of the card's file, which its seal is of; a card of an earlier version may lack keys.
    """
    base, subject = card.subject.base, card.subject
    base_id = base.hub_id or f"unknown/{base.alias}"
    library, package = _LIBRARIES[card.origin]
    version = card.provenance.packages.get(package) if package else card.provenance.finbench
    hosted = any(score.hosted for score in card.scores)
    stamp = card.provenance.when().timestamp()
    model_id = _repository(card) or model or f"unknown/{subject.name if subject.adapter else base.alias}"
    details = {
        "deployment_type": "externally_managed" if hosted else "unknown" if package else "self_deployed",
        "model_availability": "open_weights" if base.hub_id else "unknown",
        "base_model": base_id,
        "base_fingerprint": base.fingerprint,
        "bits": str(subject.bits),
        **({"base_revision": base.revision} if base.revision else {}),
        **({"adapter_sha256": subject.adapter, "adapter_method": subject.method or ""} if subject.adapter else {}),
    }
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"finbench/{model_id.replace('/', '_')}/{stamp:.0f}-{card.run_key[:12]}",
        "evaluation_timestamp": f"{stamp:.0f}",
        "retrieved_timestamp": f"{stamp:.0f}",
        "source_metadata": {
            "source_name": "finbench",
            "source_type": "evaluation_run",
            "source_organization_name": "finbench",
            "evaluator_relationship": "other",
            "additional_details": {"scorecard": _text(written or json.loads(card.to_json()))},
        },
        "eval_library": {"name": library, "version": version or "unknown"},
        "model_info": {
            "name": subject.name,
            "id": model_id,
            "inference_engine": {"name": card.engine},
            "additional_details": details,
        },
        "evaluation_results": [
            _result(card, score, name, measure) for score in card.scores for name, measure in score.metrics.items()
        ],
    }


def _result(card: Scorecard, score: Score, name: str, measure: Measure) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {}
    if measure.interval is not None:
        ends = {"lower": measure.low, "upper": measure.high}
        uncertainty["confidence_interval"] = {**ends, "confidence_level": 0.95, "method": measure.method}
    low, high = (str(end).replace("inf", "Infinity") if math.isinf(end) else end for end in metrics.bounds(name))
    return {
        "evaluation_result_id": f"{score.task}/{name}",
        "evaluation_name": score.task,
        "evaluation_timestamp": card.provenance.created,
        "source_data": {
            "dataset_name": score.data.set,
            "source_type": "other",
            "additional_details": {
                "split": score.data.split,
                "digest": score.data.digest,
                "rows": str(score.data.rows),
                "licence": score.licence,
            },
        },
        "metric_config": {
            "metric_id": name,
            "metric_name": metrics.spoken(name),
            "metric_unit": "proportion" if metrics.is_share(name) else "points",
            "lower_is_better": name in score.lower_is_better,
            "score_type": "continuous",
            "min_score": low,
            "max_score": high,
            "additional_details": {"main": str(name == score.main_metric).lower(), "task_digest": score.task_digest},
        },
        "score_details": {
            "score": measure.value,
            "details": {"parse_rate": f"{score.parse_rate.value:.6f}", "task_version": str(score.version)},
            "uncertainty": uncertainty | {"num_samples": score.n},
        },
        "generation_config": {
            "generation_args": {"temperature": (card.generation and card.generation.temperature) or 0.0}
            | ({"top_p": card.generation.top_p} if card.generation and card.generation.top_p else {}),
            "additional_details": {
                "shots": str(card.shots),
                "chat_template": str(card.subject.chat).lower(),
                "form": score.form,
            },
        },
    }


def path_part(name: str) -> str:
    """A name as part of a path: whoever wrote the card, it stays below the folder that was named."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "unknown"


def _texts(score: Score, data_dir: Path | None) -> tuple[Any, list[dict[str, Any]], str]:
    """(lm-eval's task, its rows, empty), or (None, none, why the texts are withheld)."""
    task: Task | None = catalog.tasks().get(score.task)
    if task is None:
        return None, [], f"{score.task} is not known here"
    if task.restricted:
        return None, [], f"the licence of {task.set} does not allow its texts to be published"
    if not task.shipped and not task.own and describe_set(task.set, data_dir) is None:
        return None, [], _MISSING
    lm_task = prompts.load([task], data_dir, metadata=score.data.choices)[task.name]
    docs = prompts.rows(lm_task, "test")
    if prompts.data_id(task, lm_task, "test", docs[: score.data.rows]).digest != score.data.digest:
        return None, [], _MISSING
    return lm_task, docs, ""


def _instance(
    row: Mapping[str, Any], score: Score, record: Mapping[str, Any], texts: Any, choices: Any = None
) -> dict[str, Any]:
    """The line of an answer; ``choices`` count where its texts are not here."""
    lm_task, docs, withheld = texts
    gold = next((value[0] for value in row["values"].values() if _is_reading(value)), None)
    if lm_task is None:
        raw, reference = f"[withheld: {withheld}; salted SHA-256 {row['doc']}]", [gold] if gold else []
    else:
        doc = docs[row["index"]]
        raw, reference = prompts.shown(lm_task, doc), [prompts.gold_answer(lm_task, doc)]
        choices = [str(c) for c in lm_task.doc_to_choice(doc)] if lm_task.config.doc_to_choice is not None else None
    answer = row.get("answer")
    said = [f"[withheld: {withheld}; salted SHA-256 {row.get('answer_sha256')}]"] if answer is None else [str(answer)]
    said = [repr(part) for part in answer] if isinstance(answer, list) else said
    read = next((value[1] for value in row["values"].values() if _is_reading(value)), None)
    metric, value = _one_score(row, score)
    if read is None and gold is None:
        read = _likeliest(answer, choices, metric) if score.form == "choice" else said[0]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": record["evaluation_id"],
        "model_id": record["model_info"]["id"],
        "evaluation_name": score.task,
        **({"evaluation_result_id": f"{score.task}/{metric}"} if metric else {}),
        "sample_id": "-".join(str(row[key]) for key in ("index", "sample") if key in row),
        "sample_hash": hashlib.sha256((raw + "".join(reference)).encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": raw, "reference": reference, **({"choices": choices} if choices else {})},
        "output": {"raw": said},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": "" if read is None else str(read),
                "extraction_method": "log-likelihood" if score.form == "choice" else "strict reading of finbench",
                "is_terminal": True,
            }
        ],
        "evaluation": {
            "score": value,
            "is_correct": bool(metric) and value == (0 if metric in score.lower_is_better else 1),
        },
        "metadata": {_ROW: _text({key: part for key, part in row.items() if key != "answer"})},
    }


def _is_reading(value: Any) -> bool:
    """Whether a metric's value of a document is (gold label, label that was read, labels)."""
    return isinstance(value, list | tuple) and len(value) == 3 and [*map(type, (value[0], value[2]))] == [str, list]


def _likeliest(answer: Any, choices: Sequence[str] | None, metric: str | None) -> str | int | None:
    """The choice that the scorer took, or its number; None where it divides by lengths, which no row tells."""
    if metric == "acc_norm":
        return None
    best = max(range(len(answer)), key=answer.__getitem__)
    return choices[best] if choices else best


def _one_score(row: Mapping[str, Any], score: Score) -> tuple[str | None, float]:
    """The metric that says whether an answer is right, else the main one of it alone, else whether it parsed."""
    values = row["values"]
    for name in _RIGHT:
        if name in score.metrics and isinstance(values.get(name), int | float):
            return name, float(values[name])
    main = values.get(score.main_metric)
    if main is not None and not isinstance(main, dict):
        try:
            alone = value_of([main], metrics.aggregations(score.task)[score.main_metric])
        except (ArithmeticError, ValueError, KeyError, TypeError):
            alone = math.nan
        if math.isfinite(alone):
            return score.main_metric, alone
    return None, float(values.get("parse_rate", 0.0))


def restored(path: Path, data_dir: Path | None = None) -> tuple[Scorecard, dict[str, list[dict[str, Any]]]]:
    """Card and sample rows by task of an aggregate JSON with its JSONL beside it.

    Texts of rows are compared where the rows lie here (``data_dir``). Raises FinbenchError for what finbench did not
    write, for files that are torn or do not belong together, and where anything in them is not what follows from the
    scorecard and the sample rows.
    """
    beside = path.with_name(f"{path.stem}_samples.jsonl")
    try:
        record, lines = strict_json(json_text(path, _LARGEST)), json_text(beside, _LARGEST).encode()
        version, details = record["schema_version"], record["source_metadata"].get("additional_details") or {}
        if version != SCHEMA:
            raise FinbenchError(f"{path} is of schema {version} of Every Eval Ever; {SCHEMA} is read here.", _EXPORT)
        if "scorecard" not in details:
            raise FinbenchError(
                f"{path} holds no scorecard: of what finbench did not write only the answers can be scored.",
                "A file of answers: finbench card import FILE --task TASK",
            )
        written = strict_json(bearable(details["scorecard"]))
        if places := seal.edited(written):
            raise FinbenchError(f"{path}: its scorecard was edited after it was written: {places[0]}.", _EXPORT)
        if record["detailed_evaluation_results"]["checksum"] != hashlib.sha256(lines).hexdigest():
            raise FinbenchError(f"{beside} is not as {path.name} names it: its SHA-256 differs.", _EXPORT)
        card = Scorecard.parse(written, str(path))
        answers = list(json_lines(lines.decode("utf-8")))
        ours = aggregate(card, str(record["model_info"]["id"]), written)
        ours["detailed_evaluation_results"] = _details(_stem(card, ours), lines, len(answers))
        _same(str(path), record, ours)
        if (who := ours["model_info"]["id"]) != _repository(card) and not who.startswith("unknown/"):
            say(f"{path.name}: that its subject is {who} only this record says; the card names no repository.")
        rows: dict[str, list[dict[str, Any]]] = {score.task: [] for score in card.scores}
        for line in answers:
            row = strict_json(line["metadata"][_ROW])
            if "answer_sha256" not in row:
                said: Sequence[str] = line["output"]["raw"]
                choice = next(score.form for score in card.scores if score.task == row["task"]) == "choice"
                row["answer"] = [float(part) for part in said] if choice else said[0]
                if choice and not all(map(math.isfinite, row["answer"])):
                    raise ValueError(f"log-likelihoods {', '.join(said)[:60]}")
            rows[row["task"]].append(row)
        _same_lines(beside, card, ours, answers, rows, data_dir)
    except FileNotFoundError as fault:
        raise FinbenchError(f"{beside} is missing.", f"It belongs beside {path}.") from fault
    except (AttributeError, LookupError, TypeError, ValueError, StopIteration, OSError, RecursionError) as fault:
        raise FinbenchError(f"{path} is no record of finbench ({reason(fault)}).", _EXPORT) from fault
    return card, rows


def _same_lines(
    path: Path,
    card: Scorecard,
    record: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[dict[str, Any]]],
    data_dir: Path | None,
) -> None:
    """Refuse a line that says something else than its sample row; texts are compared where they are here."""
    scores = {score.task: score for score in card.scores}
    texts = {name: _texts(score, data_dir) for name, score in scores.items()}
    left = {name: iter(own) for name, own in rows.items()}
    unseen: set[str] = set()
    for number, line in enumerate(answers, 1):
        task = str(strict_json(line["metadata"][_ROW])["task"])
        row, (lm_task, docs, why) = next(left[task]), texts[task]
        raw, hidden = line["input"]["raw"], _WITHHELD.fullmatch(str(line["input"]["raw"]))
        if hidden and hidden[1] == _MISSING:  # there, whatever is here
            lm_task, why = None, _MISSING
        ours = _instance(row, scores[task], record, (lm_task, docs, why), line["input"].get("choices"))
        if why == _MISSING and not hidden:  # there, and not here
            told = raw + "".join(line["input"]["reference"])
            ours |= {"input": line["input"], "sample_hash": hashlib.sha256(told.encode()).hexdigest()}
            unseen.add(task)
        _same(f"{path}:{number}", line, ours)
    for task in sorted(unseen):
        say(f"{task}: the texts of the record were not compared, for {_MISSING}.")


def _same(where: str, stated: Any, ours: Any) -> None:
    """Refuse what a record states otherwise than what follows from its scorecard."""
    if (found := next(_differences(stated, ours, ""), None)) is not None:
        key, there, here = found
        raise FinbenchError(f"{where}: it says {key} = {there}, its scorecard {here}.", _EXPORT)


def _differences(stated: Any, ours: Any, key: str) -> Iterator[tuple[str, str, str]]:
    """(key, what is stated there, what would be right), the first of them first."""
    if isinstance(stated, dict) and isinstance(ours, dict):
        for name in [*ours, *(name for name in stated if name not in ours)]:
            yield from _differences(stated.get(name, _NOTHING), ours.get(name, _NOTHING), f"{key}.{name}".strip("."))
    elif isinstance(stated, list) and isinstance(ours, list) and len(stated) == len(ours):
        for number, pair in enumerate(zip(stated, ours, strict=True)):
            yield from _differences(*pair, f"{key}[{number}]")
    elif stated != ours or isinstance(stated, bool) != isinstance(ours, bool):
        yield key, _brief(stated), _brief(ours)


def _brief(value: Any) -> str:
    """A value as part of a sentence."""
    if value is _NOTHING:
        return "nothing"
    text = f"{len(value)} entries" if isinstance(value, list) else _text(value)
    return text if len(text) < 80 else f"{text[:77]}..."
