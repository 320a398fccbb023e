"""Options of peft's: each has the type that peft's configuration class states, and a value that means something.

Those classes are plain dataclasses. They take the text "no" for true, and most numbers are looked at when layers are
made, in the middle of a run, or never.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods.base import Layer, near, pattern_fits

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
# below 1; every other number that may be a fraction has no upper bound
_SHARES = (
    *("beta1", "beta2", "asa_importance_beta", "asa_uncertainty_beta", "module_dropout", "lora_dropout"),
    *("sparsity", "sparse_rate", "svd_threshold"),
)
_OR_ANOTHER = ("oft_block_size", "boft_block_size")  # 0 where another option says the size of blocks
_SCALES = ("alpha_pattern", "lambda_pattern")  # the other patterns hold whole numbers


def check(method: str, kind: Any, stated: Mapping[str, Any]) -> None:
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


def check_patterns(recipe: Recipe, reached: list[Layer]) -> None:
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
                raise FinbenchError(f"{key}: {name} is {value!r}; a {what} is expected.", f"--set {key}={{{name}: 4}}")
            try:
                matched = any(pattern_fits(name, layer) for layer in reached)
            except re.error as fault:
                raise FinbenchError(
                    f"{key}: {name!r} is not a regular expression: {fault}.",
                    f"Write the ends of layer names: --set {key}={{q_proj: 4}}",
                ) from fault
            if not matched:
                raise FinbenchError(
                    f"{key}: {name!r} matches none of the layers that get an adapter.{near(name, reached)}",
                    f"They end in: {', '.join(sorted({layer.name.rpartition('.')[2] for layer in reached}))}",
                )
