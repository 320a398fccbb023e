"""Cores that are ours by cpuset and quota, what others take of them, and threads that sleep while they wait."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finbench.core import threads

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of processors")


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@LINUX
@pytest.mark.parametrize(
    ("version", "line", "files", "cores"),
    [
        (2, "0::/a/b", {"a/b": {"cpu__max": "50000 100000\n"}}, 0.5),
        (2, "0::/a/b", {"a": {"cpu__max": "150000 100000\n"}, "a/b": {"cpu__max": "max 100000\n"}}, 1.5),
        (2, "0::/../elsewhere", {"": {"cpu__max": "25000 100000\n"}}, 0.25),  # a container sees its own as the root
        (1, "4:cpu:/a", {"a": {"cpu__cfs_quota_us": "70000\n", "cpu__cfs_period_us": "100000\n"}}, 0.7),
        (1, "4:cpu:/a", {"a": {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}}, None),
        (1, "3:cpuset:/a", {"a": {"cpu__max": "10000 100000\n"}}, None),
        (2, "0::/a", {"a": {"cpu__max": "nonsense\n"}}, None),
    ],
)
def test_quotas_of_control_groups_count_the_smallest_of_all_above(
    version: int, line: str, files: dict[str, dict[str, str]], cores: float | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kind = "" if version == 2 else line.split(":")[1]
    for folder, named in files.items():
        group(tmp_path / "fs" / kind / folder, **named)
    whole = Path.read_text
    stated = {"/proc/self/cgroup": line + "\n1:name=systemd:/\n"}
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: stated.get(str(self)) or whole(self, *a, **k))
    monkeypatch.setattr(threads, "_GROUPS", tmp_path / "fs")
    found = threads.cores()
    assert found == (len(os.sched_getaffinity(0)) if cores is None else pytest.approx(cores))


def spin(until: float) -> None:
    while time.monotonic() < until:
        pass


@LINUX
def test_the_meter_counts_others_and_not_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From tables that are written here: others took half a core of two for a second, this process all it wants."""
    own, now = [0.0], [0.0]
    table = tmp_path / "stat"
    monkeypatch.setattr(threads, "_STAT", table)
    monkeypatch.setattr(threads, "_allowed", lambda: {0, 1})
    monkeypatch.setattr(threads, "_quotas", lambda: iter([]))
    monkeypatch.setattr(threads.time, "process_time", lambda: own[0])
    monkeypatch.setattr(threads.time, "monotonic", lambda: now[0])
    tick = os.sysconf("SC_CLK_TCK")
    line = "cpu{} {} {} 0 0 0 0 0 {} 0 0\n"
    table.write_text("cpu  1 1 1 1\n" + "".join(line.format(n, 0, 0, 0) for n in range(4)))
    meter = threads.Meter()
    own[0], now[0] = 1.25, 1.0
    # 1.25 of this process, 0.3 of others and 0.2 stolen by the host; a core that is not ours is full
    counted = [(0, tick, 0, 0), (1, tick // 4, 3 * tick // 10, tick // 5), (3, tick, tick, 0)]
    table.write_text("".join(line.format(*one) for one in counted))
    assert meter.free() == pytest.approx(1.5, abs=0.02)
    assert threads.shared(2, 1.5)
    assert not threads.shared(1, 1.5)
    assert not threads.shared(2, 1.8)
    table.unlink()
    assert meter.free() == 2  # where the system says nothing, nobody else is there


SLEEP = """
import os, sys, threading, time
import torch
from finbench.core import threads
torch.set_num_threads(2)
a = torch.randn(200_000)

def used():
    "Processor time of short sums with pauses in between, in which threads of libgomp spin or sleep."
    before = time.process_time()
    for _ in range(20):
        torch.add(a, 1)
        time.sleep(0.003)
    return time.process_time() - before

crowd = threads.Crowd(threads._libgomp())
used()
spun = used()
crowd.come()
time.sleep(0.2)
slept = used()
crowd.go()
time.sleep(0.2)
print(spun, slept, used(), torch.get_num_threads())
crowd.come()  # and the process ends all the same
"""


@LINUX
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_threads_sleep_while_a_crowd_is_there_and_spin_when_it_is_gone() -> None:
    pytest.importorskip("torch")
    free = {name: text for name, text in os.environ.items() if not name.startswith(("OMP_", "MKL_", "GOMP_"))}
    for _ in range(5):  # threads cannot spin while another process holds their core
        done = subprocess.run([sys.executable, "-c", SLEEP], env=free, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        spun, slept, again, number = map(float, done.stdout.split())
        assert number == 2
        if slept < min(spun, again) / 2:
            return
    raise AssertionError(f"{slept} s asleep, {spun} and {again} s awake")


@LINUX
def test_who_states_threads_or_how_they_wait_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "cores", lambda: 1.2)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    threads.take_own()
    assert torch.get_num_threads() == before
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert threads.settle.__wrapped__() is False


@LINUX
@pytest.mark.slow
def test_others_that_come_are_seen_within_two_seconds() -> None:
    meter = threads.Meter()
    hogs = [multiprocessing.get_context("spawn").Process(target=spin, args=(time.monotonic() + 4,)) for _ in range(2)]
    for hog in hogs:
        hog.start()
    time.sleep(2)
    meter.free()
    time.sleep(1)
    assert meter.free() < len(meter.allowed) - 0.5
    for hog in hogs:
        hog.join()
