"""The facts that questions are asked about, one sheet a period.

The rule: us-gaap items of the filing's main entity, in contexts without dimensions (the consolidated figures;
segments, classes of stock and other members are left out), that are not nil and are short. Equal facts count
once; facts of one item that differ by more than their stated accuracy allows are in conflict, and none is used.
What is left out is counted by reason.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from finbench.data.xbrl.model import Context, Fact, Filing

_REFERENCES = re.compile(r"(?:https?://\S+\s*)+")  # of extensible lists: where a figure stands, and no figure
FEWEST = 4  # facts on a sheet; with fewer a question would answer itself


@dataclass
class Sheet:
    """What a filing says about one period. ``facts`` in the filing's order; ``numbers`` can be asked about."""

    context: Context
    facts: list[Fact] = field(default_factory=list)
    numbers: dict[str, Fact] = field(default_factory=dict)


def sheets(filing: Filing) -> tuple[list[Sheet], Counter[str]]:
    """The sheets of a filing, and how many facts were left out, by reason."""
    out: Counter[str] = Counter()
    groups: dict[tuple[tuple[str, str, str], str, str], list[Fact]] = {}
    contexts: dict[tuple[str, str, str], Context] = {}
    for fact in filing.facts:
        context = filing.contexts[fact.context]
        if reason := _left_out(filing, fact, context):
            out[reason] += 1
            continue
        contexts.setdefault(context.key, context)
        groups.setdefault((context.key, fact.concept, fact.unit), []).append(fact)
    made: dict[tuple[str, str, str], Sheet] = {}
    for (key, _, _), group in groups.items():
        best = agreed(group)
        if best is None:
            out["in conflict with another fact"] += len(group)
            continue
        out["repeated"] += len(group) - 1
        made.setdefault(key, Sheet(contexts[key])).facts.append(best)
    for sheet in made.values():
        items = Counter(fact.concept for fact in sheet.facts)
        sheet.numbers = {f.concept: f for f in sheet.facts if f.number is not None and items[f.concept] == 1}
    kept = [sheet for sheet in made.values() if len(sheet.facts) >= FEWEST]
    out["on a sheet of fewer than four facts"] += sum(len(s.facts) for s in made.values() if len(s.facts) < FEWEST)
    return kept, +out


def _left_out(filing: Filing, fact: Fact, context: Context) -> str:
    if not fact.concept.startswith("us-gaap:"):
        return "not us-gaap"
    if context.dimensions:
        return "with dimensions"
    if context.entity != filing.cik:
        return "of another entity"
    if not context.end:
        return "without a period"
    if fact.nil:
        return "nil"
    if not fact.value:
        return "long text"
    if fact.number is None and _REFERENCES.fullmatch(fact.value):
        return "that name other elements by address"
    return ""


def _accuracy(fact: Fact) -> Decimal:
    """Half a unit of the last accurate digit: what ``decimals`` promises. 0 for exact, unstated or unbelievable."""
    if not re.fullmatch(r"\s*[+-]?\d{1,2}\s*", fact.decimals, re.ASCII):  # INF, none, or a promise of nothing at all
        return Decimal(0)
    return Decimal(5).scaleb(-int(fact.decimals) - 1)


def agreed(group: list[Fact]) -> Fact | None:
    """The most accurate of facts about one item, or None if they contradict each other."""
    numbers = [(_accuracy(fact), fact.number, fact) for fact in group if fact.number is not None]
    if len(numbers) < len(group):
        return group[0] if not numbers and len({fact.value for fact in group}) == 1 else None
    _, exact, best = min(numbers, key=lambda found: found[0])
    return best if all(abs(number - exact) <= accuracy for accuracy, number, _ in numbers) else None
