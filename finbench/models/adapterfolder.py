"""An adapter on this machine, and what its records say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finbench.core.combined import Combined
from finbench.core.records import Adapter, BaseModelId, Bits, Contamination


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter on this machine. ``record`` is None for one that finbench did not train (plain peft).

    ``combined``: how it was made of others, where ``finbench merge`` did that.
    ``identity`` is a SHA-256 of all that decides its answers on a given base: weights and configuration.
    """

    folder: Path
    record: Adapter | None
    kind: Literal["peft", "model"]
    identity: str
    config: dict[str, Any]
    source: str | None = None  # hub:org/name@commit
    combined: Combined | None = None

    @property
    def name(self) -> str:
        """A name for people."""
        return self.record.recipe.name if self.record else self.folder.resolve().name

    @property
    def base(self) -> BaseModelId | None:
        """The base it was trained on, where a record says so."""
        return self.record.base if self.record else self.combined.base if self.combined else None

    @property
    def bits(self) -> Bits:
        """Of the base it was trained on: as recorded, else 16. A whole model has 16 bits whatever it was trained on."""
        if self.kind == "model":
            return 16
        return self.record.recipe.bits if self.record else self.combined.bits if self.combined else 16

    @property
    def chat(self) -> bool:
        """Whether it was trained on prompts in the base's chat template."""
        return self.record.recipe.chat if self.record else bool(self.combined and self.combined.chat)

    @property
    def tasks(self) -> list[str]:
        """The tasks it was trained on, where a record says so."""
        return list(self.record.recipe.tasks) if self.record else self.combined.tasks if self.combined else []

    @property
    def method(self) -> str:
        """finbench's name of the method, how it was combined, or peft's name of the kind."""
        if self.record:
            return self.record.recipe.method
        return self.combined.how if self.combined else str(self.config.get("peft_type") or "LORA").lower()

    @property
    def contamination(self) -> Contamination | None:
        """Test texts in its training rows; None where nobody looked."""
        made = self.record or self.combined
        return made.contamination if made else None
