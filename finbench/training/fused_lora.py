"""Plain LoRA layers with fewer passes over memory: the same sums, the update added inside the matrix product.

peft casts a layer's input to the adapter's float32 and back, scales and adds in passes of their own. On short rows and
small layers that costs as much as the products. Here y = Wx + s B(Ax) is one function with its own backward pass, in
the dtype that the model computes in; adapters and their gradients stay in float32.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch


class _Update(torch.autograd.Function):
    """Wx + b + s B(Ax); Wx + b is handed over as ``made`` where W is not a plain matrix. x has the shape (T, h)."""

    @staticmethod
    def forward(ctx: Any, x: Any, made: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
        inner = x @ a.to(x.dtype).T
        ctx.save_for_backward(x, inner, weight, a, b)
        ctx.scale = scale
        outer = (b * scale).to(x.dtype).T
        if made is not None:
            return torch.addmm(made, inner, outer)
        return torch.nn.functional.linear(x, weight, bias).addmm_(inner, outer)  # in place: a copy costs as much again

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,) = gradients
        x, inner, weight, a, b = ctx.saved_tensors
        of_x, of_made, _, _, of_a, of_b, _ = ctx.needs_input_grad
        back = g @ (b * ctx.scale).to(g.dtype)
        into_x = None
        if of_x:
            low = a.to(g.dtype)
            into_x = back @ low if weight is None else (g @ weight).addmm_(back, low)
        return (
            into_x,
            g if of_made else None,
            None,
            None,
            (back.T @ x).to(a.dtype) if of_a else None,
            (g.T @ inner).to(b.dtype) * ctx.scale if of_b else None,
            None,
        )


def _forward(layer: Any, x: Any, *arguments: Any, **named: Any) -> Any:
    kind = x.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if casts else x.dtype
    base = layer.base_layer
    hooked = base._forward_hooks or base._forward_pre_hooks or "forward" in vars(base)  # a method's own addition
    plain = type(base) is torch.nn.Linear and not hooked
    plain = plain and base.weight.dtype == dtype and not base.weight.requires_grad
    made = None if plain else base(x, *arguments, **named).to(dtype)
    flat = x.to(dtype).flatten(0, -2)
    out = _Update.apply(  # type: ignore[no-untyped-call]
        flat,
        None if made is None else made.flatten(0, -2),
        base.weight if plain else None,
        base.bias if plain else None,
        layer.lora_A["default"].weight,
        layer.lora_B["default"].weight,
        layer.scaling["default"],
    )
    return out.unflatten(0, x.shape[:-1])


def layers(model: Any) -> list[Any]:
    """The layers of ``model`` that are y = Wx + s B(Ax) and no more: no dropout, no variant, no bias in B."""
    from peft.tuners.lora.layer import Linear, LoraLayer

    found = [m for m in model.modules() if isinstance(m, LoraLayer) and "default" in getattr(m, "lora_A", {})]
    return [
        layer
        for layer in found
        if (type(layer) is Linear or type(layer).__module__ == "peft.tuners.lora.bnb")
        and list(layer.active_adapters) == ["default"]
        and not (layer.merged or layer.disable_adapters or layer.lora_variant)
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
        and layer.lora_B["default"].bias is None
        and "forward" not in vars(layer)
    ]


@contextlib.contextmanager
def fused(model: Any) -> Iterator[None]:
    """Those layers run by the function above inside."""
    chosen = layers(model)
    for layer in chosen:
        layer.forward = functools.partial(_forward, layer)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward
