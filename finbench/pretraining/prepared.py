"""What a pretraining run needs but the weights: text, tokenizer, models, order; and what all of its parts ask."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core import catalog, console
from finbench.core.errors import FinbenchError
from finbench.core.records import BaseModelId
from finbench.models import bases
from finbench.pretraining import corpus, members, vocabulary
from finbench.pretraining.members import Member
from finbench.pretraining.mixture import Mixture
from finbench.pretraining.result import Pretrained, Text
from finbench.pretraining.shards import Held, Shards, build
from finbench.pretraining.spec import PretrainRecipe

RECORD = "pretrain.json"
_CALIBRATION = 64  # sequences that an activation-aware start sees


@dataclass(frozen=True)
class PreparedText:
    """Everything a run needs but the weights."""

    recipe: PretrainRecipe
    tokenizer: Any
    shards: list[Shards]
    mixture: Mixture
    held: dict[str, Held]
    members: list[Member]

    @property
    def identity(self) -> str:
        """The digest of the tokenizer."""
        return vocabulary.identity(self.tokenizer)

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides the weights: all of the recipe but names, and how often it is looked at."""
        identities = [part.about["identity"] for part in self.shards]
        return decisive(self.recipe, identities, self.identity, members.base_id(self.members))

    def calibration(self, device: Any) -> Iterator[Any]:
        """Batches of token ids, (rows, context), the first that the run trains on."""
        import torch

        picks = [self.mixture.pick(number) for number in range(_CALIBRATION)]
        for first in range(0, len(picks), self.recipe.micro_batch):
            ids = self.mixture.ids(picks[first : first + self.recipe.micro_batch])
            yield torch.from_numpy(ids[:, :-1]).to(device)


def prepare(recipe: PretrainRecipe) -> PreparedText:
    """Find text, tokenizer, base and configurations; tokenise what is not yet. Loads no weights."""
    if recipe.batch < processes():
        raise FinbenchError(
            f"batch is {recipe.batch} sequences, less than one for each of {processes()} processes.", "--set batch="
        )
    catalog.expand(recipe.tasks)
    located = [corpus.locate(source, name) for source, name in zip(recipe.data, recipe.names, strict=True)]
    tokenizer = vocabulary.tokenizer_of(recipe.start, located, recipe.held_out)
    found = members.members(recipe, tokenizer)  # faults of the model before minutes of tokenising
    for member in found:
        members.size(member, recipe)
    with bar() as shown:
        shards = [build(part, tokenizer, recipe.held_out, shown) for part in located]
    mixture = Mixture(shards, [source.weight for source in recipe.data], recipe.context, recipe.batch, recipe.seed)
    held = {part.name: part.held(recipe.eval_tokens) for part in shards}
    return PreparedText(recipe, tokenizer, shards, mixture, held, found)


def decisive(recipe: PretrainRecipe, sources: list[str], tokenizer: str, base: BaseModelId | None) -> dict[str, Any]:
    """What decides the weights of a run, as JSON."""
    unimportant = {"name", "eval_every", "eval_tokens", "save_every", "data", "tasks", "baselines", "store"}
    stated = {
        **recipe.model_dump(mode="json", exclude=unimportant),
        "sources": sources,
        "weights": [source.weight for source in recipe.data],
        "tokenizer": tokenizer,
        "base": base.fingerprint if base else None,
    }
    stated["start"] = {key: value for key, value in stated["start"].items() if key not in ("base", "tokenizer")}
    return stated


def main_process() -> bool:
    """Whether this is the only process, or the first of those that accelerate or torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def bar() -> Any:
    """Progress, of the first process."""
    return console.progress() if main_process() else contextlib.nullcontext(console.Lines(every=float("inf")))


def texts(run: PreparedText) -> list[Text]:
    """The sources, as the run uses them."""
    epochs = run.mixture.epochs(run.recipe.total_steps)
    return [
        Text(
            name=part.name,
            kind=part.about["kind"],
            identity=part.about["identity"],
            revision=part.about["revision"],
            weight=round(weight, 6),
            epochs=round(epoch, 4),
            documents=part.about["train_documents"],
            tokens=part.tokens,
            bytes=part.about["train_bytes"],
            bytes_per_token=round(part.bytes_per_token, 4),
            held_out_documents=part.about["held_documents"],
            held_out_bytes=part.about["held_bytes"],
            scored_tokens=run.held[part.name].tokens,
            scored_bytes=run.held[part.name].bytes,
            dropped=part.about["dropped"],
        )
        for part, weight, epoch in zip(run.shards, run.mixture.weights, epochs, strict=True)
    ]


def read_record(path: Path) -> Pretrained:
    """The record of a finished run. Raises FinbenchError for one that cannot be read."""
    try:
        return Pretrained.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as fault:
        raise FinbenchError(f"{path} is torn.", "Choose another --out.") from fault


def dtype_name(recipe: PretrainRecipe) -> str:
    """``float32``, ``bfloat16`` or ``float16``: what matrices are multiplied in."""
    return str(bases.compute_dtype(recipe.dtype)).removeprefix("torch.")
