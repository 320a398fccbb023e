"""Outlines of bases that are too large to fetch for a plan, by the name of their size."""

from __future__ import annotations

import re
from typing import Any

from finbench.core.errors import unknown
from finbench.models import empty_model

# Sizes of bases too large to fetch for a plan: hidden, MLP, layers, heads, key/value heads, vocabulary.
SHAPES = {
    "llama-2-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama-2-13b": (5120, 13824, 40, 40, 40, 32000),
    "llama-3.1-8b": (4096, 14336, 32, 32, 8, 128256),
    "llama-3.1-70b": (8192, 28672, 80, 64, 8, 128256),
}
GPT2 = {"gpt2": (768, 12, 12), "gpt2-xl": (1600, 48, 25)}  # hidden, layers, heads; 50,257 tokens, embeddings tied


def shape_of(base: str) -> str | None:
    """The name in SHAPES of a base's size, by its alias or its name on the Hub; None if there is none."""
    plain = re.sub(r"[^a-z0-9.]+", "-", base.lower())
    plain = plain.replace("meta-llama-3.1", "llama-3.1").replace("-hf", "")
    return next(
        (name for name in (*SHAPES, *GPT2) if re.search(rf"(^|-){re.escape(name)}(-instruct|-chat)?$", plain)), None
    )


def shaped(name: str) -> Any:
    """A Llama or GPT-2 of the named size, on torch's meta device."""
    from transformers import GPT2Config, LlamaConfig

    if name in GPT2:
        width, depth, heads = GPT2[name]
        return empty_model(GPT2Config(n_embd=width, n_layer=depth, n_head=heads))
    if name not in SHAPES:
        raise unknown("shape", name, [*SHAPES, *GPT2], "finbench plan --help")
    hidden, mlp, depth, heads, shared, vocabulary = SHAPES[name]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    )
    return empty_model(config)
