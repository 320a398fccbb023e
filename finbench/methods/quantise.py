"""Bases in 16, 8 or 4 bits by bitsandbytes.

8 bits: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339). 4 bits: NF4 with double quantisation and block size
64 (arXiv:2305.14314), which is not what transformers' own default (FP4 without double quantisation) gives.
"""

from __future__ import annotations

import logging
from typing import Any

from finbench.errors import FinbenchError
from finbench.records import Bits


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


def config(bits: Bits, compute_dtype: Any) -> Any:
    """transformers' BitsAndBytesConfig for 8 or 4 bits."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as fault:
        raise FinbenchError(f"{bits} bits need bitsandbytes.", "pip install bitsandbytes") from fault
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
    )


def cure_cpu_repacking(model: Any) -> int:
    """Keep bitsandbytes from repacking NF4 weights on CPUs with AVX512-BF16; return how many layers were set.

    There, the first forward without gradients in eval mode repacks the weights of a ``Linear4bit`` in place.
    From then on its matmul has no autograd and every de-quantisation reads garbage: training after any
    evaluation goes on with wrong gradients and a finite loss. Must run before the first forward.
    """
    import bitsandbytes as bnb

    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)
