"""The record of an adapter that was made of others: ``combined.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finbench.core.records import BaseModelId, Bits, Contamination, Document, Provenance
from finbench.core.strict import Record

How = Literal["cat", "linear", "ties", "dare", "dare_ties"]


class CombinedPart(Record):
    """One of the adapters that it was made of."""

    name: str
    identity: str = Field(description="SHA-256 of its weights and configuration")
    source: str | None = Field(default=None, description="hub:org/name@commit")
    method: str
    rank: int = Field(description="the largest of its modules")
    weight: float = Field(description="by which its update was multiplied")


class Combined(Document):
    """``combined.json`` beside an adapter that ``finbench merge`` made of several."""

    how: How
    parts: list[CombinedPart] = Field(min_length=2)
    density: float | None = Field(default=None, description="share of each update's numbers that were kept")
    seed: int | None = Field(default=None, description="of DARE's draws")
    rank: int
    lost: float = Field(ge=0, description="largest relative error (Frobenius) of a module's update, from its rank")
    base: BaseModelId | None = Field(default=None, description="of the parts; null: none of them has a record")
    bits: Bits = Field(description="of the base that the parts were trained on; 16 where none says")
    chat: bool
    tasks: list[str] = Field(description="that the parts were trained on")
    contamination: Contamination | None = Field(
        default=None, description="sums over the parts, so at most; null: of one of them it is not known"
    )
    identity: str = Field(description="SHA-256 of the weights and configuration that were made")
    provenance: Provenance
