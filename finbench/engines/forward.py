"""Running token trees through a transformers model: one forward pass a batch, logits only where they are wanted."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from finbench.core.errors import FinbenchError
from finbench.engines import flat, products
from finbench.engines.choices import SHORTEST_PREFIX, Tree
from finbench.models.prefixes import common

_SHARP, _AT_ONCE = 32, 64  # tokens of a position whose logits are in float64, positions that are sharpened at a time
_ROOM = 16  # tokens for which a row has room, and again when it is full
_APART = ("cpu",)  # whose attention gives the sums by which that of a prefix and of rows are joined
_PASS = 64  # tokens that take as long as reading the weights
_LAID_FROM = 512  # tokens from which on weights are laid out anew, which takes as long as a tenth of these
KEPT = 2**28  # bytes of a head in float32 that are kept beside the model's own
NOT_FINITE = FinbenchError(
    "The model's log-probabilities are not finite: it cannot be scored.",
    "Check the weights, or use --arg dtype=float32.",
)


class RowsLayer(DynamicLayer):
    """Keys and values of each row, after those of ``shared``, a layer of a prefix: (1, heads, tokens, head size).

    There is room behind them, so that a token that is decoded copies none of those before it. Without ``keep`` those of
    the rows are seen and not stored: a batch of one pass needs no room for them. What lies flat is spread first.
    """

    keys: Any
    values: Any

    def __init__(self, shared: Any, keep: bool = True) -> None:
        super().__init__()
        self.shared, self.keep = shared, keep
        self.ran: flat.FlatRows | None = None
        self.before = 0 if shared is None else int(shared.keys.shape[-2])
        self._shared: Any = (None, None) if shared is None else (shared.keys, shared.values)

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if layout := flat.layout():
            key_states, value_states = layout.spread(key_states), layout.spread(value_states)
            if self.ran is layout:
                raise NotImplementedError("a layer that stores keys twice")
            self.ran = layout
            if layout.apart or (self.shared is None and not self.keep):
                if self.keep:
                    self.hold((key_states, value_states))
                key_states.of_prefix = self._shared  # on its way to attention
                return key_states, value_states
        if not self.keep:
            keys, values = (part.expand(len(key_states), -1, -1, -1) for part in self._shared)
            return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
        end = self.get_seq_length() + key_states.shape[-2]
        if not self.is_initialized:
            self.hold((key_states, value_states))
        elif end > self.rooms[0].shape[-2]:
            self.hold((torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)))
        else:
            for room, states in zip(self.rooms, (key_states, value_states), strict=True):
                room[:, :, end - states.shape[-2] : end] = states
            self.keys, self.values = (room[:, :, self.before : end] for room in self.rooms)
        return self.rooms[0][:, :, :end], self.rooms[1][:, :, :end]

    def hold(self, *parts: tuple[Any, Any]) -> None:
        """Keep these as the rows' own, one part below the other, with room behind them; shorter ones end in zeros.

        A part is (keys, values), each (rows, heads, tokens, head size).
        """
        end = self.before + max(keys.shape[-2] for keys, _ in parts)
        self.rooms = [
            self._room(own, end, before) for own, before in zip(zip(*parts, strict=True), self._shared, strict=True)
        ]
        self.keys, self.values = (room[:, :, self.before : end] for room in self.rooms)
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def pick(self, rows: Any) -> None:
        """Keep these rows alone."""
        end = self.get_seq_length()
        self.rooms = [room.index_select(0, rows) for room in self.rooms]
        self.keys, self.values = (room[:, :, self.before : end] for room in self.rooms)

    @staticmethod
    def _room(parts: Sequence[Any], end: int, before: Any) -> Any:
        first, at = parts[0], 0
        room = first.new_zeros((sum(map(len, parts)), first.shape[1], end + _ROOM, first.shape[-1]))
        start = 0 if before is None else before.shape[-2]
        if start:
            room[:, :, :start] = before
        for part in parts:
            room[at : at + len(part), :, start : start + part.shape[-2]] = part
            at += len(part)
        return room

    def get_seq_length(self) -> int:
        return self.before + int(super().get_seq_length())


def sharpened(logits: Any, hidden: Any, head: Any, tokens: Any) -> Any:
    """``logits`` (positions, vocabulary) with those of ``tokens`` (positions, any) and the most probable in float64.

    These decide a log-probability. Sums of products in float32 are the larger part of its error; here they cost little.
    ``hidden`` has the shape (positions, size of the model).
    """
    for at in range(0, len(logits), _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        chosen = torch.cat([logits[part].topk(min(_SHARP, logits.shape[-1])).indices, tokens[part]], dim=-1)
        exact = torch.einsum("pth,ph->pt", head.weight[chosen].double(), hidden[part].double())
        if head.bias is not None:
            exact += head.bias[chosen].double()
        logits[part].scatter_(-1, chosen, exact.to(logits.dtype))
    return logits


def _wide_product(head: Any, hidden: Any) -> Any:
    """Logits of a head of half precision, in float32."""
    return torch.nn.functional.linear(hidden, head.weight.float(), None if head.bias is None else head.bias.float())


@contextlib.contextmanager
def exact_head(
    model: Any,
    pick: Callable[[Any], Any],
    product: Callable[[Any, Any], Any] = _wide_product,
    tokens: Any = None,
) -> Iterator[None]:
    """Meanwhile the model's head runs on the positions that ``pick`` takes, in float32 for half precision too.

    Whatever the model does to its logits (soft caps, scales) comes after it and stays the model's own. ``product``
    gives the logits of a head of half precision for what is in float32. With ``tokens``, (positions, any), a head in
    float32 is ``sharpened``.
    """
    head = model.get_output_embeddings()
    plain, own = head.forward, vars(head).get("forward")

    def logits(hidden: Any) -> Any:
        hidden = pick(hidden)
        if type(head) is torch.nn.Linear and head.weight.dtype in (torch.bfloat16, torch.float16):
            return product(head, hidden.float())
        found = plain(hidden).float()
        sharp = tokens is not None and type(head) is torch.nn.Linear and head.weight.dtype == torch.float32
        return sharpened(found[0], hidden[0], head, tokens).unsqueeze(0) if sharp else found

    head.forward = logits
    try:
        yield
    finally:
        del head.forward
        if own is not None:
            head.forward = own


@contextlib.contextmanager
def unrepeated_keys(device: Any, width: int) -> Iterator[None]:
    """Meanwhile a processor's attention takes keys that several heads share as they are.

    Where there is a mask, transformers writes a copy for each head else, since CUDA has no fast kernel without. The
    processor's has one, with equal bits; its switch is transformers' own (``use_gqa_in_sdpa``). A single token of each
    row (``width`` 1) transformers packs by itself, as many queries of one head, which is four times as fast.
    """
    switch = "TRANSFORMERS_SDPA_FORCE_GQA"
    if device.type != "cpu" or width == 1 or switch in os.environ:
        yield
        return
    os.environ[switch] = "1"
    try:
        yield
    finally:
        os.environ.pop(switch, None)


class Forward:
    """Runs trees through ``model``. Its weights may change between calls (adapters); then ``forget`` the prefix."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config.get_text_config()
        takes = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in takes else "past_key_values"
        self.depth = int(self.config.num_hidden_layers)
        compiled = any(getattr(module, "_compiled_call_impl", None) for module in model.modules())
        # whether rows are run without padding
        self.flat = self.config._attn_implementation == "sdpa" and not compiled
        self.forget()
        self.calls = 0

    def forget(self) -> None:
        """The weights are others now."""
        self.known: tuple[list[int], list[Any]] = ([], [])  # a prefix and its layers
        self.wide: Any = None  # a product of float32 in place of a smaller head of half precision
        self.products: products.Products | None = None
        self.ran = 0  # tokens and passes, in tokens

    def score(self, batch: Sequence[Tree], prefix: list[int]) -> list[dict[tuple[int, int], tuple[float, bool]]]:
        """For each tree of a batch: (node, token) -> (log-probability, whether no token is more probable).

        Raises FinbenchError for what is not finite: argmax over NaN would be the first label.
        """
        cache = Cache(layers=[RowsLayer(layer, keep=False) for layer in self.prefix(prefix)]) if prefix else None
        places = [(row, node) for row, tree in enumerate(batch) for node in tree.wanted]
        asked = [batch[row].wanted[node] for row, node in places]
        most = max(map(len, asked))
        tokens = torch.tensor([some + some[:1] * (most - len(some)) for some in asked])
        logits = self.run(batch, len(prefix), cache, places, tokens)
        parts = logits.split(_AT_ONCE)  # of which what logsumexp writes stays in a processor's cache
        totals, best = torch.cat([one.logsumexp(-1) for one in parts]), torch.cat([one.argmax(-1) for one in parts])
        at = [(number, token) for number, (row, node) in enumerate(places) for token in batch[row].wanted[node]]
        numbers, tokens = (torch.tensor(part, device=logits.device) for part in zip(*at, strict=True))
        values = (logits[numbers, tokens] - totals[numbers]).double()
        if not torch.isfinite(values).all():
            raise NOT_FINITE
        greedy = best[numbers] == tokens
        scored: list[dict[tuple[int, int], tuple[float, bool]]] = [{} for _ in batch]
        for (number, token), value, first in zip(at, values.tolist(), greedy.tolist(), strict=True):
            row, node = places[number]
            scored[row][node, token] = (value, first)
        return scored

    def prefix(self, prefix: list[int], reuse: bool = False) -> list[Any]:
        """The layers of keys and values of a prefix; kept until another is asked for.

        ``reuse``: what it shares with the one that is known is not run again; its last bits depend on that one then.
        """
        if self.known[0] != prefix:
            shared = min(common(self.known[0], prefix), len(prefix) - 1) if reuse else 0
            shared = shared if shared >= SHORTEST_PREFIX else 0
            fresh = DynamicCache()
            for number, layer in enumerate(self.known[1] if shared else ()):
                fresh.update(layer.keys[:, :, :shared], layer.values[:, :, :shared], number)
            left = len(prefix) - shared
            chain = Tree(prefix[shared:], list(range(-1, left - 1)), list(range(left)))
            self.run([chain], shared, fresh, [(0, left - 1)])
            self.known = (list(prefix), fresh.layers)
        return self.known[1]

    def run(
        self, batch: Sequence[Tree], past: int, cache: Any, places: list[tuple[int, int]], tokens: Any = None
    ) -> Any:
        """Logits at ``places`` of trees that follow ``past`` tokens in ``cache``; sharp ones at ``tokens`` of each."""
        sizes = [len(tree.tokens) for tree in batch]
        width = max(sizes)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        positions = torch.arange(width).repeat(len(batch), 1)
        for row, tree in enumerate(batch):
            ids[row, : len(tree.tokens)] = torch.tensor(tree.tokens)
            positions[row, : len(tree.tokens)] = torch.tensor(tree.depths)
        positions += past
        branching = any(tree.branches for tree in batch)
        layout = self._layout(sizes, past, cache, branching)
        if layout.causal if layout else not past and not branching:
            # plainly causal, what is padded comes last: a mask would cost a sixth more
            return self.call(ids, positions, None, None, cache, places, tokens, layout)
        before = 0 if layout and layout.apart else past
        if branching:  # a node sees those of its tree that it descends from, and itself
            descends = torch.eye(width, dtype=torch.bool).expand(len(batch), -1, -1).numpy().copy()
            for row, tree in enumerate(batch):
                for node, parent in enumerate(tree.parents):
                    if parent >= 0:
                        descends[row, node] |= descends[row, parent]
            sees = torch.from_numpy(descends)
        else:
            sees = torch.ones((1, width, width), dtype=torch.bool).tril_()
        sees = torch.cat([torch.ones((*sees.shape[:2], before), dtype=torch.bool), sees], dim=-1)
        keys = torch.cat([torch.arange(before).expand(len(batch), -1), positions], dim=-1)
        return self.call(ids, positions, sees, keys, cache, places, tokens, layout)

    def _layout(self, sizes: Sequence[int], past: int, cache: Any, branching: bool) -> flat.FlatRows | None:
        """How rows of these lengths lie in a flat pass; None for rows with padding, or one that needs no other."""
        window = getattr(self.config, "sliding_window", None) or past + max(sizes)
        apart = past > 0 and isinstance(cache.layers[0], RowsLayer) and past + max(sizes) <= window
        apart = apart and self.flat and self.model.device.type in _APART
        if not apart and (not self.flat or len(sizes) == 1):
            return None
        return flat.FlatRows.of(sizes, apart, causal=not branching and (apart or not past) and max(sizes) <= window)

    def call(
        self,
        ids: Any,
        positions: Any,
        sees: Any,
        keys: Any,
        cache: Any,
        places: list[tuple[int, int]],
        tokens: Any = None,
        layout: flat.FlatRows | None = None,
    ) -> Any:
        """Logits at ``places`` of one forward pass, sharp at ``tokens``, (places, any).

        ``ids`` and ``positions`` have the shape (rows, width); ``sees``, which position may look at which, (rows or
        1, width, keys), None for all before it; ``keys``, the positions of what is looked at, (rows, keys). With a
        ``layout`` the rows are run one behind the other, without what is padding.
        """
        device, width = self.model.device, ids.shape[1]
        rows, nodes = (torch.tensor(part) for part in zip(*places, strict=True))
        attends: Any = contextlib.nullcontext()
        dtype = self.model.dtype
        if layout is not None or (self.flat and width > 1):
            attends = flat.attending(None if layout is None else layout.to(device))
            dtype = torch.float32 if flat.single(device, dtype) else dtype
        if sees is None and layout is not None:
            sees = torch.ones((1, 1, 1), dtype=torch.bool)  # stands there for a mask
        masks = None if sees is None else self._masks(sees, positions, keys, dtype)
        if layout is not None:
            if cache is None:
                cache = Cache(layers=[RowsLayer(None, keep=False) for _ in range(self.depth)])
            rows, nodes = torch.zeros_like(rows), torch.searchsorted(layout.back, rows * width + nodes)
            ids, positions = (part.flatten()[layout.back].unsqueeze(0) for part in (ids, positions))
        arguments = {} if cache is None else {self.cache_name: cache}
        self.calls += 1
        self.ran += ids.numel() + _PASS
        if self.products is None and self.ran >= _LAID_FROM and device.type == "cpu":
            self.products, self.wide = products.Products(self.model), None
        at = rows.to(device), nodes.to(device)
        laid = contextlib.nullcontext() if self.products is None else self.products.used()
        with torch.inference_mode(), unrepeated_keys(device, width), attends, laid, self._head(*at, tokens):
            return self.model(
                input_ids=ids.to(device),
                attention_mask=masks,
                position_ids=positions.to(device),
                use_cache=cache is not None,
                **arguments,
            ).logits[0]

    def _head(self, rows: Any, nodes: Any, tokens: Any) -> contextlib.AbstractContextManager[None]:
        """For the time of a pass the model's head runs on these positions only."""
        tokens = None if tokens is None else tokens.to(rows.device)
        return exact_head(self.model, lambda hidden: hidden[rows, nodes].unsqueeze(0), self._wide_product, tokens)

    def _wide_product(self, head: Any, hidden: Any) -> Any:
        """A head of half precision in float32; its weight is kept so where it is small."""
        found = self.wide
        if found is None:
            weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()
            small = weight.nbytes <= KEPT
            found = products.product(weight, bias) if small and self.products is not None else None
            found = found or functools.partial(torch.nn.functional.linear, weight=weight, bias=bias)
            self.wide = found if small else None
        return found(hidden)

    def _masks(self, sees: Any, positions: Any, keys: Any, dtype: Any) -> Any:
        """Additive masks, by kind of layer where the model has several."""
        kinds = set(getattr(self.config, "layer_types", None) or [])
        window = getattr(self.config, "sliding_window", None)
        full = self._additive(sees.expand(len(positions), -1, -1), dtype)  # some models insist on one for every row
        if window is None or kinds == {"full_attention"} or keys is None:
            return full if len(kinds) <= 1 else dict.fromkeys(kinds, full)
        sliding = self._additive(sees & (positions[:, :, None] - keys[:, None, :] < window), dtype)
        return sliding if len(kinds) <= 1 else {"full_attention": full, "sliding_attention": sliding}

    def _additive(self, sees: Any, dtype: Any) -> Any:
        mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, float("-inf"))
        return mask.unsqueeze(1).to(self.model.device)
