"""Scorecards in the formats of others: the Hub's two, Every Eval Ever, and lm-eval's own results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from finbench.cards import cardfiles, everyeval
from finbench.cards.render import Heading, amount, in_brackets, parts_of
from finbench.core import refs, seal
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import write_atomic
from finbench.core.records import Measure, Score, Scorecard
from finbench.scoring import LENIENT, Z95, metrics


def export_card(
    card: Path | str,
    *,
    format: str,
    out: Path = Path("export"),
    model: str | None = None,
    data_dir: Path | None = None,
    benchmark: str | None = None,
    source: str | None = None,
) -> list[Path]:
    """Write a scorecard in another format below ``out``; return the files.

    ``model`` is the subject's Hub id (org/name), which a card of an adapter folder cannot know.

    ``eval-results``: ``.eval_results/finbench.yaml`` for a model repository; needs ``benchmark``, the data set that
    they belong to (hub:org/name[@commit]), and takes ``source``, where the card can be seen. ``model-index``: the
    metadata block of its README. ``every-eval-ever``: the aggregate JSON and a JSONL of a line an answer, of schema
    0.3.0, with the texts of rows that lie here (``data_dir``) and may be published. ``lm-eval``: a
    ``results_*.json``. Raises FinbenchError for an unknown format, an unreadable card, and results of a part of a test.
    """
    formats: dict[str, Callable[[Scorecard], dict[str, str]]] = {
        "eval-results": lambda found: {
            ".eval_results/finbench.yaml": _yaml(eval_results(found, _benchmark(benchmark), source))
        },
        "model-index": lambda found: {"model-index.yaml": _yaml(model_index(found, model))},
        "every-eval-ever": lambda found: everyeval.files(found, Path(card), model, data_dir),
        "lm-eval": _lm_eval,
    }
    if format not in formats:
        raise unknown("format", format, formats, "finbench card export --help")
    written = []
    read = cardfiles.read(Path(card))
    seal.refuse_edited(cardfiles.raw(Path(card)), str(card))
    for name, text in formats[format](read).items():
        write_atomic(out / name, text)
        written.append(out / name)
    return written


def _benchmark(named: str | None) -> str:
    """The data set that results belong to, as org/name[@commit]."""
    ref = refs.parse(named) if named else None
    if ref is None or ref.kind != "hub":
        said = f"{named} is no data set of the Hub." if named else "The Hub takes results of a benchmark that it has."
        raise FinbenchError(said, "Name it: --benchmark hub:org/name, or hub:org/name@commit")
    if ref.revision and not re.fullmatch("[0-9a-f]{40}", ref.revision):
        raise FinbenchError(f"{ref.revision} is no commit, which has 40 digits.", f"--benchmark hub:{ref.name}")
    return f"{ref.name}@{ref.revision}" if ref.revision else ref.name


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _notes(card: Scorecard, score: Score) -> str:
    """What one number cannot say: metric, interval, n, prompts, and which task, data and weights exactly."""
    share = metrics.is_share(score.main_metric)
    parts = [
        f"{Heading(score, ()).measured} {in_brackets(score.main, share)} (95 %)",
        f"n = {score.n}",
        f"{card.shots} shots" if card.shots else "zero-shot",
        "chat template" if card.subject.chat else "raw prompts",
        *([f"profile {card.generation.profile}"] if card.generation else []),
        f"task v{score.version} {score.task_digest[:12]}",
        f"data {score.data.digest[:12]}",
        f"base {card.subject.base.revision or card.subject.base.fingerprint[:12]}",
        *([f"adapter {card.subject.adapter[:12]}"] if card.subject.adapter else []),
        *(["partial"] if card.status == "partial" else []),
        *parts_of(card, score),
    ]
    return ", ".join(parts)


def eval_results(card: Scorecard, benchmark: str, source: str | None = None) -> list[dict[str, Any]]:
    """Entries of ``.eval_results/*.yaml`` in a model repository: the main metric of each task.

    ``benchmark``: the data set they belong to, org/name with @commit where that is known; ``source``: the address of
    the scorecard. FinbenchError for results of a part of a test, which the Hub would show as of the whole.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    name, _, revision = benchmark.partition("@")
    for score in card.scores:
        if part := parts_of(card, score) or (["a part of it"] if card.status == "partial" else []):
            raise FinbenchError(
                f"{score.task} of {card.subject.name} is of {', '.join(part)}; the Hub would show it as of the whole.",
                "Score the whole test: finbench eval, without --limit",
            )
    entries = [
        EvalResultEntry(
            dataset_id=name,
            dataset_revision=revision or None,
            task_id=score.task,
            # a share in per cent, as boards there show it
            value=float(amount(score.main.value, metrics.is_share(score.main_metric))),
            date=f"{card.provenance.when():%Y-%m-%dT%H:%M:%SZ}",
            source_url=source,
            source_name="Scorecard with every answer" if source else None,
            notes=_notes(card, score),
        )
        for score in card.scores
    ]
    return list(eval_result_entries_to_yaml(entries))


def model_index(card: Scorecard, model: str | None = None) -> dict[str, Any]:
    """The ``model-index`` of a model card (the older format): every strict metric; the data set says which part."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = [
        EvalResult(
            task_type="text-generation",
            task_name=score.task,
            dataset_type=_type(score),
            dataset_name=score.data.set + (f" ({', '.join(part)})" if (part := parts_of(card, score)) else ""),
            dataset_config=score.task,
            dataset_split=score.data.split,
            metric_type=name,
            metric_name=f"{metrics.spoken(name)}, strict",
            metric_value=float(amount(measure.value, metrics.is_share(name))),
            metric_args={"n": score.n} | (_ends(measure, metrics.is_share(name)) if measure.interval else {}),
        )
        for score in card.scores
        for name, measure in score.metrics.items()
    ]
    return {"model-index": eval_results_to_model_index(model or card.subject.name, results)}


def _type(score: Score) -> str:
    """The set's repository on the Hub where its rows are from there, else its name."""
    origin = score.data.origin or ""
    return origin.removeprefix("hub:") if origin.startswith("hub:") else score.data.set


def _ends(measure: Measure, share: bool) -> dict[str, float]:
    """The interval on the scale of the value beside it."""
    return {end: float(amount(getattr(measure, end), share)) for end in ("low", "high")} | {"level": 0.95}


def _lm_eval(card: Scorecard) -> dict[str, str]:
    """The aggregate results as lm-eval writes them; standard errors are a quarter of what the intervals span."""
    results = {}
    for score in card.scores:
        lenient = {name + LENIENT: measure for name, measure in score.lenient.items()}
        found: dict[str, float | str] = {"alias": score.task}
        for name, measure in {**score.metrics, **lenient, "parse_rate": score.parse_rate}.items():
            low, high = measure.interval or (None, None)
            error = "N/A" if low is None or high is None else (high - low) / (2 * Z95)  # N/A: where there is none
            found |= {f"{name},none": measure.value, f"{name}_stderr,none": error}
        results[score.task] = found
    base = card.subject.base
    made: dict[str, Any] = {
        "results": results,
        "versions": {score.task: score.version for score in card.scores},
        "n-shot": {score.task: card.shots for score in card.scores},
        "higher_is_better": {
            score.task: {name: name not in score.lower_is_better for name in score.metrics} for score in card.scores
        },
        "n-samples": {score.task: {"original": score.data.rows, "effective": score.n} for score in card.scores},
        "config": {
            "model": card.engine,
            "model_args": {"pretrained": base.hub_id or base.alias}
            | ({"peft": card.subject.adapter_name} if card.subject.adapter else {}),
            "model_dtype": card.dtype,
            "model_sha": base.revision or "",
            "limit": card.limit,
            "fewshot_seed": card.seed,
        },
        "model_source": card.engine,
        "model_name": card.subject.name,
        "date": card.provenance.when().timestamp(),
        "lm_eval_version": card.provenance.packages.get("lm-eval", "unknown"),
        "transformers_version": card.provenance.packages.get("transformers", "unknown"),
        "total_evaluation_time_seconds": str(card.seconds),
    }
    name = f"{everyeval.path_part(card.subject.name)}/results_{card.provenance.when():%Y-%m-%dT%H-%M-%S}.json"
    return {name: json.dumps(made, indent=2, ensure_ascii=False) + "\n"}
