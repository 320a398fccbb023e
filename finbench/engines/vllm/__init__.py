"""vLLM: one start for a base and all its adapters; requests of different adapters share a batch.

vLLM itself runs in processes of its own (``worker.py``); this side encodes, plans and waits. Nothing here imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.engines.vllm import installation, memory
    from finbench.engines.vllm.engine import VLLMEngine
    from finbench.engines.vllm.faults import cannot_start
else:
    __getattr__ = face(__name__)

__all__ = ["VLLMEngine", "cannot_start", "installation", "memory"]
