"""An OpenAI-compatible endpoint over HTTP: retries with growing pauses, and the key from the environment alone."""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from finbench.core.errors import FinbenchError

KEYS = ("FINBENCH_SERVER_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set counts
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}  # states that pass
_LONGEST = 30.0  # seconds between two attempts
_LARGEST = 2**28  # bytes of an answer


class Refused(FinbenchError):
    """The endpoint cannot be reached, or answers with a state that may pass."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Never."""


class Endpoint:
    """``url`` ends with /v1. ``attempts`` counts the first one; ``own``: it is this machine, whatever its address."""

    def __init__(
        self, url: str, key: str | None = None, attempts: int = 6, timeout: float = 600.0, own: bool = False
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise FinbenchError(f"{parts.hostname or url} is no address of an endpoint.", "http://127.0.0.1:8000/v1")
        local = own or parts.hostname in ("localhost", "127.0.0.1", "::1")
        key = usable(key)
        self.url, self.key, self.attempts, self.timeout = url.rstrip("/"), key, attempts, timeout
        if key and parts.scheme == "http" and not local:
            raise FinbenchError(f"{parts.hostname} would get the key in clear text.", "Use https://")
        # a proxy must not see what goes to this machine
        proxies = urllib.request.ProxyHandler({} if local else None)
        self.opener = urllib.request.build_opener(_NoRedirect, proxies)

    @classmethod
    def from_environment(cls, url: str) -> Endpoint:
        """With the key of the environment, if there is one."""
        return cls(url, next((os.environ[name] for name in KEYS if os.environ.get(name)), None))

    def get(self, path: str) -> Any:
        """The JSON of a page."""
        return self._asked(path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers ``body``; Refused where no attempt came through, FinbenchError for a refusal."""
        return self._asked(path, json.dumps(body).encode())

    def _asked(self, path: str, body: bytes | None) -> Any:
        given_up = time.monotonic() + 2 * self.timeout  # a silent endpoint would cost every attempt its whole timeout
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(path, body)
            except _Later as later:
                if attempt == self.attempts or time.monotonic() >= given_up:
                    raise Refused(
                        f"{self.url} does not answer after {attempt} attempts: {later}",
                        "Repeat the command when it does: what was answered is not asked again.",
                    ) from later
                pause = min(_LONGEST, max(later.after or 0.0, 0.5 * 2 ** (attempt - 1)))  # "Retry-After: 0" is common
                time.sleep(pause * random.uniform(0.8, 1.2))
        raise AssertionError  # not reached

    def _once(self, path: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with self.opener.open(request, timeout=self.timeout) as response:
                return json.loads(response.read(_LARGEST))
        except urllib.error.HTTPError as fault:
            said = self._hidden(_message(fault))[:300]
            if fault.code in _AGAIN:
                raise _Later(f"{fault.code} {said}", _seconds(fault.headers.get("Retry-After"))) from fault
            hint = f"Set the key: export {KEYS[0]}=..." if fault.code in (401, 403) else ""
            raise FinbenchError(f"{self.url}{path} refuses ({fault.code}): {said}", hint) from fault
        except (OSError, http.client.HTTPException, ValueError) as fault:  # ValueError: an answer that is no JSON
            raise _Later(self._hidden(str(fault)) or type(fault).__name__) from fault

    def _hidden(self, text: str) -> str:
        """Without the key: some endpoints repeat the one that they refuse."""
        return text.replace(self.key, "***") if self.key else text


def usable(key: str | None) -> str | None:
    """The key without blanks around it; FinbenchError, which does not show it, where no header can hold it."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise FinbenchError("The key has characters that no key has (blanks, or other than ASCII).", "Set it again.")
    return key or None


class _Later(Exception):
    """Worth another attempt, after that many seconds if the endpoint named them."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def _message(fault: urllib.error.HTTPError) -> str:
    try:
        text = fault.read(2**16).decode("utf-8", "replace")
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else text
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (OSError, http.client.HTTPException, ValueError):  # HTTPException: cut off
        return fault.reason if isinstance(fault.reason, str) else ""


def _seconds(stated: str | None) -> float | None:
    try:
        return max(0.0, float(stated)) if stated else None
    except ValueError:
        return None
