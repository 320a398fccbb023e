"""transformers + peft in this process: one base in memory, adapters merged into it and taken out again."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from finbench.core import environment, refs
from finbench.core.errors import FinbenchError
from finbench.core.records import Bits, DType
from finbench.engines import race, thinking, turns
from finbench.engines.folding import Merger
from finbench.engines.interface import Done, Engine
from finbench.engines.lm import TreeLM
from finbench.models import attaching, bases

_STOCK_BATCH = 32  # rows a batch of HFLM's own way
_WINDOW = 16384  # requests that are encoded and planned at a time, which bounds memory
_PROBE = "Operating profit rose to 4.1 million."


class HFEngine(Engine):
    """The base once in memory; each adapter loaded when first used, and kept while all are plain LoRAs.

    ``merge=False`` leaves every adapter beside the weights. ``max_length``: tokens of a prompt with its answer, by
    default the base's context; ``gpu_memory``: the share of the GPU's memory that torch may take.
    """

    name = "hf"

    def __init__(
        self,
        base: bases.Base,
        bits: Bits = 16,
        dtype: DType = "auto",
        batch_size: int | None = None,
        merge: bool = True,
        max_length: int | None = None,
        gpu_memory: float | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise FinbenchError(f"batch_size must be at least 1, got {batch_size}.", "--arg batch_size=8")
        self.base, self.stock_batch, self.bits, self.merge = base, batch_size or _STOCK_BATCH, bits, merge
        torch_dtype = bases.compute_dtype(dtype)
        self.dtype = str(torch_dtype).removeprefix("torch.")
        self.share_before: float | None = None
        if gpu_memory is not None:
            self.share_before = torch.cuda.get_per_process_memory_fraction()
            torch.cuda.set_per_process_memory_fraction(gpu_memory)
        try:
            self.plain, self.tokenizer = bases.load(base, bits, torch_dtype)
        except FinbenchError:
            self.close()
            raise
        self.peft: Any = None
        self.lm = TreeLM(
            pretrained=self.plain,
            tokenizer=self.tokenizer,
            batch_size=self.stock_batch,
            softmax_dtype=torch.float32,
            rows=batch_size,
            max_length=min(max_length, bases.context_length(base) or max_length) if max_length else None,
        )
        if self.lm.slow:  # else it has been run already
            self.lm.plain(self.tokenizer.encode(_PROBE))
        self.max_length = int(self.lm.max_length)
        self.form = "base"
        self.merger = Merger()
        self._probe = functools.partial(self.lm.probe, _PROBE)
        self.alone: Any = None  # what the probe gives on the base, before any adapter is put on it
        self.proven: set[Path] = set()

    def close(self) -> None:
        if self.share_before is not None:
            torch.cuda.set_per_process_memory_fraction(self.share_before)

    def use(self, adapter: Path | None) -> None:
        """Switch to an adapter folder, or to the base alone.

        Raises FinbenchError for an adapter that does not fit, that changes the base itself (an unconverted PiSSA or
        OLoRA, trained biases: the base beside it would no longer be the base), or that changes nothing.
        """
        self.merger.restore()
        self.form = "base"
        if adapter is None:
            if self.peft is not None:
                self.peft.base_model.disable_adapter_layers()
        else:
            self._attach(adapter)
            self._prove(adapter)
            self.peft.base_model.enable_adapter_layers()
            merge = self.merge and self.bits == 16
            merged = merge and self.merger.merge(self.peft, self.peft.active_adapter, self._probe)
            self.form = "merged" if merged else "unmerged"
        self.lm.changed()

    def _attach(self, adapter: Path) -> None:
        """Put an adapter on the base. Only LoRAs stand side by side: others are taken off first."""
        kind = attaching.peft_config(adapter)
        if kind.is_prompt_learning or kind.peft_type == "ADAPTION_PROMPT":
            raise FinbenchError(
                f"{adapter} is of type {kind.peft_type.value}, which cannot be taken off to score the base beside it.",
                "Score it alone: finbench lm-eval run --model finbench --model_args pretrained=FOLDER,peft=ADAPTER ...",
            )
        if self.peft is not None and not attaching.stands_beside(self.peft, adapter):
            self.peft.unload()  # the base that is left is ``plain``
            self.peft, self.lm._model = None, self.plain
        if self.alone is None:
            self.alone = self._probe()
        self.peft = attaching.attach(self.peft if self.peft is not None else self.plain, adapter, self.base)
        self.lm._model = self.peft.eval()

    def _prove(self, adapter: Path) -> None:
        """The base below an adapter is still the base, and the adapter does something."""
        if adapter in self.proven:
            return
        with attaching.fitting(adapter):  # some of a configuration is first looked at when it computes
            self.peft.base_model.disable_adapter_layers()
            below = self._probe()
            self.peft.base_model.enable_adapter_layers()
            above = self._probe()
        if not torch.equal(below, self.alone):
            mend = "Convert it to a plain LoRA: peft's save_pretrained(path_initial_model_for_weight_conversion=...)."
            if getattr(attaching.peft_config(adapter), "bias", "none") != "none":  # which no LoRA holds
                bits = "" if self.bits == 16 else f" --bits {self.bits}"
                made = f"finbench merge {shlex.quote(refs.typed(adapter))}{bits} --out merged"
                mend = f"It trains biases. Score it as a model: {made}, then finbench eval --model ./merged"
            raise FinbenchError(
                f"{adapter} changes the base model itself when it is loaded: the two cannot be compared.", mend
            )
        if torch.equal(above, self.alone):
            said = f"{adapter} has no effect: its answers are those of the base."
            raise FinbenchError(said, "Train it again with a larger --lr.")
        self.proven.add(adapter)

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        prompt = len(self.lm.tok_encode(request.args[0]))
        if request.request_type == "loglikelihood":
            return prompt, prompt + len(self.lm.tok_encode(request.args[1], add_special_tokens=False)) - 1
        return prompt, prompt + int(request.args[1].get("max_gen_toks", self.lm.max_gen_toks))

    def chat_template(self) -> Any:
        return thinking.chat_template(self.tokenizer, self.base.id.alias, self.profile)

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        smaller = f"--arg batch_size={max(1, (self.lm.rows or self.stock_batch) // 4)}"
        fewer = ", fewer bits (--bits 4)" if self.bits == 16 else ""
        kept = "Answers so far are kept."
        with contextlib.ExitStack() as around:
            hint = f"Smaller batches ({smaller}){fewer} or shorter prompts (--max-length 2048). {kept}"
            around.enter_context(environment.fitting(hint))
            if self.form == "unmerged":
                around.enter_context(attaching.unchanged(self.peft))
            return self._answer(requests, done)

    def _answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        answers: dict[int, Any] = {}
        for group in self._groups(requests):
            self.lm.best = requests[group[0]].task_name in self.best

            def deliver(part: Mapping[int, Any], group: list[int] = group) -> None:
                named = {group[number]: answer for number, answer in part.items()}
                answers.update(named)
                done(named)

            self.lm.deliver = deliver
            part = [requests[index] for index in group]
            if self.profile != "direct" and part[0].request_type == "generate_until":
                turns.answer(self.lm, part, deliver, self.profile, self.think_end)
                continue
            found = getattr(self.lm, part[0].request_type)(part, disable_tqdm=True)
            late = {at: answer for at, answer in enumerate(found) if group[at] not in answers}
            if late:  # answered without a batch of their own, or HFLM's way
                deliver(late)
        return [answers[index] for index in range(len(requests))]

    def _groups(self, requests: Sequence[Any]) -> list[list[int]]:
        """Requests by number, in groups that never part those of one document: their labels share a tree.

        A document of which the best label is wanted is a group of its own. Prompts of several wordings (``start``)
        are asked apart where they begin otherwise: what one group begins with is run once.
        """
        starts: dict[str, int] = {}
        begins = [starts.setdefault(getattr(one, "start", ""), len(starts)) for one in requests]
        order, size, raced = sorted(range(len(requests)), key=begins.__getitem__), _WINDOW, self.best
        if self.lm.slow:  # nothing is shared there, and nothing raced
            order.sort(key=lambda index: -len(requests[index].args[0]))
            size, raced = 4 * self.stock_batch, frozenset()
        groups: list[list[int]] = []
        for index in order:
            last, new = requests[groups[-1][-1]] if groups else None, requests[index]
            if (
                last is None
                or begins[groups[-1][-1]] != begins[index]
                or (
                    race.document(last) != race.document(new)
                    and (len(groups[-1]) >= size or not raced.isdisjoint((last.task_name, new.task_name)))
                )
            ):
                groups.append([])
            groups[-1].append(index)
        return groups
