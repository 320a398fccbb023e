"""The engines ``server`` and ``api``: models elsewhere, many requests at a time, under one set of rules.

``server`` asks any OpenAI-compatible address: texts come from /completions, under a chat template from
/chat/completions. Log-likelihoods need an endpoint that echoes the prompt with log-probabilities (vLLM's does); every
label is a request of its own there. ``api`` asks a provider by LiteLLM, in messages only.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.engines import replies, spending, thinking
from finbench.engines.hosted import LiteLLMWire
from finbench.engines.http import Endpoint, Refused, Rejected, Wire
from finbench.engines.interface import Done, Engine, Generated, Told
from finbench.engines.pace import Pace
from finbench.engines.replies import Reply, Usage
from finbench.engines.spending import Prices, Purse

_AT_ONCE = 16  # requests under way
_PATIENCE = 5.0  # seconds for those under way after a fault
_PAID_PATIENCE = 60.0  # where they cost something
_STOPS = 4  # stop texts that the OpenAI interface takes; all are applied here as well
_SAMPLING = ("temperature", "top_p", "seed")
# what may be left out where an endpoint does not take it; what is scored stays the same, or the card says so
_LEFT_OUT = (*_SAMPLING, "stop", "chat_template_kwargs", "reasoning_effort")
_LIMITS = ("max_tokens", "max_completion_tokens")  # two names of one limit
_NAMED = {name.replace("_", ""): name for name in (*_LEFT_OUT, *_LIMITS)} | {"stopsequences": "stop"}
# what OpenAI's reasoning models answer, as a refusal, where all tokens went into reasoning
_UNFINISHED = re.compile("could not finish the message|output limit was reached", re.IGNORECASE)
_AS_WRONG = "wrong"  # of ``withheld``: what a filter withheld counts as a wrong answer


class EndpointEngine(Engine):
    """One model, by the name it has there. What is behind the name nobody can check.

    ``stated``: the arguments of the engine (``--arg``), see docs/evaluation.md; ``purse``: what the command may spend.
    """

    dtype, form = "unknown", "none"
    max_length = 10**9  # its own affair: it refuses what is too long, and the refusal is told

    def memory(self) -> int:
        """0: what the model takes where it is, nobody here knows."""
        return 0

    def __init__(self, name: str, model: str, stated: Mapping[str, Any], purse: Purse | None = None) -> None:
        self.name, self.model, self.stated, self.purse = name, model, dict(stated), purse or Purse()
        self.at_once = int(stated.get("concurrency") or _AT_ONCE)
        how: dict[str, Any] = {"pace": Pace(stated.get("requests_per_minute"), stated.get("tokens_per_minute"))}
        how |= {"timeout": float(stated["timeout"])} if "timeout" in stated else {}
        self.wire: Wire
        if name == "api":
            self.wire = hosted = LiteLLMWire(model, stated.get("url"), **how)
            self.known_as, found, takes = hosted.model, hosted.prices(), hosted.takes
            self.unsupported = frozenset(_LEFT_OUT) - takes  # by LiteLLM's table; others are learnt
            self.limit = _LIMITS["max_completion_tokens" in takes]
        else:
            self.wire, found, self.known_as = Endpoint.from_environment(stated["url"], **how), None, model
            self.unsupported, self.limit = frozenset[str](), _LIMITS[0]
            self._listed()
        self.body: dict[str, Any] = json.loads(stated.get("body") or "{}")
        if any(secret in stated.get("body", "") for secret in self.wire.secrets):
            raise FinbenchError("--arg body holds the key, and would stand on the scorecard.", "Leave it out there.")
        self.limit_is_sure = False  # the other name was tried
        if "price_in" in stated or "price_out" in stated:
            found = Prices(stated.get("price_in", 0.0), stated.get("price_out", 0.0), "as stated")
        self.prices = found
        if self.purse.budget is not None and found is None:
            raise FinbenchError(
                f"No price of {model} is known, so a budget cannot be kept.",
                "State it in USD for a million tokens: --arg price_in=0.15 --arg price_out=0.60",
            )

    def _listed(self) -> None:
        """The endpoint must have the model, where it lists what it has."""
        answered: Any = self.wire.ask("/models")
        listed = answered.get("data") if isinstance(answered, dict) else answered
        known = [str(one.get("id")) for one in (listed if isinstance(listed, list) else []) if isinstance(one, dict)]
        if known and self.model not in known:
            raise FinbenchError(f"The endpoint has no model {self.model!r}.", f"It has: {', '.join(known[:12])}")

    def use(self, adapter: Path | None) -> None:
        """There is one subject only."""

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        """Not counted: the tokenizer is the endpoint's."""
        return 0, 0

    def chat_template(self) -> Any:
        """The endpoint applies its own: prompts are lists of messages in JSON."""
        return lambda messages, add_generation_prompt=True: json.dumps(messages)

    def forecast(self, requests: Sequence[Any]) -> str:
        """Requests, tokens, USD and minutes, before anything is asked."""
        if not requests or (self.prices is None and self.name == "server"):
            return ""
        answers = [_limit(request) for request in requests]
        a_minute, texts = self.wire.pace.requests, [_text(request) for request in requests]
        return f"{self.model}: " + spending.forecast(texts, answers, self.prices, self.at_once, a_minute)

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        """Answers as they come in; the first fault stops the rest, and what is under way then is kept as well."""
        numbers = iter(range(len(requests)))  # that the threads share
        heard: queue.SimpleQueue[tuple[int, Any, Exception | None]] = queue.SimpleQueue()
        over, self.wire.stopped = threading.Event(), False

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

        def take(number: int, said: Told) -> None:
            answers[number] = said.answer
            done({number: said})

        try:
            while len(answers) < len(requests):
                number, said, fault = heard.get()
                if fault is not None:
                    raise fault
                take(number, said)
        except Exception:
            over.set()
            self.wire.stopped = True
            until = time.monotonic() + (_PAID_PATIENCE if self.prices else _PATIENCE)
            for thread in threads:  # what is under way is let end, so that it meets nobody's next run
                thread.join(max(0.0, until - time.monotonic()))
            raise
        finally:
            over.set()
            while len(answers) < len(requests) and not heard.empty():
                number, said, fault = heard.get()
                if fault is None and number not in answers:
                    take(number, said)
        return [answers[number] for number in range(len(requests))]

    def _said(self, prompt: str, stated: Mapping[str, Any]) -> Told:
        how = normalize_gen_kwargs(dict(stated), 256)
        until = [stop for stop in how.get("until") or [] if stop]
        asks: dict[str, Any] = {"max_tokens": int(how["max_gen_toks"])}
        asks |= {key: how[key] for key in _SAMPLING if how.get(key) is not None}
        messages = _messages(prompt)
        if self.profile == "direct" and until:  # under the others they would end the reasoning
            asks["stop"] = until[:_STOPS]
        if messages is not None and self.profile != "direct":
            asks |= self._switched(self.profile == "think")
        asks |= self.body
        route = "/completions" if messages is None else "/chat/completions"
        asks |= {"prompt": prompt} if messages is None else {"messages": messages}
        reply, note = self._asked(route, asks, prompt, self._reply)
        if reply.withheld:
            return Told("" if self.profile == "direct" else Generated(""), note)
        if self.profile == "direct":
            return Told(
                str(postprocess_generated_text(self._unthought(reply, messages is not None), until, None)), note
            )
        counted = reply.usage
        apart = thinking.given_apart(
            reply.reasoning,
            reply.text,
            profile=self.profile,
            until=until,
            ended=reply.ended,
            tokens=counted.answer if counted else 0,
            reasoning_tokens=counted.reasoning or None if counted else None,
            prompt=prompt,
            think_end=self.think_end,
        )
        return Told(apart, note)

    def _switched(self, on: bool) -> dict[str, Any]:
        """What turns thinking on or off, as far as endpoints can be told."""
        if self.name == "server":
            # vLLM, SGLang and llama.cpp pass these on to the template, which takes those that it knows
            return {"chat_template_kwargs": {"enable_thinking": on, "thinking": on}}
        return {"reasoning_effort": self.stated.get("reasoning_effort", "medium") if on else "none"}

    def _unthought(self, reply: Reply, chats: bool) -> str:
        """The text of a model that was to answer at once; FinbenchError where it spent the tokens on reasoning.

        One that chats and was cut off without a text has written what is not shown.
        """
        thought = (
            reply.reasoning or (reply.usage and reply.usage.reasoning) or (chats and not reply.ended and not reply.text)
        )
        if thought and not reply.text.strip():
            raise FinbenchError(
                f"{self.model} reasons before it answers, and no token was left for an answer.",
                "Let it reason, and have only its answer read: --profile think --max-tokens 4096",
            )
        return reply.text

    def _reply(self, found: Any) -> Reply:
        return self._allowed(replies.read(found, self.known_as, also=self.stated.get("answered_by")))

    def _allowed(self, reply: Reply) -> Reply:
        if reply.withheld and self.stated.get("withheld") != _AS_WRONG:
            raise FinbenchError(
                "A filter of the endpoint withheld an answer, so the model cannot be scored on it.",
                f"Count such answers as wrong, which the scorecard will say: --arg withheld={_AS_WRONG}",
            )
        return reply

    def _scored(self, context: str, continuation: str) -> Told:
        if _messages(context) is not None:
            raise FinbenchError("An endpoint gives no log-likelihoods under a chat template.", "Use --no-chat")
        spaces = len(context) - len(context.rstrip())  # they belong to the first token of the answer
        start, prompt = len(context) - spaces, context + continuation
        asks = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}

        def read(found: Any) -> tuple[Reply, tuple[float, bool]]:
            return self._reply(found), replies.log_likelihood(found, prompt, start)

        (_, answer), note = self._asked("/completions", asks, prompt, read)
        return Told(answer, note)

    def _asked(
        self, route: str, asks: dict[str, Any], prompt: str, read: Callable[[Any], Any]
    ) -> tuple[Any, dict[str, Any]]:
        """What ``read`` makes of the reply, and its note. What the endpoint does not take is left out for good."""
        tokens = spending.most_tokens(prompt)
        worst = self.prices.of(tokens, asks["max_tokens"]) if self.prices else 0.0
        while True:
            left = self.unsupported & asks.keys()
            sent = {name: value for name, value in asks.items() if name not in left} | {"model": self.model}
            sent[self.limit] = sent.pop("max_tokens")
            with self.purse.share(worst) as share:
                try:
                    likely = spending.likely_tokens(prompt) + asks["max_tokens"]
                    found = self.wire.ask(route, sent, read, tokens=likely, lost=share.lost)
                except Rejected as fault:
                    if fault.state == 400 and _UNFINISHED.search(fault.said):
                        share.cost = worst
                        found = Reply("", "", False, False, None, None, None)
                        return found, self._note(found, worst, left)
                    if self._learnt(fault, sent):
                        continue
                    if replies.WITHHELD.search(fault.code):  # Azure's filter of prompts
                        found = self._allowed(Reply("", "", True, True, None, None, None))
                        return found, self._note(found, 0.0, left)
                    raise
                except Refused:
                    raise
                except FinbenchError:  # something was answered
                    share.cost = worst
                    raise
                reply = found[0] if isinstance(found, tuple) else found
                share.cost = self._cost(reply.usage, worst)
                return found, self._note(reply, share.cost, left)

    def _learnt(self, fault: Rejected, sent: Mapping[str, Any]) -> bool:
        """Whether a refusal is of an option that can be left out, or called otherwise, from now on."""
        if fault.state not in (400, 422):
            return False
        words = [fault.param.split(".")[0], *re.findall(r"\w+", fault.said)]
        named = [_NAMED.get(word.replace("_", "").lower(), "") for word in words]  # some write topP
        names = [name for name in dict.fromkeys(named) if name in sent]
        name = "top_p" if {"temperature", "top_p"} <= set(names) else next(iter(names), None)
        if name in _LIMITS:
            if name == self.limit:  # else another thread has learnt it meanwhile
                if self.limit_is_sure:
                    return False
                self.limit, self.limit_is_sure = _LIMITS[1 - _LIMITS.index(name)], True
        elif name is not None:
            if name not in self.unsupported:
                thinks = name in ("chat_template_kwargs", "reasoning_effort")
                after = "whether the model thinks is its own affair" if thinks else "the scorecard says so"
                say(f"The endpoint takes no {name}: {after}.")
            self.unsupported |= {name}
        return name is not None

    def _cost(self, usage: Usage | None, worst: float) -> float:
        if self.prices is None or usage is None or usage.prompt is None:
            return worst
        return self.prices.of(usage.prompt, usage.answer)

    def _note(self, reply: Reply, cost: float, left: frozenset[str]) -> dict[str, Any]:
        """What the journal keeps of a reply, and the card sums."""
        note: dict[str, Any] = {"day": datetime.now(UTC).strftime("%Y-%m-%d")}
        note |= {"model": reply.model} if reply.model else {}
        note |= {"fingerprint": reply.fingerprint} if reply.fingerprint else {}
        if reply.usage and reply.usage.prompt is not None:
            note |= {"prompt": reply.usage.prompt, "answer": reply.usage.answer, "reasoning": reply.usage.reasoning}
        if self.prices:
            note |= {"cost": cost, "prices": [self.prices.prompt, self.prices.answer, self.prices.source]}
        note |= {"left_out": sorted(left)} if left else {}
        note |= {} if reply.ended else {"cut": True}
        return note | ({"withheld": True} if reply.withheld else {})


def _messages(prompt: str) -> list[dict[str, str]] | None:
    """The messages that ``chat_template`` wrote, if the prompt is that."""
    if prompt.startswith('[{"role":'):
        with contextlib.suppress(ValueError):
            found: list[dict[str, str]] = json.loads(prompt)
            return found
    return None


def _text(request: Any) -> str:
    return "".join(request.args) if request.request_type == "loglikelihood" else str(request.args[0])


def _limit(request: Any) -> int:
    """Tokens that an answer may have."""
    if request.request_type == "loglikelihood":
        return 1
    return int(normalize_gen_kwargs(dict(request.args[1]), 256)["max_gen_toks"])
