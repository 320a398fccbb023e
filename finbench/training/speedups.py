"""What a recipe may ask for to be faster or smaller and not everything can: optimisers, torch.compile, Liger's kernels.

Each is looked at before any weight is loaded: what this machine cannot do is refused with what to install or leave out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe

# A recipe's word -> transformers' name, bytes of a trained number's two moments on the GPU.
OPTIMIZERS = {
    "adamw": ("adamw_torch", 8.0),
    "adamw_8bit": ("adamw_bnb_8bit", 2.0),
    "paged_adamw_8bit": ("paged_adamw_8bit", 2.0),
    "paged_adamw_32bit": ("paged_adamw", 8.0),
}


def check(recipe: Recipe) -> None:
    """Refuse what this machine, or these together, cannot do."""
    import torch

    gpu = torch.cuda.is_available()
    if recipe.optimizer.startswith("paged_") and not gpu:
        raise FinbenchError(
            f"optimizer: {recipe.optimizer} moves its state from a GPU to this machine's memory, and no GPU is here.",
            f"--set optimizer={'adamw_8bit' if '8bit' in recipe.optimizer else 'adamw'}",
        )
    if recipe.compile:
        _compiles(recipe, gpu)
    if recipe.kernels == "liger":
        if not gpu:
            raise FinbenchError("Liger's kernels run on a GPU, and no GPU is here.", "--set kernels=torch")
        if importlib.util.find_spec("liger_kernel") is None:
            raise FinbenchError("Liger's kernels are not installed.", 'pip install "finbench[liger]"')


def _compiles(recipe: Recipe, gpu: bool) -> None:
    if recipe.sharding != "none":
        raise FinbenchError(
            "compile and sharding have not been made to work together.", "--set compile=false, or sharding=none"
        )
    if gpu and importlib.util.find_spec("triton") is None:
        raise FinbenchError("torch.compile needs Triton on a GPU.", "pip install triton")
    names = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not gpu and not any(name and shutil.which(name) for name in names):
        raise FinbenchError(
            "torch.compile needs a C++ compiler on a processor.", "apt install g++; or --set compile=false"
        )


def decoder_layers(model: Any) -> list[Any]:
    """The layers that a causal language model of transformers is a pile of; ``model`` may have peft around it."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    kinds = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in kinds]


@contextlib.contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Every decoder layer runs compiled inside, for any number of tokens; one program serves all of them.

    Attention over packed rows stays as it is: it depends on how rows lie.
    """
    import torch
    from transformers import AttentionInterface

    from finbench.training import packing

    layers = decoder_layers(model)
    whole = torch.compiler.disable(packing.attend)  # type: ignore[no-untyped-call]
    AttentionInterface.register(packing.ATTENTION, whole)
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
        AttentionInterface.register(packing.ATTENTION, packing.attend)


def liger(model: Any) -> None:
    """Put Liger's norms, rotations and MLPs into ``model``. Its losses are not: ours is on answers only."""
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
