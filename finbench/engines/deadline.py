"""A bound on the whole of an exchange by HTTP: httpx bounds each read, and a server may send a little for ever.

Its loop over interim answers (states 100 to 199) and over pieces of headers ends only when the server lets it.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import httpcore2
import httpx2

_ending = threading.local()  # when the exchange of this thread must be over


def until(moment: float) -> None:
    """From now on this thread reads no answer after ``moment`` (of ``time.monotonic``)."""
    _ending.at = moment


def bound(client: httpx2.Client) -> httpx2.Client:
    """Have all connections of ``client`` keep to ``until``; returns it."""
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.HTTPTransport):  # it takes no backend by itself
            transport._pool._network_backend = _Backend()
    return client


class _Backend(httpcore2.SyncBackend):
    def connect_tcp(self, *given: Any, **how: Any) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(*given, **how))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self.inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = getattr(_ending, "at", float("inf")) - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("it was not done in time")
        return self.inner.read(max_bytes, left if timeout is None else min(timeout, left))

    def start_tls(self, *given: Any, **how: Any) -> httpcore2.NetworkStream:
        return _Stream(self.inner.start_tls(*given, **how))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, timeout)

    def close(self) -> None:
        self.inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)
