"""Pretraining with low-rank structure beside dense baselines: text, shards, the loop, the report.

``spec`` reads the recipe; ``corpus``, ``vocabulary``, ``shards`` and ``mixture`` turn text into batches; ``members``
makes the models; ``loop`` and ``fit`` train one, ``run`` all of them; ``held`` scores text; ``report`` shows the end;
``costs`` says what it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.pretraining import report
    from finbench.pretraining.costs import plan
    from finbench.pretraining.prepared import main_process
    from finbench.pretraining.result import Pretrained
    from finbench.pretraining.run import pretrain
    from finbench.pretraining.spec import read_recipe
else:
    __getattr__ = face(__name__)

__all__ = ["Pretrained", "main_process", "plan", "pretrain", "read_recipe", "report"]
