"""What every method on peft shares: options and configuration, the layers it reaches, its layers on a model.

What peft refuses becomes a FinbenchError with peft's own reason. Its configuration classes are plain dataclasses: they
take the text "no" for true, and most numbers are looked at when layers are made, in the middle of a run, or never. So
each option is held to the type that the class states, and to values that mean something.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finbench.core import environment
from finbench.core.errors import FinbenchError, reason
from finbench.core.records import Recipe
from finbench.methods.base import Layer, Method, Start, endings, experts, full_rank, near, pattern_fits, targets

_RAISED = (ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError, NotImplementedError)
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
# below 1; every other number that may be a fraction has no upper bound
_SHARES = (
    *("beta1", "beta2", "asa_importance_beta", "asa_uncertainty_beta", "module_dropout", "lora_dropout"),
    *("sparsity", "sparse_rate", "svd_threshold"),
)
_OR_ANOTHER = ("oft_block_size", "boft_block_size")  # 0 where another option says the size of blocks
_SCALES = ("alpha_pattern", "lambda_pattern")  # the other patterns hold whole numbers


@dataclass(frozen=True)
class PeftMethod(Method):
    """A method that is layers of peft's. ``wide``: its rank may exceed a layer's dimensions."""

    wide: bool = False

    def configuration(self, recipe: Recipe, steps: int | None = None) -> Any:
        """peft's configuration for a run of ``steps`` optimiser steps; what it refuses becomes a FinbenchError."""
        raise NotImplementedError

    def made(self, kind: Any, recipe: Recipe, values: dict[str, Any]) -> Any:
        """An instance of peft's configuration class ``kind`` for the recipe's target modules."""
        _check_options(self.name, kind, recipe.options)
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
        kept += experts(recipe, layers)
        _check_patterns(recipe, kept)
        if not self.wide and "rank" not in self.unused:
            full_rank(recipe.rank, kept, recipe.options.get("rank_pattern"))
        return kept

    @environment.compilers_kept()
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
        return self.wrap(model, self.configuration(recipe, start.steps if start else None), recipe)

    @environment.compilers_kept()
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
        if not any(layer.ends_in(str(name)) for layer in found):
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


def _check_options(method: str, kind: Any, stated: Mapping[str, Any]) -> None:
    """Refuse, all at once, the values of ``stated`` that are no values of peft's configuration class ``kind``.

    Names that the class does not have are the method's own, and its own affair.
    """
    hints = typing.get_type_hints(kind)
    defaults = {part.name: part.default for part in dataclasses.fields(kind)}
    faults = []
    for key, value in stated.items():
        if key not in defaults:
            continue
        expected = _words(hints[key]) if not _fits(value, hints[key]) else _range(key, value, defaults[key])
        if expected:
            faults.append(f"{method}: {key} is {expected}, got {value!r}.")
    if faults:
        raise FinbenchError("\n".join(faults), f"Leave it out, or state another. Options: finbench methods {method}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML has a type, taken strictly: true is no number, 3.0 no whole one."""
    origin, parts = typing.get_origin(hint), _parts(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is list or hint is list:
        return isinstance(value, list) and all(_fits(item, part) for item in value for part in parts)
    if dataclasses.is_dataclass(hint):
        inner = typing.get_type_hints(hint)
        return isinstance(value, dict) and all(key in inner and _fits(part, inner[key]) for key, part in value.items())
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, typing.get_origin(hint) or hint)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The arguments of a type; without dict where a class says what is in it."""
    parts = typing.get_args(hint)
    return tuple(part for part in parts if part is not dict) if any(map(dataclasses.is_dataclass, parts)) else parts


def _words(hint: Any) -> str:
    """A type in words: what is expected."""
    origin, parts = typing.get_origin(hint), _parts(hint)
    if origin in (typing.Union, types.UnionType):
        # sorted, the plain ones first: typing keeps the first order in which a process wrote a union of these parts
        said = {_words(part) for part in parts if part is not type(None)}
        return " or ".join(sorted(said, key=lambda words: (" of which each " in words, words)))
    if origin is typing.Literal:
        return " or ".join(map(str, parts))
    if origin is list or hint is list:
        return f"a list of which each is {_words(parts[0])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping of {', '.join(part.name for part in dataclasses.fields(hint))}"
    return _WORDS.get(typing.get_origin(hint) or hint, "another thing")


def _range(key: str, value: Any, default: Any) -> str:
    """What a number should have been, where it is none that could work; empty where it could.

    Whole numbers count something, from 1 on, or from the default where that is less; seeds start at 0. Others are
    above 0, or from 0 on where that is the default.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if key == "layers_to_transform":  # numbers of layers, from 0: held against those of the base
        return ""
    if "seed" in key or key.endswith("_key"):
        return "" if 0 <= value < 2**32 else "a whole number from 0 on, and below 2^32"
    if isinstance(default, int) and not isinstance(default, bool):
        least = 0 if key in _OR_ANOTHER else min(1, default)
        return "" if value >= least else f"a whole number from {least} on"
    zero = default == 0
    bounds = f"{'from 0 on' if zero else 'above 0'}{' and below 1' if key in _SHARES else ''}"
    above = value >= 0 if zero else value > 0
    below = value < 1 if key in _SHARES else math.isfinite(value)
    return "" if above and below else f"a number {bounds}"


def _check_patterns(recipe: Recipe, reached: list[Layer]) -> None:
    """Hold the mappings of modules to values (``rank_pattern`` and its like) to what holds for the value of all.

    Their names are regular expressions for the end of a name, and each must match a layer that gets an adapter.
    """
    for key, stated in recipe.options.items():
        if not key.endswith("_pattern") or not isinstance(stated, dict):
            continue
        for name, value in stated.items():
            kinds = (int, float) if key in _SCALES else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                what = "number above 0" if key in _SCALES else "whole number from 1 on"
                glued = value is None and ":" in name  # YAML reads {q_proj:4} as a name alone
                hint = f"{'A space after the colon: ' if glued else ''}--set '{key}={{{name.partition(':')[0]}: 4}}'"
                raise FinbenchError(f"{key}: {name} is {value!r}; a {what} is expected.", hint)
            try:
                matched = any(pattern_fits(name, layer) for layer in reached)
            except re.error as fault:
                raise FinbenchError(
                    f"{key}: {name!r} is not a regular expression: {fault}.",
                    f"Write the ends of layer names: --set '{key}={{q_proj: 4}}'",
                ) from fault
            if not matched:
                raise FinbenchError(
                    f"{key}: {name!r} matches none of the layers that get an adapter.{near(name, reached)}",
                    f"They end in: {', '.join(endings(reached))}",
                )
