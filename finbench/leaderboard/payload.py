"""What the page's scripts read: cards, tests, rows, the first screen and each subject, as values of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from finbench.cards import cardfiles, describe_subject
from finbench.core.files import digest
from finbench.core.records import Measure
from finbench.leaderboard import charts, precedence, tables, trainings
from finbench.leaderboard.board import FAMILIES, Board
from finbench.leaderboard.rows import BoardCard, BoardRow, BoardTest
from finbench.scoring import floors, metrics

LEVELS = {
    "self-reported": "no samples: rests on the word of its author",
    "samples-attached": "every number follows from the samples beside the card",
    "reproduced": "a maintainer asked the model again, on documents that nobody knew before, and signed that it "
    "answered the same",
    "revoked": "the key that signed its rerun is not believed any more: no more than samples-attached",
}
# of each table of the first screen come with the page; what lies beyond is read after it is drawn
FIRST_LINES, FIRST_BYTES = 150, 160_000
_PAST = 100  # cards of its history that a subject's page names
_BUDGET = ("rows", "steps", "rate")  # of a training: filters that what was not trained passes


@dataclass
class BoardSubject:
    """A model with its adapter and bits, or a recipe with all its trainings: one line of the first screen, one page.

    ``rows`` holds its rows in each test, by the test's key.
    """

    who: str
    card: int  # place of the card that names it
    rows: dict[str, list[BoardRow]] = field(default_factory=dict)


class Payload:
    """The values, of one board. Rows are lists, for there may be hundreds of thousands."""

    def __init__(self, board: Board) -> None:
        recipes: dict[str, list[BoardCard]] = {}
        for entry in board.entries:
            if entry.recipe:
                recipes.setdefault(entry.recipe, []).append(entry)
        self.board = board
        self.cards = [*map(_card, board.entries), *map(_together, recipes.values())]
        self.place = {entry.key: number for number, entry in enumerate(board.entries)}
        self.place |= {key: len(board.entries) + number for number, key in enumerate(recipes)}
        self._rows: dict[int, list[Any]] = {}
        self.subjects = self._subjects()

    def of(self, row: BoardRow) -> int:
        """Place of a row's card."""
        return self.place[row.entry.recipe or row.entry.key]

    def _subjects(self) -> dict[str, BoardSubject]:
        found: dict[str, BoardSubject] = {}
        for test in self.board.tests:
            for row in test.rows:
                who = self.cards[self.of(row)]["who"]
                found.setdefault(who, BoardSubject(who, self.of(row))).rows.setdefault(test.key, []).append(row)
        return found

    def heads(self) -> dict[str, Any]:
        """All that every page needs: the tests without their rows, and what the filters offer."""
        asked = dict.fromkeys(("base", "method", "format", "level"), self.cards)
        asked |= {name: [card for card in self.cards if card["kind"] != "base"] for name in _BUDGET}
        return {
            "tests": [_test(test) for test in self.board.tests],
            "families": {name: title for name, title in FAMILIES.items() if self.board.family(name)},
            "levels": LEVELS,
            "axes": charts.AXES,
            "options": {
                name: sorted({_value(card.get(name)) for card in cards}, key=_natural) for name, cards in asked.items()
            },
        }

    def rows(self, test: BoardTest) -> list[list[Any]]:
        """A test's rows; cards by their places."""
        return [self._row(row) for row in test.rows]

    def _row(self, row: BoardRow) -> list[Any]:
        if id(row) not in self._rows:
            self._rows[id(row)] = _row(row, self.place)
        return self._rows[id(row)]

    def subject(self, subject: BoardSubject) -> dict[str, Any]:
        """A subject's rows with the cards that they need, which are counted anew: other cards change nothing here."""
        held: dict[int, int] = {}

        def own(row: Any) -> Any:
            return [held.setdefault(row[0], len(held)), *row[1:]]

        rows = {key: [own(self._row(row)) for row in rows] for key, rows in subject.rows.items()}
        for row in (row for several in rows.values() for row in several if isinstance(row[11], list)):
            row[11] = [own(one) for one in row[11]]
        keys = {run.entry.key for own in subject.rows.values() for row in own for run in row.runs or (row,)}
        past = [key for one in sorted(keys) for key in self.board.history.get(one, ())]
        history = {"history": past[:_PAST], "past": len(past)} if past else {}
        return {"who": subject.who, "cards": [self.cards[place] for place in held], "rows": rows, **history}

    def overview(self) -> list[dict[str, Any]]:
        """The first screen's two tables, of whole tests and of first rows: a line a subject, best first.

        A cell has value, low, high, group, trainings, and the card's place where it is not the line's.
        """
        tables_ = []
        for keys in _overview(self.board):
            lines = [(subject, self._cells(subject, keys)) for subject in self.subjects.values()]
            lines = [(subject, cells) for subject, cells in lines if any(cells)]
            lines.sort(key=lambda line: (*_standing(line[1]), _natural(self.cards[line[0].card]["name"]), line[0].who))
            tables_.append({"tests": keys, "of": len(lines), "lines": [[one.card, cells] for one, cells in lines]})
        return tables_

    def first(self, overview: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What comes with the page: the first lines of the first screen, and the cards that they need."""
        needed: dict[int, Any] = {}
        shown = []
        for table in overview:
            lines: list[Any] = []
            left = FIRST_BYTES
            for card, cells in table["lines"][:FIRST_LINES]:
                places = (card, *(cell[5] for cell in cells if len(cell) > 5))  # who is scored task by task has many
                new = {place: self.cards[place] for place in places if place not in needed}
                left -= len(script_json([cells, new]).encode())
                if lines and left < 0:
                    break
                needed |= new
                lines.append([card, cells])
            shown.append(table | {"lines": lines})
        return {"cards": {place: needed[place] for place in sorted(needed)}, "overview": shown}

    def _cells(self, subject: BoardSubject, keys: Sequence[str]) -> list[list[Any]]:
        cells: list[list[Any]] = []
        for key in keys:
            own = subject.rows.get(key, [])
            row = own[-1] if own else None  # a subject computed in two ways has two; the page of the test shows both
            cells.append([])
            if row is not None:
                main, place = row.main, self.of(row)
                limits = [None if part is None else round(part, 4) for part in (main.value, main.low, main.high)]
                cells[-1] += [*limits, row.group, row.trainings, *([place] if place != subject.card else [])]
        return cells


def script_json(value: Any) -> str:
    """JSON that cannot end a script element or open a comment in one."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>\u2028\u2029"})


def rounded(measure: Measure) -> list[float | None]:
    """Value, low, high."""
    return [None if part is None else round(part, 5) for part in (measure.value, measure.low, measure.high)]


def detail_name(entry: BoardCard) -> str:
    """What the file of a card's details is called."""
    return digest(entry.key)[:12]


def file_of(test: BoardTest) -> str:
    """What the two files of a test's page are called, without their endings."""
    return f"{cardfiles.slug(test.task)[:60]}-{test.key}"


def _value(value: Any) -> str:
    return "not stated" if value is None else str(value)


def _natural(text: str) -> list[tuple[int, int | str]]:
    """Sorts numbers inside a text by their size."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(0, int(part)) if number % 2 else (1, part) for number, part in enumerate(parts)]


def _standing(cells: Sequence[Sequence[Any]]) -> tuple[int, float]:
    values = [cell[0] for cell in cells if cell]
    return (-sum(cell[3] == 1 for cell in cells if cell), -sum(values) / len(values))


def _card(entry: BoardCard) -> dict[str, Any]:
    card, subject = entry.card, entry.card.subject
    same = subject.model_dump(include={"bits", "kind", "seed", "chat"})
    took = trainings.budget(entry)
    return {
        "key": entry.key,
        **({"packed": entry.file} if entry.packed else {}),
        "detail": detail_name(entry),
        "who": (entry.recipe or digest(same | {"identity": precedence.identity(subject)}))[:10],
        "name": entry.name,
        "base": subject.base.alias,
        "kind": subject.kind,
        "method": subject.method or subject.kind,
        "what": describe_subject(subject),
        "format": card.format,
        "rank": subject.rank if subject.kind == "peft" else None,
        "parameters": subject.trainable_parameters,
        "level": entry.level,
        **({"rows": took.rows, "steps": took.steps, "lr": took.rate, "rate": took.chosen} if took else {}),
        "memory": 0 if any(score.hosted for score in card.scores) else card.peak_memory_bytes,
        "machine": entry.machine,
    }


def _together(entries: Sequence[BoardCard]) -> dict[str, Any]:
    """A recipe's trainings, as its rows show them: believed as far as the weakest of them."""
    weakest = min((entry.level for entry in entries), key=lambda level: precedence.STRENGTH[level])
    return _card(entries[0]) | {"key": entries[0].recipe, "name": entries[0].recipe_name, "level": weakest}


def _test(test: BoardTest) -> dict[str, Any]:
    score = test.score
    return {
        "key": test.key,
        "file": file_of(test),
        "task": test.task,
        "title": test.title,
        "conditions": list(test.conditions),
        "family": score.family,
        "form": score.form,
        "whole": test.whole,
        "ranked": test.ranked,
        "metric": metrics.spoken(score.main_metric),
        "share": test.share,
        "lower": test.lower_is_better,
        "seeds": tables.seeds(test),
        "n": score.n,
        "sampled": test.sampled,
        "imported": score.data.share,
        "of": len(test.rows),
        "version": score.version,
        "style": score.prompt_style,
        "licence": score.licence,
        "digests": [score.task_digest[:12], score.data.digest[:12]],
        "baselines": {
            said: round(values[score.main_metric], 5)
            for said, values in floors(score).items()
            if score.main_metric in values
        },
    }


def _row(row: BoardRow, place: dict[str, int]) -> list[Any]:
    """Card, value, low, high, group, parsed, tokens a second, seconds for 1,000 documents, fronts, seen, USD for them.

    And trainings (of several the card and main metric of each), their deviation, and the lenient value; of answers that
    were generated otherwise than directly also the share that the budget cut off, and tokens of reasoning an answer.
    """
    answers, lenient = row.score.answers, row.score.lenient.get(row.score.main_metric)
    each = [[place[run.entry.key], *rounded(run.main)] for run in row.runs or (row,)]
    more: list[Any] = [each if row.entry.recipe else row.trainings]
    more += [None if row.deviation is None else round(row.deviation, 5)]
    more += [lenient and round(lenient.value, 5), *([] if answers is None else [round(answers.truncated.value, 4)])]
    return [
        place[row.entry.recipe or row.entry.key],
        *rounded(row.main),
        row.group,
        round(row.score.parse_rate.value, 4),
        None if row.tokens_per_second is None else round(row.tokens_per_second, 1),
        None if row.cost is None else round(row.cost, 2),
        row.on_cost_front + 2 * row.on_memory_front + 4 * row.on_thinking_front + 8 * row.on_price_front,
        0 if row.seen is None else round(row.seen, 4),
        None if row.score.price is None else round(row.score.price, 4),
        *more,
        *([] if row.thinking is None else [round(row.thinking, 1)]),
    ]


def _overview(board: Board) -> Iterator[list[str]]:
    """Keys of the tests on the first screen: those of whole tests, and those of first rows; one a task each."""
    for whole in (True, False):
        best: dict[str, BoardTest] = {}
        for test in board.tests:
            primary = test.score.form == "generate" or test.score.family == "general"
            if test.whole == whole and primary and test.ranked:
                rivals = [best.get(test.task, test), test]  # of equals the first stays
                best[test.task] = max(rivals, key=lambda one: (not one.conditions, len(one.rows)))
        yield [test.key for test in best.values()]
