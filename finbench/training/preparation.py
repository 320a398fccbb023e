"""What a training needs but the weights: base, rows, order, loop. All faults of a recipe are found here."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.records import Contamination, DataId, LearntData, Loop, Recipe
from finbench.data import contamination, own
from finbench.methods import Method, method_named, quantise
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import batches, own_rows
from finbench.training.encoding import Rendered, RowEncoder
from finbench.training.token_rows import TokenWriter

if TYPE_CHECKING:
    from finbench.training import loops

_HOW = (
    "loop",
    "pass_tokens",
    "gradient_checkpointing",
    "sharding",
    "compile",
    "kernels",
)  # the way to the same weights, but for the last bits


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs but the weights."""

    recipe: Recipe
    base: bases.Base
    rows: Sequence[batches.TrainingRow]
    data: list[LearntData]
    first_pair: list[str]
    sampler: batches.StepSampler
    steps: int
    contamination: Contamination
    passes: loops.Passes
    slower: str  # why the passes are not faster ones; empty where they are the fastest, or asked for

    @property
    def method(self) -> Method:
        """The recipe's method."""
        return method_named(self.recipe.method)

    @property
    def dtype(self) -> Any:
        """The torch dtype that the base computes in."""
        return bases.compute_dtype(self.recipe.dtype)

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides the weights."""
        return decisive(self.recipe, self.data, self.base.id.fingerprint)

    def tokens(self, passes: loops.Passes, processes: int = 1) -> tuple[int, int]:
        """(tokens without padding, positions computed) of the whole run, over all its processes."""
        real = computed = 0
        for step in self.sampler.first(self.steps):
            rows = [self.rows[index] for index in step]
            real += sum(len(row.ids) for row in rows)
            computed += sum(passes.run(batches.share(rows, rank, processes)[0]) for rank in range(processes))
        return real, computed

    def begun(self, loop: Loop, checkpointed: bool) -> Prepared:
        """By ``loop``, as it was begun, and with activation checkpointing or without."""
        passes = replace(self.passes, loop=loop, checkpointed=checkpointed)
        return replace(self, passes=passes, slower=self.slower if loop == self.passes.loop else "")


# (task or source, how many rows it has, the text by which row so-and-so is known) -> numbers of the rows to use
Select = Callable[[str, int, Callable[[int], str]], Sequence[int]]


def decisive(recipe: Recipe, data: Sequence[DataId], fingerprint: str) -> dict[str, Any]:
    """What decides the weights: the recipe, with the base by fingerprint and the data by digest.

    How rows become forward passes, and where weights and own rows lie, is left out.
    """
    return {
        **recipe.model_dump(exclude={"name", "search", "data", *_HOW}),
        "data": [part.digest for part in data],
        "weights": [part.weight for part in recipe.data],
        "base": fingerprint,
    }


def prepare(
    recipe: Recipe, data_dir: Path | None = None, select: Select | None = None, *, tell: bool = True
) -> Prepared:
    """Find the base, render and tokenise all rows, mix them by weight, choose the loop. Loads no weights.

    Test texts of ranked tasks, of the sets that are here, are looked for in the rows; what is found is said. With
    ``select``, which chooses among the rows of each task and source before the recipe's ``limit`` does, it is a trial
    of which nothing is published, and they are not looked for. ``tell``: say what rows of the user's own are.
    """
    from finbench.training import loops

    base = bases.resolve(recipe.base)
    recipe = bases.on_factors(recipe, base)
    quantise.check(recipe.bits)
    skeleton = bases.skeleton(base)
    method = method_named(recipe.method)
    method.verify(recipe, bases.layers_of(skeleton))
    method.rehearse(recipe, bases.skeleton(base))
    tokenizer = bases.load_tokenizer(base)
    lm_tasks = prompts.load(catalog.expand(recipe.tasks), data_dir)
    tests = {} if select else contamination.of_tests(data_dir)
    if not select:  # the table of which an own benchmark was made may be among the rows
        own_tasks = {name: prompts.rows(one, "test") for name, one in lm_tasks.items() if catalog.own(name)}
        tests |= {name: list(contamination.texts_of(docs)) for name, docs in own_tasks.items()}
    index = contamination.Index(tests)
    gathered = _Rows(recipe, base, tokenizer, None if select else index, select, tell)
    for name, lm_task in lm_tasks.items():
        gathered.take_task(name, lm_task)
    for part in recipe.data:
        gathered.take_own(own.survey(own.locate(part)))
    rows = gathered.writer.rows(gathered.order)
    lengths = rows.lengths
    sampler = batches.StepSampler(lengths, recipe.batch_size, recipe.accumulate, recipe.seed)
    steps = max(1, math.ceil(recipe.epochs * len(sampler)))  # as transformers' Trainer counts them
    if select is None:  # a trial's rows may be no run at all, but what it is ranked on
        method.check_steps(recipe, steps)
    loop, slower = loops.choose(recipe, skeleton, max(lengths, default=0))
    vocabulary = skeleton.config.get_text_config().vocab_size
    passes = loops.Passes.of(recipe, loop, vocabulary, tokenizer.pad_token_id)
    found = contamination.with_editions(index.counted(gathered.seen), data_dir)
    families = contamination.of_one_family(part.set for part in gathered.data)
    for line in (*contamination.warnings(found), *families):
        say(f"Warning: {line}")
    return Prepared(recipe, base, rows, gathered.data, gathered.first_pair, sampler, steps, found, passes, slower)


class _Rows:
    """The rows of a run, task by task, then source by source. ``order``: their numbers in the writer, mixed."""

    def __init__(
        self,
        recipe: Recipe,
        base: bases.Base,
        tokenizer: Any,
        index: contamination.Index | None,
        select: Select | None,
        tell: bool,
    ) -> None:
        self.recipe, self.tokenizer, self.index, self.select, self.tell = recipe, tokenizer, index, select, tell
        self.template = bases.chat_template(tokenizer, recipe.base) if recipe.chat else None
        self.longest = min(recipe.max_length, bases.context_length(base) or recipe.max_length)
        self.writer, self.encoder = TokenWriter(len(tokenizer)), RowEncoder(tokenizer)
        self.order: list[int] = []
        self.data: list[LearntData] = []
        self.first_pair: list[str] = []
        self.seen: set[int] = set()

    def _chosen(self, name: str, count: int, known_by: Callable[[int], str]) -> Sequence[int]:
        numbers: Sequence[int] = range(count) if self.select is None else self.select(name, count, known_by)
        limit = self.recipe.limit
        return choose(numbers, limit, self.recipe.seed) if limit is not None and limit < len(numbers) else numbers

    def take_task(self, name: str, lm_task: Any) -> None:
        """The train split of a task, each row as the task would ask it."""
        docs = prompts.rows(lm_task, "train")
        if not docs:
            raise FinbenchError(
                f"Task {name} has no train split to learn from.", "Choose a task that has: finbench tasks list"
            )
        docs = [docs[number] for number in self._chosen(name, len(docs), lambda n: source_of(lm_task, docs[n]))]
        for doc in docs if self.index else ():
            self.seen |= self.index.seen(contamination.fields(doc)) if self.index else set()
        pairs = [prompts.pair(lm_task, doc, self.template) for doc in docs]
        rows = list(self.encoder.rows([Rendered.of_pair(*pair) for pair in pairs]))
        batches.check_lengths(rows, self.longest, name)
        first = len(self.writer)
        for row in rows:
            self.writer.add(row)
        self.order += batches.share_of(range(first, len(self.writer)), self.recipe.tasks[name], self.recipe.seed)
        stated = prompts.data_id(catalog.tasks()[name], lm_task, "train", docs)
        self.data.append(LearntData(**stated.model_dump()))
        self.first_pair = self.first_pair or list(pairs[0])

    def take_own(self, found: own.Survey) -> None:
        """The rows of a source of the user's own."""
        part, recipe, count = found.located.stated, self.recipe, int(found.kept.sum())
        if self.tell:
            chats = any(known.shape.chat for known in found.formats.values())
            wrapped = [f"{found.name}: conversations need the base's chat template; all prompts are put in it."] * chats
            doubts = [*(f"{found.name}: {line}" for line in found.warnings()), *own_rows.benchmarks_of(found)]
            for line in [found.said, *wrapped, *(f"Warning: {doubt}" for doubt in doubts)]:
                say(line)
        if recipe.bad_rows == "refuse":
            found.refuse()
        own_rows.check_template(found, self.template)
        kept = np.flatnonzero(found.kept)
        asked = self._chosen(found.name, count, lambda number: f"{int(found.prompts[kept[number]]):016x}")
        chosen = None if len(asked) == count else kept[list(asked)].tolist()
        renderer = own_rows.Renderer.of(self.tokenizer, self.template, part.delimiter, recipe.base)
        made = own_rows.learn(
            found, recipe, self.encoder, renderer, self.longest, self.writer, chosen=chosen, index=self.index
        )
        own_rows.settle(made, recipe, self.longest)
        if self.tell:
            for line in made.lines(recipe):
                say(f"{found.name}: {line}")
        if self.select is None:
            own.remember(found.located)
        self.seen |= made.texts
        self.order += batches.share_of(made.numbers, part.weight, recipe.seed)
        self.data.append(made.record(recipe))
        text, ((start, end), *_) = made.shown[0][0].text, made.shown[0][0].spans
        self.first_pair = self.first_pair or [text[:start], text[start:end]]


def source_of(lm_task: Any, doc: dict[str, Any]) -> str:
    """The text by which a task's row is known: what it shares with others, or what it shows."""
    return str(doc.get("group") or prompts.shown(lm_task, doc))


def choose(docs: Sequence[Any], limit: int, seed: int) -> list[Any]:
    """A seeded choice of ``limit`` rows, in their own order."""
    return [docs[index] for index in sorted(random.Random(f"finbench-limit-{seed}").sample(range(len(docs)), limit))]
