"""Sixty-four rows can be learnt by heart by every method, on Llama's layers and on GPT-2's Conv1D.

A row is three letters and the label drawn for it, so that nothing but memory gives the label. The base is tiny, and was
fully trained first to give each of the rows a name of its own: it tells them apart and knows that a label follows, but
none of the four that are drawn. (Below the frozen output head of a random tiny base no update of the layers makes
any answer likely, whatever the method.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_gpt2, make_llama
from finbench.methods import METHODS, method_named
from finbench.training import batches, loops, recipes, runner, tuning

ROWS = 64
LETTERS, LABELS, END = range(100, 116), range(300, 300 + ROWS), 0  # token ids
STEPS = {"llama": 60, "gpt2": 120}  # of all rows each
LONGER = {"lora-fa": 1.5, "randlora": 1.5, "vera": 2}  # times as many
# rates of their own, as finbench tune would find them; 1e-2 for the others
OWN: dict[str, dict[str, Any]] = {
    "lora+": {"lr": 2e-3},
    "lora-fa": {"lr": 2e-2},
    "pissa": {"lr": 5e-3},
    "olora": {"lr": 5e-3},
    "rosa": {"lr": 5e-3},
    "eva": {"rho": 1.0},
    "adalora": {"lr": 3e-2},
    "vera": {"lr": 1e-1, "rank": 64},
    "randlora": {"alpha": 160, "lr": 5e-3},
    "oft": {"oft_block_size": 16},
    "full": {"lr": 3e-3},
}
QUICK = {("lora", "llama")}  # the others are run by .ci/run
CASES = [
    pytest.param(method.name, base, marks=[] if (method.name, base) in QUICK else [pytest.mark.slow])
    for base in ("llama", "gpt2")
    for method in METHODS.values()
    if base == "llama" or method.conv1d
]


def rows(named: bool) -> list[batches.TrainingRow]:
    """Different letters, and a label: ``named``, another one for each row, else one of four, by chance."""
    drawn = random.Random("by heart")
    letters = drawn.sample([(a, b, c) for a in LETTERS for b in LETTERS for c in LETTERS], ROWS)
    labels = LABELS if named else [drawn.choice(LABELS[:4]) for _ in letters]
    return [batches.TrainingRow([*three, label, END], 2) for three, label in zip(letters, labels, strict=True)]


def learn(
    base: Path, method: str, own: list[batches.TrainingRow], folder: Path, **stated: Any
) -> tuple[Any, Any, float]:
    """(model, tokenizer, share of answers that were right before) of a run of finbench's trainer on ``own`` rows."""
    known = {"base": str(base), "tasks": ["mini_sentiment"], "limit": ROWS, "method": method, "dtype": "float32"}
    known |= {"batch_size": ROWS, "warmup": 0.1, "schedule": "cosine", "save_every": 1000}
    known |= {"rank": 8, "alpha": 16, "lr": 1e-2, "bits": method_named(method).bits[0], **stated}
    unused = method_named(method).unused
    recipe = recipes.recipe(None, {key: value for key, value in known.items() if key not in unused})
    sampler = batches.StepSampler([len(row.ids) for row in own], recipe.batch_size, recipe.accumulate, recipe.seed)
    run = replace(runner.prepare(recipe), rows=own, sampler=sampler, steps=int(recipe.epochs))
    model, tokenizer = runner.begin(run, torch.float32)
    before = right(model.eval(), own)
    runner.fit(run, model, tokenizer, folder)
    return model.eval(), tokenizer, before


def right(model: Any, own: list[batches.TrainingRow]) -> float:
    """Share of rows after whose letters the label, and after it the end, is the most probable token."""
    ids = torch.tensor([row.ids for row in own])
    with torch.no_grad():
        said = model(ids).logits[:, 2:4].argmax(-1)
    return float((said == ids[:, 3:]).all(1).float().mean())


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny base that knows every row by its name."""
    made: dict[str, Path] = {}

    def base(kind: str) -> Path:
        if kind not in made:
            home = tmp_path_factory.mktemp(kind)
            make = {"llama": make_llama, "gpt2": partial(make_gpt2, dropout=0.0)}[kind]
            raw = make(home / "raw", hidden=128)
            model, tokenizer, _ = learn(raw, "full", rows(named=True), home / "run", lr=5e-3, epochs=STEPS[kind])
            assert right(model, rows(named=True)) == 1
            made[kind] = home / "taught"
            model.save_pretrained(made[kind])
            tokenizer.save_pretrained(made[kind])
        return made[kind]

    return base


@pytest.mark.parametrize(("method", "base"), CASES)
def test_it_learns_64_rows_by_heart(method: str, base: str, taught: Callable[[str], Path], tmp_path: Path) -> None:
    drawn = rows(named=False)
    assert len({tuple(row.ids[:3]) for row in drawn}) == ROWS
    steps = STEPS[base] * LONGER.get(method, 1)
    model, tokenizer, before = learn(taught(base), method, drawn, tmp_path, epochs=steps, **OWN.get(method, {}))
    assert before < 0.1
    assert right(model, drawn) == 1
    assert (
        tuning.answer_loss(model, drawn, loops.Passes("padded", ROWS, pad=tokenizer.pad_token_id)) < 0.05
    )  # nats a token; to guess among four costs 0.69
