"""Sixty-four rows can be learnt by heart by every method, on Llama's layers and on GPT-2's Conv1D.

A row is three letters and a label drawn for it, so that nothing but memory gives the label. The base was fully trained
on other such rows first: it knows that a label follows, not which one. (Below the output head of a random tiny base,
which stays frozen, no update of the layers can make an answer likely.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_gpt2, make_llama
from finbench import batches, catalog, training, tuning
from finbench.methods import METHODS, method_named

ROWS, TAUGHT = 64, 256
LETTERS, LABELS, END = range(100, 116), range(300, 304), 0
# lr, and where the default is a poor one, more; a learning rate of its own for each, as finbench tune would find it
OWN: dict[str, dict[str, Any]] = {
    "full": {"lr": 2e-3},
}


def rows(names: bool) -> list[batches.Row]:
    """Rows of different letters: each with a label of its own (``names``), or with one of four, drawn for it."""
    drawn = random.Random("by heart")
    keys = drawn.sample([(a, b, c) for a in LETTERS for b in LETTERS for c in LETTERS], ROWS)
    return [
        batches.Row([*key, 300 + number if names else 300 + drawn.randrange(4), END], 2)
        for number, key in enumerate(keys)
    ]


def learn(base: Path, method: str, own: list[batches.Row], folder: Path, **stated: Any) -> tuple[float, float, Any]:
    """(share of right answers before, after; the loss after) of a run on ``own`` rows by finbench's trainer."""
    known = {"base": str(base), "tasks": ["mini_sentiment"], "limit": ROWS, "method": method, "dtype": "float32"}
    known |= {"batch_size": 32, "warmup": 0.1, "schedule": "cosine", "rank": 8, "alpha": 16, "save_every": 10_000}
    unused = method_named(method).unused
    recipe = catalog.recipe(None, {key: value for key, value in {**known, **stated}.items() if key not in unused})
    run = training.prepare(recipe)
    sampler = batches.LengthSampler([len(row.ids) for row in own], recipe.batch_size, recipe.seed)
    steps = batches.steps_of(len(own), recipe.batch_size, 1, recipe.epochs)
    run = replace(run, rows=own, sampler=sampler, steps=steps)
    model, tokenizer = training.begin(run, torch.float32)
    before = right(model.eval(), own)
    training.fit(run, model, tokenizer, folder / "checkpoints")
    return before, right(model.eval(), own), (tuning.answer_loss(model, tokenizer, own, ROWS), model, tokenizer)


def right(model: Any, own: list[batches.Row]) -> float:
    """Share of rows whose label is the most probable token after the letters."""
    ids = torch.tensor([row.ids for row in own])
    with torch.no_grad():
        said = model(ids).logits[:, -3].argmax(-1)
    return float((said == ids[:, -2]).float().mean())
