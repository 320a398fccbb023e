"""Information calibration quantisation (ICQ), one half of IR-QLoRA: NF4 codes that carry more information.

Each block of 64 weights of a row is shifted by its own tau before it is quantised, W ~ dequant(NF4(W - tau)) + tau,
with the tau that gives the 16 codes the highest entropy (Qin et al. 2024, arXiv:2402.05445, section 3.2). Stored
is a whole number k of 8 bits a block and a float32 a group of 256 blocks, tau = k * scale: 8/64 + 32/(64 * 256) = 0.127
bits a weight beside the 4.127 of NF4 with double quantisation.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch

BLOCK = 64  # weights that share a scale and a shift
GROUP = 256  # blocks that share the scale of their shifts
_LEVELS = 16
_QUANTILE = 0.9677083  # at which NF4's outermost level stands
_CANDIDATES = 101  # most shifts of a block that are looked at
_AT_ONCE = 1024  # blocks; bounds the memory of the search


def codes(packed: Any) -> Any:
    """The NF4 codes, uint8 (blocks, 64), of a weight as bitsandbytes packs it: two to a byte, the first one high."""
    flat = packed.view(torch.uint8).flatten()
    return torch.stack([flat >> 4, flat & 15], dim=1).view(-1, BLOCK)


def entropy(found: Any) -> Any:
    """Shannon entropy in bits, at most 4, of each row of ``found``, codes of shape (blocks, 64); float32 (blocks,)."""
    counts = torch.zeros(len(found), _LEVELS, dtype=torch.int64, device=found.device)
    counts.scatter_add_(1, found.long(), torch.ones_like(found, dtype=torch.int64))
    return _entropy_of(counts)


def _entropy_of(counts: Any, dim: int = -1) -> Any:
    """Entropy from counts that sum to 64 over ``dim``: 6 less the mean, over weights, of log2 of its code's count."""
    number = torch.arange(BLOCK + 1, dtype=torch.float32, device=counts.device)
    table = torch.xlogy(number, number) / torch.log(torch.tensor(2.0)) / BLOCK
    return 6.0 - table.index_select(0, counts.flatten().int()).view(counts.shape).sum(dim)


def expand(shift: Any, scale: Any, shape: tuple[int, int]) -> Any:
    """tau, float32 (outputs, inputs / 64), of the stored int8 ``shift`` (blocks,) and float32 ``scale`` (groups,)."""
    each = scale.repeat_interleave(GROUP)[: len(shift)]
    return (shift.float() * each).view(shape[0], shape[1] // BLOCK)


def quantised(weight: Any, tau: Any) -> tuple[Any, Any]:
    """(packed codes, quantisation state) as QLoRA stores ``weight`` less ``tau``, float32 (outputs, inputs)."""
    moved = weight - tau.repeat_interleave(BLOCK, dim=1)
    packed, state = bnb.functional.quantize_4bit(moved, blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
    return packed, state


def calibrate(weight: Any, spread: float) -> tuple[Any, Any]:
    """(shift int8 (blocks,), scale float32 (groups,)) of a ``weight``, float32 (outputs, inputs), 64 dividing inputs.

    The shifts looked at lie within ``spread`` sigma of the block's median, with the authors' sigma, absmax / 1.848; and
    they are those that can be stored, so the entropy found is that of the codes. What rounding moves in spite of this
    is undone at the end: every block whose codes have no more entropy than NF4's keeps tau = 0 and NF4's codes.
    """
    blocks = weight.reshape(-1, BLOCK)
    ordered = blocks.sort(dim=1).values
    middle = ordered[:, (BLOCK - 1) // 2]
    absmax = torch.maximum(ordered[:, -1].abs(), ordered[:, 0].abs())
    half = spread * (absmax / torch.special.ndtri(torch.tensor(_QUANTILE, dtype=torch.float64)).item())
    groups = torch.nn.functional.pad(middle.abs() + half, (0, -len(blocks) % GROUP)).view(-1, GROUP)
    scale = groups.amax(dim=1).clamp(min=torch.finfo().tiny) / 127  # never zero
    each = scale.repeat_interleave(GROUP)[: len(blocks)]
    parts = (tensor.split(_AT_ONCE) for tensor in (ordered, each, middle - half, middle + half))
    shift = torch.cat([_best(*part) for part in zip(*parts, strict=True)]).to(torch.int8)
    tau = expand(shift, scale, (weight.shape[0], weight.shape[1]))
    gained, plain = (entropy(codes(quantised(weight, moved)[0])) for moved in (tau, torch.zeros_like(tau)))
    shift[gained <= plain] = 0
    return shift, scale


def _best(ordered: Any, scale: Any, low: Any, high: Any) -> Any:
    """The k of highest entropy with ``low`` <= k * ``scale`` <= ``high``, for each row of sorted weights ``ordered``.

    As tau grows, the bound between two codes, tau + middle * absmax(tau), only grows, so each weight falls below it at
    one tau, which is computed; a cumulative sum over the candidates then gives how many lie below it at each of them.
    """
    first, last = torch.ceil(low / scale).clamp(-127, 127), torch.floor(high / scale).clamp(-127, 127)
    step = torch.ceil((last - first + 1) / _CANDIDATES).clamp(min=1)
    number = torch.floor((last - first) / step).clamp(min=0)  # of the last candidate
    levels = bnb.functional.get_4bit_type("nf4", device=ordered.device)
    middle = (levels[:-1] + levels[1:]) / 2
    negative = int((middle < 0).sum())
    in_steps = ordered / (scale * step)[:, None]
    most, least, start = in_steps[:, -1:], in_steps[:, :1], (first / step)[:, None]
    # the bound is the larger of the two lines, for a negative middle the smaller: absmax is most - tau or tau - least
    rising = 1 / (1 - middle)
    at = torch.addcmul((-middle * rising * most - start)[..., None], rising[:, None], in_steps[:, None, :])
    rising = 1 / (1 + middle)
    other = torch.addcmul((middle * rising * least - start)[..., None], rising[:, None], in_steps[:, None, :])
    torch.maximum(at[:, :negative], other[:, :negative], out=at[:, :negative])
    torch.minimum(at[:, negative:], other[:, negative:], out=at[:, negative:])
    fell = at.ceil_().clamp_(0, _CANDIDATES).long()  # (blocks, 15, 64): the first candidate at which it lies below
    counts = torch.zeros(*fell.shape[:2], _CANDIDATES + 1, dtype=torch.int8, device=ordered.device)
    counts.scatter_add_(2, fell, torch.ones((), dtype=torch.int8, device=ordered.device).expand(fell.shape))
    upto = counts[..., :-1].cumsum(2, dtype=torch.int8)
    ends = torch.zeros_like(upto[:, :1])
    found = _entropy_of(torch.cat([ends, upto, ends + BLOCK], dim=1).diff(dim=1), dim=1)  # (blocks, candidates)
    allowed = torch.arange(_CANDIDATES, device=ordered.device) <= number[:, None]
    return (first + step * found.where(allowed, found.new_tensor(-1.0)).argmax(dim=1)).clamp(-127, 127)


class ShiftedLinear4bit(bnb.nn.Linear4bit):
    """A bitsandbytes NF4 layer with shifts: y = NF4(W - tau) x + tau (sums of x over blocks of 64) + bias.

    The first product is the fused one of bitsandbytes, untouched; the second has 1/64 of its size. ``shift`` and
    ``scale`` are buffers as ``expand`` takes them; tau itself is made anew in each pass.
    """

    def __init__(self, like: bnb.nn.Linear4bit, weight: Any, shift: Any, scale: Any) -> None:
        """From the NF4 layer ``like``, whose bias is shared, and the unquantised ``weight``, float32 (outputs,
        inputs), with ``shift`` and ``scale`` as ``calibrate`` gives them.
        """
        super().__init__(
            like.in_features,
            like.out_features,
            bias=False,
            compute_dtype=like.compute_dtype,
            quant_type="nf4",
            device="meta",
        )
        self.register_buffer("shift", shift.to(weight.device), persistent=False)
        self.register_buffer("scale", scale.to(weight.device), persistent=False)
        packed, state = quantised(weight, self.tau())
        self.weight = bnb.nn.Params4bit(
            packed, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True, module=self
        )
        state.dtype = like.weight.quant_state.dtype  # of what is dequantised
        self.quant_state = state
        self.bias = like.bias
        self.support_avx512bf16_for_cpu = False  # see quantise.cure_cpu_repacking
        self.train(like.training)

    def tau(self) -> Any:
        """The shifts, float32 (outputs, inputs / 64)."""
        return expand(self.shift, self.scale, (self.out_features, self.in_features))

    def forward(self, x: Any) -> Any:
        """``x`` (..., inputs) -> (..., outputs), in the dtype of ``x``."""
        sums = x.unflatten(-1, (-1, BLOCK)).sum(-1)
        return super().forward(x) + torch.nn.functional.linear(sums, self.tau().to(x.dtype)).to(x.dtype)
