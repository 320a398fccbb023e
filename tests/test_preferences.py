"""Pairs of answers: which they are, the loss and its gradients, exact resume, the record, refusals."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from conftest import Once, make_llama
from finbench.cards import cardfiles
from finbench.cli.app import app
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, Recipe
from finbench.evaluation import evaluate
from finbench.models import adapters
from finbench.scoring import prompts
from finbench.training import loops, pairwise, preferences, recipes, runner

PAIRS = [
    ("The sentiment of: sales rose.\nAnswer:", " positive", " neutral"),
    ("The sentiment of: sales fell.\nAnswer:", " negative", " positive"),
    ("The sentiment of: the board met.\nAnswer:", " neutral", " positive, I think, since boards are good"),
    ("Short:", " yes", " no no no"),
]


def file_of(path: Path, pairs: Any = PAIRS, names: tuple[str, str, str] = ("prompt", "chosen", "rejected")) -> Path:
    path.write_text("".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs))
    return path


def recipe(base: Path, pairs: Path, **overrides: Any) -> Recipe:
    stated = {"base": str(base), "preferences": str(pairs), "batch_size": 2, "rank": 4, "dtype": "float32", "lr": 1e-2}
    return recipes.recipe(None, {**stated, **overrides})


def trained(stated: Recipe, out: Path, **how: Any) -> Adapter:
    made = runner.train(stated, out, **how)
    assert isinstance(made, Adapter)
    return made


@pytest.fixture(scope="session")
def card(once: Once, llama: Path) -> Path:
    """A card of a base on train rows: it answers with what is no label, or with nothing."""

    def make(folder: Path) -> None:
        evaluate(base=str(llama), tasks="mini_sentiment", metadata={"split": "train"}, limit=24, out=folder)

    [path] = once("card-of-train", make).glob("*.json")
    return path
