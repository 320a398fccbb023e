"""The commands that go to the Hub: what they print, doctor's view of the Hub, and refusals of a push."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from conftest import files_of, upload
from finbench import hub
from finbench.cli import app
from finbench.cli.show import publications
from finbench.core.errors import FinbenchError
from finbench.evaluation import doctor
from finbench.hub.dev.calls import DevAccount
from finbench.hub.dev.server import DevHub
from finbench.models import zoo


def finbench(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> str:
    """Run a command in this process; what it printed, on one line."""
    monkeypatch.setattr(sys, "argv", ["finbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code in (0, None), capsys.readouterr().err
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FINBENCH_ZOO", str(tmp_path / "zoo.yaml"))
    monkeypatch.chdir(tmp_path)
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))


def test_push_pull_and_zoo_as_people_type_them(
    dev_hub: DevHub, lora: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    planned = finbench(monkeypatch, capsys, "push", str(lora), "hub:org/tiny", "--dry-run")
    assert f"{dev_hub.url}/org/tiny (new, private), one commit" in planned
    assert "added" in planned
    assert "README.md" in planned
    assert "# tiny" in planned  # the card
    assert not list((dev_hub.store.root).glob("models/org/*"))
    done = finbench(monkeypatch, capsys, "push", str(lora), "hub:org/tiny")
    assert f"Published: {dev_hub.url}/org/tiny/commit/" in done
    sha = hub.fetch("org/tiny").sha
    assert f"finbench eval --adapter hub:org/tiny@{sha}" in done
    assert "Nothing to do" in finbench(monkeypatch, capsys, "push", str(lora), "hub:org/tiny")
    assert "Pull request" in finbench(
        monkeypatch, capsys, "push", str(lora), "hub:org/tiny", "--pr", "--licence", "apache-2.0"
    )
    pulled = finbench(monkeypatch, capsys, "pull", "hub:org/tiny", "--out", "mine")
    assert f"hub:org/tiny@{sha} is in mine" in pulled
    assert "states the base org/tiny-llama" in pulled
    assert "No published adapter is pinned yet" in finbench(monkeypatch, capsys, "zoo", "list")
    finbench(monkeypatch, capsys, "zoo", "add", "hub:org/tiny", "--name", "ours")
    listed = finbench(monkeypatch, capsys, "zoo", "list")
    assert "zoo:ours lora, r 4 on org/tiny-llama, 8.2 kB, unknown scores unknown" in listed
    assert "fpb-smollm2-135m-lora" in listed  # recipes too
    shown = json.loads(finbench(monkeypatch, capsys, "zoo", "show", "ours", "--json"))
    assert shown["hub"] == f"org/tiny@{sha}"
    assert finbench(monkeypatch, capsys, "zoo", "show", "fpb-smollm2-135m-lora").startswith("base:")


def test_a_plan_is_whole_in_a_narrow_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [hub.Change(f"results/{'a' * 90}/{name}.json", "added", 12) for name in ("fpb", "tfns")]
    monkeypatch.setenv("COLUMNS", "40")
    publications.plan_rows(changes)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["added", "added"]
    assert [line.rpartition("/")[2] for line in lines] == ["fpb.json", "tfns.json"]
    assert all("12 B" in line for line in lines)


def test_a_fault_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["finbench", "dev", "hub", "--port", "0", "--root", "hub", "--fault", "nosuch"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    assert "error: --fault: no fault is called 'nosuch'" in " ".join(capsys.readouterr().err.split())


def test_a_zoo_entry_is_strict(tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text("a: {hub: org/name@main, adapter: x, bytes: 1}\n")
    with pytest.raises(FinbenchError, match="not pinned to a commit"):
        _ = zoo.published("a").ref
    (tmp_path / "zoo.yaml").write_text("a: {hub: org/name, adapter: x, bites: 1}\n")
    with pytest.raises(FinbenchError, match="unknown key 'bites' .did you mean bits or bytes"):
        zoo.published("a")
    (tmp_path / "zoo.yaml").write_text("a: 1\n")
    with pytest.raises(FinbenchError, match="a mapping is expected"):
        zoo.entries()
    (tmp_path / "zoo.yaml").unlink()
    with pytest.raises(FinbenchError, match="No adapter of the zoo is called"):
        zoo.published("fpb-smollm2-135m-lroa")


def hub_lines() -> list[tuple[str, str, str]]:
    return [(f.what, f.state, f"{f.detail} {f.mend}") for f in doctor.examine_machine() if f.what.startswith("Hub")]


def test_doctor_says_which_hub_whose_token_and_what_it_may_do(dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch) -> None:
    place, token = hub_lines()
    assert place[1:] == ("ok", f"{dev_hub.url} (HF_ENDPOINT) ")
    assert token[1] == "ok"
    assert "of dev, may write (write)" in token[2]
    dev_hub.tokens["hf_readonly"] = DevAccount("reader", "read", ("bank",))
    monkeypatch.setenv("HF_TOKEN", "hf_readonly")
    assert hub_lines()[1][1] == "note"
    assert "of reader, may only read (read); organisations: bank" in hub_lines()[1][2]
    assert f"{dev_hub.url}/settings/tokens" in hub_lines()[1][2]
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert hub_lines()[1] == ("Hub token", "fault", "The Hub does not know your token. Log in again: hf auth login")
    monkeypatch.setenv("HF_TOKEN", "")
    assert hub_lines()[1][1] == "note"
    assert "nothing can be pushed hf auth login" in hub_lines()[1][2]


def test_doctor_without_a_network(dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached: the cache serves" in hub_lines()[0][2]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "switched off by HF_HUB_OFFLINE" in hub_lines()[0][2]


@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        ("403@POST .*/repos/create", "your token may not write there", "settings/tokens"),
        ("401@POST .*/repos/create", "wants to know who you are", "hf auth login"),
        ("403@POST .*/commit/", "your token may not write there", "settings/tokens"),
        ("409@POST .*/commit/", "busy with another change", "Repeat the command"),
        ("412@POST .*/commit/", "has changed since the plan was made", "plans again"),
        ("429=30@POST .*/commit/", "too many requests", "in 30 seconds"),
        ("502@POST .*/commit/", "the Hub answered 502", "it resumes"),
        ("gated@GET /api/models/org/tiny", "is gated", "Ask for access"),
        ("500@PUT .*/lfs/", "the Hub answered 500", "it resumes"),
    ],
)
def test_what_the_hub_refuses_of_a_push_is_said_in_one_sentence(
    dev_hub: DevHub, lora: Path, fault: str, message: str, hint: str
) -> None:
    from finbench.publishing.publish import push

    if "create" not in fault:
        upload(dev_hub, "org/tiny", {"README.md": b"# old\n"})
    dev_hub.faults.set(fault)
    with pytest.raises(FinbenchError, match=message) as caught:
        push(lora, "hub:org/tiny")
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    dev_hub.faults.set()
    assert push(lora, "hub:org/tiny").published


def test_whose_endpoint_is_no_hub(dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome to the hotel</html>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    with pytest.raises(FinbenchError, match="does not answer as a Hub does"):
        hub.fetch("org/name")
    server.shutdown()


def test_a_license_that_is_no_identifier_and_files_that_changed(dev_hub: DevHub, lora: Path, tmp_path: Path) -> None:
    from finbench.publishing.publish import push

    with pytest.raises(FinbenchError, match="no identifier of the Hub"):
        push(lora, "hub:org/tiny", licence="Apache 2")
    path = tmp_path / "a.md"
    path.write_text("one")
    plan = hub.make_plan("org/tiny", [hub.File("a.md", path)], message="a")
    path.write_text("two")
    with pytest.raises(FinbenchError, match="has changed since the plan was made"):
        hub.execute(plan)
    assert set(files_of(lora)) == {"adapter_config.json", "adapter_model.safetensors"}
