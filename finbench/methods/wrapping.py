"""What every method on peft shares: its configuration, the layers it reaches, its layers on a model.

What peft refuses becomes a FinbenchError with peft's own reason.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from finbench.core.errors import FinbenchError, reason
from finbench.core.records import Recipe
from finbench.methods import options, quantise
from finbench.methods.base import Layer, Method, near, targets

_RAISED = (ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError, NotImplementedError)


def configuration(kind: Any, method: Method, recipe: Recipe, values: dict[str, Any]) -> Any:
    """An instance of peft's configuration class ``kind`` for the recipe's target modules."""
    options.check(method.name, kind, recipe.options)
    if isinstance(recipe.target_modules, str) and recipe.options.get("layers_to_transform") is not None:
        raise FinbenchError(  # peft applies it to endings of names alone
            f"layers_to_transform needs a list of target modules, not {recipe.target_modules!r}.",
            "Name some, on Llama's layers for one: --set target_modules=[q_proj,v_proj]",
        )
    try:
        return kind(task_type="CAUSAL_LM", target_modules=recipe.target_modules, **values)
    except _RAISED as fault:
        raise FinbenchError(
            f"peft refuses this configuration of {method.name}: {reason(fault)}",
            f"Its options: finbench methods {method.name}",
        ) from fault


def reached(config: Any, recipe: Recipe, layers: list[Layer]) -> list[Layer]:
    """The targets that peft's ``exclude_modules``, ``layers_to_transform`` and ``layers_pattern`` leave.

    FinbenchError if they leave none, cannot be read, or name what is not there.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    found = targets(recipe, layers)
    _named_layers(recipe, found)
    asked = copy.copy(config)
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
    return kept


def _named_layers(recipe: Recipe, found: list[Layer]) -> None:
    """peft passes over what ``exclude_modules`` and ``layers_to_transform`` name in vain."""
    excluded = recipe.options.get("exclude_modules")
    ends = sorted({layer.name.rpartition(".")[2] for layer in found})
    for name in excluded if isinstance(excluded, list) else []:
        if not any(layer.name == name or layer.name.endswith(f".{name}") for layer in found):
            raise FinbenchError(
                f"exclude_modules: {name!r} is none of the target modules.{near(str(name), found)}",
                f"They are: {', '.join(ends)}",
            )
    if isinstance(excluded, str) and excluded and not _excludes(excluded, found):
        raise FinbenchError(
            f"exclude_modules {excluded!r} is taken as a regular expression for whole names and matches no target.",
            f"Write a list of some of: --set exclude_modules=[{', '.join(ends)}]",
        )
    wanted = recipe.options.get("layers_to_transform")
    numbers = {int(part) for layer in found for part in layer.name.split(".") if part.isdecimal()}
    for number in [wanted] if isinstance(wanted, int) else wanted if isinstance(wanted, list) else []:
        if number not in numbers and numbers:
            raise FinbenchError(
                f"layers_to_transform: {recipe.base} has no layer {number!r}.",
                f"It has the layers {min(numbers)} to {max(numbers)}.",
            )


def _excludes(pattern: str, found: list[Layer]) -> bool:
    try:
        return any(re.fullmatch(pattern, layer.name) for layer in found)
    except re.error as fault:
        raise FinbenchError(
            f"exclude_modules {pattern!r} is not a regular expression: {fault}.",
            "Write a list of names: --set exclude_modules=[q_proj]",
        ) from fault


def rehearse(skeleton: Any, config: Any, method: Method, recipe: Recipe) -> None:
    """peft's layers on ``skeleton``, a base on the meta device: what peft refuses is refused before weights are loaded.

    Some of its tuners look at the weights when they make a layer, which cannot be rehearsed.
    """
    from peft import get_peft_model

    try:
        made = get_peft_model(skeleton, copy.deepcopy(config), low_cpu_mem_usage=True)
    except NotImplementedError:  # "Cannot copy out of meta tensor"
        return
    except (*_RAISED, RuntimeError) as fault:
        raise _refused(method, recipe, fault) from fault
    if not any(tensor.numel() for tensor in made.parameters() if tensor.requires_grad):
        raise FinbenchError(
            f"{method.name} with these options trains nothing at all.",
            f"Its options: {', '.join(sorted(method.offered()))}; state them with --set",
        )


def wrap(model: Any, config: Any, method: Method, recipe: Recipe) -> Any:
    """peft's layers on ``model``. Its tensors are float32, and the base is frozen."""
    from peft import get_peft_model

    try:
        return one_dtype(get_peft_model(model, config))
    except (*_RAISED, RuntimeError) as fault:
        raise _refused(method, recipe, fault) from fault


def one_dtype(model: Any) -> Any:
    """Let peft's layers on quantised weights answer in the dtype that they were asked in; returns ``model``.

    AdaLoRA's and RandLoRA's (peft 0.21) answer in float32, which the next layer of a model in half precision refuses.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if not isinstance(module, BaseTunerLayer) or _cast in module._forward_hooks.values():
            continue
        if quantise.is_quantised(module.get_base_layer()):
            module.register_forward_hook(_cast)
    return model


def _cast(_: Any, given: tuple[Any, ...], answer: Any) -> Any:
    return answer.to(given[0].dtype) if answer.dtype != given[0].dtype else None


def _refused(method: Method, recipe: Recipe, fault: Exception) -> FinbenchError:
    return FinbenchError(
        f"peft refuses {method.name} on {recipe.base}: {reason(fault)}",
        f"Its options: {', '.join(sorted(method.offered()))}; state them with --set",
    )
