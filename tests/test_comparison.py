"""Comparison: a sentence that says whether, by how much, how sure and what would settle it; refusals by field."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finbench.cards import cardfiles, comparison
from finbench.cli import app
from finbench.core.errors import FinbenchError
from finbench.core.seal import card_seal
from finbench.evaluation import evaluator
from make_data import write_sources

TASKS = ["mini_sentiment", "mini_headline"]


def scored(out: Path, **options: Any) -> Path:
    evaluator.evaluate(engine="dummy", out=out, **{"tasks": TASKS, **options})
    return out / "dummy.json"


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cards of three dummies: one that knows the gold, two that guess."""
    folder = tmp_path_factory.mktemp("cards")
    return {
        "gold": scored(folder / "gold", arguments={"answers": "gold"}),
        "one": scored(folder / "one"),
        "two": scored(folder / "two", seed=5),
    }


def copied(card: Path, folder: Path) -> Path:
    """A card to edit."""
    return shutil.copytree(card.parent, folder) / card.name


def edit(path: Path, **changes: Any) -> Path:
    found = json.loads(path.read_text())
    for place, value in changes.items():
        *keys, last = place.split("__")
        inner: Any = found
        for key in keys:
            inner = inner[int(key) if key.isdigit() else key]
        inner[last] = value
    found["seal"] = card_seal(found)
    path.write_text(json.dumps(found))
    return path


def test_one_sentence_says_that_a_is_better_and_how_sure(cards: dict[str, Path]) -> None:
    [pair] = comparison.compare([cards["gold"], cards["one"]], tasks=["mini_sentiment"])
    [contest] = pair.contests
    assert contest.winner == "a"
    assert contest.a.value == 1.0
    assert contest.difference.low < contest.difference.value < contest.difference.high
    assert contest.p == contest.adjusted < 0.001
    assert (contest.only_b, contest.n) == (0, 150)
    assert contest.mcnemar == pytest.approx(2.0 ** (1 - (contest.only_a or 0)))
    assert pair.verdict.startswith(f"{cards['gold'].with_suffix('')} is better than {cards['one'].with_suffix('')} on")
    assert "points, 95 % interval" in pair.verdict
    assert "p < 0.001 (paired permutation test, n = 150, of which " in pair.verdict
    [back] = comparison.compare([cards["one"], cards["gold"]], tasks=["mini_sentiment"])
    assert back.contests[0].winner == "b"
    assert " is worse than " in back.verdict


@pytest.mark.parametrize("apart", [1, 4, 5, 6])
def test_few_documents_that_differ_are_said_with_what_they_can_show(
    cards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """A that knows the gold, against itself with ``apart`` wrong answers: all that differs is on one side."""
    other, load = copied(cards["gold"], tmp_path / "other"), comparison._load

    def loaded(path: Path) -> comparison.LoadedCard:
        side = load(path)
        for row in side.rows["finbench_mini_sentiment"][: apart if path == other else 0]:
            gold = row["values"]["macro_f1"][0]
            row["values"] |= {"acc": 0, "macro_f1": [gold, "neutral" if gold != "neutral" else "positive"]}
        return side

    monkeypatch.setattr(comparison, "_load", loaded)
    monkeypatch.setattr(comparison, "follows", lambda *_: None)
    [pair] = comparison.compare([cards["gold"], other], tasks=["mini_sentiment"])
    [contest] = pair.contests
    assert (contest.apart, len(contest.differing)) == (apart, apart)
    assert contest.p == pytest.approx(contest.least, rel=0.2)
    what = f"only {apart} document{'s differ' if apart > 1 else ' differs'}"
    few = f"{what}, and a test on so few cannot get below p = {2 ** (1 - apart):.2f}"
    assert (contest.winner, few in pair.verdict) == (("a", False) if apart == 6 else (None, True))
    assert "would settle" not in pair.verdict
    assert (f"n = 150, of which {apart} differ)" in pair.verdict) == (apart == 6)


def test_where_nothing_is_shown_it_says_what_would_settle_it(cards: dict[str, Path]) -> None:
    [pair] = comparison.compare([cards["one"], cards["two"]], tasks=["mini_headline"])
    [contest] = pair.contests
    assert contest.winner is None
    assert pair.verdict.startswith("No difference between")
    assert contest.needed is not None
    assert contest.needed > 150
    assert f"about {contest.needed:,} documents like these would settle" in pair.verdict
    enough = f"enough for differences from {100 * contest.detectable:.1f} points on)"
    assert f"(n = 150, of which {len(contest.differing)} differ, {enough}" in pair.verdict


def test_p_values_are_adjusted_over_the_whole_table(cards: dict[str, Path]) -> None:
    pairs = comparison.compare([cards["one"], cards["two"], cards["gold"]])
    contests = [contest for pair in pairs for contest in pair.contests]
    assert len(contests) == 4
    assert all(contest.adjusted >= contest.p for contest in contests)
    assert any(contest.adjusted > contest.p for contest in contests)
    assert "worse on 2" in pairs[1].verdict
    assert "undecided on 2" in pairs[0].verdict


def test_a_p_that_holm_makes_larger_is_not_told_alone(cards: dict[str, Path]) -> None:
    [pair] = comparison.compare([cards["one"], cards["two"]], tasks=["mini_sentiment"])
    one = replace(pair, contests=[replace(pair.contests[0], p=0.03, adjusted=0.06)])
    assert one.verdict.startswith("No difference")
    assert "p = 0.030 (p = 0.060 after Holm)" in one.verdict
    assert "Holm" not in replace(pair, contests=[replace(pair.contests[0], p=0.3, adjusted=0.3)]).verdict


def test_where_interval_and_p_are_at_odds_it_is_said_why(cards: dict[str, Path]) -> None:
    [pair] = comparison.compare([cards["one"], cards["two"]], tasks=["mini_sentiment"])
    known = pair.contests[0]

    def told(low: float, high: float, p: float) -> str:
        value = known.difference.model_copy(update={"value": (low + high) / 2, "low": low, "high": high})
        return replace(pair, contests=[replace(known, difference=value, p=p, adjusted=p)]).verdict

    why = "the interval draws other documents, the test swaps the two's answers, and the verdict goes by the test."
    assert told(0.01, 0.09, 0.208).endswith(f" On mini_sentiment the interval leaves out 0 and p is above 5 %: {why}")
    assert told(-0.01, 0.09, 0.02).endswith(f" On mini_sentiment the interval holds 0 and p is below 5 %: {why}")
    assert why not in told(0.01, 0.09, 0.02)
    assert why not in told(-0.01, 0.09, 0.208)
    both = replace(pair, contests=[replace(known, p=0.9), replace(known, p=0.9)])
    assert why not in both.verdict


def test_a_card_against_its_copy_differs_nowhere(cards: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="is named twice"):
        comparison.compare([cards["one"], cards["one"].parent / "." / cards["one"].name])
    [pair] = comparison.compare([cards["one"], copied(cards["one"], tmp_path / "copy")])
    for contest in pair.contests:
        assert (contest.p, contest.difference.value, contest.needed, contest.differing) == (1.0, 0.0, None, [])
    assert pair.verdict.startswith("No difference")


def test_a_folder_compares_the_most_that_fit_and_says_where_none_do(
    cards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, card = tmp_path / "some", cardfiles.read(cards["one"])

    def put(name: str, shots: int) -> Path:
        place.mkdir(exist_ok=True)
        subject = card.subject.model_copy(update={"name": name})
        changed = card.model_copy(update={"subject": subject, "shots": shots})
        cardfiles.write(place / f"{name}.json", changed, cardfiles.read_samples(cards["one"]))
        return place / f"{name}.json"

    first = put("a", 5)
    with pytest.raises(FinbenchError, match="needs two scorecards"):
        comparison.compare([place])
    put("b", 4)
    with pytest.raises(FinbenchError, match="shots: 5 and 4"):  # of one other card it is said why
        comparison.compare([place])
    put("c", 3)
    none = r"None of the 2 other cards can be compared with \S*a.json"
    with pytest.raises(FinbenchError, match=f"{none}, nor with each other: "):
        comparison.compare([place])
    put("d", 3)
    [pair] = comparison.compare([place])
    assert (pair.a, pair.b) == ("c", "d")
    assert "than c.json: a.json, b.json." in " ".join(capsys.readouterr().err.split())
    with pytest.raises(FinbenchError, match=r"None of the 3 other cards can be compared with \S*a.json: "):
        comparison.compare([first, place])  # who is named first is compared


def test_documents_that_differ_are_shown_with_their_texts(cards: dict[str, Path]) -> None:
    [pair] = comparison.compare([cards["gold"], cards["one"]], tasks=["mini_sentiment"])
    contest = pair.contests[0]
    wrong = [row for row in cardfiles.read_samples(cards["one"]) if row["task"] == contest.task]
    assert [place.index for place in contest.differing] == [row["index"] for row in wrong if row["values"]["acc"] == 0]
    assert all(place.text and place.gold == place.a != place.b for place in contest.differing)


def test_restricted_documents_are_shown_to_who_has_them_and_not_passed_on(tmp_path: Path) -> None:
    from finbench.data.sources import import_data

    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    made = [
        scored(tmp_path / answers, tasks=["fpb"], arguments={"answers": answers}, data_dir=tmp_path / "data")
        for answers in ("gold", "random")
    ]
    [pair] = comparison.compare(made, data_dir=tmp_path / "data")
    assert pair.contests[0].differing
    assert all("plc said" in (place.text or "") for place in pair.contests[0].differing)
    assert "plc said" not in json.dumps(pair.as_dict())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scores__1__task_digest": "0" * 64}, "task_digest: "),
        ({"scores__1__data__digest": "0" * 64}, "data.digest: "),
        ({"subject__chat": True}, "subject.chat: "),
        ({"shots": 5}, "shots: 0 and 5"),
        ({"scores__1__fewshot_digest": "ab"}, "fewshot_digest: None and ab"),
        ({"scores__1__n": 149}, "n: 150 and 149"),
    ],
)
def test_another_task_is_refused_by_field(
    changes: dict[str, Any], field: str, cards: dict[str, Path], tmp_path: Path
) -> None:
    other = edit(copied(cards["two"], tmp_path / "o"), **changes)
    with pytest.raises(FinbenchError, match="were not scored alike") as caught:
        comparison.compare([cards["one"], other], tasks=["mini_sentiment"])
    assert field in caught.value.message


def test_other_right_answers_to_the_same_documents_are_refused(cards: dict[str, Path], tmp_path: Path) -> None:
    """The wrong golds are right by the card's own predictions, so that all of its numbers follow from its rows."""
    other = copied(cards["two"], tmp_path / "o")
    card, rows = cardfiles.read(other), cardfiles.read_samples(other)
    for row in [row for row in rows if row["task"] == "finbench_mini_sentiment" and not row["values"]["acc"]][:3]:
        for value in row["values"].values():
            if isinstance(value, list):
                value[0] = next(label for label in value[2] if label != value[0])
    cardfiles.write(other, card, rows)
    with pytest.raises(FinbenchError, match="other right answers in 3 of 150 rows of mini_sentiment, ") as caught:
        comparison.compare([cards["one"], other], tasks=["mini_sentiment"])
    assert f"finbench verify {other}" in caught.value.hint
    assert comparison.compare([cards["one"], other], tasks=["mini_headline"])


def test_a_part_and_the_whole_are_told_in_words(cards: dict[str, Path], tmp_path: Path) -> None:
    part = {"scores__1__data__digest": "0" * 64, "scores__1__data__share": 0.25, "scores__1__n": 40, "shots": 5}
    other = edit(copied(cards["two"], tmp_path / "o"), **part)
    with pytest.raises(FinbenchError, match="were not scored on the same rows of mini_sentiment") as caught:
        comparison.compare([cards["one"], other], tasks=["mini_sentiment"])
    assert "is of the whole test (n = 150)" in caught.value.message
    assert "is of a part (25.0 % of the test; n = 40)" in caught.value.message
    assert "They differ in shots: 0 and 5; " in caught.value.message


def test_where_there_is_a_winner_nothing_is_left_to_settle(cards: dict[str, Path]) -> None:
    from finbench.cli.show import scorecards

    [pair] = comparison.compare([cards["gold"], cards["one"]], tasks=["mini_sentiment"])
    assert pair.contests[0].winner == "a"
    assert scorecards._contest(pair.contests[0])[-1] == ""


def test_all_fields_that_differ_are_named_at_once(cards: dict[str, Path], tmp_path: Path) -> None:
    other = edit(copied(cards["two"], tmp_path / "o"), shots=5, subject__chat=True)
    with pytest.raises(FinbenchError, match=r"subject\.chat.*shots"):
        comparison.compare([cards["one"], other])


def test_other_faults_name_what_to_do(cards: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="needs two scorecards"):
        comparison.compare([cards["one"]])
    with pytest.raises(FinbenchError, match="share no task"):
        comparison.compare([cards["one"], scored(tmp_path / "n", tasks=["mini_ner"])])
    with pytest.raises(FinbenchError, match="has no samples"):
        comparison.compare([edit(copied(cards["one"], tmp_path / "s"), samples=None), cards["one"]])
    with pytest.raises(FinbenchError, match="Did you mean mini_ner"):
        comparison.compare([cards["one"], cards["two"]], tasks=["mini_nre"])


def test_documents_of_one_source_are_compared_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text of mini_headline has several questions: clusters are fewer than documents, and p says so."""
    made = [scored(tmp_path / str(seed), tasks=["mini_headline"], seed=seed) for seed in (0, 1)]
    [pair] = comparison.compare(made)
    card = cardfiles.read(made[0])
    assert pair.contests[0].clusters == card.scores[0].clusters


def test_the_command_prints_verdict_table_and_documents(
    cards: dict[str, Path], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["finbench", "compare", str(cards["gold"]), str(cards["one"]), "--show", "2"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code in (0, None)
    for part in ("is better than", "Holm-adjusted", "only A is right on", "more (--show"):
        assert part in shown
    monkeypatch.setattr(sys, "argv", ["finbench", "compare", str(cards["gold"]), str(cards["one"]), "--json"])
    with pytest.raises(SystemExit):
        app.main()
    [found] = json.loads(capsys.readouterr().out)
    assert found["tasks"][0]["winner"] == "a"
    assert found["verdict"]


def test_a_part_of_a_test_is_named_in_the_verdict_and_beside_its_documents(
    cards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from finbench.cli.show import scorecards

    parts = [edit(copied(cards[name], tmp_path / name), scores__1__data__share=0.248) for name in ("gold", "one")]
    [pair] = comparison.compare(parts, tasks=["mini_sentiment"])
    assert "on mini_sentiment (24.8 % of the test): " in pair.verdict
    [both] = comparison.compare(parts)
    assert both.verdict.endswith(" Not whole tests: mini_sentiment (24.8 % of the test).")
    scorecards.compared([both], 0)
    assert "mini_sentiment (24.8 % of the test): " in " ".join(capsys.readouterr().out.split())
    [whole] = comparison.compare([cards["gold"], cards["one"]])
    assert "whole" not in whole.verdict


def test_a_card_that_was_edited_is_not_compared(cards: dict[str, Path], tmp_path: Path) -> None:
    own = copied(cards["one"], tmp_path / "own")
    found = json.loads(own.read_text())
    found["seconds"] = 1.5
    own.write_text(json.dumps(found))
    with pytest.raises(FinbenchError, match="edited after it was written: seconds"):
        comparison.compare([cards["gold"], own])
