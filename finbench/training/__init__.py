"""A recipe in, an adapter out; rates searched, cost planned, adapters merged.

Read in this order: ``recipes``, ``preparation`` (rows, steps), ``runner`` (the whole run), ``trainer`` (the loop),
``loops`` and ``packing`` (how rows become passes). Beside them: ``claims`` (whose a folder is); ``launch``, ``process``
and ``ranks`` (several processes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.training import checkpoints, recipes
    from finbench.training.launch import process_count
    from finbench.training.machines import GIB
    from finbench.training.merging import Made, merge, merge_in_words
    from finbench.training.planning import plan, planned_gib, prepare_for_plan, shape_of
    from finbench.training.runner import train
    from finbench.training.speedups import check_sharding
    from finbench.training.trainer import Keeper, StepTrainer, stopping_gently
    from finbench.training.tuning import search_outline, tune
else:
    __getattr__ = face(__name__)

__all__ = [
    "GIB",
    "Keeper",
    "Made",
    "StepTrainer",
    "check_sharding",
    "checkpoints",
    "merge",
    "merge_in_words",
    "plan",
    "planned_gib",
    "prepare_for_plan",
    "process_count",
    "recipes",
    "search_outline",
    "shape_of",
    "stopping_gently",
    "train",
    "tune",
]
