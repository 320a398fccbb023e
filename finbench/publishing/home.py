"""What a benchmark on the Hub states of itself (``benchmark.json``), and whether a score belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, Field

from finbench import hub
from finbench.core import catalog, refs
from finbench.core.errors import FinbenchError
from finbench.core.records import Score, Scorecard
from finbench.core.strict import Record


class BenchmarkTask(Record):
    """A task of a benchmark."""

    version: int
    digest: str = Field(description="of its definition")
    form: str
    metric: str
    set: str
    rows: int
    data: str = Field(description="digest of what is asked and expected, as scorecards have it")


class HeldSet(Record):
    """A set of a benchmark. ``shipped``: its rows are there; else their hashes."""

    licence: str
    shipped: bool
    rows: dict[str, int]
    sha256: dict[str, str] = Field(description="of the files of rows")
    source: str


class BenchmarkFacts(Record):
    """``benchmark.json``."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema", default=1)
    repository: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    version: str
    digest: str
    tasks: dict[str, BenchmarkTask]
    sets: dict[str, HeldSet]


@dataclass(frozen=True)
class Home:
    """The benchmark on the Hub that results belong to, at the commit that was looked at."""

    repo: str
    sha: str
    registered: bool
    tasks: Mapping[str, BenchmarkTask]

    def lacking(self, card: Scorecard, score: Score) -> str:
        """Why a score is none of this benchmark, as part of a sentence; empty if it is."""
        asked = self.tasks.get(score.task)
        if asked is None:
            return "a task that it does not have"
        if asked.version != score.version:
            return f"version {score.version} of the task; it asks version {asked.version}"
        if asked.digest != score.task_digest:
            return f"a task of another definition, though of version {asked.version} too"
        if score.n != asked.rows:
            return f"{score.n:,} rows; it asks {asked.rows:,}"
        if card.limit is not None or card.status == "partial":
            return "a run with a limit, or one that did not end"
        return "" if score.data.digest == asked.data else "other rows than it asks (another edition, choice or fork)"

    def left_out(self, card: Scorecard) -> list[str]:
        """A sentence for each score of a card that is none of this benchmark."""
        short = ((score.task.removeprefix(catalog.PREFIX), self.lacking(card, score)) for score in card.scores)
        return [f"{task} of {card.subject.name} is no result of hub:{self.repo}: {why}." for task, why in short if why]


def home(named: str) -> Home:
    """The benchmark that results are said to belong to; FinbenchError where there is none, or a copy of one."""
    ref = _parsed(named)
    found = hub.find_benchmark(ref.name, ref.revision or "main")
    if found is None or found.facts is None:
        raise FinbenchError(
            f"hub:{ref.name} is no benchmark that finbench has published: it has no {hub.FACTS}.",
            f"Publish it first: finbench push --benchmark hub:{ref.name}. Or leave --benchmark out.",
        )
    facts = BenchmarkFacts.parse(found.facts, f"hub:{ref.name}/{hub.FACTS}")
    if not hub.is_called(found, facts.repository):
        raise FinbenchError(
            f"hub:{ref.name} is a copy of the benchmark hub:{facts.repository}.",
            f"Name the benchmark itself: --benchmark hub:{facts.repository}",
        )
    return Home(found.repo, found.sha, found.registered, facts.tasks)


def _parsed(text: str) -> refs.Ref:
    ref = refs.parse(text)
    if ref.kind != "hub":
        raise FinbenchError(f"--benchmark {text} is no repository of the Hub.{refs.meant(text)}", "Write hub:org/name.")
    return ref
