"""Requests to endpoints: bounded, timed, tried again where that helps, and with no key in anything that is shown."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from finbench.core.console import say
from finbench.core.errors import FinbenchError, counted, shortened
from finbench.engines import deadline
from finbench.engines.pace import Pace

KEYS = ("FINBENCH_SERVER_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set counts
_AGAIN = {408, 409, 425, 429, *range(500, 600)} - {501, 505}  # states that pass
_COMPUTED = (0, 408, 504)  # after these (0: silence, or half an answer) the answer may have been computed, and billed
_FOR_GOOD = ("insufficient_quota", "billing_hard_limit_reached")  # codes of 429 that no pause mends
# words of an error inside a reply of state 200 that has no number -> the state that they mean
_MEANT = {
    429: r"rate.?limit|too many requests|resource.?exhausted",
    504: r"timed?[ _-]?out",
    503: r"over.?load|capacity|(?<!and )try again(?! with)|temporar|loading|unavailable|server[ _](?:had an )?error",
}
_LONGEST = 30.0  # seconds between two attempts
_TOLD = 10.0  # seconds between two lines about an endpoint that does not answer
_ASKED = 120.0  # seconds that an endpoint may ask to wait; more is a quota, not a peak
_REFUSED = 2.0  # seconds for an endpoint that takes no connection, before the first answer
_STREAM = re.compile(rb"(?:data|event|id|retry)?:")  # server-sent events
_SECRET = 8  # characters of a key; "EMPTY" is none
_LARGEST = 2**26  # bytes of an answer; one of 100,000 tokens has less than a megabyte
_PARTS = 2_000_000  # values in it, of a hundred bytes each; log-probabilities of a long prompt have some 200,000
_AGAIN_LATER = "Repeat the command when it does: what was answered is not asked again."
Read = TypeVar("Read")


class Refused(FinbenchError):
    """The endpoint cannot be reached, or answers with a state that may pass."""


class Rejected(FinbenchError):
    """The endpoint refuses this very request; ``said``, ``param`` and ``code`` are its own words."""

    def __init__(self, message: str, hint: str, state: int, said: str, param: str = "", code: str = "") -> None:
        super().__init__(message, hint)
        self.state, self.said, self.param, self.code = state, said, param, code


class Passing(Exception):
    """One attempt came to nothing. ``after``: seconds to wait, if stated; ``state`` of the answer, 0 for none."""

    def __init__(self, reason: str, after: float = 0.0, state: int = 0) -> None:
        super().__init__(reason)
        self.after, self.state = after, state


class NoConnection(Exception):
    """Nobody listens there, or nobody can be found."""


_CUT_OFF = (httpx2.RequestError, Passing, FinbenchError)  # the words of a refusal, which counts without them


class Wire:
    """What every endpoint has in common. ``name`` stands in messages; ``secrets`` in none.

    ``attempts`` counts the first one; ``timeout``: seconds of silence, and of one attempt; ``own``: it is this
    machine, whatever its address.
    """

    def __init__(self, name: str, secrets: tuple[str, ...] = (), *, attempts: int = 6, timeout: float = 600.0,
                 own: bool = False, pace: Pace | None = None) -> None:  # fmt: skip
        self.name, self.secrets, self.attempts, self.timeout = name, secrets, attempts, timeout
        self.said = time.monotonic()
        self.pace, self.reached = pace or Pace(), False
        self.stopped = False  # nobody wants more answers: no further attempt is made
        try:  # redirects are not followed: one would carry the key to another host
            client = httpx2.Client(
                headers={"Accept-Encoding": "identity"},
                timeout=timeout,
                limits=httpx2.Limits(),  # as many connections as there are threads that ask
                verify=ssl.create_default_context(),
                trust_env=not own,  # a proxy must not see what goes to this machine
            )
            self.client = deadline.bound(client)
        except (httpx2.InvalidURL, ImportError, ValueError) as fault:
            raise FinbenchError(
                f"A proxy that the environment names cannot be used: {fault}",
                "Take it back: unset HTTP_PROXY HTTPS_PROXY ALL_PROXY",
            ) from fault

    def once(self, path: str, body: dict[str, Any] | None) -> Any:
        """One attempt: the JSON that answers; Passing for what may pass, else FinbenchError."""
        raise NotImplementedError

    def ask(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        read: Callable[[Any], Read] = lambda found: found,
        *,
        tokens: int = 0,
        lost: Callable[[], None] = lambda: None,
    ) -> Read:
        """What ``read`` makes of the JSON that answers; it may raise Passing too.

        ``tokens``: of the request, for the pace. ``lost`` is called after an attempt that may have been computed, and
        billed, for nothing. Refused where no attempt came through, Rejected or another FinbenchError else.
        """
        started, faults = time.monotonic(), 0
        while True:
            self.pace.wait(tokens)
            if self.stopped:
                raise Refused(f"{self.name} is asked no more.", _AGAIN_LATER)
            try:
                found = read(self.once(path, body))
            except FinbenchError as fault:
                raise self._without_secrets(fault) from fault.__cause__
            except NoConnection as fault:
                faults += 1
                if not self.reached and (time.monotonic() - started >= _REFUSED or faults >= self.attempts):
                    raise Refused(
                        f"{self.name} takes no connection: {self.hidden(str(fault))}",
                        "Start the server, or correct its address: --arg url=http://127.0.0.1:8000/v1",
                    ) from fault
                last: Exception = fault
            except Passing as fault:
                faults += 1
                self.reached = True
                last = fault
                if fault.state in _COMPUTED:
                    lost()
                if fault.state == 429:
                    self.pace.refused()
                    self.pace.hold(min(fault.after, _ASKED))  # the others would be refused as well
            else:
                self.reached = True
                self.pace.taken()
                return found
            # a silent endpoint would cost every attempt its whole timeout
            after, busy = (last.after, last.state == 429) if isinstance(last, Passing) else (0.0, False)
            most = 2 * self.attempts if busy and self.attempts > 1 else self.attempts
            if faults >= most or time.monotonic() - started >= 2 * self.timeout or after > _ASKED:
                asks = f" (it asks to wait {after:,.0f} s)" if after > _ASKED else ""
                raise Refused(
                    f"{self.name} does not answer after {counted(faults, 'attempt')}: {self.hidden(str(last))}{asks}",
                    _AGAIN_LATER,
                ) from last
            # "Retry-After: 0" is common; threads that were refused together come back one by one
            pause = max(after, min(_LONGEST, 0.5 * 2 ** (faults - 1))) * random.uniform(1.0, 1.4)
            self._waits(f"{self.hidden(str(last))}; asked again in {pause:.0f} s (attempt {faults + 1} of {most})")
            time.sleep(pause if self.reached else min(pause, _REFUSED / 4))

    def _waits(self, said: str) -> None:
        """Say that an endpoint does not answer, once in a while: many threads wait for the same."""
        if self.reached and time.monotonic() - self.said >= _TOLD:
            self.said = time.monotonic()
            say(f"{self.name}: {said}")

    def fetched(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request once; state, headers and bounded bytes of the answer. NoConnection, Passing, FinbenchError."""
        text = b""
        deadline.until(time.monotonic() + self.timeout)
        try:
            with self.client.stream(method, url, headers=dict(headers), content=content) as answer:
                self.pace.told(answer.headers)
                state, given = answer.status_code, dict(answer.headers)
                with contextlib.nullcontext() if 200 <= state < 300 else contextlib.suppress(*_CUT_OFF):
                    text = self._body(answer)
        except httpx2.ConnectError as fault:
            raise NoConnection(str(fault) or type(fault).__name__) from fault
        except httpx2.ReadTimeout as fault:
            raise Passing(f"it was not done after {self.timeout:g} s") from fault
        except httpx2.RequestError as fault:
            raise Passing(str(fault) or type(fault).__name__) from fault
        except (httpx2.InvalidURL, httpx2.StreamError, UnicodeError) as fault:
            raise FinbenchError(
                f"{self.name} cannot be asked: {self.hidden(str(fault))}", "--arg url=http..."
            ) from fault
        return state, given, text

    def exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Any:
        """Send a request once; the JSON that answers. Passing, Rejected and FinbenchError as ``once``."""
        state, given, text = self.fetched(method, url, headers, content)
        if not 200 <= state < 300:
            raise self._fault(state, given, text)
        if sum(map(text.count, (b",", b"[", b"{"))) > _PARTS:
            raise self.no_answer(f"with more than {_PARTS:,} values")
        try:
            found = json.loads(text)
        except RecursionError as fault:
            raise self.no_answer("with JSON nested too deep") from fault
        except ValueError as fault:
            if type(fault) is ValueError:  # json's own faults are of other kinds
                raise self.no_answer("with a whole number of thousands of digits") from fault
            begin = text.lstrip()[:8]
            if begin[:1] in (b"{", b"["):  # it was cut off
                raise Passing(f"its JSON ends too early, or is none: {fault}") from fault
            shown = shortened(" ".join(text[:300].decode("utf-8", "replace").split())) or "nothing"
            kind = "a stream, though none was asked for" if _STREAM.match(begin) else "something that is no JSON"
            raise self.no_answer(f"with {kind} ({shown})") from fault
        if isinstance(found, dict) and found.get("error") and not found.get("choices"):  # a state inside the answer
            raise self._inside(found["error"], given, text)
        shown = json.dumps(found).casefold()
        if any(secret.casefold() in shown for secret in self.secrets if len(secret) >= _SECRET):
            raise FinbenchError(
                f"{self.name} repeats the key in its answer, which would stand on the scorecard.",
                "Take the key back where you got it, and trust this endpoint with no other.",
            )
        return found

    def no_answer(self, how: str) -> FinbenchError:
        """The fault of an endpoint that answers in no way that can be scored."""
        return FinbenchError(
            f"{self.name} answers {self.hidden(how)}.",
            "Name an OpenAI-compatible endpoint, whose path often ends with /v1: --arg url=http://127.0.0.1:8000/v1",
        )

    def _body(self, answer: httpx2.Response) -> bytes:
        """The bytes of an answer, at most ``_LARGEST``."""
        parts, size = [], 0
        for part in answer.iter_raw():
            parts.append(part)
            size += len(part)
            if size > _LARGEST:
                raise self.no_answer(f"with more than {_LARGEST // 2**20} MB")
        packed = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if packed in ("identity", ""):
            return b"".join(parts)
        if packed not in ("gzip", "deflate"):
            raise self.no_answer(f"packed as {shortened(packed)}, though no packing was asked for")
        try:  # a few kilobytes may unpack to gigabytes
            text = zlib.decompressobj(47 if packed == "gzip" else 15).decompress(b"".join(parts), _LARGEST + 1)
        except zlib.error as fault:
            raise Passing(f"its packing is torn: {fault}") from fault
        if len(text) > _LARGEST:
            raise self.no_answer(f"with more than {_LARGEST // 2**20} MB")
        return text

    def _inside(self, error: Any, headers: Mapping[str, str], text: bytes) -> Exception:
        """What an error means whose reply has the state of success: what its number does, else what its words do."""
        stated = [str(error.get(key) or "") for key in ("code", "type")] if isinstance(error, dict) else []
        if stated and re.fullmatch("[45][0-9]{2}", stated[0]):
            return self._fault(int(stated[0]), headers, text)
        words = " ".join([*stated, _explained(text[: 2**16])[0]])[:1000]
        meant = next((state for state, mark in _MEANT.items() if re.search(mark, words, re.IGNORECASE)), 400)
        return self._fault(meant, headers, text, inside=True)

    def _fault(self, state: int, headers: Mapping[str, str], text: bytes, inside: bool = False) -> Exception:
        """What a state that is no success means; ``inside``: the reply's own was 200."""
        said, param, code = _explained(text[: 2**16])
        said = shortened(self.hidden(said)) or "nothing said"
        if state in _AGAIN and code not in _FOR_GOOD:
            begins = "an error inside a 200 reply:" if inside else str(state)
            return Passing(f"{begins} {said}", _stated_pause(headers), state)
        told = "answers with an error (inside a 200 reply)" if inside else f"refuses ({state})"
        if inside:
            hint = "Its own words say what it wants. Earlier answers are kept: the same command goes on."
        elif 300 <= state < 400:
            hint = (
                "It sends elsewhere, where no key is carried. Name that address, if you trust it: --arg url=https://..."
            )
        elif state in (401, 403):
            hint = self.key_hint
        elif state == 404:
            hint = "Is that its address (which often ends with /v1), and its name of the model?"
        else:
            hint = "Its own words say what it wants; else look into the log of the server."
        return Rejected(f"{self.name} {told}: {said}", hint, state, said, param, code)

    key_hint = f"Set the key: export {KEYS[0]}=..."

    def _without_secrets(self, fault: FinbenchError) -> FinbenchError:
        fault.message, fault.hint = self.hidden(fault.message), self.hidden(fault.hint)
        fault.args = (fault.message,)
        return fault

    def hidden(self, text: str) -> str:
        """Without the keys: some endpoints repeat the one that they refuse, in their own case."""
        for secret in self.secrets:
            text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE if len(secret) >= _SECRET else 0)
        return text


class Endpoint(Wire):
    """An OpenAI-compatible address; ``url`` ends with /v1."""

    def __init__(self, url: str, key: str | None = None, *, own: bool = False, **how: Any) -> None:
        local = checked_address(url, bool(usable(key)) and not own) or own
        self.url, self.key = url.rstrip("/"), usable(key)
        super().__init__(self.url, (self.key,) if self.key else (), own=local, **how)

    @classmethod
    def from_environment(cls, url: str, **how: Any) -> Endpoint:
        """With the key of the environment, if there is one."""
        return cls(url, next((os.environ[name] for name in KEYS if os.environ.get(name)), None), **how)

    def once(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """A page, or what answers ``body``."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if body is None:
            return self.exchange("GET", self.url + path, headers, None)
        headers["Content-Type"] = "application/json"
        return self.exchange("POST", self.url + path, headers, json.dumps(body).encode("ascii"))


def checked_address(url: str, keyed: bool) -> bool:
    """Whether an address is of this machine; FinbenchError for none, and for one that takes a key in clear text."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
        raise FinbenchError(f"{host or url} is no address of an endpoint.", "http://127.0.0.1:8000/v1")
    local = host in ("localhost", "127.0.0.1", "::1")
    if keyed and parts.scheme == "http" and not local:
        raise FinbenchError(f"{host} would get the key in clear text.", "Use https://")
    return local


def usable(key: str | None) -> str | None:
    """The key without blanks around it; FinbenchError, which does not show it, where no header can hold it."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise FinbenchError("The key has characters that no key has (blanks, or other than ASCII).", "Set it again.")
    return key or None


def _explained(text: bytes) -> tuple[str, str, str]:
    """(message, parameter, code) of a refusal, whatever its shape; of a page, its beginning."""
    shown = text.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return shown, "", ""
    found = found[0] if isinstance(found, list) and found else found  # as Gemini has it
    error = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return str(error), "", ""
    message = error.get("message") or error.get("detail") or error
    inner = error["metadata"].get("raw") if isinstance(error.get("metadata"), dict) else None
    if isinstance(message, str) and isinstance(inner, str) and inner:  # what a router was told by the provider
        message = f"{message}: {_explained(inner.encode())[0]}"
    named = [str(error.get(key) or "") for key in ("param", "code")]
    return message if isinstance(message, str) else json.dumps(message)[:1000], named[0], named[1]


def _stated_pause(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait, stated as (milli)seconds or a date; 0 where it says nothing."""
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        stated = lowered.get(name, "")
        try:
            seconds = float(stated) * scale
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError, IndexError):
                continue
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    return 0.0
