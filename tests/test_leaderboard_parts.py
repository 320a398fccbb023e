"""A build writes anew what a change touches, and gives to the byte what a build of nothing gives."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import boards
from finbench import leaderboard
from finbench.cards import cardfiles
from finbench.leaderboard import building, charts, details, known, trainings

TASKS, DOCUMENTS = 2, 40
WRITTEN = {"page", "index.html", "feed.atom", *(f"leaderboard.{end}" for end in ("md", "csv", "json", "parquet"))}
board_scale = boards.benchmark()


def write(folder: Path, name: str, number: int, seed: int | None = None) -> Path:
    """A card of ``name``, one of the trainings of ``recipe`` where it has a seed; returns its file."""
    recipe = name if seed is None else "recipe"
    who = board_scale.Subject(name, "owner-0", 0.5, 0, recipe, seed)
    return folder / "scorecards" / f"{board_scale.Maker(TASKS, DOCUMENTS, 0).write(folder, who, number)}.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, and a recipe with two trainings; copy it."""
    folder = tmp_path_factory.mktemp("parts") / "board"
    board_scale.make(folder, 3, TASKS, DOCUMENTS)
    for seed in range(2):
        write(folder, f"recipe-s{seed}", 100 + seed, seed)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(made, tmp_path / "board"))


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def changes(folder: Path) -> Iterator[Callable[[], object]]:
    """What may happen to a leaderboard between two builds."""
    cards = folder / "scorecards" / "owner-0"
    yield lambda: write(folder, "newcomer", 200)
    yield lambda: shutil.rmtree(cards / "subject-0")
    yield lambda: (shutil.rmtree(cards / "subject-1"), write(folder, "subject-1", 300))  # another under its name
    yield lambda: shutil.rmtree(cards / "recipe-s1")  # its recipe has one training now
    yield lambda: older(cards / "newcomer" / "newcomer.json")
    yield lambda: (folder / "arrivals.txt").unlink()
    yield lambda: (folder / "page" / "details").joinpath(next_detail(folder)).write_text("/* finbench leaderboard */")
    yield lambda: shutil.rmtree(folder.with_name("cache"))


def next_detail(folder: Path) -> str:
    return min(path.name for path in (folder / "page" / "details").iterdir())


def older(path: Path) -> None:
    """Its task has another version now than the card: it is left out."""
    card = cardfiles.read(path).model_dump(mode="json", by_alias=True)
    for score in card["scores"]:
        score["version"] = 0
    path.write_text(json.dumps(card))


def test_a_build_by_parts_is_to_the_byte_one_of_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaderboard.build(place)
    for number, change in enumerate(changes(place)):
        change()
        leaderboard.build(place)
        clean = tmp_path / f"clean-{number}"
        shutil.copytree(place, clean, ignore=lambda _, names: {name for name in names if name in WRITTEN})
        monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / f"empty-{number}"))
        leaderboard.build(clean)
        monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
        assert tree(place) == tree(clean), number
    assert leaderboard.build(place, check=True).stale == []


def test_what_a_card_more_does_not_touch_is_not_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaderboard.build(place)
    asked: list[Any] = []

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **b: asked.append(getattr(a[0], "key", name)) or real(*a, **b))

    counted(details, "of_card")
    counted(trainings, "mean_over_trainings")
    monkeypatch.setattr(charts, "bundle", lambda: asked.append("bundle"))
    write(place, "newcomer", 200)
    leaderboard.build(place)
    assert asked == ["owner-0/newcomer/newcomer"]


def test_of_two_builds_at_once_the_later_one_stays(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card comes when one build has read all others; another build, with that card, begins before the end of it."""
    leaderboard.build(place)
    real, others = building.board, list[threading.Thread]()

    def late(*read: Any) -> Any:
        if not others:
            write(place, "newcomer", 200)
            others.append(threading.Thread(target=leaderboard.build, args=(place,)))
            others[0].start()
            others[0].join(10)
        return real(*read)

    monkeypatch.setattr(building, "board", late)
    leaderboard.build(place)
    others[0].join()
    assert leaderboard.build(place, check=True).stale == []


def test_what_a_kill_left_in_the_page_goes(place: Path) -> None:
    leaderboard.build(place)
    whole = tree(place)
    detail = next_detail(place)
    for name in ("page/.cards.js.abcd12_4", f"page/details/.{detail}.abcd12_4", ".index.html.abcd12_4"):
        (place / name).touch()  # killed before the first byte
    (place / "page" / ".mine.abcd12_4").touch()
    leaderboard.build(place)
    assert tree(place) == {**whole, "page/.mine.abcd12_4": b""}


def test_cards_of_parquet_files_are_what_these_hold_whatever_the_cache_has(place: Path, tmp_path: Path) -> None:
    packed = leaderboard.pack(place, tmp_path / "packed")
    shutil.rmtree(place / "scorecards")
    shutil.copytree(tmp_path / "packed", place / "scorecards")
    assert len(packed) == 1
    leaderboard.build(place)
    whole = tree(place)
    cards = sorted((tmp_path / "cache" / "leaderboard" / "rows").glob("*/*.json"))
    cardfiles.samples_path(cards[0]).unlink()  # as what sweeps up old files leaves it
    cards[1].write_text("{}")
    assert leaderboard.build(place).board.refused == []
    assert tree(place) == whole


def test_a_check_believes_no_part_that_the_cache_vouches_for(place: Path) -> None:
    """A file that somebody edited, with an entry of the cache that says it is what its inputs give."""
    leaderboard.build(place)
    name = f"page/details/{next_detail(place)}"
    forged = (place / name).read_bytes() + b"\n"
    (place / name).write_bytes(forged)
    with known.kept("parts", str(place.resolve())) as parts:
        inputs, _ = parts.before[name]
        parts.used = parts.before | {name: [inputs, hashlib.sha256(forged).hexdigest()]}
    assert leaderboard.build(place, check=True).stale == [name]


def test_a_part_whose_inputs_nobody_knows_is_made_each_time(place: Path, tmp_path: Path) -> None:
    """As where no cache can be written, and a card has no digest to go by."""
    (tmp_path / "cache").write_text("no folder")
    made = leaderboard.build(place).board
    assert [inputs for _, inputs, _ in details.of(made)] == [None] * 5
    assert leaderboard.build(place, check=True).stale == []


@pytest.mark.parametrize("lower", [False, True])
def test_the_best_of_a_front_has_its_name_and_no_other_covers_it(lower: bool) -> None:
    def point(score: float, front: bool = True) -> dict[str, Any]:
        return {"score": score, "low": None, "high": None, "front": front}

    best, near, far, behind = (point(score) for score in ((10, 11, 30, 90) if lower else (90, 89, 70, 10)))
    behind["front"] = False
    assert charts._with_names([near, behind, far, best], lower) == [best, far]
    assert charts._with_names([behind], lower) == []
