"""Switches that break the development Hub's answers on purpose."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

# docs/hub.md says what each does; "status" is any number
KINDS = ("status", "reset", "short", "wrong", "slow", "loop", "lost", "gated", "listing", "etag")
HOSTILE_NAMES = (
    "../escaped.json",
    "/tmp/escaped.json",
    "C:\\escaped.json",
    "\\\\host\\share\\x.json",
    "a/../../x.json",
)


@dataclass
class Fault:
    """One switch. ``where``: a pattern that is searched in "METHOD path"; ``times``: how often, -1 for ever."""

    kind: str
    value: str = ""
    where: str = ""
    times: int = -1

    @classmethod
    def parse(cls, text: str) -> Fault:
        """``KIND[=VALUE][@PATTERN][*TIMES]``, such as ``429=2@POST .*/commit/*1``; ValueError for anything else."""
        match = re.fullmatch(r"([a-z0-9]+)(?:=([^@*]*))?(?:@(.*?))?(?:\*(\d+))?", text)
        if match is None:
            raise ValueError(f"a fault is KIND[=VALUE][@PATTERN][*TIMES], not {text!r}")
        kind, value, where, times = match.groups()
        if kind.isdigit():
            kind, value = "status", kind + (f"={value}" if value else "")
        if kind not in KINDS:
            raise ValueError(f"no fault is called {kind!r}; there are: {', '.join(KINDS)}, or a status such as 429")
        re.compile(where or "")
        return cls(kind, value or "", where or "", int(times) if times else -1)


class Faults:
    """The switches that are on; safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on: list[Fault] = []

    def set(self, *texts: str) -> None:
        """Turn on these faults and no others."""
        found = [Fault.parse(text) for text in texts]
        with self._lock:
            self._on = found

    def take(self, request: str) -> list[Fault]:
        """The faults that hit this request ("METHOD path"); each is used up once."""
        hit = []
        with self._lock:
            for fault in self._on:
                if fault.times and re.search(fault.where, request):
                    fault.times -= fault.times > 0
                    hit.append(fault)
        return hit
