"""Scores outside the range that their column's name, or nearly all other rows of their file, give them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from finbench.data.audit.columns import key_of
from finbench.data.audit.context import AuditContext, AuditedFile, share
from finbench.data.audit.findings import Finding, Level

_MOST = 0.97  # of the answers lie in a range that is learnt from them
_HALF = 0.5  # and where the column is called a score of sentiment
_FEWEST = 20
_SIGNED = (-1.0, 1.0)
_SHARES = re.compile(r"prob|confidence")
_SENTIMENT = re.compile(r"sentiment|polarity|valence|tone$|info$")  # "info" is FiQA's, of a score each
_SCORE = re.compile(r"score|rating|stars")
_SCALES = ((0.0, 1.0), _SIGNED, (1.0, 5.0), (0.0, 5.0), (1.0, 10.0), (0.0, 10.0), (0.0, 100.0), (-100.0, 100.0))


def scores(context: AuditContext) -> Iterator[Finding]:
    """Answers beyond a range: of sentiment in [-1, 1], of probability in [0, 1], of other scores as the others are.

    Answers that are called nothing of the kind may be rates of growth, which have no range.
    """
    for source in context.sources:
        if len(source.layout.gold) != 1:
            continue
        rows = _numbers(context, source)
        values = [value for _, found in rows for value in found]
        if len(rows) < _FEWEST or sum(bool(found) for _, found in rows) < _MOST * len(rows):
            continue
        low, high, named = _range(key_of(source.layout.gold[0]), values)
        wrong = [(n, found) for n, found in rows if any(not low <= value <= high for value in found)]
        if wrong and low < high:
            worst = max((value for _, found in wrong for value in found), key=abs)
            said = f"{share(len(wrong), len(rows))} answers lie outside [{low:g}, {high:g}] (such as {worst:g}), "
            said += "the range of such scores." if named else "where nearly all others lie."
            query = (f"SELECT n FROM row WHERE n IN ({','.join(str(n) for n, _ in wrong[:50])})",)
            level: Level = "error" if named else "warning"
            yield context.find("out-of-range", level, [source], (len(wrong), len(rows)), said, query)


def _numbers(context: AuditContext, source: AuditedFile) -> list[tuple[int, list[float]]]:
    """Of each row with an answer its number and its scores, none where they are no numbers; no row of an empty one."""
    found = []
    query = "SELECT n, gold FROM row WHERE src = ? AND gold IS NOT NULL AND gold != ''"
    for n, gold in context.query(query, source.id):
        try:
            values = [float(part) for part in gold.split(" | ")]
        except ValueError:
            values = []
        found.append((n, [value for value in values if math.isfinite(value)]))
    return found


def _range(name: str, values: list[float]) -> tuple[float, float, bool]:
    """(lowest, highest, whether the name says so); an empty range where none fits."""

    def inside(low: float, high: float) -> float:
        return sum(low <= value <= high for value in values) / len(values)

    fractions = sum(not value.is_integer() for value in values) >= _HALF * len(values)
    if fractions and _SHARES.search(name) and inside(0, 1) >= _HALF:
        return 0.0, 1.0, True
    if fractions and _SENTIMENT.search(name) and inside(*_SIGNED) >= _HALF and min(values) < 0:
        return *_SIGNED, True
    if _SCORE.search(name):
        fitting = [scale for scale in _SCALES if inside(*scale) >= _MOST and (fractions or scale[1] > 1)]
        return *min(fitting, key=lambda scale: scale[1] - scale[0], default=(0.0, 0.0)), False
    return 0.0, 0.0, False
