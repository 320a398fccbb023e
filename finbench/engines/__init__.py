"""Engines answer requests. An engine is an lm-eval LM that can also switch adapters and measure prompts."""

from __future__ import annotations

from finbench.engines.base import Engine

__all__ = ["Engine"]
