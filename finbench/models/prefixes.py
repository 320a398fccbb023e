"""Which models can run a shared start once, and what sequences share; for engines and for training."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

_ATTENTION = ("sdpa", "eager")
_LAYERS = {"full_attention", "sliding_attention"}
_CHANGING = ("dynamic", "longrope")


def unsupported(model: Any) -> str:
    """Why trees cannot be run through ``model``; empty where they can."""
    config = model.config.get_text_config()  # of a model that also sees or hears: the part that reads
    takes = inspect.signature(model.forward).parameters
    head = model.get_output_embeddings()
    if model.config.is_encoder_decoder or head is None:
        return "it is not a decoder with a head"
    if "position_ids" not in takes or not {"cache", "past_key_values"} & takes.keys():
        return "it takes no positions or no cache"
    if config._attn_implementation not in _ATTENTION:
        return f"its attention is {config._attn_implementation}"
    if getattr(model, "_is_stateful", False) or not set(getattr(config, "layer_types", None) or []) <= _LAYERS:
        return "it has layers that are not attention"
    if not set(getattr(config, "attention_layers", None) or []) <= {"global"}:  # GPT-Neo's, which takes no other mask
        return "it has layers that look at a window of their own"
    return ""


def steady(model: Any) -> float:
    """Tokens up to which a position is coded alike however long the call is: some rotary codings change beyond."""
    config = model.config.get_text_config()
    stated = getattr(config, "rope_parameters", None) or {}
    limits = [
        one.get("original_max_position_embeddings") or config.max_position_embeddings
        for one in (stated, *stated.values())
        if isinstance(one, dict) and one.get("rope_type") in _CHANGING
    ]
    return float(min(limits, default=float("inf")))


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two sequences share at their start."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
