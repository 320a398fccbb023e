"""What ``finbench.evaluate`` asks of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from finbench.core import environment

Done = Callable[[Mapping[int, Any]], object]  # {number of the request: its answer}, after each batch


class Engine(Protocol):
    """Answers lm-eval requests for a base, with or without one of its adapters.

    One that ``mixes`` knows all its subjects when it is made, and has ``answer_all``: as ``answer``, for pairs of
    (adapter, request). Of the tasks in ``best`` only a document's most probable label is wanted; the others get upper
    bounds.
    """

    name: str
    dtype: str
    max_length: int
    form: str  # of the present subject: base, merged (into the weights), unmerged (beside them), none (no model here)
    mixes: bool = False
    best: frozenset[str] = frozenset()

    def use(self, adapter: Path | None) -> None:
        """Answer as the base with this adapter folder from now on (None: the base alone)."""

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """(tokens of the prompt, tokens that prompt and answer need together) of an lm-eval Instance."""

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        """Answers in the order of the requests: texts for ``generate_until``, (log-likelihood, greedy) pairs.

        ``done`` is told every answer once, batch by batch.
        """

    def chat_template(self) -> Any:
        """The chat template as lm-eval calls it; FinbenchError if the base has none."""

    def memory(self) -> int:
        """Peak memory in bytes so far; of this process and its GPU, unless an engine has others."""
        return environment.peak_memory()

    def close(self) -> None:
        """Let go of the model; the engine is not used again."""
        return
