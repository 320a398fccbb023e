"""The real Hub: for a machine with a network and a token that may write. Makes private repositories, and removes them.

HF_TOKEN=... HF_HUB_OFFLINE=0 python -m pytest -m network tests/e2e/test_real_hub.py
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, get_token

from finbench import hub, leaderboard
from finbench.core.errors import FinbenchError
from finbench.models import adapters
from finbench.publishing.publish import push

pytestmark = pytest.mark.network
TOKEN = os.environ.get("HF_TOKEN")  # the tests' own environment has none


@pytest.fixture
def repo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A name in the account of the token."""
    if not TOKEN and not get_token():
        pytest.skip("no token: HF_TOKEN=... or hf auth login")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    if TOKEN:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    account = hub.account()
    assert account is not None
    name = f"{account.name}/finbench-test-{uuid.uuid4().hex[:8]}"
    yield name
    for kind in ("model", "dataset", "space"):
        HfApi().delete_repo(name, repo_type=kind, missing_ok=True)


def test_publish_fetch_compare_and_propose(repo: str, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = push(lora, f"hub:{repo}").published
    assert first is not None
    info = HfApi().repo_info(repo)
    assert info.private
    assert info.sha == first.sha
    assert len(HfApi().list_repo_commits(repo)) == 2
    again = push(lora, f"hub:{repo}").published
    assert again is not None
    assert (again.sha, again.new) == (first.sha, False)
    found = adapters.find(f"hub:{repo}")
    assert found.source == f"hub:{repo}@{first.sha}"
    assert found.identity == adapters.identity(lora)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert adapters.find(f"hub:{repo}").source == found.source
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(FinbenchError, match="no such revision"):
        hub.fetch(repo, "nowhere")


def test_a_moved_parent_is_refused(repo: str, lora: Path) -> None:
    """What the Hub answers there is the one thing that its client's source does not say."""
    from dataclasses import replace

    from huggingface_hub import CommitOperationAdd

    api = HfApi()
    push(lora, f"hub:{repo}")
    files = [hub.File("notes/a.md", b"one\n")]
    plan = hub.make_plan(repo, files, message="a note")
    api.create_commit(repo, [CommitOperationAdd("notes/a.md", b"another\n")], commit_message="meanwhile")
    with pytest.raises(FinbenchError, match="another push came first"):
        hub.execute(plan)
    other = replace(hub.make_plan(repo, [hub.File("notes/b.md", b"two\n")], message="b"), parent=plan.parent)
    assert hub.execute(other).new  # touched other files: goes on from there


def test_a_missing_repository_and_a_public_base(repo: str) -> None:
    with pytest.raises(FinbenchError, match="does not exist, or it is private"):
        hub.fetch(repo + "-missing")
    base = "hf-internal-testing/tiny-random-LlamaForCausalLM"
    found = hub.fetch_paths(base, str(HfApi().repo_info(base).sha), ["config.json"])
    assert json.loads(found["config.json"].read_bytes())["model_type"] == "llama"


def test_a_leaderboard(repo: str) -> None:
    """What the Hub puts into a new Space by itself is replaced or removed by the first push."""
    folder = Path(__file__).parents[2] / "leaderboards"
    for kind, pushed in zip(("dataset", "space"), leaderboard.push(f"hub:{repo}", folder), strict=True):
        there = set(HfApi().list_repo_files(repo, repo_type=kind)) - {".gitattributes"}
        assert there == {file.path for file in pushed.plan.files}
        assert HfApi().repo_info(repo, repo_type=kind).private
    again = leaderboard.push(f"hub:{repo}", folder)
    assert [pushed.published.new for pushed in again if pushed.published] == [False, False]


def test_a_benchmark_and_the_results_that_belong_to_it(repo: str, tmp_path: Path) -> None:
    """The Hub validates ``eval.yaml`` when it is pushed; whether it counts the benchmark, people there decide."""
    import datasets

    first = push(benchmark=f"hub:{repo}", tasks="mini_sentiment").published
    assert first is not None
    again = push(benchmark=f"hub:{repo}", tasks="mini_sentiment").published
    assert again is not None
    assert (again.sha, again.new) == (first.sha, False)
    rows = datasets.load_dataset(repo, "mini_sentiment", split="test", cache_dir=str(tmp_path))
    assert len(rows) == 150
    entry = {"dataset": {"id": repo, "task_id": "finbench_mini_sentiment", "revision": first.sha}, "value": 50.0}
    file = hub.File(".eval_results/finbench.yaml", json.dumps([entry]).encode())
    hub.execute(hub.make_plan(repo, [file], message="a result"))
    [found] = HfApi().model_info(repo, expand=["evalResults"]).eval_results or []
    assert (found.dataset_id, found.value) == (repo, 50.0)
