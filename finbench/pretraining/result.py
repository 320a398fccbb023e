"""``pretrain.json``: what a pretraining made and measured, its model beside the dense baselines."""

from __future__ import annotations

from pydantic import Field

from finbench.core.records import BaseModelId, Document, Provenance
from finbench.core.strict import Record
from finbench.models.structured import Factored, Structure
from finbench.pretraining.spec import ALL, PretrainRecipe


class Text(Record):
    """One source of text, as it was used."""

    name: str
    kind: str
    identity: str = Field(description="digest of all that decides its documents")
    revision: str | None = Field(description="commit on the Hub")
    weight: float = Field(description="share of the tokens that were trained on")
    epochs: float = Field(description="how often it was seen")
    documents: int = Field(description="to train on")
    tokens: int = Field(description="to train on, with those that frame documents")
    bytes: int = Field(description="of UTF-8, to train on")
    bytes_per_token: float
    held_out_documents: int
    held_out_bytes: int
    scored_tokens: int = Field(description="held-out tokens that bits per byte are of")
    scored_bytes: int
    dropped: dict[str, int] = Field(description="documents left out: empty, exact copies, not Unicode")


class Share(Record):
    """One part of a model."""

    name: str
    parameters: int
    bytes: int = Field(description="in memory, float32")


class Cutting(Record):
    """What the structure took the place of."""

    rank: int | None = Field(description="null: layers have different ranks")
    layers: list[Factored]
    kept: list[str] = Field(description="layers that it would not have made smaller")

    @property
    def errors(self) -> list[float]:
        """|W - W'| over |W| of each layer that was truncated."""
        return [layer.error for layer in self.layers if layer.error is not None]


class Trained(Record):
    """One model: the recipe's, or a baseline."""

    name: str
    what: str
    structure: Structure
    cutting: Cutting | None
    parameters: int
    dense_parameters: int = Field(description="of the same model without its structure")
    trainable_parameters: int
    parts: list[Share]
    flops_forward: float = Field(description="operations a token, forward")
    flops_training: float = Field(description="operations a token, forward and back")
    steps: int
    tokens: int
    seconds: float = Field(description="of training, without scoring")
    step_seconds: float = Field(description="median; of the steps with the structure, where a dense warm-up came first")
    tokens_per_second: float = Field(description="by the median step")
    peak_memory_bytes: int
    optimizer: str = "adamw"
    optimizer_state_bytes: int | None = Field(
        default=None, description="of the tensors that the optimiser held after the last step; null: not measured"
    )
    bytes: int = Field(description="of the weight files")
    stored: dict[str, int] = Field(default={}, description="bits -> bytes of the weight files of its quantised copies")
    stored_bits: dict[str, dict[str, float]] = Field(
        default={}, description="bits -> source -> held-out bits per byte of its quantised copies"
    )
    folder: str = Field(description="below the run's folder")
    dense_folder: str | None = Field(default=None, description="the same function as ordinary dense weights")
    loss_curve: list[tuple[int, float]]
    base_bits: dict[str, float] = Field(default={}, description="bits per byte of the dense weights it started from")
    bits_curve: list[tuple[int, dict[str, float]]] = Field(description="(step, source -> held-out bits per byte)")
    nats_per_token: dict[str, float] = Field(description="after training, by source")
    scores: dict[str, float] = Field(default={}, description="task -> main metric")

    @property
    def compression(self) -> float:
        """Parameters of the dense model over those of this one, everything counted."""
        return self.dense_parameters / self.parameters

    @property
    def bits(self) -> float:
        """Bits per byte after training, of all held-out text."""
        return overall(self.bits_curve[-1][1])

    @property
    def first_bits(self) -> float:
        """The same before the first step."""
        return overall(self.bits_curve[0][1])

    @property
    def final_loss(self) -> float:
        """Mean over the last tenth of the curve."""
        last = self.loss_curve[-max(1, len(self.loss_curve) // 10) :]
        return sum(loss for _, loss in last) / len(last)


def overall(bits: dict[str, float]) -> float:
    """Of all text; of the one source, where there is no other."""
    return bits[ALL] if ALL in bits else next(iter(bits.values()))


class Pretrained(Document):
    """``pretrain.json`` in the folder of a run."""

    recipe: PretrainRecipe
    base: BaseModelId | None
    tokenizer: str = Field(description="digest of all that decides the tokens of a text")
    vocabulary: int
    sources: list[Text]
    dtype: str = Field(description="that matrices are multiplied in; weights are float32 while they train")
    processes: int
    models: list[Trained] = Field(min_length=1, description="the recipe's first, then its baselines")
    provenance: Provenance
