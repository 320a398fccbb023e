"""Layers of IR-QLoRA on peft's extension points: information elastic connections, and a shifted base below an adapter.

An elastic connection (IEC; Qin et al. 2024, arXiv:2402.05445, section 3.3) lets the input of each factor of LoRA pass
to its output beside the factor, pooled to the smaller size or repeated to the larger one, times a trained scalar.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners.lora.bnb import Linear4bit
from peft.tuners.lora.layer import LoraLayer, LoraVariant


def elastic(outputs: int, inputs: int, device: Any = None) -> Any:
    """The connection as a matrix, float32 (outputs, inputs).

    With g = gcd(outputs, inputs): the mean of each of g equal segments of the input, each repeated for outputs / g
    neighbouring outputs (eq. 16; eqs. 12-14 speak of repeated concatenation, which would not merge as eq. 16 does).
    """
    common = math.gcd(outputs, inputs)
    rows = torch.arange(outputs, device=device) // (outputs // common)
    columns = torch.arange(inputs, device=device) // (inputs // common)
    return (rows[:, None] == columns) * (common / inputs)


def folded(layer: Any, name: str) -> tuple[Any, Any]:
    """(A + beta1 P, B + beta2 Q) of adapter ``name``: with these an ordinary LoRA computes the same."""
    a, b, beta = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.lora_beta[name]
    first, second = elastic(a.shape[0], a.shape[1], a.device), elastic(b.shape[0], b.shape[1], b.device)
    return a + beta[0] * first, b + beta[1] * second


class Elastic(LoraVariant):
    """y = Wx + s (B + beta2 Q)(A + beta1 P) x. The factors are added up first, which costs no pass over activations."""

    @staticmethod
    def init(module: Any, adapter_name: str, **_: Any) -> None:
        """Two scalars, zero: the model starts as its base."""
        if not isinstance(getattr(module, "lora_beta", None), torch.nn.ParameterDict):
            module.lora_beta = torch.nn.ParameterDict()
        module.lora_beta[adapter_name] = torch.nn.Parameter(torch.zeros(2))

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Any, result: Any, **_: Any) -> Any:
        """``result`` (..., outputs), what the base computed of ``x``, plus the update."""
        a, b = folded(module, active_adapter)
        low = torch.nn.functional.linear(module.lora_dropout[active_adapter](x), a)
        return result + torch.nn.functional.linear(low, b) * module.scaling[active_adapter]

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: Any) -> Any:
        """Refused: the sum would be quantised, which rounds the update away."""
        raise RuntimeError("An adapter is never merged into 4 bits; finbench merge makes a 16-bit model.")

    merge_unsafe = unmerge = merge_safe


class ElasticLinear4bit(Linear4bit):
    """peft's LoRA layer on NF4 with an elastic connection around each factor."""

    adapter_layer_names = (*LoraLayer.adapter_layer_names, "lora_beta")

    def resolve_lora_variant(self, *, config: Any, **_: Any) -> Any:
        """Always the one with connections."""
        return Elastic()


class CalibratedLinear4bit(Linear4bit):
    """peft's LoRA layer on NF4 whose adapter brings its own, shifted codes: with it disabled the base is plain NF4.

    ``shifted`` is an ``icq.ShiftedLinear4bit`` of the same weight, in force while an adapter is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shifted: Any = None

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """``x`` (..., inputs) -> (..., outputs)."""
        if self.disable_adapters or self.shifted is None:
            return super().forward(x, *args, **kwargs)
        result = self.shifted(x)
        for name in self.active_adapters:
            if name in self.lora_A:
                a = self.lora_A[name]
                low = self.lora_B[name](a(x.to(a.weight.dtype))) * self.scaling[name]
                result = result + low.to(result.dtype)
        return result
