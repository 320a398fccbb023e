"""Low-rank methods: one file a family. A method decides what is trained and how it may be served.

Bits are an axis of their own (``quantise.py``): any method here runs on any bits unless it says otherwise.
"""

from __future__ import annotations

from finbench.errors import unknown
from finbench.methods.base import Method
from finbench.methods.full import FULL
from finbench.methods.lora import DORA, LORA, QLORA, RSLORA

METHODS: dict[str, Method] = {method.name: method for method in (LORA, RSLORA, DORA, QLORA, FULL)}


def method_named(name: str) -> Method:
    """The method called ``name``; FinbenchError with near misses if there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, "finbench methods")
    return METHODS[name]


__all__ = ["METHODS", "Method", "method_named"]
