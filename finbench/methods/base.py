"""What every method declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from finbench.errors import FinbenchError
from finbench.records import Bits, Recipe


@dataclass(frozen=True)
class Method:
    """A way to train a model.

    ``defaults`` override ``_defaults.yaml`` and are overridden by a recipe. ``becomes`` says what a trained one
    is: ``plain LoRA`` can be served unmerged anywhere, ``merged weights`` cannot, ``model`` is a whole model.
    """

    name: str
    summary: str
    equation: str
    paper: str
    becomes: Literal["plain LoRA", "merged weights", "model"]
    bits: tuple[Bits, ...] = (16, 8, 4)
    defaults: dict[str, Any] = field(default_factory=dict)

    def check(self, recipe: Recipe) -> None:
        """Refuse, before any weight is loaded, a recipe that this method cannot run."""
        if recipe.bits not in self.bits:
            allowed = " or ".join(str(bits) for bits in self.bits)
            raise FinbenchError(
                f"Method {self.name} runs on {allowed} bits, not on {recipe.bits}.",
                f"Add --bits {self.bits[0]}, or choose another method: finbench methods",
            )

    def apply(self, model: Any, recipe: Recipe) -> Any:
        """Make ``model`` (a causal LM of transformers, all on one device) ready to train in place; return it.

        Afterwards exactly the tensors that the method trains have ``requires_grad``.
        """
        raise NotImplementedError
