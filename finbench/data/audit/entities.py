"""Companies on both sides of a split that keeps companies apart, but for these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from finbench.data.audit.context import AuditContext, share
from finbench.data.audit.findings import SHOWN, Finding
from finbench.data.audit.texts import Company, Texts

_FEWEST = 2.5  # companies that a split by row would share: below that their absence tells nothing
_APART = 1 / 3  # of these are shared at most where a split is by company


def shared(seen: Sequence[Texts], context: AuditContext) -> Iterator[Finding]:
    """Companies of a test that train has too, where by chance many more would be in both.

    A row of both is in the test with probability p, the test's share of rows; a company of m rows would
    be on both sides with probability 1 - p^m - (1 - p)^m.
    """
    for test in seen:
        for train in seen if test.source.split in ("test", "validation") else ():
            if train.source.split != "train" or train.source.family != test.source.family:
                continue
            for column in test.companies.keys() & train.companies.keys():
                mine, theirs = test.companies[column], train.companies[column]
                both = sorted(mine.keys() & theirs.keys())
                if both and len(both) <= _APART * (expected := _by_chance(mine, theirs)) and expected >= _FEWEST:
                    places = [f"{test.source.name}{mine[name].first}" for name in both[:SHOWN]]
                    named = ", ".join(mine[name].shown for name in both[:3])
                    said = f"{share(len(both), len(mine))} values of {column} in {test.source.stem} are in "
                    said += f"{train.source.stem} too ({named}), where a split by row would share {expected:.0f}: "
                    said += "the split keeps the others apart."
                    counted, sources = (len(both), len(mine)), [train.source, test.source]
                    yield context.find("entity-leak", "warning", sources, counted, said, places=places)


def _by_chance(one: Mapping[str, Company], other: Mapping[str, Company]) -> float:
    rows = [sum(found.rows for found in side.values()) for side in (one, other)]
    p = rows[0] / sum(rows)
    sizes = [sum(side[name].rows for side in (one, other) if name in side) for name in one.keys() | other.keys()]
    return float(sum(1 - p**size - (1 - p) ** size for size in sizes))
