"""A dense model of the same family that is as large, or as costly, as a structured one: the baseline it must beat."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.models.modelfiles import empty_model
from finbench.models.structured import counts

# The width is chosen so that the inner size stays near its share of it; beyond these it would be another kind of model.
_NARROWEST, _WIDEST = 0.5, 2.0


@dataclass(frozen=True)
class Match:
    """A narrower dense configuration; ``deviation``: how much more it has than wanted, as a share; negative: less."""

    config: Any
    deviation: float


def dense_config_matching(
    config: Any, *, parameters: int | None = None, flops: float | None = None, context: int = 1024
) -> Match:
    """The dense configuration nearest to ``parameters``, or to ``flops`` (forward, a token, at ``context``).

    Depth, head size and vocabulary stay; heads, width and inner size shrink: of all numbers of heads the one whose
    inner size, chosen to meet the count, is nearest to its share of the width before. Raises FinbenchError for a count
    that no such model has, and for families other than GPT-2's and Llama's shape.
    """
    measure, wanted = ("flops", flops) if parameters is None else ("parameters", float(parameters))
    if wanted is None:
        raise ValueError("parameters or flops")

    def count(one: Any) -> float:
        model = empty_model(one)
        return counts.flops_per_token(model, context).forward if parameters is None else float(counts.parameters(model))

    text = config.get_text_config()
    own = (text.n_inner or 4 * text.n_embd) if text.model_type == "gpt2" else text.intermediate_size
    share = own / text.hidden_size
    best: Any = None
    nearest = math.inf
    for heads in range(1, text.num_attention_heads + 1):
        width = text.hidden_size // text.num_attention_heads * heads
        usual = max(2, round(share * width))
        one, two = (count(_narrowed(config, heads, inner)) for inner in (usual, 2 * usual))
        inner = usual + round((wanted - one) / ((two - one) / usual))  # both counts are linear in it
        off = abs(math.log(inner / width / share)) if _NARROWEST * usual <= inner <= _WIDEST * usual else math.inf
        if off < nearest:
            best, nearest = _narrowed(config, heads, inner), off
    if best is None:
        raise FinbenchError(
            f"No narrower {config.model_type} of {text.num_hidden_layers} layers has {wanted:,.0f} {measure}: "
            f"this one has {count(config):,.0f}.",
            "Compress less; at this size the embeddings are most of the model.",
        )
    return Match(best, count(best) / wanted - 1)


def _narrowed(config: Any, heads: int, inner: int) -> Any:
    """``config`` with fewer heads of the same size and another inner size."""
    made = copy.deepcopy(config)
    old = config.get_text_config()
    width = old.hidden_size // old.num_attention_heads * heads
    if config.model_type == "gpt2":
        made.n_embd, made.n_head, made.n_inner = width, heads, inner
        return made
    if not all(hasattr(old, key) for key in ("intermediate_size", "hidden_size", "num_attention_heads")):
        raise FinbenchError(
            f"How to narrow a {config.model_type} is not known; GPT-2 and Llama's shape are.",
            "Leave this baseline out of the recipe, or use a shape of GPT-2 or Llama.",
        )
    text = made.get_text_config()
    text.hidden_size, text.num_attention_heads, text.intermediate_size = width, heads, inner
    groups = getattr(old, "num_key_value_heads", None)
    if groups:
        share = groups / old.num_attention_heads * heads
        text.num_key_value_heads = min((n for n in range(1, heads + 1) if heads % n == 0), key=lambda n: abs(n - share))
    return made
