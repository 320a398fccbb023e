"""The command line: exit codes, one-line faults, JSON, and what each listing shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from finbench.cards import cardfiles
from finbench.cli import app
from finbench.cli.command import RecipeOptions
from finbench.cli.show import trainings
from finbench.core import catalog, console, refs
from finbench.core.errors import FinbenchError, near_misses
from finbench.evaluation import check, doctor
from finbench.methods import METHODS
from finbench.models import adapters
from finbench.scoring import prompts
from finbench.training import recipes


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_an_unknown_task_is_told_before_torch_is_imported() -> None:
    code = (
        "import sys; from finbench.cli.app import app; from typer.testing import CliRunner as R\n"
        "done = R().invoke(app, ['eval', '--model', 'smollm2-135m', '--tasks', 'nope'])\n"
        "print(str(done.exception).splitlines()[0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "Unknown task 'nope'. Did you mean noise or ner? False\n", done.stderr


def test_a_fault_is_one_line_and_what_to_type_with_exit_1() -> None:
    done = run("train", "--task", "fbp")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: Unknown task 'fbp'. Did you mean fpb?",
        "See them all: finbench tasks list",
    ]


def test_debug_shows_the_trace() -> None:
    done = run("train", "--task", "fbp", FINBENCH_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_wrong_usage_exits_2() -> None:
    assert run("eval", "--no-such-option").returncode == 2
    assert run("train", "--rank", "many").returncode == 2


def test_an_argument_that_is_none_is_told_its_option(capsys: Any) -> None:
    done = CliRunner().invoke(app.app, ["eval", "runs/fpb", "--tasks", "fpb"])
    said = " ".join(done.output.replace("│", " ").split())
    assert done.exit_code == 2
    assert "extra argument(s) (runs/fpb)" in said
    assert "an adapter by --adapter, a model by --model, tasks by --tasks" in said
    done = CliRunner().invoke(app.app, ["bases", "smollm2"])
    assert done.exit_code == 2
    assert "named by" not in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval",), "Which tasks?"),
        (("eval", "--adapter", "./nowhere", "--tasks", "mini"), "No such adapter folder"),
        (("eval", "--adapter", "zoo:fpb-smollm2-135m-lora"), "recipe without a published adapter"),
        (("eval", "--adapter", "zoo:fpb-smollm2-135m-lroa"), "Did you mean fpb-smollm2-135m-lora"),
        (("eval", "--model", "smollm2-135", "--tasks", "mini"), "Did you mean smollm2-135m"),
        (("eval", "--model", "x", "--engine", "dummy", "--tasks", "mini", "--bits", "5"), "16, 8 or 4"),
        (("train", "fpb-smollm2-135m-lroa"), "Did you mean fpb-smollm2-135m-lora"),
        (("train", "./no/such.yaml"), "No such recipe"),
        (("train", "--task", "fpb", "--name", "My LoRA+"), "--name my-lora"),
        (("train",), "No task and no data are named"),
        (("train", "--task", "mini_ner", "--set", "drpout=0.1"), "did you mean dropout"),
        (("train", "--task", "mini_ner", "--set", "dropout"), "key=value"),
        (("train", "--task", "mini_ner", "--base", "hub:a/../b"), "Not a valid reference"),
        (("train", "--task", "mini_ner", "--bits", "5"), "bits"),
        (("data", "import", "fpb", "no.txt"), "No such file"),
        (("data", "import", "fpb", "no.txt"), str(Path.cwd())),
        (("data", "import", "fbp", "no.txt"), "Did you mean fpb"),
        (("tasks", "show", "nothing"), "Unknown task"),
        (("compare", "no.json", "other.json"), "No such scorecard"),
        (("verify", "no.json"), "No such scorecard"),
        (("report", "no.json"), "No such scorecard"),
        (("report", ".", "--format", "pdf"), "Unknown format 'pdf'"),
        (("card", "import", "nowhere"), "no record of Every Eval Ever: nowhere"),
        (("card", "export", "no.json", "--format", "model_index"), "Did you mean model-index"),
        (("zoo", "show", "nothing"), "Unknown recipe"),
        (("verify", "."), ". is a folder, not a scorecard. finbench eval writes them: scorecards/<subject>.json"),
        (("compare", ".", "."), "No scorecard is there"),
        (("push", ".", "org/name"), "to push to. Did you mean hub:org/name?"),
        (("pull", "org/name", "--out", "mine"), "org/name is no reference to the Hub. Did you mean hub:org/name?"),
        (("zoo", "add", "./mine"), "./mine is no reference to the Hub. Write hub:org/name"),
        (("eval", "--adapter", "org/name", "--tasks", "mini"), "Did you mean hub:org/name?"),
    ],
)
def test_faults_are_told_without_a_trace(
    arguments: tuple[str, ...], message: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["finbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    said = " ".join(capsys.readouterr().err.split())
    assert stopped.value.code == 1
    assert message in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "list"),
        ("tasks", "show", "fpb"),
        ("zoo", "list"),
        ("bases",),
        ("methods",),
        ("data", "list"),
        ("doctor",),
    ],
)
def test_listings_for_people_and_for_programs(arguments: tuple[str, ...], capsys: Any, monkeypatch: Any) -> None:
    for extra in ((), ("--json",)):
        monkeypatch.setattr(sys, "argv", ["finbench", *arguments, *extra])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        shown = capsys.readouterr().out
        assert stopped.value.code in (0, None)
        assert len(shown.split()) > 5
    assert json.loads(shown)


def shown(capsys: Any, monkeypatch: Any, *arguments: str) -> str:
    """What a command prints that ends well."""
    monkeypatch.setattr(sys, "argv", ["finbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code in (0, None)
    return str(capsys.readouterr().out)


def because_of(cause: OSError) -> FinbenchError:
    fault = FinbenchError("c.json is torn or not JSON.", "Move it away.")
    fault.__cause__ = cause
    return fault


@pytest.mark.parametrize(
    "fault",
    [
        OSError(24, "Too many open files", "x.py"),
        OSError(23, "Too many open files"),
        because_of(OSError(24, "Too many open files", "c.json")),  # whose hint would have it moved away
        RuntimeError("unable to open file <a.safetensors> in read-only mode: Too many open files (24)"),  # safetensors
    ],
)
def test_too_many_open_files_are_one_line_wherever_they_are_missed(
    fault: Exception, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "app", Mock(side_effect=fault))
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: Too many files are open")
    assert said.endswith("Allow more, then repeat the command: ulimit -n 4096\n")


@pytest.mark.parametrize("arguments", [("bases", "--json"), ("bases",)], ids=["typer", "rich"])
def test_an_output_that_nobody_reads_any_more_is_no_fault(
    arguments: tuple[str, ...], capfd: Any, monkeypatch: Any
) -> None:
    """As of every program before `| head`: no message, and the exit code of SIGPIPE, not that of a fault."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        monkeypatch.setattr(console.out, "quiet", False)  # rich sets it, for good
        monkeypatch.setattr(sys, "argv", ["finbench", *arguments])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        os.dup2(os.open(os.devnull, os.O_WRONLY), nobody.fileno())
    assert stopped.value.code == 141
    assert capfd.readouterr().err == ""


def test_a_method_states_what_it_starts_from(capsys: Any, monkeypatch: Any) -> None:
    assert "lr 0.001, rank 16, alpha 32" in shown(capsys, monkeypatch, "methods", "lora")
    assert "lr 0.001, rank 16, alpha 32, bits 4" in shown(capsys, monkeypatch, "methods", "irqlora")
    assert "alpha" not in shown(capsys, monkeypatch, "methods", "vera").split("defaults")[1].splitlines()[0]


def test_a_command_that_makes_several_sets_is_listed_once(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    listed = shown(capsys, monkeypatch, "data", "list", "--data-dir", str(tmp_path)).splitlines()
    [filings] = [line for line in listed if "xbrl FILINGS" in line and "finlora" not in line]
    assert filings.split("#")[1].split(", ") == [
        " xbrl_reason",
        "xbrl_calc",
        "xbrl_formula",
        "xbrl_tags",
        "xbrl_values",
    ]
    with pytest.raises(FinbenchError) as fault:
        prompts.load(catalog.expand(["xbrl"]), tmp_path)
    assert len((fault.value.hint or "").splitlines()) == len(set((fault.value.hint or "").splitlines()))


def test_letters_that_changed_places_are_the_first_guess() -> None:
    assert near_misses("lroa", METHODS)[0] == "lora"


def test_an_unknown_key_is_not_answered_with_a_refused_one() -> None:
    with pytest.raises(FinbenchError) as fault:
        recipes.recipe(None, {"tasks": ["mini_ner"], "lr_ratio": 3})
    assert "'lr_ratio' (an option of lora+)" in fault.value.message
    assert "use_bdlora" in str(fault.value)
    assert "modules_to_save" not in str(fault.value)


def test_the_tasks_path_is_where_lm_eval_finds_them() -> None:
    from lm_eval.tasks import TaskManager

    done = run("tasks", "path")
    manager = TaskManager(include_path=done.stdout.strip(), include_defaults=False)
    assert set(manager.all_subtasks) == set(catalog.tasks())
    assert set(manager.all_groups) == set(catalog.groups())


def test_a_shown_recipe_can_be_trained_from(tmp_path: Path) -> None:
    done = run("zoo", "show", "fpb-smollm2-135m-lora")
    (tmp_path / "mine.yaml").write_text(done.stdout)
    mine = recipes.recipe(str(tmp_path / "mine.yaml"))
    assert mine.name == "mine-s0"
    assert mine.model_dump(exclude={"name"}) == recipes.recipe("fpb-smollm2-135m-lora").model_dump(exclude={"name"})


def test_an_adapter_is_trained_again_by_its_own_record(tmp_path: Path) -> None:
    record = min((Path(__file__).parent.parent / "benchmarks" / "flagship" / "adapters").glob("*.json"))
    kept = json.loads(record.read_text(encoding="utf-8"))["record"]
    (tmp_path / "finbench.json").write_text(json.dumps(kept), encoding="utf-8")
    stated = kept["recipe"]
    assert json.loads(recipes.recipe(str(tmp_path)).to_json()) | {"name": ""} == stated | {"name": ""}
    other = RecipeOptions(str(tmp_path), seed=stated["seed"] + 1).resolved()
    assert (other.seed, other.rank, other.lr) == (stated["seed"] + 1, stated["rank"], stated["lr"])
    assert other.name.endswith(f"-lora-s{other.seed}")
    assert recipes.recipe(str(tmp_path), {"method": "ia3"}).method == "ia3"  # which has no rank
    dora = recipes.recipe(str(tmp_path), {"method": "dora"})
    assert (dora.lr, dora.epochs) == (recipes.recipe(None, {"method": "dora", "task": "fpb"}).lr, stated["epochs"])
    forged = {**stated, "base": "hub:stranger/model@0123", "data": [{"source": "/etc/passwd.csv"}]}
    (tmp_path / "finbench.json").write_text(json.dumps(kept | {"recipe": forged}), encoding="utf-8")
    with pytest.raises(FinbenchError, match=r"hub:stranger/model@0123, which bases\.yaml does not know"):
        recipes.recipe(str(tmp_path))
    [part] = recipes.recipe(str(tmp_path), {"base": "smollm2-135m"}).data
    assert Path(part.source) == Path("passwd.csv").resolve()  # a file that lies here, and no other
    (tmp_path / "finbench.json").unlink()
    with pytest.raises(FinbenchError, match=r"has no finbench\.json, which says how an adapter was trained"):
        recipes.recipe(str(tmp_path))


def test_a_recipe_keeps_its_name_where_the_name_is_still_true() -> None:
    names = [
        recipes.recipe("fpb-smollm2-135m-lora", changes).name
        for changes in ({}, {"limit": 9, "seed": 2, "bits": 4}, {"base": "gpt2"}, {"method": "dora"})
    ]
    assert names == [
        "fpb-smollm2-135m-lora-s0",
        "fpb-smollm2-135m-lora-s2",
        "fpb-gpt2-lora-s0",
        "fpb-smollm2-135m-dora-s0",
    ]


def test_a_null_takes_back_what_a_recipe_states(tmp_path: Path) -> None:
    stated = {"tasks": ["mini_ner"], "limit": 8, "method": "rosa", "options": {"save_rank": 4}}
    (tmp_path / "r.yaml").write_text(json.dumps(stated))
    changed = RecipeOptions(str(tmp_path / "r.yaml"), limit=16, set=["limit=null", "save_rank="]).resolved()
    assert (changed.limit, changed.options) == (None, {"save_rank": None})
    assert changed.rank == recipes.recipe(str(tmp_path / "r.yaml")).rank
    with pytest.raises(FinbenchError, match="rank: .*valid integer, got None"):
        RecipeOptions(str(tmp_path / "r.yaml"), set=["rank=null"]).resolved()


def test_tasks_to_learn_have_commas_between_or_an_option_each() -> None:
    wanted = {"finbench_mini_ner": 0.5, "finbench_mini_headline": 1.0, "finbench_mini_sentiment": 1.0}
    for stated in (["mini_ner:0.5, mini_headline,mini_sentiment"], ["mini_ner:0.5", "mini_headline,mini_sentiment"]):
        assert RecipeOptions(task=stated, base="smollm2-135m").resolved(fitted=False).tasks == wanted


def test_near_misses_among_files(tmp_path: Path) -> None:
    (tmp_path / "tiny-s0.json").write_text("{}")
    with pytest.raises(FinbenchError, match=r"Did you mean .*tiny-s0\.json\?"):
        cardfiles.read(tmp_path / "tiny-s0")
    (tmp_path / "tiny-lora-s0").mkdir()
    (tmp_path / "tiny-lora-s0" / "adapter_config.json").write_text("{}")
    with pytest.raises(FinbenchError, match=r"Did you mean .*tiny-lora-s0\?"):
        adapters.find(str(tmp_path / "tiny-lora-s1"))


def test_doctor_names_a_set_of_several_tasks_once(tmp_path: Path) -> None:
    named = [finding.what for finding in doctor.examine_machine(tmp_path) if finding.what.startswith("data ")]
    assert "data fiqa_sa" in named
    assert len(named) == len(set(named))


def test_version() -> None:
    assert run("--version").stdout.strip() == __import__("finbench").__version__


def test_an_unreadable_result_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("eval", "--engine", "dummy", "--tasks", "mini_sentiment", "--out", str(tmp_path / "file" / "cards"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision"),
    [
        ("hub:org/name", "hub", "org/name", None),
        ("hub:org/name@v1.0", "hub", "org/name", "v1.0"),
        ("zoo:fpb", "zoo", "fpb", None),
        ("./a", "folder", "./a", None),
        ("a/b", "folder", "a/b", None),
        ("~/a", "folder", "~/a", None),
        ("smollm2-135m", "name", "smollm2-135m", None),
    ],
)
def test_references_are_parsed(text: str, kind: str, name: str, revision: str | None) -> None:
    assert refs.parse(text) == refs.Ref(kind, name, revision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hub:",
        "hub:name",
        "hub:a/b/c",
        "hub:../x",
        "hub:a/..",
        "hub:a/b@../c",
        "hub:/etc/passwd",
        "hub:a\\b",
        "hub:a/b\n",
        "hub:a/b\0",
        "hub:" + "a" * 97 + "/b",
        "hub:а/b",
        "hub:a--b/c",
        "hub:a/b.git",
        "hub:file:///x",
        "file:///etc/passwd",
        "https://x/y",
        "zoo:../x",
        "zoo:",
        "a\0b",
        "hub:.a/b",
        "hub:a/b@",
        "hub:a/b@-x",
        "na me",
    ],
)
def test_hostile_references_are_refused(text: str) -> None:
    with pytest.raises(FinbenchError, match="Not a valid reference"):
        refs.parse(text)


# ---------------------------------------------------------------- tasks check


def test_all_is_well_with_what_ships() -> None:
    assert check.check_tasks() == []


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of tasks/ to break, which finbench takes for its own."""
    import shutil

    from finbench.core import paths

    folders = {name: paths.shipped(name) for name in ("tasks", "adapters_zoo")}
    shutil.copytree(folders["tasks"], tmp_path / "tasks")
    folders["tasks"] = tmp_path / "tasks"
    monkeypatch.setattr(paths, "shipped", lambda name: folders[name])
    catalog.shipped_tasks.cache_clear()
    catalog.tasks.cache_clear()
    catalog.groups.cache_clear()
    yield tmp_path / "tasks"
    catalog.shipped_tasks.cache_clear()
    catalog.tasks.cache_clear()
    catalog.groups.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new", "finding"),
    [
        ("finbench_fpb.yaml", "metadata:", "metadata: [", "not valid YAML"),
        ("finbench_fpb.yaml", "  version: 7", "  version: 7\n  version: 8", "key 'version' twice"),
        ("finbench_fpb.yaml", "task: finbench_fpb", "task: finbench_fbp", "must have one name"),
        ("finbench_fpb.yaml", "doc_to_text:", "doc_to_txt:", "knows no key 'doc_to_txt'"),
        ("finbench_fpb.yaml", "  finbench_licence: CC-BY-NC-SA-3.0\n", "", "'licence' is missing"),
        (
            "finbench_fpb.yaml",
            "finbench_main_metric: macro_f1",
            "finbench_main_metric: f1",
            "main metric 'f1' is not in",
        ),
        ("finbench_fpb.yaml", "{{text}}", "{{txet}}", "lm-eval cannot build it"),
        ("finbench_fpb.yaml", "label: positive}", "label: postive}", "gold answers score"),
        ("finbench_fpb.yaml", "Sentence:", "Text:", "its version is still 7"),
        ("_labels_generate", "aggregation: mean", "aggregation: meen", "no aggregation 'meen'"),
        ("_labels_generate", "lib.labels.score\n", "lib.labels.scoer\n", "has no function 'scoer'"),
        ("_labels_generate", "training_split: train", "training_split: test", "training_split is 'test'"),
        ("_labels_generate", "fewshot_split: train", "fewshot_split: test", "fewshot_split is 'test'"),
        ("_labels_generate", "test_split: test", "test_split: train", "test_split is 'train'"),
        ("_labels_generate", "doc_to_target: label", "doc_to_target: label\nrepeats: 5", "repeats is not 1"),
        ("_labels_generate", "{metric: acc, aggregation: mean", "{metric: acc, aggregation: bleu", "scorer fails"),
        ("_labels_generate", "macro_f1, higher_is_better: true", "macro_f1, higher_is_better: false", "macro_f1 is 1"),
        (
            "_labels_generate",
            "doc_to_target: label",
            "doc_to_target: label\nfilter_list:\n- {name: x, filter: [{function: regex, regex_pattern: (zzz)}, "
            "{function: take_first}]}",
            "gold answers score",
        ),
        ("finbench_tfns.yaml", "finbench_set: tfns", "finbench_set: tfnss", "no data set is called 'tfnss'"),
        ("finbench_tfns.yaml", "random_acc: 0.333", "random_acc: 5.0", "not a share of 1"),
        ("finbench_tfns.yaml", "Tweet: {{text}}", "Tweet: {{text}} {{label}}", "gives the answer away"),
        ("finbench_tfns.yaml", "Tweet: {{text}}", "Tweet:", "does not show the text"),
        ("finbench_tfns.yaml", "  version: 7", "  version: 1", "version went back from 7 to 1"),
        ("golden/finbench_tfns.json", '"version": 7', '"version": null', "is torn"),
        ("finbench_sentiment.yaml", "metric: acc, aggregation: mean", "metric: acc, aggregation: median", "is mean"),
        (
            "finbench_sentiment.yaml",
            "metric: acc, aggregation: mean",
            "metric: nonsense, aggregation: mean",
            "no member",
        ),
        ("finbench_sentiment.yaml", "finbench_tfns,", "finbench_tfns, finbench_tfns,", "named twice"),
        ("finbench_mini.yaml", "task: [", "task: [finbench_tfns, ", "belongs to finbench, but is in finbench_mini"),
        ("finbench_sentiment.yaml", "finbench_tfns,", "finbench_tfsn,", "member 'finbench_tfsn' does not exist"),
        (
            "lib/labels.py",
            "answers.label(answer, labels)",
            "answers.label(answer, labels) or labels[0]",
            "empty answers score",
        ),
        ("mini/mini_sentiment.test.jsonl", '"label":"neutral"', '"label":"flat"', "mini_sentiment.test.jsonl:"),
    ],
)
def test_every_fault_of_a_task_is_found(
    name: str, old: str, new: str, finding: str, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = broken / name
    # what lm-eval makes of a task takes a while: only of those that may be hit (.ci/run checks all)
    near, real = {path.stem, "finbench_fpb", "finbench_tfns", "finbench_mini_sentiment"}, check.task_faults
    monkeypatch.setattr(check, "task_faults", lambda task, write: real(task, write) if task.name in near else [])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = check.check_tasks()
    assert any(finding in line for line in found), found


def test_a_leak_in_a_shipped_set_is_found(broken: Path) -> None:
    test, train = (broken / "mini" / f"mini_sentiment.{split}.jsonl" for split in ("test", "train"))
    train.write_text(
        train.read_text()
        + test.read_text()
        .splitlines()[0]
        .upper()
        .replace('"TEXT"', '"text"')
        .replace('"LABEL"', '"label"')
        .replace('"ID"', '"id"')
        .replace("NEGATIVE", "negative")
        .replace("NEUTRAL", "neutral")
        .replace("POSITIVE", "positive")
        + "\n"
    )
    assert any("texts of test are in train" in line for line in check.check_tasks())


def test_several_faults_are_reported_at_once(broken: Path) -> None:
    for name in ("finbench_fpb.yaml", "finbench_tfns.yaml", "finbench_mini_ner.yaml"):
        (broken / name).write_text((broken / name).read_text().replace("metadata:", "metadata: [", 1))
    found = check.check_tasks()
    assert sum("not valid YAML" in line for line in found) >= 3


def test_off_a_terminal_progress_is_a_line_now_and_then(capsys: Any) -> None:
    from finbench.core.console import Lines

    lines = Lines(every=0.0)
    number = lines.add_task("fpb", total=9)
    lines.advance(number, 3)
    lines.update(number, completed=8, note="loss 0.5")
    said = [re.sub(r"  \d+ s left$", "", line) for line in capsys.readouterr().err.splitlines()]
    assert said == ["fpb: 3 of 9  ", "fpb: 8 of 9  loss 0.5"]
    quiet = Lines(every=60.0)
    quiet.advance(quiet.add_task("tfns", total=9), 3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("method", "ranked"), [("lora", True), ("fourierft", False)])
def test_a_plan_shows_a_rank_where_there_is_one(method: str, ranked: bool, capsys: Any) -> None:
    recipe = recipes.recipe(None, {"tasks": ["mini_ner"], "method": method}).model_dump()
    base = {"alias": "tiny", "source": "local"}
    counts = {
        "rows": 1,
        "steps": 1,
        "tokens": 1,
        "computed": 1,
        "loop": "packed",
        "padding": 0.0,
        "gradient_checkpointing": False,
        "validation": None,
    }
    said = {"first_pair": ("a", "b"), "becomes": "plain LoRA"}
    for folder in (Path("runs/x"), Path("runs") / recipe["name"]):
        trainings.planned({"recipe": recipe, "base": base, **said, **counts}, folder)
        shown = " ".join(capsys.readouterr().out.split())
        assert ("rank" in shown) is ranked
        assert (f"{recipe['name']}, in scorecards; --name gives another" in shown) is (folder.name == "x")
