"""finbench: train low-rank adapters for financial language models, score them honestly, publish them.

Every command has a function of the same name here: ``finbench.train(...)``, ``finbench.evaluate(...)``.
They are imported on first use, so that ``import finbench`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from finbench.core.version import __version__

_HOMES = {
    "train": "finbench.training.runner",
    "evaluate": "finbench.evaluation.evaluator",
    "pretrain": "finbench.pretraining.run",
    "merge": "finbench.training.merging",
    "serve": "finbench.serving.vllm_server",
    "tune": "finbench.training.tuning",
    "sweep": "finbench.grid.driver",
    "compare": "finbench.cards.comparison",
    "verify": "finbench.evaluation.verification",
    "report": "finbench.cards.reporting",
    "import_card": "finbench.evaluation.lmeval",
    "export_card": "finbench.cards.exports",
    "import_data": "finbench.data.sources",
    "push": "finbench.publishing.publish",
    "pull": "finbench.publishing.pulling",
    "Recipe": "finbench.core.records",
    "Adapter": "finbench.core.records",
    "Subject": "finbench.core.records",
    "Score": "finbench.core.records",
    "Scorecard": "finbench.core.records",
    "FinbenchError": "finbench.core.errors",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
