"""Requests, tokens and latency by adapter, as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds, the last being without end
_HELP = {
    "requests_total": "Requests that were answered or refused, by state of HTTP.",
    "prompt_tokens_total": "Tokens of prompts.",
    "answer_tokens_total": "Tokens of answers.",
    "request_seconds": "From the whole request to the last byte of its answer.",
    "requests_running": "Requests under way.",
    "adapter_bytes": "Bytes of the weights of an adapter that is served.",
    "adapter_slots": "Adapters for which there is room.",
    "adapter_slot_bytes": "Bytes that are kept for each.",
}


class Tally:
    """Counts of one server since it began; ``adapter`` is a name that is served, or another word for what is not."""

    def __init__(self) -> None:
        self.requests = collections.Counter[tuple[str, int]]()
        self.prompts = collections.Counter[str]()
        self.answers = collections.Counter[str]()
        self.seconds = collections.defaultdict[str, float](float)
        self.within: dict[str, list[int]] = {}  # of each adapter, how many took at most so long
        self.running = collections.Counter[str]()

    def add(self, adapter: str, state: int, seconds: float, prompt: int, answer: int) -> None:
        """Count a request that has ended."""
        self.requests[adapter, state] += 1
        self.prompts[adapter] += prompt
        self.answers[adapter] += answer
        self.seconds[adapter] += seconds
        within = self.within.setdefault(adapter, [0] * (len(BUCKETS) + 1))
        for number, limit in enumerate((*BUCKETS, float("inf"))):
            within[number] += seconds <= limit

    def text(self, held: Mapping[str, int], slots: int, slot_bytes: int) -> str:
        """All of it; ``held`` are the bytes of the adapters that are served now."""
        return "".join(f"{line}\n" for line in self._lines(held, slots, slot_bytes))

    def _lines(self, held: Mapping[str, int], slots: int, slot_bytes: int) -> Iterator[str]:
        counts = ((f'adapter="{_safe(name)}",code="{state}"', n) for (name, state), n in self.requests.items())
        yield from _metric("requests_total", "counter", counts)
        for title, counter in (("prompt_tokens_total", self.prompts), ("answer_tokens_total", self.answers)):
            yield from _metric(title, "counter", _by_adapter(counter))
        yield from _head("request_seconds", "histogram")
        for name, within in self.within.items():
            for limit, count in zip((*map(str, BUCKETS), "+Inf"), within, strict=True):
                yield f'finbench_request_seconds_bucket{{adapter="{_safe(name)}",le="{limit}"}} {count}'
            yield f'finbench_request_seconds_sum{{adapter="{_safe(name)}"}} {self.seconds[name]:.6f}'
            yield f'finbench_request_seconds_count{{adapter="{_safe(name)}"}} {within[-1]}'
        yield from _metric("requests_running", "gauge", _by_adapter(self.running))
        yield from _metric("adapter_bytes", "gauge", _by_adapter(held))
        yield from _metric("adapter_slots", "gauge", [("", slots)])
        yield from _metric("adapter_slot_bytes", "gauge", [("", slot_bytes)])


def _metric(title: str, kind: str, values: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield from _head(title, kind)
    for labels, value in values:
        yield f"finbench_{title}{{{labels}}} {value}" if labels else f"finbench_{title} {value}"


def _head(title: str, kind: str) -> Iterator[str]:
    yield f"# HELP finbench_{title} {_HELP[title]}"
    yield f"# TYPE finbench_{title} {kind}"


def _by_adapter(values: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    return ((f'adapter="{_safe(name)}"', value) for name, value in values.items())


def _safe(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
