"""What a badge of the leaderboard is worth: attacks by forged answers, other people's cards and false signatures."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_hostile_cards import written
from test_verification import Card, Rows, change, rescored

import boards
from finbench import leaderboard
from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.files import stable_json
from finbench.core.records import Scorecard
from finbench.data.sources import import_data
from finbench.evaluation import drawing, evaluator
from finbench.evaluation.rerun import Answered
from finbench.evaluation.verification import Verification, verify
from finbench.leaderboard import attested, precedence, signing
from finbench.leaderboard.board import board
from finbench.leaderboard.reading import entries
from make_data import write_sources

Attack = Callable[[Path, Path], None]


# ---------------------------------------------------------------- documents are drawn when asked


@pytest.fixture
def guessed(tmp_path: Path) -> Path:
    """A card of the random dummy on a shipped set of 150 documents."""
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path / "o")
    return tmp_path / "o" / "dummy.json"


def made_right(rows: Rows) -> None:
    for row in rows:
        gold = row["values"]["macro_f1"][0]
        row["answer"] = gold
        for name, value in row["values"].items():
            row["values"][name] = 1.0 if isinstance(value, float) else [gold, gold, value[2]]


@pytest.mark.parametrize("asked", [20, 50, "auto"])
def test_answers_that_are_honest_only_where_they_used_to_be_asked_are_caught(asked: int | str, guessed: Path) -> None:
    """Until now the same documents were always asked: honest answers there, gold elsewhere, all seals renewed."""
    known = set(
        np.random.default_rng(0).choice(150, size=50 if asked == "auto" else int(asked), replace=False).tolist()
    )
    change(guessed, rescored(lambda card, rows: made_right([r for r in rows if r["index"] not in known])), careful=True)
    assert verify(guessed).faults == []
    found = verify(guessed, rerun=asked)
    assert found.level == "none"
    assert "read the same when asked again" in found.faults[0].message


def test_nobody_knows_the_documents_before_and_everybody_can_repeat_them(guessed: Path) -> None:
    card, rows = cardfiles.read(guessed), cardfiles.read_samples(guessed)
    [one], [two] = verify(guessed, rerun=20).asked, verify(guessed, rerun=20).asked
    assert one.seed != two.seed
    assert one.rows != two.rows
    [again] = verify(guessed, rerun=20, seed=one.seed).asked
    assert again.rows == one.rows
    assert any(f"seed {one.seed} drew 10 of" in said for said in verify(guessed, rerun=20, seed=one.seed).checks)
    groups = drawing.strata(card.scores[0], rows)
    change(guessed, lambda card, rows: card.update(seconds=card["seconds"] + 1), careful=True)
    other = cardfiles.read(guessed)  # a seed that was used before says nothing of a card
    assert drawing.draw(card, card.scores[0], groups, 20, 5) != drawing.draw(other, card.scores[0], groups, 20, 5)
    assert sum(map(len, groups)) == 150
    assert verify(guessed, rerun=10_000).asked[0].asked == 150


def test_the_dummy_engine_reproduces_nothing(guessed: Path) -> None:
    found = verify(guessed, rerun="auto")
    assert (found.level, found.faults) == ("samples-attached", [])
    assert "has no model" in found.notes[-1]


@pytest.mark.parametrize("count", ["all", -1, "1.5", True])
def test_a_count_that_is_none_is_one_line(count: Any, guessed: Path) -> None:
    with pytest.raises(FinbenchError, match=f"--rerun counts from 0, got {count}"):
        verify(guessed, rerun=count)


def test_strata_are_what_the_card_counts() -> None:
    def of(task: str, *values: dict[str, Any]) -> list[list[int]]:
        from finbench.core import catalog

        score: Any = type("S", (), {"task": task, "main_metric": catalog.tasks()[task].main_metric})
        return drawing.strata(score, [{"index": number, "values": one} for number, one in enumerate(values)])

    labels = ["a", "b"]
    read = [
        {"macro_f1": [*pair, labels], "parse_rate": float(pair[1] is not None)} for pair in ("aa", "ab", ("a", None))
    ]
    assert of("finbench_fpb", *read) == [[0], [1], [2]]
    spans = [{"span_f1": counts, "parse_rate": 1.0} for counts in ([1, 0, 1], [0, 0, 1], [0, 0, 0])]
    assert of("finbench_fin_ner", *spans) == [[0, 2], [1], []]
    assert of("finbench_headlines", *({"question_f1": ["q", "Yes", said]} for said in ("Yes", "No"))) == [[0], [1], []]
    numbers = [{"r2": [0.5, 0.4], "parse_rate": 1.0}, {"r2": [0.5, None], "parse_rate": 0.0}]
    assert of("finbench_fiqa_score", *numbers) == [[0], [], [1]]  # how near is near enough nobody says
    assert of("finbench_fpb", {"macro_f1": {"sha256": "0" * 32}, "parse_rate": 1.0}) == [[0], [], []]


def test_several_samples_are_one_document_and_the_best_counts() -> None:
    score: Any = type("S", (), {"task": "finbench_fin_math", "main_metric": "acc"})
    rows = [
        {"index": number // 2, "sample": number % 2, "values": {"acc": right, "parse_rate": parsed}}
        for number, (right, parsed) in enumerate([(0, 0), (1, 1), (0, 0), (0, 1), (0, 0), (0, 0)])
    ]
    assert drawing.strata(score, rows) == [[0], [1], [2]]


def test_as_many_are_drawn_as_are_asked_and_half_of_them_are_claimed_to_be_right() -> None:
    for sizes in list(itertools.product([0, 1, 7, 40], repeat=3))[1:]:
        for count in range(sum(sizes) + 3):
            drawn = drawing.allocated(sizes, count)
            assert sum(drawn) == min(count, sum(sizes))
            assert all(0 <= own <= size for own, size in zip(drawn, sizes, strict=True))
            if count >= 4:
                assert all(own for own, size in zip(drawn, sizes, strict=True) if size), (sizes, count, drawn)
                assert drawn[0] >= min(sizes[0], max(-(-count // 2), count * sizes[0] // sum(sizes)) - 2)


def brute(sizes: Sequence[int], drawn: Sequence[int], false: int, tolerated: float) -> float:
    """The greatest share of draws that pass, over every placement of the false rows and every draw, one by one."""
    best = 0.0
    for places in itertools.product(*(range(size + 1) for size in sizes)):
        if sum(places) != false:
            continue
        passed = draws = 0
        every = [list(itertools.combinations(range(size), own)) for size, own in zip(sizes, drawn, strict=True)]
        for draw in itertools.product(*every):
            hits = [sum(row < bad for row in rows) for rows, bad in zip(draw, places, strict=True)]
            share = sum(h * size / max(1, own) for h, size, own in zip(hits, sizes, drawn, strict=True)) / sum(sizes)
            passed, draws = passed + (share <= tolerated + 1e-9), draws + 1
        best = max(best, passed / draws)
    return best


@pytest.mark.parametrize(
    ("sizes", "drawn"), [((5, 4, 2), (3, 2, 1)), ((6, 3, 0), (3, 1, 0)), ((0, 7, 1), (0, 2, 1)), ((5, 3, 1), (2, 0, 1))]
)
def test_the_probability_to_escape_is_that_of_trying_everything(sizes: tuple[int, ...], drawn: tuple[int, ...]) -> None:
    for false, tolerated in itertools.product((1, 2, 4), (0.0, 0.1, 0.25)):
        share = false / sum(sizes)
        assert drawing.escape(sizes, drawn, share, tolerated) == pytest.approx(brute(sizes, drawn, false, tolerated))


@pytest.mark.parametrize(("tolerated", "sizes"), [(0.0, (300, 150, 50)), (0.02, (60, 340, 100)), (0.02, (450, 30, 20))])
def test_forgers_escape_as_often_as_is_printed(tolerated: float, sizes: tuple[int, ...], guessed: Path) -> None:
    """Cards of which 5 % is false, drawn by the very code that asks: the luckiest of many forgers is no luckier."""
    card, draw, n = cardfiles.read(guessed), random.Random(1), sum(sizes)
    first = itertools.count()
    groups = [[next(first) for _ in range(size)] for size in sizes]
    count = drawing.needed(sizes, tolerated)
    drawn = drawing.allocated(sizes, count)
    printed = drawing.escape(sizes, drawn, 0.05, tolerated)
    assert printed < 0.05
    times, false = 1500, n // 20
    places = [one for one in drawing._placements(sizes, false) if 0 in one or one[0] > false // 2][
        :: 4 if tolerated else 8
    ]
    escaped = [0] * len(places)
    for seed in range(times):
        rows = drawing.draw(card, card.scores[0], groups, count, draw.randrange(2**63))
        for number, place in enumerate(places):
            moved = [row for own, bad in zip(groups, place, strict=True) for row in own[:bad]]
            moved = [row for row in moved if any(row in group for group in rows)]
            escaped[number] += Answered("t", seed, list(sizes), rows, moved, tolerated).same
    assert max(escaped) / times < printed + 4 * (0.05 * 0.95 / times) ** 0.5


def test_as_many_are_asked_as_it_takes() -> None:
    assert drawing.needed((5000, 5000, 0)) == 59
    assert drawing.needed((10**5, 0, 0)) == 59
    assert 160 <= drawing.needed((700, 300, 0), 0.02) <= 180
    for sizes, tolerated in itertools.product(
        [(900, 80, 3), (20, 950, 0), (0, 0, 400), (3, 2, 1), (50, 50, 900)], (0, 0.02)
    ):
        count = drawing.needed(sizes, tolerated)
        assert drawing.escape(sizes, drawing.allocated(sizes, count), 0.05, tolerated) < 0.05


# ---------------------------------------------------------------- whose card counts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    import_data("fpb", write_sources(place / "sources", count=600)["fpb"], place)
    return place


@pytest.fixture(scope="module")
def scored(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cards of fpb by how they were answered; do not write into their folders."""
    out = tmp_path_factory.mktemp("scored")
    made = {name: boards.scored(out, data, ["fpb"], seed=number) for number, name in enumerate(("honest", "other"))}
    return made | {"gold": boards.scored(out, data, ["fpb"], answers="gold")}


def dated(card: Path, created: str) -> Path:
    found, rows = cardfiles.read(card), cardfiles.read_samples(card)
    made = found.provenance.model_copy(update={"created": created})
    cardfiles.write(card, found.model_copy(update={"provenance": made}), rows)
    return card


def shown(folder: Path) -> list[str]:
    [test] = board(entries(folder)).tests
    return [row.entry.key for row in test.rows]


def test_a_date_that_is_yet_to_come_is_refused(scored: dict[str, Path], tmp_path: Path) -> None:
    card = dated(boards.renamed(scored["honest"], tmp_path / "c.json"), "2099-01-01T00:00:00Z")
    [fault] = verify(card).faults
    assert (fault.field, "yet to come" in fault.message) == ("provenance.created", True)
    with pytest.raises(FinbenchError, match="yet to come"):
        leaderboard.add([card], to=tmp_path / "b")


@pytest.mark.parametrize("created", ["2001-01-01T00:00:00Z", None])
@pytest.mark.parametrize("name", ["adapter-1", "aaa"])
def test_another_card_of_a_subject_replaces_nothing_by_its_date_or_name(
    created: str | None, name: str, scored: dict[str, Path], tmp_path: Path
) -> None:
    """A stranger's card of somebody's adapter, and a renamed copy of its author's own card."""
    mine = boards.renamed(scored["honest"], tmp_path / "mine.json", **boards.adapter(1))
    [kept] = leaderboard.add([mine], to=tmp_path / "b")
    for number, answers in enumerate(("other", "honest")):
        theirs = boards.renamed(scored[answers], tmp_path / f"{number}.json", **boards.adapter(1, name=name, seed=7))
        if created:
            dated(theirs, created)
        leaderboard.add([theirs], to=tmp_path / "b")
    assert len(list((tmp_path / "b" / "scorecards").glob("*.json"))) == 3
    assert shown(tmp_path / "b") == [kept.stem]
    (tmp_path / "b" / precedence.ARRIVALS).unlink()
    found = board(entries(tmp_path / "b"))
    assert (found.tests, len(found.refused)) == ([], 3)
    assert all("nothing tells which was first" in one.faults[0] for one in found.refused)


def test_the_same_answers_under_another_adapter_count_once(scored: dict[str, Path], tmp_path: Path) -> None:
    mine = boards.renamed(scored["honest"], tmp_path / "mine.json", **boards.adapter(1))
    copy = boards.renamed(scored["honest"], tmp_path / "copy.json", **boards.adapter(2, name="mine-better"))
    true = boards.renamed(scored["other"], tmp_path / "true.json", **boards.adapter(3))
    leaderboard.add([mine, copy, true], to=tmp_path / "b")
    assert sorted(shown(tmp_path / "b")) == ["adapter-1", "adapter-3"]


def test_models_of_unknown_weights_are_told_apart_by_name(scored: dict[str, Path], tmp_path: Path) -> None:
    for number, answers in enumerate(("honest", "other")):
        base = cardfiles.read(scored[answers]).subject.base
        base = base.model_copy(update={"alias": f"model-{number}", "fingerprint": "unknown"})
        boards.renamed(scored[answers], tmp_path / "b" / "scorecards" / f"{number}.json", name=f"m{number}", base=base)
    assert sorted(shown(tmp_path / "b")) == ["0", "1"]


def test_two_subjects_never_share_a_name(scored: dict[str, Path], tmp_path: Path) -> None:
    for number, (answers, name) in enumerate([("honest", "FinGPT"), ("other", "ﬁngpt ")]):
        place = tmp_path / "b" / "scorecards" / f"{number}.json"
        boards.renamed(scored[answers], place, **boards.adapter(number, name=name))
    found = board(entries(tmp_path / "b"))
    names = [row.entry.name for row in found.tests[0].rows]
    assert len({name.partition("(")[2] for name in names}) == 2
    leaderboard.build(tmp_path / "b")
    assert all(name in (tmp_path / "b" / "leaderboard.csv").read_text() for name in names)


@pytest.mark.parametrize(
    "name", ["gold\u200b", "g\u2060old", "gold\U000e0041", "\u202egold", "go\u00adld", "gold\ufe0f", "\u3164"]
)
def test_what_nobody_sees_makes_no_name_of_its_own(name: str, scored: dict[str, Path], tmp_path: Path) -> None:
    cards = tmp_path / "b" / "scorecards"
    boards.renamed(scored["gold"], cards / "owner" / "a" / "a.json", **boards.adapter(1, name="gold"))
    boards.renamed(scored["other"], cards / "Owner" / "b" / "b.json", **boards.adapter(2, name=name))
    rows = {row.entry.key[-1]: row for row in board(entries(tmp_path / "b")).tests[0].rows}
    assert "(Owner" in rows["b"].name
    if name != "\u3164":  # which shares no name: it shows nothing at all
        assert all(row.name.endswith(f"{row.entry.identity[:6]})") for row in rows.values())


def test_answers_of_no_model_stand_on_no_leaderboard(scored: dict[str, Path], tmp_path: Path) -> None:
    found, rows = cardfiles.read(scored["gold"]), cardfiles.read_samples(scored["gold"])
    made = found.model_copy(update={"subject": found.subject.model_copy(update={"name": "best of all"})})
    made = made.model_copy(update={"run_key": cardfiles.run_key(made)})
    (tmp_path / "b" / "scorecards").mkdir(parents=True)
    cardfiles.write(tmp_path / "b" / "scorecards" / "best.json", made, rows)
    said = "the dummy engine's, which answers without a model"
    with pytest.raises(FinbenchError, match=said):
        leaderboard.add([scored["gold"]], to=tmp_path / "c")
    assert said in leaderboard.build(tmp_path / "b").refusals[0]


def board_with(scored: dict[str, Path], place: Path, **stated: Any) -> Path:
    """A board of three subjects that can be told apart, and of a stranger's card of which something is stated."""
    for number, answers in enumerate(("gold", "honest")):
        boards.renamed(scored[answers], place / "scorecards" / f"{number}.json", **boards.adapter(number))
    card = boards.renamed(scored["other"], place / "scorecards" / "stranger.json", **boards.adapter(7))
    found, rows = json.loads(card.read_text()), cardfiles.read_samples(card)
    for name, value in stated.items():
        *path, last = name.split("__")
        at = found
        for part in path:
            at = at[int(part) if part.isdecimal() else part]
        at[last] = value
    made = Scorecard.parse(found, "card")
    cardfiles.write(card, made.model_copy(update={"run_key": cardfiles.run_key(made)}), rows)
    return place


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scores__0__prompt_tokens", 10**400),
        ("scores__0__seconds", 1e308),
        ("scores__0__seconds", 5e-324),
        ("subject__rank", 10**30),
        ("subject__trainable_parameters", 2**63),
        ("peak_memory_bytes", 10**400),
        ("shots", 2**64),
        ("provenance__hardware", {"cores": 1e300}),
        ("scores__0__baselines", {"majority": {"macro_f1": 2.0}}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_number_of_one_card_stops_no_board(name: str, value: Any, scored: dict[str, Path], tmp_path: Path) -> None:
    refused = leaderboard.build(board_with(scored, tmp_path / "b", **{name: value})).refusals
    assert all("stranger.json" in one for one in refused)
    assert any(name.rpartition("__")[2] in one for one in refused)


def test_who_overstates_what_a_constant_reaches_takes_nobody_out_of_the_groups(
    scored: dict[str, Path], tmp_path: Path
) -> None:
    forged = {"majority": {"macro_f1": 1.0, "acc": 1.0}}
    place = board_with(scored, tmp_path / "b", scores__0__baselines=forged)
    for order in ("0\n1\nstranger\n", ""):
        (place / precedence.ARRIVALS).write_text(order)
        [test] = board(entries(place)).tests
        assert [row.group for row in test.rows if row.entry.key != "stranger"].count(None) == 0
        assert test.score.baselines["majority"]["macro_f1"] < 0.5  # the page states it too


# ---------------------------------------------------------------- rows that somebody chose, keys that do not follow


def only(keep: Callable[[dict[str, Any]], bool], new: int = 0) -> Callable[[Card, Rows], None]:
    """A card of chosen rows under an invented digest; ``new``: rows of documents that nobody has."""

    def alter(card: Card, rows: Rows) -> None:
        rows[:] = [row for row in rows if keep(row)]
        for number, row in enumerate(rows):
            row["index"] = number
            if number < new:
                row["doc"] = f"{number:032x}"
        for score in card["scores"]:
            score["data"] |= {"digest": "0" * 64, "rows": len(rows)}
            score["n"] = len(rows)

    return alter


@pytest.mark.parametrize("limit", [None, 14])
def test_chosen_rows_are_no_other_edition(limit: int | None, data: Path, tmp_path: Path) -> None:
    for name, alter, believed in (
        ("fourteen right ones", only(lambda row: row["values"]["acc"] == 1 and row["index"] < 80), False),
        ("all but the wrong ones", only(lambda row: row["values"]["acc"] == 1 or row["index"] % 3 == 0), False),
        ("some of them new", only(lambda row: row["values"]["acc"] == 1, new=3), False),
        ("another edition", only(lambda row: row["index"] != 5, new=1), limit is None),
    ):
        card = boards.scored(tmp_path / name, data, ["fpb"])
        change(card, rescored(alter), careful=True)
        found = json.loads(card.read_text())
        if limit:
            rows = found["scores"][0]["n"]
            change(card, lambda card, _, rows=rows: card.update(limit=rows, status="partial"), careful=True)
        faults = [fault for fault in verify(card, data_dir=data).faults if fault.field.endswith("data.digest")]
        assert bool(faults) != believed or limit, (name, faults)
        assert not faults or "chosen" in faults[0].message


def test_a_run_key_must_follow_whoever_asked_the_model(guessed: Path) -> None:
    def passed_off(card: Card, rows: Rows) -> None:
        card |= {"origin": "lm-eval", "engine": "lm-eval hf"}
        card["subject"]["base"] |= {"alias": "llama-3.1-8b", "fingerprint": "unknown"}

    written(guessed, passed_off)
    assert [fault.field for fault in verify(guessed).faults] == ["run_key"]


# ---------------------------------------------------------------- who vouches


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Private keys of a maintainer and of a stranger."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("maintainer", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", place / name], check=True)
    return place


def believe(folder: Path, *public: Path, namespaces: str = signing.NAMESPACE) -> None:
    lines = [f'{key.stem}@example.org namespaces="{namespaces}" {key.read_text()}' for key in public]
    (folder / signing.SIGNERS).write_text("".join(lines))


def rerun_of(
    card: Path, count: int | None = None, seed: int = 11, moved: int = 0, tolerated: float = 0.0
) -> Verification:
    """What a rerun finds in which the model answers the same, but for ``moved`` documents."""
    found, rows = cardfiles.read(card), cardfiles.rows_by_task(card, cardfiles.read(card))
    asked = []
    for score in found.scores:
        groups = drawing.strata(score, rows[score.task])
        sizes = [len(group) for group in groups]
        drawn = drawing.draw(found, score, groups, count or drawing.needed(sizes, tolerated), seed)
        asked.append(Answered(score.task, seed, sizes, drawn, [row for g in drawn for row in g][:moved], tolerated))
    return Verification(str(card), asked=asked)


@pytest.fixture
def place(scored: dict[str, Path], keys: Path, tmp_path: Path) -> Path:
    """A board of two cards that believes the maintainer."""
    for number, answers in enumerate(("honest", "other")):
        card = boards.renamed(scored[answers], tmp_path / f"{number}.json", **boards.adapter(number))
        leaderboard.add([card], to=tmp_path / "b")
    believe(tmp_path / "b", keys / "maintainer.pub")
    return tmp_path / "b"


def mine(place: Path) -> Path:
    return place / "scorecards" / "adapter-0.json"


def levels(place: Path, trusted: Path | None = None) -> dict[str, str]:
    return {entry.key: entry.level for entry in entries(place, trusted)}


def vouch(place: Path, key: Path, **options: Any) -> Path:
    return attested.attest(place, mine(place), rerun_of(mine(place), **options), key)


def test_a_signed_rerun_gives_the_badge_and_a_revoked_key_takes_it(place: Path, keys: Path) -> None:
    assert set(levels(place).values()) == {"samples-attached"}
    made = vouch(place, keys / "maintainer")
    assert levels(place) == {"adapter-0": "reproduced", "adapter-1": "samples-attached"}
    # plain OpenSSH says so too
    plain = ["ssh-keygen", "-Y", "verify", "-n", signing.NAMESPACE, "-I", "maintainer@example.org"]
    plain += ["-f", place / signing.SIGNERS, "-s", f"{made}.sig"]
    assert subprocess.run(plain, input=made.read_bytes(), capture_output=True, check=False).returncode == 0
    leaderboard.build(place)
    assert "| reproduced |" in (place / "leaderboard.md").read_text()
    assert leaderboard.build(place, check=True).stale == []
    shutil.copy(keys / "maintainer.pub", place / signing.REVOKED)
    assert levels(place)["adapter-0"] == "revoked"
    assert leaderboard.build(place, check=True).stale
    leaderboard.build(place)
    assert "| revoked |" in (place / "leaderboard.md").read_text()
    assert '"level":"revoked"' in (place / "index.html").read_text()
    (place / signing.REVOKED).write_text("no key at all\n")  # what cannot be read revokes all
    assert levels(place)["adapter-0"] == "revoked"


def test_evidence_decides_and_no_date_does(place: Path, keys: Path, scored: dict[str, Path], tmp_path: Path) -> None:
    """A weaker card never replaces a stronger one; a stronger one replaces a weaker one that came first."""
    vouch(place, keys / "maintainer")
    theirs = boards.renamed(scored["other"], tmp_path / "x.json", **boards.adapter(0, name="x", seed=9))
    leaderboard.add([theirs], to=place)
    leaderboard.add([boards.renamed(scored["gold"], tmp_path / "y.json", **boards.adapter(1, name="y"))], to=place)
    (place / precedence.ARRIVALS).write_text("x\ny\nadapter-1\nadapter-0\n")
    assert sorted(shown(place)) == ["adapter-0", "y"]


@pytest.mark.parametrize("unreadable", ["folder", "link to nothing"])
def test_a_list_of_revoked_keys_that_cannot_be_read_revokes_all(unreadable: str, place: Path, keys: Path) -> None:
    vouch(place, keys / "maintainer")
    if unreadable == "folder":
        (place / signing.REVOKED).mkdir()
    else:
        (place / signing.REVOKED).symlink_to("nowhere")
    assert levels(place)["adapter-0"] == "revoked"


def test_a_signature_without_end_is_not_read_for_minutes(place: Path, keys: Path) -> None:
    signature = Path(f"{vouch(place, keys / 'maintainer')}.sig")
    with signature.open("ab") as stream:
        stream.truncate(2**30)
    started = time.monotonic()
    with pytest.raises(FinbenchError, match="its signature has more than 65,536 bytes"):
        levels(place)
    assert time.monotonic() - started < 5


def hand_written(place: Path, keys: Path) -> None:
    found = {
        "card": "adapter-0.json",
        "sha256": "0" * 64,
        "documents": 50,
        "seed": 0,
        "created": "2026-01-01T00:00:00Z",
    }
    (place / "reruns.json").write_text(json.dumps([found]))


def not_signed(place: Path, keys: Path) -> None:
    Path(f"{vouch(place, keys / 'maintainer')}.sig").unlink()


def by_a_stranger(place: Path, keys: Path) -> None:
    vouch(place, keys / "stranger")


def edited(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    made.write_text(made.read_text().replace('"torch":"', '"torch":"9'))


def moved_to_another(place: Path, keys: Path) -> None:
    made, other = vouch(place, keys / "maintainer"), place / "scorecards" / "adapter-1.json"
    found = json.loads(made.read_text()) | {"card": cardfiles.sha256_file(other)}
    made.write_text(stable_json(found) + "\n")


def signature_of_another(place: Path, keys: Path) -> None:
    one, two = vouch(place, keys / "maintainer"), vouch(place, keys / "maintainer", seed=12)
    shutil.copy(f"{one}.sig", f"{two}.sig")


def for_something_else(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    sign = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", keys / "maintainer"]
    signed = subprocess.run(sign, input=made.read_bytes(), capture_output=True, check=True)
    Path(f"{made}.sig").write_bytes(signed.stdout)
    believe(place, keys / "maintainer.pub", namespaces="*")


def by_nobody(place: Path, keys: Path) -> None:
    vouch(place, keys / "maintainer")
    (place / signing.SIGNERS).unlink()


def tomorrow(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    found = json.loads(made.read_text()) | {"created": "2099-01-01T00:00:00Z"}
    signed_anew(made, found, keys)


def torn(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    made.write_text(made.read_text()[:40])


def signed_anew(made: Path, found: dict[str, Any], keys: Path) -> None:
    text = stable_json(found).encode()
    made.write_bytes(text)
    Path(f"{made}.sig").write_bytes(signing.sign(text, keys / "maintainer"))


REFUSED = (not_signed, by_a_stranger, edited, moved_to_another, signature_of_another, for_something_else, by_nobody)
REFUSED += (tomorrow, torn)


@pytest.mark.parametrize("attack", REFUSED)
def test_what_no_maintainer_signed_is_refused_by_name(
    attack: Callable[[Path, Path], None], place: Path, keys: Path
) -> None:
    attack(place, keys)
    with pytest.raises(FinbenchError, match=r"adapter-0-[0-9a-f]{8}.json (proves nothing|is no attestation)"):
        leaderboard.build(place, check=True)


def test_a_list_that_anybody_can_write_gives_no_badge(place: Path, keys: Path, capsys: Any) -> None:
    hand_written(place, keys)
    assert set(levels(place).values()) == {"samples-attached"}
    assert "gives no badge" in capsys.readouterr().err


def replayed(place: Path, keys: Path) -> None:
    """The card changed after it was vouched for."""
    vouch(place, keys / "maintainer")
    boards.renamed(mine(place), mine(place), name="adapter-0b")


def other_documents(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    found = json.loads(made.read_text())
    found["seed"] += 1
    signed_anew(made, found, keys)


def too_few(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    found = json.loads(made.read_text())
    [few] = rerun_of(mine(place), count=10).asked
    found["tasks"][0] |= {"rows": few.rows}
    signed_anew(made, found, keys)


def answered_otherwise(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    found = json.loads(made.read_text())
    found["tasks"][0]["moved"] = found["tasks"][0]["rows"][0][:1]
    signed_anew(made, found, keys)


def other_weights(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    signed_anew(made, json.loads(made.read_text()) | {"adapter": "9" * 64}, keys)


def dated_back(place: Path, keys: Path) -> None:
    """A key that has expired, and a date at which it had not."""
    made = vouch(place, keys / "maintainer")
    (place / signing.SIGNERS).write_text(
        f'm@example.org valid-before="20260201" {(keys / "maintainer.pub").read_text()}'
    )
    signed_anew(made, json.loads(made.read_text()) | {"created": "2026-01-01T00:00:00Z"}, keys)


def no_task(place: Path, keys: Path) -> None:
    made = vouch(place, keys / "maintainer")
    signed_anew(made, json.loads(made.read_text()) | {"tasks": []}, keys)


SHOWS_ANOTHER = (replayed, other_documents, too_few, answered_otherwise, other_weights, dated_back, no_task)


@pytest.mark.parametrize("attack", SHOWS_ANOTHER)
def test_what_a_key_signed_must_show_that_very_card(
    attack: Callable[[Path, Path], None], place: Path, keys: Path
) -> None:
    attack(place, keys)
    assert set(levels(place).values()) == {"samples-attached"}


def test_too_little_is_not_signed(place: Path, keys: Path) -> None:
    for options, said in (({"count": 5}, "5 documents, of which"), ({"moved": 1}, "read the same")):
        with pytest.raises(FinbenchError, match=f"Not signed, for it would show too little: .*{said}"):
            vouch(place, keys / "maintainer", **options)
    assert not (place / attested.ATTESTATIONS).exists()
    vouch(place, keys / "maintainer", moved=1, tolerated=0.02)
    assert levels(place)["adapter-0"] == "reproduced"


def test_keys_of_a_pull_request_are_not_believed(place: Path, keys: Path, tmp_path: Path) -> None:
    """Whoever proposes a card could propose a key too; CI believes those of the branch that it would go to."""
    shutil.copytree(place, tmp_path / "main")
    believe(place, keys / "maintainer.pub", keys / "stranger.pub")
    vouch(place, keys / "stranger")
    assert levels(place)["adapter-0"] == "reproduced"
    with pytest.raises(FinbenchError, match="by no key of"):
        leaderboard.build(place, check=True, trusted=tmp_path / "main")


@pytest.mark.parametrize("engine", ["server", "api", "lm-eval hf"])
def test_nobody_vouches_for_what_cannot_be_known(engine: str, place: Path, keys: Path) -> None:
    """An endpoint can answer what its owner likes, whoever asks; weights without a digest can be any."""
    card = cardfiles.read(mine(place)).model_copy(update={"engine": engine})
    if engine.startswith("lm-eval"):
        base = card.subject.base.model_copy(update={"fingerprint": "unknown"})
        card = card.model_copy(update={"subject": card.subject.model_copy(update={"base": base})})
    with pytest.raises(FinbenchError, match="cannot be vouched for"):
        attested.can_sign(place, keys / "maintainer", card)


def test_a_key_that_is_not_believed_is_told_before_the_model_is_asked(place: Path, keys: Path, tmp_path: Path) -> None:
    card = cardfiles.read(mine(place))
    with pytest.raises(FinbenchError, match="is not believed here") as caught:
        attested.can_sign(place, keys / "stranger", card)
    assert "allowed_signers" in caught.value.hint
    with pytest.raises(FinbenchError, match="Nothing was signed by"):
        attested.can_sign(place, tmp_path / "none", card)
    shutil.copy(keys / "maintainer.pub", place / signing.REVOKED)
    with pytest.raises(FinbenchError, match="is revoked"):
        attested.can_sign(place, keys / "maintainer", card)
