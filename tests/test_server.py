"""The engine ``server`` and the guard of ``finbench serve``, against an endpoint with a real tiny model."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finbench.core.errors import FinbenchError, Interrupted
from finbench.engines import http, replies
from finbench.engines.endpoint import EndpointEngine
from finbench.evaluation import evaluator
from finbench.models import bases
from finbench.scoring import prompts
from finbench.serving import vllm_server
from finbench.serving.guard import KEY, Guard
from make_data import write_sources


class Endpoint:
    """OpenAI's /completions over a model of transformers. ``faults`` are states to answer first; ``seen``, bodies."""

    def __init__(self, folder: Path, key: str | None = None, echoes: bool = True) -> None:
        import torch

        self.model, self.tokenizer = bases.load(bases.resolve(str(folder)), 16, torch.float32)
        self.key, self.echoes = key, echoes
        self.faults: list[int] = []
        self.seen: list[dict[str, Any]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.reply(self, {"data": [{"id": "tiny"}]})

            def do_POST(self) -> None:
                owner.posted(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, handler: Any, body: Any, state: int = 200) -> None:
        text = json.dumps(body).encode()
        handler.send_response(state)
        handler.send_header("Content-Length", str(len(text)))
        if state == 429:
            handler.send_header("Retry-After", "0.01")
        handler.end_headers()
        handler.wfile.write(text)

    def posted(self, handler: Any) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            fault = self.faults.pop() if self.faults else 0
        try:
            if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
                self.reply(handler, {"error": {"message": "who are you?"}}, 401)
            elif fault == 1:  # cut off
                handler.connection.close()
            elif fault:
                self.reply(handler, {"error": {"message": "busy"}}, fault)
            else:
                with self.lock:
                    self.seen.append({"path": handler.path, **asked})
                    answer = self.completion(asked)
                self.reply(handler, {"choices": [answer]})
        finally:
            with self.lock:
                self.running -= 1

    def completion(self, asked: dict[str, Any]) -> dict[str, Any]:
        import torch

        if "messages" in asked:
            return {"message": {"content": asked["messages"][-1]["content"][-5:]}}
        ids = self.tokenizer(asked["prompt"], return_offsets_mapping=True)
        tokens = torch.tensor([ids["input_ids"]])
        with torch.no_grad():
            said = self.model.generate(tokens, max_new_tokens=asked["max_tokens"], do_sample=False)[0]
            rows = self.model(said[None]).logits[0].log_softmax(-1)
        text = self.tokenizer.decode(said[tokens.shape[1] :])
        for stop in asked.get("stop", []):
            text = text.split(stop)[0]
        if not asked.get("echo") or not self.echoes:
            return {"text": text, "logprobs": None}
        values = [float(row[token]) for row, token in zip(rows[:-1], said[1:], strict=True)]
        best = [{"": float(row.max())} for row in rows[:-1]]
        offsets = [start for start, _ in ids["offset_mapping"]]
        offsets += [len(asked["prompt"])] * (len(said) - len(offsets))
        spelled = [self.tokenizer.decode([token]) for token in said]
        part = {"tokens": spelled, "text_offset": offsets, "token_logprobs": [None, *values]}
        part["top_logprobs"] = [None, *best]
        return {"text": asked["prompt"] + text, "logprobs": part}


@pytest.fixture(scope="module")
def endpoint(llama: Path) -> Iterator[Endpoint]:
    """A running endpoint without a key."""
    made = Endpoint(llama)
    yield made
    made.server.shutdown()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Invented rows of fpb."""
    from finbench.data.sources import import_data

    import_data("fpb", write_sources(tmp_path / "sources")["fpb"], tmp_path / "data")
    return tmp_path / "data"


def examined(endpoint: Endpoint, out: Path, **options: Any) -> Any:
    options = {"tasks": ["mini_sentiment"], "limit": 8, **options}
    [card] = evaluator.evaluate(
        engine="server", model="tiny", arguments={"url": endpoint.url, "concurrency": "4"}, out=out, **options
    )
    return card


def test_an_endpoint_gives_the_numbers_of_the_hf_engine(
    endpoint: Endpoint, llama: Path, data: Path, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"tasks": ["fpb_mc", "mini_sentiment"], "data_dir": data, "limit": 8}
    card = examined(endpoint, tmp_path / "s", **common)
    [other] = evaluator.evaluate(
        engine="hf", model=str(llama), arguments={"dtype": "float32"}, out=tmp_path / "h", **common
    )
    assert [score.main.value for score in card.scores] == [score.main.value for score in other.scores]
    assert 1 < endpoint.most <= 8  # of four, one may be counted until its answer has been read
    written = "".join(path.read_text() for path in (tmp_path / "s").glob("*.json"))
    assert card.engine == "server"
    assert "127.0.0.1" not in written


def test_log_likelihoods_and_greediness_are_those_of_the_hf_engine(endpoint: Endpoint, llama: Path, data: Path) -> None:
    from finbench.core import catalog
    from finbench.engines.hf import HFEngine

    [lm_task] = prompts.load(catalog.expand(["fpb_mc"]), data).values()
    requests = prompts.requests(lm_task, 6)
    found = EndpointEngine("server", "tiny", {"url": endpoint.url}).answer(requests, lambda part: None)
    expected = HFEngine(bases.resolve(str(llama)), dtype="float32").answer(requests, lambda part: None)
    assert max(abs(a[0] - b[0]) for a, b in zip(found, expected, strict=True)) < 1e-3
    assert [a[1] for a in found] == [b[1] for b in expected]


def test_passing_faults_are_retried_and_lasting_ones_told(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(http.time, "sleep", pauses.append)
    endpoint.faults[:] = [429, 503, 1, 500]
    assert examined(endpoint, tmp_path / "a").scores[0].n == 8
    assert endpoint.faults == []
    assert min(sorted(pauses)[-4:]) >= 0.4  # shorter ones keep a distance after the 429
    endpoint.faults[:] = [503] * 1000
    with pytest.raises(http.Refused, match="after 6 attempts: 503 busy"):
        examined(endpoint, tmp_path / "b")
    endpoint.faults[:] = [400]
    with pytest.raises(FinbenchError, match=r"refuses \(400\): busy"):
        examined(endpoint, tmp_path / "b")
    endpoint.faults.clear()
    before = len(endpoint.seen)
    assert examined(endpoint, tmp_path / "b").scores[0].n == 8
    assert len(endpoint.seen) - before <= 8  # what had come through was kept


def test_a_silent_endpoint_is_given_up_after_two_timeouts() -> None:
    with socket.socket() as silent:  # connections are taken, and never answered
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = http.Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=1.0)
        with pytest.raises(http.Refused, match="after 2 attempts: it was not done after 1 s"):
            endpoint.ask("/completions", {})


def test_ctrl_c_ends_a_run_on_an_endpoint_that_is_silent(tmp_path: Path) -> None:
    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [{"id": "tiny"}]}')

        def do_POST(self) -> None:
            asked.set()
            over.wait(100)

        def log_message(self, *_: Any) -> None:
            pass

    asked, over = threading.Event(), threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"url=http://127.0.0.1:{server.server_port}/v1"
    command = [sys.executable, "-m", "finbench", "eval", "--engine", "server", "--arg", url, "--model", "tiny"]
    process = subprocess.Popen(
        [*command, "--tasks", "mini_sentiment", "--limit", "3", "--out", str(tmp_path / "cards")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert asked.wait(120)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)  # the answer would come after 100
    over.set()
    server.shutdown()
    assert process.returncode == 130, said


def test_a_token_across_the_seam_belongs_to_the_answer() -> None:
    part = {
        "tokens": ["a q", "uestio", "n: p", "ositive"],
        "text_offset": [0, 3, 9, 13],
        "token_logprobs": [None, -1.0, -2.0, -4.0],
        "top_logprobs": [None, {"x": -1.0}, {"y": -2.0}, {"z": -1.0}],
    }
    context, continuation = "a question:", " positive"  # the second token begins in one and ends in the other
    found = {"choices": [{"text": context + continuation, "logprobs": part}]}
    assert replies.log_likelihood(found, context + continuation, len(context)) == (-6.0, False)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = Endpoint(llama, key="sesame-4711")
    with pytest.raises(FinbenchError, match="401") as fault:
        examined(guarded, tmp_path)
    assert http.KEYS[0] in fault.value.hint
    monkeypatch.setenv(http.KEYS[0], "sesame-4711")
    examined(guarded, tmp_path)
    guarded.server.shutdown()
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"sesame" in text for text in texts)
    assert "sesame" not in "".join(capsys.readouterr())
    with pytest.raises(FinbenchError, match="clear text"):
        http.Endpoint.from_environment("http://example.org/v1")


def test_chat_goes_to_the_chat_route_as_messages(endpoint: Endpoint, tmp_path: Path) -> None:
    card = examined(endpoint, tmp_path, chat=True)
    assert card.subject.chat
    assert endpoint.seen[-1]["path"] == "/v1/chat/completions"
    assert endpoint.seen[-1]["messages"][-1]["role"] == "user"


def test_what_cannot_be_asked_is_one_line(llama: Path, endpoint: Endpoint, data: Path, tmp_path: Path) -> None:
    mute = Endpoint(llama, echoes=False)
    with pytest.raises(FinbenchError, match="does not echo"):
        examined(mute, tmp_path / "a", tasks=["fpb_mc"], data_dir=data)
    mute.server.shutdown()
    with pytest.raises(FinbenchError, match="no model 'large'"):
        evaluator.evaluate(
            engine="server", model="large", arguments={"url": endpoint.url}, tasks=["mini_ner"], out=tmp_path
        )
    with pytest.raises(FinbenchError, match="Which endpoint"):
        evaluator.evaluate(engine="server", model="tiny", tasks=["mini_ner"], out=tmp_path)
    with pytest.raises(FinbenchError, match="Which model"):
        evaluator.evaluate(engine="server", arguments={"url": endpoint.url}, tasks=["mini_ner"], out=tmp_path)
    with pytest.raises(FinbenchError, match="no address"):
        http.Endpoint("ftp://somewhere/v1")


# ---------------------------------------------------------------- finbench serve, as far as it goes without vLLM


def asked(guard: Guard, headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(guard({"type": kind, "path": "/invocations", "headers": headers}, None, send))
    return sent


def test_the_guard_lets_nobody_through_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "through"})

    monkeypatch.setenv(KEY, "right")
    guard = Guard(inner)
    good, bad = (b"authorization", b"Bearer right"), (b"authorization", b"Bearer wrong")
    assert asked(guard, [good]) == [{"type": "through"}]
    assert asked(guard, [], kind="lifespan") == [{"type": "through"}]
    for headers in ([], [bad], [(b"authorization", b"right")], [(b"authorization", b"Basic right")], [good, bad]):
        assert asked(guard, headers)[0]["status"] == 401
        assert asked(guard, headers, kind="websocket")[0]["type"] == "websocket.close"


def test_no_server_for_others_without_a_key(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.7", "somewhere.example"):
        with pytest.raises(FinbenchError, match="no key"):
            vllm_server.serve([str(lora)], host=host)


def test_a_zoo_that_cannot_be_served_is_refused_with_all_reasons(lora: Path, llama: Path) -> None:
    with pytest.raises(FinbenchError) as fault:
        vllm_server.serve([str(lora)], base=str(llama))
    assert "heads of size 16" in fault.value.message


def running(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_an_interrupted_server_takes_its_children_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    monkeypatch.setattr(vllm_server, "_GRACE", 0.2)
    real = process.wait

    def interrupted(timeout: float | None = None) -> int:
        process.wait = real  # type: ignore[method-assign]
        raise KeyboardInterrupt

    process.wait = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted), vllm_server.Server("http://127.0.0.1:1/v1", ["a"], process, None) as server:
        server.wait()
    assert process.poll() is not None
    until = time.monotonic() + 30  # it is killed; how soon it is gone is for the system to say
    while running(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(child)


def test_a_server_for_others_is_asked_for_its_first_token_with_the_key(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    asked_of: list[str] = []
    monkeypatch.setattr(vllm_server, "_said", lambda at, model: asked_of.append(at.key) or model)
    monkeypatch.setattr(vllm_server, "_longest", lambda at: "4,096")
    with vllm_server.Server("http://0.0.0.0:1/v1", ["base", "one"], process, None, "sesame-4711") as server:
        vllm_server._await(server)
    assert asked_of == ["sesame-4711"] * 2


def test_a_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch, lora: Path) -> None:
    assert http.Endpoint("http://127.0.0.1:1/v1", "sesame-4711\r\n").key == "sesame-4711"
    for key in ("sesame\r-4711", "sesame -4711", "sesame-4711\u2026"):
        with pytest.raises(FinbenchError, match="characters") as fault:
            http.Endpoint("http://127.0.0.1:1/v1", key)
        assert "sesame" not in str(fault.value)
        monkeypatch.setenv(KEY, key)
        with pytest.raises(FinbenchError, match="characters"):
            vllm_server.serve([str(lora)])


@pytest.mark.parametrize("cut", [False, True])
def test_a_refusal_that_repeats_the_key_or_is_cut_off_is_one_line(cut: bool) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            text = b"no such key: sesame-4711"
            self.wfile.write(b"ff\r\nno" if cut else b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text))
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(FinbenchError, match="refuses") as fault:
            http.Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "sesame-4711").ask("/models")
    finally:
        server.shutdown()
    assert "sesame" not in str(fault.value)


def test_no_redirect_is_followed_and_no_proxy_sees_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/stolen")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    try:
        with pytest.raises(FinbenchError, match=r"refuses \(302\)"):
            http.Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "sesame-4711").ask("/models")
    finally:
        server.shutdown()
    assert seen == ["/v1/models"]


@pytest.mark.parametrize("told", [[], ["m"], {"data": ["m"]}, {"data": "m"}, {"data": None}, "m", 1, None])
def test_a_list_of_models_that_is_none_is_passed_over(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http.Endpoint, "ask", lambda self, path: told)
    EndpointEngine("server", "m", {"url": "http://127.0.0.1:1/v1"})
    for some in ({"data": [{"id": "other"}]}, [{"id": "other"}]):
        monkeypatch.setattr(http.Endpoint, "ask", lambda self, path, some=some: some)
        with pytest.raises(FinbenchError, match="no model 'm'") as caught:
            EndpointEngine("server", "m", {"url": "http://127.0.0.1:1/v1"})
        assert "other" in caught.value.hint
