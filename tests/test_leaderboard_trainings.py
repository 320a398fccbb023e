"""The board by trainings: seeds of a recipe are one row, and a lucky seed is not put above the others."""

from __future__ import annotations

import csv
import io
import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boards import read_script
from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure
from finbench.evaluation import Verification
from finbench.leaderboard import attested, details, feeds, naming, precedence, store, tables, trainings
from finbench.leaderboard.board import Board, board
from finbench.leaderboard.evidence import of
from finbench.leaderboard.examine import present
from finbench.leaderboard.groups import Rival, tied
from finbench.leaderboard.payload import LEVELS, BoardSubject, Payload
from finbench.leaderboard.rows import BoardCard
from finbench.scoring import EXACT, SeedVariance, seed_variance

COMMITTED = Path(__file__).parent.parent / "leaderboards"
LABELS = ["negative", "neutral", "positive"]
DOCS = 600


def answers(draw: Any, ability: float) -> list[dict[str, Any]]:
    """Samples of fpb by somebody who is right on a share ``ability`` of the sentences."""
    rows = []
    for number in range(DOCS):
        gold = LABELS[number % 3]
        read = gold if draw.random() < ability else LABELS[draw.integers(3)]
        value = {"macro_f1": [gold, read, LABELS], "acc": float(gold == read), "parse_rate": 1.0}
        rows.append(
            {"task": "finbench_fpb", "index": number, "doc": str(number), "cluster": str(number), "values": value}
        )
    return rows


def value(rows: Sequence[dict[str, Any]]) -> float:
    """Macro-F1, by hand."""
    found = []
    for label in LABELS:
        gold = [row["values"]["macro_f1"][0] == label for row in rows]
        read = [row["values"]["macro_f1"][1] == label for row in rows]
        found.append(2 * sum(g and r for g, r in zip(gold, read, strict=True)) / (sum(gold) + sum(read)))
    return statistics.mean(found)


def entry(name: str, rows: list[dict[str, Any]], seed: int | None, **more: Any) -> BoardCard:
    """A card of fpb; one without a seed was not trained."""
    card = cardfiles.read(COMMITTED / "scorecards" / "fpb-smollm2-135m-lora-s0.json")
    score = next(score for score in card.scores if score.task == "finbench_fpb")
    main = Measure(value=value(rows), low=value(rows) - 0.03, high=value(rows) + 0.03, method="invented")
    score = score.model_copy(update={"metrics": {**score.metrics, "macro_f1": main}, "n": DOCS, "seconds": 60.0})
    subject = {"name": name, "adapter_name": name, "seed": seed, "adapter": name.encode().hex().ljust(64, "0")[:64]}
    if seed is None:
        subject |= {"adapter": None, "adapter_name": None, "kind": "base", "method": None, "rank": None}
    who = card.subject.model_copy(update={**subject, **more})
    made = card.model_copy(update={"subject": who, "scores": [score]})
    return BoardCard(name, made, {"finbench_fpb": rows}, Verification(name), "samples-attached", arrival=0)


@pytest.fixture(scope="module")
def lucky() -> Board:
    """A base, a recipe of four seeds, and two of one seed each, of which one is 8 points above the other by luck.

    Abilities of seeds have a standard deviation of 8 points or so.
    """
    draw = np.random.default_rng(4)
    seeds = [entry(f"lora-s{seed}", answers(draw, share), seed) for seed, share in enumerate((0.62, 0.76, 0.58, 0.74))]
    single = [
        entry("rslora-s0", answers(draw, 0.80), 0, method="rslora"),
        entry("dora-s0", answers(draw, 0.68), 0, method="dora"),
    ]
    return board([*seeds, *single, entry("base", answers(draw, 0.15), None)])


def _rival(score: Any, rows: list[dict[str, Any]], seeds: SeedVariance | None = EXACT) -> Rival:
    proof = of(score, rows)
    assert proof
    return Rival([proof], seeds)


def test_seeds_of_a_recipe_are_one_row_with_mean_and_spread(lucky: Board) -> None:
    [test] = lucky.tests
    row = next(row for row in test.rows if row.name == "lora")
    own = [value(one.samples["finbench_fpb"]) for one in lucky.entries if one.key.startswith("lora-s")]
    assert (row.trainings, len(test.rows)) == (4, 4)
    assert row.values == pytest.approx(own)
    assert row.score.main.value == pytest.approx(statistics.mean(own))
    assert row.deviation == pytest.approx(statistics.stdev(own))
    assert row.score.main.low is not None
    assert row.score.main.high is not None
    # no narrower than Student's t of the four seeds would be by half, nor than that of documents
    assert row.score.main.high - row.score.main.low > 2 * 3.182 * statistics.stdev(own) / 2 * 0.7
    assert row.cost == pytest.approx(100.0)
    assert {one.name: one.trainings for one in test.rows if one is not row} == {
        "rslora-s0": 1,
        "dora-s0": 1,
        "base": None,
    }


def test_a_lucky_seed_is_in_no_group_above(lucky: Board) -> None:
    [test] = lucky.tests
    found = {row.name: row for row in test.rows}
    ahead = found["rslora-s0"].score.main.value - found["dora-s0"].score.main.value
    assert ahead > 0.05
    by_documents = tied(
        test.score, [_rival(row.score, row.entry.samples[row.score.task]) for row in test.rows if not row.runs]
    )
    assert by_documents[:2] == [1, 2]  # what the inference by documents alone says of the two
    assert found["rslora-s0"].group == found["dora-s0"].group == found["lora"].group == 1
    assert found["base"].group in (2, None)
    assert test.spread
    assert test.spread.variance == seed_variance(found["lora"].values)
    deviation = 100 * test.spread.variance.deviation
    assert tables.seeds(test) == (f"Seeds scatter by ± {deviation:.1f} points (pooled over 4 trainings of 1 recipe).")


def test_more_than_seeds_explain_is_a_group_above() -> None:
    draw = np.random.default_rng(5)
    good, bad = answers(draw, 0.9), answers(draw, 0.5)
    score = entry("a-s0", good, 0).card.scores[0]
    near, far = SeedVariance(0.02**2, 15), SeedVariance(0.2**2, 15)
    assert tied(score, [_rival(score, good, near), _rival(score, bad, near)]) == [1, 2]
    assert tied(score, [_rival(score, good, far), _rival(score, bad, far)]) == [1, 1]
    assert tied(score, [_rival(score, good, None), _rival(score, bad, None)]) == [1, 1]
    assert tied(score, [_rival(score, good, None), _rival(score, bad, EXACT)]) == [1, 2]


def test_without_several_seeds_on_the_task_the_task_of_the_family_where_they_scatter_most_counts(lucky: Board) -> None:
    [test] = lucky.tests
    alone = [one for one in lucky.entries if not one.recipe]
    assert board(alone).tests[0].spread is None
    others = []
    for number, task in enumerate(("finbench_tfns", "finbench_fiqa_sa", "finbench_nwgi3")):
        draw = np.random.default_rng(number)
        for seed, share in enumerate((0.6, 0.6 + 0.1 * (1 + number))):
            made = entry(f"other-s{seed}", answers(draw, share), seed)
            score = made.card.scores[0].model_copy(
                update={"task": task, "family": "general" if task.endswith("nwgi3") else "sentiment"}
            )
            rows = [row | {"task": task} for row in made.samples["finbench_fpb"]]
            card = made.card.model_copy(update={"scores": [score]})
            others.append(replace(made, key=f"{task}-{seed}", card=card, samples={task: rows}))
    one_task = next(one for one in board([*alone, *others[:2]]).tests if one.task == test.task)
    assert one_task.spread is None  # nobody knows whether that is where they scatter most
    found = next(one for one in board([*alone, *others]).tests if one.task == test.task)
    assert found.spread
    assert found.spread.tasks == ("finbench_fiqa_sa",)
    assert "of fiqa_sa, here unknown" in tables.seeds(found)
    assert test.spread
    again = next(one for one in board([*lucky.entries, *others]).tests if one.task == test.task)
    assert again.spread == test.spread  # its own task goes first


@pytest.mark.parametrize("turned", [False, True])
def test_the_card_that_counts_first_says_of_what_part_of_the_test_a_table_is(turned: bool, lucky: Board) -> None:
    def of_share(made: BoardCard, share: float | None, **about: Any) -> BoardCard:
        scores = [s.model_copy(update={"data": s.data.model_copy(update={"share": share})}) for s in made.card.scores]
        return replace(made, card=made.card.model_copy(update={"scores": scores}), **about)

    def shown(*cards: BoardCard) -> tuple[bool, bool]:
        [test] = board(cards[::-1] if turned else cards).tests
        return test.whole, "25.0 % of the test" in test.conditions

    one, other = lucky.entries[:2]
    assert shown(of_share(one, 0.25), of_share(other, None, arrival=1)) == (False, True)
    assert shown(of_share(one, None), of_share(other, 0.25, arrival=1)) == (True, False)  # a late card changes nothing
    assert shown(of_share(one, None), of_share(other, 0.25, arrival=1, level="reproduced")) == (False, True)


def test_a_late_card_without_samples_makes_no_whole_test_of_first_rows(lucky: Board) -> None:
    one, other = lucky.entries[:2]
    first = replace(one, card=one.card.model_copy(update={"limit": DOCS, "status": "partial"}))  # all there are, or not
    whole = other.card.scores[0].data.model_copy(update={"share": None})
    said = other.card.model_copy(update={"scores": [other.card.scores[0].model_copy(update={"data": whole})]})
    for level in ("self-reported", "samples-attached"):
        [test] = board([first, replace(other, card=said, arrival=1, level=level)]).tests
        assert (test.whole, test.sampled) == (False, True)
    [test] = board([first, replace(other, card=said, arrival=1, level="reproduced")]).tests
    assert (test.whole, test.sampled) == (True, False)  # a maintainer, who has the data, can say so


def asked(one: BoardCard, owner: str, bits: int = 16, **said: Any) -> BoardCard:
    """Somebody's card of the same weights, that says what it likes."""
    card = one.card.model_copy(update={**said, "subject": one.card.subject.model_copy(update={"bits": bits})})
    return replace(one, key=f"{owner}/{one.key}", card=card, owner=owner, arrival=one.arrival + 1)


def test_the_same_weights_of_another_owner_count_once_however_they_are_said_to_be_asked(lucky: Board) -> None:
    def names(*cards: BoardCard) -> list[str]:
        return sorted(row.name for test in board(cards[::-1]).tests for row in test.rows)

    trained = [replace(one, owner="honest") for one in lucky.entries if one.key.startswith("lora-s")]
    assert names(*trained, asked(trained[0], "evil", engine="vllm")) == ["lora"]
    one = replace(next(one for one in lucky.entries if one.key == "rslora-s0"), owner="honest")
    for said in ({"engine": "vllm"}, {"dtype": "float64"}, {"form": "merged"}, {"origin": "lm-eval"}):
        assert names(one, asked(one, "evil", **said)) == [one.name]
        assert names(one, asked(one, "honest", **said)) == [one.name] * 2  # who brought it may compute it again
    assert names(one, asked(one, "evil", bits=4)) == [one.name, f"{one.name} (evil)"]
    assert names(asked(one, "evil", engine="vllm"), replace(one, level="reproduced")) == [one.name]
    base = one.card.subject.base.model_copy(update={"fingerprint": "unknown"})
    told = one.card.model_copy(update={"subject": one.card.subject.model_copy(update={"base": base})})
    unknown = replace(one, card=told)  # of weights that nobody knows nothing says whether they are the same
    assert names(unknown, asked(unknown, "evil")) == [one.name]
    assert names(unknown, asked(unknown, "evil", engine="vllm")) == [one.name, f"{one.name} (evil)"]


def test_no_late_card_takes_or_changes_a_name() -> None:
    draw = np.random.default_rng(12)

    def of(owner: str, arrival: float, name: str, seed: int | None = None, **more: Any) -> BoardCard:
        one = entry(name, answers(draw, 0.6), seed, **more)
        base = one.card.subject.base.model_copy(update={"fingerprint": owner.encode().hex().ljust(64, "0")})
        card = one.card.model_copy(update={"subject": one.card.subject.model_copy(update={"base": base})})
        return replace(one, owner=owner, arrival=arrival, key=f"{owner}/{name}/{arrival}", card=card)

    def names(*cards: BoardCard) -> dict[str, str]:
        made = board(cards[::-1])
        assert len(Payload(made).subjects) == len(made.tests[0].rows)
        return {row.name: row.entry.owner for row in made.tests[0].rows}

    trained = [of("victim", number, f"lora-s{number}", number) for number in range(3)]
    for name in ("lora", "LORA", "lo\u200bra"):
        assert names(*trained, of("evil", 9, name)) == {"lora": "victim", f"{name} (evil)": "evil"}
        others = [of("evil", 9 + number, f"{name}-s{number}", number, rank=3) for number in range(2)]
        found = names(*trained, *others)
        assert (len(found), found["lora"]) == (2, "victim")
        assert all(precedence.spoken(one).startswith("lora (") for one in found.keys() - {"lora"})
    early = of("evil", -2, "foo-s0", 0)  # whose second seed comes after another's name
    assert names(early, of("bob", 1, "foo"), of("evil", 9, "foo-s1", 1))["foo"] == "bob"
    found = names(of("alice", 0, "foo"), of("bob", 1, "foo"), of("evil", 2, "foo (bob)"))
    assert found == {"foo": "alice", "foo (bob)": "bob", "foo (bob) (evil)": "evil"}
    found = names(of("alice", 0, "foo"), of("evil", 1, "foo (bob)"), of("bob", 2, "foo"))
    assert (found["foo"], found["foo (bob)"], len(found)) == ("alice", "evil", 3)


def test_trainings_of_the_same_seed_are_not_counted_twice() -> None:
    draw = np.random.default_rng(6)
    again = replace(entry("lora-s1", answers(draw, 0.7), 1), key="again")
    again = replace(
        again,
        card=again.card.model_copy(update={"subject": again.card.subject.model_copy(update={"adapter": "e" * 64})}),
    )
    cards = [entry(f"lora-s{seed}", answers(draw, 0.7), seed) for seed in (0, 1)]
    [test] = board([*cards, again]).tests
    assert sorted((row.trainings, len(row.runs)) for row in test.rows) == [(1, 0), (2, 2)]


def invented(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**rows[0], "doc": "invented"}, *rows[1:]]


@pytest.mark.parametrize(
    ("level", "stranger", "change"),
    [
        ("reproduced", {}, list),
        ("samples-attached", {"level": "self-reported", "samples": {}}, list),
        ("samples-attached", {"owner": "somebody"}, list),
        ("samples-attached", {}, invented),
    ],
    ids=["weaker", "nothing beside it", "of another owner", "of other documents"],
)
def test_a_card_that_says_so_is_no_training_of_anothers_recipe(level: str, stranger: Any, change: Any) -> None:
    """It would lower the mean of the others, and take their badge or their group."""
    draw = np.random.default_rng(8)
    cards = [replace(entry(f"lora-s{seed}", answers(draw, 0.7), seed), level=level) for seed in (0, 1)]
    other = replace(entry("base", answers(draw, 0.2), None), level=level)
    said = replace(entry("lora-s7", change(answers(draw, 0.0)), 7), **stranger)
    [alone], [row] = (
        [row for row in board(found).tests[0].rows if row.trainings == 2]
        for found in ([*cards, other], [*cards, other, said])
    )
    assert (row.values, row.group, row.score.main) == (alone.values, alone.group, alone.score.main)


def test_invented_seeds_that_scatter_hide_no_difference_that_was_reproduced() -> None:
    draw = np.random.default_rng(9)
    shares = [("good", 0.9), ("bad", 0.5)]
    cards = [
        entry(f"{name}-s{seed}", answers(draw, share), seed, method=name) for name, share in shares for seed in (0, 1)
    ]
    cards = [replace(card, level="reproduced") for card in cards]
    single = replace(entry("single-s0", answers(draw, 0.5), 0, method="single"), level="reproduced")
    wild = [entry(f"wild-s{seed}", answers(draw, share), seed, method="wild") for seed, share in ((0, 1.0), (1, 0.0))]
    [before], [after] = board([*cards, single]).tests, board([*cards, single, *wild]).tests
    assert after.spread == before.spread
    for test in (before, after):
        assert {row.name: row.group for row in test.rows}["single-s0"] == 2


def test_seeds_of_somebody_elses_invented_table_say_nothing_of_this_one() -> None:
    """Neither under the digest of the same data nor on the same task, nor on others where this one has no seeds."""
    draw = np.random.default_rng(11)

    def of(one: BoardCard, owner: str, **about: Any) -> BoardCard:
        score = one.card.scores[0].model_copy(update=about)
        rows = [row | {"task": score.task} for row in one.samples["finbench_fpb"]]
        card = one.card.model_copy(update={"scores": [score]})
        return replace(one, key=f"{owner}/{score.task}/{one.key}", card=card, owner=owner, samples={score.task: rows})

    first = entry("base", answers(draw, 0.2), None)
    single = entry("single-s0", answers(draw, 0.5), 0, method="single")
    honest = [of(one, "honest") for one in (first, single)]
    pairs = [[entry(f"{name}-s{n}", answers(draw, s), n) for n, s in enumerate(shares)]
             for name, shares in (("wild", (1.0, 0.0)), ("tame", (0.6, 0.62)))]  # fmt: skip
    fewer = {"n": DOCS - 1}
    elsewhere = [("finbench_fpb", fewer), ("finbench_tfns", {}), ("finbench_fiqa_sa", {})]
    wild, tame = (
        [of(one, owner, task=task, **about) for task, about in elsewhere for one in pair]
        for owner, pair in zip(("evil", "honest"), pairs, strict=True)
    )
    wild = [replace(one, arrival=1) for one in wild]

    def spread(*cards: BoardCard) -> Any:
        return next(t.spread for t in board(cards).tests if t.task == "fpb" and t.score.n == DOCS)

    assert spread(*honest) is spread(*honest, *wild) is None
    assert spread(*honest, *tame) == spread(*honest, *tame, *wild)
    assert spread(*honest, *tame).trainings == 2
    here = [replace(of(one, "other"), arrival=1) for one in pairs[1]]
    assert spread(*honest, *here).trainings == 2  # anybody's in this very table, on its documents
    assert (
        spread(*honest, *(replace(o, samples={"finbench_fpb": invented(o.samples["finbench_fpb"])}) for o in here))
        is None
    )


def test_names_that_are_no_seeds_and_other_ranks_are_other_recipes() -> None:
    draw = np.random.default_rng(6)
    cards = [
        entry("lora-s0", answers(draw, 0.7), 0),
        entry("lora-s1", answers(draw, 0.7), 1, rank=64),
        entry("mine-a", answers(draw, 0.7), 0),
        entry("mine-b", answers(draw, 0.7), 1),
    ]
    assert {row.trainings for row in board(cards).tests[0].rows} == {1}
    assert {one.recipe for one in naming.named(cards)} == {""}


def test_every_table_says_the_same(lucky: Board) -> None:
    [test] = lucky.tests
    row = next(row for row in test.rows if row.name == "lora")
    deviation = f"{100 * (row.deviation or 0):.1f}"
    text = tables.markdown(lucky, [])
    assert tables.seeds(test) in " ".join(text.split())
    assert f"| 1 | lora | smollm2-135m | lora, r 16 | 4 ± {deviation} | – | – | – |" in text
    lines = {line["subject"]: line for line in csv.DictReader(io.StringIO(tables.as_csv(tables.columns(lucky))))}
    assert (lines["lora"]["trainings"], lines["lora"]["seed"]) == ("4", "0 1 2 3")
    assert lines["lora"]["card"].split() == [f"lora-s{seed}" for seed in range(4)]
    assert float(lines["lora"]["seed_deviation"]) == pytest.approx(row.deviation)
    assert (lines["base"]["trainings"], lines["base"]["seed"], lines["dora-s0"]["trainings"]) == ("", "", "1")
    made = Payload(lucky)
    cards = made.cards
    of_page = {cards[one[0]]["name"]: one for one in made.rows(test)}
    assert [(cards[at]["name"], value) for at, value, *_ in of_page["lora"][11]] == [
        (f"lora-s{seed}", round(one, 5)) for seed, one in enumerate(row.values)
    ]
    assert (of_page["dora-s0"][11], of_page["base"][11]) == (1, None)
    assert of_page["lora"][12] == round(row.deviation or 0, 5)
    recipe = made.subjects[cards[of_page["lora"][0]]["who"]]
    own = made.subject(recipe)
    assert [card["name"] for card in own["cards"]] == ["lora", *(f"lora-s{seed}" for seed in range(4))]
    assert [run[0] for run in own["rows"][test.key][0][11]] == [1, 2, 3, 4]
    found = {entry.key: make() for entry, _, make in details.of(lucky)}
    assert all(found[f"lora-s{seed}"]["scores"][test.key] for seed in range(4))


@pytest.mark.parametrize("said", ["method", "rank", "seed", "trainable_parameters", "kind", "base"])
def test_a_training_record_does_not_stand_beside_a_card_that_says_otherwise(
    said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest of the weights says nothing of how they were trained."""
    path = COMMITTED / "scorecards" / "headlines-smollm2-135m-dora-16bit-limit400-s0.json"
    subject = cardfiles.read(path).subject
    name = attested.training_file(subject)
    (tmp_path / name).parent.mkdir()
    shutil.copy(COMMITTED / name, tmp_path / name)
    assert attested.trained(tmp_path, subject)
    assert attested.trained(tmp_path, subject.model_copy(update={"seed": None, "rank": None}))
    base = subject.base.model_copy(update={"fingerprint": "0" * 64})
    other = {"method": "rslora", "rank": 64, "seed": 7, "trainable_parameters": 1, "kind": "model", "base": base}
    assert attested.trained(tmp_path, subject.model_copy(update={said: other[said]})) is None
    assert f"is not shown with {subject.name}, which states another {said}." in capsys.readouterr().err


@pytest.mark.parametrize(("place", "number"), [("rows", 2**70), ("peak_memory_bytes", 10**400), ("steps", -(2**60))])
def test_a_training_record_with_a_number_beyond_all_is_refused(place: str, number: int, tmp_path: Path) -> None:
    path = COMMITTED / "scorecards" / "headlines-smollm2-135m-dora-16bit-limit400-s0.json"
    subject = cardfiles.read(path).subject
    name = attested.training_file(subject)
    stated = json.loads((COMMITTED / name).read_text())
    assert place in stated["record"]["training"]
    stated["record"]["training"][place] = number
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(json.dumps(stated))
    with pytest.raises(FinbenchError):
        attested.trained(tmp_path, subject)


@pytest.mark.parametrize("name", ["reproduced", "revoked", "samples-attached", "self-reported"])
def test_an_owner_whose_name_is_a_level_has_trainings_of_its_own(lucky: Board, name: str) -> None:
    one = next(one for one in lucky.entries if trainings.recipe_of(one))
    honest = {trainings.recipe_of(replace(one, owner=owner, level=level)) for owner in ("", "eve") for level in LEVELS}
    levels = {trainings.recipe_of(replace(one, owner=name, level=level)) for level in LEVELS}
    assert len(honest) == 6  # of two levels whose rows stand together
    assert not levels & honest


@pytest.mark.parametrize("group", [1, 2])
def test_a_badge_rests_on_the_weakest_evidence_of_the_places_that_it_counts(lucky: Board, group: int) -> None:
    rows = [row for row in lucky.tests[0].rows if not row.runs][:2]
    levels, groups = ("reproduced", "samples-attached"), (2, group)
    rows = [
        replace(row, entry=replace(row.entry, level=level), group=number)
        for row, level, number in zip(rows, levels, groups, strict=True)
    ]
    subject = BoardSubject("a", 0, {"one": rows[:1], "other": rows[1:]})
    drawn = feeds.badge(subject, {"name": "a", "level": "reproduced"})
    assert "(samples-attached)" in drawn
    assert "reproduced" not in drawn
    honest = feeds.badge(BoardSubject("a", 0, {"one": rows[:1]}), {"name": "a", "level": "reproduced"})
    assert "(reproduced)" in honest


@pytest.mark.parametrize("owner", ["\u200b", " ", "-a", "a b", "\u0430bc"])
def test_an_owner_whose_name_is_none_of_the_hubs_is_refused(owner: str, tmp_path: Path) -> None:
    """What is not seen would be taken for the flat folder, whose owner is the leaderboard's."""
    name = "fpb-smollm2-135m-lora-s0"
    for folder in (owner, "eve"):
        place = tmp_path / "scorecards" / folder / name
        place.mkdir(parents=True)
        for path in (COMMITTED / "scorecards").glob(f"{name}.*"):
            shutil.copy(path, place / path.name)
    found, wrong = store.places(tmp_path)
    assert [owner in key for key in wrong] == [True]
    assert "owner" in wrong[f"{owner}/{name}/{name}.json"]
    assert f"eve/{name}/{name}" in {one.key for one in found}


def test_rows_steps_and_rate_are_those_of_the_adapters_record(lucky: Board) -> None:
    from finbench.training import recipes

    def with_record(one: BoardCard, **stated: Any) -> BoardCard:
        recipe = recipes.recipe(None, {"tasks": ["fpb"], "seed": one.card.subject.seed, **stated})
        took = type("T", (), {"rows": 2506, "steps": 157})
        record: Any = type("R", (), {"recipe": recipe, "training": took})
        return replace(one, trained=type("A", (), {"record": record}))  # type: ignore[arg-type]

    one = next(one for one in lucky.entries if one.key == "dora-s0")
    found = trainings.budget(with_record(one))
    assert found == trainings.Budget(2506, 157, 1e-3, "default")
    stated = trainings.budget(with_record(one, lr=2e-4))
    assert stated
    assert (stated.rate, stated.chosen) == (2e-4, "stated")
    assert trainings.budget(one) is None
    # the record decides which trainings belong together, whatever their names
    keys = [
        trainings.recipe_of(with_record(replace(card), lr=rate)) for card in lucky.entries[:2] for rate in (1e-3, 2e-4)
    ]
    assert all(keys)
    assert len({key[0] for key in keys if key}) == 2


def test_rslora_is_not_above_lora_on_tfns() -> None:
    """8.6 points between two trainings of one seed each, where seeds of one method lie up to 31 points apart."""

    def read(path: Path) -> BoardCard:
        card = cardfiles.read(path)
        kept = card.model_copy(update={"scores": [score for score in card.scores if present(score)]})
        rows = cardfiles.rows_by_task(path, card)
        return BoardCard(path.stem, kept, rows, Verification(path.name), "samples-attached", arrival=0)

    place = COMMITTED / "scorecards"
    cards = [read(place / f"board-smollm2-135m-{name}-s0.json") for name in ("rslora", "lora")]
    study = [read(path) for path in sorted(place.glob("tfns-smollm2-135m-*-limit400-s[0-4].json"))]
    assert len(study) == 30
    test = next(test for test in board([*cards, *study]).tests if test.task == "tfns" and len(test.rows) == 2)
    assert test.rows[0].score.main.value - test.rows[1].score.main.value == pytest.approx(0.086, abs=1e-3)
    assert [row.group for row in test.rows] == [1, 1]
    assert test.spread
    assert test.spread.variance.deviation > 0.1
    assert [row.group for row in board(cards).tests if row.task == "tfns" for row in row.rows] == [1, 1]
    by_documents = tied(test.score, [_rival(row.score, row.entry.samples[row.score.task]) for row in test.rows])
    assert by_documents == [1, 2]


def test_the_committed_page_has_the_seeds_of_a_recipe_as_one_row() -> None:
    names = ("heads", "cards")
    parts = dict(read_script((COMMITTED / "page" / f"{name}.js").read_text()) for name in names)
    some, every = (test for test in parts["heads"]["tests"] if test["task"] == "fpb")
    assert (some["conditions"], some["whole"]) == (["74.3 % of the test"], False)
    assert (every["conditions"], every["whole"]) == (["74.3 % of the test"], False)
    rows = [read_script((COMMITTED / "page" / "task" / f"{one['file']}.js").read_text())[1] for one in (some, every)]
    several = {parts["cards"][row[0]]["name"]: row for row in [*rows[0], *rows[1]] if isinstance(row[11], list)}
    assert len(several) == 10  # eight of the study with 400 rows, two of them of Gemma, and two of LoRA with 2,506
    few = {name.partition(" (")[0]: len(row[11]) for name, row in several.items() if len(row[11]) != 5}
    assert few == {"fpb-smollm2-135m-lora": 3}  # both of that name
    for row in several.values():
        assert row[1] == pytest.approx(statistics.mean(one[1] for one in row[11]), abs=1e-5)


def test_adapters_that_learnt_the_usual_answer_of_each_question_are_no_copies_of_one_another() -> None:
    """Two seeds and two methods of the study answer Yes to one of nine questions, and No to the others."""

    def marks(name: str) -> list[str]:
        path = COMMITTED / "scorecards" / f"headlines-smollm2-135m-{name}.json"
        card = cardfiles.read(path)
        return list(precedence.answered(card.scores[0], cardfiles.rows_by_task(path, card)["finbench_headlines"]))

    assert not marks("irqlora-4bit-limit400-s3")
    assert not marks("lora-4bit-limit400-s3")
    telling = [marks(f"irqlora-4bit-limit400-s{seed}") for seed in (1, 2)]
    assert [len(one) for one in telling] == [1, 1]
    assert telling[0] != telling[1]
