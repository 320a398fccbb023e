"""Prompts and documents in; metrics, intervals and paired tests out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.scoring import calibration, inwords, metrics, noise, prompted, prompts, sampling, wordings, years
    from finbench.scoring.foreign import has_our_scorer
    from finbench.scoring.groups import group_difference
    from finbench.scoring.measuring import (
        LENIENT,
        RIGHT,
        answers,
        clusters_of,
        hidden_metrics,
        measure,
        overlap_with_training,
        paired_difference,
        sample_counts,
        sample_rows,
        samples_of,
        split_metrics,
        value_of,
        values_of,
    )
    from finbench.scoring.modelfree import baselines, floors
    from finbench.scoring.paired import UNTESTABLE, Difference, documents_needed, holm, mcnemar, permutation
    from finbench.scoring.stats import RESAMPLES, Z95, by_cluster, seed_spread, welch
    from finbench.scoring.taskcheck import golden_prompt, other_prompts, resolve_function, task_faults, task_of_examples
    from finbench.scoring.trainings import EXACT, SeedVariance, mean_over_trainings, p_values, pooled, seed_variance
else:
    __getattr__ = face(__name__)

__all__ = [
    "EXACT",
    "LENIENT",
    "RESAMPLES",
    "RIGHT",
    "UNTESTABLE",
    "Z95",
    "Difference",
    "SeedVariance",
    "answers",
    "baselines",
    "by_cluster",
    "calibration",
    "clusters_of",
    "documents_needed",
    "floors",
    "golden_prompt",
    "group_difference",
    "has_our_scorer",
    "hidden_metrics",
    "holm",
    "inwords",
    "mcnemar",
    "mean_over_trainings",
    "measure",
    "metrics",
    "noise",
    "other_prompts",
    "overlap_with_training",
    "p_values",
    "paired_difference",
    "permutation",
    "pooled",
    "prompted",
    "prompts",
    "resolve_function",
    "sample_counts",
    "sample_rows",
    "samples_of",
    "sampling",
    "seed_spread",
    "seed_variance",
    "split_metrics",
    "task_faults",
    "task_of_examples",
    "value_of",
    "values_of",
    "welch",
    "wordings",
    "years",
]
