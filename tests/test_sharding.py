"""A base in shards over two processes: the same losses, the same adapter, checkpoints for any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.launcher.api as torchrun
from safetensors.torch import load_file
from test_launch import SMALL, curve, stopped_after_a_checkpoint
from test_training import recipe

from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.training import runner, speedups


@pytest.mark.parametrize(
    ("overrides", "processes", "message"),
    [
        ({}, 1, "there is only one"),
        ({"method": "pissa"}, 2, "pissa needs the whole base in each process"),
        ({"bits": 8}, 2, "8 bits cannot be sharded"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    overrides: dict[str, Any], processes: int, message: str, llama: Path, tmp_path: Path
) -> None:
    chosen = recipe(llama, **{"dropout": 0.0, "sharding": "fsdp", **overrides})
    with pytest.raises(FinbenchError, match=message):
        runner.train(chosen, tmp_path / "a", processes=processes)
    speedups.check_sharding(recipe(llama, **{"dropout": 0.0, **overrides}), 1)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{"loop": "padded"}, {"bits": 4, "dtype": "bfloat16"}], ids=str)
def test_a_sharded_base_trains_the_adapter_of_a_whole_one(
    overrides: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    """50 rows in steps of 8, passes of few tokens: the processes of a step have different numbers of passes."""
    stated = {**SMALL, "pass_tokens": 200, **overrides}
    whole = runner.train(recipe(llama, **stated), tmp_path / "whole")
    sharded = runner.train(recipe(llama, **stated, sharding="fsdp"), tmp_path / "sharded", processes=2)
    assert isinstance(whole, Adapter)
    assert isinstance(sharded, Adapter)
    near = 2e-2 if overrides.get("dtype") == "bfloat16" else 5e-5
    assert curve(sharded) == pytest.approx(curve(whole), abs=near)
    assert sharded.training.trainable_parameters == whole.training.trainable_parameters
    if near < 1e-3:
        ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "sharded"))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.allclose(theirs[name], tensor, atol=5e-4), name


@pytest.mark.slow
def test_a_killed_run_on_a_sharded_base_ends_in_the_same_bits(llama: Path, tmp_path: Path) -> None:
    stated: dict[str, Any] = {"sharding": "fsdp", "bits": 4}
    chosen = recipe(llama, **{**SMALL, "epochs": 2, **stated})
    whole = runner.train(chosen, tmp_path / "whole", processes=2)
    out = tmp_path / "run"
    assert 0 < stopped_after_a_checkpoint(llama, out, 2, **stated) < 14
    resumed = runner.train(chosen, out, resume=True, processes=2)
    assert isinstance(whole, Adapter)
    assert isinstance(resumed, Adapter)
    assert curve(resumed) == curve(whole)
    assert resumed.files == whole.files


SLOW = """
import os, sys, time
from datetime import timedelta
import torch
from torch.distributed import distributed_c10d
from finbench.models import bases
from finbench.training import checkpoints, process

limit, begin = float(sys.argv.pop()), torch.distributed.init_process_group
load, publish = bases.load, checkpoints.publish

def short(*given, **named):
    begin(*given, **named)
    distributed_c10d._get_default_store().set_timeout(timedelta(seconds=limit))
    distributed_c10d._set_pg_timeout(timedelta(seconds=limit))

def slow(*given, **named):
    time.sleep(1.5 * limit * (os.environ["RANK"] == "0"))
    return load(*given, **named)

def slower(staging, target):  # the first time; only the first process publishes
    time.sleep(1.5 * limit * ("-3" in target.name))
    publish(staging, target)

torch.distributed.init_process_group, bases.load, checkpoints.publish = short, slow, slower
process.main()
"""


def trained_with_a_slow_disk(limit: float, base: Path, folder: Path, patch: pytest.MonkeyPatch) -> Adapter:
    """A base in shards whose first process reads it, and writes a checkpoint, half as long again as the group of the
    training allows, ``limit`` s. At 70B it reads 140 GB, and NCCL allows ten minutes.
    """
    script, real = folder / "slow.py", torchrun.elastic_launch
    script.write_text(SLOW)
    with patch.context() as only:
        started = lambda config, entry: lambda *given: real(config, entry)(str(script), given[-1], str(limit))  # noqa: E731
        only.setattr(torchrun, "elastic_launch", started)
        made = runner.train(recipe(base, **SMALL, sharding="fsdp"), folder / "slow", processes=2)
    assert isinstance(made, Adapter)
    return made


@pytest.mark.slow
def test_a_process_may_read_and_write_for_longer_than_they_wait_in_training(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained_with_a_slow_disk(8, llama, tmp_path, monkeypatch)
    at_once = runner.train(recipe(llama, **SMALL, sharding="fsdp"), tmp_path / "at-once", processes=2)
    assert isinstance(at_once, Adapter)
    assert made.files == at_once.files
    assert made.training.seconds > at_once.training.seconds + 10  # of the 12 in which it wrote


LOOKING = """
import os, time
import transformers.trainer
from finbench.training import process

found = transformers.trainer.sort_checkpoints

def late(output_dir, **named):  # pathlib lists a folder some time after it has seen that it is there
    time.sleep(2 * (os.environ["RANK"] == "1"))
    os.listdir(output_dir)
    return found(output_dir=output_dir, **named)

transformers.trainer.sort_checkpoints = late
process.main()
"""


@pytest.mark.slow
def test_the_folder_of_checkpoints_stays_while_a_process_looks_through_it(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, real = tmp_path / "looking.py", torchrun.elastic_launch
    script.write_text(LOOKING)
    started = lambda config, entry: lambda *given: real(config, entry)(str(script), given[-1])  # noqa: E731
    monkeypatch.setattr(torchrun, "elastic_launch", started)
    assert isinstance(runner.train(recipe(llama, **SMALL), tmp_path / "run", processes=2), Adapter)
