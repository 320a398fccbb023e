"""From the Hub: safe files only, hashes checked, whole or absent, offline afterwards; whatever the Hub answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from conftest import files_of, upload
from finbench import hub
from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.evaluation import evaluator
from finbench.hub import client
from finbench.hub.dev.calls import DevAccount
from finbench.hub.dev.server import TOKEN, DevHub
from finbench.models import adapters


@pytest.fixture
def published(dev_hub: DevHub, lora: Path) -> str:
    """The commit of ``org/stranger``: an adapter beside what adapters' repositories hold besides."""
    extra: dict[str, Path | bytes] = {
        "training_args.bin": b"\x80\x05pickle",
        "adapter_model.bin": b"\x80\x05pickle",
        "run.py": b"raise SystemExit",
        "finbench/notes.json": b"{}",
        "README.md": b"# by a stranger",
    }
    return upload(dev_hub, "org/stranger", {**files_of(lora), **extra})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client's own pauses between retries are what they are; the tests do not wait for them."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))
    return


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_only_safe_files_arrive_and_every_one_is_checked(published: str, lora: Path) -> None:
    fetched = hub.fetch("org/stranger")
    assert fetched.sha == published
    assert fetched.folder.name == "stranger"
    assert sorted(path.name for path in fetched.folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    for path in fetched.folder.iterdir():
        assert sha256_file(path) == sha256_file(lora / path.name)
    found = adapters.find("hub:org/stranger")
    assert found.source == f"hub:org/stranger@{published}"
    assert found.identity == adapters.identity(lora)


def test_the_hub_is_asked_once_and_not_at_all_for_a_commit(published: str, dev_hub: DevHub) -> None:
    hub.fetch("org/stranger")
    before = len(dev_hub.requests)
    hub.fetch("org/stranger")
    assert len(dev_hub.requests) == before + 1  # which commit is main at
    hub.fetch("org/stranger", published)
    assert len(dev_hub.requests) == before + 1


def test_offline_it_is_used_again_and_what_is_not_there_is_said(
    published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fetch("org/stranger")
    offline(monkeypatch)
    assert hub.fetch("org/stranger").sha == published
    assert hub.fetch("org/stranger", published).sha == published
    with pytest.raises(hub.Unreachable, match="not in the local cache and the Hub cannot be reached"):
        hub.fetch("org/other")


def test_what_hf_download_has_left_here_is_used_offline(
    published: str, dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/stranger", endpoint=dev_hub.url, cache_dir=constants.HF_HUB_CACHE)
    offline(monkeypatch)
    assert hub.commit("org/stranger") == published
    fetched = hub.fetch("org/stranger")
    assert fetched.sha == published
    assert not list(fetched.folder.glob("*.bin"))


def test_a_damaged_copy_is_fetched_again(published: str) -> None:
    weights = hub.fetch("org/stranger").folder / "adapter_model.safetensors"
    whole = sha256_file(weights)
    real = weights.resolve()
    data = bytearray(real.read_bytes())
    data[-3] ^= 1
    real.chmod(0o644)
    real.write_bytes(bytes(data))
    assert sha256_file(hub.fetch("org/stranger", published).folder / "adapter_model.safetensors") == whole


def test_a_wrong_hash_is_never_kept(published: str, dev_hub: DevHub, tmp_path: Path) -> None:
    dev_hub.faults.set("wrong@GET .*safetensors")
    with pytest.raises(FinbenchError, match="does not have the hash that the Hub states"):
        hub.fetch("org/stranger")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    dev_hub.faults.set("wrong@GET .*safetensors*1")  # once: fetched again
    assert hub.fetch("org/stranger").sha == published


def test_a_short_body_and_a_reset_are_outlived(published: str, dev_hub: DevHub, lora: Path) -> None:
    dev_hub.faults.set("short@GET .*safetensors*1")
    fetched = hub.fetch("org/stranger")
    assert sha256_file(fetched.folder / "adapter_model.safetensors") == sha256_file(lora / "adapter_model.safetensors")
    shutil.rmtree(constants.HF_HUB_CACHE)
    dev_hub.faults.set("reset@GET .*safetensors*2")
    assert hub.fetch("org/stranger").sha == published


@pytest.mark.parametrize("fault", ["429=1*2", "429*2", "500*2", "503*2"])
def test_a_busy_hub_is_asked_again(published: str, dev_hub: DevHub, fault: str) -> None:
    dev_hub.faults.set(fault.replace("*", "@HEAD .*resolve*"))
    assert hub.fetch("org/stranger").sha == published


@pytest.mark.parametrize(("fault", "longest"), [("503", 30), ("429=60", 5 * 61)])
def test_a_hub_that_stays_busy_is_asked_five_times_more(
    fault: str, longest: float, published: str, dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within half a minute, or as long as it asks to wait for."""
    naps: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=naps.append))
    dev_hub.faults.set(f"{fault}@HEAD .*resolve")
    with pytest.raises(FinbenchError, match="the Hub answered 503|too many requests"):
        hub.fetch("org/stranger")
    assert len(naps) == 5
    assert sum(naps) <= longest


@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        ("403@GET /api/models/", "your token may not read it", "settings/tokens"),
        ("404@GET /api/models/", "does not exist, or it is private", "hf auth whoami"),
        ("429=7@GET /api/models/", "too many requests", "in 7 seconds"),
        ("500@GET /api/models/", "the Hub answered 500", "Repeat the command"),
        ("gated@resolve", "is gated", "Ask for access at {url}/org/stranger"),
        ("loop@/api/", "redirects in circles", "HF_ENDPOINT"),
        ("etag@resolve", "", ""),
    ],
)
def test_refusals_are_one_sentence_and_the_command_that_mends_it(
    published: str, dev_hub: DevHub, fault: str, message: str, hint: str
) -> None:
    dev_hub.faults.set(fault)
    if not message:  # headers that lie are no matter: the listing's hash is what counts
        assert hub.fetch("org/stranger").sha == published
        return
    with pytest.raises(FinbenchError, match=message) as caught:
        hub.fetch("org/stranger")
    assert hint.format(url=dev_hub.url) in caught.value.hint
    assert "\n" not in caught.value.message


def test_private_repositories_missing_ones_and_bad_tokens(
    published: str, dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FinbenchError, match="hub:org/stranger@nowhere: no such revision"):
        hub.fetch("org/stranger", "nowhere")
    monkeypatch.setenv("HF_TOKEN", "hf_notatoken")
    with pytest.raises(FinbenchError, match="does not know your token") as caught:
        hub.fetch("org/stranger")
    assert caught.value.hint == "Log in again: hf auth login"
    dev_hub.tokens["hf_somebody"] = DevAccount("somebody", orgs=())
    monkeypatch.setenv("HF_TOKEN", "hf_somebody")
    with pytest.raises(FinbenchError, match="private and you have no access"):
        hub.fetch("org/stranger")
    assert client.token_free("Authorization: Bearer abc hf_somebodyelse") == "Authorization: <token> <token>"


@pytest.mark.parametrize("fault", ["listing@/tree/", "listing@/tree/*1"])
def test_a_hostile_listing_is_refused_and_writes_nothing(
    published: str, dev_hub: DevHub, tmp_path: Path, fault: str
) -> None:
    dev_hub.faults.set(fault)
    with pytest.raises(FinbenchError, match="leads out of its folder"):
        hub.fetch("org/stranger")
    assert not list((tmp_path / "cache").rglob("*.json"))
    assert not list(tmp_path.rglob("escaped.json"))
    assert not Path("/tmp/escaped.json").exists()


def test_pickles_alone_are_refused(dev_hub: DevHub, lora: Path) -> None:
    upload(dev_hub, "org/pickled", {"adapter_config.json": lora / "adapter_config.json", "adapter_model.bin": b"\x80"})
    with pytest.raises(FinbenchError, match="only pickled weights .adapter_model.bin"):
        hub.fetch("org/pickled")


def test_sizes_are_bounded(dev_hub: DevHub, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(dev_hub, "org/large", {**files_of(lora), "tokenizer.json": b"[" * 2000})
    monkeypatch.setattr("finbench.hub.fetching.LARGEST_TEXT", 1500)
    with pytest.raises(FinbenchError, match="tokenizer.json has 2,000 bytes"):
        hub.fetch("org/large")
    monkeypatch.setattr("finbench.hub.fetching.MOST_FILES", 2)
    with pytest.raises(FinbenchError, match="more than 2 files"):
        hub.fetch("org/large")


def test_adapters_of_strangers_are_scored_and_what_is_unknown_is_unknown(
    published: str, dev_hub: DevHub, llama: Path, lora: Path, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError, match="which bases.yaml does not know") as caught:
        evaluator.evaluate(["hub:org/stranger"], tasks=["mini_sentiment"], out=tmp_path / "none")
    assert "--base" in caught.value.hint  # an adapter never chooses its base by itself
    base = upload(dev_hub, "org/tiny-llama", files_of(llama))
    options = {"tasks": ["mini_sentiment"], "limit": 8, "arguments": {"dtype": "float32"}}
    cards = evaluator.evaluate(["hub:org/stranger"], base=f"hub:org/tiny-llama@{base}", out=tmp_path / "hub", **options)
    local = evaluator.evaluate([str(lora)], base=str(llama), out=tmp_path / "local", **options)
    subject = cards[1].subject
    assert (subject.name, subject.method, subject.rank, subject.seed) == ("stranger", "lora", 4, None)
    assert subject.adapter_source == f"hub:org/stranger@{published}"
    assert (subject.base.hub_id, subject.base.revision) == ("org/tiny-llama", base)
    assert [card.scores[0].metrics for card in cards] == [card.scores[0].metrics for card in local]
    rows = [cardfiles.read_samples(tmp_path / place / "stranger.json") for place in ("hub", "local")]
    assert rows[0] == rows[1]


def test_a_card_says_where_its_adapter_is_so_that_a_rerun_finds_it(published: str, llama: Path, tmp_path: Path) -> None:
    from finbench.evaluation import verification

    evaluator.evaluate(
        ["hub:org/stranger"],
        base=str(llama),
        tasks=["mini_sentiment"],
        limit=6,
        out=tmp_path,
        arguments={"dtype": "float32"},
    )
    found = verification.verify(tmp_path / "stranger.json", rerun=4, base=str(llama))
    assert not found.faults
    assert found.level == "reproduced"


def test_a_moved_branch_is_seen_and_a_pin_stays(published: str, dev_hub: DevHub) -> None:
    assert hub.fetch("org/stranger").sha == published
    api = HfApi(endpoint=dev_hub.url, token=TOKEN)
    new = upload(dev_hub, "org/stranger", {"adapter_config.json": b"{}"})
    assert hub.fetch("org/stranger").sha == new
    assert hub.fetch("org/stranger", published).sha == published
    api.create_tag("org/stranger", tag="v1", revision=published)
    assert hub.fetch("org/stranger", "v1").sha == published


def test_a_pinned_commit_that_is_answered_by_another_is_refused(
    dev_hub: DevHub, published: str, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a Hub, or something between it and us, that serves what it likes under the commit that was asked for."""
    from finbench.hub import client, fetching

    real, pinned = client.api(), "a" * 40

    class Turned:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def repo_info(self, repo: str, revision: str | None = None, **options: Any) -> Any:
            return real.repo_info(repo, revision=None if revision == pinned else revision, **options)

        def dataset_info(self, repo: str, revision: str | None = None, **options: Any) -> Any:
            return real.repo_info("org/stranger", **options)

    for module in (client, fetching):
        monkeypatch.setattr(module, "api", Turned)
    assert fetching.fetch("org/stranger").sha == published
    with pytest.raises(FinbenchError, match=f"the Hub answered with commit {published}"):
        fetching.fetch("org/stranger", pinned)
    assert client.dataset_sha("org/rows", "main") == published
    with pytest.raises(FinbenchError, match=f"the Hub answered with commit {published}"):
        client.dataset_sha("org/rows", pinned)
