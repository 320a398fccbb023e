"""Questions that take a calculation over a table of a filing, as FinQA asks them of annual reports.

A table shows items by period, as a report prints them: in thousands or millions where every figure allows it. Changes,
shares, ratios, averages, and changes of shares are asked about, of one company and of two. Each row has the program
that gives its answer, and the derivation in figures. The answer is worked out from the filing's own facts in decimal
arithmetic, and kept only if the program over the printed figures gives it too, and if no figure of the table is it.
"""

from __future__ import annotations

import decimal
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from finbench.core import paths
from finbench.data.xbrl.filings import words
from finbench.data.xbrl.model import Fact, Filing, plain
from finbench.data.xbrl.ratios import RATIOS, Ratio, Solved, solve
from finbench.data.xbrl.sheets import Sheet, sheets

SET = "xbrl_reason"
Row = dict[str, Any]
_COLUMNS, _LINES = 3, 14  # of a table: what an annual report shows on a page
_ITEMS = 12  # items of a table that are asked about; more would be one question many times
_LEAST = Decimal("0.001")  # a share below it has fewer than three of FinQA's five decimals
_UNITS = ((9, "billions"), (6, "millions"), (3, "thousands"))
_MONEY = re.compile(r"[A-Z]{3}")
_ONE = tuple(ratio for ratio in RATIOS if len(ratio.above) == len(ratio.below) == 1)  # one figure over another


@dataclass(frozen=True)
class FilingTable:
    """Items of one filing (concept -> label) by column; the same unit everywhere."""

    filing: Filing
    columns: tuple[Sheet, ...]
    items: dict[str, str]
    unit: str

    def fact(self, concept: str, column: int) -> Fact | None:
        found = self.columns[column].numbers.get(concept)
        return found if found and found.unit == self.unit else None

    def head(self, column: int) -> str:
        """What a column is called: a fiscal year by its end, or a day."""
        return self.columns[column].context.end


def questions(filing: Filing, seed: int, budget: int | None, dropped: Counter[str]) -> Iterator[Row]:
    """Rows about one filing: its fiscal years, and its balances."""
    for table in tables(filing):
        desk = _Desk((table,), seed, budget, dropped)
        yield from desk.items()
        yield from desk.shares()


def comparisons(one: Filing, other: Filing, seed: int, budget: int | None, dropped: Counter[str]) -> Iterator[Row]:
    """Rows about two companies: how far a ratio of the first lies above that of the second in their latest years."""
    pairs = zip(tables(one), tables(other), strict=False)
    for mine, theirs in pairs:
        if one.cik != other.cik and bool(mine.columns[0].context.start) == bool(theirs.columns[0].context.start):
            yield from _Desk((mine, theirs), seed, budget, dropped).two_companies()


def tables(filing: Filing) -> list[FilingTable]:
    """The table of fiscal years and the table of balances, latest column first; those that show two items or more."""
    found, _ = sheets(filing)
    years = [sheet for sheet in found if 350 <= sheet.context.days <= 380]
    balances = [sheet for sheet in found if not sheet.context.start]
    made = []
    for chosen in (years, balances):
        widest = max((len(sheet.numbers) for sheet in chosen), default=0)
        full = [sheet for sheet in chosen if len(sheet.numbers) * 3 >= widest]  # a stray fact makes no column
        columns = tuple(sorted(full, key=lambda sheet: sheet.context.end, reverse=True)[:_COLUMNS])
        units = Counter(f.unit for sheet in columns for f in sheet.numbers.values() if _MONEY.fullmatch(f.unit))
        if columns and units:
            unit = min(units, key=lambda name: (-units[name], name))
            if len(items := _items(filing, columns, unit)) > 1:
                made.append(FilingTable(filing, columns, items, unit))
    return made


def _items(filing: Filing, columns: Sequence[Sheet], unit: str) -> dict[str, str]:
    """concept -> label of what the columns report in ``unit``; of two items with one label neither."""
    concepts = dict.fromkeys(c for sheet in columns for c, fact in sheet.numbers.items() if fact.unit == unit)
    labels = {concept: filing.labels.get(concept) or words(concept) for concept in concepts}
    labels = {concept: " ".join(label.replace("|", "/").split()) for concept, label in labels.items()}
    same = Counter(label.casefold() for label in labels.values())
    return {concept: label for concept, label in labels.items() if same[label.casefold()] == 1}


@dataclass(frozen=True)
class _Asked:
    """A question with its answer: ``program`` has the printed figure of each of ``facts`` for {0}, {1}, ..."""

    kind: str
    question: str
    program: str
    derivation: str
    value: Decimal
    facts: tuple[Fact, ...]
    needed: tuple[tuple[int, str], ...]  # (table, concept) that the prompt must show
    money: bool = False


class _Desk:
    """Asks about one table, or about two of two companies."""

    def __init__(self, shown: tuple[FilingTable, ...], seed: int, budget: int | None, dropped: Counter[str]) -> None:
        self.shown, self.seed, self.budget, self.dropped = shown, seed, budget, dropped
        self.table, self.company = shown[0], shown[0].filing.company
        self.execute = paths.helper("programs").execute
        self.near = paths.helper("reports").score_finqa

    def items(self) -> Iterator[Row]:
        """A change, a relative change or an average of each of some items."""
        table, last = self.table, len(self.table.columns) - 1
        chosen = [c for c in table.items if sum(table.fact(c, at) is not None for at in range(last + 1)) > 1]
        rng = Random(f"{self.seed}:{table.filing.id}:{table.head(0)}")
        for concept in sorted(rng.sample(chosen, min(_ITEMS, len(chosen)))):
            reported = [at for at in range(last + 1) if table.fact(concept, at)]
            new, old = reported[0], reported[-1]
            facts = [fact for at in (new, old) if (fact := table.fact(concept, at))]
            a, b = (fact.number for fact in facts)
            assert a is not None and b is not None  # noqa: PT018 - only numbers are items
            label, ends = table.items[concept], f"from {self._when(old)} to {self._when(new)}"
            kind = rng.choice(("change", "relative change", "average" if len(reported) == last + 1 else "change"))
            needed = ((0, concept),)
            if kind == "change":
                asked = f'By how much did "{label}" of {self.company} change {ends}?'
                yield from self._row(
                    _Asked(kind, asked, "subtract({0}, {1})", "{0} - {1}", a - b, tuple(facts), needed, money=True)
                )
            elif kind == "relative change" and b > 0:
                asked = f'By what percentage did "{label}" of {self.company} change {ends}?'
                program, derivation = "subtract({0}, {1}), divide(#0, {1})", "({0} - {1}) / {1}"
                with decimal.localcontext(prec=40):
                    value = (a - b) / b
                yield from self._row(_Asked(kind, asked, program, derivation, value, tuple(facts), needed))
            elif kind == "average":
                facts = [fact for at in reported if (fact := table.fact(concept, at))]
                yield from self._average(label, facts, needed)

    def _average(self, label: str, facts: Sequence[Fact], needed: tuple[tuple[int, str], ...]) -> Iterator[Row]:
        count = len(facts)
        asked = f'What was the average of "{label}" of {self.company} over the {count} dates that the table shows?'
        if self.table.columns[0].context.start:
            asked = asked.replace("dates", "fiscal years")
        sums = ["add({0}, {1})", *(f"add(#{n - 2}, {{{n}}})" for n in range(2, count))]
        program = ", ".join([*sums, f"divide(#{count - 2}, const_{count})"])
        derivation = f"({' + '.join(f'{{{n}}}' for n in range(count))}) / {count}"
        with decimal.localcontext(prec=40):
            value = sum((fact.number or Decimal(0) for fact in facts), Decimal(0)) / count
        yield from self._row(_Asked("average", asked, program, derivation, value, tuple(facts), needed, money=True))

    def shares(self) -> Iterator[Row]:
        """Shares and ratios of the latest column, and how they moved since the one before."""
        table = self.table
        for ratio in _ONE:
            solved = [self._solve(table, ratio, at) for at in range(len(table.columns))]
            if not (now := solved[0]):
                continue
            needed = tuple((0, fact.concept) for fact in now.facts)
            asked = f"What was the {ratio.name} of {self.company} {self._on()}?"
            yield from self._row(
                _Asked("share", asked, "divide({0}, {1})", "{0} / {1}", _share(now), now.facts, needed)
            )
            if (before := next(filter(None, solved[1:]), None)) and ratio.percent:
                at = solved.index(before)
                facts = (*now.facts, *before.facts)
                ends = f"from {self._when(at)} to {self._when(0)}"
                asked = f"By how much did the {ratio.name} of {self.company} change {ends}?"
                yield from self._row(
                    self._difference(
                        "two periods",
                        asked,
                        now,
                        before,
                        facts,
                        tuple({*needed, *((0, fact.concept) for fact in before.facts)}),
                    )
                )

    def two_companies(self) -> Iterator[Row]:
        """How far a share of the first company lies above that of the second."""
        one, other = self.shown
        for ratio in (ratio for ratio in _ONE if ratio.percent):
            mine, theirs = self._solve(one, ratio, 0), self._solve(other, ratio, 0)
            if mine and theirs:
                needed = tuple((n, fact.concept) for n, found in enumerate((mine, theirs)) for fact in found.facts)
                asked = (
                    f"How far was the {ratio.name} of {one.filing.company} {self._on()} above that of "
                    f"{other.filing.company} {self._on(1)}?"
                )
                facts = (*mine.facts, *theirs.facts)
                yield from self._row(self._difference("two companies", asked, mine, theirs, facts, needed))

    def _difference(
        self,
        kind: str,
        asked: str,
        one: Solved,
        other: Solved,
        facts: tuple[Fact, ...],
        needed: tuple[tuple[int, str], ...],
    ) -> _Asked:
        program, derivation = "divide({0}, {1}), divide({2}, {3}), subtract(#0, #1)", "{0} / {1} - {2} / {3}"
        with decimal.localcontext(prec=40):
            value = _share(one) - _share(other)
        return _Asked(kind, asked, program, derivation, value, facts, needed)

    def _solve(self, table: FilingTable, ratio: Ratio, column: int) -> Solved | None:
        numbers = {c: fact for c in table.items if (fact := table.fact(c, column))}
        return solve(ratio, numbers)

    def _when(self, column: int) -> str:
        head = self.table.head(column)
        return f"the fiscal year ended {head}" if self.table.columns[column].context.start else head

    def _on(self, table: int = 0) -> str:
        shown = self.shown[table]
        head, start = shown.head(0), shown.columns[0].context.start
        return f"in the fiscal year ended {head}" if start else f"on {head}"

    def _row(self, asked: _Asked) -> Iterator[Row]:
        """The row, where its answer can be trusted and is worth asking for; else it is counted and left out."""
        key = f"{'|'.join(table.filing.id for table in self.shown)}|{asked.kind}|{asked.question}"
        identity = f"{SET}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        text, cells, powers = self._show(asked, Random(f"{self.seed}:{identity}"))
        if not text:
            self.dropped["questions whose facts do not fit in --max-context"] += 1
            return
        side = len(asked.facts) // len(self.shown)  # of two companies each half of the facts is of one table
        figures = [
            _scaled(fact.number, -powers[n // side if len(self.shown) > 1 else 0])
            for n, fact in enumerate(asked.facts)
            if fact.number is not None
        ]
        program, derivation = asked.program.format(*figures), asked.derivation.format(*figures)
        value = asked.value.scaleb(-powers[0]) if asked.money else asked.value
        answer = plain(round(value, 5))
        if not answer.strip("-0.") or (not asked.money and abs(value) < _LEAST):
            self.dropped["answers of nothing, or near it"] += 1
            return
        result = self.execute(program, json.dumps(cells))
        if not isinstance(result, float) or abs(result - float(value)) > max(1e-5, 1e-9 * abs(result)):
            self.dropped["answers that their program does not give"] += 1
            return
        doc = {"answer": answer, "table": "[]"}
        if any(self.near(doc, [cell])["acc"] for line in cells for cell in line[1:]):
            self.dropped["answers that stand in the table"] += 1
            return
        first = self.shown[0].filing
        yield {
            "id": identity,
            "group": "|".join(table.filing.id for table in self.shown),
            "company": first.company,
            "beside": self.shown[-1].filing.company if len(self.shown) > 1 else "",
            "text": text,
            "question": asked.question,
            "answer": answer,
            "exact": f"{value:f}",
            "kind": asked.kind,
            "program": program,
            "derivation": f"{derivation} = {answer}",
            "table": json.dumps(cells, ensure_ascii=False),
            "concepts": " ".join(fact.concept for fact in asked.facts),
            "context": " ".join(fact.context for fact in asked.facts),
            "filed": first.filed,
        }

    def _show(self, asked: _Asked, rng: Random) -> tuple[str, list[list[str]], list[int]]:
        """The tables with what is needed and other items, their cells, and the power of ten of each."""
        lines = _LINES
        while lines >= max(2, len(asked.needed)):
            parts, cells, powers = [], [], []
            for number, table in enumerate(self.shown):
                needed = {concept for at, concept in asked.needed if at == number}
                others = [concept for concept in table.items if concept not in needed]
                picked = needed | set(rng.sample(others, min(len(others), max(0, lines - len(needed)))))
                part, rows, power = _printed(table, [concept for concept in table.items if concept in picked])
                parts.append(part)
                cells += rows
                powers.append(power)
            text = "\n\n".join(parts)
            if self.budget is None or len(text) <= self.budget:
                return text, cells, powers
            lines -= 1
        return "", [], []


def _share(solved: Solved) -> Decimal:
    with decimal.localcontext(prec=40):
        return solved.value / 100 if solved.ratio.percent else solved.value


def _printed(table: FilingTable, concepts: Sequence[str]) -> tuple[str, list[list[str]], int]:
    """A table as Markdown under its company and unit, its cells, and the power of ten of its figures."""
    numbers = [
        fact.number for c in concepts for at in range(len(table.columns)) if (fact := table.fact(c, at)) and fact.number
    ]
    power = (
        next((power for power, _ in _UNITS if all(number % 10**power == 0 for number in numbers)), 0) if numbers else 0
    )
    word = dict(_UNITS).get(power, "")
    cells = [["", *(table.head(at) for at in range(len(table.columns)))]]
    for concept in concepts:
        facts = [table.fact(concept, at) for at in range(len(table.columns))]
        shown = [
            f"{Decimal(_scaled(fact.number, -power)):,f}" if fact and fact.number is not None else "" for fact in facts
        ]
        cells.append([table.items[concept], *shown])
    flow = "fiscal year ended" if table.columns[0].context.start else "as of"
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    head = f"{table.filing.company}, {flow}, in {word + ' of ' if word else ''}{table.unit}:"
    return "\n".join([head, lines[0], "|" + " -- |" * len(cells[0]), *lines[1:]]), cells, power


def _scaled(number: Decimal, power: int) -> str:
    with decimal.localcontext(prec=80):
        return plain(number.scaleb(power))
