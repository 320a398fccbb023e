"""``finbench sweep``: a grid of trainings and their scorecards, on Ray.

sweepfile a YAML file of axes -> cells, each a recipe with what it needs and a key of its content
steps     cells -> steps, and which of them may be done now
places    the folder or URL of the results: one small file a finished step
work      what one worker does: a search, a training, an evaluation
forecast  what all that would take
driver    hands steps to workers, and loses nothing when something dies
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.grid import forecast
    from finbench.grid.driver import Summary, sweep
    from finbench.grid.forecast import sweep_outline
    from finbench.grid.places import Place
    from finbench.grid.steps import Schedule
    from finbench.grid.watch import picture, sweep_status
else:
    __getattr__ = face(__name__)

__all__ = [
    "Place",
    "Schedule",
    "Summary",
    "forecast",
    "picture",
    "sweep",
    "sweep_outline",
    "sweep_status",
]
