"""Scorecards of earlier versions of their tasks, scored anew from the answers that they hold.

Of restricted sets a card holds salted hashes of its answers. A hash gives away what models usually say: the labels and
targets of the set, and short numbers. For the others the model can be asked again. However an answer is found, it
counts only if it has the hash that was recorded.
"""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import asking, cardfiles, percent
from finbench.core import catalog, seal
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError, check_used
from finbench.core.files import sha256_file, stable_json
from finbench.core.records import Score, Scorecard, Task
from finbench.core.seal import salted
from finbench.data import describe_set
from finbench.evaluation import rescore
from finbench.evaluation.rerun import engine_of
from finbench.evaluation.scored import status
from finbench.scoring import baselines, clusters_of, metrics, prompts, split_metrics, values_of

Rows = Sequence[dict[str, Any]]

_CHANCE, _DRAWS = 0.3, 100  # temperature and tries: rounding changes tokens that are about as probable


@dataclass(frozen=True)
class Rescored:
    """What became of a card: a line for each score that is new, or why the card stays as it was, and what to type."""

    card: str
    changes: list[str] = field(default_factory=list)
    refused: str = ""
    hint: str = ""


def rescore_cards(
    cards: Sequence[Path | str],
    *,
    data_dir: Path | None = None,
    ask: bool = False,
    adapter: str | None = None,
    base: str | None = None,
) -> list[Rescored]:
    """Score cards (files, or folders of them) anew where they lie; one of the present versions stays as it is.

    But for ``data.share``: it is added where a card has none, and the very rows lie here as a part of the authors'.
    A card is scored anew whole or not at all: only if nobody has edited it, its rows are here, and every answer is
    known. ``ask``: the model, found as for ``finbench verify --rerun``, is asked for the answers of which
    only a hash is known. A card of which data or model are not to be had is left, and it goes on with the others.
    """
    quiet()
    found: list[Rescored] = []
    loaded: dict[str, Any] = {}
    told: dict[str, str] = {}
    if not ask:
        check_used({"--adapter": adapter, "--base": base}, "--ask")
    model = (adapter, base) if ask else None
    for path in cardfiles.expand(cards):
        try:
            card = cardfiles.read(path)
            older = {score.task for score in card.scores if _task(score).version > score.version}
            shares = {score.task: share for score in card.scores if (share := _share(_task(score), score, data_dir))}
            work = older | shares.keys()
            changes = _card(path, card, older, shares, loaded, told, data_dir, model) if work else []
            found.append(Rescored(str(path), changes))
        except _Refused as reason:
            found.append(Rescored(str(path), refused=str(reason)))
        except FinbenchError as fault:
            found.append(Rescored(str(path), refused=fault.message.removesuffix("."), hint=fault.hint))
    return found


class _Refused(Exception):
    """Why a card stays as it was."""


def _task(score: Score) -> Task:
    task = catalog.tasks().get(score.task)
    if task is None:
        raise FinbenchError(f"{score.task} is not a task of this finbench.", "See them all: finbench tasks list")
    return task


def _share(task: Task, score: Score, data_dir: Path | None) -> float | None:
    """How much of the authors' test lies here, where that is known, and the score does not say it."""
    if score.data.share is not None or task.shipped or task.own:
        return None
    return (describe_set(task.set, data_dir) or {}).get("share")


def _card(
    path: Path,
    card: Scorecard,
    older: Set[str],
    shares: Mapping[str, float],
    loaded: dict[str, Any],
    told: dict[str, str],
    data_dir: Path | None,
    where: tuple[str | None, str | None] | None,
) -> list[str]:
    """Write the card with its older scores anew, and of ``shares`` those that are of its rows; a line for each."""
    if card.samples is None or card.origin != "finbench":
        raise _Refused("it holds no answers of finbench's own run")
    if older and card.generation is not None:
        raise _Refused("its answers are of another profile than direct: score its subject again")
    if card.seal is None or seal.edited(cardfiles.raw(path)):
        raise _Refused("it was edited after it was written, or has no seal")
    before, by_task = sha256_file(path), cardfiles.rows_by_task(path, card)
    lm_tasks = _loaded(card, older | shares.keys(), loaded, data_dir)
    engine = engine_of(card, {name: lm_tasks[name] for name in older}, *where) if where and older else None
    scores, lines = [], []
    try:
        for score in card.scores:
            if score.task in older:
                made, rows = _anew(card, score, by_task[score.task], lm_tasks[score.task], engine, told)
                lines.append(_said(score, made, _moved(by_task[score.task], rows)))
                score, by_task[score.task] = made, rows
            if score.task in shares and _same_rows(card, score, lm_tasks[score.task]):
                share = shares[score.task]
                score = score.model_copy(update={"data": score.data.model_copy(update={"share": share})})
                lines.append(f"{score.task}: its rows are {percent(share)} % of the test")
            scores.append(score)
    finally:
        if engine:
            engine.close()
    if not lines:  # the rows here are others than the card's
        return []
    with cardfiles.lock(path.parent):
        if sha256_file(path) != before:
            raise _Refused("another process has written it meanwhile")
        made_card = card.model_copy(update={"scores": scores, "status": status(scores, card.status == "complete")})
        cardfiles.write(path, made_card, [row for score in scores for row in by_task[score.task]])
    return lines


def _loaded(card: Scorecard, names: set[str], loaded: dict[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """The card's tasks with their rows; cards that ask alike share them in ``loaded``."""
    chosen = asking.chosen_rows(card)
    keys = {name: stable_json([name, card.shots, card.seed, chosen]) for name in sorted(names)}
    if new := [catalog.tasks()[name] for name, key in keys.items() if key not in loaded]:
        for name, lm_task in prompts.load(new, data_dir, card.shots, card.seed, chosen).items():
            loaded[keys[name]] = lm_task
    return {name: loaded[key] for name, key in keys.items()}


def _same_rows(card: Scorecard, score: Score, lm_task: Any) -> bool:
    docs = prompts.rows(lm_task, "test")[: prompts.taken(lm_task, card.limit, score.n)]
    return prompts.data_id(catalog.tasks()[score.task], lm_task, "test", docs).digest == score.data.digest


def _anew(
    card: Scorecard, score: Score, rows: Rows, lm_task: Any, engine: Any, told: dict[str, str]
) -> tuple[Score, list[dict[str, Any]]]:
    """A score by the task's scorer of today, and its rows; ``told``: answers by hash, of this and of other cards."""
    task = catalog.tasks()[score.task]
    docs = prompts.rows(lm_task, "test")[: prompts.taken(lm_task, card.limit, score.n)]
    if [row["doc"] for row in rows] != [salted(prompts.shown(lm_task, doc)) for doc in docs]:
        raise _Refused(f"the rows of {score.task} here are of another edition, or are asked in other words now")
    where = {row["index"]: row["index"] for row in rows}
    made = rescore.again(task, lm_task, rows, where)
    unknown = [row for row in rows if cardfiles.in_order(row) not in made]
    if unknown:
        if any("answer_sha256" not in row for row in unknown):
            raise _Refused(f"a row of {score.task} has not one log-likelihood for each label")
        if any(row["answer_sha256"] not in told for row in unknown):
            told |= _guessed(lm_task, docs)
        if engine:
            _asked(card, [row for row in unknown if row["answer_sha256"] not in told], lm_task, engine, told)
        known = [{**row, "answer": told[row["answer_sha256"]]} for row in unknown if row["answer_sha256"] in told]
        made |= rescore.again(task, lm_task, known, where)
        unknown = [row for row in unknown if cardfiles.in_order(row) not in made]
    if unknown:
        words = len({row.get("answer_sha256") for row in unknown})
        raise _Refused(
            f"of {score.task} {len(unknown):,} answers, {words:,} different ones, are hashes of unknown words"
        )
    fresh = [made[cardfiles.in_order(row)] for row in rows]
    update: dict[str, Any] = {"version": task.version, "task_digest": task.digest}
    update["prompts"] = None  # the rows are made anew from the answers to the task's own prompt
    update |= {"licence": task.licence, "prompt_style": task.prompt_style, "baselines": baselines(lm_task, docs)}
    if _moved(rows, fresh):
        by_name = metrics.aggregations(task.name)
        strict, lenient, parse_rate = split_metrics(values_of(fresh), by_name, clusters_of(fresh))
        # metrics whose values quote restricted text follow from no row
        update |= {"metrics": score.metrics | strict, "lenient": score.lenient | lenient, "parse_rate": parse_rate}
    return score.model_copy(update=update), fresh


@functools.cache
def _numbers() -> frozenset[str]:
    """Numbers as short answers write them."""
    return frozenset(
        [f"{number / 1000:.{digits}f}" for number in range(-3000, 3001) for digits in (1, 2, 3)]
        + [f"{number}{end}" for number in range(10_000) for end in ("", ".0", "0")]
    )


def _guessed(lm_task: Any, docs: Rows) -> dict[str, str]:
    """Usual answers to the documents by hash: what they offer or want, their words, nothing found, short numbers."""
    words = {"[]", "None", *(word for doc in docs for word in doc.get("choices") or ())}
    words |= {target for doc in docs if isinstance(target := lm_task.doc_to_target(doc), str)}
    cased = {case for word in words for case in (word, word.capitalize(), word.lower(), word.upper())}
    texts = (str(doc.get("text", "")) for split in ("train", "test") for doc in prompts.rows(lm_task, split))
    cased |= {word for text in texts for word in re.findall(r"[^\W\d_]{2,30}", text)}
    said = itertools.product(("", " ", "\n"), cased | _numbers(), ("", ".", "%", ",", " ", "\n"))
    return {salted(answer): answer for answer in map("".join, said)}


def _asked(card: Scorecard, rows: Rows, lm_task: Any, engine: Any, told: dict[str, str]) -> None:
    """Answers added to ``told`` by hash: a document of each unknown hash is asked again.

    Half precision rounds by what runs beside a prompt. So those that are still unknown are asked alone, and then, by an
    engine of our own, with a little chance.
    """
    template = engine.chat_template() if card.subject.chat else None
    where = {row["index"]: row["answer_sha256"] for row in rows}
    every = {one.doc_id: one for one in prompts.requests(lm_task, card.limit, template) if one.doc_id in where}

    def ask(requests: list[Any]) -> None:
        answers = [str(getattr(answer, "text", answer)) for answer in engine.answer(requests, lambda done: None)]
        told.update({salted(answer): answer for answer in answers})

    def left() -> list[Any]:
        return list({sha: every[index] for index, sha in where.items() if sha not in told}.values())

    ask(left())
    for request in left():
        ask([request])
    for request in left() if engine.name == "hf" else ():
        text, how = request.args
        drawn = copy.copy(request)
        drawn.arguments = text, {**how, "do_sample": True, "temperature": _CHANCE}
        for _ in range(_DRAWS):
            ask([drawn])
            if where[request.doc_id] in told:
                break


def _moved(before: Rows, after: Rows) -> int:
    """How many rows read otherwise."""
    pairs = zip(before, after, strict=True)
    return sum(stable_json(one["values"]) != stable_json(other["values"]) for one, other in pairs)


def _said(old: Score, new: Score, moved: int) -> str:
    main = f"{new.main_metric} {old.metrics[new.main_metric].value:.4f} -> {new.metrics[new.main_metric].value:.4f}"
    return f"{new.task}: version {old.version} -> {new.version}, {moved:,} of {new.n:,} rows read otherwise; {main}"
