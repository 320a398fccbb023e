"""Publishing survives kill -9 at every request, and two pushers at once: the old or the new version, never a mix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

import boards
from conftest import TOKEN, hub_environment, make_lora, upload
from finbench.data.sources import import_data
from finbench.hub.dev.server import DevHub
from finbench.publishing.publish import push
from make_data import write_sources

pytestmark = pytest.mark.slow
OLD = {"README.md": b"# old\n", "adapter_config.json": b"{}", "adapter_model.safetensors": b"old"}


class Pusher:
    """A process that pushes in children."""

    def __init__(self, environment: dict[str, str]) -> None:
        script = Path(__file__).parent.parent / "pushes.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, **arguments: Any) -> int:
        """Begin a push; return the child's process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def status(self) -> int:
        """How it ended."""
        return int(self._line())

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture
def pusher(dev_hub: DevHub, tmp_path: Path) -> Iterator[Pusher]:
    made = Pusher({**os.environ, **hub_environment(dev_hub, tmp_path / "home")})
    yield made
    made.stop()


@pytest.fixture
def pushers(pusher: Pusher, dev_hub: DevHub, tmp_path: Path) -> Iterator[list[Pusher]]:
    second = Pusher({**os.environ, **hub_environment(dev_hub, tmp_path / "home")})
    yield [pusher, second]
    second.stop()


@pytest.fixture
def api(dev_hub: DevHub) -> HfApi:
    return HfApi(endpoint=dev_hub.url, token=TOKEN)


def tree(api: HfApi, repo: str, kind: str = "model") -> dict[str, str]:
    listed = api.list_repo_tree(repo, repo_type=kind, recursive=True)
    found = {item.path: item.lfs.sha256 if item.lfs else item.blob_id for item in listed if hasattr(item, "blob_id")}
    found.pop(".gitattributes")
    return found


def published(folder: Path, repo: str) -> dict[str, str]:
    """What the repository holds once ``folder`` is published there."""
    plan = push(folder, f"hub:{repo}", dry_run=True).plan
    large = (".safetensors", ".png", ".zst")
    return {path: sha256 if path.endswith(large) else git for path, (sha256, git) in plan.hashes.items()}


def push_killed_at(dev_hub: DevHub, pusher: Pusher, request: int, phase: str, **arguments: Any) -> bool:
    """Kill a push at its n-th request, before or after it is done; False where it was through before that."""
    start, killed, child = len(dev_hub.requests), False, [0]

    def watch(count: int, now: str, said: str) -> None:
        nonlocal killed
        if count == start + request and now == phase and not killed:
            while not child[0]:
                pass  # the first request may come before its process id is known here
            os.kill(child[0], signal.SIGKILL)
            killed = True
            if phase == "before":
                raise ConnectionAbortedError

    dev_hub.watch = watch
    child[0] = pusher.start(**arguments)
    status = pusher.status()
    dev_hub.watch = None
    assert status == (-signal.SIGKILL if killed else 0)
    return killed


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("fresh", [False, True], ids=["replacing", "new repository"])
def test_killed_at_every_request(
    dev_hub: DevHub, api: HfApi, pusher: Pusher, lora: Path, phase: str, fresh: bool
) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        repo = f"org/{phase}{number}"
        new = published(lora, repo)
        if not fresh:
            upload(dev_hub, repo, OLD)
            old = tree(api, repo)
        killed = push_killed_at(dev_hub, pusher, number, phase, path=str(lora), to=f"hub:{repo}")
        if api.repo_exists(repo):
            there = tree(api, repo)
            assert there in ((new, {}) if fresh else (new, old)), f"a mix after request {number}"
        else:
            assert fresh
        pusher.start(path=str(lora), to=f"hub:{repo}")
        assert pusher.status() == 0
        assert tree(api, repo) == new
        assert len(api.list_repo_commits(repo)) == (2 if fresh else 3)  # one of ours, however often it was tried
    assert number > 5


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_leaderboard_killed_at_every_request(
    dev_hub: DevHub, api: HfApi, pusher: Pusher, phase: str, tmp_path: Path
) -> None:
    """Each of its two repositories is the old or the new one; the page is never newer than the cards."""
    from finbench import leaderboard

    data = tmp_path / "data"
    import_data("fpb", write_sources(tmp_path / "sources")["fpb"], data)
    card = boards.scored(tmp_path, data, ["fpb"])
    boards.renamed(card, tmp_path / "board" / "scorecards" / "guesses.json")
    leaderboard.build(tmp_path / "board")
    api.create_repo("org/first", repo_type="space", space_sdk="static")
    first: dict[str, dict[str, str]] = {"dataset": {}, "space": tree(api, "org/first", "space")}
    number, killed = 0, True
    while killed:
        number += 1
        repo = f"org/{phase}{number}"
        arguments = {"folder": str(tmp_path / "board"), "to": f"hub:{repo}"}
        killed = push_killed_at(dev_hub, pusher, number, phase, **arguments)
        found = {
            kind: tree(api, repo, kind) if api.repo_exists(repo, repo_type=kind) else first[kind] for kind in first
        }
        pusher.start(**arguments)
        assert pusher.status() == 0
        new = {kind: tree(api, repo, kind) for kind in first}
        assert {"scorecards/guesses.json", "index.html"} <= {*new["dataset"], *new["space"]}
        assert all(found[kind] in (first[kind], new[kind]) for kind in first), f"a mix after request {number}"
        assert found["space"] == first["space"] or found["dataset"] == new["dataset"]
        assert [len(api.list_repo_commits(repo, repo_type=kind)) for kind in first] == [2, 2]
    assert number > 15


def test_two_pushers_at_once(
    dev_hub: DevHub, api: HfApi, pushers: list[Pusher], llama: Path, lora: Path, tmp_path: Path
) -> None:
    other = make_lora(tmp_path / "other", llama, "org/tiny-llama", seed=5, r=8)
    dev_hub.faults.set("slow=0.3@/preupload/")
    outcomes = []
    for number in range(4):
        repo = f"org/race{number}"
        if number % 2:
            upload(dev_hub, repo, OLD)
        pushers[0].start(path=str(lora), to=f"hub:{repo}")
        pushers[1].start(path=str(other), to=f"hub:{repo}")
        statuses = sorted([pushers[0].status(), pushers[1].status()])
        outcomes.append(statuses)
        assert statuses[0] == 0
        dev_hub.faults.set()
        assert tree(api, repo) in (published(lora, repo), published(other, repo))
        dev_hub.faults.set("slow=0.3@/preupload/")
        assert len(api.list_repo_commits(repo)) == 2 + number % 2 + (statuses == [0, 0])
    assert [0, 1] in outcomes  # the one that came second was told so


def test_many_pushers_of_results_all_arrive(
    dev_hub: DevHub, api: HfApi, pushers: list[Pusher], llama: Path, lora: Path, tmp_path: Path
) -> None:
    """Different files of one repository: who comes second goes on from the new state."""
    from finbench.evaluation import evaluator

    for number, folder in enumerate((lora, make_lora(tmp_path / "other", llama, "org/tiny-llama", seed=7))):
        evaluator.evaluate(
            [str(folder)],
            base=str(llama),
            tasks=["mini_sentiment"],
            limit=4,
            out=tmp_path / f"cards{number}",
            arguments={"dtype": "float32"},
        )
    upload_first = [
        str(tmp_path / f"cards{number}" / f"{name}.json") for number, name in enumerate(("stranger", "other"))
    ]
    dev_hub.faults.set("slow=0.3@/preupload/")
    api.create_repo("org/results", repo_type="dataset")
    for pusher, card in zip(pushers, upload_first, strict=True):
        pusher.start(path=card, to="hub:org/results")
    assert [pusher.status() for pusher in pushers] == [0, 0]
    found = [name for name in api.list_repo_files("org/results", repo_type="dataset") if name.endswith(".json")]
    assert len(found) == 2
