"""The engine ``server``: any OpenAI-compatible endpoint answers, many requests at a time.

Texts come from /completions, under a chat template from /chat/completions. Log-likelihoods need an endpoint that
echoes the prompt with log-probabilities (vLLM's does); every label is a request of its own there.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.engines import thinking
from finbench.engines.http import Endpoint, Refused
from finbench.engines.interface import Done, Engine, Generated

_AT_ONCE = 16  # requests under way
_PATIENCE = 5.0  # seconds for those under way after a fault
_STOPS = 4  # stop texts that the OpenAI interface takes; the rest is cut off here
_SAMPLING = ("temperature", "top_p", "seed")
_SWITCH = "chat_template_kwargs"


class ServerEngine(Engine):
    """One model of an endpoint, by the name it has there. What is behind the name nobody can check."""

    name = "server"
    dtype, form = "unknown", "none"
    max_length = 10**9  # its own affair: it refuses what is too long, and the refusal is told

    def __init__(self, url: str, model: str, concurrency: int | None = None) -> None:
        self.endpoint, self.model = Endpoint.from_environment(url), model
        self.at_once = concurrency or _AT_ONCE
        self.refused: set[str] = set()  # fields that the endpoint does not take
        answered = self.endpoint.ask("/models")
        listed = answered.get("data") if isinstance(answered, dict) else answered
        known = [str(one.get("id")) for one in (listed if isinstance(listed, list) else []) if isinstance(one, dict)]
        if known and model not in known:
            raise FinbenchError(f"The endpoint has no model {model!r}.", f"It has: {', '.join(known[:12])}")

    def use(self, adapter: Path | None) -> None:
        """There is one subject only."""

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """Not counted: the tokenizer is the endpoint's."""
        return 0, 0

    def chat_template(self) -> Any:
        """The endpoint applies its own: prompts are lists of messages in JSON."""
        return lambda messages, add_generation_prompt=True: json.dumps(messages)

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        """Answers as they come in; the first fault stops the rest."""
        numbers = iter(range(len(requests)))  # that the threads share
        heard: queue.SimpleQueue[tuple[int, Any, Exception | None]] = queue.SimpleQueue()
        over = threading.Event()

        def ask() -> None:
            for number in numbers:
                if over.is_set():
                    return
                request = requests[number]
                one = self._scored if request.request_type == "loglikelihood" else self._said
                try:
                    heard.put((number, one(*request.args), None))
                except Exception as fault:  # noqa: BLE001  raised where it is heard
                    heard.put((number, None, fault))

        # daemons: an executor's threads would be waited for after Ctrl-C, however long the endpoint stays silent
        threads = [threading.Thread(target=ask, daemon=True) for _ in range(min(self.at_once, len(requests)))]
        for thread in threads:
            thread.start()
        answers: dict[int, Any] = {}
        try:
            while len(answers) < len(requests):
                number, said, fault = heard.get()
                if fault is not None:
                    raise fault
                answers[number] = said
                done({number: said})
        except Exception:
            over.set()
            until = time.monotonic() + _PATIENCE  # what is under way is let end, so that it meets nobody's next run
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            raise
        finally:
            over.set()
        return [answers[number] for number in range(len(requests))]

    def _said(self, prompt: str, stated: Mapping[str, Any]) -> str | Generated:
        how = normalize_gen_kwargs(dict(stated), 256)
        until = [stop for stop in how.get("until") or [] if stop]
        asks: dict[str, Any] = {"model": self.model, "max_tokens": int(how["max_gen_toks"])}
        asks |= {key: how[key] for key in _SAMPLING if how.get(key) is not None}
        if self.profile != "direct":
            return self._turn(prompt, asks, until)
        if until:
            asks["stop"] = until[:_STOPS]
        messages = _messages(prompt)
        if messages is not None:
            text = self._first("/chat/completions", {**asks, "messages": messages})["message"].get("content")
        else:
            text = self._first("/completions", {**asks, "prompt": prompt})["text"]
        return str(postprocess_generated_text(text or "", until, None))

    def _turn(self, prompt: str, asks: dict[str, Any], until: Sequence[str]) -> Generated:
        """A whole turn: its reasoning in a field of its own, or in its text."""
        messages = _messages(prompt)
        if messages is not None:
            # vLLM and SGLang pass these on to the template, which takes those that it knows
            on = self.profile == "think"
            asks |= {"messages": messages, "chat_template_kwargs": {"enable_thinking": on, "thinking": on}}
            found = self._answered("/chat/completions", asks)
        else:
            found = self._answered("/completions", {**asks, "prompt": prompt})
        first, usage = self._choice(found, "a turn"), found.get("usage") or {}
        said = first.get("message") or {"content": first.get("text")}
        details = usage.get("completion_tokens_details") or {}
        return thinking.given_apart(
            str(said.get("reasoning_content") or said.get("reasoning") or ""),
            str(said.get("content") or ""),
            profile=self.profile,
            until=until,
            ended=first.get("finish_reason") != "length",
            tokens=int(usage.get("completion_tokens") or 0),
            reasoning_tokens=details.get("reasoning_tokens"),
            prompt=prompt,
            think_end=self.think_end,
        )

    def _answered(self, path: str, asks: dict[str, Any]) -> Any:
        """The answer of an endpoint, which may refuse a field that is not OpenAI's: then it is asked without it."""
        sent = {key: value for key, value in asks.items() if key not in self.refused}
        try:
            return self.endpoint.ask(path, sent)
        except FinbenchError as fault:
            if isinstance(fault, Refused) or _SWITCH not in sent or _SWITCH not in fault.message:
                raise
        if _SWITCH not in self.refused:
            say(f"The endpoint takes no {_SWITCH}: whether the model thinks is its own affair.")
        self.refused.add(_SWITCH)
        return self._answered(path, asks)

    def _scored(self, context: str, continuation: str) -> tuple[float, bool]:
        if _messages(context) is not None:
            raise FinbenchError("An endpoint gives no log-likelihoods under a chat template.", "Use --no-chat")
        spaces = len(context) - len(context.rstrip())  # they belong to the first token of the answer
        start, prompt = len(context) - spaces, context + continuation
        asks = {"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        found = self._first("/completions", asks)
        part = found.get("logprobs") or {}
        offsets, values = part.get("text_offset") or [], part.get("token_logprobs") or []
        if not str(found.get("text", "")).startswith(prompt) or not offsets:
            raise FinbenchError(
                "The endpoint does not echo prompts with log-probabilities, which forms with labels need.",
                "Ask the generated form (fpb, not fpb_mc), or use --engine vllm",
            )
        # a token across the seam belongs to the answer: without it the start of a label would not count
        first = max((offset for offset in offsets if offset <= start), default=start)
        chosen = [at for at, offset in enumerate(offsets) if first <= offset < len(prompt)]
        if not chosen or not all(values[at] is not None and math.isfinite(values[at]) for at in chosen):
            raise FinbenchError(
                "The endpoint's log-probabilities are not finite, or do not fit the prompt.",
                "Serve the model by vLLM (finbench serve), or use --engine hf",
            )
        best = part.get("top_logprobs") or []
        greedy = all(at < len(best) and best[at] and values[at] >= max(best[at].values()) for at in chosen)
        return float(sum(values[at] for at in chosen)), greedy

    def _first(self, path: str, asks: dict[str, Any]) -> Any:
        return self._choice(self.endpoint.ask(path, asks), path)

    def _choice(self, found: Any, path: str) -> Any:
        try:
            return found["choices"][0]
        except (LookupError, TypeError) as fault:
            raise FinbenchError(
                f"The endpoint answers {path} with something that is no completion.",
                "Name an OpenAI-compatible endpoint: --arg url=http://127.0.0.1:8000/v1",
            ) from fault


def _messages(prompt: str) -> list[dict[str, str]] | None:
    """The messages that ``chat_template`` wrote, if the prompt is that."""
    if prompt.startswith('[{"role":'):
        with contextlib.suppress(ValueError):
            found: list[dict[str, str]] = json.loads(prompt)
            return found
    return None
