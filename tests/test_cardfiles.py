"""Cards on disk: many writers lose nothing; full disks, kills and read-only folders leave earlier cards whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zstandard

from finbench.cards import cardfiles
from finbench.cli import app
from finbench.core import files, seal
from finbench.core.errors import FinbenchError
from finbench.core.files import stable_json
from finbench.core.records import Scorecard
from finbench.evaluation import evaluator
from finbench.evaluation.verification import verify

ROOT = Path(__file__).parent.parent


def run(*arguments: str, before: Callable[[], object] = bool) -> tuple[int, str, str]:
    """(exit code, output, errors) of ``finbench`` in a child of this process; ``before`` runs first in it.

    Forked, for a process of its own would take seconds to import what this one has.
    """
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if not child:
        code = 70
        try:
            sys.argv = ["finbench", *arguments]
            sys.stdout, sys.stderr = (os.fdopen(writes, "w") for _, writes in pipes)
            before()
            app.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        except BaseException:  # noqa: BLE001  a child must never go on as its parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    for _, writes in pipes:
        os.close(writes)
    shown, said = (os.fdopen(reads).read() for reads, _ in pipes)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown, said


def at_once(jobs: list[dict[str, Any]]) -> list[int | None]:
    """Evaluate each in a process of its own, all at the same time; their exit codes."""
    context = multiprocessing.get_context("fork")  # as above
    running = [context.Process(target=evaluator.evaluate, kwargs={"engine": "dummy", **job}) for job in jobs]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=300)
    return [process.exitcode for process in running]


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What an evaluation imports, before the first fork."""
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], limit=1, out=tmp_path_factory.mktemp("first"))


def evaluate(out: Path, *tasks: str, seed: int = 0) -> tuple[str, ...]:
    return ("eval", "--engine", "dummy", "--tasks", ",".join(tasks), "--out", str(out), "--seed", str(seed))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_eight_processes_writing_into_one_folder_lose_nothing(tmp_path: Path) -> None:
    """Four tasks of one run, each by a process of its own, and four other runs of the same subject's name."""
    tasks = ("mini_sentiment", "mini_ner", "mini_headline", "mini_xbrl_value")
    jobs = [{"tasks": [task], "out": tmp_path} for task in tasks]
    jobs += [{"tasks": ["mini_sentiment"], "out": tmp_path, "seed": seed} for seed in (1, 2, 3, 4)]
    assert at_once(jobs) == [0] * 8
    found = {path: cardfiles.read(path) for path in cardfiles.expand([tmp_path])}
    assert sorted(card.seed for card in found.values()) == [0, 1, 2, 3, 4]
    assert sum(len(card.scores) for card in found.values()) == 8
    [together] = [card for card in found.values() if card.seed == 0]
    assert {score.task for score in together.scores} == {f"finbench_{task}" for task in tasks}
    for path in found:
        assert verify(path).faults == [], path
    assert not list(tmp_path.glob(".*previous"))
    report = (tmp_path / "report.md").read_text()
    assert report.count("| dummy |") >= 8


def test_the_same_run_twice_at_once_gives_one_card(tmp_path: Path) -> None:
    assert at_once([{"tasks": ["mini_sentiment", "mini_ner"], "out": tmp_path}] * 2) == [0, 0]
    [path] = cardfiles.expand([tmp_path])
    assert len(cardfiles.read(path).scores) == 2
    assert verify(path).faults == []


def test_a_full_disk_exits_1_and_leaves_earlier_cards(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes writes fail as a full disk does, at whatever write is the first to need the room."""
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    before = contents(tmp_path)
    for size in (0, 4000):
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        code, _, said = run(*evaluate(tmp_path, "mini_sentiment", "mini_ner", "mini_headline"), before=limit)
        assert code == 1, (size, said)
        assert "Traceback" not in said
        assert "Cannot write" in said
    assert contents(tmp_path) == before
    assert verify(tmp_path / "dummy.json").faults == []


def test_a_read_only_folder_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    """As root permissions do not hold, so the folder's place is taken by what cannot hold files."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "cards", Path("/proc/finbench-cards")):
        code, shown, said = run(*evaluate(out, "mini_sentiment"))
        assert code == 1
        assert "Cannot write" in said
        assert "Traceback" not in said
        assert shown == ""


@pytest.mark.parametrize("stop", ["before the samples", "before the card", "after the card"])
def test_a_writer_killed_at_any_step_leaves_a_whole_card(stop: str, tmp_path: Path) -> None:
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    path = tmp_path / "dummy.json"
    before = path.read_bytes()
    calls = {"before the samples": 0, "before the card": 1, "after the card": 2}[stop]
    write, count = cardfiles.write_atomic, 0

    def killed(*arguments: Any) -> None:
        nonlocal count
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments)
        count += 1
        if count == calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def patch() -> None:  # in the child
        cardfiles.write_atomic = killed  # type: ignore[assignment]

    assert run(*evaluate(tmp_path, "mini_sentiment", "mini_ner"), before=patch)[0] == -signal.SIGKILL
    assert (path.read_bytes() == before) == (stop != "after the card")
    assert verify(path).faults == []
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment", "mini_ner"], out=tmp_path)
    assert len(cardfiles.read(path).scores) == 2
    assert verify(path).faults == []
    assert stop == "after the card" or not list(tmp_path.glob(".*previous"))


@pytest.mark.slow
def test_kills_at_random_times_never_leave_a_card_that_cannot_be_read(tmp_path: Path) -> None:
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    context, rng = multiprocessing.get_context("fork"), random.Random(1)
    for number in range(8):
        job = {"engine": "dummy", "tasks": ["mini"], "out": tmp_path, "seed": number // 3}
        process = context.Process(target=evaluator.evaluate, kwargs=job)
        process.start()
        time.sleep(rng.uniform(0.1, 1.5))
        process.kill()
        process.join()
        for path in cardfiles.expand([tmp_path]):
            assert cardfiles.read_samples(path)
    assert all(verify(path).faults == [] for path in cardfiles.expand([tmp_path]))


def test_a_writer_that_holds_the_folder_for_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cardfiles, "_PATIENCE", 0.1)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from filelock import FileLock\nimport time\nwith FileLock({str(tmp_path / '.lock')!r}):\n"
            " print('held', flush=True)\n time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FinbenchError, match="Another process has been writing"), cardfiles.lock(tmp_path):
        pass
    process.kill()
    process.wait()
    with cardfiles.lock(tmp_path):  # the lock went with its process
        pass


# ---------------------------------------------------------------- the schema


def test_the_page_and_the_json_schema_are_what_the_records_give() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_every_card_we_have_is_valid_by_the_json_schema(tmp_path: Path) -> None:
    evaluator.evaluate(engine="dummy", tasks=["mini"], out=tmp_path, limit=9)
    schema = json.loads((ROOT / "docs" / "scorecard.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    places = [tmp_path, ROOT / "leaderboards" / "scorecards"]
    found = cardfiles.expand(places)
    assert len(found) > 5
    assert cardfiles.expand(path for place in places for path in sorted(place.glob("*.json*"))) == found
    for path in found:
        jsonschema.validate(json.loads(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(found[0].read_text()) | {"unknown": 1}, schema)


def test_a_card_is_the_same_after_reading_and_writing(tmp_path: Path) -> None:
    [card] = evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    text = (tmp_path / "dummy.json").read_text()
    assert card.to_json() == text
    assert Scorecard.parse(json.loads(text), "card").to_json() == text


def test_answers_may_hold_any_separator_of_unicode(tmp_path: Path) -> None:
    rows = [{"task": "t", "index": n, "answer": f"a{end}b"} for n, end in enumerate("\u2028\u2029\x85\x0b\x1c\n\r")]
    path = tmp_path / "rows.samples.jsonl.zst"
    lines = "".join(stable_json(row) + "\n" for row in rows)
    path.write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    assert cardfiles.parse_samples(path) == rows


def test_seals_name_every_leaf_that_was_edited() -> None:
    value: dict[str, Any] = {"a": {"b": [1, 2.0, None], "c": {}}, "d": "text", "e": True}
    sealed = value | {"seal": seal.card_seal(value)}
    assert seal.edited(sealed) == []
    for path, alter in {
        "a.b[1]": lambda v: v["a"]["b"].__setitem__(1, 3.0),
        "a.c": lambda v: v["a"].update(c=[]),
        "d": lambda v: v.update(d="Text"),
        "e": lambda v: v.update(e=1),
    }.items():
        other = json.loads(json.dumps(sealed))
        alter(other)
        assert seal.edited(other) == [path]
    assert seal.edited(sealed | {"f": 1})[0].startswith("seal")


def test_rows_that_are_kept_for_other_cards_stay_within_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few, however long, and however nested they are."""
    monkeypatch.setattr(cardfiles, "_SHARED", 10_000)
    short, long, nested = ({"at": "x" * 100}, {"at": "x" * 9_990}, {"at": [[]] * 98})

    def parsed(*rows: dict[str, object]) -> list[dict[str, object]]:
        path = tmp_path / "one.samples.jsonl.zst"
        path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        return cardfiles.parse_samples(path)

    for large in (long, nested):
        with cardfiles.sharing_rows():
            [first], [again] = parsed(short), parsed(short)
            assert first is again
            parsed(large)  # takes all there is
            [other] = parsed(short)
            assert other == first
            assert other is not first


def test_ctrl_c_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(tmp_path / "a.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_of_a_run_s_cards_the_newer_score_counts_whatever_their_files_are_called(tmp_path: Path) -> None:
    source = ROOT / "leaderboards" / "scorecards" / "suite-smollm2-135m.json"
    card = cardfiles.read(source)
    rows = cardfiles.rows_by_task(source, card)
    first, other = card.scores[:2]

    def part(file: str, created: str, share: float | None, *scores: Any) -> Path:
        """A card with the share as its mark, by which the test knows it again."""
        made = [one.model_copy(update={"data": one.data.model_copy(update={"share": share})}) for one in scores]
        when = card.provenance.model_copy(update={"created": created})
        stated = card.model_copy(update={"scores": made, "provenance": when, "status": "complete"})
        cardfiles.write(tmp_path / "parts" / file, stated, [row for one in scores for row in rows[one.task]])
        return tmp_path / "parts" / file

    older = part("z.json", "2026-01-01T00:00:00Z", 0.1, first, other)
    newer = part("a.json", "2026-02-01T00:00:00Z", 0.9, first)
    [one] = cardfiles.gather([newer, older], tmp_path / "both")
    found = cardfiles.read(one)
    assert [score.data.share for score in found.scores] == [0.9, 0.1]
    assert found.status == "partial"
    cardfiles.excerpt(one, [other.task], tmp_path / "own" / "b.json")
    alone = cardfiles.read(tmp_path / "own" / "b.json")
    assert [score.task for score in alone.scores] == [other.task]
    assert cardfiles.rows_by_task(tmp_path / "own" / "b.json", alone) == {other.task: rows[other.task]}
    whole = part("c.json", "2026-03-01T00:00:00Z", None, first)
    assert cardfiles.read(cardfiles.gather([whole], tmp_path / "both")[0]).status == "partial"  # of the other's part
    bare = tmp_path / "bare.json"
    bare.write_text(card.model_copy(update={"samples": None}).to_json())
    assert cardfiles.gather([bare], tmp_path / "apart") == [tmp_path / "apart" / "bare.json"]
    assert (tmp_path / "apart" / "bare.json").read_bytes() == bare.read_bytes()
