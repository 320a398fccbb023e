"""What answers cost: prices, a budget that is never exceeded, and a forecast."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from finbench.core.errors import FinbenchError

_MILLION = 1_000_000
_A_MESSAGE = 16  # tokens of its frame, at most
_BYTES_A_TOKEN = 4  # of English text, about


@dataclass(frozen=True)
class Prices:
    """USD for a million tokens, of the prompt and of the answer, and who says so."""

    prompt: float
    answer: float
    source: str

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """USD; discounts, as for prompts that the endpoint has seen before, are not counted."""
        return (self.prompt * prompt_tokens + self.answer * answer_tokens) / _MILLION


class Spent(FinbenchError):
    """The next request could exceed the budget."""


class Purse:
    """What one command may spend, shared by its threads and engines; None: as much as it takes."""

    def __init__(self, budget: float | None = None) -> None:
        self.budget, self.spent, self._under_way, self._requests = budget, 0.0, 0.0, 0
        self._changed = threading.Condition()

    def share(self, worst: float) -> Reservation:
        """Set aside what a request costs at worst, for a ``with``; waits for others that may turn out cheaper."""
        return Reservation(self, worst)

    def reserve(self, worst: float) -> None:
        """Raises Spent where nothing is under way that could leave room."""
        with self._changed:
            while self.budget is not None and self.spent + self._under_way + worst > self.budget:
                if not self._requests:
                    raise Spent(
                        f"The budget of ${self.budget:,.6g} ends here: ${self.spent:,.4f} were spent, "
                        f"and the next request may cost ${worst:,.4f}.",
                        "What was answered is kept. Go on by repeating the command; every command has its --budget.",
                    )
                self._changed.wait()
            self._under_way += worst
            self._requests += 1

    def settle(self, worst: float, cost: float) -> None:
        """A request that was reserved for has cost so much."""
        with self._changed:
            self._requests -= 1
            self._under_way = self._under_way - worst if self._requests else 0.0
            self.spent += cost
            self._changed.notify_all()


class Reservation:
    """What is set aside of a purse for one request. ``cost``: what it has cost, once that is known."""

    def __init__(self, purse: Purse, worst: float) -> None:
        self.purse, self.worst, self.cost, self._held = purse, worst, 0.0, False

    def __enter__(self) -> Reservation:
        self.purse.reserve(self.worst)
        self._held = True
        return self

    def lost(self) -> None:
        """An attempt has perhaps cost its worst, and another one follows."""
        self.purse.settle(self.worst, self.worst)
        self._held = False
        self.purse.reserve(self.worst)
        self._held = True

    def __exit__(self, *_: object) -> None:
        if self._held:
            self.purse.settle(self.worst, self.cost)


def most_tokens(text: str) -> int:
    """More than a prompt has: every token is a byte at least."""
    return len(text.encode("utf-8", "replace")) + _A_MESSAGE * (1 + text.count('{"role":'))


def likely_tokens(text: str) -> int:
    """What a prompt has about."""
    return len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN + 1


def forecast(texts: list[str], answers: list[int], prices: Prices | None, at_once: int, a_minute: int | None) -> str:
    """What requests with these prompts, and at most so many tokens of answer each, will cost and how long they take."""
    prompt = sum(map(likely_tokens, texts))
    said = f"{len(texts):,} requests, about {prompt:,} tokens of prompts and at most {sum(answers):,} of answers"
    if prices is None:
        cost = "no price is known (--arg price_in=..., price_out=...: USD for a million tokens)"
    else:
        worst = prices.of(sum(map(most_tokens, texts)), sum(answers))
        cost = f"${prices.of(prompt, 0):,.2f} for the prompts, at most ${worst:,.2f} in all ({prices.source})"
    # a second until the first token and fifty tokens a second after it, as hosted models do at their usual speed
    seconds = sum(1 + tokens / 50 for tokens in answers) / at_once
    seconds = max(seconds, 60 * len(texts) / a_minute) if a_minute else seconds
    return f"{said}; {cost}; about {max(1, round(seconds / 60)):,} min, {at_once} at a time."
