"""Defaults that suit a base and its rows, for a training of which only the task is said; and where each comes from.

A recipe's file states its numbers, or takes those of ``_defaults.yaml``; here nothing but a command without a file is
completed. They are rules of thumb: ``finbench tune`` searches the rate.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from finbench.core import catalog, environment
from finbench.core.console import quiet, say
from finbench.core.records import Recipe
from finbench.data import own
from finbench.methods import method_named
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import recipes

_SMALL = 1.35e8  # parameters of the base that _defaults.yaml was made for
# The rate falls with the size of the base: 2e-4 for 7B and 13B, 1e-4 for 33B and 65B (QLoRA, arXiv:2305.14314), in
# proportion to what the method starts from on the small base; in between by the logarithms.
_SHARES = ((_SMALL, 1.0), (7e9, 0.2), (1.3e10, 0.2), (3.3e10, 0.1), (6.5e10, 0.1))
# Optimiser steps that a training should have, and passes over the rows at most. 154 steps were too few for the labels
# of fomc, and 107 for the names of finer_ord: docs/design-log.md.
_STEPS, _MOST = 300, 5
_FEW, _MANY = 256, 20_000  # rows from which on a step has 16, and 32
_LARGE_RANK = 50_000  # rows from which on an update should hold more


@dataclass(frozen=True)
class Chosen:
    """A recipe completed, and a line for each number that was chosen."""

    recipe: Recipe
    reasons: list[str]


def suit(recipe: Recipe, stated: Collection[str], data_dir: Path | None = None) -> Recipe:
    """``recipe`` with what was not ``stated`` chosen for its base and rows, and each choice said.

    A recipe with a ``limit`` is a trial, and stays as it is; so does one of pairs of answers.
    """
    quiet()
    if recipe.limit is not None or recipe.preferences is not None:
        return recipe
    chosen = choose(recipe, stated, _rows(recipe, data_dir))
    for line in chosen.reasons if environment.rank() == 0 else ():
        say(line)
    return chosen.recipe


def _rows(recipe: Recipe, data_dir: Path | None) -> int:
    """Of an epoch, about."""
    tasks = prompts.load(catalog.expand(recipe.tasks), data_dir)
    count = sum(recipe.tasks[name] * len(prompts.rows(lm_task, "train")) for name, lm_task in tasks.items())
    surveys = own.surveys(map(own.locate, recipe.data))
    count += sum(part.weight * int(one.kept.sum()) for part, one in zip(recipe.data, surveys, strict=True))
    return round(count * (1 - (recipe.validation if isinstance(recipe.validation, float) else 0)))


def choose(recipe: Recipe, stated: Collection[str], rows: int) -> Chosen:
    """``recipe`` with rate, batch, epochs and rank for its base and ``rows``, but for the keys that were ``stated``."""
    method = method_named(recipe.method)
    size = bases.parameter_count(bases.skeleton(bases.resolve(recipe.base)))
    start = recipes.defaults_of(method)
    changes: dict[str, float] = {}
    reasons = []

    def put(key: str, value: float, why: str) -> None:
        if key not in stated and key not in method.unused:
            changes[key] = value
            reasons.append(f"{key} {value:g}: {why}")

    rate = float(f"{start['lr'] * _share(size):.2g}")
    put("lr", rate, f"usual for {recipe.method} and {_shown(size)} parameters; finbench tune looks for a better one")
    batch = 8 if rows < _FEW else 16 if rows < _MANY else 32
    put("batch_size", batch, f"usual for {rows:,} rows")
    taken = int(changes.get("batch_size", recipe.batch_size)) * recipe.accumulate
    epochs = min(_MOST, max(1, math.ceil(_STEPS * taken / max(1, rows))))
    steps = math.ceil(rows * epochs / taken)
    enough = f"{_STEPS} are enough" if steps >= _STEPS else f"{_STEPS} would be better, but {_MOST} epochs are the most"
    put("epochs", epochs, f"they make {steps:,} steps of {taken} rows; {enough}")
    if "rank" in start:
        rank = int(start["rank"]) * (2 if rows >= _LARGE_RANK else 1)
        put("rank", rank, f"usual for {_LARGE_RANK:,} rows {'or more' if rows >= _LARGE_RANK else 'or fewer'}")
        if "rank" in changes and "alpha" in start and "alpha" not in stated:
            changes["alpha"] = start["alpha"] * rank / start["rank"]  # the scale stays
    return Chosen(Recipe.parse({**recipe.model_dump(), **changes}, "defaults"), reasons)


def _share(size: float) -> float:
    """Of the small base's rate."""
    if size <= _SHARES[0][0]:
        return 1.0
    for (low, one), (high, other) in pairwise(_SHARES):
        if size <= high:
            way = math.log(size / low) / math.log(high / low)
            return float(one ** (1 - way) * other**way)
    return _SHARES[-1][1]


def _shown(size: float) -> str:
    return f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.0f}M"
