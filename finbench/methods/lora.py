"""The LoRA family on peft: LoRA, rsLoRA, DoRA, and QLoRA (LoRA on an NF4 base)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finbench.errors import FinbenchError, near_misses
from finbench.methods.base import Method
from finbench.records import Recipe


@dataclass(frozen=True)
class LoraMethod(Method):
    """A method that is peft's LoraConfig with some arguments set."""

    config: dict[str, Any] = field(default_factory=dict)

    def apply(self, model: Any, recipe: Recipe) -> Any:
        """Freeze the base and put peft's layers on the target modules. Adapter tensors are float32."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=recipe.target_modules,
            **self.config,
        )
        try:
            return get_peft_model(model, config)
        except ValueError as fault:
            if "arget modules" not in str(fault):
                raise
            linear = sorted(
                {
                    name.rpartition(".")[2]
                    for name, module in model.named_modules()
                    if hasattr(module, "weight") and module.weight is not None and module.weight.ndim == 2
                }
            )
            wanted = recipe.target_modules if isinstance(recipe.target_modules, str) else recipe.target_modules[0]
            close = near_misses(wanted, linear)
            raise FinbenchError(
                f"The target modules {recipe.target_modules!r} match nothing in {recipe.base}."
                + (f" Did you mean {' or '.join(close)}?" if close else ""),
                f"Modules of this base: {', '.join(linear)}, or 'all-linear'.",
            ) from fault


LORA = LoraMethod(
    name="lora",
    summary="Low-rank update beside frozen weights",
    equation="y = Wx + (alpha/r) BAx",
    paper="Hu et al. 2021, arXiv:2106.09685",
    becomes="plain LoRA",
)
RSLORA = LoraMethod(
    name="rslora",
    summary="LoRA scaled by alpha/sqrt(r), so that high ranks keep learning",
    equation="y = Wx + (alpha/sqrt(r)) BAx",
    paper="Kalajdzievski 2023, arXiv:2312.03732",
    becomes="plain LoRA",
    config={"use_rslora": True},
)
DORA = LoraMethod(
    name="dora",
    summary="LoRA on the direction of each weight row, with a trained magnitude",
    equation="W' = m * (W + sBA) / ||W + sBA||, a norm per output row",
    paper="Liu et al. 2024, arXiv:2402.09353",
    becomes="merged weights",
    config={"use_dora": True},
)
QLORA = LoraMethod(
    name="qlora",
    summary="LoRA on a base in NF4 with double quantisation",
    equation="y = dequant(NF4(W))x + (alpha/r) BAx",
    paper="Dettmers et al. 2023, arXiv:2305.14314",
    becomes="plain LoRA",
    bits=(4,),
    defaults={"bits": 4},
)
