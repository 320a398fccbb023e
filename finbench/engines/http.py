"""An OpenAI-compatible endpoint over HTTP: retries with growing pauses, and the key from the environment alone."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2

from finbench.core.errors import FinbenchError

KEYS = ("FINBENCH_SERVER_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set counts
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}  # states that pass
_LONGEST = 30.0  # seconds between two attempts
_LARGEST = 2**28  # bytes of an answer


class Refused(FinbenchError):
    """The endpoint cannot be reached, or answers with a state that may pass."""


class Endpoint:
    """``url`` ends with /v1. ``attempts`` counts the first one; ``own``: it is this machine, whatever its address."""

    def __init__(
        self, url: str, key: str | None = None, attempts: int = 6, timeout: float = 600.0, own: bool = False
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise FinbenchError(f"{parts.hostname or url} is no address of an endpoint.", "http://127.0.0.1:8000/v1")
        local = own or parts.hostname in ("localhost", "127.0.0.1", "::1")
        self.url, self.key, self.attempts, self.timeout = url.rstrip("/"), usable(key), attempts, timeout
        if self.key and parts.scheme == "http" and not local:
            raise FinbenchError(f"{parts.hostname} would get the key in clear text.", "Use https://")
        try:  # redirects are not followed: one would carry the key to another host
            self.client = httpx2.Client(
                headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                timeout=timeout,
                limits=httpx2.Limits(),  # as many connections as there are threads that ask
                verify=ssl.create_default_context(),
                trust_env=not local,  # a proxy must not see what goes to this machine
            )
        except (httpx2.InvalidURL, ImportError, ValueError) as fault:
            raise FinbenchError(
                f"A proxy that the environment names cannot be used: {fault}",
                "Take it back: unset HTTP_PROXY HTTPS_PROXY ALL_PROXY",
            ) from fault

    @classmethod
    def from_environment(cls, url: str) -> Endpoint:
        """With the key of the environment, if there is one."""
        return cls(url, next((os.environ[name] for name in KEYS if os.environ.get(name)), None))

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a page, or that answers ``body``; Refused where no attempt came through, else FinbenchError."""
        given_up = time.monotonic() + 2 * self.timeout  # a silent endpoint would cost every attempt its whole timeout
        for attempt in itertools.count(1):
            after, cause = 0.0, None
            try:
                with self.client.stream("GET" if body is None else "POST", self.url + path, json=body) as answer:
                    if answer.is_success:
                        return json.loads(next(answer.iter_bytes(_LARGEST), b""))
                    state, said = answer.status_code, self._hidden(_message(answer))[:300]
                if state not in _AGAIN:
                    key = f"Set the key: export {KEYS[0]}=..."
                    hint = key if state in (401, 403) else "Look into the log of the server."
                    raise FinbenchError(f"{self.url}{path} refuses ({state}): {said}", hint)
                stated = answer.headers.get("Retry-After", "")
                reason, after = f"{state} {said}", float(stated) if re.fullmatch(r"\d+(\.\d+)?", stated) else 0.0
            except (httpx2.RequestError, httpx2.InvalidURL, ValueError) as fault:  # ValueError: it is no JSON
                reason, cause = self._hidden(str(fault)) or type(fault).__name__, fault
            if attempt >= self.attempts or time.monotonic() >= given_up:
                raise Refused(
                    f"{self.url} does not answer after {attempt} attempts: {reason}",
                    "Repeat the command when it does: what was answered is not asked again.",
                ) from cause
            pause = min(_LONGEST, max(after, 0.5 * 2 ** (attempt - 1)))  # "Retry-After: 0" is common
            time.sleep(pause * random.uniform(0.8, 1.2))

    def _hidden(self, text: str) -> str:
        """Without the key: some endpoints repeat the one that they refuse."""
        return text.replace(self.key, "***") if self.key else text


def usable(key: str | None) -> str | None:
    """The key without blanks around it; FinbenchError, which does not show it, where no header can hold it."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise FinbenchError("The key has characters that no key has (blanks, or other than ASCII).", "Set it again.")
    return key or None


def _message(answer: httpx2.Response) -> str:
    try:
        text = next(answer.iter_bytes(2**16), b"").decode("utf-8", "replace")
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else text
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (httpx2.RequestError, ValueError):  # RequestError: cut off
        return answer.reason_phrase
