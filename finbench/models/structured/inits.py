"""First values of the factors: drawn, or from the weights that are there, or these seen through calibration data."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from finbench.methods.quantise import as_stored
from finbench.models.structured.modules import LowRankLinear, SLTrainLinear
from finbench.models.structured.structures import Factored, Structure

_RIDGE = 1e-6  # of the mean of a Gram matrix' diagonal: enough for Cholesky where inputs do not span all directions


def generator(seed: int, name: str, what: str) -> torch.Generator:
    """Random numbers of one layer, which depend on no other layer and no order."""
    number = hashlib.sha256(f"{seed}:{what}:{name}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(number, "little") >> 1)


def support(layer: Factored, seed: int) -> torch.Tensor:
    """Flat places of the sparse values of (outputs, inputs): distinct, ascending, uniformly drawn from the seed."""
    places = torch.randperm(layer.inputs * layer.outputs, generator=generator(seed, layer.name, "support"))
    return places[: layer.entries].sort().values


def truncated(weight: torch.Tensor, rank: int, seen: torch.Tensor | None = None) -> tuple[Any, Any, float, float]:
    """(a, b, tail, norm): b @ a is the best approximation of ``weight`` (outputs, inputs) of that rank.

    a has the shape (rank, inputs), b (outputs, rank), float64, their norms balanced. Best in the Frobenius norm
    (Eckart-Young); given a factor L (inputs, inputs) of the inputs' Gram matrix LLᵀ, best in |(W - W')L|, the error of
    the outputs (SVD-LLM, arXiv:2403.07378). ``tail`` is that error, the root of the sum of the squared singular values
    that were cut, ``norm`` what it is a share of.

    The left singular vectors U come from the smaller Gram matrix of what is truncated, so W' = U Uᵀ W, exactly W at
    full rank. No inverse of L is needed: U Uᵀ (WL) L⁻¹ = U Uᵀ W.
    """
    whole = weight.double()
    target = whole if seen is None else whole @ seen.double()
    outputs, inputs = target.shape
    if outputs <= inputs:
        squares, left = torch.linalg.eigh(target @ target.T)
        left = left.flip(1)
    else:
        squares, right = torch.linalg.eigh(target.T @ target)
        # columns of WV are the left vectors times singular values; QR makes them orthonormal also where those vanish
        left = torch.linalg.qr(target @ right.flip(1)).Q
    squares = squares.flip(0).clamp(min=0)
    left = left[:, :rank]
    a = left.T @ whole
    size = a.norm(dim=1).clamp(min=1e-12).sqrt()
    return a / size[:, None], left * size, float(squares[rank:].sum().sqrt()), float(squares.sum().sqrt())


def grams(model: Any, names: Sequence[str], batches: Iterable[Any]) -> dict[str, torch.Tensor]:
    """XᵀX (inputs, inputs), float64, of the inputs of the named layers over all ``batches`` of token ids.

    A batch is a tensor (rows, tokens), or a mapping for the model with ``input_ids`` and perhaps ``attention_mask``,
    whose zeros are left out. Layers that read the same tensor, such as query, key and value, share one matrix.
    """
    same: dict[str, str] = {}
    last: tuple[Any, str] = (None, "")
    found: dict[str, torch.Tensor] = {}

    def see(name: str, mask: torch.Tensor | None, _: Any, arguments: Any) -> None:
        nonlocal last
        x = arguments[0]
        if name not in same:
            same[name] = last[1] if last[0] is x else name
            last = (x, same[name])
        if same[name] != name:
            return
        rows = x.reshape(-1, x.shape[-1]) if mask is None else x[mask.bool()]
        rows = rows.double()  # in float32 it is not positive definite where one direction is 10,000 times another
        gram = rows.T @ rows
        found[name] = found[name] + gram if name in found else gram

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                given = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
                given = {key: value.to(model.device) for key, value in given.items() if key != "labels"}
                with contextlib.ExitStack() as hooks:
                    for name in names:
                        hook = functools.partial(see, name, given.get("attention_mask"))
                        hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(hook))
                    model(**given, use_cache=False)
    finally:
        model.train(training)
    return {name: found[leader] for name, leader in same.items()}


def root(gram: torch.Tensor) -> torch.Tensor:
    """L with LLᵀ = the Gram matrix and a little of the identity."""
    ridge = _RIDGE * float(gram.diagonal().mean()) or _RIDGE
    lower: torch.Tensor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram)).to(gram))
    return lower


def begin(
    module: LowRankLinear,
    old: nn.Module,
    layer: Factored,
    structure: Structure,
    gram: torch.Tensor | None,
    residual: float,
) -> Factored:
    """Give ``module`` its first values in place of the dense layer ``old``; return ``layer`` with what it cost.

    ``spectral``: the truncation of a matrix drawn as the dense layer was, from the seed, and scaled to its standard
    deviation: what is drawn is the product, not the factors. ``old`` is only measured, so GPT-2's smaller residual
    layers keep their smaller start. ``kaiming``: each factor for itself, as nn.Linear does (SLTrain's: B zero, S
    uniform); ``residual`` scales the product. ``svd``, ``activation``: the truncation of the weights that are there.
    A sparse part starts as what the truncation lacks at its places.
    """
    weight: torch.Tensor = as_stored(old, old.weight.data)
    draws = generator(structure.seed, layer.name, "weights")
    with torch.no_grad():
        if isinstance(module, SLTrainLinear):
            module.support.copy_(support(layer, structure.seed))
        bias = module.bias_of()
        if bias is not None:
            bias.copy_(old.get_parameter("bias"))
        if structure.init == "kaiming":
            _kaiming(module, layer, draws, residual)
            return layer
        target = weight.double()
        if structure.init == "spectral":
            target = torch.randn(target.shape, generator=draws, dtype=torch.float64).to(weight.device)
        a, b, tail, norm = truncated(target, layer.rank, None if gram is None else root(gram))
        made = b @ a
        if isinstance(module, SLTrainLinear):
            values = (target - made).flatten()[module.support.long()]
            made = made.flatten().index_add(0, module.support, values).view_as(target)
        share = float(weight.double().norm() / made.norm()) if structure.init == "spectral" else 1.0
        module.down.weight.copy_(a * math.sqrt(share) / math.sqrt(module.scale))
        module.up.weight.copy_(b * math.sqrt(share) / math.sqrt(module.scale))
        if isinstance(module, SLTrainLinear):
            module.values.copy_(values * share)
        if structure.init == "spectral":
            return layer
        lost = target - made
        found = {"error": float(lost.norm() / target.norm().clamp(min=1e-300))}
        if gram is not None:
            of_lost, of_target = (float(((matrix @ gram) * matrix).sum()) for matrix in (lost, target))
            found["output_error"] = math.sqrt(max(0.0, of_lost) / max(of_target, 1e-300))
        elif not isinstance(module, SLTrainLinear):
            found["error"] = tail / norm if norm else 0.0  # known from what was cut
        return layer.model_copy(update=found)


def _kaiming(module: LowRankLinear, layer: Factored, draws: torch.Generator, residual: float) -> None:
    def uniform(tensor: torch.Tensor, bound: float) -> None:
        tensor.copy_((torch.rand(tensor.shape, generator=draws) * 2 - 1) * bound)

    uniform(module.down.weight, 1 / math.sqrt(layer.inputs))
    if isinstance(module, SLTrainLinear):
        nn.init.zeros_(module.up.weight)
        uniform(module.values, residual / math.sqrt(layer.inputs))
    else:
        uniform(module.up.weight, residual / math.sqrt(layer.rank))
