"""What a training needs but the weights: base, rows, order, loop. All faults of a recipe are found here."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.records import Contamination, DataId, Loop, Recipe
from finbench.data import contamination
from finbench.methods import Method, method_named, quantise
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import batches

if TYPE_CHECKING:
    from finbench.training import loops

_HOW = ("loop", "pass_tokens", "sharding", "compile", "kernels")  # the way to the same weights, but for the last bits


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs but the weights."""

    recipe: Recipe
    base: bases.Base
    rows: list[batches.TrainingRow]
    data: list[DataId]
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
        """What decides the weights: the recipe, with the base by fingerprint and the data by digest.

        How rows become forward passes, and where weights lie, is left out: it decides the last bits only.
        """
        return {
            **self.recipe.model_dump(exclude={"name", "search", *_HOW}),
            "data": [part.digest for part in self.data],
            "base": self.base.id.fingerprint,
        }

    def tokens(self, passes: loops.Passes, processes: int = 1) -> tuple[int, int]:
        """(tokens without padding, positions computed) of the whole run, over all its processes."""
        steps = [[self.rows[index] for index in step] for step in self.sampler.first(self.steps)]
        parts = [batches.share(step, rank, processes)[0] for step in steps for rank in range(processes)]
        return sum(len(row.ids) for step in steps for row in step), sum(passes.run(part) for part in parts)

    def begun(self, loop: Loop) -> Prepared:
        """As it was begun: by ``loop``."""
        return self if loop == self.passes.loop else replace(self, passes=replace(self.passes, loop=loop), slower="")


Select = Callable[[Any, list[dict[str, Any]]], list[dict[str, Any]]]  # (task, its train rows) -> rows to use


def prepare(recipe: Recipe, data_dir: Path | None = None, select: Select | None = None) -> Prepared:
    """Find the base, render and tokenise the rows of all tasks, mix them by weight, choose the loop. Loads no weights.

    Test texts of ranked tasks, of the sets that are here, are looked for in the rows; what is found is said. With
    ``select``, which chooses among the train rows of each task before the recipe's ``limit`` does, it is a trial of
    which nothing is published, and they are not looked for.
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
    template = bases.chat_template(tokenizer, recipe.base) if recipe.chat else None
    longest = min(recipe.max_length, bases.context_length(base) or recipe.max_length)
    rows: list[batches.TrainingRow] = []
    data: list[DataId] = []
    first_pair: list[str] = []
    chosen: list[dict[str, Any]] = []
    tasks = catalog.expand(recipe.tasks)
    for name, lm_task in prompts.load(tasks, data_dir).items():
        docs = prompts.rows(lm_task, "train")
        if not docs:
            raise FinbenchError(
                f"Task {name} has no train split to learn from.", "Choose a task that has: finbench tasks list"
            )
        task = catalog.tasks()[name]
        docs = select(lm_task, docs) if select else docs
        if recipe.limit is not None and recipe.limit < len(docs):
            docs = choose(docs, recipe.limit, recipe.seed)
        chosen += docs
        pairs = [prompts.pair(lm_task, doc, template) for doc in docs]
        own = [batches.encode_pair(tokenizer, prompt, answer) for prompt, answer in pairs]
        batches.check_lengths(own, longest, name)
        rows += batches.share_of(own, recipe.tasks[name], recipe.seed)
        data.append(prompts.data_id(task, lm_task, "train", docs))
        first_pair = first_pair or list(pairs[0])
    lengths = [len(row.ids) for row in rows]
    sampler = batches.StepSampler(lengths, recipe.batch_size, recipe.accumulate, recipe.seed)
    steps = max(1, math.ceil(recipe.epochs * len(sampler)))  # as transformers' Trainer counts them
    if select is None:  # a trial's rows may be no run at all, but what it is ranked on
        method.check_steps(recipe, steps)
    loop, slower = loops.choose(recipe, skeleton, max(lengths, default=0))
    vocabulary = skeleton.config.get_text_config().vocab_size
    passes = loops.Passes.of(recipe, loop, vocabulary, tokenizer.pad_token_id)
    found = contamination.Index({} if select else contamination.of_tests(data_dir)).overlap(chosen)
    for line in (*contamination.warnings(found), *contamination.of_one_family(task.set for task in tasks)):
        say(f"Warning: {line}")
    return Prepared(recipe, base, rows, data, first_pair, sampler, steps, found, passes, slower)


def choose(docs: Sequence[Any], limit: int, seed: int) -> list[Any]:
    """A seeded choice of ``limit`` rows, in their own order."""
    return [docs[index] for index in sorted(random.Random(f"finbench-limit-{seed}").sample(range(len(docs)), limit))]
