"""Running token trees through a transformers model: one forward pass a batch, logits only where they are wanted."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from finbench.core.errors import FinbenchError
from finbench.engines.choices import SHORTEST_PREFIX, Tree
from finbench.models.prefixes import common

KEPT = 2**28  # bytes of a head in float32 that are kept beside the model's own
NOT_FINITE = FinbenchError(
    "The model's log-probabilities are not finite: it cannot be scored.",
    "Check the weights, or use --arg dtype=float32.",
)


class _SharedLayer(DynamicLayer):
    """Keys and values of a prefix, shape (1, heads, tokens, head size), seen by every row; nothing is added to them."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.keys, self.values = layer.keys, layer.values
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.keys.device, True

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        rows = key_states.shape[0]
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)
        return keys, values


class _Head:
    """The model's head on chosen positions only, in float32 where the model computes in half precision.

    Whatever the model does to its logits (soft caps, scales) comes after it and stays the model's own.
    """

    def __init__(self) -> None:
        self.wide: Any = None  # the weight in float32, kept where it is small

    @contextlib.contextmanager
    def at(self, module: Any, rows: Any, nodes: Any) -> Iterator[None]:
        """``module``, the head, is this one for the time of a pass."""
        plain = module.forward
        module.forward = lambda hidden: self._logits(module, plain, hidden[rows, nodes].unsqueeze(0))
        try:
            yield
        finally:
            del module.forward

    def _logits(self, module: Any, plain: Any, hidden: Any) -> Any:
        if type(module) is not torch.nn.Linear or module.weight.dtype not in (torch.bfloat16, torch.float16):
            return plain(hidden).float()
        wide = self.wide if self.wide is not None else module.weight.float()
        self.wide = wide if wide.nbytes <= KEPT else None
        return torch.nn.functional.linear(hidden.float(), wide, None if module.bias is None else module.bias.float())


class Forward:
    """Runs trees through ``model``. Its weights may change between calls (adapters); then ``forget`` the prefix."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config.get_text_config()
        self.head = _Head()
        takes = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in takes else "past_key_values"
        self.depth = int(self.config.num_hidden_layers)
        self.known: tuple[list[int], Any] = ([], None)
        self.calls = 0

    def forget(self) -> None:
        """The weights are others now."""
        self.known = ([], None)
        self.head.wide = None

    def logits(self, batch: Sequence[Tree], prefix: list[int]) -> tuple[Any, list[tuple[int, int]]]:
        """Float32 logits, shape (nodes, vocabulary), and the (row, node) of each, of all wanted nodes of a batch."""
        cache = Cache(layers=self.prefix(prefix)) if prefix else None
        places = [(row, node) for row, tree in enumerate(batch) for node in tree.wanted]
        return self.run(batch, len(prefix), cache, places), places

    def prefix(self, prefix: list[int]) -> list[Any]:
        """The layers of keys and values of a prefix; kept until another is asked for."""
        if self.known[0] != prefix:
            self._know(prefix, 0)
        return list(self.known[1])

    def turn(self, prefix: list[int]) -> None:
        """Know ``prefix``, from what it shares with the one that is known; its last bits depend on that one."""
        if self.known[0] != prefix:
            shared = min(common(self.known[0], prefix), len(prefix) - 1)
            self._know(prefix, shared if shared >= SHORTEST_PREFIX else 0)

    def _know(self, prefix: list[int], shared: int) -> None:
        fresh = DynamicCache()
        for number, layer in enumerate(self.known[1] or () if shared else ()):
            fresh.update(layer.keys[:, :, :shared], layer.values[:, :, :shared], number)
        self.run([Tree.chain(prefix[shared:])], shared, fresh, [(0, len(prefix) - shared - 1)])
        self.known = (list(prefix), [_SharedLayer(layer) for layer in fresh.layers])

    def run(self, batch: Sequence[Tree], past: int, cache: Any, places: list[tuple[int, int]]) -> Any:
        """Logits at ``places`` of trees that follow ``past`` tokens in ``cache``."""
        width = max(len(tree.tokens) for tree in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        positions = torch.zeros((len(batch), width), dtype=torch.long)
        for row, tree in enumerate(batch):
            ids[row, : len(tree.tokens)] = torch.tensor(tree.tokens)
            positions[row, : len(tree.tokens)] = torch.tensor(tree.depths)
        positions += past
        sees = _ancestors(batch, width)
        sees = torch.cat([torch.ones((*sees.shape[:2], past), dtype=torch.bool), sees], dim=-1)
        keys = torch.cat([torch.arange(past).expand(len(batch), -1), positions], dim=-1)
        return self.call(ids, positions, sees, keys, cache, places)

    def call(self, ids: Any, positions: Any, sees: Any, keys: Any, cache: Any, places: list[tuple[int, int]]) -> Any:
        """Logits at ``places`` of one forward pass.

        ``ids`` and ``positions`` have the shape (rows, width); ``sees``, which position may look at which, (rows or
        1, width, keys); ``keys``, the positions of what is looked at, (rows, keys).
        """
        device = self.model.device
        rows, nodes = zip(*places, strict=True)
        at = (torch.tensor(rows, device=device), torch.tensor(nodes, device=device))
        arguments = {} if cache is None else {self.cache_name: cache}
        self.calls += 1
        with torch.inference_mode(), self.head.at(self.model.get_output_embeddings(), *at):
            return self.model(
                input_ids=ids.to(device),
                attention_mask=self._masks(sees, positions, keys),
                position_ids=positions.to(device),
                use_cache=cache is not None,
                **arguments,
            ).logits[0]

    def _masks(self, sees: Any, positions: Any, keys: Any) -> Any:
        """Additive masks, by kind of layer where the model has several."""
        kinds = set(getattr(self.config, "layer_types", None) or [])
        window = getattr(self.config, "sliding_window", None)
        sees = sees.expand(len(positions), -1, -1)  # some models insist on a mask for every row
        full = self._additive(sees)
        if window is None or kinds == {"full_attention"}:
            return full if len(kinds) <= 1 else dict.fromkeys(kinds, full)
        sliding = self._additive(sees & (positions[:, :, None] - keys[:, None, :] < window))
        return sliding if len(kinds) <= 1 else {"full_attention": full, "sliding_attention": sliding}

    def _additive(self, sees: Any) -> Any:
        mask = torch.zeros(sees.shape, dtype=self.model.dtype).masked_fill_(~sees, float("-inf"))
        return mask.unsqueeze(1).to(self.model.device)


def _ancestors(batch: Sequence[Tree], width: int) -> Any:
    """Bools, shape (rows or 1, width, width): which nodes of its tree each node descends from, and itself."""
    if not any(tree.branches for tree in batch):
        return torch.ones((1, width, width), dtype=torch.bool).tril_()
    sees = torch.eye(width, dtype=torch.bool).expand(len(batch), -1, -1).numpy().copy()
    for row, tree in enumerate(batch):
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                sees[row, node] |= sees[row, parent]
    return torch.from_numpy(sees)


def score(logits: Any, batch: Sequence[Tree], places: list[tuple[int, int]]) -> list[dict[tuple[int, int], Any]]:
    """For each row: (node, token) -> (log-probability, whether no token is more probable).

    Raises FinbenchError for what is not finite: argmax over NaN would be the first label.
    """
    totals, best = logits.logsumexp(dim=-1), logits.argmax(dim=-1)
    at = [(number, token) for number, (row, node) in enumerate(places) for token in batch[row].wanted[node]]
    numbers, tokens = (torch.tensor(part, device=logits.device) for part in zip(*at, strict=True))
    values = (logits[numbers, tokens] - totals[numbers]).double()
    if not torch.isfinite(values).all():
        raise NOT_FINITE
    greedy = best[numbers] == tokens
    scored: list[dict[tuple[int, int], Any]] = [{} for _ in batch]
    for (number, token), value, first in zip(at, values.tolist(), greedy.tolist(), strict=True):
        row, node = places[number]
        scored[row][node, token] = (value, first)
    return scored
