"""Is the adapter really what answers? Log-probabilities of probes by peft, kept once computed, and what vLLM says.

An adapter whose tensors match nothing is served by vLLM as the base, without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core import paths
from finbench.core.console import say
from finbench.core.environment import versions
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, write_atomic
from finbench.core.records import Bits
from finbench.engines.forward import NOT_FINITE, exact_head
from finbench.models import adapters, attaching, bases

PROBES = (
    "Operating profit rose to 4.1 million euro from 3.0 million a year ago.",
    "The company will cut 40 jobs. Is the sentiment positive, negative or neutral? Answer:",
    "Name the tag of this figure: net sales of the quarter were 120. Answer:",
)
LABELS = (" positive", " negative", " neutral")  # also compared, by their first token, where the base is quantised
TOP = 32  # tokens compared after each probe: the most probable ones by peft
EXACT = 1e-3  # largest difference of a log-probability in float32
# Root mean square of the differences that half precision explains in an adapter's answers, in nats; docs/vllm.md says
# what was measured. After the probes the base is asked for what the adapter would say: there it is twice as uneven.
_ROUNDING = {"bfloat16": 0.4, "float16": 0.15}
OF_BASE = {dtype: 2 * gap for dtype, gap in _ROUNDING.items()}  # in the base itself
_NEAR = 0.1  # of what the adapter moves: more is no rounding; a scale that is wrong by two makes half of it and more
_SERVED = 0.25  # of what the adapter moves: less than that from the base, and it is the base

Scores = list[list[float]]  # a row a probe, a column a token


@dataclass(frozen=True)
class Reference:
    """What peft says: ``ids`` are the tokens compared, ``own`` those of the adapter, ``base`` those of the base."""

    ids: list[list[int]]
    own: Scores
    base: Scores


def references(base: bases.Base, folders: Sequence[Path], dtype: str, bits: Bits = 16) -> dict[Path | None, Reference]:
    """peft's log-probabilities for each adapter; the model is loaded only for what is not in the cache.

    At less than 16 ``bits`` the base alone is held against transformers too, under None: two programs quantise it.
    """
    used, places = versions(("torch", "transformers", "peft")), dict[Path | None, Path]()
    quantised = [] if bits == 16 else [bits, LABELS, versions(("bitsandbytes",))]
    for folder in [*folders, *([None] if quantised else [])]:
        who = adapters.identity(folder) if folder else ""
        key = digest([base.id.fingerprint, who, dtype, used, PROBES, TOP, "float32 head", *quantised])
        places[folder] = paths.cache_dir() / "parity" / f"{key[:32]}.json"
    missing = [folder for folder, place in places.items() if not place.is_file()]
    if missing:
        for folder, found in _computed(base, missing, dtype, bits).items():
            places[folder].parent.mkdir(parents=True, exist_ok=True)
            write_atomic(places[folder], json.dumps(found.__dict__))
    return {folder: Reference(**json.loads(place.read_text())) for folder, place in places.items()}


def _computed(base: bases.Base, folders: Sequence[Path | None], dtype: str, bits: Bits) -> dict[Path | None, Reference]:
    import torch

    model, tokenizer = bases.load(base, bits, getattr(torch, dtype))
    beside = after_probes(model, tokenizer)
    labels = [] if bits == 16 else [tokenizer.encode(text, add_special_tokens=False)[0] for text in LABELS]
    found = {}
    for folder in folders:
        attached = attaching.attach(model, folder).eval() if folder else model
        own = after_probes(attached, tokenizer) if folder else beside
        top = [row.topk(min(TOP, len(row))).indices.tolist() for row in own]
        ids = [list(dict.fromkeys([*row, *labels])) for row in top]
        said = [[row[at].tolist() for row, at in zip(rows, ids, strict=True)] for rows in (own, beside)]
        found[folder] = Reference(ids, *said)
        model = attached.unload() if folder else model
    del model, attached
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # vLLM is to find the memory free
    return found


def after_probes(model: Any, tokenizer: Any) -> list[Any]:
    """Log-probabilities of every token after each probe, shape (vocabulary,), by transformers.

    The head computes in float32, as vLLM's does: in bfloat16 it alone rounds a logit of 20 to multiples of an eighth.
    """
    import torch

    with torch.no_grad(), exact_head(model, lambda hidden: hidden[:, -1:]):
        prompts = [torch.tensor([tokenizer.encode(text)], device=model.device) for text in PROBES]
        return [model(ids).logits[0, -1].float().log_softmax(-1).cpu() for ids in prompts]


def check(
    known: Mapping[Path | None, Reference], ask: Callable[[Path | None, list[list[int]]], Scores], dtype: str
) -> dict[Path | None, float]:
    """The difference between vLLM and peft by adapter, of the base under None: the largest in float32, else the root
    mean square, in nats.

    ``ask`` gives vLLM's log-probabilities of the given tokens after each probe, by an adapter or by the base. Raises
    FinbenchError for all adapters at once that are served as the base, or as something that peft does not know.
    """
    apart, rounding = (_largest, EXACT) if dtype == "float32" else (root_mean_square, _ROUNDING[dtype])
    gaps: dict[Path | None, float] = {}
    faults: list[str] = []
    for folder, peft in known.items():
        own, base = ask(folder, peft.ids), ask(None, peft.ids)
        values = [value for scores in (own, base, peft.own, peft.base) for row in scores for value in row]
        if not all(map(math.isfinite, values)):
            raise NOT_FINITE
        gaps[folder] = gap = apart(own, peft.own)
        moved, noise = apart(peft.own, peft.base), apart(base, peft.base)
        moved_enough = moved > 4 * noise  # an untrained adapter is its base by right, and one may be lost in rounding
        exact = dtype == "float32"
        of_base, allowed = (rounding, rounding) if exact else (OF_BASE[dtype], max(rounding, _NEAR * moved))
        if noise > of_base:
            faults.append(
                f"The base is served wrongly: log-probabilities differ from transformers' by {noise:.2g}, where "
                f"{dtype} explains {of_base:.2g}."
            )
        elif moved_enough and apart(own, base) < _SERVED * moved:
            faults.append(f"{folder} is served as the base: its answers are the base's own.")
        elif folder is not None and gap > allowed:
            faults.append(
                f"{folder} is served wrongly: log-probabilities differ from peft's by {gap:.2g}, where {dtype} "
                f"explains {allowed:.2g}."
            )
        elif moved and not moved_enough and not exact:
            say(f"{folder} moves the probes by {moved:.1g} only, rounding by {noise:.1g}: not shown to be served.")
    if faults:
        raise FinbenchError("\n".join(dict.fromkeys(faults)), "Use --engine hf, and report it to the vLLM project.")
    return gaps


def _differences(one: Scores, other: Scores) -> list[float]:
    return [a - b for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)]


def _largest(one: Scores, other: Scores) -> float:
    return max(map(abs, _differences(one, other)))


def root_mean_square(one: Scores, other: Scores) -> float:
    """Of the differences of two tables of log-probabilities, in nats."""
    found = _differences(one, other)
    return math.sqrt(sum(value * value for value in found) / len(found))
