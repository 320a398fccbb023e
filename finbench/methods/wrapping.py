"""What every method on peft shares: its configuration, the layers it reaches, its layers on a model.

What peft refuses becomes a FinbenchError with peft's own reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError, reason
from finbench.core.records import Recipe
from finbench.methods import options
from finbench.methods.base import Layer, Method, Start, endings, full_rank, near, targets

_RAISED = (ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError, NotImplementedError)


@dataclass(frozen=True)
class PeftMethod(Method):
    """A method that is layers of peft's. ``wide``: its rank may exceed a layer's dimensions."""

    wide: bool = False

    def configuration(self, recipe: Recipe, steps: int | None = None) -> Any:
        """peft's configuration for a run of ``steps`` optimiser steps; what it refuses becomes a FinbenchError."""
        raise NotImplementedError

    def made(self, kind: Any, recipe: Recipe, values: dict[str, Any]) -> Any:
        """An instance of peft's configuration class ``kind`` for the recipe's target modules."""
        options.check(self.name, kind, recipe.options)
        if isinstance(recipe.target_modules, str) and recipe.options.get("layers_to_transform") is not None:
            raise FinbenchError(  # peft applies it to endings of names alone
                f"layers_to_transform needs a list of target modules, not {recipe.target_modules!r}.",
                "Name some, on Llama's layers for one: --set target_modules=[q_proj,v_proj]",
            )
        try:
            return kind(task_type="CAUSAL_LM", target_modules=recipe.target_modules, **values)
        except _RAISED as fault:
            raise FinbenchError(
                f"peft refuses this configuration of {self.name}: {reason(fault)}",
                f"Its options: finbench methods {self.name}",
            ) from fault

    def reach(self, recipe: Recipe, layers: list[Layer]) -> list[Layer]:
        """The layers that get an adapter: what peft's ``exclude_modules`` and its like leave of the targets.

        FinbenchError if they leave none, cannot be read, or name what is not there; and for a layer that peft's
        implementation cannot take, or whose dimensions the rank exceeds.
        """
        from peft.tuners.tuners_utils import check_target_module_exists

        asked, found = self.configuration(recipe), targets(recipe, layers)
        _named_layers(recipe, found)
        if isinstance(recipe.target_modules, str):
            asked.target_modules = {layer.name for layer in found}
        try:
            kept = [layer for layer in found if check_target_module_exists(asked, layer.name)]
        except (*_RAISED, re.error) as fault:
            raise FinbenchError(
                f"peft cannot read which layers are meant: {reason(fault)}",
                "Write a list of names: --set target_modules=[q_proj,v_proj]",
            ) from fault
        if not kept:
            raise FinbenchError(
                "exclude_modules, layers_to_transform and layers_pattern leave none of the target modules "
                f"{recipe.target_modules!r} of {recipe.base}.",
                "State others, or leave them out.",
            )
        if tied := next((layer for layer in kept if layer.tied), None):
            raise FinbenchError(
                f"{tied.name} of {recipe.base} is its embedding too, which it would change when it is merged.",
                "Leave it out of target_modules.",
            )
        transposed = next((layer for layer in kept if layer.kind == "Conv1D"), None)
        if transposed and not self.conv1d:
            raise FinbenchError(
                f"Method {self.name} cannot take {transposed.name} of {recipe.base}: it is a Conv1D, as in GPT-2, "
                "and peft has this method for nn.Linear only.",
                "Choose another method (finbench methods), or a base with nn.Linear layers (finbench bases).",
            )
        options.check_patterns(recipe, kept)
        if not self.wide and "rank" not in self.unused:
            full_rank(recipe.rank, kept, recipe.options.get("rank_pattern"))
        return kept

    def rehearse(self, recipe: Recipe, skeleton: Any) -> None:
        """peft's layers on ``skeleton``, a base on the meta device.

        Some of its tuners look at the weights when they make a layer, which cannot be rehearsed.
        """
        from peft import get_peft_model

        config = self.configuration(recipe)
        try:
            made = get_peft_model(skeleton, config, low_cpu_mem_usage=True)
        except NotImplementedError:  # "Cannot copy out of meta tensor"
            return
        except (*_RAISED, RuntimeError) as fault:
            raise self._refused(recipe, fault) from fault
        if not any(tensor.numel() for tensor in made.parameters() if tensor.requires_grad):
            raise FinbenchError(f"{self.name} with these options trains nothing at all.", self._its_options())

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """peft's layers on the target modules."""
        return self.wrap(model, self.configuration(recipe, start.steps if start else None), recipe)

    def wrap(self, model: Any, config: Any, recipe: Recipe) -> Any:
        """peft's layers on ``model``. Its tensors are float32, and the base is frozen."""
        from peft import get_peft_model

        try:
            return one_dtype(get_peft_model(model, config))
        except (*_RAISED, RuntimeError) as fault:
            raise self._refused(recipe, fault) from fault

    def _refused(self, recipe: Recipe, fault: Exception) -> FinbenchError:
        return FinbenchError(f"peft refuses {self.name} on {recipe.base}: {reason(fault)}", self._its_options())

    def _its_options(self) -> str:
        return f"Its options: {', '.join(sorted(self.offered()))}; state them with --set"


def _named_layers(recipe: Recipe, found: list[Layer]) -> None:
    """peft passes over what ``exclude_modules`` and ``layers_to_transform`` name in vain."""
    excluded = recipe.options.get("exclude_modules")
    for name in excluded if isinstance(excluded, list) else []:
        if not any(layer.ends_in(name) for layer in found):
            raise FinbenchError(
                f"exclude_modules: {name!r} is none of the target modules.{near(str(name), found)}",
                f"They are: {', '.join(endings(found))}",
            )
    if isinstance(excluded, str) and excluded:
        try:
            matched = any(re.fullmatch(excluded, layer.name) for layer in found)
        except re.error as fault:
            raise FinbenchError(
                f"exclude_modules {excluded!r} is not a regular expression: {fault}.",
                "Write a list of names: --set exclude_modules=[q_proj]",
            ) from fault
        if not matched:
            raise FinbenchError(
                f"exclude_modules {excluded!r} is taken as a regular expression for whole names and matches no target.",
                f"Write a list of some of: --set exclude_modules=[{', '.join(endings(found))}]",
            )
    wanted = recipe.options.get("layers_to_transform")
    numbers = {int(part) for layer in found for part in layer.name.split(".") if part.isdecimal()}
    for number in [wanted] if isinstance(wanted, int) else wanted if isinstance(wanted, list) else []:
        if number not in numbers and numbers:
            raise FinbenchError(
                f"layers_to_transform: {recipe.base} has no layer {number!r}.",
                f"It has the layers {min(numbers)} to {max(numbers)}.",
            )


def one_dtype(model: Any) -> Any:
    """Let peft's layers on quantised weights answer in the dtype that they were asked in; returns ``model``.

    AdaLoRA's and RandLoRA's (peft 0.21) answer in float32, which the next layer of a model in half precision refuses.
    """
    import bitsandbytes as bnb
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if not isinstance(module, BaseTunerLayer) or _cast in module._forward_hooks.values():
            continue
        if isinstance(module.get_base_layer(), (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
            module.register_forward_hook(_cast)
    return model


def _cast(_: Any, given: tuple[Any, ...], answer: Any) -> Any:
    return answer.to(given[0].dtype) if answer.dtype != given[0].dtype else None
