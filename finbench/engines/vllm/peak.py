"""Inside each of vLLM's worker processes: what memory it holds. Theirs is not that of the process that asks."""

from __future__ import annotations

from finbench.core.environment import peak_memory


class Peak:
    """What vLLM's worker class is given in addition (``worker_extension_cls``)."""

    def finbench_peak(self) -> int:
        """Peak memory in bytes: of this worker's GPU if there is one, else of its process."""
        return peak_memory()
