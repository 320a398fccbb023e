"""Answers: missing, of another kind, known from train, or one fact asked again and again."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import Any

from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding

_NEVER = ("nan", "", "#n/a", "inf", "-inf", "infinity", "-infinity")  # no answer, however often
_MISSING = (*_NEVER, "none", "null", "n/a", "na", "undefined")
_RARE = 0.02  # of the rows: "none" may be a class, but not one of six in five thousand
_SAME = 0.2  # of the weight of the words of two questions that have answer and all other columns in common
_TOKEN_TAG = re.compile(r"\d{1,3}|o|[bilseu][-_]\S+|\S+[-_][bi]")
_KINDS = (
    ("number", re.compile(r"[-+(]?\s*[$€£]?\s*[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?\s*%?\)?")),
    ("tag", re.compile(r"[a-z][a-z0-9-]*:[a-z][a-z0-9_]+")),
    ("yes or no", re.compile(r"yes|no|true|false")),
)


def missing(context: AuditContext) -> Iterator[Finding]:
    """Answers that are a missing value written out, a number beyond every float (1e400), or nothing."""
    for source in context.sources:
        for word in _MISSING:
            query = "FROM row WHERE src = ? AND gold = ?"
            (count,) = context.query(f"SELECT count(*) {query}", source.id, word).fetchone()
            a_class = source.id in context.labels or count > max(10, _RARE * source.rows)
            if count and (word in _NEVER or not a_class):
                what = f'the answer "{word}"' if word else "no answer"
                said = f"{share(count, source.rows)} rows have {what}."
                rows = (f"SELECT n {query}", source.id, word)
                yield context.find("missing-answer", "error", [source], (count, source.rows), said, rows)


def kind_of(gold: str) -> str:
    """number, tag, yes or no, or text."""
    return next((name for name, pattern in _KINDS if pattern.fullmatch(gold)), "text")


def kinds(context: AuditContext) -> Iterator[Finding]:
    """Answers of another kind than nearly all others of their file: a number where tags are asked for."""
    for source in context.sources:
        if source.id in context.labels or len(source.layout.gold) != 1:
            continue
        golds: dict[str, dict[str, int]] = {}  # kind -> answer -> rows
        query = "SELECT gold, count(*) FROM row WHERE src = ? AND gold IS NOT NULL GROUP BY gold"
        for gold, count in context.query(query, source.id):
            if gold not in _MISSING:
                golds.setdefault(kind_of(gold), {})[gold] = count
        counts = Counter({kind: sum(found.values()) for kind, found in golds.items()})
        rows = counts.total()
        if rows < 20:
            continue
        main, most = counts.most_common(1)[0]
        if main not in ("tag", "number") or most == rows or most < (0.75 if main == "tag" else 0.97) * rows:
            continue
        for kind, count in counts.items():
            if kind == main:
                continue
            shown = ", ".join(map(repr, list(golds[kind])[:3]))
            yield context.find(
                "answer-kind",
                "error" if main == "tag" and kind == "number" else "warning" if main == "tag" else "note",
                [source],
                (count, rows),
                f"{share(count, rows)} answers are a {kind}, where {most:,} are a {main} (such as {shown}).",
                _answered(source, golds[kind]),
                detail=dict(counts.most_common()),
            )


def _answered(source: AuditedFile, golds: Iterable[str]) -> tuple[Any, ...]:
    """A query for the rows with one of these answers, and its values."""
    first = list(golds)[:200]
    return f"SELECT n FROM row WHERE src = ? AND gold IN ({','.join('?' * len(first))})", source.id, *first


def telling(gold: str) -> bool:
    """Whether an answer is so special that two rows do not have it by chance: several words, or five digits."""
    if kind_of(gold) == "number":
        digits = re.sub(r"\D", "", gold.partition("e")[0]).strip("0")
        return len(digits) >= 5
    parts = gold.replace(" | ", " ").split()
    tags = len(parts) >= 2 and all(map(_TOKEN_TAG.fullmatch, parts))  # one a token
    return len(re.findall(r"[\w:.-]+", gold)) >= 2 and not tags


def known(context: AuditContext) -> Iterator[Finding]:
    """Test answers that train has too, although they are no labels: then memory is enough."""
    for test in context.sources:
        if test.split != "test" or test.id in context.labels or len(test.layout.gold) != 1:
            continue
        for train in context.sources:
            if train.split == "train" and train.family == test.family and train.id not in context.labels:
                yield from _known(context, train, test)


def _known(context: AuditContext, train: AuditedFile, test: AuditedFile) -> Iterator[Finding]:
    query = (
        "SELECT gold, count(*) FROM row WHERE src = ? AND gold IN (SELECT gold FROM row WHERE src = ?) GROUP BY gold"
    )
    found = {g: n for g, n in context.query(query, test.id, train.id) if g not in _MISSING and telling(g)}
    count, rows = sum(found.values()), test.rows
    if not count:
        return
    prose = any(len(gold.split()) >= 8 for gold in found)
    numbers = all(kind_of(gold) == "number" for gold in found)
    if count < (0.5 if numbers else 0.2) * rows and not prose:
        return
    said = f"{share(count, rows)} test answers are answers in {train.stem} too ({len(found):,} different ones)"
    best, column = _by_column(context, train, test, found)
    if column and best >= 0.5 * count:
        said += f"; {share(best, rows)} with the same {column}"
    if count >= 0.5 * rows:
        said += ": the test measures memory"
    yield context.find(
        "answers-in-train",
        "error" if count >= 0.5 * rows else "warning",
        [train, test],
        (count, rows),
        said + ".",
        _answered(test, found),
    )


def _by_column(context: AuditContext, train: AuditedFile, test: AuditedFile, golds: Container[str]) -> tuple[int, str]:
    """(test rows whose answer, of ``golds``, and value in a column occur together in train, that column).

    The column of most values.
    """
    best = (0, 0, "")
    for name in test.layout.meta:
        if name in train.layout.meta:
            pairs = {pair for pair in _answers_by(context, train, name) if pair[1] in golds}
            found = list(_answers_by(context, test, name))
            hits, values = sum(pair in pairs for pair in found), len({value for value, _ in found})
            if hits and values > 1:
                best = max(best, (values, hits, name))
    return best[1], best[2]


def _answers_by(context: AuditContext, source: AuditedFile, column: str) -> Iterator[tuple[str, str]]:
    """(value of a column, answer) of each row."""
    at = source.layout.meta.index(column)
    query = "SELECT shown, gold FROM row JOIN meta USING (meta) WHERE src = ? AND gold IS NOT NULL"
    for shown, gold in context.query(query, source.id):
        yield shown.split("\x1f")[at], gold


def facts(context: AuditContext) -> Iterator[Finding]:
    """Rows that ask for one fact in other words: fewer things are tested than the row count says."""
    for source in context.sources:
        (slotted,) = context.query(
            "SELECT min(unit = slotted) AND NOT min(unit = body) FROM row WHERE src = ?", source.id
        ).fetchone()
        if slotted:
            units, asks = context.query(
                "SELECT count(DISTINCT unit), count(DISTINCT ask) FROM row WHERE src = ?", source.id
            ).fetchone()
            query = "SELECT min(n) FROM row WHERE src = ? GROUP BY unit HAVING count(DISTINCT ask) > 1"
            how = f"each asked in up to {asks} wordings, some several times"
        elif source.id not in context.labels and len(source.layout.gold) == 1:
            units = source.rows - _paraphrased(context, source)
            query = (
                "SELECT n FROM row WHERE src = ? AND (meta, gold) IN (SELECT meta, gold FROM row GROUP BY meta, gold"
                " HAVING count(DISTINCT body) > 1)"
            )
            how = "the others ask the same in other words and have the same answer"
        else:
            continue
        if units and units <= 0.7 * source.rows and source.rows - units >= 10:
            said = f"{source.rows:,} rows are {units:,} facts: {how}. Count, and resample, by fact."
            yield context.find("one-fact", "warning", [source], (units, source.rows), said, (query, source.id))


def _paraphrased(context: AuditContext, source: AuditedFile) -> int:
    """Rows that have answer and other columns of an earlier one, and share the telling words of its text."""
    query = (
        "SELECT meta, gold, words FROM row JOIN body USING (body) WHERE src = ? AND gold IS NOT NULL"
        " GROUP BY meta, gold, body ORDER BY meta, gold"
    )
    counts: Counter[str] = Counter()
    groups: dict[tuple[int, str], list[frozenset[str]]] = {}
    for meta, gold, words in context.query(query, source.id):
        own = frozenset(words.split()[:100])
        counts.update(own)
        kind = kind_of(gold)
        if telling(gold) or kind == "tag" or (kind == "number" and len(re.sub(r"\D", "", gold)) >= 5):
            group = groups.setdefault((meta, gold), [])
            if len(group) < 50:
                group.append(own)
    total = sum(map(len, groups.values()))
    weights = {word: math.log((total + 1) / count) ** 2 for word, count in counts.items()}
    merged = 0
    for group in groups.values():
        clusters: list[frozenset[str]] = []
        for words in group:
            if any(_alike(words, other, weights) >= _SAME for other in clusters):
                merged += 1
            else:
                clusters.append(words)
    return merged


def _alike(one: frozenset[str], other: frozenset[str], weights: dict[str, float]) -> float:
    both, either = (sum(map(weights.__getitem__, words)) for words in (one & other, one | other))
    return both / either if either else 1.0
