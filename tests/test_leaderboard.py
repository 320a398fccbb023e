"""The leaderboard: only equals are compared, groups by tests, nothing unfit gets in, text of cards stays text."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from huggingface_hub import HfApi, hf_hub_download
from hypothesis import given
from hypothesis import strategies as st
from test_verification import change
from typer.testing import CliRunner

import boards
from boards import read_script
from conftest import TOKEN, upload
from finbench import leaderboard
from finbench.cards import cardfiles
from finbench.cli.app import app
from finbench.core import threads
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, sha256_file
from finbench.core.seal import card_seal
from finbench.data.sources import import_data
from finbench.hub.dev.calls import DevAccount
from finbench.hub.dev.server import DevHub
from finbench.leaderboard import (
    attested,
    breakdown,
    commands,
    details,
    evidence,
    intake,
    page,
    published,
    signing,
    space,
    tables,
    texts,
)
from finbench.leaderboard.board import Board, _place, _placed, board, front
from finbench.leaderboard.deciding import rejected, two_sided
from finbench.leaderboard.groups import Rival, tied
from finbench.leaderboard.payload import Payload
from finbench.leaderboard.reading import entries, read
from finbench.training import recipes
from make_data import as_whole, write_sources

ROOT = Path(__file__).parent.parent
FEEDS = (("guess", 3), ("guess", 4), ("gold", 3))  # card that many subjects have, and how many
SETS = ("fpb", "headlines", "fin_ner", "fiqa_sa")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    sources = write_sources(place / "sources")
    for name in SETS:
        import_data(name, sources[name], place)
    as_whole(place)
    return place


@pytest.fixture(scope="module")
def original(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leaderboard with its files; do not write into it."""
    place = boards.folder(tmp_path_factory.mktemp("board") / "leaderboards", data)
    leaderboard.build(place)
    return place


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """A copy to alter."""
    shutil.copytree(original, tmp_path / "board")
    return tmp_path / "board"


@pytest.fixture(scope="module")
def made(original: Path) -> Board:
    return board(entries(original))


# ---------------------------------------------------------------- who is compared with whom


def test_the_one_that_knows_leads_what_was_not_trained_and_no_other_training_of_unknown_seeds(made: Board) -> None:
    test = next(test for test in made.tests if test.task == "fpb" and test.whole)
    assert (test.rows[0].entry.key, test.rows[0].group) == ("gold", 1)
    assert {(row.entry.key, row.group) for row in test.rows[1:]} == {("base", 2), ("guess", 1)}
    assert "no training is grouped above another" in tables.seeds(test)


def test_a_part_of_a_set_is_said_everywhere_and_is_no_whole_test(tmp_path: Path) -> None:
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    path = boards.scored(tmp_path / "cards", tmp_path / "data", ["fpb"])
    card = cardfiles.read(path)
    assert card.status == "partial"
    assert card.scores[0].data.share == round(120 / 4846, 4)
    assert "2.5 % of the test" in (path.parent / "report.html").read_text()
    place = tmp_path / "board"
    boards.renamed(path, place / "scorecards" / "one.json", **boards.adapter(1))
    made = board(entries(place))
    [test] = made.tests
    assert (test.whole, test.sampled) == (False, False)
    assert "2.5 % of the test" in test.conditions
    text = tables.markdown(made, [])
    assert f", 2.5 % of the test: macro-F1 in %, n = {test.score.n}" in text
    assert "a sample of" not in text


def test_first_rows_never_stand_beside_whole_tests(made: Board) -> None:
    for test in made.tests:
        limited = {row.entry.card.limit is not None for row in test.rows}
        assert len(limited) == 1
        assert test.whole is not limited.pop()
    partial = [test for test in made.tests if not test.whole]
    assert {test.score.n for test in partial} == {9, 10}  # whole headlines of nine questions
    assert all(row.group is None for test in partial for row in test.rows)  # one alone is level with nobody


def test_another_prompt_is_another_task(original: Path) -> None:
    found = entries(original)
    chat = found[0].card
    chat = chat.model_copy(update={"subject": chat.subject.model_copy(update={"chat": True})})
    other = boards.BoardCard("chat", chat, found[0].samples, found[0].found, found[0].level)
    made = board([*found, other])
    assert {test.title for test in made.tests if "chat" in test.title} == {
        f"{test.task}, chat template" for test in made.tests if test.whole
    }
    assert all(len(test.rows) == 1 for test in made.tests if "chat" in test.title)


def test_of_one_subject_the_card_that_came_first_counts_whatever_its_date(original: Path) -> None:
    found = entries(original)
    again = found[0].card
    for created in ("2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"):
        dated = again.model_copy(update={"provenance": again.provenance.model_copy(update={"created": created})})
        other = boards.BoardCard("later", dated, found[0].samples, found[0].found, "samples-attached", arrival=9)
        first = replace(found[0], arrival=0)
        for test in board([other, first, *found[1:]]).tests:
            assert "later" not in [row.entry.key for row in test.rows]


def test_without_samples_there_is_no_group(original: Path) -> None:
    found = [boards.BoardCard(entry.key, entry.card, {}, entry.found, "self-reported") for entry in entries(original)]
    assert {row.group for test in board(found).tests for row in test.rows} == {None}


def test_who_is_not_above_a_constant_has_no_group(made: Board) -> None:
    """A constant is put between the guessing subjects and the one that knows the answers, and then above all."""
    test = next(test for test in made.tests if test.task == "fpb" and test.whole)
    values = [row.score.main.value for row in test.rows]
    before, scores = [row.group for row in test.rows], [row.score for row in test.rows]
    for constant, expected in ((values[1], [None] * len(values)), (-1.0, before)):
        stated = {"majority": {test.score.main_metric: constant}, "random": {test.score.main_metric: 2.0}}
        for row, score in zip(test.rows, scores, strict=True):
            row.score = score.model_copy(update={"baselines": stated})
        _place(test, _placed(test))
        assert [row.group for row in test.rows] == expected
    for row, score in zip(test.rows, scores, strict=True):
        row.score = score
    _place(test, _placed(test))
    assert before[0] == 1


def rival(score: Any, rows: list[dict[str, Any]]) -> Rival:
    proof = evidence.of(score, rows)
    assert proof
    return Rival([proof])


def test_a_group_is_not_the_best_alone_among_many_equals() -> None:
    """40 subjects that guess alike: the best of them by luck leads nobody."""
    draw = random.Random(1)
    score: Any = type("S", (), {"task": "finbench_fin_math", "main_metric": "acc"})
    samples = [
        [
            {
                "task": "finbench_fin_math",
                "index": i,
                "doc": i,
                "cluster": i,
                "values": {"acc": float(draw.random() < 0.5)},
            }
            for i in range(120)
        ]
        for _ in range(40)
    ]
    samples.sort(key=lambda rows: -sum(row["values"]["acc"] for row in rows))
    assert tied(score, [rival(score, rows) for rows in samples]) == [1] * 40
    samples[-1] = [row | {"values": {"acc": 0.0}} for row in samples[-1]]
    assert tied(score, [rival(score, rows) for rows in samples]) == [*[1] * 39, 2]


def test_holm_over_a_thousand_subjects_can_still_tell() -> None:
    """The least p of 10,000 permutations is too large for 1,000 tests at once; the tail takes over."""
    tail = two_sided(np.full(1000, 0.2), np.full(1000, 0.01))
    assert rejected(tail).all()
    assert not rejected(np.full(1000, 1 / 10_001)).any()


points = st.lists(
    st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(1, 9)), st.sampled_from("ab")), max_size=12
)


@given(points)
def test_the_front_is_who_is_not_beaten(found: list[tuple[int, int | None, str]]) -> None:
    on = front([g for g, _, _ in found], [c for _, c, _ in found], [m for _, _, m in found])
    for (good, cost, machine), mine in zip(found, on, strict=True):
        if cost is None:
            assert not mine
            continue
        beaten = [
            o
            for o in found
            if o[2] == machine and o[1] is not None and o[0] >= good and o[1] <= cost and o[:2] != (good, cost)
        ]
        assert mine is not bool(beaten)


# ---------------------------------------------------------------- what is written


def test_files_are_what_the_cards_give_and_a_stale_one_is_named(place: Path) -> None:
    assert leaderboard.build(place, check=True).stale == []
    texts = ["leaderboard.md", "leaderboard.csv", "leaderboard.json", "index.html", "feed.atom", "page/cards.js"]
    for name in texts:
        text = (place / name).read_text()
        (place / name).write_text(text.replace("adapter-2", "adapter-5"))
        assert leaderboard.build(place, check=True).stale == [name]
        (place / name).write_text(text)
    gone = f"page/details/{digest('guess')[:12]}.js"
    (place / "scorecards" / "guess.json").unlink()
    stale = leaderboard.build(place, check=True).stale
    assert {*texts, gone, "leaderboard.parquet"} <= set(stale)
    leaderboard.build(place)
    assert not (place / gone).exists()
    assert leaderboard.build(place, check=True).stale == []


def test_only_what_changed_is_written(place: Path) -> None:
    changed = place / "page" / "details" / f"{digest('gold')[:12]}.js"
    changed.write_text("/* finbench leaderboard */ torn")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    leaderboard.build(place)
    after = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert [path for path in after if after[path] != before.get(path)] == [changed]


def test_two_processes_make_what_one_makes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for path in (place / "leaderboard.csv", place / "leaderboard.parquet", place / "index.html"):
        path.unlink()
    real, copied = os.fork, []

    def fork() -> int:
        copied.append(real())
        return copied[-1]

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[_place.__module__], "_MANY", 1)
        patch.setattr(threading, "active_count", lambda: 1)
        patch.setattr(threads, "cores", lambda: 2.0)
        patch.setattr(os, "fork", fork)
        leaderboard.build(place)
    assert len(copied) == 2  # one places half of the tests, one makes the tables
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_details_whose_text_was_edited_are_stale(place: Path) -> None:
    path = place / "page" / "details" / f"{digest('gold')[:12]}.js"
    path.write_text(path.read_text().replace("samples", "Samples"))
    assert leaderboard.build(place, check=True).stale == [f"page/details/{path.name}"]


def test_a_board_may_keep_its_page_out_of_git(place: Path) -> None:
    shutil.rmtree(place / "page")
    (place / "index.html").unlink()
    assert leaderboard.build(place, check=True).stale == []
    with pytest.raises(FinbenchError, match="holds no page yet"):
        space.publication(place, place.parent / "out")


def test_drawings_by_other_versions_of_the_libraries_are_alike(original: Path) -> None:
    name = "page/charts.js"
    text = (original / name).read_text()
    head, _, rest = text.partition("\n")
    assert page.same(name, text, head.replace("altair", "altair 9.9, altair") + "\ndrawn otherwise")
    assert not page.same(name, text, head + "\n" + rest + "drawn otherwise")  # the same versions draw the same
    assert not page.same("page/cards.js", text, head.replace("altair", "altair 9.9, altair") + "\n" + rest)


def test_a_faulty_card_is_named_and_stops_no_other(place: Path) -> None:
    path = place / "scorecards" / "gold.json"
    path.write_text(path.read_text().replace('"rank": 8', '"rank": 9'))
    (place / "scorecards" / "torn.json").write_text("{")
    made = leaderboard.build(place)
    assert [line.partition(" was edited")[0] for line in made.refusals[:1]] == ["gold.json: subject.rank"]
    assert any(line.startswith("torn.json: ") and "is torn or not JSON" in line for line in made.refusals)
    assert sorted(entry.key for entry in made.board.entries) == ["base", "guess", "partial"]
    assert CliRunner().invoke(app, ["leaderboard", "build", str(place)]).exit_code == 0
    found = CliRunner().invoke(app, ["leaderboard", "build", str(place), "--check"])
    assert (found.exit_code, "Refused: gold.json" in found.output) == (1, True)


def test_a_board_whose_only_card_is_faulty_is_made_and_names_it(place: Path) -> None:
    first, *others = sorted((place / "scorecards").glob("*.json"))
    for card in others:
        card.unlink()
    first.write_text("{")
    told = CliRunner().invoke(app, ["leaderboard", "build", str(place)])
    assert told.exit_code == 0, told.exception
    assert f"Refused: {first.name}: " in told.stdout
    assert "0 cards, 0 tasks" in told.stdout
    assert pq.read_table(place / "leaderboard.parquet").num_rows == 0


def test_no_folder_of_cards(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="is no leaderboard"):
        leaderboard.build(tmp_path)


def test_the_table_for_programs_has_every_row(made: Board) -> None:
    columns = tables.columns(made)
    assert tuple(columns) == tables.COLUMNS
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(columns))))
    assert len(rows) == sum(len(test.rows) for test in made.tests)
    gold = next(row for row in rows if row["card"] == "gold" and row["task"] == "finbench_fpb")
    assert (gold["group"], gold["value"], gold["method"], gold["bits"]) == ("1", "1.0", "dora", "4")
    assert all(row["whole_test"] == str(row["card"] != "partial") for row in rows)
    read = json.loads(tables.as_json(columns))
    assert dict(zip(read["columns"], map(list, zip(*read["data"], strict=True)), strict=True)) == columns
    parquet = tables.as_parquet(columns)
    assert parquet
    found = pq.read_table(io.BytesIO(parquet)).to_pylist()
    assert [row["value"] for row in found] == columns["value"]
    assert [row["group"] for row in found] == columns["group"]
    assert tables.same_parquet(parquet, parquet)
    fewer = tables.as_parquet({name: values[1:] for name, values in columns.items()})
    assert fewer
    assert not tables.same_parquet(parquet, fewer)
    assert not tables.same_parquet(parquet[:-9], parquet)


def test_partial_results_have_a_drawer_of_their_own(original: Path) -> None:
    text = (original / "leaderboard.md").read_text()
    whole, _, partial = text.partition("### Sentiment, partial")
    assert "adapter-3" not in whole
    assert "| – | adapter-3 | tiny | lora, r 8 | 1 | – | – | – |" in partial
    assert "a sample of 10 rows" in partial


def test_a_partial_card_that_is_added_is_said_to_be_partial(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaderboard.add([original / "scorecards" / "partial.json"], to=tmp_path / "b")
    said = " ".join(capsys.readouterr().err.split())
    assert "partial.json is partial (" in said or "adapter-3.json is partial (" in said
    assert "a sample of 10 rows" in said
    assert "apart from those of whole tests." in said
    leaderboard.add([original / "scorecards" / "guess.json"], to=tmp_path / "b")
    assert "partial" not in capsys.readouterr().err


def test_the_first_screen_stays_light_however_many_cards(original: Path) -> None:
    card = original / "scorecards" / "guess.json"
    files = boards.texts(boards.many(card, 300, tasks=12, name="n" * 200))
    first = ("index.html", "page/board.css", "page/board.js", "page/heads.js")
    assert sum(len(files[name].encode()) for name in first) <= 500_000
    few = boards.texts(boards.many(card, 40, tasks=4))
    assert "style=" not in few["index.html"]
    policy = re.search(r'Security-Policy" content="([^"]*)"', few["index.html"])
    assert policy
    assert html.unescape(policy[1]).startswith("default-src 'none'; script-src 'self';")
    for name, text in few.items():
        assert name.endswith(".js") or "<script>" not in text  # all scripts are files
        if name != "page/charts.js":  # whose library quotes addresses that it never asks
            assert re.findall(r"https?://(?!www\.w3\.org/|WHERE-THE-BOARD-IS)", text) == [], name


def test_the_first_screen_stays_light_where_each_score_is_of_a_card_of_its_own(original: Path) -> None:
    made = Payload(boards.many(original / "scorecards" / "guess.json", 3))
    made.cards = [made.cards[0] | {"name": "<" * 200} for _ in range(6_300)]
    lines = [[n, [[0.5, 0.4, 0.6, 1, None, 300 + 20 * n + k] for k in range(20)]] for n in range(300)]
    first = made.first([{"tests": ["test"] * 20, "of": 300, "lines": lines}] * 2)
    assert len(json.dumps(first).replace("<", "\\u003c")) <= 400_000
    assert all(len(table["lines"]) >= 5 and table["of"] == 300 for table in first["overview"])


def test_markdown_shows_the_best_and_says_of_how_many(original: Path) -> None:
    text = tables.markdown(boards.many(original / "scorecards" / "guess.json", 230), [])
    assert text.count("subject-") == 100
    assert "The best 100 of 230 rows" in text


def test_one_card_more_changes_its_own_subject_and_no_other(original: Path) -> None:
    board = boards.many(original / "scorecards" / "guess.json", 6, tasks=4)
    more = boards.many(original / "scorecards" / "guess.json", 7, tasks=4)
    before, after = boards.texts(board), boards.texts(more)
    new = {name for name in after if after[name] != before.get(name)}
    assert sum(name.startswith("page/subject/") for name in new) == 3
    assert sum(name.startswith("page/details/") for name in new) == 1


def test_a_feed_keeps_its_own_mark(original: Path) -> None:
    cards = [boards.many(original / "scorecards" / f"{name}.json", count) for name, count in FEEDS]
    texts = [next(text for file, text in page.files(board) if file == "feed.atom") for board in cards]
    one, more, other = (re.findall(r"<id>(urn:uuid:[0-9a-f-]+)</id>", str(text))[0] for text in texts)
    assert one == more != other


def test_a_feed_and_a_badge_are_xml_whatever_a_name_holds(original: Path) -> None:
    name = boards.HOSTILE + "]]>\x00\x0b&amp;"
    files = boards.texts(boards.many(original / "scorecards" / "guess.json", 3, name=name))
    atom = ElementTree.fromstring(files["feed.atom"])
    space_ = "{http://www.w3.org/2005/Atom}"
    titles = [entry.findtext(f"{space_}title") for entry in atom.iter(f"{space_}entry")]
    assert len(titles) == 3
    assert all(title and title.startswith("</script><img") and "&amp;" in title for title in titles)
    for link in atom.iter(f"{space_}link"):
        assert link.get("href") in files
    badges = [ElementTree.fromstring(text) for name, text in files.items() if name.endswith(".svg")]
    assert len(badges) == 3
    assert {element.tag.partition("}")[2] for badge in badges for element in badge.iter()} == {
        "svg", "title", "rect", "path", "g", "text",
    }  # fmt: skip


def test_parts_that_are_gone_go_and_what_a_user_put_there_stays(place: Path) -> None:
    there = place / "page" / "details"
    (there / "0123456789ab.js").write_text("/* finbench leaderboard */\nfinbench()")
    (there / "mine.js").write_text("of the user")
    (there / "abcdef012345.js").write_text("// finbench leaderboard, says the user")
    (place / "page" / "subject" / "mine.html").write_text("<!doctype html>finbench leaderboard")
    assert leaderboard.build(place, check=True).stale == ["page/details/0123456789ab.js"]
    leaderboard.build(place)
    assert not (there / "0123456789ab.js").exists()
    assert {"mine.js", "abcdef012345.js"} <= {path.name for path in there.iterdir()}
    assert (place / "page" / "subject" / "mine.html").exists()


def test_text_of_cards_stays_text(original: Path) -> None:
    made = boards.many(original / "scorecards" / "guess.json", 2, name=boards.HOSTILE)
    files = boards.texts(made)
    shown = files["index.html"]
    assert "<img" not in shown
    data = re.search(r'<script type="application/json" id="first">(.*?)</script>', shown, re.DOTALL)
    assert data
    assert json.loads(data[1])["cards"]["0"]["name"] == f"{boards.HOSTILE}-0"
    assert "<" not in data[1]
    for name, text in files.items():
        if name.endswith(".js") and name not in ("page/board.js", "page/charts.js"):
            assert "<" not in text
            assert "\u2028" not in text
            assert read_script(text)[0] == name.removeprefix("page/").removesuffix(".js")
        elif name.startswith("page/") and name.endswith(".html"):
            assert "<img" not in text
    assert read_script(files["page/cards.js"])[1][0]["name"] == f"{boards.HOSTILE}-0"
    text = tables.markdown(made, [])
    assert "<img" not in text
    assert r"\[x\](javascript" in text
    [row, _] = csv.DictReader(
        io.StringIO(tables.as_csv(tables.columns(boards.many(original / "scorecards" / "guess.json", 2, name="=1+1"))))
    )
    assert row["subject"] == "'=1+1-0"


def test_pictures(original: Path, tmp_path: Path) -> None:
    written = leaderboard.pictures(original, tmp_path / "png")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert {path.name.rpartition("-")[0] for path in written} == {"fin_ner", "fiqa_score", "fpb", "headlines"}


# ---------------------------------------------------------------- a number taken apart


def test_breakdowns_count_every_document_once(made: Board) -> None:
    kinds = {}
    for test in made.tests:
        for row in test.rows:
            found = breakdown.of(row.score, row.entry.samples[test.score.task])
            assert found
            kinds[test.task] = found["kind"]
            if found["kind"] == "confusion":
                assert sum(map(sum, found["counts"])) == row.score.n
                right = sum(found["counts"][n][n] for n in range(len(found["labels"])))
                stated = {score.task: score for score in row.entry.whole().scores}[test.score.task]
                assert right / row.score.n == pytest.approx(stated.metrics["acc"].value)
            elif found["kind"] == "types":
                hits, false, missed = (sum(part[n] for part in found["rows"]) for n in (1, 2, 3))
                assert 2 * hits / max(1, 2 * hits + false + missed) == pytest.approx(row.score.main.value)
            elif found["kind"] == "questions":
                counts = [(hits, false, missed) for _, hits, false, missed, _ in found["rows"]]
                own = [one for one in counts if one[0] + one[2] >= 10]  # the others are pooled
                pooled = tuple(map(sum, zip(*(one for one in counts if one not in own), strict=True)))
                parts = [2 * h / (2 * h + f + m) for h, f, m in [*own, *([pooled] if pooled else [])]]
                assert sum(parts) / len(parts) == pytest.approx(row.score.main.value, abs=1e-3)
    assert kinds == {"fpb": "confusion", "fin_ner": "types", "headlines": "questions", "fiqa_score": "numbers"}


def test_outcomes_and_tags() -> None:
    rows = [{"values": {"acc": float(i < 3), "parse_rate": float(i < 8)}, "doc": str(i)} for i in range(10)]
    score: Any = type("S", (), {"task": "finbench_fin_math", "main_metric": "acc"})
    assert breakdown.of(score, rows) == {"kind": "outcomes", "right": 3, "wrong": 5, "unparsed": 2}
    tags = [
        {"values": {"macro_f1": [gold, read], "micro_f1": [0, 0, 0]}}
        for gold, read in [("A", "A"), ("A", "B"), ("C", None)]
    ]
    score = type("S", (), {"task": "finbench_fnxl", "main_metric": "micro_f1"})
    assert breakdown.of(score, tags) == {"kind": "tags", "rows": [["A", 2, 1, "B"], ["C", 1, 0, "unparsed"]], "of": 2}


# ---------------------------------------------------------------- what to type


def test_the_commands_are_ones_that_finbench_takes(made: Board) -> None:
    import typer

    from finbench.cli.app import app

    root: Any = typer.main.get_command(app)
    for entry in made.entries:
        for _, command in commands.reproduce(entry).steps:
            words = shlex.split(command)
            if words[0] == "finbench":
                context = root.make_context("finbench", words[1:], resilient_parsing=False)
                name, sub, rest = root.resolve_command(context, words[1:])
                sub.make_context(name, list(rest), parent=context)


def test_names_in_commands_are_one_word_for_a_shell(original: Path) -> None:
    evil = "x; rm -rf ~ #$(touch hacked)`id`\n"
    entry = boards.many(original / "scorecards" / "guess.json", 1, name=evil).entries[0]
    subject = entry.card.subject.model_copy(
        update={"adapter_name": evil, "base": entry.card.subject.base.model_copy(update={"alias": evil})}
    )
    card = entry.card.model_copy(update={"subject": subject, "engine": evil, "arguments": {evil: evil}})
    found = [card, card.model_copy(update={"origin": "lm-eval"})]
    entries_ = [boards.BoardCard(evil, one, {}, entry.found, "self-reported") for one in found]
    for _, command in [step for one in entries_ for step in commands.reproduce(one).steps]:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        words = list(lexer)
        assert not {";", "&", "|", "<", ">", "(", ")"} & set(words), command
        assert words[0] in ("finbench", "ls", "lm_eval")


# ---------------------------------------------------------------- what gets in


def test_adding_a_card_twice_is_adding_it_once(original: Path, tmp_path: Path) -> None:
    source = original / "scorecards" / "guess.json"
    [first] = leaderboard.add([source], to=tmp_path / "b")
    [second] = leaderboard.add([source], to=tmp_path / "b")
    assert first == second == tmp_path / "b" / "scorecards" / "adapter-1.json"
    assert cardfiles.read_samples(first) == cardfiles.read_samples(source)
    other = boards.renamed(source, tmp_path / "other.json", **boards.adapter(7, name="adapter-1"))
    [third] = leaderboard.add([other], to=tmp_path / "b")
    assert third.name.startswith("adapter-1-")
    assert cardfiles.read(first).seal == cardfiles.read(source).seal  # what was there is as it was


def test_nothing_is_added_where_one_card_is_unfit(original: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    shutil.copy(original / "scorecards" / "gold.json", bad)
    shutil.copy(original / "scorecards" / "gold.samples.jsonl.zst", tmp_path / "bad.samples.jsonl.zst")
    bad.write_text(bad.read_text().replace('"rank": 8', '"rank": 9'))
    with pytest.raises(FinbenchError, match=r"bad.json: subject.rank was edited"):
        leaderboard.add([original / "scorecards" / "guess.json", bad], to=tmp_path / "b")
    assert not (tmp_path / "b" / "scorecards").exists()


def test_cards_of_tasks_that_are_never_shown_are_refused(data: Path, tmp_path: Path) -> None:
    card = boards.renamed(boards.scored(tmp_path, data, ["mini_sentiment"]), tmp_path / "mini.json")
    with pytest.raises(FinbenchError, match=r"none of its tasks is shown \(mini_sentiment\)") as caught:
        leaderboard.add([card], to=tmp_path / "b")
    assert "finbench eval --tasks sentiment" in caught.value.hint


LEAKS = [
    ("answer", lambda row: row.update(answer="Profit of the company rose to EUR 3.1 mn."), "answer"),
    ("another key", lambda row: row.update(prompt="Sentence: Profit rose"), "prompt"),
    ("a hash that is none", lambda row: row.update(cluster="Profit rose"), "cluster"),
    (
        "a metric",
        lambda row: row["values"].update(finlora_acc=["Profit rose to EUR 3.1 mn", "positive"]),
        "values.finlora_acc",
    ),
    ("a hidden value", lambda row: row["values"].update(x={"sha256": "Profit rose"}), "values.x"),
    ("a key of a value", lambda row: row["values"].update(x={"Profit rose to EUR 3.1 mn": 1}), "values.x"),
]


@pytest.mark.parametrize(
    ("alter", "where"), [(alter, where) for _, alter, where in LEAKS], ids=[name for name, _, _ in LEAKS]
)
def test_restricted_texts_are_found_wherever_they_hide(alter: Any, where: str, original: Path) -> None:
    rows = [
        row for row in cardfiles.read_samples(original / "scorecards" / "guess.json") if row["task"] == "finbench_fpb"
    ]
    assert texts.restricted(rows) == []
    alter(rows[4])
    [found] = texts.restricted(rows)
    assert found.startswith(f"samples[finbench_fpb].{where} holds text that may not be published")


BESIDE = {
    "year": 2024,
    "confidence": 80,
    "sample": 1,
    "reading": "0123456789abcdef",
    "reasoning_tokens": 400,
    "answer_tokens": 3,
    "truncated": False,
}


@pytest.mark.parametrize("key", BESIDE)
def test_numbers_beside_an_answer_are_no_text_and_words_in_their_place_are(key: str, original: Path) -> None:
    rows = cardfiles.read_samples(original / "scorecards" / "guess.json")
    assert texts.restricted([row | {key: BESIDE[key]} for row in rows]) == []
    for held in ("Profit rose to EUR 3.1 mn", 10**300, [1], None):
        [found] = texts.restricted([rows[0] | {key: held}])
        assert f"].{key} holds text that may not be published" in found


def test_what_other_prompts_gave_is_looked_at_as_a_row_is(original: Path) -> None:
    rows = cardfiles.read_samples(original / "scorecards" / "guess.json")
    [row, *_] = (row for row in rows if row["task"] == "finbench_fpb")
    part = {"values": row["values"], "answer_sha256": "0" * 32, "place": "first"}
    assert texts.restricted([row | {"prompts": {"cue": part}}]) == []
    said = "Profit rose to EUR 3.1 mn"
    assert texts.restricted([row | {"prompts": {"cue": part | {"place": ""}}}]) == []
    for held in ({"cue": part | {"answer": said}}, {"cue": part | {"place": said}}, {said: part}, {"cue": said}, said):
        [found] = texts.restricted([row | {"prompts": held}])
        assert "].prompts" in found


def test_a_card_whose_documents_have_years_is_added(original: Path, tmp_path: Path) -> None:
    card = Path(shutil.copy(original / "scorecards" / "gold.json", tmp_path / "gold.json"))
    shutil.copy(cardfiles.samples_path(original / "scorecards" / "gold.json"), cardfiles.samples_path(card))
    change(card, lambda found, rows: [row.update(year=2024) for row in rows] and None, careful=True)
    leaderboard.add([card], to=tmp_path / "b")
    assert [entry.level for entry in entries(tmp_path / "b")] == ["samples-attached"]


@pytest.mark.parametrize("values", [None, 3, [], "text"])
def test_rows_that_are_no_rows_are_refused(values: Any) -> None:
    assert texts.restricted([{"task": "finbench_fpb", "index": 0, "values": values}]) == [
        "samples[finbench_fpb].values holds text that may not be published (1 row)"
    ]


def test_samples_that_would_fill_memory_are_refused(original: Path, tmp_path: Path) -> None:
    card = shutil.copy(original / "scorecards" / "gold.json", tmp_path)
    samples = cardfiles.samples_path(Path(card))
    samples.write_bytes(zstandard.compress(b"{}\n" * 11_000_000))
    stated = json.loads(Path(card).read_text())
    Path(card).write_text(json.dumps({**stated, "samples": sha256_file(samples)}))
    with pytest.raises(FinbenchError, match="larger than any samples file can be"):
        leaderboard.add([card], to=tmp_path / "b")


def test_the_check_of_a_pull_request_refuses_restricted_texts(place: Path, tmp_path: Path) -> None:
    path = place / "scorecards" / "guess.json"
    rows = cardfiles.read_samples(path)
    for row in rows:
        if row["task"] == "finbench_fpb":
            del row["answer_sha256"]
            row["answer"] = row["values"]["macro_f1"][1]
    cardfiles.write(path, cardfiles.read(path), rows)
    [refused] = leaderboard.build(place, check=True).board.refused
    assert (refused.file, "samples[finbench_fpb].answer holds text" in refused.faults[0]) == ("guess.json", True)
    with pytest.raises(FinbenchError, match="holds text that may not be published"):
        leaderboard.add([path], to=tmp_path / "b")


def test_a_trained_adapter_brings_its_recipe_and_can_be_reproduced(llama: Path, data: Path, tmp_path: Path) -> None:
    from finbench.evaluation import evaluator
    from finbench.training import runner

    options = {
        "base": str(llama),
        "tasks": ["fpb"],
        "rank": 4,
        "limit": 16,
        "epochs": 2,
        "batch_size": 4,
        "lr": 1e-2,
        "dtype": "float32",
    }
    recipe = recipes.recipe(None, options | {"name": "tiny-fpb"})
    runner.train(recipe, tmp_path / "a", data_dir=data)
    evaluator.evaluate(
        [str(tmp_path / "a")],
        base=str(llama),
        tasks=["fpb"],
        out=tmp_path / "c",
        data_dir=data,
        arguments={"dtype": "float32"},
    )
    card = next(path for path in (tmp_path / "c").glob("*.json") if cardfiles.read(path).subject.adapter)
    with pytest.raises(FinbenchError, match="of one card, here are 2"):
        leaderboard.add([tmp_path / "c"], to=tmp_path / "b", adapter=str(tmp_path / "a"))
    options = {"to": tmp_path / "b", "adapter": str(tmp_path / "a"), "base": str(llama), "data_dir": data}
    other = boards.renamed(card, tmp_path / "other" / "a.json", seed=7)
    with pytest.raises(FinbenchError, match="was trained with another seed than the card of tiny-fpb states"):
        leaderboard.add([other], **{name: options[name] for name in ("to", "adapter", "data_dir")})
    unread = boards.renamed(card, tmp_path / "unread" / "a.json")
    change(unread, lambda found, rows: found["scores"][0].update(overlap=None), careful=True)
    with pytest.raises(FinbenchError, match=r"overlap is not what its adapter's record says: 0 of \d+ test texts"):
        leaderboard.add([unread], **{name: options[name] for name in ("to", "adapter", "data_dir")})
    assert not (tmp_path / "b").exists()
    record = tmp_path / "b" / attested.training_file(cardfiles.read(card).subject)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "_copy", lambda *_: (_ for _ in ()).throw(FinbenchError("The disk is full.", "")))
        with pytest.raises(FinbenchError, match="disk"):
            leaderboard.add([card], **{name: options[name] for name in ("to", "adapter", "data_dir")})
    assert not record.exists()
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(FinbenchError, match="is there already, and says otherwise than .*: nothing is overwritten"):
        leaderboard.add([card], **{name: options[name] for name in ("to", "adapter", "data_dir")})
    record.unlink()
    [added] = leaderboard.add([card], rerun=5, **options)
    assert [entry.level for entry in entries(tmp_path / "b")] == ["samples-attached"]  # nobody vouches for it
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    with pytest.raises(FinbenchError, match="is not believed here"):
        leaderboard.add([card], key=tmp_path / "key", **options)
    (tmp_path / "b" / signing.SIGNERS).write_text(f"me@example.org {(tmp_path / 'key.pub').read_text()}")
    with pytest.raises(FinbenchError, match="it would show too little: .* 2 documents"):
        leaderboard.add([card], key=tmp_path / "key", rerun=2, **options)
    assert leaderboard.add([card], key=tmp_path / "key", **options) == [added]
    [entry] = entries(tmp_path / "b")
    assert entry.level == "reproduced"
    assert entry.trained
    assert entry.trained.record.recipe.rank == 4
    steps = commands.reproduce(entry)
    assert steps.recipe
    (tmp_path / steps.recipe[0]).write_text(steps.recipe[1])
    assert recipes.recipe(str(tmp_path / steps.recipe[0])).model_dump(
        exclude={"name"}
    ) == entry.trained.record.recipe.model_dump(exclude={"name"})
    assert dict(details.of_card(entry)["facts"])["Training"].startswith("16 rows")

    kept = next((tmp_path / "b" / attested.ADAPTERS).glob("*.json"))
    kept.write_text(kept.read_text().replace('"r": 4', '"r": 5'))
    [refused] = read(tmp_path / "b").refused
    assert "is not the record of the adapter" in refused.faults[0]
    kept.unlink()
    boards.renamed(added, added, name="another")  # another file than the one that was asked again
    assert [entry.level for entry in entries(tmp_path / "b")] == ["samples-attached"]

    asked = {"base": str(llama), "data_dir": data, "key": tmp_path / "key"}
    with pytest.raises(FinbenchError, match="Did you mean"):
        leaderboard.reproduce(tmp_path / "b", only=[f"{added.stem}x"])
    [lost] = leaderboard.reproduce(tmp_path / "b", at=[tmp_path / "none"], **asked)
    assert (lost.outcome, lost.said) == ("not signed", "its adapter is in none of the folders: --at DIR")
    [planned] = leaderboard.reproduce(tmp_path / "b", at=[tmp_path], dry_run=True)
    assert (planned.outcome, planned.said) == ("to ask", str(tmp_path / "a"))
    with pytest.raises(FinbenchError, match="no maintainer has signed"):
        leaderboard.reproduce(tmp_path / "b", at=[tmp_path])
    [wrong] = leaderboard.reproduce(tmp_path / "b", at=[tmp_path], **asked | {"base": "smollm2-135m"})
    assert wrong.outcome == "not signed"
    [signed] = leaderboard.reproduce(tmp_path / "b", at=[tmp_path], **asked)
    assert signed.outcome == "signed"
    assert [entry.level for entry in entries(tmp_path / "b")] == ["reproduced"]
    [again] = leaderboard.reproduce(tmp_path / "b", at=[tmp_path], **asked)
    assert again.outcome == "already"


def test_the_job_is_one_that_the_hub_s_own_command_takes(tmp_path: Path) -> None:
    script = ROOT / "examples" / "hf-jobs.sh"
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "finbench-1-py3-none-any.whl").touch()
    (tmp_path / "key").write_text("secret")
    found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_TOKEN": "hf_x", "HOME": str(tmp_path)}

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(script), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True, check=False)

    done = ran("you/finance", "key", "--flavor", "l4x1", "--dry-run")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert 'finbench leaderboard reproduce "$work/board" --key "$work/key"' in said
    assert "l4x1" in said
    assert "secret" not in said.replace("secrets", "")
    assert ran().returncode == 2
    assert "There is no key none" in ran("you/finance", "none").stderr
    (tmp_path / "dist" / "finbench-2-py3-none-any.whl").touch()
    assert "There are 2 wheels in dist/" in ran("you/finance", "key").stderr


STUBS = {
    "apt-get": "",
    "pip": "",
    "hf": 'if [ "$1" = upload ]; then cp -r "$3" "$OUT"; else mkdir -p "$6" && touch "$6/README.md"; fi',
    "finbench": """cd "$3" && mkdir attestations && cd attestations
        { env; cat /proc/[0-9]*/environ; cat "$5"; } >seen.json 2>/dev/null
        [ ! -e /tmp/finbench-link ] || ln -s "$(cat /tmp/finbench-link)" link.json""",
}

# its time is up; a process of its own goes on, and what packs for root sends a link as it is
LEFT_OVER = {
    "finbench": """cd "$3" && mkdir attestations && touch attestations/asked.json
        ln -s /proc/self/environ attestations/x.json
        (sleep 1; touch "$HOME/alive") &
        exit 124""",
    "tar": 'if [ "$1" = -chf ]; then shift; exec /bin/tar -cf "$@"; else exec /bin/tar "$@"; fi',
}


@pytest.mark.skipif(not (hasattr(os, "getuid") and os.getuid() == 0 and shutil.which("setpriv")), reason="needs root")
def test_what_asks_the_models_of_strangers_cannot_read_the_token(tmp_path: Path) -> None:
    script = (ROOT / "examples" / "hf-jobs.sh").read_text(encoding="utf-8")
    job = script.partition("<<'JOB' || true\n")[2].partition("\nJOB\n")[0]
    job = job.replace("65534", "61534")  # of whom all processes are ended: here nobody has others
    (secret := tmp_path / "secret").write_text("hf_canary")
    secret.chmod(0o600)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        for name, body in STUBS.items():
            (Path(place) / name).write_text(f"#!/bin/bash\n{body.replace('/tmp/finbench-link', f'{place}/link')}\n")
            (Path(place) / name).chmod(0o755)
        found = {"PATH": f"{place}:{os.environ['PATH']}", "HF_TOKEN": "hf_canary", "FINBENCH_KEY": "the key"}
        found |= {"BOARD": "you/finance", "ASK": "9", "TMPDIR": place, "OUT": str(tmp_path / "sent")}

        def ran() -> int:
            return subprocess.run(
                ["bash", "-c", job], env=found, capture_output=True, timeout=60, check=False
            ).returncode

        assert ran() == 0
        seen = (tmp_path / "sent" / "seen.json").read_text(encoding="utf-8", errors="replace")
        assert "HOME=" in seen
        assert "the key" in seen
        assert "hf_canary" not in seen
        shutil.rmtree(tmp_path / "sent")
        (Path(place) / "link").write_text(str(secret))  # read by whom: root would send what it leads to
        assert ran() != 0
        assert not (tmp_path / "sent").exists()
        (Path(place) / "link").unlink()
        for name, body in LEFT_OVER.items():
            (Path(place) / name).write_text(f"#!/bin/bash\n{body}\n")
            (Path(place) / name).chmod(0o755)
        assert ran() == 0
        assert [path.name for path in (tmp_path / "sent").rglob("*")] == ["asked.json"]
        assert not list(Path(place).rglob("alive"))


# ---------------------------------------------------------------- what others published


def test_published_numbers_are_marked_by_computation() -> None:
    [block] = published.read(ROOT / "leaderboards")
    found = {
        (name, column.name): published.marks(column, value)
        for table in block.tables
        for name, values in table.rows.items()
        if name not in block.quoted
        for column, value in zip(table.columns, values, strict=True)
    }
    dora, rslora = (f"Llama-3.1-8B, {name} (8 bits, rank 8)" for name in ("DoRA", "rsLoRA"))
    assert {found[who, task] for who in (dora, rslora) for task in ("TFNS", "NWGI")} == {"m"}
    tuned = "Gemini 2.0 Flash-Lite, fine-tuned"
    assert found[tuned, "CPA REG"] == found[tuned, "CFA L2"] == "k"
    assert found[tuned, "CFA L3"] == ""
    assert all(len(values) == len(table.columns) for table in block.tables for values in table.rows.values())


def test_the_errata_that_are_arithmetic_are_right() -> None:
    """All four Gemini values of the formula tasks are k of 84; 51.28 is 40 of 78; 0.92 follows from 85.6 %."""
    [block] = published.read(ROOT / "leaderboards")
    table = block.tables[-1]
    eighty_four = published.PublishedColumn(name="x", n=84)
    for name in ("Gemini 2.0 Flash-Lite", "Gemini 2.0 Flash-Lite, fine-tuned"):
        assert all(published.possible(eighty_four, value) for value in table.rows[name][2:4] if value)
    assert round(100 * 40 / 78, 2) == 51.28
    assert math.isclose(2 * 0.8564 / 1.8564, 0.9226, abs_tol=1e-4)


@given(st.integers(1, 1300), st.data())
def test_every_share_of_n_is_possible(n: int, draw: st.DataObject) -> None:
    k = draw.draw(st.integers(0, n))
    column = published.PublishedColumn(name="x", n=n)
    assert published.possible(column, round(100 * k / n, 2))
    assert published.possible(column, math.floor(10_000 * k / n + 1e-9) / 100)


def test_a_faulty_reference_block_is_named(tmp_path: Path) -> None:
    (tmp_path / published.FILE).write_text("x:\n  title: t\n  link: http://plain.example\n")
    with pytest.raises(FinbenchError, match=r"published.yaml: x"):
        published.read(tmp_path)


# ---------------------------------------------------------------- what is published


def test_what_is_published_is_what_was_checked(place: Path, tmp_path: Path) -> None:
    folders = space.publication(place, tmp_path / "out")
    names = {
        kind: {str(path.relative_to(where)) for path in where.rglob("*") if path.is_file()}
        for kind, where in folders.items()
    }
    assert {"README.md", "leaderboard.csv", "scorecards/gold.json", "scorecards/gold.samples.jsonl.zst"} <= names[
        "dataset"
    ]
    root = {"README.md", "index.html", "feed.atom", "leaderboard.csv", "leaderboard.json", "leaderboard.md"}
    assert {name for name in names["space"] if not name.startswith("page/")} == root
    assert {"page/board.js", "page/compare.html", f"page/details/{digest('gold')[:12]}.js"} <= names["space"]
    assert "leaderboard.parquet" in names["dataset"]
    assert (folders["space"] / "README.md").read_text().startswith("---\ntitle: finbench leaderboard\n")
    (place / "leaderboard.md").write_text("x")
    with pytest.raises(FinbenchError, match="Stale: leaderboard.md"):
        space.publication(place, tmp_path / "out")


def test_nothing_is_published_that_the_page_does_not_show(place: Path, tmp_path: Path) -> None:
    """Refused, of an older version, or samples of no card; and a Parquet file goes whole, or not at all."""
    cards = place / "scorecards"
    [packed] = leaderboard.pack(place, tmp_path / "packed")
    shutil.copy(cards / "gold.samples.jsonl.zst", cards / "orphan.samples.jsonl.zst")
    found = json.loads((cards / "gold.json").read_text())
    for score in found["scores"]:
        score["version"] -= 1
    (cards / "older.json").write_text(json.dumps(found | {"seal": card_seal(found)}))
    shutil.copy(cards / "gold.samples.jsonl.zst", cards / "older.samples.jsonl.zst")
    (cards / "torn.json").write_text("{")
    leaderboard.build(place)
    sent, _ = space.gather(place)
    names = {name.partition("/")[2] for name in sent["dataset"] if name.startswith("scorecards/")}
    assert names == {path.name for path in cards.iterdir()} - {
        *("orphan.samples.jsonl.zst", "older.json", "older.samples.jsonl.zst", "torn.json"),
    }
    shutil.copy(packed, cards)
    leaderboard.build(place)
    assert f"scorecards/{packed.name}" in space.gather(place)[0]["dataset"]
    (cards / packed.name).write_bytes(packed.read_bytes()[:-100])
    leaderboard.build(place)
    with pytest.raises(FinbenchError, match=rf"left out of the page, 1 in all: {packed.name}"):
        space.gather(place)


KINDS = ("dataset", "space")


def there(api: HfApi, kind: str, repo: str = "org/board") -> dict[str, str]:
    """Path and git id or SHA-256 of every file of the published leaderboard's repository."""
    listed = api.list_repo_tree(repo, repo_type=kind, recursive=True)
    found = {item.path: item.lfs.sha256 if item.lfs else item.blob_id for item in listed if hasattr(item, "blob_id")}
    found.pop(".gitattributes")
    return found


def commits(api: HfApi, repo: str = "org/board") -> list[int]:
    return [len(api.list_repo_commits(repo, repo_type=kind)) for kind in KINDS]


def test_cards_of_a_data_set_on_the_hub_stand_beside_the_index_of_git(
    dev_hub: DevHub, original: Path, tmp_path: Path
) -> None:
    packed, clone = tmp_path / "packed", tmp_path / "clone"
    leaderboard.pack(original, packed / "scorecards")
    clone.mkdir()
    for folder in (packed, clone):
        (folder / "arrivals.txt").write_text("gold\nguess\n")
    leaderboard.build(packed)
    leaderboard.push("hub:org/cards", packed)
    command = [str(Path(sys.executable).with_name("hf")), "download", "org/cards", "--repo-type", "dataset"]
    command += ["--include", "scorecards/*.parquet", "--local-dir", str(clone)]
    environ = os.environ | {"HF_ENDPOINT": dev_hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    subprocess.run(command, env=environ, check=True, capture_output=True)
    assert list((clone / "scorecards").glob("*.parquet"))
    leaderboard.build(clone)
    assert (clone / "leaderboard.csv").read_bytes() == (packed / "leaderboard.csv").read_bytes()


def test_the_leaderboard_is_published_as_a_data_set_and_a_space(
    dev_hub: DevHub, original: Path, place: Path, tmp_path: Path, capsys: Any
) -> None:
    api = HfApi(endpoint=dev_hub.url, token=TOKEN)
    planned = leaderboard.push("hub:org/board", original, dry_run=True)
    assert [pushed.plan.kind for pushed in planned] == list(KINDS)
    assert all(pushed.published is None and pushed.plan.private and not pushed.plan.exists for pushed in planned)
    assert not list(dev_hub.store.root.glob("*/org/*"))
    done = leaderboard.push("hub:org/board", original)
    assert [pushed.as_dict()["changes"] for pushed in planned] == [pushed.as_dict()["changes"] for pushed in done]
    for kind, pushed in zip(KINDS, done, strict=True):
        assert set(there(api, kind)) == {file.path for file in pushed.plan.files}  # nothing of the Hub's first page
        assert api.repo_info("org/board", repo_type=kind).private
        assert pushed.published is not None
        assert f"/{kind}s/org/board" in pushed.published.url
    page_there = hf_hub_download("org/board", "index.html", repo_type="space", endpoint=dev_hub.url)
    assert Path(page_there).read_bytes() == (original / "index.html").read_bytes()
    head = yaml.safe_load(done[1].readme.split("---")[1])
    assert (head["sdk"], head["app_file"], head["datasets"]) == ("static", "index.html", ["org/board"])
    assert f"{dev_hub.url}/spaces/org/board" in done[0].readme
    assert f"{dev_hub.url}/datasets/org/board" in done[1].readme

    assert not any(pushed.published.new for pushed in leaderboard.push("hub:org/board", original) if pushed.published)
    assert commits(api) == [2, 2]

    # what was published and is not in the folder any more: cards stay, parts of the page go, others' files stay
    upload(dev_hub, "org/board", {"page/details/old.js": b"1", "notes.md": b"# n\n"}, kind="space")
    upload(dev_hub, "org/board", {"scorecards/old.json": b"{}"}, kind="dataset")
    (place / "scorecards" / "partial.json").unlink()
    (place / "scorecards" / "partial.samples.jsonl.zst").unlink()
    with pytest.raises(FinbenchError, match="Stale: feed.atom"):
        leaderboard.push("hub:org/board", place)
    leaderboard.build(place)
    before = [there(api, kind) for kind in KINDS]
    proposed = leaderboard.push("hub:org/board", place, pr=True)
    assert all(pushed.published and pushed.published.pull_request for pushed in proposed)
    assert [there(api, kind) for kind in KINDS] == before
    changed = leaderboard.push("hub:org/board", place)
    removed = [{c.path for c in pushed.plan.changes if c.state == "removed"} for pushed in changed]
    assert "page/details/old.js" in removed[1]
    assert removed[0] == set()
    assert all(name.startswith("page/") for name in removed[1])
    assert {"scorecards/old.json", "scorecards/partial.json"} <= set(there(api, "dataset"))
    assert "notes.md" in there(api, "space")


@pytest.mark.parametrize("fault", ["lost@POST .*/commit/", "lost@POST .*/repos/create", "429=1@POST", "500@POST"])
def test_a_leaderboard_is_published_once_whatever_is_lost(dev_hub: DevHub, original: Path, fault: str) -> None:
    api = HfApi(endpoint=dev_hub.url, token=TOKEN)
    dev_hub.faults.set(f"{fault}*1")
    done = leaderboard.push("hub:org/board", original)
    assert commits(api) == [2, 2]
    assert [set(there(api, kind)) for kind in KINDS] == [{file.path for file in p.plan.files} for p in done]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_push_that_goes_silent_at_any_request(
    dev_hub: DevHub, original: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its n-th request on nothing arrives: each repository is the old or the new one, the page never ahead."""
    api = HfApi(endpoint=dev_hub.url, token=TOKEN)
    made = space.gather(original, "org/board")
    monkeypatch.setattr(space, "gather", lambda folder, repo: made)
    old = {kind: dict[str, str]() for kind in KINDS}
    api.create_repo("org/first", repo_type="space", space_sdk="static")
    first = api.list_repo_tree("org/first", repo_type="space", recursive=True)
    old["space"] = {item.path: item.blob_id for item in first if item.path != ".gitattributes"}
    number, silent = 0, True
    while silent:
        number, silent, start = number + 1, False, len(dev_hub.requests)
        repo = f"org/board{number}"

        def watch(count: int, now: str, request: str, at: int = start + number) -> None:
            nonlocal silent
            if count > at or (count == at and now == phase):
                silent = True
                raise ConnectionAbortedError

        dev_hub.watch = watch
        with contextlib.suppress(FinbenchError):
            leaderboard.push(f"hub:{repo}", original)
        dev_hub.watch = None
        exists = {kind: api.repo_exists(repo, repo_type=kind) for kind in KINDS}
        found = {kind: there(api, kind, repo) if exists[kind] else old[kind] for kind in KINDS}
        leaderboard.push(f"hub:{repo}", original)
        new = {kind: there(api, kind, repo) for kind in KINDS}
        assert set(new["space"]) == set(made[0]["space"])
        assert all(found[kind] in (old[kind], new[kind]) for kind in KINDS), f"a mix after request {number}"
        assert found["space"] == old["space"] or found["dataset"] == new["dataset"]
        assert commits(api, repo) == [2, 2]
    assert number > 12


def test_a_leaderboard_that_cannot_be_published_changes_nothing(dev_hub: DevHub, place: Path) -> None:
    with pytest.raises(FinbenchError, match="no repository of the Hub to push to. Did you mean hub:org/board"):
        leaderboard.push("org/board", place)
    dev_hub.tokens["hf_readonly_token"] = DevAccount("reader", "read")
    dev_hub.tokens[TOKEN] = DevAccount("dev", "read")
    with pytest.raises(FinbenchError, match="The data set hub:org/board: your token may not write there"):
        leaderboard.push("hub:org/board", place)
    card = place / "scorecards" / "gold.json"
    card.write_text(card.read_text().replace('"value":', '"value": 0', 1))
    with pytest.raises(FinbenchError):
        leaderboard.push("hub:org/board", place, dry_run=True)
    assert not list(dev_hub.store.root.glob("*/org/*"))
