"""Which GPUs the steps of a grid get, on a Ray that starts nothing: it says what nodes there are, and what is asked."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from conftest import Card
from finbench.core.errors import FinbenchError
from finbench.engines.vllm import memory
from finbench.grid import driver, forecast, nodes, sweepfile, work
from finbench.grid.places import Place
from finbench.grid.steps import Schedule

AXES = {"method": ["lora"], "seed": [0]}


class Ray:
    """Nodes with so many GPUs each; ``asked`` are the options and payloads of all pieces of work."""

    def __init__(self, *gpus: int) -> None:
        self.gpus, self.asked = gpus, list[tuple[dict[str, Any], dict[str, Any]]]()

    def nodes(self) -> list[dict[str, Any]]:
        found = [{"Alive": True, "Resources": {"CPU": 8, **({"GPU": count} if count else {})}} for count in self.gpus]
        return [*found, {"Alive": False, "Resources": {"GPU": 64}}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0 * len(self.gpus)}

    def remote(self, *_: Any, **__: Any) -> Any:
        def options(**stated: Any) -> Any:
            return SimpleNamespace(remote=lambda payload: self.asked.append((stated, payload)) or len(self.asked))

        return (lambda task: SimpleNamespace(options=options)) if not _ else SimpleNamespace(options=options)


def board(folder: Path, **changes: Any) -> Schedule:
    stated = {"name": "test", "axes": AXES, "common": {"base": "smollm2-135m", "task": "mini_sentiment"}, **changes}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(stated))
    sweep = sweepfile.read(folder / "sweep.yaml")
    return Schedule(sweep, sweepfile.cells(sweep), {})


def asked(ray: Ray, one: Schedule, folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What Ray is asked for, for every step of a board."""
    gpus = nodes.most_gpus(ray)
    one.settle(gpus)
    nodes.check_gpus(one, gpus, growing=False)
    made = driver.Driver(ray, one, Place(str(folder)), None, {}, gpus=gpus)
    for step in one.steps.values():
        made._submit([step])
    return ray.asked


@pytest.mark.parametrize(
    ("cpus", "growing", "expected"), [(1, False, 2 * 8), (4, False, 2 * 8), (0.25, False, 2 * 8 * 4), (1, True, 101)]
)
def test_a_machine_alone_is_given_twice_what_it_can_do_at_once(
    cpus: float, growing: bool, expected: int, tmp_path: Path
) -> None:
    """So that what is begun comes before what is not; a cluster is given all, for it grows by what waits."""
    ray, one = Ray(0), board(tmp_path, axes={"seed": list(range(100))}, needs={"cpus": cpus})
    one.settle(0)
    driver.Driver(ray, one, Place(str(tmp_path)), None, growing=growing)._hand_out()
    assert len(ray.asked) == expected  # of a hundred trainings, and the base that is scored beside them


def test_a_cell_without_needs_gets_a_gpu_of_its_own_where_there_are_any(tmp_path: Path) -> None:
    for gpus_of, expected in (((0, 4), 1.0), ((0, 0), 0.0)):
        one = board(tmp_path)
        found = asked(Ray(*gpus_of), one, tmp_path)
        assert len(found) == 3
        assert {options["num_gpus"] for options, _ in found} == {expected}
        assert not any("runtime_env" in options for options, _ in found)
        assert [cell.needs.gpus for cell in one.cells] == [expected]
        assert {step.cell.needs.gpus for step in one.steps.values() if step.cell} == {expected}
        assert {step.payload["processes"] for step in one.steps.values() if step.kind == work.TRAIN} == {1}
    # whatever machine it was planned on, they are the same steps
    assert board(tmp_path).steps.keys() == board(tmp_path, needs={"gpus": 1}).steps.keys() == one.steps.keys()


def test_steps_that_are_to_have_none_see_none(tmp_path: Path) -> None:
    """With num_gpus 0, Ray hides no GPU: all of them would work on the first."""
    one = board(tmp_path, needs={"gpus": 0}, eval={"needs": {"gpus": 1}})
    for options, payload in asked(Ray(2), one, tmp_path):
        if payload["kind"] == work.SCORE:
            assert options["num_gpus"] == 1
            assert "runtime_env" not in options
        else:
            assert options["num_gpus"] == 0
            assert options["runtime_env"] == {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}


def test_more_gpus_than_a_node_has_are_refused_on_one_machine_and_waited_for_on_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for there, has in ((1, "has 1"), (0, "has none that Ray finds")):
        with pytest.raises(FinbenchError, match=f"needs 2 GPUs; this machine {has}") as fault:
            asked(Ray(there), board(tmp_path, needs={"gpus": 2}), tmp_path)
        assert f"gpus: {there}" in fault.value.hint
    with pytest.raises(FinbenchError, match=r"needs 0.5 GPU; this machine has none"):
        asked(Ray(0), board(tmp_path, needs={"gpus": 0.5}), tmp_path)
    nodes.check_gpus(board(tmp_path, needs={"gpus": 8}), 4, growing=True)
    assert "no node has more than 4 now" in " ".join(capsys.readouterr().err.split())


def test_a_share_of_a_gpu_is_a_share_of_its_memory(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    one = board(tmp_path, needs={"gpus": 0.5})
    [payload] = [payload for _, payload in asked(Ray(1), one, tmp_path) if payload["kind"] == work.TRAIN]
    score = {**payload, "how": {"engine": "auto"}}
    assert work._gpu_memory(score) == pytest.approx(memory.SHARE / 2)
    assert work._gpu_memory({**score, "gpus": 0.25, "how": {"engine": "vllm"}}) == pytest.approx(memory.SHARE / 4)
    assert work._gpu_memory({**score, "gpu_memory": 0.3}) == 0.3  # stated by the file
    assert work._gpu_memory({**score, "gpus": 1}) is None
    assert work._gpu_memory({**score, "gpus": 0}) is None
    assert work._gpu_memory({**score, "how": {"engine": "dummy"}}) is None
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    work._take_share(payload)
    assert fractions == []  # there is no GPU here
    card()
    for gpus in (0, 0.5, 1, 2):
        work._take_share({**payload, "gpus": gpus})
    assert fractions == [0.5]


def test_another_share_makes_no_other_step(tmp_path: Path) -> None:
    plain, stated = board(tmp_path), board(tmp_path, eval={"gpu_memory": 0.4, "max_length": 256})
    shared = board(tmp_path, eval={"max_length": 256})
    assert shared.steps.keys() == stated.steps.keys() != plain.steps.keys()
    for _, payload in asked(Ray(1), stated, tmp_path):
        if payload["kind"] == work.SCORE:
            assert payload["gpu_memory"] == 0.4
            assert payload["how"]["arguments"] == {"max_length": 256}


def test_a_dry_run_plans_for_the_gpus_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board(tmp_path)
    monkeypatch.setattr(forecast.Planner, "memory", lambda *_: 2.0)
    for count, gpus in ((0, 0.0), (2, 1.0)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        outlined = driver.sweep(tmp_path / "sweep.yaml", str(tmp_path / "out"), dry_run=True)
        assert isinstance(outlined, Schedule)
        assert [cell.needs.gpus for cell in outlined.cells] == [gpus]
        asks = forecast.planned_memory(outlined, Place(str(tmp_path / "out")))
        assert bool(asks) is (gpus == 0)  # the host's memory of a GPU cell is not planned


def ray_and_rows(base: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """Ray, which neither reports use nor hides GPUs from steps that ask for none; what every recipe states."""
    ray = pytest.importorskip("ray")
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    return ray, {"base": str(base), "task": "mini_sentiment", "limit": 16, "rank": 4, "batch_size": 8}


@pytest.mark.ray
def test_on_a_ray_with_gpus_steps_see_their_own_and_those_without_see_none(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray believes in two GPUs; torch finds none, so that everything is computed on the processor."""
    ray, common = ray_and_rows(llama, monkeypatch)
    how = {"engine": "dummy", "limit": 4, "needs": {"gpus": 0}}
    one = board(tmp_path, common=common, eval=how)
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        assert nodes.most_gpus(ray) == 2
        seen = ray.remote(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
        assert ray.get(seen.options(num_gpus=0).remote()) is None  # Ray hides none
        hidden = driver.Driver(ray, one, Place(str(tmp_path)), None, gpus=2).options(sweepfile.Needs(gpus=0))
        assert ray.get(seen.options(**hidden).remote()) == ""
        summary = driver.sweep(tmp_path / "sweep.yaml", str(tmp_path / "out"))
        assert isinstance(summary, driver.Summary)
        assert (summary.done, summary.failed) == (1, [])
    finally:
        ray.shutdown()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_cell_without_needs_has_a_real_gpu_to_itself(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, common = ray_and_rows(llama, monkeypatch)
    one = board(tmp_path, common=common, eval={"engine": "dummy", "limit": 4, "needs": {"gpus": 0}})
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        gpus = nodes.most_gpus(ray)
        assert gpus == torch.cuda.device_count()
        one.settle(gpus)
        [cell] = one.cells
        options = driver.Driver(ray, one, Place(str(tmp_path)), None, gpus=gpus).options(cell.needs)
        assert options["num_gpus"] == 1
        seen = ray.remote(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert ray.get(seen.options(**options).remote()) in {str(number) for number in range(gpus)}
        summary = driver.sweep(tmp_path / "sweep.yaml", str(tmp_path / "out"))
        assert isinstance(summary, driver.Summary)
        assert (summary.done, summary.failed) == (1, [])
    finally:
        ray.shutdown()
