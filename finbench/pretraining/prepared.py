"""What a pretraining run needs but the weights: text, tokenizer, models, order; and what all of its parts ask."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core import catalog, console, environment
from finbench.core.errors import FinbenchError
from finbench.core.records import BaseModelId
from finbench.models import bases
from finbench.models.structured import counts
from finbench.pretraining import corpus, members, vocabulary
from finbench.pretraining import held as scoring
from finbench.pretraining.members import Member
from finbench.pretraining.mixture import Mixture
from finbench.pretraining.result import Pretrained, Text
from finbench.pretraining.shards import Held, Shards, build
from finbench.pretraining.spec import PretrainRecipe

RECORD = "pretrain.json"
_CALIBRATION = 64  # sequences that an activation-aware start sees
_STATE = 8  # bytes a trained parameter: weight and gradient in float32; the optimiser's state is counted
_ACTIVATIONS = 34  # bytes a token, layer and width in 16 bits without attention scores (arXiv:2205.05198, eq. 2)
_KEPT = 2  # the same where only a block's input is kept


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
    def base(self) -> BaseModelId | None:
        """The base that the run starts from, if it does."""
        return self.members[0].base.id if self.members[0].base else None

    @property
    def identity(self) -> str:
        """The digest of the tokenizer."""
        return vocabulary.identity(self.tokenizer)

    def calibration(self, device: Any) -> Iterator[Any]:
        """Batches of token ids, (rows, context), the first that the run trains on."""
        import torch

        picks = [self.mixture.pick(number) for number in range(_CALIBRATION)]
        for first in range(0, len(picks), self.recipe.micro_batch):
            ids = self.mixture.ids(picks[first : first + self.recipe.micro_batch])
            yield torch.from_numpy(ids[:, :-1]).to(device)

    def score(self, model: Any, accelerator: Any = None) -> dict[str, scoring.Bits]:
        """Bits of the held-out text, by source; with an accelerator, processes share the work."""
        return scoring.score(model, self.held, self.recipe.context, self.recipe.micro_batch, accelerator)


def prepare(recipe: PretrainRecipe) -> PreparedText:
    """Find text, tokenizer, base and configurations; tokenise what is not yet. Loads no weights."""
    processes = environment.processes()
    if recipe.batch < processes:
        raise FinbenchError(
            f"batch is {recipe.batch} sequences, less than one for each of {processes} processes.", "--set batch="
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


def decisive(
    recipe: PretrainRecipe, sources: list[str], tokenizer: str, base: BaseModelId | None, dtype: str
) -> dict[str, Any]:
    """What decides the weights of a run, as JSON: all of the recipe but names, and how often it is looked at."""
    unimportant = {"name", "eval_every", "eval_tokens", "save_every", "data", "tasks", "baselines", "store"}
    stated = {
        **recipe.model_dump(mode="json", exclude=unimportant),
        "sources": sources,
        "weights": [source.weight for source in recipe.data],
        "tokenizer": tokenizer,
        "base": base.fingerprint if base else None,
        "dtype_used": dtype,
    }
    if not recipe.optimizer.low_memory:  # as in runs of when there was no other
        stated["optimizer"] = None
    stated["start"] = {key: value for key, value in stated["start"].items() if key not in ("base", "tokenizer")}
    return stated


def main_process() -> bool:
    """Whether this is the only process, or the first of those that accelerate or torchrun started."""
    return environment.rank() == 0


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
            bytes_per_token=round(part.about["train_bytes"] / max(1, part.about["train_text_tokens"]), 4),
            held_out_documents=part.about["held_documents"],
            held_out_bytes=part.about["held_bytes"],
            scored_tokens=run.held[part.name].tokens,
            scored_bytes=run.held[part.name].bytes,
            dropped=part.about["dropped"],
        )
        for part, weight, epoch in zip(run.shards, run.mixture.weights, epochs, strict=True)
    ]


def read_json(path: Path) -> dict[str, Any]:
    """An object that a run wrote. Raises FinbenchError for one that cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise FinbenchError(f"{path} is torn.", "Choose another --out.") from fault


def read_record(path: Path) -> Pretrained:
    """The record of a finished run. Raises FinbenchError for one that cannot be read."""
    return Pretrained.parse(read_json(path), str(path))


def outline(run: PreparedText) -> dict[str, Any]:
    """Every model of the run with what it costs, the text, and the work, before anything is trained."""
    recipe = run.recipe
    steps = recipe.total_steps
    return {
        "recipe": recipe.model_dump(mode="json"),
        "steps": steps,
        "tokens": steps * recipe.batch * recipe.context,
        "vocabulary": len(run.tokenizer),
        "dtype": bases.dtype_name(recipe.dtype),
        "sources": [part.model_dump() for part in texts(run)],
        "models": [outlined(recipe, len(run.tokenizer), one) for one in run.members],
    }


def outlined(recipe: PretrainRecipe, entries: int, one: Member) -> dict[str, Any]:
    """What a model of a run costs, before anything is trained; ``entries`` of the vocabulary."""
    import torch

    size = members.size(one, recipe)
    stored, _ = members.skeleton(one)
    stored.to(torch.bfloat16)
    return {
        "name": one.name,
        "what": one.what,
        "kind": one.structure.kind,
        "rank": size.done.rank,
        "layers": len(size.done.layers),
        "kept": list(size.done.kept),
        "warnings": list(size.done.warnings),
        **size.described(),
        "compression": round(size.done.before / size.done.after, 4),
        "work": size.flops.training * recipe.total_steps * recipe.batch * recipe.context,
        "bytes": {str(bits): int(counts.stored_bytes(stored, bits)) for bits in (16, 8, 4)},
        "optimizer": one.optimizer.kind,
        "optimizer_bytes": size.optimizer_bytes,
        "memory_bytes": _memory(recipe, entries, one, size),
    }


def _memory(recipe: PretrainRecipe, entries: int, one: Member, size: members.Size) -> int:
    """Bytes that training takes, estimated: weights with optimiser, activations of a pass, logits."""
    config = one.config.get_text_config()
    tokens = recipe.micro_batch * recipe.context
    word = 2 if bases.dtype_name(recipe.dtype) != "float32" else 4
    layer = _ACTIVATIONS * word / 2 * config.hidden_size * tokens
    layers = config.num_hidden_layers
    kept = layers * _KEPT * word / 2 * config.hidden_size * tokens + layer if recipe.recompute else layers * layer
    logits = tokens * entries * (word + 8)  # as computed, in float32, and their gradient
    frozen = size.parameters - min(size.trainable, size.parameters)
    return math.ceil(float(_STATE * size.trainable + size.optimizer_bytes + 4 * frozen + kept + logits))
