"""A training over several machines: two of torchrun's agents on this one, with gloo."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_launch import COMMAND, steps, wait_for_steps

from finbench.core.errors import FinbenchError
from finbench.models import adapters
from finbench.training import ranks

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


class Machines:
    """Two agents, each a session of its own, as on machines of their own."""

    def __init__(self, base: Path, *outs: Path, more: tuple[list[str], list[str]] = ([], [])) -> None:
        port = free_port()
        self.agents = []
        for number, (out, own) in enumerate(zip(outs, more, strict=True)):
            meet = [f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=one", f"--rdzv-conf=is_host={int(number == 0)}"]
            train = ["-m", "finbench", "train", "--base", str(base), "--out", str(out), *COMMAND, *own]
            self.agents.append(
                subprocess.Popen(
                    [*LAUNCH, *meet, "--local-addr=localhost", *train],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )

    def ended(self, seconds: float = 240) -> list[tuple[int, str, str]]:
        """(code, stdout, stderr) of each."""
        found = []
        for agent in self.agents:
            said, err = agent.communicate(timeout=seconds)
            found.append((agent.returncode, said, err))
        return found


def workers(agent: subprocess.Popen[str]) -> list[int]:
    """Processes that an agent has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == agent.pid:
                found.append(int(folder.name))
    return found


EPOCHS = ["--epochs", "2", "--limit", "50"]


@pytest.mark.slow
def test_two_machines_train_what_two_processes_do_and_go_on_after_a_kill(llama: Path, tmp_path: Path) -> None:
    here = [sys.executable, "-m", "finbench", "train", "--base", str(llama), "--processes", "2"]
    subprocess.run([*here, "--out", str(tmp_path / "one"), *COMMAND, *EPOCHS], check=True, capture_output=True)
    one = adapters.record(tmp_path / "one")
    out = tmp_path / "two"
    ends = Machines(llama, out, out, more=(EPOCHS, EPOCHS)).ended()
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert ends[0][1].count("Next:") + ends[1][1].count("Next:") == 1, ends  # the first process speaks, and no other
    two = adapters.record(out)
    assert two.training.processes == 2
    assert two.files == one.files
    assert not (out / "checkpoints").exists()
    again = Machines(llama, out, out, more=(EPOCHS, EPOCHS)).ended()
    assert [code for code, _, _ in again] == [0, 0]
    assert "holds this adapter already" in again[0][2] + again[1][2]

    out = tmp_path / "killed"
    running = Machines(llama, out, out, more=(EPOCHS, EPOCHS))
    wait_for_steps(out, running.agents[0])
    second = workers(running.agents[1])
    os.killpg(running.agents[1].pid, signal.SIGKILL)  # the second machine is gone
    for process in second:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert running.ended()[0][0] != 0  # and the first one sees it
    assert 0 < steps(out)[-1] < 14
    refused = Machines(llama, out, out, more=(EPOCHS, EPOCHS)).ended()
    assert [code for code, _, _ in refused] == [1, 1]
    assert "holds an unfinished run" in refused[0][2] + refused[1][2]
    resumed = Machines(llama, out, out, more=([*EPOCHS, "--resume"],) * 2).ended()
    assert [code for code, _, _ in resumed] == [0, 0], resumed
    assert adapters.record(out).files == one.files  # the same bits


@pytest.mark.slow
def test_machines_that_differ_are_refused_in_one_line(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    differ = (["--limit", "50", "--set", "sharding=fsdp"], ["--limit", "48"])  # sharding changes no weight
    ends = Machines(llama, out, out, more=differ).ended()
    assert [code for code, _, _ in ends] == [1, 1]
    both = ends[0][2] + ends[1][2]
    assert both.count("error: The processes of this training differ") == 1
    assert "limit: 50 and 48" in both
    assert "sharding fsdp and none" in both
    assert not out.exists()
    ends = Machines(llama, tmp_path / "b", tmp_path / "c", more=(["--limit", "50"],) * 2).ended()
    assert [code for code, _, _ in ends] == [1, 1]
    assert "does not see what process 0 wrote" in ends[0][2] + ends[1][2]
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "c").exists()
    ends = Machines(llama, out, out, more=(["--set", "max_length=8"], [])).ended()  # the first machine's alone is wrong
    assert [code for code, _, _ in ends] == [1, 1]
    assert (ends[0][2] + ends[1][2]).count("error: ") == 1
    assert "longer than 8 tokens" in ends[0][2] + ends[1][2]


@pytest.mark.slow
def test_ctrl_c_at_one_machine_stops_both_with_a_checkpoint(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    long = ["--epochs", "80", "--limit", "50"]
    running = Machines(llama, out, out, more=(long, long))
    wait_for_steps(out, running.agents[0])
    os.kill(running.agents[1].pid, signal.SIGINT)
    ends = running.ended()
    assert all(code != 0 for code, _, _ in ends), ends
    last = steps(out)[-1]
    assert last % 3 or last > 3  # of the step at which it was asked, not of every third
    assert "--resume" in ends[0][2] + ends[1][2]
    shutil.rmtree(out)


def test_a_process_that_is_alone_agrees_with_itself() -> None:
    assert ranks.gathered("one") == ["one"]
    ranks.agree({"seed": 1})
    with pytest.raises(FinbenchError, match="no") as caught, ranks.refusing_together():
        raise FinbenchError("no", "hint")
    assert caught.value.hint == "hint"


def test_what_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def heard(*others: Any) -> None:
        monkeypatch.setattr(ranks, "gathered", lambda said: [said, *others])

    mine = {"seed": 1, "versions": {"torch": "2.13.0", "peft": "0.21"}, "data": ["a"]}
    heard({**mine})
    ranks.agree(mine)
    heard({**mine, "versions": {"torch": "2.12.0", "peft": "0.21"}})
    with pytest.raises(FinbenchError, match=r"process 1 has not .*\(versions: torch 2.13.0 and 2.12.0\)"):
        ranks.agree(mine)
    heard({**mine}, {**mine, "seed": 2, "data": ["b"]})
    with pytest.raises(FinbenchError, match=r"process 2 .*seed: 1 and 2; data: \['a'\] and \['b'\]"):
        ranks.agree(mine)


READING = """
import datetime, sys, time, torch
from torch.distributed import distributed_c10d
from finbench.core import environment
from finbench.training import ranks
limit, first, begin = datetime.timedelta(seconds=3), sys.argv[1] == "0", torch.distributed.init_process_group

def short(*given, **named):
    begin(*given, **named)
    distributed_c10d._get_default_store().set_timeout(limit)
    distributed_c10d._set_pg_timeout(limit)

torch.distributed.init_process_group = short
environment.take_place()
with ranks.refusing_together():
    time.sleep(6 * first)
print("both are here", flush=True)
if not first:
    try:
        torch.distributed.barrier()
    except Exception:
        print("and the limit stands")
time.sleep(6 * first)
"""


def test_processes_wait_for_one_that_reads_longer_than_the_group_allows() -> None:
    """Three seconds here, NCCL's ten minutes there: they pass while one reads a base for all, and only then."""
    meet = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", READING, str(rank)],
            env={**os.environ, **meet, "RANK": str(rank), "LOCAL_RANK": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [one.communicate(timeout=300)[0].splitlines() for one in both]
    assert said[0][:1] == ["both are here"]
    assert said[1] == ["both are here", "and the limit stands"]
