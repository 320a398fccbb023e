"""What a training needs but the weights: base, rows, order, loop. All faults of a recipe are found here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.records import (
    Contamination,
    DataId,
    LearntData,
    Loop,
    OwnData,
    Recipe,
    StartingAdapter,
    name_of_source,
)
from finbench.data import contamination, own
from finbench.methods import Method, experts_of, method_named, quantise
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import batches, holdout, own_rows
from finbench.training.batches import choose
from finbench.training.encoding import Rendered, RowEncoder
from finbench.training.token_rows import TokenWriter

if TYPE_CHECKING:
    from finbench.training import loops

# the way to the same weights, but for the last bits
_HOW = ("loop", "pass_tokens", "gradient_checkpointing", "sharding", "compile", "kernels")
_ELSEWHERE = ("validation", "preferences", "start")  # keys that may name what lies on this machine


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs but the weights."""

    recipe: Recipe
    base: bases.Base
    rows: Sequence[Any]  # TrainingRows, or pairs of them
    data: list[LearntData]
    first_pair: list[str]
    sampler: batches.StepSampler
    steps: int
    contamination: Contamination | None
    passes: loops.Passes
    slower: str  # why the passes are not faster ones; empty where they are the fastest, or asked for
    held: holdout.HeldOut | None = None
    samples: Sequence[holdout.Sample] = ()  # of those held out, else of those learnt

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

    @property
    def placeless(self) -> Recipe:
        """The recipe as it is recorded: a local path means nothing elsewhere, and may name its owner."""
        own = self.data[len(self.data) - len(self.recipe.data) :]
        named = [
            part.model_copy(update={"source": _at_commit(part.source, known), "sha256": known.sha256})
            for part, known in zip(self.recipe.data, own, strict=True)
        ]
        base = self.base.id.alias if self.base.id.source == "folder" else self.recipe.base
        changes: dict[str, Any] = {"base": base, "data": named}
        for key in _ELSEWHERE:
            if isinstance(part := getattr(self.recipe, key), OwnData | StartingAdapter):
                changes[key] = part.model_copy(update={"source": name_of_source(part.source)})
        return self.recipe.model_copy(update=changes)

    @property
    def validated_on(self) -> list[Any] | None:
        """Which rows, and how often: processes, and a run that is resumed, must have the same."""
        return None if self.held is None else [self.held.digest, self.held.every, self.held.left_out]

    def tokens(self, passes: loops.Passes, processes: int = 1, steps: int | None = None) -> tuple[int, int]:
        """(tokens without padding, positions computed) of the run, or its first ``steps``, over all its processes."""
        real = computed = 0
        for step in self.sampler.first(self.steps if steps is None else steps):
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


def _at_commit(source: str, known: LearntData) -> str:
    name = name_of_source(source)
    return f"{name.partition('@')[0]}@{known.revision}" if known.revision else name


def decisive(recipe: Recipe, data: Sequence[DataId], fingerprint: str) -> dict[str, Any]:
    """What decides the weights: the recipe, with the base by fingerprint and the data by digest.

    How rows become forward passes, and where weights and own rows lie, is left out.
    """
    parts = {key: getattr(recipe, key) for key in _ELSEWHERE}
    return {
        **recipe.model_dump(exclude={"name", "search", "data", *_HOW}),
        **{
            key: part.model_dump(exclude={"source"})
            for key, part in parts.items()
            if isinstance(part, OwnData | StartingAdapter)
        },
        "data": [part.digest for part in data],
        "weights": [part.weight for part in recipe.data],
        "base": fingerprint,
    }


def prepare(
    recipe: Recipe, data_dir: Path | None = None, select: Select | None = None, *, tell: bool = True, here: bool = True
) -> Prepared:
    """Find the base, render and tokenise all rows, mix them by weight, choose the loop. Loads no weights.

    Test texts of ranked tasks, of the sets that are here, are looked for in the rows; what is found is said. With
    ``select``, which chooses among the rows of each task and source before the recipe's ``limit`` does, it is a trial
    of which nothing is published, and they are not looked for. ``tell``: say what rows of the user's own are. ``here``:
    it is to run on this machine, which must have the packages for it.
    """
    from finbench.training import loops

    named = [] if recipe.preferences else catalog.expand(recipe.tasks)
    lm_tasks = prompts.load(named, data_dir)  # before a base is fetched or unpacked for minutes
    base = bases.resolve(recipe.base)
    recipe = bases.on_factors(recipe, base)
    if here:
        quantise.check(recipe.bits)
    bases.check_loadable(base, recipe.bits, here)
    skeleton = bases.skeleton(base)
    method = method_named(recipe.method)
    method.verify(recipe, [*bases.layers_of(skeleton), *experts_of(skeleton)])
    method.rehearse(recipe, bases.skeleton(base))
    tokenizer = bases.load_tokenizer(base)
    if recipe.preferences is not None:
        return _of_pairs(recipe, base, skeleton, tokenizer, data_dir)
    tests = {} if select else contamination.of_tests(data_dir)
    if not select:  # the table of which an own benchmark was made may be among the rows
        own_tasks = {name: prompts.rows(one, "test") for name, one in lm_tasks.items() if catalog.own(name)}
        tests |= {name: contamination.texts_of(docs) for name, docs in own_tasks.items()}
    index = contamination.Index(tests)
    chosen = _side(recipe, False, select) if isinstance(recipe.validation, float) else select
    gathered = _Rows(recipe, base, tokenizer, None if select else index, chosen, tell)
    surveys = own.surveys(map(own.locate, recipe.data))
    for name, lm_task in lm_tasks.items():
        gathered.take_task(name, lm_task)
    for one in surveys:
        gathered.take_own(one)
    rows = gathered.writer.rows(gathered.order)
    lengths = rows.lengths
    sampler = batches.StepSampler(lengths, recipe.batch_size, recipe.accumulate, recipe.seed)
    steps = max(1, math.ceil(recipe.epochs * len(sampler)))  # as transformers' Trainer counts them
    if select is None:  # a trial's rows may be no run at all, but what it is ranked on
        method.check_steps(recipe, steps)
    held, samples = None, holdout.samples(gathered.writer, gathered.order, gathered.asked)
    if recipe.validation is not None and select is None:
        learnt = max(1, round(recipe.epochs * sum(lengths)))
        recipe, held, samples = _held(recipe, gathered, lm_tasks, surveys, tests, (learnt, steps))
        lengths = [*lengths, *(len(row.ids) for row in held.rows)]  # which the same passes run
    loop, slower = loops.choose(recipe, skeleton, max(lengths, default=0))
    vocabulary = skeleton.config.get_text_config().vocab_size
    passes = loops.Passes.of(recipe, loop, vocabulary, tokenizer.pad_token_id)
    found = contamination.with_editions(index.counted(gathered.seen), data_dir)
    families = contamination.of_one_family(part.set for part in gathered.data)
    for line in (*contamination.warnings(found), *families):
        say(f"Warning: {line}")
    how = gathered.data, gathered.first_pair, sampler, steps
    return Prepared(recipe, base, rows, *how, found, passes, slower, held, samples)


def _of_pairs(recipe: Recipe, base: bases.Base, skeleton: Any, tokenizer: Any, data_dir: Path | None) -> Prepared:
    """A run that learns pairs of answers."""
    from finbench.training import loops, pairwise, preferences

    found = preferences.gather(recipe, base, tokenizer, data_dir)
    recipe, lengths = found.recipe, [len(pair.ids) for pair in found.pairs]
    sampler = batches.StepSampler(lengths, recipe.batch_size, recipe.accumulate, recipe.seed)
    steps = max(1, math.ceil(recipe.epochs * len(sampler)))
    longest = max(len(row.ids) for pair in found.pairs for row in (pair.chosen, pair.rejected))
    loop, slower = loops.choose(recipe, skeleton, longest)
    vocabulary = skeleton.config.get_text_config().vocab_size
    passes = pairwise.PairPasses.of(recipe, loop, vocabulary, tokenizer.pad_token_id)
    samples = [(found.pairs[at].chosen, None) for at in holdout.spread(len(found.pairs))]
    how = found.data, found.first, sampler, steps, found.contamination
    return Prepared(recipe, base, found.pairs, *how, passes, slower, None, samples)


def _side(recipe: Recipe, held: bool, select: Select | None = None) -> Select:
    """The rows of train that are learnt, or those held out, of those that ``select`` chooses."""

    def chosen(name: str, count: int, known_by: Callable[[int], str]) -> Sequence[int]:
        own = holdout.side(recipe, held, name, count, known_by)
        if select is not None:
            wanted = set(select(name, count, known_by))
            own = [number for number in own if number in wanted]
        if held and recipe.limit is not None:  # of so many rows, the share
            assert isinstance(recipe.validation, float)
            own = choose(own, min(len(own), max(1, round(recipe.validation * recipe.limit))), recipe.seed)
        return own

    return chosen


def _held(
    recipe: Recipe,
    learnt: _Rows,
    lm_tasks: dict[str, Any],
    surveys: Sequence[own.Survey],
    tests: dict[str, list[contamination.Known]],
    work: tuple[int, int],
) -> tuple[Recipe, holdout.HeldOut, list[holdout.Sample]]:
    """(the recipe with its file pinned; what the run validates on; samples of it), checked before the first step.

    ``work``: tokens and steps of the training.
    """
    source, shown = recipe.validation, holdout.spoken(recipe)
    for name, lm_task in lm_tasks.items():  # the tests of its own tasks, ranked or not
        name = catalog.tasks()[name].set
        tests = {**tests, name: [*tests.get(name, ()), *holdout.texts_of(lm_task, prompts.rows(lm_task, "test"))]}
    sieve = holdout.Sieve(tests, holdout.texts_asked(learnt.asked), learnt.prompts)
    plain = recipe.model_copy(update={"tasks": dict.fromkeys(recipe.tasks, 1.0)})  # each row once
    select = _side(recipe, True) if isinstance(source, float) else None
    taken = _Rows(plain, learnt.base, learnt.tokenizer, None, select, False, sieve)
    if isinstance(source, OwnData):
        found = own.survey(own.locate(source))
        recipe = recipe.model_copy(update={"validation": source.model_copy(update={"sha256": found.located.sha256})})
        taken.take_own(found)
        sieve.refuse(shown)
    else:
        split = "validation" if source == "split" else "train"
        without = [name for name, lm_task in lm_tasks.items() if not prompts.rows(lm_task, split)]
        if without or not (lm_tasks or split == "train"):
            what = f"{without[0]} has" if without else "Rows of your own have"
            raise FinbenchError(f"{what} no validation split.", "Hold a share of train out: --validation 0.1")
        for name, lm_task in lm_tasks.items():
            taken.take_task(name, lm_task, split)
        for found in surveys if split == "train" else ():
            taken.take_own(found)
        sieve.refuse(shown, (catalog.tasks()[name].set for name in lm_tasks if catalog.own(name)))
    held = holdout.Sieve({}, holdout.texts_asked(taken.asked), set())
    if taken.asked and source == "split":  # rows of the user's own may be the very rows of the split
        for found in surveys:
            for turns, _ in found.contents():
                held.fits(text for _, text in turns)
        held.refuse(shown)
    rows = list(taken.writer.rows(taken.order))
    if not rows:
        raise FinbenchError(
            f"No row is left to validate on: all of {shown} hold test texts, or texts that are learnt.",
            "Name other rows: --validation file.jsonl",
        )
    asked = []
    if recipe.validate_on == "metric":
        asked = [one for _, one in taken.asked]
        holdout.check_metric(recipe, asked)
    plan = holdout.schedule(recipe, rows, asked, *work)
    each = max(1, plan.answered // len(asked)) if asked else 0
    few = [replace(one, docs=choose(one.docs, min(each, len(one.docs)), recipe.seed)) for one in asked]
    order = choose(taken.order, plan.rows, recipe.seed)
    chosen, left = list(taken.writer.rows(order)), sieve.counts["any"]
    made = holdout.HeldOut(shown, chosen, left, plan.every, plan.times, plan.work, few)
    return recipe, made, holdout.samples(taken.writer, order, taken.asked)


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
        sieve: holdout.Sieve | None = None,
    ) -> None:
        self.recipe, self.tokenizer, self.index, self.select, self.tell = recipe, tokenizer, index, select, tell
        self.base, self.sieve = base, sieve
        self.asked: list[holdout.Numbered] = []
        self.prompts: set[int] = set()  # hashes of what own rows ask
        self.template = own_rows.template_of(tokenizer, recipe)
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

    def take_task(self, name: str, lm_task: Any, split: str = "train") -> None:
        """A split of a task, each row as the task would ask it."""
        docs = prompts.rows(lm_task, split)
        if not docs:
            raise FinbenchError(
                f"Task {name} has no {split} split to learn from.", "Choose a task that has: finbench tasks list"
            )
        docs = [docs[number] for number in self._chosen(name, len(docs), lambda n: source_of(lm_task, docs[n]))]
        if self.sieve:
            docs = [doc for doc in docs if self.sieve.fits(contamination.fields(doc))]
        if not docs:
            return
        for doc in docs if self.index else ():
            self.seen |= self.index.seen(contamination.fields(doc)) if self.index else set()
        pairs = [prompts.pair(lm_task, doc, self.template) for doc in docs]
        rows = list(self.encoder.rows([Rendered.of_pair(*pair) for pair in pairs]))
        batches.check_lengths(rows, self.longest, name)
        first = len(self.writer)
        for row in rows:
            self.writer.add(row)
        numbers = range(first, len(self.writer))
        self.asked.append((numbers, holdout.AskedTask(name, lm_task, docs)))
        self.order += batches.share_of(numbers, self.recipe.tasks[name], self.recipe.seed)
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
        own_rows.check_template(found, self.template, self.tokenizer, recipe)
        kept = np.flatnonzero(found.kept)
        asked = self._chosen(found.name, count, lambda number: f"{int(found.prompts[kept[number]]):016x}")
        if self.sieve:
            asked = self._sieved(found, {int(kept[number]): number for number in asked})
            if not asked:
                return
        if recipe.validation is not None and self.index is not None:
            self.prompts |= found.asked(kept[list(asked)].tolist())
        chosen = None if len(asked) == count else kept[list(asked)].tolist()
        renderer = own_rows.Renderer.of(self.tokenizer, self.template, part.delimiter, recipe.base)
        made = own_rows.learn(
            found, recipe, self.encoder, renderer, self.longest, self.writer, chosen=chosen, index=self.index
        )
        own_rows.settle(made, recipe, self.longest)
        if self.tell:
            for line in made.lines(recipe):
                say(f"{found.name}: {line}")
        if self.index is not None:  # no trial, and not the rows that are held out
            own.remember(found.located)
        self.seen |= made.texts
        self.order += batches.share_of(made.numbers, part.weight, recipe.seed)
        self.data.append(made.record(recipe))
        text, ((start, end), *_) = made.shown[0][0].text, made.shown[0][0].spans
        self.first_pair = self.first_pair or [text[:start], text[start:end]]

    def _sieved(self, found: own.Survey, asked: dict[int, int]) -> list[int]:
        """Those of ``asked`` (place among all rows -> number) that may be validated on."""
        assert self.sieve is not None
        fits = []
        for place, (turns, _) in enumerate(found.contents()):
            if place in asked and self.sieve.fits((text for _, text in turns), own.asked_in(turns)):
                fits.append(asked[place])
        return fits


def source_of(lm_task: Any, doc: dict[str, Any]) -> str:
    """The text by which a task's row is known: what it shares with others, or what it shows."""
    return str(doc.get("group") or prompts.shown(lm_task, doc))
