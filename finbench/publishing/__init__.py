"""Publishing: what a folder becomes on the Hub. ``push`` finds out what it is, plans, and executes the plan.

``publish`` and ``adapter`` choose the files of scorecards, data and tasks, of adapters and models; ``modelcard`` writes
the README and its plot, ``licences`` the licence.
"""

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.publishing.publish import Pushed, push
    from finbench.publishing.pulling import Pulled, add_to_zoo, pull, stated_base
else:
    __getattr__ = face(__name__)

__all__ = ["Pulled", "Pushed", "add_to_zoo", "pull", "push", "stated_base"]
