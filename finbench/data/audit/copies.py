"""Texts that occur more than once: inside a file, across splits, across versions of a set."""

from __future__ import annotations

from collections.abc import Iterator

from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_FULL = "JOIN body USING (body) WHERE words != ''"  # an empty text is another check's
_NESTED = 0.95  # of the smaller file in the larger: one holds the other
_COPY = 0.9  # of both: two versions of one file
Pair = tuple[AuditedFile, AuditedFile]


def duplicates(context: AuditContext) -> Iterator[Finding]:
    """Rows that a file repeats: the same question about the same text with the same answer."""
    groups = (
        f"SELECT asked, min(n) AS first, count(*) - 1 AS more FROM row {_FULL} AND src = ?"
        " GROUP BY asked, gold HAVING count(*) > 1"
    )
    totals = f"SELECT count(*), coalesce(sum(more), 0), coalesce(max(more), 0) + 1 FROM ({groups})"
    for source in context.sources:
        texts, surplus, most = context.query(totals, source.id).fetchone()
        if surplus:
            often = f"; one occurs {most:,} times" if most > 2 else ""
            yield context.find(
                "duplicates",
                "warning" if surplus >= 0.005 * source.rows else "note",
                [source],
                (surplus, source.rows),
                f"{share(surplus, source.rows)} rows repeat another row ({texts:,} texts{often}).",
                (f"SELECT first FROM ({groups})", source.id),
            )


def conflicts(context: AuditContext) -> Iterator[Finding]:
    """The same question about the same text with different answers."""
    for source in context.sources:
        key = "asked" if source.layout.asks_apart else "unit"
        groups = (
            f"SELECT {key}, count(*) AS size, min(n) AS first FROM row {_FULL} AND src = ? AND gold IS NOT NULL"
            f" GROUP BY {key} HAVING count(DISTINCT gold) > 1"
        )
        again = f"SELECT count(*) FROM (SELECT 1 FROM row {_FULL} AND src = ? GROUP BY {key} HAVING count(*) > 1)"
        texts, rows = context.query(f"SELECT count(*), sum(size) FROM ({groups})", source.id).fetchone()
        if texts:
            (repeated,) = context.query(again, source.id).fetchone()
            labelled = source.id in context.labels or len(source.layout.gold) > 1
            yield context.find(
                "conflicts",
                "error" if labelled else "warning",
                [source],
                (texts, repeated),
                f"{share(texts, repeated)} texts that occur more than once have different answers ({rows:,} rows).",
                (f"SELECT first FROM ({groups})", source.id),
            )


def leaks(context: AuditContext) -> Iterator[Finding]:
    """Texts that are in two splits, or in two files of which one may train and the other test."""
    for (one, other), count in sorted(context.shared.items()):
        pair = context.sources[one], context.sources[other]
        splits = {source.split for source in pair}
        if pair[0].family != pair[1].family and _by_chance(context, pair, count):
            continue
        if None not in splits and len(splits) == 2:
            yield from _between_splits(context, pair, count)
        elif None in splits and "train" not in splits:
            yield from _between_files(context, pair, count)


def _by_chance(context: AuditContext, pair: Pair, count: int) -> bool:
    """Whether what two strangers have in common is a handful of texts, or short ones."""
    if count < max(3, 0.005 * min(context.distinct[source.id] for source in pair)):
        return True
    query, *values = _common(context, *pair)
    words = f"SELECT words FROM row JOIN body USING (body) WHERE n IN ({query} LIMIT 200)"
    return sum(str(text).count(" ") >= 3 for (text,) in context.query(words, *values)) < 3


def _common(context: AuditContext, source: AuditedFile, other: AuditedFile) -> tuple[str, int, int]:
    """A query for the rows of a source whose texts are in the other too, and its values."""
    key = "text" if {source.id, other.id} & context.by_question else "body"
    query = f"SELECT min(n) FROM row {_FULL} AND src = ? AND {key} IN (SELECT {key} FROM row WHERE src = ?)"
    return f"{query} GROUP BY {key}", source.id, other.id


def _between_splits(context: AuditContext, pair: Pair, count: int) -> Iterator[Finding]:
    low, high = sorted(pair, key=lambda source: ("train", "validation", "test").index(str(source.split)))
    of, stranger = context.distinct[high.id], low.family != high.family
    if low.split != "train" and stranger and count >= _COPY * max(of, context.distinct[low.id]):
        return  # one file under two names: literature calls TFNS's validation a test
    said = f"{share(count, of)} texts of {high.stem} ({high.split}) are in {low.stem} ({low.split})"
    if stranger:
        said += ": the splits of these two versions contradict each other"
    yield context.find(
        "split-conflict" if stranger else "leak",
        "error" if low.split == "train" else "warning",
        [low, high],
        (count, of),
        said + ".",
        _common(context, high, low),
    )


def _between_files(context: AuditContext, pair: Pair, count: int) -> Iterator[Finding]:
    """At least one of the files does not say what split it is."""
    small, large = sorted(pair, key=lambda source: context.distinct[source.id])
    tested = next((source for source in pair if source.split), None)
    if tested is None and count >= _COPY * context.distinct[large.id]:
        return  # two versions of one file
    nested = tested is None and count >= _NESTED * context.distinct[small.id]
    shown, held = (large, small) if tested is large else (small, large)
    said = f"{share(count, context.distinct[shown.id])} texts of {shown.stem} are in {held.stem}"
    said += ": one holds the other." if nested else f": not to train on where {shown.stem} is the test."
    (first,) = context.query("SELECT body FROM row WHERE src = ?", shown.id).fetchone()
    yield context.find(
        "overlap",
        "note" if nested else "warning",
        [shown, held],
        (count, context.distinct[shown.id]),
        said,
        _common(context, shown, held),
        first if nested else None,
    )


def row_split(context: AuditContext) -> Iterator[Finding]:
    """What a random 80/20 split by row would leak, in a file that comes without a split."""
    query = (
        f"SELECT size, count(*) FROM (SELECT count(*) AS size FROM row {_FULL} AND src = ? GROUP BY text)"
        " GROUP BY size HAVING size > 1"
    )
    for source in context.sources:
        if source.split:
            continue
        # of k copies a test row has another in train with probability 1 - 0.2^(k-1)
        sizes = context.query(query, source.id)
        leaked = round(sum(0.2 * size * number * (1 - 0.2 ** (size - 1)) for size, number in sizes))
        tested = round(0.2 * source.rows)
        if leaked >= max(3, 0.005 * tested):
            yield context.find(
                "row-split",
                "warning",
                [source],
                (leaked, tested),
                f"A random 80/20 split by row would put the texts of about {share(leaked, tested)} test rows into "
                "train: split by text.",
            )
