"""Inside vLLM on a CPU: the output head in float32 is made once. vLLM's own code copies its weight at each step."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.logits_processor import LogitsProcessor

from finbench.engines.forward import KEPT

_COPY = "finbench_wide"  # attribute of the head's layer: what its copy was made from, and the copy


def keep() -> None:
    """Let vLLM's heads keep their weight in float32 where that is small; all else stays as it is."""
    own = LogitsProcessor._apply_head

    def apply(self: Any, layer: Any, hidden: torch.Tensor, bias: torch.Tensor | None) -> Any:
        weight: Any = getattr(layer, "weight", None)
        half = weight is not None and weight.dtype in (torch.bfloat16, torch.float16)
        if self.head_dtype != torch.float32 or not half or 4 * weight.numel() > KEPT:
            return own(self, layer, hidden, bias)
        source, wide = getattr(layer, _COPY, (None, weight))
        if source != (weight.data_ptr(), weight._version):  # a weight that was loaded anew is copied anew
            wide = weight.detach().float()
            setattr(layer, _COPY, ((weight.data_ptr(), weight._version), wide))
        return torch.nn.functional.linear(hidden.float(), wide, None if bias is None else bias.float())

    if own.__name__ != "apply":  # vLLM may call the plugin more than once in a process
        LogitsProcessor._apply_head = apply
