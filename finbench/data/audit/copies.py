"""Texts that occur more than once: inside a file, across splits, across versions of a set."""

from __future__ import annotations

from collections.abc import Iterator

from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_FULL = "JOIN body USING (body) WHERE words != ''"  # an empty text is another check's
_NESTED = 0.95  # of the smaller file in the larger: one holds the other
_COPY = 0.9  # of both: two versions of one file


def duplicates(context: AuditContext) -> Iterator[Finding]:
    """Rows that a file repeats: the same question about the same text with the same answer."""
    for source in context.sources:
        groups = (
            f"SELECT asked, min(n) AS first, count(*) - 1 AS more FROM row {_FULL} AND src = ?"
            " GROUP BY asked, gold HAVING count(*) > 1"
        )
        texts, surplus, most = context.store.db.execute(
            f"SELECT count(*), coalesce(sum(more), 0), coalesce(max(more), 0) + 1 FROM ({groups})", (source.id,)
        ).fetchone()
        if surplus:
            often = f"; one occurs {most:,} times" if most > 2 else ""
            yield context.find(
                "duplicates",
                "warning" if surplus >= 0.005 * source.rows else "note",
                [source],
                (surplus, source.rows),
                f"{share(surplus, source.rows)} rows repeat another row ({texts:,} texts{often}).",
                (f"SELECT first FROM ({groups})", (source.id,)),
            )


def conflicts(context: AuditContext) -> Iterator[Finding]:
    """The same question about the same text with different answers."""
    for source in context.sources:
        groups = (
            f"SELECT unit, count(*) AS size, min(n) AS first FROM row {_FULL} AND src = ? AND gold IS NOT NULL"
            " GROUP BY unit HAVING count(DISTINCT gold) > 1"
        )
        texts, rows = context.store.db.execute(
            f"SELECT count(*), coalesce(sum(size), 0) FROM ({groups})", (source.id,)
        ).fetchone()
        if not texts:
            continue
        repeated = context.store.db.execute(
            f"SELECT count(*) FROM (SELECT unit FROM row {_FULL} AND src = ? GROUP BY unit HAVING count(*) > 1)",
            (source.id,),
        ).fetchone()[0]
        labelled = source.id in context.labels or len(source.layout.gold) > 1
        yield context.find(
            "conflicts",
            "error" if labelled else "warning",
            [source],
            (texts, repeated),
            f"{share(texts, repeated)} texts that occur more than once have different answers ({rows:,} rows).",
            (f"SELECT first FROM ({groups})", (source.id,)),
        )


def leaks(context: AuditContext) -> Iterator[Finding]:
    """Texts that are in two splits, or in two files of which one may train and the other test."""
    for (one, other), count in sorted(context.shared.items()):
        first, second = context.sources[one], context.sources[other]
        sizes = context.distinct[one], context.distinct[other]
        if first.family != second.family and _few(context, first, second, count, sizes):
            continue
        if first.split and second.split:
            yield from _between_splits(context, first, second, count, sizes)
        elif "train" not in (first.split, second.split):
            yield from _between_files(context, first, second, count, sizes)


def _few(context: AuditContext, first: AuditedFile, second: AuditedFile, count: int, sizes: tuple[int, int]) -> bool:
    """Whether what two strangers have in common is chance: a handful of texts, or short ones."""
    if count < max(3, 0.005 * min(sizes)):
        return True
    query, values = _common(context, first, second, first.id)
    words = "SELECT words FROM row JOIN body USING (body) WHERE n IN (SELECT n FROM ({}) LIMIT 200)"
    texts = [
        found for (found,) in context.store.db.execute(words.format(query.replace("min(n)", "min(n) AS n")), values)
    ]
    return sum(str(text).count(" ") >= 3 for text in texts) < 3


def _common(context: AuditContext, first: AuditedFile, second: AuditedFile, src: int) -> tuple[str, tuple[int, int]]:
    key = context.text_key(first.id, second.id)
    other = second.id if src == first.id else first.id
    query = (
        f"SELECT min(n) FROM row {_FULL} AND src = ? AND {key} IN (SELECT {key} FROM row WHERE src = ?) GROUP BY {key}"
    )
    return query, (src, other)


def _between_splits(
    context: AuditContext, first: AuditedFile, second: AuditedFile, count: int, sizes: tuple[int, int]
) -> Iterator[Finding]:
    if first.split == second.split:
        return
    order = {"train": 0, "validation": 1, "test": 2}
    low, high = sorted((first, second), key=lambda source: order[str(source.split)])
    of = sizes[0] if high is first else sizes[1]
    stranger = first.family != second.family
    if low.split != "train" and stranger and count >= _COPY * max(sizes):
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
        _common(context, first, second, high.id),
    )


def _between_files(
    context: AuditContext, first: AuditedFile, second: AuditedFile, count: int, sizes: tuple[int, int]
) -> Iterator[Finding]:
    """At least one of the files does not say what split it is."""
    tested = next((source for source in (first, second) if source.split), None)
    if tested is None and count >= _COPY * max(sizes):
        return  # two versions of one file
    small, _ = (first, second) if sizes[0] <= sizes[1] else (second, first)
    shown, of = (tested, sizes[0 if tested is first else 1]) if tested else (small, min(sizes))
    held = second if shown is first else first
    nested = tested is None and count >= _NESTED * min(sizes)
    said = f"{share(count, of)} texts of {shown.stem} are in {held.stem}"
    said += ": one holds the other." if nested else f": not to train on where {shown.stem} is the test."
    yield context.find(
        "overlap",
        "note" if nested else "warning",
        [shown, held],
        (count, of),
        said,
        _common(context, first, second, shown.id),
        None
        if not nested
        else context.store.db.execute("SELECT body FROM row WHERE src = ?", (shown.id,)).fetchone()[0],
    )


def row_split(context: AuditContext) -> Iterator[Finding]:
    """What a random 80/20 split by row would leak, in a file that comes without a split."""
    for source in context.sources:
        if source.split:
            continue
        sizes = context.store.db.execute(
            f"SELECT size, count(*) FROM (SELECT count(*) AS size FROM row {_FULL} AND src = ? GROUP BY text)"
            " GROUP BY size HAVING size > 1",
            (source.id,),
        ).fetchall()
        # of k copies a test row has another in train with probability 1 - 0.2^(k-1)
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
