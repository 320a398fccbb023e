"""The experiment trackers that finbench knows, by name; none of their packages is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from finbench.core.errors import FinbenchError, unknown
from finbench.core.installing import install

NAMES = {"trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard"}  # name -> its module


def named(stated: str | Sequence[str]) -> list[str]:
    """The trackers one by one, each known and installed; FinbenchError for one that is not."""
    texts = [stated] if isinstance(stated, str) else stated
    names = list(dict.fromkeys(name.strip().lower() for text in texts for name in text.split(",") if name.strip()))
    for name in names:
        if name not in NAMES:
            raise unknown("tracker", name, NAMES, "--report trackio")
        if not installed(name):
            raise FinbenchError(f"{name} is not installed.", install(name))
    return names


def installed(name: str) -> bool:
    """Whether a tracker's package is here."""
    return importlib.util.find_spec(NAMES[name]) is not None
