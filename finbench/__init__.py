"""finbench: train low-rank adapters for financial language models, score them honestly, publish them.

Every command has a function of the same name here: ``finbench.train(...)``, ``finbench.evaluate(...)``.
They are imported on first use, so that ``import finbench`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "train": "finbench.training",
    "evaluate": "finbench.evaluation",
    "pretrain": "finbench.pretraining.run",
    "merge": "finbench.merging",
    "serve": "finbench.serving",
    "tune": "finbench.tuning",
    "sweep": "finbench.grid.driver",
    "compare": "finbench.comparison",
    "verify": "finbench.verification",
    "report": "finbench.reporting",
    "import_card": "finbench.lmeval",
    "export_card": "finbench.exports",
    "restate": "finbench.restating",
    "import_data": "finbench.data.sources",
    "push": "finbench.publishing.push",
    "pull": "finbench.pulling",
    "Recipe": "finbench.records",
    "Adapter": "finbench.records",
    "Subject": "finbench.records",
    "Score": "finbench.records",
    "Scorecard": "finbench.records",
    "FinbenchError": "finbench.errors",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
