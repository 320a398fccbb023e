"""From what an endpoint said beside each answer to what the scorecard says of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from finbench.core.records import Hosted, Score, Scorecard
from finbench.evaluation.options import ENDPOINTS

_MOST = 20  # names and fingerprints that a card shows; an endpoint may make one up for every answer


def hosted(notes: Iterable[Mapping[str, Any]]) -> Hosted | None:
    """The sum of the notes on a task's answers; None where there are none: the model was here."""
    every = list(notes)
    if not every:
        return None
    days = sorted(note["day"] for note in every)
    counted = [note for note in every if "prompt" in note]
    priced = [note for note in every if "cost" in note]
    prices = {tuple(note["prices"]) for note in priced}
    last = (
        (None, None, None)
        if len(priced) < len(every)
        else prices.pop()
        if len(prices) == 1
        else (None, None, "several")
    )
    return Hosted(
        requests=len(every),
        first=days[0],
        last=days[-1],
        models=_frequent(note["model"] for note in every if "model" in note),
        fingerprints=_frequent(note["fingerprint"] for note in every if "fingerprint" in note),
        left_out=sorted({name for note in every for name in note.get("left_out", ())}),
        withheld=sum(bool(note.get("withheld")) for note in every),
        prompt_tokens=sum(note["prompt"] for note in counted),
        answer_tokens=sum(note["answer"] for note in counted),
        reasoning_tokens=sum(note["reasoning"] for note in counted),
        uncounted=len(every) - len(counted),
        cost=round(sum(note["cost"] for note in every), 10) if last[2] else None,
        price_in=last[0],
        price_out=last[1],
        prices=last[2],
    )


def contradictions(card: Scorecard, score: Score) -> Iterator[tuple[str, str]]:
    """What cannot be of what a card says of an endpoint: a place in it, and why."""
    told = score.hosted
    if told is None:  # cards of before had none, and no engine api
        if card.engine == "api":
            yield "", "is missing, though the model answered at an endpoint"
        return
    if card.engine not in ENDPOINTS:
        yield "", f"does not go with the engine {card.engine}"
    samples = card.generation.samples if card.generation else 1
    if score.form == "generate" and told.requests != score.n * samples:
        yield ".requests", f"is {told.requests}; {score.n} documents were asked {samples} times each"
    for name in ("models", "fingerprints"):
        if sum(getattr(told, name).values()) > told.requests:
            yield f".{name}", f"are of more answers than the {told.requests} that were asked for"
    for name in ("withheld", "uncounted"):
        if getattr(told, name) > told.requests:
            yield f".{name}", f"is more than the {told.requests} answers"
    if told.reasoning_tokens > told.answer_tokens:
        yield ".reasoning_tokens", "are more than the tokens of the answers"
    days = [told.first, told.last, card.provenance.created[:10]]
    if any(not re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day in days) or days != sorted(days):
        yield ".first", f"{told.first}, {told.last} and the day of the card are no days in their order"
    if told.cost is not None and told.price_in is not None and told.price_out is not None:
        due = (told.price_in * told.prompt_tokens + told.price_out * told.answer_tokens) / 1e6
        if told.cost < due - 1e-6 or (not told.uncounted and told.cost > due + 1e-6):
            yield ".cost", f"is {told.cost}; its tokens at its prices cost {due:.10g}"
    found = score.answers
    if (
        found
        and not told.uncounted + told.withheld
        and found.thinking_tokens + found.answer_tokens != told.answer_tokens
    ):
        yield (
            ".answer_tokens",
            f"is {told.answer_tokens}; the answers have {found.thinking_tokens + found.answer_tokens}",
        )


def _frequent(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common(_MOST))
