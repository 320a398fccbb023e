"""Every method learns 64 rows by heart, on a base that has learnt other things before.

The labels of the rows are dealt out at random, so there is nothing in the texts to go by: what is right at the end has
been memorised. The base is trained first, for below a random one the output head knows no words and no update of the
layers gets the loss below 0.1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_gpt2, make_llama
from finbench import batches, catalog, training, tuning
from finbench.methods import METHODS, method_named

ROWS, BATCH = 64, 16
# a method's own measure of a step: see its default learning rate
SETTINGS: dict[str, dict[str, Any]] = {}
QUICK = {("lora", "llama", 16), ("lora", "gpt2", 16)}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in (
        (method.name, base, bits)
        for method in METHODS.values()
        for base in ("llama", "gpt2")
        for bits in method.bits
        if base == "llama" or method.conv1d
    )
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Llama and a tiny GPT-2 that were fully trained on three other tasks."""
    made = {}
    home = tmp_path_factory.mktemp("taught")
    for kind, raw in (("llama", make_llama(home / "l", hidden=128)), ("gpt2", make_gpt2(home / "g"))):
        stated = {"base": str(raw), "tasks": ["mini_headline", "mini_ner", "mini_xbrl_value"], "method": "full"}
        stated |= {"limit": 256, "batch_size": BATCH, "lr": 3e-3, "dtype": "float32"}
        training.train(catalog.recipe(None, stated), home / kind)
        made[kind] = home / kind
    return made


def turned(run: training.Prepared) -> training.Prepared:
    """The run with every answer replaced by the next one of those that occur: none is what the base would say."""
    answers = sorted({tuple(row.ids[-row.answer :]) for row in run.rows})
    rows = []
    for row in run.rows:
        other = list(answers[(answers.index(tuple(row.ids[-row.answer :])) + 1) % len(answers)])
        rows.append(batches.Row(row.ids[: -row.answer] + other, len(other)))
    sampler = batches.LengthSampler([len(row.ids) for row in rows], run.recipe.batch_size, run.recipe.seed)
    return replace(run, rows=rows, sampler=sampler)


def right(model: Any, rows: list[batches.Row]) -> int:
    """How many rows' whole answer is the most probable one, token by token."""
    found = 0
    with torch.no_grad():
        for row in rows:
            said = model(torch.tensor([row.ids])).logits[0, -row.answer - 1 : -1].argmax(-1)
            found += said.tolist() == row.ids[-row.answer :]
    return found


@pytest.mark.parametrize(("method", "base", "bits"), CASES)
def test_64_rows_are_learnt_by_heart(
    method: str, base: str, bits: int, taught: dict[str, Path], tmp_path: Path
) -> None:
    unused = method_named(method).unused
    stated = {"base": str(taught[base]), "tasks": ["mini_sentiment"], "method": method, "bits": bits}
    stated |= {"limit": ROWS, "batch_size": BATCH, "epochs": 40, "dtype": "float32", "rank": 8, "alpha": 16, "lr": 5e-3}
    stated |= SETTINGS.get(method, {})
    run = training.prepare(catalog.recipe(None, {key: value for key, value in stated.items() if key not in unused}))
    run = turned(run)
    model, tokenizer = training.begin(run, torch.float32)
    assert right(model.eval(), run.rows) < ROWS / 2
    training.fit(run, model, tokenizer, tmp_path)
    assert right(model.eval(), run.rows) == ROWS
    # nine in ten at every token: a guess at the label among those of the task costs about a nat
    assert tuning.answer_loss(model, tokenizer, run.rows, BATCH) < 0.1
