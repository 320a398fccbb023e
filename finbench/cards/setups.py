"""What two scores must share to be compared, and to stand in one column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finbench.core.records import Score, Scorecard

OF_PROFILES = {"profile", "max_tokens", "subject.chat"}  # in which two profiles differ
# an answer's budget is part of the test; a temperature is a model's own affair
_GENERATION = {"profile", "max_tokens", "samples", "system_prompt", "fewshot_as_multiturn", "confidence"}
_PLAIN: dict[str, Any] = {"profile": "direct", "samples": 1, "confidence": False}


def setup_of(card: Scorecard, score: Score) -> dict[str, Any]:
    """What two scores must share to be comparable, by the field of the card."""
    return setup_of_score(score) | {"lower_is_better": sorted(score.lower_is_better)} | setup_of_card(card)


def setup_of_score(score: Score) -> dict[str, Any]:
    """What is a score's own of ``setup_of``; all values can be hashed."""
    return {
        "task_digest": score.task_digest,
        "main_metric": score.main_metric,
        "lower_is_better": tuple(sorted(score.lower_is_better)),
        "data.digest": score.data.digest,
        "n": score.n,
        "fewshot_split": score.fewshot_split,
        "fewshot_digest": score.fewshot_digest,
    }


def setup_of_card(card: Scorecard) -> dict[str, Any]:
    """What is the card's of ``setup_of``, for all of its scores."""
    return {
        "subject.chat": card.subject.chat,
        "shots": card.shots,
        "seed": card.seed if card.shots else None,
        **({} if card.generation is None else card.generation.model_dump(include=_GENERATION)),
    }


def apart(
    one: Mapping[str, Any], other: Mapping[str, Any], across_profiles: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Fields in which two setups differ, with both values; ``across_profiles``: but for what sets profiles apart."""
    one, other = _PLAIN | dict(one), _PLAIN | dict(other)
    fields = [field for field in dict.fromkeys([*one, *other]) if one.get(field) != other.get(field)]
    return {
        field: (one.get(field), other.get(field)) for field in fields if not across_profiles or field not in OF_PROFILES
    }
