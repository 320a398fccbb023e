"""What a recipe may ask for to be faster or smaller: optimisers, torch.compile, Liger's kernels, a base in shards.

Each is looked at before any weight is loaded: what this machine cannot do is refused with what to install or leave out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.core.records import Recipe
from finbench.models import bases

# A recipe's word -> transformers' name, bytes of a trained number's two moments on the GPU.
OPTIMIZERS = {
    "adamw": ("adamw_torch", 8.0),
    "adamw_8bit": ("adamw_bnb_8bit", 2.0),
    "paged_adamw_8bit": ("paged_adamw_8bit", 2.0),
    "paged_adamw_32bit": ("paged_adamw", 8.0),
}
# Methods that neither start from the base's weights nor change them.
SHARDED = ("lora", "rslora", "lora+", "lora-fa", "qlora")


def check(recipe: Recipe) -> None:
    """Refuse what this machine, or these together, cannot do."""
    import torch

    environment.check_gpu()
    gpu = torch.cuda.is_available()
    bases.check_dtype(recipe.dtype, "--set dtype=float16, or dtype=auto")
    if recipe.optimizer.startswith("paged_") and not gpu:
        raise FinbenchError(
            f"optimizer: {recipe.optimizer} moves its state from a GPU to this machine's memory, and no GPU is here.",
            f"--set optimizer={'adamw_8bit' if '8bit' in recipe.optimizer else 'adamw'}",
        )
    if recipe.compile and recipe.sharding != "none":
        raise FinbenchError(
            "compile and sharding have not been made to work together.", "--set compile=false, or sharding=none"
        )
    if recipe.compile and gpu and importlib.util.find_spec("triton") is None:
        raise FinbenchError("torch.compile needs Triton on a GPU.", "pip install triton")
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if recipe.compile and not gpu and not any(name and shutil.which(name) for name in compilers):
        raise FinbenchError(
            "torch.compile needs a C++ compiler on a processor.", "apt install g++; or --set compile=false"
        )
    if recipe.kernels == "liger":
        if not gpu:
            raise FinbenchError("Liger's kernels run on a GPU, and no GPU is here.", "--set kernels=torch")
        if importlib.util.find_spec("liger_kernel") is None:
            raise FinbenchError("Liger's kernels are not installed.", install("liger"))


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


@contextlib.contextmanager
def checkpointed(model: Any) -> Iterator[None]:
    """Every decoder layer keeps its inputs alone inside, and is run again in the backward pass: activation
    checkpointing, as in arXiv:1604.06174.

    The second run draws the random numbers of the first, so gradients are the same bits wherever a forward pass
    repeats its own. ``forward`` is replaced and not the call, so that hooks, as those of shards, stay outside; of a
    compiled layer the compiled call.
    """
    from torch.utils.checkpoint import checkpoint

    again = functools.partial(functools.partial, checkpoint, use_reentrant=False)
    layers = decoder_layers(model)
    for layer in layers:
        if layer._compiled_call_impl is None:
            layer.forward = again(layer.forward)
        else:
            layer._compiled_call_impl = again(layer._compiled_call_impl)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)  # ``compiled`` takes its own back


@contextlib.contextmanager
def liger(model: Any) -> Iterator[None]:
    """``model`` has Liger's norms, rotations and MLPs inside. Its losses are not: ours is on answers only.

    Liger puts them into the module of transformers that the model is from too. There they are taken back, or the next
    model of this process would compute by them.
    """
    from transformers.integrations.liger import apply_liger_kernel

    homes = [module for name, module in list(sys.modules.items()) if name.startswith("transformers.models.")]
    before = [(module, dict(vars(module))) for module in homes]
    try:
        apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
        yield
    finally:
        for module, stated in before:
            for name, value in stated.items():
                if vars(module).get(name) is not value:
                    setattr(module, name, value)


def check_base(recipe: Recipe, model: Any) -> None:
    """Refuse what a recipe asks for and its base, ``model``, perhaps on the meta device, does not allow."""
    if recipe.gradient_checkpointing is True and not decoder_layers(model):
        raise FinbenchError(
            f"The layers of {recipe.base} are not known: none can be run again for gradient_checkpointing.",
            "--set gradient_checkpointing=false",
        )
    if recipe.kernels == "liger":
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

        kind = model.config.model_type
        if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
            known = ", ".join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))
            raise FinbenchError(
                f"Liger has no kernels for {recipe.base}, a model of type {kind}; it has for: {known}.",
                "--set kernels=torch",
            )


def check_sharding(recipe: Recipe, processes: int) -> None:
    """Refuse a sharded run that cannot be."""
    if recipe.sharding == "none":
        return
    if processes < 2:
        raise FinbenchError(
            "sharding: fsdp spreads the base over processes, and there is only one.",
            "Add --gpus 2, or on the processor --processes 2; or --set sharding=none",
        )
    if recipe.method not in SHARDED:
        raise FinbenchError(
            f"Method {recipe.method} needs the whole base in each process.",
            f"Sharded: --method {', '.join(SHARDED)}; or --set sharding=none",
        )
    if recipe.bits == 8:
        raise FinbenchError(
            "Weights in 8 bits cannot be sharded: their scales lie beside them.", "--bits 4 or --bits 16"
        )


def shard(model: Any, whole: bool) -> None:
    """Spread the frozen weights of ``model`` over the processes of a training (torch's FSDP2), in place; all call it.

    Every decoder layer is gathered where it is used and let go again, so that a process holds its share of the base
    and one layer. Adapters are small: they, their gradients and the optimiser stay what they are in one process, and
    so do checkpoints, which any number of processes can go on from.

    Not ``whole``: only the first process holds them, in the others they are on the meta device; it hands them out.
    """
    import torch
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    device = environment.device()
    if not whole:
        found = [(module, name) for module in model.modules() for name, b in module._buffers.items() if b is not None]
        # loading leaves some in float32 (frequencies of rotations), where the outline on the meta device does not
        kinds = [[module._buffers[name].dtype for module, name in found]]
        torch.distributed.broadcast_object_list(kinds, 0)
        for (module, name), dtype in zip(found, kinds[0], strict=True):
            module._buffers[name] = _broadcast(module._buffers[name].to(dtype), device)
    _hand_out(model, device, lambda tensor: tensor.requires_grad and not whole)
    trained = {tensor for tensor in model.parameters() if tensor.requires_grad}
    base = model.get_base_model()
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    tied = ends[0].weight is ends[1].weight
    for unit in [*decoder_layers(model), *([] if tied else ends), model]:
        # one after the other, so that a process never holds more of the base than its share and this unit
        _hand_out(unit, device, lambda tensor: not (whole or tensor in trained or isinstance(tensor, DTensor)))
        fully_shard(unit, ignored_params=trained)


def _hand_out(unit: Any, device: str, chosen: Callable[[Any], bool]) -> None:
    """The weights of the first process that are ``chosen``, to the device of each. Tied ones stay tied."""
    import torch

    made: dict[Any, Any] = {}
    for module in unit.modules():
        for name, tensor in list(module._parameters.items()):
            if tensor is not None and chosen(tensor):
                if tensor not in made:
                    made[tensor] = torch.nn.Parameter(_broadcast(tensor.data, device), tensor.requires_grad)
                module._parameters[name] = made[tensor]


def _broadcast(tensor: Any, device: str) -> Any:
    import torch

    held = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)
    torch.distributed.broadcast(held, 0)
    return held
