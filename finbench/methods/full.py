"""Full fine-tuning: every weight trains. The baseline that low-rank methods are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finbench.core.records import Recipe
from finbench.methods.base import Method, Start


@dataclass(frozen=True)
class FullMethod(Method):
    """Trains the whole model in float32."""

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """Cast to float32 (bfloat16 weights would round most updates away) and unfreeze everything."""
        model.float()
        model.requires_grad_(True)
        return model


FULL = FullMethod(
    name="full",
    summary="Every weight; the baseline, for small bases",
    equation="y = W'x, every weight trained",
    paper="-",
    becomes="model",
    trains="h o",
    bits=(16,),
    refused="quantised weights have no gradients of their own",
    unused=("rank", "alpha", "dropout", "target_modules"),
    # every weight moves, so the step that suits a low-rank update is far too large
    defaults={"lr": 2.0e-5},
)
