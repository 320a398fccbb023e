"""Bases in 16, 8 or 4 bits by bitsandbytes.

8 bits: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339). 4 bits: NF4 with double quantisation and block size
64 (arXiv:2305.14314), which is not what transformers' own default (FP4 without double quantisation) gives.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Bits


def describe(bits: Bits, compute_dtype: str) -> dict[str, str | bool | int] | None:
    """What is done to the weights, for records; None at 16 bits."""
    if bits == 16:
        return None
    if bits == 8:
        return {"library": "bitsandbytes", "type": "int8"}
    return {
        "library": "bitsandbytes",
        "type": "nf4",
        "double_quantisation": True,
        "block": 64,
        "compute_dtype": compute_dtype,
    }


def check(bits: Bits) -> None:
    """Refuse 8 and 4 bits without bitsandbytes. Does not import it."""
    if bits != 16 and importlib.util.find_spec("bitsandbytes") is None:
        raise FinbenchError(f"{bits} bits need bitsandbytes.", "pip install bitsandbytes")


def config(bits: Bits, compute_dtype: Any, sharded: bool = False) -> Any:
    """transformers' BitsAndBytesConfig for 8 or 4 bits.

    ``sharded``: codes are stored as numbers of ``compute_dtype``, the same bytes, for FSDP takes no bytes.
    """
    check(bits)
    from transformers import BitsAndBytesConfig

    if bits == 8:
        # bitsandbytes logs a cast message at every int8 forward
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        **({"bnb_4bit_quant_storage": compute_dtype} if sharded else {}),
    )


def cure_cpu_repacking(model: Any) -> None:
    """Keep bitsandbytes from repacking NF4 weights on CPUs with AVX512-BF16.

    There, the first forward without gradients in eval mode repacks the weights of a ``Linear4bit`` in place.
    From then on its matmul has no autograd and every de-quantisation reads garbage: training after any
    evaluation goes on with wrong gradients and a finite loss. Must run before the first forward.
    """
    import bitsandbytes as bnb

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def keep_cpu_scales(model: Any) -> None:
    """Keep int8 layers on a CPU from losing their scales.

    There, peft puts a fresh copy of the weight into the layer whenever it dequantises one (DoRA does in every forward
    pass), and after the first forward the copy has codes but no scales, which bitsandbytes then takes for the truth.
    """
    import bitsandbytes as bnb

    def guard(layer: Any, _: Any) -> None:
        if layer.weight.CB is not None and layer.weight.SCB is None and layer.state.SCB is not None:
            layer.weight.SCB = layer.state.SCB

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear8bitLt):
            layer.register_forward_pre_hook(guard)


def dequantised(layer: Any) -> Any | None:
    """The weight of a bitsandbytes layer as it is computed with, float32, (outputs, inputs); None for other layers."""
    import bitsandbytes as bnb
    import torch

    if isinstance(layer, bnb.nn.Linear4bit):
        weight = layer.weight
        found = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).to(torch.float32)
        from finbench.methods import icq

        if isinstance(layer, icq.ShiftedLinear4bit):
            found += layer.tau().to(weight.quant_state.dtype).float().repeat_interleave(icq.BLOCK, dim=1)
        return found
    if isinstance(layer, bnb.nn.Linear8bitLt):
        scales = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB  # moved there by the first forward
        codes = layer.weight.data if layer.state.CB is None else layer.state.CB
        return codes.float() * scales.float().view(-1, 1) / 127
    return None


def copy_dequantised(quantised: Any, model: Any, factors: Mapping[str, Any] | None = None) -> None:
    """Overwrite the weights of ``model``, a 16-bit copy of the same base, with what ``quantised`` computes with.

    ``quantised`` may carry an adapter, which is left out, but for 4-bit codes that it brings. ``factors``: a
    ``convert.Factors`` for each layer to whose weight its product is added.
    """
    import torch

    layers = dict(quantised.named_modules())
    for name, layer in layers.items():
        replaced = name.endswith(".base_layer") and name.removesuffix("base_layer") + "shifted" in layers
        weight = None if replaced else dequantised(layer)
        if weight is None:
            continue
        own = name.removeprefix("base_model.model.").removesuffix(".base_layer").removesuffix(".shifted")
        if part := (factors or {}).get(own):
            weight = weight + (part.scale * part.b @ part.a).to(weight.device)
        target = model.get_submodule(own)
        with torch.no_grad():
            target.weight.copy_(as_stored(target, weight))


def as_stored(layer: Any, weight: Any) -> Any:
    """A weight of (outputs, inputs) as ``layer`` stores it, or back: GPT-2's Conv1D stores it transposed."""
    from transformers.pytorch_utils import Conv1D

    return weight.T if isinstance(layer, Conv1D) else weight
