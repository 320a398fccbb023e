"""Low-rank methods: one file a family. A method decides what is trained and how it may be served.

Bits are an axis of their own (``quantise.py``): any method here runs on any bits unless it says otherwise.
"""

from __future__ import annotations

from finbench.core.errors import FinbenchError, unknown
from finbench.methods.adalora import ADALORA
from finbench.methods.base import SERVED, Cut, Layer, Method, Start, experts, experts_of, last_positions, targets
from finbench.methods.collected import CORDA, LORA_GA
from finbench.methods.eva import EVA
from finbench.methods.full import FULL
from finbench.methods.irqlora import IRQLORA
from finbench.methods.lora import AS_OPTION, AS_REFUSED, DORA, LORA, LORA_FA, LORA_PLUS, QLORA, REFUSED, RSLORA
from finbench.methods.spectral import LOFTQ, OLORA, PISSA
from finbench.methods.subspaces import RELORA, ROSA
from finbench.methods.tuners import OFT, RANDLORA, REFUSED_TUNERS, TUNERS, VERA, Tuner
from finbench.methods.wrapping import one_dtype

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(LORA, QLORA, IRQLORA, RSLORA, DORA, LORA_PLUS, LORA_FA),
        *(PISSA, OLORA, EVA, LORA_GA, CORDA, LOFTQ, VERA, RANDLORA, ADALORA, OFT, ROSA, RELORA, FULL),
    )
}


def method_named(name: str) -> Method:
    """The method called ``name``, ours or one of peft's tuners; FinbenchError with near misses if there is none."""
    known = {**METHODS, **TUNERS}
    if name in known:
        return known[name]
    if name in AS_OPTION:
        raise FinbenchError(f"{name} is an option of lora here.", f"--method lora --set {AS_OPTION[name]}")
    if reason := REFUSED_TUNERS.get(name) or REFUSED.get(AS_REFUSED.get(name, "")):
        raise FinbenchError(f"Method {name} is refused: {reason}.", "See them all: finbench methods")
    raise unknown("method", name, known, "finbench methods")


__all__ = [
    "METHODS",
    "REFUSED_TUNERS",
    "SERVED",
    "TUNERS",
    "Cut",
    "Layer",
    "Method",
    "Start",
    "Tuner",
    "experts",
    "experts_of",
    "irqlora",
    "last_positions",
    "method_named",
    "one_dtype",
    "quantise",
    "targets",
]
