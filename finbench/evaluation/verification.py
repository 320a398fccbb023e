"""Can a scorecard be believed: everything in it that can be recomputed, recomputed.

Levels: ``self-reported`` (the card alone, its numbers possible), ``samples-attached`` (every metric, interval and
count follows from the samples), ``reproduced`` (the model, asked again, gives the same answers).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from finbench.cards import RowsByTask, cardfiles
from finbench.core import catalog, owntasks, seal
from finbench.core.errors import FinbenchError, check_used
from finbench.core.records import Answers, Measure, Score, Scorecard, Task
from finbench.core.settings import TEMPLATED
from finbench.evaluation import drawing, evidence, options, rescore
from finbench.evaluation import rerun as again
from finbench.evaluation.found import EDITED, SEALED
from finbench.evaluation.found import Verification as Verification
from finbench.evaluation.notes import contradictions
from finbench.evaluation.subjects import DUMMY, Overlaps
from finbench.scoring import (
    LENIENT,
    answers,
    clusters_of,
    hidden_metrics,
    metrics,
    prompted,
    prompts,
    sample_counts,
    split_metrics,
    values_of,
    wordings,
)

_GENERATED = {"reasoning_tokens", "answer_tokens", "truncated"}  # of a row beside them, where answers were generated
_CLOCKS = timedelta(minutes=10)  # by which clocks may differ
_LEAST = 1e-9  # seconds: less is no time in which anything was asked


def verify(
    card: Path | str,
    *,
    rerun: int | str = 0,
    adapter: str | None = None,
    base: str | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
) -> Verification:
    """Check a scorecard against its samples, the tasks, the data that lie here and, with ``rerun``, the model.

    ``rerun`` documents of each task (``auto``: as many as it takes) are answered again by the model that the card
    names. They are drawn when asked; ``seed`` is that of an earlier rerun, to repeat it. ``adapter`` and ``base`` say
    where the model is, as for ``finbench eval``. Raises FinbenchError for a card that is not there, and for a model or
    data that a rerun needs and that are not.
    """
    path, count = Path(card), drawing.wanted(rerun)
    if seed is not None and seed < 0:
        raise FinbenchError(f"--seed counts from 0, got {seed}.", "Leave it out: then nobody can know what is asked.")
    if count == 0:
        check_used({"--base": base, "--seed": seed}, "--rerun auto")
    found = Verification(str(path))
    raw = cardfiles.raw(path)
    try:
        parsed = Scorecard.parse(raw, str(path))
    except FinbenchError as fault:
        found.fault("schema", fault.message)
        return found
    options.check_folders([adapter] if adapter else [], None if parsed.engine in options.ENDPOINTS else base)
    found.checks.append(f"schema {parsed.schema_}")
    with found.reading("card"):
        _follows(path, raw, parsed, data_dir, found)
    if adapter and parsed.subject.adapter and parsed.origin == "finbench" and not found.faults:
        _learnt(parsed, again.overlaps(parsed, adapter, data_dir), found)
    if not found.faults:
        found.level = "self-reported" if found.rows is None else "samples-attached"
    if count != 0 and not found.faults:
        if found.rows is None:
            raise FinbenchError(
                f"{path} has no samples, with which new answers could be compared.",
                "Leave --rerun out, or score the subject again: finbench eval",
            )
        answered = again.rerun(parsed, found.rows, count, adapter=adapter, base=base, seed=seed, data_dir=data_dir)
        _reproduced(answered, found)
        if parsed.engine == "dummy" and found.level == "reproduced":
            found.level = "samples-attached"
            found.notes.append("the dummy engine has no model, so that it answers the same says nothing")
    return found


def _follows(path: Path, raw: Mapping[str, Any], card: Scorecard, data_dir: Path | None, found: Verification) -> None:
    """Everything that follows without the model: from seal, tasks, samples and the data that lie here."""
    _sealed(raw, card, found)
    for score in card.scores:
        catalog.recall(score.task, score.task_digest)
        _task(card, score, found)
        _possible(card, score, found)
    for name, times in Counter(score.task for score in card.scores).items():
        if times > 1:
            found.fault(f"scores[{name}]", "is there more than once")
    if not card.scores:
        found.fault("scores", "there are none, so there is nothing to believe")
    if card.status == "complete" and card.limit is not None:
        found.fault("status", "a card with a limit is not complete")
    if card.status == "complete" and any(score.data.share for score in card.scores):
        found.fault("status", "a card of a part of a test is not complete: finbench card rescore says so in it")
    by_task = found.rows = _samples(path, card, found)
    if by_task is not None:
        for score in card.scores:
            with found.reading(f"samples[{score.task}]"):
                _rows(card, score, by_task.get(score.task, []), found)
        # where the SHA-256 of the samples alone is wrong, the edited rows are still looked for
        for score in card.scores if all(fault.field == "samples" for fault in found.faults) else ():
            task = owntasks.on_card(catalog.tasks()[score.task], score.licence)
            outcome = rescore.scored_again(score, task, by_task[score.task], card, data_dir)
            for fault in outcome.faults:
                found.fault(*fault)
            found.checks += [f"{score.task}: {outcome.said}"] if outcome.said else []
            found.notes += [f"{score.task}: {note}" for note in outcome.notes]


def _learnt(card: Scorecard, known: Overlaps, found: Verification) -> None:
    """What the card says of test texts in training, beside what its adapter says."""
    for score in card.scores:
        place, meant = f"scores[{score.task}].overlap", known[score.task]
        if meant is None or score.overlap == meant:
            continue
        said = f"{meant.texts:,} of {meant.of:,} test texts stand in the rows that its adapter learnt from"
        if score.overlap is None and catalog.tasks()[score.task].own:  # the rows were not to be had then
            found.notes.append(f"{score.task}: {said}, which the card does not know")
        else:
            found.fault(place, f"is not what its adapter's record says: {said}")


def _reproduced(answered: Sequence[again.Answered], found: Verification) -> None:
    """The level that new answers give: a few that differ among too few are neither a fault nor a reproduction."""
    found.asked += answered
    same = True
    for task in answered:
        said = f"{task.task}: {task.said}"
        if _judged(task, f"samples[{task.task}].values", said, found):
            found.checks += [said, f"{task.task}: {task.strength}"]
        else:
            same = False
        alike = [
            _judged(one, f"samples[{task.task}].prompts.{name}", f"{task.task}, prompt {name}: {one.said}", found)
            for name, one in task.by_prompt.items()
        ]
        same &= all(alike)
        if alike:
            found.checks.append(f"{task.task}: the same documents by {sum(alike)} of {len(alike)} other prompts")
    found.level = "none" if found.faults else "reproduced" if same else found.level


def _judged(one: again.Answered, place: str, said: str, found: Verification) -> bool:
    """Whether no more of the documents read otherwise than may; if not, it is noted, or a fault."""
    shown = ", ".join(map(str, one.moved[:10])) + (" …" if len(one.moved) > 10 else "")
    if one.chance:
        found.notes.append(f"{said} (not {shown}), too few to decide: raise --rerun")
    elif not one.same:
        may = f"allowed: {one.tolerated:.0%}" if one.tolerated else "none may differ"
        found.fault(place, f"{one.said}; not the same: {shown} ({may}; seed {one.seed})")
    return one.same


def _sealed(raw: Mapping[str, Any], card: Scorecard, found: Verification) -> None:
    """The seal names what was edited; the run key must follow from subject, settings and versions."""
    meant = dict(seal.leaves(json.loads(card.to_json())))
    for place in seal.beyond(raw):
        found.fault(place, "is a number beyond all that are measured")
    for place, written in seal.leaves(raw):
        read = meant.get(place, written)
        if type(read) is not type(written) and not (isinstance(read, float) and type(written) is int):
            found.fault(place, f"is written as {written!r}, which other readers do not take for {read!r}")
    try:
        if card.provenance.when() > datetime.now(UTC) + _CLOCKS:
            found.fault("provenance.created", f"is {card.provenance.created}, which is yet to come")
    except FinbenchError as fault:
        found.fault("provenance.created", fault.message)
    if misnamed := evidence.misnamed(card):
        found.fault("subject.base.hub_id", misnamed)
    if card.engine == "dummy" and card.subject.base != DUMMY:
        found.fault("subject.base", f"is {card.subject.base.alias!r}, but the dummy engine answers without any model")
    who = card.subject
    if who.adapter == "" or (who.kind == "peft" and who.adapter is None) or (who.kind == "base" and who.adapter):
        found.fault("subject.kind", f"is {who.kind}, and the adapter is {who.adapter!r}")
    if card.seal is None:
        found.fault("seal", "is missing")
    else:
        for place in seal.edited(raw):
            found.fault(place, EDITED)
    if cardfiles.run_key(card) != card.run_key:
        found.fault("run_key", "does not follow from subject, settings and versions: one of them was edited")
    found.checks.append(SEALED)


def _task(card: Scorecard, score: Score, found: Verification) -> None:
    place = f"scores[{score.task}]"
    task = _task_of(score)
    if task is None:
        if score.family == owntasks.FAMILY:
            raise catalog.not_here(score.task)
        found.fault(f"{place}.task", "is not a task of this finbench")
        return
    if score.version != task.version:
        wrote = f"the card was written by finbench {card.provenance.finbench}"
        found.fault(f"{place}.version", f"is {score.version}; this finbench has version {task.version} ({wrote})")
    elif score.task_digest != task.digest:
        which = f"the folder {catalog.root_of(task.name)}" if task.own else f"version {score.version} of the task"
        found.fault(f"{place}.task_digest", f"is not that of {which}")
    same = ("family", "form", "main_metric", "licence", "prompt_style")
    meant = {name: (getattr(score, name), getattr(task, name)) for name in same}
    meant["lower_is_better"] = score.lower_is_better, metrics.lower_is_better(task.name)
    meant["data.set"] = score.data.set, task.set
    for name, (stated, wanted) in meant.items():
        if stated != wanted:
            found.fault(f"{place}.{name}", f"is {stated!r}; the task says {wanted!r}")
    if score.data.split != "test":
        found.fault(f"{place}.data.split", f"is {score.data.split!r}; tasks are scored on the test split")


def _task_of(score: Score) -> Task | None:
    """The task of a score as it was for it; None for one that is not known here."""
    task = catalog.tasks().get(score.task)
    return task and owntasks.on_card(task, score.licence)


def _possible(card: Scorecard, score: Score, found: Verification) -> None:
    """Counts that fit each other, values that a share of n can have."""
    place = f"scores[{score.task}]"
    measures = {"parse_rate": score.parse_rate} | {f"metrics.{name}": one for name, one in score.metrics.items()}
    measures |= {f"lenient.{name}": one for name, one in score.lenient.items()}
    wanted = score.data.rows if card.limit is None else min(card.limit, score.data.rows)
    if score.n != wanted:
        found.fault(f"{place}.n", f"is {score.n}; the data have {wanted} rows")
    if score.form == "generate" and score.truncated > score.n:
        found.fault(f"{place}.truncated", "is more than there are prompts")
    if how := card.generation:
        if how.profile in TEMPLATED and not card.subject.chat:
            found.fault("subject.chat", f"is false, and profile {how.profile} asks in the chat template")
        if how.profile in ("think", "cot") and score.form == "choice":
            found.fault("generation.profile", f"is {how.profile}, and {score.task} has log-likelihoods of labels")
        if how.samples > 1 and not how.temperature:
            found.fault("generation.samples", f"is {how.samples}, drawn without a temperature")
    if 0 < score.seconds < _LEAST:
        found.fault(f"{place}.seconds", f"is {score.seconds:g}, in which nothing is answered")
    for name, metric, value in ((name, *one) for name, each in score.baselines.items() for one in each.items()):
        least, most = metrics.bounds(metric)
        if not least <= value <= most:
            found.fault(f"{place}.baselines.{name}.{metric}", f"is not between {least:g} and {most:g}")
    for name in ("clusters", "duplicates"):
        if getattr(score, name) > score.n:
            found.fault(f"{place}.{name}", f"is more than the {score.n} documents")
    if score.overlap and score.overlap.texts > score.overlap.of:
        found.fault(f"{place}.overlap", "has more texts than were looked for")
    for name, message in contradictions(card, score):
        found.fault(f"{place}.hosted{name}", message)
    if score.overlap and score.overlap.texts:
        texts, of = score.overlap.texts, score.overlap.of
        found.notes.append(f"{score.task}: its subject learnt from {texts:,} of the {of:,} test texts")
    if not card.shots and (score.fewshot_split or score.fewshot_digest):
        found.fault(f"{place}.fewshot_split", "has worked examples, and shots is 0")
    if card.shots:
        for name, message in evidence.examples(score):
            found.fault(f"{place}.{name}", message)
    for name, measure in measures.items():
        low, high = measure.interval or (measure.value, measure.value)
        if not measure.method:
            found.fault(f"{place}.{name}.method", "does not say how the interval was made, or why there is none")
        if not low <= measure.value <= high:
            found.fault(f"{place}.{name}", "lies outside its own interval")
        least, most = metrics.bounds(name.rpartition(".")[2])
        if not least <= low <= high <= most:
            found.fault(f"{place}.{name}", f"is not between {least:g} and {most:g}")
        if score.n == wanted < 2**53 and name.rpartition(".")[2] in ("acc", "exact_match", "parse_rate"):
            successes = measure.value * score.n * (card.generation.samples if card.generation else 1)
            if not 0 <= measure.value <= 1 or abs(successes - round(successes)) > 1e-6:
                found.fault(f"{place}.{name}", f"{measure.value} is not a share of {score.n} documents")


def _samples(path: Path, card: Scorecard, found: Verification) -> RowsByTask | None:
    """Rows by task, sorted by index; None where there are none to be had."""
    if card.samples is None:
        found.notes.append("no samples: its numbers are possible, and rest on the word of who wrote it")
        return None
    source = cardfiles.samples_path(path)
    try:
        source = cardfiles.samples_bytes(path, card.samples)
    except FinbenchError as fault:
        found.fault("samples", fault.message)
    try:
        rows = cardfiles.parse_samples(source) if source.is_file() else None
    except FinbenchError as fault:
        found.fault("samples", fault.message)
        rows = None
    if rows is None:
        return None
    by_task: RowsByTask = {}
    for number, row in enumerate(rows):
        if wrong := cardfiles.of_row(row, "row", cardfiles.unlike_row):
            found.fault(f"samples line {number + 1}", f"is no sample row ({wrong})")
            continue
        by_task.setdefault(str(row["task"]), []).append(row)
    for task in by_task.keys() - {score.task for score in card.scores}:
        found.fault("samples", f"have rows of {task}, of which the card has no score")
    return {task: sorted(rows, key=cardfiles.in_order) for task, rows in by_task.items()}


def _rows(card: Scorecard, score: Score, rows: list[dict[str, Any]], found: Verification) -> None:
    """Counts, and every metric with its interval, from the rows of one task."""
    place, sample = f"scores[{score.task}]", f"samples[{score.task}]"
    generated = card.generation if card.generation and score.form == "generate" else None
    samples = generated.samples if generated else 1
    there = [cardfiles.in_order(row) for row in rows]
    if len(rows) != score.n * samples or there != [divmod(number, samples) for number in range(len(rows))]:
        each = "once" if samples == 1 else f"with samples 0 to {samples - 1}"
        found.fault(f"{sample}.index", f"are not 0 to {score.n - 1}, each {each} ({len(rows)} rows)")
        return
    task, own = _task_of(score), prompted.rows_of(rows, wordings.OWN) if score.prompts else rows
    apart = _GENERATED if generated and generated.profile != "direct" else set[str]()
    apart = apart | {"sample", "reading"} if samples > 1 else apart
    if task is not None:
        beside = apart | {"year", "of" if "noise" in score.data.choices else "year"}
        beside |= {"confidence"} if generated and generated.confidence else set()
        evidence.rows(task, own, beside, found)
    if bool(apart) != (score.answers is not None) or any(apart - row.keys() for row in rows):
        found.fault(f"{place}.answers", "does not go with the card's profile, or with its sample rows")
        return
    if task is not None and apart and card.engine not in options.ENDPOINTS:  # which count as they like
        _budgeted(task, card, rows, found)
    labels = [row.get("answer") for row in rows]
    if score.form == "choice" and score.truncated > sum(len(one) for one in labels if isinstance(one, list)):
        found.fault(f"{place}.truncated", "is more than there are prompts")
    for name, value in sample_counts(rows).items():
        if getattr(score, name) != value:
            found.fault(f"{place}.{name}", f"is {getattr(score, name)}; the samples have {value}")
    if task is None:
        return
    every, rows = rows, own
    hidden = hidden_metrics(rows)
    for name in hidden:
        quotes = metrics.may_quote(score.task, name) and name != score.main_metric
        if not quotes or not task.restricted:
            found.fault(f"{sample}.values.{name}", "is hidden, though it quotes no restricted text")
    wrong = list(rescore.consistent(rows, score))
    for fault in wrong:
        found.fault(*fault)
    # no metric is of such rows, and labels that are not the task's cost time without bound
    if wrong or not evidence.prompts(task, score, every, beside, found):
        return
    how = metrics.aggregations(score.task)
    strict, lenient, parse_rate = split_metrics(values_of(rows), how, clusters_of(rows), samples)
    have_answers = answers(rows)
    for group, have in (("metrics", strict), ("lenient", lenient)):
        stated: Mapping[str, Measure] = getattr(score, group)
        beyond = {name for name in stated if name in hidden or name + LENIENT in hidden}
        if stated.keys() - beyond != have.keys():
            found.fault(f"{place}.{group}", f"has {sorted(stated)}; the samples give {sorted(have)}")
        for name in sorted(stated.keys() & have.keys()):
            evidence.close(f"{place}.{group}.{name}", stated[name], have[name], found)
    evidence.close(f"{place}.parse_rate", score.parse_rate, parse_rate, found)
    if score.answers is not None and have_answers is not None:
        _answers(f"{place}.answers", score.answers, have_answers, found)
    if hidden:
        found.notes.append(f"{score.task}: {', '.join(sorted(hidden))} quote restricted text and cannot be recomputed")
    found.checks.append(f"{score.task}: every metric and interval from {score.n:,} sample rows")


def _answers(place: str, stated: Answers, have: Answers, found: Verification) -> None:
    """Tokens and what is cut off as the rows state it, and what several samples give together."""
    for name in ("thinking_tokens", "answer_tokens"):
        if getattr(stated, name) != getattr(have, name):
            found.fault(f"{place}.{name}", f"is {getattr(stated, name)}; the samples have {getattr(have, name)}")
    one, other = (
        {"truncated": side.truncated}
        | ({"majority": side.majority} if side.majority else {})
        | {f"pass_at.{k}": measure for k, measure in side.pass_at.items()}
        for side in (stated, have)
    )
    if one.keys() != other.keys():
        found.fault(place, f"has {', '.join(one)}; the samples give {', '.join(other)}")
    for name in one.keys() & other.keys():
        evidence.close(f"{place}.{name}", one[name], other[name], found)


def _budgeted(task: Task, card: Scorecard, rows: list[dict[str, Any]], found: Verification) -> None:
    """Tokens that an answer can have: no more than its budget, and some where something was said."""
    assert card.generation is not None
    own = int((metrics.config(task.name).get("generation_kwargs") or {}).get("max_gen_toks", 256))
    most = card.generation.max_tokens or max(prompts.BUDGET[card.generation.profile], own)
    for row in rows:
        said = row.get("answer", row.get("answer_sha256")) not in ("", seal.salted(""))
        if row["reasoning_tokens"] + row["answer_tokens"] > most or (said and not row["answer_tokens"]):
            place = f"samples[{task.name} {row['index']}].answer_tokens"
            found.fault(place, f"cannot be: {row['reasoning_tokens']} + {row['answer_tokens']}, of at most {most}")
