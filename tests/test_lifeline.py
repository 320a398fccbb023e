"""Standard input as a line to the parent: children that are forked meanwhile live, and all end with the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finbench.core import lifeline

# A thread waits for standard input while multiprocessing starts a child, as vLLM does on a GPU.
PROGRAM = """
import multiprocessing, os, sys, threading, time
from finbench.core import lifeline

def child(queue):
    queue.put("alive")

if __name__ == "__main__":
    waits = {"sys.stdin": sys.stdin.buffer.read, "lifeline": lifeline.end_with_parent}[sys.argv[1]]
    threading.Thread(target=waits, daemon=True).start()
    time.sleep(0.3)  # it blocks now
    context = multiprocessing.get_context(sys.argv[2])
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    process.join(float(sys.argv[3]))
    print("hangs" if process.is_alive() else queue.get(), flush=True)
    process.kill()
    os._exit(0)
"""


def started(tmp_path: Path, waits: str, method: str, seconds: float) -> str:
    """What the program says of its child; its standard input stays open and silent."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), waits, method, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        return process.stdout.readline().strip()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="fork is Linux's")
def test_a_forked_child_hangs_beside_a_thread_in_sys_stdin_and_not_beside_ours(tmp_path: Path) -> None:
    assert started(tmp_path, "sys.stdin", "fork", 2) == "hangs"
    assert started(tmp_path, "lifeline", "fork", 60) == "alive"
    assert started(tmp_path, "lifeline", "spawn", 60) == "alive"


@pytest.mark.parametrize("module", ["finbench/engines/vllm/worker.py", "finbench/serving/api.py"])
def test_the_processes_of_vllm_read_standard_input_by_its_descriptor_and_spawn(module: str) -> None:
    text = (Path(__file__).parent.parent / module).read_text()
    assert "sys.stdin" not in text
    assert 'os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"' in text


def test_lines_are_whole_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"one\n" + b"x" * 200_000 + b"\n\nlast\nwithout an end"
    for size in (1, 7, 65536):
        parts = [said[at : at + size] for at in range(0, len(said), size)] + [b""]
        if size == 1:
            parts = [bytes([one]) for one in b"a\nbc\n\n"] + [b""]
        monkeypatch.setattr(lifeline.os, "read", lambda descriptor, most, parts=parts: parts.pop(0))
        expected = [b"a", b"bc", b""] if size == 1 else [b"one", b"x" * 200_000, b"", b"last"]
        assert list(lifeline.lines()) == expected


def test_the_whole_group_ends_when_standard_input_does(tmp_path: Path) -> None:
    program = "import subprocess, sys\nfrom finbench.core import lifeline\n"
    program += "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
    program += "lifeline.end_with_parent()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.stdin.close()
    assert process.wait(60) == -signal.SIGKILL
    end = time.monotonic() + 30
    while (place := Path(f"/proc/{child}/stat")).exists() and ") Z" not in place.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
