"""A recipe in, an adapter out; rates searched, cost planned, adapters merged and combined.

Read in this order: ``recipes``, ``preparation`` (rows, steps), ``runner`` (the whole run), ``trainer`` (the loop),
``loops`` and ``packing`` (how rows become passes). Beside them: ``holdout``, ``validation`` and ``answering`` (rows
held out: which, when, and what is answered), ``curves`` (a training shown), ``suited`` (defaults for base and rows),
``encoding``, ``token_rows`` and ``own_rows`` (texts to rows of tokens), ``preferences`` and ``pairwise`` (pairs of
answers), ``claims`` (whose a folder is), ``reproduced`` (the weights that a recipe gave before), ``launch``,
``process`` and ``ranks`` (several processes), ``planning`` with ``counting``, ``timing`` and ``shapes`` (what a run
takes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.training import checkpoints, curves, leaks, machines, recipes, reproduced, timing
    from finbench.training.checking import CheckedData, check_data
    from finbench.training.combining import combine
    from finbench.training.exporting import Exported, export, exported_in_words
    from finbench.training.found import Run, runs_in
    from finbench.training.launch import process_count
    from finbench.training.machines import GIB
    from finbench.training.merging import Made, merge, merge_in_words
    from finbench.training.planning import plan, planned_gib, prepare_for_plan
    from finbench.training.runner import train
    from finbench.training.shapes import shape_of
    from finbench.training.speedups import check_sharding
    from finbench.training.suited import suit
    from finbench.training.trainer import Keeper, StepTrainer, stopping_gently
    from finbench.training.tuning import held_share, in_trainings, search_outline, tune
else:
    __getattr__ = face(__name__)

__all__ = [
    "GIB",
    "CheckedData",
    "Exported",
    "Keeper",
    "Made",
    "Run",
    "StepTrainer",
    "check_data",
    "check_sharding",
    "checkpoints",
    "combine",
    "curves",
    "export",
    "exported_in_words",
    "held_share",
    "in_trainings",
    "leaks",
    "machines",
    "merge",
    "merge_in_words",
    "plan",
    "planned_gib",
    "prepare_for_plan",
    "process_count",
    "recipes",
    "reproduced",
    "runs_in",
    "search_outline",
    "shape_of",
    "stopping_gently",
    "suit",
    "timing",
    "train",
    "tune",
]
