"""The most probable label by best-first search, against running every label to its end."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from conftest import make_llama
from finbench.core.catalog import tasks as all_tasks
from finbench.core.errors import FinbenchError
from finbench.engines import choices, race
from finbench.engines.hf import HFEngine
from finbench.evaluation import options
from finbench.models import bases
from finbench.scoring import metrics

VOCABULARY = 12


def distribution(path: tuple[int, ...], sharp: float) -> list[float]:
    """Log-probabilities of the next token after a path, always the same ones."""
    draw = random.Random(repr((path, sharp)))
    raw = [draw.gauss(0, sharp) for _ in range(VOCABULARY)]
    total = math.log(sum(math.exp(value) for value in raw))
    return [value - total for value in raw]


def scored(tree: choices.Tree, prefix: Sequence[int], sharp: float) -> dict[tuple[int, int], tuple[float, bool]]:
    """What a model would find in a tree."""
    found = {}
    for node, wanted in tree.wanted.items():
        path, at = [], node
        while at >= 0:
            path.append(tree.tokens[at])
            at = tree.parents[at]
        values = distribution((*prefix, *reversed(path)), sharp)
        found |= {(node, token): (values[token], values[token] == max(values)) for token in wanted}
    return found


def labels(draw: random.Random) -> list[tuple[int, ...]]:
    """Some that begin alike, some that others begin with, some twice, of one token or of many."""
    made = [tuple(draw.randrange(4) for _ in range(draw.randint(1, 7))) for _ in range(draw.randint(1, 40))]
    return [*made, made[0][:1], made[-1]]


@pytest.mark.parametrize("seed", range(60))
def test_the_best_of_random_labels(seed: int) -> None:
    draw = random.Random(seed)
    context = tuple(draw.randrange(VOCABULARY) for _ in range(draw.choice([1, 3, 9])))
    sharp = draw.choice([0.1, 1.0, 4.0])
    requests = [(context, label) for label in labels(draw)]
    # with 8 and 9 tokens contexts are cut on the left, by each label's length: labels of one length have one root
    one = race.Race(choices.plan(requests, draw.choice([8, 9, 64])))
    every = one.plan
    truth = {}
    for tree in every.trees:
        values = scored(tree, every.prefix, sharp)
        truth |= {r: choices.total(path, every.targets[r], values) for r, path in tree.paths.items()}
    ran = 0
    while not one.over:
        heat = one.heat()
        ran += sum(len(tree.wanted) for tree in heat.trees)
        parts = [
            (number, {key: value})
            for number, tree in enumerate(heat.trees)
            for key, value in scored(tree, heat.prefix, sharp).items()
        ]
        draw.shuffle(parts)  # vLLM answers in any order
        for number, part in parts:
            one.enter(number, part)
    found = one.answers()
    best = max(value for value, _ in truth.values())
    assert max(value for value, _ in found) == pytest.approx(best, abs=1e-12)
    for request, (value, greedy) in enumerate(found):
        exact, really = truth[request]
        assert value >= exact - 1e-12
        if value > best - race.SURE:  # whole: ties are found too
            assert value == pytest.approx(exact, abs=1e-12)
            assert greedy == really
    assert ran <= sum(len(tree.wanted) for tree in every.trees)


def likely(draw: random.Random, context: tuple[int, ...], length: int, sharp: float) -> tuple[int, ...]:
    """A label as the model itself would say it."""
    said: list[int] = []
    for _ in range(length):
        weights = [math.exp(value) for value in distribution((*context, *said), sharp)]
        said += draw.choices(range(VOCABULARY), weights)
    return tuple(said)


def test_many_labels_are_hardly_run() -> None:
    """Of a model that knows its answer."""
    draw, context, sharp = random.Random(1), (1, 2, 3, 4, 5), 4.0
    others = [tuple(draw.randrange(VOCABULARY) for _ in range(8)) for _ in range(138)]
    requests = [(context, label) for label in [*others, likely(draw, context, 8, sharp)]]
    one, ran = race.Race(choices.plan(requests, 64)), 0
    while not one.over:
        heat = one.heat()
        ran += sum(len(tree.wanted) for tree in heat.trees)
        for number, tree in enumerate(heat.trees):
            one.enter(number, scored(tree, heat.prefix, sharp))
    assert ran < 0.1 * sum(len(tree.wanted) for tree in one.plan.trees)


def test_an_empty_label_is_certain() -> None:
    one = race.Race(choices.plan([((1, 2), ()), ((1, 2), (3,))], 64))
    while not one.over:
        heat = one.heat()
        one.enter(0, scored(heat.trees[0], heat.prefix, 1.0))
    assert one.answers()[0] == (0.0, True)
    assert one.answers()[1][0] < 0


def test_documents_and_contexts_run_each_by_itself() -> None:
    requests = [((1, 2), (3,)), ((1,), (3,)), ((1, 2), (4, 5)), ((1, 2), (6,))]
    assert race.fields(["a", "a", "a", "b"], requests) == [[0, 2], [1], [3]]


@pytest.mark.parametrize("room", [9, 64])  # with 9 the contexts are cut
def test_a_heat_begins_with_its_longest_tree(room: int) -> None:
    draw = random.Random(2)
    requests = [(tuple(range(8)), label) for label in labels(draw)]
    one = race.Race(choices.plan(requests, room))
    while not one.over:
        heat = one.heat()
        sizes = [len(tree.tokens) for tree in heat.trees]
        assert sizes == sorted(sizes, reverse=True)
        for number, tree in enumerate(heat.trees):
            one.enter(number, scored(tree, heat.prefix, 1.0))


@pytest.mark.parametrize("name", [name for name, task in all_tasks().items() if task.form == "choice"])
def test_scorers_without_acc_norm_look_at_the_best_label_only(name: str) -> None:
    config = metrics.config(name)
    if "acc_norm" in {entry["metric"] for entry in config["metric_list"]}:
        return
    score, draw = metrics.function(config["process_results"]), random.Random(name)
    for _ in range(20):
        options = ["Yes", "No"] if "headlines" in name else ["one", "two", "three", "four"]
        gold = draw.randrange(len(options))
        doc = {
            "choices": options,
            "label": gold,
            "text": "",
            "question": "q",
            "attribute": "q",
            "target": options[gold],
        }
        if not name.endswith(("boolq", "mmlu", "winogrande")):
            doc["label"] = options[gold]
        exact = [(-draw.uniform(1, 9), False) for _ in options]
        top = max(value for value, _ in exact)
        other = [(value if value == top else top - draw.uniform(1e-5, 50), draw.random() < 0.5) for value, _ in exact]
        assert score(doc, exact) == score(doc, other)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = make_llama(tmp_path_factory.mktemp("race") / "tiny-llama")
    return HFEngine(bases.resolve(str(base)), 16, "float32")


def asked(documents: int) -> list[Any]:
    """Requests of documents with twenty labels each, which begin alike in groups."""
    draw = random.Random(3)
    words = ["net", "gross", "other", "cash", "flow", "tax", "income", "loss", "paid", "due"]
    made = []
    options = sorted({" " + " ".join(draw.choices(words, k=draw.randint(1, 4))) for _ in range(20)})
    for document in range(documents):
        text = f"The figure {draw.randint(1, 99)} is the {draw.choice(words)} of the year. Tag:"
        made += [
            Instance("loglikelihood", {}, (text, option), number, metadata=("finbench_finer139_mc", document, 1))
            for number, option in enumerate(options)
        ]
    return made


def test_the_engine_hf_finds_the_same_label(engine: Any) -> None:
    requests = asked(6)
    whole = engine.answer(requests, lambda part: None)
    engine.best = frozenset({"finbench_finer139_mc"})
    deliver: dict[int, Any] = {}
    try:
        raced = engine.answer(requests, deliver.update)
    finally:
        engine.best = frozenset()
    assert deliver == dict(enumerate(raced))
    assert raced != whole
    same_best(requests, raced, whole)


def twins() -> list[Any]:
    """Documents of one context, each with labels of its own; those of the first are by far the more probable ones."""
    options = [[" the", " a", " of"], [" zyxwv qqq the", " zyxwv qqq a", " zyxwv qqq the a"]]
    return [
        Instance("loglikelihood", {}, ("It is", option), number, metadata=("finbench_finer139_mc", document, 1))
        for document, own in enumerate(options)
        for number, option in enumerate(own)
    ]


def test_documents_of_one_context_do_not_run_against_each_other(engine: Any) -> None:
    requests = twins()
    whole = engine.answer(requests, lambda part: None)
    engine.best = frozenset({"finbench_finer139_mc"})
    try:
        assert len(engine._groups(requests)) == 2
        same_best(requests, engine.answer(requests, lambda part: None), whole)
    finally:
        engine.best = frozenset()


def test_a_model_without_shared_prefixes_keeps_its_batches(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = asked(2)
    whole = engine.answer(requests, lambda part: None)
    monkeypatch.setattr(engine, "best", frozenset({"finbench_finer139_mc"}))
    monkeypatch.setattr(engine.lm, "slow", "for the test")
    assert len(engine._groups(requests)) <= math.ceil(len(requests) / (4 * engine.stock_batch))
    plain = engine.answer(requests, lambda part: None)
    assert [value for value, _ in plain] == pytest.approx([value for value, _ in whole], abs=1e-4)


def test_contexts_that_are_cut_are_not_run_in_heats(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each length of a label has a root of its own there: every heat would run whole contexts again."""
    requests = asked(1)
    monkeypatch.setattr(engine.lm, "_max_length", 12)
    whole, ran = engine.answer(requests, lambda part: None), []
    run = engine.lm._run
    monkeypatch.setattr(engine.lm, "_run", lambda plan: ran.append(plan) or run(plan))
    monkeypatch.setattr(engine, "best", frozenset({"finbench_finer139_mc"}))
    assert engine.answer(requests, lambda part: None) == whole
    assert len(ran) == 1


def test_rows_of_a_pass_are_bounded(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = asked(2)
    monkeypatch.setattr(engine, "best", frozenset({"finbench_finer139_mc"}))
    free = engine.answer(requests, lambda part: None)
    monkeypatch.setattr(engine.lm, "rows", 1)
    monkeypatch.setattr(engine.lm, "tokens", 1)
    bound = engine.answer(requests, lambda part: None)
    assert [value for value, _ in bound] == pytest.approx([value for value, _ in free], abs=1e-4)


def same_best(requests: Sequence[Any], raced: Sequence[Any], whole: Sequence[Any]) -> None:
    """One and the same best label of each document, with its log-likelihood; the others have upper bounds."""
    for document in {one.doc_id for one in requests}:
        mine = [at for at, one in enumerate(requests) if one.doc_id == document]
        best = max(mine, key=lambda at: whole[at][0])
        assert max(mine, key=lambda at: raced[at][0]) == best
        assert raced[best][0] == pytest.approx(whole[best][0], abs=1e-4)
        assert all(raced[at][0] >= whole[at][0] - 1e-4 for at in mine)


def test_only_best_can_be_asked_for() -> None:
    assert options.arguments("vllm", {"labels": "best"}) == {"labels": "best"}
    with pytest.raises(FinbenchError, match="can only be best"):
        options.arguments("hf", {"labels": "all"})
