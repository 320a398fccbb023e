"""Numbers of a score with their intervals, what the answers behind them took, and what other prompts gave."""

from __future__ import annotations

from typing import Literal, Self

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


Axis = Literal["paraphrase", "order", "options", "words", "position", "instruction"]  # in which prompts differ


class Prompt(Record):
    """One prompt of a task, and the score that it gave."""

    name: str = Field(description="`default` is the task's own")
    version: int = Field(ge=1, description="of the prompts that are shipped; of `default` the task's")
    about: list[Axis] = Field(
        description="in what it differs from the task's own: words, order of labels, order of options, label words, "
        "position of the text, instruction"
    )
    digest: str = Field(description="SHA-256 of its text, order and label words")
    main: Measure = Field(description="the main metric")
    parse_rate: float = Field(ge=0, le=1, description="share of the answers that parse strictly")
    truncated: int = Field(default=0, ge=0, description="prompts that did not fit and were cut")


class Prompts(Record):
    """Several prompts of a task on the same documents. The score's own numbers are those of the first, `default`."""

    each: list[Prompt] = Field(min_length=2, description="in the order of the file; `default` first")
    n: int = Field(ge=1, description="documents, the same for all")
    spread: float = Field(ge=0, description="main metric of the best prompt minus that of the worst")
    worst: str = Field(description="name of the worst prompt; of equal ones the first")
    best: str = Field(description="name of the best prompt; of equal ones the first")
    mean: Measure = Field(description="mean over the prompts; its interval is over other documents and other prompts")
    share: dict[str, float] = Field(
        description="of the variance of a document's value: `document`, `prompt`, `rest`; sum 1, or all 0"
    )
    label_order_bias: Measure | None = Field(
        default=None, description="by how much more often the label is given that is listed first; null: none listed"
    )
    answer_position_bias: Measure | None = Field(
        default=None, description="by how much more often the option is given that is shown first; null: none shown"
    )
