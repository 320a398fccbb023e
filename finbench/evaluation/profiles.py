"""How prompts are put and answers generated: the settings of a run as its card states them, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Generation, Scorecard, Subject, Task
from finbench.core.settings import TEMPLATED, Evaluation, Settings

_OF_PROFILES = ("max_tokens", "temperature", "top_p", "think_end")


def in_template(wanted: Evaluation) -> Evaluation:
    """The settings, with the chat template that ``chat`` and ``think`` need; FinbenchError for ``--no-chat``."""
    if wanted.profile not in TEMPLATED:
        return wanted
    if wanted.chat is False:
        raise FinbenchError(f"Profile {wanted.profile} needs the chat template.", "Leave --no-chat out, or --profile.")
    return replace(wanted, chat=True)


def generation_of(wanted: Settings, tasks: Sequence[Task], subjects: Sequence[Subject]) -> Generation | None:
    """What the card says of it; None for the plain way. FinbenchError for settings that do not fit each other."""
    check_fit(wanted, tasks)
    if wanted.fewshot_as_multiturn and (bare := [one.name for one in subjects if not one.chat]):
        raise _no_turns(bare[0])
    found = Generation(
        profile=wanted.profile,
        **{name: getattr(wanted, name) for name in _OF_PROFILES},
        samples=wanted.samples,
        system_prompt=wanted.system_prompt or None,
        confidence=wanted.confidence,
        fewshot_as_multiturn=wanted.fewshot_as_multiturn if wanted.shots else None,
    )
    return None if found == Generation(profile="direct") else found


def _no_turns(who: str) -> FinbenchError:
    return FinbenchError(
        f"Worked examples are turns in a chat template only, and {who} is asked without.", "Add --chat"
    )


def check_fit(wanted: Settings, tasks: Sequence[Task]) -> None:
    """Refuse settings that do not fit each other or the tasks: FinbenchError."""
    if wanted.fewshot_as_multiturn and wanted.chat is False:
        raise _no_turns("the model")
    stated = [name for name in _OF_PROFILES if getattr(wanted, name) is not None]
    stated += ["samples"] if wanted.samples > 1 else []
    stated += ["confidence"] if wanted.confidence else []
    if wanted.profile == "direct" and stated:
        option = "--" + stated[0].replace("_", "-")
        raise FinbenchError(
            f"{option} is for the profiles chat, think and cot: direct answers as the task states.",
            f"Add --profile think, or leave {option} out.",
        )
    if not wanted.temperature and (wanted.samples > 1 or wanted.top_p is not None):
        option = "--samples" if wanted.samples > 1 else "--top-p"
        raise FinbenchError(f"{option} is of sampling, which needs a temperature.", "Add --temperature 0.6")
    if wanted.think_end is not None and not wanted.think_end.strip():
        raise FinbenchError("--think-end is empty.", "Write the text after which the answer stands: --think-end '</t>'")
    if wanted.profile in ("think", "cot"):
        scored = [task.name.removeprefix(catalog.PREFIX) for task in tasks if task.form == "choice"]
        if scored:
            raise FinbenchError(
                f"Log-likelihoods of labels leave no room to reason: profile {wanted.profile} is not for "
                f"{', '.join(scored)}.",
                "Name tasks whose answers are generated (finbench tasks list), or leave --profile out.",
            )


def settings_of(card: Scorecard) -> Settings:
    """The settings with which a card's own answers can be asked for again."""
    how: dict[str, Any] = card.generation.model_dump() if card.generation else {}
    return Settings(engine=card.engine, arguments=card.arguments, seed=card.seed, shots=card.shots, **how)
