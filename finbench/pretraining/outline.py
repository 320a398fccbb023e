"""What a pretraining would be, before anything is trained: sizes, operations, text, memory."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from finbench.models.structured import counts
from finbench.pretraining import members
from finbench.pretraining.members import Member
from finbench.pretraining.prepared import PreparedText, dtype_name, texts

_STATE = 16  # bytes a trained parameter: weight, gradient and Adam's two moments in float32
_ACTIVATIONS = 34  # bytes a token, layer and width in 16 bits without attention scores (arXiv:2205.05198, eq. 2)
_KEPT = 2  # the same where only a block's input is kept


def outline(run: PreparedText) -> dict[str, Any]:
    """Every model of the run with what it costs, the text, and the work."""
    recipe = run.recipe
    steps = recipe.total_steps
    return {
        "recipe": recipe.model_dump(mode="json"),
        "steps": steps,
        "tokens": steps * recipe.batch * recipe.context,
        "vocabulary": len(run.tokenizer),
        "dtype": dtype_name(recipe),
        "sources": [part.model_dump() for part in texts(run)],
        "models": [_model(run, one) for one in run.members],
    }


def _model(run: PreparedText, one: Member) -> dict[str, Any]:
    recipe, size = run.recipe, members.size(one, run.recipe)
    model, _ = members.skeleton(one)
    work = size.flops.training * recipe.total_steps * recipe.batch * recipe.context
    return {
        "name": one.name,
        "what": one.what,
        "kind": one.structure.kind,
        "rank": size.rank,
        "layers": size.replaced,
        "kept": list(size.kept),
        "warnings": list(size.warnings),
        "parameters": size.parameters,
        "dense_parameters": size.dense_parameters,
        "trainable_parameters": size.trainable,
        "compression": round(size.compression, 4),
        "parts": [asdict(part) for part in size.parts],
        "flops_forward": size.flops.forward,
        "flops_training": size.flops.training,
        "work": work,
        "bytes": {str(bits): _stored(model, bits) for bits in (16, 8, 4)},
        "memory_bytes": memory(run, one, size),
    }


def _stored(model: Any, bits: int) -> int:
    """Bytes on disk with 16-bit weights, or those of bitsandbytes."""
    import torch

    return int(counts.stored_bytes(model.to(torch.bfloat16), bits))


def memory(run: PreparedText, one: Member, size: members.Size) -> int:
    """Bytes that training takes, estimated: weights with optimiser, activations of a pass, logits."""
    recipe = run.recipe
    config = one.config.get_text_config()
    tokens = recipe.micro_batch * recipe.context
    word = 2 if dtype_name(recipe) != "float32" else 4
    layer = _ACTIVATIONS * word / 2 * config.hidden_size * tokens
    layers = config.num_hidden_layers
    kept = layers * _KEPT * word / 2 * config.hidden_size * tokens + layer if recipe.recompute else layers * layer
    logits = tokens * len(run.tokenizer) * (word + 8)  # as computed, in float32, and their gradient
    frozen = size.parameters - min(size.trainable, size.parameters)
    return math.ceil(float(_STATE * size.trainable + 4 * frozen + kept + logits))
