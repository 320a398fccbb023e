"""What a leaderboard shows: cards become tests, and only rows of one test are ever compared.

A test is a task under one definition, on the same rows, with the same prompts (``cards.setup_of``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finbench.cards import (
    Heading,
    RowsByTask,
    cardfiles,
    conditions_of,
    follows,
    setup_of,
    thinking_tokens,
)
from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Score, Scorecard
from finbench.evaluation import Verification, verify
from finbench.leaderboard import attested, groups, precedence, trainings
from finbench.leaderboard.attested import AttestedAdapter
from finbench.scoring import seed_variance

SCORECARDS = "scorecards"
STUDY = "study"  # folder beside it with cards of many trainings, which tell how far seeds scatter and have no row
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
UNRANKED = ("finlora", "published", "mini")  # families for compatibility and for demos: never ranked, mini never shown


@dataclass(frozen=True)
class BoardCard:
    """A card of the leaderboard with its samples, how far it can be believed, and its adapter's training if known."""

    key: str
    card: Scorecard
    samples: RowsByTask
    found: Verification
    level: str
    trained: AttestedAdapter | None = None
    arrival: int | None = None  # place in the order in which cards were added; None: it is not in it
    shown: str = ""  # its subject's name, where another subject has the same
    recipe: str = ""  # digest of what it is one of several trainings of
    recipe_name: str = ""

    @property
    def name(self) -> str:
        """Of its subject, unlike that of any other on the board."""
        return self.shown or self.card.subject.name

    @property
    def machine(self) -> str:
        """Seconds and bytes are only comparable on one kind of machine: accelerator, else processor and cores."""
        known = self.card.provenance.hardware
        if "gpu" in known:
            return f"{known.get('gpus', 1)} × {known['gpu']}"
        return (
            f"{known.get('cpu', 'not stated')}, {known.get('cores', '?')} core{'' if known.get('cores') == 1 else 's'}"
        )


@dataclass
class BoardRow:
    """A subject's score in a test. ``group`` 1 cannot be separated from the best; None where nothing can be tested.

    Of a recipe with several trainings ``score`` has the means, ``entry`` is the first and ``runs`` are all of them.
    """

    entry: BoardCard
    score: Score
    runs: tuple[BoardRow, ...] = ()
    group: int | None = None
    on_cost_front: bool = False
    on_memory_front: bool = False
    on_thinking_front: bool = False
    on_price_front: bool = False

    @property
    def name(self) -> str:
        """Of the recipe, if the board has several trainings of it, else of the subject."""
        return self.entry.recipe_name or self.entry.name

    @property
    def values(self) -> list[float]:
        """The main metric of each training."""
        return [run.score.main.value for run in self.runs] or [self.score.main.value]

    @property
    def trainings(self) -> int | None:
        """How many the score rests on; None for what was not trained."""
        return None if self.entry.card.subject.adapter is None else len(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation between trainings, in the unit of the metric."""
        return seed_variance(self.values).deviation if len(self.runs) > 1 else None

    @property
    def seen(self) -> float | None:
        """Share of the test's texts that stood in training rows; None where nobody looked."""
        return self.score.overlap.texts / self.score.overlap.of if self.score.overlap else None

    @property
    def tokens_per_second(self) -> float | None:
        """Prompt tokens a second, answers included in the time; None where no time was taken."""
        score = self.score
        return score.prompt_tokens / score.seconds if score.seconds and score.prompt_tokens else None

    @property
    def thinking(self) -> float | None:
        """Tokens of reasoning an answer; None where answers were generated directly."""
        return thinking_tokens(self.entry.card, self.score)

    @property
    def cost(self) -> float | None:
        """Seconds of the machine for 1,000 documents."""
        seconds = 0.0 if self.score.hosted else self.score.seconds  # of an endpoint nobody knows the machine
        return 1000 * seconds / self.score.n if seconds else None

    @property
    def memory(self) -> int | None:
        """Bytes at the peak; None where the model was elsewhere."""
        return None if self.score.hosted else self.entry.card.peak_memory_bytes or None


@dataclass
class BoardTest(Heading):
    """One table of the leaderboard. ``whole``: the whole test was asked: not its first rows, no part of the set."""

    key: str
    whole: bool
    rows: list[BoardRow] = field(default_factory=list)
    spread: trainings.KnownSpread | None = None  # between the seeds of one recipe, as far as the board knows

    @property
    def lenient(self) -> bool:
        """A row has a lenient value beside its strict one."""
        return any(row.score.main_metric in row.score.lenient for row in self.rows)

    @property
    def generated(self) -> bool:
        """Answers were generated under another profile than direct, so that tokens were counted."""
        return any(row.score.answers for row in self.rows)

    @property
    def ranked(self) -> bool:
        """Groups are formed; not in families that are for compatibility."""
        return self.score.family not in UNRANKED


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
            whole = entry.card.limit is None or score.n < entry.card.limit
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
        floor = [] if test.lower_is_better else constants(test.score)
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
