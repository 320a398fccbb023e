"""lm-eval's HFLM with token trees under it: the same requests, encoding and answers, a fraction of the work.

Used by the ``hf`` engine, and by lm-eval itself as model ``finbench`` (``finbench lm-eval``). What cannot be run as
trees (sampling, beams, models without a cache, prompt tuning) goes HFLM's own way, and the log says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import LogitsProcessor, LogitsProcessorList

from finbench.core.console import say
from finbench.core.environment import free_memory
from finbench.core.errors import FinbenchError, reason
from finbench.engines import choices, forward, generation, race
from finbench.engines.folding import Merger
from finbench.engines.interface import Done
from finbench.models import prefixes

_ROWS = 64  # prompts that are decoded side by side
_WIDE = 2**28  # bytes of float32 logits a batch may have
_FAILS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, NotImplementedError)  # of a forward pass
_PROBE = "Operating profit rose to 4.1 million. Operating profit fell."
# of a generation config: what has no say in greedy decoding
HARMLESS = {"bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_k", "top_p", "min_p",
             "typical_p", "max_length", "use_cache", "transformers_version", "output_attentions",
             "output_hidden_states", "return_dict_in_generate", "cache_implementation"}  # fmt: skip


class Finite(LogitsProcessor):
    """Stops generation at a logit that is not a number: argmax of NaN would be token 0, which looks like text."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if torch.isnan(scores).any() or not torch.isfinite(scores).any(dim=-1).all():
            raise forward.NOT_FINITE
        return scores


class TreeLM(HFLM):
    """HFLM that runs requests as token trees.

    ``tokens`` is what a forward pass may hold, with padding; by default what suits the device. ``rows`` bounds its
    rows. An adapter given as ``peft`` is merged where that gives its answers, unless ``merge`` is false. ``deliver`` is
    called with {number of the request: answer} after each batch. With ``best`` the requests of a call are the
    labels of one document, and are run only as far as it takes to know the most probable one (``race``).
    """

    best = False

    def __init__(
        self, *arguments: Any, tokens: int | None = None, rows: int | None = None, merge: bool = True, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.rows = rows
        self.tokens = tokens or (512 if self.device.type == "cpu" else 16384)
        self.deliver: Done = lambda answers: None
        self.bare = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        if merge and self.peft:
            Merger().merge(self.model, self.model.active_adapter, self.probe)
        self.slow = self._reason()
        self.steady = prefixes.steady(self.bare)
        self.forward: Any = None if self.slow else forward.Forward(self.bare)
        if not self.slow:
            self.slow = self._prove()
        if self.slow:
            say(f"This model is run without shared prefixes: {self.slow}.")

    def probe(self, text: str = _PROBE) -> Any:
        """Logits of a prompt, shape (tokens, vocabulary)."""
        with torch.no_grad():
            return self.model(torch.tensor([self.tokenizer.encode(text)], device=self.device)).logits[0]

    def plain(self, ids: list[int]) -> Any:
        """Logits of tokens by the model below its adapter; FinbenchError for one that cannot compute at all."""
        try:
            with torch.no_grad():
                return self.bare(torch.tensor([ids], device=self.device)).logits[0]
        except torch.OutOfMemoryError:
            raise
        except _FAILS as fault:
            raise FinbenchError(
                f"{self.bare.name_or_path or 'The model'} cannot compute: {reason(fault)}",
                "Its config.json may not fit its weights: fetch it again, or choose another: finbench bases",
            ) from fault

    def changed(self) -> None:
        """The weights are others than before."""
        if self.forward is not None:
            self.forward.forget()
        if not self.slow:
            self.slow = self._reason()

    def _reason(self) -> str:
        if self.backend != "causal":
            return "it is not causal"
        if self.mixed_precision_dtype is not None:
            return "mixed precision was asked for"
        for config in getattr(self.model, "peft_config", {}).values():
            if config.is_prompt_learning or getattr(config, "alora_invocation_tokens", None):
                return f"the adapter ({config.peft_type}) acts on the prompt"
        return prefixes.unsupported(self.bare)

    def _prove(self) -> str:
        """Run probes as trees, below a prefix and without, and plainly; what is wrong, else nothing."""
        ids = self.tokenizer.encode(_PROBE, add_special_tokens=False)
        half, quarter = len(ids) // 2, len(ids) // 4
        other = ids[:half] + ids[:quarter]  # another tree, which is shorter, below the same prefix
        probes = [(ids, ids[:2]), (other, ids[:2]), (other, ids[quarter:half]), (ids[quarter:], ids[:2])]
        expected = []
        for context, continuation in probes:
            plain = torch.log_softmax(self.plain([*context, *continuation]).float(), -1)[len(context) - 1 :]
            expected.append(float(sum(plain[at, token] for at, token in enumerate(continuation))))
        if not all(torch.isfinite(torch.tensor(expected))):
            raise forward.NOT_FINITE
        wrong = self._differs(probes, expected)
        if wrong and self.forward.flat:  # attention of its own
            self.forward.flat = False
            wrong = self._differs(probes, expected)
        return wrong

    def _differs(self, probes: Sequence[choices.Request], expected: Sequence[float]) -> str:
        try:
            found = self._score(probes[:3]) + self._score([probes[3], probes[0]])[:1]
        except _FAILS as fault:
            return f"a trial failed ({reason(fault)})"
        finally:
            self.forward.forget()
        allowed = 1e-2 if self.bare.dtype == torch.float32 else 0.05 * max(map(abs, expected)) + 0.5
        gap = max(abs(a - b[0]) for a, b in zip(expected, found, strict=True))
        return "" if gap <= allowed else f"a trial gave log-likelihoods that differ by {gap:.2g}"

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        near = [] if self.slow else [at for at, one in enumerate(requests) if not self.far(len(one[1] + one[2]) - 1)]
        far = sorted(set(range(len(requests))) - set(near))
        answers: dict[int, tuple[float, bool]] = {}
        if far:
            plain = super()._loglikelihood_tokens([requests[at] for at in far], disable_tqdm, override_bs)
            if not all(torch.isfinite(torch.tensor(value)) for value, _ in plain):
                raise forward.NOT_FINITE
            answers.update(zip(far, plain, strict=True))
        bar = tqdm(total=len(near), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests")

        def heard(done: Mapping[int, Any]) -> None:
            bar.update(len(done))
            self.deliver({near[at]: answer for at, answer in done.items()})

        score = self._race if self.best else self._score
        found = score([requests[at][1:] for at in near], heard) if near else []
        bar.close()
        for at, answer in zip(near, found, strict=True):
            answers[at] = answer
            if requests[at][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[at][0], answer)
        return [answers[at] for at in range(len(requests))]

    def far(self, length: int) -> bool:
        """Whether a sequence is so long that its positions are coded otherwise than those of a shorter prefix."""
        return bool(min(length, self.max_length) >= self.steady)

    def _score(self, requests: Sequence[choices.Request], heard: Done = lambda done: None) -> list[tuple[float, bool]]:
        answers = dict.fromkeys(range(len(requests)), (0.0, True))  # of an empty continuation
        for numbers, plan in self._plans(requests):
            for batch in self._run(plan):
                done = {
                    numbers[number]: choices.total(path, plan.targets[number], found)
                    for tree, found in batch
                    for number, path in tree.paths.items()
                }
                answers |= done
                heard(done)
        return list(answers.values())

    def _plans(self, requests: Sequence[choices.Request]) -> Iterator[tuple[Sequence[int], choices.TreePlan]]:
        if self.device.type != "cpu":
            yield range(len(requests)), choices.plan(requests, self.max_length)
            return
        for numbers, plan in choices.plans(requests, self.max_length):
            if len(numbers) < len(requests) and plan.prefix:
                self.forward.prefix(plan.prefix, reuse=True)  # examples before many questions are run once
            yield numbers, plan

    def _run(self, plan: choices.TreePlan) -> Iterator[list[tuple[choices.Tree, race.Scored]]]:
        wanted = max(1, _WIDE // (4 * self.bare.config.get_text_config().vocab_size))
        bounds = (self.tokens, wanted, self.rows, len(plan.prefix))
        for batch in choices.batches(plan.trees, *bounds, padded=not self.forward.flat):
            yield list(zip(batch, self.forward.score(batch, plan.prefix), strict=True))

    def _race(self, requests: Sequence[choices.Request], heard: Done) -> list[tuple[float, bool]]:
        answers: dict[int, tuple[float, bool]] = {}
        for field in race.fields([None] * len(requests), requests):
            own = [requests[number] for number in field]
            one = race.Race(choices.plan(own, self.max_length))
            if one.plan.prefix:
                self.forward.prefix(one.plan.prefix, reuse=True)
                while not one.over:
                    heat = one.heat()
                    for number, (_, scored) in enumerate(chain.from_iterable(self._run(heat))):
                        one.enter(number, scored)
                found = one.answers()
            else:  # contexts that are cut, by each label's length, would be run again in every heat
                found = self._score(own)
            done = dict(zip(field, found, strict=True))
            answers |= done
            heard(done)
        return [answers[number] for number in range(len(requests))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        answers: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        bar = tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Running generate_until requests")

        def deliver(part: Mapping[int, str]) -> None:
            answers.update(part)
            bar.update(len(part))
            self.deliver(part)

        for numbers in groups.values():
            how = normalize_gen_kwargs(dict(requests[numbers[0]].args[1]), self.max_gen_toks)
            far = numbers
            if not (self.slow or self._not_greedy(how)):
                far = [number for number in numbers if self._far_prompt(requests[number].args[0], how)]
            if far:
                found = super().generate_until([requests[number] for number in far], disable_tqdm=True)
                deliver(dict(zip(far, found, strict=True)))
            near = sorted(set(numbers) - set(far))
            if near:
                self._continue(near, [requests[number].args[0] for number in near], how, deliver)
        bar.close()
        for number, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, answers[number])
        return [answers[number] for number in range(len(requests))]

    def _far_prompt(self, text: str, how: Mapping[str, Any]) -> bool:
        return self.steady <= self.max_length and self.far(len(self.tok_encode(text)) + int(how["max_gen_toks"]))

    def _not_greedy(self, how: Mapping[str, Any]) -> bool:
        """Whether anything but the most probable token is asked for, by the request or by the model's own settings."""
        stated = {key for key, value in how.items() if value is not None} - {"until", "max_gen_toks"}
        if (
            isinstance(self.think_end_token, int)
            or how.get("do_sample")
            or how.get("temperature")
            or stated - {"do_sample", "temperature"}
        ):
            return True
        return self.processed()

    def processed(self) -> bool:
        """Whether the model's own generation settings change its most probable token, as a repetition penalty does."""
        own = self.bare.generation_config.to_diff_dict()
        return any(value is not None and not key.startswith("_") for key, value in own.items() if key not in HARMLESS)

    def _continue(self, numbers: list[int], contexts: list[str], how: Mapping[str, Any], deliver: Done) -> None:
        eos = self.tok_decode([self.eot_token_id], skip_special_tokens=False)
        until = handle_stop_sequences(how.get("until"), eos=eos)
        limit = int(how["max_gen_toks"])
        stops = self.ends()

        def finished(said: list[int]) -> bool:
            if said[-1] in stops:
                return True
            text = self.tok_decode(said, skip_special_tokens=False)
            return any(stop in text for stop in until)

        def heard(part: Mapping[int, list[int]]) -> None:
            texts = {numbers[at]: self.tok_decode(said, skip_special_tokens=True) for at, said in part.items()}
            deliver({at: postprocess_generated_text(text, until, self.think_end_token) for at, text in texts.items()})

        self.continued(self.encoded(contexts, limit), limit, finished, heard)

    def encoded(self, contexts: Sequence[str], limit: int) -> list[list[int]]:
        """Prompts in tokens, cut on the left to leave room for ``limit`` more."""
        room = choices.room(limit, self.max_length)
        prompts = [
            self.tok_batch_encode([text], truncation=bool(self.truncation))[0][0].tolist()[-room:] for text in contexts
        ]
        if not all(prompts):
            raise FinbenchError(choices.NO_PROMPT, choices.WITH_TEXT)
        return prompts

    def ends(self) -> set[int]:
        """Tokens that end a turn."""
        ends = self.bare.generation_config.eos_token_id
        return {self.eot_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def continued(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        finished: Callable[[list[int]], bool],
        heard: Callable[[Mapping[int, list[int]]], None],
        sampling: generation.Sampling | None = None,
    ) -> None:
        """Continue prompts by up to ``limit`` tokens, as ``generation.generate`` does."""
        first = min(prompts), max(prompts)
        shared = min(prefixes.common(*first), min(map(len, prompts)) - 1)
        shared = shared if shared >= choices.SHORTEST_PREFIX else 0
        generation.generate(
            self.forward,
            [prompt[shared:] for prompt in prompts],
            prompts[0][:shared],
            limit,
            finished,
            tokens=self.tokens,
            rows=self.side_by_side(max(map(len, prompts)) + limit),
            deliver=heard,
            sampling=sampling,
        )

    def side_by_side(self, length: int) -> int:
        """Prompts of ``length`` tokens in flight: their keys and values, twice, fill half of the free memory."""
        config = self.bare.config.get_text_config()
        each = 0
        for layer in getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers:
            heads = getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads
            size = getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads
            each += 2 * heads * size * self.bare.dtype.itemsize
        return int(max(1, min(self.rows or _ROWS, _ROWS, free_memory() // (4 * each * length))))

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **arguments: Any) -> Any:
        checks = LogitsProcessorList([Finite()])
        arguments |= {
            "logits_processor": checks,
            "return_dict_in_generate": False,
        }  # tokens, whatever the model's own say
        return super()._model_generate(context, max_length, stop, **arguments)
