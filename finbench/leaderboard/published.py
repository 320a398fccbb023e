"""Numbers that others published: shown as they printed them, never ranked, with what is wrong with them beside.

``leaderboards/published.yaml`` states tables, test sizes and majority shares; which cells lie below the majority
label, or are no share of their test, is computed here.
"""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field

from finbench.core.catalog import read_yaml
from finbench.core.strict import Record

FILE = "published.yaml"


class PublishedColumn(Record):
    """A test of a published table."""

    name: str = Field(description="as the authors call it")
    n: int | None = Field(default=None, ge=1, description="rows of the published test file")
    majority: float | None = Field(default=None, description="per cent of its commonest label")
    exact: bool = Field(default=True, description="values are 100 k / n: accuracies, not averaged scores")


class PublishedTable(Record):
    """A published table: values as printed, None where there is none."""

    title: str
    columns: list[PublishedColumn]
    rows: dict[str, list[float | None]]


class Erratum(Record):
    """Something wrong with the published numbers, and how one sees it."""

    what: str
    shown: str


class PublishedScore(Record):
    """A reference block."""

    title: str
    source: str
    link: str = Field(pattern=r"^https://")
    note: str
    quoted: list[str] = Field(
        default=[], description="rows that the authors took from elsewhere: other rows, other metrics"
    )
    tables: list[PublishedTable]
    errata: list[Erratum]


def read(folder: Path) -> list[PublishedScore]:
    """The reference blocks of a leaderboard folder; none where it has no such file."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [PublishedScore.parse(block, f"{path}: {name}") for name, block in read_yaml(path).items()]


def marks(column: PublishedColumn, value: float | None) -> str:
    """``m``: below the majority label; ``k``: no share of n documents, rounded or cut to two digits; or both."""
    if value is None:
        return ""
    below = "m" if column.majority is not None and value < column.majority else ""
    return below + ("" if possible(column, value) else "k")


def possible(column: PublishedColumn, value: float) -> bool:
    """Some k of n documents gives this percentage, rounded or cut to two digits.

    Beyond a thousand documents nearly every number does, so only smaller tests are looked at.
    """
    if not column.exact or column.n is None or column.n > 1300:
        return True
    for k in (math.floor(value * column.n / 100), math.ceil(value * column.n / 100)):
        share = 100 * k / column.n
        printed = (round(share, 2), math.floor(share * 100 + 1e-9) / 100)
        if any(math.isclose(one, value, abs_tol=1e-6) for one in printed):
            return True
    return False
