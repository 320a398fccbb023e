"""The layers: a matrix as two factors, with a non-linearity between them, or with a sparse part beside them.

Each stands in for an ``nn.Linear`` or a Conv1D of GPT-2 alike, and its factors are ``nn.Linear``: quantisers and
adapters find them by that. x has the shape (..., inputs), y (..., outputs).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

from finbench.models.structured.structures import Factored


def _bare(inputs: int, outputs: int, bias: bool, device: Any, dtype: Any) -> nn.Linear:
    """A linear layer whose weights are drawn by nobody yet; the bias is zero."""
    options = {"bias": bias, "device": device or torch.get_default_device(), "dtype": dtype}
    made: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, **options)  # type: ignore[no-untyped-call]
    if bias:
        nn.init.zeros_(made.bias)
    return made


class LowRankLinear(nn.Module):
    """y = B(Ax) + b: ``down`` is A (rank, inputs), ``up`` is B (outputs, rank) with b."""

    decay = 0.0  # of |BA|^2 in the loss
    scaled = False  # the product by a scale, which is not the bias's: that lies beside ``up``
    down: nn.Linear
    up: nn.Linear

    def __init__(self, layer: Factored, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.record = layer
        self.scale = layer.scale
        self.down = _bare(layer.inputs, layer.rank, False, device, dtype)
        self.up = _bare(layer.rank, layer.outputs, layer.bias and not self.scaled, device, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.up(self.down(x))
        return y

    def bias_of(self) -> torch.Tensor | None:
        """b, or None."""
        return self.up.bias

    def matrix(self) -> torch.Tensor:
        """The matrix that it computes, (outputs, inputs)."""
        return self.up.weight @ self.down.weight


class CoLALinear(LowRankLinear):
    """y = B SiLU(Ax) + b (CoLA, arXiv:2502.10940, eq. 3). It computes no matrix."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.up(silu(self.down(x)))
        return y

    def matrix(self) -> torch.Tensor:
        """None exists."""
        raise NotImplementedError("a non-linearity lies between the factors")


class _Composed(torch.autograd.Function):
    """(scale BA + S)x + b. The matrix is composed in either pass and kept in neither (SLTrain, algorithm 1)."""

    @staticmethod
    def compose(a: Any, b: Any, values: Any, support: Any, scale: float) -> Any:
        made = (b * scale) @ a
        made.view(-1).index_add_(0, support, values)
        return made

    @staticmethod
    def forward(ctx: Any, x: Any, a: Any, b: Any, values: Any, bias: Any, support: Any, scale: float) -> Any:
        ctx.save_for_backward(x, a, b, values, support)
        ctx.scale = scale
        return linear(x, _Composed.compose(a, b, values, support, scale), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Any) -> Any:
        x, a, b, values, support = ctx.saved_tensors
        into_x = into_a = into_b = into_values = into_bias = None
        flat = g.reshape(-1, g.shape[-1])
        if ctx.needs_input_grad[0]:
            into_x = g @ _Composed.compose(a, b, values, support, ctx.scale)
        if any(ctx.needs_input_grad[1:4]):
            whole = flat.T @ x.reshape(-1, x.shape[-1])  # gradient of the matrix
            into_a = ctx.scale * (b.T @ whole)
            into_b = ctx.scale * (whole @ a.T)
            into_values = whole.view(-1).index_select(0, support)
        if ctx.needs_input_grad[4]:
            into_bias = flat.sum(0)
        return into_x, into_a, into_b, into_values, into_bias, None, None


class SLTrainLinear(LowRankLinear):
    """y = (scale BA + S)x + b with S sparse: ``values`` (entries) at the flat places ``support`` of (outputs, inputs).

    The support is fixed; it is drawn from a seed (``inits.support``) and stored with the weights.
    """

    scaled = True
    support: torch.Tensor

    def __init__(self, layer: Factored, device: Any = None, dtype: Any = None) -> None:
        super().__init__(layer, device, dtype)
        self.values = nn.Parameter(torch.zeros(layer.entries, device=device, dtype=dtype))
        # int32 holds every place of a matrix below 46,000 x 46,000, at half the memory
        wide = layer.inputs * layer.outputs >= 2**31
        places = torch.zeros(layer.entries, device=device, dtype=torch.int64 if wide else torch.int32)
        self.register_buffer("support", places)
        self.bias = nn.Parameter(torch.zeros(layer.outputs, device=device, dtype=dtype)) if layer.bias else None

    def bias_of(self) -> torch.Tensor | None:
        """b, or None."""
        return self.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """By the composed matrix where tokens enough pay for it; by factors that carry an adapter or are quantised."""
        inputs, outputs = self.record.inputs, self.record.outputs
        many = x.numel() * (inputs + outputs) >= inputs * inputs * outputs
        if many and type(self.down) is nn.Linear and type(self.up) is nn.Linear:
            kind = x.device.type
            casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
            dtype = torch.get_autocast_dtype(kind) if casts else x.dtype
            factors = (self.down.weight.to(dtype), self.up.weight.to(dtype), self.values.to(dtype))
            bias = None if self.bias is None else self.bias.to(dtype)
            y: torch.Tensor = _Composed.apply(x.to(dtype), *factors, bias, self.support, self.scale)  # type: ignore[no-untyped-call]
            return y
        low: torch.Tensor = self.up(self.down(x)) * self.scale
        return low + linear(x, self.sparse().to(x.dtype), self.bias).to(low.dtype)

    def sparse(self) -> torch.Tensor:
        """S, (outputs, inputs)."""
        inputs, outputs = self.record.inputs, self.record.outputs
        flat = self.values.new_zeros(outputs * inputs)
        return flat.index_add(0, self.support, self.values).view(outputs, inputs)

    def matrix(self) -> torch.Tensor:
        """The matrix that it computes, (outputs, inputs)."""
        made = self.up.weight @ self.down.weight * self.scale
        return made + self.sparse().to(made.dtype)


MODULES: dict[str, type[LowRankLinear]] = {
    "lowrank": LowRankLinear,
    "cola": CoLALinear,
    "sltrain": SLTrainLinear,
}


def layers(model: nn.Module) -> dict[str, LowRankLinear]:
    """The structured layers of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}


def squared_norm(layer: LowRankLinear) -> torch.Tensor:
    """|scale BA|^2 in the Frobenius norm, a scalar with gradient, from the (rank, rank) Gram matrices of the factors.

    |BA|^2 = tr(AᵀBᵀBA) = sum of BᵀB * AAᵀ: r²(h + o) operations, and BA is never formed.
    """
    a, b = layer.down.weight, layer.up.weight
    found: torch.Tensor = layer.scale**2 * ((b.T @ b) * (a @ a.T)).sum()
    return found


def penalty(model: nn.Module) -> torch.Tensor | None:
    """Frobenius decay (arXiv:2105.01029): the sum of decay |BA|^2 over the layers that have one; None without any.

    To be added to the loss, in place of weight decay on the factors.
    """
    parts = [layer.decay * squared_norm(layer) for layer in layers(model).values() if layer.decay]
    return torch.stack(parts).sum() if parts else None
