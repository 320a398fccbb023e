"""The first hour of a new user: no dead end, no silence, and every fault says what to type."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from endpoints import Answer, FakeEndpoint
from finbench import evaluate
from finbench.cli.app import app
from finbench.core.errors import FinbenchError
from finbench.models import bases


def run(*arguments: object, columns: int = 100) -> Any:
    """What a command leaves: exit code, output, and the FinbenchError that ``main`` would have shown."""
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": str(columns)})


def told(*arguments: object) -> str:
    """The message and hint of a command that is refused."""
    fault = run(*arguments).exception
    assert isinstance(fault, FinbenchError), fault
    return str(fault)


# ---------------------------------------------------------------- warnings that save a night


@pytest.mark.parametrize("command", ["eval", "train"])
def test_tasks_and_their_data_are_asked_for_before_a_base_is_touched(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching or unpacking a base takes minutes."""
    monkeypatch.setattr(bases, "resolve", lambda *_: pytest.fail("a base was touched"))
    for task, line in (("nope", "Unknown task 'nope'"), ("fpb", "finbench data import fpb")):
        stated = ["--model", "smollm2-135m", "--tasks", task] if command == "eval" else ["--task", task]
        assert line in told(command, *stated)


def test_nobody_at_the_endpoint_is_one_hint_within_seconds() -> None:
    started = time.process_time()
    said = told("eval", "--engine", "server", "--arg", "url=http://127.0.0.1:9/v1", "--model", "m",
                "--tasks", "mini_sentiment")  # fmt: skip
    assert "takes no connection" in said
    assert said.endswith("Start the server, or correct its address: --arg url=http://127.0.0.1:8000/v1")
    assert time.process_time() - started < 10


@pytest.fixture
def spoken(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an endpoint that always answers so: (text, why it ended)."""
    text, ended = request.param
    said = {"text": text, "message": {"content": text}, "finish_reason": ended}
    with FakeEndpoint(lambda *_: Answer({"model": "m", "choices": [said]})) as there:
        yield there.url


BAD = {
    "wordy": (("I think that it is good", "stop"), "are not in the form", "such as 'I think that it is good'"),
    "empty": (("", "stop"), "are empty", "--profile chat"),
    "cut": (
        ("The sentence says that", "length"),
        "are not in the form asked for: they were cut off by the limit",
        "--profile chat",
    ),
}


@pytest.mark.parametrize(("spoken", "what", "more"), BAD.values(), ids=BAD, indirect=["spoken"])
def test_answers_that_cannot_be_read_are_told_loudly(
    spoken: str, what: str, more: str, tmp_path: Path, capsys: Any
) -> None:
    evaluate(model="m", tasks="mini_sentiment", engine="server", arguments={"url": spoken}, out=tmp_path)
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1
    assert f"10 of the first 10 answers {what}" in said
    assert more in said
    report = (tmp_path / "report.md").read_text()
    assert "m: only 0.0 % of the answers are in the form asked for" in report
    assert "| m, weights not known |  |" in report  # nor does it have 16 bits
    assert "endpoint:" not in report
    assert "endpoint:" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("spoken", [(" positive", "stop"), (" positive", "length")], indirect=True)
def test_readable_answers_are_not_warned_of(spoken: str, tmp_path: Path, capsys: Any) -> None:
    """A label that the limit of tokens ended is a label."""
    evaluate(model="m", tasks="mini_sentiment", engine="server", arguments={"url": spoken}, out=tmp_path)
    assert "WARNING" not in capsys.readouterr().err
    assert "only" not in (tmp_path / "report.md").read_text()


def test_answers_that_turn_bad_later_are_told_too(tmp_path: Path, capsys: Any) -> None:
    asked: list[Any] = []

    def answer(path: str, body: Any) -> Answer:
        asked.append(body)
        return Answer({"choices": [{"text": " positive" if len(asked) <= 10 else "Well ...", "finish_reason": "stop"}]})

    with FakeEndpoint(answer) as there:
        stated = {"arguments": {"url": there.url, "concurrency": 1}, "out": tmp_path}
        evaluate(model="m", tasks="mini_sentiment", engine="server", **stated)
    assert "140 of the 150 answers are not in the form asked for" in capsys.readouterr().err


def test_a_model_that_is_here_is_told_by_its_tokens(llama: Path, tmp_path: Path, capsys: Any) -> None:
    """Of a text of transformers or vLLM only its length says that nothing else ended it."""
    evaluate(model=str(llama), tasks="mini_sentiment", limit=12, out=tmp_path)
    said = capsys.readouterr().err
    assert "they were cut off by the limit of tokens" in said
    assert "--profile chat" in said
