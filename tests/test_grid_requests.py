"""What steps of a grid ask Ray for where the file states no memory: the plan, made once, remembered, within a node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from finbench.core.errors import FinbenchError
from finbench.grid import driver, forecast, places, sweepfile, work
from finbench.grid.places import Place
from finbench.grid.steps import Schedule
from finbench.training import planning

COMMON = {"limit": 24, "batch_size": 8, "dtype": "float32", "epochs": 1, "rank": 4}
AXES = {"method": ["lora", "rslora"], "task": ["mini_sentiment"], "seed": [0, 1]}


def write(folder: Path, base: object, **changes: Any) -> Path:
    stated = {"name": "small", "common": {**COMMON, "base": str(base)}, "eval": {"limit": 6}, **changes}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(stated, sort_keys=False))
    return path


def board(path: Path, known: dict[str, Any] | None = None) -> Schedule:
    stated = sweepfile.read(path)
    return Schedule(stated, sweepfile.cells(stated), known or {})


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The recipes that were planned, each to 2 GiB."""
    made: list[Any] = []

    def memory(self: Any, recipe: Any) -> float:
        made.append(recipe)
        return 2.0

    monkeypatch.setattr(forecast.Planner, "memory", memory)
    return made


def test_cells_that_are_planned_alike_are_planned_once_and_remembered(tmp_path: Path, plans: list[Any]) -> None:
    place, one = Place(str(tmp_path)), board(write(tmp_path, "smollm2-135m", axes=AXES, tune={"budget": 1}))
    asked = forecast.planned_memory(one, place)
    assert set(asked) == set(one.steps)  # searches and scorings too
    assert set(asked.values()) == {int(1.2 * 2 * 2**30)}
    assert len(plans) == 1
    assert forecast.planned_memory(one, place) == asked
    assert len(plans) == 1
    longer = {**AXES, "rank": [4, 8]}
    forecast.planned_memory(board(write(tmp_path, "smollm2-135m", axes=longer)), place)
    assert [recipe.rank for recipe in plans] == [4, 8]


@pytest.mark.parametrize(
    "text", ["{", "[]", "1", "[" * 100_000, '{"KEY": -1}', '{"KEY": 1e999}', '{"KEY": "2"}', '{"KEY": true}', "\xff"]
)
def test_a_damaged_memory_is_planned_again(text: str, tmp_path: Path, plans: list[Any]) -> None:
    place, one = Place(str(tmp_path)), board(write(tmp_path, "smollm2-135m", axes=AXES))
    asked = forecast.planned_memory(one, place)
    key = next(iter(json.loads((tmp_path / forecast.FILE).read_text())))
    (tmp_path / forecast.FILE).write_bytes(text.replace("KEY", key).encode("latin-1"))
    assert forecast.planned_memory(one, place) == asked
    assert len(plans) == 2
    assert json.loads((tmp_path / forecast.FILE).read_text()) == {key: 2.0}


def test_stated_memory_gpus_and_what_is_done_are_not_planned(tmp_path: Path, plans: list[Any]) -> None:
    place = Place(str(tmp_path))
    for needs in ({"memory": 3}, {"gpus": 1}):
        assert forecast.planned_memory(board(write(tmp_path, "smollm2-135m", axes=AXES, needs=needs)), place) == {}
    one = board(write(tmp_path, "smollm2-135m", axes=AXES))
    whole = board(write(tmp_path, "smollm2-135m", axes=AXES), {key: {"state": "done"} for key in one.steps})
    assert forecast.planned_memory(whole, place) == {}
    assert plans == []


def test_what_cannot_be_planned_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> float:
        raise RuntimeError("a bug of a plan")

    monkeypatch.setattr(forecast.Planner, "memory", broken)
    assert forecast.planned_memory(board(write(tmp_path, "smollm2-135m", axes=AXES)), Place(str(tmp_path))) == {}
    assert not (tmp_path / forecast.FILE).exists()  # rows or a base that come later are planned then
    assert "could not be planned (RuntimeError: a bug of a plan)" in " ".join(capsys.readouterr().err.split())


def test_the_request_is_the_plan_s_whatever_this_machine_has(llama: Path, tmp_path: Path) -> None:
    stated = sweepfile.read(write(tmp_path, llama, axes=AXES))
    one = Schedule(stated, sweepfile.cells(stated), {})
    asked = forecast.planned_memory(one, Place(str(tmp_path / "nowhere")))
    plan = planning.plan(one.cells[0].recipe, "cpu")["memory_gib"]["total"]
    train = next(step.key for step in one.steps.values() if step.kind == work.TRAIN)
    assert asked[train] == pytest.approx(1.2 * plan * 2**30, rel=0.01)
    assert not (tmp_path / "nowhere").exists()


def test_no_request_is_more_than_the_largest_node(capsys: pytest.CaptureFixture[str]) -> None:
    class Ray:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            sizes = [(True, {"memory": 4e9}), (True, {"memory": 6e9}), (False, {"memory": 9e9}), (True, {})]
            return [{"Alive": alive, "Resources": resources} for alive, resources in sizes]

    largest = driver.Largest(Ray)
    largest.look()
    assert [largest.of("train x", size) for size in (int(5e9), int(8e9), int(7e9))] == [int(5e9), int(6e9), int(6e9)]
    assert capsys.readouterr().err.replace("\n", " ").count("the largest node has 6.0") == 1


# ---------------------------------------------------------------- who works at a URL


def test_of_two_sweeps_at_a_url_one_is_refused_from_the_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SETTLES", 0.0)
    place = Place("memory://lease-one")
    first, second = places.Lease(place), places.Lease(place)
    first.take()
    first.renew()
    with pytest.raises(FinbenchError, match="Another sweep works in memory://lease-one"):
        second.take()
    second.release()  # not its own
    assert place.read("lease.json") is not None
    first.release()
    second.take()


def test_of_two_that_begin_at_one_moment_the_last_to_write_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("memory://lease-two")
    first, second = places.Lease(place), places.Lease(place)

    def other(_: float) -> None:
        monkeypatch.setattr(places.time, "sleep", lambda _: None)
        place.write("lease.json", json.dumps({"by": second.own, "renewed": time.time()}))

    monkeypatch.setattr(places.time, "sleep", other)
    with pytest.raises(FinbenchError, match="Another sweep"):
        first.take()
    second.renew()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"renewed": "soon"}', '{"by": "x", "renewed": 1}', "[" * 100_000])
def test_a_lease_that_is_torn_or_long_ago_is_nobodys(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SETTLES", 0.0)
    place = Place("memory://lease-three")
    place.write("lease.json", text)
    places.Lease(place).take()
