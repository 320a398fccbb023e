"""finbench sweep: cells of a file, steps by the digest of their content, nothing done twice, nothing lost."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner

from conftest import files_of, make_llama, upload
from finbench.cards import cardfiles
from finbench.cli.app import app
from finbench.core import catalog, environment
from finbench.core.errors import FinbenchError
from finbench.grid import driver, forecast, sweepfile, watch, work
from finbench.grid.places import Place
from finbench.grid.steps import Schedule, Step
from finbench.hub.dev.server import DevHub
from finbench.models import bases
from finbench.training import recipes

COMMON = {"limit": 24, "batch_size": 8, "dtype": "float32", "epochs": 1, "rank": 4}


def write(folder: Path, base: object, **changes: Any) -> Path:
    stated = {
        "name": "small",
        "axes": {"method": ["lora", "rslora"], "task": ["mini_sentiment", "mini_headline"], "seed": [0, 1]},
        "common": {**COMMON, "base": str(base)},
        "eval": {"limit": 6},
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(stated, sort_keys=False))
    return path


def names(path: Path) -> list[str]:
    return [cell.name for cell in sweepfile.cells(sweepfile.read(path))]


# ---------------------------------------------------------------- cells


def test_terms_that_nobody_has_accepted_are_told_once_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driver, "_ray", lambda: None)  # it need not be there
    monkeypatch.setattr(driver, "_cluster", lambda *_: pytest.fail("Ray was started"))
    with pytest.raises(FinbenchError, match="gemma3-270m comes under terms of its maker") as refused:
        driver.sweep(write(tmp_path, "gemma3-270m"), str(tmp_path / "out"))
    assert refused.value.hint.endswith("finbench bases --accept gemma3-270m")
    assert not list((tmp_path / "out").glob("steps/*"))


def test_cells_are_the_product_of_the_axes(tmp_path: Path) -> None:
    cells = sweepfile.cells(sweepfile.read(write(tmp_path, "smollm2-135m")))
    wanted = list(itertools.product(["lora", "rslora"], ["finbench_mini_sentiment", "finbench_mini_headline"], [0, 1]))
    assert [(c.recipe.method, *c.recipe.tasks, c.recipe.seed) for c in cells] == wanted
    assert len({cell.key for cell in cells}) == len({cell.folder for cell in cells}) == 8
    one = recipes.recipe(
        None, {**COMMON, "base": "smollm2-135m", "method": "rslora", "tasks": ["mini_headline"], "seed": 1}
    )
    assert cells[-1].recipe.model_dump(exclude={"name"}) == one.model_dump(exclude={"name"})


def test_an_axis_may_set_several_keys_and_cells_are_excluded_and_included(tmp_path: Path) -> None:
    axes = {"method": ["lora", {"method": "lora", "bits": 4}, "pissa"], "task": ["mini_sentiment"], "seed": [0, 1]}
    rule = {"method": ["pissa", "dora"], "seed": 1}
    path = write(
        tmp_path, "smollm2-135m", axes=axes, exclude=[rule], include=[{"method": "vera", "rank": 16, "seed": 7}]
    )
    cells = sweepfile.cells(sweepfile.read(path))
    found = [(cell.recipe.method, cell.recipe.bits, cell.recipe.rank, cell.recipe.seed) for cell in cells]
    assert found == [
        ("lora", 16, 4, 0),
        ("lora", 16, 4, 1),
        ("lora", 4, 4, 0),
        ("lora", 4, 4, 1),
        ("pissa", 16, 4, 0),
        ("vera", 16, 16, 7),
    ]
    assert cells[2].name == "mini-sentiment-smollm2-135m-lora-4bit-s0"


def test_a_task_may_have_settings_of_its_own(tmp_path: Path) -> None:
    tasks = ["mini_sentiment", {"task": "mini_headline", "epochs": 2}, {"mini_ner": 0.5, "mini_sentiment": 1}]
    path = write(tmp_path, "smollm2-135m", axes={"task": tasks}, exclude=[{"task": "mini_sentiment"}])
    found = [(list(cell.recipe.tasks.items()), cell.recipe.epochs) for cell in sweepfile.cells(sweepfile.read(path))]
    weights = [("finbench_mini_ner", 0.5), ("finbench_mini_sentiment", 1.0)]
    assert found == [([("finbench_mini_headline", 1.0)], 2), (weights, 1)]


def test_what_is_common_is_left_out_where_the_method_has_no_use_for_it(tmp_path: Path) -> None:
    common = {**COMMON, "base": "smollm2-135m", "alpha": 16}
    axes = {"method": ["lora", "vera"], "task": ["mini_sentiment"]}
    cells = sweepfile.cells(sweepfile.read(write(tmp_path, "", axes=axes, common=common)))
    assert [(cell.recipe.method, cell.recipe.rank, cell.recipe.alpha) for cell in cells] == [
        ("lora", 4, 16),
        ("vera", 4, 32),
    ]
    for own in ({"axes": {**axes, "alpha": [16]}}, {"include": [{"method": "vera", "alpha": 16}]}):
        with pytest.raises(FinbenchError, match="Cell .*method vera has no alpha"):
            names(write(tmp_path, "", **{"axes": axes, "common": common, **own}))
    with pytest.raises(FinbenchError, match="method vera has no alpha"):  # of no axis: it is common to no other method
        names(write(tmp_path, "", axes={"task": ["mini_sentiment"]}, common={**common, "method": "vera"}))


def test_a_key_is_the_same_under_each_of_its_names(tmp_path: Path) -> None:
    axes = {"task": ["mini_sentiment", "mini_headline"], "seed": [0, 1]}
    rules = [{"when": {"tasks": "mini_sentiment"}, "memory": 2}, {"when": {"format": "nf4"}, "memory": 4}]
    path = write(
        tmp_path,
        "smollm2-135m",
        axes=axes,
        exclude=[{"tasks": "mini_headline"}],
        include=[{"tasks": ["mini_ner", "mini_headline"], "seed": 7, "bits": 4}],
        needs_of=rules,
    )
    found = [
        (*cell.recipe.tasks, cell.recipe.seed, cell.needs.memory) for cell in sweepfile.cells(sweepfile.read(path))
    ]
    assert found == [
        ("finbench_mini_sentiment", 0, 2),
        ("finbench_mini_sentiment", 1, 2),
        ("finbench_mini_ner", 7, 4),
        ("finbench_mini_headline", 7, 4),
    ]


def test_rules_mean_cells_by_what_is_common_and_by_settings_of_single_tasks(tmp_path: Path) -> None:
    axes = {"task": ["mini_sentiment", {"task": "mini_headline", "epochs": 3}], "seed": [0, 1.0]}
    rules = [
        {"task": "mini_sentiment", "base": "smollm2-135m"},
        {"task": {"task": "mini_headline", "epochs": 3}, "seed": 1},
    ]
    path = write(tmp_path, "smollm2-135m", axes=axes, exclude=rules)
    [cell] = sweepfile.cells(sweepfile.read(path))
    assert (list(cell.recipe.tasks), cell.recipe.epochs) == (["finbench_mini_headline"], 3)
    assert names(write(tmp_path, "smollm2-135m", axes=axes))[1].endswith("-s1")
    for rule in ({"task": "mini_sentiment", "seed": 7}, {"rank": 3}):
        with pytest.raises(FinbenchError, match="exclude.0 fits no cell"):
            names(write(tmp_path, "smollm2-135m", axes=axes, exclude=[rule]))


def test_a_folder_of_a_base_may_be_on_the_nodes_alone(tmp_path: Path) -> None:
    assert len(names(write(tmp_path, "/models/nowhere", axes={"task": ["mini_ner"], "seed": [0]}))) == 1


def test_cells_are_counted_before_they_are_made(tmp_path: Path) -> None:
    hundreds = {axis: list(range(1, 101)) for axis in ("seed", "rank", "alpha", "limit", "batch_size")}
    with pytest.raises(FinbenchError, match="small has 10,000,000,000 cells; at most 100,000"):
        names(write(tmp_path, "smollm2-135m", axes=hundreds))
    axes: dict[str, Any] = {"task": ["mini_sentiment"], "seed": list(range(300)), "rank": list(range(1, 201))}
    with pytest.raises(FinbenchError, match="small has 120,600 cells"):  # the second line names no axis
        names(write(tmp_path, "smollm2-135m", axes=axes, include=[{"seed": [1, 2, 3]}, {"bits": 4}]))
    lines = [{"seed": seed, "rank": 2} for seed in range(100, 110)]  # 60,010 cells; the first is a fault
    with pytest.raises(FinbenchError, match="Unknown task 'mini_sentimen'"):
        names(write(tmp_path, "smollm2-135m", axes={**axes, "task": ["mini_sentimen"]}, include=lines))


def test_a_key_that_is_there_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("name: g\naxes:\n  seed: [0]\ncommon: {limit: 20}\ncommon: {}\n")
    with pytest.raises(FinbenchError, match=r"small.yaml:5: not valid YAML \(key 'common' twice, first in line 4\)"):
        sweepfile.read(path)


def test_the_same_cell_twice_is_one(tmp_path: Path) -> None:
    path = write(tmp_path, "smollm2-135m", include=[{"method": "lora"}])
    assert len(names(path)) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"methd": ["lora"]}}, "Unknown recipe key 'methd'. Did you mean method or max_length?"),
        ({"axes": {"method": []}}, "axis method has no values"),
        ({"axes": {}}, "axes"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"tune": {"budget": 2, "over": ["rank"]}}, "Unknown axis 'rank'"),
        ({"exclude": [{"method": ["lora", "rslora"]}]}, "everything is excluded"),
        ({"axes": {"method": ["lora"], "task": ["mini_sentimen"]}}, "Unknown task"),
        ({"axes": {"method": ["kasa"], "bits": [4], "task": ["mini_sentiment"]}}, "Cell method kasa, bits 4"),
        ({"axes": {"seed": list(range(400)), "rank": list(range(1, 400))}}, "at most 100,000"),
        ({"eval": {"group": 0}}, "eval.group"),
        ({"beside": [{"shot": 5}]}, "unknown key 'beside.0.shot'"),
        ({"beside": {"shots": 5}}, "beside"),
        ({"beside": [5]}, "beside.0"),
        ({"beside": [{"tasks": "mini_sentimen"}]}, "Unknown task 'mini_sentimen'"),
        ({"needs": {"cpus": 0}}, "needs.cpus"),
        ({"needs": {"gpus": 1.5}}, "needs.gpus"),
        ({"eval": {"gpu_memory": 46}}, "gpu_memory is a share of a GPU, above 0 and at most 1, got 46"),
        ({"needs": {"gpus": 2}, "tune": {"budget": 1}}, "a search trains in one process, and the cell takes 2 GPUs"),
        ({"common": {**COMMON, "sharding": "fsdp"}}, "Give it as many GPUs"),
        ({"axes": {"task": ["mini_sentiment"], "tasks": ["mini_headline"]}}, "task and tasks are two names of one key"),
        ({"common": {"validate": "loss", "validate_on": "loss"}}, "validate and validate_on are two names of one key"),
        ({"include": [{"pairs": "a.json", "preferences": "b.json"}]}, "pairs and preferences are two names of one"),
        ({"exclude": [{"task": "mini_sentiment", "tasks": "mini_ner"}]}, "task and tasks are two names of one key"),
        (
            {"axes": {"task": ["mini_ner"], "rank": [{"rank": 4, "tasks": "mini"}]}},
            "task and tasks are two names of one",
        ),
        ({"needs_of": [{"when": {"bit": 4}, "memory": 2}]}, "Unknown recipe key 'bit'. Did you mean bits"),
        ({"needs_of": [{"when": {"method": "lroa"}, "memory": 2}]}, "Unknown method 'lroa'. Did you mean lora"),
        ({"needs_of": [{"when": {"task": ["fpbb"]}, "memory": 2}]}, "Unknown task 'fpbb'"),
        ({"needs_of": [{"when": {"base": "smollm"}, "memory": 2}]}, "Unknown base 'smollm'"),
        ({"exclude": [{"method": ["lora", "dorra"]}]}, "Unknown method 'dorra'"),
        ({"axes": {"method": ["lora"], "task": ["mini_ner"], "options": [{"x": 1}]}}, "Method lora has no option 'x'"),
        ({"axes": {"task": ["mini_ner"], "base": ["./none"]}}, "Cell task mini_ner, base ./none: No such folder"),
        ({"axes": {"task": ["mini_ner"], "base": ["smollm2"]}}, "Unknown base 'smollm2'. Did you mean smollm2-"),
        ({"axes": {"task": ["mini_ner"], "seed": [True]}}, "seed: a number or a text is expected, got true"),
        ({"axes": {"tasks": [{"mini_ner": True}]}}, "The weight of task mini_ner is not a number"),
        ({"eval": {"limit": True}}, "eval.limit: a number or a text is expected, got true"),
        ({"retries": True}, "retries: a number or a text is expected, got true"),
        ({"needs": {"cpus": True}}, "needs.cpus: a number or a text is expected, got true"),
    ],
)
def test_a_fault_of_the_file_is_named_before_anything_starts(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError) as caught:
        names(write(tmp_path, "smollm2-135m", **changes))
    assert message in str(caught.value)


def test_a_rule_of_needs_decides_for_the_cells_it_fits(tmp_path: Path) -> None:
    rules = [{"when": {"method": "rslora"}, "gpus": 0.5, "memory": 200}, {"when": {"seed": [1]}, "cpus": 3}]
    cells = sweepfile.cells(
        sweepfile.read(write(tmp_path, "smollm2-135m", needs={"cpus": 2, "gpus": 1}, needs_of=rules))
    )
    needs = {(c.recipe.method, c.recipe.seed): (c.needs.cpus, c.needs.gpus, c.needs.memory) for c in cells}
    assert needs["lora", 0] == (2, 1, None)
    assert needs["rslora", 0] == (2, 0.5, 200)
    assert needs["rslora", 1] == needs["lora", 1] == (3, 1, None)


def test_a_cell_on_several_gpus_is_trained_by_as_many_processes(tmp_path: Path) -> None:
    path = write(tmp_path, "smollm2-135m", needs={"gpus": 2}, eval={"needs": {"gpus": 1}})
    stated = sweepfile.read(path)
    board = Schedule(stated, sweepfile.cells(stated), {})
    assert {step.needs.gpus for step in board.steps.values() if step.kind == work.TRAIN} == {2}
    assert {step.payload["processes"] for step in board.steps.values() if step.kind == work.TRAIN} == {2}
    assert {step.needs.gpus for step in board.steps.values() if step.kind == work.SCORE} == {1}
    alone = sweepfile.cells(sweepfile.read(write(tmp_path, "smollm2-135m")))
    assert [cell.key for cell in board.cells] == [cell.key for cell in alone]  # the same adapters


def test_the_plan_of_a_grid_is_that_of_its_trainings(llama: Path, tmp_path: Path) -> None:
    from finbench.grid import forecast
    from finbench.training import planning

    axes = {"method": ["lora", "rslora"], "task": ["mini_sentiment"], "seed": [0, 1]}
    stated = sweepfile.read(write(tmp_path, llama, axes=axes, tune={"budget": 2, "over": ["seed"]}))
    board = Schedule(stated, sweepfile.cells(stated), {})
    found = forecast.forecasts(board, "h100", 2.5)
    one = planning.plan(board.cells[0].recipe, "h100", price=2.5)
    assert len(found) == 4
    for each in found.values():
        assert (each.memory, each.seconds, each.cost) == (one["memory_gib"]["total"], one["seconds"], one["cost"])
    whole = forecast.total(board, found)
    # four trainings, two searches of two; after each of their six trials all 24 rows at most, at half of a step's work
    searches = 2 * (2 + 6 / 2)
    assert whole["seconds"] == pytest.approx((4 + searches) * one["seconds"])
    assert (whole["unknown"], whole["scorings"]) == (0, 5)
    trained = next(step for step in board.steps.values() if step.kind == work.TRAIN)
    trained.outcome = {"state": "done"}
    assert forecast.total(board, found)["seconds"] == pytest.approx((3 + searches) * one["seconds"])
    assert {each.gpu for each in forecast.forecasts(board).values()} == {"cpu"}
    # a search of a quarter of the rows is planned as a training of those
    few = sweepfile.read(write(tmp_path, llama, axes=axes, tune={"budget": 2, "limit": 6}))
    board = Schedule(few, sweepfile.cells(few), {})
    assert {(cell.recipe.limit, cell.searched.limit) for cell in board.cells if cell.searched} == {(24, 6)}
    assert {step.payload["recipe"]["limit"] for step in board.steps.values() if step.kind == work.SEARCH} == {6}
    small = planning.plan(board.cells[0].recipe.model_copy(update={"limit": 6}), "h100", price=2.5)
    total = forecast.total(board, forecast.forecasts(board, "h100", 2.5))["seconds"]
    assert total == pytest.approx(4 * one["seconds"] + searches * small["seconds"])


@pytest.mark.slow
def test_a_grid_says_what_it_cannot_plan(llama: Path, tmp_path: Path) -> None:
    from finbench.grid import forecast

    axes = {"base": ["llama-3.1-70b", "smollm2-360m"], "method": ["lora", "qlora"], "task": ["mini_sentiment"]}
    common = {key: value for key, value in COMMON.items() if key != "dtype"}
    stated = sweepfile.read(write(tmp_path, llama, axes=axes, common=common, needs={"gpus": 1}))
    board = Schedule(stated, sweepfile.cells(stated), {})
    assert {each.unknown for each in forecast.forecasts(board).values()} == {"which GPU? --gpu h100"}
    found = forecast.forecasts(board, "h100")
    by = {(cell.recipe.base, cell.recipe.method): found[cell.key] for cell in board.cells}
    assert "It would fit with --bits 8" in by["llama-3.1-70b", "lora"].unknown
    quantised = by["llama-3.1-70b", "qlora"]
    assert quantised.shape == "llama-3.1-70b"
    assert quantised.memory is not None
    assert 40 < quantised.memory < 79
    assert "smollm2-360m" in by["smollm2-360m", "lora"].unknown.lower()
    assert forecast.total(board, found)["unknown"] == 3


@pytest.mark.slow
def test_a_cell_of_two_processes_is_the_cell_of_one(llama: Path, tmp_path: Path) -> None:
    made = {}
    for count in (1, 2):
        stated = sweepfile.read(write(tmp_path, llama, axes={"task": ["mini_sentiment"]}, needs={"gpus": count}))
        step = next(
            one for one in Schedule(stated, sweepfile.cells(stated), {}).steps.values() if one.kind == work.TRAIN
        )
        payload = {**step.payload, "kind": step.kind, "place": str(tmp_path / str(count)), "data_dir": "", "report": []}
        answer = work.run(payload)
        assert answer["state"] == "done", answer
        made[count] = json.loads((tmp_path / str(count) / step.payload["folder"] / "finbench.json").read_text())
    losses = [[entry[-1] for entry in made[count]["training"]["loss_curve"]] for count in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_cells_share_the_search_of_the_first_values_whatever_these_set(turned: bool, tmp_path: Path) -> None:
    tasks = [{"task": "mini_headline", "epochs": 2}, "mini_sentiment"]
    axes = {"task": tasks[::-1] if turned else tasks, "seed": [0, 1]}
    path = write(tmp_path, "smollm2-135m", axes=axes, tune={"budget": 1, "over": ["task", "seed"]})
    cells = sweepfile.cells(sweepfile.read(path))
    assert {cell.recipe.epochs for cell in cells} == {1, 2}
    assert len({cell.search for cell in cells}) == 1
    searched = {(*cell.searched.tasks, cell.searched.epochs, cell.searched.seed) for cell in cells if cell.searched}
    assert searched == {("finbench_mini_sentiment", 1, 0) if turned else ("finbench_mini_headline", 2, 0)}
    rows = {"task": ["mini_sentiment"], "limit": [10, 50]}
    path = write(tmp_path, "smollm2-135m", axes=rows, tune={"budget": 1, "over": ["limit"], "limit": 20})
    few = sweepfile.cells(sweepfile.read(path))
    assert [cell.searched.limit for cell in few if cell.searched] == [10, 10]
    assert len({cell.search for cell in few}) == 1


def test_adapters_of_one_task_have_names_of_their_own(tmp_path: Path) -> None:
    axes = {"task": [["mini_sentiment"]]}
    more = [{"task": "mini_sentiment", "rank": 16}, {"base": "smollm2-135m", "bits": 4}]
    found = names(write(tmp_path, "smollm2-135m", axes=axes, include=more))
    assert len(set(found)) == len(found) == 3


def test_tasks_may_share_a_search(tmp_path: Path) -> None:
    path = write(tmp_path, "smollm2-135m", tune={"budget": 1, "over": ["task", "seed"]})
    stated = sweepfile.read(path)
    here = tmp_path / "data" / "mini_sentiment"
    here.mkdir(parents=True)
    (here / "dataset.json").write_text(json.dumps({"sha256": "0" * 64}))
    board = Schedule(stated, sweepfile.cells(stated, tmp_path / "data"), {})
    searches = [step for step in board.steps.values() if step.kind == work.SEARCH]
    assert [(one.payload["recipe"]["method"], list(one.payload["recipe"]["tasks"])) for one in searches] == [
        ("lora", ["finbench_mini_sentiment"]),
        ("rslora", ["finbench_mini_sentiment"]),
    ]
    place = Place(str(tmp_path))
    place.write("running/x.json", json.dumps({"name": "s", "since": "", "pid": 1, "keys": [searches[0].key]}))
    watch.Watch(board, place).tell({searches[0].key})
    assert "0 of 8 cells done, 4 searching, 4 waiting" in watch.line(watch.sweep_status(str(tmp_path)))


def _base_swapped(base: Path, data: Path) -> None:
    make_llama(base, seed=9)


def _rows_edited(base: Path, data: Path) -> None:
    path = data / "fpb" / "test.jsonl"
    path.write_text(path.read_text().replace("rose", "fell"))  # dataset.json states what it stated


def _rows_of_another_task_edited(base: Path, data: Path) -> None:
    path = data / "fiqa_sa" / "test.jsonl"
    path.write_text(path.read_text().replace("rose", "fell"))


def _task_changed(base: Path, data: Path) -> None:
    task = catalog.tasks()["finbench_fpb"]
    catalog.tasks()["finbench_fpb"] = task.model_copy(update={"digest": "0" * 64})


@pytest.mark.parametrize(
    ("change", "stay"),
    [
        (_base_swapped, set()),
        (_rows_edited, set()),
        (_rows_of_another_task_edited, {"train", "search"}),
        (_task_changed, set()),
    ],
)
def test_no_step_is_taken_for_one_with_another_base_task_or_rows(
    change: Callable[[Path, Path], None], stay: set[str], llama: Path, tmp_path: Path
) -> None:
    base, data = shutil.copytree(llama, tmp_path / "base"), tmp_path / "data"
    for name in ("fpb", "fiqa_sa"):
        (data / name).mkdir(parents=True)
        (data / name / "dataset.json").write_text(json.dumps({"sha256": {"test.jsonl": "1"}}))
        (data / name / "test.jsonl").write_text(json.dumps({"text": "profit rose", "label": "positive"}) + "\n")
    axes, tune = {"method": ["lora"], "task": ["fpb"], "seed": [0]}, {"budget": 1, "over": ["seed"]}
    path = write(tmp_path, base, axes=axes, tune=tune, eval={"limit": 6, "also": ["fiqa_sa"]})

    def steps() -> dict[str, str]:
        stated = sweepfile.read(path)
        return {step.key: step.kind for step in Schedule(stated, sweepfile.cells(stated, data), {}).steps.values()}

    try:
        before, again = steps(), steps()
        change(base, data)
        after = steps()
    finally:
        catalog.tasks.cache_clear()  # a changed task must not stay for other tests
    assert before == again
    assert Counter(before.values()) == Counter(after.values()) == {"search": 1, "train": 1, "score": 2}
    assert {before[key] for key in before.keys() & after.keys()} == stay


def test_a_base_that_has_moved_on_the_hub_makes_other_steps(
    dev_hub: DevHub, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "hub:org/tiny", axes={"task": ["mini_sentiment"]})
    files = files_of(llama)

    def keys() -> set[str]:
        return set(board(path).steps)

    upload(dev_hub, "org/tiny", files)
    first = keys()
    bases.resolve("hub:org/tiny")
    assert keys() == first
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # then it is the copy that is here
        assert keys() == first
    upload(dev_hub, "org/tiny", {"config.json": files_of(llama)["config.json"], "README.md": b"another"})
    assert not keys() & first


def test_a_sweep_that_fetches_its_rows_finds_its_steps_again(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fetched = tmp_path / "data", []

    def imported(name: str, paths: list[Path], data_dir: Path) -> None:
        fetched.append(name)
        (data_dir / name).mkdir(parents=True)
        (data_dir / name / "test.jsonl").write_text(json.dumps({"text": "profit rose", "label": "positive"}) + "\n")

    monkeypatch.setattr("finbench.data.import_data", imported, raising=False)
    monkeypatch.setattr("finbench.data.on_hub", lambda name: True, raising=False)
    stated = sweepfile.read(write(tmp_path, llama, axes={"task": ["fpb"]}, eval={"also": ["tfns"]}))
    first = Schedule(stated, driver.prepared(stated, data), {}).steps.keys()
    assert fetched == ["fpb", "tfns"]
    assert Schedule(stated, driver.prepared(stated, data), {}).steps.keys() == first
    assert fetched == ["fpb", "tfns"]


# ---------------------------------------------------------------- steps


def board(path: Path, known: dict[str, Any] | None = None) -> Schedule:
    stated = sweepfile.read(path)
    return Schedule(stated, sweepfile.cells(stated), known or {})


def play(one: Schedule, fail: str = "", room: int = 3) -> list[list[Step]]:
    """Do everything, as a driver with ``room`` workers would; steps whose name holds ``fail`` fail."""
    played = []
    while not one.over:
        taken = one.take(room, idle=True)
        assert taken, "nothing may be done, and it is not over"
        for steps in taken:
            played.append(steps)
            for step in steps:
                bad = fail and fail in step.name
                outcome = {"state": "failed", "message": "no", "hint": ""} if bad else {"state": "done", "seconds": 2.0}
                one.finish(step, {**outcome, "lr": 0.5, "search": None, "scores": {"t": ["accuracy", 0.5]}})
    return played


def test_what_was_begun_comes_before_another_search(tmp_path: Path) -> None:
    """A grid that is stopped half-way then has whole cells, and not searches alone."""
    one = board(write(tmp_path, "smollm2-135m", tune={"budget": 1}))
    played = [steps[0].kind for steps in play(one, room=1)]
    assert played[:5] == ["search", "train", "train", "score", "search"]  # the base, which others may share
    assert [kind for kind in played if kind != "score"] == ["search", "train", "train"] * 4


def test_every_step_comes_once_and_after_those_it_needs(tmp_path: Path) -> None:
    one = board(write(tmp_path, "smollm2-135m", tune={"budget": 1}))
    played = [step for steps in play(one) for step in steps]
    kinds = [step.kind for step in played]
    # one search for each method and task, whatever the seed; one base for each task
    assert (kinds.count("search"), kinds.count("train"), kinds.count("score")) == (4, 8, 8 + 2)
    place = {step.key: at for at, step in enumerate(played)}
    assert len(place) == len(played)
    assert all(place[key] < place[step.key] for step in played for key in step.after)
    assert {step.payload["recipe"]["lr"] for step in played if step.kind == "train"} == {0.5}
    assert [one.state(cell, set()) for cell in one.cells] == ["done"] * 8
    assert one.seconds_left() == 0


def test_a_grid_that_grows_knows_its_folders_by_their_keys(tmp_path: Path) -> None:
    """The names of its cells change, for they say what tells them apart."""
    axes = {"task": ["mini_sentiment"], "seed": [0, 1]}
    tuned = {"budget": 1}
    before = board(write(tmp_path, "smollm2-135m", axes=axes, tune=tuned))
    place = Place(str(tmp_path / "out"))
    kept = {step.payload["folder"] for step in before.steps.values() if step.kind != "score"}
    for folder in kept:
        (tmp_path / "out" / folder).mkdir(parents=True)
    stated = sweepfile.read(write(tmp_path, "smollm2-135m", axes={**axes, "rank": [8, 4]}, tune=tuned))
    grown = sweepfile.cells(stated)
    assert not {cell.name for cell in before.cells} & {cell.name for cell in grown}
    after = Schedule(stated, grown, {}, folders=place.folders())
    assert before.steps.keys() < after.steps.keys()
    found = {after.steps[key].payload["folder"] for key in before.steps if after.steps[key].kind != "score"}
    assert found == kept
    assert {cell.folder for cell in before.cells} < {cell.folder for cell in after.cells}


def test_a_base_is_asked_in_other_ways_once_for_all_its_cells(tmp_path: Path) -> None:
    ways = [{"shots": 5, "seed": 1}, {"tasks": ["mini_ner"], "metadata": {"noise": "typos"}}]
    path = write(tmp_path, "smollm2-135m", beside=[*ways, {}])
    one = board(path)
    plain = board(write(tmp_path, "smollm2-135m"))
    more = [step for key, step in one.steps.items() if key not in plain.steps]
    assert plain.steps.keys() < one.steps.keys()  # another way to ask does nothing again; the last is the usual one
    asked = [(step.name.partition(", ")[2], [name[9:] for name in step.payload["tasks"]]) for step in more]
    assert sorted(asked) == [
        ("metadata noise=typos", ["mini_ner"]),
        ("shots 5, seed 1", ["mini_headline"]),
        ("shots 5, seed 1", ["mini_sentiment"]),
    ]
    assert all(step.kind == "score" and not step.payload["folders"] and not step.after for step in more)
    assert more[0].payload["how"]["shots"] == 5
    play(one, fail="shots 5")
    assert [one.state(cell, set()) for cell in one.cells] == ["done"] * 8
    assert [failed["cell"] for failed in one.failures()] == [
        f"score smollm2-135m on {task}, shots 5, seed 1" for task in ("mini_sentiment", "mini_headline")
    ]


def test_ways_to_ask_a_base_come_with_the_searches_and_not_before_what_was_begun(tmp_path: Path) -> None:
    one = board(write(tmp_path, "smollm2-135m", tune={"budget": 1}, beside=[{"shots": 5}]))
    names = [steps[0].name for steps in play(one, room=1)]
    first = names.index("train mini-sentiment-smollm2-135m-lora-s0")
    assert [name for name in names[:first] if "shots" in name or name.startswith("search")] == [
        "search mini-sentiment-smollm2-135m-lora-s0"
    ]


def test_what_only_a_way_asks_for_is_fetched_and_needs_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "smollm2-135m", beside=[{"tasks": ["mini_ner"]}])
    asked: list[str] = []

    def missing(tasks: list[catalog.Task], data_dir: Path | None) -> list[catalog.Task]:
        asked.extend(one.name for one in tasks)
        return []

    monkeypatch.setattr(driver.prompts, "missing", missing)
    driver.prepared(sweepfile.read(path), None)
    assert sorted(asked) == ["finbench_mini_headline", "finbench_mini_ner", "finbench_mini_sentiment"]
    monkeypatch.setattr(forecast, "_planned", lambda planner, cell, made: 2.0)
    one = board(path)
    wanted = forecast.planned_memory(one, Place(str(tmp_path / "out")))
    assert wanted.keys() == one.steps.keys()
    assert {wanted[key] for key in one.ways} == {int(1.2 * 2 * 2**30)}


def test_a_way_changes_single_arguments_and_choices_of_rows(tmp_path: Path) -> None:
    usual = {"arguments": {"dtype": "float32"}, "metadata": {"split": "validation"}, "gpu_memory": 0.5, "limit": 6}
    way = {"arguments": {"batch_size": 4}, "metadata": {"noise": "typos"}, "gpu_memory": 0.25}
    [found] = sweepfile.read(write(tmp_path, "smollm2-135m", eval=usual, beside=[way])).beside
    assert found.metadata == {"split": "validation", "noise": "typos"}
    assert found.arguments == {"dtype": "float32", "batch_size": 4, "gpu_memory": 0.25}
    one = board(tmp_path / "small.yaml")
    shares = {(step.key in one.ways, step.gpu_memory) for step in one.steps.values() if step.kind == "score"}
    assert shares == {(False, 0.5), (True, 0.25)}


@pytest.mark.parametrize("part", ["eval", "beside"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 3, "profile": "chat"}, "temperature"),
        ({"metadata": {"noise": "typoz"}}, "typoz"),
        ({"shots": 2, "metadata": {"split": "train"}}, "Worked examples are rows of train"),
        ({"shots": 2, "fewshot_as_multiturn": True}, "turns in a chat template only"),
        ({"profile": "chat", "chat": False}, "needs the chat template"),
        ({"engine": "server", "arguments": {"url": "http://127.0.0.1:1/v1"}}, "not at an endpoint"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told_before_anything_starts(
    part: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError, match=f"^{'eval' if part == 'eval' else 'beside.0'}: .*{message}"):
        names(write(tmp_path, "smollm2-135m", **{part: settings if part == "eval" else [settings]}))


def test_what_a_way_has_of_eval_is_told_and_null_takes_it_away(tmp_path: Path) -> None:
    usual = {"profile": "cot", "max_tokens": 100, "max_length": 512}
    with pytest.raises(FinbenchError, match="beside.0: --max-tokens") as caught:
        names(write(tmp_path, "smollm2-135m", eval=usual, beside=[{"profile": "direct"}]))
    assert caught.value.hint.endswith("what it does not state is as in eval, null takes it away.")
    way = {"profile": "direct", "max_tokens": None, "arguments": {"max_length": 256}}
    [found] = sweepfile.read(write(tmp_path, "smollm2-135m", eval=usual, beside=[way])).beside
    assert (found.profile, found.max_tokens, found.arguments) == ("direct", None, {"max_length": 256})
    names(tmp_path / "small.yaml")


def test_what_failed_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [{"cell": "a", "message": "no", "hint": ""}, {"cell": "score b, shots 5", "message": "no", "hint": ""}]
    for cells, done, failed, said in (
        (2, 1, told, "1 of 2 cells and 1 scoring of bases failed; the first, a: no"),
        (2, 2, told[1:] * 2, "2 scorings of bases failed; the first, score b, shots 5: no"),
        (2, 1, told[:1], "1 of 2 cells failed; the first, a: no"),
    ):
        summary = driver.Summary(cells, done, failed, 3, {}, "here")
        monkeypatch.setattr("finbench.sweep", lambda *_, summary=summary, **__: summary)
        with pytest.raises(FinbenchError) as caught:
            CliRunner().invoke(app, ["sweep", "grid.yaml"], catch_exceptions=False)
        assert caught.value.message == said


def test_every_setting_of_eval_reaches_the_scoring(tmp_path: Path) -> None:
    stated: dict[str, Any] = {"profile": "chat", "max_tokens": 40, "samples": 2, "temperature": 0.5, "shots": 1}
    stated |= {"system_prompt": "Be short.", "arguments": {"dtype": "float32"}, "max_length": 512, "limit": 6}
    one = board(write(tmp_path, "smollm2-135m", eval=stated))
    arguments = {**stated["arguments"], "max_length": stated.pop("max_length")}
    for step in one.steps.values():
        if step.kind == "score":
            wanted = {**stated, "arguments": arguments, "chat": True}  # which the profile needs
            assert {key: step.payload["how"][key] for key in wanted} == wanted


@pytest.mark.parametrize("profile", ["chat", "think"])
def test_a_profile_brings_the_chat_template_that_it_needs(profile: str, llama: Path, tmp_path: Path) -> None:
    usual = {"engine": "dummy", "limit": 2}
    way = {"profile": profile, "max_tokens": 8}
    one = board(write(tmp_path, llama, eval=usual, beside=[way], axes={"task": ["mini_sentiment"]}))
    [step] = [one.steps[key] for key in one.ways]
    answer = work.run({**one.payload([step]), "place": str(tmp_path / "out"), "data_dir": ""})
    assert answer["state"] == "done", answer
    [card] = map(cardfiles.read, (tmp_path / "out" / "scorecards").glob("*.json"))
    assert card.subject.chat
    assert card.generation
    assert card.generation.profile == profile


def test_adapters_of_one_base_are_scored_together(tmp_path: Path) -> None:
    together = [steps for steps in play(board(write(tmp_path, "smollm2-135m")), room=50) if len(steps) > 1]
    assert sorted(len(steps) for steps in together) == [4, 4]
    assert all(len({step.group for step in steps}) == 1 for steps in together)
    small = play(board(write(tmp_path, "smollm2-135m", eval={"group": 3})), room=50)
    assert max(len(steps) for steps in small) == 3


def test_a_failure_ends_its_own_cells_only(tmp_path: Path) -> None:
    one = board(write(tmp_path, "smollm2-135m"))
    play(one, fail="train mini-sentiment-smollm2-135m-rslora-s1")
    assert [failed["cell"] for failed in one.failures()] == ["mini-sentiment-smollm2-135m-rslora-s1"]
    assert sum(one.state(cell, set()) == "done" for cell in one.cells) == 7
    whole = board(write(tmp_path, "smollm2-135m", tune={"budget": 1}))
    play(whole, fail="search")
    assert len(whole.failures()) == 8
    assert all("search" in failed["message"] for failed in whole.failures())


def test_what_is_done_is_not_done_again_and_a_longer_axis_adds_its_own(tmp_path: Path) -> None:
    one = board(write(tmp_path, "smollm2-135m"))
    play(one)
    known = {key: step.outcome for key, step in one.steps.items() if step.outcome}
    assert board(write(tmp_path, "smollm2-135m"), known).over
    axes = {"method": ["lora", "rslora", "dora"], "task": ["mini_sentiment", "mini_headline"], "seed": [0, 1]}
    more = play(board(write(tmp_path, "smollm2-135m", axes=axes), known))
    assert {step.cell.recipe.method for steps in more for step in steps if step.cell} == {"dora"}
    assert sum(len(steps) for steps in more) == 8
    # another task to be scored on: the trainings stay
    scored = play(board(write(tmp_path, "smollm2-135m", eval={"limit": 6, "also": ["mini_ner"]}), known))
    assert {step.kind for steps in scored for step in steps} == {"score"}

    # an adapter that is gone: its scores are there, or it is trained and scored again
    def gone(folder: str) -> bool:
        return False

    stated = sweepfile.read(write(tmp_path, "smollm2-135m"))
    assert Schedule(stated, sweepfile.cells(stated), known, gone).over
    lost = next(step for step in one.steps.values() if step.kind == "score" and step.cell)
    again = play(Schedule(stated, sweepfile.cells(stated), {k: v for k, v in known.items() if k != lost.key}, gone))
    assert [step.name for steps in again for step in steps] == [f"train {lost.cell.name}", lost.name]
    # what failed is tried again
    key = next(key for key, step in one.steps.items() if step.kind == "train")
    known[key] = {"state": "failed", "message": "", "seconds": 0}
    assert not board(write(tmp_path, "smollm2-135m"), known).over


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("url", ["folder", "memory://sweep"])
def test_a_place_keeps_small_files_and_passes_over_torn_ones(url: str, tmp_path: Path) -> None:
    place = Place(str(tmp_path / url) if url == "folder" else url)
    assert place.steps() == {}
    assert place.read("progress.json") is None
    place.write("steps/a.json", '{"state": "done"}')
    place.write("steps/b.json", '{"state": "do')
    place.write("running/a.json", '{"name": "x", "since": "1"}')
    assert place.steps() == {"a": {"state": "done"}}
    assert [mark["name"] for mark in place.running()] == ["x"]
    place.remove("running/a.json")
    place.remove("running/a.json")
    assert place.running() == []
    place.write("running/b.json", "{}")
    place.clear()
    place.clear()
    assert place.running() == []


@pytest.mark.parametrize("below", ["", "/x"])
def test_a_file_is_no_place(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FinbenchError, match="is no folder") as caught:
        Place(f"{tmp_path}/file{below}")
    assert "Name one for the results" in caught.value.hint


def test_an_unknown_store_is_refused() -> None:
    with pytest.raises(FinbenchError, match="no place for results"):
        Place("nosuch://bucket/x")


def test_status_of_nothing_of_a_torn_file_and_of_a_dead_driver(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="No sweep has run"):
        watch.sweep_status(str(tmp_path))
    (tmp_path / "progress.json").write_text("{")
    with pytest.raises(FinbenchError, match="torn"):
        watch.sweep_status(str(tmp_path))
    one = board(write(tmp_path, "smollm2-135m"))
    payload = watch.Watch(one, Place(str(tmp_path)))
    payload.tell({next(iter(one.steps))})
    assert watch.sweep_status(str(tmp_path))["alive"]
    stale = json.loads((tmp_path / "progress.json").read_text())
    (tmp_path / "progress.json").write_text(json.dumps({**stale, "renewed": time.time() - 3600}))
    found = watch.sweep_status(str(tmp_path))
    assert (found["alive"], found["running"], found["waiting"]) == (False, 0, 8)
    watch.picture(found)
    ways = board(write(tmp_path, "smollm2-135m", beside=[{"shots": 1}]))
    for key in ways.steps.keys() - ways.ways:
        ways.steps[key].outcome = {"state": "done"}
    watch.Watch(ways, Place(str(tmp_path))).tell(set())
    found = watch.sweep_status(str(tmp_path))
    assert watch.line(found) == "small: 8 of 8 cells done, 2 scorings of bases to come"
    for key, value in {"waiting": None, "best": {"fpb": 1}, "doing": [{"pid": 1}], "failures": [{}]}.items():
        (tmp_path / "progress.json").write_text(json.dumps({**stale, key: value}))
        with pytest.raises(FinbenchError, match="torn"):
            watch.sweep_status(str(tmp_path))


def test_a_bug_in_a_step_is_its_answer_and_not_the_worker_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")  # of all that comes after one

    monkeypatch.setattr(environment, "release_memory", broken)
    answer = work.run({"kind": "train", "place": "memory://x", "recipe": {}})
    assert answer["state"] == "failed"
    assert "recipe" in answer["message"]
    answer = work.run({"kind": "train"})
    assert answer["state"] == "failed"
    assert "KeyError" in answer["trace"]


@pytest.mark.parametrize("url", ["folder", "memory://results"])
def test_steps_make_what_they_say_at_a_place_of_any_kind(
    url: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    axes = {"method": ["lora"], "task": ["mini_sentiment"], "seed": [0, 1]}
    one = board(write(tmp_path, llama, axes=axes, tune={"budget": 1}))
    place = Place(str(tmp_path / url) if url == "folder" else url)
    while not one.over:
        for steps in one.take(9, idle=True):
            answer = work.run({**one.payload(steps), "place": place.url, "data_dir": ""})
            assert answer["state"] == "done", answer
            for step, part in zip(steps, answer.pop("parts", None) or [{}], strict=True):
                one.finish(step, {**answer, **part})
            if place.folder is None:  # the next step may fall to another node, which has nothing
                shutil.rmtree(place.work())
    files = {Path(name).name for name in place.files.ls(f"{place.root}/scorecards", detail=False)}
    cards = {name for name in files if name.endswith(".json")}
    assert len(cards) == 3
    assert files >= {name.removesuffix(".json") + ".samples.jsonl.zst" for name in cards}
    for name in cards:
        target = tmp_path / "read" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(place.files.cat_file(f"{place.root}/scorecards/{name}"))
        samples = name.removesuffix(".json") + ".samples.jsonl.zst"
        (tmp_path / "read" / samples).write_bytes(place.files.cat_file(f"{place.root}/scorecards/{samples}"))
        assert len(cardfiles.read_samples(target)) == 6
    trained = [json.loads(place.read(f"{cell.folder}/finbench.json") or "")["recipe"] for cell in one.cells]
    assert trained[0]["search"]["budget"] == 1
    assert trained[0]["lr"] == trained[1]["lr"]  # one search for both seeds
    assert set(one.best()) == {"finbench_mini_sentiment"}


def test_cards_of_a_run_that_several_nodes_scored_are_one_where_they_are_fetched(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dummy = {"limit": 4, "engine": "dummy"}
    one, place = board(write(tmp_path, llama, eval=dummy, beside=[{"shots": 1}])), Place("memory://several-nodes")
    for step in one.steps.values():
        if step.kind == "score" and not step.cell:
            answer = work.run({**one.payload([step]), "place": place.url, "data_dir": ""})
            assert answer["state"] == "done", answer
    assert place.fetch_cards(tmp_path / "here") == 2
    cards = [cardfiles.read(path) for path in sorted((tmp_path / "here").glob("*.json"))]
    assert sorted(card.shots for card in cards) == [0, 1]
    wanted = ["finbench_mini_headline", "finbench_mini_sentiment"]
    assert all([score.task for score in card.scores] == wanted for card in cards)
    assert place.fetch_cards(tmp_path / "here") == 2  # again: they are the same
    # each file is of its own tasks, whatever else its worker knew: an older score of another one would come back
    files = [name for name in place.files.ls("several-nodes/scorecards", detail=False) if name.endswith(".json")]
    assert [len(json.loads(place.files.cat_file(name))["scores"]) for name in files] == [1] * 4
    # one that was edited is not sealed anew among others
    name = files[0]
    text = place.files.cat_file(name).decode().replace('"n": 4', '"n": 5', 1)
    place.files.pipe_file(name, text.encode())
    assert place.fetch_cards(tmp_path / "there") == 3
    assert (tmp_path / "there" / Path(name).name).read_text() == text


@pytest.mark.parametrize(
    ("name", "count"),
    [("cpu", 18), ("finlora", 495), ("mission", 471), ("six-tasks", 180), ("four-bits", 20), ("flagship", 62)],
)
def test_the_examples_are_grids_that_could_be_run(name: str, count: int) -> None:
    folder = Path(__file__).parent.parent / "examples"
    assert len(sweepfile.cells(sweepfile.read(folder / f"sweep-{name}.yaml"))) == count


# ---------------------------------------------------------------- with Ray


def run(path: Path, out: str, *more: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finbench", "sweep", str(path), "--out", out, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture
def _ray() -> None:
    pytest.importorskip("ray", reason='no Ray: pip install -e ".[ray]"')


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "steps").glob("*.json"))}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_sweep_from_the_command_line(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    broken = {"method": "lora", "task": "mini_sentiment", "max_length": 8}  # every row is longer: refused by train
    axes = {"method": ["lora"], "task": ["mini_sentiment"], "seed": [0, 1]}
    path = write(tmp_path, llama, axes=axes, include=[broken], beside=[{"shots": 1}])
    first = run(path, str(out))
    assert first.returncode == 1
    assert "2 of 4 cells failed" in first.stderr.replace("\n", " ")
    assert "2 of 4 cells are done" in first.stdout
    cards = {card.name for card in (out / "scorecards").glob("*.json")}
    assert len(cards) == 4  # two adapters, one base in two ways
    assert {(one.shots, one.limit) for one in map(cardfiles.read, (out / "scorecards").glob("*.json"))} == {
        (0, 6),
        (1, 6),
    }
    before = contents(out)
    again = run(path, str(out), "--json")
    done = {name: text for name, text in before.items() if json.loads(text)["state"] == "done"}
    assert len(done) == 2 + 2 + 2
    assert done.items() <= contents(out).items()
    assert json.loads(again.stdout)["steps_run"] == 2  # the two that failed, once more
    status = subprocess.run(
        [sys.executable, "-m", "finbench", "sweep", "status", str(out), "--json"], capture_output=True, check=True
    )
    shown = json.loads(status.stdout)
    assert (shown["done"], shown["failed"], shown["alive"]) == (2, 2, False)
    dry = run(path, str(out), "--dry-run", "--json")
    assert json.loads(dry.stdout)["steps_left"] == {"train": 2, "score": 2}


@pytest.fixture(params=["folder", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where results may lie; for s3 a server of our own that speaks its protocol."""
    if request.param != "s3":
        yield str(tmp_path / "out") if request.param == "folder" else f"file://{tmp_path}/out"
        return
    pytest.importorskip("s3fs", reason="no store: pip install s3fs 'moto[server]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    place = Place(f"s3://results/{tmp_path.parent.name}")
    place.files.mkdir("results")
    yield place.url
    server.stop()
    shutil.rmtree(place.work(), ignore_errors=True)


def test_the_mark_of_a_killed_worker_is_no_running_step(tmp_path: Path) -> None:
    one, place = board(write(tmp_path, "smollm2-135m")), Place(str(tmp_path))
    given = next(iter(one.steps))
    for key, since in (("0" * 64, "1"), (given, "2")):
        mark = {"name": f"train {key[:4]}", "since": since, "pid": 1, "keys": [key]}
        place.write(f"running/{key}.json", json.dumps(mark))
    watch.Watch(one, place).tell({given})
    found = watch.sweep_status(str(tmp_path))
    assert [mark["name"] for mark in found["doing"]] == [f"train {given[:4]}"]


def test_a_log_is_not_filled_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, clock = board(write(tmp_path, "smollm2-135m")), [1000.0]
    monkeypatch.setattr(watch.time, "time", lambda: clock[0])
    told = watch.Watch(one, Place(str(tmp_path)))
    for _ in range(100):  # of 10 seconds
        clock[0] += 10
        told.tell(set())
    assert capsys.readouterr().err.count("0 of 8 cells done") == 2
    one.score_of[one.cells[0].key].outcome = {"state": "failed", "message": "", "seconds": 0}
    clock[0] += 40
    told.tell(set())
    assert "1 failed" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_killed_driver_loses_only_what_was_running(store: str, llama: Path, tmp_path: Path) -> None:
    place = Place(store)
    path = write(tmp_path, llama, axes={"method": ["lora"], "task": ["mini_sentiment"], "seed": [0, 1, 2, 3]})
    command = [sys.executable, "-m", "finbench", "sweep", str(path), "--out", store]
    driver = subprocess.Popen(command)
    until(lambda: len(place.steps()) >= 2, driver)
    driver.send_signal(signal.SIGSTOP)  # or it might be done before the other one has begun
    other = run(path, store)
    assert other.returncode == 1
    assert f"Another {'sweep' if store.startswith('s3:') else 'finbench process'} works in" in other.stderr
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    if place.folder is None:  # a store has no locks, but a lease that lapses: as if two minutes had passed
        assert run(path, store).returncode == 1
        lease = json.loads(place.read("lease.json") or "")
        place.write("lease.json", json.dumps({**lease, "renewed": lease["renewed"] - 121}))
    before = place.steps()
    ended = run(path, store, "--json")
    assert ended.returncode == 0, ended.stderr
    after = place.steps()
    assert before.items() <= after.items()
    summary = json.loads(ended.stdout)
    assert summary["done"] == 4
    total = 4 + 4 + 1
    assert len(after) == total
    assert summary["steps_run"] <= total - len(before)
    cards = [name for name in place.files.ls(f"{place.root}/scorecards", detail=False) if name.endswith(".json")]
    assert len(cards) == 4 + 1
    fetch = [sys.executable, "-m", "finbench", "sweep", "fetch", store, "--out", str(tmp_path / "here"), "--json"]
    fetched = subprocess.run(fetch, capture_output=True, check=True)
    assert json.loads(fetched.stdout)["cards"] == 5
    for path in cardfiles.expand([tmp_path / "here" / "scorecards"]):
        assert len(cardfiles.read_samples(path)) == 6


def until(true: Any, process: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, "it ended by itself"
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_everything_and_the_same_command_goes_on(
    sent: signal.Signals, llama: Path, tmp_path: Path
) -> None:
    """As does the signal by which batch systems and containers end a job."""
    out = tmp_path / "out"
    path = write(tmp_path, llama, axes={"method": ["lora"], "task": ["mini_sentiment"], "seed": [0, 1, 2]})
    command = [sys.executable, "-m", "finbench", "sweep", str(path), "--out", str(out)]
    driver = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    until(lambda: len(contents(out)) >= 1, driver)
    driver.send_signal(sent)
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 130, said
    assert "Go on with the same command." in said
    before = contents(out)
    assert run(path, str(out)).returncode == 0
    assert before.items() <= contents(out).items()


def test_what_a_dead_worker_did_is_not_shown_as_running(tmp_path: Path) -> None:
    """Its mark goes at once, and the step is begun again as often as the file says; then it has failed."""
    place, begun, ended = Place(str(tmp_path)), list[Any](), list[Any]()
    step = SimpleNamespace(key="k", name="train a", kind="train")
    grid = SimpleNamespace(
        place=place,
        deaths={},
        board=SimpleNamespace(sweep=SimpleNamespace(retries=1)),
        ray=SimpleNamespace(exceptions=SimpleNamespace(OutOfMemoryError=MemoryError)),
        _submit=begun.append,
        _finish=lambda step, outcome: ended.append(outcome),
    )
    for _ in range(2):
        place.write("running/k.json", json.dumps({"name": "train a", "since": "", "pid": 1, "keys": ["k"]}))
        assert len(place.running()) == 1
        driver.Driver._died(cast("Any", grid), [cast("Any", step)], MemoryError())
        assert not place.running()
    assert begun == [[step]]
    [outcome] = ended
    assert (outcome["state"], outcome["attempts"]) == ("failed", 2)
    assert "too little memory" in outcome["message"]


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_worker_killed_in_a_cell_on_one_of_two_nodes(llama: Path, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    out = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        axes = {"method": ["lora"], "task": ["mini_sentiment"], "seed": [0, 1, 2]}
        path = write(tmp_path, llama, axes=axes, common={**COMMON, "base": str(llama), "epochs": 4})
        command = [sys.executable, "-m", "finbench", "sweep", str(path), "--out", str(out), "--ray", cluster.address]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def training() -> list[dict[str, Any]]:
            return (
                [mark for mark in Place(str(out)).running() if mark["name"].startswith("train")] if out.exists() else []
            )

        until(training, driver)
        os.kill(int(training()[0]["pid"]), signal.SIGKILL)
        stdout, said = driver.communicate(timeout=400)
        assert driver.returncode == 0, said
        assert "its worker died" in said
        assert "3 of 3 cells are done" in stdout
        found = [json.loads(text) for text in contents(out).values()]
        assert sorted(one["attempts"] for one in found if one["kind"] == "train") == [1, 1, 2]
        assert len({one["node"] for one in found}) == 2
    finally:
        cluster.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_sweep_of_own_rows_and_of_an_own_benchmark(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are other processes, in other folders: they find rows and benchmark by what the driver tells them."""
    from test_new_task import sentences, table

    from finbench.evaluation import new_task

    monkeypatch.chdir(tmp_path)
    made = new_task(table(tmp_path / "fed.csv", sentences(150)), text="sentence", label="stance", to=tmp_path / "fed")
    others = table(tmp_path / "others.csv", sentences(60, 5), ("prompt", "completion"))
    stated = {**COMMON, "base": str(llama), "limit": None}
    mapped = {"map": {"fed.csv:prompt": "sentence", "fed.csv:completion": "stance"}}
    learnt: list[dict[str, Any]] = [{"task": [str(made.folder)]}, {"data": [str(others)]}]
    learnt.append({"task": [f"{made.folder}:0.5"], "data": [str(tmp_path / "fed.csv")], **mapped})
    axes = {"method": [{"method": "lora", **one} for one in learnt]}
    path = write(tmp_path, llama, axes=axes, common=stated, eval={"tasks": str(made.folder)}, name="own")
    done = run(path, str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    cards = {card.subject.name: card for card in map(cardfiles.read, (tmp_path / "out" / "scorecards").glob("*.json"))}
    assert len(cards) == 4
    assert {score.task for card in cards.values() for score in card.scores} == {"fed"}
    seen = [card.scores[0].overlap for card in cards.values() if card.subject.adapter]
    assert sorted((one.texts, one.of) for one in seen if one) == [(0, made.rows["test"]), (0, made.rows["test"]),
                                                                  (made.rows["test"], made.rows["test"])]  # fmt: skip
