"""An adapter added into the weights of its base, in place and for a time: the base comes back bit for bit.

An unmerged adapter runs three small matrix products and two sums beside each product of the base, and takes about as
long as the base again. Merged, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Rounding merged weights may move a probe's logits by this share of what the adapter moves them.
FAITHFUL = 0.01


def _mergeable(model: Any, name: str) -> bool:
    """Whether ``name`` only changes weights of the base that are stored as numbers, so that they can be added up."""
    config, layers = model.peft_config[name], _layers(model, name)
    beside = ("alora_invocation_tokens", "modules_to_save", "trainable_token_indices")
    if config.is_prompt_learning or any(getattr(config, option, None) for option in beside):
        return False
    return bool(layers) and all(
        callable(getattr(layer, "merge", None))
        and all(weight.is_floating_point() for weight in layer.get_base_layer().parameters(recurse=False))
        for layer in layers
    )


def _layers(model: Any, name: str) -> list[Any]:
    """Layers in which adapter ``name`` has weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # two seconds, which a base alone need not wait for

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return [layer for layer in layers if any(name in getattr(layer, kind, {}) for kind in layer.adapter_layer_names)]


class Merger:
    """Merges one adapter at a time into a PeftModel, and keeps a copy of each weight it changes."""

    def __init__(self) -> None:
        self.kept: list[tuple[Any, Any]] = []  # (parameter, its values before)
        self.layers: list[Any] = []

    def merge(self, model: Any, name: str, probe: Callable[[], Any]) -> bool:
        """Merge adapter ``name``, active in ``model``, where that is exact enough; whether it was.

        ``probe`` gives logits of a fixed prompt. The merged weights must give what the adapter gives beside them, so
        only float32 is merged: rounding to bfloat16 moves a weight by up to 1/512 of itself, of the order of what an
        adapter adds to it.
        """
        self.restore()
        if model.dtype != torch.float32 or not _mergeable(model, name):
            return False
        beside = probe()
        model.base_model.disable_adapter_layers()
        effect = (beside - probe()).norm()
        model.base_model.enable_adapter_layers()
        self.layers = _layers(model, name)
        try:
            for layer in self.layers:
                self._add(layer, name)
        except (NotImplementedError, ValueError, RuntimeError):  # a method that peft cannot merge
            self.restore()
            return False
        if (probe() - beside).norm() <= FAITHFUL * effect:
            return True
        self.restore()
        return False

    @torch.no_grad()
    def _add(self, layer: Any, name: str) -> None:
        base = layer.get_base_layer()
        self.kept += [(parameter, parameter.data.clone()) for parameter in base.parameters(recurse=False)]
        layer.merge(adapter_names=[name])
        if layer.get_base_layer() is not base:  # exchanged, not added to: there is nothing to be gained
            layer.unmerge()
            raise NotImplementedError

    def restore(self) -> None:
        """Put the weights of the base back, bit for bit."""
        with torch.no_grad():
            for parameter, values in reversed(self.kept):  # one of two layers was kept twice: first as it was
                parameter.data.copy_(values)
        for layer in self.layers:
            layer.merged_adapters.clear()
        self.kept, self.layers = [], []
