"""One training in several processes: the same steps, one line for any fault, nothing left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file
from test_training import recipe
from transformers import TrainerControl, TrainerState

from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Adapter
from finbench.training import checkpoints, claims, launch, runner, trainer

SMALL = {"dropout": 0.0, "lr": 3e-3, "limit": 50}
COMMAND = ["--task", "mini_sentiment", "--set", "dtype=float32", "--set", "batch_size=8", "--set", "save_every=3"]
COMMAND += ["--set", "lr=0.001", "--set", "rank=16"]  # nothing is chosen, so that nothing is said of it


def curve(made: Any) -> list[float]:
    assert isinstance(made, Adapter)
    return [loss for _, loss in made.training.loss_curve]


def begin(base: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """``finbench train`` of many epochs in two processes, as a person starts it."""
    command = [sys.executable, "-m", "finbench", "train", "--base", str(base), "--processes", "2", "--out", str(out)]
    return subprocess.Popen([*command, *COMMAND, *more], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def steps(out: Path) -> list[int]:
    return sorted(checkpoints.step_of(path) for path in (out / "checkpoints").glob("checkpoint-*"))


def wait_for_steps(out: Path, process: subprocess.Popen[str]) -> None:
    """Until there is a checkpoint."""
    deadline = time.monotonic() + 900
    while not steps(out):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for(out: Path, process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the two, when there is a checkpoint."""
    wait_for_steps(out, process)
    return sorted(int(path.suffix[1:]) for path in (out / "checkpoints" / "ranks").glob("pid.*"))


def gone(process: int) -> bool:
    """Whether a process that is not our child has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{process}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # nobody has asked for its end yet
        time.sleep(0.1)
    return False


# ---------------------------------------------------------------- before anything starts


def test_what_cannot_be_started_is_refused(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FinbenchError, match="name the same thing"):
        launch.process_count(2, 2)
    with pytest.raises(FinbenchError, match=r"no GPU is here") as caught:
        launch.process_count(2, None)
    assert "--processes 2" in caught.value.hint
    assert (launch.process_count(None, None), launch.process_count(None, 3)) == (1, 3)
    with pytest.raises(FinbenchError, match="0 processes"):
        launch.check(0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.process_count(2, None) == 2
    with pytest.raises(FinbenchError, match="2 GPUs are here"):
        launch.check(3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(FinbenchError, match="WORLD_SIZE is 4, but RANK"):
        runner.train(recipe(llama), tmp_path / "a")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(FinbenchError, match=r"torchrun has started 4 .* start 2 more"):
        runner.train(recipe(llama), tmp_path / "a", processes=2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(FinbenchError, match="started 4 processes here, and 2 GPUs are here"):
        runner.train(recipe(llama), tmp_path / "a")


def test_the_fault_that_came_first_is_the_one_that_is_told(tmp_path: Path) -> None:
    class End:
        def __init__(self, exitcode: int) -> None:
            self.exitcode = exitcode

    def judged(*notes: tuple[int, Any, str], ends: dict[int, int]) -> FinbenchError:
        shutil.rmtree(tmp_path / "ranks", ignore_errors=True)
        (tmp_path / "ranks").mkdir()
        for rank, kind, message in notes:
            launch.note(tmp_path / "ranks", rank, kind, message, "hint")
        with pytest.raises(FinbenchError) as caught:
            launch._judge(tmp_path / "ranks", {rank: End(code) for rank, code in ends.items()}, 2)
        return caught.value

    closed = (0, "bug", "RuntimeError: connection closed by peer")
    assert judged(closed, (1, "fault", "Disk full."), ends={0: 1, 1: 1}).message == "Disk full."
    killed = judged(closed, ends={0: 1, 1: -9})
    assert killed.message.startswith("Process 1 of 2 was ended by SIGKILL, and the others with it.")
    assert "--resume" in killed.hint
    assert "Process 1 of 2 failed: first" in judged((1, "bug", "first"), closed, ends={0: 1, 1: 1}).message
    assert "Process 0 of 2 failed: Runtime" in judged(closed, ends={0: 1, 1: -15}).message
    assert "ended with code 3" in judged(ends={1: 3}).message
    assert isinstance(judged((0, "stopped", "Stopped."), (1, "stopped", "Stopped."), ends={}), Interrupted)


# ---------------------------------------------------------------- two processes with gloo


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(llama: Path, tmp_path: Path) -> None:
    one = runner.train(recipe(llama, **SMALL), tmp_path / "one")
    two = runner.train(recipe(llama, **SMALL), tmp_path / "two", processes=2)
    assert isinstance(one, Adapter)
    assert isinstance(two, Adapter)
    assert curve(two) == pytest.approx(curve(one), abs=2e-5)
    assert (one.training.processes, two.training.processes) == (1, 2)
    assert two.training.tokens == one.training.tokens
    assert two.training.computed >= one.training.computed  # fewer starts are shared
    assert not (tmp_path / "two" / "checkpoints").exists()
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name, tensor in ours.items():
        assert torch.allclose(theirs[name], tensor, atol=2e-4), name


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_in_another_number_of_processes(before: int, after: int, llama: Path, tmp_path: Path) -> None:
    whole = runner.train(recipe(llama, **SMALL, epochs=2), tmp_path / "whole", processes=before)
    out = tmp_path / "run"
    stopped = stopped_after_a_checkpoint(llama, out, before)
    resumed = runner.train(recipe(llama, **SMALL, epochs=2), out, resume=True, processes=after)
    assert 0 < stopped < 14
    assert curve(resumed) == pytest.approx(curve(whole), abs=2e-5)


def stopped_after_a_checkpoint(base: Path, out: Path, processes: int, **overrides: Any) -> int:
    """A run of two epochs killed after a checkpoint; the step of that."""
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_launch import SMALL, recipe, runner\n"
        "chosen = recipe(Path(sys.argv[2]), **{**SMALL, 'epochs': 2, **json.loads(sys.argv[5])})\n"
        "runner.train(chosen, Path(sys.argv[3]), processes=int(sys.argv[4]))"
    )
    given = [str(Path(__file__).parent), str(base), str(out), str(processes), json.dumps(overrides)]
    process = subprocess.Popen([sys.executable, "-c", code, *given], text=True)
    wait_for(out, process)
    process.kill()
    process.wait()
    time.sleep(1)  # until the others have seen it
    return steps(out)[-1]


def lines(said: str) -> list[str]:
    """What was said of the end: lines of what it does now end in dots."""
    return [line for line in said.strip().splitlines() if not line.endswith(" ...")]


@pytest.mark.slow
def test_where_each_process_draws_numbers_another_number_of_them_is_refused(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped_after_a_checkpoint(llama, out, 1)
    mark = out / claims.MARK
    for changed, reason in (({"dropout": 0.1}, "the recipe has dropout"), ({"method": "pvera"}, "draws noise")):
        other = recipe(llama, **{**SMALL, "epochs": 2, **changed})
        run = runner.prepare(other)
        stated = {**run.decisive, "loop": run.passes.loop, "pass_tokens": run.passes.tokens}
        mark.write_text(json.dumps({**json.loads(mark.read_text()), **stated}))
        with pytest.raises(FinbenchError, match=rf"begun by 1 process, and 2 would .*{reason}"):
            runner.train(other, out, resume=True, processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, "parent", 0])
def test_a_killed_process_takes_the_others_along(victim: int | str, llama: Path, tmp_path: Path) -> None:
    """What is left can be gone on from: that is what the test of other numbers of processes does, after such a kill."""
    out = tmp_path / "run"
    process = begin(llama, out, "--epochs", "60")
    ranks = wait_for(out, process)
    assert len(ranks) == 2
    os.kill(process.pid if victim == "parent" else ranks[int(victim)], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert all(gone(rank) for rank in ranks)
    if victim != "parent":
        assert process.returncode == 1
        assert len(lines(said)) == 2, said
        assert "was ended by SIGKILL, and the others with it." in said
        assert "--resume" in said
    assert checkpoints.newest(out / "checkpoints")[0] is not None


def test_ctrl_c_while_the_processes_tell_each_other_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = trainer.Keeper(1e-3, 4, tmp_path, Progress(disable=True))
    control = TrainerControl()

    def told(number: float, device: Any) -> float:
        keeper.interrupted = True  # when this process has said that it goes on
        return number

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "largest", told)
        keeper.on_step_end(SimpleNamespace(device="cpu"), TrainerState(), control)
    assert not control.should_training_stop  # the others would wait for it
    keeper.on_step_end(SimpleNamespace(device="cpu"), TrainerState(), control)
    assert control.should_training_stop
    assert control.should_save


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_after_one_step(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = begin(llama, out, "--epochs", "60")
    ranks = wait_for(out, process)
    with pytest.raises(FinbenchError, match="Another finbench process works"):
        runner.train(recipe(llama), out)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert shown == ""
    assert "Traceback" not in said
    told = [line for line in lines(said) if "Resum" not in line]
    assert len(told) == 3, said  # what it does; after which step; how to go on
    assert "--resume" in told[-1]
    assert all(gone(rank) for rank in ranks)
    assert checkpoints.newest(out / "checkpoints") == (out / "checkpoints" / f"checkpoint-{steps(out)[-1]}", [])


@pytest.mark.slow
def test_the_fault_of_a_process_is_one_line(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="training has diverged") as caught:
        runner.train(recipe(llama, **{**SMALL, "lr": 1e30, "max_grad_norm": 0.0}), tmp_path / "a", processes=2)
    assert "--lr" in caught.value.hint
    assert not (tmp_path / "a").exists()
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "b" / "checkpoints" / "run.json").write_text("")  # of a full disk; else it is somebody else's folder
    (tmp_path / "b" / "checkpoints" / "staging").write_text("in the way")
    with pytest.raises(FinbenchError, match="Cannot write .*checkpoints"):
        runner.train(recipe(llama, **SMALL), tmp_path / "b", processes=2)
