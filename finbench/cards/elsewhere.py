"""What a card says of a model that is not here: who answered, what it cost, and what nobody can know."""

from __future__ import annotations

from collections.abc import Sequence

from finbench.core import records
from finbench.core.catalog import PREFIX
from finbench.core.records import Hosted, Score, Scorecard

UNKNOWN = "Its weights and revision are not known: the name may mean another model on another day."


def unseen(card: Scorecard) -> bool:
    """Whether the model was never here: what its weights are, and of how many bits, nobody knows."""
    return card.subject.base.fingerprint.startswith(("endpoint:", records.UNKNOWN))


def endpoint_notes(cards: Sequence[Scorecard]) -> list[str]:
    """A line for each task of each card whose model answered at an endpoint."""
    return [
        f"{card.subject.name}, {score.task.removeprefix(PREFIX)}: {who_answered(score.hosted)}; "
        f"{'; '.join(filter(None, [_left_out(score.hosted), _withheld(score.hosted), what_it_cost(score)]))}. {UNKNOWN}"
        for card in cards
        for score in card.scores
        if score.hosted
    ]


def who_answered(told: Hosted) -> str:
    """Names, fingerprints and days."""
    days = told.first if told.first == told.last else f"{told.first} to {told.last}"
    names = _listed(told.models) or "a model that is not named"
    stamps = f", system fingerprint {_listed(told.fingerprints)}" if told.fingerprints else ", no system fingerprint"
    return f"answered by {names}{stamps}, {days}"


def what_it_cost(score: Score) -> str:
    """Tokens and USD, as far as they are known."""
    told = score.hosted
    if told is None:
        return ""
    counted = f"{told.prompt_tokens:,} tokens of prompts, {told.answer_tokens:,} of answers"
    counted += f" ({told.reasoning_tokens:,} of reasoning)" if told.reasoning_tokens else ""
    counted += f", {told.uncounted:,} answers not counted" if told.uncounted else ""
    if score.price is None or told.cost is None:
        return f"{counted}, no price known"
    return f"{counted}; ${told.cost:,.2f} in all, ${score.price:,.2f} for 1,000 documents (prices: {told.prices})"


def _left_out(told: Hosted) -> str:
    """Options that the endpoint does not take."""
    return f"left out, for it does not take them: {', '.join(told.left_out)}" if told.left_out else ""


def _withheld(told: Hosted) -> str:
    return f"{told.withheld:,} answers were withheld by a filter and count as wrong" if told.withheld else ""


def _listed(counts: dict[str, int]) -> str:
    """One name; of several, how many answers each gave."""
    if len(counts) < 2:
        return next(iter(counts), "")
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
