"""How the rows of an optimiser step are cut into forward passes: padded side by side, packed, or with shared starts.

All three give the loss and the gradients of separate rows, but for the order of sums; they differ in the tokens that
are run. ``padded`` works for every model. ``packed`` (no padding) and ``shared`` (what rows have in common at their
start is run once) need attention that finbench can stand in for; ``shared`` also needs a model and a method without
dropout, which would draw one mask for all rows where it should draw one for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finbench.core.errors import FinbenchError
from finbench.core.records import Loop, Recipe
from finbench.methods import last_positions, method_named
from finbench.models.prefixes import steady, unsupported
from finbench.training import batches, fused_lora, packing, speedups
from finbench.training.batches import TrainingRow

_LOGITS = 2**28  # elements of a pass's logits at most: 1 GiB in float32
# Nats between log-probabilities of one answer token by both loops: at most in float32, on average in half precision.
# Of SmolLM2 in bfloat16 it was 0.10 at most between loops that are right, and 0.29 at least where rows saw one token of
# others, or missed one; of two rows, masks that showed a whole other row passed a limit of one nat. Answers that a base
# finds improbable move more (0.13 of own rows), as they do between padded rows together and alone: twice that is right.
_AGREE, _AGREE_HALF = 1e-3, 0.15
_TRIED = 8  # rows


def without_packing(model: Any, longest: int) -> str:
    """Why rows cannot be packed for ``model`` (it may be on the meta device); empty where they can."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if reason := unsupported(model):
        return reason
    if not model._can_set_attn_implementation():
        return "its attention cannot be replaced"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention has soft caps"
    if window is not None and longest > window:
        return f"its attention reaches back {window} tokens, and rows have up to {longest}"
    if longest > steady(model):
        return f"its positions are coded anew beyond {steady(model):.0f} tokens"
    return ""


def without_sharing(model: Any, recipe: Recipe) -> str:
    """Why starts cannot be shared where rows can be packed; empty where they can."""
    config = model.config.get_text_config()
    drops = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    drops += [getattr(config, name, 0) for name in ("attention_dropout", "attn_pdrop")]
    if recipe.dropout or any(drops):
        return f"the {'recipe' if recipe.dropout else 'base'} has dropout, of which each row draws its own"
    if recipe.neftune:
        return "each row draws noise of its own (neftune)"
    if not method_named(recipe.method).tokenwise(recipe):
        return f"{recipe.method} treats the tokens of a pass together, or draws noise"
    return ""


def choose(recipe: Recipe, model: Any, longest: int) -> tuple[Loop, str]:
    """(the loop of a run, why it is not a faster one; empty where it is the fastest, or asked for).

    FinbenchError where the recipe asks for one that cannot be had. ``model`` may be on the meta device.
    """
    no_packing = without_packing(model, longest)
    no_sharing = no_packing or without_sharing(model, recipe)
    wanted, reason = recipe.loop, {"packed": no_packing, "shared": no_sharing}.get(recipe.loop, "")
    if reason:
        raise FinbenchError(f"Rows cannot be {wanted} here: {reason}.", "Use --set loop=auto")
    if wanted != "auto":
        return wanted, ""
    if no_packing:
        return "padded", f"Rows are padded: {no_packing}."
    if no_sharing:
        return "packed", f"What rows have in common at their start is run for each: {no_sharing}."
    return "shared", ""


@dataclass(frozen=True)
class Passes:
    """Cuts the rows of a step into passes and computes the loss of each.

    ``rows``: rows of a padded pass. ``tokens``: tokens of a packed one. ``answers``: answer tokens of a packed one, so
    that their logits fit. ``pad``: token id that fills padded rows. ``compiled``: decoder layers are. ``checkpointed``:
    they keep their inputs alone, and are run again in the backward pass.
    """

    loop: Loop
    rows: int
    tokens: int = 2048
    answers: int = 2048
    pad: int = 0
    compiled: bool = False
    checkpointed: bool = False

    @classmethod
    def of(cls, recipe: Recipe, loop: Loop, vocabulary: int, pad: int) -> Passes:
        """For a recipe, and the size of the vocabulary of its base."""
        answers, again = max(1, _LOGITS // vocabulary), recipe.gradient_checkpointing is True
        return cls(loop, recipe.batch_size, recipe.pass_tokens, answers, pad, recipe.compile, again)

    @property
    def shares(self) -> bool:
        """What rows have in common at their start is run once."""
        return self.loop == "shared"

    def apart(self, units: Sequence[Any]) -> Sequence[TrainingRow]:
        """The rows of some units of a step, which a pass is never cut through: here a unit is a row."""
        return units

    def cut(self, rows: Sequence[Any]) -> list[list[Any]]:
        """The rows of a step, in passes."""
        if self.loop == "padded":
            return [list(rows[first : first + self.rows]) for first in range(0, len(rows), self.rows)]
        return packing.passes(rows, self.shares, self.tokens, self.answers)

    def run(self, rows: Sequence[TrainingRow]) -> int:
        """Positions that the passes over ``rows`` compute, padding among them."""
        parts = [self.apart(part) for part in self.cut(rows)]
        if self.loop == "padded":
            return sum(len(part) * max(len(row.ids) for row in part) for part in parts)
        return sum(packing.tokens_run(part, self.shares) for part in parts)

    @contextlib.contextmanager
    def at_work(self, model: Any) -> Iterator[None]:
        """``model``, with or without peft around it, runs as this loop needs it. A padded one runs it as it is."""
        wrapped = hasattr(model, "peft_config")
        with contextlib.ExitStack() as stack:
            if self.loop != "padded":
                stack.enter_context(packing.attention_of(model.get_base_model() if wrapped else model))
                if wrapped and not self.compiled:  # the compiler fuses by itself
                    stack.enter_context(fused_lora.fused(model))
            if self.compiled:
                stack.enter_context(speedups.compiled(model))
            if self.checkpointed:  # around what is compiled: within, the compiler would leave the whole layer alone
                stack.enter_context(speedups.checkpointed(model))
            yield

    def prepare(self, rows: Sequence[TrainingRow], device: Any) -> dict[str, Any] | packing.Packed:
        """The tensors of a pass."""
        rows = self.apart(rows)
        if self.loop != "padded":
            return packing.pack(rows, self.shares, device)
        return {name: tensor.to(device) for name, tensor in batches.collate(rows, self.pad).items()}


def logits(model: Any, made: dict[str, Any] | packing.Packed) -> tuple[Any, Any]:
    """(logits, labels) of one pass: (positions, vocabulary) in float32 at least, (positions,), some to be ignored."""
    if isinstance(made, packing.Packed):
        out = model(input_ids=made.ids, position_ids=made.positions, logits_to_keep=made.picked, use_cache=False).logits
        return _wide(out[0]), made.labels
    inputs = {name: tensor for name, tensor in made.items() if name != "labels"}
    width = made["labels"].shape[1]
    out = model(**inputs, logits_to_keep=last_positions(inputs, width), use_cache=False).logits
    return _wide(out[:, -width:-1]).flatten(0, 1), made["labels"][:, 1:].flatten()


def _wide(found: Any) -> Any:
    return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found


def attending(made: dict[str, Any] | packing.Packed) -> contextlib.AbstractContextManager[None]:
    """Around the forward and the backward pass over what ``prepare`` made."""
    return packing.attending(made) if isinstance(made, packing.Packed) else contextlib.nullcontext()


@contextlib.contextmanager
def noise(model: Any, made: dict[str, Any] | packing.Packed, alpha: float) -> Iterator[None]:
    """NEFTune (Jain et al. 2023, arXiv:2310.05914): embeddings move by uniform noise below alpha / sqrt(L d).

    L is the number of tokens of a row, whatever stands beside it in its pass, and d the width of the embeddings. Not
    around a pass whose rows share their starts.
    """
    if not alpha:
        yield
        return
    if isinstance(made, packing.Packed):
        starts = torch.cat([(made.positions[0] == 0).nonzero()[:, 0], made.positions.new_tensor([made.ids.shape[1]])])
        run = starts.diff()  # of each row; its last token is not run
        lengths = (run + 1).repeat_interleave(run)[None]
    else:
        lengths = made["attention_mask"].sum(1, keepdim=True)

    def moved(module: Any, given: Any, found: Any) -> Any:
        bound = alpha / (lengths * found.shape[-1]).sqrt()
        return found + bound[..., None].to(found.dtype) * torch.empty_like(found).uniform_(-1, 1)

    hook = model.get_input_embeddings().register_forward_hook(moved)
    try:
        yield
    finally:
        hook.remove()


def loss(model: Any, made: dict[str, Any] | packing.Packed) -> Any:
    """Cross-entropy summed over the answer tokens of a pass."""
    found, labels = logits(model, made)
    return torch.nn.functional.cross_entropy(found, labels, ignore_index=batches.IGNORED, reduction="sum")


def log_probabilities(model: Any, made: dict[str, Any] | packing.Packed) -> Any:
    """(K,), of every answer token of a pass, row by row."""
    found, labels = logits(model, made)
    chosen = labels != batches.IGNORED
    return -torch.nn.functional.cross_entropy(found[chosen], labels[chosen], reduction="none")


def settled(passes: Passes, model: Any, rows: Sequence[TrainingRow]) -> tuple[Passes, str]:
    """``passes``, or padded ones and why: a packed pass must give the log-probabilities of a padded one.

    Tried on the eight shortest rows, of as many tokens as a pass has, for architectures differ in ways that no
    configuration states.
    """
    if passes.loop == "padded":
        return passes, ""
    padded = dataclasses.replace(passes, loop="padded")
    few = heapq.nsmallest(_TRIED, rows, key=lambda row: len(row.ids))
    while len(few) > 2 and len(few) * len(few[-1].ids) > passes.tokens:
        few.pop()
    packed, plain = (dataclasses.replace(one, compiled=False) for one in (passes, padded))
    model.eval()
    with torch.no_grad():
        try:
            found, expected = _answers(packed, model, few), _answers(plain, model, few)
        except packing.Unpackable as fault:
            return padded, f"Rows are padded: {fault}."
        apart = (found - expected).abs()  # a number that is none agrees with none
        agree = bool(apart.max() <= _AGREE)
        if not agree and model.dtype in (torch.bfloat16, torch.float16):
            alone = torch.cat([_answers(plain, model, [row]) for row in few])
            agree = bool(apart.mean() <= max(_AGREE_HALF, 2 * (alone - expected).abs().mean()))
    if not agree:
        return padded, "Rows are padded: packed, this base gives other probabilities."
    return passes, ""


def _answers(passes: Passes, model: Any, rows: Sequence[TrainingRow]) -> Any:
    made = passes.prepare(rows, model.device)
    with passes.at_work(model), attending(made):
        return log_probabilities(model, made)
