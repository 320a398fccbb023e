"""What a training would need of a GPU, before it is paid for: memory, time and cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.core.console import quiet
from finbench.core.errors import FinbenchError, unknown
from finbench.core.records import Bits, Recipe
from finbench.methods import Layer, targets
from finbench.models import bases, empty_model
from finbench.training import batches, machines, runner, speedups
from finbench.training.machines import GIB, HOST, Card

_SLACK = 1.08  # what the allocator holds beside what is in use
_BYTES: dict[Bits, float] = {16: 2.0, 8: 1.0, 4: 0.516}  # of a linear layer's weight; NF4 with its scales: 4.127 bits
# Bytes moved for a weight in a pass, forward and backward: read, or read, dequantised, written and read again.
_MOVED: dict[Bits, float] = {16: 4.0, 8: 7.0, 4: 9.0}
_BACKWARD = 2  # operations of a backward pass for one of the forward pass
_OPTIMISER = 60  # operations of an optimiser step, whose tensors go together

# Sizes of bases too large to fetch for a plan: hidden, MLP, layers, heads, key/value heads, vocabulary.
SHAPES = {
    "llama-2-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama-2-13b": (5120, 13824, 40, 40, 40, 32000),
    "llama-3.1-8b": (4096, 14336, 32, 32, 8, 128256),
    "llama-3.1-70b": (8192, 28672, 80, 64, 8, 128256),
}
GPT2 = {"gpt2": (768, 12, 12), "gpt2-xl": (1600, 48, 25)}  # hidden, layers, heads; 50,257 tokens, embeddings tied


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training on one card, and operations of the forward part of its largest pass."""

    weights: float
    trained: float  # float32 copies, gradients, both moments of AdamW
    activations: float
    logits: float
    loading: float  # while the base is loaded, before it is spread over cards
    operations: int

    @property
    def total(self) -> float:
        """Bytes at the start or in training, with the allocator's slack, without what the card's own context takes."""
        return _SLACK * max(self.weights + self.trained + self.activations + self.logits, self.loading)

    @property
    def parts(self) -> dict[str, float]:
        """GiB, for people and programs."""
        return {name: round(getattr(self, name) / GIB, 2) for name in ("weights", "trained", "activations", "logits")}

    def on(self, card: Card) -> float:
        """GiB that are taken of a card."""
        return self.total / GIB + card.context


def shape_of(base: str) -> str | None:
    """The name in SHAPES of a base's size, by its alias or its name on the Hub; None if there is none."""
    plain = re.sub(r"[^a-z0-9.]+", "-", base.lower())
    plain = plain.replace("meta-llama-3.1", "llama-3.1").replace("-hf", "")
    return next(
        (name for name in (*SHAPES, *GPT2) if re.search(rf"(^|-){re.escape(name)}(-instruct|-chat)?$", plain)), None
    )


def shaped(name: str) -> Any:
    """A Llama or GPT-2 of the named size, on torch's meta device."""
    from transformers import GPT2Config, LlamaConfig

    if name in GPT2:
        width, depth, heads = GPT2[name]
        return empty_model(GPT2Config(n_embd=width, n_layer=depth, n_head=heads))
    if name not in SHAPES:
        raise unknown("shape", name, [*SHAPES, *GPT2], "finbench plan --help")
    hidden, mlp, depth, heads, shared, vocabulary = SHAPES[name]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    )
    return empty_model(config)


def trained(recipe: Recipe, layers: list[Layer], parameters: int) -> int:
    """Numbers that train: those of LoRA at this rank, the order of every low-rank method; all, for ``full``."""
    if recipe.method == "full":
        return parameters
    return sum(recipe.rank * (layer.inputs + layer.outputs) for layer in targets(recipe, layers))


def counted(model: Any, recipe: Recipe, rows: Sequence[batches.TrainingRow], on_cpu: bool = False) -> tuple[int, int]:
    """(bytes that autograd keeps of a packed pass over ``rows``, operations of its forward part), on a card or a CPU.

    The pass is run on the meta device, where ``model`` is too. Low-rank methods are counted as LoRA.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils._python_dispatch import TorchDispatchMode

    from finbench.training import loops, packing

    class Attention(torch.autograd.Function):
        """What a fused kernel keeps: its inputs and its output. On the meta device torch would keep every weight."""

        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out)
            return out

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += not func.is_view  # a view starts nothing on a card
            return func(*args, **(kwargs or {}))

    model.to(torch.bfloat16)
    if recipe.method == "full":
        wrapped = model.requires_grad_(True)
    else:
        stated = LoraConfig(r=recipe.rank, target_modules=recipe.target_modules, task_type="CAUSAL_LM")
        wrapped = get_peft_model(model, stated, autocast_adapter_dtype=False)
    weights = {tensor.untyped_storage()._cdata for tensor in wrapped.parameters()}
    seen: dict[int, Any] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = storage
        return tensor

    made = packing.pack(rows, True, "meta")
    cut = loops.Passes("shared", len(rows))
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        cut.at_work(wrapped),
        Count() as count,  # type: ignore[no-untyped-call]
        packing.attending(made, lambda *states, **_: Attention.apply(*states), single=on_cpu),  # type: ignore[no-untyped-call]
    ):
        wrapped(input_ids=made.ids, position_ids=made.positions, logits_to_keep=made.picked[:1], use_cache=False)
    return sum(int(storage.nbytes()) for storage in seen.values()), count.operations


def inner(layers: list[Layer]) -> int:
    """Weights of the linear layers but the head: what is quantised, and what every token goes through."""
    chosen = (layer for layer in layers if not layer.head)
    return sum(layer.inputs * layer.outputs for layer in chosen)


def needs(
    model: Any,
    recipe: Recipe,
    layers: list[Layer],
    rows: Sequence[batches.TrainingRow],
    processes: int = 1,
    on_cpu: bool = False,
) -> Footprint:
    """Of a training whose largest pass is over ``rows``, on each card. ``model``, on the meta device, is used up.

    Sharded, a card holds its share of the base, two of its layers whole, and embeddings and head whole.
    """
    parameters = sum(tensor.numel() for tensor in model.parameters())
    quantised = inner(layers)
    wide = 4.0 if recipe.dtype == "float32" or recipe.method == "full" else 2.0
    each = wide if recipe.bits == 16 else _BYTES[recipe.bits]
    answers, vocabulary = sum(row.answer for row in rows), model.config.get_text_config().vocab_size
    count = trained(recipe, layers, parameters)
    moments = 0.0 if recipe.optimizer.startswith("paged") else speedups.OPTIMIZERS[recipe.optimizer][1]
    held = moments + (4.0 if recipe.method == "full" else 8.0)  # whose weights are counted as weights
    weights = quantised * each + (parameters - quantised) * wide
    loading = weights if recipe.bits != 16 else 0.0  # quantised by each process for itself, then spread
    if recipe.sharding == "fsdp":
        depth = model.config.get_text_config().num_hidden_layers
        weights = weights / processes + 2 * quantised * each / depth + (parameters - quantised) * wide
    activations, operations = counted(model, recipe, rows, on_cpu)
    logits = answers * vocabulary * (2 + 4 + 4)  # as computed, in float32, and the gradient of that
    return Footprint(weights, held * count, activations, logits, loading, operations)


def duration(
    card: Card, run: runner.Prepared, model: Any, layers: list[Layer], operations: int, processes: int = 1
) -> tuple[float, float, str]:
    """(seconds of the run, share of them that the card computes, where its share of the peak is from).

    A pass takes what its products take, or reading the weights, or the host's operations, whichever is longest. Several
    processes take as long as the first one, which has most rows.
    """
    recipe, vocabulary = run.recipe, model.config.get_text_config().vocab_size
    linear, parameters = inner(layers), sum(tensor.numel() for tensor in model.parameters())
    share, source = card.share(parameters)
    each = 6 * linear if recipe.method == "full" else 4 * linear + 6 * trained(recipe, layers, parameters)
    head = 4 * model.config.get_text_config().hidden_size * vocabulary
    rate, read = card.tflops * 1e12 * share, _MOVED[recipe.bits] * linear / (card.bandwidth * 1e9)
    host = HOST * operations * (1 + _BACKWARD)
    total = busy = 0.0
    for step in run.sampler.first(run.steps):
        rows, _ = batches.share([run.rows[index] for index in step], 0, processes)
        for part in run.passes.cut(rows):
            computed = (run.passes.run(part) * each + sum(row.answer for row in part) * head) / rate
            # quantised weights are made whole before they are used; others are read while they are
            card_time = max(computed, read) if recipe.bits == 16 else computed + read
            busy += card_time
            total += max(card_time, host)
        total += HOST * _OPTIMISER
    return total, busy / total, source


def plan(
    recipe: Recipe,
    gpu: str,
    *,
    price: float | None = None,
    shape: str | None = None,
    processes: int = 1,
    data_dir: Path | None = None,
    run: runner.Prepared | None = None,
) -> dict[str, Any]:
    """What training ``recipe`` on cards of the name ``gpu`` takes, ``cpu`` being this machine's processor.

    ``shape`` plans for a base of that size (``SHAPES``) with the rows as the recipe's own base encodes them. ``price``:
    an hour of a card, in any currency. ``processes``: cards that share the rows. FinbenchError, with what would fit,
    for a run that the cards cannot hold. ``run``: what ``prepared`` made of the same rows, tokenizer and batches.
    """
    quiet()
    card = machines.card(gpu)
    speedups.check_sharding(recipe, processes)
    run = replace(run, recipe=recipe) if run else prepare_for_plan(recipe, data_dir)
    found = _asked(run, recipe, gpu, shape, processes)
    if found.on(card) > card.memory:
        parts = ", ".join(f"{name} {value:g}" for name, value in found.parts.items())
        raise FinbenchError(
            f"It needs {found.on(card):.1f} GiB, and {gpu} has {card.memory:g}: {parts}.",
            _fitting(run, gpu, shape, processes),
        )
    model = _model(run, shape)
    layers = bases.layers_of(model)
    real, computed = run.tokens(run.passes, processes)
    seconds, busy, source = duration(card, run, model, layers, found.operations, processes)
    return {
        "recipe": recipe.name,
        "gpu": gpu,
        "processes": processes,
        "shape": shape or run.base.id.alias,
        "loop": run.passes.loop,
        "memory_gib": {**found.parts, "total": round(found.on(card), 2)},
        "gpu_gib": card.memory,
        "steps": run.steps,
        "tokens": real,
        "computed": computed,
        "trained": trained(recipe, layers, sum(tensor.numel() for tensor in model.parameters())),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(real / seconds),
        "busy": round(busy, 3),
        "source": source,
        "cost": None if price is None else round(price * processes * seconds / 3600, 4),
    }


def prepare_for_plan(recipe: Recipe, data_dir: Path | None = None) -> runner.Prepared:
    """The rows of a run that is only planned: nobody asks whether test texts are among them."""
    return runner.prepare(recipe, data_dir, lambda name, count, known_by: range(count), tell=False)


def planned_gib(run: runner.Prepared, recipe: Recipe, gpu: str, shape: str | None = None) -> float:
    """GiB of a training by one process, whatever the card has; ``run``: its rows, as ``prepared`` makes them."""
    quiet()
    return round(_asked(run, recipe, gpu, shape).on(machines.card(gpu)), 2)


def _model(run: runner.Prepared, shape: str | None) -> Any:
    return shaped(shape) if shape else bases.skeleton(run.base)


def _asked(run: runner.Prepared, recipe: Recipe, gpu: str, shape: str | None, processes: int = 1) -> Footprint:
    """The needs of ``recipe`` with the rows of ``run``: its largest packed pass of the first epoch."""
    from finbench.training import loops, packing

    cut = loops.Passes.of(recipe, "shared", 2**17, 0)
    steps = ([run.rows[index] for index in step] for step in run.sampler.steps(0))
    parts = (part for step in steps for part in cut.cut(batches.share(step, 0, processes)[0]))
    heaviest = max(parts, key=lambda part: packing.tokens_run(part, True))
    model = _model(run, shape)
    return needs(model, recipe, bases.layers_of(model), heaviest, processes, gpu == "cpu")


def _fitting(run: runner.Prepared, gpu: str, shape: str | None, processes: int) -> str:
    """What to change, the least first: smaller passes, then fewer bits, then shards over cards, then another card."""
    recipe, card = run.recipe, machines.card(gpu)
    method, longest = run.method, max(run.sampler.lengths)
    for bits in [bits for bits in (16, 8, 4) if bits <= recipe.bits and bits in method.bits]:
        for tokens in dict.fromkeys(min(size, recipe.pass_tokens) for size in (recipe.pass_tokens, 1024, 512, longest)):
            changed = recipe.model_copy(update={"bits": bits, "pass_tokens": tokens})
            if _asked(run, changed, gpu, shape, processes).on(card) <= card.memory:
                said = [f"--bits {bits}"] if bits != recipe.bits else []
                smaller = changed.pass_tokens != recipe.pass_tokens
                said += [f"--set pass_tokens={changed.pass_tokens}"] if smaller else []
                return f"It would fit with {' '.join(said)}"
    if recipe.method in speedups.SHARDED and recipe.bits != 8 and gpu != "cpu":
        spread = recipe.model_copy(update={"sharding": "fsdp"})
        for cards in (2, 4, 8):
            if _asked(run, spread, gpu, shape, cards).on(card) <= card.memory:
                return f"It would fit on {cards} of them: --gpus {cards} --set sharding=fsdp"
    wanted = _asked(run, recipe, gpu, shape, processes)
    larger = [name for name, other in machines.CARDS.items() if wanted.on(other) <= other.memory]
    return (
        f"A card that holds it: {', '.join(larger)}" if larger else "No card of the table holds it, nor eight of them."
    )
