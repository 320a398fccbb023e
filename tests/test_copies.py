"""Work by a copy of this process: its result, its faults, and where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from finbench.core import copies, threads
from finbench.core.errors import FinbenchError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies of a process are made on Linux")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread but this one, whatever runs the tests, and two processors."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(threads, "cores", lambda: 2.0)


def test_the_result_is_of_another_process_on_the_same_objects() -> None:
    seen = [1, 2]
    with copies.meanwhile(lambda: (os.getpid(), sum(seen))) as result:
        seen.append(3)  # of which the copy knows nothing
        process, total = result()
    assert process != os.getpid()
    assert total == 3


def test_a_large_result_comes_whole() -> None:
    with copies.meanwhile(lambda: b"x" * 5_000_000) as result:
        assert len(result()) == 5_000_000


def test_where_there_is_no_copy_the_call_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with copies.meanwhile(os.getpid, worth=False) as result:
        assert result() == os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "active_count", lambda: 2)
        with copies.meanwhile(os.getpid) as result:
            assert result() == os.getpid()
    monkeypatch.setattr(threads, "cores", lambda: 1.0)
    with copies.meanwhile(os.getpid) as result:
        assert result() == os.getpid()


def test_where_the_system_makes_no_process_the_call_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", none)
    before = len(os.listdir("/proc/self/fd"))
    with copies.meanwhile(os.getpid) as result:
        assert result() == os.getpid()
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_nobody_is_told_how_children_end_the_call_does_it() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as a process may be started
    try:
        with copies.meanwhile(lambda: "done") as result:
            assert result() == "done"
        with copies.meanwhile(lambda: "done"):
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_fails_in_the_copy_is_done_here() -> None:
    here = os.getpid()

    def killed() -> str:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return "here"

    with copies.meanwhile(killed) as result:
        assert result() == "here"

    def fails() -> None:
        raise FinbenchError("no", "hint")

    with pytest.raises(FinbenchError, match="no"), copies.meanwhile(fails) as result:
        result()
    with copies.meanwhile(lambda: lambda: 1) as unpickled:  # which no pipe takes
        assert unpickled()() == 1


def test_a_copy_ends_with_the_body(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    started: list[int] = []
    real = os.fork

    def fork() -> int:
        started.append(real())
        return started[-1]

    def stopped() -> None:
        with copies.meanwhile(lambda: time.sleep(60)):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(KeyboardInterrupt):
        stopped()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert capfd.readouterr() == ("", "")


_KILLED = """
import os, pathlib, sys, time
from finbench.core import copies, threads
threads.cores = lambda: 2.0

def work():
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(1)
    return b"x" * 1_000_000  # more than a pipe takes

with copies.meanwhile(work):
    time.sleep(60)
"""


def test_a_copy_does_not_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "copy"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(told)])
    while not (told.exists() and told.read_text()):
        time.sleep(0.01)
    process.kill()
    process.wait()
    state = Path(f"/proc/{told.read_text()}/stat")
    deadline = time.monotonic() + 3
    while state.exists() and ") Z " not in state.read_text():  # whoever has it now may not have looked
        assert time.monotonic() < deadline
        time.sleep(0.05)
