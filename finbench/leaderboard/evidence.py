"""What a leaderboard keeps of a card's samples: of each task the main metric's values, by which rows are told apart.

The samples of thousands of cards do not fit into memory. Their documents are the same, and values are few, so that a
task's are numbers of kinds of values. The rows themselves are read when somebody asks for them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finbench.cards import cardfiles
from finbench.core.files import digest, stable_json
from finbench.core.records import Score, Scorecard
from finbench.leaderboard import breakdown, precedence
from finbench.scoring import hidden_metrics, samples_of

Rows = Sequence[Mapping[str, Any]]
_KEPT = 4  # cards whose rows are in memory


@dataclass(frozen=True, eq=False)
class Proof:
    """A score's samples. ``codes``: of each row the number of its value in ``kinds`` (JSON); None where hidden."""

    docs: str  # digest of the documents, in order
    sources: tuple[int, ...] | None  # number of each row's source; None: each row has its own
    samples: int  # answers to a document
    marks: tuple[str, ...]  # digest of all answers, where they tell models apart
    kinds: tuple[str, ...]
    codes: NDArray[np.uint32] | None
    breakdown: dict[str, Any] | None  # the score taken apart (``breakdown.of``)

    @property
    def values(self) -> list[Any]:
        """The main metric's value of each row."""
        kinds = [json.loads(kind) for kind in self.kinds]
        return [] if self.codes is None else [kinds[code] for code in self.codes]

    @property
    def clusters(self) -> list[int]:
        """The source of each row."""
        count = 0 if self.codes is None else len(self.codes)
        return list(self.sources or range(count))

    @functools.cached_property
    def digest(self) -> str:
        """Of everything on which a test rests."""
        found = _framed(self.docs, self.sources, self.samples, self.kinds).copy()
        found.update(b"hidden" if self.codes is None else self.codes.astype("<u4").tobytes())
        return found.hexdigest()


@functools.lru_cache(1_000)  # thousands of subjects have the same few
def _framed(*said: Any) -> hashlib._Hash:
    return hashlib.sha256(stable_json(said).encode() + b"\0")


def of(score: Score, rows: Rows) -> Proof | None:
    """The evidence in a score's rows; None where there are none."""
    if not rows:
        return None
    marks = tuple(precedence.answered(score, rows))
    docs = digest([row["doc"] for row in rows])
    named = [row["cluster"] for row in rows]
    place = {source: number for number, source in enumerate(dict.fromkeys(named))}
    sources = None if len(place) == len(rows) else tuple(place[source] for source in named)
    if (name := score.main_metric) in hidden_metrics(rows):
        return Proof(docs, sources, samples_of(rows), marks, (), None, None)
    values = [cardfiles.of_row(row, ("value", name), lambda one: stable_json(one["values"][name])) for row in rows]
    kinds = {value: number for number, value in enumerate(dict.fromkeys(values))}
    codes = np.array([kinds[value] for value in values], dtype=np.uint32)
    return Proof(docs, sources, samples_of(rows), marks, tuple(kinds), codes, breakdown.of(score, rows))


def evidence_of(score: Score, samples: Mapping[str, Rows]) -> Proof | None:
    """The evidence for a score: what is known of it, else taken from its rows."""
    if isinstance(samples, Samples):
        return samples.evidence.get(score.task)
    return of(score, samples.get(score.task, ()))


class Samples(Mapping[str, list[dict[str, Any]]]):
    """Sample rows of a card by task, read when they are asked for; of a card without samples none."""

    def __init__(self, path: Path, card: Scorecard, evidence: Mapping[str, Proof]) -> None:
        self._path, self._card, self.evidence = path, card, evidence
        self._tasks = tuple(score.task for score in card.scores) if card.samples else ()

    def __getitem__(self, task: str) -> list[dict[str, Any]]:
        if task not in self._tasks:
            raise KeyError(task)
        return _rows(self._path, self._card.samples or "", self._card.seal)[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


@functools.lru_cache(_KEPT)
def _rows(path: Path, samples: str, seal: str | None) -> dict[str, list[dict[str, Any]]]:
    """``samples`` and ``seal`` tell whether the card is still the same."""
    return cardfiles.rows_by_task(path, cardfiles.read(path))
