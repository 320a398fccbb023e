"""The development Hub, driven by the Hub's own client and command, unmodified."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from conftest import hub_environment
from finbench.hub.dev.calls import DevAccount
from finbench.hub.dev.faults import Fault
from finbench.hub.dev.server import TOKEN, DevHub

CARD = b"---\nlicense: mit\nbase_model: org/base\n---\n# A card\n"


@pytest.fixture
def api(dev_hub: DevHub) -> HfApi:
    return HfApi(endpoint=dev_hub.url, token=TOKEN)


def committed(api: HfApi, repo: str = "org/one", **files: bytes) -> str:
    api.create_repo(repo, private=True, exist_ok=True)
    added = [CommitOperationAdd(name.replace("__", "."), data) for name, data in files.items()]
    return str(api.create_commit(repo, added, commit_message="files").oid)


def test_create_commit_list_and_download(api: HfApi, dev_hub: DevHub, tmp_path: Path) -> None:
    weights = bytes(range(256)) * 5000
    sha = committed(api, README__md=CARD, a__json=b"{}", w__safetensors=weights)
    tree = {item.path: item for item in api.list_repo_tree("org/one", recursive=True)}
    assert set(tree) == {".gitattributes", "README.md", "a.json", "w.safetensors"}
    assert tree["w.safetensors"].lfs
    assert not tree["a.json"].lfs
    path = hf_hub_download("org/one", "w.safetensors", endpoint=dev_hub.url, cache_dir=tmp_path / "c")
    assert Path(path).read_bytes() == weights
    assert Path(path).parent.name == sha
    folder = Path(snapshot_download("org/one", endpoint=dev_hub.url, cache_dir=tmp_path / "c"))
    assert (folder / "README.md").read_bytes() == CARD
    assert api.repo_info("org/one").private
    again = api.create_commit("org/one", [CommitOperationAdd("a.json", b"{}")], commit_message="same")
    assert again.oid == sha  # nothing changed: no commit
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/one")


def test_state_survives_a_restart(api: HfApi, dev_hub: DevHub, tmp_path: Path) -> None:
    sha = committed(api, a__json=b"{}")
    with DevHub(dev_hub.store.root) as second:
        assert HfApi(endpoint=second.url, token=TOKEN).repo_info("org/one").sha == sha


def test_parents_deletions_refs_and_history(api: HfApi) -> None:
    first = committed(api, a__json=b"{}", b__json=b"{}")
    second = api.create_commit(
        "org/one", [CommitOperationDelete("a.json")], commit_message="less", parent_commit=first
    ).oid
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("org/one", [CommitOperationAdd("c.json", b"1")], commit_message="late", parent_commit=first)
    assert "a.json" not in api.list_repo_files("org/one")
    assert "a.json" in api.list_repo_files("org/one", revision=first)
    api.create_tag("org/one", tag="v1", revision=first)
    api.create_branch("org/one", branch="other", revision=first)
    refs = api.list_repo_refs("org/one")
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first}
    assert {branch.name for branch in refs.branches} == {"main", "other"}
    assert [commit.title for commit in api.list_repo_commits("org/one")] == ["less", "files", "initial commit"]
    assert api.list_repo_commits("org/one")[0].commit_id == second
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("org/one", revision="nowhere")


def test_pull_requests(api: HfApi) -> None:
    first = committed(api, a__json=b"{}")
    made = api.create_commit(
        "org/one", [CommitOperationAdd("b.json", b"{}")], commit_message="a proposal", create_pr=True
    )
    assert made.pr_num == 1
    assert api.repo_info("org/one").sha == first
    assert "b.json" in api.list_repo_files("org/one", revision="refs/pr/1")
    [found] = api.get_repo_discussions("org/one", discussion_type="pull_request")
    assert (found.title, found.status, found.author) == ("a proposal", "open", "dev")
    assert api.get_discussion_details("org/one", 1).target_branch == "refs/heads/main"
    api.merge_pull_request("org/one", 1)
    assert set(api.list_repo_files("org/one")) == {".gitattributes", "a.json", "b.json"}


def test_large_files_in_parts(api: HfApi, dev_hub: DevHub, tmp_path: Path) -> None:
    dev_hub.store.multipart = 2**20
    data = bytes(range(251)) * 10_000
    committed(api, w__safetensors=data)
    assert sum("/lfs/part/" in request for request in dev_hub.requests) == 3
    assert Path(hf_hub_download("org/one", "w.safetensors", endpoint=dev_hub.url)).read_bytes() == data


def test_who_may_what(dev_hub: DevHub, api: HfApi) -> None:
    dev_hub.tokens |= {"hf_reader": DevAccount("reader", "read", ()), "hf_other": DevAccount("other", orgs=())}
    committed(api, a__json=b"{}")
    reader, other = (HfApi(endpoint=dev_hub.url, token=token) for token in ("hf_reader", "hf_other"))
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(RepositoryNotFoundError):
        other.repo_info("org/one")
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_repo("reader/mine")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=dev_hub.url, token="hf_unknown").whoami()
    api.update_repo_settings("org/one", private=False, gated="auto")
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/one", "a.json", endpoint=dev_hub.url, token="hf_other")
    with pytest.raises(GatedRepoError):
        other.auth_check("org/one")
    with pytest.raises(HfHubHTTPError, match="403"):
        other.create_commit("org/one", [CommitOperationAdd("b.json", b"1")], commit_message="no")
    proposed = other.create_commit(
        "org/one", [CommitOperationAdd("b.json", b"1")], commit_message="please", create_pr=True
    )
    assert proposed.pr_num == 1


@pytest.mark.parametrize(
    ("card", "fault"),
    [
        (b"---\nlicense: Apache 2\n---\n", "license"),
        (b"---\nbase_model: /home/me/llama\n---\n", "base_model"),
        (b"---\nlicense: mit\nlicense: mit\n---\n", "duplicated"),
        (b"---\nlicense: mit\n", "not closed"),
    ],
)
def test_cards_are_checked(api: HfApi, card: bytes, fault: str) -> None:
    api.create_repo("org/one")
    with pytest.raises(ValueError, match=fault):
        api.create_commit("org/one", [CommitOperationAdd("README.md", card)], commit_message="card")


SPACE = "---\ntitle: x\nemoji: x\ncolorFrom: blue\ncolorTo: gray\nsdk: static\n---\n"


@pytest.mark.parametrize(
    ("card", "fault"),
    [
        ("# no metadata\n", "needs a metadata block"),
        (SPACE.replace("sdk: static\n", ""), '"sdk" is required'),
        (SPACE.replace("static", "flask"), '"sdk" must be one of'),
        (SPACE.replace("blue", "navy"), '"colorFrom" must be one of'),
        (SPACE.replace("sdk", "short_description: " + "x" * 61 + "\nsdk"), "more than 60 characters"),
    ],
)
def test_a_space_begins_with_a_page_and_needs_a_card_of_its_own(api: HfApi, card: str, fault: str) -> None:
    api.create_repo("org/page", repo_type="space", space_sdk="static")
    assert "index.html" in api.list_repo_files("org/page", repo_type="space")
    for content in (card, SPACE):
        operation = CommitOperationAdd("README.md", content.encode())
        if content == SPACE:
            api.create_commit("org/page", [operation], commit_message="card", repo_type="space")
        else:
            with pytest.raises(ValueError, match=fault):
                api.create_commit("org/page", [operation], commit_message="card", repo_type="space")


def test_what_is_malformed_is_refused_and_nothing_leaves_the_folder(api: HfApi, dev_hub: DevHub) -> None:
    committed(api, a__json=b"{}")
    head = api.repo_info("org/one").sha
    for path in ("../x", "/etc/x", "a/../x", "a\\b", ".git/config", ""):
        with pytest.raises((BadRequestError, ValueError)):
            dev_hub_commit(dev_hub, path)
    assert api.repo_info("org/one").sha == head
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("org/one", "nothing.json", endpoint=dev_hub.url)
    for target in ("/api/models/../../etc/passwd", "/..%2f..%2fetc/passwd/resolve/main/x", "/lfs/put/..%2fx"):
        assert raw(dev_hub, "GET", target)[0] in (400, 404, 422)


def raw(dev_hub: DevHub, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", int(dev_hub.url.rpartition(":")[2]), timeout=60)
    connection.request(method, target, body, {"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def dev_hub_commit(dev_hub: DevHub, path: str) -> None:
    import json

    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "x"}}]
    lines.append({"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}})
    status, _ = raw(dev_hub, "POST", "/api/models/org/one/commit/main", "\n".join(map(json.dumps, lines)).encode())
    if status != 200:
        raise ValueError(status)


def test_faults_are_read_strictly() -> None:
    assert Fault.parse("429=2@POST .*/commit/*1") == Fault("status", "429=2", "POST .*/commit/", 1)
    assert Fault.parse("wrong@safetensors") == Fault("wrong", "", "safetensors", -1)
    with pytest.raises(ValueError, match="no fault is called"):
        Fault.parse("melt")


def test_a_client_outlives_a_short_body_and_a_reset(api: HfApi, dev_hub: DevHub) -> None:
    committed(api, w__safetensors=b"x" * 100_000)
    dev_hub.faults.set("reset@GET .*resolve*1")
    path = hf_hub_download("org/one", "w.safetensors", endpoint=dev_hub.url)
    assert Path(path).stat().st_size == 100_000


def hf(dev_hub: DevHub, home: Path, *arguments: str) -> str:
    import os

    environment = {**os.environ, **hub_environment(dev_hub, home)}
    command = [str(Path(sys.executable).parent / "hf"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_hf_command(dev_hub: DevHub, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.json").write_text("{}")
    (tmp_path / "up" / "w.safetensors").write_bytes(b"w" * 1000)
    assert "dev" in hf(dev_hub, tmp_path / "home", "auth", "whoami")
    hf(dev_hub, tmp_path / "home", "repos", "create", "org/cli", "--private")
    hf(dev_hub, tmp_path / "home", "upload", "org/cli", str(tmp_path / "up"))
    hf(dev_hub, tmp_path / "home", "download", "org/cli", "--local-dir", str(tmp_path / "down"))
    assert (tmp_path / "down" / "w.safetensors").read_bytes() == b"w" * 1000
    assert (tmp_path / "down" / "a.json").read_text() == "{}"
