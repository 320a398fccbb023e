"""Engines answer requests. An engine is an lm-eval LM that can also switch adapters and measure prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.engines import hosted, servable, thinking, vllm
    from finbench.engines.dummy import DummyEngine
    from finbench.engines.endpoint import EndpointEngine
    from finbench.engines.hf import HFEngine
    from finbench.engines.http import Endpoint, NoConnection, Passing, Refused, usable
    from finbench.engines.interface import Engine, Generated, Told
    from finbench.engines.lm import TreeLM
    from finbench.engines.spending import Purse
else:
    __getattr__ = face(__name__)

__all__ = [
    "DummyEngine",
    "Endpoint",
    "EndpointEngine",
    "Engine",
    "Generated",
    "HFEngine",
    "NoConnection",
    "Passing",
    "Purse",
    "Refused",
    "Told",
    "TreeLM",
    "hosted",
    "servable",
    "thinking",
    "usable",
    "vllm",
]
