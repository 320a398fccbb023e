"""What a scorecard says of a model that answered elsewhere."""

from __future__ import annotations

from pydantic import Field

from finbench.core.strict import Record


class Hosted(Record):
    """What endpoints said beside their answers: all that can be known of a model that is not here.

    Its weights and its revision cannot be: the same name may have meant another model on another day.
    """

    requests: int = Field(ge=1, description="answers that were asked for")
    first: str = Field(description="day of the first answer, UTC")
    last: str = Field(description="day of the last answer, UTC")
    models: dict[str, int] = Field(description="names of models that answered -> answers; without those that name none")
    fingerprints: dict[str, int] = Field(description="system_fingerprint -> answers, the most frequent ones")
    left_out: list[str] = Field(default=[], description="options that the endpoint does not take; stops apply here")
    withheld: int = Field(default=0, ge=0, description="answers that a filter withheld; each counts as a wrong one")
    prompt_tokens: int = Field(ge=0, description="as the endpoint counts them")
    answer_tokens: int = Field(ge=0, description="as the endpoint counts them, with reasoning")
    reasoning_tokens: int = Field(ge=0, description="of the answer's tokens")
    uncounted: int = Field(default=0, ge=0, description="answers whose tokens the endpoint did not count")
    cost: float | None = Field(default=None, ge=0, description="USD, without discounts; null: no price is known")
    price_in: float | None = Field(default=None, ge=0, description="USD for a million tokens of prompts")
    price_out: float | None = Field(default=None, ge=0, description="USD for a million tokens of answers")
    prices: str | None = Field(default=None, description="who says so: LiteLLM's table, or the user")
