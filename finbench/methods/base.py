"""What every method declares, and the places at which a training run asks it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finbench.core.errors import FinbenchError, near_misses
from finbench.core.records import Bits, Recipe
from finbench.methods import quantise

Becomes = Literal["plain LoRA", "converted LoRA", "merged weights", "finbench adapter", "model"]
SERVED: dict[Becomes, str] = {
    "plain LoRA": "unmerged by any runtime that serves LoRA (peft, vLLM, ...), many beside one base; or merged",
    "converted LoRA": "as a plain LoRA of one rank, to which it is converted, exactly, when it is saved",
    "merged weights": "an adapter that peft runs unmerged; other runtimes take it after `finbench merge`",
    "finbench adapter": "by `finbench eval`; peft and vLLM refuse it; other runtimes take it after `finbench merge`",
    "model": "as a model of its own",
}


@dataclass(frozen=True)
class Layer:
    """A weight matrix of a base, known from its configuration before any weight is loaded.

    ``tied``: it is the output head and the input embedding at once. ``Experts``: a parameter that holds one weight for
    each of a layer's experts, which only ``target_parameters`` names.
    """

    name: str
    kind: Literal["Linear", "Conv1D", "Experts"]
    outputs: int
    inputs: int
    tied: bool = False

    @property
    def ending(self) -> str:
        """The last part of its name, such as ``q_proj``."""
        return self.name.rpartition(".")[2]

    @property
    def head(self) -> bool:
        """Whether it is the output head, which is never quantised."""
        return self.ending in ("lm_head", "embed_out")

    def ends_in(self, name: str) -> bool:
        """Whether ``name`` is its name, or whole parts at the end of it."""
        return f".{self.name}".endswith(f".{name}")


@dataclass(frozen=True)
class Start:
    """What a method may use to begin, beside the loaded model.

    ``steps``: optimiser steps of the run. ``batches``: collated training batches in the order of the first epoch.
    ``load``: the base at the recipe's bits, or, given a model in full precision, that model's weights at these bits.
    """

    steps: int
    batches: Iterable[dict[str, Any]]
    load: Callable[[Any | None], Any]


@dataclass(frozen=True)
class Cut:
    """What was cut off a trained update to save it as a LoRA of ``rank``, where it has rank ``of``.

    ``weights``: norm of what was cut, as a share of the norm of the update, over all layers; ``worst``: of one layer.
    """

    rank: int
    of: int
    weights: float
    worst: float


@dataclass(frozen=True)
class Method:
    """A way to train a model.

    ``defaults`` override ``_defaults.yaml`` and are overridden by a recipe; ``options`` are the method's own settings,
    overridden by the recipe's ``options``, and ``about`` says what they mean. ``unused`` names recipe keys that mean
    nothing to it. ``refused`` says why other bits are refused. ``trains`` counts the trained numbers of a layer of h
    inputs and o outputs. ``becomes`` says what a trained one is, and with that how it is served (``SERVED``).
    """

    name: str
    summary: str
    equation: str
    paper: str
    becomes: Becomes
    trains: str = ""
    bits: tuple[Bits, ...] = (16, 8, 4)
    refused: str = ""
    conv1d: bool = True
    defaults: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """What the method declares, for programs."""
        shown = ("name", "summary", "equation", "paper", "trains", "bits", "becomes", "conv1d")
        return {key: getattr(self, key) for key in (*shown, "defaults", "options", "about", "unused")}

    def stated(self, recipe: Recipe, key: str) -> Any:
        """One of the method's own options as the recipe has it, else its default."""
        return recipe.options.get(key, self.options[key])

    # ------------------------------------------------------------ before any weight is loaded

    def check(self, recipe: Recipe) -> None:
        """Refuse what can be seen from the recipe alone."""
        if recipe.bits not in self.bits:
            allowed = " or ".join(str(bits) for bits in self.bits)
            reason = f": {self.refused}" if self.refused else ""
            raise FinbenchError(
                f"Method {self.name} runs on {allowed} bits, not on {recipe.bits}{reason}.",
                f"Add --bits {self.bits[0]}, or choose another method: finbench methods",
            )
        for key in recipe.options:
            if key not in self.option_names():
                close = near_misses(key, self.meant())
                raise FinbenchError(
                    f"Method {self.name} has no option {key!r}." + (f" Did you mean {close[0]}?" if close else ""),
                    f"Its options: {', '.join(sorted(self.offered())) or 'none'}",
                )

    def option_names(self) -> set[str]:
        """Keys that ``options`` of a recipe may have."""
        return set(self.options)

    def offered(self) -> set[str]:
        """The options that are not refused."""
        return self.option_names()

    def meant(self) -> set[str]:
        """Options that a mistyped one may have been: those offered, and those whose refusal names a method instead."""
        return self.offered()

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        """Refuse what can be seen from the base's configuration: targets, shapes, options, a missing package."""
        self.check(recipe)  # one that was made in Python has not been

    def rehearse(self, recipe: Recipe, skeleton: Any) -> None:
        """Refuse what shows only when layers are made: on ``skeleton``, without weights, which may be changed."""

    def ends_as(self, recipe: Recipe) -> Becomes:
        """What a trained one is, with the options of this recipe."""
        return self.becomes

    def check_steps(self, recipe: Recipe, steps: int) -> None:
        """Refuse a run of too few optimiser steps."""

    def on_codes(self, recipe: Recipe) -> bool:
        """Whether it trains beside layers whose weights only kernels of their own read (AWQ, GPTQ)."""
        return False

    def loads(self, recipe: Recipe) -> Bits:
        """Bits at which ``apply`` wants the base; it may quantise it by itself."""
        return recipe.bits

    # ------------------------------------------------------------ training

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """Make ``model`` (a causal LM of transformers, all on one device) ready to train; return it.

        Afterwards exactly the tensors that the method trains have ``requires_grad``. A method that needs data, the
        number of steps or the base at other bits takes them from ``start``.
        """
        raise NotImplementedError

    def groups(self, model: Any, recipe: Recipe) -> list[dict[str, Any]] | None:
        """Parameter groups for AdamW (``params``, ``lr``, ``weight_decay``); None: one learning rate for all."""
        return None

    def tune_optimizer(self, optimizer: Any, model: Any, recipe: Recipe) -> None:
        """Hook into the optimiser (such as a pre-step hook), once, when it has been made."""

    def tokenwise(self, recipe: Recipe) -> bool:
        """Whether its layers treat each token by itself and draw no noise, so that tokens of several rows can be one.

        Dropout of the recipe is looked at elsewhere.
        """
        return True

    def callbacks(self, model: Any, recipe: Recipe) -> list[Any]:
        """TrainerCallbacks of transformers, called before ours at each event."""
        return []

    def penalty(self, model: Any) -> Any | None:
        """A scalar tensor to add to the loss of each forward pass; None: nothing."""
        return None

    def state(self, model: Any) -> dict[str, Any]:
        """Tensors that a checkpoint must hold beside weights and optimiser, by name."""
        return {}

    def restore(self, model: Any, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` gave."""

    def scheduler(self, optimizer: Any, recipe: Recipe, steps: int) -> Any | None:
        """A learning-rate scheduler of torch for ``steps`` optimiser steps; None: the recipe's schedule."""
        return None

    # ------------------------------------------------------------ after training

    def plain(self, recipe: Recipe) -> bool:
        """Whether peft alone reads the adapter that is saved."""
        return True

    def quantisation(self, recipe: Recipe, dtype: str) -> dict[str, str | bool | int] | None:
        """How the base was stored in training, for the record."""
        return quantise.describe(recipe.bits, dtype)

    def makes(self, recipe: Recipe) -> Literal["peft", "model"]:
        """What the folder will hold: a peft adapter or a whole model."""
        return "model" if self.becomes == "model" else "peft"

    def save(self, model: Any, recipe: Recipe, folder: Path) -> Cut | None:
        """Write peft's files, or transformers' files of a whole model, into the empty ``folder``.

        Returns what was lost by it where something can be.
        """
        if self.becomes == "model":
            model.save_pretrained(folder)
        else:
            model.save_pretrained(folder, save_embedding_layers=False)
        return None


def targets(recipe: Recipe, layers: list[Layer]) -> list[Layer]:
    """The layers that a recipe's ``target_modules`` match, as peft matches them; FinbenchError if there are none.

    ``all-linear`` is every layer but the output head; another text is a regular expression for the whole name;
    a list holds endings of names.
    """
    wanted, layers = recipe.target_modules, [layer for layer in layers if layer.kind != "Experts"]
    missing: list[str] = []
    if wanted == "all-linear":
        found = [layer for layer in layers if not layer.head]
    elif isinstance(wanted, str):
        try:
            found = [layer for layer in layers if re.fullmatch(wanted, layer.name)]
        except re.error as fault:
            raise FinbenchError(
                f"target_modules {wanted!r} is not a regular expression: {fault}.",
                "Write a list of names: --set target_modules=[q_proj,v_proj]",
            ) from fault
        ending = wanted.rpartition(".")[2]
        if not found and any(layer.name.endswith(ending) for layer in layers) and re.fullmatch(r"[\w.]+", wanted):
            raise FinbenchError(
                f"target_modules {wanted!r} is taken as a regular expression for whole names and matches nothing.",
                f"Write a list: --set target_modules=[{ending}]",
            )
    else:
        found = [layer for layer in layers if any(layer.ends_in(name) for name in wanted)]
        missing = [name for name in wanted if not any(layer.ends_in(name) for layer in found)]
    if missing or not found:
        absent = wanted if isinstance(wanted, str) else missing[0]
        raise FinbenchError(
            f"The target modules {wanted!r} match nothing in {recipe.base}: {absent!r}.{near(absent, layers)}",
            f"Modules of this base: {', '.join(endings(layers))}, or 'all-linear'.",
        )
    return found


def experts_of(model: Any) -> list[Layer]:
    """The parameters of ``model`` that hold one weight for each of its experts."""
    from torch.nn.modules.conv import _ConvNd

    return [
        Layer(f"{name}.{own}", "Experts", tensor.shape[1], tensor.shape[2])
        for name, module in model.named_modules()
        for own, tensor in module.named_parameters(recurse=False)
        if tensor.ndim == 3 and not isinstance(module, _ConvNd)
    ]


def experts(recipe: Recipe, layers: list[Layer]) -> list[Layer]:
    """The parameters of experts that a recipe's ``target_parameters`` name, as peft matches them."""
    found = [layer for layer in layers if layer.kind == "Experts"]
    wanted: Any = recipe.options.get("target_parameters") or []
    for name in wanted:
        if not any(layer.ends_in(name) for layer in found):
            known = ", ".join(sorted({".".join(layer.name.split(".")[-2:]) for layer in found}))
            raise FinbenchError(
                f"target_parameters: {name!r} is no stack of experts' weights in {recipe.base}.{near(name, found)}",
                f"They are: {known}" if known else "It has none: leave target_parameters out.",
            )
    return [layer for layer in found if any(layer.ends_in(name) for name in wanted)]


def endings(layers: list[Layer]) -> list[str]:
    """The last parts of the layers' names, each once, sorted."""
    return sorted({layer.ending for layer in layers})


def near(wanted: str, layers: list[Layer]) -> str:
    """Which endings of layers' names were perhaps meant, in words that follow a sentence; empty if none is near."""
    close = near_misses(wanted, endings(layers))
    return f" Did you mean {' or '.join(close)}?" if close else ""


def last_positions(inputs: Mapping[str, Any], count: int) -> Any:
    """The last ``count`` positions of padded inputs, as ``logits_to_keep`` takes them, of shape (count,).

    For a number the model slices its hidden states, and for each row of a slice torch copies the weights of the head.
    """
    import torch

    ids = inputs["input_ids"]
    return torch.arange(ids.shape[1] - count, ids.shape[1], device=ids.device)


def number(method: Method, recipe: Recipe, key: str, least: float, most: float = math.inf) -> float:
    """An option of the method's own that is a number from ``least`` to ``most``; FinbenchError for anything else."""
    stated = method.stated(recipe, key)
    known = isinstance(stated, int | float) and not isinstance(stated, bool)
    if not known or not least <= stated <= most or stated == math.inf:
        raise FinbenchError(
            f"{key} must be a number from {least:g} {'on' if most == math.inf else f'to {most:g}'}, got {stated!r}.",
            f"--set {key}={method.options[key]}",
        )
    return float(stated)


def full_rank(rank: int, reached: list[Layer], patterns: Any = None) -> None:
    """Refuse a rank above the smaller dimension of a target: the surplus directions could never be used.

    ``patterns``: a recipe's ``rank_pattern``, by which some have another rank; as in peft, the first match counts.
    """
    for layer in sorted(reached, key=lambda layer: min(layer.outputs, layer.inputs)):
        least = min(layer.outputs, layer.inputs)
        own = next((own for name, own in (patterns or {}).items() if pattern_fits(name, layer)), rank)
        if own > least:
            raise FinbenchError(
                f"Rank {own} is above the smaller dimension of {layer.name} ({layer.outputs} x {layer.inputs}).",
                f"Use --rank {least} or less, or other target modules: --set target_modules=[...]"
                if own == rank
                else f"Use {least} or less in rank_pattern.",
            )


def pattern_fits(name: str, layer: Layer) -> bool:
    """Whether a name in a mapping such as ``rank_pattern``, a regular expression for the end of one, is a layer's."""
    return re.match(rf"(.*\.)?({name})$", layer.name) is not None


def without_head(method: Method, recipe: Recipe, reached: list[Layer], why: str) -> None:
    """Refuse the output head as a target."""
    found = next((layer for layer in reached if layer.head), None)
    if found is not None:
        raise FinbenchError(
            f"Method {method.name} cannot take {found.name} of {recipe.base}: {why}.", "Leave it out of target_modules."
        )
