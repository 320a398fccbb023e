"""What to type to get a row again: train, evaluate, check the card."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import yaml

from finbench.cards import asking
from finbench.core import catalog
from finbench.core.records import Scorecard
from finbench.leaderboard.rows import BoardCard

UNPACK = "Take the cards out of their Parquet files"


@dataclass(frozen=True)
class Steps:
    """Commands with what they are for; ``recipe`` is name and text of a file that the first of them reads."""

    steps: list[tuple[str, str]]
    recipe: tuple[str, str] | None = None


def reproduce(entry: BoardCard) -> Steps:
    """The commands for one card. Names from the card are quoted for a shell."""
    card, subject, file = entry.card, entry.card.subject, shlex.quote(entry.file)
    steps: list[tuple[str, str]] = [(UNPACK, "finbench leaderboard unpack unpacked")] if entry.packed else []
    recipe = folder = None
    if subject.kind != "base":
        folder = f"runs/{asking.file_name(subject.adapter_name or subject.name)}"
        zoo = (subject.adapter_name or "").removesuffix(f"-s{subject.seed}")
        what, command = "Get the adapter from its author: the card holds no recipe", f"ls {folder}"
        if entry.trained is not None:
            stated = entry.trained.record.recipe
            text = yaml.safe_dump(stated.model_dump(exclude={"name"}), sort_keys=False, allow_unicode=True)
            recipe = (f"{asking.file_name(stated.name)}.yaml", text)
            what = f"Train it by the recipe below, saved as {recipe[0]}"
            command = f"finbench train {recipe[0]} --out {folder}"
        elif zoo in catalog.recipe_files():
            what = "Train it, by the zoo's recipe of that name (the card itself holds no recipe)"
            command = f"finbench train {zoo} --seed {subject.seed or 0} --out {folder}"
        steps.append((what, command))
    if card.origin == "lm-eval":
        steps.append(("Run the same tasks, with stock lm-eval", _stock(card, folder)))
        steps.append(("Score its answers again", "finbench card import lm-eval-output"))
    elif card.origin == "inspect":
        steps.append(("Run the same tasks, with inspect-ai", _inspected(card)))
        steps.append(("Score its answers again", "finbench card import logs"))
    else:
        base = asking.base_option(subject.base)
        who = f"--adapter {folder} --base {base}" if folder else f"--model {base}"
        steps.append(("Run the same tasks", asking.evaluation(card, who)))
    again = f"finbench verify {file} --rerun auto" + (f" --adapter {folder}" if folder else "")
    steps.append(("Recompute every number of the card from its samples", f"finbench verify {file}"))
    steps.append(("Ask the model again", again))
    return Steps(steps, recipe)


def _inspected(card: Scorecard) -> str:
    """The run of inspect-ai whose answers the card holds."""
    base, provider = card.subject.base, card.engine.removeprefix("inspect ")
    tasks = [f"finbench/{score.task.removeprefix(catalog.PREFIX)}" for score in card.scores]
    parts = [
        "inspect eval",
        *map(shlex.quote, tasks),
        f"--model {shlex.quote(f'{provider}/{base.hub_id or base.alias}')}",
    ]
    parts += [f"-M revision={shlex.quote(base.revision)}"] if base.revision else []
    parts += [f"-M dtype={shlex.quote(card.dtype)}"] if card.dtype != "unknown" else []
    parts += [f"-T chat={str(card.subject.chat).lower()}"]
    parts += [f"-T shots={card.shots} -T seed={card.seed}"] if card.shots else []
    return " ".join([*parts, *([f"--limit {card.limit}"] if card.limit else [])])


def _stock(card: Scorecard, folder: str | None) -> str:
    """The run of lm-eval whose answers the card holds."""
    base = card.subject.base
    model = [f"pretrained={base.hub_id or base.alias}", *([f"revision={base.revision}"] if base.revision else [])]
    model += [f"dtype={card.dtype}", *([f"peft={folder}"] if folder else [])]
    tasks = ",".join(score.task for score in card.scores)
    parts = ['lm_eval run --include_path "$(finbench tasks path)"', f"--tasks {shlex.quote(tasks)}", "--model hf"]
    parts += [f"--model_args {shlex.quote(','.join(model))}"]
    parts += ["--apply_chat_template"] if card.subject.chat else []
    parts += [f"--num_fewshot {card.shots} --seed {card.seed}"] if card.shots else []
    parts += [f"--limit {card.limit}"] if card.limit else []
    return " ".join([*parts, "--log_samples --output_path lm-eval-output"])
