"""What structure the linear layers of a model get: the part of a recipe, and what is stated of a stored model."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from finbench.core.strict import Record

Kind = Literal["dense", "lowrank", "cola", "sltrain"]
Init = Literal["spectral", "kaiming", "svd", "activation"]
# SLTrain's own (arXiv:2406.02214, section 5.1)
_SPARSITY, _ALPHA = 0.03, 32.0


def checked_rank(value: Any) -> Any:
    """A rank as it is stated: a whole number from 1 on, or a share of the width below 1. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a rank is a whole number from 1 on, or a share of the width between 0 and 1")
    if isinstance(value, float) and not 0 < value < 1:
        raise ValueError(f"a share of the width lies between 0 and 1, not at {value:g}; a rank is a whole number")
    if isinstance(value, int) and value < 1:
        raise ValueError(f"rank {value} leaves nothing: from 1 on")
    return value


class Structure(Record):
    """Which layers become what. Embeddings, head and norms stay as they are.

    ``dense``: nothing is replaced. ``lowrank``: y = B(Ax) + b. ``cola``: y = B SiLU(Ax) + b (arXiv:2502.10940).
    ``sltrain``: y = (alpha/r BA + S)x + b, S with a random fixed support (arXiv:2406.02214).

    Exactly one of ``rank`` and ``compression`` says how much: a whole number is the rank of every layer; a number below
    1 is a share of the model's width d; ``compression`` is parameters of the dense model over those of this one,
    everything counted, and the rank is the largest that reaches it. A layer that such a rank would not make smaller
    stays dense, where a whole number is obeyed.
    """

    kind: Kind = "lowrank"
    rank: int | float | None = Field(default=None, description="a whole number, or a share of the width below 1")
    compression: float | None = Field(default=None, gt=1, description="dense parameters over these, everything counted")
    layers: list[str] = Field(default=[], description="endings of names, or regular expressions; none: every block's")
    init: Init = Field(default="spectral", description="svd and activation start from the weights that are there")
    sparsity: float | None = Field(default=None, gt=0, lt=1, description="of sltrain: share of entries in S, .03")
    alpha: float | None = Field(default=None, gt=0, description="of sltrain: BA is scaled by alpha/r, 32")
    frobenius_decay: float = Field(default=0.0, ge=0, description="added to the loss: this times the sum of |BA|^2")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of first weights and of the support")

    _rank = field_validator("rank", mode="before")(checked_rank)

    @model_validator(mode="before")
    @classmethod
    def _of_sltrain(cls, value: Any) -> Any:
        """SLTrain's own numbers, which mean nothing elsewhere, get their defaults."""
        if isinstance(value, dict) and value.get("kind") == "sltrain":
            stated = {key: number for key, number in value.items() if number is not None}
            return {"sparsity": _SPARSITY, "alpha": _ALPHA, **stated}
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "dense":
            stated = sorted(self.model_fields_set - {"kind", "seed"})
            if any(getattr(self, key) != type(self).model_fields[key].default for key in stated):
                raise ValueError(f"dense replaces nothing: leave {', '.join(stated)} out")
            return self
        if self.rank is None and self.compression is None:
            raise ValueError("say how much: rank (a number, or a share of the width such as 0.25), or compression")
        if self.rank is not None and self.compression is not None:
            raise ValueError("rank and compression both say how much: give one of them")
        if self.kind != "sltrain" and (self.sparsity is not None or self.alpha is not None):
            raise ValueError(f"sparsity and alpha are sltrain's, and mean nothing to {self.kind}")
        if self.kind == "cola" and self.init in ("svd", "activation"):
            raise ValueError(
                f"cola cannot start by {self.init}: with a non-linearity between the factors it is no matrix, "
                "so there are no weights that it would equal; start by spectral or kaiming"
            )
        if self.kind == "cola" and self.frobenius_decay:
            raise ValueError("frobenius_decay is of the product BA, which cola does not compute; use weight decay")
        return self

    @property
    def starts_from_weights(self) -> bool:
        """Whether the first factors approximate the weights that are there."""
        return self.kind != "dense" and self.init in ("svd", "activation")


class Factored(Record):
    """One layer that was replaced: its sizes, its rank, and what the truncation cost.

    ``error`` is |W - W'| over |W| in the Frobenius norm; ``output_error`` likewise of the outputs on the calibration
    batches. Both are None for layers that do not start from weights.
    """

    name: str
    form: Literal["Linear", "Conv1D"] = Field(description="what it was; a Conv1D stores its weight transposed")
    inputs: int = Field(ge=1)
    outputs: int = Field(ge=1)
    bias: bool
    rank: int = Field(ge=1)
    entries: int = Field(default=0, ge=0, description="values of the sparse part")
    scale: float = Field(default=1.0, gt=0, description="of the product BA")
    error: float | None = Field(default=None, ge=0)
    output_error: float | None = Field(default=None, ge=0)

    @property
    def dense(self) -> int:
        """Parameters of the dense layer."""
        return self.inputs * self.outputs + self.bias * self.outputs

    @property
    def parameters(self) -> int:
        """r(h + o), the sparse values and the bias."""
        return self.rank * (self.inputs + self.outputs) + self.entries + self.bias * self.outputs


def break_even(inputs: int, outputs: int, sparsity: float = 0.0) -> float:
    """The rank at which r(h + o), with the sparse values, is as large as the dense matrix."""
    return (inputs * outputs - entries(inputs, outputs, sparsity)) / (inputs + outputs)


def entries(inputs: int, outputs: int, sparsity: float | None) -> int:
    """Values of a sparse part of the given share, at least one where there is a share."""
    return max(1, round(sparsity * inputs * outputs)) if sparsity else 0
