"""Parts of records: which rows were learnt, how answers were generated, how close two forms of a model are."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field, field_validator

from finbench.core.settings import Profile
from finbench.core.strict import Record, no_truth


class DataId(Record):
    """Which rows exactly."""

    set: str = Field(description="data set")
    split: str = Field(description="train, validation or test")
    rows: int = Field(description="rows that were used")
    digest: str = Field(description="SHA-256 over the canonical JSON of the rows, in order")
    origin: str | None = Field(default=None, description="shipped, files (the authors'), or hub:path")
    revision: str | None = Field(default=None, description="commit on the Hub")
    pinned: bool | None = Field(default=None, description="whether that commit was named before; null off the Hub")
    choices: dict[str, str] = Field(default={}, description="what was chosen of the set, such as agreement")
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="rows read over those of the authors' test file, else of all files; null: all, or not known",
    )


class LearntData(DataId):
    """Which rows an adapter learnt from. Of rows of the user's own, ``set`` is the file's name, ``origin`` is own."""

    sha256: str | None = Field(
        default=None, description="of own rows: of the file (and its sheet's name), or of a folder's names and hashes"
    )
    dropped: dict[str, int] = Field(default={}, description="of own rows: why rows were left out -> how many")


class Contamination(Record):
    """Which test texts were in training rows; of the sets that were on the machine."""

    looked_for: dict[str, int] = Field(description="set -> different test texts that were looked for")
    found: dict[str, int] = Field(description="set -> how many of them stand in training rows")
    editions: dict[str, str] = Field(default={}, description="set -> SHA-256 of the test rows that were looked for")


class OwnData(Record):
    """Rows of the user's own, beside the tasks."""

    source: str = Field(min_length=1, description="a file, a folder of files, or hub:org/name[@rev]")
    weight: float = Field(default=1.0, gt=0, le=100, description="share of its rows seen per epoch")
    map: dict[str, str] = Field(default={}, description="finbench's name of a column -> the file's")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="of the file; of a folder, of its files' names and hashes"
    )
    delimiter: str = Field(default=" ", description="between a prompt and its answer, where neither has white space")

    _no_truth = field_validator("*", mode="before")(no_truth)


class StartingAdapter(Record):
    """An adapter whose weights a training goes on from."""

    source: str = Field(min_length=1, description="its folder, or hub:org/name[@rev]; in a record, its name")
    identity: str | None = Field(default=None, description="SHA-256 of its weights and configuration")


def name_of_source(source: str) -> str:
    """What own rows are called in records: the file's or folder's name without its place, or the Hub's name."""
    return source if source.startswith("hub:") else PurePath(source).name or source


class Generation(Record):
    """How prompts were put and answers generated, where that is not the plain way."""

    profile: Profile = Field(description="direct, chat, think or cot: docs/evaluation.md")
    max_tokens: int | None = Field(default=None, description="budget of an answer; null: the profile's own")
    temperature: float | None = Field(default=None, description="of sampling; null: the most probable token")
    top_p: float | None = Field(default=None, description="share of the probability that was sampled from")
    samples: int = Field(default=1, ge=1, description="answers to every prompt")
    think_end: str | None = Field(default=None, description="what ended the reasoning, as the user stated it")
    system_prompt: str | None = Field(default=None, description="text before every prompt")
    confidence: bool = Field(default=False, description="asked for how sure it is, in words: docs/risk.md")
    fewshot_as_multiturn: bool | None = Field(
        default=None, description="worked examples as turns; null: in a chat template"
    )


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
