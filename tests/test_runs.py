"""Requests of vLLM from token trees: computed by a model of transformers, they give the trees' own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finbench.core.errors import FinbenchError
from finbench.engines import choices
from finbench.engines.vllm import forced_runs
from finbench.engines.vllm.engine import _Ledger
from finbench.models import bases

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=5)


def answered(model: Any, run: forced_runs.ForcedRun) -> dict[str, Any]:
    """What a worker would say of a run: forced tokens are said, the last one is the most probable."""
    said: list[int] = []
    scores, ranks = [], []
    for forced in [*run.forced, None]:
        with torch.no_grad():
            row = model(torch.tensor([[*run.prompt, *said]])).logits[0, -1].log_softmax(-1)
        token = int(row.argmax()) if forced is None else forced
        ranks.append(int((row >= row[token]).sum()))
        # the said token first, then the ids, then padding, as vLLM's flat log-probabilities have it
        scores.append([(token, float(row[token])), *((i, float(row[i])) for i in run.ids), (0, float("-inf"))])
        said.append(token)
    return {"tokens": said, "scores": scores, "ranks": ranks}


def through(model: Any, requests: list[choices.Request]) -> dict[int, tuple[float, bool]]:
    plan = choices.plan(requests, 512)
    ledger = _Ledger(plan, range(len(requests)))
    found = ledger.empty()
    for run in forced_runs.runs(plan):
        found |= ledger.enter(run, answered(model, run))
    return found


def plainly(model: Any, requests: list[choices.Request]) -> dict[int, tuple[float, bool]]:
    found = {}
    for number, (context, continuation) in enumerate(requests):
        with torch.no_grad():
            rows = model(torch.tensor([[*context, *continuation]])).logits[0].log_softmax(-1)
        rows = rows[len(context) - 1 : -1] if continuation else rows[:0]
        value = sum(float(row[token]) for row, token in zip(rows, continuation, strict=True))
        found[number] = (value, all(int(row.argmax()) == token for row, token in zip(rows, continuation, strict=True)))
    return found


def test_runs_give_what_one_pass_a_request_gives(llama: Path) -> None:
    model, _ = bases.load(bases.resolve(str(llama)), 16, torch.float32)
    best: list[int] = []
    for _ in range(3):  # a continuation that is greedy all along
        best.append(int(model(torch.tensor([[5, 6, 7, *best]])).logits[0, -1].argmax()))
    requests = [
        *(([5, 6, 7], labels) for labels in ([9], [9, 10], [9, 10, 11], [12, 13, 14, 15], [12, 13, 20], best, [])),
        *(([5, 6, 8, 3], labels) for labels in ([9, 9, 9, 9], [7])),
        ([1], [2, 3, 4]),
    ]
    found, expected = through(model, requests), plainly(model, requests)
    assert found.keys() == expected.keys()
    assert all(found[at][0] == pytest.approx(expected[at][0], abs=1e-4) for at in expected)
    assert [found[at][1] for at in sorted(found)] == [expected[at][1] for at in sorted(expected)]
    assert found[5][1]


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=12))
def test_every_node_is_asked_once_for_everything(pairs: list[tuple[list[int], list[int]]]) -> None:
    plan = choices.plan(pairs, 512)
    asked = [
        (run.tree, node, token)
        for run in forced_runs.runs(plan)
        for node, part in zip(run.nodes, run.wanted, strict=True)
        for token in part
    ]
    wanted = [
        (number, node, token)
        for number, tree in enumerate(plan.trees)
        for node, tokens in tree.wanted.items()
        for token in tokens
    ]
    assert sorted(asked) == sorted(wanted)


def test_a_request_asks_for_no_more_ids_than_vllm_takes() -> None:
    wide = [([1, 2, 3, 4, 5], [label]) for label in range(300)]
    long = [([1, 2, 3, 4, 5], [*range(400, 700)])]
    for requests in (wide, long, [*wide, *long]):
        made = forced_runs.runs(choices.plan(requests, 2000))
        assert all(len(run.ids) <= forced_runs.MOST_IDS for run in made)
        assert sum(len(part) for run in made for part in run.wanted) == sum(
            len(tokens) for tree in choices.plan(requests, 2000).trees for tokens in tree.wanted.values()
        )


def test_139_labels_take_one_request_an_answer() -> None:
    labels = [[7, number, number + 200, 9, 9, 9] for number in range(139)]
    made = forced_runs.runs(choices.plan([([1, 2, 3, 4, 5], label) for label in labels], 2000))
    assert 139 < len(made) < 139 + 6  # and a few for the fork after the token that all of them share
    assert made[0].forced == [7]


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    run = forced_runs.ForcedRun(0, [1], [], [0], [[5]])
    with pytest.raises(FinbenchError, match="not finite"):
        forced_runs.read(run, {"tokens": [5], "scores": [[(5, value)]], "ranks": [1]})
