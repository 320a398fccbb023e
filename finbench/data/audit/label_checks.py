"""Labels: what they mean, what two copies of a set say of one text, how they are distributed."""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping

from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding, Level

_LEAST = 20  # texts in common, before two copies are compared
_SKEW = 0.95
_CONSTANT = 20  # rows
_MEANT = {
    **dict.fromkeys(("positive", "pos", "bullish", "optimistic", "good", "1.0 positive"), "positive"),
    **dict.fromkeys(("negative", "neg", "bearish", "pessimistic", "bad"), "negative"),
    **dict.fromkeys(("neutral", "neu", "mixed/neutral", "none/neutral"), "neutral"),
    **dict.fromkeys(("yes", "true", "y"), "yes"),
    **dict.fromkeys(("no", "false", "n"), "no"),
}


def meaning(source: AuditedFile, labels: Mapping[str, int]) -> dict[str, str] | None:
    """What the labels of a source stand for, by their words or by a known set's codes; None if some are unknown."""
    codes = {label: code for label, code in source.codes.items() if code}
    told = {label: _MEANT.get(codes.get(label, label), codes.get(label, "")) for label in labels}
    return told if all(told.values()) else None


def copies(context: AuditContext) -> Iterator[Finding]:
    """The labels of every two sources that have texts in common."""
    for one, other in sorted(context.shared):
        labelled = one in context.labels
        if labelled != (other in context.labels):
            continue
        query = f"SELECT a.gold, b.gold, count(*) FROM ({_SINGLE}) a JOIN ({_SINGLE}) b USING (unit) GROUP BY 1, 2"
        # (label there, label here) -> texts, of those that have one label on each side
        table = Counter({(there, here): count for there, here, count in context.query(query, one, other)})
        if table.total() >= _LEAST:
            compare = _compared if labelled else _answers
            yield from compare(context, context.sources[one], context.sources[other], table)


_SINGLE = (
    "SELECT unit, min(gold) AS gold, min(n) AS n FROM row WHERE src = ? AND gold IS NOT NULL GROUP BY unit"
    " HAVING count(DISTINCT gold) = 1"
)


def _compared(
    context: AuditContext, first: AuditedFile, second: AuditedFile, table: Counter[tuple[str, str]]
) -> Iterator[Finding]:
    there, here = (meaning(source, context.labels[source.id]) for source in (first, second))
    if there is not None and here is not None:
        values = set(there.values()), set(here.values())
        same = len(values[0] & values[1]) >= min(map(len, values))
    else:
        there, here = ({label: label for label in context.labels[source.id]} for source in (first, second))
        same = there.keys() <= here.keys() or here.keys() <= there.keys()
    most: dict[str, tuple[int, str]] = {}  # label there -> how many of its texts have which label here, at most
    for (a, b), count in table.items():
        most[a] = max(most.get(a, (0, "")), (count, b))
    if same:
        wrong = {(a, b): n for (a, b), n in table.items() if here.get(b, b) != there.get(a, a)}
    else:  # two vocabularies need no dictionary
        wrong = {(a, b): n for (a, b), n in table.items() if b != most[a][1]}
    if not wrong:
        return
    counted = sum(wrong.values()), table.total()
    usual = {a: Counter({b: n for (x, b), n in table.items() if x == a}).most_common(1)[0][0] for a, _ in table}
    moved = {a: b for a, b in usual.items() if (a, b) in wrong} if same else {}
    swapped = len(moved) > 1 and len(set(usual.values())) == len(usual)
    text = f"Of {counted[1]:,} texts in both {first.stem} and {second.stem}, {share(*counted)} have another label"
    if swapped:
        names = ", ".join(f"{_name(a, there)} there is {_name(b, here)} here" for a, b in sorted(moved.items()))
        text += f": the labels are swapped ({names})"
    elif not same:
        text += " than the other rows of that label have"
    rows = f"SELECT b.n FROM ({_SINGLE}) a JOIN ({_SINGLE}) b USING (unit) WHERE a.gold = ? AND b.gold = ?"
    yield context.find(
        "label-swap" if swapped else "label-conflict",
        "error" if swapped or counted[0] >= 0.005 * counted[1] else "warning",
        [first, second],
        counted,
        text + ".",
        (rows, first.id, second.id, *max(wrong, key=wrong.__getitem__)),
        detail={f"{_name(x, there)} -> {_name(y, here)}": n for (x, y), n in table.most_common(12)},
    )


def _name(label: str, means: Mapping[str, str]) -> str:
    told = means.get(label, label)
    return label if told == label else f"{label} ({told})"


def _answers(
    context: AuditContext, first: AuditedFile, second: AuditedFile, table: Counter[tuple[str, str]]
) -> Iterator[Finding]:
    wrong, of = sum(count for (a, b), count in table.items() if not _equal(a, b)), table.total()
    if wrong:
        said = f"Of {of:,} texts in both {first.stem} and {second.stem}, {share(wrong, of)} have another answer."
        rows = f"SELECT b.n FROM ({_SINGLE}) a JOIN ({_SINGLE}) b USING (unit) WHERE a.gold != b.gold"
        shown = (rows, first.id, second.id)
        yield context.find("answer-conflict", "warning", [first, second], (wrong, of), said, shown)


def _equal(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-6, abs_tol=1e-9)
    except ValueError:
        return one == other


def skew(context: AuditContext) -> Iterator[Finding]:
    """Labels that are nearly always the same, and labels that look like a slip of the pen."""
    for source in context.sources:
        for column, counts in _columns(context, source):
            rows = counts.total()
            label, most = counts.most_common(1)[0]
            of = f" in {column}" if column else ""
            if most == rows >= _CONSTANT:
                level: Level = "warning" if column else "error"  # one question of several, or all there is to answer
                text = f"All {rows:,} rows{of} have the answer {label!r}: nothing is tested, and nothing learnt."
                yield context.find("constant-answer", level, [source], (most, rows), text)
            elif rows >= 50 and most >= _SKEW * rows:
                text = f"{share(most, rows)} rows{of} have the label {label!r}: accuracy says little."
                yield context.find("skew", "note", [source], (most, rows), text)
            for rare, count in counts.items():
                close = difflib.get_close_matches(rare, [name for name in counts if counts[name] > 50 * count], 1, 0.8)
                if close and len(rare) > 3 and count <= 3 and rare.isalpha():
                    text = f"{count} rows have the label {rare!r}, where {counts[close[0]]:,} have {close[0]!r}."
                    query = ("SELECT n FROM row WHERE src = ? AND gold = ?", source.id, rare)
                    yield context.find("label-typo", "warning", [source], (count, rows), text, query)


def _columns(context: AuditContext, source: AuditedFile) -> Iterator[tuple[str, Counter[str]]]:
    if source.id in context.labels:
        yield "", Counter(context.labels[source.id])
    elif len(source.layout.gold) > 1:
        found: dict[str, Counter[str]] = {str(name): Counter() for name in source.layout.gold}
        query = "SELECT gold, count(*) FROM row WHERE src = ? GROUP BY gold"
        for gold, count in context.query(query, source.id):
            for name, value in json.loads(gold).items():
                found[name][value] += count
        yield from found.items()
    else:  # answers that are no labels, unless they are all one
        query = "SELECT gold, count(*) FROM row WHERE src = ? AND gold IS NOT NULL GROUP BY gold LIMIT 2"
        if len(answers := context.query(query, source.id).fetchall()) == 1:
            yield "", Counter(dict(answers))
