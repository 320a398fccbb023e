"""Publishing: plans, one atomic commit, idempotence, pull requests, and what a stranger finds there."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file

from conftest import TOKEN, files_of, upload
from finbench import hub
from finbench.cards import cardfiles, exports
from finbench.core.errors import FinbenchError
from finbench.evaluation import evaluator, verification
from finbench.hub.dev.calls import DevAccount
from finbench.hub.dev.server import DevHub
from finbench.models import adapters, adopting, zoo
from finbench.publishing import modelcard, pulling
from finbench.publishing.home import Home
from finbench.publishing.licences import Licence
from finbench.publishing.publish import push
from finbench.training import recipes
from finbench.training.runner import train

STATED = {"tasks": ["mini_sentiment"], "limit": 48, "rank": 4, "dtype": "float32", "lr": 1e-2, "batch_size": 8}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINBENCH_ZOO", str(tmp_path / "zoo.yaml"))


@pytest.fixture(scope="module")
def made(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(adapter folder, folder of its scorecards), made on a local base; do not write into them."""
    home = tmp_path_factory.mktemp("made")
    train(recipes.recipe(None, {**STATED, "base": str(llama)}), home / "tiny")
    evaluator.evaluate(
        [str(home / "tiny")],
        base=str(llama),
        out=home / "cards",
        tasks=["mini_sentiment"],
        limit=12,
        arguments={"dtype": "float32"},
    )
    return home / "tiny", home / "cards"


@pytest.fixture
def base(dev_hub: DevHub, llama: Path) -> str:
    """The adapter's base on the development Hub, as a pinned reference."""
    return f"hub:org/tiny-llama@{upload(dev_hub, 'org/tiny-llama', files_of(llama), private=False)}"


@pytest.fixture
def api(dev_hub: DevHub) -> HfApi:
    return HfApi(endpoint=dev_hub.url, token=TOKEN)


def names(api: HfApi, repo: str, **options: Any) -> set[str]:
    return set(api.list_repo_files(repo, **options)) - {".gitattributes"}


EXPECTED = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "finbench.json",
    "finbench/recipe.yaml",
    "finbench/scores.svg",
    "finbench/training.svg",
}


def test_what_is_published_is_private_whole_and_without_a_token(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str
) -> None:
    done = push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    assert done.published is not None
    found = names(api, "org/tiny")
    assert {name for name in found if not name.startswith("finbench/scorecards/")} == EXPECTED
    assert len(found - EXPECTED) == 4  # card and samples of adapter and base
    assert api.repo_info("org/tiny").private
    assert len(api.list_repo_commits("org/tiny")) == 2  # the empty one, and ours
    folder = hub.fetch("org/tiny").folder
    config = json.loads((folder / "adapter_config.json").read_text())
    sha = base.partition("@")[2]
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny-llama", sha)
    record = adapters.record(folder)
    assert (record.base.hub_id, record.base.revision, record.base.source) == ("org/tiny-llama", sha, "hub")
    assert "tmp" not in record.to_json()
    card = ModelCard(done.readme)
    assert card.data.base_model == "org/tiny-llama"
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert set(card.data.tags) >= {"lora", "finance", "finbench", "base_model:adapter:org/tiny-llama"}
    assert card.data.license == "other"  # of the base nothing is known
    scores = {result.metric_type: result.metric_value for result in card.data.eval_results}
    local = next(card for card in cardfiles.folder(made[1]) if card.subject.adapter).scores[0]
    assert scores["acc"] == pytest.approx(100 * local.metrics["acc"].value, abs=0.06)
    for text in (
        "95 % intervals",
        "majority label",
        "belong to no benchmark that is registered on the Hub",
        "PeftModel.from_pretrained",
        "vllm serve",
        "finbench eval",
        "@misc{",
    ):
        assert text in done.readme
    assert sha in done.readme
    assert TOKEN not in done.readme


def test_the_card_names_the_benchmark_that_results_belong_to(
    dev_hub: DevHub,
    api: HfApi,
    made: tuple[Path, Path],
    base: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push(benchmark="hub:org/fin", tasks="mini_sentiment")
    stated = {"cards": [made[1]], "base": base, "benchmark": "hub:org/fin"}
    done = push(made[0], "hub:org/tiny", **stated)
    assert "is no result of hub:org/fin: 12 rows; it asks 150." in " ".join(capsys.readouterr().err.split())
    assert "belong to no benchmark that is registered" in done.readme
    assert ".eval_results/finbench.yaml" not in names(api, "org/tiny")
    monkeypatch.setattr(Home, "lacking", lambda *_: "")
    monkeypatch.setattr(exports, "parts_of", lambda *_: [])
    read = cardfiles.read
    monkeypatch.setattr(cardfiles, "read", lambda path: read(path).model_copy(update={"status": "complete"}))
    done = push(made[0], "hub:org/tiny", **stated)
    sha = api.dataset_info("org/fin").sha
    assert f"Results of the benchmark [org/fin]({dev_hub.url}/datasets/org/fin) at commit `{sha}`" in done.readme
    assert "The Hub has not registered it as a benchmark" in done.readme
    assert ".eval_results/finbench.yaml" in names(api, "org/tiny")
    dev_hub.store.benchmarks.add("org/fin")
    assert "The Hub lists them with it" in push(made[0], "hub:org/tiny", **stated, dry_run=True).readme


def test_dry_run_sends_nothing_and_the_real_run_does_exactly_that(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str
) -> None:
    before = len(dev_hub.requests)
    planned = push(made[0], "hub:org/tiny", cards=[made[1]], base=base, dry_run=True)
    assert planned.published is None
    assert all(request.startswith(("GET", "HEAD")) for request in dev_hub.requests[before:])
    assert {change.state for change in planned.plan.changes} == {"added"}
    done = push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    assert done.plan.changes == planned.plan.changes
    assert done.readme == planned.readme
    assert names(api, "org/tiny") == {change.path for change in planned.plan.changes}
    again = push(made[0], "hub:org/tiny", cards=[made[1]], base=base, dry_run=True)
    assert {change.state for change in again.plan.changes} == {"unchanged"}
    assert again.plan.upload_bytes == 0


def test_a_dry_run_needs_no_hub(made: tuple[Path, Path], lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    planned = push(lora, "hub:org/tiny", dry_run=True)
    assert not planned.plan.compared
    assert {change.state for change in planned.plan.changes} == {"added"}


def test_the_card_tells_two_tasks_on_one_set_apart() -> None:
    trained = ["finbench_fpb", "finbench_fiqa_sa", "finbench_fiqa_score"]
    assert modelcard.asked_as(trained, ["fpb", "fiqa_sa", "fiqa_sa"]) == ["fpb", "fiqa_sa", "fiqa_score"]
    assert modelcard.asked_as(["finbench_gone"], ["gone"]) == ["gone"]  # a task of another version of finbench
    assert modelcard.asked_as(trained, ["tfns", "fpb", "fiqa_sa"]) == ["tfns", "fpb", "fiqa_sa"]


def test_the_card_says_of_what_part_of_the_authors_files_it_learnt(made: tuple[Path, Path]) -> None:
    known = adapters.read(made[0])
    assert known.record is not None
    [part] = known.record.data
    parts = [part.model_copy(update={"origin": "files", "share": share}) for share in (0.7433, None)]
    told = modelcard.write(
        modelcard.Facts(
            "you/part", None, "part", known.record.model_copy(update={"data": parts}), None, known.config, "peft",
            known.record.base, 16, Licence("apache-2.0", None, ""), [], [], 1,
        )
    )  # fmt: skip
    assert told.count("| 74.3 % of the authors' files |") == told.count("| the authors' files |") == 1


def test_pushing_twice_changes_nothing(dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str) -> None:
    first = push(made[0], "hub:org/tiny", cards=[made[1]], base=base).published
    second = push(made[0], "hub:org/tiny", cards=[made[1]], base=base).published
    assert first is not None
    assert second is not None
    assert second.sha == first.sha
    assert not second.new
    assert len(api.list_repo_commits("org/tiny")) == 2


def test_a_new_version_replaces_the_old_one_and_what_belonged_to_it(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, lora: Path
) -> None:
    upload(
        dev_hub, "org/tiny", {"model-00001-of-00002.safetensors": b"old", "vocab.json": b"{}", "notes/a.json": b"{}"}
    )
    done = push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    states = {change.path: change.state for change in done.plan.changes}
    assert states["vocab.json"] == "removed"
    assert states["model-00001-of-00002.safetensors"] == "removed"
    assert "notes/a.json" in names(api, "org/tiny")  # not part of a model: left alone
    assert "vocab.json" not in names(api, "org/tiny")
    adapters.find("hub:org/tiny")


@pytest.fixture
def changed(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """The adapter with other weights under its old record, as somebody leaves it who trains on by hand."""
    folder = tmp_path / "home" / "tiny"
    shutil.copytree(made[0], folder)
    weights = folder / adapters.WEIGHTS
    tensors = {name: tensor * 1.5 for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def test_results_follow_the_weights_and_come_back_with_them(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, changed: Path
) -> None:
    push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    before = names(api, "org/tiny")
    with pytest.raises(FinbenchError, match="is not what was trained") as caught:
        push(changed, "hub:org/tiny", base=base)
    assert f"finbench adopt {changed}" in caught.value.hint
    adopted, earlier = adopting.adopt(changed)
    assert adopted.record is None
    line = adopting.to_score(adopted, str(changed), earlier)
    assert line == f"finbench eval --adapter {changed} --base {earlier.recipe.base} --tasks mini_sentiment"
    earlier.recipe.__dict__.update(bits=4, chat=True)  # as it was trained, so it is asked
    assert " --bits 4 --chat --tasks " in adopting.to_score(adopted, str(changed), earlier)
    assert list((changed / "history").glob("finbench-*.json"))
    done = push(changed, "hub:org/tiny", base=base)
    there, old = names(api, "org/tiny"), adapters.read(made[0]).identity[:12]
    cards = {name.rpartition("/")[2] for name in before if name.startswith("finbench/scorecards/")}
    assert {f"finbench/history/{old}/{name}" for name in [*cards, "scores.svg", "recipe.yaml"]} <= there
    stale = ("finbench/scorecards", ".eval_results", "finbench/scores.svg", "finbench/recipe.yaml")
    assert not [name for name in there if name.startswith(stale)]
    assert "Not measured yet" in done.readme
    assert "trained" not in done.readme.partition("## Cite")[2]
    assert len(api.list_repo_commits("org/tiny")) == 3
    push(made[0], "hub:org/tiny", base=base)
    assert names(api, "org/tiny") == before


def test_results_that_are_there_already_stay_without_being_named_again(
    dev_hub: DevHub, made: tuple[Path, Path], base: str, tmp_path: Path
) -> None:
    first = push(made[0], "hub:org/tiny", cards=[made[1]], base=base).published
    second = push(made[0], "hub:org/tiny", base=base).published
    assert first is not None
    assert second is not None
    assert (second.sha, second.new) == (first.sha, False)


def test_a_card_that_is_not_to_be_trusted_any_more_is_not_taken_over(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str
) -> None:
    push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    name = next(n for n in sorted(names(api, "org/tiny")) if re.fullmatch("finbench/scorecards/mini-[^/]*[.]json", n))
    upload(dev_hub, "org/tiny", {name: b"{}"})
    done = push(made[0], "hub:org/tiny", base=base)
    assert "Not measured yet" in done.readme
    assert name not in names(api, "org/tiny")


def test_cards_beside_the_adapter_are_found_and_public_without_any_asks(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError, match="public without any result") as caught:
        push(made[0], "hub:org/tiny", base=base, public=True)
    assert "--yes" in caught.value.hint
    assert not api.repo_exists("org/tiny")
    push(made[0], "hub:org/bare", base=base, public=True, yes=True)
    assert not api.repo_info("org/bare").private
    shutil.copytree(made[0], tmp_path / "runs" / "tiny")
    shutil.copytree(made[1], tmp_path / "runs" / "scorecards")
    done = push(tmp_path / "runs" / "tiny", "hub:org/tiny", base=base, public=True)
    results = ModelCard(done.readme).data.eval_results
    shown = yaml.safe_load(done.readme.split("---")[1])["model-index"][0]["results"]
    assert len(results) == len(shown[0]["metrics"]) > 1
    for metric in shown[0]["metrics"]:
        if "args" in metric and "low" in metric["args"]:
            assert metric["args"]["low"] <= metric["value"] <= metric["args"]["high"] <= 100
            assert metric["args"]["high"] > 1


def test_who_has_no_token_is_told_so(
    dev_hub: DevHub, made: tuple[Path, Path], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FinbenchError, match="You have no token") as caught:
        push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    assert caught.value.hint == "hf auth login"
    with pytest.raises(FinbenchError, match="you have no token"):
        adapters.find("hub:org/nowhere")


def test_a_push_without_a_hub_says_what_is_lacking(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token comes first, for it is lacking with a network too; nobody is told to download what is to be sent."""
    cards = Path(__file__).parent.parent / "leaderboards" / "scorecards" / "fpb-smollm2-135m.json"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for path in (lora, cards):
        with pytest.raises(FinbenchError, match="You have no token") as caught:
            push(path, "hub:org/tiny")
        assert caught.value.hint == "hf auth login"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for path in (lora, cards):
        with pytest.raises(FinbenchError, match=r"cannot be reached\.\n") as caught:
            push(path, "hub:org/tiny")
        assert "--dry-run" in caught.value.hint
        assert "download" not in caught.value.hint


def test_a_model_of_somebody_has_a_way_to_the_hub(llama: Path) -> None:
    with pytest.raises(FinbenchError, match="a model without a record") as caught:
        push(llama, "hub:you/mine", dry_run=True)
    assert f"hf upload you/mine {llama}; then its scores: finbench push CARD.json hub:you/mine --model" in (
        caught.value.hint
    )


def test_adopt_takes_only_what_has_changed(made: tuple[Path, Path]) -> None:
    with pytest.raises(FinbenchError, match="nothing is to be adopted"):
        adopting.adopt(made[0])


def test_adopt_says_what_a_folder_without_a_record_is(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="counts as made elsewhere already") as caught:
        adopting.adopt(lora)
    assert f"finbench eval --adapter {lora} --base hub:org/tiny-llama --tasks mini_sentiment;" in caught.value.hint
    with pytest.raises(FinbenchError, match="is not an adapter folder"):
        adopting.adopt(tmp_path)
    with pytest.raises(FinbenchError, match="No such folder"):
        adopting.adopt(tmp_path / "nowhere")


def test_a_pull_request_leaves_the_repository_as_it_was(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(dev_hub, "org/tiny", {"README.md": b"# ours\n"}, private=False)
    dev_hub.tokens["hf_stranger"] = DevAccount("stranger", orgs=())
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(FinbenchError, match="your token may not write there"):
        push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    done = push(made[0], "hub:org/tiny", cards=[made[1]], base=base, pr=True).published
    assert done is not None
    assert done.pull_request == f"{dev_hub.url}/org/tiny/discussions/1"
    assert names(api, "org/tiny") == {"README.md"}
    assert names(api, "org/tiny", revision="refs/pr/1") >= EXPECTED
    again = push(made[0], "hub:org/tiny", cards=[made[1]], base=base, pr=True).published
    assert again is not None
    assert (again.pull_request, again.new) == (done.pull_request, False)  # not opened twice
    assert adapters.find("hub:org/tiny@refs/pr/1").record is not None


def test_scores_of_a_model_that_is_not_ours_are_proposed(
    dev_hub: DevHub, api: HfApi, lora: Path, llama: Path, tmp_path: Path
) -> None:
    upload(dev_hub, "them/stranger", files_of(lora), private=False)
    evaluator.evaluate(
        ["hub:them/stranger"],
        base=str(llama),
        tasks=["mini_sentiment"],
        limit=8,
        out=tmp_path / "cards",
        arguments={"dtype": "float32"},
    )
    card = tmp_path / "cards" / "stranger.json"
    done = push(card, "hub:them/stranger", model=True, pr=True).published
    assert done is not None
    assert done.pull_request
    assert "finbench/scorecards/stranger.json" in names(api, "them/stranger", revision="refs/pr/1")


def test_scorecards_go_to_a_data_set_of_results(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], tmp_path: Path
) -> None:
    done = push(made[1], "hub:org/results")
    assert done.plan.kind == "dataset"
    found = names(api, "org/results", repo_type="dataset")
    assert len(found) == 4
    assert all(name.startswith("results/") and "finbench_mini_sentiment" in name for name in found)
    for name in found:
        path = tmp_path / "back" / name.rpartition("/")[2]
        path = tmp_path / "back" / name.replace("/", "_")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            Path(api.hf_hub_download("org/results", name, repo_type="dataset", cache_dir=tmp_path / "c")).read_bytes()
        )
    cards = cardfiles.expand([tmp_path / "back"])
    assert len(cards) == 2
    assert all(not verification.verify(card).faults for card in cards)


def test_what_may_not_be_published_is_refused(
    dev_hub: DevHub, made: tuple[Path, Path], base: str, tmp_path: Path, gpt2: Path
) -> None:
    import shutil

    with pytest.raises(FinbenchError, match="trained on a folder .tiny-llama., which is on this machine alone"):
        push(made[0], "hub:org/tiny")
    other = f"hub:org/other@{upload(dev_hub, 'org/other', files_of(gpt2))}"
    with pytest.raises(FinbenchError, match="is not the base that .* was trained on"):
        push(made[0], "hub:org/tiny", base=other)
    with pytest.raises(FinbenchError, match="no repository of the Hub to push to"):
        push(made[0], "./folder")
    torn = shutil.copytree(made[1], tmp_path / "edited")
    card = next(path for path in torn.glob("*.json") if "lora" in path.name)
    card.write_text(card.read_text().replace('"n": 12', '"n": 13'))
    with pytest.raises(FinbenchError, match="not to be trusted"):
        push(made[0], "hub:org/tiny", cards=[torn], base=base)
    folder = shutil.copytree(made[0], tmp_path / "secret")
    (folder / "finbench.json").unlink()
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"note": "hf_" + "a" * 34}))
    with pytest.raises(FinbenchError, match="what looks like a token"):
        push(folder, "hub:org/tiny", base=base)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FinbenchError, match="nothing that can be published"):
        push(tmp_path / "nothing", "hub:org/tiny")
    assert not (dev_hub.store.root / "models" / "org" / "tiny").exists()


def test_data_and_tasks(dev_hub: DevHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finbench.core import paths
    from finbench.data.sources import import_data
    from make_data import write_sources

    sources = write_sources(tmp_path / "sources")
    import_data("fin_ner", sources["fin_ner"], tmp_path / "data")
    import_data("fpb", sources["fpb"], tmp_path / "data")
    upload(dev_hub, "org/fin", {"benchmark.json": b"{}"}, kind="dataset")
    with pytest.raises(FinbenchError, match="hub:org/fin is taken by another data set"):
        push(tmp_path / "data" / "fin_ner", "hub:org/fin")
    push(tmp_path / "data" / "fin_ner", "hub:org/ner", public=True)
    found = names(api, "org/ner", repo_type="dataset")
    card = Path(api.hf_hub_download("org/ner", "README.md", repo_type="dataset", local_dir=tmp_path / "ner"))
    assert "hf download org/ner --repo-type dataset" in card.read_text()
    assert {"README.md", "dataset.json", "train.jsonl", "test.jsonl"} <= found
    assert not api.repo_info("org/ner", repo_type="dataset").private
    with pytest.raises(FinbenchError, match="does not let us publish its rows"):
        push(tmp_path / "data" / "fpb", "hub:org/fpb")
    with monkeypatch.context() as away:
        away.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert push(paths.shipped("tasks"), "hub:org/tasks", dry_run=True).published is None
    done = push(paths.shipped("tasks"), "hub:org/tasks")
    assert done.plan.kind == "dataset"
    assert {"finbench.yaml", "finbench_fpb.yaml", "lib/rows.py"} <= names(api, "org/tasks", repo_type="dataset")


def test_pull_and_zoo(dev_hub: DevHub, made: tuple[Path, Path], base: str, tmp_path: Path) -> None:
    done = push(made[0], "hub:org/tiny", cards=[made[1]], base=base).published
    assert done is not None
    pulled = pulling.pull("hub:org/tiny", tmp_path / "mine")
    assert pulled.source == f"hub:org/tiny@{done.sha}"
    assert pulled.adapter.record is not None
    pulling.pull("hub:org/tiny", tmp_path / "mine")  # again, over itself
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(FinbenchError, match="holds other files"):
        pulling.pull("hub:org/tiny", tmp_path / "other")
    entry, path = pulling.add_to_zoo("hub:org/tiny")
    assert path == tmp_path / "zoo.yaml"
    assert entry.hub == f"org/tiny@{done.sha}"
    assert entry.scorecard is not None
    score = entry.scores["finbench_mini_sentiment"]
    assert score.low <= score.value <= score.high
    assert score.base is not None
    assert (entry.base, entry.method, entry.rank, entry.licence) == ("org/tiny-llama", "lora", 4, "other")
    assert zoo.published("tiny") == entry
    upload(dev_hub, "org/tiny", {"notes.md": b"later"})
    assert adapters.find("zoo:tiny").source == f"hub:org/tiny@{done.sha}"  # the pin stays


def test_an_adapter_made_elsewhere_enters_the_zoo_with_what_is_unknown_marked(
    dev_hub: DevHub, lora: Path, tmp_path: Path
) -> None:
    upload(dev_hub, "them/stranger", files_of(lora))
    entry, _ = pulling.add_to_zoo("hub:them/stranger", "theirs")
    assert (entry.date, entry.licence, entry.scorecard, entry.scores) == ("unknown", "unknown", None, {})
    assert (entry.method, entry.rank, entry.bits, entry.base) == ("lora", 4, None, "org/tiny-llama")
    done = push(lora, "hub:org/again")
    assert "what is not stated here is unknown. Its base model is\n[org/tiny-llama](" in done.readme
    assert "Unknown: training data" in done.readme


# ---------------------------------------------------------------- when things go wrong


@pytest.fixture
def small(dev_hub: DevHub, base: str, made: tuple[Path, Path]) -> Iterator[dict[str, Any]]:
    """Arguments of a push that has an earlier version in the repository."""
    upload(
        dev_hub,
        "org/tiny",
        {"README.md": b"# old\n", "adapter_config.json": b"{}", "adapter_model.safetensors": b"old"},
    )
    return {"path": made[0], "to": "hub:org/tiny", "cards": [made[1]], "base": base}


@pytest.mark.parametrize(
    "fault", ["lost@POST .*/commit/*1", "500@POST .*/commit/*2", "429=1@POST .*/commit/*1", "reset@POST .*/commit/*1"]
)
def test_a_commit_whose_answer_is_lost_is_made_once(
    dev_hub: DevHub, api: HfApi, small: dict[str, Any], fault: str
) -> None:
    dev_hub.faults.set(fault)
    done = push(**small).published
    assert done is not None
    assert api.repo_info("org/tiny").sha == done.sha
    assert len(api.list_repo_commits("org/tiny")) == 3
    assert names(api, "org/tiny") >= EXPECTED


def test_a_repository_whose_creation_is_answered_by_nothing_is_made_once(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str
) -> None:
    dev_hub.faults.set("lost@POST .*/repos/create*1")
    push(made[0], "hub:org/fresh", cards=[made[1]], base=base)
    assert names(api, "org/fresh") >= EXPECTED
    assert api.repo_info("org/fresh").private


def test_a_lost_answer_of_a_pull_request_opens_one(dev_hub: DevHub, api: HfApi, small: dict[str, Any]) -> None:
    dev_hub.faults.set("lost@POST .*/commit/*1")
    done = push(**small, pr=True).published
    assert done is not None
    assert done.pull_request
    assert len(list(api.get_repo_discussions("org/tiny"))) == 1


def test_a_hub_that_stays_away_is_said_and_nothing_is_half_done(
    dev_hub: DevHub, api: HfApi, small: dict[str, Any]
) -> None:
    before = api.repo_info("org/tiny").sha
    dev_hub.faults.set("503@POST .*/commit/")
    with pytest.raises(FinbenchError, match="the Hub answered 503"):
        push(**small)
    dev_hub.faults.set("reset@POST .*/commit/")
    dev_hub.faults.set()
    assert api.repo_info("org/tiny").sha == before
    push(**small)
    assert names(api, "org/tiny") >= EXPECTED


def test_who_comes_second_is_told_and_who_touched_other_files_is_joined(
    dev_hub: DevHub, api: HfApi, small: dict[str, Any]
) -> None:
    def meddle(path: str) -> Any:
        def watch(number: int, phase: str, request: str) -> None:
            if phase == "before" and "/preupload/" in request and dev_hub.watch:
                dev_hub.watch = None
                upload(dev_hub, "org/tiny", {path: b"[]"})

        return watch

    dev_hub.watch = meddle("adapter_config.json")
    with pytest.raises(FinbenchError, match="another push came first"):
        push(**small)
    assert "finbench.json" not in names(api, "org/tiny")
    dev_hub.watch = meddle("notes/other.md")
    push(**small)
    assert names(api, "org/tiny") >= EXPECTED | {"notes/other.md"}


@pytest.mark.slow
def test_every_request_may_fail_once(dev_hub: DevHub, api: HfApi, small: dict[str, Any]) -> None:
    """A push that is stopped at any of its requests, by an answer that never comes, and repeated, ends the same."""
    for number in itertools.count(1):
        repo = f"org/tiny{number}"
        upload(dev_hub, repo, {"README.md": b"# old\n", "adapter_config.json": b"{}"})
        start = len(dev_hub.requests)
        dead = False

        def watch(count: int, phase: str, request: str, at: int = start + number) -> None:
            nonlocal dead
            if count >= at and phase == "before":
                dead = True
                raise ConnectionAbortedError

        dev_hub.watch = watch
        with contextlib.suppress(FinbenchError):
            push(**{**small, "to": f"hub:{repo}"})
        dev_hub.watch = None
        sha = api.repo_info(repo).sha
        assert api.list_repo_commits(repo)[0].commit_id == sha
        there = names(api, repo)
        assert there == {"README.md", "adapter_config.json"} or there >= EXPECTED, (number, there)
        if not dead:
            assert number > 6
            break
        push(**{**small, "to": f"hub:{repo}"})
        assert names(api, repo) >= EXPECTED
        assert len(api.list_repo_commits(repo)) == 3


# ---------------------------------------------------------------- a result belongs to weights, base and bits


def shown_as(card: Path, to: Path, *, base: dict[str, Any] | None = None, computed: Any = ..., **subject: Any) -> Path:
    """A copy of a card as of another subject, sealed and with its samples."""
    found, rows = cardfiles.read(card), cardfiles.read_samples(card)
    who = found.subject.model_copy(update={**subject, "base": found.subject.base.model_copy(update=base or {})})
    made = found.model_copy(update={"subject": who} | ({} if computed is ... else {"computed": computed}))
    made = made.model_copy(update={"run_key": cardfiles.run_key(made)})
    to.parent.mkdir(parents=True, exist_ok=True)
    cardfiles.write(to, made, rows)
    return to


@pytest.fixture
def own(made: tuple[Path, Path]) -> Path:
    """The card of the adapter."""
    return next(path for path in made[1].glob("*.json") if cardfiles.read(path).subject.adapter)


def test_cards_of_other_weights_do_not_enter_a_models_repository(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], own: Path, base: str, changed: Path, tmp_path: Path
) -> None:
    push(made[0], "hub:org/tiny", base=base)
    adopting.adopt(changed)
    other = shown_as(own, tmp_path / "c" / "o.json", adapter=adapters.read(changed).identity)
    before = names(api, "org/tiny")
    for dry in (True, False):
        with pytest.raises(FinbenchError, match="holds other weights than these cards are of"):
            push(other, "hub:org/tiny", model=True, dry_run=dry)
        with pytest.raises(FinbenchError, match="there are no weights"):
            push(own, "hub:org/nothing", model=True, dry_run=dry)
    assert names(api, "org/tiny") == before
    push(own, "hub:org/tiny", model=True)
    assert f"finbench/scorecards/{own.name}" in names(api, "org/tiny")


def test_cards_of_a_base_enter_the_repository_of_that_base_alone(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], own: Path, base: str, gpt2: Path
) -> None:
    of_base = next(path for path in made[1].glob("*.json") if path != own)
    upload(dev_hub, "org/other", files_of(gpt2))
    push(made[0], "hub:org/tiny", base=base)
    for repo in ("org/other", "org/tiny"):
        with pytest.raises(FinbenchError, match="holds other weights"):
            push(of_base, f"hub:{repo}", model=True)
    push(of_base, "hub:org/tiny-llama", model=True)
    assert f"finbench/scorecards/{of_base.name}" in names(api, "org/tiny-llama")


def test_results_on_another_base_or_in_other_bits_are_named_and_stand_apart(
    dev_hub: DevHub, made: tuple[Path, Path], own: Path, base: str, tmp_path: Path
) -> None:
    beside = shutil.copytree(made[1], tmp_path / "all")
    other = {"alias": "other", "hub_id": "org/other", "revision": "f" * 40, "source": "hub", "fingerprint": "f" * 64}
    shown_as(own, beside / "a-other.json", base=other)
    shown_as(own, beside / "a-four.json", bits=4)
    done = push(made[0], "hub:org/tiny", cards=[beside], base=base)
    table = done.readme.partition("## Results")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| mini")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "mini_sentiment, a sample of 12 rows",
        "mini_sentiment, base in nf4, a sample of 12 rows",
        "mini_sentiment, on org/other ffffffffffff, a sample of 12 rows",
    ]
    assert ["not measured" in row for row in rows] == [False, True, True]
    assert len(yaml.safe_load(done.readme.split("---")[1])["model-index"][0]["results"]) == 1
    assert pulling.add_to_zoo("hub:org/tiny")[0].scores
    (beside / own.name).unlink()
    done = push(made[0], "hub:org/apart", cards=[beside], base=base)
    assert "model-index" not in done.readme
    assert "scores.svg" not in done.readme
    assert not {change.path for change in done.plan.changes} & {".eval_results/finbench.yaml", "finbench/scores.svg"}
    assert pulling.add_to_zoo("hub:org/apart")[0].scores == {}


def test_the_score_of_a_base_that_does_not_say_what_it_was_computed_on_is_shown(
    dev_hub: DevHub, made: tuple[Path, Path], own: Path, base: str, tmp_path: Path
) -> None:
    of_base = next(path for path in made[1].glob("*.json") if path != own)
    cards = [own, shown_as(of_base, tmp_path / "c" / "base.json", computed=None)]
    assert cardfiles.read(own).computed is not None
    assert "not measured" not in push(made[0], "hub:org/tiny", cards=cards, base=base, dry_run=True).readme
    cards[1] = shown_as(of_base, tmp_path / "c" / "base.json", computed="bfloat16 on a GPU")
    assert "not measured" in push(made[0], "hub:org/tiny", cards=cards, base=base, dry_run=True).readme


# ---------------------------------------------------------------- a dry run refuses and lists what the push does


def test_a_dry_run_refuses_what_the_push_refuses(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FinbenchError, match="public without any result"):
        push(made[0], "hub:org/tiny", base=base, public=True, dry_run=True)
    upload(dev_hub, "org/there", {"README.md": b"# ours\n"}, private=False)
    dev_hub.tokens |= {"hf_stranger": DevAccount("stranger", orgs=()), "hf_reader": DevAccount("reader", "read")}
    for token, options in (("hf_stranger", {}), ("hf_reader", {}), ("hf_reader", {"pr": True})):
        monkeypatch.setenv("HF_TOKEN", token)
        for repo in ("there", *(() if options else ("new",))):
            with pytest.raises(FinbenchError, match="your token may not write there"):
                push(made[0], f"hub:org/{repo}", base=base, dry_run=True, **options)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    assert push(made[0], "hub:org/there", base=base, dry_run=True, pr=True).plan.pull_request
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FinbenchError, match="You have no token"):
        push(made[0], "hub:org/there", base=base, dry_run=True)


def test_what_moves_is_listed_and_nothing_is_lost(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, changed: Path, capsys: Any
) -> None:
    from finbench.cli.show import publications

    push(made[0], "hub:org/tiny", cards=[made[1]], base=base)
    before = {name: api.hf_hub_download("org/tiny", name) for name in names(api, "org/tiny")}
    adopting.adopt(changed)
    planned = push(changed, "hub:org/tiny", base=base, dry_run=True)
    assert "move to finbench/history" in capsys.readouterr().err
    moves = {change.origin: change.path for change in planned.plan.changes if change.state == "moved"}
    told = {name for name in before if name.startswith(("finbench", ".eval"))}
    old = f"finbench/history/{adapters.read(made[0]).identity[:12]}"
    assert moves == {name: f"{old}/{name.rpartition('/')[2]}" for name in told}
    publications.plan_rows(planned.plan.changes)
    assert f"{old}/recipe.yaml  from finbench/recipe.yaml" in capsys.readouterr().out
    done = push(changed, "hub:org/tiny", base=base)
    assert done.plan.changes == planned.plan.changes
    for name, path in moves.items():
        assert Path(api.hf_hub_download("org/tiny", path)).read_bytes() == Path(before[name]).read_bytes()
    assert not told & names(api, "org/tiny")
    push(changed, "hub:org/tiny", base=base)  # and stays there
    assert set(moves.values()) <= names(api, "org/tiny")


def test_results_and_recipe_without_cards_move_too(
    dev_hub: DevHub, api: HfApi, made: tuple[Path, Path], base: str, lora: Path
) -> None:
    upload(dev_hub, "org/tiny", files_of(lora))
    upload(dev_hub, "org/tiny", {"finbench/recipe.yaml": b"base: x\n", ".eval_results/finbench.yaml": b"[]\n"})
    push(lora, "hub:org/tiny")  # the same weights: what it does not write again is kept as well
    old = f"finbench/history/{adapters.read(lora).identity[:12]}"
    assert {f"{old}/recipe.yaml", f"{old}/finbench.yaml"} <= names(api, "org/tiny")
    push(lora, "hub:org/tiny")
    assert {f"{old}/recipe.yaml", f"{old}/finbench.yaml"} <= names(api, "org/tiny")
    push(made[0], "hub:org/tiny", base=base)
    assert {f"{old}/recipe.yaml", f"{old}/finbench.yaml"} <= names(api, "org/tiny")
