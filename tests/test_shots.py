"""Worked examples: one block a seed, the labels in turns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conftest import task_helper
from finbench.core import catalog
from finbench.scoring import prompts

shots = task_helper("shots")
Block, turns = shots.Block, shots.turns

ROWS = [{"text": str(n), "label": "neutral" if n % 10 else ("up", "down")[n % 20 == 0]} for n in range(200)]


def block(seed: int, n: int, **options: Any) -> list[dict[str, Any]]:
    sampler = Block(list(ROWS), rnd=None)
    sampler.set_rnd(seed)
    return list(sampler.sample(n, **options))


def test_a_block_is_the_same_for_every_document_and_another_for_another_seed() -> None:
    sampler = Block(list(ROWS), rnd=None)
    sampler.set_rnd(3)
    first = sampler.sample(5)
    assert all(sampler.sample(5) == first for _ in range(20))
    assert block(3, 5) == first
    assert sampler.sample(3) == first[:3]
    assert len({str(block(seed, 5)) for seed in range(20)}) == 20


def test_labels_take_turns_and_none_has_a_fixed_place() -> None:
    for seed in range(50):
        counts = Counter(row["label"] for row in block(seed, 5))
        assert sorted(counts.values()) == [1, 2, 2]
    for place in range(3):
        assert {block(seed, 3)[place]["label"] for seed in range(50)} == {"up", "down", "neutral"}
    assert Counter(str(row) for row in turns(ROWS, Random(0))) == Counter(map(str, ROWS))
    assert turns([], Random(0)) == []


def test_rows_without_labels_are_drawn_as_they_come() -> None:
    rows = [{"text": str(n)} for n in range(100)]
    heads = Counter(turns(rows, Random(seed))[0]["text"] for seed in range(300))
    assert len(heads) > 80


def test_the_document_itself_is_never_an_example_and_too_few_rows_are_refused() -> None:
    first = block(1, 5)
    without = block(1, 5, eval_doc=first[2])
    assert first[2] not in without
    assert len(without) == 5
    sampler = Block([{"text": "a", "label": "x"}] * 3 + [{"text": "b", "label": "x"}])
    assert sampler.sample(1, eval_doc={"text": "a", "label": "x"}) == [{"text": "b", "label": "x"}]
    with pytest.raises(AssertionError, match="2 worked examples"):
        sampler.sample(2, eval_doc={"text": "a", "label": "x"})


@pytest.mark.parametrize("name", ["mini_sentiment", "mini_headline", "mini_ner", "mini_xbrl_value"])
def test_prompts_of_a_task_share_their_examples_and_do_not_change_with_the_limit(name: str, tmp_path: Path) -> None:
    def asked(limit: int, seed: int = 0) -> list[str]:
        [lm_task] = prompts.load(catalog.expand([name]), tmp_path, 4, seed).values()
        return [request.args[0] for request in prompts.requests(lm_task, limit)]

    many, few, other = asked(12), asked(3), asked(3, seed=1)
    assert many[:3] == few[:3]
    assert few[0] != other[0]
    [lm_task] = prompts.load(catalog.expand([name]), tmp_path).values()
    plain = [request.args[0] for request in prompts.requests(lm_task, 12)]
    heads = {long.removesuffix(short) for long, short in zip(many, plain, strict=True)}
    assert len(heads) == 1
    assert many != plain
