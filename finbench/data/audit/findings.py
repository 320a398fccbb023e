"""What an audit says: findings with their evidence, and what was looked at."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finbench.core.strict import Record

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
SHOWN = 10  # places listed with a finding


class Finding(Record):
    """One thing that is wrong, where, how often, and rows that show it."""

    check: str = Field(description="which check found it")
    level: Level = Field(description="error: scores are wrong; warning: they may mislead; note: worth knowing")
    sources: list[str] = Field(description="the files, or their splits, that it is about")
    count: int = Field(ge=0, description="rows or texts concerned")
    of: int = Field(ge=0, description="of how many")
    said: str = Field(description="one sentence")
    places: list[str] = Field(default=[], description="the first rows concerned, as file:line")
    example: str | None = Field(default=None, description="a row's text, or its salted hash where no text may be shown")
    detail: dict[str, int] = Field(default={}, description="counts by kind")


class Seen(Record):
    """A file, or one split in it, as the audit read it."""

    name: str = Field(description="file, below the folder that was given")
    split: str | None = Field(description="train, validation or test, if the name or a column says so")
    rows: int
    texts: list[str] = Field(description="columns that are the text")
    gold: list[str] = Field(description="columns that are the answer")
    licence: str | None = Field(description="as a known set, a card or a LICENSE file states it")
    open: bool | None = Field(default=None, description="whether its texts may be shown; null: not known")


class Audit(Record):
    """A whole audit."""

    sources: list[Seen]
    findings: list[Finding]
    skipped: dict[str, str] = Field(default={}, description="file of a folder that holds no rows -> how that is known")
    unread: dict[str, str] = Field(default={}, description="file -> why it, or some of its rows, could not be read")

    @property
    def faults(self) -> list[Finding]:
        """What ``--strict`` fails on, beside what is ``unread``: errors and warnings."""
        return [finding for finding in self.findings if finding.level != "note"]
