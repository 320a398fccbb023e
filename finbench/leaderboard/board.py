"""What a leaderboard shows: cards become tests, and only rows of one test are ever compared.

A test is a task under one definition, on the same rows, with the same prompts (``cards.setup_of``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.cards import (
    cardfiles,
    conditions_of,
    follows,
    setup_of,
)
from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Score, Scorecard
from finbench.evaluation import Verification, verify
from finbench.leaderboard import attested, groups, precedence, trainings
from finbench.leaderboard.rows import BoardCard, BoardRow, BoardTest

SCORECARDS = "scorecards"
STUDY = "study"  # folder beside it with cards of many trainings, which tell how far seeds scatter and have no row
_QUESTIONS = 9  # of a headline at most: a limit takes whole headlines, so the next one may not have fitted
FAMILIES = {
    "sentiment": "Sentiment",
    "headline": "Headlines",
    "ner": "Entities",
    "xbrl": "XBRL",
    "qa": "Questions",
    "reports": "Reports",
    "stance": "Stance",
    "textbook": "Textbook",
    "general": "General",
    "finlora": "FinLoRA's prompts",
    "published": "Tests as published",
}


@dataclass(frozen=True)
class Board:
    """Every test, in the order of the page, and the cards they come from."""

    entries: list[BoardCard]
    tests: list[BoardTest]

    def family(self, name: str) -> list[BoardTest]:
        """The tests of a family."""
        return [test for test in self.tests if test.score.family == name]


def entries(folder: Path, trusted: Path | None = None) -> list[BoardCard]:
    """Every card of ``folder/scorecards``, verified; FinbenchError naming each one in which something is wrong.

    ``trusted``: the folder whose keys and order of arrival are believed; default: the leaderboard's own.
    """
    found, faults = [], []
    vouched, order = attested.attestations(folder, trusted), precedence.arrivals(trusted or folder)
    for path in cardfiles.expand([folder / SCORECARDS]):
        if older := _older(cardfiles.read(path)):
            say(f"{path.name} is left out: it is of an older version of {older}. Score its subject again to rank it.")
            continue
        checked = verify(path, data_dir=folder / ".none")  # data on this machine must not decide
        card = cardfiles.read(path)
        if no_model := precedence.without_model(card):
            checked.fault("engine", no_model)
        if checked.faults:
            faults += [f"{path.name}: {fault.field} {fault.message}" for fault in checked.faults[:3]]
            continue
        samples = cardfiles.rows_by_task(path, card)
        found.append(
            BoardCard(
                key=path.stem,
                card=card,
                samples=samples,
                found=checked,
                level=attested.level(path, card, samples, checked, vouched),
                trained=attested.trained(folder, card.subject),
                arrival=order.get(path.stem),
            )
        )
    if faults:
        raise FinbenchError(
            "\n".join(faults), f"See all that is wrong: finbench verify {folder / SCORECARDS}/CARD.json"
        )
    return found


def _older(card: Scorecard) -> str:
    """The first task of a card that has a newer version here, by which its answers cannot be scored again."""
    return next((score.task for score in card.scores if not _present(score)), "")


def _present(score: Score) -> bool:
    known = catalog.tasks()
    return score.task not in known or score.version >= known[score.task].version


def beside(folder: Path) -> list[BoardCard]:
    """Cards of ``folder/study/scorecards`` with their scores of present versions, each of which its samples give."""
    place, found = folder / STUDY / SCORECARDS, []
    for path in cardfiles.expand([place]) if place.is_dir() else ():
        card = cardfiles.read(path)
        samples = cardfiles.rows_by_task(path, card)
        scores = [score for score in card.scores if _present(score) and score.task in samples]
        for score in scores:
            follows(score, samples[score.task], path)
        made = card.model_copy(update={"scores": scores})
        found.append(BoardCard(path.stem, made, samples, Verification(path.name), "samples-attached"))
    return found


def board(found: Sequence[BoardCard], study: Sequence[BoardCard] = ()) -> Board:
    """Tests of the entries, each with its rows in order, in tied groups and with its Pareto fronts.

    ``study``: cards without a row, whose trainings show how far seeds scatter.
    """
    found = trainings.with_recipes(_told_apart(found))
    tests, others = _tests(found), _tests(trainings.with_recipes(study))
    for test in tests:
        test.spread = trainings.known_spread(test, [*tests, *others])
        _place(test)
    return Board(list(found), sorted(tests, key=_order))


def _tests(found: Sequence[BoardCard]) -> list[BoardTest]:
    tests: dict[str, BoardTest] = {}
    for entry in found:
        for score in entry.card.scores:
            if score.family not in FAMILIES or score.task not in catalog.tasks():
                continue
            key = digest({**setup_of(entry.card, score), "task": score.task})[:10]
            said = tuple(part for part in conditions_of(entry.card, score) if not part.startswith("first "))
            test = tests.setdefault(key, BoardTest(score, said, key, whole=False))
            one = _QUESTIONS if score.family == "headline" else 1
            whole = entry.card.limit is None or score.n + one <= entry.card.limit
            test.whole = test.whole or (whole and score.data.share is None)
            test.rows.append(BoardRow(entry, score))
    for test in tests.values():
        test.rows = trainings.joined(_counting(test.rows))
    return list(tests.values())


def _order(test: BoardTest) -> tuple[Any, ...]:
    """Families as listed; in each whole tests first, then generated answers, then what most subjects were scored on."""
    family = list(FAMILIES).index(test.score.family)
    kind = (not test.whole, test.score.form == "choice", bool(test.conditions))
    return (family, *kind, -len(test.rows), test.task, test.title, test.key)


def _told_apart(found: Sequence[BoardCard]) -> list[BoardCard]:
    """The cards; subjects that share a name get part of their identity behind it."""
    named: dict[str, set[str]] = {}
    for entry in found:
        named.setdefault(precedence.spoken(entry.card.subject), set()).add(precedence.identity(entry.card.subject))
    return [
        replace(entry, shown=f"{entry.card.subject.name} ({precedence.identity(entry.card.subject)[:6]})")
        if len(named[precedence.spoken(entry.card.subject)]) > 1
        else entry
        for entry in found
    ]


def _counting(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """One row for each subject and way of computing: that of the strongest evidence, of these the one that came first.

    A card that says of itself that it is newer replaces nothing. The answers of another card under another name count
    once, for the one that came first. FinbenchError where nothing tells which did.
    """
    kept: dict[str, BoardRow] = {}
    for row in sorted(rows, key=lambda row: (-precedence.STRENGTH[row.entry.level], *_arrived(row.entry))):
        card, task = row.entry.card, row.score.task
        marks = [precedence.way(card), *precedence.answered(row.score, row.entry.samples.get(task, []))]
        first = next((kept[mark] for mark in marks if mark in kept), None)
        for mark in marks if first is None else ():
            kept[mark] = row
        if first is None:
            continue
        one, other, name = first.entry, row.entry, catalog.tasks()[task].name.removeprefix(catalog.PREFIX)
        equal = precedence.STRENGTH[one.level] == precedence.STRENGTH[other.level]
        if equal and one.arrival is None and other.arrival is None:
            raise FinbenchError(
                f"{one.key}.json and {other.key}.json are of one subject or have the same answers on {name}, "
                "and nothing tells which was first.",
                f"Write {one.key} or {other.key} into {precedence.ARRIVALS}, or take one of the two out.",
            )
        say(f"{other.key}.json does not count on {name}: {one.key}.json of the same subject or answers does.")
    return list({id(row): row for row in kept.values()}.values())


def _arrived(entry: BoardCard) -> tuple[float, str]:
    return (math.inf if entry.arrival is None else entry.arrival, entry.key)


def _place(test: BoardTest) -> None:
    sign = 1 if test.lower_is_better else -1
    test.rows.sort(key=lambda row: (sign * row.score.main.value, row.name, row.entry.key))
    if test.ranked:
        # of all cards, since one may keep quiet about them
        scores = [] if test.lower_is_better else [test.score, *(row.score for row in test.rows)]
        floor = {value for score in scores for value in constants(score)}
        rivals = [
            groups.rival(row, test.spread) if all(row.score.main.value > value for value in floor) else None
            for row in test.rows
        ]
        for row, group in zip(test.rows, groups.tied(test.score, rivals), strict=True):
            row.group = group
    good = [-sign * row.score.main.value for row in test.rows]
    machines = [row.entry.machine for row in test.rows]
    costs = front(good, [row.cost for row in test.rows], machines)
    memories = front(good, [row.memory for row in test.rows], machines)
    # tokens are the same on every machine
    thoughts = front(good, [row.thinking for row in test.rows], [""] * len(good))
    prices = front(good, [row.score.price for row in test.rows], [""] * len(good))
    for row, *fronts in zip(test.rows, costs, memories, thoughts, prices, strict=True):
        row.on_cost_front, row.on_memory_front, row.on_thinking_front, row.on_price_front = fronts


def constants(score: Score) -> list[float]:
    """The main metric of answers that are always the same: who does not better has shown nothing, and has no group."""
    values = (found.get(score.main_metric) for name, found in score.baselines.items() if name != "random")
    return [value for value in values if value is not None]


def front(good: Sequence[float], spent: Sequence[float | None], machines: Sequence[str]) -> list[bool]:
    """Whether each subject is on its machine's Pareto front: no other there is as good for less, or better for as much.

    ``good``: more is better; ``spent``: less is better, None where it was not measured.
    """
    on = []
    every = list(zip(good, spent, machines, strict=True))
    for mine, paid, machine in every:
        rivals = [(other, cost) for other, cost, where in every if where == machine and cost is not None]
        beaten = paid is None or any(
            other >= mine and cost <= paid and (other > mine or cost < paid) for other, cost in rivals
        )
        on.append(not beaten)
    return on
