"""What is trained: the model of the recipe and its dense baselines, as configurations first, then with weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from finbench.core.errors import FinbenchError, near_misses, reason
from finbench.core.records import Recipe
from finbench.methods import METHODS, Start
from finbench.models import STRUCTURE, bases
from finbench.models.structured import Structure, counts, dense_config_matching, surgery
from finbench.pretraining import lowmemory
from finbench.pretraining.spec import SHAPES, OptimizerSpec, PretrainRecipe

RELORA: Any = METHODS["relora"]
ADAMW = OptimizerSpec()
_OURS = ("vocab_size", "n_positions", "max_position_embeddings")  # of tokenizer and recipe


@dataclass(frozen=True)
class Member:
    """One model of a run. ``config`` is that of the dense model before any structure."""

    name: str
    what: str  # for people
    config: Any
    structure: Structure
    warmup: int = 0  # dense steps before the structure
    base: bases.Base | None = None
    relora: bool = False
    optimizer: OptimizerSpec = ADAMW


@dataclass(frozen=True)
class Size:
    """What a member costs, from its configuration alone."""

    done: surgery.Surgery
    trainable: int
    parts: list[counts.Part]
    flops: counts.Flops
    optimizer_bytes: int

    @property
    def parameters(self) -> int:
        """With the structure, everything counted."""
        return self.done.after

    def described(self) -> dict[str, Any]:
        """For records."""
        return {
            "parameters": self.parameters,
            "dense_parameters": self.done.before,
            "trainable_parameters": self.trainable,
            "parts": [asdict(part) for part in self.parts],
            "flops_forward": self.flops.forward,
            "flops_training": self.flops.training,
        }


def members(recipe: PretrainRecipe, tokenizer: Any) -> list[Member]:
    """The model, then its baselines. Raises FinbenchError for a configuration that makes no model."""
    structure = recipe.resolved
    base = bases.resolve(recipe.start.base) if recipe.start.base else None
    if base and (base.folder / STRUCTURE).is_file():
        raise FinbenchError(f"{base.id.alias} has low-rank structure already.", "Start from a dense checkpoint.")
    config = bases.skeleton(base).config if base else _configuration(recipe, tokenizer)
    if base and recipe.context > (bases.context_length(base) or recipe.context):
        raise FinbenchError(
            f"{base.id.alias} sees {bases.context_length(base)} tokens, and context is {recipe.context}.",
            f"--set context={bases.context_length(base)}",
        )
    dense = Structure(kind="dense")
    what: str = "ReLoRA" if recipe.relora else structure.kind
    how = recipe.optimizer
    if how.low_memory:
        what = f"dense, by {how.kind} of rank {how.rank}{' of the width' if isinstance(how.rank, float) else ''}"
    model = Member("model", what, config, structure, recipe.warmup_dense_steps, base, recipe.relora is not None, how)
    found = [model]
    for name in recipe.baselines:
        if name == "dense":
            found.append(Member("dense", "dense, of the whole size", config, dense, base=base))
            continue
        own = size(model, recipe)
        wanted = {"parameters": own.parameters} if name == "parameters" else {"flops": own.flops.forward}
        match = dense_config_matching(config, **wanted, context=recipe.context)
        found.append(Member(f"dense-{name}", f"dense, matched {name} ({match.deviation:+.1%})", match.config, dense))
    return found


def _configuration(recipe: PretrainRecipe, tokenizer: Any) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GPT2Config, LlamaConfig

    start, family = recipe.start, recipe.start.family
    kind = {"gpt2": GPT2Config, "llama": LlamaConfig}[family]
    shape = SHAPES[start.shape] if start.shape else {}
    known = {*kind().to_dict(), *kind.attribute_map} - {"model_type", "architectures"}
    for key in start.config:
        if key not in known or key in _OURS:
            close = near_misses(key, known)
            meant = f" Did you mean {' or '.join(close)}?" if close else ""
            what = "comes from tokenizer and context" if key in _OURS else f"is no key of {kind.__name__}.{meant}"
            raise FinbenchError(f"start.config: {key} {what}", "Leave it out.")
    first, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    common = {"vocab_size": len(tokenizer), "bos_token_id": end if first is None else first, "eos_token_id": end}
    if family == "gpt2":
        own = {"n_positions": recipe.context, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        own = {"max_position_embeddings": recipe.context}
    try:
        config = kind(**{**common, **own, **shape, **start.config})
        surgery.planned(config, Structure(kind="dense"))
    except (ValueError, TypeError, RuntimeError, KeyError, ZeroDivisionError, StrictDataclassError) as fault:
        raise FinbenchError(f"start: this makes no model: {reason(fault)}", "Correct start.config.") from fault
    return config


def skeleton(member: Member) -> tuple[Any, surgery.Surgery]:
    """(the member's model on the meta device, what its structure replaced)."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(member.config)
    structure = member.structure
    if structure.init == "activation":  # the same counts
        structure = structure.model_copy(update={"init": "svd"})
    return model, surgery.restructure(model, structure)


def size(member: Member, recipe: PretrainRecipe) -> Size:
    """Parameters, parts and operations of a member; nothing is allocated."""
    model, done = skeleton(member)
    parts, flops = counts.parts(model), counts.flops_per_token(model, recipe.context)
    trained = moved(recipe, model) if member.relora else model
    trainable = sum(tensor.numel() for tensor in trained.parameters() if tensor.requires_grad)
    return Size(done, trainable, parts, flops, lowmemory.state_bytes(trained, member.optimizer))


def begin(member: Member, recipe: PretrainRecipe) -> Any:
    """The member's dense model with its first weights, float32: the base's, or drawn from the seed."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(recipe.seed)
    if member.base:
        return bases.load(member.base, 16, torch.float32)[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_config(member.config, dtype=torch.float32).to(device)


def relora_recipe(recipe: PretrainRecipe) -> Recipe:
    """What the method ``relora`` knows its settings from."""
    assert recipe.relora is not None
    options = recipe.relora.model_dump(include={"every", "prune", "restart_warmup"})
    return Recipe(
        **recipe.model_dump(include={*Recipe.model_fields} - {"tasks", "data", "start", "optimizer"}),
        base=recipe.start.base or "",
        tasks={"pretraining": 1.0},
        method="relora",
        options={**options, "save": "model"},
        bits=16,
        rank=recipe.relora.rank,
        alpha=recipe.relora.alpha,
        dropout=0.0,
        target_modules="all-linear",
        epochs=1,
        batch_size=recipe.batch,
        accumulate=1,
        loop="padded",
        pass_tokens=recipe.context,
        gradient_checkpointing=False,
        optimizer="adamw",
        compile=False,
        kernels="torch",
        sharding="none",
        max_length=recipe.context,
        long_rows="refuse",
        bad_rows="refuse",
        chat=False,
    )


def moved(recipe: PretrainRecipe, model: Any) -> Any:
    """``model`` with ReLoRA's factors around its layers."""
    own = relora_recipe(recipe)
    RELORA.verify(own, bases.layers_of(model))
    RELORA.check_steps(own, recipe.total_steps)
    return RELORA.apply(model, own, Start(recipe.total_steps, iter(()), lambda weights: None))
