"""Generation for many prompts: what they share at their start is run once, and rows leave when they are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from finbench.engines.choices import Tree, trees
from finbench.engines.forward import NOT_FINITE, Forward, RowsLayer

_NARROWER = 0.75  # share of the positions from which on those that nobody sees are dropped
_LONG = 256  # tokens of a tree from which on its prompts look at one copy of what they share


@dataclass(frozen=True)
class Sampling:
    """Tokens drawn with a temperature from the most probable ones that together have ``top_p``.

    ``seeds``: of each prompt by number. What is drawn for a prompt follows from its seed and the step alone, whatever
    runs beside it.
    """

    temperature: float
    top_p: float
    seeds: Mapping[int, int]

    def tokens(self, logits: Any, steps: Mapping[int, int]) -> list[int]:
        """A token for each row of ``logits``, which are those of the prompts and steps of ``steps``, in order."""
        drawn = [
            np.random.Generator(np.random.Philox(key=self.seeds[n], counter=at)).random() for n, at in steps.items()
        ]
        shares, order = torch.softmax(logits.float() / self.temperature, dim=-1).sort(
            dim=-1, descending=True, stable=True
        )
        below = shares.cumsum(dim=-1) - shares
        shares = shares.masked_fill(below >= self.top_p, 0.0)
        sums = shares.cumsum(dim=-1)
        wanted = torch.tensor(drawn, device=logits.device, dtype=sums.dtype)[:, None] * sums[:, -1:]
        places = torch.searchsorted(sums, wanted, right=True).clamp_(max=logits.shape[-1] - 1)
        found: list[int] = order.gather(-1, places)[:, 0].tolist()
        return found


@dataclass
class _Rows:
    """Prompts in flight: what each has got so far, and the keys and values that they look at.

    A row of ``layers`` belongs to the prompts of a ``group``: of one, or of those whose tree it is, which then look at
    one copy of what they share.
    """

    said: dict[int, list[int]]
    groups: list[list[int]]
    layers: list[Any]
    seen: Any  # which own position a prompt looks at: bools, shape (groups, prompts of the largest, own positions)
    positions: Any  # of what is looked at, shape (groups, own positions)


def generate(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    prefix: list[int],
    limit: int,
    finished: Callable[[list[int]], bool],
    *,
    tokens: int,
    rows: int,
    deliver: Callable[[Mapping[int, list[int]]], None],
    sampling: Sampling | None = None,
) -> None:
    """Continue each prompt, greedily or by ``sampling``, until ``finished(its new tokens)`` or ``limit`` tokens.

    ``deliver`` gets {number of the prompt: its new tokens} of those that are done, each once.
    ``prompts`` come without the ``prefix`` that all share; those that share more, as the questions about one text do,
    are branches of one tree, and stay it where that halves what is looked at. A prefill takes at most ``tokens``
    tokens, decoding at most ``rows`` prompts. Raises FinbenchError at a logit that is not finite.
    """
    shared = forward.prefix(prefix) if prefix else [None] * forward.depth
    waiting = _forest(prompts, rows)
    ran = sum(len(tree.tokens) for tree in waiting)
    grouped = 2 * ran <= sum(map(len, prompts)) and ran >= _LONG * len(waiting)
    live: _Rows | None = None
    while waiting or live:
        # a step reads every weight, for two rows as for sixty: half of them gone, others take their places
        if waiting and (live is None or 2 * len(live.said) <= rows):
            parts = [live] if live else []
            while count := _fitting(waiting, rows - sum(len(part.said) for part in parts), tokens, not forward.flat):
                parts.append(_prefill(forward, waiting[:count], len(prefix), shared, grouped, sampling))
                waiting = waiting[count:]
            live = _join(parts)
        assert live is not None
        done = {number: said for number, said in live.said.items() if len(said) >= limit or finished(said)}
        if done:
            deliver(done)
            live = _keep(live, live.said.keys() - done) if len(done) < len(live.said) else None
        if live:
            _step(forward, live, len(prefix), sampling)


def _forest(prompts: Sequence[Sequence[int]], rows: int) -> list[Tree]:
    """Trees of the prompts, of at most ``rows`` each, those with most tokens first; ``paths``: their last nodes."""
    inputs = [list(prompt) for prompt in prompts]
    order = sorted(range(len(inputs)), key=lambda number: inputs[number])
    grown = trees(order, inputs, [[0]] * len(inputs), 0)  # the 0 stands for what will be said
    held = [list(tree.paths) for tree in grown]
    parts = [numbers[at : at + rows] for numbers in held for at in range(0, len(numbers), rows)]
    if len(parts) > len(grown):
        grown = [tree for part in parts for tree in trees(part, inputs, [[0]] * len(inputs), 0)]
    return sorted(grown, key=lambda tree: -len(tree.tokens))


def _fitting(waiting: Sequence[Tree], free: int, tokens: int, padded: bool) -> int:
    """How many of the first trees one prefill takes: ``free`` prompts, and ``tokens`` or one tree."""
    count = prompts = width = run = 0
    for tree in waiting:
        prompts, width = prompts + len(tree.paths), max(width, len(tree.tokens))
        run = (count + 1) * width if padded else run + len(tree.tokens)
        if prompts > free or (count and run > tokens):
            break
        count += 1
    return count


def _prefill(
    forward: Forward, batch: Sequence[Tree], past: int, shared: Sequence[Any], grouped: bool, sampling: Sampling | None
) -> _Rows:
    layers = [RowsLayer(layer) for layer in shared]
    numbers = [number for tree in batch for number in tree.paths]
    places = [(row, nodes[-1]) for row, tree in enumerate(batch) for nodes in tree.paths.values()]
    logits = forward.run(batch, past, Cache(layers=layers), places)
    said = {
        number: [token]
        for number, token in zip(numbers, _chosen(logits, dict.fromkeys(numbers, 0), sampling), strict=True)
    }
    if grouped:
        groups = [list(tree.paths) for tree in batch]
        width = max(len(tree.tokens) for tree in batch)
        seen = torch.zeros((len(batch), max(map(len, groups)), width), dtype=torch.bool)
        for row, tree in enumerate(batch):
            for slot, nodes in enumerate(tree.paths.values()):
                seen[row, slot, tree.way(nodes[-1])] = True
        depths = torch.tensor([tree.depths + [0] * (width - len(tree.depths)) for tree in batch])
        return _Rows(said, groups, layers, seen, past + depths)
    paths = [batch[row].way(node) for row, node in places]
    width = max(map(len, paths))
    if any(tree.branches or len(tree.paths) > 1 for tree in batch):  # each prompt gets the keys and values of its path
        _gather(layers, [row for row, _ in places], [path + [0] * (width - len(path)) for path in paths])
    seen = torch.arange(width)[None, None, :] < torch.tensor([[[len(path)]] for path in paths])
    return _Rows(
        said, [[number] for number in numbers], layers, seen, past + torch.arange(width).expand(len(paths), -1)
    )


def _gather(layers: list[Any], rows: Sequence[int], columns: Sequence[Sequence[int]]) -> None:
    """Keys and values of these rows, of each at its own columns."""
    written = _written(layers)
    row, column = (torch.tensor(part, device=written[0].keys.device) for part in (rows, columns))
    for layer in written:
        keys, values = (part[row[:, None], :, column].transpose(1, 2) for part in (layer.keys, layer.values))
        layer.hold((keys, values))


def _step(forward: Forward, live: _Rows, past: int, sampling: Sampling | None) -> None:
    groups, slots, _ = live.seen.shape
    own = torch.eye(slots, dtype=torch.bool).expand(groups, -1, -1)  # a place that no prompt has looks at itself alone
    positions = past + live.seen.sum(dim=-1)
    live.seen = torch.cat([live.seen, own], dim=-1)
    live.positions = torch.cat([live.positions, positions], dim=-1)
    keys = torch.cat([torch.arange(past).expand(groups, -1), live.positions], dim=-1)
    sees = torch.cat([torch.ones((groups, slots, past), dtype=torch.bool), live.seen], dim=-1)
    ids = torch.zeros((groups, slots), dtype=torch.long)
    places = [(row, slot) for row, group in enumerate(live.groups) for slot in range(len(group))]
    for (row, slot), said in zip(places, live.said.values(), strict=True):
        ids[row, slot] = said[-1]
    logits = forward.call(ids, positions, sees, keys, Cache(layers=live.layers), places)
    steps = {number: len(said) for number, said in live.said.items()}
    for said, token in zip(live.said.values(), _chosen(logits, steps, sampling), strict=True):
        said.append(token)


def _chosen(logits: Any, steps: Mapping[int, int], sampling: Sampling | None) -> list[int]:
    """A token for each row, the prompts and steps of ``steps``: of equally probable ones that of the lowest number."""
    values, tokens = logits.max(dim=-1)
    if not torch.isfinite(values).all():
        raise NOT_FINITE
    found: list[int] = tokens.tolist() if sampling is None else sampling.tokens(logits, steps)
    return found


def _keep(live: _Rows, numbers: Set[int]) -> _Rows:
    """These prompts alone, without the positions that only others had."""
    kept = [[slot for slot, number in enumerate(group) if number in numbers] for group in live.groups]
    rows = [row for row, slots in enumerate(kept) if slots]
    groups = [[live.groups[row][slot] for slot in kept[row]] for row in rows]
    seen = torch.zeros((len(rows), max(map(len, groups)), live.seen.shape[-1]), dtype=torch.bool)
    for at, row in enumerate(rows):
        seen[at, : len(kept[row])] = live.seen[row, kept[row]]
    wanted = [seen[at].any(dim=0).nonzero()[:, 0] for at in range(len(rows))]
    columns = torch.nn.utils.rnn.pad_sequence(wanted, batch_first=True)
    said = {number: live.said[number] for group in groups for number in group}
    if columns.shape[-1] > _NARROWER * seen.shape[-1]:  # what nobody sees any more may stay
        for layer in _written(live.layers):
            layer.pick(torch.tensor(rows, device=layer.device))
        return _Rows(said, groups, live.layers, seen, live.positions[rows])
    real = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in wanted], batch_first=True).bool()
    _gather(live.layers, rows, columns.tolist())
    seen = seen.gather(-1, columns[:, None, :].expand(-1, seen.shape[1], -1)) & real[:, None, :]
    return _Rows(said, groups, live.layers, seen, live.positions[rows].gather(-1, columns))


def _written(layers: list[Any]) -> list[Any]:
    """Layers that hold something; the last ones of some models take their keys from earlier layers."""
    return [layer for layer in layers if layer.keys is not None]


def _join(parts: list[_Rows]) -> _Rows:
    """Rows of several prefills side by side; the shorter ones get positions that nobody sees."""
    if len(parts) == 1:
        return parts[0]
    slots, width = (max(part.seen.shape[at] for part in parts) for at in (1, 2))
    pad = torch.nn.functional.pad
    layers = []
    for depth, first in enumerate(_written(parts[0].layers)):
        layers.append(RowsLayer(first.shared))
        layers[-1].hold(*((part.layers[depth].keys, part.layers[depth].values) for part in parts))
    seen = [pad(part.seen, (0, width - part.seen.shape[2], 0, slots - part.seen.shape[1])) for part in parts]
    positions = torch.cat([pad(part.positions, (0, width - part.positions.shape[1])) for part in parts])
    said = {number: said for part in parts for number, said in part.said.items()}
    return _Rows(said, [group for part in parts for group in part.groups], layers, torch.cat(seen), positions)
