"""Rows that are held out of a training: which they are, that no test or train row is among them, how often they count.

A share is taken out of train by source, so that no text is on both sides. What a held-out row shares with a test of the
suite or with a row that is learnt is looked for as contamination is: in a file it is refused, else the row is left out.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, counted
from finbench.core.files import digest
from finbench.core.records import OwnData, Recipe, name_of_source
from finbench.data import contamination
from finbench.scoring import metrics, prompts, sample_rows
from finbench.training.batches import TrainingRow
from finbench.training.token_rows import TokenWriter

MOST = 0.1  # of the training's work, where validate_every is auto
ANSWERED = 64  # rows that are answered for a metric, of all tasks together
FORWARD = 0.5  # of the work of a step, forward and backward through frozen weights, that its forward part is
_DECODED = 8  # tokens of a forward pass that take as long as one that is generated, many answers side by side
ROOM = 16  # tokens that an answer may have beyond the longest right one
_FEWEST, _OFTEN = 5, 20  # validations of a run that auto aims at
_LEAST = 8  # rows
_SAMPLE = "finbench-validation"


@dataclass(frozen=True)
class AskedTask:
    """Rows of a task that are answered: its lm-eval task, its main metric, and the rows."""

    name: str
    lm_task: Any
    docs: list[dict[str, Any]]

    @property
    def main(self) -> str:
        """The task's main metric."""
        return catalog.tasks()[self.name].main_metric

    def value(self, instances: Sequence[Any]) -> float:
        """The main metric of answered requests, by the task's own scorer and aggregation."""
        return float(self.lm_task.aggregation()[self.main](self._values(instances)))

    def right(self, answer: str) -> bool:
        """Whether the scorer finds a generated answer to the first row as good as the right one."""
        [instance] = prompts.asked(self.lm_task, self.docs[:1])
        stops = instance.args[1].get("until") or []
        for stop in [stops] if isinstance(stops, str) else stops:  # which finbench eval ends an answer at
            answer = answer.partition(stop)[0]
        values = []
        for said in (answer, prompts.gold_answer(self.lm_task, self.docs[0])):
            instance.resps = [said]
            values += self._values([instance])
        return bool(values[0] == values[1])

    def _values(self, instances: Sequence[Any]) -> list[Any]:
        choice = catalog.tasks()[self.name].form == "choice"
        _, values = sample_rows(self.lm_task, instances, choice=choice, restricted=False)
        return values[self.main]


Numbered = tuple[range, AskedTask]  # numbers of rows in a TokenWriter, and what asks them
Sample = tuple[TrainingRow, AskedTask | None]  # a row of which answers are shown, and the task that asks it so


@dataclass(frozen=True)
class HeldOut:
    """What a run validates on. ``work``: expected cost, as a share of the training's own."""

    source: str
    rows: list[TrainingRow]
    left_out: int
    every: int
    times: int
    work: float
    asked: list[AskedTask] = field(default_factory=list)

    @property
    def measure(self) -> str:
        """What decides which step is best."""
        names = list(dict.fromkeys(one.main for one in self.asked))
        return ", ".join(names) if names else "loss"

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return not self.asked or self.asked[0].main in metrics.lower_is_better(self.asked[0].name)

    @property
    def digest(self) -> str:
        """Of the rows."""
        return digest([[row.ids, row.answer, row.silent] for row in self.rows])

    def outline(self) -> dict[str, Any]:
        """For a dry run."""
        return {
            "source": self.source,
            "rows": len(self.rows),
            "left_out": self.left_out,
            "measure": self.measure,
            "every": self.every,
            "times": self.times,
            "work": round(self.work, 4),
        }


def place(source: str, seed: int, salt: str = _SAMPLE) -> float:
    """Where a source falls between 0 and 1, by a salted hash; its rows are held out if it is below the share."""
    return int.from_bytes(hashlib.sha256(f"{salt}-{seed}:{source}".encode()).digest()[:8], "big") / 2**64


def side(recipe: Recipe, held: bool, name: str, count: int, known_by: Callable[[int], str]) -> list[int]:
    """Numbers of the rows that are learnt, or held out, where ``validation`` is a share of train."""
    share = recipe.validation
    assert isinstance(share, float)
    normal = paths.helper("sets").splits.signed
    sources = [str(normal(known_by(number))) for number in range(count)]
    found = [number for number, source in enumerate(sources) if (place(source, recipe.seed) < share) is held]
    if not found:
        raise FinbenchError(
            f"{name} has too few train rows ({count:,}, of {counted(len(set(sources)), 'source')}) "
            f"to hold {share:g} of them out.",
            "Name rows to validate on: --validation file.jsonl, or validation: split",
        )
    return found


@dataclass
class Sieve:
    """Says of held-out rows whether they hold a test text, or a text that is learnt, and counts those that do."""

    tests: Mapping[str, Iterable[contamination.Known]]
    learnt: Iterable[contamination.Known]
    prompts: set[int]  # hashes of what own rows that are learnt ask
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.index = contamination.Index({**self.tests, "": self.learnt})

    @property
    def looked_for(self) -> dict[str, int]:
        """Set -> different test texts."""
        return {name: count for name, count in sorted(self.index.texts.items()) if name}

    def fits(self, texts: Iterable[str], asked: int | None = None) -> bool:
        """Whether a row of these texts may be validated on; ``asked``: the hash of an own row's prompt."""
        hit = {self.index.tests[number][0] for number in self.index.seen(texts)}
        if asked is not None and asked in self.prompts:
            hit.add("")
        self.counts.update(hit)
        self.counts["any"] += bool(hit)
        return not hit

    def refuse(self, source: str, sets: Iterable[str] | None = None) -> None:
        """Refuse rows that hold a test text of ``sets`` (None: of any, or a text that is learnt)."""
        found = {name: count for name, count in self.counts.items() if name != "any" and count}
        if sets is not None:
            found = {name: count for name, count in found.items() if name in set(sets)}
        if not found:
            return
        told = [f"{count:,} are train rows" if not name else f"{count:,} are test rows of {name}"
                for name, count in found.items()]  # fmt: skip
        raise FinbenchError(
            f"Of the rows to validate on ({source}), {', '.join(told)}.",
            "Take them out of the file, or hold a share of train out: --validation 0.1",
        )


def texts_of(lm_task: Any, docs: Sequence[dict[str, Any]]) -> list[contamination.Known]:
    """The texts by which rows of a task are known."""
    return contamination.texts_of(docs) or [prompts.shown(lm_task, doc) for doc in docs]


def texts_asked(asked: Iterable[Numbered]) -> list[contamination.Known]:
    """The same of all rows of some tasks."""
    return [text for _, one in asked for text in texts_of(one.lm_task, one.docs)]


def spread(count: int) -> list[int]:
    """The first of so many, one in the middle, the last."""
    return list(dict.fromkeys((0, count // 2, count - 1)))[:count]


def samples(writer: TokenWriter, order: Sequence[int], asked: Sequence[Numbered]) -> list[Sample]:
    """Three of the rows with these numbers, each with what asks it, if that is a task whose answers are generated."""
    numbers = [order[at] for at in spread(len(order))]
    judges = [(own, one) for own, one in asked if catalog.tasks()[one.name].form == "generate"]
    found = [
        next((replace(one, docs=[one.docs[number - own.start]]) for own, one in judges if number in own), None)
        for number in numbers
    ]
    return list(zip(writer.rows(numbers), found, strict=True))


def spoken(recipe: Recipe) -> str:
    """What rows are validated on, for people and records: no local path."""
    if isinstance(recipe.validation, OwnData):
        return name_of_source(recipe.validation.source)
    if recipe.validation == "split":
        return "the tasks' validation split"
    return f"the {100 * float(recipe.validation or 0):g} % of train that is held out"


def schedule(
    recipe: Recipe, rows: Sequence[TrainingRow], asked: Sequence[AskedTask], learnt: int, steps: int
) -> ValidationPlan:
    """How often, and on how many rows, ``learnt`` being the tokens that the training learns from.

    By tokens and not by the clock, so that a run that is resumed validates at the same steps. With ``auto`` five
    validations: where these would take more than a tenth, of fewer rows, and where that is not enough, fewer. The first
    answers, of a model that has not learnt when to end, are taken to be as long as they may be.
    """
    each = FORWARD * sum(len(row.ids) for row in rows) / len(rows)  # of a row, in tokens of training
    count = len(rows)
    answered = min(ANSWERED, count) if asked else 0
    answer = each + _DECODED * FORWARD * max(row.answer for row in rows)

    def cost(times: float) -> float:
        return times * (count * each + answered * answer) + answered * ROOM * _DECODED * FORWARD

    if recipe.validate_every != "auto":
        every = min(recipe.validate_every, steps)
    else:
        few = min(1.0, MOST * learnt / cost(_FEWEST + 1))
        count, answered = min(count, max(_LEAST, int(few * count))), min(answered, max(_LEAST, int(few * answered)))
        affordable = int((MOST * learnt - cost(0)) / (cost(1) - cost(0)))
        every = math.ceil(steps / min(max(affordable - 1, 1), _OFTEN, steps))
    times = math.ceil(steps / every) + 1  # and once before the first step
    return ValidationPlan(every, times, count, answered, cost(times) / learnt)


@dataclass(frozen=True)
class ValidationPlan:
    """Steps between validations, how many there are, rows of each, how many of them are answered, expected cost."""

    every: int
    times: int
    rows: int
    answered: int
    work: float


def check_metric(recipe: Recipe, asked: Sequence[AskedTask]) -> None:
    """Refuse, before the first step, a metric that could not be computed, or not averaged, during training."""
    if not asked:
        raise FinbenchError(
            "validate: metric needs rows of a task, and only rows of your own are validated on.",
            "Use validate: loss, or validation: split",
        )
    if recipe.sharding != "none":
        raise FinbenchError(
            "validate: metric generates answers, which a base in shards does not.", "Use --set validate=loss"
        )
    if len(asked) > 1 and not all(metrics.is_share(one.main) for one in asked):
        names = ", ".join(f"{one.name.removeprefix(catalog.PREFIX)} {one.main}" for one in asked)
        raise FinbenchError(
            f"The main metrics of these tasks are no shares of 1 that could be averaged: {names}.",
            "Use --set validate=loss, or one task.",
        )
    for one in asked:
        try:  # by the right answers, so that a scorer's fault shows now
            instances = prompts.asked(one.lm_task, one.docs[:_LEAST])
            for instance in instances:
                right = prompts.gold_answer(one.lm_task, instance.doc)
                generated = instance.request_type == "generate_until"
                instance.resps = [right if generated else (-1.0, False)]
            value = one.value(instances)
        except Exception as fault:
            raise FinbenchError(
                f"The metric {one.main} of {one.name} cannot be computed: {type(fault).__name__}: {fault}",
                "Use --set validate=loss, or correct the task: finbench tasks check",
            ) from fault
        if not math.isfinite(value):
            raise FinbenchError(f"The metric {one.main} of {one.name} is no number.", "Use --set validate=loss")
