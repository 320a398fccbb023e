"""finbench: train low-rank adapters for financial language models, score them honestly, publish them.

The main commands have a function here: ``finbench.train(...)``, ``finbench.evaluate(...)`` for ``finbench eval``.
They are imported on first use, so that ``import finbench`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face
from finbench.core.version import __version__

if TYPE_CHECKING:
    from finbench.cards import by_prompt, by_year, calibrate, compare, contextual, export_card, report, risk, robustness
    from finbench.core.catalog import include_tasks
    from finbench.core.errors import FinbenchError
    from finbench.core.records import Adapter, Recipe, Score, Scorecard, Subject
    from finbench.data import import_data
    from finbench.evaluation import ask, evaluate, import_card, new_task, verify
    from finbench.grid import sweep
    from finbench.pretraining import pretrain
    from finbench.publishing import pull, push
    from finbench.serving import serve
    from finbench.training import check_data, combine, export, merge, plan, train, tune
else:
    __getattr__ = face(__name__)


def __dir__() -> list[str]:
    """What a notebook offers."""
    return list(__all__)


__all__ = [
    "Adapter",
    "FinbenchError",
    "Recipe",
    "Score",
    "Scorecard",
    "Subject",
    "__version__",
    "ask",
    "by_prompt",
    "by_year",
    "calibrate",
    "check_data",
    "combine",
    "compare",
    "contextual",
    "evaluate",
    "export",
    "export_card",
    "import_card",
    "import_data",
    "include_tasks",
    "merge",
    "new_task",
    "plan",
    "pretrain",
    "pull",
    "push",
    "report",
    "risk",
    "robustness",
    "serve",
    "sweep",
    "train",
    "tune",
    "verify",
]
