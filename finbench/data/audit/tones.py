"""Sentiment labels against the words of their texts: names that were given to the wrong rows, without a second copy.

A text has a tone: more words of rises, more of falls, as many of both, or neither. How often texts of each sentiment
have each tone was counted on two published sets (_OFTEN), and holds on others (``benchmarks/audit_planted.py``). Labels
are swapped where another way to name them makes the tones of a file likelier by _CLEAR standard errors.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from statistics import fmean

from finbench.data.audit.columns import key_of
from finbench.data.audit.context import AuditContext, AuditedFile
from finbench.data.audit.findings import Finding
from finbench.data.audit.label_checks import meaning

_UP = frozenset(
    """
accelerate accelerated accelerates advance advanced advances approval approved approves attractive award awarded bargain
beat beating beats benefit benefits best better boost boosted boosting boosts breakout bull bullish buy buyback buying
calls cheap climb climbed climbs contract dividend double doubled doubles easing exceed exceeded exceeds excellent
expand expanded expanding expands expansion favorable gain gained gaining gains good great grew grow growing grown grows
growth high higher highest improve improved improvement improves improving increase increased increases increasing
innovative jump jumped jumps launch leader leading long momentum narrowed narrower narrows opportunity optimism
optimistic order outperform outperformed outperforms overweight partnership positive profit profitability profitable
profits raise raised raises raising rallied rallies rally rallying rebound rebounded rebounds record recover recovered
recovers recovery rise risen rises rising robust rose soar soared soaring soars solid strength strong stronger strongest
success successful successfully surge surged surges surging top topped topping tops triple tripled undervalued up upbeat
upgrade upgraded upgrades upside win winning wins won
""".split()  # noqa: SIM905
)
_DOWN = frozenset(
    """
axe axed bad bankrupt bankruptcy bear bearish close closes closure concern concerned concerns crash crashed crashes
crisis cut cuts cutting decline declined declines declining decrease decreased decreases decreasing default defaults
deficit delay delayed delays disappoint disappointed disappointing disappointment disappoints dismissed down downgrade
downgraded downgrades downside drop dropped dropping drops dump dumped dumping fall fallen falling falls fear fears fell
fine fined fraud halt halts halted hit hits hurt hurts investigation lawsuit lawsuits layoff layoffs lose loses losing
loss losses lost lower lowered lowers lowest miss missed misses missing negative overvalued penalty plummet plummeted
plummets plunge plunged plunges plunging poor poorly pressure probe problem problems puts recession redundancies risk
risks risky scandal sank sell selling short shorting shorts shortfall shrank shrink shrinks sink sinking sinks slid
slide slides sliding slow slowdown slowed slowing slows slump slumped slumps sold sour strike strikes struggle
struggles struggling sue sued sues suspend suspended threat threatens trouble troubled tumble tumbled tumbles tumbling
underperform underperformed underperforms underweight warn warned warning warns weak weaker weakest weakness worries
worry worse worst
""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[a-z]+")
_OFTEN = {  # of no such word, more of rises, more of falls, as many of both: FPB and FiQA, each with one weight
    "negative": (0.26, 0.08, 0.50, 0.16),
    "neutral": (0.60, 0.25, 0.10, 0.04),
    "positive": (0.29, 0.61, 0.05, 0.05),
}
_CLEAR = 3.0  # standard errors; of clean sets the worst draw of 60 rows was at -0.6
_FEWEST = 50
_SIGNS = (-0.1, 0.1)  # scores of sentiment below are negative, above positive: FiQA's division
_SCORE = re.compile(r"sentiment|polarity|info$")


def meanings(context: AuditContext) -> Iterator[Finding]:
    """Labels, and signs of scores, that another naming fits better, where the tone itself is the other way round."""
    for source in context.sources:
        rows = list(_rows(context, source))
        counts = {name: sum(name == told for told, _ in rows) for name in _OFTEN}
        names = [name for name in _OFTEN if counts[name] >= 10]
        rows = [row for row in rows if row[0] in names]
        if len(names) < 2 or len(rows) < _FEWEST:
            continue
        best = min(
            itertools.permutations(names), key=lambda other: _likelier(rows, dict(zip(names, other, strict=True)))
        )
        told = dict(zip(names, best, strict=True))
        moved = [name for name in names if told[name] != name]
        if not moved or _likelier(rows, told) > -_CLEAR or not _upside_down(rows, moved):
            continue
        means = {name: fmean(_SIGN[tone] for label, tone in rows if label == name) for name in names}
        shown = ", ".join(f"{name} {means[name]:+.2f}" for name in names)
        fitting = ", ".join(f"{name} as {told[name]}" for name in moved)
        yield context.find(
            "label-meaning",
            "error",
            [source],
            (sum(counts[name] for name in moved), source.rows),
            f"The labels look swapped: rows labelled {fitting} would fit the words of their texts better "
            f"(tone of 1, from falls to rises: {shown}).",
            detail={f"{name} rows": counts[name] for name in names},
        )


_SIGN = (0, 1, -1, 0)


def tone(words: str) -> int:
    """0: no word of rises or falls; 1: more of rises; 2: more of falls; 3: as many."""
    found = _WORD.findall(words)
    rises, falls = sum(word in _UP for word in found), sum(word in _DOWN for word in found)
    return 1 if rises > falls else 2 if falls > rises else 3 if rises else 0


def _rows(context: AuditContext, source: AuditedFile) -> Iterator[tuple[str, int]]:
    """(what its label means, its tone) of each row whose answer is a sentiment."""
    query = "SELECT gold, words FROM row JOIN body USING (body) WHERE src = ? AND gold IS NOT NULL"
    means = meaning(source, context.labels.get(source.id, {}))
    if means is not None:
        if {"positive", "negative"} <= set(means.values()) <= _OFTEN.keys():
            yield from ((means[gold], tone(words)) for gold, words in context.query(query, source.id) if gold in means)
    elif len(source.layout.gold) == 1 and _SCORE.search(key_of(source.layout.gold[0])):
        for gold, words in context.query(query, source.id):
            try:
                score = float(gold)
            except ValueError:
                continue
            name = "negative" if score < _SIGNS[0] else "positive" if score > _SIGNS[1] else "neutral"
            yield name, tone(words)


def _likelier(rows: list[tuple[str, int]], told: Mapping[str, str]) -> float:
    """By how many standard errors the labels fit better as they are than as ``told``; below 0: worse."""
    gains = [math.log(_OFTEN[name][tone] / _OFTEN[told[name]][tone]) for name, tone in rows]
    mean = fmean(gains)
    return mean / math.sqrt(max(fmean(gain * gain for gain in gains) - mean * mean, 1e-9) / len(gains))


def _upside_down(rows: list[tuple[str, int]], moved: list[str]) -> bool:
    """Whether of the labels concerned a better one has the worse tone, by a standard error."""
    tones = {name: [_SIGN[tone] for label, tone in rows if label == name] for name in moved}
    for low, high in itertools.combinations(moved, 2):  # in the order of _OFTEN
        error = math.sqrt(
            sum(max(fmean(v * v for v in tones[n]) - fmean(tones[n]) ** 2, 0.01) / len(tones[n]) for n in (low, high))
        )
        if fmean(tones[high]) - fmean(tones[low]) < -error:
            return True
    return False
