"""What the prompt does: scores of subjects by several prompts, and whether their order stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure, Prompts, Score
from finbench.scoring import metrics

_HOW = "Ask by several: finbench eval ... --prompts 8"


@dataclass(frozen=True)
class ByPrompt:
    """One score by several prompts. ``own``: the main metric by the task's own, its interval over documents alone."""

    subject: str
    task: str
    metric: str
    own: Measure
    prompts: Prompts


@dataclass(frozen=True)
class RankStability:
    """How the order of subjects on a task depends on the prompt.

    ``tau``: Kendall's, the mean over all pairs of prompts; 1: all rank alike. ``swapped``: share of the pairs of
    subjects of which one is ahead by some prompt, and behind by another. ``firsts``: by how many prompts each is first
    alone; ``tied``: by how many several share the first place.
    """

    task: str
    subjects: list[str]
    prompts: list[str]
    tau: float
    swapped: float
    firsts: dict[str, int]
    tied: int


@dataclass(frozen=True)
class PromptEffects:
    """Scores by prompt, and of several subjects on one task the stability of their order."""

    scores: list[ByPrompt]
    ranks: list[RankStability]


def by_prompt(cards: Sequence[Path | str], *, tasks: Sequence[str] = ()) -> PromptEffects:
    """The scores of these cards (files, or folders) that were asked by several prompts (``--prompts``).

    Subjects are ranked together where they answered the same prompts of the same version of a task, on the same rows.
    Raises FinbenchError where no score has more than its own prompt.
    """
    wanted = {task.name for task in catalog.expand(tasks)}
    read = [(path, cardfiles.read(path)) for path in cardfiles.expand(cards)]
    names = Counter(card.subject.name for _, card in read)
    found: list[tuple[ByPrompt, Score]] = []
    for path, card in read:
        name = card.subject.name if names[card.subject.name] == 1 else str(path.with_suffix(""))
        for score in card.scores:
            if score.prompts and (not wanted or score.task in wanted):
                found.append((ByPrompt(name, score.task, score.main_metric, score.main, score.prompts), score))
    if not found:
        raise FinbenchError("No score here was asked by more than one prompt.", _HOW)
    alike: dict[tuple[Any, ...], list[ByPrompt]] = {}
    for one, score in found:
        alike.setdefault((one.task, score.task_digest, score.data.digest, score.n, digests(one.prompts)), []).append(
            one
        )
    ranks = [_stability(group) for group in alike.values() if len(group) > 1]
    return PromptEffects([one for one, _ in found], ranks)


def digests(prompts: Prompts) -> tuple[tuple[str, str], ...]:
    """Which prompts exactly."""
    return tuple((one.name, one.digest) for one in prompts.each)


def _stability(group: Sequence[ByPrompt]) -> RankStability:
    task, names = group[0].task, [one.name for one in group[0].prompts.each]
    sign = -1 if group[0].metric in metrics.lower_is_better(task) else 1
    scores = {one.subject: [sign * prompt.main.value for prompt in one.prompts.each] for one in group}
    ahead = [  # for each pair of subjects, by each prompt: 1 the first, -1 the second, 0 neither
        [(one > other) - (one < other) for one, other in zip(scores[a], scores[b], strict=True)]
        for a, b in combinations(scores, 2)
    ]
    agreeing = [one[at] * one[other] for one in ahead for at, other in combinations(range(len(names)), 2)]
    best = [max(own[at] for own in scores.values()) for at in range(len(names))]
    alone = [sum(own[at] == most for own in scores.values()) == 1 for at, most in enumerate(best)]
    return RankStability(
        task,
        list(scores),
        names,
        tau=sum(agreeing) / len(agreeing),
        swapped=sum({1, -1} <= set(one) for one in ahead) / len(ahead),
        firsts={
            name: sum(value == most and lone for value, most, lone in zip(own, best, alone, strict=True))
            for name, own in scores.items()
        },
        tied=alone.count(False),
    )
