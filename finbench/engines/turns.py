"""Whole turns: answers under any profile but ``direct``, run until the model ends them or their budget does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList

from finbench.core.settings import Profile
from finbench.engines import thinking
from finbench.engines.generation import Sampling
from finbench.engines.interface import Done, Generated
from finbench.engines.lm import Finite, TreeLM

_LOOK = 16  # tokens after which a model that has no turns is asked whether it has answered


def of_tokens(
    encoder: Any,
    said: Sequence[int],
    ended: bool,
    prompt: str,
    until: Sequence[str],
    profile: Profile,
    think_end: str | None,
) -> Generated:
    """The answer in the tokens of a turn; ``encoder`` is an HFLM, or what encodes as one."""
    tokenizer = encoder.tokenizer
    return thinking.taken_apart(
        encoder.tok_decode(list(said), skip_special_tokens=False),
        profile=profile,
        until=until,
        ended=ended,
        tokens=len(said),
        count=lambda text: len(tokenizer.encode(text, add_special_tokens=False)),
        prompt=prompt,
        think_end=think_end,
        specials=tokenizer.all_special_tokens,
    )


def answer(lm: TreeLM, requests: Sequence[Any], deliver: Done, profile: Profile, think_end: str | None) -> None:
    """Answer requests of one task by the model of ``lm``; ``deliver`` gets {number of the request: Generated}.

    Every request states its budget, and where it is sampled its temperature, top_p and seed.
    """
    how = requests[0].args[1]
    contexts, limit, until = [request.args[0] for request in requests], int(how["max_gen_toks"]), how["until"]
    prompts, stops = lm.encoded(contexts, limit), lm.ends()
    seeds = {number: int(request.args[1]["seed"]) for number, request in enumerate(requests) if how["do_sample"]}

    def finished(said: list[int]) -> bool:
        if said[-1] in stops:
            return True
        text = lm.tok_decode(said, skip_special_tokens=False) if len(said) % _LOOK == 0 else ""
        return bool(text) and thinking.answered(text, contexts[0], until)

    def heard(part: Mapping[int, list[int]], numbers: Sequence[int]) -> None:
        found = {}
        for at, said in part.items():
            number, ended = numbers[at], said[-1] in stops
            prompt = contexts[number]
            found[number] = of_tokens(lm, said, ended, prompt, until, profile, think_end)
        deliver(found)

    plain = lm.slow or lm.processed()
    far = [number for number, ids in enumerate(prompts) if plain or lm.far(len(ids) + limit)]
    near = sorted(set(range(len(prompts))) - set(far))
    if near:
        drawn = {at: seeds[number] for at, number in enumerate(near)} if seeds else {}
        sampling = Sampling(how["temperature"], how.get("top_p", 1.0), drawn) if seeds else None
        lm.continued([prompts[number] for number in near], limit, finished, lambda part: heard(part, near), sampling)
    # what a batch is drawn beside would decide what is drawn: with sampling each prompt is one
    size = 1 if seeds else max(1, min(lm.batch_size, lm.side_by_side(max(map(len, prompts)) + limit)))
    far.sort(key=lambda number: -len(prompts[number]))
    for start in range(0, len(far), size):
        batch = far[start : start + size]
        said = _generated(lm, [prompts[number] for number in batch], how, seeds.get(batch[0]), stops)
        heard(dict(enumerate(said)), batch)


def _generated(
    lm: TreeLM, prompts: Sequence[list[int]], how: Mapping[str, Any], seed: int | None, stops: set[int]
) -> list[list[int]]:
    """New tokens of each prompt, by the model's own ``generate``."""
    width, pad = max(map(len, prompts)), next(iter(stops))
    ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts], device=lm.device)
    seen = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=lm.device)
    sampled: dict[str, Any] = {"do_sample": False}
    if seed is not None:
        torch.manual_seed(seed)
        sampled = {"do_sample": True, "temperature": how["temperature"], "top_p": how.get("top_p", 1.0), "top_k": 0}
    with torch.inference_mode():
        made = lm.model.generate(
            input_ids=ids,
            attention_mask=seen,
            max_new_tokens=int(how["max_gen_toks"]),
            eos_token_id=sorted(stops),
            pad_token_id=pad,
            use_cache=True,
            return_dict_in_generate=False,
            logits_processor=LogitsProcessorList([Finite()]),
            **sampled,
        )
    found = []
    for row in made[:, width:].tolist():
        end = next((at for at, token in enumerate(row) if token in stops), len(row) - 1)
        found.append(row[: end + 1])
    return found
