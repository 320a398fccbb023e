"""How close two forms of one adapter are, as records hold it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finbench.core.strict import Record


class Closeness(Record):
    """How close two forms of one adapter are on probe prompts."""

    probes: int = Field(description="prompts, rendered from the invented examples of the recipe's or the mini tasks")
    positions: int = Field(description="tokens at which the two are compared")
    largest_difference: float = Field(description="max |difference of log-probability| over positions and vocabulary")
    mean_divergence: float = Field(description="mean Kullback-Leibler divergence in nats, of the second from the first")
    agreement: float = Field(description="share of positions with the same most probable token")
    answers: float = Field(description="share of prompts after which the same token is the most probable one")


class Truncation(Closeness):
    """A trained update saved as a LoRA of less rank, or of as much, and how close that is to the model in training."""

    rank: int = Field(description="of what was saved")
    of: int = Field(description="rank that the update can have at most")
    weights: float = Field(description="norm of what was cut off, as a share of the norm of the update, all layers")
    worst: float = Field(description="the same of the layer that lost most")


class Merge(Closeness):
    """How an adapter became a whole model, and how close the two are."""

    adapter: str = Field(description="identity of the adapter")
    onto: Literal["dequantised", "bf16"] = Field(
        description="dequantised: onto what the quantised base computes with, the function that was trained; "
        "bf16: onto the weights as published, which differ from a quantised base by its error"
    )
    dtype: str = Field(description="of the weights that were written; the sum is made in float32")
