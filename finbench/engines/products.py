"""Weights of linear layers as a processor's products want them, laid out once instead of at every product.

PyTorch multiplies by weights as they are stored, so its kernels lay them out anew each time (or are slower for it). Its
compiler lays them out ahead, by the operators of oneDNN that are called here. Of 1 to 32 rows such products are 1.2 to
2 times as fast, of 512 a tenth in float32.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import torch

from finbench.core.environment import free_memory

_LEAST = 2**14  # numbers of a weight: a smaller one gains nothing
_SUMMED = 768  # numbers that are added one after the other: of 1,536 the error is twice that of PyTorch's kernels
_ROWS = 512  # that a product is expected to have; any other number is right too, and as fast


def product(weight: Any, bias: Any) -> Callable[[Any], Any] | None:
    """``torch.nn.functional.linear`` with a copy of ``weight``; None where this processor or torch has none such.

    In float32 a product of many numbers is summed in parts, for oneDNN adds them one after the other.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    many = -(-weight.shape[1] // _SUMMED) if weight.dtype == torch.float32 else 1
    try:
        linear = torch.ops.mkldnn._linear_pointwise
        parts = [part.contiguous() for part in weight.detach().chunk(many, dim=1)]
        first, *others = [torch.ops.mkldnn._reorder_linear_weight(part, _ROWS) for part in parts]
    except (AttributeError, RuntimeError):  # torch without oneDNN; bfloat16 on a processor without its arithmetic
        return None
    if not others:
        return lambda rows: linear(rows, first, bias, "none", [], "")

    def summed(rows: Any) -> Any:
        begin, *rest = rows.chunk(many, dim=-1)
        found = linear(begin, first, bias, "none", [], "")
        for own, laid in zip(rest, others, strict=True):
            found = linear.binary(own, found, laid, None, "add")
        return found

    return summed


class Products:
    """The linear layers of ``model`` with weights laid out, a second copy of them; none where memory is short.

    The model's weights may not change while this is used.
    """

    def __init__(self, model: Any) -> None:
        layers: list[Any] = [
            layer
            for layer in model.modules()
            if type(layer) is torch.nn.Linear
            and "forward" not in vars(layer)  # a hook of another library
            and layer.weight.device.type == "cpu"
            and layer.weight.dtype in (torch.float32, torch.bfloat16)
            and layer.weight.numel() >= _LEAST
        ]
        if 4 * sum(layer.weight.nbytes for layer in layers) > free_memory():
            layers = []
        found = [(layer, product(layer.weight, layer.bias)) for layer in layers]
        self.layers = [(layer, forward) for layer, forward in found if forward is not None]

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Meanwhile the model computes with these."""
        try:
            for layer, forward in self.layers:
                layer.forward = forward
            yield
        finally:
            for layer, _ in self.layers:
                vars(layer).pop("forward", None)
