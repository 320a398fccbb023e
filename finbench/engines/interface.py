"""What ``finbench.evaluate`` asks of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finbench.core import environment
from finbench.core.settings import Profile

Done = Callable[[Mapping[int, Any]], object]  # {number of the request: its answer}, after each batch


@dataclass(frozen=True)
class Generated:
    """An answer under any profile but ``direct``, taken apart.

    ``text`` is the final part: what follows the reasoning, up to the first of the task's own stops; empty where there
    is none. ``truncated``: the budget ended before the answer was whole, so that nothing of it counts.
    """

    text: str
    reasoning: str = ""
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    truncated: bool = False


@dataclass(frozen=True)
class Told:
    """An answer, and what the endpoint that gave it says beside it: a ``note`` of JSON for the journal."""

    answer: Any
    note: Mapping[str, Any]


class Engine(Protocol):
    """Answers lm-eval requests for a base, with or without one of its adapters."""

    name: str
    dtype: str
    max_length: int
    form: str  # of the present subject: base, merged (into the weights), unmerged (beside them), none (no model here)
    mixes: bool = False  # whether it is a ``MixingEngine``
    profile: Profile = "direct"  # under the others texts are ``Generated``
    think_end: str | None = None  # text that ends the reasoning, where the user states it
    best: frozenset[str] = frozenset()  # tasks of which only a document's best label is wanted; the others get bounds

    def use(self, adapter: Path | None) -> None:
        """Answer as the base with this adapter folder from now on (None: the base alone)."""

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """(tokens of the prompt, tokens that prompt and answer need together) of an lm-eval Instance."""

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        """Answers in the order of the requests: texts for ``generate_until`` (``Generated`` where a profile
        other than ``direct`` is set), (log-likelihood, greedy) pairs.

        ``done`` is told every answer once, batch by batch; by an endpoint's engine as ``Told``.
        """

    def chat_template(self) -> Any:
        """The chat template as lm-eval calls it; FinbenchError if the base has none."""

    def forecast(self, requests: Sequence[Any]) -> str:
        """What these requests will cost, in words; nothing where they cost nothing but time."""
        return ""

    def memory(self) -> int:
        """Peak memory in bytes so far; of this process and its GPU, unless an engine has others."""
        return environment.peak_memory()

    def close(self) -> None:
        """Let go of the model; the engine is not used again."""
        return


class MixingEngine(Engine, Protocol):
    """An engine to which all its subjects are known when it is made, and that answers for several of them at once."""

    def answer_all(self, asked: Sequence[tuple[Path | None, Any]], done: Done) -> list[Any]:
        """As ``answer``, for pairs of (adapter, request)."""
