"""How fast an endpoint may be asked: limits that the user states, those that its headers tell, and what it refuses."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

_MINUTE = 60.0
_LONGEST = 60.0  # seconds until a limit that is used up is tried again, whatever the endpoint says of it
_FIRST_GAP, _WIDEST_GAP = 0.25, 20.0  # seconds between two requests, after refusals
_DURATION = re.compile(r"([\d.]+)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Pace:
    """Shared by the threads that ask. ``requests`` and ``tokens`` a minute at most; None: as the endpoint tells."""

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self.requests, self.tokens = requests, tokens
        self._lock = threading.Lock()
        self._asked: deque[tuple[float, int]] = deque()  # when, and with how many tokens
        self._until = self._gap = self._widened = 0.0  # nobody asks before; seconds between two; when they grew

    def wait(self, tokens: int = 0) -> None:
        """Until a request of so many tokens may be sent."""
        with self._lock:
            now = time.monotonic()
            while self._asked and self._asked[0][0] <= now - _MINUTE:
                self._asked.popleft()
            before = self._asked[-1][0] + self._gap if self._asked and self._gap else 0.0
            at = max(now, self._until, before, self._room(self.requests, 1, 1), self._room(self.tokens, tokens))
            self._asked.append((at, tokens))
        if at > now:
            time.sleep(at - now)

    def _room(self, most: int | None, wanted: int, each: int | None = None) -> float:
        """When the last minute has room for what is ``wanted``; one that is larger than the limit goes alone."""
        if most is None:
            return 0.0
        for when, tokens in reversed(self._asked):
            wanted += tokens if each is None else each
            if wanted > most:
                return when + _MINUTE
        return 0.0

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def refused(self) -> None:
        """Too many requests: they keep twice the distance from now on; those that went out together count as one."""
        with self._lock:
            now = time.monotonic()
            if now - self._widened > self._gap:
                self._gap, self._widened = min(_WIDEST_GAP, max(_FIRST_GAP, 2 * self._gap)), now

    def taken(self) -> None:
        """A request came through: they may come a little closer again."""
        with self._lock:
            self._gap = 0.9 * self._gap if self._gap > _FIRST_GAP / 10 else 0.0

    def told(self, headers: Mapping[str, str]) -> None:
        """Where headers say that nothing is left of a limit, wait until they say that there is again."""
        lowered = {name.lower(): value.strip() for name, value in headers.items()}
        for name, value in lowered.items():
            if "ratelimit" in name and "remaining" in name and value == "0":
                self.hold(min(_LONGEST, _seconds(lowered.get(name.replace("remaining", "reset"), ""))))


def _seconds(stated: str) -> float:
    """From now: "1s", "6m0s", "20ms", "59.5" or a time of RFC 3339; 0 for what cannot be read."""
    parts = _DURATION.findall(stated)
    try:
        if parts and "".join(number + unit for number, unit in parts) == stated:
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
        if re.fullmatch(r"[\d.]+", stated):
            number = float(stated)
            number /= 1000 if number > 1e11 else 1  # milliseconds of the epoch; less is a time in its seconds
            return max(0.0, number - time.time()) if number > 1e9 else number
        when = datetime.fromisoformat(stated)
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0
