"""Rows of a forward pass one behind the other: padding is computed by attention alone, and by no other product.

A transformer treats its tokens apart, but in attention. So the tokens of all rows can be one long row, if attention
spreads it into padded rows and puts its output back. Keys and values are spread where they are stored (the cache).
What all rows look at before their own tokens (``prefix``) is attended once, by the long row; the two parts of an
attention are joined by the sums of their weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AttentionInterface

_SDPA = "sdpa"


@dataclass(frozen=True)
class FlatRows:
    """Where tokens of a flat pass lie in rows.

    ``own``: (rows, width), the token at each place, any one where there is none. ``back``: (tokens,), the place of
    each among rows * width. ``apart``: keys and values of a row are without those of the prefix. ``causal``: rows are
    chains, and need no mask.
    """

    own: Any
    back: Any
    apart: bool
    causal: bool

    @classmethod
    def of(cls, sizes: Sequence[int], apart: bool, causal: bool) -> FlatRows:
        """That of rows of these lengths."""
        lengths, places = torch.tensor(sizes), torch.arange(max(sizes))
        there = places < lengths[:, None]
        own = (lengths.cumsum(0) - lengths)[:, None] + places
        return cls(own.where(there, 0), there.flatten().nonzero()[:, 0], apart, causal)

    def to(self, device: Any) -> FlatRows:
        """The same on another device."""
        return replace(self, own=self.own.to(device), back=self.back.to(device))

    def spread(self, states: Any) -> Any:
        """(1, heads, tokens, size) as (rows, heads, width, size)."""
        return states[0].transpose(0, 1)[self.own.to(states.device)].transpose(1, 2)

    def gather(self, states: Any) -> Any:
        """(rows, width, ...) as (tokens, ...)."""
        return states.flatten(0, 1)[self.back.to(states.device)]


_OWN: Callable[..., tuple[Any, Any]] = AttentionInterface()[_SDPA]
_now: ContextVar[tuple[bool, FlatRows | None]] = ContextVar("_now", default=(False, None))


@contextlib.contextmanager
def attending(layout: FlatRows | None) -> Iterator[None]:
    """Meanwhile models whose attention is torch's attend over rows that lie as ``layout`` says; None: not flat."""
    token = _now.set((True, layout))
    try:
        yield
    finally:
        _now.reset(token)


def layout() -> FlatRows | None:
    """That of the pass that is run."""
    return _now.get()[1]


def single(device: Any, dtype: Any) -> bool:
    """Whether attention of a ``dtype`` is computed in float32: on a processor, where that is twice as fast."""
    return device.type == "cpu" and dtype in (torch.bfloat16, torch.float16)


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> tuple[Any, Any]:
    """transformers' interface: queries that may lie flat, keys that do not; the output lies as the queries do."""
    meant, flat = (False, None) if torch.compiler.is_compiling() else _now.get()
    if not meant:
        return _OWN(module, query, key, value, attention_mask, **options)
    dtype = query.dtype
    wide = torch.float32 if single(query.device, dtype) else dtype
    if flat is not None and len(key) != len(flat.own):
        raise NotImplementedError("keys that are not stored as rows")
    if flat is not None and flat.causal:
        attention_mask = None  # there was one, else transformers would make one for the long row
    if flat is not None and flat.apart:
        prefix = getattr(key, "of_prefix", None)
        strange = [name for name in ("softcap", "position_bias", "s_aux") if options.get(name) is not None]
        if strange or prefix is None:
            raise NotImplementedError(f"attention with {', '.join(strange) or 'keys that change on their way'}")
        parts = [states.to(wide) for states in (key, value, *prefix)]
        joined = _joined(flat, query.to(wide), parts[:2], parts[2:], attention_mask, options.get("scaling"))
        return joined.to(dtype), None
    queries = query if flat is None else flat.spread(query)
    found, weights = _OWN(module, queries.to(wide), key.to(wide), value.to(wide), attention_mask, **options)
    found = found.to(dtype)
    return (found if flat is None else flat.gather(found).unsqueeze(0)), weights


def _joined(flat: FlatRows, query: Any, own: Sequence[Any], prefix: Sequence[Any], mask: Any, scale: Any) -> Any:
    """Attention over keys and values of a prefix, (1, heads, past, size), and each row's own: (1, tokens, heads, size).

    A processor's kernel gives the logarithm of the sum of the weights with its output.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    above, sum_above = kernel(query, *prefix, scale=scale)
    within, sum_within = kernel(flat.spread(query), *own, is_causal=mask is None, attn_mask=mask, scale=scale)
    sum_within = flat.gather(sum_within.transpose(1, 2))
    share = torch.sigmoid(sum_above[0].transpose(0, 1) - sum_within).unsqueeze(-1)
    return torch.lerp(flat.gather(within.transpose(1, 2)), above[0].transpose(0, 1), share).unsqueeze(0)


# Under the name of torch's own attention: some models do other things under another one.
AttentionInterface.register(_SDPA, _attend)
