"""Every reader of strangers' files on inputs that Hypothesis makes of good ones: a value or one message, nothing else.

Used by ``faults.py run``. An input is a good file with pieces cut out, doubled, or replaced by what has broken readers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

# what has broken readers: numbers at their limits, halves of characters, depth, ends of lines, marks of other formats
TOKENS = [
    *(b"", b"\0", b"\n", b"\r", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\xbd", b'"', b"\\ud800", b"{", b"}", b"[", b"]"),
    *(b",", b"1e999", b"NaN", b"-1", b"null", b"true", b"[]", b"{}", b'""', b"9" * 400, b"[" * 3000, b"a" * 70_000),
    b"&a;",
    *(b"<!DOCTYPE x>", b"<<: *a", b"&a [*a]", b"!!python/object:os.system", b"..", b"/", b"\xe2\x80\xa8", b"\x80\x04"),
]  # fmt: skip
_PIECE = st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(TOKENS) | st.binary(max_size=6))
_CHANGES = st.lists(_PIECE, min_size=1, max_size=4)


def changed(good: bytes, pieces: list[tuple[float, int, bytes]]) -> bytes:
    """A good file with pieces replaced: at a share of its length, so many bytes, by these."""
    for place, length, new in pieces:
        at = int(place * len(good))
        good = good[:at] + new + good[at + length :]
    return good


def _rows(*lines: Any) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _book(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def _source(path: Path) -> Any:
    from finbench.data import readers

    named = {".at": "sentence@label", ".conll": "conll"}.get(path.suffix)
    return [
        sum(1 for _ in readers.decoder_of(file, named)(file)) for file in readers.expand([path], "*.jsonl *.csv *.json")
    ]


def _filing(path: Path) -> Any:
    from finbench.data.xbrl import filings, inputs

    return [filings.read_document(document) for document in inputs.documents(path)]


def _in(world: str, name: str, read: Callable[[Path], Any]) -> tuple[Callable[[Path], bytes], Callable[[Path], Any]]:
    """A reader of a folder of the small world in which the file ``name`` is changed."""

    def run(path: Path) -> Any:
        (path.parent / world / name).write_bytes(path.read_bytes())
        return read(path.parent / world)

    return (lambda home: (home / world / name).read_bytes()), run


def _readers() -> dict[str, tuple[Callable[[Path], bytes], Callable[[Path], Any]]]:
    from finbench.cards import cardfiles
    from finbench.core import taskfiles
    from finbench.engines import http, replies
    from finbench.evaluation import imported, verify
    from finbench.grid import sweepfile, watch
    from finbench.hub import community
    from finbench.leaderboard import attested, precedence, store
    from finbench.models import adapters, modelfiles
    from finbench.training import recipes

    def base(folder: Path) -> Any:
        modelfiles.check_folder(folder)
        return modelfiles.fingerprint(folder)

    def asked(path: Path) -> Any:
        """What an endpoint says, as JSON."""
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError):  # http.py says so
            return None
        with contextlib.suppress(http.Passing):  # an answer that is asked for again
            return replies.read(found, "m"), replies.log_likelihood(found, "profit rose", 7)

    def board(name: str) -> Callable[[Path], Any]:
        def run(path: Path) -> Any:
            folder = path.parent / "board"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(path.read_bytes())
            return attested.attestations(folder), precedence.arrivals(folder), store.places(folder)

        return run

    table = b"text,label\n" + b'"profit, rose",positive\nloss fell,negative\n' * 5
    row = {"text": "profit rose", "label": "positive", "spans": [{"a": 1.5}]}
    here = Path(__file__).resolve().parent.parent
    report = (here / "examples" / "sweep-six-tasks.yaml").read_bytes()
    filing = (
        b'<?xml version="1.0"?><xbrl xmlns="http://www.xbrl.org/2003/instance"><context id="c"><entity>'
        b'<identifier scheme="s">1</identifier></entity><period><instant>2024-12-31</instant></period></context>'
        b'<unit id="u"><measure>iso4217:USD</measure></unit>'
        b'<f:Revenue xmlns:f="http://a" contextRef="c" unitRef="u" decimals="0">5</f:Revenue></xbrl>'
    )
    return {
        "rows.csv": (lambda _: table, _source),
        "rows.jsonl": (lambda _: _rows(row, row), _source),
        "rows.json": (lambda _: json.dumps([row, row]).encode(), _source),
        "rows.at": (lambda _: b"profit rose@positive\nloss@negative\n", _source),
        "rows.conll": (lambda _: b"EU NNP B-NP B-ORG\nrose VBD B-VP O\n\nUS NNP B-NP O\n", _source),
        "rows.zip": (lambda _: _book({"a.jsonl": _rows(row), "b.csv": table}), _source),
        "rows.parquet": (_parquet, _source),
        "book.xlsx": (_workbook, _source),
        "filing.xml": (lambda _: filing, _filing),
        "filing.zip": (lambda _: _book({"a.xml": filing}), _filing),
        "task.yaml": (lambda _: report, taskfiles.read_yaml),
        "sweep.yaml": (lambda _: report, sweepfile.read),
        "recipe.yaml": (
            lambda _: b"method: lora\nrank: 8\ntasks: {fpb: 1.0}\n",
            lambda path: recipes.recipe(str(path)),
        ),
        "card.json": _in("cards", "adapter.json", lambda folder: verify(folder / "adapter.json")),
        "samples": _in(
            "cards",
            "adapter.samples.jsonl.zst",
            lambda folder: cardfiles.parse_samples(folder / "adapter.samples.jsonl.zst"),
        ),
        "reply.json": (lambda _: json.dumps(_REPLY).encode(), asked),
        "attestation.json": (lambda _: json.dumps(_ATTESTED).encode(), board("attestations/a.json")),
        "arrivals.txt": (lambda _: b"one\ntwo/three\n", board("arrivals.txt")),
        "cards.parquet": (_cards, board("scorecards/cards.parquet")),
        "results_2026.json": (_results, lambda path: imported.import_card(path, out=path.parent / "imported")),
        "eval.yaml": (lambda _: _BENCHMARK, lambda path: community.benchmark_faults(_text(path))),
        "result.yaml": (lambda _: _RESULT, lambda path: community.result_faults(_text(path))),
        "progress.json": (lambda _: json.dumps(_PROGRESS).encode(), lambda path: watch.sweep_status(str(path.parent))),
        "finbench.json": (
            lambda home: (home / "trained" / "a" / "finbench.json").read_bytes(),
            lambda path: adapters.record(path.parent),
        ),
        "adapter_config.json": _in("adapter", "adapter_config.json", adapters.read),
        "adapter_model.safetensors": _in("adapter", "adapter_model.safetensors", adapters.read),
        "config.json": _in("base", "config.json", base),
        "tokenizer.json": _in("base", "tokenizer.json", base),
        "tokenizer_config.json": _in("base", "tokenizer_config.json", base),
        "model.safetensors": _in("base", "model.safetensors", base),
    }


READERS = (
    *("rows.csv", "rows.jsonl", "rows.json", "rows.at", "rows.conll", "rows.zip", "rows.parquet", "book.xlsx"),
    *("reply.json", "attestation.json", "arrivals.txt", "cards.parquet", "results_2026.json", "eval.yaml"),
    *("result.yaml", "progress.json", "finbench.json", "filing.xml", "filing.zip", "task.yaml", "sweep.yaml"),
    *("recipe.yaml", "card.json", "samples"),
    *("adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"),
    "model.safetensors",
)  # fmt: skip


_REPLY = {
    "model": "m",
    "choices": [
        {
            "text": "profit rose",
            "finish_reason": "stop",
            "logprobs": {"tokens": ["profit", " rose"], "token_logprobs": [None, -1.5], "text_offset": [0, 6],
                         "top_logprobs": [None, {" rose": -1.5}]},
        }
    ],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1},
}  # fmt: skip
_ATTESTED = {
    "card": "0" * 64,
    "samples": "1" * 64,
    "base": "b",
    "adapter": None,
    "seed": 7,
    "tasks": [],
    "finbench": "1",
    "packages": {"torch": "2"},
    "created": "2026-01-01T00:00:00Z",
}
_BENCHMARK = b"name: fin\nevaluation_framework: finbench\ntasks:\n- id: fpb\n  config: default\n  split: test\n"
_RESULT = b"- dataset: {id: org/fin, task_id: fpb, revision: abc}\n  value: 0.5\n  date: 2026-01-01\n"
_PROGRESS = {
    "sweep": "s",
    "cells": 2,
    "done": 1,
    "failed": 0,
    "running": 0,
    "waiting": 1,
    "doing": [],
    "seconds_left": None,
    "best": {"fpb": [0.5, "a"]},
    "failures": [],
    "unplaced": [],
    "renewed": 1.5,
    "over": False,
    "pid": 1,
}


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _results(home: Path) -> bytes:
    from finbench.cards import exports

    [path] = exports.export_card(home / "cards" / "adapter.json", format="lm-eval", out=home / "exported")
    return path.read_bytes()


def _cards(home: Path) -> bytes:
    import shutil

    from finbench.leaderboard import store

    board = home / "packing"
    shutil.copytree(home / "cards", board / "scorecards", dirs_exist_ok=True)
    return store.pack(board, home / "packed")[0].read_bytes()


def _parquet(home: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["profit", "loss"], "n": [1, 2]}), made)
    return made.getvalue()


def _workbook(home: Path) -> bytes:
    import openpyxl

    book, made = openpyxl.Workbook(), io.BytesIO()
    for line in (("text", "label"), ("profit", "positive"), (1.5, None)):
        book.active.append(line)
    book.save(made)
    return made.getvalue()


def _inputs(good: bytes, count: int, start: int) -> Iterator[bytes]:
    """``count`` inputs of Hypothesis, the same for the same start."""
    made: list[bytes] = []

    @seed(start)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(_CHANGES)
    def keep(pieces: list[tuple[float, int, bytes]]) -> None:
        made.append(changed(good, pieces))

    keep()
    yield from made


def campaign(name: str, count: int, start: int, out: Path) -> str:
    """Read every input in one forked child; what went wrong is printed, the counts are kept."""
    log = out / f"fuzz-{name}.json"
    if log.is_file() and json.loads(log.read_text())["inputs"] >= count:
        return "was done"
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            os.write(writing, json.dumps(_counted(name, count, start, out)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status, used = os.wait4(child, 0)
    line = (
        json.loads(said)
        if said
        else {"reader": name, "inputs": 0, "traced": 1, "seconds": 0.0, "odd": [f"ended by {status}"]}
    )
    log.write_text(json.dumps({**line, "memory": used.ru_maxrss * 1024}) + "\n")
    return str({key: value for key, value in line.items() if key != "reader"})


def _counted(name: str, count: int, start: int, out: Path) -> dict[str, Any]:
    from finbench.core.errors import FinbenchError

    home = out / "world"
    good, read = _readers()[name]
    whole, longest, odd, inputs = good(home), 0.0, list[str](), 0
    for number, content in enumerate(_inputs(whole, count, start)):
        place = out / "cases" / f"fuzz-{name}"
        if not number:
            import shutil

            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            for part in ("base", "adapter", "cards"):
                shutil.copytree(home / part, place / part)
        path = place / name
        path.write_bytes(content)
        inputs, begun = inputs + 1, time.process_time()
        try:
            read(path)
        except FinbenchError as fault:
            if not fault.message.strip():
                odd.append(f"{number}: an empty message")
        except Exception as fault:  # noqa: BLE001  what is counted here
            (out / "cases" / f"odd-{number}-{name}").write_bytes(content)
            odd.append(f"{number}: {type(fault).__name__}: {str(fault)[:120]}")
        longest = max(longest, time.process_time() - begun)
    return {"reader": name, "inputs": inputs, "traced": len(odd), "seconds": longest, "odd": odd[:10]}
