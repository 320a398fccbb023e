"""EVA: A starts as the directions in which the layer's inputs vary most, with the ranks spread accordingly."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods import convert
from finbench.methods.base import Layer, Start, last_positions, number, without_head
from finbench.methods.lora import LoraMethod

_PATTERNS = ("rank_pattern", "alpha_pattern")
_MOST_PASSES = 128  # two batches of eight rows had not settled after several minutes


@dataclass(frozen=True)
class Eva(LoraMethod):
    """LoRA whose A comes from an incremental SVD of activations on training batches."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        rho = number(self, recipe, "rho", 1)
        number(self, recipe, "tau", 0.01, 1)
        reached = self.reach(recipe, layers)
        without_head(self, recipe, reached, "the start looks at no inputs of it")
        narrow = min(reached, key=lambda layer: layer.inputs)
        if round(rho * recipe.rank) > narrow.inputs:
            raise FinbenchError(
                f"rho {rho:g} times rank {recipe.rank} is above the {narrow.inputs} inputs of {narrow.name}.",
                f"Use --rank {int(narrow.inputs / rho)} or less, or --set rho=1",
            )

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """peft's EVA on the first training batches; the names of all targets are kept, for some may lose all rank."""
        import torch
        from peft import EvaConfig, initialize_lora_eva_weights

        assert start is not None
        rho, tau = number(self, recipe, "rho", 1), number(self, recipe, "tau", 0.01, 1)
        most = round(rho * recipe.rank)
        # a batch with fewer tokens than components cannot be used, and if none could, peft would wait for ever
        usable = [
            {key: tensor for key, tensor in batch.items() if key != "labels"}
            for batch in start.batches
            if int(batch["attention_mask"].sum()) >= most
        ]
        if not usable:
            raise FinbenchError(
                f"eva: no training batch has the {most} tokens that rank {recipe.rank} needs.",
                "Use a larger batch_size, or a smaller --rank.",
            )
        chosen = EvaConfig(rho=rho, tau=tau, use_label_mask=False)
        config = self.configuration(recipe, init_lora_weights="eva", eva_config=chosen)
        wrapped = self.wrap(model, config, recipe)
        kept = {name: (m.in_features, m.out_features) for name, m in convert.lora_layers(wrapped)}
        wrapped.finbench_targets = (kept, wrapped.peft_config["default"].target_modules)
        passes = itertools.count(1)

        def forward(model: Any, inputs: dict[str, Any]) -> Any:
            """What peft calls for each batch, round and round until all components have settled, or for ever."""
            if next(passes) > _MOST_PASSES:
                raise FinbenchError(
                    f"eva: the components of the inputs have not settled after {_MOST_PASSES} batches.",
                    "Use more rows, a smaller --rank, or a looser --set tau=0.9",
                )
            return model(**inputs, logits_to_keep=last_positions(inputs, 1), use_cache=False)

        with torch.no_grad():
            initialize_lora_eva_weights(
                wrapped, usable, forward_fn=forward, show_progress_bar=False, gather_distributed_inputs=False
            )
        for name, tensor in wrapped.named_parameters():
            tensor.requires_grad_(".lora_" in name)  # layers whose rank was changed are new
        return wrapped

    def save(self, model: Any, recipe: Recipe, folder: Path) -> None:
        """One rank for all layers: zeros are added where EVA gave less, or none at all."""
        import torch

        kept, matched = model.finbench_targets
        learnt = convert.lora_factors(model)
        scale = next(iter(learnt.values())).scale
        for name, (inputs, outputs) in kept.items():
            own = name.removeprefix(convert.PREFIX)
            if own not in learnt:
                learnt[own] = convert.Factors(torch.zeros(0, inputs), torch.zeros(outputs, 0), scale)
        convert.write_lora(learnt, recipe, matched, folder)


EVA = Eva(
    name="eva",
    summary="LoRA that starts from the inputs' components",
    equation="y = Wx + sBAx, A0 = top right singular vectors of the inputs, B0 = 0",
    paper="Paischer et al. 2024, arXiv:2410.07170",
    becomes="converted LoRA",
    trains="r(h+o) in the mean",
    starts=True,
    declines={key: f"eva finds the rank of each layer by itself: it takes no {key}." for key in _PATTERNS},
    options={"rho": 2.0, "tau": 0.99},
    about={
        "rho": "most rank of a layer over the mean; 1: the same for all",
        "tau": "cosine between two rounds at which a component has settled",
    },
)
