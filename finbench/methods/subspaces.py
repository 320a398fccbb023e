"""Methods whose low-rank subspace moves: ROSA and ReLoRA fold what they have learnt into W and go on with new factors.

The sum of the cycles has a higher rank than any of them. W changes in training, so it is held in float32 (bfloat16
would round every fold), and it lies in each checkpoint. What is saved is the difference to the published W, as a LoRA
of as much rank as it has, as one of less with the loss stated, or as a whole model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods import convert, quantise
from finbench.methods.base import Cut, Layer, Start, without_head
from finbench.methods.lora import VARIANTS, LoraMethod

_MOVES = "moves"  # name in a checkpoint of how often it has folded
_OPTIONS: dict[str, Any] = {"every": 0.25, "save": "lora", "save_rank": None}
_ABOUT = {
    "every": "steps of a cycle, or, below 1, its share of the run",
    "save": "lora: the update, as a LoRA; model: the whole model, in float32",
    "save_rank": "cut the saved LoRA to this rank; the record says what that lost",
}


@dataclass(frozen=True)
class Moving(LoraMethod):
    """LoRA that every so often folds s BA into W, starts from new factors, and forgets their optimiser state.

    ``ranks`` times the rank is what one cycle adds to the rank of the whole update.
    """

    ranks: int = 1

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        every, save, rank = (self.stated(recipe, key) for key in ("every", "save", "save_rank"))
        whole = (isinstance(every, int) and every >= 1) or (isinstance(every, float) and 0 < every < 1)
        if isinstance(every, bool) or not whole:
            raise FinbenchError(
                f"every is a number of steps from 1 on, or a share of the run below 1; got {every!r}.",
                "--set every=50, or --set every=0.25",
            )
        if save not in ("lora", "model"):
            raise FinbenchError(f"save is lora or model, not {save!r}.", "--set save=lora")
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1 or save == "model"):
            raise FinbenchError(
                f"save_rank is a whole number from 1 on, of save=lora; got {rank!r}.", "--set save_rank=64"
            )
        for key in VARIANTS:
            if recipe.options.get(key, False) is not False:
                raise FinbenchError(
                    f"{self.name} makes its own factors, so {key} does not go with it.", "Leave it out."
                )
        without_head(self, recipe, self.reach(recipe, layers), "it changes the weights of its targets")

    def period(self, recipe: Recipe, steps: int) -> int:
        """Optimiser steps of a cycle in a run of ``steps``."""
        every = self.stated(recipe, "every")
        return every if isinstance(every, int) else max(1, round(every * steps))

    def check_steps(self, recipe: Recipe, steps: int) -> None:
        period = self.period(recipe, steps)
        if period >= steps:
            raise FinbenchError(
                f"{self.name} would never move: a cycle has {period} steps, and so many has the run ({steps}).",
                "Use more rows or epochs, or a smaller --set every=...",
            )

    def makes(self, recipe: Recipe) -> Literal["peft", "model"]:
        return "model" if self.stated(recipe, "save") == "model" else "peft"

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        assert start is not None
        wrapped = super().apply(model.float(), recipe)
        for name, module in convert.lora_layers(wrapped):
            self.renew(module, weight_of(module), f"{recipe.seed}-0-{name}", recipe, first=True)
        wrapped.finbench_moves, wrapped.finbench_published = 0, start.load
        return wrapped

    def renew(self, module: Any, weight: Any, seed: str, recipe: Recipe, first: bool = False) -> None:
        """New factors for ``module``, drawn from ``seed``; ``weight`` (outputs, inputs) is the layer's, to change."""
        raise NotImplementedError

    def forget(self, optimizer: Any, tensors: list[Any], recipe: Recipe) -> None:
        """What becomes of the optimiser state of the factors: it is dropped."""
        for tensor in tensors:
            optimizer.state.pop(tensor, None)

    def move(self, model: Any, optimizer: Any, recipe: Recipe, step: int) -> None:
        """Fold, draw new factors, forget. The function that the model computes stays, up to rounding in float32."""
        import torch

        tensors = []
        with torch.no_grad():
            for name, module in convert.lora_layers(model):
                weight, factors = weight_of(module), [part["default"].weight for part in (module.lora_A, module.lora_B)]
                weight += module.scaling["default"] * factors[1] @ factors[0]
                self.renew(module, weight, f"{recipe.seed}-{step}-{name}", recipe)
                tensors += factors
        self.forget(getattr(optimizer, "optimizer", optimizer), tensors, recipe)  # accelerate wraps the optimiser
        model.finbench_moves += 1

    def callbacks(self, model: Any, recipe: Recipe) -> list[Any]:
        """After the last step of every cycle but the last, before a checkpoint of that step is written."""
        from transformers import TrainerCallback

        method = self

        class Move(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
                step, steps = state.global_step, state.max_steps
                if step % method.period(recipe, steps) == 0 and step < steps:
                    method.move(model, optimizer, recipe, step)

        return [Move()]

    def state(self, model: Any) -> dict[str, Any]:
        """W of every adapted layer as it is now, and how often it has changed."""
        import torch

        weights = {name: weight_of(module) for name, module in convert.lora_layers(model)}
        return {**weights, _MOVES: torch.tensor(model.finbench_moves)}

    def restore(self, model: Any, state: Mapping[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, module in convert.lora_layers(model):
                weight_of(module).copy_(state[name])
        model.finbench_moves = int(state[_MOVES])

    def save(self, model: Any, recipe: Recipe, folder: Path) -> Cut | None:
        """The difference to the published weights as a LoRA, by SVD; or the whole model, in float32."""
        import torch

        if self.makes(recipe) == "model":
            model.merge_and_unload().save_pretrained(folder)
            return None
        published = model.finbench_published(None)
        learnt, ranks, lost, all_of_it, worst = {}, [], 0.0, 0.0, 0.0
        wanted = self.stated(recipe, "save_rank")
        with torch.no_grad():
            for name, module in convert.lora_layers(model):
                low = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
                update = (weight_of(module) + low - convert.published(published, name)).cpu()
                most = min(*update.shape, module.r["default"] * self.ranks * (model.finbench_moves + 1))
                u, s, vh = torch.linalg.svd(update, full_matrices=False)
                kept = min(most, wanted or most)
                root = s[:kept].sqrt()
                own = name.removeprefix(convert.PREFIX)
                learnt[own] = convert.Factors(root[:, None] * vh[:kept], u[:, :kept] * root, 1.0)
                ranks.append(most)
                tail, norm = float(s[kept:].square().sum()), float(s.square().sum())
                lost, all_of_it, worst = lost + tail, all_of_it + norm, max(worst, math.sqrt(tail / max(norm, 1e-30)))
        convert.write_lora(learnt, recipe, model.peft_config["default"].target_modules, folder)
        return Cut(min(max(ranks), wanted or max(ranks)), max(ranks), math.sqrt(lost / max(all_of_it, 1e-30)), worst)


def weight_of(module: Any) -> Any:
    """The frozen weight below an adapted layer, (outputs, inputs), to be changed in place."""
    layer = module.get_base_layer()
    return quantise.as_stored(layer, layer.weight.data)


@dataclass(frozen=True)
class Rosa(Moving):
    """The factors are r random singular triples of W, taken out of it; they train with all the size that they have."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        pick = self.stated(recipe, "pick")
        if pick not in ("random", "top", "bottom"):
            raise FinbenchError(f"pick is random, top or bottom, not {pick!r}.", "--set pick=top")

    def renew(self, module: Any, weight: Any, seed: str, recipe: Recipe, first: bool = False) -> None:
        """W = U S V^T; B = U_I sqrt(S_I / s), A = sqrt(S_I / s) V_I^T, and W less s BA stays frozen."""
        import torch

        rank, scale = module.r["default"], module.scaling["default"]
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        pick = self.stated(recipe, "pick")
        random_ones = sorted(random.Random(f"finbench-rosa-{seed}").sample(range(len(s)), rank))
        chosen = {"random": random_ones, "top": list(range(rank)), "bottom": list(range(len(s) - rank, len(s)))}[pick]
        root = (s[chosen] / scale).sqrt()
        a, b = root[:, None] * vh[chosen], u[:, chosen] * root
        with torch.no_grad():
            weight -= scale * b @ a
            module.lora_A["default"].weight.copy_(a)
            module.lora_B["default"].weight.copy_(b)


@dataclass(frozen=True)
class ReLora(Moving):
    """The factors start anew as LoRA's do, with most of the optimiser's memory cut and the learning rate from zero."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        for key in ("prune", "restart_warmup"):
            value = self.stated(recipe, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                raise FinbenchError(f"{key} must be above 0 and at most 1, got {value!r}.", f"--set {key}=0.9")

    def check_steps(self, recipe: Recipe, steps: int) -> None:
        """A cycle begins at rate 0, so it must have another step."""
        super().check_steps(recipe, steps)
        if self.period(recipe, steps) == 1:
            raise FinbenchError(
                "relora: a cycle of 1 step learns nothing, for each begins at a learning rate of 0.",
                "Use more rows or epochs, or --set every=2",
            )

    def renew(self, module: Any, weight: Any, seed: str, recipe: Recipe, first: bool = False) -> None:
        """A from Kaiming's uniform distribution as in LoRA, B zero; the first ones are LoRA's own."""
        import torch

        if first:
            return
        a = torch.empty(module.lora_A["default"].weight.shape)
        generator = torch.Generator().manual_seed(random.Random(f"finbench-relora-{seed}").getrandbits(63))
        torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        module.lora_A["default"].weight.copy_(a)
        module.lora_B["default"].weight.zero_()

    def forget(self, optimizer: Any, tensors: list[Any], recipe: Recipe) -> None:
        """Zero both moments but where the first is largest, a share ``prune`` of it; with 1 the state is dropped.

        The authors cut each moment by its own size. Where the first is kept and the second is not, Adam then divides
        by nothing: A has no gradient until B has moved.
        """
        share = float(self.stated(recipe, "prune"))
        if share == 1:
            super().forget(optimizer, tensors, recipe)
            return
        for tensor in tensors:
            held, cut = optimizer.state.get(tensor), math.floor(share * tensor.numel())
            if held and cut:
                size = held["exp_avg"].abs()
                small = size <= size.flatten().kthvalue(cut).values
                for key in ("exp_avg", "exp_avg_sq"):
                    held[key].masked_fill_(small, 0)

    def scheduler(self, optimizer: Any, recipe: Recipe, steps: int) -> Any:
        """The recipe's schedule, times ``restart``."""
        from torch.optim.lr_scheduler import LambdaLR
        from transformers import get_scheduler

        warm = math.ceil(recipe.warmup * steps)
        whole = get_scheduler(recipe.schedule, optimizer, num_warmup_steps=warm, num_training_steps=steps).lr_lambdas[0]
        again = self.restart(recipe, steps)
        return LambdaLR(optimizer, lambda step: float(whole(step)) * again(step))

    def restart(self, recipe: Recipe, steps: int) -> Callable[[int], float]:
        """A short rise from zero at the start of each cycle but the first, as a factor of the learning rate."""
        period = self.period(recipe, steps)
        rise = max(1, math.ceil(float(self.stated(recipe, "restart_warmup")) * period))
        return lambda step: min(1.0, step % period / rise) if step >= period else 1.0


_REFUSED = "every fold would be rounded to the quantised weights, and be lost"
ROSA = Rosa(
    name="rosa",
    declines={"init_lora_weights": "rosa makes its own factors, so init_lora_weights does not go with it."},
    summary="Random singular triples of W, drawn anew",
    equation="y = (W - sB0A0)x + sBAx, sB0A0 = r random triples of SVD(W), W <- W + s(BA - B0A0) every k steps",
    paper="Hameed et al. 2024, arXiv:2407.07802",
    becomes="converted LoRA",
    bits=(16,),
    refused=_REFUSED,
    ranks=2,
    options={**_OPTIONS, "pick": "random"},
    about={**_ABOUT, "pick": "which triples: random, top or bottom"},
    # as of pissa, the factors are parts of the weights and as large
    defaults={"lr": 2.0e-4},
)
RELORA = ReLora(
    name="relora",
    declines={"init_lora_weights": "relora makes its own factors, so init_lora_weights does not go with it."},
    summary="LoRA that is folded into W and restarted",
    equation="y = Wx + sBAx, W <- W + sBA, B <- 0 every k steps",
    paper="Lialin et al. 2023, arXiv:2307.05695",
    becomes="converted LoRA",
    bits=(16,),
    refused=_REFUSED,
    options={**_OPTIONS, "prune": 0.99, "restart_warmup": 0.1},
    about={
        **_ABOUT,
        "prune": "share of the optimiser's moments that a restart drops; 1: all",
        "restart_warmup": "share of a cycle in which the rate rises from zero",
    },
    defaults={"schedule": "cosine"},
)
