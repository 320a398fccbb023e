"""An engine without a model: a hash decides. For tests, for trying a task, and as the random row of a table.

With ``answers=gold`` it answers every request rightly, which is how a task proves that its scorer can be
satisfied; with ``answers=random`` (the default) it picks among a task's labels by a hash of the prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.engines.interface import Done, Engine, Generated

_MODES = ("random", "gold")


class DummyEngine(Engine):
    """Deterministic answers, independent of order, batch and the process's hash seed."""

    name = "dummy"
    dtype = form = "none"

    def __init__(self, answers: str = "random", seed: int = 0, max_length: int = 1_000_000) -> None:
        if answers not in _MODES:
            raise FinbenchError(
                f"The dummy engine answers {' or '.join(_MODES)}, not {answers!r}.", "--arg answers=gold"
            )
        self.answers, self.seed, self.max_length = answers, seed, max_length
        self.adapter = ""
        self.lm_tasks: dict[str, Any] = {}

    def use(self, adapter: Path | None) -> None:
        """Another adapter gives other random answers."""
        self.adapter = adapter.name if adapter else ""

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """Words stand in for tokens."""
        words = len(str(request.args[0]).split())
        return words, words

    def chat_template(self) -> Any:
        """A template with role names."""
        return lambda messages, add_generation_prompt=True: (
            "".join(f"<{message['role']}>{message['content']}" for message in messages)
            + ("<assistant>" if add_generation_prompt else "")
        )

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        """A text, or a log-likelihood in (-10, 0)."""
        answers = [self._answer(request) for request in requests]
        if self.profile != "direct":  # words stand in for tokens
            answers = [
                Generated(answer, answer_tokens=len(answer.split())) if isinstance(answer, str) else answer
                for answer in answers
            ]
        done(dict(enumerate(answers)))
        return answers

    def _draw(self, *parts: str) -> float:
        text = "\0".join([str(self.seed), self.adapter, *parts])
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64

    def _answer(self, request: Any) -> Any:
        lm_task = getattr(request, "lm_task", self.lm_tasks[request.task_name])
        gold = lm_task.doc_to_target(request.doc)
        if isinstance(gold, int) and lm_task.config.doc_to_choice is not None:
            gold = lm_task.doc_to_choice(request.doc)[gold]
        gold = str(gold)
        if request.request_type == "loglikelihood":
            context, continuation = request.args
            if self.answers == "gold":
                return (-1.0, True) if continuation.strip() == gold.strip() else (-9.0, False)
            return -10 * self._draw(context, continuation), False
        if self.answers == "gold":
            return gold
        choices = getattr(lm_task, "finbench_labels", lambda doc: doc.get("choices"))(request.doc)
        if not choices or "label" not in request.doc:
            return ""
        sample = [str(request.args[1]["seed"])] if "seed" in request.args[1] else []
        return choices[int(self._draw(request.args[0], *sample) * len(choices))]
