"""What a packed pass keeps for its backward part and launches, counted on torch's meta device: nothing is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from finbench.core.records import Recipe
from finbench.training import batches, speedups


@dataclass(frozen=True)
class Counted:
    """Bytes that autograd keeps of a pass; the same with activation checkpointing; operations of its forward part.

    With it, that is what decoder layers are given, and all of the one layer that is being run again. ``trained``:
    numbers that train.
    """

    kept: int
    checkpointed: int
    operations: int
    trained: int


class _Kept:
    """What autograd keeps of a pass of ``model``, apart from weights: within each decoder layer, and outside of them.

    What layers are given counts as outside, whether it is kept or not: with checkpointing it is.
    """

    def __init__(self, model: Any) -> None:
        self.weights = {tensor.untyped_storage()._cdata for tensor in model.parameters()}
        self.outside: dict[int, Any] = {}  # storages by number
        self.inside: list[dict[int, Any]] = []
        self.now = [self.outside]
        for layer in speedups.decoder_layers(model):
            layer.register_forward_pre_hook(self.enter, with_kwargs=True)
            layer.register_forward_hook(self.leave)

    def note(self, tensor: Any) -> Any:
        """``tensor`` is kept."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.now[-1].setdefault(storage._cdata, storage)
        return tensor

    def enter(self, layer: Any, given: Any, named: Any) -> None:
        """A layer begins."""
        import torch
        from torch.utils._pytree import tree_leaves

        for tensor in tree_leaves((given, named)):
            if isinstance(tensor, torch.Tensor):
                self.outside.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage())
        self.inside.append({})
        self.now.append(self.inside[-1])

    def leave(self, *_: Any) -> None:
        """It ends."""
        self.now.pop()

    def bytes(self) -> tuple[int, int]:
        """(bytes of all, bytes with checkpointing: outside, and of the largest layer)."""
        sizes = [
            sum(int(storage.nbytes()) for number, storage in held.items() if number not in self.outside)
            for held in self.inside
        ]
        outside = sum(int(storage.nbytes()) for storage in self.outside.values())
        return outside + sum(sizes), outside + max(sizes, default=0)


def counted(
    model: Any, recipe: Recipe, rows: Sequence[batches.TrainingRow], on_cpu: bool = False, share: bool = True
) -> Counted:
    """What a packed pass over ``rows`` takes, on a card or a CPU, with ``share`` one in which starts are run once.

    The pass is run on the meta device, where ``model`` is too. Low-rank methods are counted as LoRA.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils._python_dispatch import TorchDispatchMode

    from finbench.training import loops, packing

    class Attention(torch.autograd.Function):
        """What a fused kernel keeps: its inputs and its output. On the meta device torch would keep every weight."""

        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out)
            return out

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += not func.is_view  # a view starts nothing on a card
            return func(*args, **(kwargs or {}))

    model.to(torch.bfloat16)
    model.config.get_text_config().pad_token_id = None  # else GPT-2 looks for it in token ids, which have no values
    if recipe.method == "full":
        wrapped = model.requires_grad_(True)
    else:
        named = {key: recipe.options[key] for key in ("target_parameters", "rank_pattern") if key in recipe.options}
        stated = LoraConfig(r=recipe.rank, target_modules=recipe.target_modules, task_type="CAUSAL_LM", **named)
        wrapped = get_peft_model(model, stated, autocast_adapter_dtype=False)
    held = _Kept(wrapped)
    made = packing.pack(rows, share, "meta")
    cut = loops.Passes("shared" if share else "packed", len(rows))
    with (
        torch.autograd.graph.saved_tensors_hooks(held.note, lambda tensor: tensor),
        cut.at_work(wrapped),
        Count() as count,  # type: ignore[no-untyped-call]
        # peft asks for no autocast on the device of an expert's weights, of which torch has none for this one
        mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()),
        packing.attending(made, lambda *states, **_: Attention.apply(*states), single=on_cpu),  # type: ignore[no-untyped-call]
    ):
        wrapped(input_ids=made.ids, position_ids=made.positions, logits_to_keep=made.picked[:1], use_cache=False)

    trained = sum(tensor.numel() for tensor in wrapped.parameters() if tensor.requires_grad)
    return Counted(*held.bytes(), count.operations, trained)
