"""Sections 7 and 8 of gpu_check.py: vLLM beside transformers, many adapters, a server whose parent is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_models import Check, Rows, base_folder, let_go, row, saved_adapters

from finbench.models import bases


def served(check: Check) -> Rows:
    """Section 7: vLLM beside transformers, ranks, one adapter beside many."""
    if importlib.util.find_spec("vllm") is None:
        return [row("vLLM", "not installed", "", None)]
    from finbench.core import catalog
    from finbench.engines import HFEngine
    from finbench.engines.vllm import VLLMEngine
    from finbench.scoring import prompts

    [task] = prompts.load(catalog.expand(["mini_sentiment"]), None).values()
    asked = [
        type(one)("loglikelihood", one.doc, (one.args[0], f" {label}"), number, one.metadata)
        for one in prompts.requests(task, 20 if check.tiny else 60)
        for number, label in enumerate(("positive", "negative", "neutral"))
    ]
    made: Rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = bases.resolve(str(base_folder(check, folder / "base", "1b")))
        dtype: Any = bases.dtype_name("auto")
        ranks = (8, 16, 64)
        adapters = saved_adapters(base.folder, folder / "ranks", ranks)
        hf, expected = HFEngine(base, dtype=dtype, merge=False), {}
        for one in (None, *adapters):
            hf.use(one)
            expected[one] = [value for value, _ in hf.answer(asked, lambda _: None)]
        hf.close()
        del hf
        let_go()
        engine = VLLMEngine(base, adapters, dtype)
        try:
            for rank, one in zip(ranks, adapters, strict=True):
                engine.use(one)
                found = [value for value, _ in engine.answer(asked, lambda _: None)]
                gap, moved = _apart(found, expected[one]), _apart(expected[None], expected[one])
                shown = f"{gap:.2g} nat apart (root mean square); the adapter moves {moved:.2g}"
                name, limit = f"vLLM beside transformers, rank {rank}, {dtype}", "≤ a quarter of that"
                made.append(row(name, shown, limit, gap <= moved / 4))
        finally:
            engine.close()
        many = saved_adapters(base.folder, folder / "many", [16] * (4 if check.tiny else 32))
        speeds = []
        for folders in (many[:1], many):
            engine = VLLMEngine(base, folders, dtype)
            try:
                engine.answer_all(_in_turns(folders, asked, "warm"), lambda _: None)
                order = _in_turns(folders, asked * 4, "Text")
                start = time.perf_counter()
                engine.answer_all(order, lambda _: None)
                speeds.append(len(order) / (time.perf_counter() - start))
            finally:
                engine.close()
        ratio = speeds[1] / speeds[0]
        said = f"{speeds[0]:.0f} and {speeds[1]:.0f} requests/s: {ratio:.2f}"
        made.append(row(f"1 adapter and {len(many)} in turns", said, "≥ 0.6", check.fast(ratio >= 0.6)))
    return made


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Root mean square of the differences."""
    return math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def _in_turns(folders: Sequence[Path], asked: Sequence[Any], word: str) -> list[tuple[Path, Any]]:
    """Documents by the adapters in turns, each prompt once: nothing is found in a cache, with one adapter or many."""
    return [
        (
            folders[at // 3 % len(folders)],
            type(one)("loglikelihood", one.doc, (f"{word} {at // 3}. {one.args[0]}", one.args[1]), at, one.metadata),
        )
        for at, one in enumerate(asked)
    ]


def killed_server(check: Check) -> Rows:
    """Section 8: two adapters behind one address; when the command is killed, nothing stays."""
    if importlib.util.find_spec("vllm") is None:
        return [row("serve", "vLLM is not installed", "", None)]

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = base_folder(check, folder / "base", "1b")
        adapters = saved_adapters(base, folder / "two", (16, 16))
        command = [sys.executable, "-m", "finbench", "serve", "--base", str(base), "--port", "8765"]
        command += [part for adapter in adapters for part in ("--adapter", str(adapter))]
        log = folder / "log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            models: list[str] = []
            until = time.monotonic() + 300
            while process.poll() is None and time.monotonic() < until and len(models) < 3:
                time.sleep(1)
                with (
                    contextlib.suppress(OSError, ValueError),
                    urllib.request.urlopen("http://127.0.0.1:8765/v1/models", timeout=2) as answer,
                ):
                    models = [one["id"] for one in json.load(answer)["data"]]
            said: list[float] = []
            for name in models:
                body = {"model": name, "prompt": "Sales rose.", "max_tokens": 4, "temperature": 0, "logprobs": 1}
                request = urllib.request.Request(
                    "http://127.0.0.1:8765/v1/completions",
                    json.dumps(body).encode(),
                    {"Content-Type": "application/json"},
                )
                with (
                    contextlib.suppress(OSError, ValueError, LookupError, TypeError),
                    urllib.request.urlopen(request, timeout=60) as answer,
                ):
                    said.append(json.load(answer)["choices"][0]["logprobs"]["token_logprobs"][0])
            children = _descendants(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            until = time.monotonic() + 30
            while (left := [pid for pid in children if _lives(pid)]) and time.monotonic() < until:
                time.sleep(0.2)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        finally:
            for pid in [process.pid, *_descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        last = " ".join(log.read_text().split())[-160:] or "it said nothing"
    apart = len(set(said)) == 3
    return [
        row("serve: models", f"{len(models)}, {len(set(said))} answers" if models else last, "3, all apart", apart),
        row("serve: processes 30 s after kill -9", str(len(left)), "0", bool(children) and not left),
    ]


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        below = [child for child, above in parents.items() if above == parent]
        found += below
        waiting += below
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
