"""A filing -> rows of four tasks: tags, values, formula, calculation.

A row shows the facts of its period (``text``), asks one question and has one ``answer`` that is in the filing, or
is computed from it. ``group`` is the filing: rows of one filing are no independent observations.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finbench.data.xbrl import questions
from finbench.data.xbrl.labels import words
from finbench.data.xbrl.model import Fact, Filing, plain
from finbench.data.xbrl.ratios import RATIOS, Solved, solve
from finbench.data.xbrl.sheets import FEWEST, Sheet, sheets

SETS = ("xbrl_tags", "xbrl_values", "xbrl_formula", "xbrl_calc")
Row = dict[str, Any]


@dataclass(frozen=True)
class QuestionSettings:
    """``max_context``: characters of facts a row may show, None for all of them."""

    seed: int = 0
    max_context: int | None = None


def rows(filing: Filing, settings: QuestionSettings, dropped: Counter[str]) -> Iterator[tuple[str, Row]]:
    """(set, row) pairs in a fixed order; what cannot be asked is counted in ``dropped`` by reason."""
    found, left = sheets(filing)
    dropped.update({f"facts {reason}": count for reason, count in left.items()})
    for sheet in found:
        desk = _Desk(filing, (sheet,), settings, dropped)
        for fact in sheet.numbers.values():
            yield from desk.tag(fact)
            yield from desk.value(fact)
        for ratio in RATIOS:
            if solved := solve(ratio, sheet.numbers):
                yield from desk.solved(solved)
    for flow, balance in _years(found):
        desk = _Desk(filing, (flow, balance), settings, dropped)
        for ratio in RATIOS:
            if not solve(ratio, flow.numbers) and not solve(ratio, balance.numbers):
                solved = solve(ratio, {**balance.numbers, **flow.numbers})
                if solved:
                    yield from desk.solved(solved)


def _years(found: Sequence[Sheet]) -> Iterator[tuple[Sheet, Sheet]]:
    """(a fiscal year, the balance at its end): what ratios of flows to balances are computed from."""
    balances = {sheet.context.end: sheet for sheet in found if not sheet.context.start}
    for sheet in found:
        if 350 <= questions.days_of(sheet.context) <= 380 and sheet.context.end in balances:
            yield sheet, balances[sheet.context.end]


def line(fact: Fact) -> str:
    """A fact as a model sees it: concept, value, unit."""
    value = fact.value if fact.number is None else plain(fact.number)
    return f"{fact.concept} {value}" + (f" {fact.unit}" if fact.unit else "")


class _Desk:
    """Asks about one period, or about a year and the balance at its end."""

    def __init__(
        self, filing: Filing, shown: Sequence[Sheet], settings: QuestionSettings, dropped: Counter[str]
    ) -> None:
        self.filing, self.shown, self.settings, self.dropped = filing, shown, settings, dropped
        self.context = shown[0].context
        self.facts = [fact for sheet in shown for fact in sheet.facts]
        self.labels = {fact.concept: filing.labels.get(fact.concept) or words(fact.concept) for fact in self.facts}
        self.same_label = Counter(label.casefold() for label in self.labels.values())
        self.same_number = Counter(fact.number for fact in self.facts if fact.number is not None)

    def tag(self, fact: Fact) -> Iterator[tuple[str, Row]]:
        """Which concept is this?"""
        identity, rng = self._identity("xbrl_tags", fact.concept)
        assert fact.number is not None  # only numbers are asked about
        ways = []
        if self.same_label[self.labels[fact.concept].casefold()] == 1:
            ways.append(questions.TAGS_BY_LABEL)
        if self.same_number[fact.number] == 1:
            ways.append(questions.TAGS_BY_VALUE)
        if not ways:
            self.dropped["questions whose label and value fit several concepts"] += 1
            return
        way = rng.choice(ways)
        asked = self._ask(rng, way, fact)
        kind = "by label" if way is questions.TAGS_BY_LABEL else "by value"
        yield from self._row("xbrl_tags", identity, rng, asked, fact.concept, (fact,), kind=kind)

    def value(self, fact: Fact) -> Iterator[tuple[str, Row]]:
        """What is the value of this?"""
        identity, rng = self._identity("xbrl_values", fact.concept)
        if self.same_label[self.labels[fact.concept].casefold()] > 1:
            self.dropped["questions whose label fits several concepts"] += 1
            return
        assert fact.number is not None
        asked = self._ask(rng, questions.VALUES, fact)
        yield from self._row("xbrl_values", identity, rng, asked, plain(fact.number), (fact,), kind="value")

    def solved(self, solved: Solved) -> Iterator[tuple[str, Row]]:
        """Which formula, and what is its result?"""
        name = solved.ratio.name
        for set_, templates in (("xbrl_formula", questions.FORMULAS), ("xbrl_calc", questions.CALCULATIONS)):
            identity, rng = self._identity(set_, name)
            asked = rng.choice(templates).format(
                ratio=name,
                company=self.filing.company,
                when=questions.when(self.context, rng),
                how=questions.how(solved.unit, solved.places, number=set_ == "xbrl_calc"),
            )
            more = {"formula": solved.formula, "exact": f"{solved.value:f}", "result_unit": solved.unit}
            answer = solved.formula if set_ == "xbrl_formula" else solved.answer
            yield from self._row(set_, identity, rng, asked, answer, solved.facts, kind=name, **more)

    def _identity(self, set_: str, what: str) -> tuple[str, random.Random]:
        key = "|".join((self.filing.id, *self.context.key, what))
        identity = f"{set_}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return identity, questions.draw(self.settings.seed, identity)

    def _ask(self, rng: random.Random, templates: Sequence[str], fact: Fact) -> str:
        assert fact.number is not None
        value = rng.choice((plain(fact.number), f"{fact.number:,f}"))
        return rng.choice(templates).format(
            company=self.filing.company,
            label=self.labels[fact.concept].replace('"', "'"),
            when=questions.when(self.context, rng),
            value=value,
            unit=fact.unit,
        )

    def _row(
        self, set_: str, identity: str, rng: random.Random, asked: str, answer: str, needed: Sequence[Fact], **more: str
    ) -> Iterator[tuple[str, Row]]:
        text, left_out = self._show(needed, rng)
        if not text:
            self.dropped["questions whose facts do not fit in --max-context"] += 1
            return
        yield (
            set_,
            {
                "id": identity,
                "group": self.filing.id,
                "company": self.filing.company,
                "text": text,
                "question": asked,
                "answer": answer,
                **more,
                "concepts": " ".join(fact.concept for fact in needed),
                "context": " ".join(dict.fromkeys(fact.context for fact in needed)),
                "start": self.context.start,
                "end": self.context.end,
                "unit": " ".join(dict.fromkeys(fact.unit for fact in needed)),
                "decimals": " ".join(fact.decimals or "-" for fact in needed),
                "scale": " ".join(fact.scale or "-" for fact in needed),
                "sign": " ".join(fact.sign or "+" for fact in needed),
                "filed": self.filing.filed,
                "facts_left_out": left_out,
            },
        )

    def _show(self, needed: Sequence[Fact], rng: random.Random) -> tuple[str, int]:
        """The facts as text, and how many did not fit; "" where too few fit to make it a question."""
        budget = self.settings.max_context
        kept = {id(fact) for fact in self.facts}
        if budget is not None and len(self._text(kept)) > budget:
            kept = {id(fact) for fact in self.facts if fact.concept in {want.concept for want in needed}}
            room = budget - len(self._text(kept))
            others = [fact for fact in self.facts if id(fact) not in kept]
            rng.shuffle(others)
            for fact in others:
                if len(line(fact)) + 1 <= room:
                    room -= len(line(fact)) + 1
                    kept.add(id(fact))
            if room < 0 or len(kept) < FEWEST:
                return "", 0
        return self._text(kept), len(self.facts) - len(kept)

    def _text(self, kept: set[int]) -> str:
        lines = []
        for sheet in self.shown:
            context = sheet.context
            lines.append(f"[{context.start} to {context.end}]" if context.start else f"[as of {context.end}]")
            lines += [line(fact) for fact in sheet.facts if id(fact) in kept]
        if left_out := len(self.facts) - len(kept):
            lines.append(f"({left_out} more facts of this filing are not shown.)")
        return "\n".join(lines)
