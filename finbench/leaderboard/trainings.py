"""Trainings of one recipe are one row: which belong together, what their mean is, how far seeds are known to scatter.

A recipe is everything that decides an adapter but its seed. Its trainings are known by the training record that came
with the card, else by what the card says: base, method, rank, bits and a name that ends in ``-s<seed>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finbench.cards import aggregation_of
from finbench.core.files import digest
from finbench.core.records import UNKNOWN, Measure
from finbench.leaderboard.evidence import Proof
from finbench.leaderboard.known import Kept
from finbench.leaderboard.rows import BoardCard, BoardRow, BoardTest, KnownSpread
from finbench.scoring import (
    EXACT,
    SeedVariance,
    mean_over_trainings,
    metrics,
    pooled,
)


@dataclass(frozen=True)
class Budget:
    """What a training took and where its rate comes from, as the adapter's record says."""

    rows: int
    steps: int
    rate: float
    chosen: str  # default, stated (by the recipe) or tuned (found by finbench tune)


def budget(entry: BoardCard) -> Budget | None:
    """None where the card came without its adapter's record."""
    if entry.trained is None:
        return None
    from finbench.methods import METHODS
    from finbench.training import recipes

    recipe, took = entry.trained.record.recipe, entry.trained.record.training
    known = recipes.defaults_of(METHODS[recipe.method]) if recipe.method in METHODS else {}
    chosen = "tuned" if recipe.search else "default" if recipe.lr == known.get("lr") else "stated"
    return Budget(took.rows, took.steps, recipe.lr, chosen)


def recipe_of(entry: BoardCard) -> tuple[str, str] | None:
    """Digest of a training's recipe, and its name without the seed; None for what was not trained from a known seed."""
    subject = entry.card.subject
    if subject.adapter in (None, UNKNOWN) or subject.seed is None:
        return None
    name = subject.adapter_name or subject.name
    stem = name.removesuffix(f"-s{subject.seed}")
    if entry.trained is not None:
        what = entry.trained.record.recipe.model_dump(mode="json", exclude={"name", "seed", "search"})
    elif stem == name:
        return None  # nothing says of which recipe it is the training
    else:
        owner = (subject.adapter_source or "").partition("/")[0]
        what = {"name": stem, "owner": owner, **subject.model_dump(include={"kind", "method", "rank"})}
        what |= {"parameters": subject.trainable_parameters}
    base = [subject.base.fingerprint] + ([subject.base.alias] if subject.base.fingerprint == UNKNOWN else [])
    # a stranger's card says what it likes: it takes no badge from another's trainings, and is no training of theirs
    apart = [f"owner {entry.owner}"] if entry.owner else []
    apart += [entry.level] if entry.level not in ("samples-attached", "revoked") else []
    return digest([base, subject.bits, subject.chat, what, *apart]), stem


def joined(rows: Sequence[BoardRow], means: Kept) -> list[BoardRow]:
    """One row for each recipe and way of computing, with the mean of its trainings; of one seed the first counts there.

    Another training with the same seed is no draw of its own, and keeps a row of its own; so does one of other
    documents. ``means``: main metrics of several by the digests of their evidence.
    """
    found: dict[tuple[str, str, str], dict[int | None, BoardRow]] = {}
    alone = []
    for row in rows:
        kind = (row.entry.recipe, row.entry.how, _documents(row))
        own = found.setdefault(kind, {}) if row.entry.recipe else None
        if own is None or row.entry.card.subject.seed in own:
            alone.append(row if own is None else replace(row, entry=replace(row.entry, recipe="", recipe_name="")))
        else:
            own[row.entry.card.subject.seed] = row
    return alone + [
        _mean([runs[seed] for seed in sorted(runs, key=lambda s: s or 0)], means) for runs in found.values()
    ]


def _mean(runs: list[BoardRow], means: Kept) -> BoardRow:
    """Several trainings as one row: the first by its seed, with the means of all; costs are of one kind of machine."""
    first = runs[0]
    if len(runs) == 1:
        return first
    scores, main = [run.score for run in runs], first.score.main_metric
    timed = [run.score for run in runs if run.entry.machine == first.entry.machine]
    changed: dict[str, Any] = {
        "metrics": {**first.score.metrics, main: _measured(runs, means)},
        "lenient": {n: _plain([s.lenient[n] for s in scores if n in s.lenient]) for n in first.score.lenient},
        "parse_rate": _plain([score.parse_rate for score in scores]),
        "seconds": float(np.mean([score.seconds for score in timed])) if all(s.seconds for s in timed) else 0.0,
        "prompt_tokens": round(np.mean([score.prompt_tokens for score in timed])),
        "overlap": max((s.overlap for s in scores if s.overlap), key=lambda found: found.texts, default=None),
    }
    answers = [score.answers for score in scores if score.answers]
    if answers:
        tokens = round(np.mean([told.thinking_tokens for told in answers]))
        cut = _plain([told.truncated for told in answers])
        changed["answers"] = answers[0].model_copy(update={"thinking_tokens": tokens, "truncated": cut})
    return replace(first, score=first.score.model_copy(update=changed), runs=tuple(runs))


def _plain(found: Sequence[Measure]) -> Measure:
    value = sum(measure.value for measure in found) / len(found)
    return Measure(value=value, low=None, high=None, method=f"none, mean of {len(found)} trainings")


def _measured(runs: Sequence[BoardRow], means: Kept) -> Measure:
    """The mean of the main metric, with its interval over documents and seeds where all have samples of the same."""
    score = runs[0].score
    found = answered(runs)
    if found is None:
        mean = _plain([run.main for run in runs])
        return mean.model_copy(update={"method": "none, not every training has samples"})
    metric = score.main_metric

    def computed() -> dict[str, Any]:
        values = [evidence.values for evidence in found]
        how, within = aggregation_of(score.task, metric), metrics.bounds(metric)
        made = mean_over_trainings(values, how, found[0].clusters, within=within, samples=found[0].samples)
        return made.model_dump()

    return Measure(**means.get(" ".join(evidence.digest[:32] for evidence in found), computed))


def answered(runs: Sequence[BoardRow]) -> list[Proof] | None:
    """Evidence of each training, if all have some of the same documents whose main metric is not hidden."""
    found = [run.proof for run in runs if run.proof and run.proof.codes is not None]
    return found if len(found) == len(runs) and all(own.docs == found[0].docs for own in found) else None


# recipes with several trainings, and their tables: by family, form and metric; by task
Several = dict[tuple[str, str, str], dict[str, list[tuple[BoardTest, BoardRow]]]]


def _kind(test: BoardTest) -> tuple[str, str, str]:
    return test.score.family, test.score.form, test.score.main_metric


def several(tests: Sequence[BoardTest]) -> Several:
    """Every recipe with several trainings on a task, in whatever rows of it."""
    found: Several = {}
    counted = set()
    for test in tests:
        for row in test.rows:
            if len(row.runs) > 1 and (test.key, row.entry.recipe) not in counted:
                counted.add((test.key, row.entry.recipe))
                found.setdefault(_kind(test), {}).setdefault(test.score.task, []).append((test, row))
    return found


def known_spread(test: BoardTest, trained: Several) -> KnownSpread | None:
    """The spread between seeds pooled over the recipes with several trainings on a test's task.

    Strangers bring cards too, and tables of rows that they invented: of other tables only those recipes count that are
    of the owner whose card counts first in this one, in it those on that card's documents; and of a task the cards
    whose evidence is the strongest.
    Where none is known, that of the task of the same family, metric and form where seeds scatter most: another task
    says little, so the worst is taken, and of one alone nobody knows whether it is that. None without two.
    """
    by_task = trained.get(_kind(test), {})
    first = min((run for row in test.rows for run in row.runs or (row,)), key=lambda run: run.entry.precedence)

    def pool(task: str) -> KnownSpread | None:
        rows = [
            (other, row)
            for other, row in by_task.get(task, ())
            if row.entry.owner_spoken == first.entry.owner_spoken
            or (other is test and _documents(row) == _documents(first))
        ]
        most = min((row.entry.precedence[0] for _, row in rows), default=0)
        return _pool([(other, row) for other, row in rows if row.entry.precedence[0] == most]) if rows else None

    if own := pool(test.score.task):
        return own
    pools = list(filter(None, map(pool, by_task.keys() - {test.score.task})))
    return max(pools, key=lambda found: found.variance.value) if len(pools) > 1 else None


def _documents(row: BoardRow) -> str:
    return row.proof.docs if row.proof else ""


def _pool(rows: Sequence[tuple[BoardTest, BoardRow]]) -> KnownSpread:
    return KnownSpread(
        pooled([row.between_seeds for _, row in rows if row.between_seeds]),
        len({row.entry.recipe for _, row in rows}),
        sum(len(row.runs) for _, row in rows),
        tuple(sorted({test.score.task for test, _ in rows})),
    )


def of_seeds(row: BoardRow, known: KnownSpread | None) -> SeedVariance | None:
    """Variance between seeds of a row's trainings: its own, none for what was not trained, else the known; or None."""
    if row.trainings is None:
        return EXACT
    return row.between_seeds or (known.variance if known else None)
