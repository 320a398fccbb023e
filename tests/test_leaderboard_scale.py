"""A leaderboard of many: cards by owner, in folders and Parquet; none is looked at twice; a bad one stops no other."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import boards
from conftest import quick
from finbench import leaderboard
from finbench.cards import cardfiles
from finbench.cli.app import app
from finbench.core.errors import FinbenchError
from finbench.core.records import Subject
from finbench.evaluation import rescore
from finbench.leaderboard import (
    attested,
    building,
    commands,
    deciding,
    evidence,
    examine,
    groups,
    known,
    precedence,
    store,
    tables,
)
from finbench.leaderboard.board import board
from finbench.leaderboard.payload import Payload
from finbench.leaderboard.reading import entries, read

TASKS, DOCUMENTS = 3, 60


board_scale = boards.benchmark()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five subjects of one owner; copy it."""
    folder = tmp_path_factory.mktemp("scale") / "board"
    board_scale.make(folder, 5, TASKS, DOCUMENTS)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copy(made.with_name("board.truth.json"), tmp_path / "truth.json")
    return Path(shutil.copytree(made, tmp_path / "board"))


def newcomer(folder: Path, name: str = "newcomer", owner: str = "stranger", ability: float = 1.0) -> str:
    """A card more, with its line in the order of arrival; returns its key."""
    who = board_scale.Subject(name, owner, ability, 0, name, None)
    key = board_scale.Maker(TASKS, DOCUMENTS, 0).write(folder, who, 10**6 + len(list(folder.rglob("*.json"))))
    precedence.arrived(folder, [key])
    return str(key)


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit a card's JSON, and seal it as a forger would."""
    card = cardfiles.read(path).model_dump(mode="json", by_alias=True)
    change(card)
    card["seal"] = None
    card["seal"] = board_scale.card_seal(card)
    path.write_text(json.dumps(card))


def test_simulated_cards_are_fit_and_their_key_is_their_place(place: Path) -> None:
    found = read(place)
    assert found.refused == []
    assert [entry.key for entry in found.entries] == [f"owner-0/subject-{n}/subject-{n}" for n in range(5)]
    assert {entry.owner for entry in found.entries} == {"owner-0"}
    assert [entry.arrival for entry in found.entries] == list(range(5))


def test_of_owners_with_one_name_all_but_the_first_have_their_own_behind_it(place: Path) -> None:
    newcomer(place, "subject-0", "a"), newcomer(place, "subject-0", "b")
    assert [(one.file, one.faults) for one in read(place).refused] == []
    names = {entry.key: entry.name for entry in board(entries(place)).entries}
    assert names["a/subject-0/subject-0"] == "subject-0 (a)"
    assert names["b/subject-0/subject-0"] == "subject-0 (b)"
    assert names["owner-0/subject-0/subject-0"] == "subject-0"


def test_a_build_does_not_look_for_circles_and_leaves_the_collector_as_it_was(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("finbench.leaderboard.building._left_over", lambda *_: seen.append(gc.isenabled()) or [])
    assert gc.isenabled()
    leaderboard.build(place)
    with pytest.raises(FinbenchError):
        leaderboard.build(place / "nowhere")
    assert seen == [False]
    assert gc.isenabled()


def test_no_card_is_looked_at_twice_and_the_cache_proves_no_more_than_its_key(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = leaderboard.build(place).board
    looked: list[Path] = []
    look = examine.faults
    monkeypatch.setattr(examine, "faults", lambda path, **more: looked.append(path) or look(path, **more))
    again = leaderboard.build(place, check=True)
    assert (looked, again.stale) == ([], [])
    key = newcomer(place)
    assert len(read(place).entries) == 6
    assert looked == [place / "scorecards" / f"{key}.json"]
    # a card or samples of other bytes are other ones, though an entry of the cache is of the same name
    edited = place / "scorecards" / "owner-0" / "subject-1" / "subject-1.json"
    edited.write_text(edited.read_text().replace('"shots": 0', '"shots": 1'))
    torn = cardfiles.samples_path(place / "scorecards" / "owner-0" / "subject-2" / "subject-2.json")
    torn.write_bytes(torn.read_bytes()[:-1])
    assert [one.file.split("/")[1] for one in read(place).refused] == ["subject-1", "subject-2"]
    # torn entries are as good as none, and without any the board is the same
    for path in (path for path in cache.rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert len(read(place).entries) == 4
    shutil.rmtree(cache)
    groups_of = [[row.group for row in test.rows] for test in before.tests]
    shutil.rmtree(place)
    board_scale.make(place, 5, TASKS, DOCUMENTS)
    assert [[row.group for row in test.rows] for test in leaderboard.build(place).board.tests] == groups_of


def test_a_card_that_is_written_while_it_is_looked_at_is_known_under_no_other_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "scorecards" / "owner-0" / "subject-1" / "subject-1.json"
    earlier, look = path.read_bytes(), examine.faults

    def meanwhile(looked_at: Path) -> Any:
        changed(looked_at, lambda card: card.update(seconds=77.0))
        return look(looked_at)

    with monkeypatch.context() as patch:
        patch.setattr(examine, "faults", meanwhile)
        assert examine.examined(path) == []
    path.write_bytes(earlier)
    assert {entry.key: entry.card.seconds for entry in entries(place)}["owner-0/subject-1/subject-1"] != 77.0


def test_details_are_of_the_card_that_the_tables_are_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = place / "scorecards" / "owner-0" / "subject-1" / "subject-1.json", building.board
    earlier = path.read_bytes()

    def meanwhile(*found: Any) -> Any:
        changed(path, lambda card: card["scores"].pop())
        return real(*found)

    with monkeypatch.context() as patch:
        patch.setattr(building, "board", meanwhile)
        with pytest.raises(FinbenchError, match="was changed while its leaderboard was built"):
            leaderboard.build(place)
    path.write_bytes(earlier)
    leaderboard.build(place)
    assert leaderboard.build(place, check=True).stale == []


def test_without_a_cache_that_can_be_written_the_board_is_the_same(place: Path, cache: Path) -> None:
    cache.write_text("no folder")
    assert len(read(place).entries) == 5
    assert len(leaderboard.build(place).board.tests) == TASKS


def test_processes_find_what_one_finds(place: Path) -> None:
    for number in range(3):
        newcomer(place, f"new-{number}")
    (place / "scorecards" / "torn.json").write_text('{"schema": 1}')
    found = read(place)
    assert [(one.file, one.faults) for one in found.refused if one.file != "torn.json"] == []
    assert (len(found.entries), [one.file for one in found.refused]) == (8, ["torn.json"])


def test_what_cards_share_is_judged_once_and_a_row_that_is_forged_is_found(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, forged = (place / "scorecards" / f"{newcomer(place, name)}.json" for name in ("honest", "forged"))
    rows = cardfiles.read_samples(honest)
    shutil.copy(honest, forged)
    told = next(row for row in rows if row["task"] == "finbench_tfns_mc" and row["values"]["acc"] == 0.0)
    told["answer"] = told["answer"][::-1]
    cardfiles.write(forged, cardfiles.read(forged), rows)
    alone, _ = examine.faults(forged)
    assert any(f"samples[finbench_tfns_mc {told['index']}].values" in fault for fault in alone)
    read_again, asked = rescore._read_again, []
    monkeypatch.setattr(rescore, "_read_again", lambda row, read: asked.append(row) or read_again(row, read))
    with cardfiles.sharing_rows():
        assert examine.faults(honest)[0] == []
        assert len(asked) == TASKS * DOCUMENTS
        assert examine.faults(forged)[0] == alone
        assert examine.faults(honest)[0] == []
        assert len(asked) == TASKS * DOCUMENTS + 1


def test_entries_of_the_cache_are_of_a_card_its_samples_and_the_code(place: Path, cache: Path) -> None:
    [path] = (place / "scorecards" / "owner-0" / "subject-0").glob("*.json")
    key = known.key_of(path)
    samples = cardfiles.samples_path(path)
    samples.write_bytes(samples.read_bytes() + b" ")
    assert key != known.key_of(path)
    assert known.read("0" * 64) is None
    entries(place)
    [entry, *_] = [path for path in cache.rglob("*") if path.is_file()]
    entry.rename(entry.with_name("0" * 64))  # another's entry under a name that it does not prove
    assert known.read("0" * 64) is None


def test_parquet_is_read_as_the_folder_it_was_packed_from(place: Path, tmp_path: Path) -> None:
    leaderboard.build(place)
    before = (place / "leaderboard.csv").read_text()
    found = CliRunner().invoke(app, ["leaderboard", "pack", str(tmp_path / "packed"), str(place)])
    assert found.exit_code == 0
    [packed] = (tmp_path / "packed").glob("*.parquet")
    shutil.rmtree(place / "scorecards")
    (place / "scorecards").mkdir()
    shutil.copy(packed, place / "scorecards")
    leaderboard.build(place)
    assert (place / "leaderboard.csv").read_text() == before
    (place / "scorecards" / "torn.parquet").write_bytes(packed.read_bytes()[:-100])
    made = leaderboard.build(place)
    assert [one.file for one in made.board.refused] == ["torn.parquet"]
    assert (place / "leaderboard.csv").read_text() == before


def test_cards_of_parquet_come_out_as_files_and_commands_name_these(place: Path, tmp_path: Path) -> None:
    before = {
        path.relative_to(place / "scorecards"): path.read_bytes()
        for path in place.rglob("*.json*")
        if path.parent.parent.parent.name == "scorecards"
    }
    with pytest.raises(FinbenchError, match="no cards in Parquet"):
        leaderboard.unpack(place, tmp_path / "unpacked")
    [packed] = leaderboard.pack(place, tmp_path / "packed")
    shutil.rmtree(place / "scorecards")
    (place / "scorecards").mkdir()
    shutil.copy(packed, place / "scorecards")
    found = CliRunner().invoke(app, ["leaderboard", "unpack", str(tmp_path / "unpacked"), str(place)])
    assert found.exit_code == 0, found.output
    assert {
        path.relative_to(tmp_path / "unpacked"): path.read_bytes() for path in (tmp_path / "unpacked").rglob("*.json*")
    } == before
    entry = entries(place)[0]
    steps = commands.reproduce(entry).steps
    assert steps[0] == (commands.UNPACK, "finbench leaderboard unpack unpacked")
    assert f"finbench verify unpacked/{entry.key}.json" in [command for _, command in steps]
    made = Payload(board([entry]))
    assert made.cards[0]["packed"] == f"unpacked/{entry.key}.json"


def test_the_same_key_with_another_card_in_parquet_is_refused(place: Path, tmp_path: Path) -> None:
    [packed] = leaderboard.pack(place, tmp_path / "packed")
    shutil.copy(packed, place / "scorecards")
    assert read(place).refused == []
    shutil.rmtree(place / "scorecards" / "owner-0" / "subject-0")
    newcomer(place, "subject-0", "owner-0")
    [refused] = read(place).refused
    assert refused.faults == ["is another card than that of the same name in the folder"]


def test_a_row_of_parquet_harms_no_other(place: Path, tmp_path: Path) -> None:
    """Neither by a key that is none, nor by the bytes of another's card under a name of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    [packed] = leaderboard.pack(place, tmp_path / "packed")
    table = pq.read_table(packed)
    rows = table.to_pylist()
    rows = [{**rows[0], "key": "../bad"}, {**rows[0], "key": "x" * 250}, {**rows[0], "key": "thief/a/b"}, *rows]
    shutil.rmtree(place / "scorecards")
    (place / "scorecards").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), place / "scorecards" / "cards.parquet")
    for _ in range(2):  # the second time from the cache
        found = {one.key for one in read(place).entries}
        assert found >= {row["key"] for row in rows[3:]}
        assert len([one for one in read(place).refused if "is no key of a card" in one.file]) == 2


PARQUETS = {  # key, card, samples of rows; a cell is repeated by a number, or packed a thousand times
    "a card of 300 MB": lambda: (["a/b/c"], [" " * (300 << 20)], [b""]),
    "a card, repeated": lambda: ([f"a/{n}/c" for n in range(16)], [" " * (30 << 20)] * 16, [b""] * 16),
    "rows without end": lambda: ([f"a/{n}/c" for n in range(50_000)], ["{}"] * 50_000, [None] * 50_000),
}


@pytest.mark.parametrize("rows", PARQUETS.values(), ids=PARQUETS)
def test_a_parquet_file_that_is_a_bomb_is_one_line_and_nothing_is_unpacked(
    rows: Callable[[], tuple[list[Any], ...]], place: Path, cache: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = zip(store.COLUMNS, rows(), (pa.string(), pa.string(), pa.binary()), strict=True)
    table = pa.table({name: pa.array(cells, kind) for name, cells, kind in kinds})
    pq.write_table(table, place / "scorecards" / "bomb.parquet", compression="zstd")
    before = time.thread_time()
    _, wrong = store.places(place)
    assert quick(time.thread_time() - before, 5.0)
    assert list(wrong) == ["bomb.parquet"]
    assert not (cache / "leaderboard" / "rows").exists()


def test_a_pipe_among_the_cards_is_named_and_not_waited_for(place: Path) -> None:
    for name in ("pipe.json", "pipe.parquet"):
        os.mkfifo(place / "scorecards" / name)
    assert store.places(place)[1] == dict.fromkeys(("pipe.json", "pipe.parquet"), "is no plain file")


def test_a_name_that_is_no_text_or_steers_a_terminal_is_named_and_stops_no_board(place: Path, tmp_path: Path) -> None:
    """A name of bytes that are no UTF-8 stopped every build; one of C1 controls reached terminals and pull requests."""
    shutil.copytree(place, tmp_path / "main")
    names = [os.fsencode("\x9b31m\x9d52;c;aGk=\x9c\u202e.json"), b"\xff\xfe.json"]
    for name in names:
        Path(os.fsdecode(os.fsencode(place / "scorecards") + b"/" + name)).write_text("{}")
    assert len(leaderboard.build(place).refusals) == 2
    assert "\\udcff\\udcfe.json" in (place / "index.html").read_text("utf-8")
    for words in (["build", str(place)], ["review", str(place), "--against", str(tmp_path / "main")]):
        for last in ([], ["--json"]):
            said = CliRunner().invoke(app, ["leaderboard", *words, *last]).output
            assert "udcff" in said
            assert not set("\x9b\x9c\x9d\u202e\udcff") & set(said)


@pytest.mark.parametrize("name", ["=cmd()", "a;=cmd()", "a\t@cmd", "a;-1+cmd"])
def test_no_cell_of_the_table_is_a_formula_whatever_divides_the_cells(name: str) -> None:
    """Where a comma divides decimals, a spreadsheet divides the lines of a CSV file at the semicolons."""
    text = tables.as_csv({column: [1] for column in tables.COLUMNS} | {"subject": [name]})
    cells = re.split("[,;\t]", text.splitlines()[1])
    assert [cell.lstrip('"')[:1] for cell in cells if "cmd" in cell] == ["'"]


# ---------------------------------------------------------------- groups


def rivals(count: int, documents: int, seed: int) -> tuple[Any, list[groups.Rival]]:
    """Subjects of a simulated test, best first, some of them with trainings."""
    maker = board_scale.Maker(1, documents, seed)
    drawn = np.random.default_rng([seed, 1])
    found = []
    for number, who in enumerate(itertools.islice(board_scale.subjects(count, drawn), count)):
        card, samples = maker.card(who, number)
        rows = [json.loads(line) for line in samples.splitlines()]
        proof = evidence.of(card.scores[0], rows)
        assert proof
        found.append((card.scores[0], groups.Rival([proof])))
    found.sort(key=lambda one: -one[0].main.value)
    return found[0][0], [one for _, one in found]


@pytest.mark.parametrize(("documents", "seed"), [(60, 1), (150, 2)])
def test_groups_are_those_of_every_test_with_a_part_of_them(documents: int, seed: int) -> None:
    found = board_scale.grouped(100, documents, seed, every=True)
    assert found["same_group"] == 100
    assert found["groups"] > 2
    assert found["tests"] < found["of_tests"] / 2
    assert found["leaders_told_from_their_equal"] == 0


def test_a_test_of_two_rows_is_done_once() -> None:
    score, found = rivals(12, 60, 0)
    before, after = known.Kept(), known.Kept()
    places = groups.tied(score, found, before, every=True)
    after.before.update(dict.fromkeys(before.used, 0.5))
    assert groups.tied(score, found, after, every=True) == [1] * 12 != places  # it is what was known that decided


def test_of_a_newcomer_only_its_own_differences_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are those of a board that knows nothing; what was kept of other labels or documents is not believed."""
    score, found = rivals(60, 60, 5)
    computed: list[int] = []
    whole = groups._Test.compute

    def compute(self: Any, those: Any) -> None:
        before = self.there.sum()
        whole(self, those)
        computed.append(int(self.there.sum() - before))

    monkeypatch.setattr(groups._Test, "compute", compute)
    fresh = groups.tied(score, found)
    assert sum(computed) == 60
    for newcomer in (0, 30, 59):
        pairs, gaps = known.Kept(), known.Kept()
        groups.tied(score, [one for one in found if one is not found[newcomer]], pairs, gaps)
        computed.clear()
        after = known.Kept(before=json.loads(json.dumps(gaps.used)))
        tests = known.Kept(before=pairs.used)
        assert groups.tied(score, found, tests, after) == fresh
        # a newcomer may lead, or make another lead: that one is met by everybody below it
        assert sum(computed) <= (60 if newcomer == 0 else 60 - fresh.index(2))
        assert computed
        computed.clear()
        assert groups.tied(score, found, known.Kept(before=tests.used), known.Kept(before=after.used)) == fresh
        assert not computed
    other = known.Kept(before=after.used | {"key": "of other labels"})
    computed.clear()
    assert groups.tied(score, found, None, other) == fresh
    assert sum(computed) == 60


def test_values_of_other_labels_are_tested_against_nobody(place: Path) -> None:
    """A forger's labels, which no verification has seen, do not stop the others."""
    score, found = rivals(4, 60, 0)
    forged = groups.Rival([evidence.of(score, [
        {"task": score.task, "index": n, "doc": str(n), "cluster": str(n), "answer": "x",
         "values": {"macro_f1": ["a", "b", ["a", "b"]]}} for n in range(60)
    ])])  # fmt: skip
    object.__setattr__(forged.runs[0], "docs", found[0].runs[0].docs)
    assert groups.tied(score, [*found[:2], forged, *found[2:]])[2] is None


def proof(metric: str, values: list[Any]) -> tuple[Any, groups.Rival]:
    """A subject of a test of as many sources, and its score."""
    score: Any = type("S", (), {"task": "finbench_fpb", "main_metric": metric})
    row = {"task": score.task}
    rows = [row | {"index": n, "doc": n, "cluster": n, "values": {metric: own}} for n, own in enumerate(values)]
    found = evidence.of(score, rows)
    assert found
    return score, groups.Rival([found])


@pytest.mark.parametrize("documents", [300, 1000])
@pytest.mark.parametrize("rare", [3, 4])
@pytest.mark.parametrize("err", [False, True])
def test_a_rare_class_alone_tells_nobody_apart(documents: int, rare: int, err: bool) -> None:
    """The best has all of a class right, the other none; else they are as good, perhaps with errors unlike."""
    labels = ["a", "b", "rare"]
    gold = ["rare"] * rare + [labels[n % 2] for n in range(documents - rare)]

    def said(of_rare: str, wrong: int) -> list[Any]:
        other = {"a": "b", "b": "a"}
        found = [other.get(own, own) if err and n % 21 == wrong else own for n, own in enumerate(gold)]
        return [[right, own, labels] for right, own in zip(gold, [of_rare] * rare + found[rare:], strict=True)]

    (score, one), (_, other) = proof("macro_f1", said("rare", 5)), proof("macro_f1", said("a", 6))
    assert groups.tied(score, [one, other], every=True) == [1, 1]
    assert groups.tied(score, [one, other]) == [1, 1]


@pytest.mark.parametrize("every", [False, True])
def test_no_p_is_below_what_swaps_of_so_many_sources_give(every: bool) -> None:
    """2 / 2^15 times 850 subjects is more than 5 %, though the difference hardly varies."""
    score, one = proof("acc", [1.0] * 15)
    _, other = proof("acc", [0.0] * 14 + [0.01])
    assert groups.tied(score, [one, *[other] * 850], every=every) == [1] * 851
    assert groups.tied(score, [one, *[other] * 800], every=every) == [1, *[2] * 800]


@pytest.mark.parametrize("odd", [{"sources": tuple(n // 2 for n in range(60))}, {"samples": 2}])
def test_a_p_does_not_depend_on_the_row_that_leads(odd: dict[str, Any]) -> None:
    """One of other sources, or of other samples, cannot be tested, and changes nobody's test."""
    score, found = rivals(4, 60, 0)
    alone, beside = known.Kept(), known.Kept()
    places = groups.tied(score, found[1:], alone, every=True)
    other = groups.Rival([replace(found[0].runs[0], **odd)])
    assert groups.tied(score, [other, *found[1:]], beside, every=True) == [None, *places]
    assert alone.used == beside.used != {}


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("kinds", [2, 4, 30])
def test_swaps_are_those_of_one_source_after_the_other(kinds: int, together: int) -> None:
    """Whether equal swaps are looked at once, of few kinds of answers, or each, of many and of sources of several."""
    drawn = np.random.default_rng(kinds)
    said = drawn.integers(kinds, size=(5, 120)) / kinds
    score, first = proof("acc", said[0].tolist())
    found = [first, *(proof("acc", row.tolist())[1] for row in said[1:])]
    sources = tuple(n // together for n in range(120)) if together > 1 else None
    found = [groups.Rival([replace(one.runs[0], sources=sources)]) for one in found]
    test = groups._Test(score, found[0].runs[0], known.Kept(), known.Kept(), False)
    assert test.enter(list(enumerate(found))) == [0, 1, 2, 3, 4]
    test.compute(np.arange(5))
    deviations, _ = test._swapped(0, np.arange(1, 5))
    units = said.reshape(5, -1, together)
    assert test.value == pytest.approx(units.mean(axis=(1, 2)), rel=1e-12)
    for other, deviation in zip(units[1:], deviations, strict=True):
        gap, moved = units[0].mean() - other.mean(), []
        for n in range(len(other)):
            a, b = units[0].copy(), other.copy()
            a[n], b[n] = other[n], units[0][n]
            moved.append((gap - (a.mean() - b.mean())) / 2)
        assert deviation == pytest.approx(np.sqrt(np.sum(np.square(moved))), rel=1e-12)


def test_documents_are_those_of_the_strongest_evidence_not_of_the_most_cards() -> None:
    """Many cards with invented documents take the groups from nobody whose model a maintainer has asked again."""
    score, found = rivals(4, 60, 0)
    forged = [groups.Rival([replace(found[0].runs[0], docs="invented")]) for _ in range(9)]
    honest = [replace(one, strength=2) if number == 3 else one for number, one in enumerate(found)]
    assert groups.tied(score, [*forged, *honest]) == [*[None] * 9, *groups.tied(score, honest)]
    assert groups.tied(score, [*forged, *found]) == [*[1] * 9, *[None] * 4]  # of equal evidence most have them


def test_labels_are_those_of_who_came_first_not_of_the_best() -> None:
    """The values of the best, of labels that only its forger has, keep nobody else out of the groups."""
    score, found = rivals(4, 60, 0)
    honest = [replace(one, arrival=number) for number, one in enumerate(found)]
    other = replace(found[0].runs[0], kinds=('["a","b",["a","b"]]',), codes=np.zeros(60, np.uint32))
    assert groups.tied(score, [groups.Rival([other]), *honest]) == [None, *groups.tied(score, honest)]


def test_only_tests_next_to_where_holm_stops_are_done_and_estimates_that_miss_it_are_found_out() -> None:
    """Every p is a quarter or four times its estimate, so that the border lies elsewhere: it is found all the same."""
    estimates = np.geomspace(1e-9, 0.9, 3000)
    for factor, most in ((0.25, 700), (1.0, 40), (4.0, 700)):
        exact, asked = np.minimum(1.0, factor * estimates), []

        def ask(at: int, exact: Any = exact, asked: list[int] = asked) -> float:
            asked.append(at)
            return float(exact[at])

        told = deciding.decided(estimates / 8, np.minimum(0.999, estimates * 8), ask)
        assert (told == deciding.rejected(exact)).all()
        assert len(asked) < most


def test_invented_documents_of_the_best_take_no_group_from_the_others() -> None:
    score, found = rivals(4, 60, 0)
    forged = groups.Rival([replace(found[0].runs[0], docs="invented")])
    assert groups.tied(score, [forged, *found[1:]]) == [None, *groups.tied(score, found[1:])]
    assert groups.tied(score, found[1:])[0] == 1


# ---------------------------------------------------------------- bad input


def test_a_card_of_a_thousand_tasks_is_refused_by_name(place: Path) -> None:
    path = place / "scorecards" / f"{newcomer(place)}.json"
    scores = cardfiles.read(path).model_dump(mode="json", by_alias=True)["scores"]
    changed(path, lambda card: card.update(scores=[scores[0] | {"task": f"finbench_{n}"} for n in range(1_000)]))
    [refused] = read(place).refused
    assert "is not a task of this finbench" in " ".join(refused.faults)
    assert "more: finbench verify" in refused.faults[-1]
    assert len(refused.faults) == 4


def test_a_card_that_no_check_foresaw_is_named_and_stops_no_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, look = newcomer(place), examine.verify

    def surprised(path: Path, **more: Any) -> Any:
        return look(path, **more) if path.stem != "newcomer" else {}[path]

    monkeypatch.setattr(examine, "verify", surprised)
    found = read(place)
    assert [(one.file, one.faults) for one in found.refused] == [(f"{key}.json", ["cannot be read (KeyError)"])]
    assert len(found.entries) == 5


def test_a_name_of_500_characters_is_refused_by_rule(place: Path) -> None:
    path = place / "scorecards" / f"{newcomer(place)}.json"
    changed(path, lambda card: card["subject"].update(name="n" * 500))
    [refused] = read(place).refused
    assert refused.faults == ["subject.name is no name: 500 characters"]
    with pytest.raises(FinbenchError, match="no name: 500 characters"):
        leaderboard.add([path], to=place)
    assert len(cardfiles.slug("n" * 500)) <= 100


def test_300_versions_of_a_subject_are_one_row_and_its_history(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = entries(place)
    versions = [replace(found[0], key=f"owner-0/subject-0/v{number}", arrival=math.inf) for number in range(300)]
    made = board([*found, *versions])
    assert [len(test.rows) for test in made.tests] == [5] * TASKS
    assert len(made.entries) == 5
    assert len(made.history["owner-0/subject-0/subject-0"]) == 300
    [line] = [line for line in capsys.readouterr().err.splitlines() if "not count" in line]
    assert "/v10.json and 297 more do not count on finqa, fpb, tfns_mc: owner-0/subject-0/subject-0.json of" in line
    payload = Payload(made)
    shown = [payload.subject(one) for one in payload.subjects.values()]
    assert [(len(one.get("history", [])), one.get("past")) for one in shown if "past" in one] == [(100, 300)]


# ---------------------------------------------------------------- a pull request


def test_a_pull_request_is_told_where_its_card_would_stand(place: Path, made: Path, tmp_path: Path) -> None:
    key = newcomer(place, ability=9.0)
    found = leaderboard.review(place, made)
    assert (found.new, found.faults) == ([key], [])
    assert [(one.place, one.of) for one in found.standings] == [(1, 6)] * TASKS
    command = ["leaderboard", "review", str(place), "--against", str(made), "--comment", str(tmp_path / "c.md")]
    assert CliRunner().invoke(app, command).exit_code == 0
    text = (tmp_path / "c.md").read_text()
    assert text.startswith("**Fit to be taken**: 1 new scorecard.")
    assert "| `newcomer` | `fpb` | 1 of 6 |" in text
    shown = found.standings[0]
    assert f"| {100 * shown.value:.1f} [" in text  # as on the page, in percent


def test_two_cards_of_a_request_of_one_subject_count_in_its_order(place: Path, made: Path) -> None:
    key = newcomer(place, ability=9.0)
    path = place / "scorecards" / f"{key}.json"
    again = path.with_name("again.json")
    shutil.copy(path, again)
    shutil.copy(cardfiles.samples_path(path), cardfiles.samples_path(again))
    keys = [key, f"{Path(key).parent}/again"]
    before = [line for line in (place / precedence.ARRIVALS).read_text().splitlines() if line not in keys]
    for order in (keys, keys[::-1]):
        (place / precedence.ARRIVALS).write_text("\n".join([*before, *order]) + "\n")
        found = leaderboard.review(place, made)
        assert (found.new, found.faults) == (sorted(keys), [])
        assert {one.card for one in found.standings} == {order[0]}
    (place / precedence.ARRIVALS).write_text("\n".join(before) + "\n")
    refused = next(one.faults[0] for one in board(entries(place)).refused if one.file == f"{key}.json")
    assert "write stranger/newcomer/again or" in refused
    assert refused.endswith("into arrivals.txt, or take one of the two out")


def test_a_new_card_without_its_line_is_refused_and_told_what_to_type(place: Path, made: Path) -> None:
    """Who takes such a card would never know which was first: any later card of the same answers puts both out."""
    key = newcomer(place)
    (place / precedence.ARRIVALS).write_bytes((made / precedence.ARRIVALS).read_bytes())
    text = leaderboard.review(place, made).comment
    assert f"`{key}.json has no line in arrivals.txt. Write one: echo {key} >> leaderboards/arrivals.txt`" in text


def test_two_writers_lose_no_line_of_the_order(tmp_path: Path) -> None:
    children = []
    for writer in range(2):
        child = os.fork()
        if child == 0:
            for number in range(40):
                precedence.arrived(tmp_path, [f"card-{writer}-{number}"])
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(precedence.arrivals(tmp_path)) == 80


def test_the_lock_of_a_clone_is_passed_over_and_nothing_else_by_its_name(place: Path, made: Path) -> None:
    key, lock = newcomer(place), place / "scorecards" / ".lock"
    lock.touch()
    assert leaderboard.review(place, made).new == [key]
    assert leaderboard.review(place, made).faults == []
    lock.write_text("mine")
    assert "scorecards/.lock is no card" in "\n".join(leaderboard.review(place, made).faults)


def test_what_a_pull_request_may_not_change_is_named(place: Path, made: Path) -> None:
    key = newcomer(place, "`@everyone` | <img src=x>")
    root = place / "scorecards" / "owner-0"
    shutil.rmtree(root / "subject-0")
    (root / "subject-1" / "subject-1.json").write_text("{}")
    (place / "allowed_signers").write_text("me")
    lines = (place / precedence.ARRIVALS).read_text().splitlines()
    (place / precedence.ARRIVALS).write_text("\n".join([key, *lines]))
    text = "\n".join(leaderboard.review(place, made).faults)
    for said in (
        "subject-0.json was taken away",
        "subject-1.json was edited",
        "allowed_signers changes together",
        "arrivals.txt changes otherwise than at its end",
    ):
        assert said in text
    assert CliRunner().invoke(app, ["leaderboard", "review", str(place), "--against", str(made)]).exit_code == 1


def test_what_a_pull_request_brings_or_takes_beside_cards_is_named(place: Path, made: Path) -> None:
    cards = place / "scorecards"
    samples = min(cards.rglob("*.samples.jsonl.zst"))
    samples.unlink()
    (cards / "notes.txt").write_text("mine")
    (place / "adapters").mkdir(exist_ok=True)
    (place / "adapters" / "0123456789abcdef.json").write_text("{}")  # of an adapter that is on the board already
    (cards / "owner-0" / "subject-0" / "link.txt").symlink_to("/etc/hostname")
    with (place / precedence.ARRIVALS).open("a") as file:
        file.write("evil/copy/next-year\n")
    text = "\n".join(leaderboard.review(place, made).faults)
    for said in (
        f"{samples.relative_to(place).as_posix()} was taken away",
        "notes.txt is no card, nor the samples or the training of a new one",
        "adapters/0123456789abcdef.json is no card, nor the samples or the training of a new one",
        "link.txt is a link",
        "arrivals.txt names evil/copy/next-year, which is no new card",
    ):
        assert said in text


def test_a_stranger_says_nothing_of_the_training_of_an_adapter_that_is_on_the_board(place: Path) -> None:
    committed = Path(__file__).parent.parent / "leaderboards"
    cards = [committed / f"scorecards/headlines-smollm2-135m-dora-16bit-limit400-s{seed}.json" for seed in (0, 1)]
    known, another = (cardfiles.read(card).subject for card in cards)

    def trained(owner: str, subject: Subject, **said: Any) -> str:
        """A card of an adapter; returns where the record of its training lies."""
        told = subject.model_copy(update=said).model_dump(mode="json")
        path = place / "scorecards" / f"{newcomer(place, f'of-{subject.seed}', owner)}.json"
        changed(path, lambda card: card["subject"].update({name: told[name] for name in told if name != "name"}))
        return attested.training_file(subject)

    def refused() -> list[str]:
        return [fault for fault in leaderboard.review(place, main).faults if "adapters/" in fault]

    alike = {"adapter": f"{known.adapter}"[:16].ljust(64, "0")}  # anybody can find weights whose digest begins so
    trained("earlier", known, rank=64), trained("alike", known, **alike)
    trained("first", known), trained("second", known)
    main = shutil.copytree(place, place.with_name("main"))
    theirs, own = trained("stranger", known), trained("stranger", another)
    (place / "adapters").mkdir()
    for name in (theirs, own):
        shutil.copy(committed / name, place / name)
    said = "is the training of an adapter that first/of-0/of-0.json brought: its owner adds it, or a maintainer"
    assert refused() == [f"{theirs} {said} whom you ask"]
    shutil.rmtree(place / "scorecards" / "stranger" / "of-0")
    newcomer(place, "again", "first")
    told = known.model_dump(mode="json")
    changed(place / "scorecards/first/again/again.json", lambda card: card["subject"].update(told | {"name": "again"}))
    assert refused() == []


def test_names_in_a_comment_can_neither_call_nor_link(place: Path, made: Path) -> None:
    path = place / "scorecards" / f"{newcomer(place)}.json"
    changed(path, lambda card: card["subject"].update(name="`@all` | [x](http://y)\n# z"))
    text = leaderboard.review(place, made).comment
    assert "| `@all    [x](http://y) # z` |" in text


def test_the_benchmark_compares_groups_with_the_truth(place: Path) -> None:
    leaderboard.build(place)
    found = board_scale.agreement(place, json.loads((place.with_name("truth.json")).read_text()))
    assert found["tests"] == TASKS
    assert found["leaders_told_from_their_equal"] == 0


def test_the_page_of_the_benchmark_says_which_goals_are_missed_and_which_board_is_lacking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(board_scale.__file__).parent))
    costs = importlib.import_module("board_costs")
    own = {"again_s": 8.0, "again_cpu_s": 2.0, "first_s": 600.0, "first_cpu_s": 900.0, "more_s": 5.0}
    own |= {"more_cpu_s": 5.0, "first_bytes": 10**9}
    grown = own | {"more_s": 50.0, "more_cpu_s": 50.0}
    found = {"tasks": 20, "documents": 100, "hardware": {"cores": 2, "cpu": "X"}, "boards": {"100": own, "1000": grown}}
    text = costs.table(found)
    assert "| one card more, by the clock, s | 5.0 | 50.0 | 1.00 |" in text
    assert "No board of 5,000 subjects, for which the goals are, was measured." in text
    assert "a step took up to 4.0 times" in text
    assert "- one card more, by the clock, s, at most 20: about 299.0, **missed**." in text
    assert "- first build, by the clock, s, at most 900: about 600, met." in text
    text = costs.table(found | {"boards": {"1000": own, "5000": grown | {"review_s": 60.0, "review_cpu_s": 59.0}}})
    assert "- first build, by the clock, s, at most 900: 600, met." in text
    request = "- a pull request of a card, reviewed, taken and built, of processor, s, at most 60: "
    assert f"{request}109, **missed**." in text
    assert "on a phone's screen, ms, at most 1,000: not measured." in text
