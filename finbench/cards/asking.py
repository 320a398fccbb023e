"""What to type to ask a subject again, just as its card says that it was asked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from finbench.core import catalog
from finbench.core.records import BaseModelId, Score, Scorecard, Subject
from finbench.core.settings import TEMPLATED

_ROWS = "metadata."  # begins those arguments of a card that are choices of rows


def chosen_rows(card: Scorecard) -> dict[str, Any]:
    """What the card's run chose of its data sets (``--metadata``)."""
    return {k.removeprefix(_ROWS): v for k, v in card.arguments.items() if k.startswith(_ROWS)}


def file_name(name: str) -> str:
    """A name from a card as that of a file or folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "adapter"


def base_option(base: BaseModelId) -> str:
    """As ``--model`` and ``--base`` take it."""
    if base.fingerprint == "dummy":  # of the engine dummy, which has no folder
        return "dummy"
    if base.source == "hub" and base.hub_id:
        return shlex.quote(f"hub:{base.hub_id}" + (f"@{base.revision}" if base.revision else ""))
    return shlex.quote(base.alias) if base.source == "wheel" else "./" + file_name(base.alias)


def evaluation(card: Scorecard, who: str, scores: Sequence[Score] | None = None) -> str:
    """The ``finbench eval`` of a card, or of some of its scores; ``who``: options that name the subject.

    What another harness asked has its engine and its arguments from there; they are left out.
    """
    subject, scores = card.subject, card.scores if scores is None else scores
    tasks = ",".join(score.task.removeprefix(catalog.PREFIX) for score in scores)
    parts = ["finbench eval", who, f"--tasks {shlex.quote(tasks)}", f"--bits {subject.bits}"]
    implied = card.generation is not None and card.generation.profile in TEMPLATED
    parts += [] if implied else _template(subject)
    parts += [f"--shots {card.shots} --seed {card.seed}"] if card.shots else []
    parts += _generation(card)
    parts += [f"--limit {card.limit}"] if card.limit else []
    if card.origin == "finbench":
        parts += [] if card.engine == "hf" else [f"--engine {shlex.quote(card.engine)}"]
        arguments = {"dtype": card.dtype} | {k: str(v) for k, v in card.arguments.items() if not k.startswith(_ROWS)}
        parts += [f"--arg {shlex.quote(f'{key}={value}')}" for key, value in arguments.items()]
    chosen = chosen_rows(card) | {key: value for score in scores for key, value in score.data.choices.items()}
    parts += [f"--metadata {shlex.quote(f'{key}={value}')}" for key, value in sorted(chosen.items())]
    return " ".join(parts)


def plain(card: Scorecard, who: str) -> str:
    """The ``finbench eval`` of a card's subject in its bits and chat template, without tasks or anything else."""
    engine = [] if card.engine == "hf" or card.origin != "finbench" else [f"--engine {shlex.quote(card.engine)}"]
    return " ".join(["finbench eval", who, f"--bits {card.subject.bits}", *_template(card.subject), *engine])


def _template(subject: Subject) -> list[str]:
    return ["--chat"] if subject.chat else ["--no-chat"] if subject.kind != "base" else []


def _generation(card: Scorecard) -> list[str]:
    """Options of profile, sampling and prompts."""
    stated = card.generation.model_dump(exclude_none=True) if card.generation else {}
    turns, sure = stated.pop("fewshot_as_multiturn", None), stated.pop("confidence", False)
    parts = [] if turns is None else [f"--{'' if turns else 'no-'}fewshot-as-multiturn"]
    parts += ["--confidence"] if sure else []
    plain = {"profile": "direct", "samples": 1}
    options = {name: value for name, value in stated.items() if plain.get(name) != value}
    parts += [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in options.items()]
    sampled = card.generation is not None and card.generation.temperature and not card.shots
    return [*parts, f"--seed {card.seed}"] if sampled else parts
