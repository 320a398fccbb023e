"""What a training would need of a GPU, before it is paid for: memory, time and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import bases, batches, training
from finbench.console import quiet
from finbench.errors import FinbenchError, unknown
from finbench.methods import Layer, method_named
from finbench.methods.base import targets
from finbench.records import Bits, Recipe

GIB = 2**30
# CUDA's context, and what the allocator holds beside what is in use.
_CONTEXT, _SLACK = 0.6 * GIB, 1.08
_BYTES: dict[Bits, float] = {16: 2.0, 8: 1.0, 4: 0.516}  # of a linear layer's weight; NF4 with its scales: 4.127 bits
_UTILISATION = 0.40  # of the peak, where nobody has published a step


@dataclass(frozen=True)
class Gpu:
    """A card: GiB that a program sees, dense bf16 TFLOP/s, and a published LoRA step where there is one.

    ``utilisation`` is the share of the peak that this step reached, counting 4 operations a weight and token.
    """

    memory: float
    tflops: float
    utilisation: float | None = None
    source: str = ""


GPUS = {
    "h100": Gpu(79.1, 989, 0.406, "NeMo AutoModel, Llama-3.1-8B LoRA, packed to 4,096: 12,473 tokens/s"),
    "h200": Gpu(139.8, 989),
    "a100-80": Gpu(79.1, 312),
    "a100-40": Gpu(39.4, 312),
    "rtx4090": Gpu(23.5, 165, 0.56, "torchtune, Llama-3.1-8B LoRA, packed to 2,048, compiled: 3,083 tokens/s"),
    "rtx3090": Gpu(23.5, 71),
    "a6000": Gpu(47.4, 155),
    "a5000": Gpu(23.6, 111),
    "l4": Gpu(22.0, 121),
}
# Sizes of bases too large to fetch for a plan: hidden, MLP, layers, heads, key/value heads, vocabulary.
SHAPES = {
    "llama-2-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama-2-13b": (5120, 13824, 40, 40, 40, 32000),
    "llama-3.1-8b": (4096, 14336, 32, 32, 8, 128256),
    "llama-3.1-70b": (8192, 28672, 80, 64, 8, 128256),
}


@dataclass(frozen=True)
class Memory:
    """Bytes of a training on one card."""

    weights: float
    trained: float  # float32 copies, gradients, both moments of AdamW
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """With CUDA's context and the allocator's slack."""
        return _SLACK * (self.weights + self.trained + self.activations + self.logits) + _CONTEXT

    def described(self) -> dict[str, float]:
        """GiB, for people and programs."""
        parts = {name: getattr(self, name) / GIB for name in ("weights", "trained", "activations", "logits")}
        return {name: round(value, 2) for name, value in {**parts, "total": self.total / GIB}.items()}


def shaped(name: str) -> Any:
    """A Llama of the named size, on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    if name not in SHAPES:
        raise unknown("shape", name, SHAPES, "finbench plan --help")
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
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def trained(recipe: Recipe, layers: list[Layer], parameters: int) -> int:
    """Numbers that train: those of LoRA at this rank, the order of every low-rank method; all, for ``full``."""
    if recipe.method == "full":
        return parameters
    return sum(recipe.rank * (layer.inputs + layer.outputs) for layer in targets(recipe, layers))


def kept(model: Any, recipe: Recipe, rows: Sequence[batches.Row]) -> int:
    """Bytes that autograd keeps of a packed pass over ``rows``: the pass is run on the meta device, and counted.

    ``model`` is on it too. Low-rank methods are counted as LoRA.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from finbench import loops, packing

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
        packing.attending(made, lambda q, k, v, **_: Attention.apply(q, k, v)),  # type: ignore[no-untyped-call]
    ):
        wrapped(input_ids=made.ids, position_ids=made.positions, logits_to_keep=made.picked[:1], use_cache=False)
    return sum(int(storage.nbytes()) for storage in seen.values())


def memory(model: Any, recipe: Recipe, layers: list[Layer], rows: Sequence[batches.Row]) -> Memory:
    """Bytes of a training whose largest pass is over ``rows``. ``model`` is on the meta device and not used again."""
    parameters = sum(tensor.numel() for tensor in model.parameters())
    quantised = sum(
        layer.inputs * layer.outputs
        for layer in layers
        if layer.name.rpartition(".")[2] not in ("lm_head", "embed_out")
    )
    wide = 4.0 if recipe.dtype == "float32" or recipe.method == "full" else 2.0
    each = wide if recipe.bits == 16 else _BYTES[recipe.bits]
    answers, vocabulary = sum(row.answer for row in rows), model.config.get_text_config().vocab_size
    count = trained(recipe, layers, parameters)
    held = 12.0 if recipe.method == "full" else 16.0  # whose weights are counted as weights
    return Memory(
        weights=quantised * each + (parameters - quantised) * wide,
        trained=held * count,
        activations=kept(model, recipe, rows),
        logits=answers * vocabulary * (2 + 4 + 4),  # as computed, in float32, and the gradient of that
    )


def plan(
    recipe: Recipe,
    gpu: str,
    *,
    price: float | None = None,
    shape: str | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """What training ``recipe`` on one card of the name ``gpu`` takes.

    ``shape`` plans for a base of that size (``SHAPES``) with the rows as the recipe's own base encodes them. ``price``:
    an hour of the card, in any currency. FinbenchError, with what would fit, for a run that the card cannot hold.
    """
    quiet()
    if gpu not in GPUS:
        raise unknown("gpu", gpu, GPUS, "finbench plan --help")
    card = GPUS[gpu]
    run = training.prepare(recipe, data_dir)

    def needs(changed: Recipe) -> Memory:
        model = shaped(shape) if shape else bases.skeleton(run.base)
        return memory(model, changed, bases.layers_of(model), heaviest(run, changed))

    found = needs(recipe)
    if found.total > card.memory * GIB:
        raise FinbenchError(
            f"It needs {found.total / GIB:.1f} GiB, and {gpu} has {card.memory:g}: {_parts(found)}.",
            _fits(recipe, gpu, needs, max(len(row.ids) for row in run.rows)),
        )
    model = shaped(shape) if shape else bases.skeleton(run.base)
    layers = bases.layers_of(model)
    linear = sum(
        one.inputs * one.outputs for one in layers if one.name.rpartition(".")[2] not in ("lm_head", "embed_out")
    )
    real, computed = run.tokens(run.passes)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    count = trained(recipe, layers, parameters)
    scored = sum(row.answer for row in run.rows) * recipe.epochs * model.config.get_text_config().vocab_size
    work = computed * (4 * linear + 6 * count) if recipe.method != "full" else computed * 6 * linear
    work += 4 * scored * model.config.get_text_config().hidden_size
    share = card.utilisation or _UTILISATION
    seconds = work / (card.tflops * 1e12 * share)
    return {
        "recipe": recipe.name,
        "gpu": gpu,
        "shape": shape or run.base.id.alias,
        "loop": run.passes.loop,
        "memory_gib": found.described(),
        "gpu_gib": card.memory,
        "steps": run.steps,
        "tokens": real,
        "computed": computed,
        "trained": count,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(real / seconds),
        "utilisation": share,
        "source": card.source or f"nobody's published step: {_UTILISATION:.0%} of the peak is assumed",
        "cost": None if price is None else round(price * seconds / 3600, 4),
    }


def heaviest(run: training.Prepared, recipe: Recipe) -> list[batches.Row]:
    """The rows of the largest packed pass of the first epoch."""
    from finbench import loops, packing

    cut = loops.Passes.of(recipe, "shared", 2**17, 0)
    order = batches.StepSampler(run.sampler, recipe.accumulate).steps(0)
    parts = [part for step in order for part in cut.cut([run.rows[index] for index in step])]
    return max(parts, key=lambda part: packing.tokens_run(part, True))


def _parts(found: Memory) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in found.described().items() if name != "total")


def _fits(recipe: Recipe, gpu: str, needs: Any, longest: int) -> str:
    """What to change, the least first: smaller passes, then fewer bits, then another card."""
    room = GPUS[gpu].memory * GIB
    method = method_named(recipe.method)
    for bits in [bits for bits in (16, 8, 4) if bits <= recipe.bits and bits in method.bits]:
        for tokens in (recipe.pass_tokens, 1024, 512, longest):
            changed = recipe.model_copy(update={"bits": bits, "pass_tokens": min(tokens, recipe.pass_tokens)})
            if needs(changed).total <= room:
                said = [f"--bits {bits}"] if bits != recipe.bits else []
                said += (
                    [f"--set pass_tokens={changed.pass_tokens}"] if changed.pass_tokens != recipe.pass_tokens else []
                )
                return f"It would fit with {' '.join(said)}"
    total = needs(recipe).total
    larger = [name for name, card in GPUS.items() if card.memory * GIB >= total]
    return f"A card that holds it: {', '.join(larger)}" if larger else "No single card of the table holds it."
