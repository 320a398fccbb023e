"""A server of invented answers that behaves as it is told, and the shapes in which real endpoints answer.

The shapes follow the public documentation of each endpoint; what they say is invented.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Answer:
    """What the server sends: JSON or bytes, a state and headers; cut off, trickling, or after a pause."""

    def __init__(self, body: Any, state: int = 200, headers: dict[str, str] | None = None, *, cut: int | None = None,
                 trickle: float = 0.0, pause: float = 0.0, kind: str = "application/json") -> None:  # fmt: skip
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.state, self.headers, self.cut, self.trickle = state, headers or {}, cut, trickle
        self.pause, self.kind = pause, kind


class FakeEndpoint:
    """Answers each POST by what ``answers`` makes of (path, body); ``seen`` holds (path, headers, body)."""

    def __init__(self, answers: Callable[[str, Any], Answer], models: tuple[str, ...] = ("m",)) -> None:
        self.answers, self.models = answers, models
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.send(self, Answer({"data": [{"id": name} for name in owner.models]}))

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = json.loads(raw) if raw else None
                with owner.lock:
                    owner.seen.append((self.path, dict(self.headers), asked))
                owner.send(self, owner.answers(self.path, asked))

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.root}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def send(self, handler: Any, answer: Answer) -> None:
        time.sleep(answer.pause)
        handler.send_response(answer.state)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", answer.kind)
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        for at in range(0, len(answer.body[: answer.cut]), 1 if answer.trickle else 2**20):
            handler.wfile.write(answer.body[: answer.cut][at : at + (1 if answer.trickle else 2**20)])
            time.sleep(answer.trickle)
        handler.close_connection = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def chat(text: Any = "positive", *, model: str = "m", reasoning: Any = None, **changes: Any) -> dict[str, Any]:
    """OpenAI's shape of a chat completion. ``changes``: of the choice, or of the whole where it has the key."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    message |= {"reasoning_content": reasoning} if reasoning is not None else {}
    found: dict[str, Any] = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 10,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "rejected_prediction_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_06737a9306",
    }
    for key, value in changes.items():
        (found if key in found else found["choices"][0])[key] = value
    return found


def completion(text: Any = " positive", **changes: Any) -> dict[str, Any]:
    """OpenAI's shape of a completion of text."""
    found: dict[str, Any] = {
        "id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
        "object": "text_completion",
        "created": 1589478378,
        "model": "m",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
    for key, value in changes.items():
        (found if key in found else found["choices"][0])[key] = value
    return found


def _with(base: dict[str, Any], **message: Any) -> dict[str, Any]:
    found = copy.deepcopy(base)
    found["choices"][0]["message"].update(message)
    return found


_PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Profit rose."}]},
    {"type": "text", "text": "positive"},
]
_TOKENS = {"completion_tokens_details": {"reasoning_tokens": 7}}

# name -> (answer, its text, its reasoning); of endpoints that speak OpenAI's language, each in its own dialect
DIALECTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "openai": (chat("positive", model="m-2024-08-06"), "positive", ""),
    "openai reasoning": (
        chat("positive", usage={"prompt_tokens": 9, "completion_tokens": 17, "total_tokens": 26, **_TOKENS}),
        "positive",
        "",
    ),
    "azure": (
        {
            **chat("positive", content_filter_results={"hate": {"filtered": False, "severity": "safe"}}),
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
        },
        "positive",
        "",
    ),
    "hugging face router": (
        {**chat("positive", finish_reason="eos_token"), "system_fingerprint": "3.2.1-sha-4d28897"},
        "positive",
        "",
    ),
    "vllm": (
        _with(chat("positive", stop_reason=None), reasoning_content="Profit rose.", tool_calls=[], function_call=None)
        | {"prompt_logprobs": None, "kv_transfer_params": None},
        "positive",
        "Profit rose.",
    ),
    "vllm, newer": (_with(chat("positive", token_ids=None), reasoning="Profit rose."), "positive", "Profit rose."),
    "sglang": (
        _with(chat("positive", matched_stop=151645), reasoning_content=None, tool_calls=None) | {"metadata": {}},
        "positive",
        "",
    ),
    "llama.cpp": (
        {**chat("positive"), "timings": {"prompt_n": 5, "predicted_ms": 1.0}, "system_fingerprint": "b4719-9ab42dc7"},
        "positive",
        "",
    ),
    "ollama": (
        _with(chat("positive"), reasoning="Profit rose.") | {"system_fingerprint": "fp_ollama"},
        "positive",
        "Profit rose.",
    ),
    "deepseek": (
        chat("positive", reasoning="Profit rose.", usage={"prompt_tokens": 9, "completion_tokens": 17,
             "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 9, **_TOKENS}),
        "positive",
        "Profit rose.",
    ),
    "together": ({**chat("positive", finish_reason="eos", seed=4711), "prompt": []}, "positive", ""),
    "openrouter": (
        _with(chat("positive", native_finish_reason="STOP"), reasoning="Profit rose.",
              reasoning_details=[{"type": "reasoning.text", "text": "Profit rose."}]) | {"provider": "Google"},
        "positive",
        "Profit rose.",
    ),
    "both names of reasoning": (
        _with(chat("positive"), reasoning="Profit rose.", reasoning_content="Profit rose."), "positive", "Profit rose."
    ),
    "mistral": (chat(_PARTS), "positive", "Profit rose."),
    "databricks": (
        chat([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Profit rose."}]},
              {"type": "text", "text": "positive"}]),
        "positive",
        "Profit rose.",
    ),
    "reasoning that is hidden": (
        chat([{"type": "redacted_thinking", "data": "EmwKAhgB"}, {"type": "text", "text": "positive"}]), "positive", ""
    ),
    "xai": (
        chat("positive", reasoning="Profit rose.", usage={"prompt_tokens": 9, "completion_tokens": 12, **_TOKENS,
             "total_tokens": 28}),
        "positive",
        "Profit rose.",
    ),
    "no usage, no model, unknown fields": (
        {"choices": [{"message": {"content": "positive", "new": {"a": [1]}}, "also": 1}], "future": None},
        "positive",
        "",
    ),
}  # fmt: skip
