"""A benchmark on the Hub: its data set repository, the results that belong to it, and those that do not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from conftest import TOKEN, files_of, upload
from finbench import new_task
from finbench.cards import cardfiles
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.evaluation import evaluator
from finbench.hub.community import FRAMEWORK, benchmark_faults, result_faults
from finbench.hub.dev.server import DevHub
from finbench.publishing.home import Home, home
from finbench.publishing.publish import push

TASKS = "mini_sentiment,mini_headline"
GOOD = {"name": "b", "description": "d", "evaluation_framework": FRAMEWORK}
GOOD |= {"tasks": [{"id": "a", "config": "c", "split": "test"}]}


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def api(dev_hub: DevHub) -> HfApi:
    return HfApi(endpoint=dev_hub.url, token=TOKEN)


@pytest.fixture
def fin(dev_hub: DevHub) -> Home:
    """A registered benchmark of two tasks."""
    dev_hub.store.benchmarks.add("org/fin")
    push(benchmark="hub:org/fin", tasks=TASKS, public=True)
    return home("hub:org/fin")


@pytest.fixture(scope="module")
def cards(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with cards of a base: a whole test, and a part of it."""
    out = tmp_path_factory.mktemp("cards")
    for limit, folder in ((None, "whole"), (12, "part")):
        evaluator.evaluate(
            [],
            model=str(llama),
            tasks=["mini_sentiment"],
            limit=limit,
            out=out / folder,
            arguments={"dtype": "float32"},
            reports=False,
        )
    return out


def the_card(folder: Path) -> Path:
    return next(folder.glob("*.json"))


def test_a_benchmark_is_what_the_hub_and_a_stranger_want(api: HfApi, fin: Home, tmp_path: Path) -> None:
    there = set(api.list_repo_files("org/fin", repo_type="dataset"))
    rows = {f"data/mini_{name}/{split}.jsonl" for name in ("sentiment", "headline") for split in ("train", "test")}
    assert there == {".gitattributes", "README.md", "benchmark.json", "eval.yaml"} | rows
    folder = api.snapshot_download("org/fin", repo_type="dataset", local_dir=tmp_path / "b")
    text = (Path(folder) / "eval.yaml").read_text()
    assert benchmark_faults(text) == []
    stated = yaml.safe_load(text)["tasks"]
    assert stated[0] == {"id": "finbench_mini_sentiment", "config": "mini_sentiment", "split": "test"}
    card = DatasetCard.load(Path(folder) / "README.md")
    assert card.data.license == "apache-2.0"
    assert [one["config_name"] for one in card.data.configs] == ["mini_sentiment", "mini_headline"]
    for one in card.data.configs:
        for file in one["data_files"]:
            lines = (Path(folder) / file["path"]).read_text().splitlines()
            assert len(lines) == {"train": 600, "test": 150}[file["split"]]
    assert [one.id for one in api.list_datasets(benchmark=True)] == ["org/fin"]
    again = push(benchmark="hub:org/fin", tasks=TASKS)
    assert again.published is not None
    assert not again.published.new


def test_a_dry_run_of_a_benchmark_sends_nothing(dev_hub: DevHub) -> None:
    done = push(benchmark="hub:org/fin", tasks=TASKS, dry_run=True)
    assert done.published is None
    assert {change.state for change in done.plan.changes} == {"added"}
    assert not [request for request in dev_hub.requests if not request.startswith(("GET", "HEAD"))]


def test_what_is_no_whole_set_is_left_out_or_refused(
    dev_hub: DevHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "data" / "tfns"
    part.mkdir(parents=True)
    about = {"set": "tfns", "rows": {"test": 1}, "sha256": {}, "complete": False, "share": 0.25}
    (part / "dataset.json").write_text(json.dumps(about))
    for tasks, said in (("mini_ner,tfns", "tfns is not whole: 25.0 %"), ("fpb", "fpb is not in the data directory")):
        with pytest.raises(FinbenchError, match=said):
            push(benchmark="hub:org/fin", tasks=tasks, data_dir=tmp_path / "data")
    with pytest.raises(FinbenchError, match="No ranked task has its whole set here") as fault:
        push(benchmark="hub:org/fin", data_dir=tmp_path / "data", dry_run=True)
    said = fault.value.message
    assert "Left out, not whole: 25.0 % of the test: tfns." in said
    assert "Left out, not in the data directory: fpb," in said


def test_a_name_that_is_taken_and_a_fork_are_refused(dev_hub: DevHub, api: HfApi, fin: Home) -> None:
    upload(dev_hub, "org/other", {"data.csv": b"1\n"}, kind="dataset")
    with pytest.raises(FinbenchError, match=r"hub:org/other is taken by another data set; nothing was sent"):
        push(benchmark="hub:org/other", tasks=TASKS, dry_run=True)
    with pytest.raises(FinbenchError, match="hub:org/other is no benchmark"):
        home("hub:org/other")
    facts = Path(api.hf_hub_download("org/fin", "benchmark.json", repo_type="dataset")).read_bytes()
    upload(dev_hub, "me/fork", {"benchmark.json": facts}, kind="dataset")
    with pytest.raises(FinbenchError, match=r"hub:me/fork is a copy of hub:org/fin; nothing was sent"):
        push(benchmark="hub:me/fork", tasks=TASKS)
    with pytest.raises(FinbenchError, match=r"hub:me/fork is a copy of the benchmark hub:org/fin"):
        home("hub:me/fork")


def test_a_benchmark_that_was_renamed_is_no_copy_of_itself(dev_hub: DevHub, api: HfApi, fin: Home) -> None:
    api.move_repo("org/fin", "org/finance", repo_type="dataset")
    for name in ("org/fin", "org/finance"):  # the Hub leads from the one to the other
        assert (home(f"hub:{name}").repo, home(f"hub:{name}").registered) == ("org/finance", True)
    with pytest.raises(FinbenchError, match=r"hub:org/fin is called hub:org/finance now; nothing was sent"):
        push(benchmark="hub:org/fin", tasks=TASKS)
    push(benchmark="hub:org/finance", tasks=TASKS)
    stated = json.loads(Path(api.hf_hub_download("org/finance", "benchmark.json", repo_type="dataset")).read_text())
    assert stated["repository"] == "org/finance"
    facts = {**stated, "repository": "org/fin"}  # somebody's copy of the state before
    upload(dev_hub, "me/fork", {"benchmark.json": json.dumps(facts).encode()}, kind="dataset")
    with pytest.raises(FinbenchError, match=r"hub:me/fork is a copy of the benchmark hub:org/fin"):
        home("hub:me/fork")
    for odd in ("nobody/nothing", "a../b", "../../x", 7):
        upload(
            dev_hub,
            f"me/odd{len(str(odd))}",
            {"benchmark.json": json.dumps({"repository": odd}).encode()},
            kind="dataset",
        )
        with pytest.raises(FinbenchError, match="nothing was sent"):
            push(benchmark=f"hub:me/odd{len(str(odd))}", tasks=TASKS, dry_run=True)


def test_a_new_version_says_which_results_do_not_count_any_more(
    fin: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = catalog.shipped_tasks()
    name = "finbench_mini_sentiment"
    newer = {**known, name: known[name].model_copy(update={"version": 99, "digest": "f" * 64})}
    monkeypatch.setattr(catalog, "tasks", lambda: newer)
    push(benchmark="hub:org/fin", tasks=TASKS, dry_run=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "Results of the version before do not count any more on: mini_sentiment." in said


def test_the_results_of_a_model_reach_the_leaderboard(
    dev_hub: DevHub, api: HfApi, fin: Home, cards: Path, llama: Path
) -> None:
    upload(dev_hub, "org/tiny-llama", files_of(llama), private=False)
    card = the_card(cards / "whole")
    push(card, "hub:org/tiny-llama", model=True, benchmark="hub:org/fin")
    path = api.hf_hub_download("org/tiny-llama", ".eval_results/finbench.yaml")
    assert result_faults(Path(path).read_text()) == []
    [entry] = api.model_info("org/tiny-llama", expand=["evalResults"]).eval_results
    score = cardfiles.read(card).scores[0]
    assert (entry.dataset_id, entry.dataset_revision, entry.task_id) == ("org/fin", fin.sha, score.task)
    assert entry.value == round(100 * score.main.value, 1)
    assert entry.source_url == f"{dev_hub.url}/org/tiny-llama/blob/main/finbench/scorecards/{card.name}"
    assert entry.date
    [row] = api.get_dataset_leaderboard("org/fin")
    assert (row.rank, row.model_id, row.value) == (1, "org/tiny-llama", entry.value)


def test_a_proposal_says_that_its_address_leads_there_after_the_merge(
    dev_hub: DevHub, api: HfApi, fin: Home, cards: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(dev_hub, "org/tiny-llama", files_of(llama), private=False)
    card = the_card(cards / "whole")
    for merged in (False, True):
        push(card, "hub:org/tiny-llama", model=True, benchmark="hub:org/fin", pr=not merged)
        revision = "main" if merged else "refs/pr/1"
        path = api.hf_hub_download("org/tiny-llama", ".eval_results/finbench.yaml", revision=revision)
        source = yaml.safe_load(Path(path).read_text())[0]["source"]
        there = api.file_exists("org/tiny-llama", source["url"].partition("/blob/main/")[2])
        assert there == merged
        assert source["name"].endswith("(there once this pull request is merged)") != merged
        assert ("lead to them only after the merge" in " ".join(capsys.readouterr().err.split())) != merged


def test_results_of_a_limit_an_older_version_or_other_rows_are_left_out(
    dev_hub: DevHub, api: HfApi, fin: Home, cards: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(dev_hub, "org/tiny-llama", files_of(llama), private=False)
    push(the_card(cards / "part"), "hub:org/tiny-llama", model=True, benchmark="hub:org/fin")
    assert "is no result of hub:org/fin: 12 rows; it asks 150." in " ".join(capsys.readouterr().err.split())
    assert ".eval_results/finbench.yaml" not in api.list_repo_files("org/tiny-llama")
    card = cardfiles.read(the_card(cards / "whole"))
    [score] = card.scores
    data = score.data.model_copy(update={"digest": "f" * 64})
    for changed, said in (
        ({}, ""),
        ({"version": 1}, "version 1 of the task; it asks version"),
        ({"task_digest": "f" * 64}, "of another definition, though of version"),
        ({"data": data}, "other rows than it asks"),
        ({"task": "finbench_fpb"}, "a task that it does not have"),
    ):
        lacking = fin.lacking(card, score.model_copy(update=changed))
        assert said in lacking
        assert bool(said) == bool(lacking)
    assert "a run with a limit" in fin.lacking(card.model_copy(update={"limit": 150}), score)


def test_who_belongs_nowhere_is_told_so(
    dev_hub: DevHub, api: HfApi, cards: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(dev_hub, "org/tiny-llama", files_of(llama), private=False)
    push(the_card(cards / "whole"), "hub:org/tiny-llama", model=True)
    assert "belong to no benchmark of the Hub" in " ".join(capsys.readouterr().err.split())
    assert ".eval_results/finbench.yaml" not in api.list_repo_files("org/tiny-llama")


def closed_set(home: Path) -> Path:
    """The authors' files of a restricted set, imported as if they were whole."""
    from finbench.data import import_data

    texts = [f"Quarter {n} sales {word}" for n in range(40) for word in ("rose.", "fell.", "were flat.")]
    labels = ["positive", "negative", "neutral"] * 40
    files = []
    for agree in ("50Agree", "66Agree", "75Agree", "AllAgree"):
        files.append(home / f"Sentences_{agree}.txt")
        files[-1].write_text("".join(f"{t}@{la}\n" for t, la in zip(texts, labels, strict=True)), encoding="latin-1")
    import_data("fpb", files, home / "data")
    stated = home / "data" / "fpb" / "dataset.json"
    stated.write_text(json.dumps(json.loads(stated.read_text()) | {"complete": True, "share": None}))
    return home / "data"


def test_rows_that_may_not_be_passed_on_are_hashes_and_a_script_that_makes_them(
    dev_hub: DevHub, api: HfApi, tmp_path: Path
) -> None:
    data = closed_set(tmp_path)
    done = push(benchmark="hub:org/fin", tasks="fpb", data_dir=data)
    folder = Path(api.snapshot_download("org/fin", repo_type="dataset", local_dir=tmp_path / "b"))
    assert not [path for path in folder.rglob("*") if path.is_file() and b"Quarter" in path.read_bytes()]
    assert "CC-BY-NC-SA-3.0 | hashes of the rows" in done.readme
    files = sorted(map(str, tmp_path.glob("Sentences_*.txt")))

    def ran(*more: str) -> Any:
        command = [sys.executable, str(folder / "import_rows.py"), "fpb", *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = ran(*files)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "data/fpb is the benchmark, row for row.")
    other = [Path(file) for file in files]
    for file in other:
        file.write_text(file.read_text(encoding="latin-1").replace("Quarter 3 ", "Period 3 "), encoding="latin-1")
    bad = ran(*files)
    assert (bad.returncode, "is not the benchmark" in bad.stdout) == (1, True)


def test_a_benchmark_of_ones_own_has_its_eval_yaml_and_a_place_of_its_own(
    dev_hub: DevHub, api: HfApi, fin: Home, tmp_path: Path
) -> None:
    rows = [(f"Rate decision {n} was {word}", word) for n in range(60) for word in ("dovish", "hawkish")]
    table = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    (tmp_path / "mine.csv").write_text(table)
    folder = new_task(tmp_path / "mine.csv", text="text", label="label", licence="cc-by-4.0").folder
    push(folder, "hub:me/mine")
    text = Path(api.hf_hub_download("me/mine", "eval.yaml", repo_type="dataset")).read_text()
    assert benchmark_faults(text) == []
    assert yaml.safe_load(text)["tasks"] == [{"id": "mine", "config": "default", "split": "test"}]
    again = push(folder, "hub:me/mine").published
    assert again is not None
    assert not again.new
    upload(dev_hub, "me/other", {"data.csv": b"1\n"}, kind="dataset")
    for taken in ("me/other", "org/fin"):
        with pytest.raises(FinbenchError, match=f"hub:{taken} is taken by another data set; nothing was sent"):
            push(folder, f"hub:{taken}", dry_run=True)
    upload(dev_hub, "me/like", {"mine.yaml": b"task: mine\n"}, kind="dataset")  # somebody's, of the same name
    with pytest.raises(FinbenchError, match="hub:me/like is taken by another data set"):
        push(folder, "hub:me/like", dry_run=True)
    task = folder / "mine.yaml"
    stated = task.read_text()
    task.unlink()
    (folder / "renamed.yaml").write_text(stated.replace("task: mine", "task: renamed"))
    assert push(folder, "hub:me/mine", dry_run=True).plan.exists
    (folder / "renamed.yaml").unlink()
    task.write_text(stated)
    own = yaml.safe_dump(GOOD | {"tasks": [{"id": "mine", "config": "default", "split": "test"}]})
    for stated, fault in (
        (own, None),
        (own.replace("inspect-ai", "lm-eval"), "none that the Hub takes"),
        (own.replace("id: mine", "id: other"), "'other' is no task of"),
        (own.replace("config: default", "config: nothing"), "'nothing' is no configuration that README.md states"),
    ):
        (folder / "eval.yaml").write_text(stated)
        if fault is None:
            push(folder, "hub:me/mine")
            text = Path(api.hf_hub_download("me/mine", "eval.yaml", repo_type="dataset")).read_text()
            assert text == own
        else:
            with pytest.raises(FinbenchError, match=fault):
                push(folder, "hub:me/mine")


def test_nothing_else_is_published_into_a_benchmark(dev_hub: DevHub, api: HfApi, fin: Home, cards: Path) -> None:
    before = api.list_repo_files("org/fin", repo_type="dataset")
    for path in (paths.shipped("tasks"), the_card(cards / "whole")):
        with pytest.raises(FinbenchError, match="hub:org/fin is taken by another data set; nothing was sent"):
            push(path, "hub:org/fin", yes=True)
    assert api.list_repo_files("org/fin", repo_type="dataset") == before


def test_the_hub_validates_what_it_reads(api: HfApi) -> None:
    api.create_repo("org/b", repo_type="dataset")
    for changed, said in (
        ({"evaluation_framework": "lm-eval"}, "none that the Hub takes"),
        ({"tasks": []}, "tasks is required"),
        ({"tasks": [{"config": "c"}]}, "id is required"),
        ({"tasks": [{"id": "a"}, {"id": "a"}]}, "a is there twice"),
        ({"name": ""}, "name is required"),
        ({"metrics": []}, "metrics is not known"),
    ):
        text = yaml.safe_dump(GOOD | changed)
        assert any(said in fault for fault in benchmark_faults(text))
        with pytest.raises((BadRequestError, HfHubHTTPError), match=said):
            api.create_commit(
                "org/b",
                [CommitOperationAdd("eval.yaml", text.encode())],
                commit_message="wrong",
                repo_type="dataset",
            )
    assert benchmark_faults("[") == benchmark_faults("- a") == ["eval.yaml is no YAML mapping"]
    started = time.process_time()  # a megabyte of them took ten seconds
    for many in ("a: [" + "[]," * 100_000 + "1]", "a:\n" + "- x\n" * 100_000):
        assert benchmark_faults(many) == ["eval.yaml is no YAML mapping"]
    assert time.process_time() - started < 1
    with pytest.raises(HfHubHTTPError, match="404"):
        api.get_dataset_leaderboard("org/b")
    good: dict[str, Any] = {"dataset": {"id": "org/b", "task_id": "a"}, "value": 1.5}
    assert result_faults(yaml.safe_dump([good])) == []
    for changed in ({"value": "high"}, {"dataset": {"id": "b"}}, {"date": "soon"}, {"source": {"name": "x"}}, {"n": 1}):
        assert len(result_faults(yaml.safe_dump([good | changed]))) == 1
    assert result_faults("a: 1") == ["a list of results is expected"]


def test_a_push_says_what_is_missing() -> None:
    with pytest.raises(FinbenchError, match="Say what to publish") as fault:
        push()
    assert "finbench push --benchmark hub:org/name" in fault.value.hint
    with pytest.raises(FinbenchError, match="Say where it goes"):
        push(Path(), benchmark="hub:org/fin")
    with pytest.raises(FinbenchError, match="nothing"):
        push(benchmark="hub:org/fin", tasks="nothing")


def test_a_benchmark_is_named_for_results_in_a_model_alone(dev_hub: DevHub, fin: Home, cards: Path) -> None:
    with pytest.raises(FinbenchError, match="results in a model's repository"):
        push(cards / "whole", "hub:org/results", benchmark="hub:org/fin")
