"""Inside vLLM's server: no route without the key. vLLM's own ``--api-key`` leaves /invocations, /tokenize, ... open."""

from __future__ import annotations

import hashlib
import os
import secrets
from typing import Any

KEY = "FINBENCH_SERVE_KEY"  # the environment variable; the key is in no file and no command line


class Guard:
    """ASGI middleware: whoever does not show ``Authorization: Bearer KEY`` gets 401, whatever the path and method."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.expected = _hash(os.environ[KEY].strip().encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let through what has the key, and the server's own start and stop."""
        if scope["type"] == "lifespan" or self._known(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = b'{"error": "Unauthorized"}'
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _known(self, scope: Any) -> bool:
        shown = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        scheme, _, given = shown[0].partition(b" ") if len(shown) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and secrets.compare_digest(_hash(given.strip()), self.expected)


def _hash(key: bytes) -> bytes:
    """Of equal length for any key, so that comparing tells nothing."""
    return hashlib.sha256(key).digest()
