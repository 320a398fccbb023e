"""What a pretraining takes on a card, from its recipe alone: no text is read."""

from __future__ import annotations

from typing import Any

from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.pretraining import members, prepared, vocabulary
from finbench.pretraining.spec import PretrainRecipe
from finbench.training import GIB, machines, timing

# Of the share of a card's peak that trainings of adapters reach (49.9 h by it), that of nanoGPT's GPT-2 124M: 300e9
# tokens in about 4 days on 8 A100 of 40 GB, by its README. No other size is known.
_NANOGPT = 49.9 / 96
_AGAIN = 4 / 3  # operations where blocks are run again backwards: forward, forward again and twice as much back


class _Unmade:
    """A vocabulary that is to be made of the text, as far as sizes need it."""

    bos_token_id = eos_token_id = 0

    def __init__(self, entries: int) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return self.entries


def plan(
    recipe: PretrainRecipe, gpu: str | None = None, *, price: float | None = None, processes: int = 1
) -> dict[str, Any]:
    """Tokens, and each model's memory, hours and cost, on cards of the name ``gpu``; by default, of this machine.

    The share of its peak that a GPU reaches is that of nanoGPT's GPT-2 124M, other cards in proportion. ``price``: an
    hour of a card, in any currency. ``processes``: cards that share each step. FinbenchError for a model that a card
    cannot hold.
    """
    quiet()
    gpu = gpu or machines.this()
    card, steps, start = machines.card(gpu), recipe.total_steps, recipe.start
    share, source = timing.share(card)
    if card.reached is None:
        share, source = share * _NANOGPT, "nanoGPT's GPT-2 124M in about 4 days on 8 A100; other sizes and cards differ"
    entries: Any = _Unmade(start.vocabulary) if start.vocabulary else vocabulary.tokenizer_of(start, [], 0)
    models = [prepared.outlined(recipe, len(entries), one) for one in members.members(recipe, entries)]
    for model in models:
        needed = model["memory_bytes"] / GIB + card.context
        if needed > card.memory:
            smaller = f"Smaller passes: --set micro_batch={max(1, recipe.micro_batch // 2)}"
            again = "" if recipe.recompute else " --set recompute=true"
            raise FinbenchError(
                f"{model['name']} needs {needed:.1f} GiB, and {gpu} has {card.memory:g}.",
                f"{smaller}{again}; or a larger card: --gpu",
            )
        products = model["work"] * (_AGAIN if recipe.recompute else 1) / (card.tflops * 1e12 * share * processes)
        seconds = products + steps * timing.exchange(card, processes, model["trainable_parameters"])
        cost = None if price is None else round(price * processes * seconds / 3600, 2)
        model |= {"hours": round(seconds / 3600, 4), "cost": cost}
    return {
        "recipe": recipe.name,
        "gpu": gpu,
        "processes": processes,
        "steps": steps,
        "tokens": steps * recipe.batch * recipe.context,
        "vocabulary": len(entries),
        "source": source,
        "models": models,
    }
