"""How long the passes of a training take on a card: a model of four times, fitted to two published steps.

A pass takes what its products take, at a share of the card's peak; or what the host takes to launch its operations,
whichever is longer. Expanding quantised weights is added, and so is what cards send each other, as if nothing hid it.
``PUBLISHED`` has every step that this could be held against, those it was fitted to and the others.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from finbench.core.records import Bits, Recipe
from finbench.methods import Layer, targets
from finbench.training import machines, shapes
from finbench.training.machines import HOST, Card

_READ: dict[Bits, float] = {16: 2.0, 8: 3.5, 4: 4.5}  # bytes moved for a weight: read; or read, expanded, read again
_SENT: dict[Bits, float] = {16: 2.0, 8: 1.0, 4: 0.516}
# What bitsandbytes adds to a layer, forward and backward, in operations of the host (benchmarks/host_overhead.py).
_CODES: dict[Bits, tuple[int, int]] = {16: (0, 0), 8: (3, 3), 4: (8, 6)}
_BACKWARD = 2  # operations of a backward pass for one of the forward pass
_OPTIMISER = 60  # operations of an optimiser step, whose tensors go together
# torch.compile: +27 % of a full fine-tuning (torchtune), 14 to 19 % less time of a LoRA step (Axolotl).
_COMPILED = 1.2


def trained(recipe: Recipe, layers: list[Layer], parameters: int) -> int:
    """Numbers that train: those of LoRA at this rank, the order of every low-rank method; all, for ``full``."""
    if recipe.method == "full":
        return parameters
    return sum(recipe.rank * (layer.inputs + layer.outputs) for layer in targets(recipe, layers))


def inner(layers: list[Layer]) -> int:
    """Weights of the linear layers but the head: what is quantised, and what every token goes through."""
    chosen = (layer for layer in layers if not layer.head)
    return sum(layer.inputs * layer.outputs for layer in chosen)


@dataclass(frozen=True)
class Work:
    """What decides the time of a training's passes.

    ``linear``, ``head``: weights of the linear layers and of the head; ``trained``: numbers that train, beside them or
    (``whole``) all of them. ``layers``: linear layers. ``operations``: those that the host launches for a forward pass.
    ``cards``: that the base is spread over; 1: each has it whole.
    """

    linear: float
    head: float
    trained: float
    layers: int
    bits: Bits
    operations: int
    checkpointing: bool
    compiled: bool
    whole: bool = False
    cards: int = 1

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        layers: list[Layer],
        count: int,
        head: int,
        operations: int,
        checkpointing: bool,
        cards: int = 1,
    ) -> Work:
        """Of a recipe of which ``count`` numbers train."""
        return cls(
            linear=inner(layers),
            head=head,
            trained=count,
            layers=sum(not layer.head for layer in layers),
            bits=recipe.bits,
            operations=operations,
            checkpointing=checkpointing,
            compiled=recipe.compile,
            whole=recipe.method == "full",
            cards=cards,
        )

    @property
    def passes(self) -> int:
        """Times that a token goes through the weights: forward, backward, and forward again with checkpointing."""
        return 2 + self.checkpointing

    def flops(self, tokens: float, answers: float) -> float:
        """Floating-point operations of a pass that runs ``tokens`` positions and predicts ``answers`` of them."""
        again = 2 * self.checkpointing
        beside = 0 if self.whole else (6 + again) * self.trained
        body = (6 if self.whole else 4) * self.linear + again * self.linear + beside
        return tokens * body + answers * (6 if self.whole else 4) * self.head

    def elsewhere(self, card: Card) -> float:
        """Seconds of a pass that are not products: expanding weights, and gathering them from other cards."""
        expanded = 0.0 if self.bits == 16 else _READ[self.bits] * self.passes * self.linear / (card.bandwidth * 1e9)
        sent = 0.0
        if self.cards > 1:  # layers are let go after the forward pass and gathered again
            sent = 2 * _SENT[self.bits] * self.linear * (1 - 1 / self.cards) / (card.link * 1e9)
        return expanded + sent

    def host(self) -> float:
        """Seconds of the host for a pass."""
        forward, backward = _CODES[self.bits]
        launched = self.operations * (self.passes - 1 + _BACKWARD)
        return HOST * (launched + self.layers * (forward * (self.passes - 1) + backward))

    def seconds(self, card: Card, share: float, tokens: float, answers: float) -> tuple[float, float]:
        """(seconds of a pass, those that the card computes)."""
        rate = card.tflops * 1e12 * share * (_COMPILED if self.compiled else 1)
        products = self.flops(tokens, answers) / rate
        if self.bits == 16:  # weights are read while others are multiplied
            products = max(products, _READ[16] * self.passes * self.linear / (card.bandwidth * 1e9))
        busy = products + self.elsewhere(card)
        return max(busy, self.host()), busy

    def share_for(self, card: Card, tokens: float, answers: float, seconds: float) -> float:
        """The share of the peak at which a pass takes ``seconds``, where products decide: the inverse of that."""
        left = seconds - self.elsewhere(card)
        return self.flops(tokens, answers) / (card.tflops * 1e12 * left * (_COMPILED if self.compiled else 1))


def optimiser() -> float:
    """Seconds of the host for an optimiser step."""
    return HOST * _OPTIMISER


def exchange(card: Card, processes: int, count: int | float) -> float:
    """Seconds in which processes average the gradients, in float32, of ``count`` numbers: a ring sends each twice."""
    return 2 * (1 - 1 / processes) * 4 * count / (card.link * 1e9)


@dataclass(frozen=True)
class PublishedStep:
    """A published LoRA step: its shape in shapes.SHAPES, the tokens of a pass, what it reached, and where it is from.

    ``rate``: tokens a second of one card. ``memory``: GiB of one card. ``modules``: what carries adapters. ``fitted``:
    the time model is fitted to it; the others are only compared.
    """

    card: str
    cards: int
    shape: str
    bits: Bits
    rank: int
    rows: tuple[int, int]  # of a pass: number, tokens
    checkpointing: bool
    compiled: bool
    rate: float
    memory: float | None
    source: str
    fitted: bool = False
    modules: tuple[str, ...] | str = "all-linear"


_TORCHTUNE = "torchtune, README, Memory and training speed; recipes/configs/llama3_1"
_AUTOMODEL = "NeMo AutoModel, docs/performance-summary; examples/llm_benchmark"
_QVO = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PUBLISHED = (
    PublishedStep("h100", 1, "llama-3.1-8b", 16, 16, (2, 4096), False, False, 12_473, None, _AUTOMODEL, True),
    PublishedStep("rtx4090", 1, "llama-3.1-8b", 16, 8, (2, 2048), True, True, 3_083, 16.2, _TORCHTUNE, True, _QVO),
    PublishedStep("rtx4090", 1, "llama-3.1-8b", 4, 8, (2, 2048), True, True, 2_413, 7.4, _TORCHTUNE),
    # its memory says that activations were kept: 14 GiB more than the 4090's, where all else is the same
    PublishedStep("a6000", 1, "llama-3.1-8b", 16, 8, (2, 2048), False, True, 4_699, 30.3, _TORCHTUNE, modules=_QVO),
    PublishedStep("a100-80", 8, "llama-3.1-70b", 16, 16, (2, 2048), True, True, 437, 27.6, _TORCHTUNE, modules=_QVO),
    PublishedStep("h100", 8, "llama-3.1-70b", 16, 16, (2, 4096), False, False, 1_092, None, _AUTOMODEL),
)


@functools.cache
def fitted() -> tuple[tuple[float, float, str], ...]:
    """(peak in TFLOP/s, share of it reached, source) of the fitted steps, the lowest peak first."""
    found = []
    for step in PUBLISHED:
        if step.fitted:
            card, tokens = machines.CARDS[step.card], step.rows[0] * step.rows[1]
            share = published_work(step).share_for(card, tokens, tokens, tokens / step.rate)
            found.append((card.tflops, share, f"{step.source}: {step.rate:,.0f} tokens/s"))
    return tuple(sorted(found))


def share(card: Card) -> tuple[float, str]:
    """(share of a card's peak that eager training reaches, where from): by the logarithm of the peak.

    The higher the peak, the smaller the share of it that anybody reached. Beyond the two ends it is theirs.
    """
    if card.reached:
        return card.reached
    (low, most, small), (high, least, large) = fitted()
    part = min(1.0, max(0.0, math.log(card.tflops / low) / math.log(high / low)))
    return most + part * (least - most), small if part == 0 else large if part == 1 else f"between {small} and {large}"


def published_work(step: PublishedStep) -> Work:
    """The work of a published step; its host is fast enough."""
    from finbench.models import bases
    from finbench.training import recipes

    stated = {"tasks": ["mini_sentiment"], "bits": step.bits, "rank": step.rank, "compile": step.compiled}
    recipe = recipes.recipe(None, {**stated, "target_modules": step.modules})
    model = shapes.shaped(step.shape)
    layers, config = bases.layers_of(model), model.config
    count, head = trained(recipe, layers, 0), config.hidden_size * config.vocab_size
    made = Work.of(recipe, layers, count, head, 0, step.checkpointing, step.cards)
    return replace(made, layers=0)


def predicted(step: PublishedStep) -> float:
    """Tokens a second of one card that the model gives for a published step."""
    card, tokens, work = machines.CARDS[step.card], step.rows[0] * step.rows[1], published_work(step)
    seconds = work.seconds(card, share(card)[0], tokens, tokens)[0]
    return tokens / (seconds + exchange(card, step.cards, work.trained))
