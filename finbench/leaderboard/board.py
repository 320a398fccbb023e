"""What a leaderboard shows: cards become tests, and only rows of one test are ever compared.

A test is a task under one definition, on the same rows, with the same prompts (``cards.setup_of``).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finbench.cards import conditions_of, setup_of_card, setup_of_score
from finbench.core import catalog, copies
from finbench.core.console import say
from finbench.core.files import digest, stable_json
from finbench.core.records import Score
from finbench.leaderboard import groups, known, naming, precedence, trainings
from finbench.leaderboard.rows import BoardCard, BoardRow, BoardTest, RefusedCard

_MANY = 5_000  # rows that two processes share: fewer take less than a second
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
    "fingpt": "FinGPT's prompts",
    "published": "Tests as published",
}


@dataclass(frozen=True)
class Board:
    """Every test, in the order of the page, and the cards they come from.

    ``history``: by the key of a card that counts, the keys of those of the same subject or answers that count nowhere;
    they are not among the ``entries``. ``refused``: files in which something is wrong.
    """

    entries: list[BoardCard]
    tests: list[BoardTest]
    history: dict[str, list[str]] = field(default_factory=dict)
    refused: list[RefusedCard] = field(default_factory=list)

    @property
    def large(self) -> bool:
        """Whether two processes are sooner done with it than one."""
        return _large(self.tests)

    def family(self, name: str) -> list[BoardTest]:
        """The tests of a family."""
        return [test for test in self.tests if test.score.family == name]


def board(found: Sequence[BoardCard], refused: Sequence[RefusedCard] = ()) -> Board:
    """Tests of the entries, each with its rows in order, in tied groups and with its Pareto fronts.

    ``refused``: files that are not shown.
    """
    found = naming.named(found)
    history = _History()
    tests = _tests(found, history)
    trained = trainings.several(tests)
    for test in tests:
        test.spread = trainings.known_spread(test, trained)
    half = len(tests) // 2
    with copies.meanwhile(lambda: list(map(_placed, tests[half:])), worth=_large(tests)) as others_placed:
        placed = list(map(_placed, tests[:half])) + others_placed()
    for test, one in zip(tests, placed, strict=True):
        _place(test, one)
    history.tell()
    past = history.past()
    out = history.behind.keys() | {one.file.removesuffix(".json") for one in history.open}
    shown = [entry for entry in found if entry.key in history.counting or entry.key not in out]
    return Board(shown, sorted(tests, key=_order), past, [*refused, *history.open])


def _tests(found: Sequence[BoardCard], history: _History) -> list[BoardTest]:
    tests: dict[str, BoardTest] = {}
    keys: dict[Any, str] = {}  # thousands of rows are of few tests
    tasks = catalog.tasks()
    for entry in found:
        own = setup_of_card(entry.card)
        common = stable_json(own)
        for score in entry.card.scores:
            if score.family not in FAMILIES or score.task not in tasks:
                continue
            setup = setup_of_score(score)
            told = (common, score.task, *setup.values())
            key = keys.get(told) or keys.setdefault(told, digest({**setup, **own, "task": score.task})[:10])
            if key not in tests:
                tests[key] = BoardTest(score, (), key)
            tests[key].rows.append(BoardRow(entry, score))
    for test in tests.values():
        # what part of the authors' test the rows are, no card can prove: the one that counts first says it
        first = min(test.rows, key=lambda row: row.entry.precedence)
        test.score = first.score
        one, limit = _QUESTIONS if first.score.family == "headline" else 1, first.entry.card.limit
        test.sampled = limit is not None and first.score.n + one > limit
        test.whole = not test.sampled and first.score.data.share is None
        said = conditions_of(first.entry.card, first.score)
        test.conditions = tuple(part for part in said if not part.endswith(" rows"))
        with known.kept("means", test.key) as means:
            test.rows = trainings.joined(_counting(test.rows, history), means)
    return [test for test in tests.values() if test.rows]


def _order(test: BoardTest) -> tuple[Any, ...]:
    """Families as listed; in each whole tests first, then generated answers, then what most subjects were scored on."""
    family = list(FAMILIES).index(test.score.family)
    kind = (not test.whole, test.score.form == "choice", bool(test.conditions))
    return (family, *kind, -len(test.rows), test.task, test.title, test.key)


class _History:
    """Which cards count nowhere, for which others; and those of which nothing tells whether they should."""

    def __init__(self) -> None:
        self.counting: set[str] = set()
        self.behind: dict[str, tuple[str, list[str]]] = {}  # key -> the card that counts, tasks
        self._open: dict[str, RefusedCard] = {}  # by file

    def add(self, first: BoardCard, other: BoardCard, task: str) -> None:
        """Another card counts before ``other`` on a task."""
        self.behind.setdefault(other.key, (first.key, []))[1].append(task)

    def unclear(self, one: BoardCard, other: BoardCard, task: str) -> None:
        """Two cards are of one subject, or have the same answers, and which was first is not known."""
        fault = f"is of one subject with {one.key}.json or has its answers on {task}, and nothing tells which was "
        fault += f"first: write {one.key} or {other.key} into {precedence.ARRIVALS}, or take one of the two out"
        self._open.setdefault(f"{other.key}.json", RefusedCard(f"{other.key}.json", [fault]))

    @property
    def open(self) -> list[RefusedCard]:
        """Cards of which nothing tells whether they count."""
        return list(self._open.values())

    def past(self) -> dict[str, list[str]]:
        """By the key of a card that counts, those that count nowhere."""
        found: dict[str, list[str]] = {}
        for key, (first, _) in self.behind.items():
            if key not in self.counting:
                found.setdefault(first, []).append(key)
        return found

    def tell(self) -> None:
        """Say where cards do not count: one line for those that the same card counts before, on the same tasks."""
        alike: dict[tuple[str, str], list[str]] = {}
        for key, (first, tasks) in self.behind.items():
            alike.setdefault((first, _some(tasks)), []).append(f"{key}.json")
        for (first, where), keys in alike.items():
            many = "does not count" if len(keys) == 1 else "do not count"
            say(f"{_some(keys)} {many} on {where}: {first}.json of the same subject or answers does.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _counting(rows: Sequence[BoardRow], history: _History) -> list[BoardRow]:
    """One row for each subject and way of computing: that of the strongest evidence, of these the one that came first.

    A card that says of itself that it is newer replaces nothing. The answers of another card under another name count
    once, for the one that came first; so does another owner's card of the same known weights, however it says that they
    were computed. Where nothing tells which did, neither is shown.
    """
    kept: dict[str, BoardRow] = {}
    first_of_weights: dict[str, BoardRow] = {}
    out: set[int] = set()
    for row in sorted(rows, key=lambda row: row.entry.precedence):
        task = row.score.task
        marks = [row.entry.way, *(row.proof.marks if row.proof else ())]
        first = next((kept[mark] for mark in marks if mark in kept), None)
        earliest = first_of_weights.setdefault(row.entry.weights, row)
        if first is None and earliest.entry.owner_spoken != row.entry.owner_spoken:
            first = earliest
        for mark in marks if first is None else ():
            kept[mark] = row
        if first is None:
            continue
        one, other, name = first.entry, row.entry, catalog.tasks()[task].name.removeprefix(catalog.PREFIX)
        equal = precedence.STRENGTH[one.level] == precedence.STRENGTH[other.level]
        if equal and one.arrival == other.arrival == math.inf:
            history.unclear(other, one, name)
            history.unclear(one, other, name)
            out.add(id(first))
        else:
            history.add(one, other, name)
    counting = {id(row): row for row in kept.values() if id(row) not in out}
    history.counting.update(row.entry.key for row in counting.values())
    return list(counting.values())


def _large(tests: Sequence[BoardTest]) -> bool:
    return sum(len(test.rows) for test in tests) >= _MANY


@dataclass(frozen=True)
class _Placed:
    """Where the rows of a test stand: the order of their numbers and, in this order, groups and fronts."""

    order: list[int]
    baselines: dict[str, dict[str, float]] | None  # None where nothing is ranked
    groups: list[int | None]
    fronts: list[tuple[bool, ...]]  # cost, memory, thinking, price


def _placed(test: BoardTest) -> _Placed:
    sign = 1 if test.lower_is_better else -1
    numbers = range(len(test.rows))
    order = sorted(numbers, key=lambda n: (sign * (row := test.rows[n]).main.value, row.name, row.entry.key))
    rows = [test.rows[n] for n in order]
    baselines, tied = None, [row.group for row in rows]
    if test.ranked:
        baselines = _baselines(rows)
        score = test.score.model_copy(update={"baselines": baselines})
        floor = [] if test.lower_is_better else constants(score)
        rivals = [
            groups.rival(row, test.spread) if all(row.main.value > value for value in floor) else None for row in rows
        ]
        with known.kept("tests", test.key) as pairs, known.kept("gaps", test.key) as gaps:
            tied = groups.tied(score, rivals, pairs, gaps)
    good = [-sign * row.main.value for row in rows]
    machines = [row.entry.machine for row in rows]
    everywhere = [""] * len(rows)  # tokens and prices are the same on every machine
    fronts = (
        front(good, [row.cost for row in rows], machines),
        front(good, [row.memory for row in rows], machines),
        front(good, [row.thinking for row in rows], everywhere),
        front(good, [row.score.price for row in rows], everywhere),
    )
    return _Placed(order, baselines, tied, list(zip(*fronts, strict=True)))


def _place(test: BoardTest, found: _Placed) -> None:
    test.rows = [test.rows[n] for n in found.order]
    if found.baselines is not None:
        test.score = test.score.model_copy(update={"baselines": found.baselines})
    for row, group, fronts in zip(test.rows, found.groups, found.fronts, strict=True):
        row.group = group
        row.on_cost_front, row.on_memory_front, row.on_thinking_front, row.on_price_front = fronts


def _baselines(rows: Sequence[BoardRow]) -> dict[str, dict[str, float]]:
    """What needs no model, as those state it who say anything: of them the strongest evidence, then who came first.

    They are of the same rows, so honest cards have the same ones; one that overstates them would leave nobody a group.
    """
    told = [run for row in rows for run in row.runs or [row] if run.score.baselines]
    ranks = [run.entry.precedence[:2] for run in told]
    best = min(ranks, default=None)
    found = [run.score.baselines for run, rank in zip(told, ranks, strict=True) if rank == best]
    texts = list(map(stable_json, found))  # where nobody knows who came first, those that most state
    return found[texts.index(Counter(texts).most_common(1)[0][0])] if found else {}


def constants(score: Score) -> list[float]:
    """The main metric of answers that are always the same: who does not better has shown nothing, and has no group."""
    values = (found.get(score.main_metric) for name, found in score.baselines.items() if name != "random")
    return [value for value in values if value is not None]


def front(good: Sequence[float], spent: Sequence[float | None], machines: Sequence[str]) -> list[bool]:
    """Whether each subject is on its machine's Pareto front: no other there is as good for less, or better for as much.

    ``good``: more is better; ``spent``: less is better, None where it was not measured.
    """
    on = [False] * len(good)
    least: dict[str, float] = {}  # of a machine, what those that are better have spent
    order = sorted((-value, number) for number, value in enumerate(good))
    for _, level in itertools.groupby(order, key=lambda one: one[0]):
        best: dict[str, float] = {}
        alike = [number for _, number in level]
        for number in alike:
            paid = spent[number]
            if paid is not None:
                best[machines[number]] = min(best.get(machines[number], math.inf), paid)
        for number in alike:
            paid, machine = spent[number], machines[number]
            on[number] = paid is not None and paid == best[machine] and paid < least.get(machine, math.inf)
        least |= {machine: min(least.get(machine, math.inf), paid) for machine, paid in best.items()}
    return on
