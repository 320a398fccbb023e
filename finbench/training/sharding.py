"""A frozen base in shards over the processes of a training (torch's FSDP2); its adapters are whole in each of them.

Every decoder layer is gathered where it is used and let go again, so that a process holds its share of the base and one
layer. Adapters are small: they, their gradients and the optimiser stay what they are in one process, and so do
checkpoints, which any number of processes can go on from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.training import speedups

METHODS = ("lora", "rslora", "lora+", "lora-fa", "qlora")  # which neither start from the base's weights nor change them


def check_sharding(recipe: Recipe, processes: int) -> None:
    """Refuse a sharded run that cannot be."""
    if recipe.sharding == "none":
        return
    if processes < 2:
        raise FinbenchError(
            "sharding: fsdp spreads the base over processes, and there is only one.",
            "Add --gpus 2, or on the processor --processes 2; or --set sharding=none",
        )
    if recipe.method not in METHODS:
        raise FinbenchError(
            f"Method {recipe.method} needs the whole base in each process.",
            f"Sharded: --method {', '.join(METHODS)}; or --set sharding=none",
        )
    if recipe.bits == 8:
        raise FinbenchError(
            "Weights in 8 bits cannot be sharded: their scales lie beside them.", "--bits 4 or --bits 16"
        )


def shard(model: Any, whole: bool) -> None:
    """Spread the frozen weights of ``model``, in place; every process must call it.

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
    for unit in [*speedups.decoder_layers(model), *([] if tied else ends), model]:
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
