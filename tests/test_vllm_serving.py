"""``finbench serve`` and the vLLM command of model cards, on a real vLLM server."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conftest import files_of, hub_environment, make_llama, make_lora, upload
from finbench.core import catalog
from finbench.engines import http
from finbench.engines.endpoint import EndpointEngine
from finbench.evaluation import evaluator
from finbench.hub.dev.server import DevHub
from finbench.models import bases
from finbench.scoring import prompts
from finbench.serving.guard import KEY

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.usefixtures("vllm_cache"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
SECRET = "sesame-4711"


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = list[int](), [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def listening(pids: list[int]) -> set[str]:
    """Addresses at which these processes take connections of TCP, in hexadecimal, without the port."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link))
            except OSError:
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                found.add(parts[1].partition(":")[0])
    return found


def state(url: str, key: str | None, body: bytes | None = b"{}") -> int:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=60) as found:
            return int(found.status)
    except urllib.error.HTTPError as fault:
        return fault.code


def lines_until(process: subprocess.Popen[str], word: str, log: Path, patience: float = 900) -> str:
    end = time.monotonic() + patience
    while word not in (text := log.read_text()):
        assert process.poll() is None, text
        assert time.monotonic() < end, text
        time.sleep(0.3)
    return text


def test_a_zoo_is_served_to_those_with_the_key_and_ends_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench.engines.hf import HFEngine

    base = make_llama(tmp_path / "tiny-llama-128", hidden=128)
    zoo = [make_lora(tmp_path / name, base, "org/t", seed=seed) for seed, name in enumerate(("one", "two"))]
    log = tmp_path / "log"
    command = [sys.executable, "-m", "finbench", "serve", "--base", str(base), "--port", "0", "--dtype", "float32"]
    command += [part for folder in zoo for part in ("--adapter", str(folder))]
    opened = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1", "COLUMNS": "300"}
    environment = {**os.environ, **opened, KEY: SECRET}
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
    family = list[int]()
    try:
        text = lines_until(process, "Ctrl-C ends it", log)
        url = text.partition("Serving at ")[2].partition(",")[0]
        family = descendants(process.pid)
        assert listening(family) <= {"0100007F"}  # 127.0.0.1 and nothing else
        assert SECRET not in text + "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in family)

        root = url.removesuffix("/v1")
        for path in ("/v1/models", "/health", "/metrics", "/docs", "/openapi.json", "/version", "/load"):
            assert state(root + path, None, None) == state(root + path, "wrong", None) == 401
        for path in ("/invocations", "/tokenize", "/v1/completions", "/score", "/pause", "/reset_prefix_cache"):
            assert state(root + path, None) == 401
        for path in ("/adapters", "/collective_rpc", "/sleep"):
            assert state(root + path, SECRET) == 404
        for path, refused in (("/v1/load_lora_adapter", 400), ("/v1/unload_lora_adapter", 404)):  # ours
            assert (state(root + path, None), state(root + path, SECRET)) == (401, refused)

        if shutil.which("curl"):
            [asks] = [line for line in text.splitlines() if line.startswith("curl ")]
            said = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, check=True, env=environment)
            assert json.loads(said.stdout)["model"] == "two"
        monkeypatch.setenv(http.KEYS[0], SECRET)
        lm_tasks = prompts.load(catalog.expand(["mini_sentiment"]), None)
        requests = [one for lm_task in lm_tasks.values() for one in prompts.requests(lm_task, 6)]
        pairs = [type(one)("loglikelihood", one.doc, (one.args[0], " neutral"), 0, one.metadata) for one in requests]
        hf = HFEngine(bases.resolve(str(base)), dtype="float32", merge=False)
        for name, adapter in (("tiny-llama-128", None), ("one", zoo[0]), ("two", zoo[1])):
            hf.use(adapter)
            engine = EndpointEngine("server", name, {"url": url})
            assert engine.answer(requests, lambda part: None) == hf.answer(requests, lambda part: None)
            found, expected = engine.answer(pairs, lambda part: None), hf.answer(pairs, lambda part: None)
            assert max(abs(a[0] - b[0]) for a, b in zip(found, expected, strict=True)) < 1e-3
        cards = evaluator.evaluate(
            engine="server",
            model="one,two",
            arguments={"url": url},
            tasks=["mini_ner"],
            limit=4,
            out=tmp_path / "cards",
        )
        assert [card.subject.name for card in cards] == ["one", "two"]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    end = time.monotonic() + 20
    while left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.2)


def test_a_zoo_under_load_loses_nothing_and_mixes_nothing_up(tmp_path: Path) -> None:
    """One adapter goes and one comes meanwhile, one is added twice; what is poisoned or of another base is refused."""
    base = make_llama(tmp_path / "tiny-llama-128", hidden=128)
    script = Path(__file__).parent.parent / "benchmarks" / "serve_load.py"
    command = [sys.executable, str(script), "--base", str(base), "--adapters", "3", "--requests", "120"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "120 requests: 0 lost, 0 answered by another adapter" in done.stdout


def test_the_vllm_command_of_a_model_card_serves_the_adapter(dev_hub: DevHub, tmp_path: Path) -> None:
    from finbench.publishing.publish import push

    folder = make_llama(tmp_path / "base", hidden=128)
    sha = upload(dev_hub, "org/tiny-128", files_of(folder), private=False)
    adapter = make_lora(tmp_path / "zoo-adapter", folder, "org/tiny-128")
    pushed = push(adapter, "hub:org/served", base=f"hub:org/tiny-128@{sha}", public=True, yes=True)
    [download] = [line for line in pushed.readme.splitlines() if line.startswith("hf download ")]
    [command] = [line for line in pushed.readme.splitlines() if line.startswith("vllm serve ")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **hub_environment(dev_hub, tmp_path / "hf"), "VLLM_NO_USAGE_STATS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(shlex.split(download), check=True, cwd=tmp_path, env=environment, capture_output=True)
    # as it stands, but on a port that is free, and without a compiler, which would take minutes here
    extra = ["--port", str(port), "--host", "127.0.0.1", "--enforce-eager"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*shlex.split(command), *extra],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=tmp_path,
            start_new_session=True,
            text=True,
        )
    try:
        lines_until(process, "Application startup complete", log)
        endpoint = http.Endpoint(f"http://127.0.0.1:{port}/v1")
        said = {
            model: endpoint.ask(
                "/completions", {"model": model, "prompt": "Sales rose", "logprobs": 3, "max_tokens": 1}
            )
            for model in ("org/tiny-128", "served")
        }
        first, second = (one["choices"][0]["logprobs"]["top_logprobs"] for one in said.values())
        assert first != second
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
