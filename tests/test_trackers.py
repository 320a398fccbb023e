"""Trackers: named, driven by transformers' callbacks, and never the end of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_grid import write
from test_validation import recipe
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import integration_utils

from finbench.cards import trackers
from finbench.core import tracking
from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.core.records import Adapter
from finbench.grid import sweepfile, work
from finbench.grid.steps import Schedule
from finbench.training import runner


class Remembering(TrainerCallback):
    """Stands in for a tracker's callback."""

    seen: list[tuple[int, dict[str, float]]]
    fails_at: str = ""
    settings: dict[str, Any]
    ended = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        cls = type(self)
        cls.seen, cls.settings = [], args.to_dict()
        if cls.fails_at == "begin":
            raise ConnectionError("nobody answers at http://127.0.0.1:1")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if type(self).fails_at == "log" and state.global_step == 2:
            raise SystemExit("gone")
        type(self).seen.append((state.global_step, dict(logs)))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        type(self).ended += 1


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Remembering]:
    class Own(Remembering):
        pass

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Own)
    monkeypatch.setattr(tracking, "installed", lambda name: True)
    return Own


def test_a_tracker_gets_every_number_of_a_training(llama: Path, tmp_path: Path, stand_in: type[Remembering]) -> None:
    made = runner.train(recipe(llama), tmp_path / "a", report="trackio")
    assert isinstance(made, Adapter)
    losses = [(step, round(logs["loss"], 6)) for step, logs in stand_in.seen if "loss" in logs]
    assert losses == made.training.loss_curve
    assert made.training.validation is not None
    held = [(step, round(logs["eval_loss"], 6)) for step, logs in stand_in.seen if "eval_loss" in logs]
    assert held == made.training.validation.loss
    assert {"grad_norm", "learning_rate", "tokens_per_second", "memory_gb"} <= set(stand_in.seen[1][1])
    assert stand_in.settings["recipe/rank"] == 4
    assert stand_in.ended == 1
    assert str(tmp_path) not in str(stand_in.settings)
    assert str(llama.parent) not in str(stand_in.settings)


@pytest.mark.parametrize("when", ["begin", "log"])
def test_training_goes_on_without_a_tracker_that_is_down(
    when: str, llama: Path, tmp_path: Path, stand_in: type[Remembering], capsys: Any
) -> None:
    stand_in.fails_at = when
    made = runner.train(recipe(llama), tmp_path / "a", report=["trackio"])
    plain = runner.train(recipe(llama), tmp_path / "b")
    assert isinstance(made, Adapter)
    assert isinstance(plain, Adapter)
    assert made.files == plain.files
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("trackio")]
    assert len(said) == (1 if when == "begin" else 2)  # the first: where to look
    assert said[-1].endswith("it goes on without it.")


def test_a_sweep_logs_every_training_and_every_card(
    llama: Path, tmp_path: Path, stand_in: type[Remembering], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []

    class Own(stand_in):  # type: ignore[misc, valid-type]
        def on_train_end(self, *_: Any, **__: Any) -> None:
            begun.append({**type(self).settings, "logged": dict(type(self).seen[-1][1])})

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Own)
    path = write(tmp_path, llama, axes={"method": ["lora", "rslora"], "task": ["mini_sentiment"]}, report=["trackio"])
    sweep = sweepfile.read(path)
    board = Schedule(sweep, sweepfile.cells(sweep), {})
    while not board.over:
        for steps in board.take(1, idle=True):
            answer = work.run({**board.payload(steps), "place": str(tmp_path / "place"), "data_dir": ""})
            assert answer["state"] == "done", answer
            for step, part in zip(steps, answer.get("parts", [{}]), strict=True):
                board.finish(step, {**answer, **part})
    trained = [one["recipe/method"] for one in begun if "recipe/method" in one]
    assert sorted(trained) == ["lora", "rslora"]
    carded = [one for one in begun if "subject/name" in one]
    assert len(carded) == 3  # the base and both adapters
    assert all("eval_finbench_mini_sentiment_macro_f1" in one["logged"] for one in carded)


def test_an_unknown_or_missing_tracker_is_refused_before_anything(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="trackoi"):
        runner.train(recipe(llama), tmp_path / "a", report="trackoi")
    assert tracking.named(()) == []
    missing = [name for name in tracking.NAMES if not tracking.installed(name)]
    for name in missing:
        with pytest.raises(FinbenchError, match="is not installed") as caught:
            tracking.named(name)
        assert caught.value.hint == install(name)


def test_settings_are_flat() -> None:
    assert trackers.facts(recipe={"rank": 4, "tasks": {"fpb": 1.0}, "none": None}, rows=3) == {
        "recipe/rank": 4,
        "recipe/tasks/fpb": 1.0,
        "rows": 3,
    }


def logged(name: str, place: Path) -> None:
    one = trackers.Tracker(name, "run", {"recipe/rank": 4}, place, place / "tensorboard")
    state, control = TrainerState(), TrainerControl()
    one.on_train_begin(None, state, control)
    for step in range(1, 4):
        state.global_step = step
        one.on_log(None, state, control, {"loss": 1 / step})
    one.on_train_end(None, state, control)


def test_tensorboard_holds_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "run"))
    events.Reload()
    assert [(one.step, round(one.value, 4)) for one in events.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.3333),
    ]


def test_mlflow_holds_what_was_logged_and_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    for _ in range(2):
        logged("mlflow", tmp_path)
    client = mlflow.tracking.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("finbench").experiment_id])
    assert len(runs) == 1
    assert runs[0].data.params["recipe/rank"] == "4"
    assert [one.step for one in client.get_metric_history(runs[0].info.run_id, "loss")] == [1, 2, 3, 1, 2, 3]
