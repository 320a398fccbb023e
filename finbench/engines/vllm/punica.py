"""Inside vLLM on a CPU: the products of LoRA layers, one matrix product an adapter in the batch.

vLLM's own CPU code gathers a copy of the adapter's weights for every token. It also takes tokens without an adapter
(index -1) for those of the last slot. Here tokens are grouped by adapter, and those without one stay untouched.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import CompilationMode, get_current_vllm_config_or_none
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

Group = tuple[int, torch.Tensor | None]  # slot of an adapter, its rows (None: all)


def groups(slots: torch.Tensor) -> list[Group]:
    """Rows by the slot of their adapter; rows of slot -1 have none."""
    found = torch.unique(slots).tolist()
    if len(found) == 1:
        return [(int(found[0]), None)] if found[0] >= 0 else []
    return [(int(slot), (slots == slot).nonzero().flatten()) for slot in found if slot >= 0]


class GroupedPunica(PunicaWrapperCPU):
    """vLLM's wrapper for CPUs with the layers' products done group by group.

    Compiled graphs hold vLLM's own code, whose shapes do not depend on who is in the batch: there nothing changes.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        config = get_current_vllm_config_or_none()
        self.eager = config is None or config.compilation_config.mode == CompilationMode.NONE
        self.by_token: list[Group] = []
        self.by_row: list[Group] = []

    def update_metadata(self, *arguments: Any, **options: Any) -> None:
        """Which token and which sampled row has which adapter, once a step."""
        super().update_metadata(*arguments, **options)
        self.by_token = groups(self.token_lora_indices)
        self.by_row = groups(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **options: Any,
    ) -> None:
        """y += scale * x A B for each slice of y; x is (tokens, inputs), y is (tokens, sum of the slices)."""
        if not self.eager:
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **options)
            return
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self.by_token:
            own, start = x if rows is None else x[rows], 0
            for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                _add(y[:, start : start + size], own @ a[slot, 0].T, b[slot, 0], scale, rows)
                start += size

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **options: Any
    ) -> None:
        """y += x B; x is (tokens, rank), what was looked up in A."""
        if not self.eager or not add_inputs:
            super().add_lora_embedding(y, x, lora_b_stacked, add_inputs, **options)
            return
        for slot, rows in self.by_token:
            _add(y, x if rows is None else x[rows], lora_b_stacked[slot].view(-1, x.shape[-1]), 1.0, rows)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **options: Any,
    ) -> None:
        """y += scale * x A B; x is (sampled rows, hidden size), y their logits."""
        if not self.eager:
            super().add_lora_logits(y, x, lora_a_stacked, lora_b_stacked, scale, **options)
            return
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self.by_row:
            own = x if rows is None else x[rows]
            _add(y, own @ lora_a_stacked[slot, 0].T, lora_b_stacked[slot, 0], scale, rows)


def _add(y: torch.Tensor, inner: torch.Tensor, b: torch.Tensor, scale: float, rows: torch.Tensor | None) -> None:
    """y[rows] += scale * inner B^T, in y's dtype; either may be padded to more columns than the other."""
    width = min(y.shape[1], b.shape[0])
    update = torch.nn.functional.linear((inner * scale).to(b.dtype), b[:width]).to(y.dtype)
    if rows is None:
        y[:, :width] += update
    else:
        y[:, :width].index_add_(0, rows, update)
