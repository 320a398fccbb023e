"""ASGI by hand: bodies read and given on, answers listened to, a request of our own to the application behind us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from finbench.core.errors import FinbenchError

_STREAMED = ("/v1/completions", "/v1/chat/completions")  # whose streams end with a count of tokens if asked to
_LISTENED = 2**24  # bytes of an answer in which the count of tokens is looked for
_LARGEST, _PARTS = 2**26, 2_000_000  # bytes of a request, and values in it, of a hundred bytes of memory each
_JSON = (b"content-type", b"application/json")


async def body_of(receive: Any) -> bytes:
    """The whole body of a request; what came where the client has gone. FinbenchError for more than any prompts."""
    parts: list[bytes] = []
    size = values = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size, values = size + len(part), values + sum(map(part.count, (b",", b"[", b"{")))
        if size > _LARGEST or values > _PARTS:
            raise FinbenchError(f"A request has at most {_LARGEST:,} bytes and {_PARTS:,} values.", "Send it in parts.")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty one for anything else, which vLLM refuses itself."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


async def reply(send: Any, state: int, found: Any) -> None:
    """Answer with JSON."""
    text = json.dumps(found).encode()
    headers = [_JSON, (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": state, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def inner(app: Any, scope: Any, path: str, asked: Mapping[str, Any]) -> tuple[int, Any]:
    """(state, JSON) of a request to the application behind us."""
    text, heard = json.dumps(asked).encode(), _Heard()
    headers = [(b"host", b"localhost"), _JSON, (b"content-length", str(len(text)).encode())]
    made = {**scope, "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    await app(made, _once(text), heard)
    return heard.state, json_object(bytes(heard.body))


async def appended(app: Any, scope: Any, receive: Any, send: Any, text: str) -> None:
    """The page behind us with ``text`` at its end; neither packed nor in another format than plain text."""
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in (b"accept", b"accept-encoding")]
    heard = _Heard()
    await app({**scope, "headers": kept}, receive, heard)
    there = heard.body if heard.state == 200 else b""
    headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(there) + text.encode()})


class _Heard:
    """An answer, kept."""

    def __init__(self) -> None:
        self.state, self.body = 0, bytearray()

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.state = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


def _once(body: bytes, then: Any = None) -> Any:
    given = False

    async def receive() -> Any:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await (then() if then else asyncio.Event().wait())  # who asks does not go: vLLM would leave the answer

    return receive


class Exchange:
    """A request that is given on and its answer that is listened to: ``state``, tokens of ``prompt`` and ``answer``.

    A stream is asked to end with its count of tokens; a client that did not ask for that does not see it.
    """

    def __init__(self, scope: Any, asked: dict[str, Any], body: bytes) -> None:
        self.scope, self.body = scope, body
        self.state = 499  # nobody has answered
        self.prompt = self.answer = 0
        self.streams = asked.get("stream") is True and scope["path"] in _STREAMED
        options = asked.get("stream_options")
        self.hides = self.streams and isinstance(options, dict | None) and not (options or {}).get("include_usage")
        if self.hides:
            self.body = json.dumps({**asked, "stream_options": {**(options or {}), "include_usage": True}}).encode()
            others = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
            self.scope = {**scope, "headers": [*others, (b"content-length", str(len(self.body)).encode())]}
        self.heard = bytearray()

    def replay(self, receive: Any) -> Any:
        """The body once more, then what the client sends else: that it has gone."""
        return _once(self.body, receive)

    def listening(self, send: Any) -> Any:
        """``send`` that counts tokens on the way."""

        async def sends(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.state = message["status"]
            elif message["type"] == "http.response.body" and self.state == 200:
                body = message.get("body", b"")
                if self.streams:
                    message = {
                        **message,
                        "body": b"\n\n".join(part for part in body.split(b"\n\n") if self._kept(part)),
                    }
                elif len(self.heard) + len(body) <= _LISTENED:
                    self.heard += body
                    if not message.get("more_body"):
                        self._count(json_object(bytes(self.heard)))
            await send(message)

        return sends

    def _kept(self, event: bytes) -> bool:
        """Whether the client sees an event of a stream; not the count for which only we have asked."""
        if not (event.startswith(b"data: {") and b'"usage"' in event):
            return True
        found = json_object(event[6:])
        self._count(found)
        return not (self.hides and found.get("choices") == [])

    def _count(self, found: Mapping[str, Any]) -> None:
        usage = found.get("usage")
        if isinstance(usage, dict):
            self.prompt = int(usage.get("prompt_tokens") or usage.get("input_tokens") or 0)
            self.answer = int(usage.get("completion_tokens") or usage.get("output_tokens") or 0)
