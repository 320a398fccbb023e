"""Scoring recorded answers again: by the task's own scorer, from the data where they lie here, else by hashes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import asking, cardfiles
from finbench.core import catalog, paths
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.files import stable_json
from finbench.core.records import Score, Scorecard, Task
from finbench.core.seal import salted
from finbench.scoring import LENIENT, baselines, metrics, noise, prompted, prompts, sample_rows, sampling, wordings

Rows = Sequence[Mapping[str, Any]]
Fault = tuple[str, str]  # a place in the samples or the card that cannot be right, and why
_CORRECTED = 0.01  # of the right answers at most that another edition of a set may have corrected
_CHANCE = 1e-3  # that so many first rows of a test are also those of a part of it
_MOST = 1e15  # above every number that a row can have


@dataclass
class Outcome:
    """What scoring again found: in words, what cannot be right, and what rests on the word of who wrote the card."""

    said: str = ""
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _at(row: Mapping[str, Any], what: str) -> str:
    return f"samples[{row['task']} {row['index']}].{what}"


def consistent(rows: Rows, score: Score) -> Iterator[Fault]:
    """Contradictions inside rows: values that the task's scorer never gives, or that do not follow from each other."""
    task = catalog.tasks()[score.task]
    kinds = {name: metrics.known_as(how) for name, how in metrics.aggregations(task.name).items()}
    labels = None if task.own else task.labels
    asked = _questions(task, score)
    what = "consistent", task.name, *asked
    for row in rows:
        if row["values"].keys() == rows[0]["values"].keys():
            yield from cardfiles.of_row(row, what, lambda one: [*_contradictions(one, kinds, labels, asked)])
        else:
            yield _at(row, "values."), f"has {sorted(row['values'])}, the first row {sorted(rows[0]['values'])}"


def _questions(task: Task, score: Score) -> Sequence[str]:
    """The names of the questions that a task asks of each text, in this order; none where noise may leave some out."""
    if task.set != "headlines" or "noise" in score.data.choices:
        return ()
    return [name for name, _, _ in paths.helper("sets").headlines.QUESTIONS]


def _contradictions(
    row: Mapping[str, Any], kinds: Mapping[str, str], labels: Sequence[str] | None, asked: Sequence[str]
) -> Iterator[Fault]:
    """``kinds``: aggregation of each metric; ``labels``: of the task, None where each row has its own."""
    values = row["values"]
    if "reading" in row and not _reading_follows(row):
        yield _at(row, "reading"), "is not what the answer says"
    for name, value in values.items():
        place, kind = _at(row, f"values.{name}"), kinds.get(name, "")
        if isinstance(value, dict):
            continue
        if kind in FITTING and not FITTING[kind](value, name, labels):
            yield place, f"is nothing that the task's scorer gives: {repr(value)[:100]}"
            continue
        if kind in metrics.BY_LABEL:
            gold, predicted, _ = value
        elif kind in metrics.BY_QUESTION:
            question, gold, predicted = value
            if asked and question != (meant := asked[row["index"] % len(asked)]):
                yield place, f"is of {question[:50]!r}; the task asks {meant!r} here"
        else:
            continue
        lenient = LENIENT if name.endswith(LENIENT) else ""
        if values.get("acc" + lenient, float(gold == predicted)) != float(gold == predicted):
            yield place, f"gold {gold!r}, prediction {predicted!r} contradict the accuracy"
        if not lenient and values.get("parse_rate", float(predicted is not None)) != float(predicted is not None):
            yield place, f"prediction {predicted!r} contradicts the parse rate"


def _reading_follows(row: Mapping[str, Any]) -> bool:
    """Whether the reading of a sample is that of its answer; of one that is only a hash, as far as its values tell."""
    answer, values = row.get("answer"), row["values"]
    meant = sampling.reading(answer, values) if isinstance(answer, str) else sampling.hidden(values)
    return meant is None or meant == row["reading"]


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _counts(value: Any) -> bool:
    return _parts(value, _count, _count, _count)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _parts(value: Any, *kinds: Callable[[Any], bool] | None) -> bool:
    """Whether a value has one part of each of these kinds; None: of any."""
    if not isinstance(value, list | tuple) or len(value) != len(kinds):
        return False
    return all(kind is None or kind(part) for kind, part in zip(kinds, value, strict=True))


def _of(labels: Sequence[str], gold: Any, said: Any) -> bool:
    return gold in labels and (said is None or said in labels)


def _label_item(value: Any, labels: Sequence[str] | None = None) -> bool:
    """``labels``: of the task; None where each row has its own."""
    if not _parts(value, None, None, lambda own: isinstance(own, list | tuple)):
        return False
    gold, said, own = value
    return list(own) == list(labels or own) and all(map(_text, own)) and _of(own, gold, said)


def _by_type(value: Any, labels: Sequence[str] | None) -> bool:
    return isinstance(value, list | tuple) and len(value) == len(labels or value) and all(map(_counts, value))


# kind of aggregation -> whether a row can have a value, of the metric of this name and a task with these labels
FITTING: dict[str, Callable[[Any, str, Sequence[str] | None], bool]] = {
    "mean": lambda value, name, _: _share(value) if metrics.is_share(name) else _number(value),
    "chosen_mean": lambda value, *_: _parts(value, (0, 1).__contains__, _share),
    **dict.fromkeys(metrics.BY_LABEL, lambda value, _, labels: _label_item(value, labels)),
    **dict.fromkeys(
        metrics.BY_QUESTION,
        lambda value, _, labels: _parts(value, _text, None, None) and (labels is None or _of(labels, *value[1:])),
    ),
    **dict.fromkeys(
        ("r2", "mse"), lambda value, *_: _parts(value, _number, lambda said: said is None or _number(said))
    ),
    "gold_macro_f1": lambda value, *_: _parts(value, _text, lambda said: said is None or _text(said)),
    **dict.fromkeys(("finlora_acc", "finlora_f1"), lambda value, *_: _parts(value, _text, _text)),
    "span_f1": lambda value, *_: _counts(value),
    "span_macro_f1": lambda value, _, labels: _by_type(value, labels),
}


def scored_again(score: Score, task: Task, rows: Rows, card: Scorecard, data_dir: Path | None) -> Outcome:
    """The answers scored again: with the very rows where they lie here, else as far as the samples alone allow."""
    if task.own:
        return of_own(score, task, rows, card)
    if task.shipped or (paths.data_dir(data_dir) / task.set / "test.jsonl").is_file():
        return with_data(score, task, rows, card, data_dir)
    return without_data(score, task, rows)


def with_data(score: Score, task: Task, rows: Rows, card: Scorecard, data_dir: Path | None) -> Outcome:
    """Data digest, document hashes, golds and every value, by the task's own scorer on the real rows."""
    quiet()
    chosen = {k: v for k, v in asking.chosen_rows(card).items() if k in noise.OF_EVERY or getattr(task, k, None)}
    lm_task = prompts.load([task], data_dir, card.shots, card.seed, chosen)[task.name]
    limit = prompts.taken(lm_task, card.limit, score.n)
    docs = prompts.rows(lm_task, "test")[:limit]
    found = prompts.data_id(task, lm_task, "test", docs)
    outcome = Outcome()
    if found.digest != score.data.digest:
        hashes = {salted(prompts.shown(lm_task, doc)) for doc in docs}
        if not task.shipped and hashes != {row["doc"] for row in rows}:
            return _other_edition(score, task, lm_task, rows, limit)
        outcome.faults.append((f"scores[{task.name}].data.digest", "is not that of the same documents here"))
    elif found.share not in (None, score.data.share) and _as_many(score, found.share, card.limit):
        what = f"is {score.data.share}; these rows are {found.share} of the authors' test"
        what += "" if score.data.share else ": finbench card rescore CARD says so in it"
        outcome.faults.append((f"scores[{task.name}].data.share", what))
    outcome.faults += _examples(score, lm_task) if card.shots else ()
    where = {row["index"]: row["index"] for row in rows}
    scored = again(task, lm_task, rows, where)
    blank = _blank(task, lm_task, rows, where, scored)
    for row in rows:
        if row["doc"] != salted(prompts.shown(lm_task, docs[row["index"]])):
            outcome.faults.append((_at(row, "doc"), "is not the hash of that row's prompt"))
        if new := scored.get(cardfiles.in_order(row)):
            outcome.faults += _differing(row, new)
        elif new := blank.get(cardfiles.in_order(row)):
            outcome.faults += _told_otherwise(row, new)
        else:
            outcome.faults.append((_at(row, "answer"), "has not one log-likelihood for each label of that row"))
    for prompt in (score.prompts.each if score.prompts else ())[1:]:
        outcome.faults += _by_prompt(task, lm_task, rows, prompt.name)
    if score.baselines != baselines(lm_task, docs):
        outcome.faults.append((f"scores[{task.name}].baselines", "are not those of the rows here"))
    if scored:
        outcome.said = (
            f"{len(scored):,} of {len(rows):,} answers scored again by the task's own scorer, on the data here"
        )
    elif not outcome.faults:
        outcome.said = f"its {len(docs):,} rows are those of the data here"
    if unread := len(rows) - len(scored):
        outcome.notes.append(f"{_unread(unread, score)} rests on the card: only hashes of them are there")
    return outcome


def _as_many(score: Score, share: float, limit: int | None) -> bool:
    """Whether the same rows are the same share of a test: the first few may be those of a larger part too."""
    return score.is_whole(limit) or min(share, score.data.share or 1) ** score.n < _CHANCE


def _examples(score: Score, lm_task: Any) -> Iterator[Fault]:
    """Where a score says that its worked examples come from other rows than those here."""
    for name, stated, meant in (
        ("fewshot_split", score.fewshot_split, prompts.shown_from(lm_task)),
        ("fewshot_digest", score.fewshot_digest, prompts.examples_digest(lm_task)),
    ):
        if stated != meant:
            yield f"scores[{score.task}].{name}", f"is {stated}; the rows of worked examples here have {meant}"


def _blank(
    task: Task, lm_task: Any, rows: Rows, where: Mapping[int, int], scored: Mapping[tuple[int, int], Any]
) -> dict[tuple[int, int], dict[str, Any]]:
    """Those that are not ``scored``, as if nothing had been answered: what a row says of its document."""
    unread = [row for row in rows if cardfiles.in_order(row) not in scored]
    return {} if task.form == "choice" else again(task, lm_task, [{**row, "answer": ""} for row in unread], where)


def _told_otherwise(row: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Fault]:
    """Where a row whose answer cannot be read differs in what does not depend on that."""
    yield from _differing(row, {**new, "values": {}})
    for name, stated, gold in _other_golds(row, new):
        said = f"has the right answer {stable_json(stated)[:100]}; that of the row here is {stable_json(gold)}"
        yield _at(row, f"values.{name}"), said


def _by_prompt(task: Task, lm_task: Any, rows: Rows, name: str) -> Iterator[Fault]:
    """What the answers to another prompt read by the task's own scorer, and where they stand in its list."""
    wording = next(one for one in wordings.of(task) if one.name == name)
    own, docs = prompted.rows_of(rows, name), prompts.rows(lm_task, "test")
    scored = again(task, wordings.put(lm_task, wording), own, {row["index"]: row["index"] for row in own})
    for row, before in zip(own, rows, strict=True):
        if (new := scored.get(cardfiles.in_order(row))) is None:
            continue
        for at, fault in _differing(row, new):
            yield f"{at} ({name})", fault
        stated = before["prompts"][name].get("place")
        if stated is not None and stated != prompted.place(wording, docs[row["index"]], new):
            yield _at(row, f"prompts.{name}.place"), f"is {stated!r}, where the answer is not"


def of_own(score: Score, task: Task, rows: Rows, card: Scorecard) -> Outcome:
    """A benchmark of others: its rows lie in its folder; those that lie on the Hub may not be had."""
    try:
        return with_data(score, task, rows, card, None)
    except FinbenchError as fault:
        if not task.data.startswith("hub:"):
            raise
        return Outcome(notes=[f"its answers were not scored again: {fault.message}"])


def again(task: Task, lm_task: Any, rows: Rows, where: Mapping[int, int]) -> dict[tuple[int, int], dict[str, Any]]:
    """Rows made again from their answers by the task's own scorer, by index and sample.

    ``where``: index -> document here. Without those whose answer is free text that must not be published, or has not
    one number for each label.
    """
    instances: dict[int, list[Any]] = {}
    for instance in prompts.requests(lm_task, max(where.values(), default=0) + 1):
        instances.setdefault(instance.doc_id, []).append(instance)
    docs = prompts.rows(lm_task, "test")
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        number = where.get(row["index"])
        if number is None:
            continue
        target, choices = lm_task.doc_to_target(docs[number]), wordings.labels_of(lm_task, docs[number])
        answers = sampling.as_given(row, [*choices, *([target] if isinstance(target, str) else [])])
        choice = task.form == "choice"
        if answers is None or (choice and len(answers) != len(instances[number])):
            continue
        for instance, answer in zip(instances[number], answers, strict=True):
            instance.resps = [answer]
        [found[cardfiles.in_order(row)]] = sample_rows(
            lm_task, instances[number], choice=choice, restricted=task.restricted
        )[0]
    return found


def _other_edition(score: Score, task: Task, lm_task: Any, rows: Rows, limit: int | None) -> Outcome:
    """Rows of another edition of the set: neither side is wrong, but what both have must read the same.

    Rows that somebody chose are no edition: one that lacks many of the rows here has about as many others.
    """
    outcome = without_data(score, task, rows)
    docs = prompts.rows(lm_task, "test")
    numbers = {salted(prompts.shown(lm_task, doc)): number for number, doc in enumerate(docs)}
    here, there = set(list(numbers)[:limit]), {str(row["doc"]) for row in rows}
    lacking, more = here - there, there - numbers.keys()
    if len(lacking) > len(more) + math.ceil((0.1 if limit else 0.01) * len(here)):  # first rows move up where some go
        what = f"is of rows chosen from those here: {len(lacking):,} of {len(here):,} left out, {len(more):,} new"
        outcome.faults.append((f"scores[{task.name}].data.digest", what))
    where = {row["index"]: numbers[row["doc"]] for row in rows if row["doc"] in numbers}
    said = [outcome.said] if outcome.said else []
    outcome.said = "; ".join([*said, f"the {len(docs):,} rows here are another edition of {task.set}"])
    if not where:
        return outcome
    scored, moved = again(task, lm_task, rows, where), 0
    blank = _blank(task, lm_task, rows, where, scored)
    for row in rows:
        at = cardfiles.in_order(row)
        if (new := scored.get(at) or blank.get(at)) is None:
            continue
        differing = [*_differing(row, new)] if at in scored else [*_told_otherwise(row, new)]
        if differing and _other_golds(row, new):
            moved += 1
        else:
            outcome.faults += differing
    outcome.said += f", which have {len(where):,} of its {len(rows):,} documents"
    if moved > math.ceil(_CORRECTED * len(where)):
        what = f"has {moved:,} other right answers than the rows here, in {len(where):,} documents that both have"
        outcome.faults.append((f"scores[{task.name}].data.digest", what))
    elif moved:
        outcome.said += f"; {moved:,} of these have another right answer here"
        outcome.notes.append(f"{moved:,} of its right answers are others in the rows here: one edition is wrong")
    return outcome


def _unread(count: int, score: Score) -> str:
    return f"how {count:,} of its {score.n:,} answers were read"


def _other_golds(row: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Metrics of which two rows state another right answer, with both."""
    one, other = (metrics.golds(row["task"], side["values"]) for side in (row, new))
    both = [(name, one[name], other[name]) for name in one if name in other]
    return [found for found in both if stable_json(found[1]) != stable_json(found[2])]


def _differing(row: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Fault]:
    if row["cluster"] != new["cluster"]:
        yield _at(row, "cluster"), "is not the hash of that row's source"
    if row.get("of") != new.get("of"):
        yield _at(row, "of"), f"is not the row that this one was made of ({new.get('of')})"
    if "year" in row and row["year"] != new.get("year"):
        yield _at(row, "year"), f"is not the year of that row's document ({new.get('year') or 'which names none'})"
    for name, value in new["values"].items():
        if stable_json(row["values"].get(name)) != stable_json(value):
            said = f"is {stable_json(row['values'].get(name))}; the scorer gives {stable_json(value)}"
            yield _at(row, f"values.{name}"), said


def without_data(score: Score, task: Task, rows: Rows) -> Outcome:
    """Where the data are not here: answers of label tasks, read again; gold labels are taken from the rows."""
    outcome = Outcome()
    scorer = metrics.config(task.name).get("process_results")
    read: Any = metrics.function(scorer) if isinstance(scorer, catalog.Function) else None
    checked = 0
    for row in rows if read is not None else ():
        faults = cardfiles.of_row(row, ("read again", task.name), functools.partial(_read_again, read=read))
        if faults is not None:
            checked += 1
            outcome.faults += faults
    if checked:
        outcome.said = f"{checked:,} of {len(rows):,} answers read again by the task's own scorer"
    unread = [_unread(len(rows) - checked, score)] if checked < len(rows) else []
    twice = [f"that {score.duplicates:,} documents are there twice"] if score.duplicates else []
    what = ", ".join(["the gold labels", *unread, *twice])
    outcome.notes.append(f"its rows are not here, so {what} rest on the card: {task.data}")
    return outcome


def _read_again(row: Mapping[str, Any], read: Callable[..., Mapping[str, Any]]) -> list[Fault] | None:
    """Where a row's values are not what the scorer ``read`` gives for its answer; None where that cannot be read."""
    item = row["values"].get("macro_f1")
    if not _label_item(item):
        return None
    gold, _, labels = item
    # FinLoRA's own scorer reads target and text too, of the text only what follows its last "Answer:"
    doc = {"label": gold, "target": gold, "text": "Answer: ", "choices": list(labels)}
    answers = sampling.as_given(row, labels)
    if answers is None:
        return None
    return [*_differing(row, {**row, "values": read(doc, answers)})]
