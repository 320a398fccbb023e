"""Texts to tokens exactly as lm-eval's HFLM makes them, for engines that hold no model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM


class Encoder(TemplateLM):
    """HFLM's rules for special tokens, empty contexts and spaces at the seam; it answers nothing itself."""

    backend = "causal"
    add_bos_token = None
    custom_prefix_token_id = None

    tok_encode = HFLM.tok_encode
    tok_decode = HFLM.tok_decode
    tok_batch_encode = HFLM.tok_batch_encode
    eot_token_id = HFLM.eot_token_id
    prefix_token_id = HFLM.prefix_token_id

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def pairs(self, requests: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
        """(context, continuation) in tokens of loglikelihood requests."""
        found: list[tuple[list[int], list[int]]] = self.loglikelihood(requests, disable_tqdm=True)
        return found

    def prompt(self, text: str) -> list[int]:
        """Tokens of a prompt that is to be continued."""
        found: list[int] = self.tok_batch_encode([text])[0][0].tolist()
        return found

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
        return [(list(context), list(continuation)) for _, context, continuation in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """An engine's affair."""
        raise NotImplementedError

    loglikelihood_rolling = generate_until  # no task of finbench asks for it
