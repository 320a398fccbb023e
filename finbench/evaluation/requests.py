"""What each task asks: its requests by their digests, by its own prompt and by those of ``--prompts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Generation, Score, Task
from finbench.core.settings import Evaluation
from finbench.evaluation.journal import request_digests
from finbench.scoring import metrics, prompted, prompts, wordings


@dataclass
class _Made:
    """The requests of a task. ``names``: their digests by the prompt; ``measured``: what a score says of its own."""

    every: dict[str, Any] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    measured: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)


class Requests:
    """The requests of tasks, rendered once for each prompt style: plainly, or in the chat template."""

    def __init__(
        self, tasks: Sequence[Task], lm_tasks: Mapping[str, Any], settings: Evaluation, generation: Generation | None
    ) -> None:
        self.settings, self.how = settings, generation or prompts.PLAIN
        self.wanted = {task.name: prompts_of(task, settings.prompts) for task in tasks}
        self.lm_tasks = {
            name: {one.name: wordings.put(lm_tasks[name], one) for one in wanted}
            for name, wanted in self.wanted.items()
        }
        self._made: dict[tuple[str, bool], _Made] = {}

    def render(self, engine: Any, chat: bool, tasks: Sequence[Task]) -> None:
        """Make and measure the requests of ``tasks``; FinbenchError for prompts that do not fit."""
        template = engine.chat_template() if chat else None
        faults = []
        for task in tasks:
            if (task.name, chat) not in self._made:
                made, most = self._rendered(task, engine, template)
                self._made[task.name, chat] = made
                if (over := sum(made.truncated.values())) and self.settings.arguments.get("truncate") != "left":
                    faults.append(f"{task.name}: {over} of {len(made.every)} prompts need up to {most} tokens")
        if faults:
            raise FinbenchError(
                f"The model's context has {engine.max_length} tokens. " + "; ".join(faults) + ".",
                "Cut them on the left, which the scorecard will show: --arg truncate=left"
                + (", or give answers less room: --max-tokens" if self.settings.profile != "direct" else ""),
            )

    def _rendered(self, task: Task, engine: Any, template: prompts.Template | None) -> tuple[_Made, int]:
        made, most = _Made(), 0
        for name, lm_task in self.lm_tasks[task.name].items():
            limit = prompts.whole(lm_task, self.settings.limit)
            asked = prompts.requests(lm_task, limit, template, self.how, self.settings.seed)
            prompted = [one for one in asked if not isinstance(one, prompts.Asked) or one.sample == 0]
            sizes = [engine.prompt_tokens(instance) for instance in prompted]
            over = [needed for _, needed in sizes if needed > engine.max_length]
            made.truncated[name], most = len(over), max([most, *over])
            if name == wordings.OWN:
                by_document = {one.doc_id: prompt for one, (prompt, _) in zip(prompted, sizes, strict=True)}
                made.measured = {"prompt_tokens": sum(by_document.values()), "truncated": len(over)}
            made.names[name] = request_digests(asked)
            if len(self.wanted[task.name]) > 1:
                wordings.told_apart(asked, lm_task)
            made.every |= dict(zip(made.names[name], asked, strict=True))
        if len(made.names) > 1:  # all prompts of a document side by side
            made.every = dict(sorted(made.every.items(), key=lambda item: item[1].doc_id))
        return made, most

    def every(self, task: str, chat: bool) -> dict[str, Any]:
        """All requests of a task by digest."""
        return self._made[task, chat].every

    def own(self, task: str, chat: bool) -> dict[str, Any]:
        """The requests by the task's own prompt, by digest."""
        made = self._made[task, chat]
        return {name: made.every[name] for name in made.names[wordings.OWN]}

    def measured(self, task: str, chat: bool) -> dict[str, int]:
        """Tokens, and how many are cut, of the task's own prompts."""
        return self._made[task, chat].measured

    def holds(self, score: Score) -> bool:
        """Whether an earlier score has all the prompts that are wanted now."""
        wanted = {(one.name, one.digest) for one in self.wanted[score.task][1:]}
        return wanted <= {(one.name, one.digest) for one in (score.prompts.each if score.prompts else ())}

    def with_prompts(
        self, task: Task, chat: bool, score: Score, rows: list[dict[str, Any]]
    ) -> tuple[Score, list[dict[str, Any]]]:
        """A score and its rows with what the other prompts gave, once all requests are answered."""
        wanted, made = self.wanted[task.name], self._made[task.name, chat]
        if len(wanted) == 1:
            return score, rows
        asked = {name: [made.every[one] for one in digests] for name, digests in made.names.items()}
        rows = prompted.joined(task, rows, wanted, self.lm_tasks[task.name], asked)
        how = metrics.aggregations(task.name)[task.main_metric]
        found = prompted.summary(task, wanted, rows, how, made.truncated)
        return score.model_copy(update={"prompts": found}), rows


def prompts_of(task: Task, stated: str | None) -> list[wordings.Wording]:
    """The prompts that ``--prompts`` names, the task's own first; alone where none is named, or it has no other."""
    known = wordings.of(task)
    return known[:1] if stated is None or len(known) == 1 else wordings.chosen(task, stated)
