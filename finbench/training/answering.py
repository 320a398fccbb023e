"""Answers of a model in training: three before and after, and those that a task's own metric is computed of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finbench.core.console import say
from finbench.core.errors import reason
from finbench.core.strict import Record
from finbench.engines import TreeLM
from finbench.scoring import prompts
from finbench.training import ranks
from finbench.training.batches import TrainingRow
from finbench.training.holdout import ROOM, AskedTask, Sample

if TYPE_CHECKING:
    from finbench.training.preparation import Prepared

_LONGEST = 96  # of a sample


class SampleAnswer(Record):
    """A row, its right answer, and what the model said before and after training, right or not."""

    prompt: str
    right: str
    before: str
    before_right: bool
    after: str = ""
    after_right: bool = False


def is_right(said: str, right: str, asked: AskedTask | None) -> bool:
    """By the scorer of the row's task; without one only what says the right answer, but for case and a full stop."""
    if asked is not None:
        return asked.right(said)
    one, other = (text.strip().removesuffix(".").casefold() for text in (said, right))
    return one == other


class Answerer:
    """The engine of ``finbench eval`` around a model in training, which must not be at work in a loop of ours."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        model.eval()
        self.lm = TreeLM(pretrained=model, tokenizer=tokenizer, batch_size=8)

    def samples(self, rows: Sequence[TrainingRow]) -> list[str]:
        """What the model says to the prompts of some rows, greedily."""
        limit = min(_LONGEST, max(row.answer for row in rows) + ROOM)
        said: dict[int, list[int]] = {}
        ends = self.lm.ends()
        with self._asked():
            if self.lm.slow:
                return [self._plainly(row.ids[: row.prompt], limit) for row in rows]
            asked = [row.ids[: row.prompt][-(self.lm.max_length - limit) :] for row in rows]
            self.lm.continued(asked, limit, lambda found: found[-1] in ends, said.update)
        return [self._text(said[number]) for number in range(len(rows))]

    def _plainly(self, ids: list[int], limit: int) -> str:
        import torch

        given = torch.tensor([ids], device=self.lm.device)
        out = self.lm.model.generate(input_ids=given, max_new_tokens=limit, do_sample=False)
        return self._text(out[0, len(ids) :].tolist())

    def _text(self, ids: list[int]) -> str:
        return str(self.lm.tok_decode(ids, skip_special_tokens=True))

    def metric(self, asked: Sequence[AskedTask], template: Callable[..., str] | None) -> float:
        """The mean of the tasks' main metrics on these rows, which several processes share.

        An answer ends after the longest right one and some tokens more: the rest of a model that has not learnt yet
        when to end would take longer than the training.
        """
        values = []
        with self._asked():
            for one in asked:
                instances = prompts.asked(one.lm_task, one.docs, template)
                rights = [prompts.gold_answer(one.lm_task, doc) for doc in one.docs]
                longest = max(len(self.lm.tok_encode(right)) for right in rights)
                for instance in instances:
                    if instance.request_type == "generate_until":
                        text, how = instance.args
                        room = min(int(how.get("max_gen_toks", self.lm.max_gen_toks)), longest + ROOM)
                        instance.arguments = (text, {**how, "max_gen_toks": room})
                values.append(self._value(one, instances))
        return sum(values) / len(values)

    def _value(self, one: AskedTask, instances: Sequence[Any]) -> float:
        from finbench.core import environment

        rank, world = environment.rank(), environment.processes()
        mine = {number for number, part in enumerate(instances) if part.doc_id % world == rank}
        numbers = sorted(mine)
        found: Mapping[int, Any] = {}
        if numbers:
            kind = instances[numbers[0]].request_type
            answers = getattr(self.lm, kind)([instances[number] for number in numbers], disable_tqdm=True)
            found = dict(zip(numbers, answers, strict=True))
        for part in ranks.gathered(found):
            for number, answer in part.items():
                instances[number].resps = [answer]
        return one.value(instances)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """The weights are others than before, and will be: nothing that was made of them stays in memory."""
        self.lm.model.eval()
        self.lm.changed()
        try:
            yield
        finally:
            self.lm.changed()


def before(model: Any, tokenizer: Any, samples: Sequence[Sample]) -> list[SampleAnswer]:
    """What a model says to some rows before it is trained, or gets the weights of a checkpoint."""
    said = Answerer(model, tokenizer).samples([row for row, _ in samples])
    made = []
    for (row, asked), answer in zip(samples, said, strict=True):
        prompt = tokenizer.decode(row.ids[: row.prompt], skip_special_tokens=True)
        (start, end), *_ = row.spans
        right = tokenizer.decode(row.ids[start:end], skip_special_tokens=True).strip()
        found = is_right(answer, right, asked)
        made.append(SampleAnswer(prompt=prompt, right=right, before=answer.strip(), before_right=found))
    return made


def after(made: Sequence[SampleAnswer], model: Any, tokenizer: Any, samples: Sequence[Sample]) -> list[SampleAnswer]:
    """The same rows, with what the model says now."""
    said = Answerer(model, tokenizer).samples([row for row, _ in samples]) if made else []
    return [
        one.model_copy(update={"after": answer.strip(), "after_right": is_right(answer, one.right, asked)})
        for one, (_, asked), answer in zip(made, samples[: len(made)], said, strict=True)
    ]


def shown(run: Prepared, model: Any, tokenizer: Any, made: Sequence[SampleAnswer] | None = None) -> list[SampleAnswer]:
    """Answers to the run's samples before the first step, or after the last; none of a base in shards: no result."""
    if run.recipe.sharding != "none":
        return []
    try:
        return before(model, tokenizer, run.samples) if made is None else after(made, model, tokenizer, run.samples)
    except Exception as fault:  # noqa: BLE001  a page without samples is no reason to end a training
        say(f"No sample answers: {reason(fault)}")
        return []
