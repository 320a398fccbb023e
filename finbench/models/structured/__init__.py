"""Models whose linear layers have low-rank structure: the layers, how they start, are counted and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.models.structured import counts, storage, surgery
    from finbench.models.structured.counts import dense_config_matching
    from finbench.models.structured.modules import layers, penalty
    from finbench.models.structured.structures import Factored, Kind, Structure, checked_rank
else:
    __getattr__ = face(__name__)

__all__ = [
    "Factored",
    "Kind",
    "Structure",
    "checked_rank",
    "counts",
    "dense_config_matching",
    "layers",
    "penalty",
    "storage",
    "surgery",
]
