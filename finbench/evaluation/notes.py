"""From what an endpoint said beside each answer to what the scorecard says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from finbench.core.records import Hosted

_MOST = 20  # names and fingerprints that a card shows; an endpoint may make one up for every answer


def hosted(notes: Iterable[Mapping[str, Any]]) -> Hosted | None:
    """The sum of the notes on a task's answers; None where there are none: the model was here."""
    every = list(notes)
    if not every:
        return None
    days = sorted(note["day"] for note in every)
    counted = [note for note in every if "prompt" in note]
    priced = [note for note in every if "cost" in note]
    last = priced[-1]["prices"] if len(priced) == len(every) else (None, None, None)
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


def _frequent(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common(_MOST))
