"""A filing -> rows of four tasks: tags, values, formula, calculation.

A row shows the facts of its period (``text``), asks one question and has one ``answer`` that is in the filing, or
is computed from it. ``group`` is the filing: rows of one filing are no independent observations.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from finbench.data.xbrl.filings import words
from finbench.data.xbrl.model import Context, Fact, Filing, plain
from finbench.data.xbrl.ratios import RATIOS, Solved, solve
from finbench.data.xbrl.sheets import FEWEST, Sheet, sheets

SETS = ("xbrl_tags", "xbrl_values", "xbrl_formula", "xbrl_calc")
Row = dict[str, Any]
# several wordings of each question, of which a row draws one by its seed
_TAGS_BY_LABEL = (
    'Under which us-gaap concept does {company} report "{label}" {when}?',
    'Which us-gaap tag holds the item "{label}" of {company} {when}?',
    'Name the us-gaap element that {company} uses for "{label}" {when}.',
    'In the facts above, what is the us-gaap concept for "{label}" {when}?',
    '{company} labels one of its items "{label}". Which us-gaap tag carries it {when}?',
)
_TAGS_BY_VALUE = (
    "Which us-gaap concept has the value {value} {unit} in the filing of {company} {when}?",
    "{company} reports {value} {unit} {when}. Under which us-gaap tag?",
    "To which us-gaap element does the figure {value} {unit} belong {when}?",
    "Find the figure {value} {unit} {when}: what is its us-gaap concept?",
    "Name the us-gaap tag under which {company} filed {value} {unit} {when}.",
)
_VALUES = (
    'What value does {company} report for "{label}" {when}?',
    'How much was "{label}" of {company} {when}?',
    'Read the figure for "{label}" of {company} {when} from the facts.',
    '{company}, {when}: what is the reported value of "{label}"?',
    'State the amount that the filing of {company} gives for "{label}" {when}.',
)
_FORMULAS = (
    "Which formula over us-gaap concepts gives the {ratio} of {company} {when}{how}?",
    "Write the {ratio} of {company} {when}{how} as a formula of us-gaap tags.",
    "From which us-gaap items, and how, does one compute the {ratio} of {company} {when}{how}?",
    "In terms of us-gaap elements, express the {ratio} of {company} {when}{how}.",
)
_CALCULATIONS = (
    "What was the {ratio} of {company} {when}{how}?",
    "Compute the {ratio} of {company} {when}{how}.",
    "From the facts above, work out the {ratio} of {company} {when}{how}.",
    "How high was the {ratio} of {company} {when}{how}?",
)
_MONTHS = (  # not strftime: it follows the user's locale
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


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
            yield from desk.item(fact)
        for ratio in RATIOS:
            if solved := solve(ratio, sheet.numbers):
                yield from desk.solved(solved)
    for flow, balance in _years(found):
        desk = _Desk(filing, (flow, balance), settings, dropped)
        for ratio in RATIOS:
            alone = solve(ratio, flow.numbers) or solve(ratio, balance.numbers)
            if not alone and (solved := solve(ratio, {**balance.numbers, **flow.numbers})):
                yield from desk.solved(solved)


def _years(found: Sequence[Sheet]) -> Iterator[tuple[Sheet, Sheet]]:
    """(a fiscal year, the balance at its end): what ratios of flows to balances are computed from."""
    balances = {sheet.context.end: sheet for sheet in found if not sheet.context.start}
    for sheet in found:
        if 350 <= sheet.context.days <= 380 and sheet.context.end in balances:
            yield sheet, balances[sheet.context.end]


def line(fact: Fact) -> str:
    """A fact as a model sees it: concept, value, unit."""
    value = fact.value if fact.number is None else plain(fact.number)
    return f"{fact.concept} {value}" + (f" {fact.unit}" if fact.unit else "")


def _day(date: str, style: int) -> str:
    parsed = datetime.date.fromisoformat(date)
    month = _MONTHS[parsed.month - 1]
    return (date, f"{parsed.day} {month} {parsed.year}", f"{month} {parsed.day}, {parsed.year}")[style]


def _letters(text: str) -> str:
    """The letters and digits of a text, in one case."""
    return "".join(filter(str.isalnum, text)).casefold()


def _when(context: Context, rng: Random) -> str:
    """The period in words: "as of ...", "for the fiscal year ended ...", "from ... to ..."."""
    style = rng.randrange(3)
    end = _day(context.end, style)
    if not context.start:
        return f"{rng.choice(('as of', 'at', 'on'))} {end}"
    start = _day(context.start, style)
    if 350 <= context.days <= 380:
        return rng.choice((f"for the fiscal year ended {end}", f"for the year from {start} to {end}"))
    if 80 <= context.days <= 100:
        return rng.choice((f"for the quarter ended {end}", f"for the three months to {end}"))
    return f"for the period from {start} to {end}"


def _how(unit: str, places: int | None) -> str:
    """How to answer, in brackets: the unit, and to how many decimals if that is asked; "" if all is clear."""
    parts = [] if unit == "times" else [f"in {unit}"]
    if places is not None:
        parts.append(f"rounded to {('no', 'one', 'two', 'three')[places]} decimals")
    return f" ({', '.join(parts)})" if parts else ""


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

    def item(self, fact: Fact) -> Iterator[tuple[str, Row]]:
        assert fact.number is not None  # only numbers are asked about
        label = self.labels[fact.concept]
        label_fits_one = self.same_label[label.casefold()] == 1
        # "Accounts Payable Current" without blanks is the answer: nothing would be asked
        tells = _letters(label) == _letters(fact.concept.partition(":")[2])
        ways = [("by label", _TAGS_BY_LABEL)] if label_fits_one and not tells else []
        if self.same_number[fact.number] == 1:
            ways.append(("by value", _TAGS_BY_VALUE))
        if ways:
            identity, rng = self._identity("xbrl_tags", fact.concept)
            kind, templates = rng.choice(ways)
            asked = self._ask(rng, templates, fact)
            yield from self._row("xbrl_tags", identity, rng, asked, fact.concept, (fact,), kind=kind)
        elif label_fits_one:
            self.dropped["questions whose label is the concept's name"] += 1
        else:
            self.dropped["questions whose label and value fit several concepts"] += 1
        if label_fits_one:
            identity, rng = self._identity("xbrl_values", fact.concept)
            asked = self._ask(rng, _VALUES, fact)
            yield from self._row("xbrl_values", identity, rng, asked, plain(fact.number), (fact,), kind="value")
        else:
            self.dropped["questions whose label fits several concepts"] += 1

    def solved(self, solved: Solved) -> Iterator[tuple[str, Row]]:
        name, formula = solved.ratio.name, solved.formula
        more = {"kind": name, "formula": formula, "exact": f"{solved.value:f}", "result_unit": solved.unit}
        for set_, templates, answer, places in (
            ("xbrl_formula", _FORMULAS, formula, None),
            ("xbrl_calc", _CALCULATIONS, solved.answer, solved.places),
        ):
            identity, rng = self._identity(set_, name)
            asked = rng.choice(templates).format(
                ratio=name,
                company=self.filing.company,
                when=_when(self.context, rng),
                how=_how(solved.unit, places),
            )
            yield from self._row(set_, identity, rng, asked, answer, solved.facts, **more)

    def _identity(self, set_: str, what: str) -> tuple[str, Random]:
        """A row's id, and its random numbers: they depend on the seed and on the row, not on its neighbours."""
        key = "|".join((self.filing.id, *self.context.key, what))
        identity = f"{set_}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return identity, Random(f"{self.settings.seed}:{identity}")

    def _ask(self, rng: Random, templates: Sequence[str], fact: Fact) -> str:
        assert fact.number is not None
        value = rng.choice((plain(fact.number), f"{fact.number:,f}"))
        return rng.choice(templates).format(
            company=self.filing.company,
            label=self.labels[fact.concept].replace('"', "'"),
            when=_when(self.context, rng),
            value=value,
            unit=fact.unit,
        )

    def _row(
        self, set_: str, identity: str, rng: Random, asked: str, answer: str, needed: Sequence[Fact], **more: str
    ) -> Iterator[tuple[str, Row]]:
        text, left_out = self._show(needed, rng)
        if not text:
            self.dropped["questions whose facts do not fit in --max-context"] += 1
            return
        row = {
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
        }
        yield set_, row

    def _show(self, needed: Sequence[Fact], rng: Random) -> tuple[str, int]:
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
