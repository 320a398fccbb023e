"""Labels: what two copies of a set say of one text, whether the words agree, how they are distributed."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping

from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding, Level

_LEAST = 20  # texts in common, before two copies are compared
_SKEW = 0.95
_MEANT = {
    **dict.fromkeys(("positive", "pos", "bullish", "optimistic", "good", "1.0 positive"), "positive"),
    **dict.fromkeys(("negative", "neg", "bearish", "pessimistic", "bad"), "negative"),
    **dict.fromkeys(("neutral", "neu", "mixed/neutral", "none/neutral"), "neutral"),
    **dict.fromkeys(("yes", "true", "y"), "yes"),
    **dict.fromkeys(("no", "false", "n"), "no"),
}
_UP = frozenset(
    """
beat beats gain gains gained rise rises rising rose jump jumps jumped surge surges surged soar soars soared climb
climbs climbed rally rallies rallied upgrade upgrades upgraded outperform raised raises strong stronger strongest
growth grew record profit profitable higher up improved improves boost boosts boosted win wins won bullish buy
overweight exceeds exceeded topped tops advance advances advanced
""".split()  # noqa: SIM905
)
_DOWN = frozenset(
    """
miss misses missed fall falls falling fell drop drops dropped plunge plunges plunged slump slumps slumped decline
declines declined downgrade downgrades downgraded underperform cut cuts lowered lowers weak weaker weakest loss
losses lost lower down worse worst warns warning slide slides slid tumble tumbles tumbled sink sinks sank bearish
sell underweight bankrupt bankruptcy lawsuit layoffs fraud decreased shrank shrinks
""".split()  # noqa: SIM905
)


def meaning(source: AuditedFile, labels: Mapping[str, int]) -> dict[str, str] | None:
    """What the labels of a source stand for, by their words or by a known set's codes; None if some are unknown."""
    codes = {label: code for label, code in source.codes.items() if code}
    told = {label: _MEANT.get(codes.get(label, label), codes.get(label, "")) for label in labels}
    return told if all(told.values()) else None


# ---------------------------------------------------------------- two copies


def copies(context: AuditContext) -> Iterator[Finding]:
    """The labels of every two sources that have texts in common."""
    for one, other in sorted(context.shared):
        first, second = context.sources[one], context.sources[other]
        table = _table(context, one, other)
        shared = sum(table.values())
        if one in context.labels and other in context.labels and shared >= _LEAST:
            yield from _compared(context, first, second, table)
        elif shared >= _LEAST and one not in context.labels and other not in context.labels:
            yield from _answers(context, first, second, table)


_SINGLE = (
    "SELECT unit, min(gold) AS gold, min(n) AS n FROM row WHERE src = ? AND gold IS NOT NULL GROUP BY unit"
    " HAVING count(DISTINCT gold) = 1"
)


def _table(context: AuditContext, one: int, other: int) -> Counter[tuple[str, str]]:
    """(label there, label here) -> texts, of those that have one label on each side."""
    if len(context.labels.get(one, ())) > 30 or len(context.labels.get(other, ())) > 30:
        return Counter()
    query = f"SELECT a.gold, b.gold, count(*) FROM ({_SINGLE}) a JOIN ({_SINGLE}) b USING (unit) GROUP BY 1, 2"
    return Counter({(a, b): count for a, b, count in context.store.db.execute(query, (one, other))})


def _compared(
    context: AuditContext, first: AuditedFile, second: AuditedFile, table: Counter[tuple[str, str]]
) -> Iterator[Finding]:
    """Confusion of two label columns on the same texts."""
    means = [meaning(source, context.labels[source.id]) for source in (first, second)]
    known = means[0] is not None and means[1] is not None
    if known:
        said = [mean or {} for mean in means]
        same = len(set(said[0].values()) & set(said[1].values())) >= min(len(set(m.values())) for m in said)
    else:
        own = [set(context.labels[source.id]) for source in (first, second)]
        same = own[0] <= own[1] or own[1] <= own[0]
        said = [{label: label for label in labels} for labels in own]
    mapping = said[0] if same else _learned(table)
    expected = {label: mapping.get(label, label) for label, _ in table}
    wrong = {(a, b): n for (a, b), n in table.items() if (said[1].get(b, b) if same else b) != expected[a]}
    count, of = sum(wrong.values()), sum(table.values())
    if not count:
        return
    here = {a: Counter({b: n for (x, b), n in table.items() if x == a}).most_common(1)[0][0] for a, _ in table}
    moved = {a: b for a, b in here.items() if same and said[1].get(b, b) != expected[a]}
    swapped = len(moved) > 1 and len(set(here.values())) == len(here)
    where = f"{first.stem} and {second.stem}"
    if swapped:
        names = ", ".join(f"{_name(a, said[0])} there is {_name(b, said[1])} here" for a, b in sorted(moved.items()))
        text = (
            f"Of {of:,} texts in both {where}, {share(count, of)} have another label: the labels are swapped ({names})."
        )
    else:
        how = "" if same else " than the other rows of that label have"
        text = f"Of {of:,} texts in both {where}, {share(count, of)} have another label{how}."
    a, b = max(wrong, key=lambda pair: wrong[pair])
    rows = f"SELECT b.n FROM ({_SINGLE}) a JOIN ({_SINGLE}) b USING (unit) WHERE a.gold = ? AND b.gold = ?"
    yield context.find(
        "label-swap" if swapped else "label-conflict",
        "error" if swapped or count >= 0.005 * of else "warning",
        [first, second],
        (count, of),
        text,
        (rows, (first.id, second.id, a, b)),
        detail={f"{_name(x, said[0])} -> {_name(y, said[1])}": n for (x, y), n in table.most_common(12)},
    )


def _name(label: str, means: Mapping[str, str]) -> str:
    told = means.get(label, label)
    return label if told == label else f"{label} ({told})"


def _learned(table: Counter[tuple[str, str]]) -> dict[str, str]:
    """What a label there most often is here: two vocabularies need no dictionary."""
    best: dict[str, tuple[int, str]] = {}
    for (a, b), count in table.items():
        best[a] = max(best.get(a, (0, "")), (count, b))
    return {a: b for a, (_, b) in best.items()}


def _answers(
    context: AuditContext, first: AuditedFile, second: AuditedFile, table: Counter[tuple[str, str]]
) -> Iterator[Finding]:
    """Free answers of two sources to the same questions."""
    wrong = sum(count for (a, b), count in table.items() if not _equal(a, b))
    of = sum(table.values())
    if not wrong:
        return
    rows = f"SELECT b.n FROM ({_SINGLE}) a JOIN ({_SINGLE}) b USING (unit) WHERE a.gold != b.gold"
    yield context.find(
        "answer-conflict",
        "warning",
        [first, second],
        (wrong, of),
        f"Of {of:,} texts in both {first.stem} and {second.stem}, {share(wrong, of)} have another answer.",
        (rows, (first.id, second.id)),
    )


def _equal(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-6, abs_tol=1e-9)
    except ValueError:
        return one == other


# ---------------------------------------------------------------- one file


def meanings(context: AuditContext) -> Iterator[Finding]:
    """Sentiment labels against the words of their texts: rows called positive should speak of rises more than others.

    Only an order that is upside down by six standard errors is reported: names that were given to the wrong codes.
    """
    for source in context.sources:
        labels = context.labels.get(source.id, {})
        means = meaning(source, labels)
        if means is None or not {"positive", "negative"} <= set(means.values()):
            continue
        tones = _tones(context, source, means)
        order = [name for name in ("negative", "neutral", "positive") if len(tones.get(name, ())) >= 30]
        for low, high in itertools.pairwise(order):
            gap, error = _gap(tones[low], tones[high])
            if gap < -6 * error:
                below, above = _mean(tones[low]), _mean(tones[high])
                count = len(tones[low]) + len(tones[high])
                yield context.find(
                    "label-meaning",
                    "error",
                    [source],
                    (count, source.rows),
                    f"Rows labelled {low} speak of rises rather than falls (tone {below:+.2f} of 1) more than those "
                    f"labelled {high} ({above:+.2f}): the names of these labels look swapped.",
                    detail={f"{name} rows": len(tones[name]) for name in order},
                )


def _tones(context: AuditContext, source: AuditedFile, means: Mapping[str, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    query = "SELECT gold, words FROM row JOIN body USING (body) WHERE src = ?"
    for gold, words in context.store.db.execute(query, (source.id,)):
        own = set(words.split())
        rises, falls = len(own & _UP), len(own & _DOWN)
        if gold in means:
            found.setdefault(means[gold], []).append((rises > falls) - (rises < falls))
    return found


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)


def _gap(low: list[int], high: list[int]) -> tuple[float, float]:
    """(difference of means, its standard error)."""
    spread = [max(_mean([v * v for v in values]) - _mean(values) ** 2, 0.01) / len(values) for values in (low, high)]
    return _mean(high) - _mean(low), math.sqrt(sum(spread))


def skew(context: AuditContext) -> Iterator[Finding]:
    """Labels that are nearly always the same, and labels that look like a slip of the pen."""
    for source in context.sources:
        for column, counts in _columns(context, source):
            rows = sum(counts.values())
            label, most = counts.most_common(1)[0]
            of = f" in {column}" if column else ""
            level: Level = "warning" if most == rows and not column else "note"
            if rows >= 50 and most >= _SKEW * rows:
                text = f"{share(most, rows)} rows{of} have the label {label!r}: accuracy says little."
                yield context.find("skew", level, [source], (most, rows), text)
            for rare, count in counts.items():
                close = difflib.get_close_matches(rare, [name for name in counts if counts[name] > 50 * count], 1, 0.8)
                if close and len(rare) > 3 and count <= 3 and rare.isalpha():
                    text = f"{count} rows have the label {rare!r}, where {counts[close[0]]:,} have {close[0]!r}."
                    query = ("SELECT n FROM row WHERE src = ? AND gold = ?", (source.id, rare))
                    yield context.find("label-typo", "warning", [source], (count, rows), text, query)


def _columns(context: AuditContext, source: AuditedFile) -> Iterator[tuple[str, Counter[str]]]:
    if source.id in context.labels:
        yield "", Counter(context.labels[source.id])
    elif len(source.layout.gold) > 1:
        found: dict[str, Counter[str]] = {str(name): Counter() for name in source.layout.gold}
        query = "SELECT gold, count(*) FROM row WHERE src = ? GROUP BY gold"
        for gold, count in context.store.db.execute(query, (source.id,)):
            for name, value in json.loads(gold).items():
                found[name][value] += count
        yield from found.items()
