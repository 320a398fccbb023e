"""Numbers of a score with their intervals, and what the answers behind them took: parts of a scorecard."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from finbench.core.strict import Record


class Measure(Record):
    """A number with its 95 % interval over documents; without one where the documents allow none."""

    value: float = Field(description="what lm-eval's own aggregation gives")
    low: float | None = Field(description="lower end of the 95 % interval; null: there is none")
    high: float | None = Field(description="upper end of the 95 % interval; null: there is none")
    method: str = Field(
        description="how the interval was made and from how many resamples, or `none` and why there is none"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends or none")
        return self

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def lacking(self) -> str:
        """Why there is no interval, in words; empty where there is one, or nobody says why."""
        return self.method.removeprefix("none, ") if self.low is None else ""


class Overlap(Record):
    """How much of a test the subject was trained on, as its adapter's own record states it."""

    texts: int = Field(ge=0, description="test texts that stood in training rows")
    of: int = Field(ge=1, description="different test texts that were looked for")


class Answers(Record):
    """What the answers to one task took, and what several samples of each give together."""

    thinking_tokens: int = Field(ge=0, description="tokens of reasoning, of all answers")
    answer_tokens: int = Field(ge=0, description="tokens of what follows the reasoning, of all answers")
    truncated: Measure = Field(description="share of the answers that were cut off by the budget; none of them parses")
    majority: Measure | None = Field(
        default=None, description="accuracy of the reading that most samples agree on; null: one sample, or no accuracy"
    )
    pass_at: dict[str, Measure] = Field(
        default={}, description="k -> probability that one of k samples is right, unbiased (Chen et al. 2021)"
    )
