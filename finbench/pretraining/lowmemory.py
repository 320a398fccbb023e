"""Optimisers that keep moments of less than the whole gradient: GaLore, APOLLO, APOLLO-Mini and Fira.

A gradient G with n rows and m <= n columns (a wide one is turned) is seen through r directions P of its columns,
R = G P^T, and Adam's moments are those of R; N is Adam's step for R. What the weights move by:

galore        scale N P                                  P: leading right singular vectors of G (arXiv:2403.03507)
fira          scale N P + limited(phi (G - scale R P))   the same P; phi = |N| / |R| of each row (arXiv:2410.01623)
apollo        sqrt(scale) limited(phi G)                 P: random normal, of variance 1/r (arXiv:2412.05270)
apollo-mini   the same, with one phi for the matrix

P is made anew every ``update_gap`` steps. ``limited``: the norm grows by 1 % a step at most. What is not in the blocks'
linear layers has Adam's whole moments. Order of operations and constants are those of the authors' packages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from finbench.core.errors import FinbenchError
from finbench.models.structured import surgery
from finbench.pretraining.spec import OptimizerSpec

_GROWTH = 1.01  # of the norm of an update over that before
_SMALL = 1e-8  # added to norms that are divided by


def reduced(model: Any, how: OptimizerSpec) -> tuple[set[str], int]:
    """(names of the weights whose moments are reduced, the rank). Raises FinbenchError for a rank that does not fit."""
    if not how.low_memory:
        return set(), 0
    rank, width = how.rank, int(model.config.get_text_config().hidden_size)
    rank = rank if isinstance(rank, int) else max(1, round(float(rank or 1) * width))
    shapes = {f"{name}.weight": tuple(layer.weight.shape) for name, layer in surgery.linears(model).items()}
    if not shapes:
        raise FinbenchError(
            f"{type(model).__name__} has no linear layers in blocks, so {how.kind} has nothing to reduce.",
            "--set optimizer=adamw",
        )
    name, shape = min(shapes.items(), key=lambda found: min(found[1]))
    if rank > min(shape):
        raise FinbenchError(
            f"optimizer.rank {rank} is above the smaller side of {name} ({' x '.join(map(str, shape))}).",
            f"--set optimizer.rank={min(shape)}, or less, or a share of the width: 0.25",
        )
    return set(shapes), rank


def state_bytes(model: Any, how: OptimizerSpec) -> int:
    """Bytes of the tensors that the optimiser keeps between steps, in float32; of a model without weights too."""
    names, rank = reduced(model, how)
    numbers = 0
    for name, tensor in model.named_parameters():
        if not tensor.requires_grad:
            continue
        if name not in names:
            numbers += 2 * tensor.numel() + (not how.low_memory)  # torch's AdamW counts steps in a tensor
            continue
        small, large = sorted(tensor.shape)
        numbers += 2 * large * rank + (small * rank if how.kind in ("galore", "fira") else 0) + (how.kind != "galore")
    return 4 * numbers


def held_bytes(optimizer: Any) -> int:
    """Bytes of the tensors that an optimiser holds, measured."""
    found = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.untyped_storage().nbytes() for value in found if isinstance(value, torch.Tensor))


def random_directions(seed: int, matrix: int, refresh: int, shape: tuple[int, int], device: Any) -> Any:
    """APOLLO's P, drawn again when it is needed in place of being kept; the same for the same numbers."""
    key = int(np.random.SeedSequence([seed, matrix, refresh]).generate_state(1, np.uint64)[0])
    drawn = torch.Generator(device=device).manual_seed(key >> 1)
    return torch.randn(shape, generator=drawn, device=device) / math.sqrt(shape[0])


class LowMemoryAdamW(torch.optim.Optimizer):
    """See above. Groups with a ``rank`` hold matrices and are reduced; all states are tensors and numbers, so that a
    checkpoint is read as data and goes on to the same bits.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], how: OptimizerSpec, seed: int, lr: float, betas: Any, eps: float
    ) -> None:
        self.how, self.seed = how, seed
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        for group in (group for group in self.param_groups if "rank" in group):
            if any(weight.ndim != 2 or min(weight.shape) < group["rank"] for weight in group["params"]):
                raise FinbenchError(
                    f"{how.kind} reduces matrices of rank {group['rank']} or more, and no vectors.",
                    "A smaller one: --set optimizer.rank=4",
                )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every weight that has a gradient."""
        loss = closure() if closure else None
        for place, group in enumerate(self.param_groups):
            for number, weight in enumerate(group["params"]):
                if weight.grad is not None:
                    self._move(weight, group, place << 32 | number)
        return loss

    def _move(self, weight: Any, group: dict[str, Any], number: int) -> None:
        state = self.state[weight]
        done = state.setdefault("step", 0)
        state["step"] = done + 1
        low, wide = "rank" in group, weight.ndim == 2 and weight.shape[0] < weight.shape[1]
        gradient = weight.grad.T if low and wide else weight.grad
        directions = self._directions(weight.grad, wide, group["rank"], state, done, number) if low else None
        seen = gradient @ directions.T if directions is not None else gradient
        (beta1, beta2), rate = group["betas"], group["lr"]
        if not done:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(seen), torch.zeros_like(seen)
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.mul_(beta1).add_(seen, alpha=1 - beta1)
        second.mul_(beta2).addcmul_(seen, seen, value=1 - beta2)
        move = first / second.sqrt().add_(group["eps"])
        if directions is not None:
            move = self._whole(gradient, seen, move, directions, state)
        corrected = rate * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        weight.add_(move.T if low and wide else move, alpha=-corrected)
        if group["weight_decay"]:
            weight.mul_(1 - rate * group["weight_decay"])

    def _directions(self, gradient: Any, wide: bool, rank: int, state: Any, done: int, number: int) -> Any:
        """P, (rank, smaller side)."""
        gap = int(self.how.update_gap or 1)
        if self.how.kind.startswith("apollo"):
            return random_directions(self.seed, number, done // gap, (rank, min(gradient.shape)), gradient.device)
        if done % gap == 0:
            if not gradient.isfinite().all():
                raise FinbenchError(
                    "A gradient is not a number: training has diverged.", "Use a smaller learning rate: --set lr="
                )
            left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
            state["directions"] = (left.T if wide else right)[:rank].to(gradient.dtype, copy=True).contiguous()
        return state["directions"]

    def _whole(self, gradient: Any, seen: Any, move: Any, directions: Any, state: Any) -> Any:
        """What the whole matrix moves by, of what its reduced form would."""
        kind, scale = self.how.kind, float(self.how.scale or 1)
        if kind == "galore":
            return move @ directions * scale
        if kind == "apollo-mini":
            return self._limited(gradient * (move.norm() / (seen.norm() + _SMALL)), state) * math.sqrt(scale)
        ratio = move.norm(dim=1, keepdim=True) / (seen.norm(dim=1, keepdim=True) + _SMALL)
        if kind == "apollo":
            return self._limited(gradient * ratio, state) * math.sqrt(scale)
        rest = gradient - seen @ directions * scale  # scaled as the authors' package has it; their paper takes all away
        return move @ directions * scale + self._limited(rest * ratio, state)

    def _limited(self, update: Any, state: Any) -> Any:
        norm = update.norm()
        if "norm" in state:
            over = (norm / (state["norm"] + _SMALL)).clamp(min=_GROWTH) / _GROWTH
            update, norm = update / over, norm / over
        state["norm"] = norm
        return update
