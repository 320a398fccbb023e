"""Rows of a forward pass as one sequence without padding, in which what rows share at their start is run once.

The rows of a pass become a tree of segments: an instruction that all rows begin with is one segment, what follows it in
each row another one. All segments lie one behind the other, so that every matrix product sees each different token
once and no padding. Only attention has to know about rows: a segment sees the segments above it and, causally, itself.
Its keys and values come from the one run of the shared segments, and autograd adds up what all rows below send back. So
loss and gradients are those of separate rows, but for the order of sums.

The last token of a row is only predicted, so it is not run.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from finbench.models.prefixes import common
from finbench.training.batches import TrainingRow

ATTENTION = "finbench_packed"
_LEAST = 4  # tokens of a shared segment
_WORTH = 32  # tokens saved by one: each costs some thirty small operations a layer
_WASTE = 1.5  # of padding inside attention, before segments are cut into another block


class Unpackable(Exception):
    """The model's attention asks for something that this one does not do."""


@dataclass(frozen=True)
class Segment:
    """Tokens that are run once: their first position in a row, and the numbers of the segments above them."""

    tokens: list[int]
    depth: int
    above: tuple[int, ...]


def segments(rows: Sequence[TrainingRow], share: bool) -> tuple[list[Segment], list[tuple[int, ...]]]:
    """(segments, for each row the numbers of those it consists of, in order). Answers are never shared."""
    found: list[Segment] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)

    def add(row: TrainingRow, begin: int, end: int, above: tuple[int, ...]) -> tuple[int, ...]:
        if begin == end:
            return above
        found.append(Segment(row.ids[begin:end], begin, above))
        return (*above, len(found) - 1)

    order = sorted(range(len(rows)), key=lambda number: rows[number].ids) if share else list(range(len(rows)))
    waiting: list[tuple[list[int], int, tuple[int, ...]]] = [(order, 0, ())]
    while waiting:
        part, depth, above = waiting.pop()
        if len(part) == 1 or not share:
            for number in part:
                paths[number] = add(rows[number], depth, len(rows[number].ids) - 1, above)
            continue
        first, last = rows[part[0]], rows[part[-1]]
        end = min(common(first.ids, last.ids), *(rows[number].prompt for number in part))
        if end - depth >= _LEAST and (end - depth) * (len(part) - 1) >= _WORTH:
            above, depth = add(first, depth, end, above), end
        # below it, cut where the next token changes; a row whose prompt ends there is alone
        token = {number: rows[number].ids[end] if rows[number].prompt > end else -1 - number for number in part}
        waiting += [(list(child), depth, above) for _, child in groupby(part, token.__getitem__)]
    return found, paths


def tokens_run(rows: Sequence[TrainingRow], share: bool) -> int:
    """Tokens that a pass over ``rows`` runs."""
    return sum(len(segment.tokens) for segment in segments(rows, share)[0])


def passes(rows: Sequence[TrainingRow], share: bool, tokens: int, answers: int) -> list[list[TrainingRow]]:
    """``rows`` in passes of at most ``tokens`` tokens and ``answers`` answer tokens, rows with like starts together.

    A row that is longer than that is alone.
    """
    made: list[list[TrainingRow]] = []
    used = scored = 0
    for row in sorted(rows, key=lambda row: row.ids) if share else rows:
        shared = common(made[-1][-1].ids, row.ids) if made and share else 0
        new = len(row.ids) - (shared if shared >= _LEAST else 0)
        if not made or used + new > tokens or scored + row.answer > answers:
            made.append([])
            used, scored, new = 0, 0, len(row.ids)
        made[-1].append(row)
        used, scored = used + new, scored + row.answer
    return made


@dataclass(frozen=True)
class Block:
    """Segments of like lengths that attend together, padded to (N, L) for attention alone.

    ``own``: (N, L), where each segment's tokens lie among those of the block. ``back``: (tokens,), the inverse, into
    N * L. ``chains``: the different lists of pieces (block, first token, last token) that its segments see above
    them. ``chain``: (N,), which of them each sees, None where there is but one. ``mask``: (N or 1, 1, L, P + L), what
    may be seen of P tokens above and L own ones; None where nothing is above, and attention plainly causal.
    """

    own: Any
    back: Any
    chains: list[list[tuple[int, int, int]]]
    chain: Any | None
    mask: Any | None


@dataclass(frozen=True)
class Spans:
    """The same for a kernel that takes sequences of any length, on GPUs: each segment, and behind it all it sees.

    ``seen``: (U,), for each segment in order the tokens above it and its own. ``queries``, ``keys``: (S + 1,), int32,
    where segments end among the pass's tokens and among ``seen``. ``longest``: the longest of each.
    """

    seen: Any
    queries: Any
    keys: Any
    longest: tuple[int, int]


@dataclass(frozen=True)
class Packed:
    """A pass. ``ids`` and ``positions``: (1, T). ``picked``: (K,), the tokens after which ``labels``, (K,), come."""

    ids: Any
    positions: Any
    picked: Any
    labels: Any
    blocks: list[Block]
    spans: Spans


def pack(rows: Sequence[TrainingRow], share: bool, device: Any = "cpu") -> Packed:
    """One pass over ``rows``; with ``share``, what they have in common at their start is run once."""
    found, paths = segments(rows, share)
    inner = {number for path in paths for number in path[:-1]}
    groups = _groups(found, inner)
    place: dict[int, tuple[int, int]] = {}  # segment -> (block, first token in it)
    begin: dict[int, int] = {}  # segment -> first token in the pass
    total = 0
    for block, group in enumerate(groups):
        before = total
        for number in group:
            place[number], begin[number] = (block, total - before), total
            total += len(found[number].tokens)
    order = [found[number] for group in groups for number in group]
    picked, labels = [], []
    for row, path in zip(rows, paths, strict=True):
        where = [begin[number] + i for number in path for i in range(len(found[number].tokens))]
        for first, last in row.spans:
            picked += where[first - 1 : last - 1]
            labels += row.ids[first:last]
    return Packed(
        torch.tensor([[token for one in order for token in one.tokens]], device=device),
        torch.tensor([[one.depth + i for one in order for i in range(len(one.tokens))]], device=device),
        torch.tensor(picked, device=device),
        torch.tensor(labels, device=device),
        [_block(group, found, place, device) for group in groups],
        _spans(order, [begin[number] for number in range(len(found))], found, device),
    )


def _spans(order: Sequence[Segment], begin: Sequence[int], found: Sequence[Segment], device: Any) -> Spans:
    seen: list[int] = []
    queries, keys = [0], [0]
    for segment in order:
        for number in segment.above:
            seen += range(begin[number], begin[number] + len(found[number].tokens))
        seen += range(queries[-1], queries[-1] + len(segment.tokens))
        queries.append(queries[-1] + len(segment.tokens))
        keys.append(len(seen))
    asked, answered = (torch.tensor(part, dtype=torch.int32, device=device) for part in (queries, keys))
    most, deepest = (max(last - first for first, last in pairwise(part)) for part in (queries, keys))
    return Spans(torch.tensor(seen, device=device), asked, answered, (most, deepest))


def _groups(found: Sequence[Segment], inner: set[int]) -> list[list[int]]:
    """Segments by blocks: those that others see first, then by length, so that attention pads little."""
    groups: list[list[int]] = []
    longest = real = 0
    inside = True
    for number in sorted(range(len(found)), key=lambda n: (n not in inner, -len(found[n].tokens))):
        size = len(found[number].tokens)
        same = groups and inside == (number in inner)
        if not same or longest * (len(groups[-1]) + 1) > _WASTE * (real + size):
            groups.append([])
            longest, real, inside = size, 0, number in inner
        groups[-1].append(number)
        real += size
    return groups


def _block(group: list[int], found: Sequence[Segment], place: dict[int, tuple[int, int]], device: Any) -> Block:
    lengths = [len(found[number].tokens) for number in group]
    width = max(lengths)
    column = torch.arange(width)
    starts = torch.tensor([place[number][1] for number in group])
    real = column < torch.tensor(lengths)[:, None]
    own = torch.where(real, starts[:, None] + column, starts[:, None])
    different = list(dict.fromkeys(found[number].above for number in group))
    chains = [[(*place[n], place[n][1] + len(found[n].tokens)) for n in above] for above in different]
    past = torch.tensor([sum(last - first for _, first, last in chain) for chain in chains])
    chain = torch.tensor([different.index(found[number].above) for number in group])
    mask = None
    if int(past.max()):
        sees = (torch.arange(int(past.max())) < past[:, None])[:, None, None, :].expand(-1, 1, width, -1)
        causal = (column <= column[:, None])[None, None].expand(len(chains), -1, -1, -1)
        mask = torch.cat([sees, causal], dim=-1)
        mask = (mask[chain] if len(chains) > 1 else mask).to(device)
    return Block(
        own.to(device),
        real.flatten().nonzero()[:, 0].to(device),
        chains,
        chain.to(device) if len(chains) > 1 else None,
        mask,
    )


class _PadSegments(torch.autograd.Function):
    """Tokens (T, ...) to padded segments (N, L, ...). What the padding sends back is zero, and is left out."""

    @staticmethod
    def forward(ctx: Any, tokens: Any, own: Any, back: Any) -> Any:
        ctx.save_for_backward(back)
        return tokens[own]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (back,) = ctx.saved_tensors
        return gradients[0].flatten(0, 1)[back], None, None


class _Gather(torch.autograd.Function):
    """Keys or values (T, ...) as segments see them, (U, ...). What the segments send back to one is added in float32.

    A shared start gets back as much as there are rows: in bfloat16, rounded after each, 1 to 3 % of the sum was lost.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Any, seen: Any) -> Any:
        ctx.save_for_backward(seen)
        ctx.many = len(tokens)
        return tokens[seen]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (seen,), (back,) = ctx.saved_tensors, gradients
        wide = torch.promote_types(back.dtype, torch.float32)
        total = torch.zeros(ctx.many, *back.shape[1:], dtype=wide, device=back.device)
        return total.index_put_((seen,), back.to(wide), accumulate=True).to(back.dtype), None


_now: list[tuple[Packed, Callable[..., Any], bool | None]] = []  # the arguments of ``attending`` that is in force


@contextlib.contextmanager
def attending(
    packed: Packed,
    kernel: Callable[..., Any] = scaled_dot_product_attention,
    single: bool | None = None,
) -> Iterator[None]:
    """The pass that attention sees; around the backward pass too, where activations are computed again.

    ``single``: whether bfloat16 attends in float32; by default on a CPU, whose flash attention is twice as fast so.
    """
    _now[:] = [(packed, kernel, single)]
    try:
        yield
    finally:
        _now.clear()


@functools.cache
def _varlen() -> Callable[..., Any] | None:
    """torch's flash attention over sequences of different lengths; None where this torch has none, or another one."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    there = torch.backends.cuda.is_flash_attention_available()  # not in every build
    return varlen_attn if there and {"window_size", "enable_gqa", "scale"} <= set(known) else None


def _repeats(query: Any) -> bool:
    return bool(query.is_cuda)


def _ragged(query: Any, dropout: float) -> Callable[..., Any] | None:
    size = query.shape[-1]  # of a head: those that the kernel takes, and on cards for games backwards too
    fast = query.dtype in (torch.bfloat16, torch.float16) and size % 8 == 0 and (size <= 192 or 224 < size <= 256)
    if not query.is_cuda or not fast or dropout or torch.cuda.get_device_capability(query.device) < (8, 0):
        return None
    return _varlen()


def kernel(model: Any, dtype: Any) -> str:
    """By which of torch's kernels packed rows of ``model`` attend in training, in words; computing in ``dtype``."""
    config, device = model.config.get_text_config(), model.device
    if device.type != "cuda":
        return "blocks, by torch's own for a processor"
    dropout = getattr(config, "attention_dropout", 0) or getattr(config, "attn_pdrop", 0) or 0
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    query = torch.empty(1, config.num_attention_heads, 16, size, dtype=dtype, device=device, requires_grad=True)
    if _ragged(query, dropout) is not None:
        return "flash, for sequences of any length"
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool, device=device)
    asked = torch.backends.cuda.SDPAParams(query, query, query, mask, float(dropout), False, False)
    if torch.backends.cuda.can_use_efficient_attention(asked):
        return "blocks, by the memory-efficient one"
    return "blocks, by torch's plain products, which are slow and keep every score: float16 or bfloat16 may help"


def _above(parts: Sequence[Any], block: Block) -> Any:
    """Keys or values above the segments of a block, (N, P, heads, head size), padded on the right."""
    chains = [torch.cat([parts[b][first:last] for b, first, last in chain]) for chain in block.chains if chain]
    if block.chain is None:
        return chains[0].expand(len(block.own), -1, -1, -1)
    empty = parts[0][:0]
    whole = iter(chains)
    padded = torch.nn.utils.rnn.pad_sequence([next(whole) if chain else empty for chain in block.chains], True)
    return _Gather.apply(padded, block.chain)  # type: ignore[no-untyped-call]


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **other: Any,
) -> tuple[Any, None]:
    """transformers' interface to attention, over the pass in force: (1, heads, T, size) -> (1, T, heads, size)."""
    strange = [name for name in ("softcap", "s_aux", "position_bias") if other.get(name) is not None]
    if strange or not _now:
        raise Unpackable(f"its attention uses {', '.join(strange)}" if strange else "no pass is being attended")
    packed, kernel, single = _now[0]
    many = query.shape[1] != key.shape[1]
    if (ragged := _ragged(query, dropout)) is not None:
        spans = packed.spans
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
        k, v = (_Gather.apply(states, spans.seen) for states in (k, v))  # type: ignore[no-untyped-call]
        # causal with more keys than queries: the last query sees the last key, so each sees all above its segment
        ends = (spans.queries, spans.keys, *spans.longest)
        return ragged(q, k, v, *ends, scale=scaling, window_size=(-1, 0), enable_gqa=many).unsqueeze(0), None
    sizes = [len(block.back) for block in packed.blocks]
    single = query.device.type == "cpu" if single is None else single
    single = single and query.dtype == torch.bfloat16
    dtype = torch.float32 if single else query.dtype
    queries, keys, values = (states[0].transpose(0, 1).to(dtype).split(sizes) for states in (query, key, value))
    # on a GPU, no kernel but the plain products takes a mask and fewer keys than queries
    groups, made = query.shape[1] // key.shape[1] if _repeats(query) else 1, []
    for number, block in enumerate(packed.blocks):
        q, k, v = (
            _PadSegments.apply(parts[number], block.own, block.back)  # type: ignore[no-untyped-call]
            for parts in (queries, keys, values)
        )
        if block.mask is not None:
            k, v = (torch.cat([_above(parts, block), one], 1) for parts, one in ((keys, k), (values, v)))
        if groups > 1:
            k, v = (states.repeat_interleave(groups, 2) for states in (k, v))
        with torch.autocast("cpu", enabled=False) if single else contextlib.nullcontext():
            out = kernel(
                q.transpose(1, 2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                attn_mask=block.mask,
                dropout_p=dropout,
                is_causal=block.mask is None,
                scale=scaling,
                enable_gqa=many and groups == 1,
            )
        made.append(out.transpose(1, 2).flatten(0, 1)[block.back])
    return torch.cat(made).to(query.dtype).unsqueeze(0), None


AttentionInterface.register(ATTENTION, attend)


@contextlib.contextmanager
def attention_of(model: Any) -> Iterator[None]:
    """``model`` attends by ``attend`` inside."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
