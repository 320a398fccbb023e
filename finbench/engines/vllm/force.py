"""Inside vLLM: requests whose tokens are given, so that one request walks a whole answer and is scored a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

if TYPE_CHECKING:
    from vllm import SamplingParams

KEY = "finbench_forced"  # in SamplingParams.extra_args
_SURE = 1e9


class Forced(LogitsProcessor):
    """Makes the given token the greedy one. vLLM takes log-probabilities from the logits as they were before."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.device = device
        self.live: dict[int, tuple[list[int], list[int]]] = {}  # row -> tokens to say, tokens said

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Rows that came, went or moved."""

        def state(params: SamplingParams, prompt: list[int] | None, said: list[int]) -> Any:
            forced = (params.extra_args or {}).get(KEY)
            return (forced, said) if forced else None

        process_dict_updates(self.live, batch_update, state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits`` has the shape (rows, vocabulary)."""
        # the argmax of NaN is token 0, which looks like text; and not one number may be left
        if not bool(torch.isfinite(logits.amax(dim=-1)).all()):
            raise ValueError("The model's logits are not finite: it is broken, or its dtype too narrow for it.")
        places = [(row, forced[len(said)]) for row, (forced, said) in self.live.items() if len(said) < len(forced)]
        if places:
            rows, tokens = (torch.tensor(part, device=logits.device) for part in zip(*places, strict=True))
            logits[rows, tokens] = _SURE
        return logits
