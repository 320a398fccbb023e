"""Parameters, bytes and operations of a model, dense or structured, counted from its modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from finbench.models.structured import modules
from finbench.models.structured.modules import SLTrainLinear
from finbench.models.structured.surgery import parameters

__all__ = ["Flops", "Part", "dense_parameters", "flops_per_token", "parameters", "parts", "stored_bytes"]

_ATTENTION, _MLP = ("attn", "attention"), ("mlp", "feed_forward", "ffn")


@dataclass(frozen=True)
class Part:
    """One kind of tensors: how many numbers are trained, and bytes in memory. A support has bytes, no parameters."""

    name: str
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Flops:
    """Operations of one token, a multiplication and an addition counted as two."""

    forward: float
    training: float


def parts(model: Any) -> list[Part]:
    """``embeddings``, ``attention``, ``mlp``, ``norms``, ``head``, ``support``, ``other``; what is empty is left out.

    A head that is tied to the embeddings is counted there, once. The parameters add up to those of the model, the bytes
    to those of its parameters and supports.
    """
    found: dict[str, list[int]] = {}
    seen: set[int] = set()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for owner, module in model.named_modules():
        for tensor in module.parameters(recurse=False):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            part = found.setdefault(_part(owner, module, embeddings, head), [0, 0])
            part[0] += tensor.numel()
            part[1] += tensor.numel() * tensor.element_size()
        if isinstance(module, SLTrainLinear):
            found.setdefault("support", [0, 0])[1] += module.support.numel() * module.support.element_size()
    order = ("embeddings", "attention", "mlp", "norms", "head", "support", "other")
    return [Part(name, *found[name]) for name in order if name in found]


def _part(owner: str, module: nn.Module, embeddings: Any, head: Any) -> str:
    if module is embeddings or isinstance(module, nn.Embedding):
        return "embeddings"
    if module is head:
        return "head"
    if "norm" in type(module).__name__.lower():
        return "norms"
    names = owner.split(".")
    if any(name.endswith(_ATTENTION) for name in names):
        return "attention"
    return "mlp" if any(name.endswith(_MLP) for name in names) else "other"


def dense_parameters(model: Any) -> int:
    """Parameters of the same model with every structured layer dense."""
    records = [layer.record for layer in modules.layers(model).values()]
    return parameters(model) + sum(record.dense - record.parameters for record in records)


def flops_per_token(model: Any, context: int) -> Flops:
    """Operations a token in sequences of ``context`` tokens: matrix products, head included, and attention.

    As PaLM's appendix B (arXiv:2204.02311) counts: a pass back costs two forward; each token attends to the whole
    context, though a causal mask would allow half; norms, activations and the look-up of embeddings are left out.
    SLTrain multiplies by a matrix of the dense size, and beside that by its factors, or composes them into that matrix,
    whichever is less; composing is shared among the tokens of a pass, here of one sequence.
    """
    from transformers.pytorch_utils import Conv1D

    composed = {id(part) for layer in model.modules() if isinstance(layer, SLTrainLinear) for part in layer.children()}
    products = 0.0  # multiplications
    for module in model.modules():
        if isinstance(module, SLTrainLinear):
            rank, inputs, outputs = module.record.rank, module.record.inputs, module.record.outputs
            products += inputs * outputs + rank * min(inputs + outputs, inputs * outputs / context)
        elif isinstance(module, nn.Linear) and id(module) not in composed:
            products += module.in_features * module.out_features  # of a quantised one too, whose weight is packed
        elif isinstance(module, Conv1D):
            products += module.nx * module.nf
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = 2 * context * heads * width * config.num_hidden_layers  # QKᵀ and AV
    forward = 2.0 * (products + attention)
    return Flops(forward, 3 * forward)


def stored_bytes(model: Any, bits: int = 16) -> int:
    """Bytes of the tensors of a saved model at ``bits``; the file has a header besides.

    8 bits (LLM.int8): a byte a weight of every linear layer of a block, a float32 scale a row, a byte for the layout.
    4 bits (NF4, blocks of 64, double quantisation): half a byte a weight, one byte a block, a float32 for every 256
    blocks and two tables of 16 and 256 float32 a layer; bitsandbytes' own description, some 170 bytes a layer, is not
    counted. Everything else keeps the dtype that it has. ``model`` is not quantised.
    """
    total = sum(part.bytes for part in parts(model))
    for layer in [] if bits == 16 else quantisable(model):
        weights, blocks = layer.weight.numel(), -(-layer.weight.numel() // 64)
        total -= weights * layer.weight.element_size()
        if bits == 8:
            total += weights + 4 * layer.out_features + 1
        else:
            total += -(-weights // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256)
    return total


def quantisable(model: Any) -> list[nn.Linear]:
    """The layers that bitsandbytes quantises: factors, and what stayed dense in the blocks."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
