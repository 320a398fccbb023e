"""Parameters, bytes and operations of a model, counted from its modules; a dense one that has as many, to beat."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from finbench.core.errors import FinbenchError
from finbench.models.modelfiles import empty_model
from finbench.models.structured import modules
from finbench.models.structured.modules import SLTrainLinear
from finbench.models.structured.surgery import parameters as parameters

_ATTENTION, _MLP = ("attn", "attention"), ("mlp", "feed_forward", "ffn")
# The width is chosen so that the inner size stays near its share of it; beyond these it would be another kind of model.
_NARROWEST, _WIDEST = 0.5, 2.0


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

    A head that is tied to the embeddings is counted there, once.
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
    more = 0
    for layer in modules.layers(model).values():
        own, bias = sum(tensor.numel() for tensor in layer.parameters()), layer.bias_of()
        more += layer.up.out_features * layer.down.in_features + (0 if bias is None else bias.numel()) - own
    return parameters(model) + more


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


@dataclass(frozen=True)
class Match:
    """A narrower dense configuration; ``deviation``: how much more it has than wanted, as a share; negative: less."""

    config: Any
    deviation: float


def dense_config_matching(
    config: Any, *, parameters: int | None = None, flops: float | None = None, context: int = 1024
) -> Match:
    """The dense configuration nearest to ``parameters``, or to ``flops`` (forward, a token, at ``context``).

    Depth, head size and vocabulary stay; heads, width and inner size shrink: of all numbers of heads the one whose
    inner size, chosen to meet the count, is nearest to its share of the width before. Raises FinbenchError for a count
    that no such model has, and for families other than GPT-2's and Llama's shape.
    """
    if (parameters is None) == (flops is None):
        raise ValueError("parameters or flops")
    measure, wanted = ("flops", flops or 0.0) if parameters is None else ("parameters", float(parameters))

    def count(one: Any) -> float:
        model = empty_model(one)
        return flops_per_token(model, context).forward if parameters is None else float(model.num_parameters())

    text = config.get_text_config()
    own = (text.n_inner or 4 * text.n_embd) if text.model_type == "gpt2" else text.intermediate_size
    share = own / text.hidden_size
    best: Any = None
    nearest = math.inf
    for heads in range(1, text.num_attention_heads + 1):
        width = text.hidden_size // text.num_attention_heads * heads
        usual = max(2, round(share * width))
        one, two = (count(_narrowed(config, heads, inner)) for inner in (usual, 2 * usual))
        inner = usual + round((wanted - one) / ((two - one) / usual))  # both counts are linear in it
        if _NARROWEST * usual <= inner <= _WIDEST * usual:
            off = abs(math.log(inner / width / share))
            if off < nearest:
                best, nearest = _narrowed(config, heads, inner), off
    if best is None:
        raise FinbenchError(
            f"No narrower {config.model_type} of {text.num_hidden_layers} layers has {wanted:,.0f} {measure}: "
            f"this one has {count(config):,.0f}.",
            "Compress less; at this size the embeddings are most of the model.",
        )
    return Match(best, count(best) / wanted - 1)


def _narrowed(config: Any, heads: int, inner: int) -> Any:
    made = copy.deepcopy(config)
    old = config.get_text_config()
    width = old.hidden_size // old.num_attention_heads * heads
    if config.model_type == "gpt2":
        made.n_embd, made.n_head, made.n_inner = width, heads, inner
        return made
    if not all(hasattr(old, key) for key in ("intermediate_size", "hidden_size", "num_attention_heads")):
        raise FinbenchError(
            f"How to narrow a {config.model_type} is not known; GPT-2 and Llama's shape are.",
            "Leave this baseline out of the recipe, or use a shape of GPT-2 or Llama.",
        )
    text = made.get_text_config()
    text.hidden_size, text.num_attention_heads, text.intermediate_size = width, heads, inner
    groups = getattr(old, "num_key_value_heads", None)
    if groups:
        share = groups / old.num_attention_heads * heads
        text.num_key_value_heads = min((n for n in range(1, heads + 1) if heads % n == 0), key=lambda n: abs(n - share))
    return made
