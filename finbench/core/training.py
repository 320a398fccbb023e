"""How a rate was found, what a training measured, what held-out rows said of it: parts of an adapter's record."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finbench.core.strict import Record

Loop = Literal["padded", "packed", "shared"]


class Trial(Record):
    """One learning rate of a search."""

    rung: int = Field(description="0 is the first and shortest one")
    lr: float
    rows: int = Field(description="rows it was trained on")
    steps: int
    loss: float | None = Field(description="mean negative log-likelihood of a validation token; null: diverged")


class Search(Record):
    """How a learning rate was found: ``finbench tune``."""

    budget: int = Field(description="cost in whole trainings")
    validation_rows: int = Field(description="carved from train; the test split was not touched")
    data: list[str] = Field(description="digests of the rows that were trained on in the last rung")
    trials: list[Trial]


class Validation(Record):
    """How held-out rows did during training, and which step was kept by it. No test row is among them."""

    source: str = Field(description="a share of train, the tasks' own validation split, or a file's name")
    rows: int = Field(ge=1, description="rows that every validation looked at")
    digest: str = Field(description="SHA-256 over the tokens of these rows, in order")
    left_out: int = Field(default=0, ge=0, description="held-out rows that hold a test or train text: not looked at")
    measure: str = Field(description="what decided: loss, or the main metric of the tasks")
    lower_is_better: bool
    every: int = Field(ge=1, description="optimiser steps between validations")
    curve: list[tuple[int, float]] = Field(description="(step, measure); step 0: before training")
    loss: list[tuple[int, float]] = Field(description="(step, mean negative log-likelihood of an answer's token)")
    select: Literal["best", "last"]
    selected: int = Field(ge=0, description="the step whose weights these are")
    patience: int | None = Field(default=None, description="validations without a better one that end training")
    stopped: bool = Field(description="whether they did")
    seconds: float = Field(ge=0, description="time that validation took, part of the training's")

    @property
    def value(self) -> float | None:
        """The measure of the step that was kept; None where it was no number."""
        return dict(self.curve).get(self.selected)

    @property
    def as_text(self) -> str:
        """Which step was kept and why, for people."""
        kept = "the best one" if self.select == "best" else "the last one"
        shown = "" if self.value is None else f", {self.measure} {self.value:.4f}"
        ended = f"; ended early after {self.patience} validations without a better one" if self.stopped else ""
        return f"step {self.selected}, {kept} on {self.rows:,} rows of {self.source}{shown}{ended}"


class Preferred(Record):
    """What learning from pairs of answers came to: means over the last tenth of the steps, before each step."""

    accuracy: float = Field(ge=0, le=1, description="share of the pairs whose chosen answer gained more than the other")
    margin: float = Field(description="beta times what the chosen answer gained more than the other, in nats")


class Training(Record):
    """What the training run measured."""

    rows: int
    steps: int
    epochs: float
    tokens: int = Field(description="non-padding tokens seen, prompt and answer")
    padding: float = Field(description="share of padding among all positions computed")
    loop: Loop = Field(description="how rows became forward passes")
    attention: str = Field(default="", description="torch's kernel for attention")
    gradient_checkpointing: bool = Field(default=False, description="decoder layers were run again backwards")
    computed: int = Field(description="positions computed: more than tokens by padding, fewer by shared starts")
    processes: int = Field(ge=1, description="that shared the rows of every step")
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int = Field(description="of the process that held most")
    trainable_parameters: int
    total_parameters: int
    final_loss: float = Field(description="mean over the last tenth of the steps")
    loss_curve: list[tuple[int, float]] = Field(description="(step, loss), at most 200 points")
    validation: Validation | None = Field(default=None, description="held-out rows; null: there were none")
    preferred: Preferred | None = Field(default=None, description="of pairs of answers; null: rows were learnt")
