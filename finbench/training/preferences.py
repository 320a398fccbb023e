"""Pairs of answers to learn from: the right one beside the strict failure of a scorecard, or rows of the user's own.

A scorecard's pairs are of train or validation rows: those of test are refused, and so are rows that hold a test text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.cards import asking, cardfiles
from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError, counted
from finbench.core.files import sha256_file, stable_json
from finbench.core.records import Contamination, LearntData, OwnData, Recipe, Score, Scorecard, Task
from finbench.data import contamination, own
from finbench.models import adapters, bases
from finbench.scoring import noise, prompts, sample_rows, sampling, wordings
from finbench.training import batches, holdout
from finbench.training.encoding import Rendered, RowEncoder
from finbench.training.pair_rows import AnswerPair, Source, of_rows
from finbench.training.pairwise import Pair

METHODS = ("lora", "rslora", "dora", "lora+", "lora-fa", "qlora")  # whose saved weights are those that train
OF_START = ("method", "options", "bits", "rank", "alpha", "target_modules", "chat")  # keys that an adapter decides


@dataclass(frozen=True)
class Gathered:
    """What a run learns. ``recipe``: with its tasks, and file and start pinned. ``first``: the first pair, shown."""

    recipe: Recipe
    pairs: list[Pair]
    data: list[LearntData]
    first: list[str]
    contamination: Contamination | None


def start_of(source: str) -> dict[str, Any]:
    """What a recipe takes from the adapter that it starts from.

    Raises FinbenchError for an adapter that finbench did not train, and for one whose saved weights do not go on.
    """
    found = adapters.find(source)
    if found.record is None or found.kind != "peft" or found.record.recipe.method not in METHODS:
        raise FinbenchError(
            f"{source} cannot be trained on: it is no adapter that finbench trained by {', '.join(METHODS)}.",
            "Train one: finbench train --task fpb; or leave --from out, to start from the base.",
        )
    before = found.record.recipe
    return {**{key: getattr(before, key) for key in OF_START}, "base": before.base}


def check(recipe: Recipe) -> None:
    """Refuse what does not go with pairs, from the recipe alone."""
    if recipe.preferences is None:
        if recipe.start is not None:
            raise FinbenchError("An adapter is gone on from by pairs of answers alone.", "Add --pairs card.json")
        return
    if recipe.method not in METHODS:
        raise FinbenchError(f"Pairs are not learnt by method {recipe.method}.", f"Choose one of: {', '.join(METHODS)}")
    for key, there in (("data", recipe.data), ("validation", recipe.validation), ("neftune", recipe.neftune)):
        if there:
            raise FinbenchError(f"{key} does not go with pairs of answers.", f"Leave {key} out, or pairs.")
    if recipe.sharding != "none":
        raise FinbenchError("Pairs are not learnt by a base in shards.", "--set sharding=none")
    if any(weight != 1 for weight in (*recipe.tasks.values(), recipe.preferences.weight)):
        raise FinbenchError("Pairs take no weight.", "Leave it out; --limit takes fewer.")
    before = adapters.record(adapters.locate(recipe.start.source)).recipe if recipe.start else recipe
    for key in OF_START:
        if (now := getattr(recipe, key)) != (then := getattr(before, key)):
            raise FinbenchError(
                f"{key} {now} is not that of {before.name}, which it starts from: {then}.",
                f"Leave {key} out, or start from the base: leave --from out.",
            )


def gather(recipe: Recipe, base: bases.Base, tokenizer: Any, data_dir: Path | None) -> Gathered:
    """Read, render and tokenise the pairs of a recipe. All that is wrong with them is a FinbenchError here."""
    assert recipe.preferences is not None
    stated, started = recipe.preferences, adapters.find(recipe.start.source) if recipe.start else None
    before = started.record if started else None
    if started and before:
        if before.base.fingerprint != base.id.fingerprint:
            raise FinbenchError(
                f"{started.name} was trained on another base ({before.base.alias}) than {base.id.alias}.",
                f"Name its base: --base {before.base.alias}",
            )
        if recipe.start and recipe.start.identity not in (None, started.identity):
            raise FinbenchError(f"{recipe.start.source} is another adapter than the recipe names.", "Name that one.")
    path, template = Path(stated.source), bases.chat_template(tokenizer, recipe.base) if recipe.chat else None
    learnt = list(before.recipe.tasks) if before else []
    card = _card(path)
    tasks = [one.task for one in card.scores if not recipe.tasks or one.task in recipe.tasks] if card else []
    if odd := set(recipe.tasks) - {*tasks, *learnt}:
        raise FinbenchError(f"{path.name} has no answers of {', '.join(sorted(odd))}.", "Leave --task out.")
    if card and (both := [one.task for one in card.scores if one.task in learnt and one.task not in tasks]):
        raise FinbenchError(  # the record of the run has all its tasks: by that recipe these would be learnt too
            f"{path.name} has answers of {', '.join(both)} as well, which the adapter to start from has learnt.",
            "Leave --task out; or name a card of the other tasks alone: finbench eval --tasks",
        )
    if card:
        stated = _pinned(stated, path)
        _check_card(card, path, recipe, base, started.identity if started else None)
    sieve = holdout.Sieve(_tests([*tasks, *learnt], data_dir), (), set())
    if card:
        sources = list(_of_card(card, path, recipe, data_dir, template, sieve))
    else:
        located = own.locate(stated)
        stated = stated.model_copy(update={"sha256": located.sha256})
        sources = [of_rows(located, recipe, template, sieve)]
    pairs = _encoded(sources, recipe, base, tokenizer)
    first, *_ = (pair for source in sources for pair in source.pairs)
    update = {"preferences": stated, "tasks": dict.fromkeys([*learnt, *tasks], 1.0)}
    if started and recipe.start:
        update["start"] = recipe.start.model_copy(update={"identity": started.identity})
    none = contamination.with_editions(Contamination(looked_for=sieve.looked_for, found={}), data_dir)
    return Gathered(
        recipe.model_copy(update=update),
        pairs,
        _in_order(list(before.data) if before else [], [one.recorded() for one in sources], learnt, tasks),
        [first.prompt, first.chosen, "\n[instead of]", first.rejected],
        contamination.together([before.contamination, none]) if before else none,
    )


def _in_order(
    before: list[LearntData], now: list[LearntData], learnt: Sequence[str], tasks: Sequence[str]
) -> list[LearntData]:
    """First one part for each task of the recipe, as records have them; then rows of one's own, and more pairs."""
    new = [part for task, part in zip(tasks, now, strict=False) if task not in learnt]
    return [*before[: len(learnt)], *new, *before[len(learnt) :], *(part for part in now if part not in new)]


def _card(path: Path) -> Scorecard | None:
    """The scorecard at ``path``; None for anything else but a folder of them, which is a FinbenchError."""
    if path.is_dir() and any(map(cardfiles.is_samples, path.iterdir())):
        raise cardfiles.missing(path)
    if path.suffix != ".json" or not path.is_file():
        return None
    found = None
    with contextlib.suppress(FinbenchError):
        found = cardfiles.raw(path)
    return cardfiles.read(path) if isinstance(found, dict) and {"scores", "subject"} <= found.keys() else None


def _pinned(stated: OwnData, path: Path) -> OwnData:
    sha = sha256_file(path)
    if stated.sha256 not in (None, sha):
        raise FinbenchError(f"{path} is not the scorecard that the recipe names.", f"Take this one by sha256: {sha}")
    return stated.model_copy(update={"sha256": sha})


def _check_card(card: Scorecard, path: Path, recipe: Recipe, base: bases.Base, start: str | None) -> None:
    split, whose = card.arguments.get("metadata.split", "test"), card.subject
    again = "finbench eval --adapter ./folder --tasks fpb --metadata split=train --out train"
    if card.engine == "dummy":
        raise FinbenchError(f"{path} is of the engine dummy, which has no base to train.", f"Score a model: {again}")
    if split == "test":
        raise FinbenchError(f"{path} is of test rows, which nothing may learn from.", f"Score train rows: {again}")
    if whose.base.fingerprint != base.id.fingerprint:
        raise FinbenchError(
            f"{path} is of another base ({whose.base.alias}) than {base.id.alias}.",
            f"Name that base (--base {whose.base.alias}), or score this one: {again}",
        )
    if card.shots or card.generation is not None or whose.chat != recipe.chat:
        how = f"{card.shots} worked examples" if card.shots else "another profile than direct"
        if whose.chat != recipe.chat:
            how = "the chat template" if whose.chat else "raw prompts"
        more = f"; or --set chat={str(whose.chat).lower()}" if whose.chat != recipe.chat and not start else ""
        raise FinbenchError(f"{path} was asked with {how}, which is not how it is trained.", f"{again}{more}")
    if card.samples is None:
        raise FinbenchError(f"{path} has no samples, so its answers are not known.", f"Score again: {again}")
    if start != whose.adapter:
        of = whose.adapter_name if whose.adapter else "the base"
        say(f"Note: the answers are those of {of}, from which this training does not start.")


def _of_card(
    card: Scorecard,
    path: Path,
    recipe: Recipe,
    data_dir: Path | None,
    template: Callable[..., str] | None,
    sieve: holdout.Sieve,
) -> Iterator[Source]:
    rows = cardfiles.rows_by_task(path, card)
    found = []
    for score in card.scores:
        if recipe.tasks and score.task not in recipe.tasks:
            continue
        catalog.recall(score.task, score.task_digest)
        task = catalog.tasks().get(score.task)
        if task is None or task.digest != score.task_digest:
            there = f"version {score.version}" if task else "a task that is not here"
            here = f", and here is version {task.version} with another definition" if task else ""
            raise FinbenchError(f"{path}: {score.task} is of {there}{here}.", "Score again: finbench eval")
        known = {k: v for k, v in asking.chosen_rows(card).items() if k in noise.OF_EVERY or getattr(task, k, None)}
        lm_task = prompts.load([task], data_dir, metadata=known)[task.name]
        found.append(_failures(score, task, lm_task, rows[task.name], card, template, sieve))
    if not any(one.pairs for one in found):
        why = ", ".join(f"{count:,} {why}" for one in found for why, count in one.dropped.items())
        raise FinbenchError(
            f"{path} has no strict failure to learn from" + (f" (left out: {why})." if why else "."),
            "Score more train rows, or another subject: finbench eval --metadata split=train",
        )
    for one in found:
        left = ", ".join(f"{count:,} {why}" for why, count in one.dropped.items())
        say(f"{one.data.set}: {counted(len(one.pairs), 'pair')}" + (f"; left out: {left}." if left else "."))
    yield from found


def _failures(
    score: Score,
    task: Task,
    lm_task: Any,
    rows: Sequence[Mapping[str, Any]],
    card: Scorecard,
    template: Callable[..., str] | None,
    sieve: holdout.Sieve,
) -> Source:
    """The rows whose answer the scorer does not value as it values the right one, by the main metric."""
    docs = prompts.rows(lm_task, "test")[: prompts.taken(lm_task, card.limit, score.n)]
    stated = prompts.data_id(task, lm_task, str(card.arguments["metadata.split"]), docs)
    if stated.digest != score.data.digest or lm_task.multiple_input:
        why = "are not those of the data here" if stated.digest != score.data.digest else "are filled into each choice"
        raise FinbenchError(
            f"The rows of {score.task} on {card.subject.name}'s card {why}.", "Score them again, as they are here."
        )
    source, right = (
        Source(LearntData(**stated.model_dump()), []),
        {one["index"]: one for one in _right(task, lm_task, docs)},
    )
    delimiter = "" if template else lm_task.config.target_delimiter
    for row in rows:
        gold = right.get(row["index"])
        if gold is None or gold["doc"] != row["doc"]:
            raise _forged(card, score, row, "is of no document of the data here")
        doc = docs[row["index"]]
        if stable_json(row["values"][score.main_metric]) == stable_json(gold["values"][score.main_metric]):
            continue
        try:
            said = _said(row, lm_task, doc)
        except (LookupError, TypeError, ValueError) as fault:
            raise _forged(card, score, row, "has no answer of this task") from fault
        if said is None:
            source.dropped["known by a hash alone, for the licence lets no text be shown"] += 1
        elif not said.strip():
            source.dropped["empty"] += 1
        elif not sieve.fits(contamination.fields(doc)):
            source.dropped["with a test text"] += 1
        else:
            prompt, answer = prompts.pair(lm_task, doc, template)
            said = said if said[:1].isspace() else delimiter + said
            if said.strip() == answer.strip():
                source.dropped["that say the right answer"] += 1
            else:
                source.pairs.append(AnswerPair(prompt, answer, said, f"row {row['index']} of {score.task}"))
    return source


def _forged(card: Scorecard, score: Score, row: Mapping[str, Any], what: str) -> FinbenchError:
    return FinbenchError(
        f"Row {row['index']} of {score.task} on {card.subject.name}'s card {what}.", "Score again: finbench eval"
    )


def _right(task: Task, lm_task: Any, docs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sample rows of the right answers."""
    instances = prompts.asked(lm_task, docs)
    for one in instances:
        if one.request_type == "generate_until":
            one.resps = [prompts.gold_answer(lm_task, one.doc)]
        else:
            one.resps = [(0.0 if one.idx == prompts.gold_choice(lm_task, one.doc) else -1.0, False)]
    return sample_rows(lm_task, instances, choice=task.form == "choice", restricted=task.restricted)[0]


def _said(row: Mapping[str, Any], lm_task: Any, doc: Mapping[str, Any]) -> str | None:
    """What a sample row's answer said; None where only its hash is there, and it is none of the usual ones."""
    labels = wordings.labels_of(lm_task, doc)
    found = sampling.as_given(row, labels)
    if isinstance(row.get("answer"), list):
        values = row["answer"]
        return str(lm_task.doc_to_choice(dict(doc))[values.index(max(values))])
    if found and not isinstance(found[0], str):
        raise TypeError("an answer is a text")
    return None if found is None else str(found[0])


def _tests(names: Iterable[str], data_dir: Path | None) -> dict[str, list[contamination.Known]]:
    """What test rows are known by: of ranked tasks that are here, and of these tasks, ranked or not."""
    ranked = contamination.of_tests(data_dir)
    tests = dict(ranked)
    for task in [catalog.tasks()[name] for name in names if name in catalog.tasks()]:
        if task.set in ranked:
            continue
        with contextlib.suppress(FinbenchError):  # of the start, whose rows are not here
            lm_task = prompts.load([task], data_dir)[task.name]
            tests[task.set] = [*tests.get(task.set, ()), *holdout.texts_of(lm_task, prompts.rows(lm_task, "test"))]
    return tests


def _encoded(sources: Sequence[Source], recipe: Recipe, base: bases.Base, tokenizer: Any) -> list[Pair]:
    """The pairs as tokens, ``limit`` of each source; those that are too long are refused, or left out of it."""
    longest = min(recipe.max_length, bases.context_length(base) or recipe.max_length)
    encoder, made = RowEncoder(tokenizer), list[Pair]()
    for source in sources:
        if recipe.limit is not None and recipe.limit < len(source.pairs):
            source.pairs = batches.choose(source.pairs, recipe.limit, recipe.seed)
        texts = [(pair.prompt, answer) for pair in source.pairs for answer in (pair.chosen, pair.rejected)]
        rows = list(encoder.rows([Rendered.of_pair(*text) for text in texts]))
        both = list(zip(rows[::2], rows[1::2], strict=True))
        size = [max(len(row.ids) for row in two) for two in both]
        if over := [pair.place for pair, many in zip(source.pairs, size, strict=True) if many > longest]:
            if recipe.long_rows != "drop":
                raise FinbenchError(
                    f"{len(over):,} of {len(both):,} pairs of {source.data.set} are longer than {longest:,} tokens "
                    f"(up to {max(size):,}), such as {over[0]}.",
                    f"Leave them out (--set long_rows=drop), or allow them (--set max_length={max(size)}), "
                    "if the base's context allows that many.",
                )
            source.dropped["too long"] += len(over)
        fits = [many <= longest for many in size]
        source.pairs = [pair for pair, ok in zip(source.pairs, fits, strict=True) if ok]
        kept = [two for two, ok in zip(both, fits, strict=True) if ok]
        batches.check_lengths([row for two in kept for row in two], longest, source.data.set)
        made += [Pair(number, *two) for number, two in enumerate(kept, len(made))]
    if not made:
        raise FinbenchError("No pair is left to learn from.", "Allow longer ones: --set max_length=1024")
    return made
