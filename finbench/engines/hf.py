"""transformers + peft in this process: one base in memory, adapters switched on and off around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessor, LogitsProcessorList

from finbench import adapters, bases
from finbench.errors import FinbenchError
from finbench.records import Bits, DType


class _Finite(LogitsProcessor):
    """Stops generation at a logit that is not a number: argmax of NaN would be token 0, which looks like text."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if torch.isnan(scores).any() or not torch.isfinite(scores).any(dim=-1).all():
            raise FinbenchError(
                "The model's logits are not finite: it cannot be scored.",
                "Check the weights, or use --arg dtype=float32.",
            )
        return scores


class _LM(HFLM):
    """lm-eval's HFLM over a model that is loaded already, with a check of every number."""

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **arguments: Any) -> Any:
        checks = LogitsProcessorList([_Finite()])
        return super()._model_generate(context, max_length, stop, logits_processor=checks, **arguments)

    def _loglikelihood_tokens(self, requests: Any, **arguments: Any) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **arguments)
        if not all(torch.isfinite(torch.tensor(value)) for value, _ in answers):
            raise FinbenchError(
                "The model's log-probabilities are not finite: it cannot be scored.",
                "Check the weights, or use --arg dtype=float32.",
            )
        return answers


class HFEngine:
    """The base once in memory; each adapter loaded when first used, and kept."""

    name = "hf"

    def __init__(self, base: bases.Base, bits: Bits = 16, dtype: DType = "auto", batch_size: int = 32) -> None:
        if batch_size < 1:
            raise FinbenchError(f"batch_size must be at least 1, got {batch_size}.")
        self.base, self.batch_size = base, batch_size
        torch_dtype = bases.compute_dtype(dtype)
        self.dtype = str(torch_dtype).removeprefix("torch.")
        self.plain, self.tokenizer = bases.load(base, bits, torch_dtype)
        self.peft: Any = None
        self.lm = _LM(
            pretrained=self.plain, tokenizer=self.tokenizer, batch_size=batch_size, softmax_dtype=torch.float32
        )
        self.max_length = int(self.lm.max_length)
        self.alone = self._probe()
        self.proven: set[Path] = set()

    def use(self, adapter: Path | None) -> None:
        """Switch to an adapter folder, or to the base alone.

        Raises FinbenchError for an adapter that does not fit, that changes the base itself (an unconverted PiSSA or
        OLoRA, trained biases: the base beside it would no longer be the base), or that changes nothing.
        """
        if adapter is None:
            if self.peft is not None:
                self.peft.base_model.disable_adapter_layers()
            return
        if self.peft is not None and not adapters.same_tuner(self.peft, adapter):
            self.plain, self.peft = self.peft.unload(), None  # peft mixes no two kinds of tuner in one model
            self.lm._model = self.plain
        self.peft = adapters.attach(self.peft if self.peft is not None else self.plain, adapter)
        self.lm._model = self.peft.eval()
        if adapter not in self.proven:
            self.peft.base_model.disable_adapter_layers()
            if not torch.equal(self._probe(), self.alone):
                raise FinbenchError(
                    f"{adapter} changes the base model itself when it is loaded, so the two cannot be told apart.",
                    "Convert it to a plain LoRA: peft's save_pretrained(path_initial_model_for_weight_conversion=...).",
                )
            self.peft.base_model.enable_adapter_layers()
            if torch.equal(self._probe(), self.alone):
                raise FinbenchError(f"{adapter} has no effect: its answers are those of the base.")
            self.proven.add(adapter)
        self.peft.base_model.enable_adapter_layers()

    def _probe(self) -> Any:
        """Logits of a fixed prompt, shape (tokens, vocabulary)."""
        ids = torch.tensor([self.tokenizer.encode("Operating profit rose to 4.1 million.")], device=self.plain.device)
        with torch.no_grad():
            return self.lm.model(ids).logits[0]

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """Counted by the tokenizer, as lm-eval will."""
        prompt = len(self.lm.tok_encode(request.args[0]))
        if request.request_type == "loglikelihood":
            return prompt, prompt + len(self.lm.tok_encode(request.args[1], add_special_tokens=False)) - 1
        return prompt, prompt + int(request.args[1].get("max_gen_toks", self.lm.max_gen_toks))

    def chat_template(self) -> Any:
        """The base's own."""
        return bases.chat_template(self.tokenizer, self.base.id.alias)

    def answer(self, requests: Sequence[Any], progress: Any) -> list[Any]:
        """Longest prompts first, a few batches at a time, so that progress and Ctrl-C come through."""
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index].args[0]))
        # all labels of one prompt stay in one call: HFLM shares their forward pass
        groups = _keep_together(order, [request.doc_id for request in requests], 4 * self.batch_size)
        answers: dict[int, Any] = {}
        for group in groups:
            part = [requests[index] for index in group]
            done = getattr(self.lm, part[0].request_type)(part, disable_tqdm=True)
            answers |= dict(zip(group, done, strict=True))
            progress(len(group))
        return [answers[index] for index in range(len(requests))]


def _keep_together(order: list[int], documents: list[Any], size: int) -> list[list[int]]:
    """Cut ``order`` into groups of about ``size`` that never part the requests of one document."""
    groups: list[list[int]] = []
    for index in order:
        if groups and (len(groups[-1]) < size or documents[groups[-1][-1]] == documents[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
