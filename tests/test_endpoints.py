"""The engine of endpoints against a server that answers in the shapes of real ones, and misbehaves in every way."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endpoints import DIALECTS, Answer, FakeEndpoint, chat, completion
from finbench.core.errors import FinbenchError
from finbench.engines import http, pace, replies, spending
from finbench.engines.endpoint import EndpointEngine
from finbench.engines.http import Refused, Rejected
from finbench.evaluation import evaluator, verification

MESSAGES = json.dumps([{"role": "user", "content": "Profit rose. Sentiment?"}])
PROMPT = "Profit rose. Sentiment:"


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pause is made; they are written down."""
    taken: list[float] = []
    own = SimpleNamespace(sleep=taken.append, monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr(http, "time", own)
    monkeypatch.setattr(pace, "time", own)
    return taken


def request(kind: str = "chat", **how: Any) -> Any:
    if kind == "scored":
        return SimpleNamespace(request_type="loglikelihood", args=(PROMPT, " positive"))
    asks = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False, **how}
    return SimpleNamespace(request_type="generate_until", args=(MESSAGES if kind == "chat" else PROMPT, asks))


def asked(answer: Any, kind: str = "chat", profile: Any = "direct", **stated: Any) -> tuple[Any, FakeEndpoint]:
    """The answer of one request to an endpoint that always gives ``answer``, and the endpoint."""
    found = answer if callable(answer) else lambda path, body: answer if isinstance(answer, Answer) else Answer(answer)
    with FakeEndpoint(found) as fake:
        engine = EndpointEngine("server", "m", {"url": fake.url, "timeout": 5, **stated})
        engine.profile = profile
        [said] = engine.answer([request(kind)], lambda done: None)
        assert engine.memory() == 0  # the client's is not the model's
    return said, fake


# ------------------------------------------------------------------------------------------ shapes of real endpoints


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_read(name: str) -> None:
    body, text, reasoning = DIALECTS[name]
    assert asked(body)[0] == text
    read = replies.read(body, "m")
    assert (read.text, read.reasoning, read.ended) == (text, reasoning, True)
    apart, fake = asked(body, profile="think")
    assert (apart.text, apart.reasoning, apart.truncated) == (text, reasoning, False)
    if read.usage:
        assert apart.reasoning_tokens + apart.answer_tokens == read.usage.answer
    assert "stop" not in fake.seen[0][2]  # it would end the reasoning
    assert fake.seen[0][2]["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}


def test_reasoning_that_was_cut_off_is_no_answer() -> None:
    cut = chat(None, reasoning="Profit rose, so it is positive", finish_reason="length")
    assert asked(cut, profile="think")[0].truncated
    assert asked(chat("", reasoning="so positive", finish_reason="length"), profile="think")[0].text == ""
    for silent in (cut, chat("", usage={"prompt_tokens": 1, "completion_tokens": 12,
                                        "completion_tokens_details": {"reasoning_tokens": 12}},
                             finish_reason="length")):  # fmt: skip
        with pytest.raises(FinbenchError, match="reasons before it answers") as fault:
            asked(silent)
        assert "--profile think" in fault.value.hint


# how a budget that went into reasoning is told: no content at all (Gemini), an empty one, a refusal (OpenAI)
SILENT: list[Any] = [
    {"choices": [{"finish_reason": "length", "index": 0, "message": {"role": "assistant"}}], "model": "m",
     "usage": {"prompt_tokens": 19, "completion_tokens": 0, "total_tokens": 531}},
    chat(None, finish_reason="MAX_TOKENS", usage=None),
    chat("", finish_reason="length", usage=None),
    chat([], finish_reason="incomplete", usage=None),
    chat([{"type": "redacted_thinking", "data": "EmwKAhgB"}], finish_reason="max_output_tokens"),
    Answer({"error": {"message": "Could not finish the message because max_tokens or model output limit was reached. "
                      "Please try again with higher max_tokens.", "param": None, "code": None}}, 400),
]  # fmt: skip


@pytest.mark.parametrize("body", SILENT, ids=range(len(SILENT)))
def test_a_budget_that_went_into_reasoning_is_cut_off_and_asked_for_once(body: Any) -> None:
    apart, fake = asked(body, profile="think", price_in=1, price_out=1)
    assert (apart.text, apart.truncated, apart.answer_tokens) == ("", True, 0)
    assert len(fake.seen) == 1
    with pytest.raises(FinbenchError, match="no token was left for an answer"):
        asked(body)


def test_reasoning_that_is_counted_apart_or_in_the_total_alone_is_paid_for() -> None:
    for stated, answer, reasoning in (
        ({"completion_tokens": 0, "total_tokens": 531}, 512, 512),
        (
            {"completion_tokens": 90, "total_tokens": 149, "completion_tokens_details": {"reasoning_tokens": 40}},
            130,
            40,
        ),
        ({"completion_tokens": 9, "total_tokens": 122, "completion_tokens_details": {"reasoning_tokens": 94}}, 103, 94),
        ({"completion_tokens": 90, "total_tokens": 109, "completion_tokens_details": {"reasoning_tokens": 40}}, 90, 40),
        ({"completion_tokens": 90, "total_tokens": "many"}, 90, 0),
        ({"completion_tokens": 90, "total_tokens": 5}, 90, 0),
    ):
        usage = replies.read(chat(usage={"prompt_tokens": 19, **stated}), "m").usage
        assert usage == replies.Usage(19, answer, reasoning)


# ---------------------------------------------------------------------------------------------- shapes that are none

DEEP = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
TYPES: list[Any] = [5, 1.5, True, {"a": 1}, ["x"], "text", None, [], {}, ""]


def _bad() -> Iterator[tuple[str, Any, str]]:
    """(what is wrong, what is sent, what the line says); every one ends in that line."""
    for value in TYPES:
        yield f"body is {value!r}", value, "no completion"
        yield f"choices is {value!r}", chat(choices=value), "no completion"
        if not isinstance(value, dict):
            yield f"choice is {value!r}", chat(choices=[value]), "no completion"
        if not isinstance(value, dict | None):
            yield f"message is {value!r}", chat(message=value), "no completion"
        if not isinstance(value, str | list | None):
            yield f"content is {value!r}", chat(value), "no completion"
            yield f"reasoning is {value!r}", chat(reasoning=value), "no completion"
        if not isinstance(value, str | None):
            yield f"model is {value!r}", chat(model=value), "no completion"
            yield f"finish_reason is {value!r}", chat(finish_reason=value), "no completion"
    for part in ("x", 5, {"type": "image_url"}, {"type": "text", "text": 5}, {"text": "positive"}, None):
        yield f"part of the content is {part!r}", chat([part]), "no completion"
    yield "a tool is called", chat(None, finish_reason="tool_calls"), "calls a tool"
    yield "a function is called", {"choices": [{"message": {"content": None, "function_call": {}},
                                                "finish_reason": "function_call"}]}, "calls a tool"  # fmt: skip
    for name in ("m-mini", "gpt-4o", "other/m2", "m" * 600, "M 2"):
        yield f"model is {name[:20]}", chat(model=name), "answers|no completion"
    for reason in ("content_filter", "SAFETY", "refusal", "RECITATION", "prohibited_content", "guardrail_intervened"):
        yield f"withheld: {reason}", chat("", finish_reason=reason), "withheld"
    yield "refusal", {"choices": [{"message": {"content": None, "refusal": "I cannot."}}]}, "withheld"
    yield (
        "azure's filter of prompts",
        Answer({"error": {"code": "content_filter", "message": "filtered"}}, 400),
        "withheld",
    )
    yield "null text", chat(None), "no text"
    for reason in ("error", "abort", "insufficient_system_resource", "cancelled"):
        yield f"broken off: {reason}", chat("pos", finish_reason=reason), "broke an answer off"
    yield "error inside", {"error": {"message": "provider down", "code": 502}}, "502 provider down"
    for code in (None, "bad_thing"):
        error = {"message": "no such thing", "type": "x", "code": code}
        yield f"error inside, {code}", {"error": error}, r"answers with an error \(inside a 200 reply\): no such thing"
    yield "error as text", {"error": "model is loading"}, "model is loading"
    yield "deep", Answer(DEEP), "nested too deep"
    yield "a page", Answer(b"<!doctype html>\n<title>\nSign in</title>", kind="text/html"), "no JSON"
    yield "nothing", Answer(b""), "no JSON"
    yield "a stream", Answer(b'data: {"choices": []}\n\ndata: [DONE]\n', kind="text/event-stream"), "a stream"
    yield "a stream that begins with a comment", Answer(b": PROCESSING\n\ndata: {}\n"), "a stream"
    yield "no UTF-8", Answer(b"\xff\xfe\x00"), "no JSON"
    yield "cut JSON", Answer(b'{"choices": [{"message": {"content": "pos'), "ends too early"
    yield "cut in the middle", Answer(chat(), cut=40), "6 attempts"
    yield "cut at the start", Answer(chat(), cut=0), "6 attempts"
    yield "a number of a million digits", Answer(b'{"created": ' + b"1" * 10**6 + b"}"), "thousands of digits"
    yield (
        "lists without end",
        Answer(json.dumps(chat()).encode()[:-1] + b', "x": [' + b"[]," * 2**21 + b"0]}"),
        "values",
    )
    yield "two answers in one", Answer(json.dumps(chat()).encode() * 2), "6 attempts"
    yield "packed as brotli", Answer(chat(), headers={"Content-Encoding": "br"}), "packed"
    yield "torn packing", Answer(b"\x1f\x8b\x00nothing", headers={"Content-Encoding": "gzip"}), "torn"
    yield "a bomb", Answer(gzip.compress(b" " * 80 * 2**20), headers={"Content-Encoding": "gzip"}), "more than 64 MB"
    for state in (300, 301, 302, 307, 308):
        yield f"{state}", Answer(b"", state, {"Location": "http://127.0.0.1:9/v1"}), "sends elsewhere|refuses"
    for state in (400, 401, 402, 403, 404, 405, 413, 418, 422, 451, 501):
        yield f"{state}", Answer({"error": {"message": "no"}}, state), rf"refuses \({state}\): no"
    for state in (408, 429, 500, 502, 503, 504, 520, 529):
        yield f"{state}", Answer({"error": {"message": "busy"}}, state), f"{state} busy"
    yield "quota", Answer({"error": {"message": "pay", "code": "insufficient_quota"}}, 429), r"refuses \(429\): pay"
    for said in (
        b"<html>502</html>",
        b"",
        DEEP,
        b'{"error": 5}',
        b'{"error": [1]}',
        b"[[]]",
        b'{"detail": [{"loc": []}]}',
    ):
        yield f"refusal in the shape {said[:20]!r}", Answer(said, 400), "refuses"


BAD = list(_bad())


@pytest.mark.parametrize(("what", "body", "line"), BAD, ids=[what for what, *_ in BAD])
def test_a_bad_shape_is_one_clear_line(what: str, body: Any, line: str, naps: list[float]) -> None:
    with pytest.raises(FinbenchError, match=line) as fault:
        asked(body)
    assert fault.value.hint
    assert "\n" not in fault.value.message
    assert len(fault.value.message) < 700


def test_there_are_many_bad_shapes() -> None:
    assert len({what for what, *_ in BAD}) >= 120


def test_what_is_odd_and_harmless_is_scored_rightly() -> None:
    """Fields that decide nothing may hold anything; halves of characters are what every decoder makes of them."""
    for usage in (None, "x", 5, [], {"prompt_tokens": "9"}, {"prompt_tokens": -1, "completion_tokens": math.inf},
                  {"prompt_tokens": 1e99, "completion_tokens": True}, {"completion_tokens_details": 5}):  # fmt: skip
        assert asked(Answer(json.dumps(chat(usage=usage)).encode()))[0] == "positive"
    nan = json.dumps(chat("positive", system_fingerprint=None, created=math.nan)).encode()
    assert asked(Answer(nan))[0] == "positive"
    assert asked(chat("positive\ud83d"))[0] == "positive\ufffd"
    assert asked(chat("\ud83d\ude00 \udc00"))[0] == "\U0001f600 \ufffd"
    assert asked(chat("positive\nand more"))[0] == "positive"  # stops are applied here as well
    assert asked(chat(""))[0] == ""
    assert asked(completion(), kind="text")[0] == " positive"
    packed = Answer(gzip.compress(json.dumps(chat()).encode()), headers={"Content-Encoding": "gzip"})
    assert asked(packed)[0] == "positive"


# any JSON, of which a few values mean something
_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5),
        st.sampled_from(["stop", "length", "content_filter", "m", "gpt-4o", "\ud800", "", "positive"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "type", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*at, key))


def _changed(value: Any, place: tuple[Any, ...], to: Any) -> Any:
    if not place:
        return to
    found = copy.copy(value)
    found[place[0]] = _changed(value[place[0]], place[1:], to)
    return found


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_changed_field_changes_no_answer_in_silence(data: st.DataObject) -> None:
    """Whatever stands in any field of any dialect: the right text, or a fault that is told or passes."""
    body, text, _ = DIALECTS[data.draw(st.sampled_from(sorted(DIALECTS)))]
    place = data.draw(st.sampled_from(list(_places(body))))
    value = data.draw(_VALUES)
    try:
        read = replies.read(_changed(body, place, value), "m")
    except (FinbenchError, http.Passing):
        return
    whole = {(), ("choices",), ("choices", 0), ("choices", 0, "message")}
    if place[:4] == ("choices", 0, "message", "content") or place in whole:
        assert isinstance(read.text, str)
        read.text.encode()
    else:
        assert read.text == text
    assert read.model is None or replies.same_model("m", read.model)


# ------------------------------------------------------------------------------------------------- log-probabilities

TOKENS = ["Profit", " rose", ".", " Sentiment", ":", " pos", "itive", "\n"]


def echoed(**changes: Any) -> dict[str, Any]:
    text = "".join(TOKENS)
    part: dict[str, Any] = {
        "tokens": TOKENS,
        "token_logprobs": [None, -1.0, -1.0, -1.0, -1.0, -0.5, -0.25, -3.0],
        "top_logprobs": [None] + [{"x": -0.5}] * 7,
        "text_offset": [0, 6, 11, 12, 22, 23, 27, 32],
    }
    return completion(text, logprobs=part | changes)


def test_log_likelihoods_need_no_honest_offsets() -> None:
    """vLLM counts a special token at the start; tokens decoded one by one lose the space before a word."""
    assert asked(echoed(), "scored")[0] == (-0.75, True)
    begun = {
        "tokens": ["<|begin_of_text|>", *TOKENS],
        "token_logprobs": [None, -9.0, -1.0, -1.0, -1.0, -1.0, -0.5, -0.25, -3.0],
        "top_logprobs": [None] + [{"x": -0.5}] * 8,
        "text_offset": [0, 17, 23, 28, 29, 39, 40, 44, 49],
    }
    assert asked(echoed(**begun), "scored")[0] == (-0.75, True)
    bare = [token.lstrip(" ") for token in TOKENS]
    assert asked(echoed(tokens=bare, text_offset=[0, 6, 10, 11, 20, 21, 24, 29]), "scored")[0] == (-0.75, True)
    assert asked(echoed(text_offset=[0] * 8), "scored")[0] == (-0.75, True)  # the tokens say where they are
    assert asked(echoed(top_logprobs=None), "scored")[0] == (-0.75, False)
    assert asked(echoed(top_logprobs=[{"x": -0.25}] * 8), "scored")[0][1] is False
    assert asked(echoed(top_logprobs=[{"x": -3.5}] * 8), "scored")[0][1] is True


_VALUE = [None, -1.0, -1.0, -1.0, -1.0, -0.5, -0.25, -3.0]
SCORES: list[dict[str, Any]] = [
    *({"token_logprobs": [*_VALUE[:5], value, -0.25, -3.0]}
      for value in (50.0, math.nan, math.inf, -math.inf, -1e308, -(10**400), "-0.5", True, None, [], {})),
    *({name: value} for name in ("tokens", "token_logprobs") for value in (None, "x", 5, {}, [], _VALUE[:4], [5] * 8)),
    *({"text_offset": value} for value in (None, "x", 5, {}, [], [0, 6])),
    *({"top_logprobs": value} for value in ("x", 5, {"a": 1}, [5] * 8, [{"x": "a"}] * 8, [{"x": 50.0}] * 8, [{}],
                                            [{"x": -(10**400)}] * 8)),
    {"tokens": ["a"] * 8},
    {"tokens": [*TOKENS[:5], " neg", "ative", "\n"]},
    {"tokens": ["\ufffd"] * 8, "text_offset": [0] * 8},
    {"tokens": [*TOKENS[:5], "\ufffd", "itive", "\n"], "text_offset": ["0", None, 11, 12, 22, 23, 27, 32]},
    {"tokens": [*TOKENS[:5], "\ufffd", "itive", "\n"], "text_offset": [0, 6, 11, 12, 22, 23, 99, 32]},
]  # fmt: skip


@pytest.mark.parametrize("changes", SCORES, ids=str)
def test_bad_log_probabilities_are_one_clear_line(changes: dict[str, Any]) -> None:
    with pytest.raises(FinbenchError, match="finite|does not echo"):
        asked(Answer(json.dumps(echoed(**changes)).encode()), "scored")


def test_a_reply_that_echoes_something_else_is_refused(naps: list[float]) -> None:
    for body in (completion(" positive"), completion(5), completion(None), echoed() | {"model": "other"},
                 completion("".join(TOKENS), logprobs=None), completion("".join(TOKENS), logprobs=[1])):  # fmt: skip
        with pytest.raises((FinbenchError, Refused)):
            asked(body, "scored", timeout=1)


# -------------------------------------------------------------------------------------------------- names of models


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", True),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", True),
        ("gemini-2.5-flash", "gemini-2.5-flash-preview-05-20", True),
        ("gemini-1.5-flash", "models/gemini-1.5-flash-001", True),
        ("llama3", "llama3:latest", True),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct", True),
        ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1", True),
        ("tiny", "/models/tiny.gguf", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4", "gpt-4-turbo", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13", False),
        ("gemini-1.5-flash-001", "gemini-1.5-flash-002", False),
        ("llama3", "llama3:70b", False),
        ("meta-llama/x", "nvidia/x", False),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct-Turbo", False),
        ("o1", "o1-mini", False),
        ("m", "", False),
    ],
)
def test_which_names_are_the_same_model(one: str, other: str, same: bool) -> None:
    assert replies.same_model(one, other) is same


def test_another_name_of_the_model_can_be_stated() -> None:
    with pytest.raises(FinbenchError, match="m was asked, and gpt-4o-2024-08-06 answers") as fault:
        asked(chat(model="gpt-4o-2024-08-06"))
    assert "answered_by=gpt-4o-2024-08-06" in fault.value.hint
    assert asked(chat(model="gpt-4o-2024-08-06"), answered_by="gpt-4o")[0] == "positive"


# ------------------------------------------------------------------------------------------------- pauses and limits


def after(*answers: Answer) -> Any:
    """These one after the other, then the right one."""
    left = list(answers)
    return lambda path, body: left.pop(0) if left else Answer(chat())


def test_an_endpoint_is_asked_again_when_it_says(naps: list[float]) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    for stated, least, most in (
        ({"Retry-After": "7"}, 7, 10),
        ({"Retry-After": when}, 38, 56),
        ({"retry-after-ms": "3500"}, 3.5, 5),
        ({"Retry-After": "soon"}, 0.5, 0.7),
        ({"Retry-After": "-5"}, 0.5, 0.7),
        ({"Retry-After": "nan"}, 0.5, 0.7),
        ({"Retry-After": "Wed, 99 Foo 2026"}, 0.5, 0.7),
        ({"Retry-After": "Fri, 01 Jan 1999 00:00:00 GMT"}, 0.5, 0.7),
        ({}, 0.5, 0.7),
    ):
        naps.clear()
        assert asked(after(Answer({"error": {"message": "slow"}}, 429, stated)))[0] == "positive"
        assert least <= naps[0] <= most, (stated, naps)
    with pytest.raises(Refused, match="asks to wait 86,400 s"):
        asked(Answer({}, 429, {"Retry-After": "86400"}))


PASSING = [
    {"message": "model overloaded", "type": "x"},
    {"message": "We are at capacity, please try again later."},
    {"message": "Rate limit reached for model"},
    {"message": "no", "type": "rate_limit_error"},
    {"message": "no", "type": "overloaded_error"},
    {"message": "no", "code": "server_error"},
    {"message": "no", "code": "503"},
    {"message": "upstream request timeout"},
    {"message": "Provider returned error", "metadata": {"raw": "Overloaded"}},
    "The model is temporarily unavailable",
]


@pytest.mark.parametrize("error", PASSING, ids=map(str, PASSING))
def test_an_error_inside_a_reply_that_may_pass_is_asked_again(error: Any, naps: list[float]) -> None:
    said, fake = asked(after(*[Answer({"error": error})] * 2))
    assert (said, len(fake.seen)) == ("positive", 3)
    assert len(naps) >= 2


@pytest.mark.parametrize(
    "error",
    [
        {"message": "You exceeded your quota, see rate limits.", "code": "insufficient_quota"},
        {"message": "The prompt is too long. Please try again with a shorter one."},
        {"message": "Shorten the prompt and try again."},
    ],
)
def test_an_error_inside_a_reply_that_stays_is_told_at_once(error: Any, naps: list[float]) -> None:
    with pytest.raises(FinbenchError, match=r"answers with an error \(inside a 200 reply\)") as fault:
        asked(Answer({"error": error}))
    assert "Earlier answers are kept: the same command goes on." in fault.value.hint
    assert naps == []


def test_a_refused_peak_lets_threads_come_back_one_by_one(naps: list[float]) -> None:
    limits = pace.Pace()
    for _ in range(16):
        limits.refused()  # together
    assert limits._gap == pace._FIRST_GAP
    for _ in range(4):
        limits.wait()
    assert naps == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
    for _ in range(60):
        limits.taken()
    assert limits._gap == 0


def test_stated_limits_a_minute_are_kept(naps: list[float]) -> None:
    limits = pace.Pace(requests=2)
    for _ in range(5):
        limits.wait()
    assert naps == pytest.approx([60, 60, 120], abs=0.1)
    naps.clear()
    limits = pace.Pace(tokens=100)
    for tokens in (60, 30, 20, 500):
        limits.wait(tokens)
    assert naps == pytest.approx([60, 120], abs=0.1)


def test_headers_that_say_nothing_is_left_are_believed_for_a_while() -> None:
    for headers, seconds in (
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, 60),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "820ms"}, 0.82),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset":
          (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")}, 29.5),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 20)}, 19.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "10s"}, 0),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, 0),
    ):  # fmt: skip
        limits = pace.Pace()
        limits.told(headers)
        assert max(0.0, limits._until - time.monotonic()) == pytest.approx(seconds, abs=1)


def test_nobody_there_is_told_within_seconds() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        started = time.monotonic()
        with pytest.raises(Refused, match="takes no connection") as fault:
            EndpointEngine("server", "m", {"url": url})
    assert time.monotonic() - started < 10
    assert "Start the server" in fault.value.hint


def test_an_answer_that_trickles_is_given_up() -> None:
    with pytest.raises(Refused, match="not done after 1 s"):
        asked(Answer(chat(), trickle=0.01), timeout=1)


@pytest.mark.parametrize(
    "piece", [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", b"H"]
)
def test_interim_answers_or_headers_without_end_are_given_up(piece: bytes) -> None:
    """Each read is quick, so that no timeout of a read ends them."""

    def send() -> None:
        talking, _ = server.accept()
        with talking, contextlib.suppress(OSError):
            for _ in range(2_000):
                talking.sendall(piece)
                time.sleep(0.005)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=send, daemon=True).start()
        endpoint = http.Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}/v1", attempts=1, timeout=0.5)
        with pytest.raises(Refused, match="not done after 0.5 s"):
            endpoint.ask("/chat/completions", {})


def test_a_slow_answer_is_waited_for() -> None:
    assert asked(Answer(chat(), pause=0.3))[0] == "positive"


@pytest.mark.parametrize("url", ["ftp://a/v1", "http://", "http://[::1", "http://u:p@h/v1", "http://h:99999/v1", "x"])
def test_a_bad_address_is_one_line(url: str) -> None:
    with pytest.raises(FinbenchError, match="no address"):
        EndpointEngine("server", "m", {"url": url})


# ------------------------------------------------------------------------------------------------ options left out


def picky(**refused: str) -> Any:
    """An endpoint that refuses some options, one at a time, in the words given for each."""

    def answer(path: str, body: Any) -> Answer:
        for name, words in refused.items():
            if name in body:
                return Answer({"error": {"message": words, "param": None, "code": None}}, 400)
        return Answer(chat("positive\nand so on"))

    return answer


def test_what_an_endpoint_does_not_take_is_left_out_and_named(tmp_path: Path) -> None:
    fussy = picky(
        max_tokens="Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
        temperature="Unsupported value: 'temperature' does not support 0.0 with this model.",
        stop="Unsupported parameter: 'stop' is not supported with this model.",
    )
    with FakeEndpoint(fussy) as fake:
        [card] = evaluator.evaluate(
            engine="server", model="m", arguments={"url": fake.url}, tasks=["mini_sentiment"], limit=5, chat=True,
            out=tmp_path,
        )  # fmt: skip
    assert card.scores[0].hosted is not None
    assert card.scores[0].hosted.left_out == ["stop", "temperature"]
    assert fake.seen[-1][2].keys() == {"model", "messages", "max_completion_tokens"}
    rows = evaluator.cardfiles.rows_by_task(tmp_path / "m.json", card)
    assert {row["answer"] for row in rows["finbench_mini_sentiment"]} == {"positive"}


# refusals as each says them, and what is left out then
REFUSALS: list[tuple[str, Any, int]] = [
    ("stop", {"error": {"message": "stop_sequences: each stop sequence must contain non-whitespace"}}, 400),
    ("stop", {"code": "Client specified an invalid argument", "error": "Argument not supported: stop"}, 400),
    ("temperature", {"error": "Input validation error: `temperature` must be strictly positive"}, 422),
    ("temperature", {"error": {"message": "`temperature` is deprecated for this model."}}, 400),
    ("temperature", [{"error": {"code": 400, "message": 'Unknown name "temperature": Cannot find field.'}}], 400),
    ("temperature", {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(
        {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model."}})}}}, 400),
    ("top_p", {"error": {"message": "`temperature` and `top_p` cannot both be specified for this model."}}, 400),
    ("top_p", {"error": {"message": "Model m does not support parameter topP."}}, 400),
    ("seed", {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}, 422),
    ("seed", {"error": {"message": "Unrecognized request argument supplied: seed"}}, 400),
    ("seed", {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed')}]"}, 400),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "state"), REFUSALS, ids=range(len(REFUSALS)))
def test_every_vendors_refusal_of_an_option_is_understood(name: str, body: Any, state: int) -> None:
    notes: list[Any] = []
    with FakeEndpoint(lambda path, asks: Answer(body, state) if name in asks else Answer(chat())) as fake:
        engine = EndpointEngine("server", "m", {"url": fake.url})
        [said] = engine.answer(
            [request(temperature=0.6, top_p=0.95, seed=7, do_sample=True)], lambda done: notes.append(done[0].note)
        )
    assert said == "positive"
    assert notes[0]["left_out"] == [name]
    assert fake.seen[-1][2].keys() == {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "stop"} - {
        name
    }


def test_more_fields_of_a_request_are_sent_and_stand_on_the_card(tmp_path: Path) -> None:
    """As for an address that has a word of its own for thinking."""
    with FakeEndpoint(lambda path, asks: Answer(chat())) as fake:
        said = ' {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"mode": "fast"}}'
        card = scored(fake, tmp_path, arguments={"body": said}, limit=5, profile="chat")
        assert fake.seen[-1][2]["thinking"] == {"type": "disabled"}
        assert fake.seen[-1][2]["chat_template_kwargs"] == {"mode": "fast"}
        assert json.loads(card.arguments["body"]) == json.loads(said)
        assert verification.verify(tmp_path / "m.json", rerun=5, base=fake.url).level == "reproduced"
        assert fake.seen[-1][2]["thinking"] == {"type": "disabled"}
        for odd, line in (
            ("5", "must be a JSON object"), ("{", "must be a JSON object"), ('{"a": NaN}', "must be a JSON object"),
            ("[" * 10**5, "must be a JSON object"), ('{"model": "other"}', "cannot set model"),
            ('{"stream": true}', "cannot set stream"),
        ):  # fmt: skip
            with pytest.raises(FinbenchError, match=line):
                scored(fake, tmp_path / "odd", arguments={"body": odd})


def test_what_cannot_be_left_out_is_told(naps: list[float]) -> None:
    for words in ("'max_tokens' and 'max_completion_tokens' are too large", "messages: too long", "model is unknown"):
        with pytest.raises(Rejected, match="refuses"):
            asked(Answer({"error": {"message": words}}, 400))


# --------------------------------------------------------------------------------------------------- cost and budget

PRICES = {"price_in": "10", "price_out": "20"}


def scored(fake: FakeEndpoint, out: Path, **options: Any) -> Any:
    arguments = {"url": fake.url, "concurrency": "4", **options.pop("arguments", {})}
    options = {"tasks": ["mini_sentiment"], "limit": 20, "chat": True, **options}
    return evaluator.evaluate(engine="server", model="m", arguments=arguments, out=out, **options)[0]


def test_a_budget_is_never_exceeded_and_the_next_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = (19 * 10 + 10 * 20) / 1e6
    with FakeEndpoint(lambda path, body: Answer(chat(), pause=0.01)) as fake:
        worst = (10 * spending.most_tokens(longest_prompt(fake, tmp_path)) + 20 * 12) / 1e6
        before = len(fake.seen)
        card, stopped = None, 0
        while card is None:
            try:
                card = scored(fake, tmp_path / "cards", arguments=PRICES, budget=1.3 * worst)
            except spending.Spent as stop:
                stopped += "What was answered is kept" in stop.hint
                spent = len(fake.seen) - before
            else:
                spent = len(fake.seen) - before
            before = len(fake.seen)
            assert 0 < spent * one <= 1.3 * worst
    assert stopped > 1
    told = card.scores[0].hosted
    assert told.cost == pytest.approx(20 * one)
    assert (told.price_in, told.price_out, told.prices, told.uncounted) == (10, 20, "as stated", 0)
    assert told.models == {"m": 20}
    assert told.fingerprints == {"fp_06737a9306": 20}
    assert card.scores[0].price == pytest.approx(1000 * one)
    assert "20 requests" in capsys.readouterr().err
    assert verification.verify(tmp_path / "cards" / "m.json").level == "samples-attached"
    report = (tmp_path / "cards" / "report.md").read_text()
    assert "$0.39 for 1,000 documents" in report
    assert "not known" in report


def longest_prompt(fake: FakeEndpoint, tmp_path: Path) -> str:
    """The longest prompt of a run."""
    scored(fake, tmp_path / "once")
    return max((json.dumps(body["messages"]) for *_, body in fake.seen), key=len)


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    with FakeEndpoint(lambda path, body: Answer(chat())) as fake:
        with pytest.raises(FinbenchError, match="No price of m is known"):
            scored(fake, tmp_path, budget=5.0)
        with pytest.raises(FinbenchError, match="engines that are paid for"):
            evaluator.evaluate(engine="dummy", tasks=["mini_ner"], budget=5.0, out=tmp_path)
        for value in ("-1", "nan", "inf", "much"):
            with pytest.raises(FinbenchError, match="price_in must be"):
                scored(fake, tmp_path, arguments={"price_in": value})


def test_an_attempt_that_was_lost_counts_at_its_worst(naps: list[float]) -> None:
    purse = spending.Purse(1.0)
    with FakeEndpoint(after(Answer(chat(), cut=30))) as fake:
        engine = EndpointEngine("server", "m", {"url": fake.url, "price_in": 1000.0, "price_out": 1000.0}, purse)
        engine.answer([request()], lambda done: None)
    worst = 1000 * (spending.most_tokens(MESSAGES) + 12) / 1e6
    assert purse.spent == pytest.approx(worst + 1000 * 29 / 1e6)


def test_answers_without_counts_cost_their_worst(naps: list[float]) -> None:
    purse, notes = spending.Purse(), []
    with FakeEndpoint(lambda path, body: Answer(chat(usage=None))) as fake:
        engine = EndpointEngine("server", "m", {"url": fake.url, "price_in": 1.0, "price_out": 1.0}, purse)
        engine.answer([request()], lambda done: notes.append(done[0].note))
    assert notes[0]["cost"] == pytest.approx((spending.most_tokens(MESSAGES) + 12) / 1e6)
    assert "prompt" not in notes[0]


# -------------------------------------------------------------------------------------------------- whole evaluations


def test_what_a_filter_withholds_is_counted_where_that_was_asked_for(tmp_path: Path) -> None:
    asked_for: list[str] = []

    def answer(path: str, body: Any) -> Answer:
        asked_for.append(body["messages"][-1]["content"])
        if list(dict.fromkeys(asked_for)).index(asked_for[-1]) % 5 == 4:  # the fifth prompt, the tenth, ...
            return Answer(chat(None, finish_reason="content_filter"))
        return Answer(chat())

    with FakeEndpoint(answer) as fake:
        with pytest.raises(FinbenchError, match="withheld"):
            scored(fake, tmp_path, arguments={"concurrency": "1"})
        card = scored(fake, tmp_path, arguments={"concurrency": "1", "withheld": "wrong"})
    told = card.scores[0].hosted
    assert told.withheld == 4
    assert told.requests == 20
    assert 21 <= len(asked_for) <= 24  # what was answered before the first fault was noticed is kept


def test_what_a_card_says_of_an_endpoint_must_be_possible(tmp_path: Path) -> None:
    from finbench.evaluation.notes import contradictions

    with FakeEndpoint(lambda path, body: Answer(chat())) as fake:
        card = scored(fake, tmp_path)
    [score] = card.scores
    assert not list(contradictions(card, score))
    for change in ({"requests": 19}, {"models": {"m": 21}}, {"fingerprints": {"f": 21}}, {"withheld": 21},
                   {"uncounted": 21}, {"reasoning_tokens": 999}, {"first": "2999-01-01"}):  # fmt: skip
        told = score.hosted.model_copy(update=change)
        assert list(contradictions(card, score.model_copy(update={"hosted": told}))), change
    assert not list(contradictions(card, score.model_copy(update={"hosted": None})))
    assert list(contradictions(card.model_copy(update={"engine": "hf"}), score))


def test_a_card_of_an_endpoint_is_asked_again_where_the_user_says(tmp_path: Path) -> None:
    with FakeEndpoint(lambda path, body: Answer(chat(model="m-0613"))) as fake, FakeEndpoint(fake.answers) as other:
        card = scored(fake, tmp_path)
        assert card.provenance.created
        path = tmp_path / "m.json"
        found = verification.verify(path, rerun=5, base=fake.url)
        assert found.level == "reproduced", found
        with pytest.raises(FinbenchError, match="does not say where"):
            verification.verify(path, rerun=5)
        with pytest.raises(FinbenchError, match="another address"):
            verification.verify(path, rerun=5, base=other.url)
        assert fake.url not in path.read_text()
        fake.answers = lambda path, body: Answer(chat("negative", model="m-0613"))
        assert verification.verify(path, rerun=20, base=fake.url).level != "reproduced"


def test_no_key_is_in_anything_that_is_kept_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "sk-canary-4711-0815"
    monkeypatch.setenv("FINBENCH_SERVER_KEY", canary)
    shapes = [body for _, body, _ in BAD[::9]]
    shapes += [Answer({"error": {"message": f"no such key: {canary}", "param": canary}}, state)
               for state in (400, 401, 403, 404, 422, 429, 500, 302)]  # fmt: skip
    shapes += [chat(model=canary), chat(finish_reason=[canary]), chat(choices=canary), Answer(canary.encode())]
    shapes += [chat(f"positive {canary}"), Answer(json.dumps(chat(canary)).replace("sk-", "sk\\u002d").encode())]
    shapes += [chat(system_fingerprint=canary), chat(reasoning=canary), chat(reasoning=canary.upper())]
    shapes += [Answer(chat(), headers={"Content-Encoding": canary.upper()})]
    with pytest.raises(FinbenchError, match="holds the key"), FakeEndpoint(lambda path, asks: Answer(chat())) as fake:
        scored(fake, tmp_path / "body", arguments={"body": json.dumps({"user": canary})})
    said = []
    for number, body in enumerate(shapes):
        with FakeEndpoint(lambda path, asks, body=body: body if isinstance(body, Answer) else Answer(body)) as fake:
            try:
                scored(fake, tmp_path / str(number), limit=1)
            except FinbenchError as fault:
                said.append(f"{fault} {fault.__cause__} {fault.__context__}" if False else str(fault))
    captured = capfd.readouterr()
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(said) == len(shapes)
    for text in (*said, captured.out, captured.err, *(one.decode("utf-8", "replace") for one in kept)):
        assert canary not in text.casefold()
