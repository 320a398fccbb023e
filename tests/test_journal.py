"""The journal: torn lines go, foreign answers never come, one process at a time, kills cost one batch at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.evaluation import evaluator
from finbench.evaluation.journal import FOLDER, Journal, request_digests

KEY = {
    "base": "b",
    "adapter": "a",
    "task": ["t", "d"],
    "data": ["x", None],
    "engine": "hf",
    "computed": "float32 on cpu",
}


def kept(folder: Path, key: dict[str, Any] = KEY) -> dict[str, Any]:
    with Journal(folder, key, "it") as journal:
        return dict(journal.answers)


def fill(folder: Path) -> Path:
    with Journal(folder, KEY, "it") as journal:
        journal.keep({"one": (-1.25, True), "two": "text \u682a \ud800\n"})
        journal.keep({"three": (-0.1 - 0.2, False)})
        return journal.path


def test_what_was_kept_comes_back_to_the_bit(tmp_path: Path) -> None:
    fill(tmp_path)
    assert kept(tmp_path) == {"one": (-1.25, True), "two": "text \u682a \ud800\n", "three": (-0.1 - 0.2, False)}


def test_a_torn_line_is_dropped_wherever_it_is_torn(tmp_path: Path) -> None:
    path = fill(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        through = sum(len("".join(map(bytes.decode, lines[:count]))) <= size for count in range(2, len(lines) + 1))
        assert len(kept(tmp_path)) == through, size
    path.write_bytes(whole[:-9])
    with Journal(tmp_path, KEY, "it") as journal:
        journal.keep({"three": (-9.0, False)})
    assert kept(tmp_path)["three"] == (-9.0, False)


def test_a_line_that_was_changed_and_all_after_it_are_dropped(tmp_path: Path) -> None:
    path = fill(tmp_path)
    raw = path.read_bytes()
    at = raw.index(b"-1.25")
    path.write_bytes(raw[:at] + b"-0.25" + raw[at + 5 :])
    assert kept(tmp_path) == {}


@pytest.mark.parametrize("part", KEY)
def test_no_part_of_the_key_may_differ(part: str, tmp_path: Path) -> None:
    path = fill(tmp_path)
    other = {**KEY, part: ["t2", "d"] if isinstance(KEY[part], list) else "other"}
    assert kept(tmp_path, other) == {}
    with Journal(tmp_path, other, "it") as journal:
        journal.path.write_bytes(path.read_bytes())  # even under the other's name
    assert kept(tmp_path, other) == {}
    assert len(kept(tmp_path)) == 3


def test_requests_are_told_apart_by_all_they_are() -> None:
    def one(doc: int = 0, idx: int = 0, kind: str = "loglikelihood", *arguments: Any) -> Any:
        return SimpleNamespace(doc_id=doc, idx=idx, request_type=kind, args=arguments or ("a", "b"))

    asked = [one(), one(1), one(0, 1), one(0, 0, "generate_until"), one(0, 0, "loglikelihood", "a", "c")]
    asked += [one(0, 0, "loglikelihood", "ab", ""), one(0, 0, "generate_until", "a", {"until": ["\n"]})]
    assert len(set(request_digests(asked))) == len(asked)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path, KEY, "it") as journal:
        monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(FinbenchError, match="No space left on device"):
            journal.keep({"one": (-1.0, True)})


def test_a_disk_that_is_really_full_is_one_line_and_the_journal_is_let_go(tmp_path: Path) -> None:
    """What could not be written is written again when the stream is closed: that must not hide the message."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))  # Python turns the signal into an OSError
    try:
        with pytest.raises(FinbenchError, match="Cannot write"), Journal(tmp_path, KEY, "it") as journal:
            all(journal.keep({f"request {number}": (-1.0 * number, True)}) is None for number in range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = kept(tmp_path)
    assert 0 < len(left) < 100
    assert all(left[f"request {number}"] == (-1.0 * number, True) for number in range(len(left)))


def test_a_finished_evaluation_leaves_no_answers_behind(tmp_path: Path) -> None:
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    assert list((tmp_path / FOLDER).glob("*.jsonl")) == []


def test_an_interrupted_evaluation_asks_only_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finbench.core.errors import Interrupted
    from finbench.engines.dummy import DummyEngine

    asked: list[int] = []
    real = DummyEngine._answer

    def answer(self: DummyEngine, requests: Any, done: Any) -> Any:
        answers = []
        for at, request in enumerate(requests):
            asked.append(request.doc_id)
            answers.append(real(self, request))
            done({at: answers[-1]})
            if len(asked) == 10:
                raise KeyboardInterrupt
        return answers

    monkeypatch.setattr(DummyEngine, "answer", answer)
    with pytest.raises(Interrupted):
        evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path / "a")
    [card] = evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path / "a")
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == card.scores[0].n
    asked.clear()
    asked += [0] * 10
    [other] = evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path / "b")
    assert card.scores[0].metrics == other.scores[0].metrics


def test_a_torn_race_is_run_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the best label of a document is told in full, the others' bounds hold beside it alone."""
    from finbench.core.errors import Interrupted
    from finbench.data.sources import import_data
    from finbench.engines.dummy import DummyEngine
    from make_data import write_sources

    import_data("fpb", write_sources(tmp_path / "sources")["fpb"], tmp_path / "data")
    asked: list[tuple[int, int]] = []
    real = DummyEngine._answer

    def answer(self: DummyEngine, requests: Any, done: Any) -> Any:
        answers = []
        for at, request in enumerate(requests):
            asked.append((request.doc_id, request.idx))
            answers.append(real(self, request))
            done({at: answers[-1]})
            if len(asked) == 10:  # three documents of three labels, and one label
                raise KeyboardInterrupt
        return answers

    def evaluate() -> Any:
        return evaluator.evaluate(
            engine="dummy", tasks=["fpb_mc"], limit=5, data_dir=tmp_path / "data", out=tmp_path / "out"
        )

    monkeypatch.setattr(DummyEngine, "answer", answer)
    monkeypatch.setattr(DummyEngine, "best", frozenset({"finbench_fpb_mc"}))
    with pytest.raises(Interrupted):
        evaluate()
    [card] = evaluate()
    assert card.scores[0].n == 5
    torn = asked[9][0]
    assert asked[10:] == [one for one in dict.fromkeys(asked) if one not in asked[:9]]
    assert [idx for doc, idx in asked if doc == torn] == [0, 0, 1, 2]


def test_two_processes_take_turns_and_the_second_takes_the_score_of_the_first(tmp_path: Path) -> None:
    held = (
        "import sys, time; from pathlib import Path; from finbench.evaluation import evaluator\n"
        "from finbench.engines.dummy import DummyEngine\n"
        "real = DummyEngine.answer\n"
        "def slow(self, requests, done):\n"
        "    print(len(requests), flush=True); time.sleep(2); return real(self, requests, done)\n"
        "DummyEngine.answer = slow\n"
        "evaluator.evaluate(engine='dummy', tasks=['mini_sentiment'], out=Path(sys.argv[1]))\n"
    )
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    said = [process.communicate(timeout=300) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert sorted(bool(out.strip()) for out, _ in said) == [False, True]  # only one of them asked
    waited = " ".join(" ".join(err.split()) for out, err in said if not out.strip())
    assert "another process is at it" in waited or "scored before" in waited
    [path] = tmp_path.glob("*.json")
    assert cardfiles.read(path).scores[0].n == len(cardfiles.read_samples(path))


def _kills(count: int, seed: int, llama: Path, home: Path) -> None:
    """After any three kills, the work done is the whole work and at most one batch for each kill; answers are equal."""
    from finbench.data.sources import import_data
    from make_data import write_sources

    import_data("fpb", write_sources(home / "sources")["fpb"], home / "data")
    stated = {
        "model": str(llama),
        "tasks": ["fpb_mc", "mini_sentiment"],
        "limit": 24,
        "data_dir": str(home / "data"),
        "out": str(home / "runs"),
        "arguments": {"dtype": "float32", "batch_size": 4},
    }
    (home / "runs").mkdir()
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(stated), str(count), str(seed)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(reports) == count
    [whole] = (home / "runs" / "whole").glob("*.json")
    expected = cardfiles.read_samples(whole)
    for report in reports:
        # a decoding batch is its prefill and up to 12 steps; after each start the shared prefix is run again, and
        # the model is tried with the passes of its proof
        assert report["passes"] <= report["whole"] + len(report["stops"]) * (1 + 12 + 4), report
        [card] = Path(report["out"]).glob("*.json")
        found = cardfiles.read_samples(card)
        assert [row["values"] for row in found] == [row["values"] for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.get("answer_sha256") == other.get("answer_sha256")
            if isinstance(other.get("answer"), list):
                assert one["answer"] == pytest.approx(other["answer"], abs=1e-4)
    assert sum(len(report["stops"]) for report in reports) >= count


def test_kills_cost_a_batch_at_most(llama: Path, tmp_path: Path) -> None:
    _kills(2, 0, llama, tmp_path)


@pytest.mark.slow
def test_ten_more_kills(llama: Path, tmp_path: Path) -> None:
    _kills(10, 1, llama, tmp_path)
