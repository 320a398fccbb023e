"""How the engine vllm's processes are watched, on processes that are no engines."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from conftest import make_llama
from finbench.core.errors import FinbenchError
from finbench.core.settings import Evaluation, Settings
from finbench.engines.vllm import processes, worker
from finbench.evaluation import options
from finbench.evaluation.subjects import candidates, start_engine

# threads that wait for the network wake up now and then, as those of gloo do in a vLLM that hangs
IDLE = "import time\nwhile True:\n    time.sleep(0.005)"
BUSY = "while True: pass"
_POPEN = subprocess.Popen


def started(program: str, monkeypatch: pytest.MonkeyPatch) -> processes.Worker:
    """A worker whose process runs ``program``, loaded and with a request waiting."""

    def instead(command: list[str], **options: Any) -> Any:
        return _POPEN([sys.executable, "-c", program], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", instead)
    made = processes.Worker({}, {}, queue.SimpleQueue())
    made.max_length, made.waiting = 512, 1
    return made


def watched(made: processes.Worker, seconds: float, limit: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        made.check(limit, on_cpu=True)
        time.sleep(0.1)


def test_waking_up_now_and_then_is_no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SPAN", 0.5)
    made = started(IDLE, monkeypatch)
    with pytest.raises(FinbenchError, match="frozen"):
        watched(made, 20, limit=3.0)
    assert made.process.poll() is not None


def test_a_step_that_computes_is_waited_for_also_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SPAN", 0.5)
    monkeypatch.setattr(processes, "_COMPUTES", 0.03)  # the machine may be busy otherwise
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"
    made = started(child, monkeypatch)
    watched(made, 8, limit=3.0)
    monkeypatch.setattr(processes, "_SLOWEST", 1.0)  # but not for ever
    with pytest.raises(FinbenchError, match="frozen"):
        made.check(3.0, on_cpu=True)


def test_what_ended_an_engine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(IDLE, monkeypatch)
    os.kill(made.process.pid, signal.SIGKILL)
    assert "SIGKILL" in made.reason()
    assert "no memory left" in made.reason()
    failed = started(
        "import sys\nprint('loading: 100 %', file=sys.stderr)\nraise ValueError('no such head')", monkeypatch
    )
    failed.process.wait(timeout=300)
    assert failed.reason() == "ValueError: no such head"


def test_every_fault_of_settings_is_in_the_reason() -> None:
    from pydantic import BaseModel

    class Two(BaseModel):
        a: int
        b: int

    with pytest.raises(ValueError) as fault:
        Two(a="x", b="y")  # type: ignore[arg-type]
    assert worker._reason(fault.value).count("valid integer") == 2
    assert worker._reason(ValueError("one\n  two")) == "one two"


def test_each_argument_of_the_command_line_reaches_the_engine(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "tiny-llama")
    found, _ = candidates(Evaluation(model=str(base), engine="vllm"))
    plain = start_engine(found, Settings(engine="vllm"), {})
    stated = {"dtype": "float16", "batch_size": "7", "tensor_parallel": "2", "data_parallel": "3", "max_length": "48"}
    assert {*stated, "truncate", "labels", "gpu_memory"} == set(options.ARGUMENTS["vllm"])
    for name, text in stated.items():
        changed = start_engine(found, Settings(engine="vllm", arguments=options.arguments("vllm", {name: text})), {})
        known = [(one.settings, one.count) for one in (changed, plain)]
        assert known[0] != known[1], name
    assert changed.max_length == 47  # one token more is said


def test_the_best_label_is_asked_for_where_no_metric_needs_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_llama(tmp_path / "tiny-llama")
    found, _ = candidates(Evaluation(model=str(base), engine="vllm"))

    class BoardTest:
        def __init__(self, *metrics: str, contexts: bool = False) -> None:
            self.metrics = dict.fromkeys(metrics)
            self.multiple_input = contexts

        def aggregation(self) -> dict[str, None]:
            return self.metrics

    lm_tasks = {
        "finbench_fpb_mc": BoardTest("macro_f1", "acc"),
        "finbench_piqa": BoardTest("acc", "acc_norm"),
        "finbench_fpb": BoardTest("macro_f1"),
        "finbench_winogrande": BoardTest("acc", contexts=True),
    }
    assert start_engine(found, Settings(engine="vllm"), lm_tasks).best == frozenset()
    assert start_engine(found, Settings(engine="vllm", arguments={"labels": "best"}), lm_tasks).best == {
        "finbench_fpb_mc"
    }
    assert "finbench_piqa: all labels are run to their end" in capsys.readouterr().err


def test_windows_hold_more_documents_where_only_the_best_label_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from finbench.engines.vllm import engine

    monkeypatch.setattr(engine, "_WINDOW", 8)
    monkeypatch.setattr(engine, "_FIELD", 4)
    asked = [
        (None, Instance("loglikelihood", {}, ("a", str(label)), label, metadata=("raced", document, 1)))
        for document in range(5)
        for label in range(100)
    ]
    assert [len(window) for window in engine._windows(asked, frozenset())] == [100] * 5
    assert [len(window) for window in engine._windows(asked, frozenset({"raced"}))] == [200, 200, 100]
    assert [at for window in engine._windows(asked, frozenset({"raced"})) for at in window] == list(range(500))
