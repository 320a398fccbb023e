"""What the commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.cli.show import answers, grids, listings, own_rows, publications, scorecards, sureness, trainings
else:
    __getattr__ = face(__name__)

__all__ = ["answers", "grids", "listings", "own_rows", "publications", "scorecards", "sureness", "trainings"]
