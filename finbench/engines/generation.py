"""Greedy generation of many prompts: their common start is run once, and rows leave when they are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from finbench.engines.choices import Tree
from finbench.engines.forward import NOT_FINITE, Forward


class _RowsLayer(DynamicLayer):
    """Keys and values of each row after a shared prefix of shape (1, heads, tokens, head size)."""

    def __init__(self, shared: Any) -> None:
        super().__init__()
        self.shared = shared

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        keys, values = super().update(key_states, value_states)
        if self.shared is None:
            return keys, values
        before = [part.expand(keys.shape[0], -1, -1, -1) for part in (self.shared.keys, self.shared.values)]
        return torch.cat([before[0], keys], dim=-2), torch.cat([before[1], values], dim=-2)

    def get_seq_length(self) -> int:
        own = int(super().get_seq_length())
        return own if self.shared is None else own + int(self.shared.keys.shape[-2])


@dataclass
class _Rows:
    """Rows in flight: their layers, which of their positions are real, and what each has said."""

    numbers: list[int]
    layers: list[Any]
    seen: Any  # bools, shape (rows, own positions)
    next: list[int]
    said: list[list[int]] = field(default_factory=list)


def generate(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    prefix: list[int],
    limit: int,
    finished: Callable[[list[int]], bool],
    *,
    tokens: int,
    rows: int,
    told: Callable[[Mapping[int, list[int]]], None],
) -> None:
    """Continue each prompt greedily until ``finished(its new tokens)`` or ``limit`` tokens.

    ``told`` gets {number of the prompt: its new tokens} of those that are done, each once.
    ``prompts`` come without the ``prefix`` that all share and are best sorted by length. A prefill takes at most
    ``tokens`` tokens, decoding at most ``rows`` rows. Raises FinbenchError at a logit that is not finite.
    """
    shared = forward.prefix(prefix) if prefix else None
    waiting = list(range(len(prompts)))
    live: _Rows | None = None
    while waiting or live:
        # a step reads every weight, for two rows as for sixty: half of them gone, others take their places
        if waiting and (live is None or 2 * len(live.numbers) <= rows):
            parts = [live] if live else []
            while waiting and (free := rows - sum(len(part.numbers) for part in parts)) > 0:
                count = _fitting([len(prompts[number]) for number in waiting[:free]], tokens)
                parts.append(_prefill(forward, prompts, waiting[:count], len(prefix), shared))
                waiting = waiting[count:]
            live = _join(parts)
        assert live is not None
        for said, token in zip(live.said, live.next, strict=True):
            said.append(token)
        done = {row for row, said in enumerate(live.said) if len(said) >= limit or finished(said)}
        if done:
            told({live.numbers[row]: live.said[row] for row in sorted(done)})
            left = [row for row in range(len(live.numbers)) if row not in done]
            live = _keep(live, left) if left else None
        if live:
            _step(forward, live, len(prefix))


def _fitting(lengths: Sequence[int], tokens: int) -> int:
    """How many of the first prompts one prefill of ``tokens`` tokens with padding takes; at least one."""
    for count in range(1, len(lengths)):
        if (count + 1) * max(lengths[: count + 1]) > tokens:
            return count
    return len(lengths)


def _prefill(forward: Forward, prompts: Sequence[Sequence[int]], numbers: list[int], past: int, shared: Any) -> _Rows:
    chains = [Tree.chain(prompts[number]) for number in numbers]
    width = max(len(chain.tokens) for chain in chains)
    layers = [_RowsLayer(layer) for layer in shared] if shared else [_RowsLayer(None) for _ in range(forward.depth)]
    places = [(row, len(chain.tokens) - 1) for row, chain in enumerate(chains)]
    logits = forward.run(chains, past, Cache(layers=layers), places)
    seen = torch.arange(width)[None, :] < torch.tensor([[len(chain.tokens)] for chain in chains])
    return _Rows(numbers, layers, seen, _best(logits), [[] for _ in numbers])


def _step(forward: Forward, live: _Rows, past: int) -> None:
    """One more token for every row."""
    positions = past + live.seen.sum(dim=-1, keepdim=True)
    live.seen = torch.cat([live.seen, torch.ones_like(live.seen[:, :1])], dim=-1)
    own = live.seen.cumsum(dim=-1) - 1 + past
    keys = torch.cat([torch.arange(past).expand(len(live.numbers), -1), own], dim=-1)
    sees = torch.cat([torch.ones((len(live.numbers), past), dtype=torch.bool), live.seen], dim=-1)
    ids = torch.tensor([[said[-1]] for said in live.said])
    places = [(row, 0) for row in range(len(live.numbers))]
    live.next = _best(forward.call(ids, positions, sees[:, None, :], keys, Cache(layers=live.layers), places))


def _best(logits: Any) -> list[int]:
    """The most probable token of each row; of equal ones that with the lowest number."""
    values, tokens = logits.max(dim=-1)
    if not torch.isfinite(values).all():
        raise NOT_FINITE
    found: list[int] = tokens.tolist()
    return found


def _keep(live: _Rows, rows: list[int]) -> _Rows:
    """Without the rows that are done, and without the positions that only those had."""
    device = live.layers[0].keys.device
    seen = live.seen[rows]
    index, columns = torch.tensor(rows, device=device), seen.any(dim=0).to(device)
    for layer in _written(live.layers):
        layer.keys = layer.keys[index][:, :, columns]
        layer.values = layer.values[index][:, :, columns]
    return _Rows(
        [live.numbers[row] for row in rows],
        live.layers,
        seen[:, columns.to(seen.device)],
        [live.next[row] for row in rows],
        [live.said[row] for row in rows],
    )


def _written(layers: list[Any]) -> list[Any]:
    """Layers that hold something; the last ones of some models take their keys from earlier layers."""
    return [layer for layer in layers if layer.keys is not None]


def _join(parts: list[_Rows]) -> _Rows:
    """Rows of several prefills side by side; the shorter ones get positions that nobody sees."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.seen.shape[1] for part in parts)
    layers = []
    for depth, first in enumerate(_written(parts[0].layers)):
        joined = _RowsLayer(first.shared)
        for name in ("keys", "values"):
            padded = [
                torch.nn.functional.pad(getattr(part.layers[depth], name), (0, 0, 0, width - part.seen.shape[1]))
                for part in parts
            ]
            setattr(joined, name, torch.cat(padded))
        joined.dtype, joined.device, joined.is_initialized = joined.keys.dtype, joined.keys.device, True
        layers.append(joined)
    return _Rows(
        [number for part in parts for number in part.numbers],
        layers,
        torch.cat([torch.nn.functional.pad(part.seen, (0, width - part.seen.shape[1])) for part in parts]),
        [token for part in parts for token in part.next],
        [said for part in parts for said in part.said],
    )
