"""What ``finbench.evaluate`` asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Progress = Any  # callable(number of requests answered)


class Engine(Protocol):
    """Answers lm-eval requests for a base, with or without one of its adapters."""

    name: str
    dtype: str
    max_length: int

    def use(self, adapter: Path | None) -> None:
        """Answer as the base with this adapter folder from now on (None: the base alone)."""

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """(tokens of the prompt, tokens that prompt and answer need together) of an lm-eval Instance."""

    def answer(self, requests: Sequence[Any], progress: Progress) -> list[Any]:
        """Answers in the order of the requests: texts for ``generate_until``, (log-likelihood, greedy) pairs."""

    def chat_template(self) -> Any:
        """The chat template as lm-eval calls it; FinbenchError if the base has none."""
