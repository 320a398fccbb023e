"""What a training would need of a GPU, before it is paid for: memory, time and cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.records import Bits, Quantised, Recipe
from finbench.methods import Layer
from finbench.models import bases
from finbench.training import batches, counting, machines, shapes, speedups, timing
from finbench.training.machines import GIB, Card
from finbench.training.preparation import Prepared, prepare

_SLACK = 1.08  # what the allocator holds beside what comes and goes; frozen weights do not, and fill their blocks
_BUSY = 1.5  # times longer than alone that products take on a machine that others use
_GROUP = 128  # weights that share a scale, where a checkpoint states none
_LOGIT = 12  # bytes: log-probabilities, and two gradients that the backward part of the loss has at once, in float32
_BYTES: dict[Bits, float] = {16: 2.0, 8: 1.0, 4: 0.516}  # of a linear layer's weight; NF4 with its scales: 4.127 bits


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training on one card, and operations of the forward part of its largest pass.

    ``checkpointing``: whether decoder layers are run again in the backward pass, as ``activations`` counts them.
    """

    weights: float
    trained: float  # float32 copies, gradients, both moments of AdamW
    activations: float
    least: float  # activations with checkpointing
    logits: float
    loading: float  # while the base is loaded, before it is spread over cards
    operations: int
    count: int  # numbers that train
    checkpointing: bool = False

    @property
    def used(self) -> float:
        """Bytes of tensors at the start or in training, as torch counts them (``max_memory_allocated``)."""
        return max(self.weights + self.trained + self.activations + self.logits, self.loading)

    @property
    def total(self) -> float:
        """With the allocator's slack, without what the card's own context takes."""
        moving = self.trained + self.activations + self.logits
        return max(self.weights + _SLACK * moving, self.loading)

    @property
    def parts(self) -> dict[str, float]:
        """GiB, for people and programs."""
        return {name: round(getattr(self, name) / GIB, 2) for name in ("weights", "trained", "activations", "logits")}

    def on(self, card: Card) -> float:
        """GiB that are taken of a card."""
        return self.total / GIB + card.context

    def chosen(self, recipe: Recipe, card: Card) -> Footprint:
        """With activation checkpointing as the recipe says; by ``auto`` where the card cannot hold it without."""
        wanted = recipe.gradient_checkpointing
        if wanted == "auto":
            wanted = self.on(card) > card.memory and self.least < self.activations
        return replace(self, activations=self.least, checkpointing=True) if wanted else self


def needs(
    model: Any,
    recipe: Recipe,
    layers: list[Layer],
    rows: Sequence[batches.TrainingRow],
    processes: int = 1,
    on_cpu: bool = False,
    share: bool = True,
    checkpoint: Quantised | None = None,
) -> Footprint:
    """Of a training whose largest pass is over ``rows``, on each card. ``model``, on the meta device, is used up.

    ``share``: what rows have in common at their start is run once. ``checkpoint``: how the base is stored and held.

    Sharded, a card holds its share of the base, two of its layers whole, and embeddings and head whole.
    """
    parameters = sum(tensor.numel() for tensor in model.parameters())
    inner = timing.inner(layers)
    wide = 4.0 if recipe.dtype == "float32" or recipe.method == "full" else 2.0
    each = _stored(checkpoint) if recipe.bits == 16 else _BYTES[recipe.bits]
    each = wide if each is None else each
    answers, vocabulary = sum(row.answer for row in rows), model.config.get_text_config().vocab_size
    moments = 0.0 if recipe.optimizer.startswith("paged") else speedups.OPTIMIZERS[recipe.optimizer][1]
    held = moments + (4.0 if recipe.method == "full" else 8.0)  # whose weights are counted as weights
    weights = inner * each + (parameters - inner) * wide
    loading = weights if recipe.bits != 16 else 0.0  # quantised by each process for itself, then spread
    if recipe.sharding == "fsdp":
        depth = model.config.get_text_config().num_hidden_layers
        weights = weights / processes + 2 * inner * each / depth + (parameters - inner) * wide
    found = counting.counted(model, recipe, rows, on_cpu, share)
    logits = answers * vocabulary * _LOGIT
    trained = held * found.trained
    return Footprint(weights, trained, found.kept, found.checkpointed, logits, loading, found.operations, found.trained)


def _stored(checkpoint: Quantised | None) -> float | None:
    """Bytes of a linear layer's weight in a quantised checkpoint, as it is held; None: it is held in 16 bits.

    Each group has a scale in 16 bits and a zero point of as many bits as a weight.
    """
    if checkpoint is None or checkpoint.method == "gguf" or checkpoint.bits is None:
        return None
    if checkpoint.method.startswith("bitsandbytes"):
        return _BYTES[4 if checkpoint.bits == 4 else 8]
    return (checkpoint.bits + (16 + checkpoint.bits) / (checkpoint.group or _GROUP)) / 8


def duration(card: Card, run: Prepared, work: timing.Work, processes: int = 1) -> tuple[float, float, str]:
    """(seconds of the run, share of them that the card computes, where its share of the peak is from).

    Several processes take as long as the first one, which has most rows.
    """
    share, source = timing.share(card)
    total = busy = 0.0
    for step in run.sampler.first(run.steps):
        rows, _ = batches.share([run.rows[index] for index in step], 0, processes)
        for part in run.passes.cut(rows):
            each = work.seconds(card, share, run.passes.run(part), sum(row.answer for row in part))
            total, busy = total + each[0], busy + each[1]
        total += timing.optimiser() + timing.exchange(card, processes, work.trained)
    return total, busy / total, source


def plan(
    recipe: Recipe,
    gpu: str | None = None,
    *,
    price: float | None = None,
    shape: str | None = None,
    processes: int = 1,
    data_dir: Path | None = None,
    run: Prepared | None = None,
) -> dict[str, Any]:
    """What training ``recipe`` on cards of the name ``gpu`` takes, ``cpu`` being this machine's processor; by default,
    on this machine's GPU, or its processor where it has none. ``seconds`` are of a machine of one's own;
    ``seconds_now`` of this processor with what others leave of it at the moment, None where that is all.

    ``shape`` plans for a base of that size (``shapes.SHAPES``) with the rows as the recipe's own base encodes them.
    ``price``: an hour of a card, in any currency. ``processes``: cards that share the rows. FinbenchError, with what
    would fit, for a run that the cards cannot hold. ``run``: what ``prepared`` made of the same rows, tokenizer and
    batches.
    """
    quiet()
    gpu = gpu or machines.this()
    card = machines.card(gpu, recipe.dtype)
    speedups.check_sharding(recipe, processes)
    run = replace(run, recipe=recipe) if run else prepare_for_plan(recipe, data_dir)
    found = _asked(run, recipe, gpu, shape, processes)
    if found.on(card) > card.memory:
        parts = ", ".join(f"{name} {value:g}" for name, value in found.parts.items())
        raise FinbenchError(
            f"It needs {found.on(card):.1f} GiB, and {gpu} has {card.memory:g}: {parts}.",
            _fitting(run, gpu, shape, processes, card),
        )
    model = _model(run, shape)
    layers, config = bases.layers_of(model), model.config.get_text_config()
    work = timing.Work.of(
        recipe,
        layers,
        found.count,
        config.hidden_size * config.vocab_size,
        found.operations,
        checkpointing=found.checkpointing,
        cards=processes if recipe.sharding == "fsdp" else 1,
    )
    real, computed = run.tokens(run.passes, processes)
    seconds, busy, source = duration(card, run, work, processes)
    crowding = machines.crowding(bases.compute_dtype(recipe.dtype)) if gpu == "cpu" else 1.0
    return {
        "recipe": recipe.name,
        "gpu": gpu,
        "processes": processes,
        "shape": shape or run.base.id.alias,
        "loop": run.passes.loop,
        "gradient_checkpointing": found.checkpointing,
        "memory_gib": {**found.parts, "total": round(found.on(card), 2)},
        "gpu_gib": card.memory,
        "steps": run.steps,
        "tokens": real,
        "computed": computed,
        "trained": found.count,
        "seconds": round(seconds, 3),
        "seconds_now": round(seconds * crowding, 3) if crowding > _BUSY else None,
        "tokens_per_second": round(real / seconds),
        "busy": round(busy, 3),
        "source": source,
        "cost": None if price is None else round(price * processes * seconds / 3600, 4),
    }


def decided(run: Prepared, processes: int = 1) -> tuple[Prepared, str]:
    """``run`` with activation checkpointing on or off, for this machine; what there is to say of it.

    FinbenchError, with what would fit, for a GPU that does not even hold the weights. One that should hold them and
    not the rest is only warned of: the plan may be wrong, and training shows it.
    """
    recipe = run.recipe
    gpu, card = machines.here()
    if gpu == "cpu" and recipe.gradient_checkpointing != "auto":
        return run, ""
    whole = _asked(run, recipe.model_copy(update={"gradient_checkpointing": False}), gpu, None, processes, card)
    found = whole.chosen(recipe, card)
    needed = f"{found.on(card):.1f} GiB"
    run = run.begun(run.passes.loop, found.checkpointing)
    if found.on(card) > card.memory:
        message = f"By plan this training needs {needed}, and {card.memory:.1f} are here."
        if gpu != "cpu" and found.weights / GIB > card.memory:
            raise FinbenchError(message, _fitting(run, gpu, None, processes, card))
        return run, message
    if recipe.gradient_checkpointing == "auto" and found.checkpointing:
        return run, f"Activation checkpointing is on: by plan, {needed} instead of {whole.on(card):.1f}."
    return run, ""


@contextlib.contextmanager
def explained(
    run: Prepared, processes: int, again: str = "Where there is a checkpoint, --resume goes on from it."
) -> Iterator[None]:
    """A GPU whose memory runs out inside is a FinbenchError that says what would fit, and how to go on ``again``."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as fault:
        gpu, card = machines.here()
        recipe = run.recipe.model_copy(update={"gradient_checkpointing": run.passes.checkpointed})
        needed = _asked(run, recipe, gpu, None, processes, card).on(card)
        hint = _fitting(replace(run, recipe=recipe), gpu, None, processes, card)
        if needed <= card.memory:
            smaller = f"--set pass_tokens={max(1, recipe.pass_tokens // 2)}"
            hint = f"Free the GPU (nvidia-smi shows who uses it), or: {smaller}"
            hint += "" if run.passes.checkpointed else " --set gradient_checkpointing=true"
        raise FinbenchError(
            f"The GPU's memory ran out: by plan this training needs {needed:.1f} GiB of {card.memory:.1f}.",
            f"{hint.removesuffix('.')}. {again}",
        ) from fault


def prepare_for_plan(recipe: Recipe, data_dir: Path | None = None) -> Prepared:
    """The rows of a run that is only planned: nobody asks for test texts among them, or for packages to run it."""
    return prepare(recipe, data_dir, lambda name, count, known_by: range(count), tell=False, here=False)


def planned_gib(run: Prepared, recipe: Recipe, gpu: str, shape: str | None = None) -> float:
    """GiB of a training by one process, whatever the card has; ``run``: its rows, as ``prepared`` makes them."""
    quiet()
    return round(_asked(run, recipe, gpu, shape).on(machines.card(gpu, recipe.dtype)), 2)


def _model(run: Prepared, shape: str | None) -> Any:
    return shapes.shaped(shape) if shape else bases.skeleton(run.base)


def _asked(
    run: Prepared, recipe: Recipe, gpu: str, shape: str | None, processes: int = 1, card: Card | None = None
) -> Footprint:
    """The needs of ``recipe`` with the rows of ``run``, on ``gpu``: its largest pass of the first epoch."""
    cut = type(run.passes).of(recipe, run.passes.loop, 2**17, 0)
    steps = ([run.rows[index] for index in step] for step in run.sampler.steps(0))
    parts = (part for step in steps for part in cut.cut(batches.share(step, 0, processes)[0]))
    heaviest = cut.apart(max(parts, key=cut.run))
    if cut.loop == "padded":  # each row is as long as the longest
        width = max(len(row.ids) for row in heaviest)
        heaviest = [batches.TrainingRow([0] * width, row.answer) for row in heaviest]
    model = _model(run, shape)
    held, layers = None if shape else run.base.id.quantised, bases.layers_of(model)
    found = needs(model, recipe, layers, heaviest, processes, gpu == "cpu", cut.shares, held)
    return found.chosen(recipe, card or machines.card(gpu, recipe.dtype))


def _fitting(run: Prepared, gpu: str, shape: str | None, processes: int, card: Card) -> str:
    """What to change, the least first: checkpointing, smaller passes, fewer bits, shards over cards, another card."""
    recipe, method, longest = run.recipe, run.method, max(run.sampler.lengths)
    if recipe.gradient_checkpointing is False:
        again = recipe.model_copy(update={"gradient_checkpointing": True})
        if _asked(run, again, gpu, shape, processes, card).on(card) <= card.memory:
            return "It would fit with --set gradient_checkpointing=true"
    for bits in [bits for bits in (16, 8, 4) if bits <= recipe.bits and bits in method.bits]:
        for tokens in dict.fromkeys(min(size, recipe.pass_tokens) for size in (recipe.pass_tokens, 1024, 512, longest)):
            changed = recipe.model_copy(update={"bits": bits, "pass_tokens": tokens})
            if _asked(run, changed, gpu, shape, processes, card).on(card) <= card.memory:
                said = [f"--bits {bits}"] if bits != recipe.bits else []
                smaller = changed.pass_tokens != recipe.pass_tokens
                said += [f"--set pass_tokens={changed.pass_tokens}"] if smaller else []
                return f"It would fit with {' '.join(said)}"
    if recipe.method in speedups.SHARDED and recipe.bits != 8 and gpu != "cpu":
        spread = recipe.model_copy(update={"sharding": "fsdp"})
        for cards in (2, 4, 8):
            if _asked(run, spread, gpu, shape, cards, card).on(card) <= card.memory:
                return f"It would fit on {cards} of them: --gpus {cards} --set sharding=fsdp"
    plain = recipe.model_copy(update={"gradient_checkpointing": False})
    wanted = _asked(run, plain, gpu, shape, processes, card)
    on = [(name, other, wanted.chosen(recipe, other)) for name, other in machines.CARDS.items()]
    larger = [name for name, other, found in on if found.on(other) <= other.memory]
    return (
        f"A card that holds it: {', '.join(larger)}" if larger else "No card of the table holds it, nor eight of them."
    )
