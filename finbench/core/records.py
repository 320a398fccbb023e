"""The nouns: strict records with stable JSON and a schema number. Unknown keys are refused by name.

A Recipe trains an Adapter; a Subject is evaluated on Tasks and gets a Scorecard made of Scores, with its Provenance.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from finbench.core import formats
from finbench.core.errors import FinbenchError, shortened
from finbench.core.formats import BaseModelId as BaseModelId
from finbench.core.formats import Quantised as Quantised
from finbench.core.measures import Answers as Answers
from finbench.core.measures import Axis as Axis
from finbench.core.measures import Measure as Measure
from finbench.core.measures import Overlap as Overlap
from finbench.core.measures import Prompt as Prompt
from finbench.core.measures import Prompts as Prompts
from finbench.core.parts import Closeness as Closeness
from finbench.core.parts import Contamination as Contamination
from finbench.core.parts import DataId as DataId
from finbench.core.parts import Generation as Generation
from finbench.core.parts import Hosted as Hosted
from finbench.core.parts import LearntData as LearntData
from finbench.core.parts import Merge as Merge
from finbench.core.parts import OwnData as OwnData
from finbench.core.parts import StartingAdapter as StartingAdapter
from finbench.core.parts import Truncation as Truncation
from finbench.core.parts import name_of_source as name_of_source
from finbench.core.settings import Bits as Bits
from finbench.core.strict import NEWER, Record, no_truth
from finbench.core.training import Loop as Loop
from finbench.core.training import Preferred as Preferred
from finbench.core.training import Search as Search
from finbench.core.training import Training as Training
from finbench.core.training import Trial as Trial
from finbench.core.training import Validation as Validation

SCHEMA = 1  # of scorecards (docs/scorecard.md)
ADAPTER_SCHEMA = 0  # of finbench.json; 1 will be the first one promised to stay readable
UNKNOWN = "unknown"  # fingerprint of a base, or identity of an adapter, that nobody has taken

DType = Literal["auto", "float32", "bfloat16", "float16"]
# recipe keys; none without the first
VALIDATION = ("validation", "validate_on", "validate_every", "select", "patience")
PREFERENCES = ("preferences", "beta", "sft_weight", "start")


class Task(Record):
    """One task, as its YAML states it (the ``metadata`` block; keys there carry the prefix ``finbench_``)."""

    name: str
    version: int = Field(ge=1)
    set: str = Field(description="data set: folder name in the data directory")
    family: str
    form: Literal["generate", "choice"]
    main_metric: str
    labels: list[str] | None = Field(default=None, description="the fixed label set, if there is one")
    label: str | None = Field(default=None, description="the field of a row that is asked for, where it is not label")
    agreement: int | None = Field(
        default=None, description="least agreement of annotators, per cent; --metadata changes it"
    )
    baselines: dict[str, float] = Field(
        description="what needs no model: of the authors' whole set, or of the rows in measured.json"
    )
    licence: str
    restricted: bool = Field(description="texts must not be published with results")
    split: str = Field(description="rule by which train, validation and test were made")
    paper: str
    prompt_style: str
    cot: str | None = Field(default=None, description="what profile cot asks for after the question; null: the usual")
    data: str = Field(description="how to get the data: a command, or 'shipped'")
    examples: list[dict[str, Any]] = Field(description="invented rows for the golden prompt: three, if it is ours")
    digest: str = Field(description="SHA-256 of the YAML with its templates and of the scorer")
    source: str | None = Field(default=None, description="SHA-256 of the file that finbench tasks new made it of")
    own: Literal["folder", "lm_eval"] | None = Field(default=None, description="where one lies that is not ours")

    @property
    def shipped(self) -> bool:
        """The rows come with finbench."""
        return self.data == "shipped"


class Recipe(Record):
    """How to train one adapter. Defaults live in ``adapters_zoo/_defaults.yaml``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=120, description="file and folder name of it")
    base: str = Field(description="alias of bases.yaml, hub:org/name[@rev] or a folder")
    tasks: dict[str, float] = Field(default={}, description="task -> share of its rows seen per epoch")
    data: list[OwnData] = Field(default=[], description="rows of your own: files, folders, data sets of the Hub")
    method: str
    options: dict[str, JsonValue] = Field(default={}, description="settings of the method's own: finbench methods NAME")
    bits: Bits
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    neftune: float = Field(default=0.0, ge=0, description="NEFTune's alpha: noise in embeddings in training")
    target_modules: str | list[str] = Field(min_length=1, description="'all-linear' or module name endings")
    lr: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"]
    warmup: float = Field(ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(ge=0, description="0: no clipping")
    epochs: float = Field(gt=0, le=1000)
    batch_size: int = Field(ge=1, description="rows of like length taken together")
    accumulate: int = Field(ge=1, description="times batch_size: rows an optimiser step")
    loop: Literal["auto", "padded", "packed", "shared"] = Field(description="how rows become forward passes")
    pass_tokens: int = Field(ge=1, description="tokens a forward pass that is not padded, at most")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = Field(
        description="8bit: moments in 8 bits; paged: they leave the GPU where its memory runs out"
    )
    gradient_checkpointing: Literal["auto", True, False] = Field(
        description="keep a decoder layer's inputs alone, and run it again backwards; auto: where it does not fit else"
    )
    compile: bool = Field(description="torch.compile of every decoder layer")
    kernels: Literal["torch", "liger"] = Field(description="liger: Liger's, on a GPU")
    sharding: Literal["none", "fsdp"] = Field(
        description="fsdp: each process holds its share of the base, for one too large for a GPU"
    )
    max_length: int = Field(ge=8, description="tokens; a longer row of a task is refused, never cut")
    long_rows: Literal["refuse", "cut", "drop"] = Field(description="what becomes of rows of your own that are longer")
    bad_rows: Literal["refuse", "drop"] = Field(description="what becomes of rows of your own that cannot be learnt")
    limit: int | None = Field(default=None, ge=1, description="rows a task, a seeded choice")
    validation: float | Literal["split"] | OwnData | None = Field(
        default=None, description="rows to validate on: a share of train, the tasks' own validation split, or a file"
    )
    validate_on: Literal["loss", "metric"] = Field(
        default="loss", description="metric: the tasks' own decides, on a sample of these rows; also validate"
    )
    validate_every: Literal["auto"] | int = Field(
        default="auto", description="optimiser steps between validations; auto: a tenth of the training at most"
    )
    select: Literal["best", "last"] = Field(default="best", description="which step's weights are kept")
    patience: int | None = Field(default=None, ge=1, description="end after so many validations without a better one")
    preferences: OwnData | None = Field(default=None, description="pairs of answers: a scorecard, or rows; also pairs")
    beta: float = Field(default=0.1, gt=0, description="DPO's beta: how much it costs to leave the reference")
    sft_weight: float = Field(
        default=0.0, ge=0, description="added to DPO's loss: this times the better answer's loss as a row, a token"
    )
    start: StartingAdapter | None = Field(default=None, description="adapter to go on from, and the pairs' reference")
    chat: bool = Field(description="wrap prompts in the base's chat template")
    dtype: DType
    save_every: int = Field(ge=1, description="optimiser steps between checkpoints")
    seed: int = Field(ge=0, lt=2**32)
    search: Search | None = Field(default=None, description="where lr comes from, if finbench tune found it")

    _no_truth = field_validator("*", mode="before")(no_truth)

    @field_validator("tasks")
    @classmethod
    def _positive(cls, tasks: dict[str, float]) -> dict[str, float]:
        for task, weight in tasks.items():
            if not 0 < weight <= 100:
                raise ValueError(f"weight of {task} must be above 0 and at most 100, got {weight}")
        return tasks

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.tasks and not self.data and not self.preferences:
            raise ValueError("neither tasks nor data: there is nothing to learn from")
        if isinstance(self.validation, float) and not 0 < self.validation <= 0.5:
            raise ValueError(f"validation is a share of train above 0 and at most 0.5, got {self.validation:g}")
        if isinstance(self.validate_every, int) and self.validate_every < 1:
            raise ValueError(f"validate_every counts steps from 1, got {self.validate_every}")
        return self

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without validation, or pairs, their keys are left out: they mean nothing then; so is noise of 0."""
        found: dict[str, Any] = handler(self)
        idle = {*(VALIDATION if self.validation is None else ()), *(() if self.neftune else ("neftune",))}
        idle |= {*(PREFERENCES if self.preferences is None else ())}
        return {key: value for key, value in found.items() if key not in idle}

    @property
    def learnt(self) -> dict[str, float]:
        """What it learns from, for people, with weights: tasks without their prefix, names of files."""
        own = {name_of_source(part.source): part.weight for part in self.data}
        if self.preferences is not None:
            return {f"pairs of {name_of_source(self.preferences.source)}": 1.0}
        return {name.removeprefix("finbench_"): weight for name, weight in self.tasks.items()} | own


class Provenance(Record):
    """Where and with what something was made. Allow-listed: no path, host, user or token can get in."""

    finbench: str = Field(description="version of finbench")
    python: str = Field(description="version of Python")
    packages: dict[str, str] = Field(description="versions of the packages that decide a result")
    hardware: dict[str, str | int | float] = Field(description="processor, cores, memory, accelerator")
    created: str = Field(description="UTC, ISO 8601, seconds")

    def when(self) -> datetime:
        """``created``; FinbenchError for what is no such time, or one before there were scorecards."""
        try:
            found = datetime.strptime(self.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            if found.year < 2000 or f"{found:%Y-%m-%dT%H:%M:%SZ}" != self.created:  # digits of other alphabets
                raise ValueError
        except ValueError as fault:
            raise FinbenchError(
                f"{shortened(repr(self.created))} is no time at which anything was made.",
                "Write UTC time as 2026-01-31T12:00:00Z, or score the subject again: finbench eval",
            ) from fault
        return found


class Document(Record):
    """A record that is a file of its own: it carries a schema number, under the key ``schema``."""

    newest: ClassVar[int] = ADAPTER_SCHEMA
    schema_: int = Field(alias="schema", default=ADAPTER_SCHEMA, ge=0)
    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        """Before the keys are looked at: a newer schema may have others."""
        number = value.get("schema", cls.newest) if isinstance(value, dict) else cls.newest
        if isinstance(number, int) and number > cls.newest:
            said = f"schema {number} was written by a newer finbench; this one reads up to {cls.newest}"
            raise PydanticCustomError(NEWER, "{said}", {"said": said})
        return value


class Adapter(Document):
    """``finbench.json`` in an adapter folder."""

    kind: Literal["peft", "model"] = Field(description="peft adapter, or a whole fine-tuned model")
    recipe: Recipe
    base: BaseModelId
    dtype: str
    quantisation: dict[str, str | bool | int] | None
    data: list[LearntData]
    contamination: Contamination | None = Field(
        default=None, description="test texts of ranked tasks in the training rows; null: not searched"
    )
    files: dict[str, str] = Field(min_length=1, description="every file that decides an answer -> SHA-256")
    training: Training
    provenance: Provenance
    truncation: Truncation | None = Field(default=None, description="what saving it as a LoRA lost; null: nothing")
    merge: Merge | None = Field(default=None, description="of a model that was made of an adapter by finbench merge")

    @property
    def format(self) -> str:
        """In which format its base was in training."""
        return formats.of(self.recipe.bits, self.base.quantised, self.dtype)


class MergedModel(Document):
    """``merge.json`` beside a model made of an adapter without a record of its training."""

    base: BaseModelId = Field(description="the base it was merged with, as the user or the adapter names it")
    method: str = Field(description="peft's name of the kind of adapter")
    bits: Bits = Field(description="of the base the model was compared on: as stated, else taken to be 16")
    bits_stated: bool = Field(description="whether the user said so, or combined.json of the adapter")
    tasks: list[str] = Field(default=[], description="that it learnt, as combined.json says")
    chat: bool = Field(
        default=False, description="whether it learnt in the base's chat template, as combined.json says"
    )
    merge: Merge
    provenance: Provenance


class Subject(Record):
    """What is evaluated: a base, or a base with an adapter, at given bits and prompt style."""

    name: str = Field(description="for people; two subjects of one run have two names")
    base: BaseModelId = Field(description="the base model")
    adapter: str | None = Field(default=None, description="identity of the adapter: see finbench.models.adapters")
    adapter_name: str | None = Field(default=None, description="name of the adapter, for people")
    adapter_source: str | None = Field(default=None, description="hub:org/name@commit, if it came from the Hub")
    method: str | None = Field(default=None, description="low-rank method, see `finbench methods`")
    rank: int | None = Field(default=None, ge=1, description="rank of the update")
    trainable_parameters: int | None = Field(default=None, ge=0, description="as counted in training")
    seed: int | None = Field(default=None, ge=0, description="seed of the training")
    bits: Bits = Field(default=16, description="16, 8 (int8) or 4 (NF4) bits a weight of the base")
    chat: bool = Field(default=False, description="prompts wrapped in the base's chat template")
    kind: Literal["base", "peft", "model"] = Field(default="base", description="base alone, with adapter, whole model")

    @property
    def stored(self) -> str | None:
        """The format of its weights; None: numbers of the dtype that is computed in."""
        return formats.stored(self.bits, None if self.kind == "model" else self.base.quantised)


class Score(Record):
    """One subject on one task."""

    task: str = Field(description="name of the lm-eval task")
    version: int = Field(description="version of the task's definition")
    task_digest: str = Field(description="SHA-256 of the task's YAML with its templates and of its scorer")
    family: str = Field(description="group of like tasks, over which reports average")
    form: Literal["generate", "choice"] = Field(description="generated answer, or log-likelihoods of the labels")
    main_metric: str = Field(description="key of `metrics` that ranks")
    data: DataId = Field(description="which rows exactly")
    licence: str = Field(description="of the data")
    n: int = Field(ge=1, description="documents scored")
    clusters: int = Field(ge=1, description="groups of documents that share a source; intervals resample these")
    duplicates: int = Field(ge=0, description="documents whose prompt occurred before")
    overlap: Overlap | None = Field(
        description="test texts in the subject's training rows; null: not known, as of every base"
    )
    metrics: dict[str, Measure] = Field(min_length=1, description="strict metrics by name")
    lenient: dict[str, Measure] = Field(description="the same metrics under lenient parsing")
    parse_rate: Measure = Field(description="share of the answers that parse strictly")
    lower_is_better: list[str] = Field(description="metrics of which less is better")
    baselines: dict[str, dict[str, float]] = Field(description="what needs no model, by name: metric -> value")
    truncated: int = Field(ge=0, description="prompts that did not fit and were cut, as the user allowed")
    prompt_tokens: int = Field(ge=0, description="tokens of all prompts")
    seconds: float = Field(ge=0, description="time of the answers")
    answers: Answers | None = Field(default=None, description="of generated answers; null: profile direct")
    prompt_style: str = Field(description="as the task names it")
    fewshot_split: str | None = Field(
        description="split of the worked examples; samples: the task's file lists them; null: zero-shot"
    )
    fewshot_digest: str | None = Field(description="digest of the rows they were drawn from, as shown")
    hosted: Hosted | None = Field(default=None, description="of a model behind an endpoint; null: it was here")
    prompts: Prompts | None = Field(
        default=None, description="what other prompts of the task gave (--prompts); null: its own alone was asked"
    )

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``prompts`` where nobody stated it: cards from before have no such key, and stay what they are."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "prompts" or key in self.model_fields_set}

    @model_validator(mode="after")
    def _ranked(self) -> Self:
        if self.main_metric not in self.metrics:
            raise ValueError(f"main_metric {shortened(self.main_metric)!r} is not among the metrics")
        return self

    @property
    def main(self) -> Measure:
        """The main, strict number."""
        return self.metrics[self.main_metric]

    def is_whole(self, limit: int | None) -> bool:
        """Whether these are all rows, and not the first ones: there are fewer than a run with this limit asks."""
        unit = max(1, self.n // self.clusters) if self.main_metric == "question_f1" else 1  # questions stay together
        return limit is None or ("noise" not in self.data.choices and self.n + unit <= limit)

    @property
    def own_seconds(self) -> float:
        """Seconds for the task's own prompt: of several prompts, which are asked together, an equal share."""
        return self.seconds / (len(self.prompts.each) if self.prompts else 1)

    @property
    def price(self) -> float | None:
        """USD for 1,000 documents; None where nothing was paid, or no price is known."""
        return None if self.hosted is None or self.hosted.cost is None else 1000 * self.hosted.cost / self.n


class Scorecard(Document):
    """``<name>.json``: every score of one subject, and enough to repeat and to check it."""

    newest: ClassVar[int] = SCHEMA
    schema_: int = Field(alias="schema", default=SCHEMA, ge=SCHEMA, description="number of this schema")
    status: Literal["complete", "partial"] = Field(
        description="partial: tasks or rows are missing (--limit, or a set of which a part was imported)"
    )
    origin: Literal["finbench", "lm-eval", "inspect", "answers"] = Field(
        description="who asked the model; answers of lm-eval, of inspect or of a file are scored again by finbench"
    )
    subject: Subject = Field(description="what was evaluated")
    scores: list[Score] = Field(max_length=1_000, description="one for each task, sorted by name")
    engine: str = Field(description="what computed the answers")
    dtype: str = Field(description="floating-point type of the computation")
    form: Literal["base", "unmerged", "merged", "none"] = Field(description="how the adapter was applied")
    shots: int = Field(ge=0, description="worked examples a prompt")
    limit: int | None = Field(
        description="so many rows of each task, the first in the order of their hash: a sample; null: all"
    )
    seed: int = Field(ge=0, description="of the choice of worked examples")
    arguments: dict[str, str | int] = Field(
        description="engine arguments (--arg) and choices of rows (metadata.NAME) that were given"
    )
    generation: Generation | None = Field(default=None, description="how answers were generated; null: the plain way")
    computed: str | None = Field(description="dtype and kind of device, as far as it decides answers")
    chat_template: str | None = Field(description="SHA-256 of the chat template in use")
    run_key: str = Field(description="digest of all that decides an answer except task and data")
    samples: str | None = Field(description="SHA-256 of the samples file; null: there is none")
    peak_memory_bytes: int = Field(
        ge=0, description="of the GPU if there is one, else resident; 0: not known, of a model elsewhere"
    )
    seconds: float = Field(ge=0, description="time of the whole run")
    provenance: Provenance = Field(description="where and with what the card was made")
    seal: str | None = Field(
        default=None, description="SHA-256 of the card without this key, a colon, four hex digits for each value"
    )

    @property
    def format(self) -> str:
        """The format of the subject's weights: bf16, int8, nf4, awq, ..."""
        return self.subject.stored or formats.of_dtype(self.dtype)
