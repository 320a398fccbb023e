"""Sample rows and numbers of a card, beside what finbench would have written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from finbench.cards import cardfiles
from finbench.core import catalog, seal
from finbench.core.records import Measure, Prompts, Score, Scorecard, Task
from finbench.evaluation import rescore
from finbench.evaluation.found import Verification
from finbench.scoring import metrics, prompted, wordings

_KEYS = {"task", "index", "doc", "cluster", "values"}  # of a sample row, and its answer
_COUNTS = ("reasoning_tokens", "answer_tokens", "confidence")
_EXACT = 1e-9  # scores are sums of the same numbers: equal up to rounding
_ENDS = 1e-7  # intervals come of the same seed; libraries differ in the last digits of Student's t
_CERTAIN = 1e-3  # log-likelihood of what is certain, which rounding may put a little above 0
_LEAST = -1e15  # below every log-likelihood
_DRAWN = 0.03  # of a bootstrap's width: NumPy 2.5 draws other multinomials by one seed; two seeds differ by 0.01


def misnamed(card: Scorecard) -> str:
    """Why a base is not the one that its alias names in bases.yaml; empty where it may be.

    A folder may have any name; lm-eval and inspect know a model by the last part of its own.
    """
    base = card.subject.base
    entry, named = catalog.bases().get(base.alias), [base.alias]
    named += [entry.hub_id] if entry else []
    known = base.hub_id in named or (base.source == "folder" and base.hub_id is None)
    last = card.origin != "finbench" and (base.hub_id or "").rpartition("/")[2] == base.alias
    return f"is {base.hub_id!r}; {base.alias} is {entry.hub_id}" if entry and not (known or last) else ""


def examples(score: Score) -> Iterator[tuple[str, str]]:
    """What cannot be in a score's words on its worked examples: where, and why."""
    task = catalog.tasks().get(score.task)
    stated = {} if task is None or task.own else metrics.config(task.name)
    meant = stated.get("fewshot_split") or score.fewshot_split
    if not meant or score.fewshot_split != meant:
        yield (
            "fewshot_split",
            f"is {score.fewshot_split!r}, and there are worked examples: they are of {meant or 'one'}",
        )
    if not re.fullmatch("[0-9a-f]{64}", score.fewshot_digest or ""):
        yield "fewshot_digest", f"is {score.fewshot_digest!r}, and there are worked examples: it is a SHA-256"


def rows(task: Task, every: list[dict[str, Any]], apart: set[str], found: Verification, prompt: str = "") -> None:
    """Rows as finbench writes them: with the answer, or its hash where texts must not be shown, source and metrics."""
    what = "as written", task.name, task.restricted, frozenset(apart)
    for row in every:
        for at, wrong in cardfiles.of_row(row, what, lambda one: [*_unlike(task, one, apart)]):
            found.fault(f"samples[{task.name} {row['index']}]{prompt}{at}", wrong)


def _unlike(task: Task, row: dict[str, Any], apart: set[str]) -> Iterator[tuple[str, str]]:
    """Where in a row something is unlike what finbench writes, and what."""
    answer = "answer" if task.form == "choice" or not task.restricted else "answer_sha256"
    names = metrics.aggregations(task.name).keys()
    if not isinstance(row.get(answer), list if task.form == "choice" else str):
        yield f".{answer}", "is missing"
    elif task.form == "choice":
        yield from ((".answer", wrong) for wrong in _unlikely(task, row))
    if row.get("truncated") and row.get(answer) not in ("", seal.salted("")):
        yield f".{answer}", "is said to be cut off, and is not empty"
    if any(row.get(name, 0) < 0 for name in _COUNTS) or row.get("confidence", 0) > 100:
        yield "", "counts fewer than no tokens, or is more than 100 % sure"
    for name in row.keys() - _KEYS - {answer} - apart:
        yield f".{name}", "is nothing that a sample row of this task has"
    if row["values"].keys() != names:
        yield ".values", f"has {sorted(row['values'])}; the task's scorer gives {sorted(names)}"


def _unlikely(task: Task, row: dict[str, Any]) -> Iterator[str]:
    """What cannot be in a row's log-likelihoods: one for each label, each a number that is no more than 0."""
    for value in row["answer"]:
        if type(value) not in (int, float) or not _LEAST < value <= _CERTAIN:
            yield f"has {repr(value)[:50]}, which is no log-likelihood: those are numbers up to 0"
    own = (value[2] for value in row["values"].values() if isinstance(value, list) and isinstance(value[-1], list))
    labels = next(own, None if task.own else task.labels)
    if not row["answer"] or len(row["answer"]) != len(labels or row["answer"]):
        yield f"has {len(row['answer'])} log-likelihoods, for {len(labels or ())} labels"


def prompts(task: Task, score: Score, own: list[dict[str, Any]], apart: set[str], found: Verification) -> bool:
    """What other prompts gave, from the rows of each; False where the rows are not such as could be read further."""
    place, stated = f"scores[{score.task}].prompts", score.prompts
    if stated is None:
        return all("prompts" not in row for row in own)  # a fault by ``rows``
    known = {one.name: one for one in wordings.of(task)}
    wanted = [known[one.name] for one in stated.each if one.name in known]
    ordered = [one for one in known.values() if one in wanted]
    if len(wanted) < len(stated.each) or wanted != ordered or stated.each[0].name != wordings.OWN:
        found.fault(f"{place}.each", "lacks the task's own prompt, or has others than the task, or another order")
        return False
    for one, meant in zip(stated.each, wanted, strict=True):
        for name, value in (("version", meant.version), ("digest", meant.digest), ("about", list(meant.about))):
            if getattr(one, name) != value:
                found.fault(f"{place}.{one.name}.{name}", f"is {getattr(one, name)!r}; the prompt here has {value!r}")
        if score.form == "generate" and one.truncated > score.n:
            found.fault(f"{place}.{one.name}.truncated", "is more than there are prompts")
    if any(fault.field.startswith(place) for fault in found.faults):
        return False
    before = len(found.faults)
    with found.reading(f"samples[{task.name}].prompts"):
        for other in wanted[1:]:
            by_prompt = prompted.rows_of(own, other.name)
            rows(task, by_prompt, apart, found, f".prompts.{other.name}")
            for at, wrong in rescore.consistent(by_prompt, score) if len(found.faults) == before else ():
                found.fault(f"{at} ({other.name})", wrong)
        if len(found.faults) > before:
            return False
        how = metrics.aggregations(task.name)[task.main_metric]
        have = prompted.summary(task, wanted, own, how, {one.name: one.truncated for one in stated.each})
        surplus = {name for row in own for name in row["prompts"]} - {one.name for one in wanted}
    if len(found.faults) > before:
        return False
    if surplus:
        found.fault(f"samples[{task.name}].prompts", f"have {', '.join(sorted(surplus))}, which the card does not name")
    _summary(place, stated, have, found)
    return True


def _summary(place: str, stated: Prompts, have: Prompts, found: Verification) -> None:
    """Every number of the record beside what the rows give."""
    for one, other in zip(stated.each, have.each, strict=True):
        close(f"{place}.{one.name}.main", one.main, other.main, found)
        if abs(one.parse_rate - other.parse_rate) > _EXACT:
            found.fault(f"{place}.{one.name}.parse_rate", f"is {one.parse_rate}; the samples give {other.parse_rate}")
    for name in ("n", "worst", "best"):
        if getattr(stated, name) != getattr(have, name):
            found.fault(f"{place}.{name}", f"is {getattr(stated, name)!r}; the samples give {getattr(have, name)!r}")
    numbers = [("spread", stated.spread, have.spread)]
    numbers += [(f"share.{name}", stated.share.get(name, -1.0), value) for name, value in have.share.items()]
    for name, said, value in numbers:
        if abs(said - value) > _ENDS:
            found.fault(f"{place}.{name}", f"is {said}; the samples give {value}")
    for name in ("mean", "label_order_bias", "answer_position_bias"):
        said, value = getattr(stated, name), getattr(have, name)
        if (said is None) != (value is None):
            found.fault(f"{place}.{name}", "is missing, or there though no two prompts differ in it alone")
        elif said is not None:
            close(f"{place}.{name}", said, value, found)


def close(place: str, stated: Measure, have: Measure, found: Verification) -> None:
    """A measure of the card, and what the samples give."""
    if abs(stated.value - have.value) > _EXACT:
        found.fault(place, f"is {stated.value}; the samples give {have.value}")
        return
    low, high = have.interval or (0.0, 0.0)
    ends = max(_ENDS, _DRAWN * (high - low)) if "bootstrap" in have.method else _ENDS
    for end in ("low", "high"):
        one, other = getattr(stated, end), getattr(have, end)
        if one != other and (one is None or other is None or abs(one - other) > ends):
            found.fault(f"{place}.{end}", f"is {one}; the samples give {other}")
    if stated.method != have.method:
        found.fault(f"{place}.method", f"is {stated.method!r}; it was made by {have.method!r}")
