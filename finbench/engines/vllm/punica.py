"""Inside vLLM on a CPU: the products of LoRA layers, one matrix product an adapter in the batch.

vLLM's own CPU code gathers a copy of the adapter's weights for every token. It also takes tokens without an adapter
(index -1) for those of the last slot. Here tokens are grouped by adapter, and those without one stay untouched.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import CompilationMode, get_current_vllm_config_or_none
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

Group = tuple[int, slice | torch.Tensor]  # slot of an adapter, its rows


def groups(slots: torch.Tensor) -> list[Group]:
    """Rows by the slot of their adapter, as a slice where they stand together; rows of slot -1 have none."""
    found = torch.unique(slots).tolist()
    if len(found) == 1:
        return [(int(found[0]), slice(None))] if found[0] >= 0 else []
    return [(int(slot), _together((slots == slot).nonzero().flatten())) for slot in found if slot >= 0]


def _together(rows: torch.Tensor) -> slice | torch.Tensor:
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


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
        self.joined: dict[tuple[int, int], tuple[Any, list[int], torch.Tensor]] = {}

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
            inner, start = x[rows] @ self._first(lora_a_stacked, slot).T, 0
            parts = inner.chunk(len(lora_a_stacked), dim=1)
            for part, b, size in zip(parts, lora_b_stacked, output_slices, strict=True):
                _add(y[:, start : start + size], part, b[slot, 0], scale, rows)
                start += size

    def _first(self, stacked: tuple[torch.Tensor, ...], slot: int) -> torch.Tensor:
        """A of all slices of a layer, one below the other: what they read is read once. Copied anew when it changes."""
        if len(stacked) == 1:
            return stacked[0][slot, 0]
        versions = [a._version for a in stacked]
        known = self.joined.get((id(stacked), slot))
        if known is None or known[0] is not stacked or known[1] != versions:
            known = stacked, versions, torch.cat([a[slot, 0] for a in stacked])
            self.joined[id(stacked), slot] = known
        return known[2]

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **options: Any
    ) -> None:
        """y += x B; x is (tokens, rank), what was looked up in A."""
        if not self.eager or not add_inputs:
            super().add_lora_embedding(y, x, lora_b_stacked, add_inputs, **options)
            return
        for slot, rows in self.by_token:
            _add(y, x[rows], lora_b_stacked[slot].view(-1, x.shape[-1]), 1.0, rows)

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
            _add(y, x[rows] @ lora_a_stacked[slot, 0].T, lora_b_stacked[slot, 0], scale, rows)


def _add(y: torch.Tensor, inner: torch.Tensor, b: torch.Tensor, scale: float, rows: slice | torch.Tensor) -> None:
    """y[rows] += scale * inner B^T, in y's dtype; either may be padded to more columns than the other."""
    width = min(y.shape[1], b.shape[0])
    if isinstance(rows, slice) and y.dtype == b.dtype:  # inside the product: a third of the time, and rounded once
        y[rows, :width].addmm_(inner, b[:width].T, alpha=scale)
        return
    update = torch.nn.functional.linear((inner * scale).to(b.dtype), b[:width]).to(y.dtype)
    if isinstance(rows, slice):
        y[rows, :width] += update
    else:
        y[:, :width].index_add_(0, rows, update)
