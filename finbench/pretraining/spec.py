"""``finbench pretrain``: the recipe, strictly read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from finbench.core import catalog
from finbench.core.errors import FinbenchError, unknown
from finbench.core.records import DType
from finbench.core.strict import Record
from finbench.models.structured import Structure, checked_rank

ALL = "all"  # in results, every source together
Baseline = Literal["dense", "parameters", "flops"]

# Hidden size, layers, heads and, of Llama, inner size; vocabulary and context come from tokenizer and recipe.
_KEYS = {
    "gpt2": ("n_embd", "n_layer", "n_head"),
    "llama": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
}
# llama-60m to llama-1b: as in the GaLore paper (arXiv:2403.03507, table 5), on which low-rank methods are compared
_SIZES = {
    "gpt2-tiny": (128, 4, 4),
    "gpt2-small-cpu": (256, 6, 8),
    "gpt2-124m": (768, 12, 12),
    "gpt2-355m": (1024, 24, 16),
    "gpt2-774m": (1280, 36, 20),
    "gpt2-1.5b": (1600, 48, 25),
    "llama-tiny": (128, 4, 4, 344),
    "llama-small-cpu": (256, 6, 8, 688),
    "llama-60m": (512, 8, 8, 1376),
    "llama-130m": (768, 12, 12, 2048),
    "llama-350m": (1024, 24, 16, 2736),
    "llama-1b": (2048, 24, 32, 5461),
    "llama-2-7b": (4096, 32, 32, 11008),
    "llama-2-13b": (5120, 40, 40, 13824),
}
SHAPES: dict[str, dict[str, int | bool]] = {
    name: dict(zip(_KEYS[name.partition("-")[0]], sizes, strict=True)) for name, sizes in _SIZES.items()
}
for _small in ("llama-tiny", "llama-small-cpu"):
    SHAPES[_small]["tie_word_embeddings"] = True
# rank and scale of the authors' scripts for 60M to 350M parameters; the gap is the same in all
_AUTHORS: dict[str, tuple[int | float, float]] = {
    "galore": (0.25, 0.25),
    "fira": (0.25, 0.25),
    "apollo": (0.25, 1.0),
    "apollo-mini": (1, 128.0),
}
_GAP = 200
_SOURCES = ("text", "jsonl", "filings", "hub", "folder")


class StartSpec(Record):
    """From what the run starts: from nothing (``shape``), or from a dense checkpoint (``base``)."""

    shape: str | None = Field(default=None, description="named size: gpt2-124m, gpt2-1.5b, llama-2-7b, llama-tiny ...")
    architecture: Literal["gpt2", "llama"] | None = Field(default=None, description="with config, in place of shape")
    config: dict[str, JsonValue] = Field(default={}, description="keys of transformers' configuration, over the shape")
    tokenizer: str | None = Field(default=None, description="of this base: an alias, hub:org/name or a folder")
    vocabulary: int | None = Field(
        default=None, ge=260, le=2**20, description="or: byte-level BPE of so many entries, made from the training text"
    )
    base: str | None = Field(default=None, description="checkpoint to compress or to go on with")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.base:
            stated = [key for key in ("shape", "architecture", "tokenizer", "vocabulary") if getattr(self, key)]
            if stated or self.config:
                raise ValueError(f"base brings its own {stated[0] if stated else 'config'}: leave that out")
            return self
        if not self.shape and not (self.architecture and self.config):
            raise ValueError("name a shape (llama-tiny), or architecture and config, or a base")
        if self.shape and self.shape not in SHAPES:
            raise ValueError(unknown("shape", self.shape, SHAPES, "docs/pretrain.md").message)
        if self.shape and not self.shape.startswith(self.family):
            raise ValueError(f"{self.shape} is a {self.shape.partition('-')[0]}, not a {self.architecture}")
        if bool(self.tokenizer) == bool(self.vocabulary):
            raise ValueError("give either tokenizer (a base's) or vocabulary (to make one)")
        return self

    @property
    def family(self) -> str:
        """``gpt2`` or ``llama``; of a run from nothing."""
        return self.architecture or (self.shape or "").partition("-")[0]


class TextSource(Record):
    """Where documents come from: exactly one of ``text``, ``jsonl``, ``filings``, ``hub``, ``folder``."""

    name: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="default: from the place")
    text: str | None = Field(default=None, description="plain text: a file, a folder (its *.txt), or a pattern")
    jsonl: str | None = Field(default=None, description="JSON lines: a file or a pattern")
    filings: str | None = Field(default=None, description="XBRL filings: a file, folder or zip; each text block counts")
    hub: str | None = Field(default=None, description="data set on the Hub: hub:org/name[@rev]")
    folder: str | None = Field(default=None, description="data set saved by datasets.save_to_disk")
    field: str = Field(default="text", description="of jsonl, hub and folder: where the text is")
    config: str | None = Field(default=None, description="of hub: the configuration")
    split: str = Field(default="train", description="of hub and folder")
    per: Literal["file", "paragraph", "line"] | int = Field(
        default="file", description="what a document of plain text is; a number: paragraphs up to so many characters"
    )
    weight: float | None = Field(
        default=None, gt=0, description="share of the tokens, relative; of all sources or of none (then by size)"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(bool(getattr(self, key)) for key in _SOURCES) != 1:
            raise ValueError(f"name exactly one of {', '.join(_SOURCES)}")
        if isinstance(self.per, int) and (isinstance(self.per, bool) or self.per < 100):
            raise ValueError("per as a number is characters, from 100 on")
        return self

    @property
    def kind(self) -> str:
        """``text``, ``jsonl``, ``filings``, ``hub`` or ``folder``."""
        return next(key for key in _SOURCES if getattr(self, key))

    @property
    def place(self) -> str:
        """The path, pattern or name."""
        return str(getattr(self, self.kind))


class ReLoraSpec(Record):
    """Continued pretraining by ReLoRA (arXiv:2307.05695): a LoRA that is folded into the weights again and again."""

    rank: int = Field(default=128, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    every: int | float = Field(default=0.25, gt=0, description="steps of a cycle, or a share of the run below 1")
    prune: float = Field(default=0.99, gt=0, le=1, description="share of the optimiser's memory that a fold forgets")
    restart_warmup: float = Field(default=0.1, gt=0, le=1, description="share of a cycle in which the rate rises again")


class OptimizerSpec(Record):
    """AdamW, or one that keeps moments of less than the whole gradients of a dense model's layers.

    ``galore`` (arXiv:2403.03507), ``apollo``, ``apollo-mini`` (arXiv:2412.05270), ``fira`` (arXiv:2410.01623).
    """

    kind: Literal["adamw", "galore", "apollo", "apollo-mini", "fira"] = "adamw"
    rank: int | float | None = Field(default=None, description="of the moments: a number, or a share of the width")
    scale: float | None = Field(default=None, gt=0, description="of the reduced update")
    update_gap: int | None = Field(default=None, ge=1, description="steps after which directions are chosen anew")

    _rank = field_validator("rank", mode="before")(checked_rank)

    @model_validator(mode="before")
    @classmethod
    def _authors(cls, value: Any) -> Any:
        """The authors' numbers, where none are stated."""
        if isinstance(value, dict) and (own := _AUTHORS.get(str(value.get("kind")))):
            stated = {key: number for key, number in value.items() if number is not None}
            return {"rank": own[0], "scale": own[1], "update_gap": _GAP, **stated}
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.low_memory and (stated := self.model_dump(exclude_none=True, exclude={"kind"})):
            raise ValueError(
                f"{', '.join(stated)}: adamw keeps whole moments; name galore, apollo, apollo-mini or fira"
            )
        return self

    @property
    def low_memory(self) -> bool:
        """Whether moments are reduced."""
        return self.kind != "adamw"


class PretrainRecipe(Record):
    """How to pretrain one model, and what it is compared with."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=120)
    start: StartSpec
    structure: Structure = Field(default=Structure(kind="dense"))
    warmup_dense_steps: int = Field(default=0, ge=0, description="full-rank steps before the layers are factorised")
    relora: ReLoraSpec | None = None
    data: list[TextSource] = Field(min_length=1)
    held_out: float = Field(default=0.02, gt=0, lt=0.5, description="share of the documents, by salted hash")
    context: int = Field(default=512, ge=8, description="tokens a sequence")
    tokens: int | None = Field(default=None, ge=1, description="to train on; or steps")
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=32, ge=1, description="sequences an optimiser step, over all processes")
    micro_batch: int = Field(default=8, ge=1, description="sequences a forward pass")
    recompute: bool = Field(
        default=False, description="keep only the inputs of blocks, recompute the rest: less memory"
    )
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps")
    final: float = Field(default=0.1, ge=0, le=1, description="share of lr at which the schedule ends")
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="of the model; baselines have adamw")
    beta2: float = Field(default=0.95, gt=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0, description="0: no clipping")
    seed: int = Field(default=0, ge=0, lt=2**32)
    dtype: DType = "auto"
    eval_every: int | None = Field(default=None, ge=1, description="steps; default: a tenth of the run")
    eval_tokens: int = Field(default=200_000, ge=1, description="held-out tokens a source that are scored, at most")
    save_every: int = Field(default=200, ge=1)
    tasks: list[str] = Field(
        default=[], description="tasks on which every model is evaluated at the end: finbench tasks list"
    )
    store: list[Literal[8, 4]] = Field(default=[], description="also write the factors at 8 (int8), 4 (NF4) bits")
    baselines: list[Baseline] = Field(default=[], description="dense models on the same tokens, in the same order")

    @field_validator("data")
    @classmethod
    def _weights(cls, data: list[TextSource]) -> list[TextSource]:
        if len({source.weight is None for source in data}) > 1:
            raise ValueError("give every source a weight, or none")
        return data

    @field_validator("baselines")
    @classmethod
    def _once(cls, baselines: list[Baseline]) -> list[Baseline]:
        if len(set(baselines)) < len(baselines):
            raise ValueError("a baseline is named twice")
        return baselines

    @field_validator("structure", "optimizer", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _together(self) -> Self:
        dense = self.structure.kind == "dense"
        if (self.tokens is None) == (self.steps is None):
            raise ValueError("give either tokens or steps")
        if self.warmup_dense_steps >= self.total_steps:
            raise FinbenchError(
                f"warmup_dense_steps ({self.warmup_dense_steps}) leaves none of {self.total_steps} steps.",
                "Use fewer, or more tokens.",
            )
        if dense and self.warmup_dense_steps:
            raise ValueError("warmup_dense_steps is of a structure: set structure.kind")
        if self.relora and (not dense or not self.start.base):
            raise ValueError("relora goes on with a dense base: name start.base, and no structure")
        low = self.optimizer.kind if self.optimizer.low_memory else ""
        if low and (not dense or self.relora):
            what = "relora" if self.relora else self.structure.kind
            raise ValueError(
                f"optimizer {low} reduces the moments of whole matrices, and {what} trains factors, which are small "
                "already: leave structure and relora out, or use optimizer: adamw"
            )
        if low and (matched := [name for name in self.baselines if name != "dense"]):
            raise ValueError(f"baseline {matched[0]} is of a structure; beside {low} there is: dense, by adamw")
        if dense and not self.relora and not low and self.baselines:
            raise ValueError("baselines are what a structure or relora is compared with, and this is dense itself")
        if dense and self.store:
            raise ValueError("store quantises factors: set structure.kind")
        if self.start.base and (matched := [name for name in self.baselines if name != "dense"]):
            raise ValueError(f"baseline {matched[0]} is of a run from nothing; beside a base there is: dense")
        if self.from_weights and self.structure.kind == "cola":
            raise ValueError("cola computes no matrix, so it cannot take over the weights of a base or of a warm-up")
        if self.from_weights and "init" in self.structure.model_fields_set and not self.structure.starts_from_weights:
            raise ValueError(f"init {self.structure.init} would throw the weights away: use svd or activation")
        return self

    @property
    def from_weights(self) -> bool:
        """Whether the structure takes over weights that were trained: a base's, or those of the warm-up."""
        return self.structure.kind != "dense" and bool(self.start.base or self.warmup_dense_steps)

    @property
    def resolved(self) -> Structure:
        """The structure with this run's seed, and with the truncation of weights where there are some."""
        stated = self.structure.model_fields_set
        more: dict[str, Any] = {} if "seed" in stated else {"seed": self.seed}
        if self.from_weights and "init" not in stated:
            more["init"] = "svd"
        return self.structure.model_copy(update=more)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run."""
        return self.steps or max(1, -(-(self.tokens or 0) // (self.batch * self.context)))

    @property
    def names(self) -> list[str]:
        """A name for each source, all different."""
        found: list[str] = []
        for number, source in enumerate(self.data):
            stem = "".join(c if c.isalnum() else "-" for c in Path(source.place).stem.lower()).strip("-")
            name = source.name or stem or source.kind
            found.append(name if name not in [*found, ALL] else f"{name}-{number}")
        return found


def read_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None) -> PretrainRecipe:
    """The recipe in a YAML file, with ``overrides`` on top: ``{"structure.rank": 64}`` reaches into a part.

    Raises FinbenchError that names every unknown key with near misses, and every wrong value.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise FinbenchError(f"No such recipe file: {path}", "Begin with one of examples/pretrain-*.yaml")
    stated = catalog.read_yaml(path)
    for key, value in (overrides or {}).items():
        _put(stated, key, value)
    if {"tokens", "steps"} <= set(stated) and (named := {"tokens", "steps"} & set(overrides or {})):
        for key in {"tokens", "steps"} - named:  # --set steps=10 takes the place of the file's tokens
            stated.pop(key)
    stated.setdefault("name", path.stem.lower())
    return PretrainRecipe.parse(stated, str(path))


def _put(stated: dict[str, Any], key: str, value: Any) -> None:
    head, _, rest = key.partition(".")
    if not rest:
        stated[head] = value
        return
    inner = stated.setdefault(head, {})
    if isinstance(inner, str) and head in ("optimizer", "structure"):
        inner = stated[head] = {"kind": inner}
    if isinstance(inner, list) and rest.partition(".")[0].isdigit():
        number, _, last = rest.partition(".")
        if int(number) >= len(inner) or not last or not isinstance(inner[int(number)], dict):
            raise FinbenchError(f"--set {key}: {head} has {len(inner)} entries.", f"--set {head}.0.weight=1")
        _put(inner[int(number)], last, value)
        return
    if not isinstance(inner, dict):
        raise FinbenchError(f"--set {key}: {head} is no mapping.", "Set it as a whole.")
    _put(inner, rest, value)
