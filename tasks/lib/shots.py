"""Worked examples: one block for all documents of a task, drawn once for each seed.

lm-eval's own sampler draws other examples for each document, by a state that depends on all documents before it: the
prompt of a document then changes with ``--limit``, and no two prompts share more than their first words. Here the
prompt of a document depends on the seed and the number of examples alone, two models are compared on the same
examples, and an engine that knows shared prefixes runs the block once. The labels take turns, so that five examples
of three labels show each once or twice; rows without a label are drawn as they come.
"""

from random import Random
from typing import Any

from lm_eval.api.samplers import ContextSampler


class Block(ContextSampler):
    """lm-eval sampler (``fewshot_config: {sampler: !function lib.shots.Block}``)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seed = options.get("rnd")
        self.drawn: list[dict[str, Any]] | None = None

    def set_rnd(self, rnd: int | None) -> Any:
        """Begin anew with seed ``rnd``."""
        self.seed, self.drawn = rnd, None
        return super().set_rnd(rnd)

    def replace_df(self, df: Any) -> Any:
        """Draw from other rows from now on."""
        self.drawn = None
        return super().replace_df(df)

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        """The first ``n`` of the order of this seed, without ``eval_doc``. Raises AssertionError for too few rows."""
        if df:
            self.replace_df(df)
        if self.drawn is None:
            self.drawn = turns(self.fewshot_docs(), Random(self.seed))
        block = [row for row in self.drawn[: n + 1] if row != eval_doc][:n]
        if len(block) < n:
            block = [row for row in self.drawn if row != eval_doc][:n]
        assert len(block) == n, f"{n} worked examples are asked for; the split has {len(block)}"
        return block


def turns(rows: list[dict[str, Any]], random: Random) -> list[dict[str, Any]]:
    """All rows in a random order in which the labels take turns; a label that has run out is passed over."""
    shuffled = random.sample(rows, len(rows))
    by_label: dict[str, list[dict[str, Any]]] = {}
    for row in shuffled:
        by_label.setdefault(str(row.get("label")), []).append(row)
    groups = list(by_label.values())
    ordered: list[dict[str, Any]] = []
    for turn in range(max(map(len, groups), default=0)):
        takers = [group[turn] for group in groups if turn < len(group)]
        ordered += random.sample(takers, len(takers))
    return ordered
