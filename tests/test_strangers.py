"""What strangers publish, and Hubs that are none: every attack ends in one short sentence, soon, with nothing lost."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from test_security import configured

from conftest import files_of, processor_time, quick, upload
from finbench import hub
from finbench.cli import app, command
from finbench.cli.show import listings, publications
from finbench.core import catalog, console
from finbench.core.errors import FinbenchError, harmless
from finbench.data.audit import formats
from finbench.data.readers import expand
from finbench.evaluation import doctor
from finbench.hub.dev.server import DevHub
from finbench.models import adapters, adopting, bases, zoo
from finbench.models.adapters import AdapterFolder
from finbench.publishing import evidence, pulling
from finbench.training import recipes, reproduced

ANSI = "\x1b]0;owned\x07\x1b[2J\u202e[bold]x"


@pytest.fixture(autouse=True)
def _own_zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINBENCH_ZOO", str(tmp_path / "zoo.yaml"))
    real = time.sleep  # the client waits between its tries
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))


@pytest.fixture
def adapter(lora: Path, tmp_path: Path) -> Path:
    return shutil.copytree(lora, tmp_path / "adapter")


@pytest.fixture
def published(dev_hub: DevHub, lora: Path) -> str:
    """A plain adapter of somebody else's; its commit."""
    return upload(dev_hub, "them/plain", files_of(lora), private=False)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the commands print on a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(console.out, "_file", made := io.StringIO())  # to set file back would bind this stdout
    yield made
    monkeypatch.undo()


def beside(running: DevHub, files: dict[str, bytes]) -> None:
    """Put files into the stranger's repository as git would: the Hub's check of cards is no guard."""
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "files"}}]
    for path, data in files.items():
        lines.append({"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode()}})
    running.store.repository("models", "them/plain").commit("main", lines, "them", False)


def refused(match: str, action: Any, seconds: float = 5) -> FinbenchError:
    start = processor_time()
    with pytest.raises(FinbenchError, match=match) as caught:
        action()
    assert quick(processor_time() - start, seconds)
    assert max(map(len, caught.value.message.split("\n"))) < 2_100
    return caught.value


# ---------------------------------------------------------------- text that a terminal would obey


def test_messages_and_lists_steer_no_terminal(
    dev_hub: DevHub, published: str, adapter: Path, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert harmless("a\tb\nc\x1b\x07\x9b\u202e") == "a\tb\nc\\x1b\\x07\\x9b\\u202e"
    configured(adapter, base_model_name_or_path=f"org/{ANSI}")
    beside(dev_hub, {"adapter_config.json": (adapter / "adapter_config.json").read_bytes()})
    entry, _ = pulling.add_to_zoo("hub:them/plain")
    publications.zoo([entry])
    publications.pulled(pulling.pull("hub:them/plain", adapter.parent / "pulled"))
    console.out.print(f"[bold]a[/] {ANSI}")
    assert "owned" in printed.getvalue()
    assert not {"\x1b", "\x07", "\u202e"} & set(printed.getvalue())
    configured(adapter, **{f"megatron_{ANSI}": 1})
    monkeypatch.setattr(sys, "argv", ["finbench", "eval", "--adapter", str(adapter), "--tasks", "mini_sentiment"])
    with pytest.raises(SystemExit):
        app.main()
    said = capsys.readouterr().err
    assert "asks to run code" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


def test_commands_stay_whole_on_a_narrow_terminal(published: str, tmp_path: Path, printed: io.StringIO) -> None:
    place = tmp_path / ("a-folder-with-a-long-name" * 3)
    publications.pulled(pulling.pull("hub:them/plain", place))
    entry, _ = pulling.add_to_zoo("hub:them/plain", "a-name-that-is-longer-than-the-terminal-is-wide")
    publications.zoo([entry])
    listings.recipes({name: recipes.recipe(name) for name in catalog.recipe_files()}, reproduced.trained())
    lines = printed.getvalue().splitlines()
    assert "suite-smollm2-135m-lora  lora, r 16, 16 bits on smollm2-135m" in lines
    words = printed.getvalue().replace(",", " ").split()
    assert {"mini_sentiment", "fin_ner_typing"} <= set(words)
    [line] = [line for line in lines if line.startswith("Next: finbench eval")]
    assert line.startswith(f"Next: finbench eval --adapter {place} ")
    assert " --tasks " in line  # it has no record that would name any
    assert any(line.startswith("zoo:a-name-that-is-longer-than-the-terminal-is-wide  lora, r 4") for line in lines)


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", ""),  # which the adapter says itself
        ("org/model", " --base hub:org/model"),
        (None, " --base BASE"),
        ("./m", " --base ./m"),
        ("/a b", " --base '/a b'"),
    ],
)
def test_the_line_that_scores_a_foreign_adapter_is_whole(stated: str | None, named: str, tmp_path: Path) -> None:
    """Base and tasks stand in it: eval knows neither."""
    found = AdapterFolder(tmp_path, None, "peft", "0" * 64, {"base_model_name_or_path": stated})
    said = adopting.to_score(found, "a")
    assert said.startswith(f"finbench eval --adapter ./a{named} --tasks ")
    assert {said.rpartition(" ")[2]} & {"fpb", "mini_sentiment"}


# ---------------------------------------------------------------- bombs


@pytest.mark.parametrize("depth", [61, 300, 900, 2_000])
def test_a_configuration_that_is_nested(adapter: Path, depth: int) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(path.read_text().rstrip()[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}")
    refused("nested more than 60 deep|torn or not JSON", lambda: adapters.read(adapter))


@pytest.mark.parametrize(
    "header",
    [
        b"{" + b",".join(b'"%d":{"data\\u005foffsets":[0,0]}' % n for n in range(300_000)) + b"}",
        b'{"a":[' + b",".join([b"{}"] * 3_000_000) + b"]}",
        b'{"a":{"b":[' + b",".join([b"[]"] * 3_000_000) + b"]}}",
    ],
    ids=["keys under another spelling", "objects", "lists"],
)
def test_headers_that_would_fill_memory(adapter: Path, header: bytes) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused("more than 200,000 tensors", lambda: adapters.read(adapter), 2)


@pytest.mark.parametrize(
    ("name", "changed", "match"),
    [
        ("config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1,000,000; no model has so many"),
        ("config.json", {"text_config": {"num_experts": 10**6}}, "num_experts is 1,000,000"),
        ("config.json", {"max_position_embeddings": 10**12}, "no model has so many"),
        ("tokenizer_config.json", {"x": json.loads("[" * 300 + "]" * 300)}, "nested more than 60 deep"),
        ("tokenizer.json", {"model": {"type": "Evil", "vocab": {}}}, "cannot be read"),
        ("tokenizer.json", {"added_tokens": [{"id": 10**12, "content": 1}]}, "cannot be read"),
    ],
)
def test_bases_that_would_never_be_made(
    llama: Path, tmp_path: Path, name: str, changed: dict[str, Any], match: str
) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    refused(match, lambda: bases.load_tokenizer(bases.resolve(str(folder))))


@pytest.mark.parametrize("changed", [{"hidden_size": 10**6}, {"intermediate_size": 10**8}, {"vocab_size": 10**9}])
def test_a_base_that_states_more_than_it_has_is_not_allocated(
    llama: Path, tmp_path: Path, changed: dict[str, int]
) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    base = bases.resolve(str(folder))
    refused("is of a model of .* parameters, its weights have", lambda: bases.load(base, 16, torch.float32))


def test_a_record_with_endless_faults(adapter: Path) -> None:
    (adapter / "finbench.json").write_text(json.dumps({f"{ANSI}{n}": n for n in range(20_000)}))
    fault = refused("and [0-9,]+ more", lambda: adapters.read(adapter))
    assert "\x1b" not in fault.message
    (adapter / "finbench.json").write_text(json.dumps({"base": "x" * 1_000_000}))
    refused("base: Input should be", lambda: adapters.read(adapter))
    configured(adapter, peft_type="L" * 500_000)
    (adapter / "finbench.json").unlink()
    refused("is no method that finbench can load", lambda: adapters.read(adapter))


BOMB = b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("block", "licence"),
    [
        (b"license: apache-2.0", "apache-2.0"),
        (b'license: "mit"\r', "mit"),
        (BOMB + b"license: *a8", "unknown"),
        (b'license: !!int ""', "unknown"),
        (b"license: !!timestamp x", "unknown"),
        (b"license: " + b"[" * 9_000, "unknown"),
        (b'license: "\\e[31mred"', "unknown"),
        (b"x: 1", "unknown"),
    ],
)
def test_the_licence_of_a_card_is_one_word_or_unknown(
    dev_hub: DevHub, published: str, block: bytes, licence: str
) -> None:
    beside(dev_hub, {"README.md": b"---\n" + block + b"\n---\n# x\n"})
    start = processor_time()
    assert pulling.add_to_zoo("hub:them/plain")[0].licence == licence
    assert quick(processor_time() - start, 3)


def test_evidence_of_strangers_is_bounded(dev_hub: DevHub, published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {f"finbench/scorecards/{name}": b"{}" for name in ("a" * 200 + ".json", "a b.json", ".hidden.json", "x.py")}
    beside(dev_hub, odd)
    assert pulling.add_to_zoo("hub:them/plain")[0].scorecard is None  # no cards by their names: not even fetched
    beside(dev_hub, {"finbench/scorecards/a.json": b"[" * 100_000})
    refused("torn or not JSON", lambda: pulling.add_to_zoo("hub:them/plain"))
    monkeypatch.setattr(evidence, "_LARGEST", 1000)
    refused("too large together", lambda: pulling.add_to_zoo("hub:them/plain"))
    assert not zoo.entries()["plain"].scorecard  # that of before stands


# ---------------------------------------------------------------- what is one's own stays


def test_a_pull_removes_nothing_that_is_not_of_a_pull(published: str, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    pulling.pull("hub:them/plain", place)
    pulling.pull("hub:them/plain", place)  # again is no fault
    (place / "notes.txt").write_text("mine")
    refused("holds other files: notes.txt", lambda: pulling.pull("hub:them/plain", place))
    assert (place / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        refused("it is a file itself", lambda name=name: pulling.pull("hub:them/plain", tmp_path / name))
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- bodies, answers and addresses


def test_a_body_cut_anywhere_is_fetched_again_or_refused(
    dev_hub: DevHub, published: str, lora: Path, tmp_path: Path
) -> None:
    sizes = {path.name: path.stat().st_size for path in lora.iterdir()}
    for kind in ("short", "reset"):
        for name, size in sizes.items():
            for at in sorted({0, 1, 7, 8, 9, size // 3, size - 1}):
                for cache in ("hf", "cache"):
                    shutil.rmtree(tmp_path / cache, ignore_errors=True)
                dev_hub.faults.set(f"{kind}={at}@GET .*/resolve/.*{name}*1")
                folder = hub.fetch("them/plain").folder
                assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
                    path.name: path.read_bytes() for path in lora.iterdir()
                }
    shutil.rmtree(tmp_path / "hf", ignore_errors=True)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    dev_hub.faults.set("short=8@GET .*/resolve/.*safetensors")
    refused("arrived short, twice; it was not kept", lambda: hub.fetch("them/plain"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("200@/tree/", "does not answer as a Hub does"),
        ("204@/tree/", "does not answer as a Hub does"),
        ("500@HEAD", "the Hub answered 500"),
        ("418", "the Hub answered 418"),
        ("loop@/resolve/", "redirects in circles for hub:them/plain"),
        ("listing@/tree/", r"leads out of its folder \('../escaped.json'\)"),
    ],
)
def test_answers_that_are_none(dev_hub: DevHub, published: str, fault: str, message: str, tmp_path: Path) -> None:
    dev_hub.faults.set(fault)
    refused(message, lambda: hub.fetch("them/plain"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://[::1", "does not answer as a Hub does"),
        ("http://" + "a" * 300, "does not answer as a Hub does"),
        ("localhost:1", r"the Hub at localhost:1 \(HF_ENDPOINT\) cannot be reached"),
        ("http://127.0.0.1:1", r"the Hub at http://127.0.0.1:1 \(HF_ENDPOINT\) cannot be reached"),
    ],
)
def test_addresses_that_are_none(dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    refused(message, lambda: hub.fetch("them/other"))


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"[" * 200_000, b'{"id": 5, "sha": 7}'], ids=["nothing", "a list", "deep", "numbers"]
)
def test_json_without_what_a_hub_states_is_one_line(
    dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """As a portal of a hotel gives it, or whoever HF_ENDPOINT leads to."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    portal = ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    threading.Thread(target=portal.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{portal.server_port}")
    try:
        refused("does not answer as a Hub does|names no commit", lambda: hub.fetch("them/other"))
    finally:
        portal.shutdown()


def test_a_password_in_the_address_is_nowhere_to_be_seen(
    dev_hub: DevHub, lora: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from finbench.publishing.publish import push

    upload(dev_hub, "them/plain", files_of(lora), private=False)
    monkeypatch.setenv("HF_ENDPOINT", dev_hub.url.replace("://", "://me:hunter22@"))
    found = adapters.find("hub:them/plain")
    assert "hunter22" not in str(found.folder.resolve()) + str(found.folder)
    # name and password of the address take the place of the token, which the Hub asks for
    said = str(refused("does not know your token", lambda: push(lora, "hub:them/other", dry_run=True)))
    said += str([vars(finding) for finding in doctor.examine_machine()])
    dev_hub.faults.set("500")
    said += str(refused("500", lambda: hub.fetch("them/third")))
    dev_hub.faults.set("loop")
    said += str(refused("circles", lambda: hub.fetch("them/third")))
    assert "hunter22" not in said


def test_kinds_of_repositories_are_told_apart(dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch) -> None:
    dev_hub.faults.set("gated")
    fault = refused("^The data set hub:org/rows is gated", lambda: list(formats.on_hub("hub:org/rows")))
    assert f"{dev_hub.url}/datasets/org/rows" in fault.hint
    dev_hub.faults.set()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    missing = "data set hub:org/rows is not in the local cache"
    assert isinstance(refused(missing, lambda: list(formats.on_hub("hub:org/rows"))), hub.Unreachable)
    fault = refused(missing, lambda: list(formats.hub_rows("org/rows", "0" * 40)))
    assert "hf download org/rows --repo-type dataset" in fault.hint


def test_a_cache_that_is_a_file_is_said_in_one_line(
    published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.setattr(sys, "argv", ["finbench", "pull", "hub:them/plain", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    assert "Cannot use a file or folder: Not a directory" in capsys.readouterr().err


# ---------------------------------------------------------------- what a newcomer types


def test_hints_for_what_is_nearly_right(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="not 5") as caught:
        command.bits(5)
    assert "--bits 4" in caught.value.hint
    (tmp_path / "train.csv").write_text("a,b\n")
    with pytest.raises(FinbenchError, match=r"No such file: .*trian.csv. Did you mean .*/train.csv\?"):
        expand([tmp_path / "trian.csv"], "*")
