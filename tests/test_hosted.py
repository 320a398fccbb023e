"""Hosted models by LiteLLM, each provider's own shapes from the same server. Skipped where LiteLLM is not installed."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_endpoints import BAD, MESSAGES, naps, request

from endpoints import Answer, FakeEndpoint, chat
from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.engines import hosted
from finbench.engines.endpoint import EndpointEngine
from finbench.evaluation import evaluator, verification

__all__ = ["naps"]

CANARY = "sk-canary-0815-4711-hosted"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HUGGINGFACE_API_KEY", "DEEPSEEK_API_KEY",
        "OPENROUTER_API_KEY", "AZURE_API_KEY", "TOGETHERAI_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY", "XAI_API_KEY",
        "FIREWORKS_AI_API_KEY", "PERPLEXITYAI_API_KEY", "COHERE_API_KEY")  # fmt: skip

ANTHROPIC: dict[str, Any] = {
    "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [
        {"type": "thinking", "thinking": "Profit rose.", "signature": "EqQBCgIYAhIM1gbcDa9GJw"},
        {"type": "text", "text": "positive"},
    ],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 2095, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
              "output_tokens": 503, "service_tier": "standard"},
}  # fmt: skip
GEMINI: dict[str, Any] = {
    "candidates": [{
        "content": {"parts": [{"text": "Profit rose.", "thought": True}, {"text": "positive"}], "role": "model"},
        "finishReason": "STOP", "avgLogprobs": -0.01, "index": 0,
    }],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 2, "thoughtsTokenCount": 3,
                      "totalTokenCount": 15, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}]},
    "modelVersion": "gemini-2.5-flash",
    "responseId": "mAitaLmkHPPlz7IPvtfUqQ4",
}  # fmt: skip
OLLAMA: dict[str, Any] = {
    "model": "tiny", "created_at": "2023-08-04T19:22:45.499127Z", "done": True, "done_reason": "stop",
    "message": {"role": "assistant", "content": "positive", "thinking": "Profit rose."},
    "total_duration": 4883583458, "load_duration": 1334875, "prompt_eval_count": 26, "prompt_eval_duration": 342546000,
    "eval_count": 282, "eval_duration": 4535599000,
}  # fmt: skip
# model as the user names it -> (a right answer of its provider, the model that answers)
PROVIDERS: dict[str, tuple[dict[str, Any], str | None]] = {
    "openai/gpt-4o": (chat(model="gpt-4o-2024-08-06"), "gpt-4o-2024-08-06"),
    "openai/o3-mini": (chat(model="o3-mini-2025-01-31"), "o3-mini-2025-01-31"),
    "openai/gpt-5": (chat(model="gpt-5-2025-08-07"), "gpt-5-2025-08-07"),
    "anthropic/claude-sonnet-4-5": (ANTHROPIC, "claude-sonnet-4-5-20250929"),
    "gemini/gemini-2.5-flash": (GEMINI, "gemini-2.5-flash"),
    "huggingface/meta-llama/Llama-3.1-8B-Instruct": (
        chat(model="meta-llama/llama-3.1-8b-instruct"), "meta-llama/llama-3.1-8b-instruct"),
    "deepseek/deepseek-reasoner": (chat(model="deepseek-reasoner", reasoning="Profit rose."), "deepseek-reasoner"),
    "openrouter/google/gemini-2.5-flash": (chat(model="google/gemini-2.5-flash"), "google/gemini-2.5-flash"),
    "together_ai/meta-llama/Llama-3-8b-chat-hf": (
        chat(model="meta-llama/Llama-3-8b-chat-hf"), "meta-llama/Llama-3-8b-chat-hf"),
    "mistral/mistral-small-latest": (chat(model="mistral-small-2506"), "mistral-small-2506"),
    "groq/llama-3.1-8b-instant": (chat(model="llama-3.1-8b-instant"), "llama-3.1-8b-instant"),
    "xai/grok-4": (chat(model="grok-4-0709"), "grok-4-0709"),
    "fireworks_ai/accounts/fireworks/models/qwen3": (
        chat(model="accounts/fireworks/models/qwen3"), "accounts/fireworks/models/qwen3"),
    "perplexity/sonar": (chat(model="sonar"), "sonar"),
    "hosted_vllm/tiny": (chat(model="tiny", reasoning="Profit rose."), "tiny"),
    "ollama_chat/tiny": (OLLAMA, "tiny"),
    "azure/gpt-4o": (chat(model="gpt-4o-2024-08-06"), "gpt-4o-2024-08-06"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that must be seen nowhere, in a process without anybody's own."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL")) or name == "HF_TOKEN":
            monkeypatch.delenv(name)
    for name in KEYS:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")


def test_without_litellm_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    hosted._litellm.cache_clear()
    with pytest.raises(FinbenchError, match="not installed") as fault:
        evaluator.evaluate(engine="api", model="openai/gpt-4o", tasks=["mini_ner"], out=tmp_path)
    assert install("api") in fault.value.hint


def test_what_hosted_models_cannot_do_is_told_first(tmp_path: Path) -> None:
    for options, line in (
        ({"tasks": ["mini_sentiment"], "chat": False}, "in messages"),
        ({"tasks": ["fpb_mc"]}, "no log-likelihoods of labels, which fpb_mc need"),
        ({"tasks": ["mini_ner"], "model": None}, "Which model"),
        ({"tasks": ["mini_ner"], "adapter": "x"}, "named by --model"),
        ({"tasks": ["mini_ner"], "arguments": {"reasoning_effort": "huge"}}, "cannot be 'huge'"),
    ):
        with pytest.raises(FinbenchError, match=line):
            evaluator.evaluate(**{"engine": "api", "model": "openai/gpt-4o", "out": tmp_path, **options})


def asked(model: str, body: Any, *, profile: Any = "direct", **stated: Any) -> tuple[Any, Any, FakeEndpoint]:
    """(answer, note, server) of one request to a hosted model whose provider is the server."""
    pytest.importorskip("litellm")
    notes: list[Any] = []
    answer = body if callable(body) else lambda path, asks: body if isinstance(body, Answer) else Answer(body)
    with FakeEndpoint(answer) as fake:
        engine = EndpointEngine("api", model, {"url": fake.url, "timeout": 5, **stated})
        engine.profile = profile
        [said] = engine.answer([request()], lambda done: notes.append(done[0].note))
    return said, notes[0], fake


@pytest.mark.parametrize("model", PROVIDERS)
def test_every_provider_is_asked_and_read(model: str) -> None:
    body, named = PROVIDERS[model]
    stated = {"answered_by": "gpt-4o"} if model.startswith("azure/") else {}
    said, note, fake = asked(model, body, **stated)
    assert (said, note.get("model")) == ("positive", named)
    assert len(fake.seen) == 1
    apart, _, fake = asked(model, body, profile="think", **stated)
    assert apart.text == "positive"
    if "Profit rose." in json.dumps(body):
        assert apart.reasoning == "Profit rose."
        assert apart.reasoning_tokens > 0
    assert "stop" not in fake.seen[0][2]
    assert asked(model, body, profile="chat", **stated)[0].text == "positive"
    assert asked(model, body, profile="cot", **stated)[0].text == ""  # no line with "Answer:"


# all tokens went into reasoning, as each provider tells it
SILENT: dict[str, Any] = {
    "gemini/gemini-2.5-flash": {
        **GEMINI,
        "candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}],
        "usageMetadata": {"promptTokenCount": 19, "totalTokenCount": 531, "thoughtsTokenCount": 512},
    },
    "anthropic/claude-sonnet-4-5": {
        **ANTHROPIC,
        "content": [{"type": "thinking", "thinking": "Profit", "signature": "x"}],
        "stop_reason": "max_tokens",
    },
    "openai/gpt-5": Answer({"error": {"message": "Could not finish the message because max_tokens or model output "
                                      "limit was reached. Please try again with higher max_tokens."}}, 400),
}  # fmt: skip


@pytest.mark.parametrize("model", SILENT)
def test_a_budget_that_went_into_reasoning_is_cut_off_and_paid_for(model: str) -> None:
    apart, note, fake = asked(model, SILENT[model], profile="think")
    assert (apart.text, apart.truncated, apart.answer_tokens) == ("", True, 0)
    assert note["cut"]
    assert note["cost"] > 0
    assert len(fake.seen) == 1
    with pytest.raises(FinbenchError, match="no token was left for an answer"):
        asked(model, SILENT[model])


def test_usage_prices_and_fingerprints_are_read() -> None:
    _, note, _ = asked("openai/gpt-4o", PROVIDERS["openai/gpt-4o"][0])
    assert (note["prompt"], note["answer"], note["fingerprint"]) == (19, 10, "fp_06737a9306")
    assert note["cost"] == pytest.approx((19 * note["prices"][0] + 10 * note["prices"][1]) / 1e6)
    assert note["prices"][2].startswith("LiteLLM ")
    _, note, _ = asked("anthropic/claude-sonnet-4-5", ANTHROPIC)
    assert (note["prompt"], note["answer"]) == (2095, 503)
    _, note, _ = asked("gemini/gemini-2.5-flash", GEMINI)
    assert (note["prompt"], note["answer"], note["reasoning"]) == (10, 5, 3)
    _, note, _ = asked("hosted_vllm/tiny", PROVIDERS["hosted_vllm/tiny"][0])
    assert "cost" not in note  # no price is known
    _, note, _ = asked("hosted_vllm/tiny", PROVIDERS["hosted_vllm/tiny"][0], price_in=1.0, price_out=2.0)
    assert note["cost"] == pytest.approx((19 + 20) / 1e6)


def test_options_that_a_provider_does_not_take_are_left_out() -> None:
    body = PROVIDERS["openai/gpt-5"][0] | {}
    _, note, fake = asked("openai/gpt-5", body)
    assert "stop" in note["left_out"]
    assert "max_completion_tokens" in fake.seen[0][2]
    assert "stop" not in fake.seen[0][2]
    _, note, fake = asked("anthropic/claude-sonnet-4-5", ANTHROPIC)
    assert fake.seen[0][2]["max_tokens"] == 12
    assert fake.seen[0][2]["stop_sequences"] == ["\n"] or "stop" in note["left_out"]


@pytest.mark.parametrize("model", ["openai/m", "deepseek/m", "huggingface/m/m", "hosted_vllm/m"])
def test_bad_shapes_are_one_clear_line(model: str, naps: list[float]) -> None:
    """LiteLLM smooths what is odd (an unknown reason to stop becomes "stop"); the provider's own words count."""
    pytest.importorskip("litellm")
    for what, body, _ in BAD:
        with pytest.raises(FinbenchError) as fault:
            asked(model, body)
        assert "Traceback" not in str(fault.value), what
        assert "\n" not in fault.value.message, what
        assert len(fault.value.message) < 700, what
        assert CANARY not in str(fault.value), what


def changed(body: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    found = copy.deepcopy(body)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return found


OWN: list[tuple[str, Any, str]] = [
    *(("anthropic/claude-sonnet-4-5", changed(ANTHROPIC, "stop_reason", to=reason), line)
      for reason, line in (("refusal", "withheld"), ("tool_use", "calls a tool"))),
    *(("anthropic/claude-sonnet-4-5", changed(ANTHROPIC, "content", to=value), "")
      for value in (None, [], "x", 5, [5], [{"type": "text"}], [{"type": "text", "text": 5}],
                    [{"type": "tool_use"}])),
    *(("anthropic/claude-sonnet-4-5", value, "") for value in (None, [], "x", 5, {}, {"type": "error"})),
    ("anthropic/claude-sonnet-4-5", changed(ANTHROPIC, "model", to="claude-opus-4"), "was asked"),
    ("anthropic/claude-sonnet-4-5", Answer({"type": "error", "error": {"type": "overloaded_error",
     "message": "Overloaded"}}, 529), "529 Overloaded"),
    ("anthropic/claude-sonnet-4-5", Answer({"type": "error", "error": {"type": "authentication_error",
     "message": f"invalid x-api-key {CANARY}"}}, 401), r"refuses \(401\)"),
    *(("gemini/gemini-2.5-flash", changed(GEMINI, "candidates", 0, "finishReason", to=reason), "withheld")
      for reason in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")),
    *(("gemini/gemini-2.5-flash", changed(GEMINI, "candidates", to=value), "")
      for value in (None, [], "x", 5, [5], [{}])),
    *(("gemini/gemini-2.5-flash", changed(GEMINI, "candidates", 0, "content", to=value), "")
      for value in (None, "x", 5, {"parts": "x"}, {"parts": [5]}, {"parts": [{"text": 5}]})),
    ("gemini/gemini-2.5-flash", {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "gemini-2.5-flash",
     "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}}, "withheld"),
    ("gemini/gemini-2.5-flash", changed(GEMINI, "modelVersion", to="gemini-2.5-pro"), "was asked"),
    ("gemini/gemini-2.5-flash",
     Answer({"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}, 429), "429 Quota"),
    *(("ollama_chat/tiny", changed(OLLAMA, "message", to=value), "")
      for value in (None, "x", 5, {"content": None}, {"content": 5})),
    ("ollama_chat/tiny", changed(OLLAMA, "model", to="other"), "was asked"),
    ("ollama_chat/tiny", Answer({"error": "model 'tiny' not found"}, 404), r"refuses \(404\): model 'tiny' not found"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "body", "line"), OWN, ids=[f"{n}-{one[0]}" for n, one in enumerate(OWN)])
def test_bad_shapes_of_other_providers_are_one_clear_line(model: str, body: Any, line: str, naps: list[float]) -> None:
    with pytest.raises(FinbenchError, match=line) as fault:
        asked(model, body)
    assert "Traceback" not in str(fault.value)
    assert "litellm" not in fault.value.message
    assert CANARY not in str(fault.value)
    assert "\n" not in fault.value.message


def test_retries_are_ours_alone(naps: list[float]) -> None:
    for model in ("openai/gpt-4o", "anthropic/claude-sonnet-4-5", "huggingface/m/m", "gemini/gemini-2.5-flash"):
        naps.clear()
        right = PROVIDERS.get(model, (chat(model="m/m"), ""))[0]
        left = [Answer({"error": {"message": "slow"}}, 429, {"Retry-After": "3"})] * 2
        said, _, fake = asked(model, lambda path, asks, left=left, right=right: left.pop() if left else Answer(right))
        assert said == "positive"
        assert len(fake.seen) == 3  # no request that we did not count
        assert naps[0] >= 3


def test_a_budget_and_a_whole_card(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("litellm")
    common: dict[str, Any] = {"engine": "api", "model": "openai/gpt-4o", "tasks": ["mini_sentiment"], "limit": 12}
    with FakeEndpoint(lambda path, asks: Answer(PROVIDERS["openai/gpt-4o"][0])) as fake:
        arguments = {"url": fake.url, "concurrency": "2"}
        with pytest.raises(FinbenchError, match="budget"):
            evaluator.evaluate(**common, arguments=arguments, budget=0.0016, out=tmp_path)
        spent = len(fake.seen)
        assert 0 < spent < 12
        [card] = evaluator.evaluate(**common, arguments=arguments, budget=5.0, out=tmp_path)
        assert len(fake.seen) == 12
        path = tmp_path / "openai-gpt-4o.json"
        assert verification.verify(path, rerun=4, base=fake.url).level == "reproduced"
    told = card.scores[0].hosted
    assert told is not None
    assert told.models == {"gpt-4o-2024-08-06": 12}
    assert told.cost == pytest.approx(12 * (19 * 2.5 + 10 * 10) / 1e6)
    assert card.provenance.packages["litellm"]
    assert card.subject.chat
    said = "".join(capfd.readouterr())
    assert "requests, about" in said
    kept = "".join(one.read_bytes().decode("utf-8", "replace") for one in tmp_path.rglob("*") if one.is_file())
    assert CANARY not in said + kept
    assert fake.url not in kept


def test_a_missing_key_and_an_unknown_provider_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    for name in KEYS:
        monkeypatch.delenv(name)
    for model, name in (
        ("openai/gpt-4o", "OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "G[A-Z]+_API_KEY"),
        ("huggingface/a/b", "HUGGINGFACE_API_KEY"),
    ):
        with pytest.raises(FinbenchError, match=f"No key for .*{name}"):
            EndpointEngine("api", model, {})
    for model in ("nobody/x", "x", "", "openai"):
        with pytest.raises(FinbenchError, match="knows no provider|No key"):
            EndpointEngine("api", model, {})


def test_a_key_goes_to_no_other_host_and_not_in_clear_text(naps: list[float]) -> None:
    pytest.importorskip("litellm")
    with pytest.raises(FinbenchError, match="clear text"):
        EndpointEngine("api", "anthropic/claude-sonnet-4-5", {"url": "http://192.0.2.1/v1", "timeout": 1}).answer(
            [request()], lambda done: None
        )
    with FakeEndpoint(lambda path, asks: Answer(ANTHROPIC)) as thief:
        for model in ("openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "huggingface/m/m"):
            for state in (301, 302, 307, 308):
                with pytest.raises(FinbenchError, match=f"refuses .{state}"):
                    asked(model, Answer(b"", state, {"Location": f"{thief.url}/messages"}))
        assert thief.seen == []


_QUIET = """
import json, os, socket, sys
calls = []
real = socket.socket.connect, socket.getaddrinfo
socket.socket.connect = lambda self, at: (calls.append(str(at)), real[0](self, at))[1]
socket.getaddrinfo = lambda host, *rest, **more: (calls.append(str(host)), real[1](host, *rest, **more))[1]
from finbench.engines.endpoint import EndpointEngine
from finbench.core.errors import FinbenchError
from types import SimpleNamespace
request = SimpleNamespace(request_type="generate_until", args=(sys.argv[2], {"until": [], "max_gen_toks": 12}))
models = "openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "huggingface/a/b", "deepseek/x"
for model in models:
    try:
        EndpointEngine("api", model, {"url": sys.argv[1], "timeout": 2}).answer([request], lambda done: None)
    except FinbenchError as fault:
        print(fault)
print("CALLS", json.dumps(sorted(set(calls))))
"""


def test_litellm_calls_nobody_and_says_nothing(tmp_path: Path) -> None:
    """In a process of its own: not when it is imported, not with answers, not with faults, not with its log on."""
    pytest.importorskip("litellm")
    (tmp_path / ".env").write_text(f"ANTHROPIC_API_BASE=http://192.0.2.9\nGROQ_API_KEY={CANARY}\n")
    environment = os.environ | {"LITELLM_LOG": "DEBUG", "LITELLM_MODE": "DEV", "PYTHONWARNINGS": "always"}
    refusal = Answer({"error": {"message": f"no such key: {CANARY}"}}, 401)
    with FakeEndpoint(lambda path, asks: Answer(chat(5)) if asks.get("model") == "gpt-4o" else refusal) as fake:
        done = subprocess.run([sys.executable, "-c", _QUIET, fake.url, MESSAGES], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = json.loads(done.stdout.rpartition("CALLS ")[2])
    assert all("127.0.0.1" in call for call in calls), calls
    assert done.stdout.count("refuses (401): no such key: ***") == 4
    assert "Warning" not in done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "litellm" not in done.stderr.lower()


def test_the_wire_of_another_library_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LiteLLM answers without a request on our wire, nothing is scored."""
    litellm = pytest.importorskip("litellm")
    engine = EndpointEngine("api", "openai/gpt-4o", {"url": "http://127.0.0.1:1/v1"})
    made = litellm.ModelResponse(**PROVIDERS["openai/gpt-4o"][0])
    monkeypatch.setattr(engine.wire.library, "completion", lambda **asks: made)  # type: ignore[attr-defined]
    with pytest.raises(FinbenchError, match="cannot watch"):
        engine.answer([request()], lambda done: None)


def test_faults_before_anything_is_sent_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    engine = EndpointEngine("api", "openai/gpt-4o", {"url": "http://127.0.0.1:1/v1"})

    def broken(**asks: Any) -> Any:
        raise KeyError(f"{CANARY} is no key\nTraceback")

    monkeypatch.setattr(engine.wire.library, "completion", broken)  # type: ignore[attr-defined]
    with pytest.raises(FinbenchError, match="LiteLLM cannot ask openai") as fault:
        engine.answer([request()], lambda done: None)
    assert CANARY not in str(fault.value)
