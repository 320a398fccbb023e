"""A zoo that runs: adapters that come and go behind the key, against a stand-in for vLLM's server."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shlex
import shutil
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from conftest import make_llama, make_lora
from finbench.cli.app import app as cli
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.settings import Evaluation
from finbench.evaluation import candidates
from finbench.serving import copies, remote, vllm_server
from finbench.serving.desk import Declined, Desk
from finbench.serving.guard import KEY, Guard
from finbench.serving.intake import take
from finbench.serving.terms import PLACE, Served, Terms

SHA = "0123456789" * 4


class FakeServer:
    """What our middleware meets in vLLM: an application, and the keeper of models in its state."""

    def __init__(self) -> None:
        self.lora_requests: dict[str, Any] = {}
        self.loaded: dict[int, str] = {}  # what the engine holds
        self.numbers = 0
        self.asked: list[dict[str, Any]] = []
        self.engine_client = self
        self.state = SimpleNamespace(openai_serving_models=self)
        self.gate: asyncio.Event | None = None  # requests of "slow" wait for it

    async def load_lora_adapter(self, stated: Any) -> Any:
        if stated.lora_name in self.lora_requests:
            return SimpleNamespace(error=SimpleNamespace(message="already"))
        self.numbers += 1
        self.loaded[self.numbers] = stated.lora_path
        self.lora_requests[stated.lora_name] = SimpleNamespace(lora_int_id=self.numbers, path=stated.lora_path)
        return "Success"

    async def unload_lora_adapter(self, stated: Any) -> Any:
        del self.lora_requests[stated.lora_name]
        return "Success"

    async def remove_lora(self, number: int) -> bool:
        return self.loaded.pop(number, None) is not None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        parts, more = [], scope["method"] == "POST"
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message["more_body"]
        if scope["path"] == "/metrics":
            assert not [one for one in scope["headers"] if one[0] == b"accept-encoding"]
            return await self._say(send, 200, b"vllm:up 1\n")
        gone = asyncio.ensure_future(receive())  # as vLLM does: a client that has gone gets no answer
        await asyncio.sleep(0)
        if gone.done():
            return await self._say(send, 499, b"")
        gone.cancel()
        asked = json.loads(b"".join(parts) or b"{}")
        self.asked.append(asked)
        assert dict(scope["headers"]).get(b"content-length", b"0").decode() in ("0", str(len(b"".join(parts))))
        if self.gate and asked.get("model") == "slow":
            await self.gate.wait()
        model = asked.get("model") or "base"
        path = self.lora_requests[model].path if model in self.lora_requests else ""
        first = {"base": -1.0}.get(model, -2.0 - len(path))
        if path.endswith("silent"):
            first = -1.0
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        if asked.get("stream"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            events = [{"choices": [{"text": "a"}]}]
            if (asked.get("stream_options") or {}).get("include_usage"):
                events.append({"choices": [], "usage": usage})
            for event in events:
                body = b"data: " + json.dumps(event).encode() + b"\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
            return await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        said = {"choices": [{"text": path, "logprobs": {"top_logprobs": [{" x": first}]}}], "usage": usage}
        await self._say(send, 200, json.dumps(said).encode())

    async def _say(self, send: Any, state: int, body: bytes) -> None:
        await send({"type": "http.response.start", "status": state, "headers": []})
        await send({"type": "http.response.body", "body": body})


Ask = Callable[..., Awaitable[tuple[int, Any]]]


async def ask(
    desk: Any, server: FakeServer, method: str, path: str, body: Any = None, key: str = ""
) -> tuple[int, Any]:
    """(state, JSON or text) of a request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    headers = [(b"content-length", str(len(raw)).encode())] + (
        [(b"authorization", b"Bearer " + key.encode())] if key else []
    )
    given, state, said = iter([{"type": "http.request", "body": raw, "more_body": False}]), 0, b""

    async def receive() -> Any:
        return next(given, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal state, said
        state = message.get("status", state)
        said += message.get("body", b"")

    headers.append((b"accept-encoding", b"gzip"))
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "app": server}
    await desk(scope, receive, send)
    try:
        return state, json.loads(said)
    except ValueError:
        return state, said.decode()


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Desk, FakeServer]]:
    """A desk before a fake server; what it checks is told by the name of the folder."""

    def made(key: str | None = "key", **stated: Any) -> tuple[Desk, FakeServer]:
        terms = {"base": "base", "reference": "base", "fingerprint": "f", "names": ["base"], "rank": 8, "capacity": 3}
        terms |= {"place": str(tmp_path), "slot_bytes": 2**20, **stated}
        (tmp_path / "terms.json").write_text(Terms.parse(terms, "t").to_json())
        monkeypatch.setenv(PLACE, str(tmp_path / "terms.json"))
        monkeypatch.setenv(KEY, key or "")
        server = FakeServer()
        desk = Desk(server)

        async def checked(reference: str) -> Served:
            name = reference.rpartition("/")[2].partition("@")[0]
            if name == "poisoned":
                raise Declined("values that are not finite", "Train it again.", 400)
            return Served(name=name, source=reference, adapter=f"of-{reference}", bytes=10)

        monkeypatch.setattr(desk, "_checked", checked)
        return desk, server

    return made


def load(path: str, name: str | None = None) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/v1/load_lora_adapter", {"lora_path": path, "lora_name": name}


def unload(name: str, wait: bool = False) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/v1/unload_lora_adapter", {"lora_name": name, "wait": wait}


def completion(model: Any, **more: Any) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/v1/completions", {"model": model, "prompt": "x", **more}


def test_adapters_come_and_go_and_no_name_ever_means_another(opened: Any) -> None:
    desk, server = opened()

    async def run() -> None:
        assert (await ask(desk, server, *load("/zoo/a")))[0] == 200
        state, found = await ask(desk, server, *load("/zoo/a"))
        assert (state, "served already" in found["error"]["message"]) == (409, True)
        assert (await ask(desk, server, *load("/other/b", "A")))[0] == 409  # nor one that differs by case only
        assert (await ask(desk, server, *load("/other/b", "base")))[0] == 409
        assert (await ask(desk, server, *load("/other/b", "../b")))[0] == 400
        assert (await ask(desk, server, *completion("a")))[1]["choices"][0]["text"].endswith("of-/zoo/a")
        assert (await ask(desk, server, *unload("a")))[0] == 200
        assert server.loaded == {}  # nothing of it holds a slot
        assert (await ask(desk, server, *completion("a")))[0] == 404
        state, found = await ask(desk, server, *load("/other/a"))
        assert (state, "another adapter" in found["error"]["message"]) == (409, True)
        assert (await ask(desk, server, *load("/zoo/a")))[0] == 200  # itself may come back
        state, found = await ask(desk, server, "GET", "/v1/adapters")
        assert [one["source"] for one in found["adapters"]] == ["/zoo/a"]
        for refused in ("relative/a", "name", "hub:", "", 3):
            assert (await ask(desk, server, *load(refused)))[0] == 400  # type: ignore[arg-type]

    asyncio.run(run())


def test_two_adds_of_one_name_at_once_are_one(opened: Any) -> None:
    desk, server = opened()

    async def run() -> list[int]:
        both = await asyncio.gather(*(ask(desk, server, *load(f"/{n}/a", "same")) for n in range(2)))
        return sorted(state for state, _ in both)

    assert asyncio.run(run()) == [200, 409]
    assert list(server.lora_requests) == ["same"]


def test_what_is_poisoned_silent_or_one_too_many_is_refused_and_the_rest_goes_on(opened: Any) -> None:
    desk, server = opened()

    async def run() -> None:
        state, found = await ask(desk, server, *load("/zoo/poisoned"))
        assert (state, found["error"]["hint"]) == (400, "Train it again.")
        state, found = await ask(desk, server, *load("/zoo/silent"))
        assert (state, "base's own" in found["error"]["message"]) == (400, True)
        assert server.lora_requests == server.loaded == {}
        assert [(await ask(desk, server, *load(f"/zoo/{name}")))[0] for name in "abcd"] == [200, 200, 200, 409]
        for body in (b"", b"[]", b"{", b"[" * 100_000):
            assert (await ask(desk, server, "POST", "/v1/load_lora_adapter", body))[0] == 400
        assert (await ask(desk, server, *completion("base")))[0] == 200
        assert (await ask(desk, server, *completion(["a"])))[0] == 400
        assert (await ask(desk, server, *completion("aa")))[0] == 404

    asyncio.run(run())


def test_a_fault_of_the_engine_leaves_no_name_that_only_one_side_knows(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, server = opened()

    async def fails(*_: Any) -> Any:
        raise RuntimeError("engine")

    async def run() -> None:
        assert (await ask(desk, server, *load("/zoo/a")))[0] == 200
        with monkeypatch.context() as broken:
            broken.setattr(server, "remove_lora", fails)
            with pytest.raises(RuntimeError, match="engine"):
                await ask(desk, server, *unload("a"))
        assert (await ask(desk, server, *unload("a")))[0] == 404  # it is gone, for both
        assert (await ask(desk, server, *load("/zoo/a")))[0] == 200
        del server.lora_requests["a"]  # vLLM alone has lost it
        assert (await ask(desk, server, *unload("a")))[0] == 200
        with monkeypatch.context() as broken:
            broken.setattr(desk, "_said", fails)
            with pytest.raises(RuntimeError, match="engine"):
                await ask(desk, server, *load("/zoo/b"))
        assert server.lora_requests == desk.served == {}
        assert (await ask(desk, server, *load("/zoo/b")))[0] == 200

    asyncio.run(run())


def test_a_copy_goes_with_the_last_name_that_is_served_from_it(opened: Any, tmp_path: Path) -> None:
    desk, server = opened()
    kept, silent = tmp_path / "of-/zoo/a", tmp_path / "of-/zoo/silent"
    for folder in (kept, silent):
        folder.mkdir(parents=True)

    async def run() -> None:
        for name in ("a", "b"):
            assert (await ask(desk, server, *load("/zoo/a", name)))[0] == 200
        assert (await ask(desk, server, *load("/zoo/silent")))[0] == 400
        assert not silent.exists()
        assert (await ask(desk, server, *unload("a")))[0] == 200
        assert kept.exists()
        assert (await ask(desk, server, *unload("b")))[0] == 200
        assert not kept.exists()
        kept.mkdir()
        assert (await ask(desk, server, *load("/zoo/a", "c")))[0] == 200
        assert (await ask(desk, server, *load("/zoo/a", "C")))[0] == 409
        assert kept.exists()

    asyncio.run(run())


def test_an_unload_during_a_request_is_refused_or_waits_for_it(opened: Any) -> None:
    desk, server = opened()

    async def run() -> None:
        server.gate = asyncio.Event()
        server.gate.set()
        assert (await ask(desk, server, *load("/zoo/slow")))[0] == 200
        server.gate.clear()
        under_way = asyncio.create_task(ask(desk, server, *completion("slow")))
        await asyncio.sleep(0)
        state, found = await ask(desk, server, *unload("slow"))
        assert (state, "1 request of slow" in found["error"]["message"]) == (409, True)
        going = asyncio.create_task(ask(desk, server, *unload("slow", wait=True)))
        await asyncio.sleep(0.01)
        assert not going.done()
        assert (await ask(desk, server, *completion("slow")))[0] == 404  # no new ones
        assert (await ask(desk, server, *unload("slow", wait=True)))[0] == 409
        server.gate.set()
        assert ((await under_way)[0], (await going)[0]) == (200, 200)
        assert server.loaded == {}

    asyncio.run(run())


def test_hub_names_of_allowed_owners_only_and_pinned(opened: Any) -> None:
    desk, server = opened(owners=["org"])

    async def run() -> None:
        assert (await ask(desk, server, *load("hub:org/a")))[0] == 200
        for other in ("hub:Org/a", "hub:orgs/a", "hub:evil/org"):
            assert (await ask(desk, server, *load(other)))[0] == 403
        # one that nobody has added is fetched when it is asked, if it is pinned
        assert (await ask(desk, server, *completion(f"hub:org/b@{SHA}")))[0] == 200
        for branch in ("", "@" + "z" * 40, "@" + SHA.upper().replace("0", "A")):
            assert (await ask(desk, server, *completion(f"hub:org/b{branch}")))[0] == 400
        assert (await ask(desk, server, *completion(f"hub:evil/b@{SHA}")))[0] == 403
        assert (await ask(desk, server, *completion("zoo:b")))[0] == 404
        assert sorted(server.lora_requests) == ["a", f"hub:org/b@{SHA}"]

    asyncio.run(run())


def test_a_request_that_waited_is_not_let_to_an_adapter_that_goes_meanwhile(opened: Any) -> None:
    desk, server = opened(owners=["org"])
    name = f"hub:org/b@{SHA}"

    async def run() -> tuple[int, Any]:
        await desk.one.acquire()
        waiting = asyncio.create_task(ask(desk, server, *completion(name)))
        await asyncio.sleep(0)
        desk.served[name] = Served(name=name, source=name, adapter="b", bytes=1)  # by one that had the lock before,
        desk.leaving.add(name)  # and another one, which removes it, is next
        desk.one.release()
        return await waiting

    state, found = asyncio.run(run())
    assert (state, "is being removed" in found["error"]["message"]) == (404, True)
    assert server.asked == []


def test_nothing_is_changed_without_a_key(opened: Any) -> None:
    desk, server = opened(key=None)

    async def run() -> None:
        for request in (load("/zoo/a"), load("hub:org/a")):
            state, found = await ask(desk, server, *request)
            assert (state, KEY in found["error"]["hint"]) == (403, True)
        assert (await ask(desk, server, *unload("a")))[0] == 403

    asyncio.run(run())
    guard = Guard.__new__(Guard)
    guard.app, guard.expected = desk, b""
    for path in ("/v1/load_lora_adapter", "/v1/adapters", "/metrics"):
        assert asyncio.run(ask(guard, server, "POST", path, {}, key="wrong"))[0] == 401


def test_requests_tokens_and_latency_are_counted_by_adapter(opened: Any) -> None:
    desk, server = opened()

    async def run() -> str:
        await ask(desk, server, *load("/zoo/a"))
        seen = [await ask(desk, server, *completion("a", stream=True)) for _ in range(2)]
        assert "usage" not in seen[0][1]  # which only we have asked for
        assert server.asked[-1]["stream_options"] == {"include_usage": True}
        asked = completion("a", stream=True, stream_options={"include_usage": True})
        assert '"usage"' in (await ask(desk, server, *asked))[1]
        await ask(desk, server, *completion(None))
        for number in range(3):
            await ask(desk, server, *completion(f"stranger-{number}"))
        return str((await ask(desk, server, "GET", "/metrics"))[1])

    lines = asyncio.run(run()).splitlines()
    assert lines[0] == "vllm:up 1"
    for line in (
        'finbench_requests_total{adapter="a",code="200"} 3',
        'finbench_requests_total{adapter="(none)",code="404"} 3',  # no label of a stranger's making
        'finbench_prompt_tokens_total{adapter="a"} 21',
        'finbench_answer_tokens_total{adapter="a"} 9',
        'finbench_answer_tokens_total{adapter="base"} 3',
        'finbench_request_seconds_bucket{adapter="a",le="+Inf"} 3',
        'finbench_request_seconds_count{adapter="a"} 3',
        'finbench_adapter_bytes{adapter="a"} 10',
        "finbench_adapter_slots 3",
    ):
        assert line in lines


# ---------------------------------------------------------------- the check of an adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("base") / "tiny-128", hidden=128)


@pytest.fixture
def terms(base: Path, tmp_path: Path) -> Terms:
    first = make_lora(tmp_path / "first", base, "org/t")
    found, _ = candidates(Evaluation([str(first)], base=str(base), bits=16, engine="vllm"))
    room = vllm_server._Room("float32", 1, None, 0.9, rank=8)
    made = vllm_server._terms(found[0].loaded, [found[1]], found[0].subject.base, room, [])
    return made.model_copy(update={"place": str(tmp_path / "place")})


def test_an_adapter_that_passes_is_kept_by_its_content(terms: Terms, base: Path, tmp_path: Path) -> None:
    folder = make_lora(tmp_path / "second", base, "org/t", seed=1)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    taken = take(str(folder), terms)
    kept = Path(terms.place) / taken.adapter
    assert sorted(path.name for path in kept.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (taken.name, taken.bytes) == ("second", (folder / "adapter_model.safetensors").stat().st_size)
    assert take(str(folder), terms) == taken
    assert terms.capacity == 64
    assert terms.slot_bytes == 4 * 8 * 2 * (4 * 256 - 64 * 2 + 3 * 384)  # ranks x (q k v o, gate up down) of 2 layers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stated": "org/other"}, "names the base 'org/other'"),
        ({"r": 16}, "--max-rank 16"),
        ({"use_dora": True}, "DoRA"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"template": "{{ ''.__class__.__mro__ }}"}, "reaches into Python (__mro__)"),
        ({"template": "{{ messages | attr('__init__') }}"}, "reaches into Python"),
        ({"template": "{% include '/etc/passwd' %}"}, "opens other files"),
        ({"nan": True}, "not finite"),
        ({"torn": True}, "torn"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(
    terms: Terms, base: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    config = {key: change[key] for key in ("r", "use_dora", "target_modules") if key in change}
    folder = make_lora(tmp_path / "bad", base, change.get("stated", "org/t"), seed=1, **config)
    weights = folder / "adapter_model.safetensors"
    if "template" in change:
        (folder / "chat_template.jinja").write_text(change["template"])
    if "torn" in change:
        weights.write_bytes(weights.read_bytes()[:-100])
    if "nan" in change:
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, weights)
    with pytest.raises(FinbenchError) as fault:
        take(str(folder), terms)
    assert words in fault.value.message
    assert not Path(terms.place).exists()


def test_an_adapter_of_another_base_is_refused(terms: Terms, tmp_path: Path) -> None:
    deeper = make_llama(tmp_path / "deeper", layers=3, hidden=128)
    with pytest.raises(FinbenchError, match="match no layer"):
        take(str(make_lora(tmp_path / "foreign", deeper, "org/t")), terms)


def test_the_process_that_checks_answers_in_json(
    terms: Terms, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server starts it; once, for it takes seconds."""
    (tmp_path / "terms.json").write_text(terms.to_json())
    monkeypatch.setenv(PLACE, str(tmp_path / "terms.json"))
    monkeypatch.setenv(KEY, "key")
    folder = make_lora(tmp_path / "second", base, "org/t", seed=1)
    (folder / "config.json").write_text("{")
    taken = asyncio.run(Desk(None)._checked(str(folder)))
    assert taken.name == "second"
    shutil.rmtree(folder)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Declined, match="has failed"):
        asyncio.run(Desk(None)._checked(str(folder)))


# ---------------------------------------------------------------- commands


@pytest.fixture
def listening(opened: Any) -> Iterator[tuple[str, list[Any]]]:
    """(address, requests) of a desk behind HTTP."""
    desk, server = opened()
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def _both(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.path, self.headers.get("Authorization"), body))
            state, found = asyncio.run(ask(desk, server, self.command, self.path, body))
            self.send_response(state)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_GET = do_POST = _both

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", seen
    http.shutdown()


def test_the_commands_add_list_and_remove(
    listening: tuple[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = listening
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        return str(CliRunner().invoke(cli, ["serve", *words, "--url", url], catch_exceptions=False).output)

    assert "mine is served" in run("add", "./mine")
    assert json.loads(seen[-1][2])["lora_path"] == str(tmp_path / "mine")
    assert seen[-1][1] == "Bearer key"
    assert json.loads(run("list", "--json"))["adapters"][0]["name"] == "mine"
    assert "Room for 2 more" in run("list")
    with pytest.raises(FinbenchError, match=r"No adapter 'min' is served. Did you mean mine\?"):
        remote.remove("min", url=url)
    assert "not served any more" in run("remove", "mine", "--wait")
    monkeypatch.delenv(KEY)
    with pytest.raises(FinbenchError, match="only with its key"):
        remote.listed(url)
    monkeypatch.setenv(KEY, "key")
    with pytest.raises(FinbenchError, match="takes no connection.*\n.*Start one: finbench serve --base"):
        remote.listed("http://127.0.0.1:1/v1")
    with pytest.raises(FinbenchError, match="clear text"):
        remote.listed("http://192.0.2.1/v1")


def test_a_server_that_takes_adapters_is_started_with_a_key_and_room(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    for stated in ({}, {"allow_owner": ["org"]}, {"max_rank": 8}, {"adapter_memory": 1.0}):
        with pytest.raises(FinbenchError, match="only with a key"):
            vllm_server.serve([str(base)] if stated else [], base=str(base), **stated)  # type: ignore[arg-type]
    monkeypatch.setenv(KEY, "key")
    for stated, words in (
        ({"max_rank": 513}, "1 to 512"),
        ({"adapter_memory": -1.0}, "number of GiB"),
        ({"allow_owner": ["org/name"]}, "names no owner"),
    ):
        with pytest.raises(FinbenchError, match=words):
            vllm_server.serve([], base=str(base), **stated)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["finbench-serve.service", "serve-compose.yaml"])
def test_the_examples_start_a_server_with_options_that_there_are(name: str) -> None:
    text = (Path(__file__).parent.parent / "examples" / name).read_text(encoding="utf-8")
    if name.endswith(".yaml"):
        stated = yaml.safe_load(text)["services"]["zoo"]
        assert stated["ports"] == ["127.0.0.1:8000:8000"]
        assert KEY in stated["environment"]
        text = stated["command"][-1]
    [words] = re.findall(r"^(?:ExecStart=\S+ \S+|exec finbench) serve (--.*)$", text, re.MULTILINE)
    root: Any = typer.main.get_command(cli)
    run = root.commands["serve"].commands["run"]
    run.make_context("run", shlex.split(words))  # ends with a fault of an option that is not known


def test_what_killed_servers_left_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path))
    terms = Terms(base="b", reference="b", fingerprint="f", names=[])
    runs, _, stated = copies.written(terms)
    left, foreign = tmp_path / "serving-left", tmp_path / "serving-of-others"
    shutil.copytree(stated.parent, left)
    foreign.mkdir()
    later, named, _ = copies.written(terms)
    assert not left.exists()
    assert foreign.exists()
    assert stated.exists()  # its server runs
    later.close()
    assert not Path(named.place).exists()
    runs.close()
    assert not stated.parent.exists()


def test_a_server_that_is_ended_by_systemd_ends_as_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def serve(*_: Any, **__: Any) -> Any:
        seen.append(signal.getsignal(signal.SIGTERM))
        raise FinbenchError("enough", "seen")

    monkeypatch.setattr("finbench.serve", serve)
    try:
        CliRunner().invoke(cli, ["serve", "--adapter", "./a"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.default_int_handler]
    unit = Path(__file__).parent.parent / "examples/finbench-serve.service"
    assert f"SuccessExitStatus={Interrupted.exit_code}" in unit.read_text(encoding="utf-8")


def test_serve_without_a_word_is_serve_run() -> None:
    said = CliRunner().invoke(cli, ["serve", "--adapter"]).output
    assert "--adapter" in said
    assert "requires an argument" in said


# ---------------------------------------------------------------- bodies, and servers that are none


@pytest.mark.parametrize(
    "body",
    [b'{"model": "base", "prompt": "' + b"x" * 2**26 + b'"}', b'{"model": "base", "x": [' + b"[]," * 2**20 + b"0]}"],
    ids=["bytes", "values"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/load_lora_adapter"])
def test_a_request_larger_than_any_prompts_is_refused(path: str, body: bytes, opened: Any) -> None:
    desk, server = opened()
    state, found = asyncio.run(ask(desk, server, "POST", path, body))
    assert state == 400
    assert "A request has at most 67,108,864 bytes and 2,000,000 values." in found["error"]["message"]
    assert not server.asked
    assert asyncio.run(ask(desk, server, *completion("base")))[0] == 200  # and it goes on


def test_a_name_without_end_is_not_remembered(opened: Any) -> None:
    desk, server = opened(owners=["org"])
    for asked in (completion("hub:org/" + "x" * 10**6), load("/" + "x" * 10**6)):
        state, found = asyncio.run(ask(desk, server, *asked))
        assert state == 400
        assert len(found["error"]["message"]) < 1000
    assert not desk.refused


def test_a_server_that_is_none_of_ours_says_no_key_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer has a bound, also unpacked, and its words show no key."""
    key = "sk-canary-4711-0815"
    refusal = json.dumps({"error": {"message": f"not {key}", "hint": key.upper()}}).encode()
    answers = iter([refusal, gzip.compress(b" " * 2**27), b"[" * 200_000])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = next(answers)
            self.send_response(400)
            self.send_header("Content-Encoding", "gzip" if body.startswith(b"\x1f\x8b") else "identity")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv(KEY, key)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        for match in (r"^not \*\*\*\n\*\*\*$", "is no server of finbench serve", "is no server of finbench serve"):
            with pytest.raises(FinbenchError, match=match):
                remote.listed(f"http://127.0.0.1:{http.server_port}/v1")
    finally:
        http.shutdown()
