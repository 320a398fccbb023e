"""AdaLoRA: more rank than is wanted at first, and the least important singular triples are masked as training goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods import convert
from finbench.methods.base import Layer, full_rank, number
from finbench.methods.lora import LORA
from finbench.methods.tuners import Tuner

_STEPS = {"r", "init_r", "target_r", "total_step", "tinit", "tfinal"}  # said by rank, and as shares of the run
_MEMORY = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what peft's allocator remembers of the gradients


@dataclass(frozen=True)
class AdaLora(Tuner):
    """peft's AdaLoRA, with its schedule as shares of the run, its penalty in our loss, and exact checkpoints.

    A recipe's ``rank`` is the mean rank that is left at the end; it starts with ``start_ratio`` times as much.
    """

    def option_names(self) -> set[str]:
        """Its own options, and those of peft that say neither rank nor steps."""
        return super().option_names() - (LORA.option_names() - set(convert.NARROWING)) - _STEPS | set(self.options)

    def configuration(self, recipe: Recipe, steps: int | None = None) -> Any:
        """peft's AdaLoraConfig for a run of ``steps`` (1,000 where only the recipe is looked at)."""
        total = steps or 1000
        ratio, warm, final = (number(self, recipe, key, 0, 8) for key in ("start_ratio", "warm", "final"))
        if not 1 < ratio <= 8 or not 0 <= warm < 1 or not 0 < final < 1 or warm + final >= 1:
            raise FinbenchError(
                f"adalora: start_ratio {ratio:g}, warm {warm:g} and final {final:g} make no schedule.",
                "start_ratio is above 1 and at most 8; warm and final are shares of the steps, together below 1.",
            )
        begin, end = int(warm * total), max(1, int(final * total))
        if begin >= total - end or total - end < 2:  # importance is measured before the last mask
            raise FinbenchError(f"adalora needs more than {total} optimiser steps.", "Use more rows or epochs.")
        values = {name: getattr(recipe, key) for key, name in self.fields.items()}
        values |= {"init_r": round(ratio * recipe.rank), "total_step": total, "tinit": begin, "tfinal": end}
        own = {key: value for key, value in recipe.options.items() if key not in self.options}
        return self.made(self.kind, recipe, {**values, **own})

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        full_rank(self.configuration(recipe).init_r, self.reach(recipe, layers))

    def check_steps(self, recipe: Recipe, steps: int) -> None:
        self.configuration(recipe, steps)

    def callbacks(self, model: Any, recipe: Recipe) -> list[Any]:
        """The allocator runs between the optimiser's step and the clearing of the gradients."""
        from transformers import TrainerCallback

        class Allocate(TrainerCallback):
            def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                # peft cuts masked rows out of what it saves while the mask is in its configuration, and then cannot
                # load it back into a run; so the mask is there only while the allocator works
                config = model.peft_config["default"]
                config.rank_pattern = getattr(model, "finbench_mask", None)
                model.base_model.update_and_allocate(state.global_step + 1)
                model.finbench_mask, config.rank_pattern = config.rank_pattern, None

        return [Allocate()]

    def penalty(self, model: Any) -> Any:
        """The orthogonality term of the paper's eq. 4 in peft's form: mean of ||AA^T - I||_F and ||B^TB - I||_F.

        peft adds it to a loss that the model computes, which ours does not: without this it would be left out silently.
        """
        import torch

        terms = []
        for name, tensor in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                gram = tensor @ tensor.T if ".lora_A." in name else tensor.T @ tensor
                terms.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
        return model.peft_config["default"].orth_reg_weight * torch.stack(terms).mean()

    def state(self, model: Any) -> dict[str, Any]:
        import torch

        allocator = model.base_model.rankallocator
        held = {f"{kind}/{name}": t for kind in _MEMORY for name, t in getattr(allocator, kind).items()}
        mask = getattr(model, "finbench_mask", None) or {}
        return {**held, **{f"mask/{name}": torch.tensor(kept) for name, kept in mask.items()}}

    def restore(self, model: Any, state: Mapping[str, Any]) -> None:
        parts: dict[str, dict[str, Any]] = {kind: {} for kind in (*_MEMORY, "mask")}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            parts[kind][name] = tensor
        for kind in _MEMORY:
            setattr(model.base_model.rankallocator, kind, parts[kind])
        if parts["mask"]:
            model.finbench_mask = {name: t.tolist() for name, t in parts["mask"].items()}

    def save(self, model: Any, recipe: Recipe, folder: Path) -> None:
        """As an ordinary LoRA: the singular values go into A, and masked triples are left out."""
        learnt = {}
        for name, module in convert.lora_layers(model):
            a, b, e = (part["default"].detach().float() for part in (module.lora_A, module.lora_B, module.lora_E))
            kept = e.flatten() != 0
            ranks = float(module.ranknum["default"].detach()) + 1e-5  # as peft divides
            scale = float(module.scaling["default"]) / ranks
            own = name.removeprefix(convert.PREFIX)
            learnt[own] = convert.Factors((a * e)[kept].clone(), b[:, kept].clone(), scale)
        convert.write_lora(learnt, recipe, model.peft_config["default"].target_modules, folder)


ADALORA = AdaLora(
    name="adalora",
    summary="LoRA whose rank goes where it matters most",
    equation="y = Wx + (alpha/r0) B diag(e) Ax, with a penalty on AA^T - I and B^TB - I",
    paper="Zhang et al. 2023, arXiv:2303.10512",
    becomes="converted LoRA",
    trains="q(h+o+1), q = start_ratio r, of which r are left",
    peft_config="AdaLoraConfig",
    rank="target_r",
    alpha="lora_alpha",
    dropout="lora_dropout",
    options={"start_ratio": 1.5, "warm": 0.1, "final": 0.3},
    about={
        "start_ratio": "rank at the start over that at the end",
        "warm": "share of the steps before ranks are cut",
        "final": "share of the steps at the end, in which ranks stay",
    },
    # the mask and the small start of A and B slow it down
    defaults={"lr": 3.0e-3},
)
