"""tasks/lib/questions.py: scores of yes/no questions about one text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from conftest import task_helper
from finbench.cards import plots, reporting
from finbench.core import catalog, paths
from finbench.data import import_data
from finbench.evaluation.evaluator import evaluate
from finbench.evaluation.verification import verify
from finbench.scoring import metrics, prompts
from make_data import write_sources

questions = task_helper("questions")

YES_NO = ("Yes", "No")
ANSWERED = st.tuples(st.sampled_from("abcd"), st.sampled_from([*YES_NO, "No", "No"]), st.sampled_from([*YES_NO, None]))


def pooled(items: Sequence[tuple[str, str, str | None]]) -> list[str]:
    """The question that each item counts for: its own, or all those asked with fewer than ten positives."""
    return [q if sum(other[:2] == (q, "Yes") for other in items) >= 10 else "rare" for q, _, _ in items]


def by_sums(metric: str, items: list[tuple[str, str, str | None]]) -> float:
    """A metric as the bootstrap computes it: from what each sample adds."""
    summed = metrics.summed(metric, items)
    return float(summed.statistic(summed.parts.sum(axis=0)))


@given(st.lists(ANSWERED, min_size=1, max_size=160))
def test_question_f1_is_the_mean_of_scikit_learns_over_frequent_questions_and_the_rest_as_one(
    items: list[tuple[str, str, str | None]],
) -> None:
    names, each = pooled(items), []
    for name in set(names):
        own = [(gold == "Yes", said == "Yes") for one, (_, gold, said) in zip(names, items, strict=True) if one == name]
        if any(gold for gold, _ in own):
            each.append(f1_score(*zip(*own, strict=True), zero_division=0))
    expected = np.mean(each) if each else np.mean([gold == said for _, gold, said in items])
    assert questions.question_f1_pooled(items) == pytest.approx(expected, abs=1e-12)
    assert by_sums("question_f1_pooled", items) == pytest.approx(expected, abs=1e-12)


@given(st.lists(ANSWERED, min_size=1, max_size=60))
def test_question_mcc_is_pearsons_correlation_of_what_each_question_leaves_unexplained(
    items: list[tuple[str, str, str | None]],
) -> None:
    """Of one-hot golds and readings, less the mean of their question: Gorodkin's form of the correlation."""
    classes = [*YES_NO, None]
    table = np.array([[[one == kind for kind in classes] for one in item[1:]] for item in items], dtype=float)
    names = np.array([name for name, _, _ in items])
    for name in set(names):
        table[names == name] -= table[names == name].mean(axis=0)
    gold, said = table[:, 0].ravel(), table[:, 1].ravel()
    spread = np.sqrt((gold @ gold) * (said @ said))
    expected = gold @ said / spread if spread > 1e-9 else 0.0
    assert questions.question_mcc(items) == pytest.approx(expected, abs=1e-9)
    assert by_sums("question_mcc", items) == pytest.approx(expected, abs=1e-9)


@given(st.lists(ANSWERED, min_size=1, max_size=160))
def test_a_perfect_model_has_everything_and_a_constant_to_each_question_no_correlation(
    items: list[tuple[str, str, str | None]],
) -> None:
    right = [(name, gold, gold) for name, gold, _ in items]
    assert questions.question_f1_pooled(right) == 1.0
    both = {(name, gold) for name, gold, _ in items}
    told = any((name, other) in both for name, gold in both for other in YES_NO if other != gold)
    assert questions.question_mcc(right) == (1.0 if told else 0.0)
    said = {"a": "Yes", "b": "No", "c": None, "d": "Yes"}
    assert questions.question_mcc([(name, gold, said[name]) for name, gold, _ in items]) == 0.0


def test_a_frequent_question_is_not_pooled_with_others() -> None:
    items = [("price_up", "Yes", "Yes")] * 90 + [("price_down", "Yes", "No")] * 10
    assert questions.question_f1_pooled(items) == 0.5
    assert questions.question_f1_pooled([*items, ("rare", "Yes", "Yes"), ("rarer", "Yes", "No")]) == pytest.approx(
        5 / 9
    )


def test_a_perfect_model_scores_100_at_every_limit_of_the_real_headlines(real_data: Path, tmp_path: Path) -> None:
    import_data("headlines", [real_data / "headline" / "headlines.csv"], tmp_path)
    lines = (tmp_path / "headlines" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for limit in (*range(1, 40), 50, 100, 200, 300, 600, None):
        golds = [(row["attribute"], row["label"]) for row in rows[:limit]]
        assert questions.question_f1_pooled([(name, gold, gold) for name, gold in golds]) == 1.0
        assert questions.question_f1_pooled([(name, gold, YES_NO[gold == "Yes"]) for name, gold in golds]) == 0.0
    by_question = [[gold for name, gold in golds if name == one] for one in dict.fromkeys(name for name, _ in golds)]
    yes = [2 * share / (1 + share) for share in (np.mean([gold == "Yes" for gold in own]) for own in by_question)]
    always = questions.question_f1_pooled([(name, gold, "Yes") for name, gold in golds])
    assert always == pytest.approx(np.mean(yes))  # of all rows each question has a figure of its own, as before


@pytest.mark.parametrize(("answer", "acc", "rate"), [("No", 1.0, 1.0), ("Yes", 0.0, 1.0), ("notable", 0.0, 0.0)])
def test_an_answer_stands_in_both_scores_with_its_question(answer: str, acc: float, rate: float) -> None:
    doc = {"attribute": "price_up", "label": "No", "choices": list(YES_NO)}
    result = questions.score(doc, [answer])
    assert (result["acc"], result["parse_rate"]) == (acc, rate)
    assert result["question_f1"] == result["question_mcc"] == ("price_up", "No", answer if rate else None)
    chosen = questions.score_choice(doc, [(-1.0, False), (-2.0, False)])
    item = ("price_up", "No", "Yes")
    assert chosen == {"question_f1": item, "question_mcc": item, "acc": 0.0}


def test_constants_of_questions_stand_beside_random_and_majority(tmp_path: Path) -> None:
    """Counted here from the files: what train says most often to each question, and Yes to all of the test."""
    [card] = evaluate(engine="dummy", tasks=["mini_headline"], out=tmp_path)
    found = card.scores[0].baselines
    home = paths.shipped("tasks") / "mini"
    train, test = (
        [json.loads(line) for line in (home / f"mini_headline.{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "test")
    )
    for name, kept in (("always_yes", lambda question: True), ("question_majority", train_says_yes(train))):
        said = ["Yes" if kept(row["attribute"]) else "No" for row in test]
        assert found[name]["acc"] == pytest.approx(
            np.mean([a == row["label"] for a, row in zip(said, test, strict=True)])
        )
        assert found[name]["question_mcc"] == 0.0
        items = [(row["attribute"], row["label"], a) for a, row in zip(said, test, strict=True)]
        assert found[name]["question_f1"] == pytest.approx(questions.question_f1_pooled(items))
    assert found.keys() == {"random", "majority", "always_yes", "question_majority"}
    text = reporting.report([next(tmp_path.glob("*.json"))])
    assert all(said in text for said in ("always yes", "question majority", "majority label", "random label"))


def train_says_yes(train: list[dict[str, str]]) -> Callable[[str], bool]:
    def most(question: str) -> bool:
        own = [row["label"] == "Yes" for row in train if row["attribute"] == question]
        return 2 * sum(own) > len(own)

    return most


def test_the_best_constant_stands_beside_answers_that_are_right_or_wrong(tmp_path: Path) -> None:
    [card] = evaluate(engine="dummy", tasks=["mini_xbrl_value"], out=tmp_path)
    lines = (paths.shipped("tasks") / "mini" / "mini_xbrl_value.test.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [float(json.loads(line)["answer"].replace(",", "")) for line in lines]
    best = max(golds.count(gold) for gold in golds)
    assert card.scores[0].baselines == {"majority": {"acc": pytest.approx(best / len(golds))}}


def test_four_baselines_of_a_plot_have_labels_that_do_not_meet(tmp_path: Path) -> None:
    evaluate(engine="dummy", tasks=["mini_headline"], out=tmp_path)
    drawn = ElementTree.fromstring(plots.forest(reporting.table([next(tmp_path.glob("*.json"))]), 0))
    texts = {node.text: node for node in drawn.iter() if node.text in ("majority", "question", "always", "random")}
    assert len(texts) == 4
    for one, other in itertools.combinations(texts.values(), 2):
        if one.get("y") == other.get("y"):
            left, right = sorted((one, other), key=lambda node: float(node.get("x", "")))
            assert (left.get("text-anchor"), right.get("text-anchor")) == ("end", "start")


@pytest.mark.parametrize(("limit", "count"), [(5, 5), (9, 9), (10, 9), (50, 45), (90, 90), (None, None)])
def test_a_limit_takes_whole_headlines_and_the_card_is_checked_so(
    limit: int | None, count: int | None, tmp_path: Path
) -> None:
    import_data("headlines", write_sources(tmp_path / "s", 90)["headlines"], tmp_path / "data")
    stored = (tmp_path / "data" / "headlines" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    [card] = evaluate(engine="dummy", tasks=["headlines"], limit=limit, out=tmp_path / "o", data_dir=tmp_path / "data")
    [score] = card.scores
    assert score.n == score.data.rows == (count or len(stored))
    texts = [json.loads(line)["text"] for line in stored]
    asked = texts[: score.n]
    assert score.n == limit or all(texts.count(text) == asked.count(text) == 9 for text in asked)
    assert score.is_whole(card.limit) == (limit is None)
    path = next((tmp_path / "o").glob("*.json"))
    found = verify(path, data_dir=tmp_path / "data")
    assert not found.faults
    if limit is not None:
        text = reporting.report([path])
        assert f"a sample of {score.n} rows" in text
        # a card of before, or of lm-eval, whose rows end amid a headline
        lm_task = prompts.load([catalog.tasks()["finbench_headlines"]], tmp_path / "data")["finbench_headlines"]
        assert prompts.taken(lm_task, limit, limit) == limit
        assert prompts.taken(lm_task, limit, score.n) == score.n
